"""Text -> SpeechLM-P phone units, as the original prepared its text, without its random choices.

A word becomes the phones of its pronunciation with Kaldi's word positions (`HH_B AH0_I L_I OW1_E`), each phone is
repeated for its mean duration in frames, silence stands at both ends, and `</s>` closes the sequence. A word the
lexicon does not know becomes `SPN_S`, spoken noise, as in the original; so does a number written in digits.

The lexicon is data: a dictionary of words to phones, saved as `lexicon.txt` beside the vocabulary. `unibrivl lexicon`
builds it from CMUdict.
"""

import json
import os
import re
import unicodedata

from transformers import PreTrainedTokenizer

from .code_unibrivl import CarriesCode

VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split()
CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split()

# SpeechLM: mean durations in frames, file mean5_and_std25_sil14_spn32.dict
PHONE_FRAMES, SILENCE_FRAMES, NOISE_FRAMES = 5, 14, 32
MAX_FRAMES = 4375  # SpeechLM: script repeat_withou_insert_sil_less_4375.py; longer texts are spoken faster
SILENCE, NOISE = "SIL", "SPN_S"
WORD = re.compile(r"[A-Z0-9']+")


def kaldi_phones() -> list[str]:
    """The 364 symbols of a Kaldi LibriSpeech `phones.txt`: silence, noise, phones in alphabetical order, marks.

    Kaldi's scripts order the phones as a hash table happens to, so a published checkpoint may number them otherwise:
    the dictionary inside the checkpoint decides, and the converter takes it from there.
    """
    stressed = [vowel + stress for vowel in VOWELS for stress in ("", "0", "1", "2")]
    special = [noise + position for noise in ("SIL", "SPN") for position in ("", "_B", "_E", "_I", "_S")]
    phones = [phone + position for phone in sorted(CONSONANTS + stressed) for position in ("_B", "_E", "_I", "_S")]
    return ["<eps>", *special, *phones, *(f"#{number}" for number in range(17))]


def with_positions(phones: list[str]) -> list[str]:
    """Kaldi's word-position suffixes: singleton, or begin, inside and end."""
    if len(phones) == 1:
        return [f"{phones[0]}_S"]
    return [f"{phones[0]}_B", *(f"{phone}_I" for phone in phones[1:-1]), f"{phones[-1]}_E"]


