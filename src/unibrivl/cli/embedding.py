"""What the verbs that embed share: how files are named, how the embedder is asked for, and how a run is stopped."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST_SHOWN = 5  # failures on the terminal; all of them are in the file


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Which files: see `read_paths`."""
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="files, folders to search, .tar shards and .parquet tables of sounds and pictures, and URLs of any of "
        "these; - reads names from standard input",
    )
    parser.add_argument("--from-file", metavar="LIST", help="a file with one path in a line, or - for standard input")
    parser.add_argument(
        "--kind",
        choices=("auto", "audio", "image"),
        default="auto",
        help="what the files are; auto goes by the suffix (default)",
    )


def add_embedder_arguments(parser: argparse.ArgumentParser) -> None:
    """How they are embedded: see `settings_of`. Each verb says itself what `--model` is."""
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    parser.add_argument(
        "--window-s", type=float, metavar="S", help="seconds in a window (default: 10, or what the model hears)"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="things in a forward pass (default: 16)")
    parser.add_argument("--workers", type=int, metavar="N", help="threads that decode ahead (default: 2)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")


def read_paths(args: argparse.Namespace) -> list[str]:
    """Paths of the command line, and those of a list; of standard input at most once."""
    lists = ["-"] * ("-" in args.paths) + ([args.from_file] if args.from_file else [])
    if lists.count("-") > 1:
        raise ValueError("standard input is named twice: write either - or --from-file -")
    paths = [path for path in args.paths if path != "-"]
    for name in lists:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        end = b"\0" if b"\0" in content else b"\n"  # as find -print0 writes them
        lines = [line.removesuffix(b"\r") if end == b"\n" else line for line in content.split(end)]
        paths += [os.fsdecode(line) for line in lines if line]
    return paths


def find_device(wanted: str | None) -> str:
    """The device, tried out."""
    import torch

    device = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {wanted} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """For `load`: what the command line says, and nothing of what it leaves open."""
    given = {name: getattr(args, name) for name in ("window_s", "batch_size", "workers", "revision")}
    return {name: value for name, value in given.items() if value is not None}


def asked_embedder(args: argparse.Namespace) -> Any:
    """The embedder that the command line asks for, where it asks for it."""
    return load_embedder(args.model, settings_of(args), find_device(args.device))


def load_embedder(model: str, given: dict[str, Any], device: str) -> Any:
    """Here, and in each worker."""
    from transformers.utils import logging

    from unibrivl.embedder import load

    logging.disable_progress_bar()  # of loading: one bar is enough
    embedder = load(model, **given)
    embedder.matcher.model.to(device)
    return embedder


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """A polite kill ends the run as Ctrl-C does. Signals reach the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
