"""Conventions that run: every rule of `layout_rules.py` holds on this checkout and catches a violation planted for it.

What a rule demands, and why, is the docstring of its function. A rule without a planted violation here fails the last
test, so no rule can pass by looking at nothing.
"""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path

import layout_rules as rules
import pytest

ROOT = Path(__file__).resolve().parent.parent
DOC = '"""A docstring that says what the file is."""\n'
EXTRAS = "[options.extras_require]\nvideo =\n    av>=14\ndiffusion =\n    diffusers>=0.42\n"

# rule -> files that break it, one violation each
BROKEN: dict[str, list[dict[str, str]]] = {
    "imports_go_down": [
        {"src/unibrivl/audio/io.py": "from unibrivl.modeling.x import X"},
        {"src/unibrivl/audio/io.py": "from ..modeling import x"},
        {"src/unibrivl/audio/io.py": "from unibrivl import modeling"},
        {"src/unibrivl/audio/io.py": "def f():\n    import unibrivl.convert.speechlm"},
        {"src/unibrivl/audio/io.py": "def f():\n    return importlib.import_module('unibrivl.cli.doctor')"},
        {"src/unibrivl/audio/__init__.py": "from ..vision.frames import frames"},
        {"src/unibrivl/search/index.py": "from unibrivl.evaluation import tables"},
        {"src/unibrivl/cli/demo.py": "from unibrivl import load_audio"},
        {"src/unibrivl/__init__.py": "from unibrivl.audio import load_audio"},
        {"src/unibrivl/novelty/x.py": "import os"},
        {"modeling/__init__.py": "from unibrivl.audio import load_audio"},
        {"training/trainer.py": "from unibrivl.evaluation import tables"},
        {"training/trainer.py": "from modeling.modeling_x import X"},
    ],
    "hub_portable": [
        {"modeling/modeling_x.py": "from ..audio import load_audio"},
        {"modeling/modeling_x.py": "from . import pooling_x"},
        {"modeling/modeling_x.py": "from .pooling_x import pool"},
        {"modeling/modeling_x.py": "from unibrivl.audio import load_audio"},
        {"modeling/modeling_x.py": "import soundfile"},
        {"modeling/modeling_x.py": "def f():\n    import scipy.linalg"},
        {"modeling/modeling_x.py": "import diffusers"},
        {"modeling/towers/modeling_x.py": "import torch"},
        {"modeling/pooling.py": "import torch"},
        {"modeling/common_x.py": "import torch", "pipelines/common_x.py": "import torch"},
        {
            "modeling/modeling_x.py": "if TYPE_CHECKING:\n    from .pooling_x import pool",
            "modeling/pooling_x.py": "import torch",
        },
        {"pipelines/pipeline_x.py": "from unibrivl.audio import load_audio"},
        {"pipelines/pipeline_x.py": "def f():\n    from unibrivl.convert import speechlm"},
    ],
    "optional_through_the_guard": [
        {"setup.cfg": EXTRAS, "src/unibrivl/audio/io.py": "import av"},
        {"setup.cfg": EXTRAS, "src/unibrivl/audio/io.py": "def f():\n    from av.audio import frame"},
        {"setup.cfg": EXTRAS, "src/unibrivl/audio/io.py": "av = require('av', 'diffusion', 'reading m4a')"},
        {"setup.cfg": f"{EXTRAS}web =\n    some-server[fast]>=1\n", "src/unibrivl/app/x.py": "import some_server"},
        {
            "setup.cfg": EXTRAS,
            "src/unibrivl/audio/io.py": "from .film import x",
            "src/unibrivl/audio/film.py": "import av",
        },
        {"setup.cfg": EXTRAS, "src/unibrivl/audio/io.py": "av = require(module='av', extra='vidoe', purpose='m4a')"},
    ],
    "borders": [
        {"src/unibrivl/audio/io.py": "from torch import nn"},
        {"src/unibrivl/data/folder.py": "def f():\n    import transformers"},
        {"modeling/modeling_x.py": "from pathlib import Path"},
        {"modeling/modeling_x.py": "def f(path):\n    return open(path)"},
    ],
    "torch_load_only_in_convert": [
        {"src/unibrivl/audio/io.py": "import torch\ntorch.load(p, weights_only=True)"},
        {"modeling/modeling_x.py": "import torch as t\nt.load(p, weights_only=True)"},
        {"src/unibrivl/convert/x.py": "import torch\ntorch.load(p)"},
        {"src/unibrivl/convert/x.py": "import torch\ntorch.load(p, weights_only=False)"},
        {"src/unibrivl/convert/x.py": "from torch import load as read\nread(p)"},
        {"src/unibrivl/convert/x.py": "import torch\ntorch.serialization.load(p)"},
        {"src/unibrivl/convert/x.py": "import pickle\npickle.load(f)"},
        {"src/unibrivl/search/x.py": "import numpy\nnumpy.load(f, allow_pickle=True)"},
    ],
    "no_trust_by_default": [
        {"src/unibrivl/embedder.py": "AutoModel.from_pretrained(x, trust_remote_code=True)"},
        {"src/unibrivl/embedder.py": "def load(x, trust_remote_code=True): ..."},
        {"src/unibrivl/embedder.py": "def load(x, *, trust_remote_code: bool = True): ..."},
    ],
    "backward_only_in_training": [{"pipelines/strategy_guide.py": "def f(loss):\n    loss.backward()"}],
    "no_swallowed_errors": [
        {"src/unibrivl/audio/io.py": "try:\n    f()\nexcept:\n    raise"},
        {"src/unibrivl/audio/io.py": "try:\n    f()\nexcept OSError:\n    pass"},
        {"tests/test_x.py": "try:\n    f()\nexcept OSError:\n    ..."},
        {"src/unibrivl/audio/io.py": "try:\n    f()\nexcept (ValueError, Exception):\n    pass  # never mind"},
        {"src/unibrivl/audio/io.py": "with contextlib.suppress(Exception):\n    f()"},
    ],
    "no_print": [{"src/unibrivl/audio/io.py": "print(1)"}, {"training/trainer.py": "print(1)"}],
    "module_docstrings": [
        {"src/unibrivl/audio/x.py": "no doc"},
        {"tests/test_x.py": '"""Tests."""'},
        {".ci/x.py": "# only a comment, however long it may be"},
    ],
    "future_annotations": [
        {"src/unibrivl/audio/io.py": "def f(x: int | None) -> int: ..."},
        {"training/config.py": "class Run:\n    seed: int = 0"},
    ],
    "ascii_only": [{"docs/how.md": "caf\u00e9"}, {"src/unibrivl/audio/io.py": "x = '\u2192'"}],
    "no_private_paths": [{"docs/how.md": "ls /" + "home/ada/sounds"}, {"Makefile": "x:\n\tcp /" + "root/x ."}],
    "line_budget": [{"modeling/modeling_x.py": "x = 1\n" * 600}],
    "tests_are_no_package": [{"tests/audio/__init__.py": ""}],
    "constants_have_sources": [
        {"modeling/configuration_x.py": "class C:\n    momentum: float = 0.99"},
        {"modeling/configuration_x.py": "class C:\n    momentum: float | int = 1  # how slowly it moves"},
        {"modeling/configuration_x.py": "class C:\n    text_weight = 10"},
        {"modeling/configuration_x.py": "class C:\n    tau: float = 0.07  # OURS"},
        {"modeling/configuration_x.py": "class C:\n    rates: tuple = (\n        0.1,\n    )  # one of them"},
        {"training/objectives/x.py": "TAU = 0.07"},
        {"training/objectives/x.py": "def f(x, tau=0.07): ..."},
        {"training/objectives/x.py": "def f(x, *, swap_prob: int = 3): ..."},
        {"training/objectives/x.py": "def f(x):\n    return x / 0.07"},
    ],
}

