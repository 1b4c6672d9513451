"""The project's conventions as functions: each takes a checkout and returns what breaks it, as "file:line: why".

`test_layout.py` runs every function of `RULES` on this checkout and on small trees with one planted violation each.
Folders that do not exist yet are simply empty. The picture behind the layers is in `docs/architecture.md`.
"""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from layout_sources import Import, Source, called, calls, files_below, imports, sources

# folder of the namespace -> layer. A file may import its own folder and lower layers; folders of one layer are
# siblings and do not import each other.
LAYERS = {
    "utils": 0,
    "model_cards": 0,
    "embedded": 0,
    "audio": 1,
    "vision": 1,
    "metrics": 1,
    "hub": 2,
    "data": 2,
    "modeling": 3,
    "training": 4,
    "pipelines": 4,
    "search": 5,
    "evaluation": 5,
    "convert": 5,
    "embedder": 5,
    "app": 6,
    "cli": 7,
}
NAMESPACE = ("src/unibrivl", "modeling", "model_cards", "pipelines", "training")  # what is installed as `unibrivl`
PYTHON = (*NAMESPACE, "tests", "benchmarks", "examples", ".ci")
HUB_ALLOWED = {
    "modeling": {"torch", "numpy", "transformers", "huggingface_hub", "safetensors"},  # the last comes with the third
    "pipelines": {"torch", "numpy", "transformers", "huggingface_hub", "diffusers", "PIL"},
}
LINE_BUDGET, LINE_WISH = 600, 500
TEXT = {".py", ".md", ".cfg", ".toml", ".yml", ".yaml", ".txt", ".cff", ""}  # "": Makefile, LICENSE, .ci/run
PRIVATE_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|work|mnt|scratch|opt)/\w")

# The works a constant may come from: the papers, their original codes, and the libraries whose defaults we take over.
WORKS = (
    *(
        "UniBriVL",
        "BriVL",
        "SpeechLM",
        "SpeechT5",
        "AAI",
        "CAV-MAE",
        "CAVT-MAE",
        "AudioToken",
        "ALBEF",
        "MoCo",
        "BrewCLIP",
        "SpeechCLIP",
        "CLIP",
        "Wav2CLIP",
    ),
    *(
        "HuBERT",
        "wav2vec",
        "WavLM",
        "Whisper",
        "BEATs",
        "AST",
        "MAE",
        "EfficientNet",
        "BERT",
        "PE-AV",
        "SigLIP",
        "LoRA",
    ),
    *("fairseq", "timm", "Kaldi", "transformers", "diffusers", "peft", "accelerate", "torch", "PyTorch"),
)
SOURCE = re.compile(r"OURS: \S|\bpaper\b|\b(?:" + "|".join(map(re.escape, WORKS)) + r")\b")
CHOSEN = {
    *("prob", "weight", "temp", "temperature", "momentum", "alpha", "beta", "tau"),
    *("margin", "decay", "dropout", "layerdrop"),
}
NEUTRAL = {0.0, 0.5, 1.0, 2.0}  # numbers of arithmetic, not of a paper


def text_files(root: Path) -> list[Path]:
    folders = (*PYTHON, "docs", ".github", "model_cards")
    top = sorted(path for path in root.iterdir() if path.is_file())
    return [
        path
        for path in [*top, *files_below(root, folders)]
        if path.suffix in TEXT and not path.is_symlink() and "golden" not in path.relative_to(root).parts
    ]


