"""`GET /healthz`, `/readyz` and `/metrics` without TLS, on a listener of their own, so that they
answer when the webhook is full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiohttp import hdrs, web

from capsign_injector.serve import metrics as text_format
from capsign_injector.serve.metrics import Metrics

MAX_CONNECTIONS = 64
"""Most connections; probes and a scraper need a few."""

Faults = Callable[[], Iterable[str]]
"""Returns sentences that say why this replica should not get reviews; none if it should."""


class Health:
    """A replica is ready if API servers accept its certificate, it has a trust bundle for agents,
    and it is not stopping.
    """

    def __init__(self, faults: Faults, metrics: Metrics) -> None:
        self._faults = faults
        self._metrics = metrics
        self.draining = False

    def faults(self) -> list[str]:
        """Why this replica is not ready."""
        return ["The injector is about to end."] if self.draining else list(self._faults())

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to any request."""
        if request.method != hdrs.METH_GET:
            answer = web.Response(status=405, headers={hdrs.ALLOW: hdrs.METH_GET})
        elif request.path == "/healthz":
            answer = web.Response(text="ok\n")
        elif request.path == "/readyz":
            faults = self.faults()
            answer = web.Response(
                status=503 if faults else 200, text="".join(f"{one}\n" for one in faults) or "ok\n"
            )
        elif request.path == "/metrics":
            answer = web.Response(
                text=self._metrics.text(), headers={hdrs.CONTENT_TYPE: text_format.CONTENT_TYPE}
            )
        else:
            answer = web.Response(status=404)
        if answer.status >= 400:
            answer.force_close()
        return answer
