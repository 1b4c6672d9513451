"""The `unibrivl` command: one file per verb, loaded only when its verb is called.

A verb is a module in this folder with `add_arguments(parser)` and `run(args) -> int` (the exit code). `--help` lists
the table below and imports none of them, so it answers at once. Errors that are the user's to mend (`ValueError`,
`OSError`, a missing extra) end in one line on stderr and exit code 2; anything else is our bug and keeps its
traceback.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

# verb -> one line of help; the module of a verb has its name
VERBS = {
    "adapt": "learn the word of one sound from a few pictures, as a file that plain diffusers loads",
    "calibrate": "how sure a model may be, and when none of the labels fits, from sounds with labels",
    "caption": "a sentence for each sound, by a captioning head and its language model",
    "card": "print the model card of a saved model, rendered from the files beside it",
    "convert": "turn an original checkpoint into a safetensors folder that from_pretrained loads",
    "demo": "a handful of sounds, or yours, to pictures on one page, by the model of this package",
    "doctor": "report what is wrong with the sounds of a folder before it wastes a training run",
    "edit": "change a picture by a sound, and keep what the sound does not speak of",
    "embed": "sounds, pictures and texts as vectors in one parquet file, in a run that may be stopped and goes on",
    "embedded": "make this package's own small model from nothing, in stages that go on where they were broken off",
    "eval": "a row of the papers' tables, made again: a benchmark on a model",
    "explain": "which seconds of a sound and which regions of a picture made their score, drawn",
    "generate": "a picture for each sound, with a receipt for how it was chosen and a contact sheet",
    "index": "sounds and pictures into an index to search, in a run that may be stopped and goes on",
    "info": "what a model is made of: sizes, towers, licences, and the fingerprint of its vectors",
    "lexicon": "build the phone tokenizer from a pronunciation dictionary",
    "prepare": "videos as sounds and pictures that train, made once, in a run that may be stopped and goes on",
    "merge": "work an adapter into the weights of its base model",
    "push": "upload a model's folder to the Hub, private unless told otherwise",
    "replay": "make a picture again from the receipt inside it, and say what is different",
    "search": "what of an index fits a sound, a picture, a text or a mixture, and why",
    "serve": "a web page on this machine: choose a sound, see what is heard and drawn",
    "study": "ask people which of two pictures fits a sound, on a web page, and count what they say",
    "stylize": "a picture in the style of a sound, drawn anew or from one of yours",
    "tables": "all scores that eval left, beside what papers report",
    "transcribe": "what is said in each sound of a folder, written down once, in a run that goes on",
    "train": "run a recipe: train a model, or go on where a run was killed",
}


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The command's parser; only `verb`'s own module is imported and asked for its arguments."""
    from unibrivl import __version__

    parser = argparse.ArgumentParser(prog="unibrivl", description="A sound finds, makes, edits or explains a picture.")
    parser.add_argument("--version", action="version", version=f"unibrivl {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, summary in VERBS.items():
        child = verbs.add_parser(name, help=summary, description=summary)
        if name == verb:
            importlib.import_module(f"unibrivl.cli.{name}").add_arguments(child)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in argv if word in VERBS), None)
    args = build_parser(verb).parse_args(argv)
    try:
        return importlib.import_module(f"unibrivl.cli.{args.verb}").run(args)
    except BrokenPipeError:  # whoever reads our output has seen enough: `unibrivl doctor . --json | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError) as error:
        print(f"unibrivl {args.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"unibrivl {args.verb}: stopped", file=sys.stderr)
        return 130