def imports_go_down(root: Path) -> list[str]:
    """A file imports its own folder and lower layers only; `unibrivl/__init__.py` imports nothing when it runs."""
    problems = []
    for source in sources(root, *NAMESPACE):
        if source.folder not in {"", "__main__", *LAYERS}:
            problems.append(
                source.at(1, f"{source.folder} has no layer yet: add it to LAYERS in {Path(__file__).name}")
            )
            continue
        for imported in imports(source):
            if not imported.level and imported.module.split(".")[0] in NAMESPACE:
                problems.append(
                    source.at(imported.line, "a bare import makes a second copy: write unibrivl. before it")
                )
            if imported.module.split(".")[0] != "unibrivl":
                continue
            parts = imported.module.split(".")
            target = parts[1] if len(parts) > 1 else imported.name
            if target == "__version__" or source.folder == "__main__":
                continue
            if source.folder == "":
                if not imported.type_checking:
                    problems.append(
                        source.at(imported.line, "`import unibrivl` must load nothing: use the lazy table")
                    )
            elif target not in LAYERS:
                problems.append(source.at(imported.line, f"import {target} from the module that defines it"))
            elif source.folder == "modeling" and target != "modeling":
                problems.append(source.at(imported.line, f"modeling imports nothing of ours, and this is {target}"))
            elif target != source.folder and LAYERS[target] >= LAYERS[source.folder]:
                problems.append(
                    source.at(
                        imported.line,
                        f"{source.folder} (layer {LAYERS[source.folder]}) must not import {target} "
                        f"(layer {LAYERS[target]}): imports go down",
                    )
                )
    return problems


def hub_portable(root: Path) -> list[str]:
    """`modeling/` and `pipelines/` survive the flat copy that save_pretrained makes: see docs/architecture.md.

    Flat folders, `from .x import y` only, third parties of a short list, no imports of ours under TYPE_CHECKING, file
    names that stay unique when several repositories share one folder. `__init__.py` never leaves the building. One
    exception: inside a function, a pipeline may import what is below it in the installed package.
    """
    problems, stems = [], dict[str, str]()
    for folder, allowed in HUB_ALLOWED.items():
        own = {path.stem for path in (root / folder).glob("*.py")}
        for source in sources(root, folder):
            if source.path.parent != root / folder:
                problems.append(source.at(1, f"{folder}/ is flat: the Hub copy has no subfolders"))
            if source.is_package:
                continue
            stem = source.path.stem
            if stem in stems:
                problems.append(source.at(1, f"the stem {stem} is taken by {stems[stem]}"))
            if "_" not in stem:
                problems.append(
                    source.at(1, f"{stem}.py is not distinctive: Hub copies of several repos share a folder")
                )
            stems.setdefault(stem, source.name)
            for imported in imports(source):
                problems += [source.at(imported.line, why) for why in hub_faults(imported, folder, allowed, own)]
    return problems


def hub_faults(imported: Import, folder: str, allowed: set[str], own: set[str]) -> Iterator[str]:
    top = imported.module.split(".")[0]
    if imported.level:
        if imported.level > 1:
            yield "`from ..x` crashes save_pretrained: one dot only"
        elif imported.written is None:
            yield "`from . import x` is not copied to the Hub: write `from .x import name`"
        elif imported.written not in own:
            yield f"`from .{imported.written}` names no file of {folder}/"
        if imported.type_checking:
            yield "imports of ours under TYPE_CHECKING are not skipped by the Hub's checker"
    elif top == "unibrivl":
        parts = imported.module.split(".")
        below = len(parts) > 1 and LAYERS.get(parts[1], LAYERS["cli"]) < LAYERS["pipelines"]
        version = imported.module == "unibrivl" and imported.name == "__version__"
        if not (folder == "pipelines" and imported.in_function and (below or version)):
            yield "an import of unibrivl fails where only the Hub copy is: write `from .x import name`"
    elif top not in allowed and top not in sys.stdlib_module_names:
        yield f"{top} is not among {', '.join(sorted(allowed))} and the standard library"


def optional_through_the_guard(root: Path) -> list[str]:
    """In src/unibrivl what only an extra installs is imported through `utils.require`, with the right extra.

    Or it stands at the top of a file of its own, which the others import inside a function, after `require`.
    """
    brings = modules_of_extras(root)
    optional = set().union(*(modules for extra, modules in brings.items() if extra not in {"dev", "all"}))
    problems = []
    package = sources(root, "src/unibrivl")
    guards = {source.name: dict(required(source)) for source in package}  # file -> {line: (module, extra)}
    for source in package:
        for line, (module, extra) in guards[source.name].items():
            if module.split(".")[0] not in brings.get(extra, ()):
                problems.append(source.at(line, f"the extra {extra!r} of setup.cfg does not bring {module}"))
        for imported in imports(source):
            top = imported.module.split(".")[0]
            if top not in optional or imported.type_checking or imported.line in guards[source.name]:
                continue
            users = [(user, use) for user in package for use in imports(user) if use.names(source.module)]
            if imported.in_function or not users:
                problems.append(source.at(imported.line, f"{top} is optional: require(..., extra, purpose) it"))
            for user, use in users:
                before = [module for line, (module, _) in guards[user.name].items() if line < use.line]
                if not use.in_function or top not in before:
                    why = f"{source.name} needs {top}: import it inside a function, after require({top!r}, ...)"
                    problems.append(user.at(use.line, why))
    return problems


