"""What the small recipes are made of: words find their places, sounds mix by kind, heads begin spread out, losses."""

import numpy as np
import pytest
import torch
from small_packs import write_packs

from unibrivl.training.config import ConfigError, override
from unibrivl.training.recipes import load_recipe
from unibrivl.training.sampler import Draw

SMALL = ("batch_size=8", "precision=no")


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    return write_packs(tmp_path_factory.mktemp("packs"))


@pytest.fixture(scope="module")
def folders(packs, tmp_path_factory):
    """A tower and a text encoder that nobody has trained for long."""
    from unibrivl.training.embedded import run_stages

    out = tmp_path_factory.mktemp("stages")
    quick = [f"{stage}.{key}" for stage in ("pictures", "words")
             for key in ("steps=2", "batch_size=6", "warmup=1", "save_every=2", "evaluate_every=0")]  # fmt: skip
    quick += ["pictures.precision=no", "words.primary=none"]
    run_stages("open", packs, out, quick, ("pictures", "words"))
    return out / "open"


def built(name, packs, folders, *settings):
    recipe = load_recipe(name)
    takes = {"small_words": ["model.tower"], "small_sounds": ["model.pictures"]}[name]
    paths = [f"{key}={folders / 'pictures' / 'model'}" for key in takes]
    if name == "small_sounds":
        paths += [f"model.words={folders / 'words' / 'model'}", "data.seconds=1.0"]
    torch.manual_seed(0)
    return recipe.build(override(recipe.config(), [f"data.folder={packs}", *paths, *SMALL, *settings]))


def batch_of(parts, count=12, first=0):
    return parts.collate([parts.data[Draw(index % len(parts.data), 0, first + index)] for index in range(count)])


def test_classes_without_pictures_have_a_place_far_from_the_others(packs, folders):
    places = built("small_words", packs, folders).data
    assert len(set(places.names)) == len(places.names)
    row = places.names.index("chainsaw")
    cosines = places.embeds_PV @ places.embeds_PV[row]
    cosines[row] = -1
    assert cosines.max() < 0.9 and not any(name.endswith(" chainsaw") for name in places.names)
    assert places.texts[places.place_of_text.index(row)] == "the sound of a chainsaw"
    torch.testing.assert_close(places.embeds_PV.norm(dim=1), torch.ones(len(places.names)))


def test_any_text_can_be_read_and_known_words_are_one_token(packs, folders):
    tokenizer = built("small_words", packs, folders).processor
    for text in ("a photo of a rooster", "the handwritten digit seven"):
        assert tokenizer.tokenize(text) == [f"{word}</w>" for word in text.split()]
    strange = tokenizer("Xylophon, 42 - ok?")["input_ids"]
    assert tokenizer.unk_token_id not in strange[1:-1] and tokenizer.decode(strange[1:-1]).replace(" ", "") == (
        "xylophon,42-ok?"
    )


def test_digits_are_mixed_with_digits_and_things_with_things(packs, folders):
    parts = built("small_sounds", packs, folders, "data.mixup=1.0")
    labels = parts.data.labels
    spoken = torch.tensor([label in ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
                           for label in labels])  # fmt: skip
    batch = batch_of(parts, 24)
    assert torch.equal(spoken[batch["label"]], spoken[batch["other"]])
    assert ((batch["share"] > 0) & (batch["share"] < 1)).all() and spoken[batch["label"]].any()
    assert torch.equal(batch_of(parts, 24)["input_features"], batch["input_features"])  # all from the draws
    frames = batch["attention_mask"].sum(1)
    assert frames[~spoken[batch["label"]]].max() == 100  # a second of a thing


def test_nothing_is_mixed_for_the_queues(packs, folders):
    parts = built("small_sounds", packs, folders, "objective.name=cx", "objective.queue_size=16")
    batch = batch_of(parts)
    copy, model = parts.objective.hearing.momentum.model, parts.model
    for name in ("audio_model.frame_projection.weight", "image_to_shared.fc2.bias"):
        assert torch.equal(copy.get_parameter(name), model.get_parameter(name))  # it begins as the model does
    assert torch.equal(batch["share"], torch.ones(12)) and torch.equal(batch["label"], batch["other"])
    parts.objective.before_step(parts.model, 0)
    terms = parts.objective(parts.model.train(), batch)
    assert {"named_shared", "named_native"} < terms.keys() and torch.isfinite(sum(terms.values()))
    parts.objective.load_state_dict(parts.objective.state_dict())


