"""In which ways a message can have been signed by a policy: what its commitment in the log is made
of, besides the key. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import product

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2, signing_pb2

from capsign_adapter.decide.policy import Grant, Policy

MAX_WAYS = 2048
"""Most ways of one message in one answer."""


@dataclass(frozen=True, slots=True)
class Digests:
    """A message by its digests: SHA-256, SHA-384 (empty: not told), and the external mu of each
    ML-DSA key that may have signed it.
    """

    sha256: bytes
    sha384: bytes = b""
    mus: tuple[bytes, ...] = ()

    def inputs(self, upstream: algorithms_pb2.Upstream.ValueType) -> tuple[bytes, ...]:
        """Returns SHA-256 of each input that goes upstream for this message; none if it needs a
        digest that was not told.
        """
        if upstream == algorithms_pb2.UPSTREAM_MESSAGE:
            return (self.sha256,)
        data = {
            algorithms_pb2.UPSTREAM_SHA256: (self.sha256,),
            algorithms_pb2.UPSTREAM_SHA384: (self.sha384,) if self.sha384 else (),
            algorithms_pb2.UPSTREAM_MU: self.mus,
        }[upstream]
        return tuple(sha256(each).digest() for each in data)


@dataclass(frozen=True, slots=True)
class Way:
    """One way: `algorithm` is empty for a call that left it open, `transcript` if there was none,
    and `input_hash` is SHA-256 of what came upstream.
    """

    grant: str
    algorithm: str
    protocol: str
    role: str
    protocol_version: str
    transcript: bytes
    input_hash: bytes


@dataclass(frozen=True, slots=True)
class Ways:
    """Ways of a message, and the grants of which some are missing for want of a digest or
    transcript.
    """

    ways: tuple[Way, ...]
    incomplete: tuple[str, ...]


def ways_of(
    policy: Policy, tenant: str, digests: Digests, transcripts: Sequence[bytes], grant: str = ""
) -> Ways:
    """Returns every way that the grants of a tenant allow, or one of them alone.

    Raises FailureError NOT_FOUND if policy has no such grant, and INPUT_TOO_LARGE if there are more
    than MAX_WAYS.
    """
    grants = [
        each
        for each in policy.grants
        if each.tenant == tenant and (not grant or each.name == grant)
    ]
    if not grants:
        detail = f"That policy has no grant {grant or 'of any name'} of a tenant {tenant}."
        raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="grant")
    found: list[Way] = []
    incomplete: list[str] = []
    for each in sorted(grants, key=lambda one: one.name):
        allowed = _transcripts(each, transcripts)
        inputs = list(_inputs(each, digests))
        if not allowed or any(not hashes for _, hashes in inputs):
            incomplete.append(each.name)
        found += _of_grant(each, inputs, allowed)
        if len(found) > MAX_WAYS:
            detail = (
                f"There are more than {MAX_WAYS} ways in which this message can have been signed. "
                "Name a grant, or fewer transcripts."
            )
            raise FailureError(failures_pb2.REASON_INPUT_TOO_LARGE, detail, field="grant")
    return Ways(tuple(found), tuple(incomplete))


def _transcripts(grant: Grant, told: Sequence[bytes]) -> list[bytes]:
    """The transcripts that a call under this grant can have had, of those that were told."""
    if grant.transcript == signing_pb2.TRANSCRIPT_RULE_REQUIRED:
        return list(told)
    if grant.transcript == signing_pb2.TRANSCRIPT_RULE_ALLOWED:
        return [b"", *told]
    return [b""]


def _inputs(grant: Grant, digests: Digests) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    """Algorithms by name with the hashes of their inputs; last, that it was left open."""
    for number in sorted(grant.algorithms):
        row = ALGORITHMS[number]
        yield row.name, digests.inputs(row.upstream)
    yield "", digests.inputs(algorithms_pb2.UPSTREAM_SHA256)


def _of_grant(
    grant: Grant, inputs: Sequence[tuple[str, tuple[bytes, ...]]], transcripts: Sequence[bytes]
) -> list[Way]:
    found: list[Way] = []
    for rule in grant.protocols:
        contexts = product(rule.roles, rule.versions, transcripts)
        for (role, version, transcript), (algorithm, hashes) in product(contexts, inputs):
            found += [
                Way(grant.name, algorithm, rule.protocol, role, version, transcript, each)
                for each in hashes
            ]
            if len(found) > MAX_WAYS:
                return found
    return found
