"""`AudioTokenMixin`: sounds as words of a pipeline's prompts. It stands before a pipeline of diffusers:

    class AudioTokenPipeline(AudioTokenMixin, UniBriVLMixin, StableDiffusionPipeline)

    pipe(audio="dog.wav")                                            # "A photo of <audio>"
    pipe("a cabin, with <audio>", audio="thunder.wav")
    pipe("<audio:0> beside <audio:1>", audio=["dog.wav", "rain.wav"], audio_weights=[1.0, 0.5])

The pipeline's own call draws: all that changes is what its `encode_prompt` reads where a placeholder is. With
`num_candidates` or a `strategy` the call goes on to `UniBriVLMixin`, which begins many pictures and ranks them by how
they fit the sound.

Shapes: B prompts, N sounds of each, K words of a sound, D width of a token table.
"""

import contextlib
import functools
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .calling_unibrivl import CallsParent
from .hearing_audio_token import heard_words
from .mixing_audio_token import MIXES, given_words, mixed_words, rows_of, weighted, weights_of
from .query_unibrivl import encode_query
from .strategy_halving import Halving
from .strategy_unibrivl import Strategy
from .words_audio_token import Speaker, Words, sounds_in, text_encoders_of
from .words_receipt_unibrivl import read_words

PROMPT = "A photo of <audio>"
NEGATIVE_PROMPT = "<audio>"
PLACES = ("prompt", "prompt_2", "prompt_3")  # of a text in `encode_prompt`; the negative ones have a name before it
TOGETHER = ("num_candidates", "strategy", "keep_candidates", "max_rows")  # what a ranked call takes


