"""UniBriVL's processor: with any of its parts, beside each model it serves, saved and loaded, and what it refuses."""

from __future__ import annotations

import copy
import json
import pickle
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_towers import AUDIO, IMAGE, TEXT, unibrivl_config
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    ASTFeatureExtractor,
    AutoConfig,
    AutoModel,
    AutoProcessor,
    BertTokenizer,
    ClapFeatureExtractor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    PeAudioFeatureExtractor,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from unibrivl import load_audio
from unibrivl.modeling import (
    BriVLConfig,
    BriVLImageProcessor,
    BriVLModel,
    MelEncoderConfig,
    MelEncoderFeatureExtractor,
    SpeechLMConfig,
    SpeechLMFeatureExtractor,
    SpeechLMModel,
    SpeechLMPhoneTokenizer,
)
from unibrivl.modeling.modeling_unibrivl import UniBriVLModel
from unibrivl.modeling.processing_unibrivl import PARTS, UniBriVLProcessor

LEXICON = {"A": ["AH0"], "DOG": ["D", "AO1", "G"], "BARKS": ["B", "AA1", "R", "K", "S"]}
WORDS = ["a", "dog", "barks"]
SIDE = {"height": 32, "width": 32}


def phones() -> SpeechLMPhoneTokenizer:
    return SpeechLMPhoneTokenizer(lexicon=LEXICON)


def bert() -> BertTokenizer:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return BertTokenizer(vocab={word: index for index, word in enumerate(specials + WORDS)})


def clip_tokenizer() -> CLIPTokenizer:
    letters = sorted({letter for word in WORDS for letter in word})
    tokens = ["<|startoftext|>", *letters, *(f"{letter}</w>" for letter in letters), "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[])


def word_tokenizer() -> PreTrainedTokenizerFast:
    """What SigLIP's looks like from outside; the original needs sentencepiece."""
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(["<pad>", "</s>", *WORDS])}, "</s>"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")


def clip_pictures() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIDE)


def clap_extractor(**kwargs) -> ClapFeatureExtractor:
    return ClapFeatureExtractor(feature_size=32, sampling_rate=16000, max_length_s=1, frequency_max=8000, **kwargs)


def fields(table: dict, name: str) -> dict:
    return {key: value for key, value in table[name].items() if key != "model_type"}


def whole() -> UniBriVLProcessor:
    return UniBriVLProcessor(SpeechLMFeatureExtractor(), clip_pictures(), clip_tokenizer(), phones())


def noise(seconds=0.25, rate=16000, seed=0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).normal(size=round(seconds * rate)).astype(np.float32)


SOUNDS = [noise(), noise(0.15, seed=1)]
PICTURES = [Image.new("RGB", (40, 33), (200, 10, 10)), Image.new("L", (34, 50), 80)]
TEXTS = ["a dog barks", "a dog"]


def equal(ours, other) -> bool:
    return ours.keys() == other.keys() and all(torch.equal(ours[name], other[name]) for name in ours)


# ---- what it gives --------------------------------------------------------------------------------------------------


def test_each_kind_alone_and_all_together():
    """One batch of three kinds holds what each part gives by itself."""
    processor = whole()
    together = processor(SOUNDS, PICTURES, TEXTS, sampling_rate=16000)
    sounds = processor(audio=SOUNDS, sampling_rate=16000)
    pictures = processor(images=PICTURES)
    texts = processor(text=TEXTS)
    assert equal(together, {**texts, **sounds, **pictures})
    assert set(together) == set(processor.model_input_names)
    assert equal(sounds, processor.feature_extractor(SOUNDS, sampling_rate=16000, return_tensors="pt"))
    assert equal(pictures, processor.image_processor(PICTURES, return_tensors="pt"))
    native = processor.tokenizer(TEXTS, padding=True, return_tensors="pt")
    units = processor.unit_tokenizer(TEXTS, padding=True, return_tensors="pt")
    assert torch.equal(texts["input_ids"], native["input_ids"])
    assert torch.equal(texts["text_attention_mask"], native["attention_mask"])
    assert torch.equal(texts["unit_ids"], units["input_ids"])
    assert torch.equal(texts["unit_attention_mask"], units["attention_mask"])


