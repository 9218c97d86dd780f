"""Decides when a PIN may be tried again after the token refused it, because tokens lock after a few
wrong ones. Pure.

A PIN that never worked in this process is not tried again: it is wrong, and only a restart with the
right one helps. One that worked before may have been refused for another reason (an HSM that fails
over, a partition that is being restored), so it is tried again, at growing intervals. Not, however,
if the token says that it is locked, that the PIN has expired, or that the next wrong one locks it:
then a person must act.
"""

from __future__ import annotations

from dataclasses import dataclass

PAUSES_S = (10.0, 60.0, 600.0, 3600.0)
"""Seconds before the second, third, fourth and every later try."""


@dataclass(slots=True)
class PinTrials:
    """The attempts with the PIN so far. `mark` identifies a state of the PIN file, see
    `pin.mark_of`.
    """

    worked: bool = False
    _refused: int = 0
    _final: bool = False
    _again_at: float = 0.0
    _mark: object = None

    def accepted(self) -> None:
        """The token accepted the PIN."""
        self.worked, self._refused, self._final, self._mark = True, 0, False, None

    def refused(self, now: float, mark: object, *, final: bool) -> None:
        """The token refused the PIN; `final` if it must not be asked again."""
        self._refused += 1
        self._final = final or not self.worked
        self._mark = mark
        self._again_at = now + PAUSES_S[min(self._refused, len(PAUSES_S)) - 1]

    def may_try(self, now: float, mark: object) -> bool:
        """Whether the PIN may be tried now."""
        if not self._refused:
            return True
        if self._final:
            return False
        # a file that was written anew holds a PIN that nobody has tried
        return mark != self._mark or now >= self._again_at
