"""EnrolmentService, for pods that have no certificate yet, and IdentityService, which renews
certificates over mTLS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import grpc
from capsign_wire import bounds
from capsign_wire.adapter.v1 import identity_pb2 as pb
from capsign_wire.adapter.v1 import identity_pb2_grpc
from capsign_wire.failures import FailureError, abort
from capsign_wire.telemetry import Metrics

from capsign_adapter.enrol.authority import Bundle
from capsign_adapter.enrol.enrolment import Enrolment, Identity, Issuer
from capsign_adapter.front.address_quota import AddressQuota
from capsign_adapter.front.guard import admit_call, answered
from capsign_adapter.front.identity import demand_tls_1_3
from capsign_adapter.front.peer_address import address_of
from capsign_adapter.sign.failures import failure_of


class EnrolmentServicer(identity_pb2_grpc.EnrolmentServiceServicer):
    """Issues first certificates. The caller has no identity until the cluster has verified its
    service account token.
    """

    def __init__(self, enrolment: Enrolment, quota: AddressQuota, metrics: Metrics) -> None:
        self._enrolment = enrolment
        self._quota = quota
        self._metrics = metrics

    def Enrol(self, request: pb.EnrolRequest, context: grpc.ServicerContext) -> pb.EnrolResponse:
        """Returns a certificate for the key in the request, in the name of the token's service
        account.
        """
        identity = _counted(self._metrics, context, lambda: self._enrol(request, context))
        return pb.EnrolResponse(svid=_svid(identity), bundle=_bundle(identity.bundle))

    def _enrol(self, request: pb.EnrolRequest, context: grpc.ServicerContext) -> Identity:
        demand_tls_1_3(context)
        bounds.check(request)
        with self._quota.working(context):
            address = address_of(context.peer())
            return self._enrolment.enrol(
                request.certificate_request, request.service_account_token, address
            )


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """Renews certificates, and serves the trust bundle."""

    def __init__(self, enrolment: Enrolment, authority: Issuer, metrics: Metrics) -> None:
        self._enrolment = enrolment
        self._authority = authority
        self._metrics = metrics

    def Renew(self, request: pb.RenewRequest, context: grpc.ServicerContext) -> pb.RenewResponse:
        """Returns a certificate for the same identity and a new key. The pod must still exist."""
        identity = _counted(self._metrics, context, lambda: self._renew(request, context))
        return pb.RenewResponse(svid=_svid(identity), bundle=_bundle(identity.bundle))

    def GetTrustBundle(
        self, request: pb.GetTrustBundleRequest, context: grpc.ServicerContext
    ) -> pb.GetTrustBundleResponse:
        """Returns the authorities to trust now, from memory."""
        bundle = answered(request, context, lambda _: self._authority.bundle())
        return pb.GetTrustBundleResponse(bundle=_bundle(bundle))

    def _renew(self, request: pb.RenewRequest, context: grpc.ServicerContext) -> Identity:
        peer = admit_call(context)
        bounds.check(request)
        address = address_of(context.peer())
        return self._enrolment.renew(
            peer, request.certificate_request, request.service_account_token, address
        )


def _counted(
    metrics: Metrics, context: grpc.ServicerContext, work: Callable[[], Identity]
) -> Identity:
    """Returns what `work` returns, or ends the call with a typed failure. Counts either."""
    try:
        identity = work()
    except Exception as error:  # the edge: nothing passes it untyped
        _end(metrics, context, failure_of(error))
    metrics.observe_identity(None)
    return identity


def _end(metrics: Metrics, context: grpc.ServicerContext, failure: FailureError) -> NoReturn:
    metrics.observe_identity(failure.reason)
    abort(context, failure)


def _svid(identity: Identity) -> pb.Svid:
    message = pb.Svid(spiffe_id=identity.spiffe_id, certificates=identity.issued.certificates)
    message.expires_at.FromMilliseconds(identity.issued.not_after_ms)
    return message


def _bundle(bundle: Bundle) -> pb.TrustBundle:
    return pb.TrustBundle(sequence=bundle.sequence, authorities=bundle.authorities)
