"""`unibrivl push`: what of a folder goes to the Hub, what is refused, and the talk with a real Hub on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from hub_client import READER, STRANGER
from hub_server import Fault
from safetensors.numpy import save_file

from unibrivl.hub.plan import PlannedFile, PushError, plan
from unibrivl.hub.push import check_repo_id, outdated

LEAN = ("--no-code", "--no-card")
CARD = "---\nlibrary_name: transformers\nlicense: mit\n---\n# A model\n"


def saved(folder, shards: int = 1, seed: int = 0, model_type: str = "clip"):
    """A folder as save_pretrained leaves it, small; its shards weigh 40 kB each."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "README.md").write_text(CARD)
    generator = np.random.default_rng(seed)
    names = [f"model-{shard + 1:05d}-of-{shards:05d}.safetensors" for shard in range(shards)]
    if shards == 1:
        names = ["model.safetensors"]
    for number, name in enumerate(names):
        save_file({f"weight_{number}": generator.standard_normal(10_000).astype(np.float32)}, folder / name)
    if shards > 1:
        weight_map = {f"weight_{number}": name for number, name in enumerate(names)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "model")


def contents(folder) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the plan


def test_a_plan_lists_what_goes_and_says_why_the_rest_stays(folder):
    stay = {
        ".git/config": "git's own",
        ".cache/huggingface/x": "hidden",
        ".env": "hidden",
        "__pycache__/a.pyc": "a cache",
        "checkpoint-500/model.safetensors": "a training checkpoint",
        "optimizer.pt": "an optimizer state",
        "scheduler.pt": "an optimizer state",
        "rng_state_0.pth": "a training state",
        "training_args.bin": "a training state",
        "model.safetensors.partial": "not written to its end",
        "run.log": "a log",
    }
    for name in (*stay, ".gitattributes", "tokenizer/vocab.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    if hasattr(os, "mkfifo"):  # not on Windows
        os.mkfifo(folder / "pipe")
        stay["pipe"] = "not a plain file"
    planned = plan(folder)
    sizes = {file.path: file.size for file in planned.files}
    assert list(sizes) == [".gitattributes", "README.md", "config.json", "model.safetensors", "tokenizer/vocab.json"]
    assert sizes["tokenizer/vocab.json"] == 5 and planned.total == sum(sizes.values()) > 40_000
    reasons = {name.split("/")[0]: why for name, why in stay.items()}
    assert dict(planned.left_out) == reasons
    assert not planned.warnings


@pytest.mark.parametrize("name", ["pytorch_model.bin", "unet/x.pt", "a.CKPT", "b.pkl", "c.pth"])
def test_pickles_are_refused_with_the_way_out(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"\x80\x02.")
    with pytest.raises(PushError, match=rf"{name}: pickles run code.*save_pretrained.*delete"):
        plan(folder)


def test_what_nobody_could_load_is_refused(tmp_path):
    def refused(match, **kwargs):
        with pytest.raises(PushError, match=match):
            plan(tmp_path / "model", **kwargs)
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        return saved(tmp_path / "model", shards=2)

    folder = refused("is no folder")
    (folder / "config.json").unlink()
    folder = refused("no config.json")
    (folder / "config.json").write_text("{")
    folder = refused("config.json is no JSON object")
    (folder / "config.json").write_text("[]")
    folder = refused("config.json is no JSON object")
    (folder / "model-00002-of-00002.safetensors").unlink()
    folder = refused("names model-00002-of-00002.safetensors, which the folder lacks")
    (folder / "model.safetensors.index.json").write_text("[1]")
    folder = refused("is no index of weights")
    weights = (folder / "model-00001-of-00002.safetensors").read_bytes()
    (folder / "model-00001-of-00002.safetensors").write_bytes(weights[:-100])
    folder = refused("model-00001-of-00002.safetensors is damaged or cut short")
    for path in folder.glob("*.safetensors"):
        path.unlink()
    refused("no weights: no .*safetensors beside config.json")


def test_links_lead_to_files_of_the_folder_or_nowhere(folder, tmp_path):
    (folder / "copy.json").symlink_to("config.json")
    (folder / "more").mkdir()
    (folder / "again").symlink_to("more", target_is_directory=True)
    planned = plan(folder)
    assert {"copy.json"} < {file.path for file in planned.files}
    assert dict(planned.left_out) == {"again": "a link to another folder of this one"}
    (tmp_path / "secret").write_text("secret")
    for name, target, match in (
        ("out.txt", tmp_path / "secret", "leads out of the folder, to .*secret.*cp -rL"),
        ("home", tmp_path, "leads out of the folder"),
        ("gone", tmp_path / "nothing", "which does not exist"),
    ):
        (folder / name).symlink_to(target)
        with pytest.raises(PushError, match=match):
            plan(folder)
        (folder / name).unlink()


def test_code_and_card_are_added_without_touching_the_folder(tmp_path):
    folder = saved(tmp_path / "speechlm", model_type="speechlm")
    (folder / "README.md").unlink()
    before = contents(folder)
    assert "no README.md" in plan(folder).warnings[0]
    files = {file.path: file for file in plan(folder, repo_id="org/name", code=True, card=True).files}
    assert contents(folder) == before
    assert "org/name" in files["README.md"].source.decode() and files["README.md"].note == "added"
    assert files["modeling_speechlm.py"].note == "added" and files["config.json"].note == "changed"
    assert "AutoModel" in json.loads(files["config.json"].source)["auto_map"]
    assert files["model.safetensors"] == PlannedFile("model.safetensors", 40_080, folder / "model.safetensors")

    (folder / "README.md").write_text("mine")
    (folder / "config.json").write_text('{"model_type": "somebody-elses"}')
    planned = plan(folder, code=True, card=True)
    assert {file.note for file in planned.files} == {""} and len(planned.files) == 3
    assert "no code is added" in planned.warnings[0] and "README.md: the card has no front" in planned.warnings[1]


def test_weights_replace_those_of_another_cut_and_no_others(tmp_path):
    there = [
        *("model.safetensors", "model-00001-of-00003.safetensors", "model.safetensors.index.json", "config.json"),
        *("unet/model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "model.py"),
    ]
    assert outdated(plan(saved(tmp_path / "one")), there) == there[1:3]
    two = outdated(plan(saved(tmp_path / "two", shards=2)), there)
    assert two == ["model-00001-of-00003.safetensors", "model.safetensors"]


@pytest.mark.parametrize("name", ["name", "a/b/c", "org/", "/name", "org/na me", "org/a--b", "org/a.git", "org/-a"])
def test_a_bad_name_is_refused_before_anything_else(name):
    with pytest.raises(PushError, match="org/name: letters"):
        check_repo_id(name)


# --- the command and the Hub


def test_a_dry_run_needs_neither_network_nor_token(client, folder):
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": None, "HF_HUB_OFFLINE": "1"}
    (folder / "optimizer.pt").write_bytes(b"1")
    done = client.unibrivl("push", folder, "org/name", "--dry-run", *LEAN, **nowhere)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["model.safetensors", "40.1", "kB"] in lines and ["optimizer.pt", "an", "optimizer", "state"] in lines
    assert "3 files, 40.2 kB in all" in done.stdout and "private: " in done.stdout
    public = client.unibrivl("push", folder, "org/name", "--dry-run", "--public", *LEAN, **nowhere)
    assert "public: everybody sees it" in public.stdout and client.hub.log == []


def test_a_repository_is_made_when_asked_and_a_second_push_sends_nothing(client, folder):
    without = client.unibrivl("push", folder, "org/name", *LEAN)
    assert without.returncode == 2 and "org/name does not exist" in without.stderr
    assert f"unibrivl push {folder} org/name --create\n" in without.stderr and not client.hub.repositories

    first = client.unibrivl("push", folder, "org/name", "--create", "--message", "Version one", *LEAN)
    assert first.returncode == 0, first.stderr
    repository = client.hub.repositories["org/name"]
    head = repository.find("main")
    assert repository.private and head.message == "Version one" and head.oid in first.stdout
    assert "(private, created)" in first.stdout
    held = {path: file.content for path, file in head.files.items() if path != ".gitattributes"}
    assert held == {path.as_posix(): content for path, content in contents(folder).items()}

    client.hub.log.clear()
    second = client.unibrivl("push", folder, "org/name", "--create", *LEAN)
    assert second.returncode == 0 and "nothing to do" in second.stdout
    assert repository.find("main") is head and not client.hub.requests("PUT")
    assert not client.hub.requests("POST", "/commit/")

    (folder / "README.md").write_text(f"{CARD}\nIt is better now.\n")
    third = client.unibrivl("push", folder, "org/name", *LEAN)
    assert third.returncode == 0 and repository.find("main") is not head and not client.hub.requests("PUT")
    old, new = head.files, repository.find("main").files
    assert {path for path in new if old.get(path) != new[path]} == {"README.md"}


def test_public_is_said_and_never_happens_otherwise(client, folder):
    client.hub.create(client.hub.accounts[client.token], "org/open", private=False)
    refused = client.unibrivl("push", folder, "org/open", *LEAN)
    assert refused.returncode == 2 and "org/open is public" in refused.stderr and "--public" in refused.stderr
    assert len(client.hub.repositories["org/open"].commits) == 1
    done = client.unibrivl("push", folder, "org/open", "--public", *LEAN)
    assert done.returncode == 0 and "(public)" in done.stdout
    made = client.unibrivl("push", folder, "org/new", "--public", "--create", *LEAN)
    assert made.returncode == 0 and not client.hub.repositories["org/new"].private


def test_branches_are_made_when_asked(client, folder):
    client.unibrivl("push", folder, "org/name", "--create", *LEAN)
    repository = client.hub.repositories["org/name"]
    main = repository.find("main")
    saved(folder, seed=1)
    missing = client.unibrivl("push", folder, "org/name", "--revision", "try/2", *LEAN)
    assert missing.returncode == 2 and "no branch try/2" in missing.stderr and "--revision try/2" in missing.stderr
    done = client.unibrivl("push", folder, "org/name", "--revision", "try/2", "--create", *LEAN)
    assert done.returncode == 0, done.stderr
    repository.tags["v1"] = main.oid
    tag = client.unibrivl("push", folder, "org/name", "--revision", "v1", *LEAN)
    assert tag.returncode == 2 and "commits go to branches" in tag.stderr
    assert repository.find("main") is main
    assert repository.find("try/2").files["model.safetensors"] != main.files["model.safetensors"]


def test_each_refusal_says_what_to_do(client, folder, tmp_path):
    client.hub.create(client.hub.accounts[client.token], "org/name", private=True)

    def refused(*arguments, repo="org/name", **environment):
        done = client.unibrivl("push", folder, repo, *arguments, *LEAN, **environment)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    assert "`hf auth login`, or set HF_TOKEN" in refused(HF_TOKEN=None)
    assert "does not accept this token" in refused(HF_TOKEN="hf_unknown")
    assert "may not write to org/name" in refused(HF_TOKEN=READER)
    assert "does not exist" in refused(HF_TOKEN=STRANGER)
    assert "may not write to org/other" in refused("--create", repo="org/other", HF_TOKEN=STRANGER)
    assert "HF_HUB_OFFLINE is set" in refused(HF_HUB_OFFLINE="1")
    assert "cannot be reached" in refused(HF_ENDPOINT="http://127.0.0.1:9")
    assert "is no name of a repository" in refused(repo="name")
    (tmp_path / "empty").write_text("\n")
    assert "must hold a token" in refused("--token-file", tmp_path / "empty")
    assert len(client.hub.repositories["org/name"].commits) == 1

    (tmp_path / "token").write_text(f"{client.token}\n")
    done = client.unibrivl(
        "push", folder, "org/name", "--token-file", tmp_path / "token", *LEAN, HF_TOKEN="hf_unknown"
    )
    assert done.returncode == 0, done.stderr


def test_shards_that_are_cut_anew_replace_the_file_they_were(client, folder):
    client.unibrivl("push", folder, "org/name", "--create", *LEAN)
    (folder / "model.safetensors").unlink()
    saved(folder, shards=2)
    done = client.unibrivl("push", folder, "org/name", *LEAN)
    assert done.returncode == 0 and "deleted there: model.safetensors" in done.stdout
    held = client.hub.repositories["org/name"].find("main").files
    assert "model.safetensors" not in held and "model-00002-of-00002.safetensors" in held


# --- interruptions


def uploads(hub) -> list[tuple[str, bool]]:
    """The large files that were sent, by the start of their hash, and whether they arrived."""
    return [(request.path.removeprefix("/upload/")[:6], request.completed) for request in hub.requests("PUT")]


def test_an_upload_that_breaks_off_is_repeated_alone(client, tmp_path):
    folder = saved(tmp_path / "model", shards=2)
    planned = plan(folder)
    first, second = (file for file in planned.files if file.path.endswith(".safetensors"))
    oid = {file.path: sha256(file.source)[:6] for file in (first, second)}
    client.hub.faults += [
        Fault("PUT", f"/upload/{oid[second.path]}", cut=0.5),
        Fault("POST", "/commit/", lost=True),
    ]
    done = client.unibrivl("push", folder, "org/name", "--create", *LEAN)
    assert done.returncode == 0, done.stderr
    assert sorted(uploads(client.hub)) == sorted(
        [(oid[first.path], True), (oid[second.path], False), (oid[second.path], True)]
    )
    assert "the upload broke off" in done.stderr  # the commit: its answer was lost, so it is asked for again
    repository = client.hub.repositories["org/name"]
    assert len(repository.commits) == 2 and len(client.hub.requests("POST", "/commit/")) == 1
    assert repository.find("main").files[second.path].content == second.source.read_bytes()


def test_a_push_that_failed_is_taken_up_by_the_next(client, tmp_path):
    folder = saved(tmp_path / "model", shards=2)
    broken = sha256(folder / "model-00002-of-00002.safetensors")[:6]
    client.hub.faults.append(Fault("PUT", f"/upload/{broken}", status=418))
    failed = client.unibrivl("push", folder, "org/name", "--create", *LEAN)
    assert failed.returncode == 2 and "refused the upload" in failed.stderr
    assert len(client.hub.repositories["org/name"].commits) == 1, "a commit is all or nothing"
    client.hub.log.clear()
    assert client.unibrivl("push", folder, "org/name", *LEAN).returncode == 0
    assert uploads(client.hub) == [(broken, True)]


def test_of_a_file_in_parts_only_the_broken_part_is_sent_again(folder, client):
    client.hub.part_size = 16_000
    client.hub.faults.append(Fault("PUT", "/2$", status=503))
    done = client.unibrivl("push", folder, "org/name", "--create", *LEAN)
    assert done.returncode == 0, done.stderr
    assert [request.path[-2:] for request in client.hub.requests("PUT")] == ["/1", "/2", "/2", "/3"]
    held = client.hub.repositories["org/name"].find("main").files["model.safetensors"]
    assert held.content == (folder / "model.safetensors").read_bytes()


def test_a_busy_hub_is_asked_a_few_times_and_not_for_ever(client, folder):
    client.hub.faults.append(Fault("POST", "/commit/", status=503, times=2))
    program = """
from unibrivl.hub import push
push.WAITS_S = (0.1, 0.1, 0.1)
give(push.push(sys.argv[1], "org/name", create=True, code=False, card=False).changed)
"""
    assert client.run(program, folder) is True
    assert len(client.hub.requests("POST", "/commit/")) == 3 and len(client.hub.requests("PUT")) == 1

    saved(folder, seed=1)
    client.hub.log.clear()
    client.hub.faults.append(Fault("POST", "/commit/", status=503, times=9))
    program = program.replace("give(", "try: give(").rstrip() + "\nexcept ValueError as error: give(str(error))\n"
    assert "answered 503 again and again" in client.run(program, folder)
    assert len(client.hub.requests("POST", "/commit/")) == 4 and len(client.hub.requests("PUT")) == 1


@pytest.mark.slow
def test_an_upload_may_fail_for_longer_than_the_client_tries(client, folder):
    client.hub.faults.append(Fault("PUT", "/upload/", status=503, times=6))
    done = client.unibrivl("push", folder, "org/name", "--create", *LEAN)
    assert done.returncode == 0, done.stderr
    assert len(client.hub.requests("PUT")) == 7 and "the upload broke off" in done.stderr


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
