"""Pipelines that leave the building: pushed to a Hub on loopback, loaded by name, from one repository or joined from
two, with this package and in a process where it cannot be imported.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")

from hub_client import READER, Client, populate  # noqa: E402
from hub_server import serve  # noqa: E402

from unibrivl.hub.flat import write_code  # noqa: E402
from unibrivl.hub.plan import PICKLES, plan  # noqa: E402

pytestmark = pytest.mark.slow  # half a minute of processes that import diffusers
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pushed")
    with serve() as hub:
        client = Client(populate(hub), folder / "home")
        index = client.run("import hub_pipelines; give(hub_pipelines.push(sys.argv[1]))", folder)
        done = client.unibrivl("push", folder / "whole", "org/by-command", "--create")
        assert done.returncode == 0, done.stderr
        shutil.copytree(folder / "whole", folder / "flat")
        write_code(folder / "flat")
        yield hub, folder, index


def reader(hub, folder: Path, name: str) -> Client:
    return Client(hub, folder / name, READER)


def test_a_plain_save_is_lean_and_a_push_carries_the_code(pushed):
    hub, folder, index = pushed
    assert index["_class_name"] == "UniBriVLPipeline"
    assert index["matcher"] == ["unibrivl.modeling.modeling_unibrivl", "UniBriVLModel"]
    assert not list((folder / "whole").rglob("*.py"))
    for name in ("org/whole", "org/by-command"):
        files = hub.repositories[name].find("main").files
        written = json.loads(files["model_index.json"].content)
        assert written["_class_name"] == ["pipeline", "UniBriVLPipeline"]
        assert written["matcher"] == ["component_modeling_unibrivl", "UniBriVLModel"]
        assert {
            "pipeline.py",
            "mixin_unibrivl.py",
            "matcher/component_modeling_unibrivl.py",
            "README.md",
        } < files.keys()
        assert not [path for path in files if path.endswith(PICKLES)]
    assert "org/by-command" in files["README.md"].content.decode()


def test_a_second_write_has_nothing_to_do(pushed):
    _, folder, _ = pushed
    before = {path: path.stat().st_mtime_ns for path in (folder / "flat").rglob("*")}
    assert write_code(folder / "flat") == []
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "flat").rglob("*")}


def test_what_a_push_would_send(pushed):
    _, folder, _ = pushed
    planned = plan(folder / "whole", repo_id="org/name", code=True, card=True)
    added = {file.path for file in planned.files if file.note == "added"}
    assert {"pipeline.py", "README.md", "matcher_processor/component_processing_unibrivl.py"} < added
    assert {file.path for file in planned.files if file.note == "changed"} == {"model_index.json"}
    assert planned.warnings == (), planned.warnings


@pytest.fixture(scope="module")
def fetched(pushed):
    hub, folder, _ = pushed
    program = "import hub_pipelines; give(hub_pipelines.fetch(sys.argv[1]))"
    return reader(hub, folder, "reader").run(program, folder)


@pytest.mark.parametrize("name", ["org/whole", "org/by-command"])
def test_one_repository_loads_without_trust_where_the_package_is(fetched, name):
    same, pipeline, matcher = fetched[f"{name} own"]
    assert same
    assert (pipeline, matcher) == ("unibrivl.pipelines.pipeline_unibrivl", "unibrivl.modeling.modeling_unibrivl")


def test_a_base_and_a_matcher_are_joined_in_one_call(fetched):
    assert fetched["joined"] == [True, "org/base", "UniBriVLProcessor"]
    assert fetched["objects"] == [True, True]
    assert fetched["from pipe"] is True


@pytest.mark.parametrize("name", ["base class", "stock"])
def test_code_of_a_repository_is_not_run_unasked(fetched, name):
    assert "trust_remote_code" in fetched[name]


def test_without_the_package_the_code_that_lies_beside_does_the_same(pushed):
    hub, folder, _ = pushed
    program = "import hub_pipelines; give(hub_pipelines.fetch_without_the_package(*sys.argv[1:]))"
    said = reader(hub, folder, "stranger").run(program, folder, ROOT)
    for name in ("whole", "by-command", "flat"):
        same, pipeline, matcher = said[name]
        assert same, name
        assert pipeline.startswith("diffusers_modules.") and matcher.startswith("diffusers_modules."), name
    same, editor = said["editor"]
    assert same and editor.startswith("diffusers_modules.")
    assert said["again"] is True and said["joined"] == [True, "transformers_modules"]
    for name in ("path", "push"):
        assert "pip install" in said[name], said[name]
    assert "trust_remote_code" in said["untrusted"]
