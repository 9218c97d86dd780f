"""What a call is signed with: the one place that says which versions of a key sign, and with which
algorithm, for a workload.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.key_states import SIGNS
from capsign_wire.types.v1.algorithms_pb2 import UPSTREAM_MU

from capsign_adapter.decide.rollout_cohort import is_in
from capsign_adapter.decide.rollout_steps import BOTH_NEEDED, NOT_YET
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_adapter.model.rollouts import RolloutRow

Chosen = tuple[KeyVersionRow, int]
"""A version, and the algorithm that it signs with."""


class SigningState(Protocol):
    """What decides of one epoch."""

    @property
    def versions(self) -> Mapping[tuple[str, str], Sequence[KeyVersionRow]]:
        """By tenant and key, newest first."""

    @property
    def rollouts(self) -> Mapping[tuple[str, str], RolloutRow]:
        """Those under way, by tenant and key."""

    @property
    def settled(self) -> Mapping[tuple[str, str], int]:
        """The algorithm of each key that its last finished change of algorithm led to."""


def signing_with(
    state: SigningState,
    name: tuple[str, str],
    workload: str,
    asked: int,
    allowed: Collection[int] = (),
) -> tuple[Chosen, ...]:
    """Which versions of the key `name` (tenant, key) sign for this workload, and with which
    algorithm: one; two while one call answers both; none if nothing may.

    `asked` is what the call names; 0: it is left open, and then `allowed` are the algorithms that
    may be chosen, empty for any. Where a rollout cannot hold any more, because its versions do not
    sign, the newest version that does signs: the same as without one.
    """
    versions = state.versions.get(name, ())
    rollout = state.rollouts.get(name)
    settled = state.settled.get(name, 0)
    if rollout is None or not _holds(rollout, versions):
        first = _newest(versions, asked or _open(settled, _signing(versions), allowed))
        return (first,) if first else ()
    new = is_in(rollout, workload)
    mine, other = (
        asked or _of_side(rollout, side, settled, versions, allowed) for side in (new, not new)
    )
    if asked:
        other = _counterpart(rollout, asked)
    first = _of_version(rollout, new, mine, versions)
    if first is None or rollout.stage is not RolloutStage.DUAL_SIGN:
        return (first,) if first else ()
    second = _of_version(rollout, not new, other, versions)
    if second is None or second == first or (allowed and other not in allowed):
        return (first,)
    return first, second


def takes_second_input(signing: Sequence[Chosen]) -> bool:
    """Whether the second of two keys signs another input than the first: another hash, the message,
    or mu, which depends on the public key (FIPS 204, algorithm 7).
    """
    if len(signing) < 2:
        return False
    first, second = (ALGORITHMS[algorithm].upstream for _, algorithm in signing)
    return first != second or first == UPSTREAM_MU


def _holds(rollout: RolloutRow, versions: Sequence[KeyVersionRow]) -> bool:
    """Whether what the rollout says of versions can be done. A newer version that signs overtakes
    it.
    """
    signing = {row.version for row in versions if row.state in SIGNS}
    if signing and max(signing) > max(rollout.before.version, rollout.after.version):
        return False
    if rollout.stage in NOT_YET:
        return rollout.before.version in signing
    needed = {rollout.after.version}
    if rollout.stage in BOTH_NEEDED:
        needed.add(rollout.before.version)
    return needed <= signing


def _of_version(
    rollout: RolloutRow, new: bool, algorithm: int, versions: Sequence[KeyVersionRow]
) -> Chosen | None:
    """That side's version, or the newest that has the algorithm where that one has it not."""
    number = (rollout.after if new else rollout.before).version
    for row in versions:
        if row.version == number and row.state in SIGNS and algorithm in row.algorithms:
            return row, algorithm
    return _newest(versions, algorithm)


def _of_side(
    rollout: RolloutRow,
    new: bool,
    settled: int,
    versions: Sequence[KeyVersionRow],
    allowed: Collection[int],
) -> int:
    """The algorithm of an open call on that side. Who may not use what is new stays with what was
    before. Who may not use that either has what it would have apart from any rollout, by the
    version of its side: it does not go ahead of its cohort.
    """
    sides = (rollout.after, rollout.before) if new else (rollout.before,)
    for side in sides:
        if side.algorithm and (not allowed or side.algorithm in allowed):
            return side.algorithm
    return _open(settled, _signing(versions, sides[0].version), allowed)


def _counterpart(rollout: RolloutRow, algorithm: int) -> int:
    """The algorithm of the second signature beside a first one of this algorithm."""
    pair = (rollout.before.algorithm, rollout.after.algorithm)
    return pair[1] if algorithm == pair[0] else pair[0] if algorithm == pair[1] else algorithm


def _open(settled: int, version: KeyVersionRow | None, allowed: Collection[int]) -> int:
    """The algorithm of a call that leaves it open, apart from any rollout."""
    offered = (settled, *(version.algorithms if version else ()))
    return next((each for each in offered if each and (not allowed or each in allowed)), 0)


def _signing(versions: Sequence[KeyVersionRow], number: int = 0) -> KeyVersionRow | None:
    """The version of that number if it may sign; otherwise the newest that may."""
    found = [row for row in versions if row.state in SIGNS]
    return next((row for row in found if row.version == number), found[0] if found else None)


def _newest(versions: Sequence[KeyVersionRow], algorithm: int) -> Chosen | None:
    for row in versions:
        if row.state in SIGNS and algorithm in row.algorithms:
            return row, algorithm
    return None
