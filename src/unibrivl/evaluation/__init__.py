"""The papers' tables as code: a benchmark takes any encoder and a folder, and gives scores that can be made again.

    from unibrivl.evaluation import evaluate
    scores = evaluate("esc50", encoder, data="ESC-50-master", out="runs/eval")

An encoder is what `unibrivl.load` gives, or any object with a `name` and some of `encode_audio(paths)`,
`encode_text(texts)` and `encode_image(paths)`, each of which gives an array of one row a thing; or `caption(paths)` or
`transcribe(paths)`, which give a text for each; see `encoders`. A benchmark is a module with `TITLE`, `PROTOCOL`,
`NEEDS`, `load(folder)` and `run(vectors, listing, settings)`: one of `benchmarks`, by its name, or one of your own.
Prompts are in `prompts`, what papers report in `reported`, both with a version.
"""

from __future__ import annotations

import difflib
import importlib
from types import ModuleType

from unibrivl.evaluation.running import Settings, evaluate
from unibrivl.evaluation.scores import Score, ScoreError, markdown, read_scores

# name -> one line for `unibrivl eval` without a benchmark
BENCHMARKS = {
    "esc50": "ESC-50: 50 classes of sounds, by a probe over five folds and by label text",
    "esc10": "ESC-10, its ten easy classes, in the same two ways",
    "urbansound8k": "UrbanSound8K: ten classes of a city, by a probe over ten folds and by label text",
    "vggsound": "VGGSound: 309 classes, by a probe and by label text",
    "vggsound_retrieval": "VGGSound: test sounds and pictures of their videos, both ways",
    "ravdess": "RAVDESS: acted emotions by a linear probe, of four classes and of eight",
    "vggsound_subsets": "VGGSound: R@k of sounds and pictures on a tenth, a fifth and all of the test clips",
    "vegas": "VEGAS, five classes: pictures of sounds, named by a judge",
    "diversity": "how unlike pictures of unlike sounds of one class are, of any folder of labelled sounds",
    "volume": "how vectors, and pictures, follow loudness, of any folder of sounds",
    "long_texts": "Localized Narratives: long transcripts look for their pictures, whole and cut",
    "pack_sounds": "the pack of sounds and pictures: a probe, label text, sounds and photographs of a class",
    "pack_digits": "the pack of spoken digits: a probe, and label text",
    "pack_emotion": "the pack of acted speech: emotions of two actors who were not heard",
    "pack_pictures": "the pack of sounds and pictures: pictures of test sounds, named by a judge",
    "robustness": "how far vectors of any folder of sounds move by noise, a room, loudness and sampling rate",
    "flickr8k": "Flickr8k Audio: spoken captions and pictures of the test split, both ways",
    "spoken_coco": "SpokenCOCO on the Karpathy split: spoken captions and pictures, both ways",
    "desed": "DESED: which domestic sounds are heard when, by a probe and by label text, segments and events",
    "clotho": "Clotho: captions of the evaluation split, for models that caption",
    "speech_words": "word error rate on any folder of speech with its words, for models that transcribe",
    "localized_narratives": "Localized Narratives of COCO: long spoken descriptions and pictures, both ways",
}


def load_benchmark(name: str) -> ModuleType:
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name, BENCHMARKS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(BENCHMARKS)}"
        raise ValueError(f"there is no benchmark {name!r}: {hint}")
    return importlib.import_module(f"unibrivl.evaluation.benchmarks.{name}")


__all__ = ["BENCHMARKS", "Score", "ScoreError", "Settings", "evaluate", "load_benchmark", "markdown", "read_scores"]
