"""Reading a checkout for `layout_rules.py`: its Python files, what they import and what they call."""

from __future__ import annotations

import ast
import io
import os
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """One Python file of a checkout: its text, its tree, and its place in the namespace."""

    root: Path
    path: Path

    @cached_property
    def name(self) -> str:
        return self.path.relative_to(self.root).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.name)

    @cached_property
    def module(self) -> str:
        """Dotted name in the namespace: `modeling/x.py` is `unibrivl.modeling.x`."""
        parts = self.name.removesuffix(".py").split("/")
        parts = parts[1:] if parts[0] == "src" else ["unibrivl", *parts]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def folder(self) -> str:
        """The part below `unibrivl`: a folder, a single file such as `embedder`, or "" for `unibrivl/__init__.py`."""
        return (self.module.split(".") + [""])[1]

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @cached_property
    def comments(self) -> dict[int, str]:
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}

    def at(self, node: ast.AST | int, why: str) -> str:
        return f"{self.name}:{node if isinstance(node, int) else node.lineno}: {why}"


@dataclass(frozen=True)
class Import:
    """One imported name: `from .x import y` is module `.x` resolved, name `y`, level 1; `import x` has name None."""

    line: int
    module: str
    name: str | None
    level: int
    written: str | None  # the module as written, without dots: None for `from . import x`
    in_function: bool
    type_checking: bool

    def names(self, module: str) -> bool:
        """Whether this imports `module` itself or something from it."""
        return module in (self.module, f"{self.module}.{self.name}")


def files_below(root: Path, folders: Iterable[str]) -> Iterator[Path]:
    for folder in folders:
        for where, folders_here, files in os.walk(root / folder):  # does not follow the symlinks of src/unibrivl
            folders_here[:] = sorted(f for f in folders_here if f != "__pycache__" and not f.endswith(".egg-info"))
            yield from (Path(where) / name for name in sorted(files))


def sources(root: Path, *folders: str) -> list[Source]:
    return [Source(root, path) for path in files_below(root, folders) if path.suffix == ".py"]


def imports(source: Source) -> list[Import]:
    """Every import of a file, inside functions too; `import_module("x")` and `require("x", ...)` count as imports."""
    found: list[Import] = []
    package = source.module.split(".") if source.is_package else source.module.split(".")[:-1]

    def visit(node: ast.AST, in_function: bool, checking: bool) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.append(Import(node.lineno, alias.name, None, 0, alias.name, in_function, checking))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                found.append(Import(node.lineno, module, alias.name, node.level, node.module, in_function, checking))
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "require", "__import__"}:
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.append(Import(node.lineno, first.value, None, 0, first.value, in_function, checking))
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                visit(child, in_function, True)
            for child in node.orelse:
                visit(child, in_function, checking)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, in_function or is_function, checking)

    visit(source.tree, False, False)
    return found


def called(call: ast.Call) -> str:
    """Last part of what is called: `f(...)` and `a.b.f(...)` give `f`."""
    return ast.unparse(call.func).rsplit(".", 1)[-1]


def calls(source: Source) -> Iterator[ast.Call]:
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.Call))
