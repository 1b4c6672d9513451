"""UniBriVL: a language tower that hears (and reads) is trained into the space of a frozen image tower.

sound or units -> backbone -> average over layers -> 512 numbers a frame -> self-attention block -> mean -> MLP -> a
picture         -> image tower -> v                       f: v -> shared space, g: a -> the image tower's own space

`UniBriVLAudioModel` is the language tower, `UniBriVLModel` both towers with f and g. Objectives live in training.

Shapes: B batch, S samples, T frames or units, L layers, D hidden, E shared width, V image tower's width.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .attention_brivl import BriVLAttentionPool, BriVLProjection
from .configuration_unibrivl import UniBriVLConfig, audio_width
from .freezing_unibrivl import FreezesParts
from .layer_mix_unibrivl import KeptLayers, UniBriVLLayerMix, mixing, watch
from .matcher_unibrivl import UniBriVLMatcher
from .outputs_unibrivl import UniBriVLAudioOutput, UniBriVLFeatures, UniBriVLOutput
from .towers_unibrivl import (
    frame_mask_of,
    frames_of,
    image_embedding,
    layers_to_mix,
    load_audio_tower,
    load_image_towers,
    run_audio_tower,
    text_embedding,
    tower_of,
)


def normalize(embeds_BE: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(embeds_BE, dim=-1)


class UniBriVLPreTrainedModel(FreezesParts):
    config: UniBriVLConfig
    main_input_name = "input_values"
    input_modalities: tuple[str, ...] = ("audio", "image", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # our losses do not divide by num_items_in_batch: the Trainer has to average
    _no_split_modules = ["BriVLLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _freezable = {
        "audio_model": "freeze_audio_model",
        "tower": "freeze_audio_tower",
        "vision_model": "freeze_vision_model",
        "text_model": "freeze_text_model",
        "decoder": "freeze_decoder",
    }

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, UniBriVLLayerMix):
            init.zeros_(module.logits)


class UniBriVLAudioModel(UniBriVLPreTrainedModel):
    """The language tower: sound, or a text as units, to frames, features and an embedding."""

    base_model_prefix = "audio_model"
    input_modalities = ("audio", "text")

    def __init__(self, config: UniBriVLConfig, tower: PreTrainedModel | None = None):
        super().__init__(config)
        self.tower = tower_of(config.audio_config, "audio", tower)
        layers = layers_to_mix(self.tower) if config.use_layer_mix else []
        watch(layers)
        self.layer_mix = UniBriVLLayerMix(len(layers), config.layer_mix_norm) if layers else None
        self.frame_projection = nn.Linear(audio_width(config.audio_config), config.embed_dim)
        self.attention_pool = BriVLAttentionPool(
            config,
            config.embed_dim,
            config.num_sa_layers,
            config.num_sa_heads,
            config.sa_intermediate_size,
            config.sa_dropout,
            config.sa_layer_norm_eps,
        )
        self.projection = BriVLProjection(config.embed_dim, config.embed_dim)
        self.post_init()
        self.apply_freezing()

    def get_input_embeddings(self):
        return self.tower.get_input_embeddings() if self.reads_units else None

    def set_input_embeddings(self, value):
        self.tower.set_input_embeddings(value)

    @property
    def reads_units(self) -> bool:
        return self.config.audio_config.model_type == "speechlm"

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        unit_ids: torch.Tensor | None = None,
        unit_attention_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        padding_mask: torch.Tensor | None = None,
        is_longer: torch.Tensor | None = None,
        audio_frames: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UniBriVLAudioOutput:
        """
        Args:
            input_values (`torch.FloatTensor`): the sound as the tower's feature extractor prepares it: (B, S) samples
                for SpeechLM. Extractors that call it `input_features`, and its mask `padding_mask`, are understood.
            attention_mask (`torch.Tensor`, *optional*): 1 where the sound is real.
            unit_ids (`torch.LongTensor`): (B, T), a text as SpeechLM's units, instead of sound.
            unit_attention_mask (`torch.Tensor`, *optional*): (B, T), 1 on real units; by default all but padding.
            is_longer (`torch.BoolTensor`, *optional*): CLAP's own mark of clips that were shortened.
            audio_frames (`torch.FloatTensor`): what `tower_frames` gave for sounds, which are then not heard again.
            frame_mask (`torch.Tensor`, *optional*): (B, T), 1 on those of `audio_frames` that are real.
        """
        sound = input_values if input_values is not None else input_features
        if sum(given is not None for given in (sound, unit_ids, audio_frames)) != 1:
            raise ValueError(
                "pass sound (input_values) or a text (unit_ids), one of the two; or sound as audio_frames"
            )
        output = None
        if unit_ids is not None:
            output, frames_BTD, mask_BT = self._read(unit_ids, unit_attention_mask, **kwargs)
        elif audio_frames is not None:
            frames_BTD, mask_BT = self._recall(audio_frames), frame_mask
        else:
            mask = attention_mask if attention_mask is not None else padding_mask
            if is_longer is not None:
                kwargs["is_longer"] = is_longer
            output, frames_BTD, mask_BT = self._hear(sound, mask, **kwargs)
        if frames_BTD.shape[-1] != self.frame_projection.in_features:
            raise ValueError(
                f"the {self.config.audio_config.model_type} tower gives frames of width {frames_BTD.shape[-1]} and "
                f"its configuration says {self.frame_projection.in_features}: correct its hidden_size"
            )
        frames_BTE = self.frame_projection(frames_BTD.to(self.frame_projection.weight.dtype))
        frames_BTE, pooled_BE = self.attention_pool(frames_BTE, mask_BT)
        return UniBriVLAudioOutput(
            last_hidden_state=frames_BTE,
            pooler_output=normalize(self.projection(pooled_BE)),
            features=pooled_BE,
            frame_mask=mask_BT,
            hidden_states=getattr(output, "hidden_states", None),
            attentions=getattr(output, "attentions", None),
        )

    def tower_frames(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        padding_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the tower alone makes of sounds, for `forward` to go on from: where the tower is frozen it can be kept.

        Arguments are those of `forward`.

        Returns:
            frames (B, T, D), or, since the average over layers may train, (B, T, L D), what each of them gave, one
            behind the other; and which frames are real, (B, T), or None where all are.
        """
        sound = input_values if input_values is not None else input_features
        if sound is None:
            raise ValueError("pass sound: input_values, or input_features")
        mask = attention_mask if attention_mask is not None else padding_mask
        kept = None if self.layer_mix is None else KeptLayers()
        with mixing(kept):
            output = run_audio_tower(self.tower, sound, mask, **kwargs)
        if kept is None:
            frames = frames_of(self.tower, output.last_hidden_state)
        else:
            frames = torch.cat([frames_of(self.tower, one, in_layers=True) for one in kept.states], 2)
        return frames, frame_mask_of(self.tower, output, frames.shape[1], mask)

    def _recall(self, frames: torch.Tensor) -> torch.Tensor:
        width = self.frame_projection.in_features * (1 if self.layer_mix is None else len(self.layer_mix.logits))
        if frames.dim() != 3 or frames.shape[2] != width:
            raise ValueError(
                f"audio_frames are {tuple(frames.shape)} and must be (batch, frames, {width}): pass what tower_frames "
                "of this model gave"
            )
        return frames if self.layer_mix is None else self.layer_mix.of(frames)

    def _hear(self, sound, mask, **kwargs):
        mix = None if self.layer_mix is None else self.layer_mix.begin()
        with mixing(mix):
            output = run_audio_tower(self.tower, sound, mask, **kwargs)
        frames_BTD = frames_of(self.tower, output.last_hidden_state)
        if mix is not None:
            frames_BTD = frames_of(self.tower, mix.result(output.last_hidden_state), in_layers=True)
        return output, frames_BTD, frame_mask_of(self.tower, output, frames_BTD.shape[1], mask)

    def _read(self, unit_ids, unit_attention_mask, **kwargs):
        if not self.reads_units:
            raise ValueError(
                f"a {self.config.audio_config.model_type} tower hears and does not read. Text needs SpeechLM as the "
                "audio tower, or the image tower's own text tower: pass input_ids"
            )
        mix = None if self.layer_mix is None else self.layer_mix.begin(self.config.audio_config.num_speech_layers)
        with mixing(mix):
            output = self.tower(input_ids=unit_ids, attention_mask=unit_attention_mask, return_dict=True, **kwargs)
        frames_BTD = output.last_hidden_state if mix is None else mix.result(output.last_hidden_state)
        return output, frames_BTD, output.frame_mask


