"""Whether a pod asks for an agent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capsign_injector.names import LABEL
from capsign_injector.refusal import Reason, Refusal, shown

MISPLACED = (
    f"The annotation `{LABEL}` does nothing, and the pod gets no agent. It is a label: move it to "
    "`metadata.labels`."
)


def wants(pod: Mapping[str, Any]) -> bool:
    """Whether the pod has the label; False if its labels are malformed. Raises Refusal for a value
    that is neither yes nor no: a pod that was meant to sign must not run without an agent.
    """
    value = _of(pod, "labels").get(LABEL)
    if value is None or value in ("true", "false"):
        return value == "true"
    told = f'is "{shown(value)}"' if isinstance(value, str) else "is no text"
    sentence = (
        f'The label `{LABEL}` {told}. Write `{LABEL}: "true"`, with the quotes, '
        'or "false" for no agent.'
    )
    raise Refusal(Reason.ANNOTATION, f"metadata.labels[{LABEL}]", sentence)


def misplaced(pod: Mapping[str, Any]) -> bool:
    """Whether the label is among the annotations, where it has no effect."""
    return LABEL in _of(pod, "annotations") and LABEL not in _of(pod, "labels")


def _of(pod: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    metadata = pod.get("metadata")
    found = metadata.get(field) if isinstance(metadata, Mapping) else None
    return found if isinstance(found, Mapping) else {}
