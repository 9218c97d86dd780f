"""Verifies signatures with the public keys of a context, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from capsign import jws as compact
from capsign.accepted_keys import NAMES, AcceptedKeys, demand_same
from capsign.async_signer import AsyncSigner
from capsign.errors import CapsignError, InvalidSignature, Unavailable
from capsign.inputs import Buffer
from capsign.key_set_cache import Fetched
from capsign.key_set_source import HttpsSource, not_given, of_agent
from capsign.results import Signature
from capsign.verifier import VerifiedJws

if TYPE_CHECKING:
    from capsign.jwk import VerificationKey


class AsyncVerifier:
    """A `Verifier` whose fetches do not hold up the event loop. All that `Verifier` says holds
    here; `source` is a URL or an AsyncSigner, which also tells its agent how signatures verified.
    For one event loop at a time. Calls that need the same fetch share it, and cancelling one of
    them does not end it.
    """

    def __init__(
        self,
        source: str | AsyncSigner,
        *,
        algorithms: Collection[str],
        stale: float = 0.0,
        tls: ssl.SSLContext | None = None,
        timeout: float = 10.0,
        environment_proxies: bool = False,
        clock: Callable[[], float] = time.monotonic,
        **place: str,
    ) -> None:
        """Raises ValueError as `Verifier` does."""
        self._keys = AcceptedKeys(algorithms, stale)
        if isinstance(source, str) and place:
            raise ValueError("a URL names the whole place of a key set")
        self._signer = source if isinstance(source, AsyncSigner) else None
        self._web = (
            HttpsSource(source, tls, timeout, environment_proxies=environment_proxies)
            if isinstance(source, str)
            else None
        )
        self._place: dict[str, Any] = dict(place)
        self._timeout, self._clock = timeout, clock
        self._fetching: asyncio.Task[None] | None = None

    async def verify_jws(self, token: str | bytes) -> VerifiedJws:
        """As `Verifier.verify_jws`."""
        jws = compact.read(token)
        key = await self._key(jws.kid)
        demand_same(key, jws)
        await self._check(key, jws.signature, jws.signed)
        return VerifiedJws(jws.payload, jws.header, key)

    async def verify(
        self, message: Buffer, signature: Signature | Buffer, *, kid: str = ""
    ) -> VerificationKey:
        """As `Verifier.verify`."""
        if isinstance(signature, Signature):
            kid, signature = kid or signature.kid, signature.jose
        key = await self._key(kid)
        await self._check(key, bytes(signature), bytes(message))
        return key

    async def _key(self, kid: str) -> VerificationKey:
        cache = self._keys.cache
        if cache.wants_fetch(self._clock()):
            await self._fetched()
        key = cache.key(kid, self._clock())
        if key is None and (self._is_fetching() or cache.wants_unknown(kid, self._clock())):
            await self._fetched()
            key = cache.key(kid, self._clock())
        return self._keys.taken(key)

    def _is_fetching(self) -> bool:
        task = self._fetching
        return task is not None and not task.done()

    async def _fetched(self) -> None:
        """Fetch, or wait for the fetch that is under way."""
        task, here = self._fetching, asyncio.get_running_loop()
        if task is None or task.done() or task.get_loop() is not here:
            task = self._fetching = here.create_task(self._fetch())
        await asyncio.shield(task)

    async def _fetch(self) -> None:
        cache, asked = self._keys.cache, self._clock()
        try:
            cache.fetched(await self._told(cache.etag), asked, self._clock())
        except Unavailable as error:
            cache.failed(error, self._clock())

    async def _told(self, etag: str) -> Fetched:
        if self._web is not None:
            return await asyncio.to_thread(self._web.fetch, etag)
        assert self._signer is not None
        try:
            return of_agent(await self._signer.jwks(**self._place, timeout=self._timeout))
        except Unavailable:
            raise
        except CapsignError as error:
            raise not_given(error) from None

    async def _check(self, key: VerificationKey, signature: bytes, message: bytes) -> None:
        try:
            key.check(signature, message)
        except InvalidSignature:
            await self._report(key, ok=False)
            raise
        await self._report(key, ok=True)

    async def _report(self, key: VerificationKey, *, ok: bool) -> None:
        """Returns at once: the signer gathers reports and tells them in the background."""
        if self._signer is not None:
            with contextlib.suppress(CapsignError):
                await self._signer.report_verification(
                    key.kid, ok, algorithm=NAMES[key.algorithm], **self._place
                )
