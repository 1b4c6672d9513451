"""What a step takes the finished picture to be, against what each scheduler of diffusers says about it itself."""

from __future__ import annotations

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from unibrivl.pipelines.clean_unibrivl import clean_latents, level_of, output_for, prediction_of  # noqa: E402

STEPS = 7
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PLAIN = {"clip_sample": False}
KINDS = ("epsilon", "v_prediction", "sample")
# schedulers that answer a step with the clean latents they assumed: as an output's field
SAYING = {
    "DDIMScheduler": {**PLAIN, "set_alpha_to_one": False, "steps_offset": 1},
    "DDPMScheduler": PLAIN,
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "LMSDiscreteScheduler": {},
    "HeunDiscreteScheduler": {},
    "KDPM2DiscreteScheduler": {},
    "KDPM2AncestralDiscreteScheduler": {},
}
# schedulers that turn an output into clean latents by a method
CONVERTING = {
    "DPMSolverMultistepScheduler": {"algorithm_type": "dpmsolver++"},
    "DPMSolverSinglestepScheduler": {"algorithm_type": "dpmsolver++"},
    "UniPCMultistepScheduler": {},
    "DEISMultistepScheduler": {},
    "SASolverScheduler": {},
}
NO_SAMPLE = ("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler",
             "KDPM2AncestralDiscreteScheduler")  # fmt: skip
CASES = [(name, kind) for name in SAYING for kind in KINDS if kind != "sample" or name not in NO_SAMPLE]


def scheduler_of(name: str, **fields):
    scheduler = getattr(diffusers, name)(**{**NOISE, **fields})
    scheduler.set_timesteps(STEPS)
    return scheduler


def noisy(scheduler) -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * scheduler.init_noise_sigma


def outputs():
    generator = torch.Generator().manual_seed(1)
    while True:
        yield torch.randn(2, 4, 8, 8, generator=generator)


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def round_trip(scheduler, output, timestep, latents) -> None:
    clean = clean_latents(scheduler, output, timestep, latents)
    close(output_for(scheduler, clean, timestep, latents), output)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_clean_latents_are_those_that_the_scheduler_says(name, kind):
    scheduler = scheduler_of(name, prediction_type=kind, **SAYING[name])
    latents = noisy(scheduler)
    for timestep, output in zip(scheduler.timesteps, outputs(), strict=False):
        scheduler.scale_model_input(latents, timestep)
        ours = clean_latents(scheduler, output, timestep, latents)
        round_trip(scheduler, output, timestep, latents)
        answer = scheduler.step(output, timestep, latents)
        close(ours, answer.pred_original_sample)
        latents = answer.prev_sample


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONVERTING)
def test_the_clean_latents_are_those_that_the_scheduler_converts_to(name, kind):
    scheduler = scheduler_of(name, prediction_type=kind, **CONVERTING[name])
    latents, found = noisy(scheduler), []
    convert = scheduler.convert_model_output
    scheduler.convert_model_output = lambda *args, **kwargs: found.append(convert(*args, **kwargs)) or found[-1]
    for timestep, output in zip(scheduler.timesteps, outputs(), strict=False):
        ours = clean_latents(scheduler, output, timestep, latents)
        round_trip(scheduler, output, timestep, latents)
        before, latents = latents, scheduler.step(output, timestep, latents).prev_sample
        if name == "DEISMultistepScheduler":  # it converts to noise
            signal, noise = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[scheduler.step_index - 1])
            found[-1] = (before - noise * found[-1]) / signal
        close(ours, found.pop())


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler", "PNDMScheduler"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_distilled_schedulers_and_pndm_agree_with_ddim_on_the_same_latents(name, kind):
    scheduler = scheduler_of(name, prediction_type=kind, **({"skip_prk_steps": True} if "PNDM" in name else {}))
    ddim = scheduler_of("DDIMScheduler", prediction_type=kind, **PLAIN)
    latents = noisy(scheduler)
    for timestep, output in zip(scheduler.timesteps, outputs(), strict=False):
        ours = clean_latents(scheduler, output, timestep, latents)
        close(ours, ddim.step(output, timestep, latents).pred_original_sample)
        round_trip(scheduler, output, timestep, latents)
        latents = scheduler.step(output, timestep, latents).prev_sample


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"])
def test_a_flow_whose_output_is_exact_leads_to_the_picture(name):
    scheduler = getattr(diffusers, name)()
    scheduler.set_timesteps(STEPS)
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 4, 8, 8, generator=generator)
    latents = noise.clone()
    for timestep in scheduler.timesteps:
        close(clean_latents(scheduler, noise - clean, timestep, latents), clean)
        round_trip(scheduler, noise - clean, timestep, latents)
        latents = scheduler.step(noise - clean, timestep, latents, return_dict=False)[0]
    close(latents, clean)


