"""UniBriVL's captioner at toy size: its prefix, its loss, its search, and where its parts come from."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from tiny_towers import AUDIO, HEAD, sounds, unibrivl_config
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from unibrivl.modeling.modeling_unibrivl import UniBriVLAudioModel, UniBriVLModel
from unibrivl.modeling.modeling_unibrivl_captioning import UniBriVLForAudioCaptioning, resample_frames
from unibrivl.modeling.modeling_unibrivl_heads import UniBriVLForAudioClassification

END = 2
WORDS = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": END}
LANGUAGE: dict[str, dict] = {
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, **WORDS},
    "opt": {
        "model_type": "opt",
        "hidden_size": 16,
        "word_embed_proj_dim": 12,  # OPT-350m's peculiarity: embeddings narrower than the layers
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 24,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        **WORDS,
    },
    "llama": {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        **WORDS,
    },
}
CAPTIONS = torch.tensor([[5, 6, 7, 8, END], [9, 10, END, -100, -100]])


def build(audio="hubert", language="gpt2", seed=0, lively=True, **fields):
    torch.manual_seed(seed)
    config = unibrivl_config(audio, decoder_config=dict(LANGUAGE[language]), **{"prefix_length": 4, **fields})
    model = UniBriVLForAudioCaptioning(config).eval()
    with torch.no_grad():
        for weight in [*model.decoder.parameters(), *model.prefix.parameters()]:
            if lively and weight.dim() == 2:  # else every caption is one word over and over
                weight.normal_(std=0.4)
    return model


def language_model(name="gpt2", seed=3):
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**LANGUAGE[name])).eval()


def same(ours, other):
    return ours.keys() == other.keys() and all(torch.equal(ours[name], other[name]) for name in ours)


def close(ours, other, atol=1e-5):
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)


# ---- the prefix -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_each_vector_is_the_mean_of_its_stretch(steps):
    """Against torch's adaptive pooling of every clip alone; clips shorter than the prefix repeat frames."""
    lengths = [1, 2, 3, 7, 10, 11, 29, 40]
    frames = torch.randn(len(lengths), 40, 6)
    mask = (torch.arange(40) < torch.tensor(lengths)[:, None]).long()
    ours = resample_frames(frames, mask, steps)
    for row, length in enumerate(lengths):
        alone = frames[row : row + 1, :length]
        close(ours[row : row + 1], functional.adaptive_avg_pool1d(alone.transpose(1, 2), steps).transpose(1, 2))
        close(resample_frames(alone, None, steps), ours[row : row + 1])
    close(resample_frames(frames.flip(1), mask.flip(1), steps), resample_frames(frames, mask, steps).flip(1))


def test_a_stretch_by_hand():
    frames = torch.arange(7.0)[None, :, None]
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    assert resample_frames(frames, mask, 2).flatten().tolist() == [1.0, 3.0]  # frames 0 to 2, and 2 to 4
    assert resample_frames(frames[:, :2], mask[:, :2], 4).flatten().tolist() == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("audio", ["speechlm", "hubert", "whisper", "mel_encoder", "clap"])
def test_every_kind_of_tower_makes_a_prefix(audio):
    model = build(audio)
    inputs = sounds(audio)
    prefix = model.encode_prefix(**inputs)
    assert prefix.shape == (2, 4, 16)
    frames = model.audio_model(**inputs)
    expected = model.prefix.fc2(torch.tanh(model.prefix.fc1(resample_frames(frames[0], frames.frame_mask, 4))))
    assert torch.equal(prefix, expected)
    assert model.generate(**inputs, max_new_tokens=3).shape[0] == 2


