"""The package itself: importing it loads nothing, and each public name is where the table says."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from unibrivl import metrics


def test_importing_loads_neither_numpy_nor_torch():
    code = "import sys, unibrivl.metrics; print(sorted({'numpy', 'torch', 'scipy', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


def test_numbers_need_no_torch():
    code = "import sys; from unibrivl.metrics import cross_validate, kid, ranks"
    code += "; print({'torch', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("module", sorted(metrics._MODULES))
def test_the_table_names_what_the_modules_define(module):
    home = importlib.import_module(f"unibrivl.metrics.{module}")
    for name in metrics._MODULES[module]:
        assert getattr(metrics, name) is getattr(home, name)
        assert name in home.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'beauty'"):
        _ = metrics.beauty


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    import numpy as np

    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"unibrivl\[eval\]"):
        metrics.cross_validate(np.eye(6), [0, 1] * 3, [0, 0, 1, 1, 2, 2], metrics.LinearProbe())
