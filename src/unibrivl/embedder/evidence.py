"""Which seconds of a sound and which regions of a picture made their score: parts are hidden, and the score watched.

With a the sound's vector and v the picture's, a_t the sound's with stretch t hidden and v_r the picture's with region
r hidden, all of length one, so that dot products are scores:

    score           s = a . v
    seconds[t]        = s - a_t . v                what hiding the stretch costs
    regions[r]        = s - a . v_r                what hiding the region costs
    map[t, r]         = (a - a_t) . (v - v_r)      what the two cost beyond each other

The map is s - a_t . v - a . v_r + a_t . v_r, the part of the score that is there only while both are: positive where
the stretch speaks of the region. It takes 1 + T encodings of the sound and 1 + R x R of the picture, and no more. Of a
long sound only the windows that a stretch touches are heard again.

What hidden parts are filled with, and the bias of it, is in `hidden.py`. Occlusion asks the model itself, as it is
used; it needs no gradients, so it works for every matcher. It does not see evidence that is there twice: hide one of
two barks, and the other keeps the score.

Shapes: T stretches of the sound, R regions along each side of the picture, E embedding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unibrivl.audio import Waveform, load_audio, split_windows
from unibrivl.data.pictures import open_picture
from unibrivl.embedder import sounds
from unibrivl.embedder.hidden import hide_regions, hide_stretches, regions_of, stretches_of

if TYPE_CHECKING:
    from PIL.Image import Image

FORMAT = 1  # of the JSON
REGIONS = 7  # along each side, each a quarter of the picture wide

Progress = bool | Callable[[int, int, str], None] | None  # see `Embedder.evidence`


@dataclass(frozen=True, eq=False)
class Evidence:
    """Why a sound and a picture, or a text, have the score they have.

    Args:
        score (`float`): their cosine.
        times_T2: begin and end of each stretch, in seconds.
        seconds_T: what hiding each stretch costs; negative where the score rises.
        boxes_RR4 (*optional*): left, top, right and bottom of each region, in pixels; None for a text.
        regions_RR (*optional*): what hiding each region costs.
        map_TRR (*optional*): what a stretch and a region cost beyond each other.
        sound (`Waveform`): at the model's rate.
        image (*optional*), text (*optional*): what it was compared with; one of the two.
        names (`tuple[str, str]`): what the sound and the picture, or the text, are called.
        fingerprint (`str`): of the embedder.
        settings (`dict`): how parts were hidden.
    """

    score: float
    times_T2: np.ndarray
    seconds_T: np.ndarray
    boxes_RR4: np.ndarray | None
    regions_RR: np.ndarray | None
    map_TRR: np.ndarray | None
    sound: Waveform
    image: Image | None
    text: str | None
    names: tuple[str, str]
    fingerprint: str
    settings: dict[str, Any]

    @property
    def best_seconds(self) -> tuple[float, float]:
        """Begin and end of the stretch that counts most."""
        begin, end = self.times_T2[int(self.seconds_T.argmax())]
        return float(begin), float(end)

    @property
    def best_region(self) -> tuple[int, int, int, int] | None:
        """Left, top, right and bottom of the region that counts most."""
        if self.regions_RR is None or self.boxes_RR4 is None:
            return None
        return _box(self.boxes_RR4.reshape(-1, 4)[int(self.regions_RR.argmax())])

    @property
    def best_pair(self) -> tuple[tuple[float, float], tuple[int, int, int, int]] | None:
        """The seconds and the region that count most together: the highest cell of the map."""
        if self.map_TRR is None or self.boxes_RR4 is None:
            return None
        stretch, cell = divmod(int(self.map_TRR.argmax()), self.map_TRR[0].size)
        begin, end = self.times_T2[stretch]
        return (float(begin), float(end)), _box(self.boxes_RR4.reshape(-1, 4)[cell])

    def picture(self, width: int = 1200) -> Image:
        """Drawn: the waveform over a strip of heat, the picture under a veil of heat, and the map as a storyboard."""
        from unibrivl.embedder.evidence_picture import draw_evidence

        return draw_evidence(self, width)

    def to_dict(self) -> dict[str, Any]:
        pair = self.best_pair
        return {
            "format": FORMAT,
            "sound": self.names[0],
            "text" if self.image is None else "image": self.names[1],
            "score": self.score,
            "times_s": _rounded(self.times_T2),
            "seconds": _rounded(self.seconds_T),
            "boxes": None if self.boxes_RR4 is None else self.boxes_RR4.tolist(),
            "regions": _rounded(self.regions_RR),
            "map": _rounded(self.map_TRR),
            "best_seconds": list(self.best_seconds),
            "best_region": None if self.best_region is None else list(self.best_region),
            "best_pair": None if pair is None else {"seconds": list(pair[0]), "region": list(pair[1])},
            "settings": self.settings,
            "fingerprint": self.fingerprint,
        }

    def to_json(self, path: str | os.PathLike | None = None) -> str:
        """As text, and in a file if a path is given."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text


