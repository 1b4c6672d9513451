"""Models that go to the Hub and come back, over real HTTP and with the real client: `hub_server.py` is the other end.

Two processes do most of it: one pushes two versions of each model, one with an empty cache fetches them.
"""

from __future__ import annotations

import json
import os
from functools import partial

import pytest
import tiny_brewclip
import tiny_brivl
import tiny_cavmae
import tiny_cavtmae
import torch
from hub_client import READER, STRANGER, Client, populate
from hub_server import Fault, serve
from hub_store import File
from tiny_towers import AUDIO, unibrivl_config

from unibrivl import modeling
from unibrivl.hub.plan import PICKLES, plan

REPOSITORIES = ("org/unibrivl", "org/speechlm", "org/brivl")


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A Hub that holds two versions of three models, the folder with what they were, and the first commits."""
    folder = tmp_path_factory.mktemp("pushed")
    with serve() as hub:
        client = Client(populate(hub), folder / "home")
        firsts = client.run("import hub_models; give(hub_models.push(sys.argv[1]))", folder)
        yield hub, folder, firsts


@pytest.fixture(scope="module")
def fetched(pushed):
    """What a reader with an empty cache finds; one of its downloads breaks off in the middle."""
    hub, folder, firsts = pushed
    hub.log.clear()
    hub.faults.append(Fault("GET", "/download/", cut=0.5))
    reader = Client(hub, folder / "reader", READER)
    program = "import hub_models; give(hub_models.fetch(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]))"
    return reader.run(program, folder, json.dumps(firsts), STRANGER)


def test_what_is_pushed_is_safetensors_and_json(pushed):
    hub, _, _ = pushed
    for name in REPOSITORIES:
        files = hub.repositories[name].find("main").files
        assert hub.repositories[name].private
        assert {"config.json", "model.safetensors"} < files.keys()
        assert not [path for path in files if path.endswith(PICKLES)]
        assert [path for path, file in files.items() if file.large] == ["model.safetensors"]


@pytest.mark.parametrize("name", REPOSITORIES)
@pytest.mark.parametrize("loader", ["own", "auto"])
def test_a_model_comes_back_bit_for_bit(fetched, name, loader):
    assert fetched[f"{name} {loader} weights"] and fetched[f"{name} {loader} outputs"]
    assert set(fetched[f"{name} {loader} classes"]) == {"unibrivl"}, "our installed classes, not the code beside it"


@pytest.mark.parametrize("name", REPOSITORIES)
def test_tag_branch_and_commit_give_the_older_weights(fetched, pushed, name):
    assert [fetched[f"{name} {revision[:7]}"] for revision in ("v1", "first", pushed[2][name])] == [True] * 3


def test_an_embedder_is_loaded_by_its_name(fetched):
    assert fetched["load"] and fetched["load of another revision differs"]


def test_a_download_that_breaks_off_is_taken_up_and_tokens_stay_with_the_hub(fetched, pushed):
    hub, _, _ = pushed
    assert not any(fault.times for fault in hub.faults), "the download was broken off"
    storage = [request for request in hub.log if request.host == "storage"]
    assert storage and not any("authorization" in request.headers for request in storage)
    assert any("authorization" in request.headers for request in hub.log)


def test_a_private_model_is_refused_without_the_right_token(fetched):
    for said in fetched["refused"]:
        assert set(said) == {"model", "auto", "processor", "load"}
        for what, error in said.items():
            assert error.startswith("OSError: ") and "org/unibrivl" in error, (what, error)
            assert "token" in error or "gated" in error, (what, error)


def test_a_large_download_goes_on_where_it_broke_off(client):
    content = os.urandom(24_000_000)  # the client writes blocks of 10 MiB, and goes on after the last whole one
    repository = client.hub.create(client.hub.accounts[client.token], "org/name", private=True)
    repository.commit("main", {"model.safetensors": File(content, large=True)}, "large")
    client.hub.objects[File(content).sha256] = content
    client.hub.faults.append(Fault("GET", "/download/", cut=0.6))
    program = """
import hashlib, huggingface_hub
try:
    path = huggingface_hub.hf_hub_download("org/name", "model.safetensors")