def test_held_classes_are_not_heard_at_all(packs, folders):
    parts = built("small_sounds", packs, folders, "data.held_classes=dog,seven")
    assert {"dog", "seven"}.isdisjoint(parts.data.labels) and {"rain", "six"} <= set(parts.data.labels)
    quoted = built("small_sounds", packs, folders, 'data.held_classes=["dog", "seven"]')
    assert len(quoted.data) == len(parts.data)
    with pytest.raises(ConfigError, match="no such class is heard"):
        built("small_sounds", packs, folders, "data.held_classes=hound")


def test_a_fold_is_held_out_and_test_clips_never_train(packs, folders):
    parts = built("small_sounds", packs, folders, "data.validation_fold=2")
    things = [one for one in parts.data.items if one.fold is not None]
    assert {one.fold for one in things} == {1, 3} and all(one.split == "train" for one in parts.data.items)


def test_the_head_begins_with_sounds_apart(packs, folders, monkeypatch):
    recipe = load_recipe("small_sounds")

    def spread(parts):
        """The mean cosine of different sounds in both spaces, in training mode."""
        batch = batch_of(parts, 16, first=1000)
        inputs = {name: batch[name] for name in ("input_features", "attention_mask")}
        with torch.no_grad():
            a = parts.model.train().get_audio_features(**inputs).pooler_output
            found = [a, parts.model.project_audio(a)]
        return [float((one @ one.t())[~torch.eye(16, dtype=torch.bool)].mean()) for one in found]

    fitted = spread(built("small_sounds", packs, folders))
    monkeypatch.setattr(recipe, "calibrate", lambda model, batch: None)
    plain = spread(built("small_sounds", packs, folders))
    assert plain[0] > 0.8 and fitted[0] < 0.6
    assert fitted[1] < plain[1]


def test_a_tower_may_begin_with_what_it_learned_without_labels(packs, folders, tmp_path):
    """A SpeechLM of the recipe `speechlm` stands in for random weights; what does not fit is said with the way out."""
    from unibrivl.modeling import SpeechLMConfig, SpeechLMForPreTraining
    from unibrivl.training.recipes.speechlm import SIZES

    torch.manual_seed(7)
    learned = SpeechLMForPreTraining(SpeechLMConfig(**SIZES["compact"], unit_vocab_size=9))
    learned.save_pretrained(tmp_path / "compact")
    begun = built("small_sounds", packs, folders, "model.tower=speechlm", f"model.start={tmp_path / 'compact'}")
    own = begun.model.audio_model.tower.state_dict()
    kept = {name for name, weight in own.items() if torch.equal(weight, learned.speechlm.state_dict()[name])}
    assert set(own) - kept == {"unit_embeddings.weight"}  # of units that are another model's
    with pytest.raises(ConfigError, match="model.tower=speechlm"):
        built("small_sounds", packs, folders, f"model.start={tmp_path / 'compact'}")
    SpeechLMForPreTraining(SpeechLMConfig(**SIZES["tiny"], unit_vocab_size=9)).save_pretrained(tmp_path / "tiny")
    with pytest.raises(ConfigError, match="model.size=compact"):
        built("small_sounds", packs, folders, "model.tower=speechlm", f"model.start={tmp_path / 'tiny'}")


def test_soft_partners_are_cross_entropy_where_nothing_is_mixed(packs, folders):
    parts = built("small_sounds", packs, folders, "data.mixup=0")
    batch, model = batch_of(parts), parts.model.eval()
    terms = parts.objective(model, batch)
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_features", "attention_mask")}
        g_BV = model.project_audio(model.get_audio_features(**inputs).pooler_output)
        expected = torch.nn.functional.cross_entropy(g_BV @ parts.data.words_LV.t() / 0.07, batch["label"])
    assert float(terms["named_native"].detach()) == pytest.approx(2 * float(expected), rel=1e-4)
    assert set(terms) == {f"{what}_{space}" for what in ("heard", "seen", "named") for space in ("shared", "native")}


def test_velocity_is_learned_with_min_snr_weights():
    pytest.importorskip("diffusers")
    from unibrivl.training.recipes.small_generator import SmallGeneratorObjective, VelocityLoss

    class Silent(torch.nn.Module):
        def forward(self, noisy, timestep, text):
            return type("Output", (), {"sample": torch.zeros_like(noisy)})()

    chance = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(3, 8, 8, 8, generator=chance) for _ in range(2))
    timestep = torch.tensor([0, 500, 999])
    loss = VelocityLoss(torch.nn.Linear(1, 1), SmallGeneratorObjective(gamma=5.0))
    batch = {"latents": latents, "noise": noise, "timestep": timestep, "text": torch.zeros(3, 4, 2)}
    found = float(loss(Silent(), batch)["velocity"])
    alpha = loss.alphas[timestep].double()
    velocity = alpha.sqrt()[:, None, None, None] * noise - (1 - alpha).sqrt()[:, None, None, None] * latents
    snr = alpha / (1 - alpha).clamp(min=1e-8)
    expected = (velocity.square().mean((1, 2, 3)) * snr.clamp(max=5) / (snr + 1)).mean()
    assert found == pytest.approx(float(expected), rel=1e-5)
    assert float(alpha[-1]) < 1e-6  # the last step is noise alone


