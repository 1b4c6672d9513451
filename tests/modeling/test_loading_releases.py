"""One file and several releases of transformers, which give the modules of its towers other names.

CLIP's and SigLIP's towers had all of their weights in one inner module, `text_model` or `vision_model`, and at some
release after 5.4 lost it. The later releases read both kinds of files; here the earlier ones do too. A stand-in plays
the tower of the release that is not installed.
"""

from __future__ import annotations

import pytest
import tiny_cavtmae
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModel, PreTrainedConfig, PreTrainedModel

from unibrivl.modeling import CAVTMAEModel, modeling_cavtmae
from unibrivl.modeling.loading_unibrivl import CheckedLoading, CheckpointMismatch, wrapper_renamings

INNER = "text_model.text_model."


class WrappedText(PreTrainedModel):
    """CLIP's text encoder as transformers 5.4 has it, where the installed one has no inner module."""

    config_class = CLIPTextModel.config_class
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.text_model = CLIPTextModel(config)
        self.post_init()

    def get_input_embeddings(self):
        return self.text_model.get_input_embeddings()

    def forward(self, *args, **kwargs):
        return self.text_model(*args, **kwargs)


def wraps(config) -> bool:
    return any(key.startswith("text_model.") for key in CLIPTextModel(config).state_dict())


@pytest.fixture
def older(monkeypatch) -> None:
    """Text encoders are built with an inner module, whichever transformers is installed."""
    if not wraps(tiny_cavtmae.config().text_config):
        monkeypatch.setattr(modeling_cavtmae, "new_text_tower", WrappedText)


def flattened(folder) -> dict[str, torch.Tensor]:
    """The folder's weights, in its file as the later releases write them."""
    file = folder / "model.safetensors"
    state = {key.replace(INNER, "text_model."): value for key, value in load_file(file).items()}
    save_file(state, file, {"format": "pt"})
    return state


def test_a_release_whose_towers_wrap_reads_what_a_later_one_saved(older, tmp_path):
    model = tiny_cavtmae.build()
    model.save_pretrained(tmp_path)
    written = flattened(tmp_path)
    assert not any(key.startswith(INNER) for key in written)
    loaded = CAVTMAEModel.from_pretrained(tmp_path)
    assert sum(key.startswith(INNER) for key in loaded.state_dict()) > 20
    given = tiny_cavtmae.everything()
    for ours, other in zip(model(**given).to_tuple()[:3], loaded(**given).to_tuple()[:3], strict=True):
        assert torch.equal(ours, other)
    loaded.save_pretrained(tmp_path / "again")  # as this release has it
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == loaded.state_dict().keys()
    CAVTMAEModel.from_pretrained(tmp_path / "again")


def test_what_is_missing_behind_a_wrapper_is_still_refused(older, tmp_path):
    tiny_cavtmae.build().save_pretrained(tmp_path)
    state = flattened(tmp_path)
    del state["text_model.final_layer_norm.bias"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointMismatch, match=rf"lacks 1 .*{INNER}final_layer_norm\.bias"):
        CAVTMAEModel.from_pretrained(tmp_path)


# ---- which keys -----------------------------------------------------------------------------------------------------


class Tower(PreTrainedModel):
    config_class = PreTrainedConfig

    def __init__(self, config, children: tuple[str, ...]):
        super().__init__(config)
        for name in children:
            setattr(self, name, nn.Linear(2, 2))
        self.post_init()


class Trunk(CheckedLoading, PreTrainedModel):
    config_class = PreTrainedConfig
    base_model_prefix = "trunk"

    def __init__(self, config, *children: str):
        super().__init__(config)
        self.seen = Tower(config, children)
        self.post_init()


class Head(CheckedLoading, PreTrainedModel):
    config_class = PreTrainedConfig
    base_model_prefix = "trunk"

    def __init__(self, config, *children: str):
        super().__init__(config)
        self.trunk = Trunk(config, *children)
        self.post_init()


@pytest.mark.parametrize(
    ("cls", "key", "read"),
    [
        (Trunk, "seen.encoder.vision_model.bias", "seen.vision_model.encoder.vision_model.bias"),
        (Trunk, "seen.vision_model.bias", "seen.vision_model.bias"),
        (Trunk, "unseen.encoder.bias", "unseen.encoder.bias"),
        (Head, "trunk.seen.encoder.bias", "trunk.seen.vision_model.encoder.bias"),
        (Head, "seen.encoder.bias", "seen.vision_model.encoder.bias"),  # of a file of the trunk alone
    ],
)
def test_the_wrappers_name_is_put_where_it_is_missing(cls, key, read):
    for renaming in wrapper_renamings(cls(PreTrainedConfig(), "vision_model")):
        key, _ = renaming.rename_source_key(key)
    assert key == read


@pytest.mark.parametrize("children", [("vision_model", "visual_projection"), ("encoder",), ()])
def test_other_towers_are_left_alone(children):
    assert wrapper_renamings(Trunk(PreTrainedConfig(), *children)) == []
