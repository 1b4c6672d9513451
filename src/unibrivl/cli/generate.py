"""`unibrivl generate AUDIO... --model M --out DIR`: a picture for each sound, with its receipt and a contact sheet.

Exit code 0 when every sound has its pictures, 1 when some could not be heard or drawn (they are listed), 2 when the
question was wrong, 130 when it was stopped: what is whole by then is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1  # of the JSON beside the pictures
MOST_SHOWN = 5
# what of the command line decides pictures: another value is another run, and wants another folder
DECIDING = (
    "model", "matcher", "prompt", "negative_prompt", "strategy", "num_candidates", "pictures", "steps",
    "guidance_scale", "seed", "size", "windows", "volume", "text", "text_weight", "label_bank", "dtype",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "For dog.wav there will be dog.png with its receipt inside, dog.json with the scores, prompts and seeds of "
        "all candidates, and dog.sheet.png. Stop it with Ctrl-C whenever you like: the same command goes on with the "
        "sounds that are not whole. Exit code: 0 all drawn, 1 some failed, 2 wrong question, 130 stopped."
    )
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help="sound files, and folders to search")
    add_model_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument(
        "--prompt", help="what to draw (default: the labels of the bank that are nearest to the sound)"
    )
    parser.add_argument("--negative-prompt", metavar="PROMPT", help="what not to draw")
    parser.add_argument(
        "--strategy",
        help="halving (default; embed for a base of unCLIP), rerank, guide, embed, or several: guide+halving",
    )
    parser.add_argument("-n", "--num-candidates", type=int, metavar="N", help="pictures that are begun for each sound")
    parser.add_argument("--pictures", type=int, default=1, metavar="K", help="of them, how many are kept (default: 1)")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps (default: the base's)")
    parser.add_argument(
        "--guidance-scale", type=float, metavar="W", help="classifier-free guidance (default: the base's)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers of every sound (default: 0)")
    parser.add_argument("--size", type=as_size, metavar="PIXELS", help="512, or 768x512 (width x height)")
    parser.add_argument("--text", help='added to what is heard: "at night"')
    parser.add_argument("--text-weight", type=float, default=0.5, metavar="W", help="its share (default: 0.5)")
    parser.add_argument("--windows", action="store_true", help="a storyboard: a picture for every ten seconds")
    parser.add_argument(
        "--volume", type=as_gains, metavar="DB,DB", help="a picture at each gain: --volume=-20,0,10 (decibels)"
    )
    parser.add_argument(
        "--label-bank",
        metavar="NAME|FILE",
        help="a bank of the model's, or labels of your own: .txt, .csv, .tsv or .json",
    )
    parser.add_argument(
        "--max-rows", type=int, metavar="N", help="rows of the UNet at once (default: what memory takes)"
    )
    parser.add_argument("--restart", action="store_true", help="draw everything anew, whatever is there")
    parser.add_argument("--quiet", action="store_true", help="no bars and no summary; errors are still told")


def add_model_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--model",
        required=required,
        metavar="M",
        help="a base of Stable Diffusion, or one that holds a matcher too; `embedded` is the model of this package",
    )
    parser.add_argument("--matcher", metavar="R", help="UniBriVL or PE-AV: a folder, or a name on the Hub")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), help="default: float16 on a GPU, float32 on a CPU"
    )
    parser.add_argument("--offload", action="store_true", help="components wait in main memory until they are used")


def as_size(text: str) -> tuple[int, int]:
    try:
        parts = [int(part) for part in text.lower().split("x")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2) or any(part < 8 or part % 8 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: multiples of 8, such as 512 or 768x512")
    return parts[0], parts[-1]


def as_gains(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} are no gains: decibels with commas, such as -20,0,10") from None


def run(args: argparse.Namespace) -> int:
    from unibrivl.cli.embedding import stopped_by_sigterm

    with stopped_by_sigterm():
        return generate(args)


def generate(args: argparse.Namespace) -> int:
    quiet_libraries()
    from unibrivl.pipelines.prompts_unibrivl import bank_named

    check_settings(args)
    jobs = find_jobs(args)
    waiting = [job for job in jobs if args.restart or not is_whole(job, args)]
    if not args.quiet and len(waiting) < len(jobs):
        print(f"{len(jobs) - len(waiting)} of {len(jobs)} are whole and stay")
    failures: list[tuple[str, str]] = []
    if waiting:
        args.out.mkdir(parents=True, exist_ok=True)
        pipe = load_pipeline(args.model, args.matcher, args.device, args.dtype, args.offload)
        bank_named(args.label_bank, pipe.label_banks)
        failures = draw_all(pipe, waiting, args)
    for name, why in failures[:MOST_SHOWN]:
        print(f"unibrivl generate: {name}: {why}", file=sys.stderr)
    if len(failures) > MOST_SHOWN:
        print(f"unibrivl generate: and {len(failures) - MOST_SHOWN} more", file=sys.stderr)
    return 1 if failures else 0


def check_settings(args: argparse.Namespace) -> None:
    """What would be wrong with every sound is said once, before a model is loaded."""
    from unibrivl.pipelines.prompts_unibrivl import is_path, read_bank
    from unibrivl.pipelines.strategies_unibrivl import strategy_named

    for name in ("pictures", "steps", "num_candidates", "max_rows"):
        given = getattr(args, name)
        if given is not None and given < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {given}")
    strategy_named(args.strategy or "halving")
    if args.label_bank and is_path(args.label_bank):  # a name is looked up when the model is there
        read_bank(args.label_bank)
    if args.windows and args.volume is not None:
        raise ValueError("--windows and --volume cannot be used together: run twice, into two folders")


# ---- what there is to do


@dataclass(frozen=True)
class Job:
    """One sound and where its results go: `target` with a suffix."""

    path: Path
    name: str
    target: Path
    size_bytes: int
    mtime_ns: int


def find_jobs(args: argparse.Namespace) -> list[Job]:
    from unibrivl.embedder.inputs import find_inputs

    found = find_inputs(args.audio, kind="audio")
    if not found:
        raise ValueError(f"no sound in {', '.join(args.audio)}: name files, or folders with sounds in them")
    missing = [one for one in found if one.error and not os.path.exists(one.path or "")]
    if missing:
        raise ValueError(f"{missing[0].id}: {missing[0].error}")
    jobs, taken = [], set[str]()
    for one in found:
        path = Path(one.path or one.id)
        # the stem, and where two sounds share it the whole name: in one folder that is never taken twice
        names = (
            path.stem,
            path.name,
            f"{path.parent.name}-{path.name}",
            *(f"{path.name}-{n}" for n in range(2, 10_000)),
        )
        name = next(name for name in names if name not in taken)
        taken.add(name)
        jobs.append(Job(path, path.name, args.out / name, one.size_bytes, one.mtime_ns))
    return jobs


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What decides pictures, in plain values; of folders and files the name, so that results may be handed on."""
    settings = {name: getattr(args, name) for name in DECIDING}
    for name in ("model", "matcher", "label_bank"):
        if settings[name] and os.path.exists(settings[name]):
            settings[name] = os.path.basename(os.path.normpath(settings[name]))
    return json.loads(json.dumps(settings))


