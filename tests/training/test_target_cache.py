"""Cached targets: computed once, by whomever, found by content and tower, never half written."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from tiny_towers import unibrivl_config
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from unibrivl.modeling import UniBriVLModel
from unibrivl.training import target_cache, vector_parts
from unibrivl.training.augment import PictureAugmentation
from unibrivl.training.target_cache import TargetCache, Tower, UnreadableTargets, picture_tower
from unibrivl.training.vector_parts import Parts

WIDTH = 5
forks = pytest.mark.skipif(sys.platform != "linux", reason="forks, which other systems do badly with torch loaded")


def fill(cache: Path, folder: Path, log: Path, part_s: float, pause_s: float) -> None:
    """What a process of its own does: every file it computes is a line of its log."""
    target_cache.PART_S, target_cache.GROUP = part_s, 4

    def embed(found, seeds):
        time.sleep(pause_s * len(found))
        with log.open("a") as file:
            file.writelines(f"{text}\n" for text in found)
        return np.array([[float(text), 1, 2, 3, len(found)] for text in found])

    tower = Tower("slow" * 8, WIDTH, lambda path: Path(path).read_text(), embed)
    TargetCache(cache, tower).prepare([str(path) for path in folder.iterdir()])


def counting(print_of="a" * 64, views=1, augmented=False):
    """A tower over text files, and the list of what it was asked."""
    asked = []

    def embed(found, seeds):
        asked.extend(found)
        seeds = seeds or [0] * len(found)
        return np.array([[float(text), seed % 1000, 0, 0, 1] for text, seed in zip(found, seeds, strict=True)])

    return Tower(print_of, WIDTH, lambda path: str(float(Path(path).read_text())), embed, views, augmented), asked


def files(folder: Path, number: int) -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{place:03}.txt" for place in range(number)]
    for place, path in enumerate(paths):
        path.write_text(str(place))
        os.utime(path, (1e9, 1e9 + place))
    return [str(path) for path in paths]


def start(tmp_path: Path, log: str, part_s: float, pause_s: float):
    """Forked: a new interpreter would import torch for seconds."""
    arguments = (tmp_path / "cache", tmp_path / "files", tmp_path / log, part_s, pause_s)
    process = multiprocessing.get_context("fork").Process(target=fill, args=arguments)
    process.start()
    return process


def finish(process, log: Path) -> list[str]:
    process.join(120)
    assert process.exitcode == 0
    return log.read_text().split() if log.exists() else []


def test_a_row_is_computed_once_and_found_again_by_content(tmp_path):
    tower, asked = counting()
    paths = files(tmp_path / "files", 40)
    cache = TargetCache(tmp_path / "cache", tower)
    assert cache.prepare(paths) == 40 and len(asked) == 40
    assert cache.prepare(paths) == 0 and len(asked) == 40
    row = cache.row(paths[7])
    assert row.dtype == np.float32 and row.tolist() == [7, 0, 0, 0, 1]
    moved = tmp_path / "elsewhere.txt"
    moved.write_bytes(Path(paths[3]).read_bytes())
    again = TargetCache(tmp_path / "cache", tower)
    assert again.prepare([str(moved), *paths]) == 0 and len(asked) == 40
    assert again.row(str(moved))[0] == 3
    Path(paths[5]).write_text("9" * 1)  # of the same size, within a tick of the clock or not
    assert again.prepare(paths) == 0 and again.row(paths[5])[0] == 9  # the content of another file
    Path(paths[6]).write_text("77")
    assert again.prepare(paths) == 1 and again.row(paths[6])[0] == 77
    with pytest.raises(ValueError, match="call prepare"):
        again.row("never")


def test_hashes_are_kept_while_size_and_time_are_the_same(tmp_path, monkeypatch):
    tower, _ = counting()
    paths = files(tmp_path / "files", 6)
    TargetCache(tmp_path / "cache", tower).prepare(paths)
    read = []
    monkeypatch.setattr(target_cache, "digest", lambda path: read.append(path) or b"0" * 16)
    TargetCache(tmp_path / "cache", tower).prepare(paths)
    assert read == []
    os.utime(paths[2], (2e9, 2e9))
    TargetCache(tmp_path / "cache", tower).prepare(paths)
    assert [os.path.basename(path) for path in read] == ["002.txt"]
    (tmp_path / "cache" / "contents.json").write_text('{"broken')
    TargetCache(tmp_path / "cache", tower).prepare(paths)
    assert len(read) == 7


def test_views_are_drawn_from_the_content_and_more_of_them_keep_the_first(tmp_path):
    paths = files(tmp_path / "files", 5)
    two, asked = counting(views=2, augmented=True)
    cache = TargetCache(tmp_path / "cache", two)
    assert cache.prepare(paths) == 10
    assert cache.row(paths[1], 0)[1] != cache.row(paths[1], 1)[1]
    other, _ = counting(views=2, augmented=True)
    elsewhere = TargetCache(tmp_path / "other", other)
    elsewhere.prepare(paths[::-1])
    for view in range(2):
        assert np.array_equal(cache.row(paths[1], view), elsewhere.row(paths[1], view))
    asked.clear()
    four = TargetCache(tmp_path / "cache", dataclasses.replace(two, views=4))
    assert four.prepare(paths) == 10
    assert np.array_equal(four.row(paths[1], 1), cache.row(paths[1], 1))
    with pytest.raises(ValueError, match="would all be the same"):
        counting(views=2)
    with pytest.raises(ValueError, match="from 1"):
        counting(views=0)


def test_files_that_cannot_be_read_are_all_named_and_the_others_kept(tmp_path):
    tower, asked = counting()
    paths = files(tmp_path / "files", 20)
    for place in (3, 11):
        Path(paths[place]).write_text("no number")
        Path(paths[place] + "x").write_text("")
    gone = str(tmp_path / "gone.txt")
    with pytest.raises(UnreadableTargets, match="2 of 21 files cannot be read|3 of 21 files cannot be read") as caught:
        TargetCache(tmp_path / "cache", tower).prepare([*paths, gone])
    assert "003.txt" in str(caught.value) and "gone.txt" in str(caught.value) and "leave_out" in str(caught.value)
    assert len(asked) == 18
    rest = [path for place, path in enumerate(paths) if place not in (3, 11)]
    assert TargetCache(tmp_path / "cache", tower).prepare(rest) == 0


def test_parts_are_safetensors_and_are_joined_without_a_change(tmp_path, monkeypatch):
    monkeypatch.setattr(target_cache, "PART_S", 0.0)
    monkeypatch.setattr(target_cache, "GROUP", 2)
    tower, _ = counting()
    paths = files(tmp_path / "files", 20)
    cache = TargetCache(tmp_path / "cache", tower)
    reader = TargetCache(tmp_path / "cache", tower)
    cache.prepare(paths)
    reader.prepare(paths)
    folder = cache.parts.folder
    assert len(list(folder.glob("*.safetensors"))) == 10
    before = [cache.row(path) for path in paths]
    reader.row(paths[0])
    monkeypatch.setattr(target_cache, "MANY_PARTS", 4)
    TargetCache(tmp_path / "cache", tower).prepare(paths)
    (one,) = folder.glob("*.safetensors")
    held = load_file(one)
    assert held["embeds"].shape == (20, WIDTH) and held["keys"].shape == (20, 18)
    for path, row in zip(paths, before, strict=True):  # a reader that knows the old parts finds the new one
        assert np.array_equal(reader.row(path), row)
    copy = pickle.loads(pickle.dumps(reader))  # as worker processes get it
    assert np.array_equal(copy.row(paths[4]), before[4]) and copy.tower is None
    one.write_bytes(one.read_bytes()[:-3])
    with pytest.raises(ValueError, match="cut off: remove it"):
        TargetCache(tmp_path / "cache", tower).prepare(paths)


def test_what_dead_processes_left_is_swept_and_what_living_ones_write_is_not(tmp_path):
    parts = Parts(tmp_path, WIDTH, 18)
    old, new = tmp_path / "1.safetensors.partial", tmp_path / "2.safetensors.partial"
    old.touch(), new.touch()
    long_ago = time.time() - 2 * vector_parts.STALE_S
    os.utime(old, (long_ago, long_ago))
    parts.sweep()
    assert not old.exists() and new.exists()


def test_a_tower_that_gives_nonsense_is_refused(tmp_path):
    tower, _ = counting()
    paths = files(tmp_path / "files", 3)
    wide = dataclasses.replace(tower, width=7)
    with pytest.raises(ValueError, match="its width is 7"):
        TargetCache(tmp_path / "a", wide).prepare(paths)
    broken = dataclasses.replace(tower, embed=lambda found, seeds: np.full((len(found), WIDTH), np.nan))
    with pytest.raises(ValueError, match="not finite"):
        TargetCache(tmp_path / "b", broken).prepare(paths)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    tower, _ = counting()
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match="cache"):
        TargetCache(tmp_path / "cache", tower).prepare(files(tmp_path / "files", 3))


# ---- many processes, and death --------------------------------------------------------------------------------------


@forks
def test_two_processes_share_the_work(tmp_path):
    """Each begins somewhere else and leaves out what the other has stored."""
    paths = files(tmp_path / "files", 48)
    both = {log: start(tmp_path, log, 0.0, 0.02) for log in ("one", "two")}
    done = [finish(process, tmp_path / log) for log, process in both.items()]
    assert set(done[0]) | set(done[1]) == {str(place) for place in range(48)}
    assert len(done[0]) + len(done[1]) < 2 * 48  # not everything twice
    tower, asked = counting("slow" * 8)
    cache = TargetCache(tmp_path / "cache", tower)
    assert cache.prepare(paths) == 0 and not asked
    assert [cache.row(path)[0] for path in paths] == list(range(48))


@forks
def test_a_killed_process_loses_the_last_part_and_the_bits_stay_those_of_one_go(tmp_path):
    paths = files(tmp_path / "files", 24)
    tower, asked = counting("slow" * 8)
    folder = TargetCache(tmp_path / "cache", tower).parts.folder
    process = start(tmp_path, "killed", 0.0, 0.03)
    while len(list(folder.glob("*.safetensors"))) < 2:
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    held = len({row for part in folder.glob("*.safetensors") for row in map(bytes, load_file(part)["keys"])})
    assert 0 < held < 24
    assert len(finish(start(tmp_path, "rest", 0.0, 0.0), tmp_path / "rest")) <= 24 - held
    cache = TargetCache(tmp_path / "cache", tower)
    assert cache.prepare(paths) == 0 and not asked
    # the last number is how many shared its group: groups are those of the whole, whatever was there
    assert [cache.row(path)[[0, 4]].tolist() for path in paths] == [[place, 4] for place in range(24)]


def test_threads_of_one_process_may_prepare_at_once(tmp_path):
    paths = files(tmp_path / "files", 30)
    tower, _ = counting()
    caches = [TargetCache(tmp_path / "cache", tower) for _ in range(3)]
    threads = [threading.Thread(target=cache.prepare, args=(paths,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(cache.row(path)[0] == place for cache in caches for place, path in enumerate(paths))


# ---- pictures -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return UniBriVLModel(unibrivl_config("ast", "clip")).eval()


def processor(**changes):
    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, **changes)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[str]:
    folder, chance = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for place in range(5):
        Image.fromarray(chance.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{place}.png")
    return sorted(map(str, folder.iterdir()))


def test_the_plain_picture_is_what_the_tower_sees_alive(tmp_path, model, pictures):
    cache = TargetCache(tmp_path, picture_tower(model, processor()))
    cache.prepare(pictures)
    pixels = processor()([Image.open(path) for path in pictures], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        live = model.get_native_image_features(pixels).pooler_output.numpy()
    assert np.abs(np.stack([cache.row(path) for path in pictures]) - live).max() < 1e-6


def test_the_fingerprint_follows_weights_processor_and_augmentation(model):
    def prints(**changes):
        augmentation = changes.pop("augmentation", None)
        return picture_tower(model, processor(**changes), augmentation).fingerprint

    same = prints()
    assert prints() == same
    assert prints(image_mean=[0.5, 0.5, 0.5]) != same
    assert prints(augmentation=PictureAugmentation()) != same
    assert prints(augmentation=PictureAugmentation(hue=0.2)) != prints(augmentation=PictureAugmentation())
    weight = next(model.vision_model.parameters())
    before = weight.detach().clone()
    with torch.no_grad():
        weight.flatten()[0] += 1e-3
        assert prints() != same
        weight.copy_(before)
    assert prints() == same
    with torch.no_grad():
        next(model.audio_model.parameters()).add_(1e-3)  # another tower
    assert prints() == same


def test_a_changed_tower_finds_nothing_of_the_old(tmp_path, model, pictures):
    TargetCache(tmp_path, picture_tower(model, processor())).prepare(pictures)
    other = TargetCache(tmp_path, picture_tower(model, processor(image_mean=[0.5, 0.5, 0.5])))
    assert other.prepare(pictures) == len(pictures)


def test_views_of_a_picture_are_its_augmentations(tmp_path, model, pictures):
    plain = TargetCache(tmp_path, picture_tower(model, processor()))
    never = PictureAugmentation(jitter_prob=0, grey_prob=0)
    same = TargetCache(tmp_path, picture_tower(model, processor(), never, 2))
    other = TargetCache(tmp_path, picture_tower(model, processor(), PictureAugmentation(jitter_prob=1), 2))
    for cache in (plain, same, other):
        cache.prepare(pictures)
    for path in pictures:
        assert np.abs(same.row(path, 1) - plain.row(path)).max() < 1e-5  # what is not changed stays as it is
        assert np.abs(other.row(path, 0) - other.row(path, 1)).max() > 1e-4


def test_a_tower_that_trains_is_not_cached():
    model = UniBriVLModel(unibrivl_config("ast", "clip", freeze_vision_model=False))
    with pytest.raises(ValueError, match="the image tower trains"):
        picture_tower(model, processor())


def test_broken_pictures_are_named(tmp_path, model, pictures):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(UnreadableTargets, match=r"broken\.jpg"):
        TargetCache(tmp_path / "cache", picture_tower(model, processor())).prepare([*pictures, str(broken)])


def test_a_folder_that_cannot_be_written_is_said_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "a.bin").write_bytes(b"a")
    cache = TargetCache(tmp_path / "file", Tower("t", 2, str, lambda read, seeds: np.zeros((len(read), 2))))
    with pytest.raises(OSError, match="data.cache=FOLDER"):
        cache.prepare([str(tmp_path / "a.bin")])


@pytest.mark.parametrize("content", [b"\xff" * 64, b"\x08" + b"\0" * 7 + b"no json!", b"\x02" + b"\0" * 7 + b"{}"])
def test_a_part_that_is_none_is_named(content, tmp_path):
    """Not a MemoryError for a header that claims to be huge."""
    cache = TargetCache(tmp_path, Tower("t", 2, str, lambda read, seeds: np.zeros((len(read), 2))))
    (tmp_path / "a.bin").write_bytes(b"a")
    cache.prepare([str(tmp_path / "a.bin")])
    (cache.parts.folder / "9-x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="9-x.safetensors is no part of this cache"):
        cache.prepare([str(tmp_path / "a.bin")])


@pytest.mark.parametrize("text", ["[]", '{"a": [1]}', '{"a": null}'])
def test_a_list_of_contents_that_is_none_is_made_again(text, tmp_path):
    (tmp_path / "contents.json").write_text(text)
    (tmp_path / "a.bin").write_bytes(b"a")
    cache = TargetCache(tmp_path, Tower("t", 2, str, lambda read, seeds: np.zeros((len(read), 2))))
    assert cache.prepare([str(tmp_path / "a.bin")]) == 1
