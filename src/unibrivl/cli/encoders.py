"""Models by the name that the command line was given, as what benchmarks ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any


class Named:
    """An embedder under the name it was asked for as, without a bar of its own."""

    def __init__(self, embedder: Any, name: str):
        self.embedder, self.name = embedder, name
        self.fingerprint, self.calibration = embedder.fingerprint, embedder.calibration

    def encode_audio(self, paths: Sequence[str]) -> Any:
        return self.embedder.encode_audio(paths, progress=False)

    def encode_image(self, paths: Sequence[Any]) -> Any:
        return self.embedder.encode_image(paths, progress=False)

    def encode_text(self, texts: Sequence[str]) -> Any:
        return self.embedder.encode_text(texts)


class Cutting(Named):
    """One that reads long texts in parts, and may also read no further than fits."""

    def encode_text_cut(self, texts: Sequence[str]) -> Any:
        with cut(self.embedder.matcher.model.config):
            return self.embedder.encode_text(texts)


class Drawing(Named):
    """A pipeline that draws as well, by its own way: the best of a few by the matching score."""

    def __init__(self, name: str, pipe: Any):
        from unibrivl.embedder import load
        from unibrivl.pipelines.fingerprint_unibrivl import fingerprint_of

        super().__init__(load(pipe.matcher, pipe.matcher_processor), name)
        self.pipe = pipe
        pipe.set_progress_bar_config(disable=True)
        self.fingerprint = f"{self.fingerprint} {fingerprint_of(pipe.unet)}"  # a judge may be neither

    def generate(self, paths: Sequence[str], seeds: Sequence[int]) -> list[Any]:
        import torch

        return [
            self.pipe(audio=path, generator=torch.Generator().manual_seed(seed)).images[0]
            for path, seed in zip(paths, seeds, strict=True)
        ]


@contextlib.contextmanager
def cut(config: Any) -> Iterator[None]:
    before = config.long_text
    config.long_text = "truncate"
    try:
        yield
    finally:
        config.long_text = before


def named_encoder(name: str, device: str | None = None, needs: Collection[str] = ()) -> Any:
    """What benchmarks take.

    Args:
        name (`str`): a folder, a name on the Hub, "embedded", or one of `BASELINES`.
        device (*optional*): by default a GPU where there is one.
        needs: what will be asked of it, as benchmarks say it: "captions" and "transcripts" are of models that write;
            for "generate" all of a pipeline is loaded.
    """
    import torch

    from unibrivl.embedded import embedded
    from unibrivl.embedder import load
    from unibrivl.embedder.writing import load_captioner, load_recogniser
    from unibrivl.evaluation.baselines import BASELINES

    if name in BASELINES:
        return BASELINES[name]()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if "captions" in needs:
        return load_captioner(name, device)
    if "transcripts" in needs:
        return load_recogniser(name, device)
    folder = embedded() if name == "embedded" else Path(name)
    if "generate" in needs and (folder / "model_index.json").is_file():
        from unibrivl.pipelines import UniBriVLPipeline

        return Drawing(name, UniBriVLPipeline.from_pretrained(folder).to(device))
    embedder = load(name)
    embedder.matcher.model.to(device)
    if hasattr(embedder.matcher.model.config, "long_text"):
        return Cutting(embedder, name)
    return Named(embedder, name)


def named_judge(name: str) -> Any:
    """A classifier of pictures by its labels; anything else that reads pictures and texts by its texts."""
    from transformers import AutoConfig

    from unibrivl.evaluation.judges import ClassJudge, TextJudge

    architectures = () if name == "embedded" else AutoConfig.from_pretrained(name).architectures or ()
    if any(one.endswith("ForImageClassification") for one in architectures):
        return ClassJudge(name)
    return TextJudge(named_encoder(name))
