"""BriVL at toy size: what every Hugging Face user relies on, each compared with a second way of knowing."""

from __future__ import annotations

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from tiny_brivl import TEXT, VISION, build, close, embeddings, inputs, pictures, some_boxes, texts
from transformers import AutoConfig, AutoModel, CLIPVisionConfig, pipeline
from transformers.models.efficientnet.modeling_efficientnet import EfficientNetModel

from unibrivl.modeling import (
    BRIVL_VISION_PRESETS,
    BriVLConfig,
    BriVLImageProcessor,
    BriVLModel,
    BriVLTextConfig,
    BriVLTextModel,
    BriVLVisionConfig,
    BriVLVisionModel,
)
from unibrivl.modeling.loading_unibrivl import CheckpointMismatch

CLASSES = [BriVLVisionModel, BriVLTextModel, BriVLModel]


# ---- saving and loading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
def test_save_and_load_is_bit_exact(cls, tmp_path):
    model = build(cls)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    torch.manual_seed(1)  # another seed: anything initialised instead of loaded would show
    again, report = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    with torch.no_grad():
        assert torch.equal(embeddings(model(**inputs(cls))), embeddings(again(**inputs(cls))))
    assert type(AutoModel.from_pretrained(tmp_path)) is cls
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(model.config)


@pytest.mark.parametrize(("cls", "part"), [(BriVLVisionModel, "vision_model"), (BriVLTextModel, "text_model")])
def test_a_tower_loads_out_of_the_pair(cls, part, tmp_path):
    pair = build()
    pair.save_pretrained(tmp_path)
    tower = cls.from_pretrained(tmp_path)
    wanted = getattr(pair, part).state_dict()
    assert wanted.keys() == tower.state_dict().keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in tower.state_dict().items())


def test_a_file_that_lacks_weights_is_refused():
    with pytest.raises(CheckpointMismatch, match="holds none of the"):
        BriVLModel.from_pretrained(None, config=build().config, state_dict={})


@pytest.mark.parametrize("cls", CLASSES)
def test_missing_weights_start_as_in_a_new_model(cls):
    """transformers builds on the meta device: a weight or a statistic without a rule would come back as garbage."""
    config = build(cls).config
    new = cls(copy.deepcopy(config)).state_dict()
    started, _ = cls.from_pretrained(None, config=config, state_dict={}, output_loading_info=True)
    for name, tensor in started.state_dict().items():
        if new[name].unique().numel() == 1:
            assert torch.equal(tensor, new[name]), name
        else:
            assert 0.5 < float(tensor.std() / new[name].std()) < 2, name


def test_a_new_cnn_gives_numbers_that_float32_holds():
    """transformers' own start of EfficientNet-B5 ends in a map of 1e-40, where arithmetic is ten times slower."""
    torch.manual_seed(0)
    config = BriVLVisionConfig(width_coefficient=0.1, depth_coefficient=2.2, hidden_size=128, num_sa_layers=1)
    model = BriVLVisionModel(config).eval()
    config = copy.deepcopy(model.backbone.config)
    config._attn_implementation = "eager"  # the only one they take
    theirs = EfficientNetModel(config).eval()
    with torch.no_grad():
        ours, other = model.backbone(pictures(1, 64)), theirs(pictures(1, 64)).last_hidden_state
    assert ours.std() > 1e-6 and other.std() < 1e-20
    norm = model.backbone.encoder.blocks[3].projection.project_bn
    assert torch.equal(norm.weight, torch.ones_like(norm.weight)) and not norm.bias.any()


@pytest.mark.parametrize("cls", CLASSES)
def test_bfloat16_is_kept_and_runs(cls, tmp_path):
    model = build(cls)
    with torch.no_grad():
        exact = embeddings(model(**inputs(cls)))
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    again = cls.from_pretrained(tmp_path, dtype="auto")
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    with torch.no_grad():
        half = embeddings(again(**inputs(cls)))
    assert half.dtype == torch.bfloat16 and torch.cosine_similarity(half.float(), exact).min() > 0.98
    assert {parameter.dtype for parameter in cls.from_pretrained(tmp_path, dtype=torch.float32).parameters()} == {
        torch.float32
    }


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}, "auto"])
def test_device_map_places_the_model(device_map, tmp_path):
    pytest.importorskip("accelerate", reason="device_map needs accelerate: pip install 'unibrivl[dev]'")
    model = build()
    model.save_pretrained(tmp_path)
    mapped = BriVLModel.from_pretrained(tmp_path, device_map=device_map)
    with torch.no_grad():
        close(embeddings(mapped(**inputs(BriVLModel))), embeddings(model(**inputs(BriVLModel))))