class SpeechLMPhoneTokenizer(CarriesCode, PreTrainedTokenizer):
    """
    Args:
        vocab_file (`str`, *optional*): vocab.json, unit -> id.
        lexicon_file (`str`, *optional*): one word and its phones a line; lines that start with `#` are comments.
        vocab (`dict[str, int]`, *optional*): the vocabulary itself; by default the published inventory in
            alphabetical order, for models trained from nothing.
        lexicon (`dict[str, list[str]]`, *optional*): upper-case word -> phones without positions.
    """

    vocab_files_names = {"vocab_file": "vocab.json", "lexicon_file": "lexicon.txt"}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(
        self,
        vocab_file: str | None = None,
        lexicon_file: str | None = None,
        vocab: dict[str, int] | None = None,
        lexicon: dict[str, list[str]] | None = None,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        **kwargs,
    ):
        if vocab is None and vocab_file is not None:
            with open(vocab_file, encoding="utf-8") as file:
                vocab = json.load(file)
        self.encoder = dict(vocab) if vocab is not None else self.default_vocab()
        self.decoder = {index: unit for unit, index in self.encoder.items()}
        if lexicon is None and lexicon_file is not None:
            lexicon = read_lexicon(lexicon_file)
        self.lexicon = lexicon or {}
        known = set(self.encoder)
        for word, phones in self.lexicon.items():
            if not phones or not known.issuperset(with_positions(phones)):
                raise ValueError(f"the lexicon says {word!r} as {' '.join(phones)!r}, which the vocabulary lacks")
        kwargs.setdefault("split_special_tokens", True)  # "<mask>" in a text is a word like any other
        super().__init__(
            bos_token=bos_token,
            pad_token=pad_token,
            eos_token=eos_token,
            unk_token=unk_token,
            mask_token=mask_token,
            **kwargs,
        )

    @staticmethod
    def default_vocab() -> dict[str, int]:
        """Unit -> id with the inventory of the P models: fairseq's four, 364 phones, `<mask>`; 369 in all."""
        units = ["<s>", "<pad>", "</s>", "<unk>", *kaldi_phones(), "<mask>"]
        return {unit: index for index, unit in enumerate(units)}

    @property
    def vocab_size(self) -> int:
        return len(self.encoder)

    def get_vocab(self) -> dict[str, int]:
        return {**self.encoder, **self.added_tokens_encoder}

    def words(self, text: str) -> list[str]:
        """The upper-case words of a text: accents and punctuation gone, apostrophes inside words kept."""
        plain = unicodedata.normalize("NFKD", text.replace("\u2019", "'")).upper()
        plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
        words = (word if word in self.lexicon else word.strip("'") for word in WORD.findall(plain))
        return [word for word in words if word]

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text that the lexicon does not know and that become spoken noise."""
        return [word for word in self.words(text) if word not in self.lexicon]

    def phones(self, text: str) -> list[str]:
        """The phones of a text with word positions, silence at both ends, not yet repeated."""
        if not self.lexicon:
            raise ValueError(
                "this tokenizer has no lexicon, so it cannot pronounce text. Run `unibrivl lexicon FOLDER` and load "
                "the tokenizer from FOLDER, or pass lexicon={'HELLO': ['HH', 'AH0', 'L', 'OW1'], ...}"
            )
        spoken = [SILENCE]
        for word in self.words(text):
            spoken += with_positions(self.lexicon[word]) if word in self.lexicon else [NOISE]
        return [*spoken, SILENCE]

    def _tokenize(self, text: str, **kwargs) -> list[str]:
        phones = self.phones(text)
        frames = {SILENCE: SILENCE_FRAMES, NOISE: NOISE_FRAMES}
        for faster in range(NOISE_FRAMES + 1):
            repeats = [max(1, frames.get(phone, PHONE_FRAMES) - faster) for phone in phones]
            if sum(repeats) < MAX_FRAMES:
                break
        return [phone for phone, times in zip(phones, repeats, strict=True) for _ in range(times)]

    def _convert_token_to_id(self, token: str) -> int:
        return self.encoder.get(token, self.encoder[str(self.unk_token)])

    def _convert_id_to_token(self, index: int) -> str:
        return self.decoder.get(index, str(self.unk_token))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return " ".join(tokens)

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: list[int] | None = None):
        """One text is its units and `</s>`; a pair is both, each closed."""
        closed = [*token_ids_0, self.eos_token_id]
        return closed if token_ids_1 is None else [*closed, *token_ids_1, self.eos_token_id]

    def get_special_tokens_mask(self, token_ids_0, token_ids_1=None, already_has_special_tokens: bool = False):
        if already_has_special_tokens:
            return super().get_special_tokens_mask(token_ids_0, token_ids_1, already_has_special_tokens=True)
        mask = [0] * len(token_ids_0) + [1]
        return mask if token_ids_1 is None else mask + [0] * len(token_ids_1) + [1]

    def create_token_type_ids_from_sequences(self, token_ids_0, token_ids_1=None):
        return [0] * len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        vocab_path, lexicon_path = (
            os.path.join(save_directory, prefix + name) for name in self.vocab_files_names.values()
        )
        with open(vocab_path, "w", encoding="utf-8") as file:
            json.dump(self.encoder, file, indent=0)
        if not self.lexicon:
            if os.path.exists(lexicon_path):  # an earlier tokenizer's
                os.remove(lexicon_path)
            return (vocab_path,)
        with open(lexicon_path, "w", encoding="utf-8") as file:
            file.writelines(f"{word} {' '.join(phones)}\n" for word, phones in sorted(self.lexicon.items()))
        return vocab_path, lexicon_path


def read_lexicon(path: str) -> dict[str, list[str]]:
    """Word -> phones of a file with one word and its phones a line. The first pronunciation of a word counts."""
    lexicon: dict[str, list[str]] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            word, *phones = line.split() or ["#"]
            if not word.startswith("#") and phones:
                lexicon.setdefault(word.upper(), phones)
    return lexicon


__all__ = ["SpeechLMPhoneTokenizer"]
