"""Which containers of a pod get a socket. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from capsign_injector.names import AGENT, MAX_SOCKETS
from capsign_injector.read.injection_request import InjectionRequest
from capsign_injector.refusal import Reason, Refusal, shown

_FIELD = "metadata.annotations[capsign.dev/containers]"


def choose(asked: InjectionRequest) -> tuple[str, ...]:
    """Names of the containers that get a socket: those asked for; else those that have one since an
    earlier injection, so that another injector's containers do not get one; else all ordinary ones.
    Raises Refusal.
    """
    pod, named = asked.pod, asked.choices.containers
    ordinary = [one.name for one in pod.spec.containers]
    known = [one.name for one in (*pod.init, *pod.spec.containers) if one.name != AGENT]
    chosen = tuple(named if named is not None else asked.holders or ordinary)
    for name in chosen:
        if name not in known:
            close = f"The pod has: {', '.join(known[:8])}."
            raise Refusal(
                Reason.ANNOTATION,
                _FIELD,
                f"The annotation `capsign.dev/containers` names `{name}`. {close}",
            )
    if len(chosen) > MAX_SOCKETS:
        sentence = (
            f"{len(chosen)} containers would get a socket; at most {MAX_SOCKETS} can. Name "
            f"them in `capsign.dev/containers`."
        )
        raise Refusal(Reason.TOO_LARGE, _FIELD, sentence)
    return chosen


def refuse_profiles(profiled: Iterable[str], chosen: Sequence[str]) -> None:
    """A profile for a container that gets no socket is a mistake. Raises Refusal."""
    for name in profiled:
        if name not in chosen:
            key = f"capsign.dev/profile.{shown(name)}"
            sentence = (
                f"The annotation `{key}` is for a container that gets no socket. Those that "
                f"do: {', '.join(chosen)}."
            )
            raise Refusal(Reason.ANNOTATION, f"metadata.annotations[{key}]", sentence)