def test_from_pretrained_takes_fields_of_a_part(tmp_path):
    build().save_pretrained(tmp_path)
    model = BriVLModel.from_pretrained(
        tmp_path, vision_config={"patch_grid_size": 2}, text_config={"attend_to_padding": False}
    )
    assert model.config.vision_config.patch_grid_size == 2 and model.config.vision_config.hidden_size == 128
    assert model.vision_model(pictures()).regions.shape == (3, 5, 128)
    assert model.text_model.config.attend_to_padding is False


# ---- one picture is one picture -------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_batch_equals_its_rows(attention, gradients):
    model = build()
    model.set_attn_implementation(attention)
    assert {part.config._attn_implementation for part in (model.vision_model, model.text_model.backbone)} == {
        attention
    }
    pixels, (ids, mask) = pictures(), texts()
    boxes, box_mask = some_boxes()
    with torch.set_grad_enabled(gradients):
        together = model(pixels, ids, mask, boxes, box_mask)
        for row in range(3):
            one = slice(row, row + 1)
            alone = model(pixels[one], ids[one], mask[one], boxes[one], box_mask[one])
            close(together.image_embeds[one], alone.image_embeds)
            close(together.text_embeds[one], alone.text_embeds)
    close(together.logits_per_image, together.image_embeds @ together.text_embeds.t())
    close(together.image_embeds.norm(dim=-1), torch.ones(3))


def test_eager_equals_sdpa_and_gives_what_was_asked_for():
    model = build()
    boxes, box_mask = some_boxes()
    sdpa = model.vision_model(pictures(), boxes, box_mask)
    model.set_attn_implementation("eager")
    eager = model.vision_model(pictures(), boxes, box_mask, output_hidden_states=True, output_attentions=True)
    real = box_mask.bool()
    close(sdpa.last_hidden_state[real], eager.last_hidden_state[real])
    close(sdpa.pooler_output, eager.pooler_output)
    assert [states.shape for states in eager.hidden_states] == [(3, 5, 128)] * 3
    assert torch.equal(eager.hidden_states[-1], eager.last_hidden_state)
    close(eager.hidden_states[0], torch.nn.functional.normalize(eager.regions, dim=-1))
    assert [weights.shape for weights in eager.attentions] == [(3, 4, 5, 5)] * 2
    close(eager.attentions[0][1][:, :, 2:], torch.zeros(4, 5, 3))  # nobody listens to a masked box
    ids, mask = texts()
    text = model.text_model(ids, mask, output_hidden_states=True, output_attentions=True)
    assert len(text.hidden_states) == 3 and [weights.shape for weights in text.attentions] == [(3, 4, 12, 12)] * 2
    assert sdpa.hidden_states is None and sdpa.attentions is None


def test_masked_boxes_count_for_nothing():
    model = build(BriVLVisionModel)
    boxes, box_mask = some_boxes()
    with torch.no_grad():
        expected = model(pictures(), boxes, box_mask).pooler_output
        others = torch.where(box_mask[..., None].bool(), boxes, 17 * boxes + 3)
        close(model(pictures(), others, box_mask).pooler_output, expected)
        close(model(pictures()[1:2], boxes[1:2, :2]).pooler_output, expected[1:2])
        assert (model(pictures(), boxes).pooler_output - expected)[1].abs().max() > 1e-3