def modules_of_extras(root: Path) -> dict[str, set[str]]:
    """The extras of setup.cfg -> the modules they bring: {"video": {"av"}, ...}."""
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    extras = config["options.extras_require"] if config.has_section("options.extras_require") else {}
    renamed = {"faiss-cpu": "faiss", "scikit-learn": "sklearn"}
    brings = {}
    for extra, lines in extras.items():
        names = re.findall(r"(?m)^(?!unibrivl\[)([A-Za-z0-9_-]+)", lines)
        brings[extra] = {renamed.get(name, name.replace("-", "_")) for name in names}
    return brings


def required(source: Source) -> Iterator[tuple[int, tuple[str, str]]]:
    """Calls of `require` with literal arguments: line, (module, extra)."""
    for call in calls(source):
        if called(call) == "require":
            by_name = {keyword.arg: keyword.value for keyword in call.keywords}
            given = dict(zip(("module", "extra"), call.args, strict=False)) | by_name
            values = [given[key].value for key in ("module", "extra") if isinstance(given.get(key), ast.Constant)]
            if len(values) == 2:
                yield call.lineno, (values[0], values[1])


def borders(root: Path) -> list[str]:
    """audio, vision and data never see an nn.Module; a modeling file never opens a file."""
    problems = []
    for source in sources(root, "src/unibrivl/audio", "src/unibrivl/vision", "src/unibrivl/data"):
        for imported in imports(source):
            full = imported.module if imported.name is None else f"{imported.module}.{imported.name}"
            if full.startswith(("torch.nn", "transformers", "diffusers")):
                problems.append(source.at(imported.line, f"{source.folder} knows no networks, and this is {full}"))
    for source in sources(root, "modeling"):
        if source.path.stem.startswith(("modeling_", "pooling_", "outputs_")):
            problems += [
                source.at(imported.line, "models see no file paths")
                for imported in imports(source)
                if imported.module.split(".")[0] in {"pathlib", "soundfile", "io"}
            ]
            problems += [source.at(call, "models open no files") for call in calls(source) if called(call) == "open"]
    return problems


def torch_load_only_in_convert(root: Path) -> list[str]:
    """`torch.load` stands in src/unibrivl/convert only, always with weights_only=True; nothing else unpickles."""
    problems = []
    for source in sources(root, *NAMESPACE, "benchmarks", "examples", ".ci"):
        torches, loaders = {"torch"}, set()
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                torches |= {alias.asname for alias in node.names if alias.name == "torch" and alias.asname}
            elif isinstance(node, ast.ImportFrom) and node.module in {"torch", "torch.serialization"}:
                loaders |= {alias.asname or alias.name for alias in node.names if alias.name == "load"}
        loaders |= {f"{name}{part}.load" for name in torches for part in ("", ".serialization")}
        for call in calls(source):
            text = ast.unparse(call.func)
            keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
            if text in loaders:
                if not source.module.startswith("unibrivl.convert"):
                    problems.append(source.at(call, "torch.load belongs in src/unibrivl/convert"))
                elif keywords.get("weights_only") != "True":
                    problems.append(source.at(call, "torch.load needs weights_only=True, written out"))
            elif re.fullmatch(r"c?[pP]ickle\.(load|loads|Unpickler)|dill\.loads?|joblib\.load", text):
                problems.append(source.at(call, f"{text} runs code from a file"))
            if keywords.get("allow_pickle") == "True":
                problems.append(source.at(call, "allow_pickle=True runs code from a file"))
    return problems


