"""A reader without our package: loads flat copies by the Auto classes and compares what they give, bit for bit.

`test_hub_flat.py` runs this file as a program in a folder of its own, with a job: a folder that holds `job.json`,
`given.safetensors` and `expected.safetensors`. Its functions serve the test too, which makes the job.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import json
import os
import shutil
import sys
import traceback
from pathlib import Path

COMMIT = "0123456789abcdef" * 2 + "01234567"


class Refusal(importlib.abc.MetaPathFinder):
    """Answers for our package before anybody else does: it is not there."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "unibrivl":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def forget_the_package(checkout: str) -> None:
    """Takes our package off every path it is found by, and refuses it on top."""
    places = [os.path.abspath(place) for place in sys.path if place]
    # an environment may lie in the checkout, and torch is in there
    sys.path[:] = [place for place in places if not place.startswith(checkout) or "site-packages" in place]
    sys.meta_path[:] = [
        finder for finder in sys.meta_path if "__editable__" not in str(getattr(finder, "__module__", ""))
    ]
    assert importlib.util.find_spec("unibrivl") is None, "our package can still be found"
    sys.meta_path.insert(0, Refusal())
    try:
        import unibrivl  # noqa: F401
    except ImportError:
        return
    raise AssertionError("our package can still be imported")


def install(folder: Path, name: str, cache: Path) -> str:
    """Puts a folder into the Hub's cache, as a download of the repository `name` would."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    return name


def tensors(output, prefix: str = "") -> dict:
    """Every tensor of an output, however deep, under a name."""
    import torch

    if isinstance(output, torch.Tensor):
        return {prefix: output.detach().clone().contiguous()}
    if hasattr(output, "items"):
        parts = list(output.items())
    elif isinstance(output, (list, tuple)):
        parts = list(enumerate(output))
    else:
        return {}
    found = {}
    for key, value in parts:
        found |= tensors(value, f"{prefix}/{key}")
    return found


def run(model, method: str, given: dict, settings: dict) -> dict:
    import torch

    with torch.no_grad():
        return tensors(getattr(model, method)(**given, **settings), method)


def prepare(preparer, given: dict, texts: list[str], kind: str) -> dict:
    """What a processor, extractor or tokenizer makes of sounds, pictures and texts (all, or its kind)."""
    clips = [given[name].numpy() for name in ("long", "short")]
    pictures = [given[name].numpy() for name in ("wide", "high")]
    if kind == "AutoProcessor":
        parts = {"audio": clips, "images": pictures, "text": texts}
        holders = {"audio": "feature_extractor", "images": "image_processor", "text": "tokenizer"}
        has = {name for name, holder in holders.items() if getattr(preparer, holder, None) is not None}
        has |= {"text"} if preparer.unit_tokenizer is not None else set()
        batch = preparer(**{name: parts[name] for name in has}, sampling_rate=16000)
    elif kind == "AutoTokenizer":
        batch = preparer(texts, padding=True, return_tensors="pt")
    elif kind == "AutoImageProcessor":
        batch = preparer(pictures, return_tensors="pt")
    else:
        batch = preparer(clips, sampling_rate=16000, return_tensors="pt")
    return tensors(dict(batch), "batch")


def results(loaded, kind: str, case: dict, given: dict) -> dict:
    if kind not in case["outputs"]:
        return {}
    if kind.startswith("AutoModel"):
        found = {}
        for number, call in enumerate(case["calls"]):
            own = {name: given[f"{case['name']}/{number}/{name}"] for name in call["given"]}
            found |= {
                f"{number}/{key}": value for key, value in run(loaded, call["method"], own, call["settings"]).items()
            }
        return found
    return prepare(loaded, {name: given[name] for name in ("long", "short", "wide", "high")}, case["texts"], kind)


def keys_of(case: dict, kind: str, found: dict) -> dict:
    return {f"{case['name']}|{kind}|{key}": value for key, value in found.items()}


def load(kind: str, source: str, **kwargs):
    import transformers
    from transformers.models.auto.image_processing_auto import AutoImageProcessor  # 5.4 exports a substitute

    auto = AutoImageProcessor if kind == "AutoImageProcessor" else getattr(transformers, kind)
    return auto.from_pretrained(source, **kwargs)


def check(case: dict, kind: str, source: str, given: dict, expected: dict):
    """Loads one thing with trust, compares it, and returns it."""
    import torch

    loaded = load(kind, source, trust_remote_code=True)
    assert type(loaded).__name__ == case["classes"][kind], type(loaded).__name__
    assert type(loaded).__module__.startswith("transformers_modules."), type(loaded).__module__
    found = keys_of(case, kind, results(loaded, kind, case, given))
    wanted = {key: value for key, value in expected.items() if key.startswith(f"{case['name']}|{kind}|")}
    assert found.keys() == wanted.keys(), (sorted(found), sorted(wanted))
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), f"{key} differs"
    return loaded


def check_untrusted(case: dict, source: str) -> None:
    """Without trust it is transformers' own refusal, for everything in the folder."""
    for kind in case["classes"]:
        for kwargs in ({}, {"trust_remote_code": False}):
            try:
                load(kind, source, **kwargs)
            except ValueError as error:
                assert "trust_remote_code" in str(error), error
            else:
                raise AssertionError(f"{kind} ran the code of {source} unasked")


