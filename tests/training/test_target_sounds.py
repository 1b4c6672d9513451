"""Cached sounds: losses of the live tower, ragged lengths, a kill in the middle, and what is refused."""

from __future__ import annotations

import multiprocessing
import sys
import time

import numpy as np
import pytest
import soundfile
import tiny_pairs
import torch
from safetensors.numpy import load_file
from tiny_objectives import total
from tiny_towers import pictures, sounds, unibrivl_config
from transformers import Wav2Vec2FeatureExtractor

from unibrivl.cli import main
from unibrivl.data import Listing, Sample
from unibrivl.modeling import SpeechLMFeatureExtractor, UniBriVLModel, UniBriVLProcessor
from unibrivl.training import target_cache
from unibrivl.training.config import ConfigError, override
from unibrivl.training.journal import read_rows
from unibrivl.training.loop import train
from unibrivl.training.objectives.cx import CXLoss
from unibrivl.training.pairs import Collate, Pairs, padded
from unibrivl.training.recipes import pairs
from unibrivl.training.target_cache import Excerpt, TargetCache, Tower
from unibrivl.training.target_sounds import (
    beginning,
    check_padding,
    check_room,
    heard,
    need,
    seconds_of,
    sound_tower,
)

RATE_HZ = tiny_pairs.RATE_HZ
SMALL = ["batch_size=4", "log_every=1", "save_every=100", "evaluate_every=0", "primary=none"]
PLAIN = ["data.augment_pictures=false", "data.augment_sounds=false"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model_of(audio: str = "speechlm", seed: int = 0, **fields) -> UniBriVLModel:
    torch.manual_seed(seed)
    return UniBriVLModel(unibrivl_config(audio, "clip", **{"freeze_audio_tower": True, **fields}))


def processor_of(audio: str = "speechlm") -> UniBriVLProcessor:
    if audio == "hubert":  # whose base sizes take no mask
        return UniBriVLProcessor(Wav2Vec2FeatureExtractor(return_attention_mask=False), None)
    return UniBriVLProcessor(SpeechLMFeatureExtractor(), None)


def noise(folder, lengths_s=(0.5, 0.3, 0.45)) -> list[Excerpt]:
    """Sounds of unlike length, and which part of each is heard."""
    folder.mkdir(exist_ok=True)
    chance, found = np.random.default_rng(0), []
    for place, seconds in enumerate(lengths_s):
        path = folder / f"{place}.wav"  # of 16 bits: a WAV of floats holds the hour it was made
        soundfile.write(path, 0.1 * chance.standard_normal(round(seconds * RATE_HZ)), RATE_HZ)
        found.append(beginning(Sample(str(place), audio=str(path)), RATE_HZ, 1.0))
    return found


def live_batch(excerpts, processor) -> dict[str, torch.Tensor]:
    read = [soundfile.read(one.path, dtype="float32")[0] for one in excerpts]
    return dict(processor(audio=read, sampling_rate=RATE_HZ, return_tensors="pt"))


# ---- the model goes on from frames ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"use_layer_mix": False}, {"layer_mix_norm": True}])
@pytest.mark.parametrize("audio", ["speechlm", "hubert", "ast", "whisper", "clap", "pe_audio", "mel_encoder"])
def test_the_model_goes_on_from_what_its_tower_gave(audio, fields):
    model = model_of(audio, **fields).eval()
    batch = sounds(audio)
    with torch.no_grad():
        frames, mask = model.audio_model.tower_frames(**batch)
        live, again = model(**batch), model(audio_frames=frames, frame_mask=mask)
        features = model.get_audio_features(audio_frames=frames, frame_mask=mask).features
    assert frames.shape[-1] % model.audio_model.frame_projection.in_features == 0
    torch.testing.assert_close(again.audio_embeds, live.audio_embeds, atol=1e-6, rtol=0)
    torch.testing.assert_close(again.native_audio_embeds, live.native_audio_embeds, atol=1e-6, rtol=0)
    torch.testing.assert_close(features, live.audio_model_output.features, atol=1e-6, rtol=0)


def test_frames_of_another_model_or_beside_a_sound_are_refused():
    model = model_of()
    frames, mask = model.audio_model.tower_frames(**sounds())
    with pytest.raises(ValueError, match=r"must be \(batch, frames, 128\): pass what tower_frames"):
        model(audio_frames=frames[..., :32], frame_mask=mask)
    with pytest.raises(ValueError, match="one of the two"):
        model(**sounds(), audio_frames=frames)
    with pytest.raises(ValueError, match="pass sound"):
        model.audio_model.tower_frames()


# ---- the cache ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", [True, False])
def test_frames_of_unlike_length_are_those_of_a_padded_batch(mixed, tmp_path):
    """And of each sound alone: the padding changes nothing."""
    model, processor, excerpts = model_of(use_layer_mix=mixed), processor_of(), noise(tmp_path / "sounds")
    cache = TargetCache(tmp_path / "cache", sound_tower(model, processor))
    assert cache.prepare(excerpts) == 3 and cache.prepare(excerpts) == 0
    width = 32 * (4 if mixed else 1)
    assert [cache.block(one).shape for one in excerpts] == [(24, width), (14, width), (22, width)]
    assert cache.block(excerpts[0]).dtype == np.float32
    together = padded([cache.block(one) for one in excerpts])
    assert together["frame_mask"].sum(1).tolist() == [24, 14, 22]
    with torch.no_grad():
        live, cached = model.eval()(**live_batch(excerpts, processor)), model(**together)
        singles = [model(**padded([cache.block(one)])).audio_embeds for one in excerpts]
    torch.testing.assert_close(cached.audio_embeds, live.audio_embeds, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.cat(singles), live.audio_embeds, atol=1e-6, rtol=0)


def test_frames_are_found_by_content_part_and_tower(tmp_path):
    model, processor, (one, *_) = model_of(), processor_of(), noise(tmp_path / "sounds")
    cache = TargetCache(tmp_path / "cache", sound_tower(model, processor))
    late, short = Excerpt(one.path, 3200, one.stop), Excerpt(one.path, 0, 4000)
    assert cache.prepare([one, late, short]) == 3
    assert len({cache.block(part).shape[0] for part in (one, late, short)}) == 3
    copy = tmp_path / "copy.wav"
    copy.write_bytes((tmp_path / "sounds" / "0.wav").read_bytes())
    assert cache.prepare([one._replace(path=str(copy))]) == 0
    prints = {sound_tower(model, processor, kind).fingerprint for kind in ("float32", "float16")}
    other = UniBriVLProcessor(SpeechLMFeatureExtractor(do_normalize=True), None)
    prints |= {sound_tower(model_of(seed=1), processor).fingerprint, sound_tower(model, other).fingerprint}
    prints |= {sound_tower(model_of(use_layer_mix=False), processor).fingerprint}
    assert len(prints) == 5
    with torch.no_grad():
        model.audio_model.projection.fc1.weight.add_(1)  # the head is not the tower
    assert sound_tower(model, processor).fingerprint in prints


def test_half_the_numbers_are_close_and_what_they_cannot_hold_is_refused(tmp_path):
    model, processor, excerpts = model_of(), processor_of(), noise(tmp_path / "sounds")
    full, half = (TargetCache(tmp_path, sound_tower(model, processor, kind)) for kind in ("float32", "float16"))
    for cache in (full, half):
        cache.prepare(excerpts)
    assert half.block(excerpts[0]).dtype == np.float16 and 2 * half.parts.num_bytes == full.parts.num_bytes
    for one in excerpts:
        np.testing.assert_allclose(half.block(one), full.block(one), rtol=1 / 2048, atol=1e-7)
    with torch.no_grad():
        close, exact = (model.eval()(**padded([cache.block(one) for one in excerpts])) for cache in (half, full))
    assert close.audio_embeds.dtype == torch.float32
    assert 0 < (close.audio_embeds - exact.audio_embeds).abs().max() < 1e-3
    large = Tower("large", 2, str, lambda read, seeds: [np.full((3, 2), 1e6)], kind="F16")
    with pytest.raises(ValueError, match="cached_sounds_in=float32"):
        TargetCache(tmp_path, large).prepare([excerpts[0].path])


def test_parts_of_blocks_are_joined_and_read_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(target_cache, "PART_BYTES", 0)
    monkeypatch.setattr(target_cache, "GROUP", 1)
    model, processor, excerpts = model_of(), processor_of(), noise(tmp_path / "sounds")
    cache = TargetCache(tmp_path / "cache", sound_tower(model, processor))
    cache.prepare(excerpts)
    assert len(list(cache.parts.folder.glob("*.safetensors"))) == 3
    before = [np.array(cache.block(one)) for one in excerpts]
    monkeypatch.setattr(target_cache, "MANY_PARTS", 1)
    assert cache.prepare(excerpts) == 0
    (one,) = cache.parts.folder.glob("*.safetensors")
    held = load_file(one)
    assert held["embeds"].shape == (60, 128) and sorted(held["counts"].tolist()) == [14, 22, 24]
    for excerpt, frames in zip(excerpts, before, strict=True):
        assert np.array_equal(cache.block(excerpt), frames)


def fill(folder) -> None:
    """What a process of its own does, slowly."""
    target_cache.PART_BYTES, target_cache.GROUP = 0, 1
    tower = sound_tower(model_of(), processor_of())
    embed = tower.embed
    object.__setattr__(tower, "embed", lambda *given: time.sleep(0.1) or embed(*given))
    TargetCache(folder / "cache", tower).prepare(noise(folder / "sounds", [0.3 + place / 50 for place in range(8)]))


@pytest.mark.skipif(sys.platform != "linux", reason="forks, which other systems do badly with torch loaded")
def test_who_is_killed_in_the_middle_goes_on_to_the_same_bits(tmp_path):
    tower = sound_tower(model_of(), processor_of())
    cache, whole = TargetCache(tmp_path / "cache", tower), TargetCache(tmp_path / "whole", tower)
    process = multiprocessing.get_context("fork").Process(target=fill, args=(tmp_path,))
    process.start()
    while len(list(cache.parts.folder.glob("*.safetensors"))) < 2:
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    excerpts = noise(tmp_path / "sounds", [0.3 + place / 50 for place in range(8)])
    assert 0 < cache.prepare(excerpts) <= 6
    assert whole.prepare(excerpts) == 8
    for one in excerpts:
        assert np.array_equal(cache.block(one), whole.block(one))


# ---- training -------------------------------------------------------------------------------------------------------


def test_steps_from_frames_are_those_of_the_live_tower(tmp_path):
    """Losses and gradients of the head over some steps, with dropout off, the momentum copy and full queues."""
    processor, excerpts = processor_of(), noise(tmp_path / "sounds")
    cache = TargetCache(tmp_path / "cache", sound_tower(model_of(), processor))
    cache.prepare(excerpts)
    seen = {"live": live_batch(excerpts, processor), "cached": padded([cache.block(one) for one in excerpts])}
    found = {name: [] for name in seen}
    for name, heard_ in seen.items():
        model = model_of(sa_dropout=0.0).train()
        objective = CXLoss(model, queue_size=16, momentum=0.5, in_batch_negatives=True)
        optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], 0.1)
        if name == "cached":  # neither the model nor its copy hears anything
            for one in (model, objective.momentum.model):
                one.audio_model.tower.forward = None
        for step in range(4):
            objective.before_step(model, step)
            batch = {**heard_, "pixel_values": pictures("clip", 3), "sample_id": torch.arange(3) + 3 * step}
            loss = total(objective(model, batch))
            loss.backward()
            grads = {key: one.grad.clone() for key, one in model.named_parameters() if one.grad is not None}
            found[name].append((loss.item(), grads))
            optimizer.step()
            optimizer.zero_grad()
    assert found["live"][2][0] > 0.1
    for (live, live_grads), (cached, grads) in zip(found["live"], found["cached"], strict=True):
        assert cached == pytest.approx(live, abs=1e-5)
        assert grads.keys() == live_grads.keys() and "audio_model.layer_mix.logits" in grads
        for key, grad in grads.items():
            torch.testing.assert_close(grad, live_grads[key], atol=1e-5, rtol=1e-3)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A UniBriVL on the disk, to go on with."""
    folder, own = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("run")
    tiny_pairs.by_stem(folder / "mine")
    eye = tiny_pairs.image_tower(folder / "eye")
    settings = [*SMALL, f"data.folder={folder / 'mine'}", f"output_dir={own}/run", f"data.cache={own}/cache"]
    start = override(pairs.config(), [*settings, "model.audio=tiny", f"model.image={eye}", "steps=1"])
    return folder / "mine", train(start, pairs.build).model


def configured(base, tmp_path, name, *settings):
    folder, model = base
    own = [f"data.folder={folder}", f"output_dir={tmp_path / name}", f"data.cache={tmp_path / 'cache'}"]
    kept = ["data.cache_sounds=true", "adapter.method=head", f"model.base={model}"]
    return override(pairs.config(), [*SMALL, *PLAIN, *own, *kept, *settings])


def losses(folder):
    return [row["train"] for row in read_rows(folder / "metrics.jsonl") if "train" in row]


def test_the_recipe_has_the_losses_of_the_live_tower_and_hears_each_sound_once(base, tmp_path, monkeypatch):
    """20 steps in float32, and the same in half the numbers, which is close."""
    pytest.importorskip("peft")
    evaluated = ["steps=20", "evaluate_every=20", "primary=recall", "data.validation=0.3"]
    runs = {"cached": [], "live": ["data.cache_sounds=false"], "half": ["data.cached_sounds_in=float16"]}
    for name, settings in runs.items():
        train(configured(base, tmp_path, name, *evaluated, *settings), pairs.build)
    found = {name: losses(tmp_path / name) for name in runs}
    assert len(found["cached"]) == 20 and found["live"][4]["loss"] > 0.1
    for live, cached, half in zip(*(found[name] for name in ("live", "cached", "half")), strict=True):
        assert live.keys() == cached.keys() and "audio_to_image" in live
        for key, value in live.items():
            assert cached[key] == pytest.approx(value, abs=1e-5 if key != "gradient_norm" else 1e-3), key
            assert half[key] == pytest.approx(value, abs=2e-3 if key != "gradient_norm" else 1e-1), key
    made = pairs.sound_tower

    def deaf(*given):
        tower = made(*given)
        object.__setattr__(tower, "embed", lambda *_: pytest.fail("a sound was heard again"))
        return tower

    monkeypatch.setattr(pairs, "sound_tower", deaf)
    train(configured(base, tmp_path, "again", *evaluated, "workers=1"), pairs.build)
    assert losses(tmp_path / "again") == found["cached"]


def test_a_dry_run_tells_the_room(base, tmp_path, capsys, monkeypatch):
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    words = ["train", "--recipe", "pairs", "--dry-run"]
    own = [f"data.folder={base[0]}", f"model.base={base[1]}", "adapter.method=head", "data.cache_sounds=true"]
    for setting in [*SMALL, *PLAIN, *own]:
        words += ["--set", setting]
    assert main(words) == 0
    assert "cached sounds: 0.000 GB on the disk at most, for 10 sounds of 4 s (0.03 MB a second)" in (
        capsys.readouterr().out
    )


def test_what_will_be_needed_is_what_is_taken(tmp_path):
    model, processor, excerpts = model_of(), processor_of(), noise(tmp_path / "sounds")
    lengths = seconds_of([*excerpts, Excerpt(str(tmp_path / "gone.wav"), 0, 800)], RATE_HZ)
    assert lengths == [0.5, 0.3, 0.45, None]
    for kind in ("float32", "float16"):
        cache = TargetCache(tmp_path / "cache", sound_tower(model, processor, kind))
        cache.prepare(excerpts)
        needed = need(model, processor, excerpts, lengths[:3], kind)
        assert needed.total == pytest.approx(cache.parts.num_bytes, rel=0.05)
        check_room(needed, cache)
    assert needed.a_second == 50 * 4 * 32 * 2
    huge = type(needed)(1, 1e9, 1 << 60, 1)
    with pytest.raises(ValueError, match="choose another folder .data.cache=FOLDER"):
        check_room(huge, cache)


def test_a_tower_that_hears_the_padding_is_refused_where_lengths_differ(tmp_path):
    model, processor = model_of("hubert"), processor_of("hubert")
    excerpts = noise(tmp_path / "sounds")
    check_padding(model, processor, excerpts[:1], [0.5])
    check_padding(model_of(), processor_of(), excerpts, [0.5, 0.3, 0.45])
    for lengths in ([0.5, 0.3], [None]):
        with pytest.raises(ConfigError, match="hears the padding.*data.cache_sounds=false"):
            check_padding(model, processor, excerpts, lengths)
    (frames,) = heard(model, processor, [np.ones(8000, np.float32)], torch.device("cpu"))
    assert frames.shape == (24, 96)


def test_what_cannot_be_kept_is_answered_with_the_setting(base, tmp_path):
    pytest.importorskip("peft")

    def refused(match, *settings, error=ConfigError):
        with pytest.raises(error, match=match):
            pairs.build(configured(base, tmp_path, "run", *settings))

    refused("the sound tower trains.*adapter.method=head", "adapter.method=full")
    for method in ("lora", "prompt", "last_k"):
        refused("the sound tower trains", f"adapter.method={method}", "adapter.last_k=1")
    refused("set one of them to false", "data.augment_sounds=true")
    refused("set data.cache=FOLDER", "data.cache=none")
    parts = pairs.build(configured(base, tmp_path, "run"))
    assert parts.data.frames is not None and parts.data.random_parts is False
    with pytest.raises(ValueError, match="always the same"):
        Pairs(Listing("some", tuple(parts.data.sounds)), RATE_HZ, frames=parts.data.frames)


def test_frames_of_unlike_length_are_padded_and_masked():
    batch = Collate(processor_of())([{"audio_frames": np.ones((number, 4), np.float32)} for number in (2, 3)])
    assert batch["audio_frames"].sum(2).tolist() == [[4, 4, 0], [4, 4, 4]]
    assert batch["frame_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
