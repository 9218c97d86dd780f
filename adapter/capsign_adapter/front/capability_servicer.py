"""CapabilityService: issues handles to the workload that the peer certificate names, and tells it
when they are revoked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import grpc
from capsign_wire.adapter.v1 import capability_pb2 as pb
from capsign_wire.adapter.v1 import capability_pb2_grpc
from capsign_wire.bounds import check
from capsign_wire.failures import FailureError, abort
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2, signing_pb2

from capsign_adapter.decide import cost
from capsign_adapter.decide.biscuits import Mint
from capsign_adapter.decide.budget import Budget
from capsign_adapter.decide.capability import Capability, capability_for
from capsign_adapter.decide.handle_cache import HandleCache
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Grant
from capsign_adapter.decide.revoked import words_of
from capsign_adapter.front.guard import guarded
from capsign_adapter.front.peer_quota import PeerQuota
from capsign_adapter.front.streams import Streams
from capsign_adapter.model.control import Revocation
from capsign_adapter.sign.change_notifier import ChangeNotifier
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.snapshot import Snapshot, Snapshots

REPEAT_S = 15.0
"""After so many seconds without a change a watch repeats how things are."""

MOST_NEWS = 256
"""Most grants, and most serials, in one WatchResponse: the bound of the message."""


class CapabilityServicer(capability_pb2_grpc.CapabilityServiceServicer):
    """Mints handles from the grants of the policy. Keeps no record of them."""

    def __init__(
        self,
        mint: Mint,
        handles: HandleCache,
        budget: Budget,
        snapshots: Snapshots,
        changes: ChangeNotifier,
        streams: Streams,
        quota: PeerQuota,
        bundle_sequence: Callable[[], int],
    ) -> None:
        self._mint = mint
        self._handles = handles
        self._budget = budget
        self._snapshots = snapshots
        self._changes = changes
        self._streams = streams
        self._quota = quota
        self._bundle_sequence = bundle_sequence

    @guarded
    def IssueHandles(self, peer: Peer, request: pb.IssueHandlesRequest) -> pb.IssueHandlesResponse:
        """Returns a handle for each grant of this workload, or for each that the request names. A
        grant that the workload does not have, or that was revoked, is left out, so that the others
        are still issued.
        """
        snapshot = self._snapshots.refresh()
        grants = {grant.name: grant for grant in snapshot.policy.grants_of(peer.spiffe_id)}
        if not grants:
            raise FailureError(
                failures_pb2.REASON_IDENTITY_UNKNOWN, "The policy gives this workload no grant."
            )
        wanted = list(dict.fromkeys(request.grants)) or list(grants)
        known = [grants[name] for name in wanted if name in grants]
        if not known:
            raise FailureError(
                failures_pb2.REASON_NOT_FOUND,
                f"The policy does not give this workload the grant {wanted[0]}.",
                field="grants",
            )
        withdrawn = snapshot.revoked.of_grant
        given = [grant for grant in known if withdrawn(grant, peer.spiffe_id) is None]
        self._budget.charge(peer, cost.issue(len(given)))
        return pb.IssueHandlesResponse(
            handles=[self._issue(grant, peer) for grant in given],
            mint_public_key=self._mint.public_key,
            revocation_epoch=snapshot.epoch,
            revoked=[
                _revoked(grant, found)
                for grant in known
                if (found := withdrawn(grant, peer.spiffe_id)) is not None
            ],
        )

    @guarded
    def RenewHandles(self, peer: Peer, request: pb.RenewHandlesRequest) -> pb.RenewHandlesResponse:
        """Returns a new handle for each grant whose handle is still good; others are left out."""
        snapshot = self._snapshots.refresh()
        found = [self._renewable(snapshot, token, peer) for token in dict.fromkeys(request.tokens)]
        grants = dict.fromkeys(grant for grant in found if grant is not None)
        self._budget.charge(peer, cost.issue(len(grants)))
        return pb.RenewHandlesResponse(
            handles=[self._issue(grant, peer) for grant in grants], revocation_epoch=snapshot.epoch
        )

    def Watch(
        self, request: pb.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchResponse]:
        """Sends the present state, then each change, until the caller leaves or the adapter
        drains. Where nothing changes the present state is repeated: an agent that hears nothing
        for long must assume that something was revoked.
        """
        return self._quota.taken(self._told(request, context), context)

    def _told(
        self, request: pb.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchResponse]:
        try:
            check(request)
        except FailureError as error:
            abort(context, error)
        with (
            self._quota.stream(context) as peer,
            self._changes.following() as news,
            self._streams.joined(context),
        ):
            self._streams.begin(context)  # busy to its end: a drain lets it say goodbye
            yield self._news(peer)
            while context.is_active() and not self._streams.draining:
                news.wait_for_next(seconds=REPEAT_S)
                if not self._streams.draining:
                    yield self._news(peer)
            yield pb.WatchResponse(
                revocation_epoch=self._snapshots.current.epoch,
                draining=True,
                trust_bundle_sequence=self._bundle_sequence(),
            )

    def _renewable(self, snapshot: Snapshot, token: bytes, peer: Peer) -> Grant | None:
        skew_ms = snapshot.policy.limits.clock_skew_ms
        charge = partial(self._budget.charge, peer)
        try:
            held = self._handles.verify(
                token, peer.spiffe_id, peer.key_hash, now_ms(), skew_ms, charge
            )
            snapshot.revoked.refuse(held.capability)
        except FailureError as error:
            if error.outcome == failures_pb2.OUTCOME_REFUSED:
                return None
            raise  # left out of the answer, a handle counts as lost
        grant = snapshot.policy.grant(held.capability.grant)
        if grant is None or held.narrowed or peer.spiffe_id not in grant.workloads:
            return None
        return None if snapshot.revoked.of_grant(grant, peer.spiffe_id) else grant

    def _issue(self, grant: Grant, peer: Peer) -> pb.IssuedHandle:
        capability = capability_for(grant, peer.spiffe_id, peer.key_hash, os.urandom(16), now_ms())
        message = pb.IssuedHandle(
            token=self._mint.mint(capability),
            serial=capability.serial,
            grant=capability.grant,
            purpose=capability.purpose,
            algorithms=[
                algorithms_pb2.Algorithm.ValueType(number)
                for number in sorted(capability.algorithms)
            ],
            context_rule=_rule_message(capability),
            rate_per_second=capability.rate_per_second,
            burst=capability.burst,
        )
        message.not_before.FromMilliseconds(capability.not_before_ms)
        message.expires_at.FromMilliseconds(capability.expires_ms)
        return message

    def _news(self, peer: Peer) -> pb.WatchResponse:
        snapshot, workload = self._snapshots.current, peer.spiffe_id
        revoked = snapshot.revoked
        grants = [
            grant.name
            for grant in snapshot.policy.grants_of(workload)
            if revoked.of_grant(grant, workload)
        ]
        return pb.WatchResponse(
            revocation_epoch=snapshot.epoch,
            policy_digest=snapshot.policy.digest,
            dropped_grants=grants[:MOST_NEWS],
            dropped_serials=revoked.serials()[:MOST_NEWS],
            drop_all=revoked.of_workload(workload) is not None,
            trust_bundle_sequence=self._bundle_sequence(),
        )


def _revoked(grant: Grant, revocation: Revocation) -> pb.RevokedGrant:
    return pb.RevokedGrant(
        grant=grant.name,
        purpose=grant.purpose,
        algorithms=[
            algorithms_pb2.Algorithm.ValueType(number) for number in sorted(grant.algorithms)
        ],
        words=words_of(revocation),
    )


def _rule_message(capability: Capability) -> signing_pb2.ContextRule:
    return signing_pb2.ContextRule(
        protocols=[
            signing_pb2.ProtocolRule(
                protocol=rule.protocol, roles=rule.roles, versions=rule.versions
            )
            for rule in capability.protocols
        ],
        transcript=signing_pb2.TranscriptRule.ValueType(capability.transcript),
    )