# ---- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGE)
def test_the_loss_is_the_language_models_own_on_the_caption(language):
    """Prefix and whole caption through the language model with its own labels, none on the prefix."""
    model = build(language=language)
    inputs = sounds("hubert")
    output = model(**inputs, labels=CAPTIONS)
    prefix = model.encode_prefix(**inputs)
    words = model.decoder.get_input_embeddings()(CAPTIONS.clamp(min=0))
    unscored = torch.full(prefix.shape[:2], -100)
    theirs = model.decoder(
        inputs_embeds=torch.cat([prefix, words], 1), labels=torch.cat([unscored, CAPTIONS], 1), use_cache=False
    )
    torch.testing.assert_close(output.loss, theirs.loss, atol=1e-6, rtol=1e-6)
    close(output.logits, theirs.logits[:, 3:-1])
    by_hand = -output.logits.log_softmax(-1).gather(2, CAPTIONS.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(output.loss, by_hand[CAPTIONS >= 0].mean(), atol=1e-6, rtol=1e-6)
    assert output.logits.shape == (2, 5, 40)
    close(model(**inputs).logits, output.logits[:, :1])
    pair = model(**inputs, labels=CAPTIONS, return_dict=False)
    assert torch.equal(pair[0], output.loss)


def test_a_sound_and_its_caption_in_a_batch_are_what_they_are_alone():
    model = build("speechlm")
    inputs = sounds("speechlm")
    together = model(**inputs, labels=CAPTIONS)
    alone = model(inputs["input_values"][1:, :2500], labels=CAPTIONS[1:, :3])
    close(together.logits[1:, :3], alone.logits)
    first = model(inputs["input_values"][:1], labels=CAPTIONS[:1])
    close(together.loss, (5 * first.loss + 3 * alone.loss) / 8)
    captions = model.generate(**inputs)
    single = model.generate(inputs["input_values"][1:, :2500])
    assert torch.equal(captions[1:, : single.shape[1]], single)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([5, 6]), r"\(batch, tokens\)"),
        (torch.empty(2, 0, dtype=torch.long), "at least one token"),
        (torch.tensor([[5, 6], [-100, 7]]), "pad on the right"),
        (torch.tensor([[5, -100, 6], [5, 6, 7]]), "pad on the right"),
        (torch.tensor([[5, 6], [-100, -100]]), "leave no caption empty"),
    ],
)
def test_labels_that_would_train_on_nonsense_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        build()(**sounds("hubert"), labels=labels)


# ---- the search -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGE)
def test_greedy_search_is_the_argmax_step_by_step(language):
    model = build(language=language)
    inputs = sounds("hubert")
    found = model.generate(**inputs, num_beams=1, max_new_tokens=8)
    for row in range(2):
        one = {name: value[row : row + 1] for name, value in inputs.items()}
        words: list[int] = []
        while len(words) < 8 and END not in words:
            labels = None if not words else torch.tensor([[*words, END]])
            words.append(int(model(**one, labels=labels).logits[0, -1].argmax()))
        pad = model.generation_config.pad_token_id
        assert len(set(words)) > 1
        assert found[row].tolist() == words + [pad] * (found.shape[1] - len(words))


@pytest.mark.parametrize("language", LANGUAGE)
def test_by_default_five_beams_look_for_22_tokens(language):
    model = build(language=language)
    inputs = sounds("hubert")
    model.generation_config.eos_token_id = model.decoder.generation_config.eos_token_id = None  # runs to the end
    prefix = model.encode_prefix(**inputs)
    expected = model.decoder.generate(
        inputs_embeds=prefix, attention_mask=torch.ones(2, 4), num_beams=5, max_new_tokens=22, do_sample=False
    )
    found = model.generate(**inputs)
    assert found.shape == (2, 22) and torch.equal(found, expected)


def test_lengths_count_the_caption_and_not_the_prefix():
    model = build()
    model.generation_config.eos_token_id = model.decoder.generation_config.eos_token_id = None
    inputs = sounds("hubert")
    for wish in (
        {"max_new_tokens": 6},
        {"max_length": 6},
        {"generation_config": GenerationConfig(max_new_tokens=6)},
        {"generation_config": GenerationConfig(max_length=6, num_beams=2)},
        {"generation_config": GenerationConfig(max_length=9), "max_new_tokens": 6},
    ):
        assert model.generate(**inputs, **wish).shape == (2, 6), wish
    model.generation_config.max_new_tokens = 7
    assert model.generate(**inputs).shape == (2, 7)
    assert model.generate(**inputs, num_return_sequences=3).shape == (6, 7)
    one = {name: value[:1] for name, value in inputs.items()}
    model.generation_config.eos_token_id = int(model.generate(**one, num_beams=1)[0, 2])
    assert model.generate(**one, num_beams=1).shape[1] <= 3
    for wish in ({"min_length": 5}, {"min_new_tokens": 5}):
        assert model.generate(**one, num_beams=1, **wish).shape[1] >= 5


