"""`unibrivl card DIR`: print the model card of a saved model. `--presets` renders those of this repository anew.

For a preset the sizes are taken from the model itself, built without memory for its weights, and written into its
facts first: nobody types them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "What no file beside the model states, licences above all, can be given as JSON with --facts."
    parser.add_argument("folder", nargs="?", type=Path, help="a folder that save_pretrained wrote")
    parser.add_argument("--repo", metavar="ORG/NAME", help="the model's name on the Hub, for the code example")
    parser.add_argument("--facts", type=Path, metavar="FILE", help="JSON of what is to stand in the card besides")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there, and not to the terminal")
    parser.add_argument("--presets", action="store_true", help="in a checkout: render model_cards/ anew")


def run(args: argparse.Namespace) -> int:
    from unibrivl.hub.card import check_card, render_card
    from unibrivl.hub.records import read_json

    if args.presets:
        return render_presets(Path.cwd())
    if args.folder is None:
        raise ValueError("name the folder of a model, or pass --presets in a checkout")
    text = render_card(args.folder, args.repo, read_json(args.facts) if args.facts else None)
    if args.out is None:
        print(text, end="")
    else:
        args.out.write_text(text, encoding="utf-8")
        print(f"card of {args.folder} -> {args.out}", file=sys.stderr)
    for problem in check_card(text):
        print(f"unibrivl card: {problem}", file=sys.stderr)
    return 0


def render_presets(checkout: Path) -> int:
    from unibrivl.hub.card import write_presets

    folder = checkout / "model_cards" / "facts"
    for path in sorted(folder.glob("*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        text = json.dumps({**facts, "parts": measured_parts(facts)}, indent=1) + "\n"
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
            print(f"measured {path.relative_to(checkout)}")
    changed = write_presets(checkout)
    for path in changed:
        print(f"rendered {path.relative_to(checkout)}")
    if not changed:
        print("every card is as its facts say")
    return 0


def preset_model(facts: dict):
    """The model of a preset, with shapes and without weights."""
    import torch

    from unibrivl import modeling

    build = facts["build"]
    fields = getattr(modeling, build["presets"])[build["preset"]] if "preset" in build else {}
    config = getattr(modeling, build["config"])(**({build["field"]: fields} if "field" in build else fields))
    with torch.device("meta"):
        return getattr(modeling, facts["class"])(config)


def measured_parts(facts: dict) -> list[dict]:
    """Parts and their sizes, as they would stand in the safetensors file: what is tied counts once."""
    from unibrivl.hub.facts import Header, parts_of

    model = preset_model(facts)
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    headers = {name: Header("F32", tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    parts = parts_of(model.config.to_dict(), {name: header for name, header in headers.items() if name not in tied})
    return [{key: part[key] for key in ("name", "model_type", "parameters")} for part in parts]
