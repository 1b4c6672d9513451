"""`unibrivl doctor PATH...`: what is wrong with these sounds, as a table for people or JSON for programs.

Exit code 0 when every file is sound, 1 when something was found, 2 when the question was wrong (no such path, no sound
in it). Standard output holds the report and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator

JSON_VERSION = 1  # of the schema below: a change that breaks a reader raises it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Found are: unreadable, damaged, nan, too_short, silent, clipped, unscaled, dc_offset, cancelling (channels "
        "that mirror each other), odd_rate, duplicate. Exit code: 0 nothing found, 1 something found, 2 no such path."
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="sound files, and folders to search for them")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, with every file, instead of a table"
    )
    parser.add_argument(
        "--frames", action="store_true", help="measure mean and std of the log-mel frames too, for CAV-MAE's extractor"
    )
    parser.add_argument("--workers", type=int, default=None, metavar="N", help="threads (default: one per processor)")


def run(args: argparse.Namespace) -> int:
    from unibrivl.audio.doctor import examine_all, find_sounds, summarize
    from unibrivl.audio.errors import printable

    if args.workers is not None and args.workers < 1:
        raise ValueError(f"--workers must be at least 1, not {args.workers}")
    paths = list(find_sounds(args.paths))
    if not paths:
        raise ValueError(f"no sound files in {', '.join(printable(path) for path in args.paths)}")
    with _hushed_decoders():
        reports = examine_all(paths, args.workers, _progress)
        frames = _frames([report.path for report in reports if report.readable]) if args.frames else {}
    summary = {**summarize(reports), **frames}
    if args.json:
        files = [dataclasses.asdict(report) for report in reports]
        print(json.dumps({"version": JSON_VERSION, "summary": summary, "files": files}, indent=1, allow_nan=False))
    else:
        rows = [
            (printable(report.path), finding.kind, printable(finding.detail))
            for report in reports
            for finding in report.findings
        ]
        for line in (*_table(rows), *([""] if rows else []), *_summary_lines(summary)):
            _print(line)
    return 1 if summary["files_with_findings"] else 0


def _frames(paths: list[str]) -> dict[str, dict]:
    from unibrivl.training.frame_statistics import frame_statistics

    if not paths:
        raise ValueError("no sound that can be read: there are no frames to measure")
    refused: list[Exception] = []  # what is wrong with them is among the findings
    return {"frames": dataclasses.asdict(frame_statistics(paths, progress=_progress, refused=refused.append))}


def _table(rows: list[tuple[str, str, str]]) -> Iterator[str]:
    """Columns as wide as they must be; a path that continues from the line above is not repeated."""
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    above = ""
    for path, kind, detail in rows:
        yield f"{'' if path == above else path:<{widths[0]}}  {kind:<{widths[1]}}  {detail}"
        above = path


def _summary_lines(summary: dict) -> Iterator[str]:
    def listed(counts: dict[str, int], unit: str = "") -> str:
        return ", ".join(f"{value}{unit} ({count})" for value, count in counts.items())

    hours = summary["hours"]
    length = f"{hours:.2f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
    files = f"{summary['files']} file{'' if summary['files'] == 1 else 's'}"
    yield f"{files}, {length}" + (f", {summary['unreadable']} unreadable" if summary["unreadable"] else "")
    if summary["formats"]:
        yield f"rates:    {listed(summary['rates_hz'], ' Hz')}"
        yield f"formats:  {listed(summary['formats'])}"
        yield f"channels: {listed(summary['channels'])}"
    if "frames" in summary:
        found = summary["frames"]
        yield (
            f"frames:   mean {found['mean']:.4f}, std {found['std']:.4f} of {found['frames']} frames of 128 mel bins: "
            f"CAVMAEFeatureExtractor(mean={found['mean']:.4f}, std={found['std']:.4f})"
        )
    if summary["findings"]:
        yield f"findings: {listed(summary['findings'])}, in {summary['files_with_findings']} of {files}"
    else:
        yield "nothing is wrong"


def _print(line: str) -> None:
    """Print a line in whatever the terminal can show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, errors="backslashreplace").decode(encoding))


def _progress(reports: Iterable, total: int) -> Iterable:
    from tqdm import tqdm

    return tqdm(reports, total=total, unit=" files", leave=False, disable=not sys.stderr.isatty(), file=sys.stderr)


@contextlib.contextmanager
def _hushed_decoders() -> Iterator[None]:
    """Keep libmpg123's remarks, written in C to the process's standard error, out of the terminal.

    They name no file, and what they mean is in the report. Python's own standard error goes on as before.
    """
    try:
        is_stderr = sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # replaced by something without a descriptor
        is_stderr = False
    if not is_stderr:
        yield
        return
    sys.stderr.flush()
    python_stderr, kept = sys.stderr, os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        with os.fdopen(
            kept, "w", encoding=sys.stderr.encoding, errors="backslashreplace", closefd=False
        ) as sys.stderr:
            yield
    finally:
        sys.stderr = python_stderr
        os.dup2(kept, 2)
        os.close(kept)
