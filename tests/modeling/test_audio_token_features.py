"""Any audio encoder as features for an adapter: widths that are true, and no sound that minds its neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_towers import AUDIO, sounds, unibrivl_config
from transformers import Wav2Vec2FeatureExtractor

from unibrivl.audio import Waveform
from unibrivl.modeling import SpeechLMFeatureExtractor, UniBriVLModel, UniBriVLProcessor
from unibrivl.modeling.configuration_unibrivl import tower_config
from unibrivl.modeling.features_audio_token import SoundFeatures, sound_features
from unibrivl.modeling.towers_unibrivl import build_tower


class Recorded:
    """A feature extractor that gives, for however many clips, what a tower's own would: of the right shape."""

    sampling_rate = 16_000

    def __init__(self, kind: str):
        self.kind = kind

    def __call__(self, clips, sampling_rate, return_tensors):
        assert (sampling_rate, return_tensors) == (16_000, "pt")
        return sounds(self.kind, len(clips))


def tower(kind: str):
    torch.manual_seed(0)
    return build_tower(tower_config(dict(AUDIO[kind]), "speechlm"), "audio")


def unibrivl() -> tuple[UniBriVLModel, UniBriVLProcessor]:
    torch.manual_seed(0)
    return UniBriVLModel(unibrivl_config()).eval(), UniBriVLProcessor(SpeechLMFeatureExtractor())


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))).astype(np.float32)


@pytest.mark.parametrize("kind", sorted(AUDIO))
def test_every_audio_encoder_has_tokens_and_a_vector(kind):
    ears = sound_features(tower(kind), Recorded(kind))
    assert isinstance(ears, SoundFeatures)
    tokens, mask = ears.tokens([clip(0.2), clip(0.2, 1)])
    assert tokens.shape[::2] == (2, ears.width) and mask.shape == tokens.shape[:2]
    pooled = ears.pooled([clip(0.2), clip(0.2, 1)])
    mean = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(pooled, mean, atol=1e-5, rtol=0)


def test_a_sound_alone_is_what_it_is_among_others():
    ears = sound_features(tower("hubert"), Wav2Vec2FeatureExtractor(return_attention_mask=False))
    clips = [clip(0.3), clip(0.2, 1), clip(0.3, 2)]
    tokens, mask = ears.tokens(clips)
    for row, one in enumerate(clips):
        alone, _ = ears.tokens(one)
        torch.testing.assert_close(tokens[row][mask[row].bool()], alone[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(ears.pooled(clips)[row], ears.pooled(one)[0], atol=1e-5, rtol=0)
    assert mask.sum(1).tolist() == [14, 9, 14]


def test_unibrivl_gives_frames_or_its_place_among_pictures():
    model, processor = unibrivl()
    ears = sound_features(model, processor)
    tokens, mask = ears.tokens(clip(0.3))
    assert ears.width == 24 and tokens.shape[2] == 24 and mask.all()
    torch.testing.assert_close(ears.pooled(clip(0.3)), tokens.mean(1), atol=1e-5, rtol=0)
    native = sound_features(model, processor, space="native")
    assert native.width == 20 and native.tokens(clip(0.3))[0].shape == (1, 1, 20)
    matched = model.as_matcher(processor, space="native").encode_audio(clip(0.3))
    torch.testing.assert_close(native.pooled(clip(0.3)), matched, atol=1e-6, rtol=0)
    tower_alone = sound_features(model.audio_model, processor)
    torch.testing.assert_close(tower_alone.pooled(clip(0.3)), ears.pooled(clip(0.3)))


def test_what_already_gives_features_is_taken_as_it_is():
    ears = sound_features(tower("hubert"), Wav2Vec2FeatureExtractor())
    assert sound_features(ears) is ears


def test_a_wrong_rate_and_a_missing_part_are_refused():
    ears = sound_features(tower("hubert"), Wav2Vec2FeatureExtractor())
    with pytest.raises(ValueError, match="hears 16000 Hz and got 44100"):
        ears.pooled(Waveform(np.zeros(9000, np.float32), 44_100))
    with pytest.raises(ValueError, match="pass its feature extractor"):
        sound_features(tower("hubert"))
    with pytest.raises(ValueError, match="'features' or 'native'"):
        sound_features(*unibrivl(), space="outer")
