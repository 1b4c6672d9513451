"""`import unibrivl` and `unibrivl --help` answer at once: a fresh interpreter runs each and lists what it loaded."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tiny_towers import unibrivl_config

import unibrivl
from unibrivl.cli import VERBS, main

HEAVY = {"torch", "transformers", "numpy", "diffusers", "huggingface_hub", "soundfile", "soxr", "PIL", "tqdm", "av"}


def loaded_after(code: str) -> set[str]:
    """Top-level modules a fresh interpreter has loaded after `code`."""
    code += "\nimport json, sys\nprint(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def unibrivl_command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "unibrivl", *words], text=True, capture_output=True, check=False)


def test_import_loads_nothing_heavy():
    loaded = loaded_after("import unibrivl")
    assert "unibrivl" in loaded
    assert not loaded & HEAVY


def test_help_loads_nothing_heavy():
    loaded = loaded_after(
        "import contextlib\nfrom unibrivl.cli import main\nwith contextlib.suppress(SystemExit):\n    main(['--help'])"
    )
    assert not loaded & HEAVY


def test_dir_and_the_version_load_nothing_heavy():
    assert not loaded_after("import unibrivl; dir(unibrivl); unibrivl.__version__") & HEAVY


def test_hearing_a_sound_needs_no_torch():
    assert not loaded_after("import unibrivl; unibrivl.load_audio") & {"torch", "transformers"}


@pytest.mark.parametrize("name", [name for name in unibrivl.__all__ if name != "__version__"])
def test_a_public_name_resolves(name):
    if name.endswith("Pipeline"):
        pytest.importorskip("diffusers", reason="diffusers is not installed")
    value = getattr(unibrivl, name)
    assert value.__name__.rpartition(".")[2] == name  # `embedded` may be its module, which can be called too
    assert getattr(unibrivl, name) is value


AUTO = """
import sys, unibrivl
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor, AutoTokenizer
unibrivl.{name}
folder = sys.argv[1]
for auto in (AutoConfig, AutoModel, AutoFeatureExtractor, AutoProcessor, AutoTokenizer):
    print(type(auto.from_pretrained(folder)).__name__)
"""


@pytest.mark.parametrize("name", ["UniBriVLConfig", "SpeechLMPhoneTokenizer"])
def test_touching_any_class_teaches_the_auto_classes(name, tmp_path):
    from unibrivl import SpeechLMFeatureExtractor, SpeechLMPhoneTokenizer, UniBriVLModel, UniBriVLProcessor

    UniBriVLModel(unibrivl_config()).save_pretrained(tmp_path)
    UniBriVLProcessor(SpeechLMFeatureExtractor(), unit_tokenizer=SpeechLMPhoneTokenizer()).save_pretrained(tmp_path)
    SpeechLMPhoneTokenizer().save_pretrained(tmp_path)
    program = [sys.executable, "-c", AUTO.format(name=name), str(tmp_path)]
    done = subprocess.run(program, text=True, capture_output=True, check=True)
    wanted = ["UniBriVLConfig", "UniBriVLModel", "SpeechLMFeatureExtractor", "UniBriVLProcessor"]
    assert done.stdout.split() == [*wanted, "SpeechLMPhoneTokenizer"]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'load_picture'"):
        _ = unibrivl.load_picture


def test_help_lists_every_verb():
    done = unibrivl_command("--help")
    assert done.returncode == 0
    for verb, summary in VERBS.items():
        assert verb in done.stdout
        assert summary.split()[0] in done.stdout


def test_version():
    done = unibrivl_command("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"unibrivl {unibrivl.__version__}")


@pytest.mark.parametrize("words", [["paint"], []])
def test_an_unknown_or_missing_verb_exits_with_2(words):
    done = unibrivl_command(*words)
    assert done.returncode == 2
    assert "usage: unibrivl" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"usage: unibrivl {verb}" in capsys.readouterr().out
