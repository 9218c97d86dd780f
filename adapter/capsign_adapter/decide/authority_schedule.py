"""The schedule of the certificate authorities: which one signs, which are trusted, and which step
is due. Pure: rows and the time are arguments.

An authority is published before it signs, and stays trusted until the last certificate that it
signed has expired. So whoever holds a trust bundle that is not older than the propagation time can
verify every certificate that is valid now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.lifecycle import AuthorityState

MAX_CLOCK_SKEW_MS = 60_000
"""Most that clocks may differ: certificates begin this much in the past, and an authority is
retired this much later.
"""

MAX_POLL_MS = 10_000
MIN_POLL_MS = 100

STEPS_OF_A_PROMISE = 4
"""The time until which an authority may sign is written to the store in advance, in steps of this
fraction of a certificate's life: so many writes in one such life, however many are issued.
"""

PREPARE_AT = (2, 3)
"""Fraction of an authority's life after which its successor is prepared."""

MOST_TRUSTED = 8
"""Most authorities in a TrustBundle (identity.proto)."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Milliseconds: the life of a certificate, the life of an authority, and the time until a new
    trust bundle has reached everybody.
    """

    svid_ms: int
    authority_ms: int
    propagation_ms: int

    @property
    def clock_skew_ms(self) -> int:
        """How much clocks may differ."""
        return min(MAX_CLOCK_SKEW_MS, self.svid_ms)

    @property
    def step_ms(self) -> int:
        """How far beyond the present need `promise_for` reaches."""
        return max(1, self.svid_ms // STEPS_OF_A_PROMISE)

    @property
    def poll_ms(self) -> int:
        """How often a replica reads the rows. A new bundle may take twice that longer to be
        everywhere.
        """
        return min(MAX_POLL_MS, max(MIN_POLL_MS, self.propagation_ms // 20))

    @property
    def activation_delay_ms(self) -> int:
        """Time from the creation of an authority until it may sign."""
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
    """What a step does."""

    PREPARE = "prepare"
    ACTIVATE = "activate"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `row` is the authority that moves, None for one that is to be made; `at_ms` is when
    it is due.
    """

    action: Action
    row: AuthorityRow | None
    at_ms: int


def trusted(rows: Iterable[AuthorityRow]) -> tuple[AuthorityRow, ...]:
    """Returns the authorities to trust, oldest first."""
    return tuple(
        sorted(
            (row for row in rows if row.state != AuthorityState.RETIRED),
            key=lambda row: row.version,
        )
    )


def sequence(rows: Sequence[AuthorityRow]) -> int:
    """Returns the sequence number of the trust bundle. It rises with every authority that is added
    and with every one that is retired; rows are never deleted.
    """
    return len(rows) + sum(row.state == AuthorityState.RETIRED for row in rows)


def signing(rows: Iterable[AuthorityRow], now_ms: int) -> AuthorityRow | None:
    """Returns the authority that signs now: the newest active one, unless its certificate has
    expired.
    """
    newest = _newest_active(rows)
    return newest if newest is not None and now_ms < newest.expires_ms else None


def validity(row: AuthorityRow, lifetimes: Lifetimes, now_ms: int) -> tuple[int, int]:
    """Returns begin and end of a certificate that this authority signs now, in milliseconds. They
    are whole seconds, as in X.509, and never later than the authority's own end.
    """
    return (now_ms - lifetimes.clock_skew_ms) // 1000 * 1000, min(
        now_ms + lifetimes.svid_ms, row.expires_ms
    ) // 1000 * 1000


def promise_for(row: AuthorityRow, lifetimes: Lifetimes, not_after_ms: int) -> int | None:
    """Returns the time until which the authority must be recorded as signing, before it signs a
    certificate that ends at `not_after_ms`; None if what is recorded already covers it.
    """
    return (
        None
        if not_after_ms <= row.signed_until_ms
        else min(not_after_ms + lifetimes.step_ms, row.expires_ms)
    )


def under_way(rows: Iterable[AuthorityRow]) -> bool:
    """Whether a change of authority is under way."""
    return len(trusted(rows)) > 1


def next_step(rows: Sequence[AuthorityRow], lifetimes: Lifetimes, now_ms: int) -> Step | None:
    """Returns the next step, which may be due only later; None if there is no authority: the first
    is never made automatically.

    If no authority can sign any more (the deployment was off for too long), no certificate is left
    that an overlap could keep valid, so the successor signs as soon as it is made.
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
    """Returns the step that is due now, or None."""
    step = next_step(rows, lifetimes, now_ms)
    return step if step is not None and step.at_ms <= now_ms else None


def timeline(rows: Sequence[AuthorityRow], lifetimes: Lifetimes) -> list[Step]:
    """Returns the steps to come in order, if nobody intervenes, with their earliest times.

    The authority that signs now signs until its successor does, and is trusted for another life of
    a certificate.
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