@pytest.mark.parametrize("side", [33, 64, 95, 96, 97, 131])
@pytest.mark.parametrize("patches", [1, 6])
def test_the_grid_is_what_comes_without_boxes(side, patches):
    model = build(BriVLVisionModel, patch_grid_size=patches)
    cell = side / patches
    cells = [(x * cell, y * cell, (x + 1) * cell, (y + 1) * cell) for x in range(patches) for y in range(patches)]
    boxes = torch.tensor([*cells, (0, 0, side, side)], dtype=torch.float64)
    with torch.no_grad():
        output = model(pictures(2, side))
        assert output.backbone_output.shape == (2, 128, -(-side // 32), -(-side // 32))
        assert output.regions.shape == (2, patches**2 + 1, 128)
        for explicit in (boxes, boxes.expand(2, -1, -1), boxes.float()):
            close(model(pictures(2, side), explicit).projection, output.projection)


# ---- training -------------------------------------------------------------------------------------------------------


def test_gradient_checkpointing_changes_nothing():
    grads = []
    for checkpointing in (False, True):
        model = build()
        for tower in (model.vision_model, model.text_model):
            tower.config.sa_dropout = 0.0
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            elif hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = 0.0
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.vision_model.attention_pool.layers[0].gradient_checkpointing
            assert model.text_model.backbone.encoder.layer[0].gradient_checkpointing
        model(**inputs(BriVLModel)).logits_per_image.square().sum().backward()
        grads.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(grad is not None for grad in grads[0].values()), "a parameter without a gradient"
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-6, rtol=1e-4, msg=name)


def test_a_trained_cnn_averages_its_statistics_as_the_original_does():
    """A tenth of every new batch (transformers takes 0.99 for torch's momentum), and no block is ever dropped."""
    model = build(BriVLVisionModel).train()
    norms = [module for module in model.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) > 20 and {norm.momentum for norm in norms} == {0.1} and {norm.eps for norm in norms} == {1e-3}
    drops = [module.p for module in model.backbone.modules() if isinstance(module, torch.nn.Dropout)]
    assert drops and set(drops) == {0.0}
    stem, before = model.backbone.embeddings, norms[0].running_mean.clone()
    assert norms[0] is stem.batchnorm
    model(pictures())
    seen = stem.convolution(stem.padding(pictures())).mean((0, 2, 3))
    close(norms[0].running_mean, 0.9 * before + 0.1 * seen.detach())
    statistics = norms[0].running_mean.clone()
    model.eval()(pictures())
    assert torch.equal(norms[0].running_mean, statistics)


def test_evaluation_draws_nothing():
    model = build()
    before = torch.get_rng_state()
    first, second = model(**inputs(BriVLModel)), model(**inputs(BriVLModel))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(embeddings(first), embeddings(second))


@pytest.mark.parametrize("cls", CLASSES)
def test_compiled_equals_eager(cls):
    """Through torch.compile's whole front half; generating code for the CNN would take a minute."""
    model = build(cls)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        close(embeddings(compiled(**inputs(cls))), embeddings(model(**inputs(cls))))


# ---- texts ----------------------------------------------------------------------------------------------------------


def test_a_text_depends_on_its_padding_only_where_the_weights_need_it():
    ids, mask = texts()
    for attend, depends in ((True, True), (False, False)):
        model = build(BriVLTextModel, attend_to_padding=attend)
        with torch.no_grad():
            long, short = model(ids, mask), model(ids[1:2, :5], mask[1:2, :5])
        difference = (long.pooler_output[1] - short.pooler_output[0]).abs().max()
        assert (difference > 1e-3) == depends and (depends or difference < 1e-5)


def test_the_mask_by_default_is_all_but_padding():
    ids, mask = texts()
    model = build(BriVLTextModel)
    close(model(ids).pooler_output, model(ids, mask).pooler_output, 0)
    close(model(ids, mask, torch.zeros_like(ids)).pooler_output, model(ids, mask).pooler_output, 0)
    assert (model(ids, mask, torch.ones_like(ids)).pooler_output - model(ids).pooler_output).abs().max() > 1e-4
    without = build(BriVLTextModel, pad_token_id=None)
    close(without(ids).pooler_output, without(ids, torch.ones_like(ids)).pooler_output)


def test_the_pair_runs_either_half():
    model, (ids, mask) = build(), texts()
    pair = model(pictures(), ids, mask)
    image, text = model(pictures()), model(input_ids=ids, attention_mask=mask)
    assert text.image_embeds is None and image.text_embeds is None and image.logits_per_image is None
    close(image.image_embeds, pair.image_embeds, 0)
    close(text.text_embeds, pair.text_embeds, 0)
    close(model.get_image_features(pictures()).pooler_output, pair.image_embeds, 0)
    close(model.get_text_features(ids, mask).pooler_output, pair.text_embeds, 0)
    assert torch.equal(pair.logits_per_text, pair.logits_per_image.t()) and pair.logits_per_text.shape == (3, 3)
    assert isinstance(model(pictures(), ids, mask, return_dict=False), tuple)
    assert isinstance(model.vision_model(pictures(), return_dict=False), tuple)


def test_transformers_pipeline_gives_the_embedding(tmp_path):
    model, processor = build(BriVLVisionModel), BriVLImageProcessor(size=96)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    picture = Image.effect_noise((120, 90), 60).convert("RGB")
    embedding = torch.tensor(pipeline("image-feature-extraction", model=str(tmp_path), pool=True)(picture))
    close(embedding, model(**processor(picture, return_tensors="pt")).pooler_output.detach())


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_bad_inputs_say_what_to_do():
    model, (ids, mask) = build(), texts()
    vision, text = model.vision_model, model.text_model
    boxes, box_mask = some_boxes()
    holed = boxes.clone()
    holed[2, 4, 1] = float("nan")
    for bad, match in [
        (lambda: model(), "pass pixel_values, input_ids"),
        (lambda: vision(pictures()[0]), r"must be \(batch, 3, side, side\)"),
        (lambda: vision(pictures()[..., :80]), "makes pictures square"),
        (lambda: vision(pictures()[:, :1]), r"must be \(batch, 3, side, side\)"),
        (lambda: vision(pictures(1, 32)), "33 or more"),
        (lambda: vision(pictures(), boxes[:2]), r"boxes must be \(boxes, 4\) for all pictures or \(3, boxes, 4\)"),
        (lambda: vision(pictures(), boxes[..., :3]), "x1, y1, x2, y2 in pixels"),
        (lambda: vision(pictures(), boxes[0, 0]), "x1, y1, x2, y2 in pixels"),
        (lambda: vision(pictures(), holed), "NaN or infinity"),
        (lambda: vision(pictures(), holed, box_mask), "NaN or infinity"),
        (lambda: vision(pictures(), boxes / 0, box_mask), "NaN or infinity"),
        (lambda: vision(pictures(), boxes, box_mask[:, :4]), r"the mask is \(3, 4\) and must be"),
        (lambda: vision(pictures(), None, box_mask), r"\(3, 37\)"),
        (lambda: vision(pictures(), boxes, box_mask * torch.tensor([[1], [0], [1]])), "all zeros"),
        (lambda: text(ids, mask * torch.tensor([[1], [1], [0]])), "all zeros"),
        (lambda: text(torch.zeros_like(ids)), "all zeros"),
        (lambda: text(ids, mask[:, :7]), r"the mask is \(3, 7\) and must be"),
        (lambda: text(ids[0]), "padding='max_length'"),
        (lambda: text(ids.repeat(1, 2)), r"up to 20 tokens.*max_length=12"),
    ]:
        with pytest.raises(ValueError, match=match):
            bad()


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (BriVLVisionConfig, {"hidden_size": "seven"}),
        (BriVLVisionConfig, {"hidden_size": 2560}),  # not the width of B5
        (BriVLVisionConfig, {"num_sa_heads": 3}),
        (BriVLVisionConfig, {"sa_dropout": None}),
        (BriVLTextConfig, {"attend_to_padding": "no"}),
        (BriVLTextConfig, {"num_sa_heads": 5}),
        (BriVLConfig, {"text_config": {"projection_dim": 512}}),
        (BriVLConfig, {"vision_config": 7}),
        (BriVLConfig, {"vision_config": CLIPVisionConfig()}),
        (BriVLConfig, {"text_config": BriVLVisionConfig()}),
    ],
)
def test_wrong_configs_are_refused(cls, wrong):
    with pytest.raises((StrictDataclassError, ValueError, TypeError)):
        cls(**wrong)


def test_configs_are_built_of_objects_dictionaries_or_nothing():
    objects = BriVLConfig(
        vision_config=BriVLVisionConfig(**VISION), text_config=BriVLTextConfig(**TEXT, projection_dim=128)
    )
    assert objects.to_dict() == BriVLConfig(vision_config=VISION, text_config=TEXT).to_dict()
    assert BriVLConfig(**objects.to_dict()).to_dict() == objects.to_dict()
    published = BriVLConfig()
    assert published.vision_config.to_dict() == BriVLVisionConfig(**BRIVL_VISION_PRESETS["b5"]).to_dict()
    assert published.text_config.projection_dim == published.vision_config.hidden_size == 2048
    paper = BriVLConfig(vision_config=BRIVL_VISION_PRESETS["b7"])
    assert paper.text_config.projection_dim == paper.vision_config.hidden_size == 2560
    with torch.device("meta"):
        blocks = {name: len(BriVLVisionModel(BriVLVisionConfig(**fields)).backbone.encoder.blocks)
                  for name, fields in BRIVL_VISION_PRESETS.items()}  # fmt: skip
    assert blocks == {"b5": 39, "b7": 55}
