"""Model cards: text rendered from facts. A number in a card stands in a JSON file, and nobody types it.

    facts of a folder (`hub.facts`)  +  of its family (model_cards/families.json)  +  what the caller adds
        -> front matter, as the Hub reads it, and the sections of model_cards/template.md

The presets have no folder; their facts stand in model_cards/facts/, and their cards are rendered by
`unibrivl card --presets`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from unibrivl.hub.facts import OURS, facts_of, open_saved
from unibrivl.hub.records import LICENCES, RELATIONS, UNKNOWN, RecordError, check_results, check_training
from unibrivl.hub.snippets import example, from_preset, without_package

# class -> the task under which the Hub files it: a key of its own list (huggingface.js, packages/tasks)
TASKS = {
    "SpeechLMForCTC": "automatic-speech-recognition",
    "UniBriVLForAudioClassification": "audio-classification",
    "UniBriVLForAudioCaptioning": "audio-text-to-text",
    "AudioTokenAdapter": "text-to-image",
    "BrewCLIPForSpeechClassification": "audio-classification",
    "BriVLVisionModel": "image-feature-extraction",
    "CAVMAEForAudioClassification": "audio-classification",
    "CAVMAEForAudioVisualClassification": "audio-classification",
    "CLIPModel": "zero-shot-image-classification",
    "SiglipModel": "zero-shot-image-classification",
}
TASK_ENDINGS = {
    "ForCTC": "automatic-speech-recognition",
    "ForSpeechSeq2Seq": "automatic-speech-recognition",
    "ForAudioClassification": "audio-classification",
    "ForImageClassification": "image-classification",
    "Model": "feature-extraction",
    "ForPreTraining": "feature-extraction",
}
HUB_TASKS = {*TASKS.values(), *TASK_ENDINGS.values(), "text-to-image", "image-to-image", "text-to-audio", "any-to-any",
             "image-to-text", "sentence-similarity", "text-generation", "audio-to-audio", "image-text-to-text",
             "voice-activity-detection", "zero-shot-classification", "zero-shot-object-detection"}  # fmt: skip
# the identifiers of licences that models of sound and pictures have; the Hub knows more, and "other" with a name
HUB_LICENCES = {
    *("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "mpl-2.0", "unlicense", "cc"),
    *("gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-2.1", "lgpl-3.0", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0"),
    *("cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
    *("openrail", "openrail++", "creativeml-openrail-m", "bigscience-openrail-m", "llama2", "llama3", "gemma"),
    *("fair-noncommercial-research-license", "unknown", "other"),
}
REASONS = ("unknown", "none")  # how a statement about a licence begins that names no licence
FIELDS = {
    *("base_model", "base_model_relation", "datasets", "language", "library_name", "license", "license_name"),
    *("license_link", "metrics", "model_name", "pipeline_tag", "tags", "eval_results", "licences", "widget"),
    *("inference", "thumbnail", "new_version", "extra_gated_prompt", "extra_gated_fields", "co2_eq_emissions"),
}
OWN_PAPER = "2307.15898"


def render_card(
    folder: str | os.PathLike | None, repo_id: str | None = None, facts: Mapping[str, Any] | None = None
) -> str:
    """The card of a saved model, or of `facts` alone.

    Args:
        folder: as `save_pretrained` wrote it, perhaps with training.json, results.json and conversion.json (see
            `hub.records`); None if `facts` say everything, as those of a preset do.
        repo_id (*optional*): its name on the Hub, under which the example loads it; by default the name of
            the folder.
        facts (*optional*): over what the files say: name, summary, licences, towers, training, results, uses, limits,
            papers. Licences are taken one by one; uses, limits and papers come after those of the family.
    """
    known = facts_of(open_saved(folder)) if folder is not None else {}
    merged = merge(known, facts or {})
    source = repo_id or str(merged["name"])  # never the way to a folder, which is somebody's own
    if repo_id:
        merged["name"] = repo_id.rsplit("/", 1)[-1]
    return _resource("template.md").substitute(sections(merged, source))


def merge(known: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of the family, under those of the files, under those that are added."""
    model_type = added.get("model_type") or known.get("model_type")
    family = json.loads(_text("families.json")).get(model_type, {})
    original = family.pop("original", {})  # what holds of the published weights, and of no others of that shape
    if not (known.get("conversion") or added.get("weights") == "convert"):
        original = {}
    layers = (family, original, known, {key: value for key, value in added.items() if value is not None})
    merged = {key: value for layer in layers for key, value in layer.items()}
    for key in ("uses", "limits", "papers"):
        merged[key] = [line for layer in (family, original, added) for line in layer.get(key) or ()]
    unstated = dict.fromkeys(LICENCES, UNKNOWN)
    merged["licences"] = {**unstated, **(known.get("licences") or {}), **(added.get("licences") or {})}
    strange = merged["licences"].keys() - set(LICENCES)
    if strange:
        raise RecordError(f"licences has {', '.join(sorted(strange))}: it takes {', '.join(LICENCES)}")
    merged["results"] = check_results(merged.get("results") or [], "results")
    training = merged.get("training")
    merged["training"] = check_training(training, "training") if training else None
    towers = merged.get("towers") or (training or {}).get("towers") or {}
    merged["towers"] = check_training({"towers": towers}, "towers")["towers"]
    return merged


