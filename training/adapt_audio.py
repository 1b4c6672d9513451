"""One sound becomes a word: a few vectors are learned for a clip and a handful of pictures, and nothing else changes.

    cue = adapt_audio(pipe, "dog.wav", images=["dog_1.jpg", "dog_2.jpg"])        # an AudioCue
    cue = adapt_audio(pipe, "dog.wav", image_bank="photos", top_k=5)             # the pictures that fit the sound best
    cue.save("word.safetensors")

The word begins where an adapter puts the sound, or, without one, at an ordinary word; what is learned is the way from
there. The pipeline is given back as it was.

Shapes: P pictures, B batch, K words, D width of a token table, E numbers of a matcher's embedding.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from unibrivl.audio import Waveform, load_audio, split_windows
from unibrivl.data.layout import PICTURE_SUFFIXES
from unibrivl.data.pictures import open_picture
from unibrivl.modeling.cue_audio_token import TOKEN, AudioCue
from unibrivl.modeling.token_table_audio_token import table_of
from unibrivl.training.diffusion_base import DiffusionBase, as_it_was
from unibrivl.training.objectives.latent_diffusion import Noising

TEXTS = ("a photo of <audio>",)
WINDOW_S = 10.0  # UniBriVL paper: clips of AudioSet
BANK_AT_ONCE = 16  # pictures that a matcher looks at together
LAST_SHARE = 0.1  # OURS: of the steps, whose mean error is told


def adapt_audio(
    pipe: Any,
    audio: Any,
    images: Any = None,
    *,
    image_bank: Any = None,
    matcher: Any = None,
    top_k: int = 5,
    adapter: Any = None,
    ears: Any = None,
    start: str = "sound",
    num_words: int | None = None,
    texts: Sequence[str] = TEXTS,
    token: str = TOKEN,
    steps: int = 300,
    learning_rate: float = 5e-3,  # OURS: textual inversion's usual rate, scaled by its batch
    batch_size: int = 4,
    sampling_rate: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> AudioCue:
    """Learn the words of one sound.

    Args:
        pipe: a pipeline of Stable Diffusion 1, 2 or XL.
        audio: what `load_audio` takes: a file, samples.
        images (*optional*): pictures of the sound: files, Pillow pictures, or a folder of them.
        image_bank (*optional*): many pictures, in the same forms, of which the `top_k` that fit the sound best are
            taken by the `matcher`; by default the pipeline's own.
        adapter, ears (*optional*): an `AudioTokenAdapter` and its `SoundFeatures`: the word begins where they put it.
        start (`str`): the word or words whose mean row it begins at without them.
        num_words (*optional*): vectors that are learned: by default the adapter's, or one.
        texts: what a picture is told by; each holds `<audio>`.
        token: what stands for the words in a prompt of plain diffusers.
        steps, learning_rate, batch_size: of AdamW without decay.
        sampling_rate (*optional*): of samples that do not carry their own.
        seed (`int`): of pictures, noise and steps; on one machine the same seed learns the same word.
        progress (`bool`): a bar, where there is a terminal.
    """
    if (images is None) == (image_bank is None):
        raise ValueError("pass images, which all count, or image_bank, of which those nearest to the sound do")
    if steps < 1 or batch_size < 1 or top_k < 1 or not learning_rate > 0:
        raise ValueError(
            f"steps, batch_size and top_k are counts from 1, and learning_rate is above 0; got {steps}, {batch_size}, "
            f"{top_k}, {learning_rate}"
        )
    if not texts or not all(TOKEN in text for text in texts):
        raise ValueError(f"every text tells a picture by its sound and holds {TOKEN}; got {list(texts)}")
    waveform = load_audio(audio, source_rate_hz=sampling_rate)
    with as_it_was(pipe):
        base = DiffusionBase.of_pipeline(pipe)
        about = {"sound": told_of(waveform, audio), "seed": seed, "steps": steps, "learning_rate": learning_rate}
        if images is not None:
            pictures, names = opened(images)
        else:
            pictures, names, scores = nearest(waveform, image_bank, matcher or listener_of(pipe), top_k)
            about["scores"] = [round(score, 6) for score in scores]
        about["pictures"] = names
        start_at = beginning(base, waveform, adapter, ears, start, num_words)
        vectors, errors = learned(
            base, start_at, base.latents(base.pixels(pictures).to(base.device)), texts, steps, learning_rate,
            batch_size, seed, progress,
        )  # fmt: skip
    last = errors[-max(1, round(LAST_SHARE * len(errors))) :]
    about["error"] = {"last": round(sum(last) / len(last), 6), "first": round(errors[0], 6)}
    return AudioCue.for_base(vectors, base.text_encoders, token=token, base_name=base.name or None, about=about)


def learned(
    base: DiffusionBase,
    start_at: dict[str, torch.Tensor],
    latents_PChw: torch.Tensor,
    texts: Sequence[str],
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    progress: bool,
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The words (K, D) of each text encoder, and the error of every step."""
    noising, chance = Noising.of(base.scheduler), torch.Generator().manual_seed(seed)
    device = base.device
    delta = nn.ParameterDict({name: torch.zeros_like(one) for name, one in start_at.items()})
    optimizer = torch.optim.AdamW(delta.parameters(), lr=learning_rate, weight_decay=0.0)
    prompts = base.prompts(len(next(iter(start_at.values()))))
    size = (base.side, base.side)
    errors: list[float] = []
    with torch.enable_grad(), tqdm(range(steps), desc="a word", disable=None if progress else True) as bar:
        for _ in bar:
            rows_B = torch.randint(len(latents_PChw), (batch_size,), generator=chance)
            step_B = torch.randint(len(noising), (batch_size,), generator=chance)
            told_B = torch.randint(len(texts), (batch_size,), generator=chance).tolist()
            latents = latents_PChw[rows_B.to(latents_PChw.device)].to(device)
            noise = torch.randn(latents.shape, generator=chance).to(device)
            noisy, target, times_B = noising.mix(latents, noise, step_B)
            ids = {name: prompt([texts[one] for one in told_B]) for name, prompt in prompts.items()}
            words = {name: (start_at[name] + delta[name])[None] for name in start_at}
            found = base.predict(noisy, times_B, base.condition(ids, words, size))
            error = (found - target).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            errors.append(float(error.detach()))
            bar.set_postfix(error=f"{errors[-1]:.4g}", refresh=False)
    return {name: (start_at[name] + delta[name]).detach().cpu() for name in start_at}, errors


