"""Latent diffusion through a frozen base: targets by scheduler, AudioToken's regularisers, where gradients go."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")
import tiny_words
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from unibrivl.training.audio_token_lora import AdapterWithLoRA
from unibrivl.training.diffusion_base import DiffusionBase, as_it_was
from unibrivl.training.objectives import OBJECTIVES
from unibrivl.training.objectives.latent_diffusion import (
    LatentDiffusionLoss,
    Noising,
    label_cosines,
    label_penalty,
    mean_sizes,
    mean_squares,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "cavmae" / "losses_golden.json").read_text())["audiotoken"]


@pytest.fixture(scope="module")
def base():
    return tiny_words.base()


def drawn(tag: str, *shape: int) -> torch.Tensor:
    chance = np.random.Generator(np.random.PCG64(zlib.crc32(tag.encode())))
    return torch.from_numpy(chance.standard_normal(shape))


def test_audio_tokens_regularisers_are_the_originals():
    words, labels = drawn("tok.audio", 3, 16)[:, None], drawn("tok.label", 3, 16)
    cosines = label_cosines(words, labels)
    found = {
        "mse": (drawn("tok.pred", 3, 4, 8, 8) - drawn("tok.eps", 3, 4, 8, 8)).square().flatten(1).mean(1).mean(),
        "l1_mean_abs": mean_sizes(words).mean(),
        "l2_mean_sqnorm": mean_squares(words).mean(),
        "mean_cos": cosines.mean(),
        "cos_penalty": label_penalty(cosines),
    }
    for name, value in found.items():
        assert float(value) == pytest.approx(GOLDEN[name], abs=1e-12), name
    total = found["mse"] + 0.01 * found["l1_mean_abs"] + 0.01 * found["cos_penalty"]
    assert float(total) == pytest.approx(GOLDEN["total(la=.01,lb=0,lc=.01)"], abs=1e-12)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler, EulerDiscreteScheduler])
def test_noise_and_targets_are_those_of_diffusers(scheduler, prediction_type):
    noising = Noising.of(scheduler(prediction_type=prediction_type))
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    step = torch.tensor([3, 500, 999])
    reference = DDPMScheduler(prediction_type=prediction_type)
    noisy, target, times = noising.mix(latents, noise, step)
    torch.testing.assert_close(noisy, reference.add_noise(latents, noise, step), atol=1e-5, rtol=0)
    wanted = noise if prediction_type == "epsilon" else reference.get_velocity(latents, noise, step)
    torch.testing.assert_close(target, wanted, atol=1e-5, rtol=0)
    assert times.tolist() == step.tolist()


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_is_what_its_scheduler_mixes(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    noising = Noising.of(scheduler)
    assert noising.target == "flow" and len(noising) == 1000
    torch.testing.assert_close(noising.spread_T, scheduler.sigmas[:1000].flip(0), atol=1e-6, rtol=0)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    step = torch.tensor([10, 900])
    noisy, target, times = noising.mix(latents, noise, step)
    torch.testing.assert_close(noisy, scheduler.scale_noise(latents, times, noise), atol=1e-5, rtol=0)
    # one step of Euler over the whole way, along what is to be predicted, ends at the latents
    spread = noising.spread_T[step][:, None, None, None]
    torch.testing.assert_close(noisy - spread * target, latents, atol=1e-5, rtol=0)


def test_a_scheduler_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="predicts 'sample' is not known"):
        Noising.of(DDPMScheduler(prediction_type="sample"))
    with pytest.raises(ValueError, match="snr_gamma=none"):
        Noising.of(FlowMatchEulerDiscreteScheduler()).weights(torch.tensor([1]), 5.0)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weighs_the_same_error_of_the_picture_alike(prediction_type):
    """Below gamma, an error of the latents themselves counts the same at each step, whatever is predicted."""
    noising = Noising.of(DDPMScheduler(prediction_type=prediction_type))
    step = torch.tensor([100, 400, 700, 999])
    weights = noising.weights(step, 5.0)
    ratio = (noising.signal_T / noising.spread_T).square()[step]
    per_latent = ratio if prediction_type == "epsilon" else ratio + 1  # of its squared error in the prediction's
    torch.testing.assert_close(weights * per_latent, ratio.clamp(max=5), atol=1e-6, rtol=1e-4)


def test_a_schedule_that_ends_without_signal_has_finite_weights():
    for prediction_type in ("epsilon", "v_prediction"):
        scheduler = DDIMScheduler(prediction_type=prediction_type, rescale_betas_zero_snr=True)
        assert Noising.of(scheduler).weights(torch.arange(1000), 5.0).isfinite().all()


@pytest.mark.parametrize("mode", ["residual", "attentive", "resampler"])
def test_gradients_reach_the_adapter_and_nothing_else(base, mode):
    model = tiny_words.adapter(base, mode=mode, num_words=2).train()
    objective = OBJECTIVES["latent_diffusion"](model, base, l2=0.1, label=0.01)
    terms = objective(model, tiny_words.batch_of(base))
    assert set(terms) == {"noise", "l1", "l2", "label"}
    sum(terms.values()).backward()
    reached = [name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()]
    assert reached
    assert not any(
        weight.requires_grad or weight.grad is not None for part in base.parts for weight in part.parameters()
    )
    assert not any(layer.training for part in base.parts for layer in part.modules())


def test_the_noise_term_alone_reaches_the_words(base):
    """The error of a prediction goes back through the UNet, the text encoder and the hook."""
    model = tiny_words.adapter(base).train()
    objective = LatentDiffusionLoss(model, base, l1=0.0)
    batch = tiny_words.batch_of(base)
    objective(model, batch)["noise"].backward()
    assert model.heads["text_encoder"].offsets.grad.abs().sum() > 0
    with torch.no_grad():
        model.heads["text_encoder"].offsets.zero_()
        silent = {**batch, "text": ["a photo"] * 3}
        assert float(objective(model, batch)["noise"]) != float(objective(model, silent)["noise"])


def test_the_error_is_that_of_diffusers_own_parts(base):
    """Another way to know: textual inversion's row, the pipeline's own encode_prompt, the scheduler's add_noise."""
    model = tiny_words.adapter(base).eval()
    batch = tiny_words.batch_of(base, 1)
    pipe = tiny_words.stock()
    word = model(batch["features"], batch["feature_mask"]).words["text_encoder"][0, 0].detach()
    pipe.load_textual_inversion({"<audio>": word})
    with torch.no_grad():
        states, _ = pipe.encode_prompt("a photo of <audio>", "cpu", 1, False)
        noisy = pipe.scheduler.add_noise(batch["latents"], batch["noise"], batch["timestep"])
        error = (pipe.unet(noisy, batch["timestep"], states).sample - batch["noise"]).square().mean()
        ours = LatentDiffusionLoss(model, base)(model, batch)["noise"]
    assert float(ours) == pytest.approx(float(error), abs=1e-5)


