"""CAV-MAE's pre-training: hide three quarters of a sound and of its picture, rebuild both, and match one with another.

kept tokens -> encoder -+-> joint stream -> decoder -> every patch of both        reconstruction, of the hidden patches
                        +-> sound stream, picture stream -> means over kept tokens  contrast within the batch

Shapes: B batch, T frames, M mel bins, S side of a picture, N tokens, K kept tokens, D width, P numbers of a patch.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_cavmae import CAVMAEConfig
from .layers_cavmae import AUDIO, IMAGE, PLAIN, CAVMAELayer, CAVMAEPositions, run_layers
from .masking_cavmae import Mask, draw_noise, keep_tokens, mask_by_noise, structure_noise
from .modeling_cavmae import CAVMAEModel, CAVMAEPreTrainedModel


@dataclass
class CAVMAEForPreTrainingOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`): reconstruction and contrast, weighted.
        reconstruction_loss (`torch.FloatTensor`): weighted; the next two are not.
        audio_reconstruction_loss, image_reconstruction_loss (`torch.FloatTensor`): of each modality.
        contrastive_loss (`torch.FloatTensor`): weighted.
        contrastive_accuracy (`torch.FloatTensor`): the part of the pictures that find their own sound in the batch.
        audio_prediction (`torch.FloatTensor`): (B, N, 256), every patch of the sound; its rows are mel bins.
        image_prediction (`torch.FloatTensor`): (B, N, 768), every patch of the picture.
        audio_mask, image_mask (`torch.FloatTensor`): (B, N), 1 where a token was hidden.
        audio_embeds, image_embeds (`torch.FloatTensor`): (B, D), means over the kept tokens.
        audio_last_hidden_state, image_last_hidden_state, joint_last_hidden_state (`torch.FloatTensor`): (B, K, D), the
            kept tokens in the order of their noise; the joint ones are the sound's and then the picture's.
    """

    loss: torch.FloatTensor | None = None
    reconstruction_loss: torch.FloatTensor | None = None
    audio_reconstruction_loss: torch.FloatTensor | None = None
    image_reconstruction_loss: torch.FloatTensor | None = None
    contrastive_loss: torch.FloatTensor | None = None
    contrastive_accuracy: torch.FloatTensor | None = None
    audio_prediction: torch.FloatTensor | None = None
    image_prediction: torch.FloatTensor | None = None
    audio_mask: torch.FloatTensor | None = None
    image_mask: torch.FloatTensor | None = None
    audio_embeds: torch.FloatTensor | None = None
    image_embeds: torch.FloatTensor | None = None
    audio_last_hidden_state: torch.FloatTensor | None = None
    image_last_hidden_state: torch.FloatTensor | None = None
    joint_last_hidden_state: torch.FloatTensor | None = None


class CAVMAEDecoder(nn.Module):
    """The kept tokens of both modalities and one vector in place of each hidden one -> all patches."""

    def __init__(self, config: CAVMAEConfig):
        super().__init__()
        width, patch = config.decoder_hidden_size, config.patch_size**2
        self.embed = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.audio_modality = nn.Parameter(torch.empty(1, 1, width))
        self.image_modality = nn.Parameter(torch.empty(1, 1, width))
        self.audio_positions = CAVMAEPositions(config.audio_grid, width, is_audio=True)
        self.image_positions = CAVMAEPositions(config.image_grid, width, is_audio=False)
        self.layers = nn.ModuleList(
            [
                CAVMAELayer(config, width, config.decoder_num_attention_heads, config.decoder_intermediate_size)
                for _ in range(config.decoder_num_hidden_layers)
            ]
        )
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.audio_prediction = nn.Linear(width, patch)
        self.image_prediction = nn.Linear(width, patch * config.num_channels)

    def forward(self, tokens_BKD, masks: tuple[Mask, Mask], grids, interpolate: bool = False, **kwargs):
        tokens_BKD = self.embed(tokens_BKD)
        num_kept = masks[0].kept.shape[1]
        audio_BND = self.fill(tokens_BKD[:, :num_kept], masks[0]) + self.audio_modality
        image_BND = self.fill(tokens_BKD[:, num_kept:], masks[1]) + self.image_modality
        audio_BND = audio_BND + self.audio_positions(*grids[0], interpolate)
        image_BND = image_BND + self.image_positions(*grids[1], interpolate)
        tokens_BND = self.norm(run_layers(self.layers, torch.cat([audio_BND, image_BND], dim=1), **kwargs))
        num_audio = audio_BND.shape[1]
        return self.audio_prediction(tokens_BND[:, :num_audio]), self.image_prediction(tokens_BND[:, num_audio:])

    def fill(self, kept_BKD, mask: Mask):
        """All tokens in their places, the hidden ones as the mask token."""
        batch, num_tokens = mask.restore.shape
        missing = self.mask_token.expand(batch, num_tokens - kept_BKD.shape[1], -1)
        return torch.cat([kept_BKD, missing], dim=1).take_along_dim(mask.restore[..., None], dim=1)


