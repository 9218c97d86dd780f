"""Whether those who verify have the public keys of a version that does not sign yet. Pure: of what
was fetched, and of the policy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from capsign_wire.failures import FailureError
from capsign_wire.key_states import SIGNS
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide import durations
from capsign_adapter.decide.policy import Policy
from capsign_adapter.model.key_readers import ANONYMOUS, BY_HTTPS, KeyReader
from capsign_adapter.model.key_versions import KeyVersionRow

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


@dataclass(frozen=True, slots=True)
class Expected:
    """Who may fetch the public keys of a key: `granted` are the pairs of grant and workload that
    the policy has now, by their agents; `named` are the SPIFFE IDs that count by their names when
    they ask by HTTPS.
    """

    granted: Collection[tuple[str, str]]
    named: Collection[str] = ()

    def knows(self, reader: KeyReader) -> bool:
        """Whether this reader can still fetch them: nobody waits for another one."""
        if reader.grant not in {grant for grant, _ in self.granted}:
            return False
        if reader.workload.startswith(BY_HTTPS):
            return reader.workload.removeprefix(BY_HTTPS) in self.named
        return reader.workload == ANONYMOUS or (reader.grant, reader.workload) in self.granted


def is_named(policy: Policy, tenant: str, spiffe_id: str) -> bool:
    """Whether who asks by HTTPS counts by this name: policy gives it something of the tenant, or a
    role. All others of the trust domain count together, so that none of them is waited for.
    """
    ours = any(grant.tenant == tenant for grant in policy.grants_of(spiffe_id))
    return ours or bool(policy.roles_of(spiffe_id))


def expected(policy: Policy, tenant: str, key: str, readers: Iterable[KeyReader]) -> Expected:
    """Who may fetch the public keys of this key. `readers` are those that did."""
    granted = frozenset(
        (grant.name, workload)
        for grant in policy.grants
        if (grant.tenant, grant.key) == (tenant, key)
        for workload in grant.workloads
    )
    asked = {reader.workload.removeprefix(BY_HTTPS) for reader in readers}
    return Expected(granted, frozenset(each for each in asked if is_named(policy, tenant, each)))


def readiness(
    version: int, published_ms: int, readers: Iterable[KeyReader], who: Expected
) -> Readiness:
    """Who has fetched this version of a key, and who has not. `readers` are those of the key."""
    fetched: list[KeyReader] = []
    missing: list[KeyReader] = []
    for reader in sorted(readers, key=lambda each: (each.grant, each.workload)):
        known = who.knows(reader)
        if known and reader.version >= version:
            fetched.append(reader)
        elif known and reader.fetched_ms >= published_ms - RECENT_MS:
            missing.append(reader)
    return Readiness(tuple(fetched), tuple(missing))


def demand_ready(
    policy: Policy,
    rows: Iterable[KeyVersionRow],
    row: KeyVersionRow,
    readers: Sequence[KeyReader],
    now_ms: int,
) -> None:
    """Raise FailureError VERIFIERS_NOT_READY if policy demands readiness and this version would
    begin to sign beside another one of `rows`, its key's, before those who verify have it: never
    shown, not for the propagation window, or not fetched by who is expected to.

    Where no other version signs there is nothing to keep: verifiers refuse nothing that they would
    have had. So who must not wait has the version that signs withdrawn, which is a responder's act.
    """
    plan = policy.rollouts
    others = [each for each in rows if each.state in SIGNS and each.version != row.version]
    if not plan.readiness_required or not others:
        return
    if not row.published_ms:
        raise _not_ready("Its public keys were never shown: publish it first.")
    left_ms = row.published_ms + plan.propagation_ms - now_ms
    if left_ms > 0:
        left = durations.to_text(-(-left_ms // 1000) * 1000)
        raise _not_ready(f"Its public keys must be shown for {left} more.")
    who = expected(policy, row.tenant, row.key, readers)
    missing = readiness(row.version, row.published_ms, readers, who).missing
    if missing:
        first = missing[0].workload or "whoever asks by HTTPS"
        others_text = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise _not_ready(f"Not fetched yet by {first}{others_text}.")


def _not_ready(detail: str) -> FailureError:
    return FailureError(failures_pb2.REASON_VERIFIERS_NOT_READY, detail, field="version")