def no_trust_by_default(root: Path) -> list[str]:
    """`trust_remote_code=True` is the user's decision: neither a default nor an argument of ours."""
    problems = []
    for source in sources(root, *NAMESPACE, "benchmarks", "examples", ".ci"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                defaults = [node.value]
            elif isinstance(node, ast.arguments):
                pairs = [*zip(reversed([*node.posonlyargs, *node.args]), reversed(node.defaults), strict=False)]
                pairs += zip(node.kwonlyargs, node.kw_defaults, strict=True)
                defaults = [value for argument, value in pairs if argument.arg == "trust_remote_code"]
            else:
                continue
            for value in defaults:
                if isinstance(value, ast.Constant) and value.value is True:
                    problems.append(source.at(value, "trust_remote_code=True is for the user to write"))
    return problems


def backward_only_in_training(root: Path) -> list[str]:
    """`.backward()` is called in training (and by tests and benchmarks of it); guidance uses autograd.grad."""
    return [
        source.at(call, ".backward() belongs in training; guidance uses torch.autograd.grad")
        for source in sources(root, "src/unibrivl", "modeling", "pipelines")
        for call in calls(source)
        if isinstance(call.func, ast.Attribute) and call.func.attr == "backward"
    ]


def no_swallowed_errors(root: Path) -> list[str]:
    """No bare `except`, no suppress(Exception); a handler that only passes names its errors and says why."""
    problems = []
    for source in sources(root, *PYTHON):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler):
                caught = "" if node.type is None else ast.unparse(node.type)
                silent = all(isinstance(s, ast.Pass) or is_constant_statement(s) for s in node.body)
                if node.type is None:
                    problems.append(source.at(node, "bare except: name the exception"))
                elif silent and re.search(r"\b(Base)?Exception\b", caught):
                    problems.append(source.at(node, "this handler swallows every error"))
                elif silent and node.body[-1].lineno not in source.comments:
                    problems.append(source.at(node, "this handler swallows the error: say why behind `pass`"))
            elif isinstance(node, ast.Call) and ast.unparse(node).endswith(("suppress(Exception)", "(BaseException)")):
                problems.append(source.at(node, "suppress(Exception) swallows every error"))
    return problems


