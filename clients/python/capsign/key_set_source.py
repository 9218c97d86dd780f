"""Where a verifier's key set comes from: the adapter's listener by HTTPS, or the agent of this
pod.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from email.message import Message
from typing import IO, Any, Protocol

from capsign_wire import tls_trust

from capsign.errors import CapsignError, Unavailable
from capsign.key_set_cache import Fetched
from capsign.results import KeySet
from capsign.signer import Signer

MAX_BYTES = 2 * 1024 * 1024
"""Largest set that is read, bytes."""


class KeySetSource(Protocol):
    """What fetches key sets."""

    def fetch(self, etag: str) -> Fetched:
        """The set, or that it is still the one with this entity tag. Raises Unavailable."""


class HttpsSource:
    """A URL. Redirections are not followed, and nothing but HTTPS is spoken. What the environment
    says of proxies (HTTPS_PROXY) counts only if the caller wants it: a variable that is meant for
    others must not decide whom a verifier asks, and the adapter is rarely beyond a proxy.
    """

    def __init__(
        self,
        url: str,
        tls: ssl.SSLContext | None,
        timeout: float,
        *,
        environment_proxies: bool = False,
    ) -> None:
        """`tls`: whom to trust; None: the system's authorities. Raises ValueError."""
        if not url.startswith("https://"):
            raise ValueError("the URL of a key set begins with https://")
        self._url, self._timeout = url, timeout
        context = tls if tls is not None else tls_trust.of_the_system()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler(None if environment_proxies else {}),
            urllib.request.HTTPSHandler(context=context),
            _NoRedirect(),
        )

    def fetch(self, etag: str) -> Fetched:
        asked = urllib.request.Request(self._url)  # noqa: S310 - https
        if etag:
            asked.add_header("If-None-Match", etag)
        try:
            with self._opener.open(asked, timeout=self._timeout) as answer:
                body = answer.read(MAX_BYTES + 1)
                headers = answer.headers
        except urllib.error.HTTPError as error:
            with error:
                if error.code == http.client.NOT_MODIFIED:
                    return Fetched(None, etag, _age_left(error.headers))
                raise _unavailable(f"It answers {error.code}.", _seconds(error.headers)) from None
        except (OSError, http.client.HTTPException) as error:
            raise _unavailable(f"It cannot be reached: {error}.") from None
        if len(body) > MAX_BYTES:
            raise _unavailable(f"Its answer is larger than {MAX_BYTES} bytes.")
        return Fetched(body, headers.get("ETag", ""), _age_left(headers))


class AgentSource:
    """The agent of this pod. `place` names the handle and the context, as `Signer.jwks` takes
    them.
    """

    def __init__(self, signer: Signer, place: dict[str, Any], timeout: float) -> None:
        self._signer, self._place, self._timeout = signer, place, timeout

    def fetch(self, etag: str) -> Fetched:
        try:
            found = self._signer.jwks(**self._place, timeout=self._timeout)
        except Unavailable:
            raise
        except CapsignError as error:
            raise not_given(error) from None
        return of_agent(found)


def of_agent(found: KeySet) -> Fetched:
    """The agent's answer as a cache takes it."""
    return Fetched(found.body, found.etag, float(found.max_age))


def not_given(error: CapsignError) -> Unavailable:
    """The error of an agent that gives no set, whatever its reason."""
    return Unavailable(error.reason, error.message, advice=error.advice)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        """None: what is redirected is an answer that is of no use."""


def _age_left(headers: Message) -> float:
    """How long an answer may be kept from now on, seconds (RFC 9111 section 4.2): its max-age, less
    the time that caches on the way kept it.
    """
    parts = headers.get("Cache-Control", "").lower().split(",")
    said = {name.strip(): value.strip('" ') for name, _, value in (p.partition("=") for p in parts)}
    if said.keys() & {"no-store", "no-cache"}:
        return 0.0
    return max(0.0, _number(said.get("max-age", "")) - _number(headers.get("Age", "")))


def _seconds(headers: Message) -> float:
    """`Retry-After` in seconds; 0 for a date, and where there is none."""
    return _number(headers.get("Retry-After", ""))


def _number(text: str) -> float:
    return float(text) if text.isdecimal() and len(text) < 10 else 0.0


def _unavailable(detail: str, retry_after: float = 0.0) -> Unavailable:
    return Unavailable(
        "UPSTREAM_UNREACHABLE",
        f"The key set cannot be fetched. {detail}",
        advice="Look at its address, its certificate, and who may reach it.",
        retry_after=retry_after,
    )
