"""What a run writes down: metrics.jsonl, timings.jsonl, events for TensorBoard, and curves.png at the end.

metrics.jsonl holds nothing that depends on the clock, so that of a run that was killed and resumed equals that of one
that went through. What does depend on it (speed, memory) goes to timings.jsonl.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unibrivl.utils import require


class Journal:
    """
    Args:
        folder: the run's; made if it is not there.
        step (`int`): of the checkpoint the run goes on from. Rows of later steps are cut off: they come again.
        tensorboard (`bool`): write events too.
    """

    def __init__(self, folder: Path, step: int = 0, tensorboard: bool = False):
        self.folder = folder
        self.metrics, self.timings = folder / "metrics.jsonl", folder / "timings.jsonl"
        self.writer = None
        if tensorboard:
            require("tensorboard", "train", "writing events for TensorBoard")
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        for path in (self.metrics, self.timings):
            rows = [row for row in read_rows(path) if row["step"] <= step] if step else []
            replace_text(path, "".join(map(line, rows)))

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """A row of `kind` "train" or "eval"."""
        append(self.metrics, {"step": step, kind: dict(values)})
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"{kind}/{name}", value, step)

    def clock(self, step: int, values: Mapping[str, float]) -> None:
        append(self.timings, {"step": step, **values})

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        curves(read_rows(self.metrics), self.folder / "curves.png")


def line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"


def append(path: Path, row: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line(row))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; a last line that was cut short is left out."""
    if not path.exists():
        return []
    rows = []
    for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not text.endswith("\n"):
            break
        rows.append(json.loads(text))
    return rows


def replace_text(path: Path, text: str) -> None:
    """Write a file at once or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


class Window:
    """Sums of numbers since the last row, on their device: nothing waits for it before the row is written."""

    def __init__(self):
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, value: torch.Tensor) -> None:
        value = value.detach().double()
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, torch.Tensor]:
        """The averages, and a new start."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


# ---- curves ---------------------------------------------------------------------------------------------------------

PAPER, INK, GRID = (250, 250, 248), (60, 60, 60), (222, 222, 216)
COLOURS = ((30, 60, 110), (187, 55, 84), (249, 142, 9), (40, 130, 90), (84, 15, 109), (90, 90, 90))
PANEL_WIDTH, PANEL_HEIGHT, LEFT, MARGIN = 560, 220, 64, 30


def curves(rows: list[dict[str, Any]], path: Path) -> None:
    """One panel for the loss and its terms, one for each other number, drawn with Pillow alone."""
    from PIL import Image, ImageDraw

    panels = panels_of(rows)
    if not panels:
        return
    page = Image.new("RGB", (2 * PANEL_WIDTH, -(-len(panels) // 2) * PANEL_HEIGHT), PAPER)
    pen = ImageDraw.Draw(page)
    for number, (title, series) in enumerate(panels.items()):
        draw_panel(pen, number % 2 * PANEL_WIDTH, number // 2 * PANEL_HEIGHT, title, series)
    partial = path.with_name(f"{path.name}.partial")
    page.save(partial, format="PNG")
    os.replace(partial, path)


Series = dict[str, list[tuple[float, float]]]


def panels_of(rows: list[dict[str, Any]]) -> dict[str, Series]:
    """Title -> name -> points (step, value); numbers that are not finite are left out."""
    panels: dict[str, Series] = {}
    for row in rows:
        for kind in ("train", "eval"):
            for name, value in row.get(kind, {}).items():
                is_term = kind == "train" and name not in ("learning_rate", "gradient_norm")
                title = "loss" if is_term else name if kind == "train" else f"{kind} {name}"
                if abs(value) < float("inf"):
                    panels.setdefault(title, {}).setdefault(name, []).append((row["step"], value))
    return panels


def draw_panel(pen: Any, x: int, y: int, title: str, series: Series) -> None:
    points = [point for line_ in series.values() for point in line_]
    last = max(step for step, _ in points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    span = (high - low) or abs(high) or 1.0
    left, right, top, bottom = x + LEFT, x + PANEL_WIDTH - MARGIN // 2, y + MARGIN, y + PANEL_HEIGHT - MARGIN
    for part in range(5):
        level = bottom - part * (bottom - top) / 4
        pen.line([(left, level), (right, level)], fill=GRID)
        pen.text((left - 6, level), f"{low + part * span / 4:.3g}", fill=INK, anchor="rm")
    pen.text((left, bottom + 6), "0", fill=INK, anchor="mt")
    pen.text((right, bottom + 6), f"step {last}", fill=INK, anchor="rt")
    pen.text((left, y + 10), title, fill=INK)
    for number, (name, line_) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [
            (left + step / last * (right - left), bottom - (value - low) / span * (bottom - top))
            for step, value in line_
        ]
        if len(places) > 1:
            pen.line(places, fill=colour, width=2)
        for place in places if len(places) < 3 else ():
            pen.ellipse([(place[0] - 2, place[1] - 2), (place[0] + 2, place[1] + 2)], fill=colour)
        if len(series) > 1:
            pen.text((right, y + 8 + 11 * number), name, fill=colour, anchor="rt")
