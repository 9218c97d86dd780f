"""A certificate for the pod's service account, from the adapter's own authority.

1 make a key pair in memory · 2 read the projected token · 3 enrol over TLS that authenticates the
adapter against the trust bundle · 4 check that the certificate fits the key · 5 keep the bundle, if
it is newer · 6 use both · 7 after half of the certificate's lifetime, with jitter, repeat this over
a connection with the current certificate (`Renew`) · 8 when an adapter announces a newer bundle,
fetch it.

`Renew` needs a certificate that adapters still accept. Without one the agent enrols again, which
needs nothing but the pod's token.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import stat
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from capsign_wire import bounds
from capsign_wire.adapter.v1 import identity_pb2
from capsign_wire.failures import FailureError
from capsign_wire.pem import written as pem_of
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.config import Kubernetes
from capsign_agent.identity import certificate_request
from capsign_agent.identity.credentials import Credentials, CredentialsError, checked
from capsign_agent.identity.enrolment import Enrolment
from capsign_agent.identity.events import IdentityEvents
from capsign_agent.identity.source import IdentityError
from capsign_agent.identity.trust import TrustStore
from capsign_agent.retry_delay import LEAST_WAIT_S
from capsign_agent.timing import Timing

MAX_TOKEN_BYTES = 8192
"""Most bytes of a token: the bound of EnrolRequest.service_account_token."""

_MISFITS = {
    "CERTIFICATE_ENDED": "The adapter's certificate is not valid by this node's clock. Set the "
    "clock.",
    "TRUST_OUTDATED": "The adapter has a certificate of an authority that this pod was not given: "
    "it is from an installation that is gone. Make the pod anew: `kubectl delete pod`, or "
    "`kubectl rollout restart` of what it belongs to.",
    "NAME_UNRESOLVED": "The adapter's name cannot be resolved. See to the pod's DNS: with "
    "`dnsPolicy: None` its `dnsConfig` must name a server that knows the cluster's Services.",
}
"""What a person should do about each result of `Enrolment.misfit`."""


class Adapter(Protocol):
    """The adapter's calls about identity, over mTLS. Each raises FailureError."""

    def renew_identity(
        self, asked: identity_pb2.RenewRequest
    ) -> Awaitable[identity_pb2.RenewResponse]: ...

    def trust_bundle(self) -> Awaitable[identity_pb2.GetTrustBundleResponse]: ...


@dataclass(frozen=True, slots=True)
class _Held:
    """The certificate in use, and when to renew it, seconds since 1970."""

    credentials: Credentials
    renew_at: float


