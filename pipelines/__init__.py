"""Pipelines of diffusers that a sound steers. They live flat in this folder: so a copy loads without this package."""

from __future__ import annotations

from unibrivl.utils import require

require("diffusers", "diffusion", purpose="pipelines from sound to picture")

from unibrivl.pipelines.outputs_pipeline_unibrivl import Candidate, UniBriVLPipelineOutput  # noqa: E402
from unibrivl.pipelines.pipeline_audio_token import AudioTokenPipeline  # noqa: E402
from unibrivl.pipelines.pipeline_audio_token_edit import AudioTokenEditPipeline  # noqa: E402
from unibrivl.pipelines.pipeline_audio_token_img2img import AudioTokenImg2ImgPipeline  # noqa: E402
from unibrivl.pipelines.pipeline_audio_token_inpaint import AudioTokenInpaintPipeline  # noqa: E402
from unibrivl.pipelines.pipeline_audio_token_xl import AudioTokenXLPipeline  # noqa: E402
from unibrivl.pipelines.pipeline_unibrivl import UniBriVLPipeline  # noqa: E402
from unibrivl.pipelines.pipeline_unibrivl_unclip import UniBriVLUnCLIPPipeline  # noqa: E402
from unibrivl.pipelines.pipeline_unibrivl_xl import UniBriVLXLPipeline  # noqa: E402
from unibrivl.pipelines.receipt_unibrivl import read_receipt, save_png  # noqa: E402
from unibrivl.pipelines.strategy_embed import Embed  # noqa: E402
from unibrivl.pipelines.strategy_guide import Guide  # noqa: E402
from unibrivl.pipelines.strategy_halving import Halving  # noqa: E402
from unibrivl.pipelines.strategy_rerank import Rerank  # noqa: E402
from unibrivl.pipelines.strategy_together import Together  # noqa: E402
from unibrivl.pipelines.strategy_unibrivl import Strategy  # noqa: E402

__all__ = [
    "AudioTokenEditPipeline",
    "AudioTokenImg2ImgPipeline",
    "AudioTokenInpaintPipeline",
    "AudioTokenPipeline",
    "AudioTokenXLPipeline",
    "Candidate",
    "Embed",
    "Guide",
    "Halving",
    "Rerank",
    "Strategy",
    "Together",
    "UniBriVLPipeline",
    "UniBriVLPipelineOutput",
    "UniBriVLUnCLIPPipeline",
    "UniBriVLXLPipeline",
    "read_receipt",
    "save_png",
]
