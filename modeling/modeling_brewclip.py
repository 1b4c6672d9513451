"""BrewCLIP: what was said and how it sounded, among pictures.

    sound -> transcript -> [prompts] -> CLIP's text tower                        -> t
    sound -> frozen audio encoder -> frames, prompts -> one layer of attention   -> e
    fused(t, e) -> a,  compared with CLIP's vector of a picture

All towers are frozen. What learns: prompts, a few linear layers, one layer of attention, and how both channels are
weighed. Transcripts come from outside (`input_ids`), so nothing here writes down what is said: see
`transcription_brewclip`, and `as_matcher` for a model that takes raw sounds. SpeechCLIP's parallel and cascaded models
are configurations of the same parts (`BREWCLIP_PRESETS`).

Shapes: B sounds, N windows or parts of all of them, T frames, W their width, M prompts, D width of the text tower,
E width of the space.
"""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .channels_brewclip import EndToEndChannel, IdentityLinear, KeywordChannel, SharedPrompts, pooled
from .configuration_brewclip import LOSS_WEIGHTS, BrewCLIPConfig, check_channels
from .freezing_unibrivl import FreezesParts
from .fusion_brewclip import BrewCLIPFusion, softplus_inverse
from .layer_mix_unibrivl import UniBriVLLayerMix
from .lean_brewclip import LeanFiles
from .losses_brewclip import channel_losses
from .matcher_brewclip import BrewCLIPMatcher
from .outputs_brewclip import BrewCLIPAudioOutput, BrewCLIPOutput, scores, unit
from .text_brewclip import (
    TextParts,
    read,
    stretch_positions,
    text_parts,
    weighted_mean,
    words_of,
)
from .token_table_audio_token import special_tokens
from .towers_unibrivl import (
    frame_mask_of,
    frames_of,
    image_embedding,
    load_audio_tower,
    load_image_towers,
    load_text_tower,
    run_audio_tower,
    tower_of,
)


class BrewCLIPPreTrainedModel(LeanFiles, FreezesParts):
    config: BrewCLIPConfig
    config_class = BrewCLIPConfig
    base_model_prefix = "brewclip"
    main_input_name = "input_features"
    input_modalities: tuple[str, ...] = ("audio", "image", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # our losses do not divide by num_items_in_batch: the Trainer has to average
    _no_split_modules = ["BrewCLIPLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _freezable = {
        "audio_model": "freeze_audio_model",
        "vision_model": "freeze_vision_model",
        "text_model": "freeze_text_model",
        "brewclip": "freeze_brewclip",
    }

    def apply_freezing(self) -> None:
        for module in self.modules():
            if isinstance(module, BrewCLIPModel) and not self.config.learn_temperature:
                module.temperature.requires_grad_(False)
        super().apply_freezing()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, IdentityLinear):
            init.eye_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, SharedPrompts):
            init.normal_(module.weight, std=std)
        elif isinstance(module, (EndToEndChannel, KeywordChannel)):
            init.normal_(module.pool, std=std)
            if isinstance(module, KeywordChannel):
                init.ones_(module.allowed)
        elif isinstance(module, UniBriVLLayerMix):
            init.zeros_(module.logits)
        elif isinstance(module, BrewCLIPFusion):
            if module.raw_weight is not None:
                init.constant_(module.raw_weight, softplus_inverse(module.start))
        elif isinstance(module, BrewCLIPModel):
            init.constant_(module.temperature, self.config.temperature)