class KubernetesIdentity:
    """See `IdentitySource`."""

    def __init__(
        self,
        config: Kubernetes,
        enrolment: Enrolment,
        adapter: Adapter,
        events: IdentityEvents,
        timing: Timing,
    ) -> None:
        """Reads the trust bundle that was kept. Raises SettingsError."""
        self._config = config
        self._enrolment = enrolment
        self._adapter = adapter
        self._events = events
        self._timing = timing
        self._clock = timing.certificate_clock
        self._trust = TrustStore(config.state_dir, config.bundle)
        self._announced = 0
        self._told = asyncio.Event()

    def authorities_changed(self, sequence: int) -> None:
        if sequence > self._announced:
            self._announced = sequence
            self._told.set()

    async def changes(self) -> AsyncGenerator[Credentials, None]:
        held: _Held | None = None
        failures = 0
        while True:
            try:
                held = await self._next(held)
            except IdentityError as error:
                failures += 1
                self._events.hindered(error)
                await asyncio.sleep(max(error.retry_after_s, self._timing.retry_delay_s(failures)))
                continue
            failures = 0
            yield held.credentials
            await self._until_due(held)

    async def _next(self, held: _Held | None) -> _Held:
        """The next credentials. Raises IdentityError."""
        now = self._clock()
        try:
            if held is None or held.credentials.ends <= now:
                return await self._enrol()
            if now >= held.renew_at:
                return await self._renew()
            return await self._update(held)
        except FailureError as error:
            raise IdentityError.of(error) from None

    async def _enrol(self) -> _Held:
        """Steps 1 to 5 for a pod that has no certificate."""
        made = await asyncio.to_thread(certificate_request.make)
        token = read_token(self._config.token_file)
        asked = identity_pb2.EnrolRequest(certificate_request=made.der, service_account_token=token)
        try:
            answer = await self._enrolment.enrol(asked, self._trust.now.pem)
        except FailureError as error:
            if error.reason != failures_pb2.REASON_UPSTREAM_UNREACHABLE:
                raise
            misfit = await self._enrolment.misfit(self._trust.now.pem)
            if misfit:
                raise IdentityError(misfit, _MISFITS[misfit]) from None
            raise
        held = self._take(made, answer)
        self._events.issued("kubernetes", held.credentials)
        return held

    async def _renew(self) -> _Held:
        """Step 7. A fresh token is sent again, so that a pod that is gone gets no further
        certificate.
        """
        made = await asyncio.to_thread(certificate_request.make)
        token = read_token(self._config.token_file)
        asked = identity_pb2.RenewRequest(certificate_request=made.der, service_account_token=token)
        try:
            answer = await self._adapter.renew_identity(asked)
        except FailureError as error:
            if error.reason != failures_pb2.REASON_UPSTREAM_UNREACHABLE:
                raise
            return await self._enrol()
        held = self._take(made, answer)
        self._events.renewed("kubernetes", held.credentials)
        return held

    async def _update(self, held: _Held) -> _Held:
        """Step 8: the same certificate with the new bundle."""
        answer = await self._adapter.trust_bundle()
        bounds.check(answer)
        if not self._offer(answer.bundle):
            raise IdentityError(
                "BUNDLE_LATE", "One replica told of a trust bundle that another does not have yet."
            )
        self._events.unhindered()
        return _Held(
            _made(self._trust.now.pem, held.credentials.certificate, held.credentials.key),
            held.renew_at,
        )

    def _take(
        self,
        made: certificate_request.Request,
        answer: identity_pb2.EnrolResponse | identity_pb2.RenewResponse,
    ) -> _Held:
        """Steps 5 and 4, in this order: the bundle is kept even if the certificate does not fit."""
        bounds.check(answer)
        self._offer(answer.bundle)
        credentials = _made(self._trust.now.pem, pem_of(answer.svid.certificates), made.private_key)
        if credentials.spiffe_id != answer.svid.spiffe_id:
            raise IdentityError(
                "CREDENTIALS_UNUSABLE",
                "The adapter sent a certificate that names another identity than it says.",
            )
        now = self._clock()
        if credentials.ends <= now:
            raise IdentityError(
                "CERTIFICATE_ENDED",
                "A fresh certificate has ended by this node's clock. Set the clock.",
            )
        wait_s = (credentials.ends - now) / 2 * random.uniform(0.9, 1.0)
        return _Held(credentials, now + max(LEAST_WAIT_S, wait_s))

    def _offer(self, bundle: identity_pb2.TrustBundle) -> bool:
        try:
            return self._trust.offer(bundle)
        except ValueError:
            raise IdentityError(
                "CREDENTIALS_UNUSABLE", "The adapter's trust bundle holds no certificates."
            ) from None

    async def _until_due(self, held: _Held) -> None:
        """Wait until a renewal is due, or a bundle is announced that is newer than ours."""
        while self._announced <= self._trust.now.sequence:
            left_s = held.renew_at - self._clock()
            if left_s <= 0:
                return
            self._told.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), min(left_s, self._timing.look_at_clock_s))
        await asyncio.sleep(random.uniform(0, self._timing.spread_s))


def read_token(path: Path) -> str:
    """The projected token as it is now. Raises IdentityError. It is secret: it goes into a request
    and nowhere else.

    The kubelet updates it by replacing a link, and makes the file as readable as the pod's user
    needs. So links are followed and modes are not checked: only the agent mounts the volume.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            data = (
                file.read(MAX_TOKEN_BYTES + 1)
                if stat.S_ISREG(os.fstat(descriptor).st_mode)
                else b""
            )
    except OSError as error:
        raise _no_token(path, f"cannot be read ({error.strerror})") from None
    token = data.strip()
    if not token or len(data) > MAX_TOKEN_BYTES or not token.isascii():
        raise _no_token(path, "holds no token")
    return token.decode("ascii")


def _no_token(path: Path, what: str) -> IdentityError:
    return IdentityError(
        "TOKEN_UNREADABLE",
        f"The file {path} {what}. See that the projected volume is mounted in the agent.",
    )


def _made(ca: bytes, certificate: bytes, key: bytes) -> Credentials:
    try:
        return checked(ca, certificate, key)
    except CredentialsError as error:
        raise IdentityError("CREDENTIALS_UNUSABLE", f"Of what the adapter sent, {error}.") from None