def test_one_of_each_is_a_batch_of_one():
    processor = whole()
    one = processor(SOUNDS[0], PICTURES[0], TEXTS[0], sampling_rate=16000)
    assert equal(one, processor(SOUNDS[:1], PICTURES[:1], TEXTS[:1], sampling_rate=16000))
    assert {len(value) for value in one.values()} == {1}
    arrays = processor(SOUNDS[0], PICTURES[0], TEXTS[0], sampling_rate=16000, return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    lists = processor(text=TEXTS, return_tensors=None, padding=False)
    assert [len(row) for row in lists["input_ids"]] == [11, 6]


def test_waveforms_bring_their_rate(tmp_path):
    processor = whole()
    waveforms = [load_audio(clip, source_rate_hz=16000, rate_hz=16000) for clip in SOUNDS]
    assert equal(processor(audio=waveforms), processor(audio=SOUNDS, sampling_rate=16000))
    assert equal(processor(audio=waveforms[0]), processor(audio=torch.tensor(SOUNDS[0]), sampling_rate=16000))


def test_the_batch_moves_and_is_cast():
    batch = whole()(SOUNDS, PICTURES, TEXTS, sampling_rate=16000).to("cpu", torch.bfloat16)
    assert batch["input_values"].dtype == batch["pixel_values"].dtype == torch.bfloat16
    assert not batch["input_ids"].is_floating_point() and not batch["attention_mask"].is_floating_point()


# ---- beside every kind of model -------------------------------------------------------------------------------------

SERVED = {
    "speechlm-clip": (
        {"audio": "speechlm", "image": "clip"},
        lambda: UniBriVLProcessor(SpeechLMFeatureExtractor(), clip_pictures(), unit_tokenizer=phones()),
    ),
    "whisper-siglip": (
        {"audio": "whisper", "image": "siglip", "text": "siglip"},
        lambda: UniBriVLProcessor(
            WhisperFeatureExtractor(feature_size=16, chunk_length=1),
            SiglipImageProcessorPil(size=SIDE),
            word_tokenizer(),
            text_padding="max_length",
            text_max_length=16,
        ),
    ),
    "clap-clip": (
        {"audio": "clap", "image": "clip", "text": "clip"},
        lambda: UniBriVLProcessor(
            clap_extractor(truncation="rand_trunc"),
            clip_pictures(),
            clip_tokenizer(),
        ),
    ),
    "ast-vit": (
        {"audio": "ast", "image": "vit"},
        lambda: UniBriVLProcessor(
            ASTFeatureExtractor(num_mel_bins=32, max_length=64), ViTImageProcessorPil(size=SIDE)
        ),
    ),
    "hubert-brivl": (
        {"audio": "hubert", "image": "brivl", "text": "brivl"},
        lambda: UniBriVLProcessor(
            Wav2Vec2FeatureExtractor(return_attention_mask=False),
            BriVLImageProcessor(size=64),
            bert(),
            text_padding="max_length",
            text_max_length=12,
        ),
    ),
    "mel_encoder-clip": (
        {"audio": "mel_encoder", "image": "clip"},
        lambda: UniBriVLProcessor(
            MelEncoderFeatureExtractor.for_config(MelEncoderConfig(**fields(AUDIO, "mel_encoder"))),
            clip_pictures(),
        ),
    ),
    "pe_audio-clip": (
        {"audio": "pe_audio", "image": "clip"},
        lambda: UniBriVLProcessor(PeAudioFeatureExtractor(sampling_rate=16000, hop_length=32), clip_pictures()),
    ),
}


@pytest.mark.parametrize("case", SERVED)
def test_its_batch_is_what_the_model_takes(case, tmp_path):
    """model(**processor(...)) for every kind of tower, straight and after a round trip through the folder."""
    towers, make = SERVED[case]
    torch.manual_seed(0)
    model = UniBriVLModel(unibrivl_config(**towers)).eval()
    processor = make()
    texts = TEXTS if processor.tokenizer or processor.unit_tokenizer else None
    batch = processor(SOUNDS, PICTURES, texts, sampling_rate=16000)
    assert set(batch) == set(processor.model_input_names)
    with torch.no_grad():
        output = model(**batch)
    assert output.logits_audio_image.shape == (2, 2) and output.logits_audio_image.isfinite().all()
    assert texts is None or output.logits_audio_text.shape == (2, 2)

    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is UniBriVLProcessor and equal(again(SOUNDS, PICTURES, texts, sampling_rate=16000), batch)
    assert type(AutoModel.from_pretrained(tmp_path)) is UniBriVLModel


@pytest.mark.parametrize(
    "case", ["speechlm-clip", "hubert-brivl", "whisper-siglip", "mel_encoder-clip", "pe_audio-clip"]
)
def test_the_frame_mask_leaves_the_padding_out(case):
    """Of HuBERT too, whose extractor by default gives no mask; of Whisper, what fills its window up."""
    towers, make = SERVED[case]
    model = UniBriVLModel(unibrivl_config(**towers)).eval()
    batch = make()(audio=[*SOUNDS, noise(0.6, seed=2)], sampling_rate=16000)
    with torch.no_grad():
        mask = model.get_audio_features(**batch).frame_mask
    heard = mask.sum(1) / mask.shape[1]
    longest = 1.0 if towers["audio"] == "whisper" else 0.6
    expected = torch.tensor([0.25, 0.15, 0.6]) / longest
    assert torch.allclose(heard, expected, atol=0.02 + 1 / mask.shape[1]), heard


def test_clap_is_the_same_every_time():
    """Its extractor calls one clip of a batch longer, by chance, where none is; here none is ever called so."""
    fusing = UniBriVLProcessor(clap_extractor())
    for kind in ("pt", "np"):
        batch = fusing(audio=SOUNDS * 3, sampling_rate=16000, return_tensors=kind)
        assert (
            batch["input_features"].shape[1] == 4
            and not batch["is_longer"].any()
            and batch["is_longer"].shape == (6, 1)
        )
    assert fusing(audio=SOUNDS, sampling_rate=16000, return_tensors=None)["is_longer"] == [[False], [False]]
    config = unibrivl_config("clap")
    config.audio_config.enable_fusion = True
    model = UniBriVLModel(config).eval()
    assert model.get_audio_features(**fusing(audio=SOUNDS, sampling_rate=16000)).pooler_output.isfinite().all()


# ---- saving and loading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [names for number in (1, 2, 3, 4) for names in combinations(PARTS, number)], ids="-".join
)
def test_every_subset_of_parts_is_saved_and_loaded(names, tmp_path):
    full = whole()
    processor = UniBriVLProcessor(**{name: getattr(full, name) for name in names}, text_max_length=9)
    inputs = {
        "audio": SOUNDS if "feature_extractor" in names else None,
        "images": PICTURES if "image_processor" in names else None,
        "text": TEXTS if {"tokenizer", "unit_tokenizer"} & set(names) else None,
        **({"sampling_rate": 16000} if "feature_extractor" in names else {}),
    }
    batch = processor(**inputs)
    assert set(batch) == set(processor.model_input_names)
    assert processor.save_pretrained(tmp_path) == [str(tmp_path / "processor_config.json")]
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["parts"] == list(names) and saved["text_max_length"] == 9 and None not in saved.values()
    files = {path.name for path in tmp_path.iterdir()}
    own = {"processor_config.json", "unit_tokenizer"}
    assert ("unit_tokenizer" in files) is ("unit_tokenizer" in names)
    assert bool(files - own) is ("tokenizer" in names)
    if "unit_tokenizer" in names:
        assert {"vocab.json", "lexicon.txt"} <= {path.name for path in (tmp_path / "unit_tokenizer").iterdir()}
    for loader in (UniBriVLProcessor, AutoProcessor):
        again = loader.from_pretrained(tmp_path)
        assert type(again) is UniBriVLProcessor and again.get_attributes() == list(names)
        assert equal(again(**inputs), batch) and again.to_dict() == processor.to_dict()


