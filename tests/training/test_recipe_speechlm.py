"""SpeechLM is pre-trained on a folder of sounds: units are found, learned, kept, and taken from others' files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch
from tiny_towers import PATCHES

from unibrivl.data.records import Sample
from unibrivl.modeling import SpeechLMConfig, SpeechLMForPreTraining, SpeechLMModel, UniBriVLModel
from unibrivl.modeling.front_end_speechlm import num_frames
from unibrivl.training.config import override
from unibrivl.training.journal import read_rows
from unibrivl.training.loop import train
from unibrivl.training.recipes import speechlm, speechlm_data, speechlm_units
from unibrivl.training.recipes.speechlm_data import LETTERS, Texts, chosen, divided, sounds_of
from unibrivl.training.sampler import Batches, Draw

RATE = 16_000
PITCHES_HZ = (300, 700, 1500, 3000)


def melody(seed: int, notes: int = 6) -> np.ndarray:
    """Notes of 100 ms that rise by one again and again: what is hidden follows from what is heard."""
    chance = np.random.default_rng(seed)
    seconds = np.arange(RATE // 10) / RATE
    first = int(chance.integers(len(PITCHES_HZ)))
    tones = [
        np.sin(2 * np.pi * PITCHES_HZ[(first + note) % len(PITCHES_HZ)] * seconds + chance.uniform(0, 6))
        for note in range(notes)
    ]
    return (0.3 * np.concatenate(tones) + 0.003 * chance.standard_normal(notes * len(seconds))).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 melodies below two folders, of two lengths, and a file that is no sound."""
    folder = tmp_path_factory.mktemp("sounds")
    for seed in range(40):
        place = folder / ("low" if seed % 2 else "high")
        place.mkdir(exist_ok=True)
        soundfile.write(place / f"{seed:02}.wav", melody(seed, 6 if seed % 4 else 9), RATE)
    (folder / "low" / "notes.txt").write_text("no sound\n")
    (folder / "low" / "broken.wav").write_bytes(b"RIFF")
    return folder


def settings_of(folder, output, *more):
    fields = [f"data.sounds={folder}", f"output_dir={output}", "data.num_units=8", "data.held_out=0.2"]
    fields += ["model.size=tiny", "model.dropout=0", "model.layerdrop=0", "objective.mask_length=5", "workers=0"]
    fields += ["objective.swap_length=3", "objective.mask_prob=0.5"]
    return override(speechlm.config(), [*fields, *more])


def test_it_learns_the_units_of_tones_it_cannot_hear(folder, tmp_path):
    """Loss falls, masked units are named better than by the commonest one, and the tower serves a UniBriVL."""
    words = ["steps=90", "batch_size=16", "learning_rate=0.005", "warmup=10", "evaluate_every=45", "clip=none"]
    config = settings_of(folder, tmp_path / "run", *words, "threads=1")
    outcome = train(config, speechlm.build)
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    losses = [row["train"]["units"] for row in rows if "train" in row]
    assert losses[-1] < 0.75 * losses[0]
    assert outcome.metrics["masked_accuracy"] > outcome.metrics["majority"] + 0.15
    assert outcome.metrics["masked_accuracy_speech"] > outcome.metrics["majority"] + 0.15
    model = SpeechLMForPreTraining.from_pretrained(outcome.model)
    assert model.config.unit_vocab_size == 4 + 8 + 1 and model.config.label_rate == 50
    tower = SpeechLMModel.from_pretrained(outcome.model)
    weight = tower.encoder.layers[0].attention.q_proj.weight
    torch.testing.assert_close(weight, model.speechlm.encoder.layers[0].attention.q_proj.weight)

    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    pictures = CLIPVisionModelWithProjection(CLIPVisionConfig(**PATCHES, projection_dim=16))
    both = UniBriVLModel.from_pretrained_towers(str(outcome.model), pictures, embed_dim=16, num_sa_layers=0)
    assert torch.equal(both.audio_model.tower.encoder.layers[0].attention.q_proj.weight, weight)

    # again from its own states: HuBERT's second round
    second = settings_of(folder, tmp_path / "second", "data.features=hidden", "data.layer=2", "batch_size=8",
                         f"data.teacher={outcome.model}")  # fmt: skip
    parts = speechlm.build(second)
    units = parts.data.units
    assert len(np.unique(units.labels)) == 8 and np.array_equal(units.counts, kept(tmp_path / "run").counts)


