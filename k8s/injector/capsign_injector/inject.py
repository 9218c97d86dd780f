"""From pod and settings to the injected pod: read, judge, build. Pure, and idempotent:
`inject(inject(x)) == inject(x)`.

It is called more than once for a pod: the API server calls webhooks again when another one has
changed it, and a template that was injected offline is admitted later. So everything of ours is put
where it already is, and everything else is left unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from capsign_injector.build import injected
from capsign_injector.judge import verdict
from capsign_injector.read import injection_request, label
from capsign_injector.settings import Settings


@dataclass(frozen=True, slots=True)
class Result:
    """The injected pod, and warnings for the person who applied it."""

    pod: dict[str, Any]
    warnings: tuple[str, ...]
    containers: tuple[str, ...]
    """Containers with a socket, in the order of their sockets; empty if the pod did not ask for an
    agent.
    """


def inject(pod: Mapping[str, Any], namespace: str, settings: Settings, bundle_pem: str) -> Result:
    """The pod with an agent. `pod` itself is not changed, and unchanged parts are shared with it. A
    pod without the label is returned as it is. `bundle_pem` may be empty for inspection only: such
    an agent trusts no adapter.

    Raises Refusal for a pod that must not run with an agent, and SettingsError for a malformed
    bundle.
    """
    if not label.wants(pod):
        warnings = (label.MISPLACED,) if label.misplaced(pod) else ()
        return Result(dict(pod), warnings, ())
    # 1 read
    wished = injection_request.read(pod, namespace, settings)
    # 2 judge
    judged = verdict.judge(wished, settings)
    # 3 build
    made = injected.build(pod, wished, judged.containers, settings, bundle_pem)
    return Result(made, judged.warnings, judged.containers)
