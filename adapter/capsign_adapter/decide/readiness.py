"""Whether those who verify have the public keys of a version that does not sign yet. Pure: of what
was fetched, and of the policy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from capsign_adapter.model.key_readers import ANONYMOUS, KeyReader

RECENT_MS = 3_600_000
"""Who fetched public keys so long before a version was shown, or later, is expected to fetch that
version too. It is far above the time for which keys may be kept: who was silent for longer has
nothing in its cache.
"""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Of one version. Both are in the order of grant and workload."""

    fetched: tuple[KeyReader, ...]
    """Who has it."""
    missing: tuple[KeyReader, ...]
    """Who is expected to fetch it and has not."""

    @property
    def anonymous_fetches(self) -> int:
        """How often it was fetched by HTTPS, since it is the newest."""
        return sum(reader.fetches for reader in self.fetched if reader.workload == ANONYMOUS)


def readiness(
    version: int,
    published_ms: int,
    readers: Iterable[KeyReader],
    granted: Collection[tuple[str, str]],
) -> Readiness:
    """Who has fetched this version of a key, and who has not. `readers` are those of the key,
    `granted` the pairs of grant and workload that the policy has now: others cannot fetch it.
    """
    names = {grant for grant, _ in granted}
    fetched: list[KeyReader] = []
    missing: list[KeyReader] = []
    for reader in sorted(readers, key=lambda each: (each.grant, each.workload)):
        known = reader.grant in names
        if reader.workload != ANONYMOUS:
            known = (reader.grant, reader.workload) in granted
        if known and reader.version >= version:
            fetched.append(reader)
        elif known and reader.fetched_ms >= published_ms - RECENT_MS:
            missing.append(reader)
    return Readiness(tuple(fetched), tuple(missing))