# ---- where a word begins


@torch.no_grad()
def beginning(
    base: DiffusionBase, waveform: Waveform, adapter: Any, ears: Any, start: str, num_words: int | None
) -> dict[str, torch.Tensor]:
    """(K, D) for each text encoder, in float32, where the base is."""
    if adapter is None:
        found = {}
        for name, encoder in base.text_encoders.items():
            table_VD = table_of(encoder)
            ids = base.tokenizers[name](start, add_special_tokens=False).input_ids
            if not ids:
                raise ValueError(f"start is the word that a sound begins as, and {start!r} has no token: name one")
            row_D = table_VD[torch.tensor(ids, device=table_VD.device)].float().mean(0)
            found[name] = row_D.repeat(num_words or 1, 1).to(base.device)
        return found
    if ears is None:
        raise ValueError("an adapter needs what its features come from: pass ears, such as sound_features(model, ...)")
    adapter.check_base(base.text_encoders, base.name or None)
    if num_words not in (None, adapter.config.num_words):
        raise ValueError(
            f"this adapter makes {adapter.config.num_words} words and num_words is {num_words}: leave it out"
        )
    heard = waveform.resample(ears.sampling_rate)
    place = next(adapter.parameters()).device
    if adapter.config.mode == "residual":
        words = adapter(ears.pooled([heard]).to(place)).words
    else:
        tokens, mask = ears.tokens([heard])
        words = adapter(tokens.to(place), mask.to(place)).words
    return {name: one[0].float().to(base.device) for name, one in words.items()}


# ---- pictures


def opened(images: Any) -> tuple[list[Image.Image], list[str]]:
    """Pictures, and what each is called."""
    sources = listed(images)
    return [open_picture(one) for one in sources], [name_of(one, number) for number, one in enumerate(sources)]


def listed(images: Any) -> list[Any]:
    """A folder's pictures, or those that were given."""
    if isinstance(images, (str, os.PathLike)):
        place = Path(images).expanduser()
        if not place.exists():
            raise FileNotFoundError(f"there is no {place}: name a picture, or a folder of pictures")
        if not place.is_dir():
            return [place]
        found = sorted(one for one in place.rglob("*") if one.suffix.lower() in PICTURE_SUFFIXES and one.is_file())
        if not found:
            raise ValueError(f"{place} holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))}): name another folder")
        return found
    images = [images] if isinstance(images, Image.Image) else list(images)
    if not images:
        raise ValueError("images is an empty list: pass at least one picture of the sound")
    return images


def name_of(source: Any, number: int) -> str:
    """Of a file its name without folders, which are nobody's business."""
    return os.path.basename(source) if isinstance(source, (str, os.PathLike)) else f"picture {number}"


def listener_of(pipe: Any) -> Any:
    found = getattr(pipe, "listener", None) if getattr(pipe, "matcher", None) is not None else None
    if found is None:
        raise ValueError(
            f"this {type(pipe).__name__} has no matcher to choose pictures by: pass matcher, or images instead of "
            "image_bank"
        )
    return found


@torch.no_grad()
def nearest(
    waveform: Waveform, image_bank: Any, matcher: Any, top_k: int
) -> tuple[list[Image.Image], list[str], list[float]]:
    """Of a bank the pictures that fit a sound best, their names and their scores."""
    sources = listed(image_bank)
    heard = waveform.resample(matcher.sampling_rate)
    window_s = min(WINDOW_S, matcher.longest_s or WINDOW_S)
    windows = [matcher.encode_audio(one)[0] for one in split_windows(heard, window_s)]
    sound_E = nn.functional.normalize(torch.stack(windows).float().mean(0), dim=-1)
    scores = []
    for start in range(0, len(sources), BANK_AT_ONCE):
        seen_PE = matcher.encode_image([open_picture(one) for one in sources[start : start + BANK_AT_ONCE]])
        scores += (seen_PE.float() @ sound_E.to(seen_PE.device)).tolist()
    best = sorted(range(len(sources)), key=lambda place: -scores[place])[:top_k]
    pictures = [open_picture(sources[place]) for place in best]
    return pictures, [name_of(sources[place], place) for place in best], [scores[place] for place in best]


def told_of(waveform: Waveform, source: Any) -> dict[str, Any]:
    digest = hashlib.sha256(waveform.samples.astype("<f4").tobytes()).hexdigest()
    name = os.path.basename(source) if isinstance(source, (str, os.PathLike)) else "a sound"
    return {"name": name, "sha256": digest, "seconds": round(waveform.duration_s, 6), "rate_hz": waveform.rate_hz}