def test_sampling_is_decided_by_the_torch_seed():
    model = build()
    captions = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        captions.append(model.generate(**sounds("hubert"), do_sample=True))
    assert torch.equal(captions[0], captions[1])
    assert not torch.equal(captions[0], captions[2])  # which is also true of unlike shapes
    answer = model.generate(**sounds("hubert"), return_dict_in_generate=True, output_scores=True)
    assert answer.sequences.shape[0] == 2 and len(answer.scores) >= 1


# ---- saving, loading, parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGE)
def test_save_and_load(language, tmp_path):
    """Tied (gpt2, opt) and untied (llama) outputs; the search comes back as it was set."""
    model = build(language=language)
    model.generation_config.num_beams = 3
    model.save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"config.json", "generation_config.json", "model.safetensors"}
    tied = language != "llama"
    assert ("decoder.lm_head.weight" in load_file(tmp_path / "model.safetensors")) is not tied
    torch.manual_seed(9)
    again, report = UniBriVLForAudioCaptioning.from_pretrained(tmp_path, output_loading_info=True)
    assert same(again.state_dict(), model.state_dict())
    assert not report["missing_keys"] and not report["unexpected_keys"]
    output_weight = again.get_output_embeddings().weight
    assert (output_weight.data_ptr() == again.get_input_embeddings().weight.data_ptr()) is tied
    assert again.generation_config.num_beams == 3
    assert torch.equal(again.generate(**sounds("hubert")), model.generate(**sounds("hubert")))


def test_the_special_tokens_of_the_language_model_survive(tmp_path):
    """Llama 3 ends with one of several tokens, which only its generation_config.json says."""
    decoder = language_model("llama")
    decoder.generation_config = GenerationConfig(
        eos_token_id=[END, 7], bos_token_id=1, do_sample=True, temperature=0.6, top_p=0.9
    )
    torch.manual_seed(0)
    tower = AutoModel.from_config(AutoConfig.for_model(**AUDIO["hubert"]))
    model = UniBriVLForAudioCaptioning.from_pretrained_parts(tower, decoder, text_config=None, **HEAD)
    assert model.generation_config.pad_token_id == END and not model.generation_config.do_sample
    model.save_pretrained(tmp_path)
    again = UniBriVLForAudioCaptioning.from_pretrained(tmp_path)
    assert again.generation_config.eos_token_id == [END, 7] and again.generation_config.num_beams == 5
    assert again.config.prefix_length == 10


def test_a_folder_without_generation_config_searches_as_by_default(tmp_path):
    model = build(text="clip")  # whose config has other special tokens
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    again = UniBriVLForAudioCaptioning.from_pretrained(tmp_path)
    assert again.generation_config.to_diff_dict() == model.generation_config.to_diff_dict()
    assert again.generation_config.eos_token_id == END


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize(
    "cls", [UniBriVLModel, UniBriVLAudioModel, UniBriVLForAudioClassification, UniBriVLForAudioCaptioning]
)
def test_the_language_tower_of_any_unibrivl_can_be_taken(cls, saved, tmp_path):
    """With its head, bit for bit; what it was taken from stays as it was."""
    torch.manual_seed(0)
    fields = {"decoder_config": dict(LANGUAGE["opt"])} if cls is UniBriVLForAudioCaptioning else {}
    source = cls(unibrivl_config("hubert", **fields)).eval()
    trunk = getattr(source, "audio_model", source)
    heard = trunk(**sounds("hubert"))
    if saved:
        source.save_pretrained(tmp_path / "audio")
        language_model().save_pretrained(tmp_path / "language")
    torch.manual_seed(1)
    model = UniBriVLForAudioCaptioning.from_pretrained_parts(
        str(tmp_path / "audio") if saved else source,
        str(tmp_path / "language") if saved else language_model(),
        prefix_length=6,
        freeze_decoder=True,
    )
    assert not model.training and model.config.prefix_length == 6 and source.config.prefix_length == 10
    assert model.config.decoder_config.model_type == "gpt2" and model.audio_model is not trunk
    assert same(model.audio_model.state_dict(), trunk.state_dict())
    assert same(model.decoder.state_dict(), language_model().state_dict())
    assert torch.equal(model.audio_model(**sounds("hubert")).features, heard.features)
    model.train()(**sounds("hubert"), labels=CAPTIONS).loss.backward()
    assert all(weight.grad is None for weight in trunk.parameters())
    assert torch.equal(trunk(**sounds("hubert")).features, heard.features)
    model.save_pretrained(tmp_path / "captioner")
    again = UniBriVLForAudioCaptioning.from_pretrained(tmp_path / "captioner")
    assert same(again.state_dict(), model.state_dict()) and again.config.freeze_decoder