def sections(facts: Mapping[str, Any], source: str) -> dict[str, str]:
    """What the template asks for."""
    return {
        "front_matter": front_matter(facts),
        "name": str(facts["name"]),
        "summary": facts.get("summary")
        or f"{facts.get('class') or facts.get('model_type')}, a model of {facts.get('library') or 'transformers'}.",
        "state": _state(facts),
        "use": _use(facts, source),
        "parts": _parts(facts),
        "licences": _table(("what", "licence"), [(name, facts["licences"][name]) for name in LICENCES]),
        "training": _training(facts),
        "results": _results(facts["results"]),
        "uses": _bullets(facts["uses"]) or "Not stated.",
        "limits": _bullets(facts["limits"]) or "Not stated. That nothing stands here does not mean that it has none.",
        "citation": _citation(facts),
    }


def front_matter(facts: Mapping[str, Any]) -> str:
    """The YAML at the head: what the Hub reads. `license` is that of the weights, and is left out if unknown."""
    from huggingface_hub import EvalResult, ModelCardData

    training = facts["training"] or {}
    bases = {row["model"]: row["relation"] for row in facts["towers"].values() if row.get("relation")}
    relations = set(bases.values())
    results = [
        EvalResult(
            task_type=row["task"],
            dataset_type=row.get("dataset_id") or slug(row["dataset"]),
            dataset_name=row["dataset"],
            dataset_split=row.get("split"),
            metric_type=slug(row["metric"]),
            metric_name=f"{row['metric']} ({row['unit']})" if row.get("unit") else row["metric"],
            metric_value=row["value"],
        )
        for row in facts["results"]
    ]
    data = ModelCardData(
        language=facts.get("language"),
        **licence_fields(facts["licences"]["weights"]),
        library_name=str(facts.get("library") or "transformers"),
        pipeline_tag=task(facts),
        tags=tags(facts),
        base_model=list(bases) or None,
        datasets=[row["id"] for row in training.get("data") or () if row.get("id")] or None,
        metrics=sorted({slug(row["metric"]) for row in facts["results"]}) or None,
        model_name=str(facts["name"]) if results else None,
        eval_results=results or None,
        licences=dict(facts["licences"]),
        # the Hub takes one relation for all bases; where they differ it had better find out none
        base_model_relation=relations.pop() if len(relations) == 1 else None,
    )
    return data.to_yaml()


def licence_fields(weights: str) -> dict[str, str]:
    """The Hub's fields for the licence of the weights; none where nobody knows it."""
    if weights.split(":")[0].strip().lower() in REASONS:
        return {}
    if weights.lower() in HUB_LICENCES:
        return {"license": weights.lower()}
    return {"license": "other", "license_name": slug(weights)}


