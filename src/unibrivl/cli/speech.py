"""The model of `unibrivl serve --speech`: a BrewCLIP that listens with the channels it can, or why it cannot."""

from __future__ import annotations

from typing import Any


def load_speech(model: str, device: str | None = None) -> Any:
    """An embedder of a BrewCLIP, with all that it needs to hear and to see.

    Without a Whisper that writes down what is said, or a tokenizer that reads it, it listens with its other channels.
    """
    from unibrivl.cli.generate import checked_device
    from unibrivl.embedder import load

    place = checked_device(device)
    embedder = load(model)
    embedder.matcher.model.to(place)
    checked_speech(embedder, model)
    return embedder


def checked_speech(embedder: Any, model: str) -> None:
    """What a page of spoken sentences needs of a matcher is there, or is told; channels that cannot be used go."""
    matcher = embedder.matcher
    if not hasattr(matcher, "hear"):
        raise ValueError(f"--speech {model} is a {matcher.name}, which does not follow what is said: name a BrewCLIP")
    missing = [what for kind, what in (("audio", "hear"), ("image", "see")) if kind not in matcher.kinds]
    if missing:
        raise ValueError(
            f"--speech {model} cannot {' or '.join(missing)}: save its processor with all parts beside it"
        )
    if "text" not in matcher.channels:
        return
    if "text" in matcher.kinds and can_write(matcher, model):
        return
    matcher.channels = tuple(channel for channel in matcher.channels if channel != "text")
    if not matcher.channels:
        raise ValueError(
            f"--speech {model} ranks by words alone, and names no Whisper that writes them down or has no tokenizer "
            "that reads them: set asr_name in its config.json and save its tokenizer, or name a model with the "
            "channel e2e"
        )


def can_write(matcher: Any, model: str) -> bool:
    """Whether something writes down what is said; it is loaded now, and not while a visitor waits."""
    if matcher.asr_name is None:
        return False
    try:
        matcher.transcriber  # noqa: B018
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--speech {model} has what is said written down by {matcher.asr_name}, which cannot be loaded "
            f"({str(error).splitlines()[0]}): name a Whisper that is here as asr_name in its config.json"
        ) from error
    return True


__all__ = ["load_speech"]
