"""`AudioTokenEditPipeline`: a picture is changed by a sound, and what the sound does not speak of stays.

    pipe("a photo of <audio>", image=picture, source_prompt="a photo of a dog", audio="rooster.wav")

By default prompt-to-prompt: the picture is walked back to its noise by DDIM, and source and target are drawn from it
side by side. For a share of the steps the target attends as the source does; the source is put back onto its way at
each step, so that it comes out as it went in, whatever the guidance. Without a picture both are drawn from chance.

Shapes: B pairs, C latent channels, h x w a latent, L tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput

from .alignment_audio_token import alignment, replaced
from .attention_audio_token import Control
from .calling_unibrivl import checked_at_each_step, exchanged, with_parameters_of
from .inversion_audio_token import ddim, encoded, inverted
from .ledits_audio_token import edited
from .mixin_audio_token import AudioTokenMixin, listed, said
from .parts_audio_token import AudioTokenParts
from .pipeline_audio_token_img2img import AudioTokenImg2ImgPipeline
from .words_audio_token import Speaker, Words

IN_THE_STYLE = " in the style of <audio>"
EDITING = (
    "edit_method",
    "strength",
    "cross_replace_steps",
    "self_replace_steps",
)  # what says nothing to a new picture
METHODS = ("p2p", "sdedit", "ledits++")
NOT_HERE = (
    *("num_images_per_prompt", "latents", "prompt_embeds", "negative_prompt_embeds", "timesteps", "sigmas"),
    *("ip_adapter_image", "ip_adapter_image_embeds"),
)


@dataclass
class AudioTokenEditOutput(StableDiffusionPipelineOutput):
    """
    Args:
        images, nsfw_content_detected: the pictures after the change, as in `StableDiffusionPipelineOutput`.
        source_images: those before it, as the autoencoder gives them back; of "p2p".
    """

    source_images: Any = None


class AudioTokenEditPipeline(AudioTokenParts, StableDiffusionPipeline):
    """`pipe("a photo of <audio>", image=picture, source_prompt="a photo of a dog", audio="rooster.wav")`.

    See `AudioTokenParts` for the components. Steps are DDIM's, whatever the scheduler, with its noise.
    """

    @with_parameters_of(StableDiffusionPipeline.__call__, (*NOT_HERE, "eta"))
    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: Any = None,
        *,
        source_prompt: str | list[str] | None = None,
        audio: Any = None,
        audio_embeds: Any = None,
        source_audio: Any = None,
        audio_sampling_rate: int | None = None,
        audio_weights: float | Sequence = 1.0,
        audio_mix: str = "separate",
        negative_audio: Any = None,
        edit_method: str = "p2p",
        cross_replace_steps: float = 0.8,  # AAI: prompt-to-prompt code's default
        self_replace_steps: float = 0.4,  # AAI: prompt-to-prompt code's default
        local_blend: bool | tuple[str, str] | None = None,
        word_weights: Mapping[str, float] | None = None,
        source_guidance_scale: float = 1.0,
        strength: float = 0.8,
        num_inference_steps: int = 50,
        **kwargs,
    ):
        """Pictures that a sound has changed.

        Args:
            prompt (`str` or `list[str]`, *optional*): what should be there, with `<audio>` for the sound; without one
                "A photo of <audio>".
            image (*optional*): a picture or several, one for each prompt. Without any, source and target are drawn.
            source_prompt (`str` or `list[str]`, *optional*): what is there. Without one it is the prompt, with
                `source_audio` in it.
            source_audio (*optional*): sounds of the source prompt's placeholders.
            audio, audio_embeds, audio_sampling_rate, audio_weights, audio_mix, negative_audio: as in
                `AudioTokenPipeline`.
            edit_method (`str`): "p2p"; "sdedit", which blurs the picture by noise and draws on; or "ledits++", which
                needs no source prompt and changes where the word looks.
            cross_replace_steps, self_replace_steps (`float`): share of the steps in which the target's attention to
                words, and to its own places, is the source's.
            local_blend (*optional*): True, the picture changes only where the sound, or the words it replaces, are
                looked for; or a pair of words, of the source and of the target: ("dog", "<audio>").
            word_weights (*optional*): word of the prompt -> how many times its attention counts: {"<audio>": 2.0}.
            source_guidance_scale (`float`): of the way back to noise.
            strength (`float`): of "sdedit".
            num_inference_steps (`int`): there, and back again.
            kwargs: of `StableDiffusionPipeline`: guidance_scale, negative_prompt, height, width, generator,
                output_type, callback_on_step_end, ...

        Returns:
            `AudioTokenEditOutput`; with `return_dict=False` the tuple of the plain pipeline.
        """
        if edit_method not in METHODS:
            raise ValueError(f"edit_method is one of {', '.join(METHODS)}, got {edit_method!r}")
        heard = {
            "audio": audio, "audio_embeds": audio_embeds, "audio_sampling_rate": audio_sampling_rate,
            "audio_weights": audio_weights, "audio_mix": audio_mix, "negative_audio": negative_audio,
        }  # fmt: skip
        if edit_method == "sdedit":
            return self._sdedit(prompt, image, heard, strength, num_inference_steps, kwargs)
        for name in NOT_HERE:
            if kwargs.get(name) is not None and not (name == "num_images_per_prompt" and kwargs[name] == 1):
                raise ValueError(f"{name} is not for edit_method={edit_method!r}: leave it out")
        if edit_method == "ledits++":
            return edited(self, prompt, image, heard, source_prompt or "", num_inference_steps, kwargs)
        for name, value in (("cross_replace_steps", cross_replace_steps), ("self_replace_steps", self_replace_steps)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is a share of the steps, from 0 to 1; got {value}")
        call = self._call_arguments(None, (), {**kwargs, "num_inference_steps": num_inference_steps, "eta": 0.0})
        how: dict[str, Any] = {"sampling_rate": audio_sampling_rate, "mix": audio_mix}
        targets, spoken = self.understood(prompt, audio, audio_embeds, weights=audio_weights, **how)
        sources, source_spoken = self._sources(source_prompt, source_audio, targets, how)
        refused: list[list[Words]] = []
        if negative_audio is not None:
            call["negative_prompt"], refused = self.understood(
                call.get("negative_prompt"), negative_audio, default="<audio>", **how
            )
        negative = listed(call.get("negative_prompt") or "")
        if len(negative) not in (1, len(targets)):
            raise ValueError(f"{len(negative)} negative prompts for {len(targets)} prompts: one, or one for each")
        count = len(targets)
        rows = [*source_spoken, *spoken]
        call |= {"prompt": [*sources, *targets], "negative_prompt": negative * (2 * count // len(negative))}
        refused = (refused or rows) if len(refused) != count else [*refused, *refused]
        with self.speaking_of(call, rows, refused), exchanged(self, scheduler=ddim(self.scheduler)):
            # the picture says how large the call is, which the control has to know
            way = None if image is None else self._way_back(call, image, count, source_guidance_scale)
            control = self._control(
                call["prompt"], rows, num_inference_steps, cross_replace_steps, self_replace_steps, local_blend,
                word_weights, call,
            )  # fmt: skip
            return self._drawn_together(call, control, way, count)

    # ---- prompt to prompt

    def _sources(self, source_prompt: Any, source_audio: Any, targets: list[str], how: dict[str, Any]) -> Any:
        """What is there: texts, and of each the words of its sounds."""
        if source_prompt is None and source_audio is None:
            raise ValueError(
                "source_prompt= says what the picture shows before the change, such as 'a photo of a dog': pass it, "
                "or source_audio= of what is heard before it"
            )
        sources, spoken = self.understood(source_prompt or targets, source_audio, **how)
        if len(sources) not in (1, len(targets)):
            raise ValueError(f"{len(sources)} source prompts and {len(targets)} prompts: pass as many of both")
        times = len(targets) // len(sources)
        return sources * times, spoken * times

    def _control(
        self, texts: list[str], rows: list[list[Words]], steps: int, cross: float, itself: float, local_blend: Any,
        word_weights: Mapping[str, float] | None, call: dict[str, Any],
    ) -> Control:  # fmt: skip
        """What the target's layers look at, from how the two texts agree."""
        with Speaker(self) as say:
            spoken = self.maybe_convert_prompt(said(say, texts, rows), self.tokenizer)
            ids = self.tokenizer(
                spoken, padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True
            ).input_ids
            reader = next(iter(say.readers.values()))
            end, count = self.tokenizer.eos_token_id, len(texts) // 2

            def places(row: int, word: str) -> list[int]:
                return places_of(ids[row], word, self.tokenizer, set(reader.rows), texts[row])

            pairs = [(ids[pair], ids[count + pair]) for pair in range(count)]
            found = [alignment(source, target, end) for source, target in pairs]
            blend = None
            if local_blend is True:
                blend = [replaced(source, target, end) for source, target in pairs]
            elif local_blend:
                before, after = local_blend
                blend = [(places(pair, before), places(count + pair, after)) for pair in range(count)]
            weights = None
            if word_weights:
                weights = torch.ones(count, len(ids[0]))
                for word, weight in word_weights.items():
                    for pair in range(count):
                        weights[pair, places(count + pair, word)] = weight
        large = max(call.get("height") or 0, call.get("width") or 0) >= 768  # AAI: then one level more is copied
        return Control(
            torch.stack([maps for maps, _ in found]),
            torch.stack([taken for _, taken in found]),
            steps,
            cross,
            itself,
            self_places=32 * 32 if large else 16 * 16,
            weights_BL=weights,
            blend=blend,
        )

    def _way_back(self, call: dict[str, Any], image: Any, count: int, guidance: float) -> list[torch.Tensor]:
        """Latents of the pictures at each level of noise; of one picture for all prompts as many."""
        pixels = self.image_processor.preprocess(image, call.get("height"), call.get("width"))
        if len(pixels) not in (1, count):
            raise ValueError(f"{len(pixels)} pictures and {count} prompts: pass one picture, or one for each prompt")
        call["height"], call["width"] = pixels.shape[-2:]
        latents = encoded(self.vae, pixels.to(self._execution_device)).to(self.unet.dtype)
        latents = latents.expand(count, *latents.shape[1:])
        assert self._spoken is not None
        mine = self._spoken[0][:count]
        with self.speaking_of({"prompt": call["prompt"][:count]}, mine, mine):
            states, unread = self.encode_prompt(
                call["prompt"][:count], self._execution_device, 1, guidance != 1.0, [""] * count,
                clip_skip=call.get("clip_skip"),
            )  # fmt: skip
        return inverted(self, latents, states, call["num_inference_steps"], unread, guidance)

    def _drawn_together(self, call: dict[str, Any], control: Control, way: Any, count: int) -> Any:
        """Sources and targets by the pipeline's own call, from the same noise."""
        if way is None:
            height = call.get("height") or self.unet.config.sample_size * self.vae_scale_factor
            width = call.get("width") or self.unet.config.sample_size * self.vae_scale_factor
            noise = self.prepare_latents(
                count, self.unet.config.in_channels, height, width, self.unet.dtype, self._execution_device,
                call.get("generator"), None,
            )  # fmt: skip
        else:
            noise = way[-1]
        theirs = call.get("callback_on_step_end")
        wanted = call.get("callback_on_step_end_tensor_inputs") or ["latents"]

        def step(pipe, number, timestep, tensors):
            control.next_step()
            latents = tensors["latents"]
            if way is not None:  # the source is put back onto its way
                latents = torch.cat([way[len(way) - 2 - number].to(latents), latents[count:]])
            tensors["latents"] = control.blended(latents)
            return tensors if theirs is None else {**tensors, **theirs(pipe, number, timestep, tensors)}

        call |= {"callback_on_step_end": step, "callback_on_step_end_tensor_inputs": list({*wanted, "latents"})}
        plain = {**call, **checked_at_each_step(call), "latents": torch.cat([noise, noise]), "return_dict": True}
        plain["generator"] = None  # it has drawn the noise already
        with control.of(self.unet):
            output = StableDiffusionPipeline.__call__(self, **plain)
        images, flagged = output.images, output.nsfw_content_detected
        mine, sources = images[count:], images[:count]
        nsfw = None if flagged is None else flagged[count:]
        if not call.get("return_dict", True):
            return mine, nsfw
        return AudioTokenEditOutput(images=mine, nsfw_content_detected=nsfw, source_images=sources)

    # ---- styles

    def stylize(self, prompt: str | None = None, *, image: Any = None, **how: Any) -> Any:
        """A picture in the style of a sound.

        Args:
            prompt (`str`, *optional*): what is drawn, or what the picture shows; of a picture by default "a photo".
            image (*optional*): a picture to change; its form stays.
            how: `audio` and all else of `AudioTokenPipeline`, or of an edit with a picture.
        """
        if image is None:
            if prompt is None:
                raise ValueError("say what to draw, or pass image= to change a picture")
            how = {name: value for name, value in how.items() if name not in EDITING}
            return AudioTokenMixin.__call__(self, prompt + IN_THE_STYLE, **how)
        prompt = prompt or "a photo"
        settings = {"source_prompt": prompt, "self_replace_steps": 0.6, "strength": 0.55}  # AAI: for styles
        return self(prompt + IN_THE_STYLE, image, **{**settings, **how})

    # ---- another way

    def _sdedit(self, prompt: Any, image: Any, heard: dict, strength: float, steps: int, kwargs: dict) -> Any:
        if image is None:
            raise ValueError("edit_method='sdedit' changes a picture: pass image=")
        if not 0 <= strength <= 1 or int(steps * strength) < 1:
            raise ValueError(
                f"a strength of {strength:g} leaves {max(0, int(steps * strength))} of {steps} steps: take one up to "
                "1, and more of it or more steps"
            )
        return self._as(AudioTokenImg2ImgPipeline)(
            prompt, image=image, strength=strength, num_inference_steps=steps, **heard, **kwargs
        )


def places_of(ids: Sequence[int], word: str, tokenizer: Any, words: set[int], text: str) -> list[int]:
    """Where a word stands in a text; "<audio>" is every sound."""
    if word == "<audio>":
        found = [place for place, one in enumerate(ids) if one in words]
    else:
        wanted = list(tokenizer(word, add_special_tokens=False).input_ids)
        starts = [place for place in range(len(ids)) if list(ids[place : place + len(wanted)]) == wanted]
        found = [place + step for place in starts for step in range(len(wanted))]
    if not found:
        raise ValueError(f"{word!r} does not stand in {text!r}: name a word of it")
    return found


__all__ = ["AudioTokenEditOutput", "AudioTokenEditPipeline"]
