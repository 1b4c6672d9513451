"""`unibrivl caption AUDIO... --model M`: a sentence for each sound, by a captioning head and its language model.

Exit code 0 when every sound has one, 1 when some could not be heard (they are listed), 2 when the question was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "M is what `unibrivl train --recipe captioner` leaves, or `small_captioner`, which needs nothing but this "
        "project's packs. It says what it has learned to say, and says that of every sound: its card names the "
        "language model and the captions it was trained on."
    )
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help="sound files, and folders to search")
    parser.add_argument("--model", required=True, metavar="M", help="folder of a captioner, or its name on the Hub")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each sound, with what wrote it")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")
    parser.add_argument("--quiet", action="store_true", help="no bar; errors are still told")


def run(args: argparse.Namespace) -> int:
    import torch
    from tqdm.auto import tqdm

    from unibrivl.audio.errors import printable
    from unibrivl.embedder.inputs import find_inputs
    from unibrivl.embedder.writing import load_captioner

    inputs = find_inputs(args.audio, kind="audio")
    if not inputs:
        raise ValueError("there are no sounds in what was named")
    try:
        captioner = load_captioner(args.model, args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {args.device} cannot be used here: {str(error).splitlines()[0]}") from error
    told = {"model": captioner.name, "language_model": language_of(captioner.model), "fingerprint": ""}
    if args.json:
        told["fingerprint"] = captioner.fingerprint
    failures = []
    shown = None if not args.quiet and len(inputs) > 1 else True  # None: on a terminal
    with tqdm(inputs, unit=" sounds", disable=shown, file=sys.stderr) as bar:
        for one in bar:
            try:
                if one.error:
                    raise ValueError(one.error)
                (caption,) = captioner.caption([one.path or one.id])
            except (ValueError, OSError, ImportError) as error:
                failures.append((one.id, str(error)))
                continue
            line = {"sound": one.id, "caption": caption, **told}
            print(json.dumps(line) if args.json else f"{printable(one.id)}\t{caption}", flush=True)
    for name, why in failures:
        print(f"unibrivl caption: {printable(name)}: {printable(why)}", file=sys.stderr)
    return 1 if failures else 0


def language_of(model: Any) -> dict[str, Any]:
    """The language model by its kind and size: what it was called before it was trained here is on the card."""
    return {
        "kind": model.config.decoder_config.model_type,
        "parameters": sum(weight.numel() for weight in model.decoder.parameters()),
        "vocabulary": model.get_input_embeddings().num_embeddings,
    }
