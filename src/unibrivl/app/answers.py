"""An answer to a press of a button, and the promise that it is one: whatever happens becomes a sentence.

What a visitor can mend is told in words; what is our fault is told too, and goes to the log with its traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from unibrivl.app import markup
from unibrivl.app.limits import Refusal

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What the page shows, as HTML, and `words`, the text of a field; None leaves a part as it is."""

    status: str
    best: str | None = None
    heard: str | None = None
    candidates: str | None = None
    found: str | None = None
    words: str | None = None


def told(answers: Iterator[Answer]) -> Iterator[Answer]:
    """These answers, and at some point perhaps what is wrong in place of the rest."""
    try:
        yield from answers
    except Refusal as error:
        yield Answer(markup.status(str(error), problem=True))
    except (ValueError, OSError, ImportError) as error:  # told in words by whoever raised it
        logger.warning("a request was refused: %s", error)
        yield Answer(markup.status(f"This does not work: {str(error).rstrip('.')}.", problem=True))
    except Exception:
        logger.exception("a request failed")
        words = "Something went wrong on our side; the log of the server says what. What you have chosen stays."
        yield Answer(markup.status(words, problem=True))


__all__ = ["Answer", "told"]
