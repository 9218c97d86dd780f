"""3. Decide by policy, for a group that names its algorithm or leaves it open; and what the items
of an open one must have.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.algorithms import AlgorithmRow
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2, signing_pb2

from capsign_adapter.decide.admission import Admitted, admit
from capsign_adapter.decide.biscuits import Verified
from capsign_adapter.decide.signing_versions import signing_with
from capsign_adapter.sign.scope import AdmittedGroup, SigningKey
from capsign_adapter.sign.snapshot import Snapshot


def admit_group(
    handle: Verified, snapshot: Snapshot, group: pb.SignGroup, now_ms: int
) -> AdmittedGroup:
    """Decide. Raises FailureError as `decide.admission.admit`, and INPUT_MALFORMED for a group that
    neither names an algorithm nor leaves it open.
    """
    if group.open_algorithm != (not group.algorithm):
        raise malformed(
            "A group names an algorithm or says that it leaves it open.", field="algorithm"
        )
    if group.open_algorithm:
        if not group.expected_kid:
            detail = "A group that leaves the algorithm open names the key of its inputs."
            raise malformed(detail, field="expected_kid")
        return admit_open(handle, snapshot, group.context, now_ms)
    admitted = _admitted(handle, snapshot, group.algorithm, group.context, now_ms)
    name = (handle.capability.tenant, handle.capability.key)
    allowed: tuple[int, ...] = ()
    if name in snapshot.rollouts:  # a second signature may be of another algorithm
        allowed = tuple(_by_algorithm(handle, snapshot, group.context, now_ms))
    return AdmittedGroup(handle, admitted, group.algorithm, allowed)


def admit_open(
    handle: Verified, snapshot: Snapshot, suffix: signing_pb2.ContextSuffix, now_ms: int
) -> AdmittedGroup:
    """Decide for a call that leaves the algorithm open: each that the handle allows is decided by
    itself, and the key's rollout chooses among those that are admitted. Raises FailureError.
    """
    found = _by_algorithm(handle, snapshot, suffix, now_ms)
    capability = handle.capability
    name = (capability.tenant, capability.key)
    signing = signing_with(snapshot, name, capability.workload, 0, found)
    algorithm = signing[0][1] if signing else min(found)
    return AdmittedGroup(handle, found[algorithm], algorithm, tuple(found))


def _by_algorithm(
    handle: Verified, snapshot: Snapshot, suffix: signing_pb2.ContextSuffix, now_ms: int
) -> dict[int, Admitted]:
    """Those that are admitted, at least one. Raises FailureError if none is."""
    found: dict[int, Admitted] = {}
    refusal: FailureError | None = None
    for algorithm in sorted(handle.capability.algorithms):
        try:
            found[algorithm] = _admitted(handle, snapshot, algorithm, suffix, now_ms)
        except FailureError as error:
            refusal = refusal or error
    if not found:
        raise refusal or malformed("The handle allows no algorithm.", field="algorithm")
    return found


def _admitted(
    handle: Verified,
    snapshot: Snapshot,
    algorithm: int,
    suffix: signing_pb2.ContextSuffix,
    now_ms: int,
) -> Admitted:
    policy = snapshot.policy
    skew_ms = policy.limits.clock_skew_ms
    return admit(handle, policy, snapshot.revoked, algorithm, suffix, now_ms, skew_ms)


def check_item(item: pb.SignItem, keys: Sequence[SigningKey], *, is_open: bool) -> None:
    """Raise INPUT_MALFORMED unless the inputs of an item fit their keys, and as far as it can be
    told belong to one message: a hash other than SHA-256, and mu, are taken as the agent made them.
    """
    if is_open and not item.message_sha256:
        detail = "An item of an open algorithm has the SHA-256 of its message."
        raise malformed(detail, field="message_sha256")
    for key in keys:
        data = item.second_input if key.takes_second else item.input
        if key.takes_second and not _fits(key.row, data):
            raise malformed(f"This is no input of {key.row.name}.", field="second_input")
        known = _sha256_of(key.row, data) if is_open else b""
        if known and known != item.message_sha256:
            raise malformed("The inputs are not of one message.", field="message_sha256")


def _fits(row: AlgorithmRow, data: bytes) -> bool:
    return len(data) == row.max_input if row.takes_digest else len(data) <= row.max_input


def _sha256_of(row: AlgorithmRow, data: bytes) -> bytes:
    """SHA-256 of the message of this input; empty if the input does not tell."""
    if row.upstream == algorithms_pb2.UPSTREAM_SHA256:
        return data
    return sha256(data).digest() if row.upstream == algorithms_pb2.UPSTREAM_MESSAGE else b""


def malformed(detail: str, *, field: str) -> FailureError:
    """A request that says one thing and another."""
    return FailureError(failures_pb2.REASON_INPUT_MALFORMED, detail, field=field)
