"""The rule for every field of the policy document: how strong each change of it is.
`policy_change.py` has the kinds of rules.

Whoever adds a field to `policy_document.py` adds its row here; a test walks the schema and fails
where one is missing. In doubt a change is weaker: then somebody else looks at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from capsign_adapter.decide import durations
from capsign_adapter.decide import policy_document as doc
from capsign_adapter.decide.policy_change import (
    Amount,
    Change,
    Choice,
    Name,
    Names,
    Part,
    Parts,
    Rule,
    Strength,
    always,
    compare,
    ranked,
)

SAME, STRONGER, WEAKER, BROADER = Strength

NO_LIMIT = float("inf")

DAY_MINUTES = 24 * 60

FEW = 4
"""Names of one kind that a line has."""

_KIND_CHANGES = (
    "{what} from {old} to {new} (the private key of a direct one never leaves the token)"
)

WATCH = frozenset({"responder", "auditor", "approver"})
"""Roles that hold others back: fewer of them is weaker."""


def _time(what: str, more: Strength, less: Strength, zero: str = "") -> Amount:
    return Amount(what, more, less, durations.to_millis, zero=zero)


def _percent(text: str) -> float:
    return float(text.removesuffix("%"))


def _p99(text: str) -> float:
    """No time at all is no bound."""
    return durations.to_millis(text) or NO_LIMIT


def _transcript(old: str, new: str) -> Strength:
    """Contexts with a transcript and contexts without are two sets; `allowed` is both."""
    return STRONGER if old == "allowed" else BROADER


class _Identities(Names):
    """Identities that have a role. How strong the loss of one is depends on the role, which
    `subject` names.
    """

    def changes(self, subject: str, old: Any, new: Any, table: Any) -> Iterator[Change]:
        lost = WEAKER if subject.removeprefix("role ") in WATCH else STRONGER
        return Names(self.what, BROADER, lost).changes(subject, old, new, table)


class _Window:
    """The part of a day in which a key is rotated. What misses it waits for the next day, so that a
    shorter one rotates later, and one at another hour no later than before.
    """

    def changes(self, subject: str, old: Any, new: Any, table: Any) -> Iterator[Change]:
        before, after = _minutes(old), _minutes(new)
        if old == new or before == after == DAY_MINUTES:
            return
        strength = SAME
        if before != after:
            strength = STRONGER if after > before else WEAKER
        yield Change(subject, strength, f"is rotated {_hours(new)} in place of {_hours(old)}")


def _minutes(window: doc.WindowPart | None) -> int:
    if window is None:
        return DAY_MINUTES
    begin, end = (int(time[:2]) * 60 + int(time[3:]) for time in (window.begin, window.end))
    return (end - begin) % DAY_MINUTES or DAY_MINUTES


def _hours(window: doc.WindowPart | None) -> str:
    if _minutes(window) == DAY_MINUTES or window is None:
        return "at any hour"
    return f"from {window.begin} to {window.end}"


class _Canary:
    """The steps before everybody. More of them, or longer ones, find more."""

    def changes(self, subject: str, old: Any, new: Any, table: Any) -> Iterator[Change]:
        before = {step.percent: durations.to_millis(step.bake) for step in old}
        after = {step.percent: durations.to_millis(step.bake) for step in new}
        if before == after:
            return
        kept = all(after.get(percent, -1) >= bake for percent, bake in before.items())
        words = f"the canary from {_steps(old)} to {_steps(new)}"
        yield Change(subject, STRONGER if kept else WEAKER, words)


def _steps(steps: tuple[doc.CanaryPart, ...]) -> str:
    return ", ".join(f"{step.percent} % for {step.bake}" for step in steps)


class _Rate:
    """A burst that is not written is as large as the rate."""

    def changes(self, subject: str, old: Any, new: Any, table: Any) -> Iterator[Change]:
        each = Amount("signatures a second", BROADER, STRONGER, none=NO_LIMIT, without="any number")
        once = Amount("signatures at once", BROADER, STRONGER, none=NO_LIMIT, without="any number")
        yield from each.changes(subject, old and old.per_second, new and new.per_second, table)
        yield from once.changes(subject, _burst(old), _burst(new), table)


def _burst(part: doc.RatePart | None) -> int | None:
    return (part.burst or part.per_second) if part is not None else None


def _merged(one: doc.RolePart, other: doc.RolePart) -> doc.RolePart:
    return doc.RolePart(role=one.role, identities=(*one.identities, *other.identities))


def _key(part: doc.KeyPart) -> str:
    return f"{part.kind}, {', '.join(part.algorithms)}"


def _grant(part: doc.GrantPart) -> str:
    """What a line is cut off after comes last: names are as long as who wrote them likes."""
    rate = f"{part.rate.per_second} times a second" if part.rate is not None else "at any rate"
    protocols = [f"{one.protocol} as {_few(one.roles)}" for one in part.protocols]
    return (
        f"{_counted(part.workloads, 'workload')} may sign {part.purpose} with "
        f"{part.tenant}/{part.key} ({', '.join(part.algorithms)}), {rate}, {part.min_custody} or "
        f"stronger, handles live {part.ttl}, in {_few(protocols)}: {_few(sorted(part.workloads))}"
    )


def _role(part: doc.RolePart) -> str:
    return f"{_counted(part.identities, 'holder')}: {_few(sorted(part.identities))}"


def _counted(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}{'s' * (len(names) != 1)}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"{', '.join(names[:FEW])}{more}"


TABLE: Mapping[type, Mapping[str, Rule]] = MappingProxyType(
    {
        doc.PolicyDocument: {
            "version": Choice("the form of the document", always(WEAKER)),
            # The adapter refuses it.
            "trust_domain": Choice(
                "the trust domain", always(WEAKER), "{what} from {old} to {new}, for every identity"
            ),
            "tenants": Parts(lambda p: p.name, lambda _, p: f"tenant {p.name}", lambda _: ""),
            "keys": Parts(
                lambda p: (p.tenant, p.name), lambda _, p: f"key {p.tenant}/{p.name}", _key
            ),
            "grants": Parts(lambda p: p.name, lambda _, p: f"grant {p.name}", _grant),
            "roles": Parts(
                lambda p: p.role,
                lambda _, p: f"role {p.role}",
                _role,
                removed=lambda p: WEAKER if p.role in WATCH else STRONGER,
                merge=_merged,
            ),
            "limits": Part("limits"),
            "algorithms": Part("algorithms"),
            "tls": Part("tls"),
            "rollouts": Part("rollouts"),
            "approvals": Part("approvals"),
            "changes": Part("changes"),
        },
        doc.TenantPart: {"name": Name()},
        doc.KeyPart: {
            "tenant": Name(),
            "name": Name(),
            "kind": Choice(
                "the kind of its next versions", ranked("derived", "direct"), _KIND_CHANGES
            ),
            "algorithms": Names("algorithms"),
            "rotation": Part(
                added=(STRONGER, "is rotated by itself now"),
                removed=(WEAKER, "is not rotated by itself any more"),
            ),
            "lifetime": Part(),
        },
        doc.LifetimePart: {
            "cryptoperiod": _time("the cryptoperiod", WEAKER, STRONGER),
            "horizon": _time("the confidentiality horizon", STRONGER, WEAKER, "none"),
        },
        doc.RotationPart: {
            "every": _time("the time between rotations", WEAKER, STRONGER),
            "jitter": _time("how much later a rotation may be", WEAKER, STRONGER),
            "window": _Window(),
        },
        doc.WindowPart: {"begin": Name(), "end": Name()},  # as a whole: see `_Window`
        doc.GrantPart: {
            "name": Name(),
            "tenant": Choice(
                "tenant", always(BROADER), "signs with a key of {what} {new} in place of {old}"
            ),
            "key": Choice("the key", always(BROADER), "signs with {what} {new} in place of {old}"),
            "workloads": Names("workloads"),
            "purpose": Choice(
                "the purpose", always(BROADER), "signs for {what} {new} in place of {old}"
            ),
            "algorithms": Names("algorithms"),
            "protocols": Parts(
                lambda p: p.protocol,
                lambda grant, p: f"{grant}, protocol {p.protocol}",
                lambda p: f"roles {', '.join(p.roles)}; versions {', '.join(p.versions)}",
            ),
            "transcript": Choice("the transcript", _transcript),
            "min_custody": Choice(
                "the weakest custody that is accepted",
                ranked("adapter-memory", "hsm-derived", "hsm-direct"),
            ),
            "ttl": _time("the life of handles", WEAKER, STRONGER),
            "rate": _Rate(),
            "max_uses": Amount(
                "uses of a handle", BROADER, STRONGER, none=NO_LIMIT, without="any number"
            ),
        },
        doc.ProtocolPart: {
            "protocol": Name(),
            "roles": Names("roles"),
            "versions": Names("versions"),
        },
        doc.RatePart: {  # compared as a whole: see `_Rate`
            "per_second": Amount("signatures a second", BROADER, STRONGER),
            "burst": Amount("signatures at once", BROADER, STRONGER),
        },
        doc.RolePart: {"role": Name(), "identities": _Identities("identities")},
        doc.LimitsPart: {
            "intent_retention": _time("the retention of intents", BROADER, STRONGER),
            "clock_skew": _time("the clock skew that is forgiven", WEAKER, STRONGER),
            "message_max": Amount("the largest message (bytes)", BROADER, STRONGER),
        },
        doc.AlgorithmsPart: {"floor_bits": Amount("the least strength (bits)", STRONGER, WEAKER)},
        doc.TlsPart: {"min": Choice("the weakest TLS", ranked("1.3"))},
        doc.RolloutsPart: {
            "propagation": _time("the propagation window", STRONGER, WEAKER),
            "readiness": Choice("the readiness of verifiers", ranked("shown", "required")),
            "canary": _Canary(),
            "dual_sign": _time("the time of two signatures", STRONGER, WEAKER, "none at all"),
            "promote": _time("the least time of the stage promote", STRONGER, WEAKER),
            "retire": _time("the least time of the stage retire", STRONGER, WEAKER),
            "triggers": Part("rollouts.triggers"),
        },
        doc.CanaryPart: {"percent": Name(), "bake": Name()},  # as a whole: see `_Canary`
        doc.TriggersPart: {
            "error_rate": Amount("the error rate that rolls back", WEAKER, STRONGER, _percent),
            "verify_failure_rate": Amount(
                "the rate of failed verifications that rolls back", WEAKER, STRONGER, _percent
            ),
            "p99": Amount(
                "the p99 latency that rolls back", WEAKER, STRONGER, _p99, zero="no bound"
            ),
            "min_samples": Amount("the samples that a verdict takes", STRONGER, WEAKER),
            "min_verifications": Amount("the verifications that a verdict takes", STRONGER, WEAKER),
            "verifications": Choice(
                "enough verifications for a verdict,", ranked("optional", "required")
            ),
        },
        doc.ApprovalsPart: {
            "expire": _time("the time in which a proposal can be approved", WEAKER, STRONGER),
            "destroy_wait": _time("the wait before a key is destroyed", STRONGER, WEAKER),
        },
        doc.ChangesPart: {
            "strengthening": Choice(
                "what weakens nothing", ranked("at-once", "approved"), "{what}: from {old} to {new}"
            )
        },
    }
)


def changes(old: doc.PolicyDocument, new: doc.PolicyDocument) -> list[Change]:
    """Returns the changes from one document to the other, in the order of the schema; those that
    weaken first.
    """
    found = list(compare("policy", old, new, TABLE))
    return [
        *(change for change in found if change.strength.weakens),
        *(change for change in found if not change.strength.weakens),
    ]
