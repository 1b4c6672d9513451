"""The documents are true: their code runs, their links and trees name what exists, make targets have their help."""

from __future__ import annotations

import importlib
import math
import re
import shlex
import shutil
import struct
import subprocess
import sys
import wave
from pathlib import Path

import pytest
import yaml

import unibrivl
from unibrivl.cli import VERBS, build_parser, main

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
HOW_TO = sorted((ROOT / "docs" / "how-to").glob("*.md"))
TARGETS = [
    "help",
    "demo",
    "test",
    "test-slow",
    "test-min",
    "mixins",
    "wheel-test",
    "check",
    "format",
    "bench",
    "parity",
    "embedded",
    "clean",
]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def fenced(text: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page in their order: the language, "" for none, and what is in them."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language; "" takes the ones that name none."""
    return [block for named, block in fenced(text) if named == language]


def commands(block: str) -> list[list[str]]:
    """The lines of a block that call `unibrivl`, as words without that one; a backslash joins two lines."""
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("unibrivl ")]


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory) -> Path:
    """What a reader of the README has at hand: a sound, and a converted checkpoint (tiny, with random weights)."""
    from unibrivl import SpeechLMConfig, SpeechLMFeatureExtractor, SpeechLMModel

    folder = tmp_path_factory.mktemp("reader")
    with wave.open(str(folder / "dog.wav"), "wb") as file:
        file.setparams((2, 2, 44100, 0, "NONE", ""))
        for n in range(44100):
            sample = round(12000 * math.sin(2 * math.pi * 440 * n / 44100))
            file.writeframes(struct.pack("<hh", sample, -sample // 2))
    config = SpeechLMConfig(
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=2,
        num_speech_layers=1,
        num_shared_layers=1,
        conv_dim=[32] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    SpeechLMModel(config).save_pretrained(folder / "speechlm-base-p")
    SpeechLMFeatureExtractor().save_pretrained(folder / "speechlm-base-p")
    return folder


FRAMES = "frames.shape[0] == 1 and frames.shape[1] == 49 and frames.isfinite().all()"
DRAWN = "output.images[0].size == (64, 64) and __import__('pathlib').Path('dog.png').exists()"
README_CHECKS = [DRAWN, FRAMES, FRAMES, "scores.shape == (2, 3) and scores.abs().max() <= 1"]  # after each block


@pytest.mark.parametrize("number", range(len(blocks(read("README.md"), "python"))))
def test_the_code_of_the_readme_runs(number, reader_folder):
    """Each block in a fresh interpreter, offline, in a folder that holds what its words say."""
    code = blocks(read("README.md"), "python")[number]
    if "Pipeline" in code:
        pytest.importorskip("diffusers", reason="diffusers is not installed")
    code += f"\nassert {README_CHECKS[number]}\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=reader_folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_the_code_of_the_other_pages_runs(page, reader_folder):
    """All Python blocks of a page one after the other, as a reader would try them."""
    code = "\n".join(blocks(page.read_text(encoding="utf-8"), "python"))
    if "unibrivl.pipelines" in code or "diffusers" in code:
        pytest.importorskip("diffusers", reason="diffusers is not installed")
    if code:
        done = subprocess.run([sys.executable, "-c", code], cwd=reader_folder, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr


NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_a_how_to_page_leads_to_what_it_says(page, reader_folder, tmp_path, monkeypatch, capsys):
    """A page from its top to its end, as its reader would do it, in one namespace and one folder.

    Python that opens with the name of a file is saved there, and imported by what follows; other Python runs; shell
    lines that call `unibrivl` run; and a block of `text` is what the block before it prints, numbers to a cent.
    """
    text = page.read_text(encoding="utf-8")
    if "unibrivl.pipelines" in text or "embedded" in text:
        pytest.importorskip("diffusers", reason="diffusers is not installed")
    if "embedded" in text:
        try:
            unibrivl.embedded()
        except FileNotFoundError:
            pytest.skip("the embedded model's weights are not in this checkout: make embedded VARIANT=open")
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    for mapping in (CONFIG_MAPPING, MODEL_MAPPING):  # what a page teaches the Auto classes is forgotten after it
        monkeypatch.setattr(mapping, "_extra_content", dict(mapping._extra_content))
    shutil.copytree(reader_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed, saved = "", []
    try:
        for language, block in fenced(text):
            if language == "text":
                assert NUMBER.sub("#", block).split() == NUMBER.sub("#", printed).split(), printed
                wanted, found = ([float(one) for one in NUMBER.findall(told)] for told in (block, printed))
                assert found == pytest.approx(wanted, abs=0.011), printed
            elif language == "python" and (named := re.match(r"# (\w+)\.py\n", block)):
                (tmp_path / f"{named[1]}.py").write_text(block, encoding="utf-8")
                saved.append(named[1])
                importlib.invalidate_caches()
            elif language == "python":
                exec(compile(block, str(page), "exec"), namespace)
            elif language == "sh":
                for words in commands(block):
                    assert main(words) == 0, words
            printed = capsys.readouterr().out
    finally:
        for name in saved:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_blocks_take_their_arguments(page):
    """Whether or not it can be run here, a command of a document is one that the parser accepts."""
    for language, block in fenced(page.read_text(encoding="utf-8")):
        for words in commands(block) if language in ("", "sh") else ():
            build_parser(words[0]).parse_args(words)


def test_the_first_example_is_short():
    first = blocks(read("README.md"), "python")[0]
    assert len([line for line in first.splitlines() if line and not line.startswith(("import", "from"))]) <= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    """Relative links only: what lies in this checkout can be checked without a network."""
    for target in re.findall(r"\[[^\]]*\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_tree_of_the_readme_exists():
    """The annotated tree: two spaces and more separate a name from its words, four columns of indent are a folder."""
    tree = next(block for block in blocks(read("README.md"), "") if block.startswith("modeling/"))
    parents: list[str] = []
    for line in tree.splitlines():
        match = re.fullmatch(r"( *)(\S+) {2,}(\S.*)", line)
        assert match, line
        depth = len(match[1]) // 4
        parents[depth:] = [match[2]]
        assert ROOT.joinpath(*parents).exists(), "/".join(parents)


def test_the_tree_of_the_readme_names_every_folder():
    tree = next(block for block in blocks(read("README.md"), "") if block.startswith("modeling/"))
    code = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    package = {path.parent.name for path in (ROOT / "src" / "unibrivl").glob("*/__init__.py")}
    assert [name for name in sorted(code | package) if f"{name}/" not in tree] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_named_in_documents_exist(page):
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= set(TARGETS)
    assert set(re.findall(r"`unibrivl ([a-z]+)", text)) <= set(VERBS)


def test_make_help_is_the_default_and_lists_every_target():
    makefile = read("Makefile")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony and phony[1].split() == TARGETS
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, text=True, capture_output=True, check=True)
    for target in TARGETS:
        assert re.search(rf"^  {target} +\S.{{10,}}$", done.stdout, re.MULTILINE), target


def test_make_help_builds_no_environment():
    done = subprocess.run(["make", "--no-print-directory", "-n", "help"], cwd=ROOT, text=True, capture_output=True)
    assert "venv" not in done.stdout


def test_the_changelog_has_a_section_for_what_is_coming():
    assert re.search(r"^## \[(Unreleased|0\.1\.0)\]", read("CHANGELOG.md"), re.MULTILINE)


def test_the_citation_is_complete():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "title", "message", "type", "license", "authors", "references"} <= set(citation)
    assert citation["license"] == "Apache-2.0"
    urls = [reference["url"].rsplit("/", 1)[-1] for reference in citation["references"]]
    assert urls == ["2307.15898", "2306.11504", "2408.10383"]
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= set(reference)
        assert all({"family-names", "given-names"} <= set(author) for author in reference["authors"])


def test_the_licence_is_apache():
    text = read("LICENSE")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert text.rstrip().endswith("limitations under the License.")


def test_the_workflow_runs_make_and_reads_only():
    """Every job is a make target that exists, may read only, is bounded in time, and pins the actions it uses."""
    text = read(".github/workflows/ci.yml")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert "concurrency" in workflow
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job
        for step in job["steps"]:
            if "run" in step:
                assert step["run"] == ".ci/run" or step["run"].removeprefix("make ") in TARGETS
            else:
                assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
