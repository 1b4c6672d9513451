"""AudioToken's embedder as a file: converted, measured against a reference, and refused when it is another thing."""

from __future__ import annotations

import parity_audio_token as parity
import pytest
import tiny_text
import torch
from safetensors.torch import save_file
from transformers import CLIPTextModel

from unibrivl.cli import main
from unibrivl.convert.audio_token import convert_audio_token, convert_state
from unibrivl.convert.checkpoint import ConversionError
from unibrivl.convert.outputs import audio_token_outputs
from unibrivl.modeling import AudioTokenAdapter


def small_state(audio_width: int = 24, width: int = 32) -> dict[str, torch.Tensor]:
    """An embedder of toy size under the original's names."""
    shapes = {"fc1.weight": (audio_width, audio_width), "fc1.bias": (audio_width,)}
    shapes |= {"fc2.weight": (width, audio_width), "fc2.bias": (width,)}
    for part in ("un_models.0.embed", "pp_models.0.embed_X", "pp_models.0.embed_Y"):
        shapes |= {f"fga.{part}.weight": (width, width, 1), f"fga.{part}.bias": (width,)}
    shapes |= {"fga.un_models.0.feature_reduce.weight": (1, width, 1), "fga.un_models.0.feature_reduce.bias": (1,)}
    shapes["fga.reduce_potentials.0.weight"] = (1, 2, 1)
    return {key: torch.from_numpy(0.1 * parity.drawn(key, shape)) for key, shape in shapes.items()}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "embedder_learned_embeds.bin"
    torch.save(small_state(), path)
    return path


def test_converted_by_the_command_with_base_and_reference(file, tmp_path, capsys):
    torch.manual_seed(0)
    text_encoder = CLIPTextModel(tiny_text.text_config())
    text_encoder.save_pretrained(tmp_path / "base" / "text_encoder")
    convert_audio_token(file, tmp_path / "first")
    given = torch.randn(2, 7, 24)
    made = audio_token_outputs(AudioTokenAdapter.from_pretrained(tmp_path / "first"), {"features": given})
    save_file({"features": given, **{name: value.contiguous() for name, value in made.items()}}, tmp_path / "ref")
    words = ["convert", "audiotoken", str(file), str(tmp_path / "out"), "--base", str(tmp_path / "base")]
    assert main([*words, "--reference", str(tmp_path / "ref")]) == 0
    assert "5 tensors, worst" in capsys.readouterr().out
    adapter = AudioTokenAdapter.from_pretrained(tmp_path / "out", text_encoders={"text_encoder": text_encoder})
    assert adapter.config.mode == "attentive" and adapter.config.base_name == "base"
    assert adapter.config.token_fingerprints["text_encoder"].startswith("64x32:")


def test_the_width_says_which_stable_diffusion():
    for case, name in (("768", "stable-diffusion-v1-4"), ("1024", "stable-diffusion-2")):
        config = parity.adapter(case).config
        assert config.base_name.endswith(name) and config.audio_width == 2304
        assert config.token_widths == {"text_encoder": int(case)}


def test_every_key_is_accounted_for():
    state = small_state()
    assert len(convert_state(state)) == len(state)
    with pytest.raises(ConversionError, match=r"1 keys are not those.*fga.surprise"):
        convert_state({**state, "fga.surprise": torch.zeros(1)})


def test_what_is_no_embedder_is_refused(tmp_path):
    path = tmp_path / "x.bin"
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(ConversionError, match="no AudioToken embedder"):
        convert_audio_token(path, tmp_path / "out")
    state = small_state()
    del state["fc1.bias"]
    torch.save(state, path)
    with pytest.raises(ConversionError, match="fc1.bias"):
        convert_audio_token(path, tmp_path / "out")
    torch.save({**small_state(), "fc1.bias": torch.full((24,), float("nan"))}, path)
    with pytest.raises(ConversionError, match="NaN"):
        convert_audio_token(path, tmp_path / "out")
    torch.save({"fc2.weight": print}, path)
    with pytest.raises(ConversionError, match="was refused"):
        convert_audio_token(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_of_another_width_is_refused(file, tmp_path):
    CLIPTextModel(tiny_text.text_config(hidden_size=48)).save_pretrained(tmp_path / "base" / "text_encoder")
    with pytest.raises(ConversionError, match="words of 32 numbers.*words of 48"):
        convert_audio_token(file, tmp_path / "out", base=str(tmp_path / "base"))
    with pytest.raises(ConversionError, match="has no folder text_encoder"):
        convert_audio_token(file, tmp_path / "out", base=str(tmp_path))
