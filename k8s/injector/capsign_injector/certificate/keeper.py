"""Keeps the injector's own certificate valid: reads Secret and webhook configuration, takes the
next step, serves what is stored.

All replicas do this at once. A write happens only if nobody else has written since the read; a
replica whose write fails reads again. So they agree without a leader. `rotation` decides what to
do.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress

from capsign_wire import logs

from capsign_injector.certificate import certificates, rotation, secret_data
from capsign_injector.certificate.certificates import CertificateError
from capsign_injector.certificate.cluster import Cluster, ClusterError, ConflictError
from capsign_injector.certificate.rotation import Material, Publish, Store, Terms, View
from capsign_injector.certificate.secret_data import StoredError
from capsign_injector.certificate.tls import ServingTls
from capsign_injector.server_settings import Server

MAX_STEPS = 16
"""Most steps in one go. Two replicas that start together need fewer; if there are more, they undo
each other's, and that must wait.
"""

RETRY_S = (1.0, 2.0, 5.0)
"""Seconds to wait after each failure in a row; the last value repeats."""


class CertificateKeeper:
    """One replica's control loop."""

    def __init__(
        self,
        settings: Server,
        cluster: Cluster,
        tls: ServingTls,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._tls = tls
        self._clock = clock
        self._terms = Terms(
            names=settings.names,
            authority_life_s=settings.authority_life_s,
            leaf_life_s=settings.leaf_life_s,
            propagation_s=settings.propagation_s,
            patience_s=2 * settings.look_s,
        )
        self._held: Material | None = None
        self._published = False
        self._sure_until = 0
        self._empty_since: int | None = None
        self._ahead = 0.0
        self._fault = "it has not been looked at yet"

    def fault(self) -> str | None:
        """Why API servers may not accept what is served, as a sentence; None if they do."""
        if self._held is None:
            return f"There is no serving certificate: {self._fault}."
        if not self._published:
            return (
                f"The authority of the serving certificate is not in the webhook "
                f"configuration: {self._fault}."
            )
        if self._now() >= self._sure_until:
            return (
                f"The cluster was not heard from for so long that other replicas may have "
                f"moved on: {self._fault}."
            )
        return None

    def ends_at(self) -> int:
        """When the certificate in use ends, seconds since 1970; 0 without one."""
        return certificates.read(self._held.leaf.certificate).not_after if self._held else 0

    async def run(self) -> None:
        """Repeat `look` until cancelled."""
        failed = 0
        while True:
            try:
                pause = await self.look()
                failed = 0
            except (ClusterError, StoredError, CertificateError) as error:
                pause = min(RETRY_S[min(failed, len(RETRY_S) - 1)], float(self._settings.look_s))
                failed += 1
                self._failed(error)
            # Replicas that started together would otherwise look, and collide, together for ever.
            await asyncio.sleep(pause * random.uniform(0.8, 1.0))

    async def look(self) -> float:
        """Take every step that is due; returns the seconds to wait. Raises ClusterError,
        StoredError, CertificateError.
        """
        for _ in range(MAX_STEPS):
            with suppress(ConflictError):
                until = await self._step(self._cluster)
                if until is not None:
                    return max(0.5, min(float(self._settings.look_s), until - self._now()))
        return RETRY_S[0]

    async def _step(self, cluster: Cluster) -> int | None:
        # In this order: what was stored before the webhooks are written is then known to who writes
        # them (0014).
        webhooks = await cluster.webhooks()
        secret = await cluster.secret()
        self._ahead = cluster.now - self._clock()
        try:
            stored = secret_data.decode(secret.data)
        except StoredError as error:
            raise StoredError(
                f"Secret {self._settings.namespace}/{self._settings.secret}: {error}"
            ) from None
        trusted = _common(webhooks.bundles)
        if stored is not None:
            self._serve(stored, trusted, cluster.now)
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = cluster.now
        view = View(
            stored, self._held, trusted, cluster.now, secret.rotation, self._empty_since or 0
        )
        step = rotation.next_step(view, self._terms)
        if isinstance(step, Store):
            await cluster.store(secret, secret_data.encode(step.material), webhooks)
            logs.event("certificate.stored", step=step.why)
            return None
        if isinstance(step, Publish):
            await cluster.publish(webhooks, step.bundle)
            logs.event("certificate.published", authorities=len(certificates.read_all(step.bundle)))
            return None
        return step.until

    def _serve(self, stored: Material, trusted: frozenset[bytes], now: int) -> None:
        """Serve what is stored. It is stored only once all API servers trust its authority."""
        if self._tls.load(stored.leaf):
            logs.event("certificate.loaded", generation=self._tls.generation)
        self._held = stored
        self._published = certificates.read(stored.authority.certificate).der in trusted
        self._sure_until = rotation.sure_until(stored, now, self._terms)
        self._fault = "it is about to be published" if not self._published else "all is well"

    def _failed(self, error: Exception) -> None:
        if str(error) != self._fault:
            # Our own sentences, about objects and files; nothing of a pod can be in them.
            logs.warning("certificate.look_failed", kind=type(error).__name__, sentence=str(error))
        self._fault = str(error).rstrip(".")

    def _now(self) -> float:
        return self._clock() + self._ahead


def _common(bundles: tuple[bytes, ...]) -> frozenset[bytes]:
    """DER of the authorities that are in every one of these PEM bundles. A bundle that cannot be
    read has none.
    """
    sets = []
    for bundle in bundles:
        try:
            sets.append(frozenset(one.der for one in certificates.read_all(bundle)))
        except CertificateError:
            sets.append(frozenset())
    return frozenset.intersection(*sets) if sets else frozenset()
