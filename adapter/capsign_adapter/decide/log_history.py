"""Whether the log still extends what it has shown: a checkpoint that was published is a promise
that every later tree begins with that one.
"""

from __future__ import annotations

from collections.abc import Callable

from capsign_evidence.merkle import TreeDataError
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2


def demand_extends(
    where: str, size: int, root: bytes, now_size: int, root_of: Callable[[int], bytes]
) -> None:
    """Raise FailureError LOG_ROLLED_BACK unless the log, of `now_size` leaves now, begins with the
    tree of `size` leaves and that root. `where` says in words who holds the checkpoint of that
    tree; `root_of` gives the root of the first n leaves.
    """
    if size > now_size:
        raise rolled_back(f"The log has {now_size} leaves, and {where} is of {size}.")
    try:
        same = root_of(size) == root
    except TreeDataError:
        raise rolled_back(
            f"The log cannot show its first {size} leaves, of which {where} is."
        ) from None
    if not same:
        raise rolled_back(f"The log's first {size} leaves are not those of {where}.")


def rolled_back(sentence: str) -> FailureError:
    """The failure of a log that contradicts what it has shown."""
    detail = f"{sentence} The store is an older copy or a changed one; nothing was signed."
    return FailureError(failures_pb2.REASON_LOG_ROLLED_BACK, detail)
