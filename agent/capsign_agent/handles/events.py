"""Takes and drops handles; each change is recorded in the journal and logged."""

from __future__ import annotations

import time
from collections.abc import Callable

from capsign_wire import logs
from capsign_wire.adapter.v1 import capability_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.handles.registry import HandleRegistry
from capsign_agent.journal import records
from capsign_agent.journal.journal import Journal


class HandleEvents:
    """Changes a registry and reports the changes. For one event loop."""

    def __init__(
        self, registry: HandleRegistry, journal: Journal, clock: Callable[[], float] = time.time
    ) -> None:
        self._registry = registry
        self._journal = journal
        self._clock = clock
        self._missing: list[str] = []

    def take(self, change: Callable[[float], None]) -> None:
        """Take handles: `change` puts them into the registry and is given the time. Raises
        HANDLE_FORGED if one of them cannot be narrowed; the others are taken.
        """
        before = self._allowed()
        try:
            change(self._clock())
        except ValueError:
            raise FailureError(
                failures_pb2.REASON_HANDLE_FORGED, "A handle from the adapter cannot be narrowed."
            ) from None
        self._tell("handles.taken", routine=self._allowed() == before)

    def drop(self, grant: str) -> None:
        """Drop the handle of a grant, which the adapter refused as revoked."""
        if grant in self._registry.issued:
            self._registry.drop_grant(grant)
            self._tell("handles.dropped")

    def heed(self, told: capability_pb2.WatchResponse) -> bool:
        """Drop what the adapter says was withdrawn. Returns whether something of it was held."""
        registry = self._registry
        before = len(registry.issued)
        if told.drop_all:
            registry.drop_all()
        for grant in told.dropped_grants:
            registry.drop_grant(grant)
        registry.drop_serials(told.dropped_serials)
        if len(registry.issued) == before:
            return False
        self._tell("handles.dropped")
        return True

    def tell_missing(self) -> None:
        """Log which of the configured grants the adapter does not give, whenever that changes."""
        issued = self._registry.issued
        missing = [grant for grant in self._registry.wanted if grant not in issued]
        if missing != self._missing:
            self._missing = missing
            (logs.warning if missing else logs.event)("handles.missing", grants=" ".join(missing))

    def _allowed(self) -> dict[str, bytes]:
        """What each grant's handle allows, without the fields that every renewal changes."""
        allowed = {}
        for grant, issued in self._registry.issued.items():
            said = capability_pb2.IssuedHandle()
            said.CopyFrom(issued)
            for name in ("token", "serial", "not_before", "expires_at"):
                said.ClearField(name)
            allowed[grant] = said.SerializeToString(deterministic=True)
        return allowed

    def _tell(self, event: str, *, routine: bool = False) -> None:
        """Log and record a change. `routine`: the handles allow what those before them allowed."""
        count = len(self._registry.issued)
        logs.event(event, handles=count)
        try:
            self._journal.append(records.handles(count), routine=routine)
        except FailureError as error:
            logs.warning("journal.refused", reason=error.row.name)
