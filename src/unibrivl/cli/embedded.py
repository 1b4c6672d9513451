"""`unibrivl embedded`: make the embedded model from nothing, in stages that go on where they were broken off."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from unibrivl.training.embedded import ADAPTER, STAGES

    parser.add_argument(
        "--variant", choices=("open", "research"), default="open", help="open licences only, or everything"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of sounds_and_pictures and spoken_digits")
    parser.add_argument("--out", type=Path, default=Path("runs/embedded"), help="default: runs/embedded")
    parser.add_argument(
        "--set", action="append", default=[], metavar="STAGE.KEY=VALUE",
        help="change a stage's configuration, such as generator.steps=100; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[stage.name for stage in (*STAGES, ADAPTER)],
        help="this stage, no pipeline at the end",
    )


def run(args: argparse.Namespace) -> int:
    from unibrivl.utils import require

    require("diffusers", "diffusion", "the embedded model")
    require("accelerate", "train", "training")
    from unibrivl.cli.embedded_folder import add_adapter, assemble
    from unibrivl.training.embedded import ADAPTER, run_adapter, run_stages

    def tell(line: str) -> None:
        print(line, flush=True)

    run_stages(args.variant, args.data, args.out, args.set, args.only, tell)
    if not args.only:
        tell(str(assemble(args.variant, args.data, args.out)))
    if not args.only or ADAPTER.name in args.only:
        tell(str(add_adapter(run_adapter(args.variant, args.data, args.out, args.set, tell), args.out / args.variant)))
    return 0
