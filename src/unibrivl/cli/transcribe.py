"""`unibrivl transcribe FOLDER --model WHISPER`: what is said in each sound, written down once, beside the sounds.

Exit code 0 when every sound was heard, 1 when some could not be read, 2 when the question was wrong, 130 when it was
stopped: what was written by then is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import sys

MOST_SHOWN = 5  # failures on the terminal; all of them are in the file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Stop it with Ctrl-C whenever you like: the same command goes on where it was, hears what is new or has "
        "changed, and tries again what failed. The recipe brewclip reads what it writes."
    )
    parser.add_argument("folder", metavar="FOLDER", help="the sounds, in it and below it")
    parser.add_argument("--model", required=True, metavar="WHISPER", help="name or folder of a Whisper")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    parser.add_argument("--language", default="en", help="of what is said (default: en)")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="sounds at a time (default: 8)")
    parser.add_argument(
        "--silence-db", type=float, default=-60.0, metavar="DB",
        help="what is quieter than this is not listened to: Whisper makes words up of silence (default: -60)",
    )  # fmt: skip
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")
    parser.add_argument("--out", metavar="FILE", help="another file (default: one in FOLDER, named by the settings)")
    parser.add_argument("--restart", action="store_true", help="hear everything anew, whatever is there")
    parser.add_argument("--quiet", action="store_true", help="no bar and no summary; errors are still told")


def run(args: argparse.Namespace) -> int:
    import torch

    from unibrivl.embedder.transcribe import transcribe_files
    from unibrivl.modeling import Transcriber

    where = {} if args.revision is None else {"revision": args.revision}
    writer = Transcriber.from_pretrained(
        args.model, language=args.language, batch_size=args.batch_size, silence_dbfs=args.silence_db, **where
    )
    try:
        writer.model.to(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {args.device} cannot be used here: {str(error).splitlines()[0]}") from error
    try:
        report = transcribe_files(
            writer, args.folder, out=args.out, restart=args.restart, progress=False if args.quiet else None
        )
    except KeyboardInterrupt:
        print("unibrivl transcribe: stopped; what was written is kept, the same command goes on", file=sys.stderr)
        return 130
    if not args.quiet:
        print(
            f"{report.path}: {report.written} sounds written down, {report.unchanged} were there; nothing is said in "
            f"{report.empty}"
        )
    for failure in report.failures[:MOST_SHOWN]:
        print(f"{failure.id}: {failure.error}", file=sys.stderr)
    if report.failures:
        print(f"{len(report.failures)} could not be read: {report.errors_path}", file=sys.stderr)
    return 1 if report.failures else 0
