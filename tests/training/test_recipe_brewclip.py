"""BrewCLIP's objective and recipe: the golden losses, kept transcripts and states, and a run that learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_brewclip as tiny
import tiny_pairs
import torch

from unibrivl.data import DatasetError
from unibrivl.data.transcripts import Transcript, TranscriptFile, file_for
from unibrivl.modeling import BrewCLIPModel
from unibrivl.training.config import ConfigError
from unibrivl.training.loop import train
from unibrivl.training.objectives import BrewCLIPLoss
from unibrivl.training.recipes import brewclip, load_recipe
from unibrivl.training.sampler import Draw

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text())["brewclip_losses"]


class Given(torch.nn.Module):
    """Gives the golden vectors as a model's output."""

    config = SimpleNamespace(loss_weights="paper", freeze_vision_model=True)

    def forward(self, return_dict=True, **inputs):
        t, e, v = (torch.tensor(GOLDEN["input"][name]) for name in ("text_channel", "e2e_channel", "image"))
        return SimpleNamespace(
            audio_embeds=t + e, image_embeds=v, text_channel_embeds=t, e2e_channel_embeds=e, native_image_embeds=v,
            temperature=torch.tensor([GOLDEN["input"]["temperature"]]),
        )  # fmt: skip


def terms(weights=None, **batch) -> dict[str, float]:
    found = BrewCLIPLoss(Given(), weights)(Given(), batch)
    return {name: value.item() for name, value in found.items()}


def test_the_objective_is_the_golden_one():
    ids, expected = torch.tensor(GOLDEN["input"]["image_ids"]), GOLDEN["expected"]
    found = terms(sample_id=ids)
    assert found["outer"] == pytest.approx(0.75 * expected["infonce_a_v_masked"], abs=1e-5)
    assert sum(found.values()) == pytest.approx(expected["total"], abs=1e-5)
    each = terms((0.0, 1.0, 0.0), sample_id=ids)["channel"]
    assert each == pytest.approx((expected["infonce_t_v"] + expected["infonce_e_v"]) / 2, abs=1e-5)
    assert terms("outer")["outer"] == pytest.approx(expected["infonce_a_v_unmasked"], abs=1e-5)
    assert set(terms("robust", sample_id=ids)) == {"outer", "channel", "agreement"}


@pytest.mark.parametrize("weights", ["best", (0.0, 0.0, 0.0), (1.0, -1.0, 0.0), (1.0, 0.0)])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="weights are three numbers"):
        BrewCLIPLoss(Given(), weights)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    return tiny.save_backbones(tmp_path_factory.mktemp("backbones"))


@pytest.fixture
def folder(tmp_path):
    """Twelve sounds with pictures, and what is said in each."""
    tiny_pairs.by_stem(tmp_path / "data")
    settings = {"asr_model": "org/ears"}
    kept = TranscriptFile(file_for(tmp_path / "data", settings), settings)
    kept.add(Transcript(f"thing_{place:02}.wav", f"{chr(97 + place)} b", 1, 1) for place in range(12))
    return tmp_path / "data"


def configured(folder, backbones, **data):
    config = brewclip.config()
    audio, clip = backbones
    return replace(
        config,
        output_dir=str(folder.parent / "run"),
        model=replace(config.model, audio=audio, clip=clip, num_attention_heads=4, intermediate_size=40),
        data=replace(config.data, folder=str(folder), cache=str(folder.parent / "targets"), **data),
        steps=4, batch_size=4, warmup=1, evaluate_every=4, save_every=4, log_every=1, learning_rate=1e-3,
    )  # fmt: skip


def test_a_run_leaves_a_small_model_that_loads(folder, backbones):
    config = configured(folder, backbones, cache_states=True)
    config = replace(config, model=replace(config.model, frame_pool=4))
    train(config, brewclip.build)
    model = BrewCLIPModel.from_pretrained(Path(config.output_dir) / "model")
    fresh = BrewCLIPModel.from_pretrained_parts(*backbones, num_attention_heads=4, intermediate_size=40)
    assert not torch.equal(model.prompts, fresh.prompts)
    assert torch.equal(model.text_model.text_projection.weight, fresh.text_model.text_projection.weight)
    size = (Path(config.output_dir) / "model" / "model.safetensors").stat().st_size
    assert size < sum(one.numel() * 4 for one in model.parameters()) / 2


