"""When a PIN may be tried again after the token refused it. Pure: tokens lock after a few wrong
ones, and cannot be asked twice.

A PIN that never worked in this process is not tried again: it is wrong, and a restart with the
right one is what helps. One that worked before may have been refused for another reason (an HSM
that fails over, a partition that is being restored), so it is tried again, rarely, and ever more
rarely. Not if the token says that it is locked, that the PIN has ended, or that the next wrong one
locks it: then only a person may.
"""

from __future__ import annotations

from dataclasses import dataclass

PAUSES_S = (10.0, 60.0, 600.0, 3600.0)
"""Before the second, third, fourth and every later try."""


@dataclass(slots=True)
class PinTrials:
    """What happened with the PIN so far. `mark` tells one state of the PIN file from another."""

    worked: bool = False
    _refused: int = 0
    _final: bool = False
    _again_at: float = 0.0
    _mark: object = None

    def accepted(self) -> None:
        """The token took it."""
        self.worked, self._refused, self._final, self._mark = True, 0, False, None

    def refused(self, now: float, mark: object, *, final: bool) -> None:
        """The token did not; `final` if it must not be asked again."""
        self._refused += 1
        self._final = final or not self.worked
        self._mark = mark
        self._again_at = now + PAUSES_S[min(self._refused, len(PAUSES_S)) - 1]

    def may_try(self, now: float, mark: object) -> bool:
        """Whether the token may be asked now."""
        if not self._refused:
            return True
        if self._final:
            return False
        # a file that was written anew holds a PIN that nobody has tried
        return mark != self._mark or now >= self._again_at
