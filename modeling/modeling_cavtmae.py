"""CAVT-MAE (AAI, "Align"): CAV-MAE's audio side learns where its image side and a text encoder have their places.

sound   -> audio side, with joint layers of its own -> mean over tokens -> f_a
picture -> image side, frozen                       -> mean over tokens -> f_v
text    -> text encoder, frozen                     -> pooled           -> f_t

Embeddings are not normalised: cosines are, and what goes on with a sound's vector wants it as it is. The momentum copy
lives in training (`training/objectives/cavtmae.py`); `return_loss=True` takes what such a copy gave.

Shapes: B batch, T frames, M mel bins, S side of a picture, N tokens, D a tower's width, E width of the space.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedModel, T5EncoderModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_cavmae import CAVMAEAudioConfig, CAVMAEImageConfig
from .configuration_cavtmae import CAVTMAEConfig
from .freezing_unibrivl import FreezesParts
from .matcher_cavtmae import CAVTMAEMatcher
from .modeling_cavmae import CAVMAEAudioModel, CAVMAEImageModel
from .token_table_audio_token import special_tokens

TEXT_TOWERS: dict[str, Any] = {"t5": T5EncoderModel}  # where AutoModel gives an encoder and a decoder
SHARED = ("attention", "fc1", "fc2")  # of a joint layer: all but its norms


@dataclass
class CAVTMAEOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`, with `return_loss=True`): loss_at + (1 - alpha) loss_av + alpha / 2 loss_momentum.
        loss_at, loss_av (`torch.FloatTensor`): contrast of sounds with texts and with pictures, the mean of both
            directions.
        loss_momentum (`torch.FloatTensor`): of both directions together, against a momentum copy's targets.
        audio_embeds, image_embeds, text_embeds (`torch.FloatTensor`): (B, E), not normalised.
        native_image_embeds (`torch.FloatTensor`): (B, D), pictures before their projection.
        logits_audio_text, logits_audio_image, logits_image_text (`torch.FloatTensor`): cosines over the temperature.
        temperature (`torch.FloatTensor`): (1,), as it was clamped.
        audio_model_output, vision_model_output, text_model_output: all that the towers gave.
    """

    loss: torch.FloatTensor | None = None
    loss_at: torch.FloatTensor | None = None
    loss_av: torch.FloatTensor | None = None
    loss_momentum: torch.FloatTensor | None = None
    audio_embeds: torch.FloatTensor | None = None
    image_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    native_image_embeds: torch.FloatTensor | None = None
    logits_audio_text: torch.FloatTensor | None = None
    logits_audio_image: torch.FloatTensor | None = None
    logits_image_text: torch.FloatTensor | None = None
    temperature: torch.FloatTensor | None = None
    audio_model_output: ModelOutput | None = None
    vision_model_output: ModelOutput | None = None
    text_model_output: ModelOutput | None = None


class CAVTMAEProjection(nn.Linear):
    """A linear layer that begins as the identity; without a bias, so that lengths do not matter to cosines."""

    def __init__(self, width: int, projection_dim: int):
        super().__init__(width, projection_dim, bias=False)


