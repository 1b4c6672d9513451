"""BrewCLIP with raw sounds: transcripts, windows of long sounds, the matcher, and SpeechCLIP of the same parts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tiny_brewclip as tiny
import tiny_towers
import torch
from PIL import Image
from torch.nn.functional import normalize

import unibrivl
from unibrivl.modeling import BREWCLIP_PRESETS, BrewCLIPMatcher, BrewCLIPModel, BrewCLIPProcessor, Transcriber
from unibrivl.modeling.channels_brewclip import pooled

TINY = {"num_attention_heads": 4, "intermediate_size": 40}


def transcriber(**fields) -> Transcriber:
    parts = SimpleNamespace(feature_extractor=tiny.feature_extractor(), tokenizer=tiny.asr_tokenizer())
    return Transcriber(tiny.whisper(), parts, **fields)


def matcher(**fields) -> BrewCLIPMatcher:
    return BrewCLIPMatcher(tiny.build(), tiny.processor(), **fields)


def test_what_is_written_does_not_depend_on_company():
    clips = tiny.clips(0.3, 1.0, 0.6, 2.5)
    together = transcriber(batch_size=3)(clips)
    assert together == [transcriber()([clip])[0] for clip in clips]
    assert all(together)


def test_silence_says_nothing():
    quiet = np.full(8000, 1e-4, np.float32)
    write = transcriber()
    assert write([np.zeros(8000, np.float32), quiet, tiny.clips(0.5)[0]])[:2] == ["", ""]
    assert transcriber(silence_dbfs=-100)([quiet]) != [""]
    assert write.settings["silence_dbfs"] == -60 and write.settings["language"] == "en"


def test_the_encoder_is_shared_with_the_model(tmp_path):
    whisper, clip = tiny.save_backbones(tmp_path)
    tiny.asr_tokenizer().save_pretrained(whisper)
    model = BrewCLIPModel.from_pretrained_parts(whisper, clip, **TINY)
    heard = BrewCLIPMatcher(model, tiny.processor())
    assert heard.asr_name == whisper
    write = heard.transcriber
    assert write.model.model.encoder is model.audio_model and write.name == whisper
    assert write(tiny.clips(0.4)) == transcriber()(tiny.clips(0.4))


def test_it_writes_in_half_precision_and_under_one_name(tmp_path):
    whisper, clip = tiny.save_backbones(tmp_path)
    tiny.asr_tokenizer().save_pretrained(whisper)
    model = BrewCLIPModel.from_pretrained_parts(whisper, clip, **TINY).to(torch.bfloat16)
    heard = BrewCLIPMatcher(model, tiny.processor())
    before = heard.settings
    assert heard.transcriber(tiny.clips(0.4))
    assert heard.settings == before and before["asr"]["asr_model"] == whisper
    model = BrewCLIPModel.from_pretrained_parts(whisper, clip, freeze_audio_model=False, **TINY)
    own = BrewCLIPMatcher(model, tiny.processor()).transcriber
    assert own.model.model.encoder is not model.audio_model


def test_frames_become_fewer_by_the_mean_of_real_ones():
    frames, mask = torch.arange(14.0).reshape(1, 7, 2), torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    means, real = pooled(frames, mask, 3)
    assert torch.equal(means[0, 0], frames[0, :3].mean(0)) and torch.equal(means[0, 1], frames[0, 3:5].mean(0))
    assert real.tolist() == [[1, 1, 0]]
    model = tiny.build(frame_pool=4)
    states, mask = model.audio_states(tiny.batch(0.5, 1.0)["input_features"], tiny.batch(0.5, 1.0)["attention_mask"])
    assert states.shape[1] == 13 and mask.sum(1).tolist() == [7, 13]


def test_windows_of_a_long_sound_count_by_their_length():
    model, process = tiny.build(), tiny.processor()
    [long] = tiny.clips(2.5)
    batch = process(audio=[long, long[:8000]], sampling_rate=tiny.RATE_HZ)
    assert batch["audio_rows"].tolist() == [0, 0, 0, 1]
    found = model.get_audio_features(**batch, channels=("e2e",)).e2e_channel_embeds
    pieces = process(audio=[long[:16000], long[16000:32000], long[32000:]], sampling_rate=tiny.RATE_HZ)
    alone = normalize(model.get_audio_features(**pieces, channels=("e2e",)).e2e_channel_embeds, dim=-1)
    expected = normalize((alone * torch.tensor([50.0, 50.0, 25.0])[:, None]).sum(0), dim=-1)
    assert torch.allclose(normalize(found[0], dim=-1), expected, atol=1e-5)
    cut = BrewCLIPProcessor(tiny.feature_extractor(), long_audio="truncate")(audio=[long], sampling_rate=tiny.RATE_HZ)
    assert "audio_rows" not in cut and len(cut["input_features"]) == 1
    with pytest.raises(ValueError, match="long_audio"):
        BrewCLIPProcessor(tiny.feature_extractor(), long_audio="both")


@pytest.mark.parametrize(("seconds", "text"), [(0.5, ""), (0.1, "a"), (3.6, "a b"), (0.5, tiny.transcripts(300)[0])])
def test_odd_sounds_and_texts_have_vectors(seconds, text):
    heard = matcher().hear(tiny.clips(seconds), [text])
    assert heard.fused.isfinite().all() and heard.fused.norm() == pytest.approx(1, abs=1e-5)
    assert heard.transcripts == [text] and set(heard.channels) == {"text", "e2e"}


def test_the_matcher_hears_what_the_model_does():
    listener = matcher(transcriber=transcriber())
    clips = tiny.clips(0.5, 0.8)
    found = listener.encode_audio(clips)
    batch = tiny.processor()(audio=clips, text=transcriber()(clips), sampling_rate=tiny.RATE_HZ)
    assert torch.allclose(found, listener.model.get_audio_features(**batch).pooler_output, atol=1e-6)
    pictures = [Image.new("RGB", (40, 30), "red"), Image.new("RGB", (30, 40), "blue")]
    assert listener.similarity(found, listener.encode_image(pictures)).shape == (2, 2)
    assert torch.allclose(listener.encode_text(["a b"]), listener.hear(clips[:1], ["a b"]).channels["text"], atol=1e-6)


def test_the_sound_alone_writes_nothing_down():
    def refuse(clips):
        raise AssertionError("somebody wrote down what was said")

    listener = matcher(transcriber=refuse, channels=("e2e",))
    heard = listener.hear(tiny.clips(0.5))
    assert heard.transcripts is None and set(heard.channels) == {"e2e"}


def test_without_a_whisper_transcripts_have_to_come_from_somewhere():
    config = tiny.config(audio_config=tiny_towers.AUDIO["hubert"])
    from transformers import Wav2Vec2FeatureExtractor

    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    processor = BrewCLIPProcessor(extractor, tiny.image_processor(), tiny.processor().tokenizer)
    listener = BrewCLIPMatcher(BrewCLIPModel(config).eval(), processor)
    with pytest.raises(ValueError, match="transcriber="):
        listener.encode_audio(tiny.clips(0.5))
    assert listener.hear(tiny.clips(0.5), ["a"]).fused.shape == (1, 24)


def test_load_gives_the_same_verbs(tmp_path):
    whisper, clip = tiny.save_backbones(tmp_path)
    tiny.asr_tokenizer().save_pretrained(whisper)
    BrewCLIPModel.from_pretrained_parts(whisper, clip, **TINY).save_pretrained(tmp_path / "brew")
    tiny.processor().save_pretrained(tmp_path / "brew")
    model = unibrivl.load(str(tmp_path / "brew"))
    sounds = tiny.clips(0.5, 0.8)
    audio = model.encode_audio(sounds, source_rate_hz=tiny.RATE_HZ)
    assert audio.vectors.shape == (2, 24)
    assert model.window_s == pytest.approx(tiny.SECONDS)
    [first, _] = model.classify(audio, ["a b", "c d"])
    assert sum(first.values()) == pytest.approx(1)
    other = unibrivl.load(str(tmp_path / "brew"))
    other.matcher.channels = ("e2e",)
    assert other.fingerprint != model.fingerprint


class TestSpeechCLIP:
    """HuBERT instead of Whisper, as in the original; the sizes are toys."""

    def model(self, preset: str) -> BrewCLIPModel:
        torch.manual_seed(0)
        audio = {"audio_config": tiny_towers.AUDIO["hubert"]}
        return tiny.shaken(BrewCLIPModel(tiny.config(**audio, **BREWCLIP_PRESETS[f"speechclip-{preset}"])))

    def sounds(self) -> dict[str, torch.Tensor]:
        sound = torch.randn(3, 8000, generator=torch.Generator().manual_seed(0))
        mask = torch.ones(3, 8000, dtype=torch.long)
        mask[2, 4000:] = 0
        return {"input_values": sound, "attention_mask": mask}

    def test_parallel_is_the_end_to_end_channel_alone(self):
        model = self.model("parallel")
        assert model.e2e.frame_projection is None and not len(model.prompts)
        assert len(model.layer_mix.logits) == model.config.audio_config.num_hidden_layers + 1
        found = model(**self.sounds(), pixel_values=tiny.pixels(3), return_loss=True)
        assert found.text_channel_embeds is None and found.loss.isfinite()
        found.loss.backward()
        assert model.layer_mix.logits.grad.abs().sum() > 0

    def test_cascaded_chooses_rows_of_the_token_table(self):
        model = self.model("cascaded")
        heard = model.get_audio_features(**self.sounds())
        assert heard.keyword_ids.shape == (3, 8)
        ids = torch.cat([torch.zeros(3, 1).long(), heard.keyword_ids, torch.full((3, 1), tiny.EOS)], 1)
        read = model.get_text_features(ids).pooler_output
        assert torch.allclose(read, heard.text_channel_embeds, atol=1e-5)

    def test_cascaded_learns_through_the_choice(self):
        model = self.model("cascaded").train()
        found = model(**self.sounds(), pixel_values=tiny.pixels(3), return_loss=True)
        found.loss.backward()
        assert model.keywords.pool.grad.abs().sum() > 0 and model.keywords.projection.weight.grad.abs().sum() > 0
        assert model.get_input_embeddings().weight.grad is None

    def test_cascaded_begins_where_words_are_and_keeps_to_those_allowed(self):
        model = self.model("cascaded")
        table = model.get_input_embeddings().weight
        model.keywords.fit_to(table, (0, tiny.EOS))
        assert torch.allclose(model.keywords.spread.weight[:32], table.std(0))
        assert not model.keywords.allowed[[0, tiny.EOS]].any()
        model.keywords.allow([3, 4, 5, 0])
        assert set(model.get_audio_features(**self.sounds()).keyword_ids.unique().tolist()) <= {3, 4, 5}
        with pytest.raises(ValueError, match="no row would be left"):
            model.keywords.allow([9])


def test_explain_tells_what_was_said_and_what_each_channel_found():
    from unibrivl.embedder.embedder import Embedder

    model = Embedder(matcher(transcriber=transcriber()))
    sounds = [unibrivl.Waveform(clip, tiny.RATE_HZ) for clip in tiny.clips(0.5, 0.8)]
    pictures = model.encode_image([Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")])
    plain = model.rank(sounds, pictures)
    told = model.rank(sounds, pictures, explain=True)
    assert [one.transcript for one in told] == transcriber()([sound.samples for sound in sounds])
    for one, expected in zip(told, plain, strict=True):
        assert list(zip(one.ids, one.scores, strict=True)) == [
            (name, pytest.approx(value)) for name, value in expected
        ]
        assert set(one.channels) == {"text", "e2e"} and len(one.channels["e2e"]) == 3
    assert [len(one.ids) for one in model.rank(sounds, pictures, explain=True, top=1)] == [1, 1]
    assert set(model.classify(sounds[0], ["a b", "c"], explain=True)[0].ids) == {"a b", "c"}
    model.batch_size = 1
    known = model.rank(sounds, pictures, explain=True, transcripts=["a b", "c d"])
    assert [one.transcript for one in known] == ["a b", "c d"]
    read_NM = model.encode_text(["a b", "c d"], against="image").vectors @ pictures.vectors.T
    for one, row in zip(known, read_NM, strict=True):
        assert dict(zip(one.ids, one.channels["text"], strict=True)) == pytest.approx(
            dict(zip(pictures.ids, row.tolist(), strict=True)), abs=1e-5
        )
    with pytest.raises(ValueError, match="2 sounds and 1 transcripts"):
        model.rank(sounds, pictures, explain=True, transcripts=["a b"])
    with pytest.raises(ValueError, match="goes with explain=True"):
        model.rank(sounds, pictures, transcripts=["a b", "c d"])
    with pytest.raises(ValueError, match="pass the sounds"):
        model.rank(model.encode_audio(sounds), pictures, explain=True)
