"""The model card of a pipeline's folder: its components, and how to hear with it. What nobody knows is not said."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from unibrivl.hub.flat_pipeline import ENTRY, PIPELINES, class_of, is_repository

CARD = Template("""---
library_name: diffusers
pipeline_tag: text-to-image
${base}tags:
${tags}
licences:
  code: apache-2.0
  weights: "unknown: whoever pushed this has not said. Those of the base and of the matcher hold"
  data: "unknown: see the cards of the base and of the matcher"
---

# $title

$about

```python
$example
```
$without
## Components

| component | class |
| --- | --- |
$rows
""")


def pipeline_card(fields: Mapping[str, Any], repo_id: str) -> str:
    """
    Args:
        fields: of `model_index.json`.
        repo_id: under which the example loads it.
    """
    name = class_of(fields)
    ours = name in PIPELINES
    hears = isinstance(fields.get("matcher"), list) and fields["matcher"][0] is not None
    about = f"A pipeline of diffusers, `{name}`."
    if ours:
        about = (
            f"A sound steers a diffusion model: `{name}` of the package unibrivl draws several "
            "pictures, and the matcher finds those that fit the sound best."
        )
    lines = [f"from {'unibrivl' if ours else 'diffusers'} import {name}", ""]
    lines.append(f'pipe = {name}.from_pretrained("{repo_id}"{"" if hears or not ours else ", matcher=MATCHER"})')
    lines.append('picture = pipe(audio="dog.wav").images[0]' if ours else 'picture = pipe("a dog").images[0]')
    without = ""
    if isinstance(fields.get("_class_name"), list) and fields["_class_name"][0] == ENTRY:
        without = (
            "\nWithout that package, with the code that lies beside; sounds are arrays then:\n\n"
            "```python\nfrom diffusers import DiffusionPipeline\n\n"
            f'pipe = DiffusionPipeline.from_pretrained("{repo_id}", trust_remote_code=True)\n```\n'
        )
    rows = [
        f"| {part} | {entry[1]} |"
        for part, entry in sorted(fields.items())
        if isinstance(entry, list) and len(entry) == 2 and entry[1] and part != "_class_name"
    ]
    base = fields.get("_name_or_path")
    tags = ["unibrivl", "audio", "sound-to-image"] if ours else ["diffusers"]
    return CARD.substitute(
        base=f"base_model: {base}\n" if is_repository(base) else "",
        tags="\n".join(f"- {tag}" for tag in tags),
        title=repo_id.rpartition("/")[2],
        about=about,
        example="\n".join(lines),
        without=without,
        rows="\n".join(rows),
    )


__all__ = ["pipeline_card"]
