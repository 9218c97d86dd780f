"""Enrolment against a model that spells the rule out: small worlds in which everything that is said
may be wrong.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from ipaddress import ip_address

from capsign_adapter.decide.enrolment import PodFacts, TokenFacts
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.decide.revoked import RevocationIndex
from capsign_adapter.enrol.enrolment import Enrolment, Settings
from capsign_adapter.model.control import Revocation
from capsign_evidence.leaf_reader import IdentityIssued, IdentityRefused, decode
from capsign_wire.adapter.v1 import admin_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from support.adapter_rig import APP, OTHER, POLICY, STRANGER
from support.certificate_requests import request
from support.svid_authority import SvidAuthority

NOW = 1_800_000_000_000
UIDS = ("4f9c1b2a-d7e8-4a11-b6f3-0c5d9e8f7a60", "4f9c1b2a-d7e8-4a11-b6f3-0c5d9e8f7a61")
RULES = parse_policy(POLICY.encode())
KEY = ec.generate_private_key(ec.SECP256R1())
KEY_HASH = hashlib.sha256(
    KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
).digest()
REQUESTS = {
    name: request(*([name] if name else []), key=KEY) for name in ("", APP, OTHER, STRANGER)
}
HOME, AWAY = ip_address("10.1.0.5"), ip_address("10.1.0.6")
AUTHORITY = SvidAuthority()


@dataclass
class World:
    """What the cluster says, what is asked, by whom and from where."""

    token: TokenFacts
    pod: PodFacts | None
    name: str
    holder: str
    sender: object
    check_address: bool
    revoked: str
    key_kept: bool
    asked: list[tuple] = field(default_factory=list)

    def review(self, token, audience):
        self.asked.append((token, audience))
        return self.token

    def pod_of(self, namespace, name):
        self.asked.append((namespace, name))
        return self.pod

    def identity(self) -> str:
        """Whom the token proves, if it proves somebody."""
        account = self.token.username.removeprefix("system:serviceaccount:demo:")
        return f"spiffe://capsign.test/ns/demo/sa/{account}"

    def revocations(self) -> RevocationIndex:
        if not self.revoked:
            return RevocationIndex(0)
        kind = (
            admin_pb2.REVOCATION_KIND_EVERYTHING
            if self.revoked == "*"
            else admin_pb2.REVOCATION_KIND_WORKLOAD
        )
        return RevocationIndex(1, [Revocation(1, kind, self.revoked, 0)])

    def may(self) -> bool:
        """The rule, in one expression."""
        return bool(
            self.token.authenticated
            and "capsign" in self.token.audiences
            and self.token.pod_name
            and self.identity() in {APP, OTHER}
            and self.holder in {"", self.identity()}
            and self.revoked not in {"*", self.identity()}
            and not (self.holder and self.key_kept)
            and self.pod
            and self.pod.uid == self.token.pod_uid
            and self.pod.service_account == self.identity().rpartition("/")[2]
            and self.pod.phase in {"Pending", "Running"}
            and (self.pod.deleted_ms is None or self.pod.deleted_ms >= NOW)
            and (not self.check_address or self.sender in self.pod.addresses)
            and self.name in {"", self.identity()}
        )


def mostly(good, *bad):
    """Often right, so that what is wrong is mostly wrong alone."""
    return st.sampled_from([good] * (4 * len(bad)) + list(bad))


tokens = st.builds(
    TokenFacts,
    authenticated=mostly(True, False),
    username=mostly("app", "other", "stranger").map("system:serviceaccount:demo:{}".format),
    audiences=mostly(("capsign",), (), ("other",), ("other", "capsign")),
    pod_name=mostly("web-0", ""),
    pod_uid=mostly(*UIDS),
)
pods = st.builds(
    PodFacts,
    uid=mostly(*UIDS),
    service_account=mostly("app", "other", "stranger"),
    phase=mostly("Running", "Pending", "Succeeded", "Failed", "Unknown"),
    addresses=mostly((HOME,), (), (AWAY,), (HOME, AWAY)),
    deleted_ms=mostly(None, NOW - 1, NOW, NOW + 1),
)
worlds = st.builds(
    World,
    token=tokens,
    pod=st.integers(0, 9).flatmap(lambda number: pods if number else st.none()),
    name=mostly("", APP, OTHER, STRANGER),
    holder=mostly("", APP, OTHER),
    sender=mostly(HOME, AWAY, None),
    check_address=mostly(True, False),
    revoked=mostly("", APP, OTHER, "*"),
    key_kept=mostly(False, True),
)


class Cluster:
    def __init__(self, world: World) -> None:
        self.review, self.pod = world.review, world.pod_of


class Log:
    def __init__(self) -> None:
        self.leaves: list[bytes] = []

    def append(self, leaves, now_ms) -> int:
        self.leaves.extend(leaves)
        return len(self.leaves) - 1


@settings(max_examples=500)
@given(worlds)
def test_who_gets_a_certificate_is_who_may_and_every_decision_is_one_leaf(world):
    log, issued_before = Log(), len(AUTHORITY.issued)
    rules = Settings("capsign", world.check_address, 100)
    enrolment = Enrolment(
        lambda: RULES,
        Cluster(world),
        AUTHORITY,
        log,
        world.revocations,
        rules,
        lambda: NOW,
        Buckets(lambda: NOW),
    )
    try:
        if world.holder:
            peer = Peer(world.holder, KEY_HASH if world.key_kept else bytes(32), NOW + 1000)
            identity = enrolment.renew(peer, REQUESTS[world.name], "a.b.c", world.sender)
        else:
            identity = enrolment.enrol(REQUESTS[world.name], "a.b.c", world.sender)
    except FailureError as error:
        assert not world.may()
        assert len(AUTHORITY.issued) == issued_before
        assert world.asked[:1] == [("a.b.c", "capsign")] or (world.holder and world.key_kept)
        if error.reason == reasons.REASON_CLUSTER_UNAVAILABLE:
            assert log.leaves == []
            assert not world.pod.addresses
            return
        (entry,) = map(decode, log.leaves)
        assert isinstance(entry, IdentityRefused)
        assert entry.reason == error.reason  # noqa: PT017 - the leaf says what the caller was told
        assert entry.workload in {"", world.identity(), world.holder} - {STRANGER}
        return
    assert world.may()
    assert identity.spiffe_id == world.identity() == AUTHORITY.issued[-1][0]
    (entry,) = map(decode, log.leaves)
    assert isinstance(entry, IdentityIssued)
    assert entry.workload == world.identity()