class UniBriVLModel(UniBriVLPreTrainedModel):
    """Both towers and the two projections between their spaces."""

    base_model_prefix = "unibrivl"

    def __init__(
        self,
        config: UniBriVLConfig,
        audio_tower: PreTrainedModel | None = None,
        vision_tower: PreTrainedModel | None = None,
        text_tower: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        self.audio_model = UniBriVLAudioModel(config, audio_tower)
        self.vision_model = tower_of(config.vision_config, "image", vision_tower)
        self.text_model = None
        if config.text_config is not None:
            self.text_model = tower_of(config.text_config, "text", text_tower)
        self.image_to_shared = BriVLProjection(config.native_dim, config.embed_dim)  # f
        self.audio_to_native = BriVLProjection(config.embed_dim, config.native_dim)  # g
        self.post_init()
        self.apply_freezing()

    @classmethod
    def from_pretrained_towers(
        cls,
        audio: str | PreTrainedModel,
        image: str | PreTrainedModel,
        *,
        text: bool = True,
        audio_kwargs: dict | None = None,
        image_kwargs: dict | None = None,
        **config_fields,
    ) -> "UniBriVLModel":
        """A model from two checkpoints: their towers as they are, the head and the projections new, pictures frozen.

        Args:
            audio: name, folder or model of an audio encoder; of CLAP, Whisper or PE-AV its audio part is taken.
            image: name or folder of an image encoder, of CLIP, SigLIP or BriVL the picture part; or an image model.
            text (`bool`): keep the text tower that shares the image tower's space, if the checkpoint has one.
            audio_kwargs, image_kwargs (*optional*): for each `from_pretrained`: dtype, revision, cache_dir, ...
            config_fields: of `UniBriVLConfig`, such as `embed_dim=256`.
        """
        audio_tower = load_audio_tower(audio, **(audio_kwargs or {}))
        vision_tower, text_tower = load_image_towers(image, text, **(image_kwargs or {}))
        if text_tower is not None and audio_tower.config.model_type != "speechlm":
            config_fields.setdefault("text_route", "native")
        config = UniBriVLConfig(
            audio_config=audio_tower.config,
            vision_config=vision_tower.config,
            text_config=None if text_tower is None else text_tower.config,
            **config_fields,
        )
        return cls(config, audio_tower, vision_tower, text_tower).eval()

    def as_matcher(self, processor, space: str = "match") -> UniBriVLMatcher:
        """The model and its processor as one that takes raw sounds, pictures and texts; see `UniBriVLMatcher`."""
        return UniBriVLMatcher(self, processor, space)

    def get_input_embeddings(self):
        return self.audio_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.audio_model.set_input_embeddings(value)

    def project_image(self, native_BV: torch.Tensor) -> torch.Tensor:
        """f: the image tower's embeddings (B, V) in the shared space, (B, E)."""
        return _project(self.image_to_shared, native_BV)

    def project_audio(self, shared_BE: torch.Tensor) -> torch.Tensor:
        """g: embeddings of sounds or texts (B, E) in the image tower's space, (B, V)."""
        return _project(self.audio_to_native, shared_BE)

    @can_return_tuple
    def get_audio_features(self, input_values=None, attention_mask=None, **kwargs: Unpack[TransformersKwargs]):
        """Sounds; `pooler_output` (B, E) is a, their embedding in the shared space."""
        return self.audio_model(input_values, attention_mask, return_dict=True, **kwargs)

    @can_return_tuple
    def get_text_features(self, unit_ids, unit_attention_mask=None, **kwargs: Unpack[TransformersKwargs]):
        """Texts as units; `pooler_output` (B, E) is their embedding in the shared space."""
        return self.audio_model(unit_ids=unit_ids, unit_attention_mask=unit_attention_mask, return_dict=True, **kwargs)

    @can_return_tuple
    def get_audio_text_features(
        self,
        input_values,
        unit_ids,
        attention_mask=None,
        unit_attention_mask=None,
        **kwargs: Unpack[TransformersKwargs],
    ):
        """Sounds each with a text: encoded separately, the mean of their embeddings, normalised again."""
        sound = self.get_audio_features(input_values, attention_mask, return_dict=True, **kwargs)
        text = self.get_text_features(unit_ids, unit_attention_mask, return_dict=True, **kwargs)
        return UniBriVLFeatures(pooler_output=normalize((sound.pooler_output + text.pooler_output) / 2))

    @can_return_tuple
    def get_image_features(self, pixel_values, **kwargs: Unpack[TransformersKwargs]):
        """Pictures; `pooler_output` (B, E) is f(v), their embedding in the shared space."""
        native = self.get_native_image_features(pixel_values, return_dict=True, **kwargs)
        return _features(native, self.project_image(native.pooler_output))

    @can_return_tuple
    def get_native_image_features(self, pixel_values, **kwargs: Unpack[TransformersKwargs]):
        """Pictures; `pooler_output` (B, V) is v, normalised. More arguments (BriVL: boxes) go to the image tower."""
        output = self.vision_model(pixel_values.to(self.vision_model.dtype), return_dict=True, **kwargs)
        embeds_BV = image_embedding(self.vision_model, output)
        if embeds_BV.shape[-1] != self.config.image_embed_dim:
            raise ValueError(
                f"the {self.config.vision_config.model_type} tower gives {embeds_BV.shape[-1]} numbers a picture and "
                f"the configuration says {self.config.image_embed_dim}: set image_embed_dim={embeds_BV.shape[-1]}"
            )
        return _features(output, normalize(embeds_BV))

    @can_return_tuple
    def get_native_audio_features(self, input_values=None, attention_mask=None, **kwargs: Unpack[TransformersKwargs]):
        """Sounds; `pooler_output` (B, V) is g(a), their embedding in the image tower's space."""
        output = self.get_audio_features(input_values, attention_mask, return_dict=True, **kwargs)
        return _features(output, self.project_audio(output.pooler_output))

    @can_return_tuple
    def get_native_text_features(self, input_ids, text_attention_mask=None, **kwargs: Unpack[TransformersKwargs]):
        """Texts through the image tower's own text tower; `pooler_output` is (B, V)."""
        if self.text_model is None:
            raise ValueError(
                "this model has no native text tower. Pass unit_ids to a SpeechLM tower, or build the model with the "
                "text tower of its image tower: text_config, or from_pretrained_towers(..., text=True)"
            )
        output = self.text_model(input_ids, attention_mask=text_attention_mask, return_dict=True, **kwargs)
        return _features(output, normalize(text_embedding(output)))

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        unit_ids: torch.Tensor | None = None,
        unit_attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        text_attention_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        padding_mask: torch.Tensor | None = None,
        is_longer: torch.Tensor | None = None,
        audio_frames: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UniBriVLOutput:
        """Whatever is passed is embedded, and every two kinds are compared.

        Args:
            input_values, attention_mask, input_features, padding_mask, is_longer: sounds; see `UniBriVLAudioModel`.
            audio_frames, frame_mask: sounds that its tower has heard before; see there too.
            pixel_values (`torch.FloatTensor`): (B, 3, H, W), pictures from the image tower's processor.
            unit_ids, unit_attention_mask: (B, T), texts as units, for the language tower.
            input_ids, text_attention_mask: (B, N), texts as the native text tower's tokens.
            kwargs: `output_hidden_states` and the like for all towers; the rest (BriVL: boxes) for the image tower.
        """
        sounds = input_values if input_values is not None else input_features
        if all(given is None for given in (sounds, audio_frames, pixel_values, unit_ids, input_ids)):
            raise ValueError("nothing to embed: pass input_values (sound), pixel_values, unit_ids or input_ids (text)")
        audio = image = text = native_text = None
        common = {name: value for name, value in kwargs.items() if name in TransformersKwargs.__annotations__}
        if sounds is not None or audio_frames is not None:
            mask = attention_mask if attention_mask is not None else padding_mask
            heard = {"is_longer": is_longer, "audio_frames": audio_frames, "frame_mask": frame_mask}
            audio = self.get_audio_features(sounds, mask, return_dict=True, **heard, **common)
        if pixel_values is not None:
            image = self.get_native_image_features(pixel_values, return_dict=True, **kwargs)
        if unit_ids is not None:
            text = self.get_text_features(unit_ids, unit_attention_mask, return_dict=True, **common)
        if input_ids is not None:
            native_text = self.get_native_text_features(input_ids, text_attention_mask, return_dict=True, **common)
        return self._compare(audio, image, text, native_text)

    def _compare(self, audio, image, text, native_text) -> UniBriVLOutput:
        a = v = f_v = g_a = t = g_t = native_t = None
        if audio is not None:
            a = audio.pooler_output
            g_a = self.project_audio(a)
        if image is not None:
            v = image.pooler_output
            f_v = self.project_image(v)
        if text is not None:
            t = text.pooler_output
            g_t = self.project_audio(t)
        if native_text is not None:
            native_t = native_text.pooler_output
        shared, native = _cosines(a, f_v), _cosines(g_a, v)
        through_native = native_t is not None and (t is None or self.config.text_route == "native")
        return UniBriVLOutput(
            audio_embeds=a,
            image_embeds=f_v,
            text_embeds=t,
            native_audio_embeds=g_a,
            native_image_embeds=v,
            native_text_embeds=native_t,
            logits_audio_image=_mean(shared, native),
            shared_scores=shared,
            native_scores=native,
            logits_audio_text=_cosines(g_a, native_t) if through_native else _cosines(a, t),
            logits_image_text=_cosines(v, native_t) if through_native else _mean(_cosines(f_v, t), _cosines(v, g_t)),
            audio_model_output=audio,
            text_model_output=text,
            vision_model_output=image,
            native_text_model_output=native_text,
        )


def _project(projection: BriVLProjection, embeds_BE: torch.Tensor) -> torch.Tensor:
    return normalize(projection(normalize(embeds_BE.to(projection.fc1.weight.dtype))))


def _features(output, embeds_BE: torch.Tensor) -> UniBriVLFeatures:
    return UniBriVLFeatures(
        last_hidden_state=output.last_hidden_state,
        pooler_output=embeds_BE,
        hidden_states=getattr(output, "hidden_states", None),  # convolutional towers have no attentions
        attentions=getattr(output, "attentions", None),
    )


def _cosines(left_AE: torch.Tensor | None, right_BE: torch.Tensor | None) -> torch.Tensor | None:
    if left_AE is None or right_BE is None:
        return None
    return left_AE @ right_BE.to(left_AE).t()


def _mean(first: torch.Tensor | None, second: torch.Tensor | None) -> torch.Tensor | None:
    return None if first is None or second is None else (first + second) / 2


__all__ = ["UniBriVLAudioModel", "UniBriVLModel", "UniBriVLPreTrainedModel"]
