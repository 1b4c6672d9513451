"""What came of a study: shares with intervals for each system, agreement, who was left out, and the paper's figures.

Answers are positive (the picture made of this sound), negative (the other) or neither. Intervals take every answer as
one of its own; answers of one person are alike, so with few people they are too narrow.
"""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from unibrivl.evaluation.reported import REPORTED
from unibrivl.evaluation.study.answers import read_log
from unibrivl.evaluation.study.folder import Study
from unibrivl.evaluation.study.presets import preset_named
from unibrivl.metrics import binomial_test, fleiss_kappa, wilson

KINDS = ("positive", "negative", "neither")
BENCHMARK = "human_study"


@dataclass(frozen=True)
class Judged:
    """One answer with what the key knows of its trial."""

    participant: str
    trial: str
    system: str
    test: str
    label: str
    opponent: str
    check: bool
    choice: str
    kind: str
    positive_side: str
    rt_ms: int
    audio_played: bool
    ts: str
    kept: bool


def summarize(kinds: Iterable[str]) -> dict[str, Any]:
    """Counts and percentages of "positive", "negative" and "neither", with how sure they are.

    The test is of positive against negative, without the answers that are neither; None if all are.
    """
    counts = Counter(kinds)
    if set(counts) - set(KINDS):
        raise ValueError(f"answers are {', '.join(KINDS)}, and these are {', '.join(map(repr, counts))}")
    n, decided = counts.total(), counts["positive"] + counts["negative"]
    if not n:
        raise ValueError("there are no answers to count")
    return {
        "n": n,
        "counts": {kind: counts[kind] for kind in KINDS},
        "percent": {kind: 100 * counts[kind] / n for kind in KINDS},
        "positive_wilson95": list(wilson(counts["positive"], n)),
        "binom_p_two_sided_positive_vs_negative": binomial_test(counts["positive"], decided) if decided else None,
    }


def agreement(answers: Sequence[Judged]) -> dict[str, Any] | None:
    """Fleiss' kappa where several people judged the same trials; None where nobody did.

    It needs as many answers for each trial: the number that uses most answers is taken, the first ones of each.
    """
    by_trial: dict[str, list[str]] = {}
    for one in answers:
        by_trial.setdefault(one.trial, []).append(one.kind)
    sizes = [len(kinds) for kinds in by_trial.values()]
    if max(sizes) < 2:
        return None
    each = max(range(2, max(sizes) + 1), key=lambda most: most * sum(size >= most for size in sizes))
    used = [kinds[:each] for kinds in by_trial.values() if len(kinds) >= each]
    value = fleiss_kappa([[kinds.count(kind) for kind in KINDS] for kinds in used])
    return {"value": None if math.isnan(value) else value, "trials": len(used), "answers_each": each}


@dataclass(frozen=True)
class Report:
    """
    Args:
        told (`dict`): everything, as JSON.
        answers: each answer that counts or was left out with its participant.
    """

    told: dict[str, Any]
    answers: list[Judged]

    def markdown(self) -> str:
        lines = [
            "| system | test | answers | people | positive | 95 % | negative | neither | p, positive = negative "
            "| kappa | reported |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        papers = "; ".join(
            f"{one['positive']:.0f} / {one['negative']:.0f} / {one['neither']:.0f} {one['system']} ({one['source']})"
            for one in self.told["reported"]
        )
        for row in self.told["results"]:
            whole = row["test"] is None
            lines.append(line_of(row, "all" if whole else row["test"], papers if whole else ""))
            if whole and row["mean_of_tests"]:
                share = " | ".join(f"{row['mean_of_tests'][kind]:.1f} %" for kind in KINDS[1:])
                mean = f"{row['mean_of_tests']['positive']:.1f} %"
                lines.append(f"| {cell(row['system'])} | mean of tests | | | {mean} | | {share} | | | |")
        return "\n".join([*lines, "", *self.sentences()]) + "\n"

    def sentences(self) -> list[str]:
        people, log = self.told["participants"], self.told["log"]
        said = [
            f"{people['answered']} people answered, {people['finished']} of them to the end; {people['excluded']} "
            f"failed a check and are left out with their {log['answers_left_out']} answers.",
        ]
        if people["kept_without_a_check"]:
            said.append(f"{people['kept_without_a_check']} of those who count met no check.")
        if log["broken_lines"]:
            numbers = ", ".join(map(str, log["broken_lines"]))
            said.append(f"Lines of the log that are no answers and were skipped: {numbers}.")
        if log["answered_twice"]:
            said.append(f"{log['answered_twice']} second answers to the same trial were skipped.")
        if log["of_another_study"]:
            said.append(f"{log['of_another_study']} answers are of another study and were skipped.")
        said.append(f"Preset {self.told['preset']}: {preset_named(self.told['preset']).about}.")
        if self.told["reported"]:
            said.append("Reported figures are positive / negative / neither in percent.")
        return said

    def write_csv(self, path: str | os.PathLike) -> None:
        """One row for each answer, checks and left-out ones too."""
        names = list(Judged.__dataclass_fields__)
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["study_id", *names])
            for one in self.answers:
                writer.writerow([self.told["study_id"], *(getattr(one, name) for name in names)])


