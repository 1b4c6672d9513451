"""The embedder: three verbs that turn sounds, pictures and texts into vectors of one space, and what they allow.

One code path for all users of vectors: classification, ranking, search, evaluation and the command line call these
verbs and nothing below them.

Shapes: N things, L labels, E embedding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from unibrivl.audio import Waveform
from unibrivl.data.pictures import open_picture
from unibrivl.embedder import sounds
from unibrivl.embedder.calibration import Calibration
from unibrivl.embedder.embeddings import Embeddings, Failure
from unibrivl.embedder.evidence import REGIONS, Evidence, find_evidence
from unibrivl.embedder.explained import Explained, explain
from unibrivl.hub.fingerprint import fingerprint

NONE_OF_THESE = "none of these"
WINDOW_S = 10.0  # the length of AudioSet's clips, on which UniBriVL is trained


class Embedder:
    """
    Args:
        matcher: a `Matcher`: UniBriVL, PE-AV, CLIP.
        window_s (`float`, *optional*): longer sounds are cut into windows of this length, each is embedded, and the
            mean of their vectors, weighted by their length, stands for the sound. By default 10 s, or what the
            feature extractor hears if that is less; more than it hears is refused.
        hop_s (`float`, *optional*): from one window to the next; `window_s` if None.
        batch_size (`int`): things per forward pass.
        workers (`int`): threads that decode ahead while the model computes.
        calibration (`Calibration`, *optional*): for `classify`.

    There is no randomness here: the same bytes give the same vector, in whatever order and company they come.
    """

    def __init__(
        self,
        matcher,
        *,
        window_s: float | None = None,
        hop_s: float | None = None,
        batch_size: int = 16,
        workers: int = 2,
        calibration: Calibration | None = None,
    ):
        if batch_size < 1 or workers < 1:
            raise ValueError(f"batch_size and workers are at least 1, got {batch_size} and {workers}")
        self.matcher = matcher
        self.window_s = checked_window(matcher, window_s)
        self.hop_s = self.window_s if hop_s is None else hop_s
        self.batch_size, self.workers = batch_size, workers
        self.calibration = calibration or Calibration(matcher.logit_scale)
        self._fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        """Of the model, its preprocessing and the windows; computed when first asked for."""
        if self._fingerprint is None:
            settings = {"window_s": float(self.window_s), "hop_s": float(self.hop_s), **self.matcher.settings}
            self._fingerprint = fingerprint(self.matcher.model, self.matcher.parts, settings)
        return self._fingerprint

    def encode_audio(
        self,
        sources: Any,
        *,
        timestamps: bool = False,
        on_error: str = "raise",
        progress: bool | None = None,
        ids: Sequence[str] | None = None,
        **load_options,
    ) -> Embeddings:
        """One sound or a list: paths, bytes, arrays with `source_rate_hz=`, waveforms; whatever `load_audio` takes.

        Args:
            timestamps (`bool`): a row for every window, with its begin and end, instead of one for every sound.
            on_error (`str`): `"raise"`, or `"collect"`: sounds that cannot be read are listed in `failures`.
            progress (`bool`, *optional*): a bar; by default for more than one batch, on a terminal.
            ids (`Sequence[str]`, *optional*): names for the rows; by default paths, or "#0", "#1".
            load_options: for `load_audio`: channel, source_rate_hz, max_duration_s, allow_url.
        """
        if self.matcher.sampling_rate is None:
            raise ValueError(f"{self.matcher.name} hears nothing: load a model with an audio tower")
        sources = as_list(sources, (str, bytes, os.PathLike, Waveform, np.ndarray, torch.Tensor, dict))
        names = as_ids(sources, ids)
        check_on_error(on_error)
        rows: dict[int, list[tuple[sounds.Piece, np.ndarray]]] = {index: [] for index in range(len(sources))}
        failures: dict[int, Failure] = {}
        order = sounds.canonical_order(sources)
        decoded = sounds.groups(
            sources, order, self.matcher.sampling_rate, self.window_s, self.hop_s, self.workers, load_options
        )
        # closing: threads that wait for their turn must not outlive an error
        with self._bar(len(sources), "sounds", progress) as bar, closing(decoded):
            for pieces, unreadable in decoded:
                for broken in unreadable:
                    if on_error != "collect":
                        raise broken.error
                    failures[broken.source] = Failure(names[broken.source], str(broken.error))
                    bar.update()
                self._embed_pieces(pieces, rows, bar)
        return self._collect(names, rows, failures, timestamps)

    def _embed_pieces(self, pieces, rows, bar) -> None:
        waiting = {piece.source: 0 for piece in pieces}
        for piece in pieces:
            waiting[piece.source] += 1
        rate_hz, most_s = self.matcher.sampling_rate, float("inf")
        if self.matcher.device.type == "cpu":
            most_s = sounds.CPU_BATCH_S
        for batch in sounds.batches(pieces, self.batch_size, rate_hz, self.matcher.batch_by, most_s):
            clips = [pieces[number].samples for number in batch]
            vectors = self._run(self.matcher.encode_audio, clips)
            for number, vector in zip(batch, vectors, strict=True):
                piece = pieces[number]
                rows[piece.source].append((piece, vector))
                waiting[piece.source] -= 1
                bar.update(waiting[piece.source] == 0)

    def _collect(self, names, rows, failures, timestamps: bool) -> Embeddings:
        vectors, ids, times = [], [], []
        for index, found in rows.items():
            found.sort(key=lambda pair: pair[0].begin_s)
            if not found:
                continue
            if timestamps:
                vectors += [vector for _, vector in found]
                times += [(piece.begin_s, piece.end_s) for piece, _ in found]
                ids += [names[index]] * len(found)
            else:
                vectors.append(sounds.mean_vector(found))
                ids.append(names[index])
        return self._embeddings(vectors, ids, "audio", tuple(times) if timestamps else None,
                                tuple(failures[index] for index in sorted(failures)))  # fmt: skip

    def encode_image(
        self, sources: Any, *, on_error: str = "raise", progress: bool | None = None, ids: Sequence[str] | None = None
    ) -> Embeddings:
        """One picture or a list: paths, bytes, Pillow pictures, arrays (height, width, channels)."""
        sources = as_list(sources, (str, bytes, os.PathLike, np.ndarray, torch.Tensor))
        names = as_ids(sources, ids)
        check_on_error(on_error)
        order = sounds.canonical_order(sources)
        vectors: dict[int, np.ndarray] = {}
        failures: dict[int, Failure] = {}
        with self._bar(len(sources), "pictures", progress) as bar:
            for group in sounds.ahead(order, open_picture, sources, self.batch_size, self.workers):
                opened = []
                for index, picture in group:
                    if isinstance(picture, Exception):
                        if on_error != "collect":
                            raise picture
                        failures[index] = Failure(names[index], str(picture))
                    else:
                        opened.append((index, picture))
                if opened:
                    found = self._run(self.matcher.encode_image, [picture for _, picture in opened])
                    vectors |= dict(zip([index for index, _ in opened], found, strict=True))
                bar.update(len(group))
        rows = sorted(vectors)
        return self._embeddings(
            [vectors[index] for index in rows],
            [names[index] for index in rows],
            "image",
            failures=tuple(failures[index] for index in sorted(failures)),
        )

    def encode_text(self, texts: str | Sequence[str], *, against: str = "audio") -> Embeddings:
        """One text or a list; `against` says what they will be compared with, where a model tells the two apart."""
        texts = as_list(texts, (str,))
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError("texts must be strings with something in them: leave out the ones that are empty")
        order = sorted(range(len(texts)), key=lambda index: (len(texts[index]), texts[index]))
        vectors: dict[int, np.ndarray] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            found = self._run(self.matcher.encode_text, [texts[index] for index in batch], against=against)
            vectors |= dict(zip(batch, found, strict=True))
        rows = [vectors[index] for index in range(len(texts))]
        side = against if self.matcher.texts_differ else None
        return replace(self._embeddings(rows, texts, "text"), against=side)

    def similarity(self, left: Embeddings, right: Embeddings) -> np.ndarray:
        """Cosines, (len(left), len(right)); of one model or an error."""
        return left.similarity(right)

    def classify(
        self, sources: Any, labels: Sequence[str], *, template: str = "{label}", explain: bool = False
    ) -> list[Any]:
        """Probabilities of the labels for each sound, highest first; they sum to one.

        Without a calibration that knows "none of these" every sound is taken to be one of the labels. With `explain`,
        of a model of several channels, an `Explained` for each sound instead: cosines, and the transcript.
        """
        if isinstance(labels, str):
            raise ValueError("labels is a list of labels, and not one string")
        if "{label}" not in template:
            raise ValueError(f"the template {template!r} has no {{label}}, so all labels would read the same")
        labels = list(dict.fromkeys(labels))
        if self.calibration.none_logit is not None and NONE_OF_THESE in labels:
            raise ValueError(f"{NONE_OF_THESE!r} is what the calibrated answer calls itself: leave that label out")
        if len(labels) < (1 if self.calibration.none_logit is not None else 2):
            raise ValueError("classify needs at least two different labels")
        texts = self.encode_text([template.replace("{label}", label) for label in labels])
        if explain:
            return self.explained(sources, replace(texts, ids=tuple(labels)))
        audio = sources if isinstance(sources, Embeddings) else self.encode_audio(sources)
        logits_NL = self.similarity(audio, texts) * self.calibration.scale
        if self.calibration.none_logit is not None:
            logits_NL = np.concatenate([logits_NL, np.full((len(audio), 1), self.calibration.none_logit)], axis=1)
            labels = [*labels, NONE_OF_THESE]
        exponents = np.exp(logits_NL.astype(np.float64) - logits_NL.max(1, keepdims=True))
        probabilities_NL = exponents / exponents.sum(1, keepdims=True)
        return [
            {labels[column]: float(row[column]) for column in np.argsort(-row, kind="stable")}
            for row in probabilities_NL
        ]

    def rank(
        self,
        audio: Any,
        images: Any,
        *,
        top: int | None = None,
        explain: bool = False,
        transcripts: Sequence[str] | None = None,
    ) -> list[Any]:
        """For each sound the pictures by how well they fit, (id, cosine), best first. Takes Embeddings as they are.

        Args:
            explain (`bool`): of a model of several channels, such as BrewCLIP: for each sound an `Explained` instead,
                with the transcript and each channel's own scores. Sounds must then be sounds.
            transcripts (*optional*): with `explain`: what is said in each sound, in the place of what would be
                written down.
        """
        if explain:
            images = images if isinstance(images, Embeddings) else self.encode_image(images)
            return self.explained(audio, images, top, transcripts)
        if transcripts is not None:
            raise ValueError("transcripts= goes with explain=True: pass both, or leave it out")
        audio = audio if isinstance(audio, Embeddings) else self.encode_audio(audio)
        images = images if isinstance(images, Embeddings) else self.encode_image(images)
        scores_NM = self.similarity(audio, images)
        return [
            [(images.ids[column], float(row[column])) for column in np.argsort(-row, kind="stable")[:top]]
            for row in scores_NM
        ]

    def explained(
        self, audio: Any, things: Embeddings, top: int | None = None, transcripts: Sequence[str] | None = None
    ) -> list[Explained]:
        """What each channel made of sounds, against pictures or texts; see `rank`."""
        if isinstance(audio, Embeddings):
            raise ValueError("vectors do not tell what was heard: pass the sounds themselves with explain=True")
        sources = as_list(audio, (str, bytes, os.PathLike, Waveform, np.ndarray, torch.Tensor, dict))
        found = explain(
            self.matcher,
            sources,
            as_ids(sources, None),
            things,
            batch_size=self.batch_size,
            transcripts=transcripts,
        )
        if top is None:
            return found
        return [
            replace(
                one,
                ids=one.ids[:top],
                scores=one.scores[:top],
                channels={name: scores[:top] for name, scores in one.channels.items()},
            )
            for one in found
        ]

    def evidence(
        self,
        audio: Any,
        image: Any = None,
        *,
        text: str | None = None,
        stretch_s: float | None = None,
        regions: int = REGIONS,
        fill: str = "quietest",
        progress: bool | Callable[[int, int, str], None] | None = None,
        **load_options,
    ) -> Evidence:
        """Which seconds of a sound, and which regions of a picture, made their score: what hiding each of them costs.

        Args:
            audio: one sound, whatever `load_audio` takes.
            image: one picture, whatever `encode_image` takes.
            text (`str`, *optional*): in the picture's place; then only seconds are told.
            stretch_s (`float`, *optional*): seconds that are hidden at a time; stretches overlap by half. By default
                half a second, less in short sounds, more in long ones.
            regions (`int`): along each side of the picture; they overlap by half, so 7 are of a quarter each.
            fill (`str`): what a hidden stretch becomes: `"quietest"`, the sound's own quietest stretch, or
                `"silence"`.
            progress (*optional*): whether to draw a bar, by default for more than one batch, on a terminal; or what is
                called instead with how many are done, of how many, of what ("sounds", then "pictures").
            load_options: for `load_audio`.
        """
        return find_evidence(
            self, audio, image, text=text, stretch_s=stretch_s, regions=regions, fill=fill, progress=progress,
            **load_options,
        )  # fmt: skip

    def _run(self, encode, things, **kwargs) -> np.ndarray:
        if self.matcher.model.training:
            raise RuntimeError("the model is in training mode, where dropout moves every vector: call model.eval()")
        with torch.inference_mode():
            return encode(things, **kwargs).float().cpu().numpy()

    def _embeddings(self, vectors, ids, kind, times=None, failures=()) -> Embeddings:
        stacked = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)
        return Embeddings(stacked, tuple(ids), kind, self.fingerprint, times, failures)

    def _bar(self, total: int, what: str, progress: bool | Callable[[int, int, str], None] | None):
        if callable(progress):
            return Told(total, what, progress)
        hidden = None if progress is None and total > self.batch_size else not progress
        return tqdm(total=total, unit=" " + what, disable=hidden)


class Told:
    """A bar that somebody else draws.

    Args:
        tell: called with how many are done, of how many, of what.
    """

    def __init__(self, total: int, what: str, tell: Callable[[int, int, str], None]):
        self.done, self.total, self.what, self.tell = 0, total, what, tell

    def __enter__(self) -> Told:
        self.tell(0, self.total, self.what)
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, count: int = 1) -> None:
        self.done += count
        self.tell(self.done, self.total, self.what)


def checked_window(matcher, window_s: float | None) -> float:
    """The window of a matcher; one that is longer than what its feature extractor hears would lose the rest."""
    longest = matcher.longest_s
    if window_s is None:
        usual = getattr(matcher, "window_s", None) or WINDOW_S
        return usual if longest is None else min(usual, longest)
    if not 0 < window_s < float("inf"):
        raise ValueError(f"window_s must be a positive number of seconds, got {window_s}")
    if longest is not None and window_s > longest:
        raise ValueError(
            f"windows of {window_s:g} s are longer than the {longest:g} s that {matcher.name} hears: pass window_s of "
            f"at most {longest:g}, or none"
        )
    return window_s


def check_on_error(on_error: str) -> None:
    if on_error not in ("raise", "collect"):
        raise ValueError(f"on_error must be 'raise' or 'collect', got {on_error!r}")


def as_list(sources: Any, single: tuple[type, ...]) -> list:
    """One thing or many -> a list. An array is one thing."""
    is_one = isinstance(sources, single) or hasattr(sources, "read") or hasattr(sources, "convert")
    sources = [sources] if is_one else list(sources)
    if not sources:
        raise ValueError("nothing to embed: the list is empty")
    return sources


def as_ids(sources: Sequence[Any], ids: Sequence[str] | None) -> list[str]:
    if ids is None:
        named = (str, os.PathLike)
        return [
            os.fspath(source) if isinstance(source, named) else f"#{index}" for index, source in enumerate(sources)
        ]
    if len(ids) != len(sources):
        raise ValueError(f"{len(ids)} ids for {len(sources)} things")
    return [str(name) for name in ids]
