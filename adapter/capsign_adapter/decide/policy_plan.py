"""Finds the grants that a change of the policy touches, and who holds handles of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from capsign_adapter.decide.policy import Grant, KeyKind, Policy


@dataclass(frozen=True, slots=True)
class Touched:
    """A grant, the workloads whose handles are touched, and what happens to these."""

    grant: str
    workloads: tuple[str, ...]
    words: str


def touched(old: Policy, new: Policy) -> list[Touched]:
    """Returns every grant of which a workload notices the change, in the order of the names."""
    names = sorted({grant.name for grant in (*old.grants, *new.grants)})
    return [each for name in names for each in _of(old, new, old.grant(name), new.grant(name))]


def unserved(policy: Policy, keys: set[tuple[str, str]]) -> list[str]:
    """Returns the keys of the policy that have no version yet; nothing can be signed with them."""
    named = sorted((key.tenant, key.name) for key in policy.keys)
    return [f"{tenant}/{name}" for tenant, name in named if (tenant, name) not in keys]


def _of(old: Policy, new: Policy, before: Grant | None, after: Grant | None) -> Iterator[Touched]:
    if before is None and after is not None:
        words = "they get a handle when they next renew theirs"
        yield Touched(after.name, tuple(sorted(after.workloads)), words)
    elif after is None and before is not None:
        words = "their handles are refused"
        yield Touched(before.name, tuple(sorted(before.workloads)), words)
    elif before is not None and after is not None:
        yield from _changed(old, new, before, after)


def _changed(old: Policy, new: Policy, before: Grant, after: Grant) -> Iterator[Touched]:
    name = after.name
    gone, come = before.workloads - after.workloads, after.workloads - before.workloads
    if gone:
        yield Touched(name, tuple(sorted(gone)), "their handles are refused")
    if come:
        words = "they get a handle when they next renew theirs"
        yield Touched(name, tuple(sorted(come)), words)
    stay = tuple(sorted(before.workloads & after.workloads))
    words = _effect(old, new, before, after)
    if stay and words:
        yield Touched(name, stay, words)


def _effect(old: Policy, new: Policy, before: Grant, after: Grant) -> str:
    """Returns what happens to handles that stay, by the strictest of the changes."""
    if (before.tenant, before.key, before.purpose) != (after.tenant, after.key, after.purpose):
        return "their handles are refused; they get others"
    if not before.algorithms <= after.algorithms:
        return "their handles sign with fewer algorithms at once"
    if _kind(old, before) is not _kind(new, after):
        return "their handles sign with the key's new kind from its next version on"
    if after.ttl_ms < before.ttl_ms:
        return "their handles end sooner; older ones are refused"
    if replace(before, workloads=after.workloads) != after:
        return "their handles hold for what old and new terms allow, and get the rest when renewed"
    return ""


def _kind(policy: Policy, grant: Grant) -> KeyKind | None:
    """What else a key says is no more than its grants say already, or does not concern handles."""
    key = policy.key(grant.tenant, grant.key)
    return key.kind if key is not None else None
