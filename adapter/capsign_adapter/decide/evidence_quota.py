"""How many bytes of evidence a workload may cause in a day: what it writes is kept, and a disk is
not.

Signatures have their grant's rate, so by default only what else somebody can have written is
bounded: refusals, intents that are closed as never sent, records of agents. An agent reports each
signature, so each signature pays for its report. The bound for everything together is for whoever
knows what a workload signs in a day.
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
"""A leaf, a row and their places in the indices."""

SIGNATURE_BYTES = 800
"""The same with a signature; a long one comes on top of it."""

REPORT_BYTES = 1024
"""What the records of an agent about one signature take at most, alone in their batch."""

OTHER, ALL = "*evidence", "*all evidence"
"""Names of buckets; no grant can be called so."""


class EvidenceQuota:
    """Safe to share between threads. `rates` are this one's own: they count bytes."""

    def __init__(
        self,
        rates: Buckets,
        other_mib: int,
        all_mib: int = 0,
        count: Callable[[str, int], None] = lambda _kind, _size: None,
    ) -> None:
        """MiB a day for one workload; 0 is no bound. `count` is told what is written, by kind and
        bytes.
        """
        self._rates = rates
        self._other, self._all = other_mib * MIB, all_mib * MIB
        self._count = count

    def reserve(self, peer: Peer, size: int) -> None:
        """Before so many bytes are written that are no signature; then `wrote` or `free` says what
        came of it.

        Raises FailureError RATE_LIMITED, and then nothing was reserved.
        """
        self._spend(peer, OTHER, self._other, size)
        try:
            self._spend(peer, ALL, self._all, size)
        except FailureError:
            self._give_back(peer, OTHER, self._other, size)
            raise

    def wrote(self, kind: str, size: int) -> None:
        """What was reserved was written, for that kind of evidence."""
        self._count(kind, size)

    def free(self, peer: Peer, size: int) -> None:
        """What was reserved was not written: who tries again while a store is away must not pay for
        each try.
        """
        self._give_back(peer, OTHER, self._other, size)
        self._give_back(peer, ALL, self._all, size)

    def sign(self, peer: Peer, signatures: int) -> None:
        """Before so many signatures are made. Raises FailureError RATE_LIMITED."""
        if self._all:
            self._spend(peer, ALL, self._all, signatures * SIGNATURE_BYTES)

    def unmade(self, peer: Peer, signatures: int) -> None:
        """So many of those were not written after all."""
        self._give_back(peer, ALL, self._all, signatures * SIGNATURE_BYTES)

    def signed(self, peer: Peer, signatures: int, size: int) -> None:
        """So many were written, in so many bytes: the agent will report each."""
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