def task(facts: Mapping[str, Any]) -> str | None:
    """None where the class does not tell: better no tag than a wrong widget."""
    named = str(facts.get("class"))
    if named in TASKS:
        return TASKS[named]
    if named.endswith("ForSequenceClassification"):  # of audio encoders, and of language models too
        return "audio-classification" if facts.get("sampling_rate") else None
    if named.endswith("HeadModel"):
        return None
    return next((value for ending, value in TASK_ENDINGS.items() if named.endswith(ending)), None)


def tags(facts: Mapping[str, Any]) -> list[str]:
    found = ["unibrivl"] if facts.get("model_type") in OURS else []
    found += [str(facts["model_type"])] if facts.get("model_type") else []
    found += ["audio"] if facts.get("sampling_rate") else []
    found += ["image"] if facts.get("image_size") else []
    return [*found, "custom_code"] if facts.get("auto_map") else found


def slug(words: str) -> str:
    return "-".join("".join(letter if letter.isalnum() or letter in "._" else " " for letter in words.lower()).split())


def _state(facts: Mapping[str, Any]) -> str:
    if facts.get("weights") == "none":
        return "**No weights of this shape exist.** With random ones, what it returns has no meaning."
    if facts.get("weights") == "convert":
        return "**No weights are distributed here.** Whoever has the original file makes a folder of it, as below."
    if facts["training"]:
        return "Its weights were trained; how, stands below."
    if facts.get("conversion"):
        return "Its weights are those of an original checkpoint, converted."
    return (
        "Nothing beside the model says how its weights came to be (no training.json, no conversion.json): ask its "
        "owner before you rely on them."
    )


def _use(facts: Mapping[str, Any], source: str) -> str:
    blocks = []
    if facts.get("build"):
        blocks += ["The shape, with random weights:", _fenced("python", from_preset(facts))]
        if facts.get("convert"):
            blocks += ["With the original's weights:", _fenced("", facts["convert"])]
            blocks.append(_fenced("python", example(facts, source)))
        return "\n\n".join(blocks)
    blocks.append(_fenced("python", example(facts, source)))
    bare = without_package(facts, source)
    if bare is not None:
        words = "Where this package is not installed, transformers runs the code that lies beside the weights:"
        blocks += [words, _fenced("python", bare)]
    return "\n\n".join(blocks)


def _parts(facts: Mapping[str, Any]) -> str:
    rows = [
        (
            part["name"],
            part.get("model_type") or "",
            f"{part['parameters']:,}",
            ", ".join(part.get("dtypes") or ()) or "",
        )
        for part in facts.get("parts") or ()
    ]
    total = sum(part["parameters"] for part in facts.get("parts") or ())
    blocks = [_table(("part", "kind", "parameters", "stored as"), [*rows, ("all", "", f"{total:,}", "")])]
    facing = [f"hears {facts['sampling_rate']} Hz"] if facts.get("sampling_rate") else []
    size = facts.get("image_size")
    facing += [f"sees pictures of {size[0]} x {size[1]} pixels"] if size else []
    facing += [f"gives vectors of {facts['width']} numbers"] if facts.get("width") else []
    if facing:
        blocks.append("It " + ", ".join(facing) + ".")
    origins = dict(facts["towers"])
    for part in facts.get("parts") or ():
        recorded = (part.get("weights") or {}).get("recorded")
        if recorded:
            origins.setdefault(part["name"].split()[0], {"model": f"{recorded} (as config.json recorded it)"})
    if origins:
        blocks.append("Where the weights come from:")
        blocks.append(_bullets(_origin(name, row) for name, row in origins.items()))
    return "\n\n".join(blocks)


def _origin(name: str, row: Mapping[str, str]) -> str:
    said = [row.get("model", "not stated")]
    said += [f"revision {row['revision']}"] if row.get("revision") else []
    said += [row["address"]] if row.get("address") else []
    said += [row["state"]] if row.get("state") else []
    said.append(f"licence: {row.get('licence') or UNKNOWN}")
    said += [f"SHA-256 `{row['sha256']}`"] if row.get("sha256") else []
    return f"{name}: " + "; ".join(said)