def is_constant_statement(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def no_print(root: Path) -> list[str]:
    """The library logs; `print` is for the command line, benchmarks, .ci and tests."""
    return [
        source.at(call, "print belongs in cli/: use logging")
        for source in sources(root, *NAMESPACE)
        if source.folder not in {"cli", "app"}
        for call in calls(source)
        if isinstance(call.func, ast.Name) and call.func.id == "print"
    ]


def module_docstrings(root: Path) -> list[str]:
    """Every Python file opens with what it is: a docstring of more than 20 characters."""
    return [
        source.at(1, "no module docstring that says what the file is")
        for source in sources(root, *PYTHON)
        if len(ast.get_docstring(source.tree) or "") <= 20
    ]


def future_annotations(root: Path) -> list[str]:
    """Files of src/unibrivl and training/ with a function or a class postpone annotations; transformers reads ours."""
    problems = []
    for source in sources(root, "src/unibrivl", "training"):
        defines = any(isinstance(n, ast.FunctionDef | ast.ClassDef | ast.AnnAssign) for n in ast.walk(source.tree))
        if defines and not any(i.module == "__future__" and i.name == "annotations" for i in imports(source)):
            problems.append(source.at(1, "`from __future__ import annotations` is missing"))
    return problems


def ascii_only(root: Path) -> list[str]:
    """Sources and documents are ASCII."""
    problems = []
    for path in text_files(root):
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if not line.isascii():
                problems.append(f"{path.relative_to(root).as_posix()}:{number}: not ASCII: {line!r:.80}")
    return problems


def no_private_paths(root: Path) -> list[str]:
    """No file names a place on somebody's machine."""
    problems = []
    for path in text_files(root):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if found := PRIVATE_PATH.search(line):
                problems.append(
                    f"{path.relative_to(root).as_posix()}:{number}: {found.group()}... exists on one machine"
                )
    return problems


def line_budget(root: Path) -> list[str]:
    """No Python file above 600 lines."""
    return [
        source.at(count, f"{count} lines, and {LINE_BUDGET} are the budget: split it by noun")
        for source in sources(root, *PYTHON)
        if (count := len(source.text.splitlines())) > LINE_BUDGET
    ]


def tests_are_no_package(root: Path) -> list[str]:
    """Tests are collected with --import-mode=importlib and have no `__init__.py`."""
    return [source.at(1, "tests have no __init__.py") for source in sources(root, "tests") if source.is_package]


def constants_have_sources(root: Path) -> list[str]:
    """A constant that somebody chose says on its line who: a work of WORKS (or "the paper"), or `OURS: why`.

    Where: (a) the class-level defaults of `modeling/configuration_*.py`; (b) every file of `training/`.
    What: (a) a default annotated or written as a float, or a number whose name ends in a word of CHOSEN (`_prob`,
    `_weight`, `_temp`, ...). (b) the same, for class-level and module-level values and function defaults, and also
    every float literal inside a function. In (b) 0, 0.5, 1 and 2 are arithmetic and free.
    How: a comment behind it, on a line of the same statement.
    Free: architecture sizes (other integers), strings, None, presets in a dict (facts of one published configuration,
    named above the dict).
    """
    problems: dict[tuple[str, int], str] = {}  # one for each line
    for source in sources(root, "modeling", "training"):
        configuration = source.folder == "modeling" and source.path.stem.startswith("configuration_")
        if not configuration and source.folder != "training":
            continue
        neutral = set() if configuration else NEUTRAL
        chosen = list(class_defaults(source.tree) if configuration else all_numbers(source.tree))
        for name, annotation, value, first, last in chosen:
            numbers = [n.value for n in ast.walk(value) if isinstance(n, ast.Constant) and is_number(n.value)]
            by_name = name.rsplit("_", 1)[-1] in CHOSEN
            is_float = "float" in annotation or any(isinstance(number, float) for number in numbers)
            if not (by_name or is_float) or all(number in neutral for number in numbers):
                continue
            said = " ".join(source.comments.get(line, "") for line in range(first, last + 1))
            if not SOURCE.search(said):
                what = f"{name} = {ast.unparse(value)}" if name else ast.unparse(value)
                why = f"{what} names no source: `# paper Sec. 3.4: m` or `# OURS: why`"
                problems.setdefault((source.name, first), source.at(first, why))
    return list(problems.values())


Chosen = tuple[str, str, ast.expr, int, int]  # name, annotation, value, first and last line a comment may stand on


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def class_defaults(tree: ast.AST) -> Iterator[Chosen]:
    for node in ast.walk(tree):
        for statement in node.body if isinstance(node, ast.ClassDef) else ():
            yield from assigned(statement)


def assigned(statement: ast.stmt) -> Iterator[Chosen]:
    if isinstance(statement, ast.AnnAssign | ast.Assign) and statement.value is not None:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        annotation = ast.unparse(statement.annotation) if isinstance(statement, ast.AnnAssign) else ""
        yield ast.unparse(target), annotation, statement.value, statement.lineno, statement.end_lineno or 0


def all_numbers(tree: ast.Module) -> Iterator[Chosen]:
    """Class-level and module-level values, function defaults, and float literals wherever they stand."""
    yield from class_defaults(tree)
    for statement in tree.body:
        yield from assigned(statement)
    for node in ast.walk(tree):
        if isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            pairs = [*zip(reversed(positional), reversed(node.defaults), strict=False)]
            for argument, value in [*pairs, *zip(node.kwonlyargs, node.kw_defaults, strict=True)]:
                if value is not None:
                    annotation = ast.unparse(argument.annotation) if argument.annotation else ""
                    yield argument.arg, annotation, value, argument.lineno, value.end_lineno or 0
        elif isinstance(node, ast.stmt) and not hasattr(node, "body"):
            for literal in ast.walk(node):
                if isinstance(literal, ast.Constant) and isinstance(literal.value, float):
                    yield "", "", literal, node.lineno, node.end_lineno or 0


RULES: list[Callable[[Path], list[str]]] = [
    imports_go_down,
    hub_portable,
    optional_through_the_guard,
    borders,
    torch_load_only_in_convert,
    no_trust_by_default,
    backward_only_in_training,
    no_swallowed_errors,
    no_print,
    module_docstrings,
    future_annotations,
    ascii_only,
    no_private_paths,
    line_budget,
    tests_are_no_package,
    constants_have_sources,
]
