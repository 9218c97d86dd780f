"""How a pod gets a certificate: 1 read the request, 2 let the cluster review the token, 3 check the
identity against policy and revocations, 4 read the pod from the cluster, 5 check connection and
request against it, 6 issue, 7 record, 8 release.

1 asks nobody. 2 to 5 raise what `decide.enrolment` decides. A certificate is released only after
its leaf is durable. A refusal has a leaf too, with what was proven by then. A failure of cluster,
token or store is not a decision and has none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from capsign_evidence import leaf
from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide import enrolment as decide
from capsign_adapter.decide.enrolment import Address, PodFacts, TokenFacts
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import PolicyNow
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.decide.revoked import RevocationIndex
from capsign_adapter.enrol import certificate_request
from capsign_adapter.enrol.authority import Bundle, Issued
from capsign_adapter.enrol.fair_semaphore import FairSemaphore

ENROLMENTS_AT_ONCE = 8
"""Most enrolments that ask the cluster at the same time, so that unknown callers cannot load it
through the adapter.
"""

ENROLMENTS_OF_ONE_ADDRESS = 4
"""Most of these from one address: invalid tokens cost the cluster as much as valid ones."""

RENEWALS_AT_ONCE = 4
"""Most renewals that ask the cluster at the same time. Each holds a thread that could sign, so they
are few and do not wait.
"""

WAIT_SECONDS = 2.0
"""Longest wait of an enrolment for its turn."""


class Issuer(Protocol):
    """What is needed of the authority; see `enrol.authority.Authority`."""

    def issue(self, spiffe_id: str, spki: bytes, now_ms: int) -> Issued: ...

    def bundle(self) -> Bundle: ...


class Vouching(Protocol):
    """What is needed of the cluster; see `enrol.cluster.Cluster`."""

    def review(self, token: str, audience: str) -> TokenFacts: ...

    def pod(self, namespace: str, name: str) -> PodFacts | None: ...


class Log(Protocol):
    """The evidence log; see `store.interfaces.evidence`."""

    def append(self, leaves: Sequence[bytes], now_ms: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """`pod_address_check`: a token counts only on a connection from its pod; `host_network_pods`:
    those on their node's network are left out of that. `refusals_per_second`: leaves of refusals,
    in all for those who enrol, and for each workload that renews; `wait_s`: longest wait of an
    enrolment for its turn, seconds.
    """

    audience: str
    pod_address_check: bool
    refusals_per_second: int
    host_network_pods: bool = False
    wait_s: float = WAIT_SECONDS


@dataclass(frozen=True, slots=True)
class Identity:
    """The result of an enrolment or renewal."""

    spiffe_id: str
    issued: Issued
    bundle: Bundle


@dataclass(slots=True)
class _Known:
    """What is proven so far. A refusal's leaf may state this and nothing else."""

    workload: str = ""
    pod_uid: bytes = b""
    key_hash: bytes = b""


