"""CAVT-MAE at toy size: its towers are CAV-MAE's sides and a text encoder, what is frozen stays, its loss is AAI's."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tiny_cavmae
import tiny_cavtmae
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_cavmae import close, pictures, sounds
from tiny_cavtmae import build, config, everything, processor, texts
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

import unibrivl
from unibrivl.modeling import (
    CAVMAEConfig,
    CAVMAEForPreTraining,
    CAVMAEImageConfig,
    CAVMAEImageModel,
    CAVMAEModel,
    CAVTMAEConfig,
    CAVTMAEModel,
)
from unibrivl.modeling.modeling_cavtmae import contrast, distillation

EMBEDS = ("audio_embeds", "image_embeds", "text_embeds")


def trained(module):
    return {name for name, weight in module.named_parameters() if weight.requires_grad}


def towers(whole=CAVMAEForPreTraining):
    """A whole CAV-MAE and a CLIP's text side, as if trained."""
    torch.manual_seed(3)
    fields = {name: value for name, value in tiny_cavtmae.TEXT.items() if name != "model_type"}
    return tiny_cavmae.build(whole), tiny_cavtmae.shaken(CLIPTextModelWithProjection(CLIPTextConfig(**fields)))


# ---- the image side alone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [CAVMAEModel, CAVMAEForPreTraining])
def test_the_image_side_loads_out_of_a_whole_model(whole, tmp_path):
    model = tiny_cavmae.build(whole)
    model.save_pretrained(tmp_path)
    tower = CAVMAEImageModel.from_pretrained(tmp_path)
    assert type(tower.config) is CAVMAEImageConfig and not hasattr(tower.config, "decoder_hidden_size")
    with torch.no_grad():
        alone, both = tower(pictures()), model.base_model(sounds(), pictures())
    assert torch.equal(alone.last_hidden_state, both.image_last_hidden_state)
    assert torch.equal(alone.pooler_output, both.image_embeds)
    tower.save_pretrained(tmp_path / "tower")
    assert type(AutoModel.from_pretrained(tmp_path / "tower")) is CAVMAEImageModel
    with pytest.raises(ValueError, match="whole patches of 8"):
        tower(pictures(side=30))
    with pytest.raises(StrictDataclassError, match="multiple of the patch"):
        CAVMAEImageConfig(image_size=30)


# ---- from parts, saving, loading ------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_folder", [True, False])
def test_parts_give_what_they_gave_alone(from_folder, tmp_path):
    cavmae, text = towers()
    fields = {name: value for name, value in tiny_cavtmae.TEXT.items() if name != "model_type"}
    plain = CLIPTextModel(CLIPTextConfig(**fields)).eval()
    inner = getattr(plain, "text_model", plain)
    inner.load_state_dict(text.text_model.state_dict())
    sources = (cavmae, plain)
    if from_folder:
        cavmae.save_pretrained(tmp_path / "cavmae")
        text.save_pretrained(tmp_path / "text")
        sources = (str(tmp_path / "cavmae"), str(tmp_path / "text"))
    model = CAVTMAEModel.from_pretrained_parts(*sources)
    assert not model.training and type(model.text_model) is CLIPTextModel
    with torch.no_grad():
        output, both = model(**everything()), cavmae.cavmae(sounds(), pictures())
        read = plain(texts()["input_ids"], attention_mask=texts()["text_attention_mask"])
    assert torch.equal(output.audio_embeds, both.audio_embeds)
    assert torch.equal(output.image_embeds, both.image_embeds)
    close(output.text_embeds, read.pooler_output)
    assert float(output.audio_embeds.norm(dim=-1).min()) > 1.5  # not normalised
    logits = torch.nn.functional.cosine_similarity(output.audio_embeds[:, None], output.text_embeds[None], dim=-1)
    close(output.logits_audio_text, logits / 0.07, 1e-4)
    with pytest.raises(ValueError, match="no CAV-MAE with both sides"):
        CAVTMAEModel.from_pretrained_parts(plain, plain)
    with pytest.raises(ValueError, match="pass CLIPTextModel"):
        CAVTMAEModel.from_pretrained_parts(cavmae, text)


