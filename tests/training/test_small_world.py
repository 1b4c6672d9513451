"""The small world: licences decide what is in it, parts do not overlap, texts belong to pictures; its stages run."""

import gzip
import json

import numpy as np
import pytest
import torch
from small_packs import write_packs

from unibrivl.training.config import ConfigError, override
from unibrivl.training.recipes.small_world import (
    DIGITS,
    KINDS,
    SmallWorld,
    SmallWorldData,
    balanced,
    idx,
    part_of,
    pixels_of,
    prompt_of,
    share_of,
    texts_of,
)


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    return write_packs(tmp_path_factory.mktemp("packs"))


def world_of(packs, variant="open"):
    return SmallWorld(SmallWorldData(str(packs), variant))


def test_open_holds_only_what_is_open_and_research_everything(packs):
    of_open, of_all = world_of(packs), world_of(packs, "research")
    assert all(one.is_open for one in of_open.items)
    assert "cat" not in of_open.labels and "cat" in of_all.labels
    closed = [one for one in of_all.items if not one.is_open]
    # the sounds and photographs of cats, and one dog
    assert {one.label for one in closed} == {"cat", "dog"} and len(closed) == 4 + 12 + 1
    assert len(of_open.items) == len(of_all.items) - len(closed)
    assert not any("NC" in licence or "ImageNet" in licence for licence in {one.licence for one in of_open.learned})


def test_every_picture_is_in_one_part_and_styles_are_kept_apart(packs):
    world = world_of(packs, "research")
    parts = {part: {one.id for one in world.pictures(part)} for part in ("world", "judge", "test")}
    every = {one.id for one in world.items if one.kind != "sound"}
    assert set.union(*parts.values()) == every and sum(map(len, parts.values())) == len(every)
    assert all(parts.values())
    drawings = [one for one in world.items if one.kind == "drawing"]
    assert {(one.style, part_of(one)) for one in drawings} == {("noto", "world"), ("emojitwo", "judge")}
    tests = [one for one in world.items if one.split == "test" and one.kind != "sound"]
    assert {part_of(one) for one in tests} == {"test"}


def test_the_share_of_a_name_is_the_same_everywhere():
    assert share_of("photos/dog/1.jpg") == pytest.approx(0.11066769, abs=1e-8)


def test_pictures_are_bytes_and_digits_are_dark_on_white(packs):
    world = world_of(packs)
    pixels = pixels_of(world.pictures("world"))
    assert pixels.shape[1:] == (3, 64, 64) and pixels.dtype == np.uint8
    digit = pixels_of(world.pictures("world", ("digit",))[:1])[0]
    assert (digit[:, :4] == 255).all() and digit.min() < 128


def test_texts_name_kind_and_class():
    assert prompt_of("photo", "dog") == "a photo of a dog"
    assert prompt_of("drawing", "rooster") == "a drawing of a rooster"
    assert prompt_of("digit", "seven") == "a handwritten seven"
    assert "a dog" in texts_of("sound", "dog") and "seven" in texts_of("sound", "seven")
    assert len(set(texts_of("photo", "clock_tick"))) == 8  # as a noun and by its label


def test_kinds_are_drawn_by_their_weights_and_rare_labels_more_often(packs):
    items = world_of(packs).pictures("world")
    chances = balanced(items, {"photo": 3.0, "drawing": 1.0, "digit": 0.0}, 1.0)
    of_kind = {kind: sum(p for p, one in zip(chances, items, strict=True) if one.kind == kind) for kind in KINDS}
    assert of_kind == pytest.approx({"photo": 0.75, "drawing": 0.25, "digit": 0.0})
    by_label = {}
    for p, one in zip(chances, items, strict=True):
        if one.kind == "photo":
            by_label[one.label] = by_label.get(one.label, 0) + p
    assert np.ptp(list(by_label.values())) < 1e-12  # power 1: every label as often


def test_what_is_no_pack_is_an_error_that_says_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"--set data\.folder="):
        SmallWorld(SmallWorldData())
    (tmp_path / "spoken_digits").mkdir()
    with pytest.raises(ConfigError, match="no folder sounds_and_pictures"):
        SmallWorld(SmallWorldData(str(tmp_path)))


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x01", b"\0\0\x08\x03" + b"\0" * 40, b"\0\0\x08\x01\0\0\0\x05ab"])
def test_a_damaged_file_of_digits_is_refused(tmp_path, content):
    path = tmp_path / "labels.gz"
    with gzip.open(path, "wb") as file:
        file.write(content)
    with pytest.raises(ConfigError, match="no MNIST file of 1 dimensions"):
        idx(path, 1)


