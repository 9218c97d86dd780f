"""How a call of the store can fail. `faults` has the kinds of StoreUnavailableError."""

from __future__ import annotations


class StoreUnavailableError(Exception):
    """The store cannot be used now, and nothing was written."""


class CommitUnknownError(Exception):
    """The store failed during commit: it may or may not be durable."""


class EpochMovedError(Exception):
    """Something was revoked since the caller decided. Nothing was written: decide again under the
    current epoch.
    """


class AuditOutOfOrderError(Exception):
    """The batch does not follow the last one accepted of its boot (`accepted_through`). Nothing was
    written.
    """

    def __init__(self, accepted_through: int) -> None:
        super().__init__(f"accepted through {accepted_through}")
        self.accepted_through = accepted_through