def kept(run):
    (found,) = (run / "units").iterdir()
    return speechlm_units.Units.load(found)


def test_units_lie_where_the_front_ends_frames_do():
    config = SpeechLMConfig()
    for samples in (399, 400, 719, 720, 5003, 16_000):
        heard = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
        frames = max(1, num_frames(samples, config))
        assert speechlm_units.log_mel(heard).shape == (frames, 40)
        assert speechlm_units.mfcc(heard).shape == (frames, 39)
    loud = np.zeros(16_000, np.float32)
    loud[320 * 20 : 320 * 20 + 400] = 1.0  # what frame 20 hears, and its neighbours in part
    energy = speechlm_units.log_mel(loud).mean(1)
    assert energy.argmax() in (19, 20, 21) and energy[18] == energy[0] and energy[22] == energy[0]


def test_differences_are_slopes():
    ramp = np.arange(10, dtype=np.float32)[:, None] * 3
    np.testing.assert_allclose(speechlm_units.differences(ramp)[2:-2], 3.0, rtol=1e-6)


def test_kmeans_finds_what_was_put_there():
    chance = np.random.default_rng(0)
    true_KF = chance.standard_normal((7, 5)).astype(np.float32) * 10
    which = chance.integers(0, 7, 3000)
    rows = true_KF[which] + 0.1 * chance.standard_normal((3000, 5)).astype(np.float32)
    found = speechlm_units.kmeans(rows, 7, seed=1)
    order, _ = speechlm_units.nearest(true_KF, found)
    assert sorted(order) == list(range(7))
    np.testing.assert_allclose(found[order], true_KF, atol=0.05)
    assert np.array_equal(order[which], speechlm_units.nearest(rows, found)[0])
    with pytest.raises(ValueError, match=r"data\.num_units"):
        speechlm_units.kmeans(rows[:3], 7)


def test_units_are_kept_until_sounds_or_settings_change(folder, tmp_path, monkeypatch):
    calls = []
    cluster = speechlm.cluster
    monkeypatch.setattr(speechlm, "cluster", lambda *arguments: calls.append(1) or cluster(*arguments))
    first = speechlm.build(settings_of(folder, tmp_path / "a", f"data.cache={tmp_path}"))
    again = speechlm.build(settings_of(folder, tmp_path / "b", f"data.cache={tmp_path}", "seed=4"))
    assert len(calls) == 1 and np.array_equal(first.data.units.labels, again.data.units.labels)
    speechlm.build(settings_of(folder, tmp_path / "b", f"data.cache={tmp_path}", "data.num_units=9"))
    assert len(calls) == 2
    samples = chosen((str(folder),), ())
    before = speechlm_units.fingerprint(samples, {})
    sound = folder / "low" / "01.wav"
    content = sound.read_bytes()
    sound.write_bytes(content[:-2] + b"\x07\x07")
    assert speechlm_units.fingerprint(samples, {}) != before
    sound.write_bytes(content)
    assert speechlm_units.fingerprint(samples, {}) == before


