"""Quota of the bytes of evidence that a workload may cause in a day, since evidence is never
deleted.

Signatures have the rate of their grant, so by default only other evidence is bounded: refusals,
intents that are closed as never sent, records of agents. An agent reports each signature, so each
signature adds the size of its report to this quota. The quota for everything together is for
operators who know what a workload signs in a day.
"""

from __future__ import annotations

from collections.abc import Callable

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.rate import Buckets

DAY_S = 86_400
MIB = 1024 * 1024

REFUSAL_BYTES = 700
"""A leaf, a row and their index entries."""

SIGNATURE_BYTES = 800
"""The same with a signature; long signatures take more."""

REPORT_BYTES = 1024
"""Most bytes of an agent's records about one signature, alone in their batch."""

OTHER, ALL = "*evidence", "*all evidence"
"""Names of buckets; no grant can have them."""


class EvidenceQuota:
    """Safe for any thread. `rates` must not be shared with others: these buckets count bytes."""

    def __init__(
        self,
        rates: Buckets,
        other_mib: int,
        all_mib: int = 0,
        count: Callable[[str, int], None] = lambda _kind, _size: None,
    ) -> None:
        """MiB a day for one workload; 0 is no bound. `count` gets the kind and bytes of what is
        written.
        """
        self._rates = rates
        self._other, self._all = other_mib * MIB, all_mib * MIB
        self._count = count

    def reserve(self, peer: Peer, size: int) -> None:
        """Reserve bytes before evidence other than signatures is written; call `wrote` or `free`
        afterwards. Raises FailureError RATE_LIMITED, and reserves nothing then.
        """
        self._spend(peer, OTHER, self._other, size)
        try:
            self._spend(peer, ALL, self._all, size)
        except FailureError:
            self._give_back(peer, OTHER, self._other, size)
            raise

    def wrote(self, kind: str, size: int) -> None:
        """Count reserved bytes as written, for that kind of evidence."""
        self._count(kind, size)

    def free(self, peer: Peer, size: int) -> None:
        """Give back reserved bytes that were not written, so that retries while a store is away
        cost nothing.
        """
        self._give_back(peer, OTHER, self._other, size)
        self._give_back(peer, ALL, self._all, size)

    def sign(self, peer: Peer, signatures: int) -> None:
        """Reserve the bytes of signatures before they are made. Raises FailureError
        RATE_LIMITED.
        """
        if self._all:
            self._spend(peer, ALL, self._all, signatures * SIGNATURE_BYTES)

    def unmade(self, peer: Peer, signatures: int) -> None:
        """Give back the bytes of signatures that were not written."""
        self._give_back(peer, ALL, self._all, signatures * SIGNATURE_BYTES)

    def signed(self, peer: Peer, signatures: int, size: int) -> None:
        """Count signatures as written, in `size` bytes, and allow for the agent's report of
        each.
        """
        self._give_back(peer, OTHER, self._other, signatures * REPORT_BYTES)
        self._count("signed", size)

    def _give_back(self, peer: Peer, name: str, a_day: int, size: int) -> None:
        if a_day and size > 0:
            self._rates.give_back(peer.spiffe_id, name, size, peer.key_hash, a_day)

    def _spend(self, peer: Peer, name: str, a_day: int, size: int) -> None:
        per_second = -(-a_day // DAY_S)
        granted, wait_ms = self._rates.spend(
            peer.spiffe_id, name, per_second, a_day, size, peer.key_hash
        )
        if not granted:
            sentence = (
                f"This workload has caused the {a_day // MIB} MiB of evidence that it may in a day."
            )
            raise FailureError(
                failures_pb2.REASON_RATE_LIMITED, sentence, retry_after_ms=max(wait_ms, 1000)
            )