def find_evidence(
    embedder: Any,
    audio: Any,
    image: Any = None,
    *,
    text: str | None = None,
    stretch_s: float | None = None,
    regions: int = REGIONS,
    fill: str = "quietest",
    progress: Progress = None,
    **load_options,
) -> Evidence:
    """What `Embedder.evidence` does; the arguments are told there."""
    if (image is None) == (text is None):
        raise ValueError("a score is of a sound and one other thing: pass an image, or text=, and not both")
    matcher = embedder.matcher
    wanted = ("audio", "image" if text is None else "text")
    if not set(wanted) <= set(matcher.kinds):
        raise ValueError(f"{matcher.name} encodes {', '.join(matcher.kinds)}: explaining takes {' and '.join(wanted)}")
    ready = isinstance(audio, Waveform) and audio.rate_hz == matcher.sampling_rate
    sound = audio if ready else load_audio(audio, rate_hz=matcher.sampling_rate, **load_options)
    spans_T2 = stretches_of(len(sound.samples), sound.rate_hz, stretch_s)
    picture = None if image is None else open_picture(image)
    boxes_RR4 = None if picture is None else regions_of(picture.width, picture.height, regions)
    clips = [sound, *hide_stretches(sound, spans_T2, fill)]
    heard = hear(embedder, clips, progress)
    sound_E, without_TE = heard[0], heard[1:]
    settings = {"stretch_s": float(np.diff(spans_T2[0])[0] / sound.rate_hz), "fill": fill}
    regions_RR = map_TRR = None
    if picture is None or boxes_RR4 is None:
        thing_E = embedder.encode_text([text], against="audio").vectors[0].astype(np.float64)
    else:
        seen = see(embedder, [picture, *hide_regions(picture, boxes_RR4)], progress)
        thing_E, without_RE = seen[0], seen[1:]
        regions_RR = ((thing_E - without_RE) @ sound_E).reshape(regions, regions)
        map_TRR = ((sound_E - without_TE) @ (thing_E - without_RE).T).reshape(-1, regions, regions)
        settings |= {"regions": regions, "region_fill": "surroundings"}
    return Evidence(
        score=float(sound_E @ thing_E),
        times_T2=spans_T2 / sound.rate_hz,
        seconds_T=(sound_E - without_TE) @ thing_E,
        boxes_RR4=boxes_RR4,
        regions_RR=regions_RR,
        map_TRR=map_TRR,
        sound=sound,
        image=picture,
        text=text,
        names=(_name(audio, "sound"), _name(image, "picture") if text is None else text),
        fingerprint=embedder.fingerprint,
        settings=settings,
    )


def hear(embedder: Any, clips: list[Waveform], progress: Progress) -> np.ndarray:
    """The vectors of sounds that differ from the first in places, (1 + T, E); what is the same is heard once."""
    cut = [split_windows(clip, embedder.window_s, embedder.hop_s) for clip in clips]
    pieces: list[sounds.Piece] = []
    places = list[list[int]]()
    for number, windows in enumerate(cut):
        row = []
        for place, window in enumerate(windows):
            if number and np.array_equal(window.samples, cut[0][place].samples):
                row.append(places[0][place])
                continue
            row.append(len(pieces))
            pieces.append(sounds.Piece(number, window.samples, window.start_s, window.end_s))
        places.append(row)
    most_s = sounds.CPU_BATCH_S if embedder.matcher.device.type == "cpu" else float("inf")
    rate_hz, vectors = embedder.matcher.sampling_rate, dict[int, np.ndarray]()
    with embedder._bar(len(pieces), "sounds", progress) as bar:
        for batch in sounds.batches(pieces, embedder.batch_size, rate_hz, embedder.matcher.batch_by, most_s):
            found = embedder._run(embedder.matcher.encode_audio, [pieces[number].samples for number in batch])
            vectors |= dict(zip(batch, found, strict=True))
            bar.update(len(batch))
    return np.stack(
        [sounds.mean_vector([(pieces[number], vectors[number]) for number in row]) for row in places]
    ).astype(np.float64)


def see(embedder: Any, pictures: list[Image], progress: Progress) -> np.ndarray:
    """The vectors of pictures, (1 + R x R, E)."""
    found = []
    with embedder._bar(len(pictures), "pictures", progress) as bar:
        for start in range(0, len(pictures), embedder.batch_size):
            some = pictures[start : start + embedder.batch_size]
            found.append(embedder._run(embedder.matcher.encode_image, some))
            bar.update(len(some))
    return np.concatenate(found).astype(np.float64)


def explain(
    audio: Any, image: Any = None, *, text: str | None = None, model: Any = "embedded", **settings
) -> Evidence:
    """Which seconds of a sound and which regions of a picture made their score.

    Args:
        audio: a sound, whatever `load_audio` takes.
        image: a picture, whatever `Embedder.encode_image` takes.
        text (`str`, *optional*): in the picture's place.
        model: an `Embedder`, or what `load` takes: a folder, a name on the Hub, or "embedded".
        settings: of `Embedder.evidence`.
    """
    if isinstance(model, (str, os.PathLike)):
        from unibrivl.embedder.loading import load

        model = load(model)
    return find_evidence(model, audio, image, text=text, **settings)


def _box(box_4: np.ndarray) -> tuple[int, int, int, int]:
    left, top, right, bottom = (int(edge) for edge in box_4)
    return left, top, right, bottom


def _rounded(values: np.ndarray | None) -> Any:
    return None if values is None else np.round(values, 6).tolist()


def _name(source: Any, otherwise: str) -> str:
    return os.path.basename(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else otherwise
