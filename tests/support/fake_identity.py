"""Identities as the adapter issues them: an authority that can roll, enrolment with a token,
renewal, the trust bundle.

Real certificates over real TLS. It believes the tokens that it was told to believe; what a cluster
would check is not here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc
from capsign_adapter.front.tls import dynamic_credentials
from capsign_wire import bounds
from capsign_wire.adapter.v1 import identity_pb2 as pb
from capsign_wire.adapter.v1 import identity_pb2_grpc
from capsign_wire.failures import FailureError, abort
from capsign_wire.types.v1 import failures_pb2 as fail
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from support.agent_pki import ADAPTER_ID, AGENT_ID, TestCa


class FakeIdentity:
    """What an adapter with an authority adds to FakeAdapter."""

    def __init__(self) -> None:
        self.authorities = [TestCa("authority 1")]
        self.active = self.authorities[0]
        """Signs agents' certificates and the adapter's own."""
        self.sequence = 1
        self.life = timedelta(hours=1)
        self.spiffe_id = AGENT_ID
        self.good_tokens = {"token-1"}
        self.refuse = 0
        """A reason for Enrol and Renew; 0: issue."""
        self.spoil: Callable[[pb.Svid], None] = lambda svid: None
        """Changes an answer."""
        self.requests: list[bytes] = []
        """Certificate requests, as they came."""
        self.enrolled: list[str] = []
        """Tokens of Enrol, as they came, good and bad; `renewed` those of Renew."""
        self.renewed: list[str] = []
        self.bundles_asked = 0
        self.lock = threading.Lock()

    def roll(self) -> TestCa:
        """A new authority is published; it does not sign yet."""
        fresh = TestCa(f"authority {len(self.authorities) + 1}")
        with self.lock:
            self.authorities.append(fresh)
            self.sequence += 1
        return fresh

    def retire(self) -> None:
        """Only the newest authority is trusted any more, and it signs."""
        with self.lock:
            self.active = self.authorities[-1]
            self.authorities = [self.active]
            self.sequence += 1

    def bundle(self) -> pb.TrustBundle:
        with self.lock:
            return pb.TrustBundle(
                sequence=self.sequence, authorities=[one.der for one in self.authorities]
            )

    def issue(self, request: bytes, token: str, context: Any) -> pb.Svid:
        self.requests.append(request)
        if self.refuse:
            abort(context, FailureError(self.refuse))
        if token not in self.good_tokens:
            abort(context, FailureError(fail.REASON_SERVICE_TOKEN_REFUSED))
        asked = x509.load_der_x509_csr(request)
        key = asked.public_key()
        if (
            not asked.is_signature_valid
            or not isinstance(key, ec.EllipticCurvePublicKey)
            or list(asked.subject)
        ):
            abort(context, FailureError(fail.REASON_CERTIFICATE_REQUEST_REFUSED))
        certificate = self.active.certify(self.spiffe_id, key, self.life)
        svid = pb.Svid(spiffe_id=self.spiffe_id, certificates=[certificate])
        svid.expires_at.FromDatetime(
            x509.load_der_x509_certificate(certificate).not_valid_after_utc
        )
        self.spoil(svid)
        return svid

    def serving(self, *, demand_certificate: bool) -> grpc.ServerCredentials:
        """What the adapter serves with, whom it believes, and what becomes of both when the
        authorities change.
        """
        seen = 0

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal seen
            with self.lock:
                if seen == self.sequence:
                    return None
                seen = self.sequence
                roots = b"".join(one.pem for one in self.authorities)
            certificate, key = self.active.issue(ADAPTER_ID)
            return grpc.ssl_server_certificate_configuration([(key, certificate)], roots)

        first = changed()
        assert first is not None
        return dynamic_credentials(first, changed, demand_certificate=demand_certificate)


class Enrolment(identity_pb2_grpc.EnrolmentServiceServicer):
    def __init__(self, fake: FakeIdentity) -> None:
        self.fake = fake

    def Enrol(self, request: pb.EnrolRequest, context: Any) -> pb.EnrolResponse:
        bounds.check(request)
        self.fake.enrolled.append(request.service_account_token)
        svid = self.fake.issue(request.certificate_request, request.service_account_token, context)
        return pb.EnrolResponse(svid=svid, bundle=self.fake.bundle())


class Identity(identity_pb2_grpc.IdentityServiceServicer):
    def __init__(self, fake: FakeIdentity) -> None:
        self.fake = fake

    def Renew(self, request: pb.RenewRequest, context: Any) -> pb.RenewResponse:
        bounds.check(request)
        self.fake.renewed.append(request.service_account_token)
        svid = self.fake.issue(request.certificate_request, request.service_account_token, context)
        return pb.RenewResponse(svid=svid, bundle=self.fake.bundle())

    def GetTrustBundle(
        self, request: pb.GetTrustBundleRequest, context: Any
    ) -> pb.GetTrustBundleResponse:
        self.fake.bundles_asked += 1
        return pb.GetTrustBundleResponse(bundle=self.fake.bundle())