class BrewCLIPModel(BrewCLIPPreTrainedModel):
    """Both channels beside three frozen towers."""

    def __init__(
        self,
        config: BrewCLIPConfig,
        audio_tower: PreTrainedModel | None = None,
        vision_tower: PreTrainedModel | None = None,
        text_tower: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        self.audio_model = tower_of(config.audio_config, "audio", audio_tower)
        self.vision_model = tower_of(config.vision_config, "image", vision_tower)
        self.text_model = tower_of(config.text_config, "text", text_tower)
        width = self.text_model.config.hidden_size
        self.shared_prompts = SharedPrompts(config.num_prompts, width)
        self.vision_prompts = None
        if config.prompt_vision:
            self.vision_prompts = nn.Linear(width, self.vision_model.config.hidden_size)
        self.layer_mix = None
        if config.use_layer_mix:
            states = self.audio_model.config.num_hidden_layers + 1
            self.layer_mix = UniBriVLLayerMix(states, config.layer_mix_norm)
        self.e2e = EndToEndChannel(config) if "e2e" in config.channels else None
        self.keywords = KeywordChannel(config) if "keywords" in config.channels else None
        self.fusion = BrewCLIPFusion(config)
        self.temperature = nn.Parameter(torch.full((1,), float(config.temperature)))
        self.post_init()
        self.apply_freezing()

    @classmethod
    def from_pretrained_parts(
        cls,
        audio: str | PreTrainedModel,
        clip: str | PreTrainedModel,
        text: str | PreTrainedModel | None = None,
        *,
        text_positions: int | None = None,
        audio_kwargs: dict | None = None,
        clip_kwargs: dict | None = None,
        text_kwargs: dict | None = None,
        **config_fields,
    ) -> "BrewCLIPModel":
        """A new model between frozen towers. What is saved of it names them, and holds none of them.

        Args:
            audio: name, folder or model: a Whisper, a HuBERT, ...
            clip: name or folder of a CLIP, or, with `text`, of an image tower; or an image tower.
            text (*optional*): name, folder or model of CLIP's text tower, where it is not that of `clip`.
            text_positions (*optional*): draw the text tower's table of positions out to so many; then train it.
            audio_kwargs, clip_kwargs, text_kwargs (*optional*): for each `from_pretrained`: dtype, revision, ...
            config_fields: of `BrewCLIPConfig`, such as `num_prompts=8`; or `**BREWCLIP_PRESETS["released"]`.
        """
        hears = load_audio_tower(audio, **(audio_kwargs or {}))
        sees, reads = load_image_towers(clip, text is None, **(clip_kwargs or {}))
        if text is not None:
            reads = load_text_tower(text, **(text_kwargs or {}))
        if reads is None:
            raise ValueError(f"{clip} brings no text tower: name one as well, text=...")
        if text_positions is not None:
            stretch_positions(reads, text_positions)
            config_fields.setdefault("freeze_text_model", False)
        given = {"audio": (audio, hears), "image": (clip, sees), "text": (clip if text is None else text, reads)}
        for kind, (source, tower) in given.items():
            name, revision = origin_of(source, tower)
            config_fields.setdefault(f"{kind}_name", name)
            config_fields.setdefault(f"{kind}_revision", revision)
        config = BrewCLIPConfig(
            audio_config=hears.config, vision_config=sees.config, text_config=reads.config, **config_fields
        )
        model = cls(config, hears, sees, reads)
        if model.keywords is not None:
            model.keywords.fit_to(model._token_table(), special_tokens(config.text_config))
        return model.eval()

    def as_matcher(self, processor, **kwargs) -> BrewCLIPMatcher:
        """The model and its processor as one that takes raw sounds, pictures and texts; see `BrewCLIPMatcher`."""
        return BrewCLIPMatcher(self, processor, **kwargs)

    def get_input_embeddings(self):
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.text_model.set_input_embeddings(value)

    def _token_table(self) -> torch.Tensor:
        return self.text_model.get_input_embeddings().weight

    @property
    def prompts(self) -> torch.Tensor:
        """(M, D), the shared ones."""
        return self.shared_prompts()

    def _prompts(self) -> torch.Tensor | None:
        return self.prompts if self.config.num_prompts else None

    def clamped_temperature(self) -> torch.Tensor:
        """(1,)."""
        return self.temperature.clamp(min=self.config.min_temperature)

    # ---- sounds

    def audio_states(
        self,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the frozen audio encoder makes of sounds, to be kept and passed as `audio_states` of `forward`.

        Returns:
            frames (N, T, W), of all layers side by side where they are averaged, and which are real, (N, T), or None.
        """
        sound = input_features if input_features is not None else input_values
        if sound is None:
            raise ValueError("pass sound: input_features, or input_values, as the feature extractor makes them")
        mixes = self.layer_mix is not None
        kwargs = {name: value for name, value in kwargs.items() if not name.startswith("output_")}
        output = run_audio_tower(self.audio_model, sound, None if self._whisper else attention_mask,
                                 output_hidden_states=mixes, **kwargs)  # fmt: skip
        if mixes:
            frames = torch.cat([frames_of(self.audio_model, one, in_layers=True) for one in output.hidden_states], 2)
        else:
            frames = frames_of(self.audio_model, output.last_hidden_state)
        mask = frame_mask_of(self.audio_model, output, frames.shape[1], attention_mask)
        return (frames, mask) if self.config.frame_pool == 1 else pooled(frames, mask, self.config.frame_pool)

    @property
    def _whisper(self) -> bool:
        """Whose encoder looks at all frames whatever mask it is given."""
        return self.config.audio_config.model_type == "whisper"

    def _frames(self, states: torch.Tensor) -> torch.Tensor:
        width = int(self.config.audio_width or 0) * (1 if self.layer_mix is None else len(self.layer_mix.logits))
        if states.dim() != 3 or states.shape[2] != width:
            raise ValueError(
                f"audio_states are {tuple(states.shape)} and must be (sounds, frames, {width}): pass what "
                "audio_states(...) of this model gave"
            )
        return states if self.layer_mix is None else self.layer_mix.of(states)

    def _text_channel(self, input_ids: torch.Tensor) -> tuple[TextParts, torch.Tensor]:
        """The parts of transcripts, and their embeddings (N, E)."""
        config = self.text_model.config
        parts = text_parts(words_of(input_ids, config), config, len(self.prompts), self.config.long_text)
        return parts, read(self.text_model, parts, self._prompts())

    def _keyword_channel(self, frames_NTW, mask_NT) -> tuple[torch.Tensor, torch.Tensor]:
        """The text tower's embeddings (N, E) of the words that the cascade chose, and their ids (N, K)."""
        assert self.keywords is not None
        rows_NKD, ids_NK = self.keywords(frames_NTW, mask_NT, self._token_table())
        config = self.text_model.config
        parts = text_parts([[] for _ in rows_NKD], config, rows_NKD.shape[1], "truncate")
        return read(self.text_model, parts, rows_NKD), ids_NK

    @can_return_tuple
    def get_audio_features(
        self,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        *,
        input_values: torch.Tensor | None = None,
        audio_states: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        audio_rows: torch.Tensor | None = None,
        text_channel_embeds: torch.Tensor | None = None,
        channels: Sequence[str] | None = None,
        fusion_weight: float | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BrewCLIPAudioOutput:
        """Spoken sounds; `pooler_output` (B, E) is a, of length one.

        Args:
            input_features, attention_mask, input_values: sounds as the feature extractor prepares them.
            input_ids (`torch.LongTensor`): (B, L), transcripts, each between the ends of a text, of any length.
            audio_states, frame_mask: in the place of sounds, what `audio_states` gave for them before.
            audio_rows (`torch.LongTensor`, *optional*): (N,), the sound that each window is of, where there are more
                windows than sounds.
            text_channel_embeds (`torch.FloatTensor`): (B, E), in the place of transcripts, from before.
            channels (*optional*): which to use; the configuration's by default. What they do not need is not run.
            fusion_weight (`float`, *optional*): of the end-to-end channel, in the place of what was learned.
        """
        channels = self.config.channels if channels is None else check_channels(channels, self.config.channels)
        found = BrewCLIPAudioOutput()
        text_NE, parts = None, None
        if "text" in channels:
            if text_channel_embeds is not None:
                text_NE = found.text_channel_embeds = text_channel_embeds
            elif input_ids is not None:
                parts, text_NE = self._text_channel(input_ids)
                found.text_channel_embeds = weighted_mean(text_NE, parts.weights, parts.rows, len(input_ids))
            else:
                raise ValueError(
                    "the channel of words needs transcripts: pass input_ids (or text_channel_embeds), or leave it out "
                    'with channels=("e2e",)'
                )
        sound_BE = None
        if "e2e" in channels or "keywords" in channels:
            if audio_states is None:
                audio_states, frame_mask = self.audio_states(input_features, attention_mask, input_values, **kwargs)
            frames_NTW, found.frame_mask = self._frames(audio_states), frame_mask
            if self.keywords is not None and "keywords" in channels:
                words_NE, found.keyword_ids = self._keyword_channel(frames_NTW, frame_mask)
                found.text_channel_embeds = self._of_sounds(words_NE, frame_mask, frames_NTW, audio_rows)
            if self.e2e is not None and "e2e" in channels:
                sounds_NE = self.e2e(frames_NTW, frame_mask, self._audio_prompts())
                sound_BE = found.e2e_channel_embeds = self._of_sounds(sounds_NE, frame_mask, frames_NTW, audio_rows)
        fused_BE = self.fusion(found.text_channel_embeds, sound_BE, fusion_weight)
        found.pooler_output = unit(fused_BE)
        if parts is not None and self.config.long_text == "chunk_max":
            of_part = None if sound_BE is None else sound_BE[parts.rows.to(sound_BE.device)]
            found.chunk_embeds = unit(self.fusion(text_NE, of_part, fusion_weight))
            found.chunk_rows = parts.rows.to(fused_BE.device)
        return found

    def _audio_prompts(self) -> torch.Tensor | None:
        return None if self.config.prompt_audio == "none" else self._prompts()

    @staticmethod
    def _of_sounds(vectors_NE, frame_mask, frames_NTW, audio_rows) -> torch.Tensor:
        if audio_rows is None:
            return vectors_NE
        counts_N = vectors_NE.new_full((len(vectors_NE),), frames_NTW.shape[1])
        if frame_mask is not None:
            counts_N = frame_mask.sum(1).clamp(min=1).to(vectors_NE)
        return weighted_mean(vectors_NE, counts_N, audio_rows, int(audio_rows.max()) + 1)

    # ---- texts and pictures

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        text_attention_mask: torch.Tensor | None = None,
        prompted: bool = True,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Written texts; `pooler_output` (B, E), not normalised.

        Args:
            input_ids, attention_mask (`torch.LongTensor`): (B, L), of any length; all behind the first end of a text
                is padding, whatever the mask says.
            prompted (`bool`): with the learned prompts, as transcripts are read; without, as CLIP reads.
        """
        config = self.text_model.config
        prompts = self._prompts() if prompted else None
        parts = text_parts(
            words_of(input_ids, config), config, 0 if prompts is None else len(prompts), self.config.long_text
        )
        vectors_NE = read(self.text_model, parts, prompts)
        return BaseModelOutputWithPooling(
            pooler_output=weighted_mean(vectors_NE, parts.weights, parts.rows, len(input_ids))
        )

    @can_return_tuple
    def get_native_image_features(
        self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """Pictures; `pooler_output` (B, E) is the image tower's, not normalised."""
        pixel_values = pixel_values.to(self.vision_model.dtype)
        if self.vision_prompts is not None and self.config.num_prompts:
            return BaseModelOutputWithPooling(pooler_output=self._see_with_prompts(pixel_values, **kwargs))
        output = self.vision_model(pixel_values, return_dict=True, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=getattr(output, "last_hidden_state", None),
            pooler_output=image_embedding(self.vision_model, output),
            hidden_states=getattr(output, "hidden_states", None),
            attentions=getattr(output, "attentions", None),
        )

    get_image_features = get_native_image_features

    def _see_with_prompts(self, pixel_values: torch.Tensor, **kwargs) -> torch.Tensor:
        """(B, E): prompts stand behind the patches; the vector is still read at the first place."""
        assert self.vision_prompts is not None
        tower = self.vision_model.vision_model
        patches_BPV = tower.embeddings(pixel_values)
        prompts_BMV = self.vision_prompts(self.prompts).to(patches_BPV).expand(len(patches_BPV), -1, -1)
        states_BPV = tower.pre_layrnorm(torch.cat([patches_BPV, prompts_BMV], dim=1))
        states_BPV = tower.encoder(inputs_embeds=states_BPV, **kwargs).last_hidden_state
        return self.vision_model.visual_projection(tower.post_layernorm(states_BPV[:, 0]))

    def project_image(self, native_BE: torch.Tensor) -> torch.Tensor:
        """Pictures' vectors, perhaps computed before, in the space: they are there already."""
        if self.vision_prompts is not None:
            raise ValueError(
                "with prompt_vision=True pictures' vectors change in training, and kept ones are of yesterday: pass "
                "pixel_values, or set prompt_vision=False"
            )
        return native_BE

    # ---- all together

    @can_return_tuple
    def forward(
        self,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        text_attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        *,
        input_values: torch.Tensor | None = None,
        audio_states: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        audio_rows: torch.Tensor | None = None,
        text_channel_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        image_ids: torch.Tensor | None = None,
        channels: Sequence[str] | None = None,
        fusion_weight: float | None = None,
        return_loss: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BrewCLIPOutput:
        """Spoken sounds, pictures, or both, which are then compared.

        Args:
            pixel_values (`torch.FloatTensor`): pictures; or `image_embeds` (B, E), what they were before.
            text_attention_mask: see `get_text_features`.
            image_ids (`torch.LongTensor`, *optional*): (B,), which picture each row's is: rows of one picture do not
                repel each other.
            return_loss (`bool`): needs as many sounds as pictures, row by row.
            Others: see `get_audio_features`.
        """
        sounds = (input_features, input_values, audio_states, input_ids, text_channel_embeds)
        if all(one is None for one in (*sounds, pixel_values, image_embeds)):
            raise ValueError(
                "nothing to embed: pass sound (input_features or input_values), transcripts (input_ids), pixel_values"
            )
        heard = BrewCLIPAudioOutput()
        if any(one is not None for one in sounds):
            heard = self.get_audio_features(
                input_features, attention_mask, input_ids, input_values=input_values, audio_states=audio_states,
                frame_mask=frame_mask, audio_rows=audio_rows, text_channel_embeds=text_channel_embeds,
                channels=channels, fusion_weight=fusion_weight, return_dict=True, **kwargs,
            )  # fmt: skip
        native = image_embeds
        if pixel_values is not None:
            native = self.get_native_image_features(pixel_values, return_dict=True).pooler_output
        temperature = self.clamped_temperature()
        found = BrewCLIPOutput(
            audio_embeds=heard.pooler_output,
            image_embeds=None if native is None else unit(native),
            text_channel_embeds=heard.text_channel_embeds,
            e2e_channel_embeds=heard.e2e_channel_embeds,
            native_image_embeds=native,
            temperature=temperature,
        )
        if found.audio_embeds is not None and found.image_embeds is not None:
            found.logits_per_audio = scores(heard, found.image_embeds) / temperature
            found.logits_per_image = found.logits_per_audio.t()
        if return_loss:
            self._add_loss(found, image_ids)
        return found

    def _add_loss(self, found: BrewCLIPOutput, image_ids: torch.Tensor | None) -> None:
        a_BE, v_BE = found.audio_embeds, found.image_embeds
        if a_BE is None or v_BE is None or len(a_BE) != len(v_BE):
            raise ValueError("return_loss=True needs as many sounds as pictures, row by row")
        channels = [one for one in (found.text_channel_embeds, found.e2e_channel_embeds) if one is not None]
        found.loss_parts = channel_losses(
            a_BE, v_BE, channels, image_ids, found.temperature, LOSS_WEIGHTS[self.config.loss_weights]
        )
        found.loss = torch.stack(list(found.loss_parts.values())).sum()


def origin_of(source: str | PreTrainedModel, tower: PreTrainedModel) -> tuple[str | None, str | None]:
    """Where a tower comes from, and the commit. A model that is here may have changed since it was loaded."""
    if isinstance(source, PreTrainedModel):
        return None, None
    name = os.path.abspath(source) if os.path.isdir(source) else str(source)
    return name, getattr(tower.config, "_commit_hash", None)


__all__ = ["BrewCLIPModel", "BrewCLIPPreTrainedModel"]
