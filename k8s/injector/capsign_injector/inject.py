"""From pod and settings to the injected pod: read, judge, build. Pure, and idempotent:
`inject(inject(x)) == inject(x)`.

It is called again for the same pod: the API server reinvokes webhooks when another one changed it,
and a template that was injected offline is admitted later. So each thing is put where it is
already, and everything else is left as it came.
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
    """The injected pod, and what the person who applied it should know."""

    pod: dict[str, Any]
    warnings: tuple[str, ...]
    containers: tuple[str, ...]
    """Those with a socket, in the order of their sockets; empty: the pod did not ask to be
    injected.
    """


def inject(pod: Mapping[str, Any], namespace: str, settings: Settings, bundle_pem: str) -> Result:
    """A pod with the agent in it; `pod` is not changed, and what stays as it is is shared with it.
    A pod without the label comes back as it is.

    `bundle_pem` may be empty, for looking only: such an agent trusts no adapter. Raises Refusal for
    a pod that must not run so, and SettingsError for a bundle that is none.
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