def check_all(job: dict, root: Path, cache: Path) -> list[str]:
    from safetensors.torch import load_file
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    given, expected = load_file(root / "given.safetensors"), load_file(root / "expected.safetensors")
    failures = []
    for case in job["cases"]:
        folder, again = case["folder"], root / "again" / case["folder"]
        try:
            for number, place in enumerate((root / folder, again)):
                sources = [install(place, f"{('there', 'again')[number]}/{folder}", cache)]
                sources += [str(place)] if case["local"] else []
                if case["untrusted"] and place != again:
                    check_untrusted(case, sources[0])
                for kind in case["classes"] if place != again else case["outputs"]:
                    loaded = [check(case, kind, source, given, expected) for source in sources]
                    if kind in case["outputs"] and place != again:
                        loaded[-1].save_pretrained(again)
        except Exception:
            failures.append(f"{case['folder']}: {traceback.format_exc()}")
    ours = {"brivl", "brivl_text", "brivl_vision", "mel_encoder", "speechlm", "unibrivl"}
    if taught := sorted(ours & set(CONFIG_MAPPING.keys())):
        failures.append(f"loading taught AutoConfig {taught}: the next repository of ours would run this one's code")
    return failures


def check_versions(job: dict, root: Path, cache: Path) -> list[str]:
    """Repositories whose code differs, in turn: each runs its own, though their folders share a name."""
    found = []
    for place in ("hub", "local") if job["local"] else ("hub",):
        for folder, version in [*job["versions"], job["versions"][0]]:
            source = str(root / folder)
            if place == "hub":
                source = f"there/{Path(folder).parent.name}"
                if not (cache / f"models--{source.replace('/', '--')}").exists():
                    install(root / folder, source, cache)
            model = load("AutoModel", source, trust_remote_code=True)
            beside = type(model).__module__.rpartition(".")[0]
            ran = (model.config.format_version, importlib.import_module(f"{beside}.format_unibrivl").FORMAT_VERSION)
            if ran != (version, version):
                found.append(f"{place}: {folder} has version {version} and ran {ran}")
    return found


def main(root: Path) -> None:
    job = json.loads((root / "job.json").read_text())
    forget_the_package(job["checkout"])
    import torch

    torch.set_num_threads(job["threads"])
    cache = Path(os.environ["HF_HUB_CACHE"])
    failures = check_all(job, root, cache) + check_versions(job, root, cache)
    (root / "failures.json").write_text(json.dumps(failures))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
