"""Checks that the adapter's certificate chains to the trust bundle, by a TLS handshake at its
enrolment address.

The bundle's file outlives the adapter that wrote it. After a reinstallation with new keys it is
there before the new adapter has written its own, and a pod that got the old bundle could never
enrol. So no pod gets a bundle that was not confirmed.

A confirmation holds while no adapter answers: pods may be created during an outage, and wait for
its end. It ends at once when an adapter answers with a certificate of another authority.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from capsign_wire import addresses, logs, tls_trust

from capsign_injector.settings import Adapter
from capsign_injector.watched_files import FileError, WatchedFiles

LOOK_S = 1.0
"""Seconds between two handshakes while the bundle is not confirmed."""

LOOK_AGAIN_S = 15.0
"""Seconds between two handshakes once it is confirmed."""

TIMEOUT_S = 5.0
"""Seconds that a handshake may take."""

Handshake = Callable[[str, str, ssl.SSLContext], Awaitable[None]]
"""Makes a handshake with host:port, for this server name. Raises OSError (ssl.SSLError is one) or
TimeoutError.
"""


class Confirmation:
    """Whether the bundle is confirmed, for one replica. `run` keeps it up to date; `fault` may be
    called at any time.
    """

    def __init__(
        self, adapter: Adapter, bundle: WatchedFiles[str], handshake: Handshake | None = None
    ) -> None:
        self._adapter = adapter
        self._bundle = bundle
        self._handshake = handshake or shake
        self._confirmed = ""
        self._why = "it has not been asked yet"

    def fault(self) -> str | None:
        """Why pods cannot get the present bundle, as a sentence; None if they can. Raises FileError
        without a bundle.
        """
        if self._bundle.current() == self._confirmed:
            return None
        return f"No adapter has confirmed the trust bundle: {self._why}."

    async def run(self) -> None:
        """Repeat `look` until cancelled."""
        while True:
            await self.look()
            try:
                well = self.fault() is None
            except FileError:
                well = False
            await asyncio.sleep(LOOK_AGAIN_S if well else LOOK_S)

    async def look(self) -> None:
        """Make a handshake with each address until one confirms the bundle."""
        try:
            pem = self._bundle.current()
            context = tls_trust.context(pem)
        except (FileError, ssl.SSLError):
            return  # `fault` says it, or the bundle's own check did
        context.set_alpn_protocols(["h2"])
        contradicted = ""
        for target in self._adapter.enrolment_targets:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._handshake(target, self._adapter.server_name, context)
            except ssl.SSLCertVerificationError as error:
                # by our clock, which may be the wrong one: nobody else is at work
                if tls_trust.out_of_time(error):
                    self._why = (
                        f"the certificate of the one at {target} is not valid by this node's clock"
                    )
                    continue
                contradicted = (
                    f"the one at {target} has a certificate that it does not vouch for "
                    f"({error.verify_message})"
                )
            except (OSError, TimeoutError) as error:
                self._why = f"{target} does not answer ({type(error).__name__})"
            else:
                if pem != self._confirmed:
                    logs.event("bundle.confirmed", target=target)
                self._confirmed = pem
                return
        if contradicted:
            if contradicted != self._why:
                logs.warning("bundle.contradicted", sentence=contradicted)
            self._confirmed, self._why = "", contradicted


async def shake(target: str, name: str, context: ssl.SSLContext) -> None:
    """Make a TLS handshake and send nothing."""
    there = addresses.target(target)
    _, writer = await asyncio.open_connection(
        there.host, there.port, ssl=context, server_hostname=name
    )
    writer.transport.abort()
