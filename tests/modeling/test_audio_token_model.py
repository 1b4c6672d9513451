"""The audio-token adapter: where it begins, what it makes of masks, which base it belongs to, and that it is saved."""

from __future__ import annotations

import copy

import pytest
import tiny_text
import torch
from transformers import AutoModel, CLIPTextModel

from unibrivl.modeling import AudioTokenAdapter, AudioTokenAdapterConfig
from unibrivl.modeling.token_table_audio_token import (
    embedding_module,
    mean_norm,
    same_table,
    table_fingerprint,
    table_of,
)

MODES = ("residual", "attentive", "resampler")
BOTH = {"text_encoder": 32, "text_encoder_2": 48}


def adapter(mode: str, **fields) -> AudioTokenAdapter:
    torch.manual_seed(0)
    small = {"audio_width": 32, "hidden_size": 32, "num_resampler_layers": 2, "num_resampler_heads": 4}
    return AudioTokenAdapter(AudioTokenAdapterConfig(mode=mode, **{**small, "token_widths": BOTH, **fields})).eval()


def encoder(seed: int = 0, **fields) -> CLIPTextModel:
    torch.manual_seed(seed)
    return CLIPTextModel(tiny_text.text_config(**fields)).eval()


def features(number: int = 3, tokens: int = 6, width: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randn(number, tokens, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", MODES)
def test_words_for_every_text_encoder_from_tokens_or_from_one_vector(mode):
    model = adapter(mode, num_words=3)
    for given in (features(), features()[:, 0]):
        words = model(given).words
        assert {name: tuple(found.shape) for name, found in words.items()} == {
            name: (3, 3, width) for name, width in BOTH.items()
        }


def test_residual_begins_at_the_features_at_the_length_of_a_row():
    """AAI, exactly: nu f / |f| where the widths are one, and that length where they are not."""
    model = adapter("residual", num_words=2, token_norms={"text_encoder": 0.37, "text_encoder_2": 0.5})
    pooled = features()[:, 0]
    words = model(pooled).words
    for word in range(2):
        wanted = 0.37 * pooled / pooled.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(words["text_encoder"][:, word], wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(words["text_encoder_2"].norm(dim=-1), torch.full((3, 2), 0.5), atol=1e-6, rtol=0)
    turned = model.heads["text_encoder_2"].to_width.weight
    torch.testing.assert_close(turned.T @ turned, torch.eye(32), atol=1e-5, rtol=0)


def test_residual_does_not_mind_how_long_the_features_are():
    model = adapter("residual", token_widths={"text_encoder": 32})
    words = [model(scale * features()).words["text_encoder"] for scale in (1, 70)]
    torch.testing.assert_close(*words, atol=1e-6, rtol=0)


def test_every_part_of_the_residual_learns():
    model = adapter("residual", num_words=2).train()
    for _ in range(2):  # the first step moves the last layer, which lets the gradient through
        model.zero_grad()
        words = model(features()).words
        sum((found - 1).square().sum() for found in words.values()).backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.01 * weight.grad
    assert all(weight.grad.abs().sum() > 0 for weight in model.parameters())


@pytest.mark.parametrize("mode", MODES)
def test_tokens_that_are_not_real_count_for_nothing(mode):
    model = adapter(mode)
    short, mask = features(tokens=4), torch.ones(3, 6, dtype=torch.long)
    mask[:, 4:] = 0
    padded = torch.cat([short, 50 * features(tokens=2, seed=5)], dim=1)
    alone, together = model(short).words, model(padded, mask).words
    for name in BOTH:
        torch.testing.assert_close(alone[name], together[name], atol=2e-6, rtol=0)


def test_the_attention_says_what_counted():
    weights = adapter("attentive", num_words=2)(features()).weights["text_encoder"]
    assert weights.shape == (3, 2, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2))
    assert adapter("residual")(features()).weights is None


def test_the_cosine_with_the_mean_is_the_mean_of_the_cosines():
    graph = adapter("attentive").heads["text_encoder"].graphs[0]
    hidden = features(2, 5)
    left = torch.nn.functional.normalize(graph.left(hidden), dim=-1)
    right = torch.nn.functional.normalize(graph.right(hidden), dim=-1)
    pairwise = graph(hidden, None)[3]
    torch.testing.assert_close(pairwise, (left @ right.transpose(1, 2)).mean(-1), atol=1e-6, rtol=0)


def test_dropout_is_for_training_alone():
    model = adapter("attentive", attention_dropout=0.5)
    with torch.no_grad():  # or the unary branch says next to nothing at first
        for graph in (head.graphs[0] for head in model.heads.values()):
            graph.reduce.weight.mul_(100)
            graph.mix.weight.fill_(30.0)
    same = [model(features()).weights["text_encoder"] for _ in range(2)]
    assert torch.equal(*same)
    other = [model.train()(features()).weights["text_encoder"] for _ in range(2)]
    assert not torch.equal(*other)


@pytest.mark.parametrize("mode", MODES)
def test_saved_and_loaded_it_is_the_same(mode, tmp_path):
    base = encoder()
    model = AudioTokenAdapter.for_base(
        {"text_encoder": base}, "org/base", mode=mode, audio_width=24, hidden_size=32, num_resampler_heads=4
    ).eval()
    model.save_pretrained(tmp_path)
    again = AudioTokenAdapter.from_pretrained(tmp_path, text_encoders={"text_encoder": base})
    assert type(AutoModel.from_pretrained(tmp_path)) is AudioTokenAdapter
    before, after = model.config.to_diff_dict(), again.config.to_diff_dict()
    assert {name: after[name] for name in before if name[0] != "_"} == {
        name: value for name, value in before.items() if name[0] != "_"
    }
    given = features(width=24)
    assert torch.equal(model(given).words["text_encoder"], again(given).words["text_encoder"])


def test_an_adapter_knows_its_base():
    base = encoder()
    config = AudioTokenAdapter.for_base({"text_encoder": base}, "org/base", audio_width=24).config
    assert config.token_widths == {"text_encoder": 32}
    assert config.token_norms["text_encoder"] == pytest.approx(mean_norm(table_of(base)))
    assert same_table(config.token_fingerprints["text_encoder"], table_of(base))


def test_another_base_is_refused_by_both_names(tmp_path):
    AudioTokenAdapter.for_base({"text_encoder": encoder()}, "org/mine", audio_width=24).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"made for org/mine \(text_encoder 64 x 32, .*org/theirs reads words by"):
        AudioTokenAdapter.from_pretrained(
            tmp_path, text_encoders={"text_encoder": encoder(seed=1)}, base_name="org/theirs"
        )
    wide = encoder(hidden_size=48)
    with pytest.raises(ValueError, match="64 x 48"):
        AudioTokenAdapter.from_pretrained(tmp_path, text_encoders={"text_encoder": wide})
    with pytest.raises(ValueError, match=r"org/mine.*lacks text_encoder"):
        AudioTokenAdapter.from_pretrained(tmp_path, text_encoders={"text_encoder_2": encoder()})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_table_in_half_precision_or_with_rows_behind_it_is_the_same_table(dtype):
    base = encoder()
    recorded = table_fingerprint(table_of(base))
    longer = copy.deepcopy(base)
    longer.resize_token_embeddings(70)
    assert same_table(recorded, table_of(longer))
    assert same_table(recorded, table_of(copy.deepcopy(base).to(dtype)))
    assert not same_table(recorded, table_of(encoder(seed=1)))
    assert not same_table(recorded, 1.05 * table_of(base))


def test_what_is_offloaded_cannot_be_compared_and_makes_no_adapter():
    with torch.device("meta"):
        away = CLIPTextModel(tiny_text.text_config())
    assert same_table(table_fingerprint(table_of(encoder())), table_of(away))
    with pytest.raises(ValueError, match="offloaded"):
        AudioTokenAdapter.for_base({"text_encoder": away})


def test_the_table_of_t5_is_the_one_its_encoder_reads():
    from transformers import T5Config, T5EncoderModel

    t5 = T5EncoderModel(T5Config(d_model=16, d_ff=16, d_kv=4, num_layers=1, num_heads=2, vocab_size=30))
    assert embedding_module(t5) is t5.encoder.embed_tokens


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": "poetic"}, "residual, attentive, resampler"),
        ({"token_widths": {}}, "names no text encoder"),
        ({"num_words": 0}, "num_words must be at least 1"),
        ({"mode": "resampler", "hidden_size": 30, "num_resampler_heads": 4}, "multiple of num_resampler_heads"),
        ({"audio_width": "wide"}, "audio_width"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(fields, words):
    with pytest.raises(Exception, match=words):
        AudioTokenAdapterConfig(**fields)


def test_features_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"must be \(batch, 32\).*as CAVT-MAE gives them"):
        adapter("residual", features_name="CAVT-MAE")(torch.zeros(2, 5, 31))
