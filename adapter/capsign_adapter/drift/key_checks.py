"""Holds the keys in the token against their check values: some at each look, all of them in turn.

A key that was not used since the login is searched for, and SoftHSM compares all its objects for
that: 0.2 s for each key among 5,000. So a look asks for as many as that bounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from capsign_adapter.decide.drift_token import of_check
from capsign_adapter.keys import check_values
from capsign_adapter.model.drift import Difference
from capsign_adapter.token.interface import Token

COMPARED = 50_000
"""Objects that the token may compare for one look, about two seconds of SoftHSM in short calls."""

LEAST = 4
"""Keys asked for at each look, however many there are."""


@dataclass(frozen=True, slots=True, order=True)
class Checked:
    """A key with the check value that was written down when it was made."""

    label: str
    expected: bytes
    derived: bool


class KeyChecks:
    """Of one replica; for one thread at a time."""

    def __init__(self, compared: int = COMPARED) -> None:
        self._compared = compared
        self._last = ""
        self._found: dict[str, Difference] = {}

    def differences(
        self, token: Token, keys: Iterable[Checked], objects: int
    ) -> tuple[Difference, ...]:
        """All that are known by now, after asking for those whose turn it is, and for those that
        differed before. `objects` are how many the token holds. Raises TokenError.
        """
        known = sorted(keys)
        labels = {one.label for one in known}
        self._found = {label: one for label, one in self._found.items() if label in labels}
        most = max(LEAST, self._compared // max(1, objects))
        known.sort(key=lambda one: (one.label not in self._found, one.label <= self._last))
        for one in known[:most]:
            if one.label not in self._found:
                self._last = one.label
            self._found.pop(one.label, None)
            # a key that is missing is told as that
            value = check_values.of_either(token, one.label, one.derived)
            for difference in of_check(one.label, one.expected, value) if value is not None else ():
                self._found[one.label] = difference
        return tuple(self._found.values())
