"""The section of the configuration that is about reconciliation."""

from __future__ import annotations

from typing import Annotated

import msgspec
from capsign_evidence.reconcile.timing import Timing
from msgspec import Meta


class Reconcile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What agents report, held against what was signed. One replica does it, all the while; all
    must have the same settings."""

    enabled: bool = True
    """Off: this replica leaves it to others, or to `capsign audit reconcile`."""
    report_seconds: Annotated[int, Meta(ge=10, le=86_400)] = 300
    """A signature that no agent has reported by then is late."""
    silence_seconds: Annotated[int, Meta(ge=60, le=604_800)] = 3600
    """An agent that was not heard of for so long is silent; a living one speaks every 15
    minutes.
    """
    cut_tail_seconds: Annotated[int, Meta(ge=60, le=2_592_000)] = 86_400
    """An agent that was silent for so long does not come back: its tail is cut off."""

    @property
    def ordered(self) -> bool:
        """Whether no time is below the one before it."""
        return self.report_seconds <= self.silence_seconds <= self.cut_tail_seconds

    @property
    def timing(self) -> Timing:
        """The times as the rules take them."""
        return Timing(
            self.report_seconds * 1000, self.silence_seconds * 1000, self.cut_tail_seconds * 1000
        )