# what no rule may object to
SOUND = {
    "setup.cfg": EXTRAS,
    "src/unibrivl/__init__.py": "if TYPE_CHECKING:\n    from unibrivl.audio import load_audio",
    "src/unibrivl/__main__.py": "from unibrivl.cli import main",
    "src/unibrivl/audio/__init__.py": "from unibrivl.audio.io import load_audio\nfrom .io import read",
    "src/unibrivl/audio/film.py": "import av",
    "src/unibrivl/audio/io.py": (
        "import torch\n\ndef f():\n    require('av', 'video', purpose='reading m4a')\n    from .film import x\n"
        "    try:\n        x()\n    except OSError:\n        pass  # there may be none\n"
    ),
    "src/unibrivl/convert/x.py": "import torch\nfrom unibrivl.modeling import X\ntorch.load(p, weights_only=True)",
    "src/unibrivl/cli/demo.py": "from unibrivl import __version__\nfrom unibrivl.convert import x\nprint(x)",
    "src/unibrivl/embedder.py": "def load(x, trust_remote_code=False):\n    g(x, trust_remote_code=trust_remote_code)",
    "modeling/__init__.py": "from unibrivl.modeling.modeling_x import X",
    "modeling/modeling_x.py": "import math\nimport torch\nfrom .pooling_x import (\n    pool,\n)",
    "modeling/pooling_x.py": "import numpy as np",
    "modeling/configuration_x.py": (
        "class C:\n    size: int = 768\n    name: str = 'base'\n    tied: bool = True\n"
        "    limit: float | None = None\n    tau: float = 0.07  # UniBriVL Sec. 3.4\n"
        "    scale: float = (\n        10.0  # OURS: the paper is silent\n    )"
    ),
    "pipelines/__init__.py": "import unibrivl.modeling",
    "pipelines/pipeline_x.py": (
        "import diffusers\n\ndef f():\n    from unibrivl.audio import load_audio\n"
        "    from unibrivl.hub.flat import write_code"
    ),
    "training/objectives/x.py": (
        "from unibrivl.modeling import X\nTAU = 0.07  # the paper's tau\nWIDTH = 512\n\n"
        "def f(x, start=0.0, momentum=0.99):  # MoCo: m\n    return (x * 0.5 - 1.0).backward()"
    ),
    "tests/test_x.py": "with contextlib.suppress(OSError):\n    f()",
}


