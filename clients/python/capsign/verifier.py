"""Verifies signatures with the public keys of a context, without asking for each."""

from __future__ import annotations

import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from capsign import jws as compact
from capsign.accepted_keys import NAMES, AcceptedKeys, demand_same
from capsign.errors import CapsignError, InvalidSignature, Refused, Unavailable
from capsign.inputs import Buffer
from capsign.key_set_source import AgentSource, HttpsSource, KeySetSource
from capsign.results import Signature
from capsign.signer import Signer

if TYPE_CHECKING:
    from capsign.jwk import VerificationKey

REPORT_EVERY_S = 10.0
"""Seconds between reports of how signatures verified."""

REPORT_TIMEOUT_S = 1.0
"""Longest that a report keeps a verification waiting, seconds."""


@dataclass(frozen=True, slots=True)
class VerifiedJws:
    """A JWS whose signature is good. What its payload claims, and until when, is for the caller to
    check.
    """

    payload: bytes
    header: dict[str, Any]
    key: VerificationKey


class Verifier:
    """Verifies with a key set of one context, which it fetches from `source`: a URL of the
    adapter's listener for verifiers, or a Signer, whose agent is asked. Safe for any number of
    threads.

    `algorithms` are the JOSE names that are accepted, and nothing else is. `place` are the
    arguments of `Signer.jwks` (grant, role and so on), for a Signer only. A set is kept for as long
    as it may be, and fetched once more for a key that is not in it, at most every ten seconds.
    `stale`: seconds beyond that for which a set is used while it cannot be fetched; 0: not at all.
    `tls`: whom to trust, for a URL. `timeout` is of one fetch, seconds. Proxies that the
    environment names are used only with `environment_proxies`.
    """

    def __init__(
        self,
        source: str | Signer,
        *,
        algorithms: Collection[str],
        stale: float = 0.0,
        tls: ssl.SSLContext | None = None,
        timeout: float = 10.0,
        environment_proxies: bool = False,
        clock: Callable[[], float] = time.monotonic,
        **place: str,
    ) -> None:
        """Raises ValueError for a name that is no algorithm with public keys, and for a URL that is
        not HTTPS.
        """
        self._keys = AcceptedKeys(algorithms, stale)
        if isinstance(source, str) and place:
            raise ValueError("a URL names the whole place of a key set")
        self._signer = source if isinstance(source, Signer) else None
        self._source: KeySetSource = (
            HttpsSource(source, tls, timeout, environment_proxies=environment_proxies)
            if isinstance(source, str)
            else AgentSource(source, place, timeout)
        )
        self._place, self._clock = place, clock
        self._lock = threading.Lock()
        self._counted: Counter[tuple[str, str, bool]] = Counter()
        self._reported = clock()

    def verify_jws(self, token: str | bytes) -> VerifiedJws:
        """Verify a JWS in its compact form (RFC 7515 section 7.1). Raises InvalidSignature, Refused
        for what is no JWS or has another algorithm, Unavailable if its key cannot be learnt now.
        """
        jws = compact.read(token)
        key = self._key(jws.kid)
        demand_same(key, jws)
        self._check(key, jws.signature, jws.signed)
        return VerifiedJws(jws.payload, jws.header, key)

    def verify(
        self, message: Buffer, signature: Signature | Buffer, *, kid: str = ""
    ) -> VerificationKey:
        """The key under which the signature of the message verifies. `kid` may be left out for a
        Signature. Bytes are as JOSE has them: R || S for ECDSA. Raises as `verify_jws`.
        """
        if isinstance(signature, Signature):
            kid, signature = kid or signature.kid, signature.jose
        key = self._key(kid)
        self._check(key, bytes(signature), bytes(message))
        return key

    def report(self) -> None:
        """Tell the agent how signatures verified, for the rollout of their key, if there is a
        Signer. It is done by itself every ten seconds while something is verified, and what cannot
        be told is told later. Raises CapsignError; Refused for a key that the context has no more,
        of which nothing is told.
        """
        refused: Refused | None = None
        with self._lock:
            counted, self._counted = self._counted, Counter()
            self._reported = self._clock()
        while self._signer is not None and counted:
            (kid, algorithm, ok), count = counted.popitem()
            try:
                place: dict[str, Any] = {
                    **self._place,
                    "timeout": REPORT_TIMEOUT_S,
                    "wait": True,
                }
                self._signer.report_verification(
                    kid, ok, count=count, algorithm=NAMES[algorithm], **place
                )
            except Refused as error:
                refused = error
            except CapsignError:
                counted[kid, algorithm, ok] += count
                with self._lock:
                    self._counted.update(counted)
                raise
        if refused is not None:
            raise refused

    def _key(self, kid: str) -> VerificationKey:
        """The key of this name. Raises InvalidSignature if there is none, Refused if its algorithm
        is not accepted, Unavailable.
        """
        cache = self._keys.cache
        with self._lock:
            if cache.wants_fetch(self._clock()):
                self._fetch()
            key = cache.key(kid, self._clock())
            if key is None and cache.wants_unknown(kid, self._clock()):
                self._fetch()
                key = cache.key(kid, self._clock())
        return self._keys.taken(key)

    def _fetch(self) -> None:
        cache, asked = self._keys.cache, self._clock()
        try:
            cache.fetched(self._source.fetch(cache.etag), asked, self._clock())
        except Unavailable as error:
            cache.failed(error, self._clock())

    def _check(self, key: VerificationKey, signature: bytes, message: bytes) -> None:
        try:
            key.check(signature, message)
        except InvalidSignature:
            self._count(key, ok=False)
            raise
        self._count(key, ok=True)

    def _count(self, key: VerificationKey, *, ok: bool) -> None:
        if self._signer is None:
            return
        with self._lock:
            self._counted[key.kid, key.algorithm, ok] += 1
            due = self._clock() - self._reported >= REPORT_EVERY_S
        if due:
            try:
                self.report()
            except CapsignError:
                return  # counted still, and told with the next one