def test_copies_are_equal():
    processor = whole()
    batch = processor(SOUNDS, PICTURES, TEXTS, sampling_rate=16000)
    for other in (copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
        assert equal(other(SOUNDS, PICTURES, TEXTS, sampling_rate=16000), batch)
        assert other.to_dict() == processor.to_dict()
    assert "SpeechLMFeatureExtractor" in repr(processor) and "unit_tokenizer" in repr(processor)


def test_parts_can_be_exchanged(tmp_path):
    """On a processor, and while one is loaded."""
    processor = UniBriVLProcessor(SpeechLMFeatureExtractor())
    processor.unit_tokenizer = phones()
    processor.save_pretrained(tmp_path)
    again = UniBriVLProcessor.from_pretrained(tmp_path, tokenizer=bert(), text_padding="max_length", text_max_length=7)
    assert again.get_attributes() == ["feature_extractor", "tokenizer", "unit_tokenizer"]
    assert again(text=TEXTS)["input_ids"].shape == (2, 7) and "unit_ids" in again(text=TEXTS)


def test_a_folder_without_a_processor_says_so(tmp_path):
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds no UniBriVLProcessor: save one there with save_pretrained, or build"):
        UniBriVLProcessor.from_pretrained(tmp_path)


# ---- arguments ------------------------------------------------------------------------------------------------------


def test_arguments_find_their_part():
    processor = whole()
    batch = processor(
        SOUNDS, PICTURES, TEXTS, sampling_rate=16000, padding="max_length", max_length=20, do_normalize=False
    )
    assert batch["input_ids"].shape == (2, 20) and batch["input_values"].shape == (2, 4000)  # texts come first
    assert batch["unit_ids"].shape[1] > 20 and batch["pixel_values"].min() >= 0
    again = processor(
        SOUNDS,
        PICTURES,
        TEXTS,
        audio_kwargs={"sampling_rate": 16000},
        text_kwargs={"padding": "max_length", "max_length": 20},
        images_kwargs={"do_normalize": False},
        unit_kwargs={"padding": "max_length", "max_length": 90},
    )
    assert again["unit_ids"].shape == (2, 90)
    assert all(torch.equal(again[name], batch[name]) for name in batch if not name.startswith("unit"))
    alone = processor(audio=SOUNDS, sampling_rate=16000, padding="max_length", max_length=5000)
    assert alone["input_values"].shape == (2, 5000) and alone["attention_mask"].sum(1).tolist() == [4000, 2400]
    units = UniBriVLProcessor(unit_tokenizer=phones())
    assert units(text=TEXTS, text_kwargs={"padding": "max_length", "max_length": 95})["unit_ids"].shape == (2, 95)
    cut = processor(text=TEXTS, max_length=4, truncation=True)
    assert cut["input_ids"].shape == (2, 4) and cut["unit_ids"].shape[1] > 20


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"paddding": True}, "CLIPTokenizer does not know paddding. It takes add_special_tokens, max_length"),
        ({"audio_kwargs": {"hop": 3}}, "SpeechLMFeatureExtractor does not know hop. It takes max_length, pad"),
        ({"images_kwargs": {"hop": 3}}, "CLIPImageProcessorPil does not know hop. It takes"),
        ({"unit_kwargs": {"hop": 3}}, "SpeechLMPhoneTokenizer does not know hop. It takes"),
        ({"padding": True, "text_kwargs": {"padding": False}}, "padding was passed twice.*leave one out"),
    ],
)
def test_arguments_that_no_part_knows_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        whole()(SOUNDS, PICTURES, TEXTS, **{"sampling_rate": 16000, **kwargs})