def plant(root: Path, files: dict[str, str], header: bool = True) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if header and name.endswith(".py"):
            text = f"{DOC}from __future__ import annotations\n{text}\n"
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_this_checkout_keeps_the_rule(rule):
    problems = rule(ROOT)
    assert not problems, f"{rule.__doc__}\n" + "\n".join(problems)


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_rule_accepts_a_sound_tree(rule, tmp_path):
    assert rule(plant(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("name", "files"),
    [
        pytest.param(name, files, id=f"{name}-{number}")
        for name, trees in BROKEN.items()
        for number, files in enumerate(trees)
    ],
)
def test_the_rule_catches_a_planted_violation(name, files, tmp_path):
    header = name not in {"module_docstrings", "future_annotations"}
    if name == "module_docstrings":
        files = {path: "x = 1\n" if text == "no doc" else text for path, text in files.items()}
    problems = getattr(rules, name)(plant(tmp_path, files, header))
    assert len(problems) == 1, problems
    assert problems[0].split(":")[0] in files
    assert problems[0].split(":")[1].isdigit()


def test_every_rule_has_a_planted_violation():
    assert {rule.__name__ for rule in rules.RULES} == set(BROKEN)


def test_every_rule_says_what_it_demands():
    assert all(len(textwrap.dedent(rule.__doc__ or "")) > 30 for rule in rules.RULES)


def test_long_files_are_reported():
    """Above 500 lines a file is due for a split; the budget itself is a rule."""
    long = {s.name: n for s in rules.sources(ROOT, *rules.PYTHON) if (n := len(s.text.splitlines())) > rules.LINE_WISH}
    for name, count in long.items():
        warnings.warn(f"{name} has {count} lines; most files stay under {rules.LINE_WISH}", stacklevel=1)
