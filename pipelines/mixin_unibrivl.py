"""`UniBriVLMixin`: what makes a Stable Diffusion pipeline listen. It stands before a pipeline of diffusers:

    class UniBriVLPipeline(UniBriVLMixin, StableDiffusionPipeline)

A call goes through a visible list of public steps: `encode_query` hears, `propose` finds prompts, `draw` runs the
pipeline's own call for all candidates at once, `score` ranks them. Without a sound the pipeline is the plain one.

Shapes: Q sounds, P prompts of each, S seeds of each, R = Q P S rows, E numbers of an embedding.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .calling_unibrivl import CallsParent, checked_at_each_step
from .image_embeds_unibrivl import TakesEmbedsOfRows
from .loading_pipeline_unibrivl import LoadsMatcher
from .matching_unibrivl import matcher_for
from .outputs_pipeline_unibrivl import Candidate, UniBriVLPipelineOutput
from .prompts_unibrivl import bank_named, nearest_prompts
from .query_unibrivl import Query, encode_query
from .receipt_unibrivl import write_receipts
from .seeds_unibrivl import Seeds
from .steering_unibrivl import Steering
from .strategies_unibrivl import strategy_named
from .strategy_unibrivl import Request, Strategy

PER_PROMPT = ("negative_prompt", "prompt_2", "negative_prompt_2")  # what of a call has one value for each prompt
ROWS_DECODED = 4  # OURS: pictures that the VAE decodes at once for a strategy


class UniBriVLMixin(LoadsMatcher, CallsParent, TakesEmbedsOfRows):
    """Hearing, proposing, scoring: see the pipelines that have it."""

    # of the pipeline it stands before
    unet: Any
    vae: Any
    image_processor: Any
    maybe_free_model_hooks: Any
    config: Any
    _execution_device: torch.device
    # components of ours
    matcher: Any
    matcher_processor: Any

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *args,
        audio: Any = None,
        audio_embeds: torch.Tensor | None = None,
        sampling_rate: int | None = None,
        mix: Sequence[float] | None = None,
        text: str | list[str] | None = None,
        text_weight: float = 0.5,  # OURS: sound and text count alike
        windows: bool = False,
        volume: Sequence[float] | None = None,
        strategy: str | Strategy = "halving",
        num_candidates: int | None = None,
        label_bank: Any = None,
        keep_candidates: bool = False,
        max_rows: int | None = None,
        **kwargs,
    ):
        """A sound to pictures. Without `audio` or `audio_embeds` this is the plain pipeline.

        Args:
            prompt (`str` or `list[str]`, *optional*): one for all sounds, or one for each. With none the candidates
                are drawn from the label bank's nearest to the sound.
            audio (*optional*): a sound, or a list: what `unibrivl.load_audio` takes, such as a path, or samples.
            audio_embeds (`torch.Tensor`, *optional*): (Q, E), what the matcher made of sounds, in place of them.
            sampling_rate (`int`, *optional*): of samples that do not carry their own.
            mix (`list[float]`, *optional*): with a list of sounds: they are one, by these weights.
            text (`str` or `list[str]`, *optional*): what is added to the sound's meaning: "at night".
            text_weight (`float`): how much of the two is the text.
            windows (`bool`): a long sound gives a picture for each window of it, a storyboard.
            volume (`list[float]`, *optional*): gains in dB at which the sound is heard, a picture for each.
            strategy (`str` or `Strategy`): how candidates become pictures: "halving", "rerank", ...
            num_candidates (`int`, *optional*): pictures that are begun for each sound; by default the strategy's. The
                best `num_images_per_prompt` of them are returned.
            label_bank (*optional*): where prompts come from: the name of a bank of this pipeline's (`label_banks`); a
                list of labels; `{label: prompt}`; or a file. By default the pipeline's first bank, or, where it has
                none, the project's labels.
            keep_candidates (`bool`): return all finished candidates with their pictures.
            max_rows (`int`, *optional*): at most so many rows in one call of the UNet.
            generator (*optional*): one, or a list with one for each sound.
            latents (*optional*): with one row for each candidate.

        Returns:
            `UniBriVLPipelineOutput`: for each sound its best pictures first, with scores; with `return_dict=False` the
            tuple of the plain pipeline.
        """
        call = self._call_arguments(prompt, args, kwargs)
        if audio is None and audio_embeds is None:
            self._refuse_without_sound(
                sampling_rate=sampling_rate, mix=mix, text=text, windows=windows or None, volume=volume,
                num_candidates=num_candidates, label_bank=label_bank, keep_candidates=keep_candidates or None,
                max_rows=max_rows,
            )  # fmt: skip
            return super().__call__(**call)  # type: ignore[misc]
        settings = {} if num_candidates is None else {"num_candidates": num_candidates}
        strategy = strategy_named(strategy, **settings)
        self.check_matcher()
        self.check_base()
        query = self.encode_query(
            audio, audio_embeds, sampling_rate=sampling_rate, mix=mix, text=text, text_weight=text_weight,
            windows=windows, volume=volume,
        )  # fmt: skip
        request = self.propose(query, strategy, call, label_bank)
        strategy.check(request)
        swept = query.labels is not None  # one sound at several gains: nothing else may differ
        seeds = Seeds.draw(
            call.get("generator"), len(request.queries), request.per_sound, str(self._execution_device), alike=swept
        )
        pictures, rows, flagged = self.draw(request, strategy, seeds, max_rows)
        scores = self.score(request, pictures, rows)
        return self._output(request, strategy, query, seeds, pictures, rows, flagged, scores, keep_candidates)

    # ---- the steps of a call

    def encode_query(self, audio: Any = None, audio_embeds: torch.Tensor | None = None, **how) -> Query:
        """(Q, E) what the pictures are compared with: see `query_unibrivl.encode_query`."""
        return encode_query(self.listener, audio, audio_embeds, **how)

    def propose(self, query: Query, strategy: Strategy, call: dict[str, Any], label_bank: Any = None) -> Request:
        """What will be drawn: the caller's prompts, or those of the label bank that are nearest to each sound."""
        num_kept = call.get("num_images_per_prompt") or 1
        total = max(strategy.num_candidates, num_kept)
        prompts, queries_QE = call.get("prompt"), query.embeds
        if call.get("prompt_embeds") is not None:
            queries_QE = repeated(queries_QE, len(call["prompt_embeds"]), "prompt_embeds")
            return Request(self, queries_QE, None, total, num_kept, call)
        if prompts is not None:
            prompts = [prompts] if isinstance(prompts, str) else list(prompts)
            queries_QE = repeated(queries_QE, len(prompts), "prompts")
            prompts = prompts * (len(queries_QE) // len(prompts))
            return Request(self, queries_QE, [[one] for one in prompts], total, num_kept, call)
        if not strategy.needs_prompts:
            return Request(self, queries_QE, [[""]] * len(queries_QE), total, num_kept, call)
        bank = bank_named(label_bank, self.label_banks)
        found = nearest_prompts(self.listener, queries_QE, total, strategy.num_prompts, bank)
        return Request(self, queries_QE, found, total // len(found[0]), num_kept, call)

    def draw(
        self, request: Request, strategy: Strategy, seeds: Seeds, max_rows: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, list[bool] | None]:
        """All candidates by the pipeline's own call.

        Returns:
            (A, 3, H, W) pictures in 0..1, or latents if these were asked for; (A,) the rows they were drawn in; and
            which of them the safety checker has blackened.
        """
        call = {**request.call, **strategy.prepare(request)}
        self._check_latents(call.get("latents"), request.num_rows)
        if request.prompts is not None:
            call["prompt"] = [prompt for prompts in request.prompts for prompt in prompts]
            for name in PER_PROMPT:
                if isinstance(call.get(name), str):  # of several prompts the plain pipeline wants as many
                    call[name] = [call[name]]
                if isinstance(call.get(name), (list, tuple)):
                    each = repeated_list(call[name], len(request.queries), name)
                    call[name] = [value for value in each for _ in request.prompts[0]]
        wants_latents = call.get("output_type") == "latent"
        call |= {
            "num_images_per_prompt": request.num_seeds,
            "generator": seeds.generator,
            "output_type": "latent" if wants_latents else "pt",
            "return_dict": True,
            **checked_at_each_step(call),
        }
        steering = None
        # one candidate is the plain pipeline's own call, bit for bit; several are cut to what fits the memory
        if strategy.steers or max_rows is not None or request.num_rows > 1:
            steering = request.steering = Steering(
                self,
                request.num_rows,
                (lambda moment: strategy.adjust(moment, request)) if strategy.steers else None,
                (lambda moment: strategy.keep(moment, request)) if strategy.steers else None,
                max_rows,
            )
        with (
            strategy.during(request),
            steering or contextlib.nullcontext(),
            decoded_singly(self.vae, request.num_rows > ROWS_DECODED),
        ):
            output = super().__call__(**call)  # type: ignore[misc]
        rows = torch.arange(request.num_rows) if steering is None else steering.rows
        return output.images, rows, getattr(output, "nsfw_content_detected", None)

    def score(self, request: Request, pictures: torch.Tensor, rows: torch.Tensor) -> list[float]:
        """The matching score of each finished picture, as it would be after it was saved to a file."""
        if request.call.get("output_type") == "latent":
            pictures = self.decode_pictures(pictures)
        finished = self.image_processor.numpy_to_pil(self.image_processor.pt_to_numpy(pictures))
        found_AE = self.embed_pictures(finished)
        queries_AE = request.queries[request.sounds_of(rows).to(request.queries.device)]
        return (found_AE * queries_AE.to(found_AE)).sum(-1).tolist()

    # ---- pictures and the matcher

    @property
    def label_banks(self) -> dict[str, dict[str, str]]:
        """Banks that this pipeline carries, the default first: name -> {what the matcher reads: what is drawn}."""
        return self.config.get("label_banks") or {}

    @property
    def listener(self):
        """The matcher of this pipeline's components."""
        self.check_matcher()
        parts = (self.matcher, self.matcher_processor)
        if getattr(self, "_listener_parts", None) != parts:  # the first time, or somebody has exchanged them
            self._listener, self._listener_parts = matcher_for(*parts), parts
        return self._listener

    def check_matcher(self) -> None:
        if getattr(self, "matcher", None) is None:
            raise ValueError(
                f"this {type(self).__name__} has no matcher, so it cannot hear: load it with one, "
                f"{type(self).__name__}.from_pretrained(base, matcher='org/unibrivl')"
            )

    def check_base(self) -> None:
        """Refuses, before the first step, components that belong to different bases."""
        takes = getattr(self.unet.config, "cross_attention_dim", None)
        takes = max(takes) if isinstance(takes, (list, tuple)) else takes
        encoders = [getattr(self, name, None) for name in ("text_encoder", "text_encoder_2")]
        gives = sum(one.config.hidden_size for one in encoders if one is not None)
        projected = getattr(self.unet.config, "encoder_hid_dim", None) is not None
        if (
            takes
            and gives
            and takes != gives
            and not projected
            and hasattr(self, "text_encoder_2") is (encoders[1] is not None)
        ):
            raise ValueError(
                f"the UNet takes conditions of width {takes} and the text side gives {gives}, so they belong to "
                f"different bases: {type(self).__name__} needs all components of one"
            )
        channels, latent = self.unet.config.in_channels, self.vae.config.latent_channels
        if channels not in self._channels_taken(latent):
            raise ValueError(
                f"the UNet takes {channels} channels and the VAE has {latent}: this is a base for inpainting or for "
                "editing. Take one that makes pictures from text"
            )

    def _channels_taken(self, latent: int) -> tuple[int, ...]:
        """How many channels a UNet of this pipeline's may take."""
        return (latent,)

    def embed_pictures(self, pictures: Any, gradients: bool = False) -> torch.Tensor:
        """(A, E) of pictures: a list of PIL images, or (A, 3, H, W) in 0..1."""
        pieces = [
            self.listener.encode_image(pictures[start : start + ROWS_DECODED], gradients=gradients)
            for start in range(0, len(pictures), ROWS_DECODED)
        ]
        return torch.cat(pieces)

    def decode_pictures(self, latents_ACHW: torch.Tensor) -> torch.Tensor:
        """(A, 3, H, W) in 0..1, without the safety checker: for scores on the way, not for people."""
        pieces = [self._decode(latents_ACHW[start : start + ROWS_DECODED])
                  for start in range(0, len(latents_ACHW), ROWS_DECODED)]  # fmt: skip
        return (torch.cat(pieces).float() / 2 + 0.5).clamp(0, 1)

    def _decode(self, latents_ACHW: torch.Tensor) -> torch.Tensor:
        latents = latents_ACHW.to(self.vae.dtype) / self.vae.config.scaling_factor
        return self.vae.decode(latents, return_dict=False)[0]

    # ---- arguments and output

    def _check_latents(self, latents: torch.Tensor | None, num_rows: int) -> None:
        if latents is not None and len(latents) != num_rows:
            raise ValueError(
                f"latents have {len(latents)} rows and {num_rows} candidates are drawn: pass one row for each, or "
                "num_candidates=1"
            )

    def _output(self, request, strategy, query, seeds, pictures, rows, flagged, scores, keep_candidates):
        call = request.call
        output_type = call.get("output_type") or "pil"
        candidates = [
            Candidate(
                sound=row // request.per_sound,
                prompt=None
                if request.prompts is None
                else request.prompts[row // request.per_sound][row % request.per_sound // request.num_seeds],
                seed=seeds.seeds[row],
            )
            for row in range(request.num_rows)
        ]
        hidden = flagged or [False] * len(rows)
        for row, value in zip(rows.tolist(), scores, strict=True):
            candidates[row].score = value
        chosen: list[int] = []
        for sound in range(len(request.queries)):
            mine = [place for place, row in enumerate(rows.tolist()) if row // request.per_sound == sound]
            mine.sort(key=lambda place: (hidden[place], -scores[place]))
            chosen += mine[: request.num_kept]
        if keep_candidates:
            for place, row in enumerate(rows.tolist()):
                candidates[row].image = self._finished(pictures[place : place + 1], output_type)[0]
        candidates.sort(key=lambda one: (one.sound, one.score is None, -(one.score or 0.0)))
        images = self._finished(pictures[chosen], output_type)
        nsfw = None if flagged is None else [flagged[place] for place in chosen]
        self.maybe_free_model_hooks()
        if not call.get("return_dict", True):
            return (images, nsfw) if hasattr(self, "safety_checker") else (images,)
        sounds = [int(rows[place]) // request.per_sound for place in chosen]
        times = None if query.times is None else [query.times[sound % len(query.times)] for sound in sounds]
        return UniBriVLPipelineOutput(
            images=images,
            nsfw_content_detected=nsfw,
            scores=[scores[place] for place in chosen],
            candidates=candidates,
            receipts=write_receipts(
                self, request, strategy, query, seeds, candidates,
                [(int(rows[place]), scores[place]) for place in chosen],
                None if output_type == "latent" else tuple(pictures.shape[-2:]),
            ),
            times=times,
            labels=None if query.labels is None else [query.labels[sound % len(query.labels)] for sound in sounds],
        )  # fmt: skip

    def _finished(self, pictures: torch.Tensor, output_type: str) -> Any:
        if output_type in ("pt", "latent"):
            return pictures
        arrays = self.image_processor.pt_to_numpy(pictures)
        return arrays if output_type == "np" else self.image_processor.numpy_to_pil(arrays)


def repeated(queries_QE: torch.Tensor, count: int, what: str) -> torch.Tensor:
    """One sound for all prompts, or one prompt for all sounds, or as many of both."""
    if len(queries_QE) == count or count == 1:
        return queries_QE
    if len(queries_QE) == 1:
        return queries_QE.expand(count, -1)
    raise ValueError(f"{len(queries_QE)} sounds and {count} {what}: pass as many of both, or one of either")


def repeated_list(values: Sequence, count: int, what: str) -> list:
    values = list(values)
    if len(values) not in (1, count):
        raise ValueError(f"{len(values)} values of {what} for {count} sounds: pass one, or one for each")
    return values * (count // len(values))


@contextlib.contextmanager
def decoded_singly(vae: Any, wanted: bool) -> Iterator[None]:
    """Finished pictures leave the VAE one by one where there are many, so that their number costs no memory."""
    before = getattr(vae, "use_slicing", None)
    if not wanted or before is None:
        yield
        return
    vae.use_slicing = True
    try:
        yield
    finally:
        vae.use_slicing = before


__all__ = ["UniBriVLMixin"]
