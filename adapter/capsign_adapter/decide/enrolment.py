"""Decides who gets a certificate: from what the cluster says about a token and its pod to a SPIFFE
ID, or a refusal. Pure.

The token's own content is never read, only the cluster's TokenReview of it. The steps are separate
functions because the cluster is asked between them; `enrol.enrolment` calls them in this order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from uuid import UUID

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.revoked import RevocationIndex, revoked_failure

Address = IPv4Address | IPv6Address

ADDRESS_WAIT_MS = 300
"""When to ask again for a pod whose address the cluster does not know yet: the kubelet reports it a
second or two after it has started the first container.
"""

REVOKED_WAIT_MS = 60_000
"""When to ask again after a revocation, milliseconds. Long, since each of these refusals writes a
leaf.
"""

_LIVE_PHASES = frozenset({"Pending", "Running"})
"""Pending is a pod whose init containers run, and the agent is one of them."""

_TRANSLATED = int(IPv6Address("64:ff9b::")) >> 32
_ACCOUNT = re.compile(
    r"system:serviceaccount:([a-z0-9](?:[a-z0-9-]{0,62})):([a-z0-9](?:[a-z0-9.-]{0,252}))", re.ASCII
)
_POD_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,252})", re.ASCII)
_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What TokenReview says (authentication.k8s.io/v1). The two pod fields are from `user.extra`,
    empty if it has no such key.
    """

    authenticated: bool
    username: str = ""
    audiences: tuple[str, ...] = ()
    pod_name: str = ""
    pod_uid: str = ""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the pod object says. `deleted_ms`: when its grace period ends, milliseconds since 1970;
    None if nobody deleted it.
    """

    uid: str
    service_account: str
    phase: str
    addresses: tuple[Address, ...] = ()
    deleted_ms: int | None = None
    host_network: bool = False


@dataclass(frozen=True, slots=True)
class Bearer:
    """The pod that a token was made for, as the cluster vouches."""

    namespace: str
    service_account: str
    pod_name: str
    pod_uid: str

    @property
    def uid(self) -> bytes:
        """The pod's uid as 16 bytes."""
        return UUID(self.pod_uid).bytes


def bearer_of(token: TokenFacts, audience: str) -> Bearer:
    """The pod that the token proves. Raises FailureError SERVICE_TOKEN_REFUSED, or
    SERVICE_TOKEN_MISPLACED if it proves no pod.

    An API server that knows nothing of audiences says so by not repeating ours: then it has not
    checked it.
    """
    if not token.authenticated:
        raise FailureError(
            failures_pb2.REASON_SERVICE_TOKEN_REFUSED,
            "The cluster does not accept the service account token.",
        )
    if audience not in token.audiences:
        raise FailureError(
            failures_pb2.REASON_SERVICE_TOKEN_REFUSED,
            "The service account token is not for this audience.",
        )
    account = _ACCOUNT.fullmatch(token.username)
    if account is None:
        raise FailureError(
            failures_pb2.REASON_SERVICE_TOKEN_REFUSED, "The token is not one of a service account."
        )
    if not _POD_NAME.fullmatch(token.pod_name) or not _UID.fullmatch(token.pod_uid):
        raise FailureError(
            failures_pb2.REASON_SERVICE_TOKEN_MISPLACED,
            "The service account token is not bound to a pod.",
        )
    return Bearer(account[1], account[2], token.pod_name, token.pod_uid)


def spiffe_id_of(trust_domain: str, bearer: Bearer) -> str:
    """The one identity that a pod of this service account can have."""
    return f"spiffe://{trust_domain}/ns/{bearer.namespace}/sa/{bearer.service_account}"


def named(policy: Policy, spiffe_id: str) -> bool:
    """Whether policy names this identity in a grant or a role."""
    return bool(policy.grants_of(spiffe_id) or policy.roles_of(spiffe_id))


def demand_named(policy: Policy, spiffe_id: str) -> None:
    """Raises FailureError IDENTITY_UNKNOWN for an identity that policy does not name: certificates
    are not for everybody.
    """
    if not named(policy, spiffe_id):
        sentence = "The policy names neither a grant nor a role for this service account."
        raise FailureError(failures_pb2.REASON_IDENTITY_UNKNOWN, sentence)


