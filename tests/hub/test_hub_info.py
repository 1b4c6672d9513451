"""`unibrivl info ORG/NAME` over HTTP: the small files and the headers of the weights travel, the weights do not."""

from __future__ import annotations

import json

from unibrivl import MelEncoderConfig, MelEncoderFeatureExtractor, MelEncoderModel
from unibrivl.hub.facts import facts_of, open_saved


def test_of_a_private_model_on_the_hub(client, hub, tmp_path):
    folder = tmp_path / "ears"
    MelEncoderModel(MelEncoderConfig()).save_pretrained(folder)
    MelEncoderFeatureExtractor().save_pretrained(folder)
    pushed = client.unibrivl("push", folder, "org/ears", "--create", "--no-code", "--no-card")
    assert pushed.returncode == 0, pushed.stderr
    asked = len(hub.requests("GET"))
    done = client.unibrivl("info", "org/ears", "--json", "--no-fingerprint")
    assert done.returncode == 0, done.stderr
    found, local = json.loads(done.stdout), facts_of(open_saved(folder))
    for key in ("class", "parts", "parameters", "bytes", "licences", "sampling_rate"):
        assert found[key] == local[key], key
    assert (found["name"], len(found["revision"])) == ("org/ears", 40)
    weights = (folder / "model.safetensors").stat().st_size
    of_weights = [request for request in hub.requests("GET")[asked:] if "safetensors" in request.path]
    assert of_weights
    assert all("range" in request.headers for request in of_weights if request.host == "storage")
    assert not list(client.home.rglob("model.safetensors"))
    assert weights > 1e6

    for arguments, changes, message in (
        (("org/ears",), {"HF_TOKEN": None}, "private or gated"),  # its small files are in the cache by now
        (("org/ears",), {"HF_TOKEN": None, "HF_HOME": str(tmp_path / "elsewhere")}, "private or gated"),
        (("org/absent",), {}, "private or gated"),
        (("org/ears", "--revision", "v9"), {}, "has no revision 'v9'"),
    ):
        refused = client.unibrivl("info", *arguments, **changes)
        assert refused.returncode == 2, refused.stdout + refused.stderr
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1, refused.stderr
