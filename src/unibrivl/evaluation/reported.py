"""What papers report, beside which our scores are printed: never mixed with them.

Figures of "UniBriVL" and of "AAI" are of those papers' tables, which list other systems' numbers too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A number that somebody else published."""

    system: str
    value: float
    source: str


# (benchmark, metric) -> figures
REPORTED: dict[tuple[str, str], tuple[Figure, ...]] = {
    ("esc50", "probe_accuracy"): (
        Figure("OpenL3", 0.733, "UniBriVL"),
        Figure("Wav2CLIP", 0.8595, "UniBriVL"),
        Figure("UniBriVL", 0.9307, "UniBriVL"),
    ),
    ("urbansound8k", "probe_accuracy"): (
        Figure("OpenL3", 0.7588, "UniBriVL"),
        Figure("Wav2CLIP", 0.8101, "UniBriVL"),
        Figure("UniBriVL", 0.8722, "UniBriVL"),
    ),
    ("urbansound8k", "zero_shot_accuracy"): (
        Figure("UniBriVL", 0.4024, "UniBriVL"),
        Figure("CAVT-MAE", 0.398, "AAI"),
    ),
    ("vggsound", "probe_map"): (
        Figure("OpenL3", 0.3487, "UniBriVL"),
        Figure("Wav2CLIP", 0.4663, "UniBriVL"),
        Figure("UniBriVL", 0.4885, "UniBriVL"),
    ),
    ("vggsound", "zero_shot_map"): (Figure("UniBriVL", 0.1001, "UniBriVL"),),
    ("vggsound", "audio_text_accuracy"): (
        Figure("AudioCLIP", 0.3894, "AAI"),
        Figure("CAVT-MAE", 0.5216, "AAI"),
    ),
    ("vggsound_retrieval", "class_audio_to_image_MRR"): (
        Figure("OpenL3", 0.0169, "UniBriVL"),
        Figure("Wav2CLIP", 0.0566, "UniBriVL"),
        Figure("UniBriVL", 0.0641, "UniBriVL"),
    ),
    ("vggsound_retrieval", "class_image_to_audio_MRR"): (
        Figure("OpenL3", 0.0162, "UniBriVL"),
        Figure("Wav2CLIP", 0.0678, "UniBriVL"),
        Figure("UniBriVL", 0.0612, "UniBriVL"),
    ),
    ("vggsound_retrieval", "audio_to_image_R@1"): (Figure("CAVT-MAE, 14,000 clips", 0.0886, "AAI"),),
    **{
        ("vggsound_subsets", f"{subset}_mean_R@{k}"): tuple(
            Figure(system, value, "AAI")
            for system, value in zip(("CAV-MAE", "AudioCLIP", "CAVT-MAE"), row, strict=True)
        )
        for subset, k, row in (
            ("1.4K", 1, (0.0028, 0.1384, 0.2831)),
            ("1.4K", 5, (0.0077, 0.3326, 0.5451)),
            ("1.4K", 10, (0.0162, 0.4442, 0.6426)),
            ("2.8K", 1, (0.0017, 0.0836, 0.2153)),
            ("2.8K", 5, (0.0060, 0.2379, 0.4505)),
            ("2.8K", 10, (0.0141, 0.3428, 0.5589)),
            ("14K", 1, (0.0002, 0.0269, 0.0886)),
            ("14K", 5, (0.0015, 0.0902, 0.2346)),
            ("14K", 10, (0.0024, 0.1415, 0.3283)),
        )
    },
    ("vegas", "R@1"): (
        Figure("Sound2Image", 0.3919, "UniBriVL"),
        Figure("Sound2Video", 0.7758, "UniBriVL"),
        Figure("UniBriVL", 0.8131, "UniBriVL"),
    ),
    ("vegas", "FID"): (Figure("Sound2Video", 34.68, "UniBriVL"), Figure("UniBriVL", 31.48, "UniBriVL")),
    ("vegas", "IS"): (Figure("Sound2Video", 4.01, "UniBriVL"), Figure("UniBriVL", 5.42, "UniBriVL")),
    ("desed", "probe_segment_macro_f_zero_score"): (  # F1 by sed_eval: which of its means is not said
        Figure("OpenL3", 0.117, "UniBriVL"),
        Figure("Wav2CLIP", 0.3955, "UniBriVL"),
        Figure("UniBriVL", 0.4111, "UniBriVL"),
    ),
    **{
        ("clotho", metric): tuple(
            Figure(system, value, "UniBriVL")
            for system, value in zip(("its baseline", "Wav2CLIP", "UniBriVL"), row, strict=True)
        )
        for metric, row in {
            "bleu1": (0.389, 0.393, 0.434),
            "bleu4": (0.015, 0.054, 0.107),
            "meteor": (0.084, 0.104, 0.115),
            "rouge_l": (0.262, 0.271, 0.268),
            "cider": (0.074, 0.1, 0.126),
        }.items()
    },
    ("flickr8k", "audio_to_image_R@1"): (
        Figure("FaST-VGS (CTF)", 0.293, "its paper, as SpeechCLIP's lists it"),
        Figure("MILAN", 0.332, "arXiv 2104.01894"),
        Figure("SpeechCLIP parallel, large", 0.391, "SpeechCLIP's paper"),
    ),
    ("spoken_coco", "audio_to_image_R@1"): (
        Figure("FaST-VGS (CTF)", 0.359, "its paper, as SpeechCLIP's lists it"),
        Figure("SpeechCLIP parallel, large", 0.358, "SpeechCLIP's paper"),
    ),
    ("esc50", "zero_shot_accuracy"): (
        Figure("Wav2CLIP", 0.414, "UniBriVL"),
        Figure("UniBriVL", 0.412, "UniBriVL"),
        Figure("CAVT-MAE", 0.428, "AAI"),
    ),
    # section 5.1, three tests averaged; of how many answers is not said
    ("human_study", "positive"): (Figure("Wav2CLIP", 0.75, "UniBriVL"), Figure("UniBriVL", 0.79, "UniBriVL")),
    ("human_study", "negative"): (Figure("Wav2CLIP", 0.13, "UniBriVL"), Figure("UniBriVL", 0.10, "UniBriVL")),
    ("human_study", "neither"): (Figure("Wav2CLIP", 0.12, "UniBriVL"), Figure("UniBriVL", 0.11, "UniBriVL")),
}