def test_moved_pictures_stay_pictures_and_digits_are_not_mirrored():
    from unibrivl.training.recipes.small_pictures import SmallPicturesData, moved

    ramp = torch.linspace(0, 1, 64).expand(40, 3, 64, 64).clone()
    still = SmallPicturesData(zoom=0.0, turn=0.0, shift=0.0)
    digits = moved(ramp, torch.zeros(40, dtype=torch.bool), torch.Generator().manual_seed(0), still)
    torch.testing.assert_close(digits, ramp, atol=1e-5, rtol=0)
    photos = moved(ramp, torch.ones(40, dtype=torch.bool), torch.Generator().manual_seed(0), still)
    mirrored = (photos[:, 0, 0, 0] > 0.5).float().mean()
    assert 0.2 < mirrored < 0.8
    wild = moved(ramp, torch.ones(40, dtype=torch.bool), torch.Generator().manual_seed(0), SmallPicturesData())
    assert wild.min() >= 0 and wild.max() <= 1 and np.isfinite(wild.numpy()).all()


def test_colours_of_pictures_are_turned_as_far_as_is_said():
    from dataclasses import replace

    from unibrivl.training.recipes import small_pictures

    red = np.zeros((3, 64, 64), np.uint8)
    red[0] = 200
    examples = [{"pixels": red, "kind": 0, "label": 0, "seed": 3}] * 64
    settings = replace(small_pictures.config().data, erase=0.0)
    processor = small_pictures.processor_for(64)
    deviation, mean = torch.tensor(processor.image_std), torch.tensor(processor.image_mean)
    strongest = {}
    for hue in (0.0, 0.1, 0.5):
        batch = small_pictures.augmented(examples, processor, replace(settings, hue=hue))
        colours_B3 = batch["pixel_values"].mean((2, 3)) * deviation + mean
        strongest[hue] = set(colours_B3[colours_B3.amax(1) > colours_B3.amin(1) + 0.05].argmax(1).tolist())
    assert strongest == {0.0: {0}, 0.1: {0}, 0.5: {0, 1, 2}}


def test_latents_are_computed_once_for_a_run(packs, tmp_path, monkeypatch):
    """A run that goes on reads those of the same pictures, views and weights, and no others."""
    diffusers = pytest.importorskip("diffusers")
    from unibrivl.training.recipes import small_generator as recipe
    from unibrivl.training.recipes.small_world import SmallWorld

    torch.manual_seed(0)
    sizes = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    vae = diffusers.AutoencoderTiny(**sizes, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4).eval()
    settings = recipe.SmallGeneratorData(folder=str(packs), views=4)
    items = SmallWorld(settings).pictures("world")
    first = recipe.Latents.of(items, vae, settings, tmp_path).latents_NWChw
    assert first.shape[:2] == (len(items), 4)
    digit = next(row for row, one in enumerate(items) if one.kind == "digit")
    drawing = next(row for row, one in enumerate(items) if one.kind == "drawing")
    assert torch.equal(first[digit, 0], first[digit, 1]) and not torch.equal(first[drawing, 0], first[drawing, 1])

    with monkeypatch.context() as patched:
        patched.setattr(recipe, "encoded", lambda *given: pytest.fail("encoded again"))
        assert torch.equal(recipe.Latents.of(items, vae, settings, tmp_path).latents_NWChw, first)
    with torch.no_grad():
        next(vae.parameters()).add_(0.1)
    assert not torch.equal(recipe.Latents.of(items, vae, settings, tmp_path).latents_NWChw, first)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_generator_may_begin_at_another_of_its_shape(tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    from unibrivl.training.config import ConfigError
    from unibrivl.training.recipes.small_generator import begin_at

    def unet(width, seed):
        torch.manual_seed(seed)
        return diffusers.UNet2DConditionModel(
            sample_size=4, in_channels=2, out_channels=2, block_out_channels=(width,), layers_per_block=1,
            down_block_types=["DownBlock2D"], up_block_types=["UpBlock2D"], mid_block_type=None, norm_num_groups=4,
            cross_attention_dim=8,
        )  # fmt: skip

    first, second = unet(8, 0), unet(8, 1)
    first.half().save_pretrained(tmp_path)
    begin_at(second, str(tmp_path))
    for name, weight in second.state_dict().items():
        assert weight.dtype == torch.float32 and torch.equal(weight, first.state_dict()[name].float())
    with pytest.raises(ConfigError, match="another shape"):
        begin_at(unet(16, 0), str(tmp_path))