def test_a_frozen_language_tower_can_be_thawed():
    torch.manual_seed(0)
    source = UniBriVLForAudioClassification(unibrivl_config("hubert", freeze_audio_model=True))
    for wish, trains in (({}, False), ({"freeze_audio_model": False}, True)):
        model = UniBriVLForAudioCaptioning.from_pretrained_parts(source, language_model(), **wish)
        trained = {name for name, weight in model.audio_model.named_parameters() if weight.requires_grad}
        unused = {f"projection.{name}" for name, _ in model.audio_model.projection.named_parameters()}
        assert trained == (dict(model.audio_model.named_parameters()).keys() - unused if trains else set())
        assert model.train().audio_model.training is trains


@pytest.mark.parametrize("saved", [False, True])
def test_plain_parts(saved, tmp_path):
    torch.manual_seed(0)
    tower = AutoModel.from_config(AutoConfig.for_model(**AUDIO["hubert"])).eval()
    parts = [tower, language_model("opt")]
    if saved:
        for name, part in zip(("ear", "mouth"), parts, strict=True):
            part.save_pretrained(tmp_path / name)
        parts = [str(tmp_path / "ear"), str(tmp_path / "mouth")]
    model = UniBriVLForAudioCaptioning.from_pretrained_parts(*parts, **HEAD, freeze_audio_model=True)
    assert same(model.audio_model.tower.state_dict(), tower.state_dict())
    assert same(model.decoder.state_dict(), language_model("opt").state_dict())
    assert model.config.embed_dim == 24 and not any(p.requires_grad for p in model.audio_model.parameters())
    assert torch.isfinite(model(**sounds("hubert"), labels=CAPTIONS).loss)
    if saved:
        half = UniBriVLForAudioCaptioning.from_pretrained_parts(
            *parts, decoder_kwargs={"dtype": torch.bfloat16}, **HEAD
        )
        assert half.decoder.dtype == torch.bfloat16 and half.prefix.fc1.weight.dtype == torch.float32
        assert half(**sounds("hubert"), labels=CAPTIONS).loss.dtype == torch.float32


def test_what_cannot_be_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="set decoder_config, such as .*from_pretrained_parts"):
        UniBriVLForAudioCaptioning(unibrivl_config("hubert"))
    source = UniBriVLAudioModel(unibrivl_config("hubert"))
    with pytest.raises(ValueError, match="taken as it is, so embed_dim cannot be set: .*only prefix_length"):
        UniBriVLForAudioCaptioning.from_pretrained_parts(source, language_model(), embed_dim=48)


def test_more_words():
    model = build()
    model.resize_token_embeddings(48, mean_resizing=False)
    assert model.config.decoder_config.vocab_size == 48
    assert model(**sounds("hubert"), labels=CAPTIONS + 4 * (CAPTIONS > END)).logits.shape == (2, 5, 48)


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [(), ("audio_model",), ("decoder",), ("audio_model", "decoder")])
def test_frozen_parts_stay_as_they_were(frozen):
    model = build(**{f"freeze_{name}": True for name in frozen}).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(**sounds("hubert"), labels=CAPTIONS).loss.backward()
    optimizer.step()
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"audio_model", "decoder", "prefix"} - set(frozen)
    assert {name for name, part in model.named_children() if not part.training} == set(frozen)


