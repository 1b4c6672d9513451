"""The recipe `sounds_and_pictures`: a small UniBriVL learns from real recordings and real pictures, from nothing.

    unibrivl train --recipe photos --set data.folder=FOLDER
    unibrivl lexicon lexicon                                   # once, for the words
    unibrivl train --recipe sounds_and_pictures --set data.folder=FOLDER --set data.lexicon=lexicon

The image tower is what `photos` left, and stays frozen: each picture's embedding is computed once. A sound's picture
is any one of its label, another each time; with a lexicon the label's words, in phones, are read by the same tower and
meet the same picture. All labels of the pack that have pictures are heard, not only ESC-10's.

The evaluation is of ESC-10 clips that were held out, in three ways: a probe on the features of the tower; the picture
nearest to a sound (the mean over training pictures of each class); the text nearest to it. None of the classes is new
to the model, so the last two are zero-shot in form only: no classifier was trained, but pictures and words of these
classes were.

Shapes: N clips, C classes, E shared width, V image tower's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from unibrivl.modeling import (
    MelEncoderConfig,
    MelEncoderModel,
    SpeechLMConfig,
    SpeechLMModel,
    UniBriVLModel,
    UniBriVLProcessor,
)
from unibrivl.training.adapters import adapt
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.momentum import bare
from unibrivl.training.objectives.base import Objective
from unibrivl.training.objectives.cx import CXLoss
from unibrivl.training.objectives.heard_and_read import HeardAndRead
from unibrivl.training.objectives.in_batch import InBatchLoss
from unibrivl.training.pairs import Collate, picture_of
from unibrivl.training.parts import About, Parts
from unibrivl.training.recipes.sounds import (
    SCHEDULE,
    SoundsModel,
    batches,
    extractor_for,
    fields_of_tower,
    numbers_of,
    probed,
)
from unibrivl.training.recipes.sounds_and_pictures_data import (
    ESC10,
    Clips,
    Division,
    LabelledCollate,
    LabelledSounds,
    SoundsData,
    Texts,
    division,
    tokenizer_for,
    with_both,
)
from unibrivl.training.target_cache import TargetCache, picture_tower


@dataclass(frozen=True)
class JoinedModel(SoundsModel):
    """
    Args:
        image: the folder, or name, of a trained image tower.
    """

    image: str = "runs/photos/model"


@dataclass(frozen=True)
class JoinedData(SoundsData):
    """
    Args:
        lexicon (*optional*): the folder of a `SpeechLMPhoneTokenizer`, as `unibrivl lexicon FOLDER` makes it: the
            labels' words are read too. Needs SpeechLM as the tower.
        most_texts (`int`): that are read in a batch, one a label. A text takes about as long as a clip.
        cache: folder for the pictures' embeddings.
    """

    lexicon: str | None = None
    most_texts: int = 8
    cache: str = "runs/targets"


@dataclass(frozen=True)
class JoinedObjective:
    """
    Args:
        name: "in_batch", in which pictures of one label are all right, or "cx", UniBriVL's over queues.
        temperature (`float`): of both.
        queue_size (`int`): of cx.
    """

    name: Literal["in_batch", "cx"] = "in_batch"
    temperature: float = 0.07  # UniBriVL paper 3.4: BriVL's, fixed
    queue_size: int = 1024


def config() -> RunConfig:
    return RunConfig(
        recipe="sounds_and_pictures",
        output_dir="runs/sounds_and_pictures",
        model=JoinedModel(),
        data=JoinedData(),
        objective=JoinedObjective(),
        **SCHEDULE,
    )


def build(config: RunConfig) -> Parts:
    parts, clips = division(config.data), Clips(config.data.seconds)
    labels = sorted(with_both(parts))
    model, processor = model_for(config, labels)
    model = adapt(model, config.adapter)
    tokenizer = processor.unit_tokenizer
    texts = None if tokenizer is None else Texts.of(labels, tokenizer, config.data.most_texts)
    targets = TargetCache(config.data.cache, picture_tower(bare(model), processor.image_processor))
    pairs = LabelledSounds(parts.train, labels, clips, config.data, targets)
    evaluate = Evaluation(parts, clips, processor, targets)

    def prepare() -> None:
        pairs.check()
        targets.prepare(pairs.picture_paths())

    about = About(
        task="audio-classification",
        dataset=f"ESC-10, {len(parts.esc10_held)} clips of "
        + ("the test part" if config.data.validation_fold is None else f"fold {config.data.validation_fold}"),
        towers={"audio": {"model": f"new, {config.model.tower}"}, "image": {"model": config.model.image}},
        data=[{"name": parts.listing.name, "found": parts.listing.found, "expected": parts.listing.expected}],
    )
    objective = objective_for(model, config.objective, texts is not None)
    collate = LabelledCollate(Collate(processor), texts)
    return Parts(model, objective, pairs, collate, evaluate, processor, about, prepare)


def model_for(config: RunConfig, labels: Sequence[str]) -> tuple[UniBriVLModel, UniBriVLProcessor]:
    size, lexicon = config.model, config.data.lexicon
    if not Path(size.image).exists() and (size.image.startswith(("runs", ".", "/")) or size.image.count("/") != 1):
        raise ConfigError(
            f"there is no image tower in {size.image}: train one, unibrivl train --recipe photos --set "
            f"data.folder={config.data.folder}, or name one with --set model.image=..."
        )
    if lexicon is not None and size.tower != "speechlm":
        raise ConfigError(f"a {size.tower} hears and does not read: set data.lexicon=none, or model.tower=speechlm")
    fields = fields_of_tower(size)
    own = dict(fields.pop("audio_config"))
    kind = own.pop("model_type")
    tower = SpeechLMModel(SpeechLMConfig(**own)) if kind == "speechlm" else MelEncoderModel(MelEncoderConfig(**own))
    model = UniBriVLModel.from_pretrained_towers(
        tower, size.image, text=False, temperature=config.objective.temperature, **fields
    )
    return model, UniBriVLProcessor(
        feature_extractor=extractor_for(size.tower),
        image_processor=AutoImageProcessor.from_pretrained(size.image),
        unit_tokenizer=None if lexicon is None else tokenizer_for(labels, lexicon),
    )


def objective_for(model: Any, settings: JoinedObjective, reads: bool) -> Objective:
    hearing: Objective = InBatchLoss(model, temperature=settings.temperature)
    if settings.name == "cx":
        hearing = CXLoss(model, queue_size=settings.queue_size, temperature=settings.temperature)
    return HeardAndRead(model, hearing, settings.temperature) if reads else hearing


@dataclass
class Evaluation:
    """model -> `probe`, `zero_shot_picture` and, where texts are read, `zero_shot_label`: accuracies of ESC-10.

    The probe is trained on the clips of ESC-10 that the tower was trained on; see `probed`.
    """

    parts: Division
    clips: Clips
    processor: UniBriVLProcessor
    targets: TargetCache
    prototypes_CV: torch.Tensor | None = field(default=None, repr=False)

    def __call__(self, model: Any) -> dict[str, float]:
        right_N = numbers_of(self.parts.esc10_held)
        return {name: float((found_N == right_N).mean()) for name, found_N in self.predictions(model).items()}

    def predictions(self, model: Any) -> dict[str, np.ndarray]:
        """(N,) classes of the held-out clips, by each of the ways."""
        owner, parts, processor = bare(model), self.parts, self.processor
        found = {"probe": probed(owner, processor, parts.esc10_train, parts.esc10_held, self.clips)}
        sounds = [self.clips(one) for one in parts.esc10_held]
        with torch.no_grad():
            heard = [owner.audio_model(**batch).pooler_output for batch in batches(processor, sounds, owner.device)]
            embeds_NE = torch.cat(heard)
            v_CV = self._prototypes().to(embeds_NE)
            scores_NC = embeds_NE @ owner.project_image(v_CV).t() + owner.project_audio(embeds_NE) @ v_CV.t()
            found["zero_shot_picture"] = scores_NC.argmax(1).cpu().numpy()
            if processor.unit_tokenizer is not None:
                texts = Texts.of(ESC10, processor.unit_tokenizer).read(slice(None))
                read = {name: value.to(embeds_NE.device) for name, value in texts.items()}
                texts_CE = owner.get_text_features(**read).pooler_output
                found["zero_shot_label"] = (embeds_NE @ texts_CE.t()).argmax(1).cpu().numpy()
        return found

    def _prototypes(self) -> torch.Tensor:
        """(C, V), the mean of the training pictures of each class, of length one."""
        if self.prototypes_CV is None:
            rows = []
            for label in ESC10:
                of_label = [one for one in self.parts.train if one.image and one.labels[0] == label]
                rows.append(np.mean([self.targets.row(picture_of(one)) for one in of_label], axis=0))
            self.prototypes_CV = torch.nn.functional.normalize(torch.from_numpy(np.stack(rows)), dim=-1)
        return self.prototypes_CV