def is_whole(job: Job, args: argparse.Namespace) -> bool:
    """Whether the results are there and of this sound; other settings are refused rather than drawn over."""
    place = job.target.with_name(job.target.name + ".json")
    try:
        told = json.loads(place.read_text(encoding="utf-8"))
        of_this = told["generated"] == FORMAT and told["sound"]["bytes"] == job.size_bytes
        same_time = told["sound"]["mtime_ns"] == job.mtime_ns
        files = [one["file"] for one in told["pictures"]] + [told["sheet"]]
        settings = told["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # nothing there, or cut short
    if settings != settings_of(args):
        other = sorted(name for name, value in settings_of(args).items() if settings.get(name) != value)
        raise ValueError(
            f"{place} was made with other settings ({', '.join(other)}): choose another --out, or draw anew with "
            "--restart"
        )
    return of_this and same_time and all((place.parent / name).exists() for name in files)


# ---- the model


def load_pipeline(
    model: str, matcher: str | None, device: str | None, dtype: str | None, offload: bool = False, kind: str = "",
    **kwargs: Any,
) -> Any:  # fmt: skip
    """The pipeline of a base, of the kind that its `model_index.json` says, or of another by its name."""
    import torch

    from unibrivl.embedded import embedded
    from unibrivl.utils.optional import require

    diffusers = require("diffusers", "diffusion", "drawing pictures")
    where = checked_device(device)
    if model == "embedded":
        model = str(embedded())
    parts = diffusers.DiffusionPipeline.load_config(
        model, **{name: kwargs[name] for name in ("revision",) if name in kwargs}
    )
    if matcher is None and not (parts.get("matcher") or [None])[0]:
        raise ValueError(f"{model} is a base without a matcher, which hears: add --matcher with UniBriVL or PE-AV")
    named = dtype or ("float16" if where.type == "cuda" else "float32")
    if matcher is not None:
        kwargs["matcher"] = matcher
    pipe = pipeline_class(parts, kind).from_pretrained(model, dtype=getattr(torch, named), **kwargs)
    if offload:
        pipe.enable_model_cpu_offload(device=where)
    else:
        pipe.to(where)
    return pipe


def quiet_libraries() -> None:
    """Bars are for drawing, not for loading, and what transformers says of optional packages is nobody's concern."""
    from transformers.utils import logging

    from unibrivl.utils.optional import require

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    require("diffusers", "diffusion", "drawing pictures").utils.logging.disable_progress_bar()


def pipeline_class(parts: dict[str, Any], kind: str = "") -> Any:
    """Ours for a base with these components; "AudioToken..." is the one in which sounds are words, too."""
    if kind.startswith("AudioToken"):
        from unibrivl.pipelines import AudioTokenPipeline, AudioTokenXLPipeline

        return AudioTokenXLPipeline if "text_encoder_2" in parts else AudioTokenPipeline
    if "text_encoder_2" in parts:
        from unibrivl.pipelines.pipeline_unibrivl_xl import UniBriVLXLPipeline

        return UniBriVLXLPipeline
    if "image_normalizer" in parts:
        from unibrivl.pipelines.pipeline_unibrivl_unclip import UniBriVLUnCLIPPipeline

        return UniBriVLUnCLIPPipeline
    from unibrivl.pipelines.pipeline_unibrivl import UniBriVLPipeline

    return UniBriVLPipeline


def checked_device(name: str | None) -> Any:
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


# ---- drawing


def draw_all(pipe: Any, jobs: list[Job], args: argparse.Namespace) -> list[tuple[str, str]]:
    from tqdm.auto import tqdm

    from unibrivl.audio.errors import printable

    failures = []
    hidden = args.quiet or None  # None: only where there is no terminal
    with tqdm(jobs, unit=" sounds", disable=hidden, position=0) as bar:
        for job in bar:
            pipe.set_progress_bar_config(desc=printable(job.name)[:24], leave=False, position=1, disable=hidden)
            try:
                best = draw(pipe, job, args, bar)
            except (ValueError, OSError, ImportError) as error:
                name = printable(str(job.path))
                failures.append((name, str(error).removeprefix(f"{name}: ")))
                continue
            if not args.quiet:
                tqdm.write(
                    f"{printable(job.name)} -> {printable(str(best['file']))}  {best['score']:+.3f}  {best['prompt']}"
                )
    return failures


def draw(pipe: Any, job: Job, args: argparse.Namespace, bar: Any) -> dict[str, Any]:
    """All files of one sound, the JSON last: where it is, they are all there."""
    from unibrivl.audio import load_audio
    from unibrivl.cli.contact_sheet import contact_sheet, rows_of
    from unibrivl.pipelines.receipt_unibrivl import save_png

    waveform = load_audio(job.path)
    output = pipe(**call_of(args, job, watch(bar)))
    pictures = []
    for name, image, receipt in zip(names_of(job, output), output.images, output.receipts, strict=True):
        save_png(image, receipt, job.target.with_name(name))
        kept = ("score", "prompt", "seed", "sound", "window_s", "label")
        pictures.append({"file": name, **{key: receipt["picture"][key] for key in kept}})
    times = None
    if args.windows:
        by_sound = {receipt["picture"]["sound"]: receipt["picture"]["window_s"] for receipt in output.receipts}
        times = [by_sound[sound] for sound in sorted(by_sound)]
    sheet = contact_sheet(job.name, about(waveform, args, output), rows_of(waveform, output, times, args.volume))
    sheet_name = f"{job.target.name}.sheet.png"
    save_png(sheet, None, job.target.with_name(sheet_name))
    told = {
        "generated": FORMAT,
        "sound": {
            "name": job.name, "bytes": job.size_bytes, "mtime_ns": job.mtime_ns, "seconds": waveform.duration_s,
            "rate_hz": waveform.rate_hz,
        },
        "settings": settings_of(args),
        "pictures": pictures,
        "sheet": sheet_name,
        "candidates": [
            {"sound": one.sound, "score": one.score, "prompt": one.prompt, "seed": one.seed}
            for one in output.candidates
        ],
        "receipt": {key: value for key, value in output.receipts[0].items() if key not in ("picture", "candidates")},
    }  # fmt: skip
    write_beside(job.target.with_name(f"{job.target.name}.json"), json.dumps(told, indent=1))
    return {**pictures[0], "file": job.target.with_name(pictures[0]["file"])}


def call_of(args: argparse.Namespace, job: Job, callback: Any) -> dict[str, Any]:
    import torch

    width, height = args.size or (None, None)
    given = {
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance_scale,
        "negative_prompt": args.negative_prompt,
        "num_candidates": args.num_candidates,
        "max_rows": args.max_rows,
        "text": args.text,
        "volume": args.volume,
        "strategy": args.strategy,
        "label_bank": args.label_bank,
        "width": width,
        "height": height,
    }
    return {
        **{name: value for name, value in given.items() if value is not None},
        "prompt": args.prompt,
        "audio": job.path,
        "text_weight": args.text_weight,
        "windows": args.windows,
        "num_images_per_prompt": args.pictures,
        "keep_candidates": True,
        "generator": torch.Generator().manual_seed(args.seed),
        "callback_on_step_end": callback,
    }


def watch(bar: Any) -> Any:
    """A callback that says how many candidates are left, and changes nothing."""

    def left(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        bar.set_postfix_str(f"{len(tensors['latents'])} candidates")
        return tensors

    left.only_watches = True  # type: ignore[attr-defined]  # receipts stay replayable
    return left


def names_of(job: Job, output: Any) -> Iterator[str]:
    """dog.png; of windows dog.00.png and so on, of gains dog.-20dB.png; further pictures of each dog.2.png."""
    seen: dict[str, int] = {}
    for receipt in output.receipts:
        about = receipt["picture"]
        middle = ""
        if about["label"] is not None:
            middle = "." + about["label"].replace(" ", "")
        elif about["window_s"] is not None:
            middle = f".{about['sound']:03d}"
        seen[middle] = seen.get(middle, 0) + 1
        yield f"{job.target.name}{middle}{'' if seen[middle] == 1 else f'.{seen[middle]}'}.png"


def about(waveform: Any, args: argparse.Namespace, output: Any) -> str:
    """A line under the title of the sheet."""
    receipt = output.receipts[0]
    base = receipt["base"] or receipt["pipeline"]
    matcher = receipt["models"]["matcher"]["name"]
    steps = receipt["call"].get("num_inference_steps")
    parts = [
        f"{waveform.duration_s:.2f} s at {waveform.rate_hz} Hz",
        *([f'with "{args.text}"'] if args.text else []),
        f"{receipt['strategy']['name']}, {steps} steps, seed {args.seed}",
        *[name.partition("@")[0] for name in dict.fromkeys((base, matcher)) if name],
    ]
    return "   |   ".join(parts)


def write_beside(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