except Exception:  # older clients leave it to the next call to go on
    path = huggingface_hub.hf_hub_download("org/name", "model.safetensors")
give(hashlib.sha256(open(path, "rb").read()).hexdigest())
"""
    assert client.run(program) == File(content).sha256
    assert [r.headers.get("range") for r in client.hub.requests("GET", "/download/")] == [None, "bytes=10485760-"]


def test_a_push_of_a_saved_folder_is_what_push_to_hub_makes(pushed, tmp_path):
    hub, _, _ = pushed
    model, *preparers = [modeling.SpeechLMModel(speechlm()), modeling.SpeechLMFeatureExtractor()]
    for thing in (model, *preparers):
        thing.save_pretrained(tmp_path / "model")
    client = Client(hub, tmp_path / "home")
    done = client.unibrivl("push", tmp_path / "model", "org/by-command", "--create")
    assert done.returncode == 0, done.stderr
    files = hub.repositories["org/by-command"].find("main").files
    assert {"README.md", "model.safetensors", "preprocessor_config.json", "modeling_speechlm.py"} < files.keys()
    assert "org/by-command" in files["README.md"].content.decode()


def fields(audio: str) -> dict:
    return {name: value for name, value in AUDIO[audio].items() if name != "model_type"}


def speechlm() -> modeling.SpeechLMConfig:
    return modeling.SpeechLMConfig(**fields("speechlm"))


CAVMAE = (
    "CAVMAEAudioModel", "CAVMAEForAudioClassification", "CAVMAEForAudioVisualClassification", "CAVMAEForPreTraining",
    "CAVMAEImageModel", "CAVMAEModel",
)  # fmt: skip


def every_model() -> dict:
    """The name of every model class of ours -> how a tiny one is made."""
    text = {"model_type": "gpt2", "n_embd": 32, "n_head": 2, "n_layer": 1, "vocab_size": 64, "n_positions": 32}
    return {
        "AudioTokenAdapter": lambda: modeling.AudioTokenAdapter(
            modeling.AudioTokenAdapterConfig(audio_width=24, token_widths={"text_encoder": 32}, hidden_size=16)
        ),
        "BrewCLIPForSpeechClassification": lambda: modeling.BrewCLIPForSpeechClassification(tiny_brewclip.config()),
        "BrewCLIPModel": tiny_brewclip.build,
        "BriVLModel": tiny_brivl.build,
        "BriVLTextModel": lambda: tiny_brivl.build(modeling.BriVLTextModel),
        "BriVLVisionModel": lambda: tiny_brivl.build(modeling.BriVLVisionModel),
        **{name: partial(tiny_cavmae.build, getattr(modeling, name)) for name in CAVMAE},
        "CAVTMAEModel": tiny_cavtmae.build,
        "MelEncoderModel": lambda: modeling.MelEncoderModel(modeling.MelEncoderConfig(**fields("mel_encoder"))),
        "SpeechLMForCTC": lambda: modeling.SpeechLMForCTC(speechlm()),
        "SpeechLMForPreTraining": lambda: modeling.SpeechLMForPreTraining(speechlm()),
        "SpeechLMModel": lambda: modeling.SpeechLMModel(speechlm()),
        "UniBriVLAudioModel": lambda: modeling.UniBriVLAudioModel(unibrivl_config()),
        "UniBriVLForAudioCaptioning": lambda: modeling.UniBriVLForAudioCaptioning(
            unibrivl_config(decoder_config=text)
        ),
        "UniBriVLForAudioClassification": lambda: modeling.UniBriVLForAudioClassification(
            unibrivl_config(num_labels=3)
        ),
        "UniBriVLModel": lambda: modeling.UniBriVLModel(unibrivl_config()),
    }


def test_every_model_of_ours_is_among_them():
    classes = {name for name in modeling.__all__ if issubclass_of_module(getattr(modeling, name))}
    assert classes == set(every_model())


def issubclass_of_module(value) -> bool:
    return isinstance(value, type) and issubclass(value, torch.nn.Module)


@pytest.mark.parametrize("name", every_model())
def test_save_pretrained_writes_safetensors_only(name, tmp_path):
    every_model()[name]().save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    assert {file.path for file in plan(tmp_path).files} >= {"config.json", "model.safetensors"}
