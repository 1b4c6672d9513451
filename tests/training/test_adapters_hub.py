"""A base and its adapters over a Hub on loopback, with the real client in processes of its own."""

from __future__ import annotations

import pytest
from hub_client import READER, Client, populate
from hub_server import serve

pytest.importorskip("peft", reason="adapters need peft: pip install peft")

HEAD = """
import torch
from tiny_towers import pictures, sounds, unibrivl_config
from unibrivl.modeling import UniBriVLModel
from unibrivl.training.adapters import AdapterConfig, adapt, load_adapter
@torch.no_grad()
def scores(model):
    return model.eval()(**sounds(), pixel_values=pictures()).logits_audio_image.double().tolist()
"""
PUSH = """
torch.manual_seed(0)
base = UniBriVLModel(unibrivl_config())
base.push_to_hub("org/base", private=True)
said = {"base": scores(base)}
for kind in ("lora", "prompt"):
    base = UniBriVLModel.from_pretrained("org/base")
    model = adapt(base, AdapterConfig(method=kind, rank=4, num_prompts=3))
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.5)
    for _ in range(2):
        model.eval()(**sounds(), pixel_values=pictures()).logits_audio_image.sum().backward()
        optimizer.step()
    said[kind] = scores(model)
    model.save_pretrained(f"{sys.argv[1]}/{kind}")
give(said)
"""
FETCH = """
import peft
said = {}
model = UniBriVLModel.from_pretrained("org/base")
for kind in ("lora", "prompt"):
    model = load_adapter(model, f"org/{kind}", kind)
    said[kind] = scores(model)
model.set_adapter("lora")
said["lora again"] = scores(model)
settings = peft.PeftConfig.from_pretrained("org/lora")
said["named"] = settings.base_model_name_or_path
plain = peft.PeftModel.from_pretrained(UniBriVLModel.from_pretrained(settings.base_model_name_or_path), "org/lora")
said["peft"] = scores(plain)
with plain.disable_adapter():
    said["base"] = scores(plain)
give(said)
"""


@pytest.mark.slow
def test_a_base_and_its_adapters_from_the_hub(tmp_path):
    """Pushed by the command, fetched by name with an empty cache, switched: the same numbers."""
    with serve() as hub:
        writer = Client(populate(hub), tmp_path / "writer")
        pushed = writer.run(HEAD + PUSH, tmp_path)
        for kind in ("lora", "prompt"):
            done = writer.unibrivl("push", tmp_path / kind, f"org/{kind}", "--create")
            assert done.returncode == 0, done.stderr
            files = hub.repositories[f"org/{kind}"].find("main").files
            assert {"adapter_config.json", "adapter_model.safetensors"} <= files.keys()
            assert "model.safetensors" not in files
        fetched = Client(hub, tmp_path / "reader", READER).run(HEAD + FETCH)
    assert fetched["named"] == "org/base"
    assert fetched["lora"] == fetched["lora again"] == fetched["peft"] == pushed["lora"]
    assert fetched["prompt"] == pushed["prompt"] and fetched["base"] == pushed["base"]
    assert pushed["lora"] != pushed["base"] != pushed["prompt"]
