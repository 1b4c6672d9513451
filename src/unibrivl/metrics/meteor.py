"""METEOR, twice, under two names: the real one needs Java; the one without is another number and says so.

`meteor` is METEOR 1.5 (Denkowski and Lavie, 2014) with its synonyms and paraphrases: the jar that the package
pycocoevalcap carries, run here. `meteor_exact_stem` is the 2005 formula over exact and stemmed matches, as NLTK
computes it with an empty WordNet. It is about twice as high as the other, and the two must not be compared.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from unibrivl.metrics.ptb import REMOVED, ptb_tokenize
from unibrivl.metrics.stemmer import porter_stem
from unibrivl.utils import require

__all__ = ["NotAvailable", "meteor_exact_stem", "meteor_is_available"]

# NLTK's defaults, which are METEOR's of 2005.
ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5
STANFORD_JAR = "stanford-corenlp-3.4.1.jar"
METEOR_JAR = "meteor-1.5.jar"
NO_ANSWER = "METEOR's program ended without an answer: try another Java version, 8 or newer"


class NotAvailable(ValueError):
    """A score that cannot be computed here, and what it would take."""


def meteor_exact_stem(hypothesis: str, references: Sequence[str]) -> float:
    """The best score over the references of one item; all of them tokenised, cut at spaces.

    Words are matched from the end of both sentences, equal ones first and then those with equal stems. The score is
    the weighted harmonic mean of precision and recall, less a penalty for matches that are torn into many chunks.
    """
    said = words_of(hypothesis)
    return max((score_of_pair(said, words_of(reference)) for reference in references), default=0.0)


def words_of(text: str) -> list[str]:
    return text.lower().split()


def score_of_pair(said: list[str], true: list[str]) -> float:
    matches = align(said, true)
    if not matches:
        return 0.0
    precision, recall = len(matches) / len(said), len(matches) / len(true)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    breaks = sum(
        (later[0] - earlier[0], later[1] - earlier[1]) != (1, 1)
        for earlier, later in zip(matches, matches[1:], strict=False)
    )
    return (1 - GAMMA * ((breaks + 1) / len(matches)) ** BETA) * mean


def align(said: list[str], true: list[str]) -> list[tuple[int, int]]:
    """Matched positions (said, true), in the order of what was said."""
    matches = []
    free_said, free_true = list(range(len(said))), list(range(len(true)))
    forms: tuple[Callable[[str], str], ...] = (str, porter_stem)
    for form in forms:
        places: dict[str, list[int]] = {}  # form -> where it is free in `true`, the last place on top
        for place in free_true:
            places.setdefault(form(true[place]), []).append(place)
        for place in reversed(free_said):
            if free := places.get(form(said[place])):
                matches.append((place, free.pop()))
        free_said = sorted(set(free_said).difference(match[0] for match in matches))
        free_true = sorted(set(free_true).difference(match[1] for match in matches))
    return sorted(matches)


def java_folder(part: str, jar: str) -> Path:
    """The folder of pycocoevalcap with a jar in it; raises what is missing."""
    if shutil.which("java") is None:
        raise NotAvailable(
            f"{jar} needs java (8 or newer), which is not on the PATH: install a Java runtime, or use the "
            "tokenizer and the METEOR without Java, which have names of their own"
        )
    package = require("pycocoevalcap", "caption-java", f"running {jar}")
    folder = Path(next(iter(package.__path__))) / part
    if not (folder / jar).is_file():
        raise NotAvailable(f"{folder / jar} is missing: pip install --force-reinstall pycocoevalcap")
    return folder


def meteor_is_available() -> bool:
    """Whether Java and the jar of METEOR 1.5 are both here."""
    try:
        java_folder("meteor", METEOR_JAR)
    except (ImportError, NotAvailable):
        return False
    return True


def meteor_java(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """METEOR 1.5 of the corpus and of each item, from tokenised captions.

    The program is asked for the statistics of every item and then for the score of them all: the score of a corpus is
    not the mean of its items'.
    """
    folder = java_folder("meteor", METEOR_JAR)
    try:
        scores = ask_meteor(folder, hypotheses, references)
    except BrokenPipeError as error:
        raise NotAvailable(NO_ANSWER) from error
    return scores[-1], scores[:-1]


def ask_meteor(folder: Path, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """The score of each item, and behind them that of the corpus."""
    command = ["java", "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=folder, text=True, encoding="utf-8", **pipes) as program:  # type: ignore[call-overload]

        def ask(line: str) -> str:
            """One line of the program for one line of ours; it answers line by line, so no pipe fills up."""
            program.stdin.write(line + "\n")
            program.stdin.flush()
            return answer()

        def answer() -> str:
            line = program.stdout.readline().strip()
            if not line:
                raise NotAvailable(NO_ANSWER)
            return line

        statistics = [
            ask(" ||| ".join(["SCORE", *map(one_field, of_item), one_field(hypothesis)]))
            for hypothesis, of_item in zip(hypotheses, references, strict=True)
        ]
        scores = [float(ask(" ||| ".join(["EVAL", *statistics])))]
        scores += [float(answer()) for _ in statistics]
        program.stdin.close()
    return scores


def one_field(text: str) -> str:
    """A caption as one field of the program's line protocol."""
    return " ".join(text.replace("|||", " ").split())


def java_tokenize(texts: Sequence[str]) -> list[str]:
    """What Stanford's own program makes of captions: see `ptb_tokenize`."""
    folder = java_folder("tokenizer", STANFORD_JAR)
    lines = [" ".join(text.splitlines()) for text in texts]
    command = ["java", "-cp", STANFORD_JAR, "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    found = run_java(command, folder, "\n".join(lines)).split("\n")[: len(lines)]
    if len(found) != len(lines):
        raise NotAvailable(f"the tokenizer answered {len(found)} of {len(lines)} captions: try another Java version")
    return [" ".join(token for token in line.split(" ") if token and token not in REMOVED) for line in found]


def run_java(command: Sequence[str], folder: Path, text: str) -> str:
    done = subprocess.run(
        [command[0], "-Dfile.encoding=UTF-8", *command[1:]],
        cwd=folder,
        input=(text + "\n").encode(),
        capture_output=True,
    )
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise NotAvailable(f"{' '.join(command[:4])} ended with {done.returncode}: {' '.join(last)}")
    return done.stdout.decode()


# name -> function: the tokenizers `caption_scores` knows
TOKENIZERS: dict[str, Callable[[Sequence[str]], list[str]]] = {"ptb_python": ptb_tokenize, "ptb_java": java_tokenize}