def line_of(row: dict[str, Any], test: str, papers: str) -> str:
    low, high = row["positive_wilson95"]
    p, kappa = row["binom_p_two_sided_positive_vs_negative"], row["kappa"]
    sure = "" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.4f}"
    if kappa is None:
        agreed = ""
    else:
        value = "all alike" if kappa["value"] is None else f"{kappa['value']:.3f}"
        agreed = f"{value} ({kappa['answers_each']} answers each to {kappa['trials']} trials)"
    share = row["percent"]
    return (
        f"| {cell(row['system'])} | {cell(test)} | {row['n']} | {row['people']} | {share['positive']:.1f} % | "
        f"{100 * low:.1f} to {100 * high:.1f} % | {share['negative']:.1f} % | {share['neither']:.1f} % | {sure} | "
        f"{agreed} | {papers} |"
    )


def cell(words: str) -> str:
    return words.replace("|", "/").replace("\n", " ")


def report(folder: str | os.PathLike) -> Report:
    """The answers of a study counted. Whoever got a check wrong is left out whole."""
    study = Study(folder)
    log = read_log(study.answers_path)
    own = [one for one in log.answers if one["study_id"] == study.study_id and one["trial_id"] in study.trials]
    first = {(one["participant"], one["trial_id"]): one for one in reversed(own)}
    answers = [one for one in own if first[one["participant"], one["trial_id"]] is one]
    if not answers:
        raise ValueError(f"{folder} has no answers yet: `unibrivl study serve` shows the page that takes them")
    failed = {one["participant"] for one in answers if one["trial_id"] in study.checks and kind_of(one) != "positive"}
    judged = [judged_answer(one, study, one["participant"] not in failed) for one in answers]
    seen = {one.participant for one in judged}
    met = {one.participant for one in judged if one.check}
    given = Counter(one.participant for one in judged)
    told = {
        "study_id": study.study_id,
        "preset": study.key["preset"],
        "built": study.key["built"],
        "commit": study.key["commit"],
        "participants": {
            "answered": len(seen),
            "finished": sum(count >= study.told["num_trials"] for count in given.values()),
            "excluded": len(failed),
            "kept": len(seen - failed),
            "kept_without_a_check": len(seen - failed - met),
        },
        "log": {
            "answers": len(answers),
            "answers_left_out": sum(not one.kept for one in judged),
            "answered_twice": len(own) - len(answers),
            "of_another_study": len(log.answers) - len(own),
            "broken_lines": log.broken,
        },
        "results": list(results([one for one in judged if one.kept and not one.check])),
        "reported": reported() if preset_named(study.key["preset"]).reported else [],
    }
    return Report(told, judged)


def kind_of(answer: dict[str, Any]) -> str:
    if answer["choice"] == "neither":
        return "neither"
    return "positive" if answer["choice"] == answer["positive_side"] else "negative"


def judged_answer(answer: dict[str, Any], study: Study, kept: bool) -> Judged:
    trial = study.trials[answer["trial_id"]]
    return Judged(
        participant=answer["participant"],
        trial=answer["trial_id"],
        **{name: trial[name] for name in ("system", "test", "label", "opponent", "check")},
        kind=kind_of(answer),
        kept=kept,
        **{name: answer[name] for name in ("choice", "positive_side", "rt_ms", "audio_played", "ts")},
    )


def results(answers: list[Judged]) -> Iterable[dict[str, Any]]:
    """A row for each system, and before it one for each test if there are several."""
    for system in sorted({one.system for one in answers}):
        own = [one for one in answers if one.system == system]
        tests = sorted({one.test for one in own})
        rows = [row_of(system, test, [one for one in own if one.test == test]) for test in tests]
        whole = row_of(system, None, own)
        if len(rows) > 1:
            yield from rows
            whole["mean_of_tests"] = {kind: sum(row["percent"][kind] for row in rows) / len(rows) for kind in KINDS}
        yield whole


def row_of(system: str, test: str | None, answers: list[Judged]) -> dict[str, Any]:
    return {
        "system": system,
        "test": test,
        "people": len({one.participant for one in answers}),
        **summarize(one.kind for one in answers),
        "kappa": agreement(answers),
        "mean_of_tests": None,
    }


def reported() -> list[dict[str, Any]]:
    """The paper's percentages, a row for each system; it does not say of how many answers."""
    rows: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        for figure in REPORTED[BENCHMARK, kind]:
            rows.setdefault(figure.system, {"system": figure.system, "source": figure.source, "n": None})
            rows[figure.system][kind] = 100 * figure.value
    return list(rows.values())
