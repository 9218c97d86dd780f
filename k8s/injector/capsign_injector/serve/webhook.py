"""The webhook: `POST /inject` over HTTPS, around the pure review.

Every size is checked before it is read, and a request above a bound is answered at once.
"Overloaded" has a `Retry-After`; the API server then asks again by itself, within the webhook's
timeout. Nothing of a request is ever logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from aiohttp import ClientError, hdrs, web
from capsign_wire import logs

from capsign_injector.serve.metrics import Metrics
from capsign_injector.serve.patience import USUAL, Patience
from capsign_injector.server_settings import Server

PATH = "/inject"


class Answer(Protocol):
    """The answer to a review: the AdmissionReview's bytes, and its outcome, one of
    `metrics.OUTCOMES`.
    """

    @property
    def body(self) -> bytes: ...
    @property
    def outcome(self) -> str: ...


class NotAReviewError(Exception):
    """The body is no AdmissionReview for us. The text repeats nothing of it."""


class NoTrustBundleError(Exception):
    """No pod can get an agent now. The text says why."""


Review = Callable[[bytes], Answer]
"""From a body to an answer; raises NotAReviewError and NoTrustBundleError. It runs on a thread of
its own, one at a time.
"""


class _RefusedError(Exception):
    """A request that is answered without a review. The text repeats nothing of it."""

    def __init__(
        self, status: int, outcome: str, sentence: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.outcome = outcome
        self.sentence = sentence
        self.headers = headers


class Webhook:
    """Answers requests. `max_body_bytes` bounds one body, the settings bound all of them together.
    For one event loop.
    """

    def __init__(
        self,
        settings: Server,
        review: Review,
        max_body_bytes: int,
        metrics: Metrics,
        patience: Patience = USUAL,
    ) -> None:
        self._settings = settings
        self._review = review
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics
        self._body_s = patience.body_s
        # One thread: reviews are Python all through, so more would only take turns. It leaves the
        # loop free for handshakes and probes, and its turn is handed out here so that nobody's work
        # is done whose caller has gone.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="review")
        self._turn = asyncio.Lock()
        self.reviews = 0
        """Reviews under way."""
        self.bytes = 0
        """Bytes of their bodies, as announced."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to any request."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            answer = await self._answer(request)
            outcome, response = (
                answer.outcome,
                web.Response(body=answer.body, content_type="application/json"),
            )
        except _RefusedError as refusal:
            outcome, response = refusal.outcome, _said(refusal)
        except (ConnectionError, ClientError, asyncio.IncompleteReadError, web.RequestPayloadError):
            outcome, response = "slow", _said(_RefusedError(400, "slow", "The body ended early."))
        except Exception as error:  # a defect of ours: the caller hears that, and no more
            logs.error("review.failed", error)
            outcome, response = (
                "failed",
                _said(_RefusedError(500, "failed", "The injector failed; its log says where.")),
            )
        self._metrics.count(outcome, clock() - began)
        if outcome not in {"injected", "unchanged"}:
            logs.event("review.answered", outcome=outcome, status=response.status)
        return response

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, request: web.BaseRequest) -> Answer:
        size = _bounded(request, self._max_body_bytes)
        if (
            self.reviews >= self._settings.max_reviews
            or self.bytes + size > self._settings.max_review_bytes
        ):
            sentence = "The injector has too many reviews in work. Ask again in a second."
            raise _RefusedError(503, "overloaded", sentence, {hdrs.RETRY_AFTER: "1"})
        self.reviews += 1
        self.bytes += size
        try:
            try:
                async with asyncio.timeout(self._body_s):
                    body = await request.content.readexactly(size)
            except TimeoutError:
                raise _RefusedError(
                    408, "slow", f"The body took longer than {self._body_s:.0f} seconds."
                ) from None
            return await self._reviewed(request, body)
        finally:
            self.reviews -= 1
            self.bytes -= size

    async def _reviewed(self, request: web.BaseRequest, body: bytes) -> Answer:
        async with self._turn:
            if request.transport is None:
                raise ConnectionResetError("nobody waits for this answer")
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._review, body
                )
            except NotAReviewError as error:
                raise _RefusedError(400, "malformed", str(error)) from None
            except NoTrustBundleError as error:
                # kubectl shows the text of a 500, and of no other status.
                raise _RefusedError(500, "no_trust_bundle", str(error)) from None


def _bounded(request: web.BaseRequest, most: int) -> int:
    """The size of the body to read. Raises _RefusedError."""
    if request.path != PATH:
        raise _RefusedError(404, "malformed", f"There is nothing here. Reviews go to {PATH}.")
    if request.method != hdrs.METH_POST:
        raise _RefusedError(
            405, "malformed", "Reviews are sent by POST.", {hdrs.ALLOW: hdrs.METH_POST}
        )
    if hdrs.EXPECT in request.headers:
        raise _RefusedError(417, "malformed", "Send the body without waiting.")
    if request.content_type != "application/json" or hdrs.CONTENT_ENCODING in request.headers:
        raise _RefusedError(415, "malformed", "A review is application/json, not compressed.")
    size = request.content_length
    if size is None or hdrs.TRANSFER_ENCODING in request.headers:
        raise _RefusedError(411, "malformed", "Send a Content-Length.")
    if size > most:
        raise _RefusedError(413, "too_large", f"A review has at most {most} bytes.")
    return size


def _said(refusal: _RefusedError) -> web.Response:
    """The refusal as a response that closes its connection, because the body was not read."""
    response = web.Response(
        status=refusal.status, text=refusal.sentence + "\n", headers=refusal.headers
    )
    response.force_close()
    return response
