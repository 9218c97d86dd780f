"""Whether a rollout may begin, and from what to what it leads. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.key_states import SIGNS
from capsign_wire.types.v1 import failures_pb2, signing_pb2

from capsign_adapter.decide.policy import Policy
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.rollouts import RolloutRow, SignsWith


def before_of(
    rows: Sequence[KeyVersionRow], running: RolloutRow | None, name: str
) -> KeyVersionRow:
    """Returns the version that a rollout of this key leads away from: the newest that signs, or
    that from which the one under way leads away. Raises FailureError KEY_NOT_ACTIVE, and NOT_FOUND
    for a key that has no version at all.
    """
    for row in rows:
        if row.state in SIGNS and (running is None or row.version <= running.before.version):
            return row
    if not rows:
        detail = f"There is no key {name} that has a version."
        raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="key")
    detail = f"{name} has no version that signs: there is nothing to lead away from."
    raise FailureError(failures_pb2.REASON_KEY_NOT_ACTIVE, detail)


def waiting_of(rows: Sequence[KeyVersionRow], before: KeyVersionRow) -> KeyVersionRow | None:
    """Returns a version that was made and never signed, newer than that one: a rollout takes it
    before it makes another.
    """
    for row in rows:
        if row.state == signing_pb2.KEY_STATE_PRE_ACTIVATION and row.version > before.version:
            return row
    return None


def demand_algorithm(policy: Policy, tenant: str, key: str, algorithm: int, now: int) -> None:
    """Raise FailureError unless the key may move to this algorithm from `now`, the one of open
    calls: policy's key serves it, and a grant allows it.
    """
    name = ALGORITHMS[algorithm].name
    found = policy.key(tenant, key)
    if found is None:
        detail = f"The policy has no key {tenant}/{key}."
        raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="key")
    if algorithm not in found.algorithms:
        detail = f"The policy's key {tenant}/{key} does not serve {name}. Add it there first."
        raise FailureError(failures_pb2.REASON_ALGORITHM_NOT_ALLOWED, detail, field="algorithm")
    if algorithm == now:
        detail = f"Calls of {tenant}/{key} that leave the algorithm open get {name} already."
        raise FailureError(failures_pb2.REASON_ROLLOUT_CONFLICT, detail, field="algorithm")
    grants = [grant for grant in policy.grants if (grant.tenant, grant.key) == (tenant, key)]
    if not any(algorithm in grant.algorithms for grant in grants):
        detail = f"No grant of {tenant}/{key} allows {name}. Let those have it that shall move."
        raise FailureError(failures_pb2.REASON_ALGORITHM_NOT_ALLOWED, detail, field="algorithm")


def left_behind(policy: Policy, row: RolloutRow) -> list[str]:
    """Returns the grants that stay with the old algorithm: they do not allow the new one."""
    if not row.after.algorithm:
        return []
    return sorted(
        grant.name
        for grant in policy.grants
        if (grant.tenant, grant.key) == (row.tenant, row.key)
        and row.after.algorithm not in grant.algorithms
    )


def goal_of(history: Sequence[RolloutRow], to: int, name: str) -> tuple[SignsWith, RolloutRow]:
    """Returns what `undo --to` leads to: what rollout number `to` led to, or with 0 what was before
    the last one that is done; and the last one that is done. `history` is newest first.

    Raises FailureError ROLLOUT_CONFLICT while one is under way, and NOT_FOUND.
    """
    if history and not history[0].is_final:
        detail = (
            f"Rollout {history[0].number} of {name} is under way. Abort it: nothing is done yet."
        )
        raise FailureError(failures_pb2.REASON_ROLLOUT_CONFLICT, detail)
    done = [row for row in history if row.is_done]
    if not done:
        detail = f"No rollout of {name} is done: there is nothing to undo."
        raise FailureError(failures_pb2.REASON_NOT_FOUND, detail)
    if not to:
        return done[0].before, done[0]
    found = next((row for row in done if row.number == to), None)
    if found is None or found is done[0]:
        numbers = ", ".join(str(row.number) for row in done[1:])
        detail = f"{name} can go back to what these rollouts led to: {numbers}."
        if not numbers:
            detail = (
                f"Rollout {done[0].number} of {name} is the only one that is done: to go back "
                "behind it, name none."
            )
        elif found is not None:
            detail = f"What rollout {to} led to is what {name} signs with. {detail}"
        raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="to")
    return found.after, done[0]
