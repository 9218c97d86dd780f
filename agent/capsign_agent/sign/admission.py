"""Steps 4 and 5: whether a handle allows a group, and how many of its items its rate allows.

Pure: time is an argument.
"""

from __future__ import annotations

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.handles.held_handle import HeldHandle
from capsign_agent.handles.scope import HandleScope
from capsign_agent.sign.group_work import GroupWork


def demand_algorithm(work: GroupWork) -> None:
    """Raise FailureError INPUT_MALFORMED unless the group either names an algorithm or leaves it
    open: one that was lost on the way is not an open one (I10).
    """
    if work.group.open_algorithm != (not work.group.algorithm):
        detail = "A call names an algorithm, or says that it leaves it open."
        raise FailureError(failures_pb2.REASON_INPUT_MALFORMED, detail, field="algorithm")


def admit(work: GroupWork, held: HeldHandle, now: float) -> None:
    """Let the group go on under this handle; `now` is in seconds since 1970.

    Items above the rate get RATE_LIMITED and the others go on. Raises FailureError if the whole
    group fails.
    """
    group = work.group
    work.held = held
    suffix, suffix_bytes = held.rule.full_context(
        group.purpose, group.algorithm, group.context
    )  # 4
    work.row = ALGORITHMS.get(group.algorithm)
    work.scope = HandleScope(held, group.algorithm, suffix, suffix_bytes)
    count = len(work.items)
    granted, wait_ms = held.rate.take(count, now)  # 5
    work.positions = range(granted)
    if granted < count:
        reason, sentence = failures_pb2.REASON_RATE_LIMITED, "The grant's rate is used up."
        work.refuse(range(granted, count), FailureError(reason, sentence, retry_after_ms=wait_ms))