def test_kept_states_are_what_the_encoder_says(folder, backbones):
    parts = brewclip.build(configured(folder, backbones, cache_states=True))
    parts.prepare()
    live = brewclip.build(configured(folder, backbones))
    live.prepare()
    draws = [Draw(index, 0, 7) for index in range(3)]
    kept = parts.collate([parts.data[draw] for draw in draws])
    heard = live.collate([live.data[draw] for draw in draws])
    assert "input_features" not in kept and "audio_states" in kept and "image_embeds" in kept
    first, second = (parts.model.eval()(**{n: v for n, v in b.items() if n not in ("sample_id", "image_embeds")})
                     for b in (kept, heard))  # fmt: skip
    assert torch.allclose(first.e2e_channel_embeds, second.e2e_channel_embeds, atol=2e-3)
    assert torch.equal(first.text_channel_embeds, second.text_channel_embeds)


def test_pooled_states_are_kept_as_the_model_hears_them(folder, backbones):
    config = configured(folder, backbones, cache_states=True)
    config = replace(config, model=replace(config.model, frame_pool=4))
    parts = brewclip.build(config)
    parts.prepare()
    kept = parts.collate([parts.data[Draw(index, 0, 7)] for index in range(3)])
    live = brewclip.build(replace(config, data=replace(config.data, cache_states=False)))
    live.prepare()
    heard = live.collate([live.data[Draw(index, 0, 7)] for index in range(3)])
    first, second = (parts.model.eval().get_audio_features(
        **{name: value for name, value in batch.items() if name not in ("sample_id", "image_embeds", "pixel_values")}
    ).e2e_channel_embeds for batch in (kept, heard))  # fmt: skip
    assert kept["audio_states"].shape[1] == 7 and torch.allclose(first, second, atol=2e-3)


def test_a_model_that_looks_at_padding_keeps_no_states(folder, backbones):
    config = configured(folder, backbones, cache_states=True)
    with pytest.raises(ConfigError, match="mask_padding=False"):
        brewclip.build(replace(config, model=replace(config.model, preset="released")))


def test_transcripts_have_to_be_there(folder, backbones):
    for path in folder.glob("transcripts-*"):
        path.unlink()
    with pytest.raises(ConfigError, match="unibrivl transcribe"):
        brewclip.build(configured(folder, backbones))
    with pytest.raises(DatasetError, match="have no text of their own"):
        brewclip.build(configured(folder, backbones, transcripts="truth"))
    settings = {"asr_model": "org/ears"}
    TranscriptFile(file_for(folder, settings), settings).add([Transcript("thing_00.wav", "a", 1, 1)])
    with pytest.raises(DatasetError, match="have no transcript"):
        brewclip.build(configured(folder, backbones))


def test_what_is_kept_must_not_change(folder, backbones):
    with pytest.raises(ConfigError, match="augment_sounds"):
        brewclip.build(configured(folder, backbones, cache_states=True, augment_sounds=True))
    config = configured(folder, backbones)
    seeing = brewclip.build(replace(config, model=replace(config.model, preset="released")))
    assert "pixel_values" in seeing.collate([seeing.data[Draw(0, 0, 1)]])


def test_it_is_among_the_recipes():
    assert load_recipe("brewclip") is brewclip


@pytest.mark.parametrize("method", ["lora", "prompt", "head"])
def test_adapters_train_and_load_into_their_base(folder, backbones, method):
    from unibrivl.training.adapters import load_adapter, merged

    config = configured(folder, backbones)
    config = replace(config, adapter=replace(config.adapter, method=method))
    run = Path(config.output_dir)
    train(config, brewclip.build)
    base = BrewCLIPModel.from_pretrained(run / "base")
    adapted = load_adapter(BrewCLIPModel.from_pretrained(run / "base"), run / "model").eval()
    batch, pictures = tiny.batch(0.3, 0.4), tiny.pixels(2)
    with torch.no_grad():
        before, after = (one(**batch, pixel_values=pictures).logits_per_audio for one in (base, adapted))
    assert (after - before).abs().max() > 1e-5
    assert not torch.equal(adapted.get_base_model().prompts, base.prompts)
    if method == "prompt":
        return
    whole = merged(adapted)
    whole.save_pretrained(run / "whole")
    again = BrewCLIPModel.from_pretrained(run / "whole")
    with torch.no_grad():
        assert torch.allclose(again(**batch, pixel_values=pictures).logits_per_audio, after, atol=1e-4)
    assert (again.config.audio_name is None) == (method == "lora")