def _training(facts: Mapping[str, Any]) -> str:
    blocks, training, conversion = [], facts["training"], facts.get("conversion")
    if conversion:
        blocks.append(_converted(conversion))
    if not training:
        stated = "A preset is a shape: nothing was trained." if facts.get("build") else "No training.json states it."
        return "\n\n".join([*blocks, stated])
    order = ("command", "commit", "seed", "steps", "epochs", "hours", "machine")
    rows = [(key, training[key]) for key in order if key in training]
    rows += sorted((training.get("settings") or {}).items())
    if rows:
        blocks.append(_table(("fact", "value"), rows))
    if training.get("data"):
        cells = [
            (row["name"], row.get("address") or row.get("id") or "", row.get("licence") or UNKNOWN, _count(row))
            for row in training["data"]
        ]
        blocks.append(_table(("data", "where", "licence", "found / expected"), cells))
    return "\n\n".join(blocks) or "Trained; its training.json states nothing more."


def _converted(conversion: Mapping[str, Any]) -> str:
    said = (
        f"Converted from `{conversion['source']}` (SHA-256 `{conversion['source_sha256']}`): "
        f"{conversion['converted_keys']} tensors taken, {len(conversion.get('dropped_keys') or ())} dropped."
    )
    compared = conversion.get("differences") or []
    if not compared:
        return f"{said} Its distance from the original was not measured."
    worst = max(row["max_abs"] for row in compared)
    failed = sum(not row["passed"] for row in compared)
    return f"{said} Against the original's outputs: {len(compared)} tensors, worst {worst:.2e}, {failed} failed."


def _results(results: list[dict[str, Any]]) -> str:
    if not results:
        return "None measured yet."
    cells = [
        (
            row["dataset"],
            row.get("split") or "",
            row["metric"],
            f"{row['value']}{' ' + row['unit'] if row.get('unit') else ''}",
            _count(row),
            f"`{row['command']}`",
            row["commit"],
        )
        for row in results
    ]
    return _table(("data", "split", "metric", "value", "found / expected", "command", "commit"), cells)


def _count(row: Mapping[str, Any]) -> str:
    return f"{row['found']} / {row.get('expected', '?')}" if "found" in row else ""


def _citation(facts: Mapping[str, Any]) -> str:
    blocks = [_bullets(f"[{paper['title']}]({paper['address']})" for paper in facts["papers"])]
    if facts.get("model_type") in OURS:
        entries = _text("citation.bib").split("\n\n")
        blocks += [_fenced("bibtex", entry.strip()) for entry in entries if OWN_PAPER in entry]
    return "\n\n".join(block for block in blocks if block) or "Cite the model's own paper."


def bibtex(citation: Mapping[str, Any]) -> str:
    """The papers of CITATION.cff as BibTeX, one entry for each reference."""
    entries = []
    for paper in citation["references"]:
        number = paper["url"].rsplit("/", 1)[-1]
        authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
        key = slug(paper["authors"][0]["family-names"]) + str(paper["year"]) + slug(paper["title"].split(":")[0])
        fields = {"title": f"{{{paper['title']}}}", "author": authors, "journal": paper["journal"],
                  "year": str(paper["year"]), "url": paper["url"], "eprint": number}  # fmt: skip
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
        entries.append("\n".join([f"@article{{{key},", *lines, "}"]))
    return "\n\n".join(entries) + "\n"


def preset_names() -> list[str]:
    folder = files("unibrivl.model_cards") / "facts"
    return sorted(path.name.removesuffix(".json") for path in folder.iterdir() if path.name.endswith(".json"))


def preset_card(name: str) -> str:
    """The card of a preset, from model_cards/facts/."""
    return render_card(None, facts=json.loads(_text("facts", f"{name}.json")))