def test_it_learns_two_captions_and_says_them():
    model = build("speechlm", freeze_audio_model=True, lively=False)
    inputs = sounds("speechlm")
    with torch.no_grad():  # tell the two noises apart at once
        model.audio_model.frame_projection.weight.normal_()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.02)
    model.train()
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(**inputs, labels=CAPTIONS).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    captions = model.eval().generate(**inputs)
    for row, caption in zip(captions.tolist(), CAPTIONS.tolist(), strict=True):
        assert row[: row.index(END) + 1] == [word for word in caption if word >= 0]


def collate(rows):
    inputs = pad_sequence([row["input_values"] for row in rows], batch_first=True)
    mask = pad_sequence([torch.ones(len(row["input_values"]), dtype=torch.long) for row in rows], batch_first=True)
    labels = pad_sequence([row["labels"] for row in rows], batch_first=True, padding_value=-100)
    return {"input_values": inputs, "attention_mask": mask, "labels": labels}


def test_the_trainer_trains_evaluates_and_generates(tmp_path):
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate: pip install 'unibrivl[dev]'")
    generator = torch.Generator().manual_seed(0)
    rows = [
        {"input_values": torch.randn(1600 + 400 * index, generator=generator), "labels": caption[caption >= 0]}
        for index, caption in enumerate(CAPTIONS)
    ]
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        save_steps=2,
        per_device_train_batch_size=2,
        predict_with_generate=True,
        remove_unused_columns=False,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<pad>": 0, "<s>": 1, "</s>": END}, unk_token="<pad>")),
        pad_token="<pad>",
    )
    trainer = Seq2SeqTrainer(
        model=build("speechlm"),
        args=arguments,
        data_collator=collate,
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
    )
    trainer.train()
    assert trainer.state.global_step == 2
    answer = trainer.predict(rows, num_beams=2)
    assert answer.metrics["test_loss"] > 0
    captions = trainer.model.generate(**{k: v for k, v in collate(rows).items() if k != "labels"}, num_beams=2)
    assert answer.predictions[:, : captions.shape[1]].tolist() == captions.tolist()
    again = UniBriVLForAudioCaptioning.from_pretrained(tmp_path / "checkpoint-2")
    assert same(again.state_dict(), trainer.model.state_dict())


@pytest.mark.parametrize("language", LANGUAGE)
def test_gradient_checkpointing_changes_nothing(language):
    grads = []
    for checkpointing in (False, True):
        model = build(language=language)
        if checkpointing:
            model.gradient_checkpointing_enable()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.decoder.train()  # where it is allowed to work; the rest would draw masks and LayerDrop
        model(**sounds("hubert"), labels=CAPTIONS).loss.backward()
        grads.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert grads[0].keys() == grads[1].keys() and len(grads[0]) > 40
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-6, rtol=1e-4, msg=name)


def test_bfloat16(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    half = UniBriVLForAudioCaptioning.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    output = half(**sounds("hubert"), labels=CAPTIONS)
    output.loss.backward()
    torch.testing.assert_close(output.loss, model(**sounds("hubert"), labels=CAPTIONS).loss, atol=0.1, rtol=0.1)
    assert half.generate(**sounds("hubert"), max_new_tokens=4).shape[0] == 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(**sounds("hubert"), labels=CAPTIONS).loss.isfinite()


def test_device_map_places_the_model(tmp_path):
    pytest.importorskip("accelerate", reason="device_map needs accelerate: pip install 'unibrivl[dev]'")
    model = build()
    model.save_pretrained(tmp_path)
    mapped = UniBriVLForAudioCaptioning.from_pretrained(tmp_path, device_map={"": "cpu"})
    assert torch.equal(mapped.generate(**sounds("hubert")), model.generate(**sounds("hubert")))