class AudioTokenMixin(CallsParent):
    """Sounds as words: see the pipelines that have it."""

    # components of ours
    audio_adapter: Any
    audio_encoder: Any
    audio_feature_extractor: Any
    # one is left at half of the steps; chosen on drawings of training sounds
    _ranked_by: str | Strategy = Halving(rounds=((0.15, 0.7), (0.25, 0.3), (0.5, 0.05)), typical=0.8)
    _spoken: tuple[list[list[Words]], list[list[Words]]] | None = None  # in a call: of each prompt, each negative one

    def __init_subclass__(cls, **kwargs):
        """`encode_prompt` shows the parameters of the pipeline's own, which diffusers and its users look at."""
        super().__init_subclass__(**kwargs)
        parents = [one for one in cls.__mro__ if not issubclass(one, CallsParent) and "encode_prompt" in vars(one)]
        if not parents or "encode_prompt" in vars(cls):
            return

        @functools.wraps(vars(parents[0])["encode_prompt"])
        def encode_prompt(self, *args, **kwargs):
            return AudioTokenMixin.encode_prompt(self, *args, **kwargs)

        cls.encode_prompt = encode_prompt  # type: ignore[method-assign]

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *args,
        audio: Any = None,
        audio_embeds: Any = None,
        audio_sampling_rate: int | None = None,
        audio_weights: float | Sequence = 1.0,
        audio_mix: str = "separate",
        negative_audio: Any = None,
        num_candidates: int | None = None,
        strategy: Any = None,
        keep_candidates: bool = False,
        max_rows: int | None = None,
        **kwargs,
    ):
        """Pictures of a prompt in which sounds are words.

        Args:
            prompt (`str` or `list[str]`, *optional*): with placeholders: `<audio>`, or `<audio:0>`, `<audio:1>`, ...
                where there are several sounds. Without one, "A photo of <audio>", for each sound.
            audio (*optional*): a sound, or a list: what `unibrivl.load_audio` takes, such as a path, or samples; or an
                `AudioCue`. With one prompt a list has one for each placeholder; with several prompts, one for each; a
                list of lists says all sounds of each.
            audio_embeds (*optional*): what `encode_audio` made of sounds, or the words of an `AudioCue`, in place of
                them: text encoder -> (B, N, K, D), (N, K, D) for all prompts alike, or (K, D) of one sound.
            audio_sampling_rate (`int`, *optional*): of samples that do not carry their own.
            audio_weights: how strongly each sound counts: a number, one for each of a prompt's sounds, or a list of
                such lists. 0 is an average word, 1 the sound; more, and less than 0, are allowed. With a mix, shares.
            audio_mix (`str`): "separate", each sound is a word of its own; "lerp" or "slerp", a prompt's sounds are
                one word between them, straight or on an arc that keeps its length.
            negative_audio (*optional*): sounds of the negative prompt's placeholders. Without a negative prompt it is
                "<audio>". By default placeholders there mean the sounds of `audio`.
            num_candidates (`int`, *optional*): so many pictures are begun for each prompt, and the best by the sound
                come back. Needs a matcher.
            strategy (*optional*): how: "rerank", "halving", ...; see `UniBriVLPipeline`. By default halving in which
                candidates compete by how near they are to one another, too (`Halving.typical`).
            keep_candidates (`bool`): return all finished candidates with their pictures.
            max_rows (`int`, *optional*): at most so many rows in one call of the UNet.

        Returns:
            What the pipeline without sounds returns; of a ranked call `UniBriVLPipelineOutput`.
        """
        call = self._call_arguments(prompt, args, kwargs)
        ranked = {"num_candidates": num_candidates, "strategy": strategy, "keep_candidates": keep_candidates or None,
                  "max_rows": max_rows}  # fmt: skip
        ranked = {name: value for name, value in ranked.items() if value is not None}
        if audio is None and audio_embeds is None and negative_audio is None:
            self._refuse_without_sound(**ranked)
            refuse_placeholders(call)
            return super().__call__(**call)  # type: ignore[misc]
        how: dict[str, Any] = {"sampling_rate": audio_sampling_rate, "mix": audio_mix, "weights": audio_weights}
        with self.hearing(call, audio, audio_embeds, negative_audio, **how):
            if ranked:
                ranked = {"strategy": self._ranked_by, **ranked}
                ranked |= self._query(call, audio, audio_sampling_rate, audio_mix, audio_weights)
            return super().__call__(**call, **ranked)  # type: ignore[misc]

    @torch.no_grad()
    def with_words(self, told: dict[str, Any], **call: Any):
        """A ranked call once more, with the words that its receipt holds: for `receipt_unibrivl.replay`.

        Args:
            told: `receipt["words"]`.
            call: of `UniBriVLPipeline`, where sounds are what candidates are compared with.
        """
        with self.speaking_of(call, *read_words(told, list(text_encoders_of(self)))):
            return super().__call__(**call)  # type: ignore[misc]

    # ---- sounds

    def encode_audio(self, audio: Any, sampling_rate: int | None = None) -> dict[str, torch.Tensor]:
        """Text encoder -> (B, K, D), the words of sounds; keep them and pass them as `audio_embeds`.

        Args:
            audio: one sound or a list.
            sampling_rate (*optional*): of samples that do not carry their own.
        """
        return heard_words(self.adapter, self.ears, audio, sampling_rate)

    @property
    def adapter(self) -> Any:
        """What makes words of sounds, after it was seen that it was made for this base."""
        if getattr(self, "audio_adapter", None) is None:
            raise ValueError(
                f"this {type(self).__name__} has no audio_adapter, so a sound cannot become a word: load one with it, "
                f"{type(self).__name__}.from_pretrained(base, audio_adapter='org/adapter'), or pass an AudioCue"
            )
        self.audio_adapter.check_base(text_encoders_of(self), getattr(self, "name_or_path", None) or None)
        return self.audio_adapter

    @property
    def ears(self) -> Any:
        """The audio encoder that the adapter listens with: the pipeline's `audio_encoder`, or else its matcher."""
        parts = (self.audio_encoder, self.audio_feature_extractor)
        if parts[0] is None:
            parts = (getattr(self, "matcher", None), getattr(self, "matcher_processor", None))
        if parts[0] is None:
            raise ValueError(
                f"this {type(self).__name__} has no ears: pass audio_encoder= and audio_feature_extractor=, the ones "
                "its adapter was trained with, or a matcher"
            )
        if getattr(self, "_ears_parts", None) != parts:
            self._ears, self._ears_parts = self.adapter.ears(*parts), parts
        return self._ears

    # ---- words in prompts

    @contextlib.contextmanager
    def hearing(
        self,
        call: dict[str, Any],
        audio: Any = None,
        audio_embeds: Any = None,
        negative_audio: Any = None,
        *,
        sampling_rate: int | None = None,
        mix: str = "separate",
        weights: float | Sequence = 1.0,
    ) -> Iterator[None]:
        """While it lasts, `encode_prompt` reads these sounds where the prompts of this call have placeholders.

        Args:
            call: arguments of a call by name; a prompt that it lacks is put in.
        """
        if call.get("prompt_embeds") is not None:
            raise ValueError("prompt_embeds are already read: pass prompt=, in which <audio> stands for the sound")
        spoken: list[list[Words]] = []
        if audio is not None or audio_embeds is not None:
            call["prompt"], spoken = self.understood(
                call.get("prompt"), audio, audio_embeds, sampling_rate=sampling_rate, mix=mix, weights=weights
            )
        refused = spoken
        if negative_audio is not None:
            prompts = 1 if isinstance(call.get("prompt"), str) else len(call.get("prompt") or [""])
            given = call.get("negative_prompt")
            negatives, refused = self.understood(
                given, negative_audio, default=NEGATIVE_PROMPT, sampling_rate=sampling_rate, mix=mix, count=prompts
            )
            call["negative_prompt"] = negatives if prompts > 1 or isinstance(given, list) else negatives[0]
        with self.speaking_of(call, spoken, refused):
            yield

    @contextlib.contextmanager
    def speaking_of(
        self, call: dict[str, Any], spoken: list[list[Words]], refused: list[list[Words]]
    ) -> Iterator[None]:
        """While it lasts, `encode_prompt` reads these words: of each prompt, and of each negative one."""
        check_counts(call, spoken, refused)
        before, self._spoken = self._spoken, (spoken, refused)
        try:
            yield
        finally:
            self._spoken = before

    def understood(
        self, prompt: Any, audio: Any = None, audio_embeds: Any = None, *, default: str = PROMPT,
        sampling_rate: int | None = None, mix: str = "separate", weights: Any = 1.0, count: int = 0,
    ) -> tuple[list[str], list[list[Words]]]:  # fmt: skip
        """Prompts, and of each the words of its sounds, mixed and weighted; arguments as those of a call.

        Args:
            default: the prompt where there is none.
            count: of prompts that there have to be, if it is known.
        """
        if mix not in MIXES:
            raise ValueError(f"audio_mix is one of {', '.join(MIXES)}, got {mix!r}")
        if audio is None and audio_embeds is None:
            if prompt is None:
                raise ValueError("there is neither a prompt nor a sound: pass audio=, or a prompt")
            return listed(prompt), [[] for _ in listed(prompt)]
        prompts, rows = self._rows(prompt, default, audio, audio_embeds, sampling_rate, mix, count)
        return prompts, weighted(self, mixed_words(rows, mix, weights), weights if mix == "separate" else 1.0)

    def _rows(
        self, prompt: Any, default: str, audio: Any, audio_embeds: Any, rate: int | None, mix: str, count: int = 0
    ) -> tuple[list[str], list[list[Words]]]:
        """Prompts, and of each the words of its sounds."""
        if audio is not None and audio_embeds is not None:
            raise ValueError("pass audio= or audio_embeds=, one of the two")
        if audio_embeds is not None:
            prompts = [default] * max(1, count) if prompt is None else listed(prompt)
            return prompts, given_words(audio_embeds, text_encoders_of(self), len(prompts))
        prompts, rows = rows_of(prompt, audio, default, together=mix != "separate", count=count)
        known: dict[int, Words] = {}
        heard: list[Any] = []
        for source in (one for row in rows for one in row):
            if id(source) in known:
                continue
            if hasattr(source, "vectors") and hasattr(source, "check_base"):  # an AudioCue
                source.check_base(text_encoders_of(self))
                known[id(source)] = source.vectors
            elif all(source is not one for one in heard):
                heard.append(source)
        if heard:
            words = self.encode_audio(heard, rate)
            for place, source in enumerate(heard):
                known[id(source)] = {name: words_BKD[place] for name, words_BKD in words.items()}
        return prompts, [[known[id(one)] for one in row] for row in rows]

    def encode_prompt(self, prompt, *args, **kwargs):
        """As in the pipeline without sounds; within a call with sounds, placeholders are read as their words."""
        parent = super().encode_prompt  # type: ignore[misc]
        bound = inspect.signature(parent).bind(prompt, *args, **kwargs)
        with contextlib.ExitStack() as stack:
            stack.enter_context(final_norm_within_reach(self, bound.arguments.get("clip_skip")))
            if self._spoken is not None:
                say = stack.enter_context(Speaker(self))
                for place in PLACES:
                    for name, rows in ((place, self._spoken[0]), (f"negative_{place}", self._spoken[1])):
                        if bound.arguments.get(name) is not None:
                            bound.arguments[name] = said(say, bound.arguments[name], rows)
                negative, texts = bound.arguments.get("negative_prompt"), bound.arguments.get("prompt")
                if negative is not None and texts is not None and len(negative) == 1:
                    bound.arguments["negative_prompt"] = negative * len(texts)
            return parent(*bound.args, **bound.kwargs)

    # ---- ranking

    def _query(
        self, call: dict[str, Any], audio: Any, sampling_rate: int | None, mix: str, weights: Any
    ) -> dict[str, Any]:
        """What the pictures of each prompt are compared with, as arguments of a ranked call.

        Several sounds of a prompt are one query, by the weights that their words have.
        """
        if audio is None:
            raise ValueError("candidates are ranked by a sound: pass audio=, which audio_embeds= cannot stand in for")
        _, rows = rows_of(call["prompt"], audio, PROMPT, together=mix != "separate")
        if any(hasattr(one, "vectors") for row in rows for one in row):
            raise ValueError("candidates are ranked by a sound, and an AudioCue holds none: pass the sound itself")
        self.check_matcher()  # type: ignore[attr-defined]
        if all(len(row) == 1 for row in rows):
            return {"audio": [row[0] for row in rows], "sampling_rate": sampling_rate}
        queries = []
        for place, row in enumerate(rows):
            shares = weights_of(weights, place, len(row), len(rows))
            if not any(shares):
                raise ValueError("audio_weights of a prompt are all 0, so no sound ranks its candidates: raise one")
            queries.append(encode_query(self.listener, row, sampling_rate=sampling_rate, mix=shares).embeds)  # type: ignore[attr-defined]
        return {"audio_embeds": torch.cat(queries)}