def demand_not_revoked(policy: Policy, revoked: RevocationIndex, spiffe_id: str) -> None:
    """Raises FailureError HANDLE_REVOKED for a workload that was revoked as a whole: a certificate
    would outlive its handles.
    """
    found = revoked.of_identity(spiffe_id, administers=bool(policy.roles_of(spiffe_id)))
    if found is not None:
        raise revoked_failure(found, retry_after_ms=REVOKED_WAIT_MS)


def demand_holder(holder: str, spiffe_id: str) -> None:
    """On renewal: the token proves the identity of the connection. Raises FailureError
    SERVICE_TOKEN_MISPLACED.
    """
    if holder != spiffe_id:
        sentence = (
            "The service account token is not that of the workload whose certificate this "
            "connection uses."
        )
        raise FailureError(failures_pb2.REASON_SERVICE_TOKEN_MISPLACED, sentence)


def demand_fresh_key(held: bytes, asked: bytes) -> None:
    """On renewal, both are SHA-256 of a SubjectPublicKeyInfo: no key serves two certificates, or
    whoever copied it once would have it for good. Raises FailureError CERTIFICATE_REQUEST_REFUSED.
    """
    if held == asked:
        sentence = (
            "The certificate request has the key of the certificate that it follows. Make a "
            "new one."
        )
        raise FailureError(
            failures_pb2.REASON_CERTIFICATE_REQUEST_REFUSED, sentence, field="certificate_request"
        )


def demand_live(bearer: Bearer, pod: PodFacts | None, now_ms: int) -> PodFacts:
    """The pod, if it is the very one and runs. Raises FailureError SERVICE_TOKEN_REFUSED, or
    SERVICE_TOKEN_MISPLACED.

    TokenReview may say yes for some seconds after a pod is gone, because API servers cache it; the
    pod object is not cached. A pod that terminates keeps its rights until its grace period ends: it
    may have something to sign on its way out.
    """
    if pod is None or pod.uid != bearer.pod_uid:
        raise FailureError(
            failures_pb2.REASON_SERVICE_TOKEN_REFUSED,
            "The pod of this service account token is gone.",
        )
    if pod.phase not in _LIVE_PHASES or (pod.deleted_ms is not None and pod.deleted_ms < now_ms):
        raise FailureError(
            failures_pb2.REASON_SERVICE_TOKEN_REFUSED,
            "The pod of this service account token has ended.",
        )
    if pod.service_account != bearer.service_account:
        raise FailureError(
            failures_pb2.REASON_SERVICE_TOKEN_MISPLACED,
            "The token's pod has another service account.",
        )
    return pod


def demand_sender(pod: PodFacts, address: Address | None) -> None:
    """Raises FailureError SERVICE_TOKEN_MISPLACED unless the connection comes from the pod, and
    CLUSTER_UNAVAILABLE if its address is not known yet.
    """
    own = {plain(each) for each in pod.addresses}
    if not own:
        sentence = "The cluster does not know the address of this pod yet."
        raise FailureError(
            failures_pb2.REASON_CLUSTER_UNAVAILABLE, sentence, retry_after_ms=ADDRESS_WAIT_MS
        )
    if address is None or plain(address) not in own:
        sentence = (
            "The token does not come from the pod that it is bound to. Where the network "
            "changes senders' addresses on the way "
            "to the adapter, set identity.kubernetes.pod_address_check to false."
        )
        raise FailureError(failures_pb2.REASON_SERVICE_TOKEN_MISPLACED, sentence)


def demand_own_name(names: Sequence[str], spiffe_id: str) -> None:
    """The certificate request names nobody else. Raises FailureError
    CERTIFICATE_REQUEST_REFUSED.
    """
    if any(name != spiffe_id for name in names):
        sentence = (
            "The certificate request names an identity that the service account token does "
            "not prove."
        )
        raise FailureError(
            failures_pb2.REASON_CERTIFICATE_REQUEST_REFUSED, sentence, field="certificate_request"
        )


def plain(address: Address) -> Address:
    """Returns the canonical form of an address. An IPv4 address that is mapped into IPv6, by a
    socket for both families (RFC 4291 2.5.5.2) or by a translator with the well-known prefix (RFC
    6052 2.1), becomes the IPv4 address; zones are dropped.
    """
    if isinstance(address, IPv4Address):
        return address
    if int(address) >> 32 == _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or IPv6Address(int(address))