def test_examples_are_crops_with_their_units(folder, tmp_path):
    """A crop begins where a frame does: its units are those that the crop itself would have."""
    parts = speechlm.build(settings_of(folder, tmp_path, "data.max_s=0.4", "batch_size=4"))
    data = parts.data
    assert len(data) in (31, 32)  # 41 less the 9 that are held out, and less the broken one
    assert set(data.lengths) == {20}
    units, starts = data.units, set()
    for epoch in range(4):
        example = data[Draw(3, epoch, 1000 + epoch)]
        again = data[Draw(3, epoch, 1000 + epoch)]
        assert len(example["units"]) == 20 and len(example["samples"]) == 19 * 320 + 400
        assert np.array_equal(example["samples"], again["samples"])
        whole = speechlm.read(data.samples[data.clips[3]])
        start = next(
            at for at in range(0, len(whole), 320) if np.array_equal(whole[at : at + 6480], example["samples"])
        )
        starts.add(start)
        assert np.array_equal(units[data.clips[3]][start // 320 : start // 320 + 20], example["units"])
    assert len(starts) > 1
    batch = parts.collate([data[Draw(index, 0, index)] for index in range(4)])
    assert batch["input_values"].shape == (4, 6480) and "attention_mask" not in batch
    assert batch["unit_labels"].min() >= 4 and batch["unit_labels"].max() < 12


def test_clips_of_unlike_length_are_padded_with_no_unit(folder, tmp_path):
    parts = speechlm.build(settings_of(folder, tmp_path, "batch_size=4"))
    lengths = parts.data.lengths
    short, long = lengths.index(min(lengths)), lengths.index(max(lengths))
    batch = parts.collate([parts.data[Draw(short, 0, 0)], parts.data[Draw(long, 0, 1)]])
    assert (batch["unit_labels"] != 1).sum(1).tolist() == [lengths[short], lengths[long]]
    assert batch["attention_mask"].sum(1).tolist() == [9600, 14_400]


def test_batches_of_like_length_go_on_anywhere():
    """Every example once an epoch, in another order each; a position is still a number."""
    lengths = [index % 7 for index in range(50)]
    sampler = Batches(50, 4, 3, lengths=lengths)
    taken = [[draw.index for draw in draws] for _, draws in zip(range(30), sampler, strict=False)]
    assert len({index for batch in taken[:12] for index in batch}) == 48
    assert taken[:12] != taken[12:24]
    spread = [max(lengths[index] for index in batch) - min(lengths[index] for index in batch) for batch in taken]
    assert np.mean(spread) <= 1
    for start in (5, 12, 17):
        later = Batches(50, 4, 3, start, lengths=lengths)
        assert [[draw.index for draw in draws] for _, draws in zip(range(4), later, strict=False)] == taken[
            start : start + 4
        ]
    halves = [Batches(50, 4, 3, 5, rank, 2, lengths) for rank in range(2)]
    parts = [[draw.index for draw in next(iter(half))] for half in halves]
    assert parts[0] + parts[1] == taken[5]


def test_units_come_from_files(folder, tmp_path):
    """fairseq's .km with its .tsv, and a table; clips are found by name, and others are left out."""
    (tmp_path / "train.tsv").write_text("/somewhere/else\nlow/01.wav\t9600\nlow/03.wav\t9600\nhigh/00.wav\t14400\n")
    (tmp_path / "train.km").write_text("0 1 2\n3 3 3 3\n5\n")
    samples = chosen((str(folder),), ())
    units, have = speechlm_units.units_from(str(tmp_path / "train.km"), samples, 50)
    found = {samples[clip].id: units[number].tolist() for number, clip in enumerate(have)}
    assert found == {"high/00.wav": [5], "low/01.wav": [0, 1, 2], "low/03.wav": [3, 3, 3, 3]} and units.number == 6
    (tmp_path / "units.csv").write_text('file_name,units\n01,"0 1"\nhigh/02.wav,4 4\n')
    units, have = speechlm_units.units_from(str(tmp_path / "units.csv"), samples, 50)
    assert {samples[clip].id: units[number].tolist() for number, clip in enumerate(have)} == {
        "low/01.wav": [0, 1],
        "high/02.wav": [4, 4],
    }
    parts = speechlm.build(settings_of(folder, tmp_path, f"data.units={write_units(tmp_path, samples)}",
                                       "data.unit_rate_hz=100", "batch_size=4"))  # fmt: skip
    assert parts.model.config.label_rate == 100 and parts.data.ratio == 2
    terms = parts.objective(parts.model, parts.collate([parts.data[Draw(index, 0, index)] for index in range(4)]))
    assert all(float(term.detach()) > 0 for term in terms.values())
    (tmp_path / "train.km").write_text("0 1 2\n")
    with pytest.raises(ValueError, match="3 clips and .* 1 lines"):
        speechlm_units.units_from(str(tmp_path / "train.km"), samples, 50)
    (tmp_path / "units.csv").write_text("file_name,units\nother.wav,1 2\n")
    with pytest.raises(ValueError, match=r"none of these sounds.*found by id"):
        speechlm_units.units_from(str(tmp_path / "units.csv"), samples, 50)


def write_units(folder, samples):
    path = folder / "fine.jsonl"
    rows = [{"id": one.id, "units": [number % 7 for number in range(58)]} for one in samples if "broken" not in one.id]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_are_spelled(folder, tmp_path):
    """Phones keep the tokenizer's ids, and units of sounds come behind them."""
    from unibrivl.modeling import SpeechLMPhoneTokenizer

    lexicon = {"HELLO": ["HH", "AH0", "L", "OW1"], "IT'S": ["IH1", "T", "S"]}
    SpeechLMPhoneTokenizer(lexicon=lexicon).save_pretrained(tmp_path / "lexicon")
    (tmp_path / "texts.txt").write_text("Hello, it's hello\n\nunknown words\nhello\n")
    words = [f"data.texts={tmp_path / 'texts.txt'}", f"data.lexicon={tmp_path / 'lexicon'}", "batch_size=4"]
    parts = speechlm.build(settings_of(folder, tmp_path, *words))
    assert len(parts.data.texts) == 2 and parts.model.config.unit_vocab_size == 369 + 8 + 1
    batch = parts.collate([parts.data[Draw(index, 0, index)] for index in range(4)])
    sounded = batch["unit_labels"][batch["unit_labels"] != 1]
    assert sounded.min() >= 369 and batch["input_ids"].max() < 369
    ids, letters = parts.data.texts[0]
    assert "".join(LETTERS[letter - 4] for letter in letters) == "HELLO|IT'S|HELLO|" and ids[-1] == 2
    terms = parts.objective(parts.model, batch)
    assert terms.keys() == {"units", "feature_penalty", "letters"} and all(
        torch.isfinite(one) for one in terms.values()
    )
    parts.processor.save_pretrained(tmp_path / "both")
    assert {"preprocessor_config.json", "lexicon.txt"} <= {path.name for path in (tmp_path / "both").iterdir()}
    (tmp_path / "texts.txt").write_text("nothing known\n")
    with pytest.raises(ValueError, match="unibrivl lexicon"):
        Texts(str(tmp_path / "texts.txt"), SpeechLMPhoneTokenizer(lexicon=lexicon))
    with pytest.raises(ValueError, match=r"data\.lexicon"):
        speechlm.build(settings_of(folder, tmp_path, words[0]))


def test_groups_are_held_out_whole(folder):
    samples = [Sample(f"{group}/{take}", "x.wav", group=f"g{group}") for group in range(30) for take in range(3)]
    learned, held = divided(samples, 0.1, 0)
    assert sorted(learned + held) == list(range(90)) and 9 <= len(held) <= 11
    assert not {samples[clip].group for clip in learned} & {samples[clip].group for clip in held}
    few = [Sample(f"{speaker}/{take}", "x.wav", group=f"s{speaker}") for speaker in range(2) for take in range(30)]
    learned, held = divided(few, 0.1, 0)
    assert len(held) == 6 and len({few[clip].group for clip in learned}) == 2


def test_what_is_heard(folder, tmp_path):
    assert len(sounds_of(str(folder))) == 41
    (tmp_path / "list.csv").write_text(
        f"audio,split,start_s,end_s\n{folder}/low/01.wav,train,0.1,0.5\n{folder}/low/03.wav,test,,\n"
    )
    (only,) = chosen((str(tmp_path / "list.csv"),), ("test",))
    assert len(speechlm.read(only)) == 6400
    both = chosen((str(tmp_path / "list.csv"), str(folder)), ())
    assert len(both) == 43 and len({sample.id for sample in both}) == 43
    with pytest.raises(ValueError, match=r"--set data\.sounds"):
        chosen((), ())
    with pytest.raises(ValueError, match="does not exist"):
        chosen((str(tmp_path / "none"),), ())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no sound"):
        chosen((str(tmp_path / "empty"),), ())
    with pytest.raises(ValueError, match=r"data\.without"):
        chosen((str(tmp_path / "list.csv"),), ("test", "train"))


def test_of_two_runs_that_make_the_same_units_the_first_wins(tmp_path):
    units = speechlm_units.Units.joined([np.zeros(3, np.int32)], 4, 50)
    units.save(tmp_path / "key", {})
    speechlm_units.Units.joined([np.ones(3, np.int32)], 4, 50).save(tmp_path / "key", {})
    assert speechlm_units.Units.load(tmp_path / "key")[0].tolist() == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_teacher_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="name the folder `model` of a run"):
        speechlm.digest_of(tmp_path / "nowhere")


def test_a_crop_of_a_long_clip_reads_no_more(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 30 * 16_000).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", noise, 16_000, subtype="FLOAT")
    (sample,) = speechlm_data.sounds_of(str(tmp_path / "long.wav"))
    units = speechlm_units.Units.joined([np.arange(1499, dtype=np.int32)], 1499, 50)
    data = speechlm_data.SoundsAndUnits([sample], units, [0], speechlm_data.Grid(320, 400), 50)
    monkeypatch.setattr(speechlm_data, "load_audio", lambda *a, **k: pytest.fail("all of it was read"))
    example = data.crop(0, np.random.default_rng(3))
    first = int(example["units"][0])
    assert np.array_equal(example["samples"], noise[first * 320 : (first + 49) * 320 + 400])
    assert len(example["units"]) == 50


def test_a_tower_of_longer_frames_meets_every_fourth_unit(folder, tmp_path):
    """Frames of 80 ms: crops begin where they do, labels are units at their starts, short clips are one."""
    brief = np.random.default_rng(0).uniform(-0.1, 0.1, 2000).astype(np.float32)
    soundfile.write(tmp_path / "brief.wav", brief, RATE)
    words = ["model.size=compact", "data.max_s=0.4", "batch_size=4", f"data.sounds={folder},{tmp_path / 'brief.wav'}"]
    parts = speechlm.build(settings_of(folder, tmp_path / "run", *words))
    data, config = parts.data, parts.model.config
    assert data.grid == (1280, 3490) == (config.frame_hop, config.frame_field)
    assert data.ratio == 4 and data.max_frames == 5
    place = next(place for place, length in enumerate(data.lengths) if length == 5)
    example = data.crop(place, np.random.default_rng(5))
    assert len(example["samples"]) <= 4 * 1280 + 3490 and len(example["units"]) == 20
    output = parts.model.eval()(**parts.collate([example]), return_dict=True)
    assert np.array_equal(output.labels[0], example["units"][::4][: output.labels.shape[1]] + 4)
    assert set(parts.evaluate(parts.model)) >= {"masked_accuracy", "majority"}
    short = parts.processor([brief], sampling_rate=RATE, return_tensors="pt")
    assert short["input_values"].shape == (1, 3490)
    assert parts.model.speechlm(**short).last_hidden_state.shape[1] == 1


def test_a_teacher_of_other_frames_is_refused(tmp_path):
    SpeechLMModel(SpeechLMConfig(**speechlm.SIZES["compact"])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="another size"):
        speechlm_units.hidden_states(str(tmp_path), 1)