class CAVTMAEPreTrainedModel(FreezesParts):
    config: CAVTMAEConfig
    main_input_name = "input_values"
    input_modalities: tuple[str, ...] = ("audio", "image", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # our losses do not divide by num_items_in_batch: the Trainer has to average
    _no_split_modules = ["CAVMAELayer", "CAVMAEEmbeddings"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _freezable = {
        "audio_model": "freeze_audio_model",
        "vision_model": "freeze_vision_model",
        "text_model": "freeze_text_model",
    }

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, CAVTMAEProjection):
            init.eye_(module.weight)
        elif isinstance(module, CAVTMAEModel):
            init.constant_(module.temperature, self.config.temperature)


class CAVTMAEModel(CAVTMAEPreTrainedModel):
    """Three towers and, on request, a projection behind each."""

    base_model_prefix = "cavtmae"

    def __init__(
        self,
        config: CAVTMAEConfig,
        audio_tower: CAVMAEAudioModel | None = None,
        vision_tower: CAVMAEImageModel | None = None,
        text_tower: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        configs: tuple[Any, Any, Any] = config.audio_config, config.vision_config, config.text_config
        self.audio_model = CAVMAEAudioModel(configs[0]) if audio_tower is None else there(audio_tower)
        self.vision_model = CAVMAEImageModel(configs[1]) if vision_tower is None else there(vision_tower)
        self.text_model = new_text_tower(configs[2]) if text_tower is None else there(text_tower)
        if config.tie_unified_block:
            tie_joint_layers(self.audio_model, self.vision_model)
        names = ("audio_projection", "image_projection", "text_projection")
        for name, width in zip(names, config.widths, strict=True):
            dim = config.projection_dim
            setattr(self, name, None if dim is None else CAVTMAEProjection(width, dim))
        self.temperature = nn.Parameter(torch.full((1,), float(config.temperature)))
        self.post_init()
        self.apply_freezing()

    @classmethod
    def from_pretrained_parts(
        cls,
        cavmae: str | PreTrainedModel,
        text_model: str | PreTrainedModel,
        *,
        cavmae_kwargs: dict | None = None,
        text_kwargs: dict | None = None,
        **config_fields,
    ) -> "CAVTMAEModel":
        """A model that is to be aligned: both sides of a CAV-MAE, each with its copy of the joint layers, and a text
        encoder.

        Args:
            cavmae: name, folder or model of a whole CAV-MAE: pre-trained, a classifier, or the encoder alone.
            text_model: name, folder or model of a text encoder; of a CLIP its text side, without the projection. For
                Stable Diffusion's, its name and `text_kwargs={"subfolder": "text_encoder"}`.
            cavmae_kwargs, text_kwargs (*optional*): for each `from_pretrained`: dtype, revision, cache_dir, ...
            config_fields: of `CAVTMAEConfig`, such as `projection_dim=256`.
        """
        hears = side_of(CAVMAEAudioModel, CAVMAEAudioConfig, cavmae, **(cavmae_kwargs or {}))
        sees = side_of(CAVMAEImageModel, CAVMAEImageConfig, cavmae, **(cavmae_kwargs or {}))
        text = text_tower_of(text_model, **(text_kwargs or {}))
        config = CAVTMAEConfig(
            audio_config=hears.config, vision_config=sees.config, text_config=text.config, **config_fields
        )
        return cls(config, hears, sees, text).eval()

    def as_matcher(self, processor) -> CAVTMAEMatcher:
        """The model and its processor as one that takes raw sounds, pictures and texts; see `CAVTMAEMatcher`."""
        return CAVTMAEMatcher(self, processor)

    def get_input_embeddings(self):
        return self.audio_model.get_input_embeddings()

    def _frozen_parts(self) -> list[nn.Module]:
        more = [self.audio_model.joint_layers] if self.config.freeze_unified_block else []
        return super()._frozen_parts() + more

    def apply_freezing(self) -> None:
        if not self.config.learn_temperature:
            self.temperature.requires_grad_(False)
        super().apply_freezing()

    def clamped_temperature(self) -> torch.Tensor:
        """(1,). In training the weight itself is brought back between its limits: clamped, it would learn nothing
        there, and stay."""
        limits = self.config.min_temperature, self.config.max_temperature
        if self.training and self.temperature.requires_grad:
            with torch.no_grad():
                self.temperature.clamp_(*limits)
            return self.temperature
        return self.temperature.clamp(*limits)

    # ---- one kind at a time

    def project_audio(self, native_BD: torch.Tensor) -> torch.Tensor:
        return _projected(self.audio_projection, native_BD)

    def project_image(self, native_BD: torch.Tensor) -> torch.Tensor:
        """Pictures' embeddings from the image side (B, D), perhaps computed before, in the space, (B, E)."""
        return _projected(self.image_projection, native_BD)

    def project_text(self, native_BD: torch.Tensor) -> torch.Tensor:
        """Texts' features from the text encoder (B, D), perhaps computed before, in the space, (B, E)."""
        return _projected(self.text_projection, native_BD)

    @can_return_tuple
    def get_audio_features(
        self, input_values, interpolate_pos_encoding: bool = False, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """Sounds; `pooler_output` (B, E) is f_a, `last_hidden_state` (B, N, D) its tokens."""
        output = self.audio_model(
            input_values, interpolate_pos_encoding=interpolate_pos_encoding, return_dict=True, **kwargs
        )
        return _with(output, self.project_audio(output.pooler_output))

    @can_return_tuple
    def get_native_image_features(
        self, pixel_values, interpolate_pos_encoding: bool = False, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """Pictures; `pooler_output` (B, D) is the image side's own, before the projection."""
        return self.vision_model(
            pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, return_dict=True, **kwargs
        )

    @can_return_tuple
    def get_image_features(
        self, pixel_values, interpolate_pos_encoding: bool = False, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """Pictures; `pooler_output` (B, E) is f_v."""
        output = self.get_native_image_features(pixel_values, interpolate_pos_encoding, return_dict=True, **kwargs)
        return _with(output, self.project_image(output.pooler_output))

    @can_return_tuple
    def get_native_text_features(
        self, input_ids, text_attention_mask=None, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """Texts; `pooler_output` (B, D) is what `config.text_feature` says, before the projection."""
        config, real_BN = self.config, self._real_tokens(input_ids, text_attention_mask)
        if config.text_feature == "token_table":
            rows_BND = self.text_model.get_input_embeddings()(input_ids)
            return BaseModelOutputWithPooling(
                last_hidden_state=rows_BND, pooler_output=_mean(rows_BND, real_BN & self._is_word(input_ids))
            )
        output = self.text_model(input_ids, attention_mask=text_attention_mask, return_dict=True, **kwargs)
        if config.text_feature == "mean_tokens":
            return _with(output, _mean(output.last_hidden_state, real_BN))
        if getattr(output, "pooler_output", None) is None:
            raise ValueError(
                f"a {config.text_config.model_type} encoder pools nothing: set text_feature='mean_tokens', or "
                "'token_table'"
            )
        return _with(output, output.pooler_output)

    @can_return_tuple
    def get_text_features(
        self, input_ids, text_attention_mask=None, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """Texts; `pooler_output` (B, E) is f_t."""
        output = self.get_native_text_features(input_ids, text_attention_mask, return_dict=True, **kwargs)
        return _with(output, self.project_text(output.pooler_output))

    def _real_tokens(self, input_ids_BN, mask_BN) -> torch.Tensor:
        if mask_BN is not None:
            return mask_BN.bool()
        _, end = special_tokens(self.config.text_config)
        if self.config.text_config.model_type == "clip_text_model":  # its padding may be the end again, or a word
            return (input_ids_BN == end).long().cumsum(1) - (input_ids_BN == end).long() == 0
        pad = self.config.text_config.pad_token_id
        return torch.ones_like(input_ids_BN).bool() if pad is None else input_ids_BN != pad

    def _is_word(self, input_ids_BN) -> torch.Tensor:
        special = [one for one in special_tokens(self.config.text_config) if one is not None]
        return torch.isin(input_ids_BN, torch.tensor(special, device=input_ids_BN.device), invert=True)

    # ---- all together

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        text_attention_mask: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        label_ids: torch.Tensor | None = None,
        alpha: float | None = None,
        momentum_audio_embeds: torch.Tensor | None = None,
        momentum_image_embeds: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        return_loss: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CAVTMAEOutput:
        """Whatever is passed is embedded, and every two kinds are compared.

        Args:
            input_values (`torch.FloatTensor`): (B, T, M), sounds from `CAVMAEFeatureExtractor`.
            pixel_values (`torch.FloatTensor`): (B, C, S, S), pictures from `CAVMAEImageProcessor`.
            input_ids, text_attention_mask (`torch.LongTensor`): (B, N), texts as the text encoder's tokens.
            text_embeds (`torch.FloatTensor`): (B, D), in their place what `get_native_text_features` gave before: a
                data set has few labels.
            label_ids (`torch.LongTensor`): (B,), numbers of the labels: rows of one label are each other's positives
                (`config.targets`). Without them each row is of its own.
            alpha (`float`, *optional*): of the loss; the configuration's by default.
            momentum_audio_embeds, momentum_image_embeds (`torch.FloatTensor`): (B, E), of a momentum copy. Without
                them alpha is 0: AAI's ablation.
            interpolate_pos_encoding (`bool`): take longer sounds, and pictures of another size.
            return_loss (`bool`): needs a sound, a picture and a text in each row.
        """
        if all(given is None for given in (input_values, pixel_values, input_ids, text_embeds)):
            raise ValueError("nothing to embed: pass input_values (sound), pixel_values, or input_ids or text_embeds")
        if input_ids is not None and text_embeds is not None:
            raise ValueError("pass texts as input_ids or as text_embeds, one of the two")
        audio = image = text = a = v = t = native_v = None
        if input_values is not None:
            audio = self.get_audio_features(input_values, interpolate_pos_encoding, return_dict=True, **kwargs)
            a = audio.pooler_output
        if pixel_values is not None:
            image = self.get_native_image_features(pixel_values, interpolate_pos_encoding, return_dict=True, **kwargs)
            native_v = image.pooler_output
            v = self.project_image(native_v)
        if input_ids is not None:
            text = self.get_text_features(input_ids, text_attention_mask, return_dict=True, **kwargs)
            t = text.pooler_output
        elif text_embeds is not None:
            t = self.project_text(text_embeds)
        temperature = self.clamped_temperature()
        found = CAVTMAEOutput(
            audio_embeds=a,
            image_embeds=v,
            text_embeds=t,
            native_image_embeds=native_v,
            logits_audio_text=_cosines(a, t, temperature),
            logits_audio_image=_cosines(a, v, temperature),
            logits_image_text=_cosines(v, t, temperature),
            temperature=temperature,
            audio_model_output=audio,
            vision_model_output=image,
            text_model_output=text,
        )
        if return_loss:
            self._add_losses(found, label_ids, alpha, momentum_audio_embeds, momentum_image_embeds)
        return found

    def _add_losses(self, output: CAVTMAEOutput, label_ids, alpha, slow_audio, slow_image) -> None:
        at, av = output.logits_audio_text, output.logits_audio_image
        if at is None or av is None or not at.shape == av.shape == at.shape[::-1]:
            raise ValueError("return_loss=True needs as many sounds as pictures and texts, row by row")
        own_BB = torch.eye(len(at), dtype=torch.bool, device=at.device)
        positives_BB = own_BB
        if label_ids is not None and self.config.targets == "multi_positive":
            positives_BB = label_ids[:, None] == label_ids
        output.loss_at = contrast(at, positives_BB)
        output.loss_av = contrast(av, own_BB)
        output.loss = output.loss_at + output.loss_av
        if slow_audio is None or slow_image is None:
            return
        alpha = self.config.alpha if alpha is None else alpha
        slow_BB = _cosines(slow_audio, slow_image, output.temperature).detach()
        output.loss_momentum = distillation(av, slow_BB, self.config.distill_form)
        output.loss = output.loss_at + (1 - alpha) * output.loss_av + alpha / 2 * output.loss_momentum


def contrast(logits_BB: torch.Tensor, positives_BB: torch.Tensor) -> torch.Tensor:
    """The mean over rows and both directions of the cross-entropy against targets even over a row's positives."""
    losses = [
        -(way.log_softmax(1) * (right / right.sum(1, keepdim=True))).sum(1).mean()
        for way, right in ((logits_BB, positives_BB.to(logits_BB)), (logits_BB.t(), positives_BB.t().to(logits_BB)))
    ]
    return (losses[0] + losses[1]) / 2


def distillation(logits_BB: torch.Tensor, slow_BB: torch.Tensor, form: str) -> torch.Tensor:
    """The sum over both directions of the mean divergence from a copy's shares, or cross-entropy against them."""
    found = logits_BB.new_zeros(())
    for way, slow in ((logits_BB, slow_BB), (logits_BB.t(), slow_BB.t())):
        log_shares, log_targets = way.log_softmax(1), slow.log_softmax(1)
        gap = -log_shares if form == "ce" else log_targets - log_shares
        found = found + (log_targets.exp() * gap).sum(1).mean()
    return found


# ---- towers ---------------------------------------------------------------------------------------------------------


def there(tower: PreTrainedModel) -> PreTrainedModel:
    """A tower whose weights no `post_init` will draw."""
    for module in tower.modules():
        module._is_hf_initialized = True
    return tower


def new_text_tower(config) -> PreTrainedModel:
    if config.model_type in TEXT_TOWERS:
        return TEXT_TOWERS[config.model_type]._from_config(config)
    return AutoModel.from_config(config)


def text_tower_of(source, **kwargs) -> PreTrainedModel:
    """A text encoder from its name, its folder or itself; of a whole CLIP, or one with a projection, without that."""
    if isinstance(source, nn.Module):
        tower = source
    else:
        config = AutoConfig.from_pretrained(source, **{name: kwargs[name] for name in kwargs if name != "dtype"})
        config = getattr(config, "text_config", None) or config
        tower_class = TEXT_TOWERS.get(config.model_type) or MODEL_MAPPING[type(config)]
        tower, info = tower_class.from_pretrained(source, config=config, output_loading_info=True, **kwargs)
        if info["missing_keys"]:
            raise ValueError(
                f"{source} lacks {len(info['missing_keys'])} weights of {tower_class.__name__}, "
                f"{sorted(info['missing_keys'])[0]} first: load the encoder yourself and pass it"
            )
    wanted = TEXT_TOWERS.get(tower.config.model_type) or MODEL_MAPPING.get(type(tower.config), None)
    if wanted is None or type(tower) is not wanted or wanted.main_input_name != "input_ids":
        raise ValueError(
            f"{type(tower).__name__} is no text encoder that would be built again: pass "
            f"{'one' if wanted is None else wanted.__name__}, or the name or folder of the checkpoint"
        )
    return tower


def side_of(side_class: Any, config_class: Any, source, **kwargs) -> Any:
    """One side of a whole CAV-MAE, from its folder or, as a copy, from the model."""
    if not isinstance(source, nn.Module):
        return side_class.from_pretrained(source, **kwargs)
    trunk = source.base_model
    if getattr(trunk.config, "model_type", None) != "cavmae":
        raise ValueError(f"{type(source).__name__} is no CAV-MAE with both sides: pass one, or its folder")
    known = config_class().to_dict().keys() - {"model_type", "architectures", "transformers_version", "dtype"}
    fields = {name: value for name, value in trunk.config.to_dict().items() if name in known}
    side = side_class(config_class(**fields))
    weights = trunk.state_dict()
    side.load_state_dict({name: weights[name] for name in side.state_dict()})
    return side.to(trunk.dtype)


def tie_joint_layers(audio: CAVMAEAudioModel, image: CAVMAEImageModel) -> None:
    """The image side's joint layers compute with the audio side's attention and MLP, and have norms of their own.

    They are plain attributes there and no submodules: weights are saved, counted and moved once.
    """
    for hears, sees in zip(audio.joint_layers, image.joint_layers, strict=True):
        for name in SHARED:
            delattr(sees, name)
            object.__setattr__(sees, name, getattr(hears, name))


def _projected(projection: nn.Linear | None, native_BD: torch.Tensor) -> torch.Tensor:
    return native_BD if projection is None else projection(native_BD.to(projection.weight.dtype))


def _mean(rows_BND: torch.Tensor, real_BN: torch.Tensor) -> torch.Tensor:
    weights_BN1 = real_BN[:, :, None].to(rows_BND)
    return (rows_BND * weights_BN1).sum(1) / weights_BN1.sum(1).clamp(min=1)


def _with(output, embeds_BE: torch.Tensor) -> BaseModelOutputWithPooling:
    return BaseModelOutputWithPooling(
        last_hidden_state=output.last_hidden_state,
        pooler_output=embeds_BE,
        hidden_states=getattr(output, "hidden_states", None),
        attentions=getattr(output, "attentions", None),
    )


def _cosines(left_AE: torch.Tensor | None, right_BE: torch.Tensor | None, temperature) -> torch.Tensor | None:
    """Cosines over the temperature, in float32 at least."""
    if left_AE is None or right_BE is None:
        return None
    wide = torch.promote_types(left_AE.dtype, torch.float32)
    left_AE, right_BE = (nn.functional.normalize(rows.to(wide), dim=-1) for rows in (left_AE, right_BE))
    return left_AE @ right_BE.t() / temperature.to(wide)


__all__ = ["CAVTMAEModel", "CAVTMAEOutput", "CAVTMAEPreTrainedModel"]
