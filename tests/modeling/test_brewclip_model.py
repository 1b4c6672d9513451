"""BrewCLIP: both channels, what is frozen, fusion, losses, and the numbers of the specification."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_brewclip as tiny
import torch
from huggingface_hub.errors import StrictDataclassError
from torch.nn.functional import normalize

from unibrivl.modeling import BREWCLIP_PRESETS, BrewCLIPConfig, BrewCLIPForSpeechClassification, BrewCLIPModel
from unibrivl.modeling.configuration_brewclip import LOSS_WEIGHTS
from unibrivl.modeling.fusion_brewclip import BrewCLIPFusion
from unibrivl.modeling.losses_brewclip import channel_losses, masked_nce

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text())["brewclip_losses"]
GIVEN = {
    name: torch.tensor(value, dtype=torch.float64) for name, value in GOLDEN["input"].items() if name != "image_ids"
}
IDS = torch.tensor(GOLDEN["input"]["image_ids"])
EXPECTED = GOLDEN["expected"]
WHISPERS = {"base": (512, 6, 8), "small": (768, 12, 12)}
CLIPS = {"B/32": ((512, 8), (768, 32), 512), "L/14": ((768, 12), (1024, 14), 768)}


def towers(clip: str, whisper: str) -> dict:
    (text, heads), (vision, patch), width = CLIPS[clip]
    hears, layers, whisper_heads = WHISPERS[whisper]
    return {
        "audio_config": {"model_type": "whisper", "d_model": hears, "encoder_layers": layers, "decoder_layers": 1,
                         "encoder_attention_heads": whisper_heads},
        "text_config": {"model_type": "clip_text_model", "hidden_size": text, "num_attention_heads": heads,
                        "intermediate_size": 4 * text, "projection_dim": width},
        "vision_config": {"model_type": "clip_vision_model", "hidden_size": vision, "patch_size": patch,
                          "num_attention_heads": vision // 64, "intermediate_size": 4 * vision,
                          "projection_dim": width},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("clip", "whisper", "parity", "count"),
    [
        ("L/14", "base", True, 10_439_168),
        ("L/14", "small", True, 10_635_776),
        ("B/32", "base", True, 4_075_264),
        ("B/32", "small", True, 4_206_336),
        ("L/14", "base", False, 10_242_304),
        ("L/14", "small", False, 10_438_912),
        ("B/32", "base", False, 3_943_936),
        ("B/32", "small", False, 4_075_008),
    ],
)
def test_what_learns_is_as_many_numbers_as_the_paper_s(clip, whisper, parity, count):
    fields = BREWCLIP_PRESETS["released"] if parity else {"fusion": "sum"}
    with torch.device("meta"):
        model = BrewCLIPModel(BrewCLIPConfig(**towers(clip, whisper), **fields))
    learns = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert learns == count
    assert learns * 4 < 50e6


def test_one_step_moves_what_is_listed_and_nothing_else():
    model = tiny.build()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.train()
    frozen = [model.audio_model, model.vision_model, model.text_model]
    assert not any(module.training for tower in frozen for module in tower.modules())
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1)
    model(**tiny.batch(0.5, 1.0), pixel_values=tiny.pixels(2), return_loss=True).loss.backward()
    optimizer.step()
    moved = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert {name.split(".")[0] for name in moved} == {"shared_prompts", "e2e", "fusion"}
    assert all(weight.grad is None for tower in frozen for weight in tower.parameters())
    still = {name for name, weight in model.named_parameters() if weight.requires_grad} - moved
    assert not still


def test_silence_behind_a_sound_counts_by_its_mask_alone():
    model, process = tiny.build(), tiny.processor()
    [clip] = tiny.clips(0.4)
    longer = torch.cat([torch.from_numpy(clip), torch.zeros(6000)]).numpy()
    short, long = (process(audio=one, sampling_rate=tiny.RATE_HZ) for one in (clip, longer))
    with_its_length = model.get_audio_features(**short, channels=("e2e",)).pooler_output
    long["attention_mask"] = short["attention_mask"]
    assert (model.get_audio_features(**long, channels=("e2e",)).pooler_output - with_its_length).abs().max() < 1e-3
    unmasked = tiny.build(mask_padding=False).get_audio_features(**short, channels=("e2e",)).pooler_output
    assert (unmasked - with_its_length).abs().max() > 1e-3


def test_frames_of_padding_are_left_out_without_a_change():
    """They are sliced off behind the longest sound; another sound in the batch keeps them."""
    model = tiny.build()
    alone = model.get_audio_features(**tiny.batch(0.3), channels=("e2e",)).pooler_output[0]
    beside = model.get_audio_features(**tiny.batch(0.3, 1.0), channels=("e2e",)).pooler_output[0]
    assert torch.allclose(alone, beside, atol=1e-6)


def test_a_row_of_a_batch_is_what_it_is_alone():
    model = tiny.build()
    batch = tiny.batch(0.2, 0.5, 1.0, 0.7, 0.3, 0.9, 0.4, 0.6)
    together = model.get_audio_features(**batch).pooler_output
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    shuffled = model.get_audio_features(**{name: value[order] for name, value in batch.items()}).pooler_output
    assert torch.allclose(shuffled, together[order], atol=1e-5)
    for row in range(8):
        alone = model.get_audio_features(**{name: value[row : row + 1] for name, value in batch.items()})
        assert torch.allclose(alone.pooler_output[0], together[row], atol=1e-5)


@pytest.mark.parametrize("name", ["a_v", "t_v", "e_v", "t_e"])
def test_losses_are_the_golden_ones(name):
    vectors = {"t": GIVEN["text_channel"], "e": GIVEN["e2e_channel"], "v": GIVEN["image"]}
    vectors["a"] = vectors["t"] + vectors["e"]
    left, right = name.split("_")
    found = masked_nce(vectors[left], vectors[right], IDS, GIVEN["temperature"])
    expected = EXPECTED[f"infonce_{name}_masked" if name == "a_v" else f"infonce_{name}"]
    assert float(found) == pytest.approx(expected, abs=5e-10)


def test_the_total_is_the_golden_one():
    t, e, v = GIVEN["text_channel"], GIVEN["e2e_channel"], GIVEN["image"]
    terms = channel_losses(t + e, v, (t, e), IDS, GIVEN["temperature"], LOSS_WEIGHTS["paper"])
    assert float(sum(terms.values())) == pytest.approx(EXPECTED["total"], abs=5e-10)
    unmasked = masked_nce(t + e, v, None, GIVEN["temperature"])
    assert float(unmasked) == pytest.approx(EXPECTED["infonce_a_v_unmasked"], abs=5e-10)


def test_rows_of_one_picture_leave_nothing_to_learn():
    vectors = torch.randn(4, 8, requires_grad=True)
    loss = masked_nce(vectors, torch.randn(4, 8), torch.full((4,), 3), 0.07)
    loss.backward()
    assert loss == 0 and vectors.grad.isfinite().all()


def test_fusions_are_the_golden_ones():
    t, e = GIVEN["text_channel"].float(), GIVEN["e2e_channel"].float()
    fields = {"text_config": {**tiny.TEXT, "projection_dim": 4}, "vision_config": {**tiny.VISION, "projection_dim": 4}}
    added = BrewCLIPFusion(tiny.config(**fields, fusion="sum"))(t, e)
    assert torch.allclose(normalize(added, dim=-1), torch.tensor(EXPECTED["fused_sum_l2"]), atol=1e-6)
    weighted = BrewCLIPFusion(tiny.config(**fields))
    assert weighted.weight.item() == pytest.approx(0.1, abs=1e-6)
    found = normalize(weighted(t, e, weight=1.0), dim=-1)
    assert torch.allclose(found, torch.tensor(EXPECTED["fused_norm_sum_l2"]), atol=1e-6)


@pytest.mark.parametrize("fusion", ["weighted", "sum", "gate", "mlp"])
def test_every_fusion_does_with_either_channel_or_both(fusion):
    model, batch = tiny.build(fusion=fusion), tiny.batch(0.5, 1.0)
    both = model.get_audio_features(**batch)
    text = model.get_audio_features(**batch, channels=("text",))
    sound = model.get_audio_features(**batch, channels=("e2e",))
    assert torch.allclose(text.pooler_output, normalize(both.text_channel_embeds, dim=-1), atol=1e-6)
    assert torch.allclose(sound.pooler_output, normalize(both.e2e_channel_embeds, dim=-1), atol=1e-6)
    assert (both.pooler_output - text.pooler_output).abs().max() > 1e-4
    assert torch.allclose(both.pooler_output.norm(dim=-1), torch.ones(2))


def test_the_weight_of_a_channel_can_be_swept():
    model, batch = tiny.build(), tiny.batch(0.5)
    nothing = model.get_audio_features(**batch, fusion_weight=0.0).pooler_output
    assert torch.allclose(nothing, model.get_audio_features(**batch, channels=("text",)).pooler_output, atol=1e-6)
    with pytest.raises(ValueError, match="fusion='weighted'"):
        tiny.build(fusion="sum").get_audio_features(**batch, fusion_weight=1.0)


def test_the_sound_alone_asks_nobody_to_read(monkeypatch):
    model, batch = tiny.build(), tiny.batch(0.5)
    batch.pop("input_ids")

    def refuse(*args, **kwargs):
        raise AssertionError("the text tower was run")

    monkeypatch.setattr(model.text_model, "forward", refuse)
    assert model.get_audio_features(**batch, channels=("e2e",)).text_channel_embeds is None
    with pytest.raises(ValueError, match="needs transcripts"):
        model.get_audio_features(**batch)


def test_kept_states_and_pictures_stand_for_sounds_and_pictures():
    model, batch = tiny.build(), tiny.batch(0.5, 1.0)
    whole = model(**batch, pixel_values=tiny.pixels(2), return_loss=True)
    states, mask = model.audio_states(batch["input_features"], batch["attention_mask"])
    assert mask.sum(1).tolist() == [25, 50]
    kept = model(
        audio_states=states, frame_mask=mask, input_ids=batch["input_ids"], return_loss=True,
        image_embeds=model.get_native_image_features(tiny.pixels(2)).pooler_output,
    )  # fmt: skip
    assert torch.allclose(kept.loss, whole.loss, atol=1e-6)
    given = model(audio_states=states, frame_mask=mask, text_channel_embeds=whole.text_channel_embeds)
    assert torch.allclose(given.audio_embeds, whole.audio_embeds, atol=1e-6)


def test_eight_pairs_can_be_learned_by_heart():
    torch.manual_seed(0)
    model = BrewCLIPModel(tiny.config(dropout=0.0, fusion_weight=1.0)).train()
    batch = tiny.batch(*[0.3 + 0.08 * place for place in range(8)])
    states, mask = model.audio_states(batch["input_features"], batch["attention_mask"])
    pictures = torch.randn(8, 24, generator=torch.Generator().manual_seed(7))
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    for _ in range(200):
        found = model(audio_states=states, frame_mask=mask, input_ids=batch["input_ids"], image_embeds=pictures,
                      return_loss=True)  # fmt: skip
        if found.loss < 0.1:
            break
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
    assert found.loss < 0.1


def test_prompts_stand_behind_the_patches_of_a_picture():
    model = tiny.build(prompt_vision=True)
    pixels = tiny.pixels(2)
    seen = model.get_image_features(pixels).pooler_output
    plain = model.vision_model(pixels).image_embeds
    assert (seen - plain).abs().max() > 1e-3
    model.config.num_prompts = 0
    assert torch.allclose(model.get_image_features(pixels).pooler_output, plain, atol=1e-6)
    with pytest.raises(ValueError, match="prompt_vision=False"):
        tiny.build(prompt_vision=True).project_image(seen)


@pytest.mark.parametrize("prompt_audio", ["linear", "identity", "none"])
def test_prompts_reach_the_sound_as_configured(prompt_audio):
    model, batch = tiny.build(prompt_audio=prompt_audio), tiny.batch(0.5)
    before = model.get_audio_features(**batch, channels=("e2e",)).pooler_output
    with torch.no_grad():
        model.shared_prompts.weight += 1
    moved = (model.get_audio_features(**batch, channels=("e2e",)).pooler_output - before).abs().max() > 1e-4
    assert moved == (prompt_audio != "none")


def test_at_the_start_the_linear_prompts_are_the_prompts():
    torch.manual_seed(0)
    linear = BrewCLIPModel(tiny.config()).eval()
    torch.manual_seed(0)
    same = BrewCLIPModel(tiny.config(prompt_audio="identity")).eval()
    missing, unexpected = same.load_state_dict(linear.state_dict(), strict=False)
    assert not missing and {one.split(".")[1] for one in unexpected} == {"prompt_projection"}
    batch = tiny.batch(0.5)
    found, expected = (one.get_audio_features(**batch).e2e_channel_embeds for one in (linear, same))
    assert torch.allclose(found, expected, atol=1e-6)


def test_it_trains_in_half_precision_and_with_checkpoints():
    model, batch = tiny.build(), tiny.batch(0.5, 1.0)
    plain = model.train()(**batch, pixel_values=tiny.pixels(2)).audio_embeds
    torch.manual_seed(0)
    model.gradient_checkpointing_enable()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(**batch, pixel_values=tiny.pixels(2), return_loss=True)
    assert found.loss.dtype == torch.float32
    found.loss.backward()
    assert model.e2e.pool.grad.isfinite().all() and model.prompts.grad.abs().sum() > 0
    assert plain.shape == found.audio_embeds.shape
    narrow = tiny.build().to(torch.bfloat16)
    wide = tiny.build()
    batch16 = {name: value.bfloat16() if value.is_floating_point() else value for name, value in batch.items()}
    close = narrow.get_audio_features(**batch16).pooler_output.float()
    assert torch.nn.functional.cosine_similarity(close, wide.get_audio_features(**batch).pooler_output).min() > 0.99


def test_a_head_tells_classes_and_can_train_alone():
    head = BrewCLIPForSpeechClassification(tiny.config(num_labels=4))
    batch = {**tiny.batch(0.5, 1.0), "labels": torch.tensor([0, 3])}
    head(**batch).loss.backward()
    assert head.classifier.weight.grad is not None and head.brewclip.prompts.grad is not None
    alone = BrewCLIPForSpeechClassification(tiny.config(num_labels=4, freeze_brewclip=True)).train()
    assert {name for name, one in alone.named_parameters() if one.requires_grad} == {
        "classifier.weight", "classifier.bias",
    }  # fmt: skip
    assert not alone.brewclip.e2e.training


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": ["tone"]}, "channels must be some of"),
        ({"channels": []}, "channels must be some of"),
        ({"channels": ["text", "keywords"]}, "both be the words"),
        ({"fusion": "max"}, "fusion must be one of"),
        ({"num_prompts": 75}, "num_prompts is 75"),
        ({"num_attention_heads": 5}, "must be a multiple"),
        ({"text_config": {**tiny.TEXT, "projection_dim": 20}}, "two sides of one space"),
        ({"text_config": {"model_type": "siglip_text_model"}}, "must be CLIP's"),
        ({"temperature": 0.001}, "min_temperature"),
    ],
)
def test_configurations_that_cannot_be_are_refused(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        tiny.config(**fields)


def test_bad_input_is_refused_with_what_to_do():
    model, batch = tiny.build(), tiny.batch(0.5)
    with pytest.raises(ValueError, match="nothing to embed"):
        model()
    with pytest.raises(ValueError, match="channels must be some of"):
        model.get_audio_features(**batch, channels=("keywords",))
    with pytest.raises(ValueError, match="audio_states are"):
        model.get_audio_features(audio_states=torch.zeros(1, 5, 7), channels=("e2e",))
    with pytest.raises(ValueError, match="as many sounds as pictures"):
        model(**batch, pixel_values=tiny.pixels(2), return_loss=True)