@pytest.mark.parametrize("kind", ["epsilon", "flow_prediction"])
def test_solvers_on_a_flows_sigmas_convert_alike(kind):
    scheduler = scheduler_of("DPMSolverMultistepScheduler", prediction_type=kind, use_flow_sigmas=True)
    latents = noisy(scheduler)
    found = []
    convert = scheduler.convert_model_output
    scheduler.convert_model_output = lambda *args, **kwargs: found.append(convert(*args, **kwargs)) or found[-1]
    for timestep, output in list(zip(scheduler.timesteps, outputs(), strict=False))[1:]:
        scheduler.set_begin_index(scheduler.begin_index or 1)  # the first has no signal at all
        ours = clean_latents(scheduler, output, timestep, latents)
        latents = scheduler.step(output, timestep, latents).prev_sample
        close(ours, found.pop())


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_edm_schedulers_mix_latents_and_output_by_their_own_rule(name, kind):
    scheduler = getattr(diffusers, name)(prediction_type=kind)
    scheduler.set_timesteps(STEPS)
    latents = noisy(scheduler)
    for timestep, output in zip(scheduler.timesteps, outputs(), strict=False):
        scheduler.scale_model_input(latents, timestep)
        sigma = scheduler.sigmas[scheduler.step_index]
        close(
            clean_latents(scheduler, output, timestep, latents), scheduler.precondition_outputs(latents, output, sigma)
        )
        round_trip(scheduler, output, timestep, latents)
        latents = scheduler.step(output, timestep, latents).prev_sample


def test_the_share_of_noise_falls_from_all_to_little_and_is_the_same_for_every_scheduler():
    shares = []
    for name in ("DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"):
        scheduler = scheduler_of(name, timestep_spacing="trailing")
        latents, mine = noisy(scheduler), []
        for timestep, output in zip(scheduler.timesteps, outputs(), strict=False):
            mine.append(level_of(scheduler, timestep).noise)
            latents = scheduler.step(output, timestep, latents).prev_sample
        assert mine == sorted(mine, reverse=True) and mine[0] > 0.99 and 0 < mine[-1] < 0.6
        shares.append(torch.tensor(mine))
    torch.testing.assert_close(shares[0], shares[1], atol=2e-3, rtol=0)
    torch.testing.assert_close(shares[0], shares[2], atol=2e-3, rtol=0)


def test_half_precision_survives_the_first_step():
    scheduler = scheduler_of("EulerDiscreteScheduler")
    timestep, output = scheduler.timesteps[0], next(outputs())
    latents = noisy(scheduler)
    exact = clean_latents(scheduler, output, timestep, latents)
    half = clean_latents(scheduler, output.half(), timestep, latents.half())
    assert half.dtype == torch.float32 and float((half - exact).abs().max()) < 0.05
    assert output_for(scheduler, half, timestep, latents.half()).dtype == torch.float16


def test_what_no_unet_can_say_is_refused_with_a_way_out():
    scheduler = scheduler_of("DDIMScheduler", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with pytest.raises(ValueError, match="v_prediction"):
        level_of(scheduler, scheduler.timesteps[0])
    scheduler = scheduler_of("DDIMScheduler", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    assert level_of(scheduler, 999).noise == pytest.approx(1, abs=1e-6)
    scheduler.register_to_config(prediction_type="moon")
    with pytest.raises(ValueError, match="'moon'"):
        prediction_of(scheduler)