def test_it_falls_on_pictures_of_the_sound_as_it_learns(base):
    model = tiny_words.adapter(base, hidden_size=64).train()
    objective, batch = LatentDiffusionLoss(model, base, l1=0.0), tiny_words.batch_of(base)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    before = float(objective(model, batch)["noise"].detach())
    for _ in range(15):
        optimizer.zero_grad()
        objective(model, batch)["noise"].backward()
        optimizer.step()
    with torch.no_grad():
        after = float(objective(model, batch)["noise"])
        shuffled = float(objective(model, {**batch, "features": batch["features"].roll(1, 0)})["noise"])
    assert after < before and shuffled > after


def test_xl_speaks_to_two_text_encoders_and_to_the_vector_of_the_text():
    base = DiffusionBase.of_pipeline(tiny_words.stock_xl(), "tiny xl")
    model = tiny_words.adapter(base).train()
    terms = LatentDiffusionLoss(model, base)(model, tiny_words.batch_of(base))
    sum(terms.values()).backward()
    assert model.config.token_widths == {"text_encoder": 32, "text_encoder_2": 32}
    assert all(head.offsets.grad.any() for head in model.heads.values())


def test_a_lora_trains_along_and_is_saved_in_diffusers_format(tmp_path):
    pytest.importorskip("peft")
    base = tiny_words.base()
    model = AdapterWithLoRA(tiny_words.adapter(base), base.unet, rank=2).train()
    batch = tiny_words.batch_of(base)
    objective = LatentDiffusionLoss(model, base)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(2):  # the second matrix of a LoRA begins at nothing, so the first learns from the second step on
        optimizer.zero_grad()
        sum(objective(model, batch).values()).backward()
        optimizer.step()
    trained = {id(weight) for weight in model.parameters()}
    assert all(weight.grad is not None and weight.grad.any() for weight in model.lora.values())
    assert all(
        id(weight) in trained or not weight.requires_grad for part in base.parts for weight in part.parameters()
    )
    assert any("to_out__0" in name for name in model.lora)
    model.save_pretrained(tmp_path)
    held = AdapterWithLoRA.from_pretrained(tmp_path).state_dict()
    assert held.keys() == model.state_dict().keys()
    assert all(torch.equal(held[name], weight) for name, weight in model.state_dict().items())
    pipe = tiny_words.stock()
    noisy, step = batch["latents"][:1], torch.tensor([500])
    states = torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        plain = pipe.unet(noisy, step, states).sample
        pipe.load_lora_weights(str(tmp_path))
        found = pipe.unet(noisy, step, states).sample
        torch.testing.assert_close(found, base.unet(noisy, step, states).sample, atol=1e-5, rtol=0)
    assert (found - plain).abs().max() > 1e-5


def test_a_pipeline_is_given_back_as_it_was():
    pipe = tiny_words.stock()
    pipe.unet.train()
    pipe.text_encoder.requires_grad_(False)
    with as_it_was(pipe):
        DiffusionBase.of_pipeline(pipe)
        assert not pipe.unet.training and not any(weight.requires_grad for weight in pipe.unet.parameters())
    assert pipe.unet.training and all(weight.requires_grad for weight in pipe.unet.parameters())
    assert not pipe.vae.training and not any(weight.requires_grad for weight in pipe.text_encoder.parameters())


def test_what_is_missing_is_said(base):
    model = tiny_words.adapter(base)
    batch = {name: value for name, value in tiny_words.batch_of(base).items() if name != "label_text"}
    with pytest.raises(ValueError, match="needs label_text"):
        LatentDiffusionLoss(model, base, label=0.01)(model, batch)
    with pytest.raises(ValueError, match="above 0; got 0"):
        LatentDiffusionLoss(model, base, snr_gamma=0)
    assert LatentDiffusionLoss(model, base, snr_gamma=5.0)(model, batch)["noise"] > 0