@pytest.mark.parametrize("fields", [{}, {"projection_dim": 24}, {"tie_unified_block": True}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_save_and_load_is_bit_exact(fields, dtype, tmp_path):
    model = build(**fields).to(dtype)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    torch.manual_seed(1)
    again, report = CAVTMAEModel.from_pretrained(tmp_path, output_loading_info=True, dtype="auto")
    assert not report["missing_keys"] and not report["unexpected_keys"] and not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert again.dtype == dtype
    assert trained(CAVTMAEModel.from_pretrained(tmp_path)) == trained(model)
    with torch.no_grad():
        ours, other = model(**everything()), again(**everything())
    for name in EMBEDS:
        assert torch.equal(ours[name], other[name]) and ours[name].dtype == dtype
    assert type(AutoModel.from_pretrained(tmp_path)) is CAVTMAEModel
    assert type(AutoConfig.from_pretrained(tmp_path)) is CAVTMAEConfig


def test_a_new_model_begins_as_it_should():
    torch.manual_seed(0)
    model = CAVTMAEModel(config(projection_dim=24))
    assert torch.equal(model.text_projection.weight.detach(), torch.eye(24, 32))
    assert model.temperature.detach().tolist() == pytest.approx([0.07])
    started, _ = CAVTMAEModel.from_pretrained(None, config=copy.deepcopy(model.config), state_dict={},
                                              output_loading_info=True)  # fmt: skip
    assert torch.equal(started.audio_projection.weight.detach(), torch.eye(24, 32))
    assert started.temperature.detach().tolist() == pytest.approx([0.07])
    square = build(projection_dim=32)
    for name in ("audio", "image", "text"):
        torch.nn.init.eye_(getattr(square, f"{name}_projection").weight)
    plain = build()
    plain.load_state_dict(square.state_dict(), strict=False)
    close(square(**everything()).text_embeds, plain(**everything()).text_embeds)
    assert CAVTMAEConfig().widths == (768, 768, 768)


# ---- what it computes -----------------------------------------------------------------------------------------------


def test_a_batch_equals_its_rows_and_eager_equals_sdpa():
    model, given = build(), everything()
    with torch.no_grad():
        together = model(**given)
        for row in range(3):
            alone = model(**{name: value[row : row + 1] for name, value in given.items()})
            for name in EMBEDS:
                close(together[name][row : row + 1], alone[name])
        model.set_attn_implementation("eager")
        assert model.vision_model.config._attn_implementation == "eager"
        eager = model(**given, output_attentions=True)
    for name in EMBEDS:
        close(together[name], eager[name])
    assert len(eager.audio_model_output.attentions) == 4
    assert isinstance(model(**given, return_dict=False), tuple)


def test_one_kind_alone_and_the_others_absent():
    model = build()
    with torch.no_grad():
        all_three = model(**everything())
        heard = model(sounds())
        native = model.get_native_text_features(**texts()).pooler_output
        cached = model(pixel_values=pictures(), text_embeds=native)
    assert torch.equal(heard.audio_embeds, all_three.audio_embeds) and heard.logits_audio_text is None
    assert torch.equal(cached.text_embeds, all_three.text_embeds)
    assert torch.equal(cached.logits_image_text, all_three.logits_image_text)
    with pytest.raises(ValueError, match="nothing to embed"):
        model()
    with pytest.raises(ValueError, match="one of the two"):
        model(**texts(), text_embeds=native)


@pytest.mark.parametrize("masked", [True, False])
def test_three_features_of_a_text(masked):
    """Of a text that is padded with its end, by hand, with the mask and without."""
    given = texts()
    call = given if masked else {"input_ids": given["input_ids"]}
    for feature in ("pooled", "mean_tokens", "token_table"):
        model = build(text_feature=feature)
        with torch.no_grad():
            found = model.get_text_features(**call)
            table = model.text_model.get_input_embeddings().weight
            for row in range(3):
                length = int(given["text_attention_mask"][row].sum())
                ids = given["input_ids"][row : row + 1, :length]
                states = model.text_model(ids).last_hidden_state[0]
                by_hand = {
                    "pooled": states[-1],
                    "mean_tokens": states.mean(0),
                    "token_table": table[ids[0, 1:-1]].mean(0),
                }
                close(found.pooler_output[row], by_hand[feature])


def test_other_text_encoders():
    wide = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = BertModel(BertConfig(vocab_size=64, **wide)).eval()
    t5 = T5EncoderModel(T5Config(vocab_size=64, d_model=32, d_ff=48, num_layers=1, num_heads=2, d_kv=16)).eval()
    cavmae = tiny_cavmae.build(CAVMAEModel)
    for tower in (bert, t5):
        model = CAVTMAEModel.from_pretrained_parts(cavmae, tower, text_feature="mean_tokens")
        again = CAVTMAEModel(copy.deepcopy(model.config))
        assert type(again.text_model) is type(tower)
        assert model.get_text_features(**texts()).pooler_output.shape == (3, 32)
    model.config.text_feature = "pooled"
    with pytest.raises(ValueError, match="pools nothing: set text_feature='mean_tokens'"):
        model.get_text_features(**texts())


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"text_feature": "first"}, "text_feature must be one of pooled"),
        ({"targets": "soft"}, "targets must be one of"),
        ({"distill_form": "mse"}, "distill_form must be one of kl, ce"),
        ({"alpha": 2.0}, "alpha is a share"),
        ({"temperature": 0.6}, "must lie between min_temperature"),
        ({"text_config": {**tiny_cavtmae.TEXT, "hidden_size": 16}}, "name one width for all, projection_dim"),
        ({"tie_unified_block": True, "vision_config": {**tiny_cavtmae.IMAGE, "num_joint_layers": 1}}, "cannot be one"),
    ],
)
def test_settings_that_make_no_model_are_refused(fields, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        config(**fields)
    with pytest.raises(ValueError, match="must be 'cavmae_audio'"):
        CAVTMAEConfig(audio_config={"model_type": "hubert"})
    with pytest.raises(ValueError, match="is no 'cavmae_audio'"):
        CAVTMAEConfig(audio_config=CAVMAEConfig())


# ---- what trains ----------------------------------------------------------------------------------------------------


def one_step(model, **given):
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    loss = model.train()(**everything(), return_loss=True, **given).loss
    loss.backward()
    optimizer.step()
    model.eval()
    return loss


def test_pictures_and_texts_stay_where_they_are():
    model = build()
    assert trained(model) == {"temperature"} | {
        name for name, _ in model.named_parameters()
        if name.startswith("audio_model.") and not name.endswith("positions.weight")
    }  # fmt: skip
    before = model(**everything())
    one_step(model)
    assert model.train().audio_model.training and not model.vision_model.training and not model.text_model.training
    after = model.eval()(**everything())
    assert torch.equal(before.image_embeds, after.image_embeds) and torch.equal(before.text_embeds, after.text_embeds)
    assert not torch.equal(before.audio_embeds, after.audio_embeds)
    thawed = build(freeze_vision_model=False, freeze_text_model=False)
    assert {"vision_model", "text_model"} < {name.split(".")[0] for name in trained(thawed)}


def test_tied_joint_layers_are_one_and_move_pictures():
    tied, plain = build(tie_unified_block=True), build()
    shared = [name for name in plain.state_dict() if name not in tied.state_dict()]
    assert shared and all(name.startswith("vision_model.joint_layers.") for name in shared)
    assert not any("norm" in name for name in shared)
    assert tied.vision_model.joint_layers[0].attention is tied.audio_model.joint_layers[0].attention
    state = dict(plain.state_dict())
    for name in shared:
        state[name] = state[name.replace("vision_model", "audio_model")]
    plain.load_state_dict(state)
    tied.load_state_dict({name: state[name] for name in tied.state_dict()})
    close(tied(**everything()).image_embeds, plain(**everything()).image_embeds, 0)
    twin = copy.deepcopy(tied)
    assert twin.vision_model.joint_layers[0].fc1 is twin.audio_model.joint_layers[0].fc1
    assert twin.vision_model.joint_layers[0].fc1 is not tied.vision_model.joint_layers[0].fc1
    one_step(tied)
    assert not torch.equal(tied(**everything()).image_embeds, twin(**everything()).image_embeds)


def test_the_joint_layers_that_hear_may_be_frozen():
    names = trained(build(freeze_unified_block=True))
    assert names and not any(name.startswith("audio_model.joint_layers") for name in names)
    assert not build(freeze_unified_block=True).train().audio_model.joint_layers.training
    assert trained(build(freeze_audio_model=True, learn_temperature=False)) == set()


def test_the_temperature_stays_between_its_limits_and_learns_at_them():
    model = build().train()
    with torch.no_grad():
        model.temperature.fill_(7.0)
    output = model(**everything(), return_loss=True)
    assert output.temperature.detach().tolist() == [0.5] and model.temperature.detach().tolist() == [0.5]
    output.loss.backward()
    assert float(model.temperature.grad.abs()) > 0
    with torch.no_grad():
        model.eval().temperature.fill_(0.0)
    assert model(**everything()).temperature.detach().tolist() == pytest.approx([0.001])
    assert float(model.temperature.detach()) == 0  # in evaluation no weight moves


def test_gradient_checkpointing_changes_no_gradient():
    found = []
    for checkpointed in (False, True):
        model = build().train()
        if checkpointed:
            model.gradient_checkpointing_enable()
        model(**everything(), return_loss=True).loss.backward()
        found.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        close(grad, found[1][name])


# ---- the loss -------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_sum_that_the_paper_writes():
    model, label_ids = build(), torch.tensor([1, 2, 1])
    slow = [torch.randn(3, 32, generator=torch.Generator().manual_seed(seed)) for seed in (8, 9)]
    momentum = {"momentum_audio_embeds": slow[0], "momentum_image_embeds": slow[1]}
    with torch.no_grad():
        plain = model(**everything(), return_loss=True)
        found = model(**everything(), label_ids=label_ids, return_loss=True, **momentum)
        model.config.distill_form, model.config.targets = "ce", "one_hot"
        other = model(**everything(), label_ids=label_ids, return_loss=True, alpha=0.8, **momentum)
    own = torch.arange(3)
    for name in ("at", "av"):
        logits = plain["logits_audio_text" if name == "at" else "logits_audio_image"]
        by_torch = [torch.nn.functional.cross_entropy(way, own) for way in (logits, logits.t())]
        close(plain[f"loss_{name}"], sum(by_torch) / 2)
    close(plain.loss, plain.loss_at + plain.loss_av)
    assert plain.loss_momentum is None
    close(found.loss, found.loss_at + 0.6 * found.loss_av + 0.2 * found.loss_momentum)
    close(found.loss_av, plain.loss_av)
    same = torch.tensor([[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]])
    ways = [
        -(same * way.log_softmax(1)).sum(1).mean() for way in (plain.logits_audio_text, plain.logits_audio_text.t())
    ]
    close(found.loss_at, sum(ways) / 2)
    close(other.loss_at, plain.loss_at)
    close(other.loss, other.loss_at + 0.2 * other.loss_av + 0.4 * other.loss_momentum)
    unit = [torch.nn.functional.normalize(one, dim=-1) for one in slow]
    q = unit[0] @ unit[1].t() / 0.07
    entropy = sum(-(way.softmax(1) * way.log_softmax(1)).sum(1).mean() for way in (q, q.t()))
    close(other.loss_momentum - found.loss_momentum, entropy)  # the forms differ by no more than that
    with pytest.raises(ValueError, match="as many sounds as pictures"):
        model(sounds(), pictures(), return_loss=True)


def test_contrast_and_distillation_fall_on_matched_rows():
    logits = 5 * torch.eye(4)
    own = torch.eye(4, dtype=torch.bool)
    assert contrast(logits, own) < contrast(logits.roll(1, 0), own)
    assert float(distillation(logits, logits, "kl")) == pytest.approx(0, abs=1e-6)
    assert distillation(logits, logits.roll(1, 0), "kl") > 1


# ---- as a matcher ---------------------------------------------------------------------------------------------------


def test_the_embedder_takes_it_from_a_folder(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    embedder = unibrivl.load(str(tmp_path))
    chance = np.random.default_rng(0)
    clips = [0.1 * chance.standard_normal(size).astype(np.float32) for size in (5000, 9000)]
    heard = embedder.encode_audio([unibrivl.Waveform(clip, 16000) for clip in clips])
    picture = chance.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    seen, read = embedder.encode_image([picture]), embedder.encode_text(["a dog", "the sound of rain"])
    assert embedder.similarity(heard, seen).shape == (2, 1) and embedder.similarity(heard, read).shape == (2, 2)
    matcher = model.as_matcher(processor())
    assert matcher.kinds == ("audio", "image", "text") and matcher.batch_by == "padding"
    assert matcher.logit_scale == pytest.approx(1 / 0.07) and matcher.longest_s == pytest.approx(0.665, abs=1e-3)
    vectors = matcher.encode_audio(clips)
    close(vectors.norm(dim=-1), torch.ones(2))
    close(vectors[:1], matcher.encode_audio(clips[:1]))
    close(vectors, torch.from_numpy(np.asarray(heard.vectors)))
    batch = processor()(text=["a dog"], return_tensors="pt")
    close(matcher.encode_text("a dog"), torch.nn.functional.normalize(
        model.get_text_features(batch["input_ids"], batch["text_attention_mask"]).pooler_output, dim=-1))  # fmt: skip
    with pytest.raises(ValueError, match="not image"):
        only = processor()
        only.image_processor = None
        model.as_matcher(only).encode_image([picture])
