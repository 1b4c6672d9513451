"""Benchmarks of what models write: captions of Clotho and words of speech, kept on the disk, from any such model."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_brewclip
import tiny_datasets
import torch
from transformers.modeling_outputs import CausalLMOutput

from unibrivl.cli import main
from unibrivl.data import clotho
from unibrivl.embedder.writing import Letters, Recogniser, load_captioner, load_recogniser
from unibrivl.evaluation import evaluate, read_scores
from unibrivl.evaluation.encoders import AT_ONCE, Vectors
from unibrivl.metrics import caption_scores, meteor, word_error_rate
from unibrivl.modeling import SpeechLMConfig, SpeechLMFeatureExtractor, SpeechLMForCTC


class Mouth:
    """Says a sentence of every sound, and how often it was asked."""

    name, fingerprint = "mouth", "v1"

    def __init__(self):
        self.asked = 0

    def caption(self, paths):
        self.asked += len(paths)
        return ["rain of evaluation caption 1, of five" if "rain" in path else "" for path in paths]

    transcribe = caption


@pytest.fixture
def folder(tmp_path):
    return tiny_datasets.make_clotho(tmp_path / "clotho")


def test_captions_are_scored_as_the_metrics_say(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("unibrivl.evaluation.benchmarks.clotho.meteor_is_available", lambda: False)
    scores = evaluate("clotho", Mouth(), folder, tmp_path / "out", progress=False)
    listing = clotho.load(folder).split("evaluation")
    alone = caption_scores(Mouth().caption([one.audio for one in listing]), [one.texts for one in listing])
    assert {one.metric: one.value for one in scores} == alone.corpus
    first, *_, last = scores
    assert (first.metric, last.metric) == ("bleu1", "meteor_exact_stem")
    assert (first.n, first.expected, first.extra["tokenizer"]) == (2, 1045, "ptb_python")
    assert first.extra["references"] == 10 and first.low is None and last.low <= last.value <= last.high
    assert list(first.extra["captions"].values()) == ["rain of evaluation caption 1, of five", ""]


def test_meteor_stands_under_its_own_name_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("unibrivl.evaluation.benchmarks.clotho.meteor_is_available", lambda: True)
    monkeypatch.setattr(meteor, "meteor_java", lambda said, true: (0.125, [0.25, 0.0]))
    found = {one.metric: one.value for one in evaluate("clotho", Mouth(), folder, tmp_path / "out", progress=False)}
    assert found["meteor"] == 0.125 != found["meteor_exact_stem"]


def test_what_was_written_is_kept_and_nothing_else_is_believed(tmp_path):
    mouth, names = Mouth(), [f"{number} rain.wav" for number in range(AT_ONCE + 2)]
    first = Vectors(mouth, tmp_path, False).written("captions", names)
    assert Vectors(mouth, tmp_path, False).written("captions", names) == first and mouth.asked == AT_ONCE + 2
    [folder] = tmp_path.iterdir()
    short = min(folder.glob("captions-*.json"), key=lambda path: path.stat().st_size)
    for damage in ("{", "[]", short.read_text().replace("v1", "v2"), '{"fingerprint": "v1", "texts": {"a": 1}}'):
        asked = mouth.asked
        short.write_text(damage)
        assert Vectors(mouth, tmp_path, False).written("captions", names) == first and mouth.asked == asked + 2
    Vectors(mouth, tmp_path, False).written("transcripts", names[:2])
    assert len(list(folder.iterdir())) == 3


def test_a_killed_run_goes_on(tmp_path):
    mouth, names = Mouth(), [f"{number} rain.wav" for number in range(AT_ONCE + 2)]
    whole = mouth.caption

    def dies(paths):
        if len(paths) < AT_ONCE:
            raise KeyboardInterrupt
        return whole(paths)

    mouth.caption = dies
    with pytest.raises(KeyboardInterrupt):
        Vectors(mouth, tmp_path, False).written("captions", names)
    mouth.caption = whole
    assert len(Vectors(mouth, tmp_path, False).written("captions", names)) == mouth.asked == AT_ONCE + 2


@pytest.mark.parametrize(
    ("given", "message"), [(["a"], "wrote 1 texts for 2"), ("ab", "wrote 1 texts"), ([1, 2], "one string for each")]
)
def test_what_is_no_text_for_each_sound_is_refused(given, message):
    mouth = Mouth()
    mouth.caption = lambda paths: given
    with pytest.raises(ValueError, match=message):
        Vectors(mouth).written("captions", ["a", "b"])


def test_who_writes_nothing_is_told(folder, tmp_path):
    class Ears:
        name = "ears"

    with pytest.raises(ValueError, match="ears has no caption, which"):
        evaluate("clotho", Ears(), folder, tmp_path / "out")
    with pytest.raises(ValueError, match="writes nothing"):
        load_captioner("embedded")


# ---- words of speech


@pytest.fixture
def speech(tmp_path):
    root = tmp_path / "speech"
    rows = [("a.wav", "Twenty dogs, it's late.", "test"), ("b.wav", "two cats", "test"), ("c.wav", "no", "train")]
    tiny_datasets.table(root / "metadata.csv", ("file_name", "text", "split"), [*rows, ("d.wav", "gone", "test")])
    for number, (name, *_) in enumerate(rows):
        tiny_datasets.sound(root / name, number)
    return root


def test_word_error_rates_name_what_was_done_to_the_texts(speech, tmp_path):
    mouth = Mouth()
    mouth.transcribe = lambda paths: ["20 dogs its late" if "a.wav" in path else "two bats here" for path in paths]
    found = {one.metric: one for one in evaluate("speech_words", mouth, speech, tmp_path / "out", progress=False)}
    lower, whisper = found["word_error_rate"], found["word_error_rate_whisper_english"]
    said = ["Twenty dogs, it's late.", "two cats"]
    assert lower.value == word_error_rate(said, ["20 dogs its late", "two bats here"]).rate == pytest.approx(3 / 6)
    assert whisper.extra["substitutions"] == 1 + 1  # twenty is 20; "it's" is two words, and "its" one
    assert (lower.n, lower.expected, len(lower.missing)) == (2, 3, 1) and lower.extra["normalizer"] == "lower"
    assert lower.protocol == "speech_words-v1, lower" and whisper.protocol.endswith("whisper_english_without_spelling")
    assert lower.low == 0.25 and lower.high == 1.0


def test_a_pack_of_speech_is_read_as_it_lies(tmp_path):
    root = tiny_datasets.make_spoken_digits(tmp_path)
    mouth = Mouth()
    mouth.transcribe = lambda paths: ["the digit 1"] * len(paths)
    scores = evaluate("speech_words", mouth, root / "audio", tmp_path / "out", progress=False)
    assert scores[0].value == pytest.approx(1 / 6) and scores[0].n == 2


@pytest.fixture
def recogniser(tmp_path):
    """A SpeechLM with a CTC head, of the real classes at toy size."""
    from tiny_towers import AUDIO

    torch.manual_seed(0)
    fields = {name: value for name, value in AUDIO["speechlm"].items() if name != "model_type"}
    model = SpeechLMForCTC(SpeechLMConfig(**{**fields, "ctc_vocab_size": 33})).eval()
    with torch.no_grad():
        model.ctc_head.classifier.weight.normal_(std=1.0)
    model.save_pretrained(tmp_path / "letters")
    SpeechLMFeatureExtractor().save_pretrained(tmp_path / "letters")
    return tmp_path / "letters"


def test_letters_are_read_frame_by_frame(recogniser):
    found = load_recogniser(recogniser)
    clip = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    [text] = found.writer([clip])
    inputs = SpeechLMFeatureExtractor()([clip], sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        ids = found.writer.model(**inputs).logits[0].argmax(-1).tolist()
    letters, last = "", None
    for one in ids:
        letters += "|ETAONIHSRDLUMCWFGYPBVK'XJQZ"[one - 4] if one != last and 4 <= one < 32 else ""
        last = one
    assert text == " ".join(letters.replace("|", " ").split()) and len(set(letters)) > 1
    assert found.writer.spelled([4, 7, 4, 4, 6, 2, 32]) == "A T"


class Head(torch.nn.Module):
    """Sees in each sample the letter of its number."""

    class config:
        pad_token_id = 0

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, input_values):
        return CausalLMOutput(logits=torch.nn.functional.one_hot(input_values.long(), 4).float())


class Samples:
    sampling_rate = 10

    def __call__(self, clips, sampling_rate, return_tensors):
        return {"input_values": torch.tensor(np.stack(clips))}


class Spells:
    def decode(self, ids, skip_special_tokens, group_tokens):
        assert skip_special_tokens and not group_tokens  # letters that are equal still are two
        return "".join(" abc"[one] for one in ids)


def test_blanks_part_equal_letters():
    assert Letters(Head(), Samples(), Spells())([np.array([1, 1, 0, 1, 2, 2, 0, 0, 3])]) == ["aabc"]


@pytest.fixture
def whisper(tmp_path):
    folder = tmp_path / "whisper"
    tiny_brewclip.whisper().save_pretrained(folder)
    tiny_brewclip.feature_extractor().save_pretrained(folder)
    tiny_brewclip.asr_tokenizer().save_pretrained(folder)
    return folder


def test_the_command_asks_what_writes(recogniser, speech, tmp_path, capsys):
    out = tmp_path / "out"
    given = ["eval", "speech_words", "--data", str(speech), "--out", str(out), "--device", "cpu"]
    assert main([*given, "--model", str(recogniser)]) == 0
    assert "| speech_words | word_error_rate |" in capsys.readouterr().out
    [path] = (out / "speech_words").glob("*.json")
    assert read_scores(path)[0].fingerprint == load_recogniser(recogniser).fingerprint
    assert main(["eval", "clotho", *given[2:], "--model", str(recogniser)]) == 2
    assert "a SpeechLMForCTC and writes no captions" in capsys.readouterr().err


def test_a_whisper_transcribes(whisper, speech):
    found = load_recogniser(whisper)
    paths = [str(speech / f"{name}.wav") for name in "abc"]
    together = found.transcribe(paths)
    assert together == [found.transcribe([path])[0] for path in paths]
    assert isinstance(found, Recogniser) and found.fingerprint == load_recogniser(whisper).fingerprint