def test_an_argument_for_either_must_say_for_which():
    both = UniBriVLProcessor(WhisperFeatureExtractor(feature_size=16, chunk_length=1), clip_pictures())
    with pytest.raises(ValueError, match="do_normalize could be meant for either: .* audio_kwargs or images_kw"):
        both(SOUNDS, PICTURES, sampling_rate=16000, do_normalize=False)
    assert (
        both(SOUNDS, PICTURES, sampling_rate=16000, images_kwargs={"do_normalize": False})["pixel_values"].min() >= 0
    )


# ---- texts back -----------------------------------------------------------------------------------------------------


def test_ids_become_texts_again():
    processor = UniBriVLProcessor(tokenizer=bert())
    ids = processor(text=TEXTS)["input_ids"]
    assert processor.batch_decode(ids, skip_special_tokens=True) == TEXTS
    assert processor.decode(ids[0], skip_special_tokens=True) == TEXTS[0]
    wordless = UniBriVLProcessor(image_processor=clip_pictures())
    for decode in (wordless.batch_decode, wordless.decode):
        with pytest.raises(ValueError, match=r"no tokenizer.*UniBriVLProcessor\(tokenizer=...\)"):
            decode(ids)


# ---- what it refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "nothing to process: pass audio, images or text"),
        ({"audio": SOUNDS, "sampling_rate": 44100}, r"hears 16000 Hz and got 44100 Hz. Call unibrivl.load_audio"),
        ({"audio": np.zeros((2, 4000), np.float32), "sampling_rate": 16000}, "stereo, or a batch.*mix to one channel"),
        ({"audio": [np.zeros((2, 4000))], "sampling_rate": 16000}, "clip 0 has shape .*one channel"),
        ({"audio": [SOUNDS[0], np.full(500, np.nan)], "sampling_rate": 16000}, "clip 1 holds NaN"),
        ({"audio": [np.zeros(0)], "sampling_rate": 16000}, "clip 0 is empty"),
        ({"audio": [], "sampling_rate": 16000}, "no sound: pass at least one clip"),
        ({"images": []}, "no picture: pass at least one"),
        ({"text": []}, "a string or a list of strings, and not empty"),
        ({"text": ["a dog", 3]}, "a string or a list of strings"),
        ({"text": ["a dog", " "]}, "text 1 is empty: leave it out"),
    ],
)
def test_bad_input_is_refused_with_the_way_out(inputs, message):
    with pytest.raises(ValueError, match=message):
        whole()(**inputs)


