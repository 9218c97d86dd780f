"""One replica of the webhook: its parts, how it starts, and how it stops without losing a
request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from capsign_wire import logs
from capsign_wire.settings import SettingsError

from capsign_injector import review
from capsign_injector.certificate import mounted
from capsign_injector.certificate.cluster import Cluster
from capsign_injector.certificate.keeper import CertificateKeeper
from capsign_injector.certificate.tls import ServingTls
from capsign_injector.serve.connections import Connections
from capsign_injector.serve.health import MAX_CONNECTIONS, Health
from capsign_injector.serve.listeners import affordable
from capsign_injector.serve.metrics import Metrics
from capsign_injector.serve.webhook import NotAReviewError, NoTrustBundleError, Webhook
from capsign_injector.server_settings import address
from capsign_injector.settings import Settings
from capsign_injector.trust.confirmation import Confirmation
from capsign_injector.watched_files import FileError


class Certificate(Protocol):
    """The source of the serving certificate."""

    async def run(self) -> None:
        """Keep the certificate up to date until cancelled."""

    def fault(self) -> str | None:
        """Why API servers may not accept it, as a sentence; None if they do."""

    def ends_at(self) -> int:
        """When it ends, seconds since 1970; 0 without one."""


class Injector:
    """The parts of one replica. Create it inside the event loop."""

    def __init__(self, settings: Settings) -> None:
        server = settings.server
        self.settings = settings
        self.tls = ServingTls()
        self.metrics = Metrics()
        self.bundle = mounted.trust_bundle(settings.bundle_file)
        self.confirmation = (
            Confirmation(settings.adapter, self.bundle)
            if settings.needs_bundle and server.confirm_bundle
            else None
        )
        self.certificate: Certificate = (
            CertificateKeeper(server, Cluster(server), self.tls)
            if server.certificate == "own"
            else mounted.MountedCertificate(server, self.tls)
        )
        self.webhook = Webhook(server, self.answer_review, review.MAX_REVIEW_BYTES, self.metrics)
        self.health = Health(self._faults, self.metrics)
        self.reviews = Connections(
            self.webhook.handle, most=affordable(server.max_connections), broken=self._broken
        )
        self.probes = Connections(self.health.handle, most=MAX_CONNECTIONS, broken=self._broken)
        self.metrics.gauges = {
            "capsign_injector_certificate_end_timestamp_seconds": (
                "When the serving certificate ends.",
                self.certificate.ends_at,
            ),
            "capsign_injector_connections": (
                "Connections to the webhook.",
                lambda: self.reviews.count,
            ),
            "capsign_injector_ready": (
                "1 if this replica gets reviews.",
                lambda: not self.health.faults(),
            ),
            "capsign_injector_reviews": ("Reviews in work.", lambda: self.webhook.reviews),
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. Raises OSError if an address cannot be had."""
        server = self.settings.server
        self.probes.listen(*address(server.health), None)
        self.reviews.listen(*address(server.listen), self.tls.context)
        logs.event("injector.started", port=self.reviews.port, health_port=self.probes.port)
        keeping = [asyncio.create_task(self.certificate.run())]
        if self.confirmation:
            keeping.append(asyncio.create_task(self.confirmation.run()))
        stopped = asyncio.create_task(stop.wait())
        # Keepers end by cancellation only. If one fails, that is a defect: the process ends, and
        # the kubelet starts it anew.
        await asyncio.wait({*keeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await self._drain()
        for task in (*keeping, stopped):
            task.cancel()
        for ended in await asyncio.gather(*keeping, stopped, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _drain(self) -> None:
        """First report "not ready", and close kept-alive connections with their next answer; after
        a delay stop to accept connections, and finish what is under way. The certificate is kept up
        to date until the end.
        """
        server = self.settings.server
        logs.event("injector.draining", delay_s=server.drain_delay_s)
        self.health.draining = True
        self.reviews.closing = True
        await asyncio.sleep(server.drain_delay_s)
        in_time = await self.reviews.drain(server.drain_s)
        await self.probes.drain(0.0)
        self.webhook.close()
        logs.event("injector.stopped", in_time=in_time)

    def answer_review(self, body: bytes) -> review.Answer:
        """The answer to a review. Raises NotAReviewError and NoTrustBundleError."""
        why, bundle = "", ""
        try:
            bundle = self.bundle.current() if self.settings.needs_bundle else ""
            why = (self.confirmation and self.confirmation.fault()) or ""
        except FileError as error:
            why = str(error)
        if why:
            bundle = ""
        try:
            return review.respond(body, self.settings, bundle)
        except review.MalformedReviewError as error:
            raise NotAReviewError(str(error)) from None
        except SettingsError as error:
            raise NoTrustBundleError(why or str(error)) from None

    def _faults(self) -> Iterable[str]:
        fault = self.certificate.fault()
        if fault is not None:
            yield fault
        if not self.settings.needs_bundle:
            return
        try:
            self.bundle.current()
            fault = self.confirmation.fault() if self.confirmation else None
        except FileError as error:
            fault = str(error)
        if fault is not None:
            yield fault

    def _broken(self) -> None:
        self.metrics.broken_connections += 1
