"""`unibrivl serve`: the web page, for people who would rather look than read. Ctrl-C ends it."""

from __future__ import annotations

import argparse
import os
import sys
import threading

from unibrivl.cli.generate import add_model_arguments

EMBEDDED = "embedded"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The page is shown to this machine only, and nothing it shows or is shown leaves it. To let others in, name "
        "an address of this machine with --host: there is no password, so do so only in a network you trust."
    )
    add_model_arguments(parser, required=False)
    parser.set_defaults(model=EMBEDDED)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, metavar="N", help="default: the first that is free from 7860 on")
    parser.add_argument("--pictures", metavar="FOLDER", help="pictures that sounds shall find")
    parser.add_argument(
        "--adapter",
        metavar="A",
        help="makes words of sounds, if MODEL holds none: a folder, or a name on the Hub",
    )
    parser.add_argument("--ears", metavar="E", help="the audio encoder of the adapter, if MODEL's matcher is not it")
    parser.add_argument(
        "--speech",
        metavar="M",
        help="a BrewCLIP, by which spoken sentences find --pictures: a folder, or a name on the Hub",
    )
    parser.add_argument("--index", metavar="DIR", help="what `unibrivl index` wrote, to be searched by the page")
    parser.add_argument("--max-seconds", type=float, default=30.0, metavar="S", help="longest sound (default: 30)")
    parser.add_argument("--max-mb", type=float, default=20.0, metavar="MB", help="largest file (default: 20)")
    parser.add_argument("--queue", type=int, default=8, metavar="N", help="visitors who may wait (default: 8)")


def run(args: argparse.Namespace) -> int:
    from unibrivl.app.guard import is_loopback
    from unibrivl.app.limits import Limits
    from unibrivl.utils import require

    limits = Limits(args.max_seconds, args.max_mb, args.queue)
    if args.port is not None and not 0 < args.port < 65536:
        raise ValueError(f"--port must be from 1 to 65535, got {args.port}")
    if args.speech is not None and args.pictures is None:
        raise ValueError("--speech finds pictures by spoken sentences: name a folder of them too, with --pictures")
    if args.index is not None:
        check_index(args.index)
    require("gradio", "app", "unibrivl serve")
    if not is_loopback(args.host):
        print(
            f"unibrivl serve: warning: {args.host} can be reached from other machines. There is no password: whoever "
            "reaches it can use this model, and what is said goes over the network as it is",
            file=sys.stderr,
        )
    return show(args, limits)


def show(args: argparse.Namespace, limits: object) -> int:
    from unibrivl.app.folder import PictureFolder
    from unibrivl.app.hearing import known_labels
    from unibrivl.app.page import served
    from unibrivl.app.salon import Salon
    from unibrivl.app.studio import Studio
    from unibrivl.app.witness import Witness
    from unibrivl.app.workshop import Workshop
    from unibrivl.cli.archive import load_archive
    from unibrivl.cli.audio_words import with_words
    from unibrivl.cli.embedding import stopped_by_sigterm
    from unibrivl.cli.generate import load_pipeline, quiet_libraries
    from unibrivl.cli.speech import load_speech
    from unibrivl.embedder import Embedder

    quiet_libraries()
    # first, since it is refused sooner
    speech = None if args.speech is None else load_speech(args.speech, args.device)
    model = embedded_folder() if args.model == EMBEDDED else args.model
    print(f"loading {args.model} ...", flush=True)
    pipe = load_pipeline(model, args.matcher, args.device, args.dtype, args.offload)
    pipe.set_progress_bar_config(disable=True)
    labels = known_labels(pipe, model if os.path.isdir(model) else None)
    folder = None
    if args.pictures is not None:
        folder = PictureFolder(args.pictures, pipe)
        print(f"{len(folder)} pictures in {args.pictures}")
    studio = Studio(pipe, limits, labels, folder)  # type: ignore[arg-type]
    words = with_words(pipe, model, args.adapter, args.ears, args.offload)
    workshop = None if words is None else Workshop(words, studio)
    salon = None
    if speech is not None:
        salon = Salon(speech, PictureFolder(args.pictures, speech), limits)  # type: ignore[arg-type]
        if not salon.reads:
            print(f"{args.speech} writes nothing down: spoken sentences find pictures by the voice alone")
    archive = None
    if args.index is not None:
        archive = load_archive(args.index, pipe, limits, studio.lock, args.device)
        print(f"{archive.count} files in the index {args.index}")
    witness = Witness(Embedder(pipe.listener), studio.limits, studio.lock) if can_explain(pipe) else None
    rooms = (workshop, salon, archive, witness)
    with stopped_by_sigterm(), served(studio, args.host, args.port, *rooms) as address:
        print(f"open {address}   (Ctrl-C ends it)", flush=True)
        wait()
    return 0


def check_index(folder: str) -> None:
    """That it can be opened, before a model is loaded."""
    from unibrivl.search import Index

    Index.open(folder).close()


def can_explain(pipe: object) -> bool:
    """Whether its matcher hears and sees."""
    return {"audio", "image"} <= set(pipe.listener.kinds)  # type: ignore[attr-defined]


def wait() -> None:
    """Until somebody presses Ctrl-C, which is how this is meant to end."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("\nended")


def embedded_folder() -> str:
    from unibrivl.embedded import embedded

    return str(embedded())


__all__ = ["add_arguments", "run"]