@pytest.mark.parametrize(
    ("kind", "value", "part"),
    [("audio", SOUNDS, "feature_extractor"), ("images", PICTURES, "image_processor"), ("text", TEXTS, "tokenizer")],
)
def test_a_part_that_is_missing_is_named(kind, value, part):
    parts = {name: getattr(whole(), name) for name in ("feature_extractor", "image_processor")}
    parts.pop(part, None)
    with pytest.raises(ValueError, match=rf"no {part}, so it takes no .*It has .*UniBriVLProcessor\({part}=...\)"):
        UniBriVLProcessor(**parts)(**{kind: value})


def test_a_processor_needs_a_part_and_the_right_one():
    with pytest.raises(ValueError, match="at least one of feature_extractor, image_processor, tokenizer, unit_token"):
        UniBriVLProcessor()
    with pytest.raises(TypeError, match="CLIPImageProcessorPil for argument feature_extractor"):
        UniBriVLProcessor(clip_pictures())


@pytest.mark.parametrize(
    ("extractor", "longest"),
    [
        (WhisperFeatureExtractor(feature_size=16, chunk_length=1), 16000),
        (ASTFeatureExtractor(num_mel_bins=32, max_length=64), 64 * 160 + 399),
        (clap_extractor(), 16000),
    ],
    ids=["whisper", "ast", "clap"],
)
def test_sound_that_would_be_cut_off_is_refused(extractor, longest):
    """Whisper and AST hear the beginning of a long clip, CLAP a piece drawn by chance; nothing would tell."""
    processor = UniBriVLProcessor(extractor)
    too_long = noise((longest + 1) / 16000)
    fits = too_long[:-1]
    assert processor(audio=[SOUNDS[0], fits], sampling_rate=16000)
    with pytest.raises(ValueError, match=r"clip 1 lasts .* would hear .*: cut it with unibrivl.split_windows"):
        processor(audio=[SOUNDS[0], too_long], sampling_rate=16000)
    if isinstance(extractor, ASTFeatureExtractor):  # one sample more is one frame more, and that frame would be gone
        roomy = ASTFeatureExtractor(num_mel_bins=32, max_length=65, do_normalize=False)
        frames = [roomy(clip, sampling_rate=16000)["input_values"][0] for clip in (fits, too_long)]
        assert not frames[0][64].any() and frames[1][64].any()