class CAVMAEForPreTraining(CAVMAEPreTrainedModel):
    """CAV-MAE's own task. In several processes the contrast is within each one's batch, as in the original's."""

    config: CAVMAEConfig

    def __init__(self, config: CAVMAEConfig):
        super().__init__(config)
        self.cavmae = CAVMAEModel(config)
        self.decoder = CAVMAEDecoder(config)
        self.train_positions(by_default=False)
        self.post_init()

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, CAVMAEDecoder):
            for token in (module.mask_token, module.audio_modality, module.image_modality):
                init.normal_(token, std=self.config.initializer_range)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        pixel_values: torch.Tensor,
        audio_noise: torch.Tensor | None = None,
        image_noise: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CAVMAEForPreTrainingOutput:
        """In training noise that is not given is drawn, that of the sounds first; `torch.manual_seed` decides it, or
        `generator`. In evaluation nothing is drawn without a generator.

        Args:
            input_values (`torch.FloatTensor`): (B, T, M), frames from `CAVMAEFeatureExtractor`.
            pixel_values (`torch.FloatTensor`): (B, C, S, S), their pictures, from `CAVMAEImageProcessor`.
            audio_noise, image_noise (`torch.FloatTensor`, *optional*): (B, N); the tokens of the smallest stay.
                `config.mask_mode` applies to noise that is drawn; noise that is given stands as it is.
        """
        if len(input_values) != len(pixel_values):
            raise ValueError(f"{len(input_values)} sounds and {len(pixel_values)} pictures are no pairs")
        config, model = self.config, self.cavmae
        tokens = [
            model.embed_audio(input_values, interpolate_pos_encoding),
            model.embed_image(pixel_values, interpolate_pos_encoding),
        ]
        patch = config.patch_size
        grids = [
            (config.audio_grid[0], input_values.shape[1] // patch),
            (pixel_values.shape[2] // patch, pixel_values.shape[3] // patch),
        ]
        masks = self._masks(tokens, audio_noise, image_noise, generator, grids[0])
        audio_BKD, image_BKD = (
            run_layers(layers, keep_tokens(tokens_BND, mask), **kwargs)
            for layers, tokens_BND, mask in zip((model.audio_layers, model.image_layers), tokens, masks, strict=True)
        )
        joint_BKD = model.join(torch.cat([audio_BKD, image_BKD], dim=1), PLAIN, **kwargs)
        alone = model.joint_layers[-1:] if config.original_pretrain_quirk else model.joint_layers
        audio_BKD = model.join(audio_BKD, AUDIO, layers=alone, **kwargs)
        image_BKD = model.join(image_BKD, IMAGE, layers=alone, **kwargs)
        predictions = self.decoder(joint_BKD, masks, grids, interpolate_pos_encoding, **kwargs)

        audio_loss, image_loss = (
            reconstruction_loss(prediction, patches(picture, patch), mask.hidden, config.norm_pix_loss)
            for prediction, picture, mask in zip(
                predictions, (input_values.transpose(1, 2)[:, None], pixel_values), masks, strict=True
            )
        )
        contrast, accuracy = contrastive_loss(
            audio_BKD.mean(1), image_BKD.mean(1), config.contrastive_temperature, config.bidirectional_contrast
        )
        rebuilt = config.reconstruction_loss_weight * (audio_loss + image_loss)
        contrast = config.contrastive_loss_weight * contrast
        return CAVMAEForPreTrainingOutput(
            loss=rebuilt + contrast,
            reconstruction_loss=rebuilt,
            audio_reconstruction_loss=audio_loss,
            image_reconstruction_loss=image_loss,
            contrastive_loss=contrast,
            contrastive_accuracy=accuracy,
            audio_prediction=predictions[0],
            image_prediction=predictions[1],
            audio_mask=masks[0].hidden,
            image_mask=masks[1].hidden,
            audio_embeds=audio_BKD.mean(1),
            image_embeds=image_BKD.mean(1),
            audio_last_hidden_state=audio_BKD,
            image_last_hidden_state=image_BKD,
            joint_last_hidden_state=joint_BKD,
        )

    def _masks(self, tokens, audio_noise, image_noise, generator, grid) -> tuple[Mask, Mask]:
        config = self.config
        if not self.training and generator is None and (audio_noise is None or image_noise is None):
            raise ValueError(
                "in evaluation nothing is drawn by chance: pass a generator, or audio_noise and image_noise, or call "
                "model.train()"
            )
        noises = []
        for given, tokens_BND in ((audio_noise, tokens[0]), (image_noise, tokens[1])):
            batch, num_tokens = tokens_BND.shape[:2]
            if given is None:
                noises.append(draw_noise(batch, num_tokens, generator, tokens_BND.device))
            elif given.shape != (batch, num_tokens):
                raise ValueError(
                    f"noise is {tuple(given.shape)} and must be {(batch, num_tokens)}, one number a token"
                )
            else:
                noises.append(given.to(tokens_BND.device))
        if audio_noise is None:
            noises[0] = structure_noise(noises[0], config.mask_mode, config.audio_mask_ratio, grid, generator)
        return mask_by_noise(noises[0], config.audio_mask_ratio), mask_by_noise(noises[1], config.image_mask_ratio)


def patches(picture_BCHW: torch.Tensor, side: int) -> torch.Tensor:
    """(B, N, P): patches row by row; in a patch rows, then columns, and channels fastest."""
    batch, channels, height, width = picture_BCHW.shape
    parts = picture_BCHW.reshape(batch, channels, height // side, side, width // side, side)
    return parts.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, side * side * channels)


def reconstruction_loss(prediction_BNP, target_BNP, hidden_BN, normalize: bool) -> torch.Tensor:
    """The squared error of the hidden patches, of all of the batch alike; in float32 at least."""
    target_BNP = target_BNP.to(torch.promote_types(target_BNP.dtype, torch.float32))
    if normalize:
        variance = target_BNP.var(dim=-1, keepdim=True)  # the unbiased one, as in MAE's code
        target_BNP = (target_BNP - target_BNP.mean(dim=-1, keepdim=True)) / (variance + 1e-6).sqrt()
    error_BN = (prediction_BNP.to(target_BNP.dtype) - target_BNP).square().mean(dim=-1)
    return (error_BN * hidden_BN).sum() / hidden_BN.sum()


def contrastive_loss(audio_BD, image_BD, temperature: float, bidirectional: bool = False):
    """Each picture finds its sound among the batch's, if `bidirectional` the other way round too: loss and hits."""
    wide = torch.promote_types(audio_BD.dtype, torch.float32)
    audio_BD, image_BD = (nn.functional.normalize(rows.to(wide), dim=-1) for rows in (audio_BD, image_BD))
    scores_BB = image_BD @ audio_BD.t() / temperature
    own_B = torch.arange(len(scores_BB), device=scores_BB.device)
    ways = [scores_BB, scores_BB.t()] if bidirectional else [scores_BB]
    loss = sum(nn.functional.cross_entropy(way, own_B) for way in ways) / len(ways)
    hits = sum((way.argmax(dim=1) == own_B).to(wide).mean() for way in ways) / len(ways)
    return loss, hits


__all__ = [
    "CAVMAEDecoder", "CAVMAEForPreTraining", "CAVMAEForPreTrainingOutput", "contrastive_loss", "patches",
    "reconstruction_loss",
]  # fmt: skip