class Enrolment:
    """One for each replica. Safe for any thread. `enrol` and `renew` block while the cluster is
    asked, within its timeouts.
    """

    def __init__(
        self,
        policy: PolicyNow,
        cluster: Vouching,
        authority: Issuer,
        log: Log,
        revoked: Callable[[], RevocationIndex],
        settings: Settings,
        clock: Callable[[], int],
        refusals: Buckets,
    ) -> None:
        """`policy` gives the policy in force; `revoked` reads the present revocations from the
        store; `clock` gives milliseconds since 1970. `refusals` must not be shared with others:
        these buckets count leaves of refusals.
        """
        self._policy = policy
        self._cluster = cluster
        self._authority = authority
        self._log = log
        self._revoked = revoked
        self._settings = settings
        self._clock = clock
        self._refusals = refusals
        self._enrolling = FairSemaphore(ENROLMENTS_AT_ONCE, ENROLMENTS_OF_ONE_ADDRESS)
        self._renewing = FairSemaphore(RENEWALS_AT_ONCE, RENEWALS_AT_ONCE)

    def enrol(self, request: bytes, token: str, address: Address | None) -> Identity:
        """Issues a pod's first certificate. Raises FailureError, and what the store and the token
        raise.
        """
        return self._decide(None, request, token, address)

    def renew(self, peer: Peer, request: bytes, token: str, address: Address | None) -> Identity:
        """Issues the next one, over a connection that was made with the last. Raises as `enrol`."""
        return self._decide(peer, request, token, address)

    def _decide(
        self, peer: Peer | None, request: bytes, token: str, address: Address | None
    ) -> Identity:
        holder = peer.spiffe_id if peer is not None else ""
        known = _Known(workload=holder if decide.named(self._policy(), holder) else "")
        try:
            return self._issue(known, peer, request, token, address)
        except FailureError as error:
            if error.outcome == failures_pb2.OUTCOME_REFUSED and not self._recorded(
                known, holder, error, address
            ):
                sentence = "Certificates are refused too often to record each."
                raise FailureError(
                    failures_pb2.REASON_RATE_LIMITED, sentence, retry_after_ms=1000
                ) from None
            raise

    def _issue(
        self, known: _Known, peer: Peer | None, request: bytes, token: str, address: Address | None
    ) -> Identity:
        # 1. Read the request.
        asked = certificate_request.read(request)
        known.key_hash = hashlib.sha256(asked.spki).digest()
        if peer is not None:
            decide.demand_fresh_key(peer.key_hash, known.key_hash)
        with (
            self._renewing.acquire(peer.spiffe_id, 0.0)
            if peer is not None
            else self._enrolling.acquire(address, self._settings.wait_s)
        ):
            # 2. Review the token.
            bearer = decide.bearer_of(
                self._cluster.review(token, self._settings.audience), self._settings.audience
            )
            known.pod_uid = bearer.uid
            # 3. Policy.
            revoked = self._revoked()
            policy = self._policy()
            spiffe_id = decide.spiffe_id_of(policy.trust_domain, bearer)
            if peer is not None:
                decide.demand_holder(peer.spiffe_id, spiffe_id)
            decide.demand_named(policy, spiffe_id)
            known.workload = spiffe_id
            decide.demand_not_revoked(policy, revoked, spiffe_id)
            # 4. The pod.
            pod = decide.demand_live(
                bearer, self._cluster.pod(bearer.namespace, bearer.pod_name), self._clock()
            )
        # 5. The connection and the request.
        if self._settings.pod_address_check and not (
            self._settings.host_network_pods and pod.host_network
        ):
            decide.demand_sender(pod, address)
        decide.demand_own_name(asked.names, spiffe_id)
        # 6. Issue.
        now = self._clock()
        issued = self._authority.issue(spiffe_id, asked.spki, now)
        # 7. Record. A crash before this line leaves a certificate that nobody ever saw.
        entry = leaf.identity_issued(
            now,
            policy.digest,
            spiffe_id,
            known.pod_uid,
            known.key_hash,
            issued.authority,
            issued.not_after_ms,
        )
        index = self._log.append([entry], now)
        logs.event(
            "identity.issued",
            workload=spiffe_id,
            pod_uid=bearer.pod_uid,
            renewed=peer is not None,
            leaf=index,
        )
        # 8. Release.
        return Identity(spiffe_id, issued, self._authority.bundle())

    def _recorded(
        self, known: _Known, holder: str, error: FailureError, address: Address | None
    ) -> bool:
        """Write the leaf of a refusal. Returns False, and writes none, if there were too many
        lately. Raises what the store raises.
        """
        now, rate = self._clock(), self._settings.refusals_per_second
        if not self._refusals.take(holder, "", rate, 5 * rate, 1).granted:
            return False
        entry = leaf.identity_refused(
            now, self._policy().digest, known.workload, known.pod_uid, known.key_hash, error.reason
        )
        index = self._log.append([entry], now)
        logs.warning(
            "identity.refused",
            reason=error.row.name,
            workload=known.workload,
            pod_uid=str(UUID(bytes=known.pod_uid)) if known.pod_uid else "",
            address=str(address or ""),
            leaf=index,
        )
        return True
