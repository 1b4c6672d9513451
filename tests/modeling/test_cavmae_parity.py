"""CAV-MAE against its own code's outputs (goldens), in both attention implementations; the full size is slow."""

from __future__ import annotations

import parity_cavmae as parity
import pytest
import torch

from unibrivl.metrics.ranking import CosineScores, median_rank, ranks, recall_at
from unibrivl.modeling.layers_cavmae import AUDIO, PLAIN
from unibrivl.modeling.modeling_cavmae_pretraining import contrastive_loss

STORED = {"small": ("pos.", "patchify."), "tiny": ("tiny11.",), "full": ("cavmae.", "ft.")}


def check(case, attention="sdpa"):
    rows = parity.differences(case, attention)
    assert all(row.passed for row in rows), parity.table(rows)
    compared = {row.name for row in rows}
    wanted = {name for name in parity.stored() if name.startswith(STORED[case])}
    assert wanted <= compared, "a stored output was not compared"


@pytest.mark.parametrize("case, attention", [("small", "sdpa"), ("tiny", "sdpa"), ("tiny", "eager")])
def test_golden(case, attention):
    """Features and logits within 8e-6, losses within 1e-6, statistics of the whole within 1e-5 of their unit."""
    check(case, attention)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_golden_of_the_released_size(attention):
    """191 and 165 million weights to draw."""
    check("full", attention)


@pytest.mark.parametrize("name", [name for name in parity.LAYOUTS if "." not in name])
def test_numbers_of_parameters_are_the_originals(name):
    state = {key: torch.empty(shape, device="meta") for key, shape in parity.LAYOUTS[name].items()}
    config = parity.infer_config(state, keep_unused_norms=True, **parity.heads(name))
    with torch.device("meta"):
        model = parity.kind_of(state)[0](config)
    assert sum(one.numel() for one in model.parameters()) == parity.LAYOUTS[f"{name}.__nparams__"]


@pytest.mark.parametrize(
    "mistake, least", [("eps 1e-6", 5e-6), ("tanh GELU", 1e-4), ("plain norms in the joint layer", 1e-2)]
)
def test_the_golden_notices(mistake, least):
    """Plausible mistakes move what is stored by several times what the right model differs from it, 1.6e-6."""
    model, given = parity.build.__wrapped__("CAVMAE_tiny11"), parity.inputs("tiny")
    for layer in [*model.cavmae.audio_layers, *model.cavmae.joint_layers]:
        if mistake == "tanh GELU":
            layer.activation = torch.nn.GELU(approximate="tanh")
        elif mistake == "eps 1e-6":
            for norm in (*layer.attention_norm.values(), *layer.mlp_norm.values()):
                norm.eps = 1e-6
        elif AUDIO in layer.attention_norm:
            layer.attention_norm[AUDIO] = layer.attention_norm[PLAIN]
            layer.mlp_norm[AUDIO] = layer.mlp_norm[PLAIN]
    with torch.inference_mode():
        found = model.cavmae.get_audio_features(given["input_values"]).last_hidden_state
    assert (found - parity.stored()["tiny11.feat_a"]).abs().max() > least


def test_kept_tokens_enter_in_the_order_of_their_noise():
    """The mask alone would not show it; the golden's encoder output does."""
    given = parity.inputs("tiny")
    with torch.inference_mode():
        found = parity.build("CAVMAE_tiny11")(**given).audio_last_hidden_state
    wanted = parity.stored()["tiny11.enc.ca"]
    places = given["audio_noise"].argsort(1)[:, :8].argsort(1)  # the order of their places instead
    assert (found.take_along_dim(places[..., None], 1) - wanted).abs().max() > 1
    assert (found - wanted).abs().max() < parity.LIMIT


def test_retrieval_as_the_original_measures_it():
    """Cosines and ranks with our metrics: the goldens' recalls at 1, 5 and 10 and the median rank."""
    sounds = parity.rng("retrieval.a").standard_normal((40, 16))
    pictures = parity.rng("retrieval.v").standard_normal((40, 16)) + 0.9 * sounds
    scores = CosineScores(sounds, pictures)
    for way, cosines in (("a2v", scores), ("v2a", scores.T)):
        places, wanted = ranks(cosines), parity.FACTS[f"retrieval.{way}"]
        for k in (1, 5, 10):
            assert recall_at(places, k) == wanted[f"R{k}"]
        assert median_rank(places) == wanted["MR"]


def test_one_direction_is_the_pictures():
    """Softmax over the sounds for each picture: it does not matter what else a sound resembles."""
    sounds, pictures = parity.drawn("one", 4, 8), parity.drawn("other", 4, 8)
    scores = torch.nn.functional.normalize(sounds, dim=1) @ torch.nn.functional.normalize(pictures, dim=1).t() / 0.05
    loss, _ = contrastive_loss(sounds, pictures, 0.05)
    torch.testing.assert_close(loss, -scores.log_softmax(0).diag().mean())
    both, _ = contrastive_loss(sounds, pictures, 0.05, bidirectional=True)
    torch.testing.assert_close(both, -(scores.log_softmax(0).diag().mean() + scores.log_softmax(1).diag().mean()) / 2)