# ---- from towers ----------------------------------------------------------------------------------------------------


def test_the_parts_of_speechlm_and_brivl(tmp_path):
    ear, eye = tmp_path / "ear", tmp_path / "eye"
    SpeechLMModel(SpeechLMConfig(**fields(AUDIO, "speechlm"))).save_pretrained(ear)
    SpeechLMFeatureExtractor().save_pretrained(ear)
    config = BriVLConfig(vision_config=fields(IMAGE, "brivl"), text_config=fields(TEXT, "brivl"))
    BriVLModel(config).save_pretrained(eye)
    BriVLImageProcessor(size=64).save_pretrained(eye)
    bert().save_pretrained(eye)

    silent = UniBriVLProcessor.from_pretrained_towers(str(ear), str(eye))
    assert silent.get_attributes() == ["feature_extractor", "image_processor", "tokenizer"]  # no unit tokenizer there
    phones().save_pretrained(ear)
    processor = UniBriVLProcessor.from_pretrained_towers(str(ear), str(eye))
    assert processor.get_attributes() == list(PARTS)
    assert (processor.text_padding, processor.text_max_length) == ("max_length", 12)
    model = UniBriVLModel.from_pretrained_towers(str(ear), str(eye), embed_dim=24, num_sa_layers=1, num_sa_heads=2)
    batch = processor(SOUNDS, PICTURES, TEXTS, sampling_rate=16000)
    assert batch["input_ids"].shape == (2, 12) and batch["pixel_values"].shape == (2, 3, 64, 64)
    assert model(**batch).logits_image_text.shape == (2, 2)
    without = UniBriVLProcessor.from_pretrained_towers(str(ear), str(eye), text=False)
    assert without.get_attributes() == ["feature_extractor", "image_processor"]


@pytest.mark.parametrize("with_tokenizer", [False, True])
def test_the_parts_of_hubert_and_clip(with_tokenizer, tmp_path, caplog):
    """Without its files a CLIP folder would give transformers a tokenizer of two tokens."""
    ear, eye = tmp_path / "ear", tmp_path / "eye"
    AutoModel.from_config(AutoConfig.for_model(**AUDIO["hubert"])).save_pretrained(ear)
    Wav2Vec2FeatureExtractor().save_pretrained(ear)
    CLIPModel(
        CLIPConfig(vision_config=fields(IMAGE, "clip"), text_config=fields(TEXT, "clip"), projection_dim=20)
    ).save_pretrained(eye)
    clip_pictures().save_pretrained(eye)
    if with_tokenizer:
        clip_tokenizer().save_pretrained(eye)
    processor = UniBriVLProcessor.from_pretrained_towers(str(ear), str(eye))
    assert (processor.tokenizer is not None) is with_tokenizer and processor.unit_tokenizer is None
    assert ("brings no tokenizer" in caplog.text) is not with_tokenizer
    if with_tokenizer:
        assert processor(text="a dog barks " * 9)["input_ids"].shape == (1, 16)  # as many as CLIP has positions for