def write_presets(checkout: Path) -> list[Path]:
    """Renders the cards of all presets into `checkout`/model_cards, and the citation; the files that changed."""
    import yaml

    folder = checkout / "model_cards"
    citation = checkout / "CITATION.cff"
    if not citation.is_file() or not (folder / "template.md").is_file():
        raise ValueError(f"{checkout} is no checkout of unibrivl: run this where CITATION.cff and model_cards/ stand")
    bib = bibtex(yaml.safe_load(citation.read_text(encoding="utf-8")))
    changed = _write_if_new(folder / "citation.bib", bib)
    for name in preset_names():
        changed += _write_if_new(folder / f"{name}.md", preset_card(name))
    return changed


def _write_if_new(path: Path, text: str) -> list[Path]:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return []
    path.write_text(text, encoding="utf-8")
    return [path]


def check_card(text: str) -> list[str]:
    """What is wrong with a card, one line each; nothing if the Hub and a reader can rely on its head."""
    from huggingface_hub import ModelCard

    if not text.startswith("---\n"):
        return ["the card has no front matter: begin with a block of YAML between two lines of ---"]
    try:
        data = ModelCard(text).data
    except Exception as error:  # YAML's own classes of errors, and what ModelCardData makes of odd values
        return [f"the front matter cannot be read: {str(error).splitlines()[0]}"]
    return [*_field_problems(data), *_licence_problems(data), *_base_problems(data)]


def _field_problems(data) -> list[str]:
    problems = [f"unknown field {key!r}: leave it out" for key in data.to_dict().keys() - FIELDS - {"model-index"}]
    if data.pipeline_tag is not None and data.pipeline_tag not in HUB_TASKS:
        problems.append(f"pipeline_tag {data.pipeline_tag!r} is no task of the Hub that models like these have")
    if data.library_name is None:
        problems.append("library_name is missing: transformers, or diffusers")
    if not isinstance(data.tags, (list, type(None))) or not all(isinstance(tag, str) for tag in data.tags or ()):
        problems.append("tags must be a list of words")
    for result in data.eval_results or ():
        if isinstance(result.metric_value, bool) or not isinstance(result.metric_value, (int, float)):
            problems.append(f"{result.dataset_name}: the value {result.metric_value!r} is no number")
    return sorted(problems)


def _licence_problems(data) -> list[str]:
    three = data.get("licences")
    if three is not None and (not isinstance(three, dict) or three.keys() != set(LICENCES)):
        return [f"licences must have {', '.join(LICENCES)}"]
    if data.license is None:
        said = str((three or {}).get("weights", ""))
        if said.split(":")[0].strip().lower() in REASONS:
            return []
        return [
            "no licence of the weights is named, nor why there is none: license, or licences: weights: unknown: ..."
        ]
    if data.license not in HUB_LICENCES:
        return [f"license {data.license!r} is no identifier of the Hub: use other, and license_name"]
    if data.license == "other" and not data.license_name:
        return ["license: other needs a license_name"]
    return []


def _base_problems(data) -> list[str]:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    problems = []
    for name in [data.base_model] if isinstance(data.base_model, str) else data.base_model or ():
        try:
            validate_repo_id(name)
        except HFValidationError:
            problems.append(f"base_model {name!r} is no name on the Hub (org/name)")
    relation = data.get("base_model_relation")
    if relation is not None and relation not in RELATIONS:
        problems.append(f"base_model_relation {relation!r} is none of {', '.join(RELATIONS)}")
    return problems


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table without the columns in which nothing stands."""
    head, cells = list(head), [[_cell(value) for value in row] for row in rows]
    kept = [column for column in range(len(head)) if any(row[column] for row in cells)]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line[column] for column in kept) + " |" for line in lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _fenced(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"


def _text(*parts: str) -> str:
    return files("unibrivl.model_cards").joinpath(*parts).read_text(encoding="utf-8")


def _resource(name: str) -> Template:
    return Template(_text(name))


__all__ = ["bibtex", "check_card", "preset_card", "preset_names", "render_card", "write_presets"]