def listed(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def said(say: Any, texts: str | Sequence[str], rows: list[list[Words]]) -> list[str]:
    """Texts in which tokens of words stand for placeholders."""
    texts = listed(texts)
    if not rows:
        return texts
    if len(texts) == 1:
        texts = texts * len(rows)
    if len(rows) not in (1, len(texts)):
        raise ValueError(f"{len(texts)} texts and sounds for {len(rows)}: as many of both")
    return [say(text, rows[place % len(rows)]) for place, text in enumerate(texts)]


def texts_in(call: dict[str, Any], negative: bool) -> list[list[str]]:
    """The texts of a call, positive or negative, each with those of other text encoders beside it."""
    found = []
    for place in PLACES:
        given = call.get(f"negative_{place}" if negative else place)
        if given is not None:
            found.append(listed(given))
    return found


def refuse_placeholders(call: dict[str, Any]) -> None:
    for negative in (False, True):
        for text in (one for texts in texts_in(call, negative) for one in texts):
            if isinstance(text, str) and sounds_in(text):
                raise ValueError(f"{text!r} speaks of a sound, and there is none: pass audio=, or leave out <audio>")


def check_counts(call: dict[str, Any], spoken: list[list[Words]], refused: list[list[Words]]) -> None:
    """Every placeholder has its sound; every sound that was given is spoken of."""
    for negative, rows in ((False, spoken), (True, refused)):
        groups = texts_in(call, negative)
        for texts in groups:
            for place, text in enumerate(texts):
                given = len(rows[place % len(rows)]) if rows else 0
                if sounds_in(text) > given:
                    raise ValueError(
                        f"{text!r} speaks of {sounds_in(text)} sounds, and {given} were given: pass one for each, "
                        "<audio:0>, <audio:1>, ..."
                    )
        if negative and refused is spoken:
            continue
        for place, row in enumerate(rows):
            most = max((sounds_in(texts[place % len(texts)]) for texts in groups), default=0)
            if len(row) > most:
                shown = groups[0][place % len(groups[0])] if groups else ""
                raise ValueError(
                    f"{shown!r} speaks of {most} sounds, and {len(row)} were given: put <audio:0>, <audio:1>, ... "
                    "into the text, or mix them into one (audio_mix='lerp')"
                )


@contextlib.contextmanager
def final_norm_within_reach(pipe: Any, clip_skip: int | None) -> Iterator[None]:
    """diffusers looks for the last norm in `text_encoder.text_model`, which transformers has not had since 5.6."""
    encoder = getattr(pipe, "text_encoder", None)
    if clip_skip is None or encoder is None or hasattr(encoder, "text_model"):
        yield
        return
    encoder.__dict__["text_model"] = encoder  # not as a submodule: it would be its own
    try:
        yield
    finally:
        del encoder.__dict__["text_model"]


__all__ = ["PROMPT", "AudioTokenMixin"]