QUICK = [
    *(f"{stage}.{key}" for stage in ("pictures", "words", "sounds", "latents", "generator")
      for key in ("steps=2", "batch_size=6", "warmup=1", "save_every=1", "log_every=1")),
    *("pictures.evaluate_every=2", "words.evaluate_every=2", "sounds.evaluate_every=2"),
    *("latents.evaluate_every=2", "generator.evaluate_every=0", "generator.data.views=2", "generator.precision=no"),
    *("words.model.hidden_size=32", "words.model.num_hidden_layers=1", "generator.model.channels=32,64"),
    *("pictures.precision=no", "sounds.precision=no", "latents.precision=no", "latents.model.channels=16"),
    *("sounds.data.seconds=1.0", "latents.model.blocks=1,1,1,1"),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(packs, tmp_path_factory):
    pytest.importorskip("diffusers")
    from unibrivl.cli.embedded_folder import assemble
    from unibrivl.training.embedded import run_stages

    out = tmp_path_factory.mktemp("embedded")
    run_stages("open", packs, out, QUICK)
    return out, assemble("open", packs, out)


def test_all_stages_make_a_pipeline_that_hears_and_draws(made, packs):
    from diffusers import StableDiffusionPipeline

    from unibrivl.pipelines import UniBriVLPipeline

    _, folder = made
    pipe = UniBriVLPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    sound = packs / "sounds_and_pictures" / "audio" / "dog" / "3.ogg"
    output = pipe(audio=str(sound), prompt="a photo of a dog", num_inference_steps=3, num_candidates=2)
    assert output.images[0].size == (64, 64) and len(output.candidates) == 2
    banks = pipe.config["label_banks"]
    assert banks["photo"]["a dog"] == "a photo of a dog" and banks["drawing"]["a dog"] == "a drawing of a dog"
    assert banks["photo"]["seven"] == "a handwritten seven" and "a cat" not in banks["photo"]
    output = pipe(audio=str(sound), label_bank="drawing", num_inference_steps=2, num_candidates=1)
    assert output.candidates[0].prompt in banks["drawing"].values()
    stock = StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, matcher=None, matcher_processor=None
    )
    stock.set_progress_bar_config(disable=True)
    assert stock("a drawing of a rooster", num_inference_steps=3).images[0].size == (64, 64)


def test_weights_are_stored_in_half_precision_with_their_licences(made):
    from safetensors import safe_open

    _, folder = made
    files = sorted(folder.rglob("*.safetensors"))
    assert {path.parent.name for path in files} == {"matcher", "text_encoder", "unet", "vae"}
    for path in files:
        with safe_open(path, "np") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        assert kinds <= {"F16", "I64"}, path
    text = (folder / "LICENSE-WEIGHTS").read_text()
    assert "CC BY-SA 4.0" in text and "somebody's dog" in text and "ImageNet" not in text
    assert "noto" in text and "emojitwo" not in text  # which only the judge sees
    labels = json.loads((folder / "labels.json").read_text())
    assert labels["chainsaw"] == {"noun": "a chainsaw", "sound": True, "photo": False, "drawing": False,
                                  "digit": False}  # fmt: skip
    assert set(DIGITS) <= labels.keys()


def test_finished_stages_are_left_alone_and_broken_ones_go_on(made, packs):
    from unibrivl.training.embedded import run_stages

    out, folder = made
    before = {path: path.stat().st_mtime_ns for path in out.rglob("model/*.safetensors")}
    told = []
    run_stages("open", packs, out, QUICK, ("pictures", "words"), told.append)
    assert len(told) == 2 and all(line.endswith("is there") for line in told)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(ConfigError, match="did you mean"):
        run_stages("open", packs, out.parent / "other", ["pictures.stepz=2"], only=("pictures",))
    with pytest.raises(ConfigError, match="is of no stage"):
        run_stages("open", packs, out, ["picture.steps=2"])
    assert folder.is_dir()


def test_the_adapter_is_learned_on_the_pipeline_and_lies_in_it(made, packs, tmp_path, caplog):
    import shutil

    from unibrivl.cli.embedded_folder import add_adapter
    from unibrivl.pipelines import AudioTokenPipeline, UniBriVLPipeline
    from unibrivl.training.embedded import run_adapter

    _, pipeline = made
    with pytest.raises(ConfigError, match="no pipeline"):
        run_adapter("open", packs, tmp_path)
    shutil.copytree(pipeline, tmp_path / "open" / "pipeline")
    quick = ["adapter.steps=2", "adapter.batch_size=2", "adapter.evaluate_every=0", "adapter.primary=none"]
    folder = add_adapter(run_adapter("open", packs, tmp_path, quick), tmp_path / "open")
    assert folder == tmp_path / "open" / "pipeline" / "audio_adapter"
    pipe = AudioTokenPipeline.from_pretrained(folder.parent)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.audio_adapter.config.base_name == "unibrivl embedded, open"
    sound = packs / "sounds_and_pictures" / "audio" / "dog" / "3.ogg"
    assert pipe("a drawing of <audio>", audio=str(sound), num_inference_steps=2).images[0].size == (64, 64)
    caplog.clear()
    assert not hasattr(UniBriVLPipeline.from_pretrained(folder.parent), "audio_adapter")
    assert "audio_adapter" not in caplog.text


def test_a_stage_without_the_one_before_says_which(packs, tmp_path):
    from unibrivl.training.recipes import load_recipe

    for name, wanted in (("small_words", "small_pictures"), ("small_sounds", "small_pictures")):
        recipe = load_recipe(name)
        config = override(recipe.config(), [f"data.folder={packs}", f"output_dir={tmp_path}"])
        with pytest.raises(ConfigError, match=wanted):
            recipe.build(config)
