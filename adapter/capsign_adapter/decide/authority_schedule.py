"""The life of the certificate authorities: which one signs, which are trusted, and what is due.
Pure: rows and the time come in.

An authority is published before it signs, and stays trusted until the last certificate that it
signed is over. So whoever holds a bundle that is not older than the propagation time can verify
every certificate that is valid now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.lifecycle import AuthorityState

MAX_CLOCK_SKEW_MS = 60_000
"""How much clocks may differ, at most: certificates begin that much in the past, and an authority
goes that much later.
"""

MAX_POLL_MS = 10_000
MIN_POLL_MS = 100

STEPS_OF_A_PROMISE = 4
"""In how many steps a certificate's life is promised ahead: the store is written that often in one,
however many are issued.
"""

PREPARE_AT = (2, 3)
"""Fraction of an authority's life after which its successor is prepared."""

MOST_TRUSTED = 8
"""What a TrustBundle holds at most (identity.proto)."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long things live, in milliseconds: a certificate, an authority, and a bundle on its way
    to everybody.
    """

    svid_ms: int
    authority_ms: int
    propagation_ms: int

    @property
    def clock_skew_ms(self) -> int:
        """What clocks are forgiven."""
        return min(MAX_CLOCK_SKEW_MS, self.svid_ms)

    @property
    def step_ms(self) -> int:
        """How much further than needed a promise reaches."""
        return max(1, self.svid_ms // STEPS_OF_A_PROMISE)

    @property
    def poll_ms(self) -> int:
        """How often a replica sees what the others did; twice that is allowed for until a bundle is
        everywhere.
        """
        return min(MAX_POLL_MS, max(MIN_POLL_MS, self.propagation_ms // 20))

    @property
    def activation_delay_ms(self) -> int:
        """From the making of an authority until it may sign."""
        return self.propagation_ms + 2 * self.poll_ms

    @property
    def least_authority_ms(self) -> int:
        """The shortest life of an authority in which a successor can be published, and the last
        certificates can end.
        """
        numerator, denominator = PREPARE_AT
        needed = self.activation_delay_ms + self.svid_ms + self.step_ms + 2 * self.clock_skew_ms
        return needed * denominator // (denominator - numerator)


class Action(Enum):
    """What is to be done next."""

    PREPARE = "prepare"
    ACTIVATE = "activate"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: `row` is the authority that moves, None for one that is to be made. `at_ms`
    is when it is due.
    """

    action: Action
    row: AuthorityRow | None
    at_ms: int


def trusted(rows: Iterable[AuthorityRow]) -> tuple[AuthorityRow, ...]:
    """The authorities to trust, oldest first."""
    return tuple(
        sorted(
            (row for row in rows if row.state != AuthorityState.RETIRED),
            key=lambda row: row.version,
        )
    )


def sequence(rows: Sequence[AuthorityRow]) -> int:
    """The number of the bundle: every authority that came and every one that went counts. Rows are
    never deleted.
    """
    return len(rows) + sum(row.state == AuthorityState.RETIRED for row in rows)


def signing(rows: Iterable[AuthorityRow], now_ms: int) -> AuthorityRow | None:
    """The authority that signs now: the newest active one, unless its certificate is over."""
    newest = _newest_active(rows)
    return newest if newest is not None and now_ms < newest.expires_ms else None


def validity(row: AuthorityRow, lifetimes: Lifetimes, now_ms: int) -> tuple[int, int]:
    """From when to when a certificate that this authority signs now is valid. Whole seconds, as
    X.509 has them; never longer than the authority's own.
    """
    return (now_ms - lifetimes.clock_skew_ms) // 1000 * 1000, min(
        now_ms + lifetimes.svid_ms, row.expires_ms
    ) // 1000 * 1000


def promise_for(row: AuthorityRow, lifetimes: Lifetimes, not_after_ms: int) -> int | None:
    """What must be promised before a certificate that ends then is signed; None if the present
    promise covers it.
    """
    return (
        None
        if not_after_ms <= row.signed_until_ms
        else min(not_after_ms + lifetimes.step_ms, row.expires_ms)
    )


def under_way(rows: Iterable[AuthorityRow]) -> bool:
    """Whether one authority is following another right now."""
    return len(trusted(rows)) > 1


def next_step(rows: Sequence[AuthorityRow], lifetimes: Lifetimes, now_ms: int) -> Step | None:
    """What happens next, maybe only later; None where there is no authority at all, which is never
    made by itself.

    If none can sign any more (the deployment was off for too long), no certificate is left that
    overlap could keep valid, and the successor signs from the next look on.
    """
    prepared = next((row for row in rows if row.state == AuthorityState.PREPARED), None)
    newest = _newest_active(rows)
    steps = [
        Step(Action.RETIRE, row, _retirement(row, lifetimes))
        for row in trusted(rows)
        if _was_followed(row, newest)
    ]
    if prepared is not None:
        steps.append(Step(Action.ACTIVATE, prepared, _activation(prepared, newest, lifetimes)))
    elif newest is not None:
        alone = not under_way(rows) or (
            now_ms >= newest.expires_ms and len(trusted(rows)) < MOST_TRUSTED
        )
        if alone:
            steps.append(Step(Action.PREPARE, None, _succession(newest)))
    return min(steps, key=lambda step: step.at_ms, default=None)


def due(rows: Sequence[AuthorityRow], lifetimes: Lifetimes, now_ms: int) -> Step | None:
    """What is to be done now, one step at a time; None if nothing is."""
    step = next_step(rows, lifetimes, now_ms)
    return step if step is not None and step.at_ms <= now_ms else None


def timeline(rows: Sequence[AuthorityRow], lifetimes: Lifetimes) -> list[Step]:
    """What is still to come, if nobody does anything, in order; times are the earliest ones.

    The one that signs now signs until its successor does, and is trusted for a certificate's life
    longer.
    """
    steps: list[Step] = []
    newest = _newest_active(rows)
    prepared = next((row for row in rows if row.state == AuthorityState.PREPARED), None)
    steps += [
        Step(Action.RETIRE, row, _retirement(row, lifetimes))
        for row in trusted(rows)
        if _was_followed(row, newest)
    ]
    if prepared is not None:
        at_ms = _activation(prepared, newest, lifetimes)
        steps.append(Step(Action.ACTIVATE, prepared, at_ms))
        if newest is not None:
            steps.append(
                Step(
                    Action.RETIRE,
                    newest,
                    max(
                        _retirement(newest, lifetimes),
                        at_ms + lifetimes.svid_ms + lifetimes.clock_skew_ms,
                    ),
                )
            )
    elif newest is not None:
        steps.append(Step(Action.PREPARE, None, _succession(newest)))
    return sorted(steps, key=lambda step: step.at_ms)


def _newest_active(rows: Iterable[AuthorityRow]) -> AuthorityRow | None:
    return max(
        (row for row in rows if row.state == AuthorityState.ACTIVE),
        key=lambda row: row.version,
        default=None,
    )


def _was_followed(row: AuthorityRow, newest: AuthorityRow | None) -> bool:
    return (
        row.state == AuthorityState.ACTIVE and newest is not None and row.version < newest.version
    )


def _retirement(row: AuthorityRow, lifetimes: Lifetimes) -> int:
    return row.signed_until_ms + lifetimes.clock_skew_ms


def _activation(prepared: AuthorityRow, newest: AuthorityRow | None, lifetimes: Lifetimes) -> int:
    ripe = prepared.created_ms + lifetimes.activation_delay_ms
    return min(ripe, newest.expires_ms) if newest is not None else prepared.created_ms


def _succession(newest: AuthorityRow) -> int:
    numerator, denominator = PREPARE_AT
    return newest.created_ms + (newest.expires_ms - newest.created_ms) * numerator // denominator
