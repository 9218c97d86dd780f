"""The refusal of a pod: one sentence that names the field and the fix. Pure."""

from __future__ import annotations

from enum import StrEnum

SHOWN = 63
"""Most characters of the pod's own text that a message repeats."""


class Reason(StrEnum):
    """Why a pod is refused, for metrics."""

    ANNOTATION = "annotation"
    COLLISION = "collision"
    ISOLATION = "isolation"
    MALFORMED = "malformed"
    PLATFORM = "platform"
    TOO_LARGE = "too_large"


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """The pod is not injected and must not run. `field` is the path in the pod; the text names the
    fix.
    """

    def __init__(self, reason: Reason, field: str, sentence: str) -> None:
        self.reason = reason
        self.field = field
        self.sentence = sentence
        super().__init__(sentence)


def shown(text: str) -> str:
    """The pod's own text, made safe for a message: short, printable ASCII."""
    clean = "".join(one if " " <= one <= "~" else "?" for one in text[: SHOWN + 1])
    return clean if len(clean) <= SHOWN else f"{clean[:SHOWN]}..."


def annotation_refused(key: str, sentence: str) -> Refusal:
    """The refusal of an annotation; `sentence` continues after its name."""
    return Refusal(
        Reason.ANNOTATION,
        f"metadata.annotations[{shown(key)}]",
        f"The annotation `{shown(key)}` {sentence}",
    )
