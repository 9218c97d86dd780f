"""A pod that is refused: one sentence that names the field and the fix. Pure."""

from __future__ import annotations

from enum import StrEnum

SHOWN = 63
"""Longest piece of a pod that a message repeats, characters."""


class Reason(StrEnum):
    """Why, for metrics: one of few."""

    ANNOTATION = "annotation"
    COLLISION = "collision"
    ISOLATION = "isolation"
    MALFORMED = "malformed"
    PLATFORM = "platform"
    TOO_LARGE = "too_large"


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """The pod is not injected and must not run. `field` is its path in the pod; the text names the
    fix.
    """

    def __init__(self, reason: Reason, field: str, sentence: str) -> None:
        self.reason = reason
        self.field = field
        self.sentence = sentence
        super().__init__(sentence)


def shown(text: str) -> str:
    """A piece of the pod, safe in a message: short, printable ASCII."""
    clean = "".join(one if " " <= one <= "~" else "?" for one in text[: SHOWN + 1])
    return clean if len(clean) <= SHOWN else f"{clean[:SHOWN]}..."


def annotation_refused(key: str, sentence: str) -> Refusal:
    """The refusal of an annotation; `sentence` goes on after its name."""
    return Refusal(
        Reason.ANNOTATION,
        f"metadata.annotations[{shown(key)}]",
        f"The annotation `{shown(key)}` {sentence}",
    )
