"""The recipe `small_captioner` at toy size: true sentences, places of captions, and a folder that captions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_packs import write_packs
from tiny_towers import unibrivl_config

from unibrivl.cli import main
from unibrivl.modeling import SpeechLMFeatureExtractor, UniBriVLModel, UniBriVLProcessor
from unibrivl.training.config import ConfigError, override
from unibrivl.training.loop import train
from unibrivl.training.recipes import small_captioner
from unibrivl.training.recipes.small_captioner_words import THINGS, named, sentences
from unibrivl.training.recipes.small_world import DIGITS, NOUNS
from unibrivl.training.sampler import Draw

CAPTIONS = ("A dog barks, then rain falls", "Dogs bark loudly", "A man speaks", "One man speaks, and "
            "then another and another and another and another and another and another and another")  # fmt: skip


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    root = write_packs(tmp_path_factory.mktemp("packs"))
    (root / "captions").mkdir()
    rows = "".join(f'{number},x,0,"{text}"\n' for number, text in enumerate([*CAPTIONS, CAPTIONS[2], "Un caf\u00e9"]))
    (root / small_captioner.CAPTIONS).write_text(f"audiocap_id,youtube_id,start_time,caption\n{rows}", "utf-8")
    torch.manual_seed(0)
    UniBriVLModel(unibrivl_config("speechlm", "clip")).save_pretrained(root / "ears")
    UniBriVLProcessor(SpeechLMFeatureExtractor()).save_pretrained(root / "ears")
    return root


def configured(packs, *settings):
    given = [f"data.folder={packs}", f"model.matcher={packs / 'ears'}", f"data.cache={packs / 'targets'}",
             f"output_dir={packs / 'run'}", "model.width=32", "model.num_layers=1", "model.num_heads=2",
             "data.views=2", "data.seconds=0.5", "batch_size=8", "precision=no"]  # fmt: skip
    return override(small_captioner.config(), [*given, *settings])


def test_each_sentence_names_its_class_and_no_other():
    assert set(THINGS) == set(NOUNS)
    labels = (*THINGS, *DIGITS)
    for label in labels:
        assert len(set(sentences(label))) == len(sentences(label)) >= 4
        for text in sentences(label):
            assert named(text, labels) == {label}, text
            assert text == small_captioner.plain(text)
    with pytest.raises(ValueError, match="no sentences for 'violin'"):
        sentences("violin")


def test_a_caption_begins_at_the_mean_of_what_it_names(packs):
    built = small_captioner.build(configured(packs, "data.noise=0"))
    built.prepare()
    data = built.data
    assert data.texts == ["a dog barks then rain falls", "dogs bark loudly", "a man speaks"]  # once, short, readable
    assert [[data.labels[name] for name in names] for names in data.names_of] == [["dog", "rain"], ["dog"], []]
    dog, rain = map(data.labels.index, ("dog", "rain"))
    clips = [one for one, name in zip(data.parts_N, data.label_N, strict=True) if name == dog]
    assert len(clips) == 3 and all(len(parts) == 2 for parts in clips)
    mean = np.mean([np.mean([data.heard.block(part) for part in parts], 0) for parts in clips], 0)
    np.testing.assert_allclose(data.place([dog]), mean, atol=1e-6)
    np.testing.assert_allclose(data.place([dog, rain]), (data.mean_LPE[dog] + data.mean_LPE[rain]) / 2, atol=1e-6)
    np.testing.assert_allclose(data.place([]), data.mean_LPE.mean(0), atol=1e-6)
    spelled = {built.processor.tokenizer.decode(data[Draw(0, 0, seed)]["tokens"], skip_special_tokens=True).strip()
               for seed in range(400)}  # fmt: skip
    assert set(data.texts) < spelled and {"the spoken word seven", "a clock is ticking"} <= spelled
    assert spelled - set(data.texts) <= {text for label in data.labels for text in sentences(label)}


def test_shares_are_as_set_and_test_clips_never_train(packs):
    data = small_captioner.build(configured(packs, "data.read=0.4", "data.placed=0.25", "data.digits=0.3")).data
    clips, captions = data.chances_N[: len(data.items)], data.chances_N[len(data.items) :]
    spoken = np.array([one.label in DIGITS for one in data.items])
    assert clips[spoken].sum() == pytest.approx(0.6 * 0.3) and clips[~spoken].sum() == pytest.approx(0.6 * 0.7)
    assert captions.tolist() == pytest.approx([0.05, 0.05, 0.3])
    assert {one.split for one in data.items} == {"train"} and "cat" not in data.labels
    alone = small_captioner.build(configured(packs, "data.read=1")).data
    assert not alone.items and alone.chances_N.sum() == pytest.approx(1)


def test_a_run_learns_to_write_and_its_card_says_with_what(packs, capsys):
    """Toy ears tell these tones apart badly: what is right about real sounds, the benchmark says."""
    settings = ("data.read=0.2", "steps=60", "warmup=5", "learning_rate=0.01", "evaluate_every=60", "log_every=5")
    config = configured(packs, *settings)
    outcome = train(config, small_captioner.build)
    rows = [json.loads(line) for line in (Path(config.output_dir) / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train"]["loss"] for row in rows if "train" in row]
    assert losses[-1] < losses[0] / 2 and {"named_things", "named_digits", "cider"} < outcome.metrics.keys()
    capsys.readouterr()
    clip = packs / "sounds_and_pictures" / "audio" / "rooster" / "3.ogg"
    assert main(["caption", str(clip), "--model", str(outcome.model), "--device", "cpu", "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["language_model"]["kind"] == "gpt2" and named(line["caption"], (*THINGS, *DIGITS))
    written = (Path(outcome.model) / "README.md").read_text(encoding="utf-8")
    assert "new, GPT-2's kind with" in written and "AudioCaps' training part" in written


def test_scores_count_what_names_its_class_alone():
    said = ["a dog barks", "a dog barks in the rain", "rain falls", "somebody says two"]
    found = small_captioner.scores(said, ["dog", "dog", "dog", "two"], ["dog", "rain", "two"])
    assert found["named_things"] == pytest.approx(1 / 3) and found["named_digits"] == 1 and found["distinct"] == 1
    assert found["cider"] > 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [("data.read=1.5", "a share"), ("data.longest=40", "from 2 to 22"), ("data.folder=", "where are the packs")],
)
def test_settings_that_cannot_be_are_refused(packs, setting, message):
    with pytest.raises(ConfigError, match=message):
        small_captioner.build(configured(packs, setting))


def test_without_the_captions_one_is_told_what_to_do(packs, tmp_path):
    root = write_packs(tmp_path)
    settings = [f"data.folder={root}"]
    with pytest.raises(ConfigError, match=r"set data.read=0"):
        small_captioner.build(configured(packs, *settings))
    assert not small_captioner.build(configured(packs, *settings, "data.read=0")).data.texts
