"""Lists everything in a token in short steps: between them the token's thread serves others.

With 5,000 keys one listing takes SoftHSM three seconds, a fresh login half a second, and each key
that is used first after it a search of a fifth of a second. So the login that signs is kept while
nothing changes, and the search runs in a session of its own beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, TypeVar

from capsign_adapter.model.drift import TokenObject
from capsign_adapter.token.interface import TokenContestedError, TokenError
from capsign_adapter.token.session import Session

T = TypeVar("T")

STEP = 64
"""Objects looked at in one step, about 20 ms in SoftHSM."""

FRESH_EVERY = 15
"""After so many looks that saw the same the next one logs in anew: SoftHSM can miss for ever what
another process stored in the same moment.
"""


class Survey:
    """The objects of one token. For one thread at a time, which is not the token's."""

    def __init__(self, session: Session, run: Callable[[Callable[[], Any]], Any]) -> None:
        """`run` runs an operation on the token's thread, once, in its turn."""
        self._session = session
        self._run = run
        self._known: tuple[TokenObject, ...] | None = None
        self._alike = 0

    def contents(self) -> tuple[TokenObject, ...]:
        """Everything in the token, sorted. What differs from the look before counts if two logins
        in a row, the second one fresh, show the same: a token that is failing shows fewer. Raises
        TokenContestedError if they do not, and what the token raises.
        """
        found = self._listed()
        if found == self._known and self._alike < FRESH_EVERY:
            self._alike += 1
            return found
        for _ in range(2):
            before, found = found, self._listed(fresh=True)
            if found == before:
                self._known, self._alike = found, 0
                return found
        raise TokenContestedError("the objects of the token changed while they were listed")

    def _listed(self, *, fresh: bool = False) -> tuple[TokenObject, ...]:
        found: list[TokenObject] = []
        steps = self._steps(found, fresh)
        try:
            while self._run(lambda: next(steps, False)):
                pass
        except BaseException:
            with suppress(TokenError):  # it ends with the login then
                self._run(steps.close)
            raise
        return tuple(sorted(found))

    def _steps(self, found: list[TokenObject], fresh: bool) -> Generator[bool, None, None]:
        """Adds to `found`, and yields between steps. On the token's thread."""
        if fresh:
            self._session.renew()
        generation, beside = self._session.generation, self._session.beside()
        try:
            for number, one in enumerate(self._session.objects(beside), 1):
                found.append(one)
                if number % STEP:
                    continue
                yield True
                if self._session.generation != generation:  # another call lost the session
                    raise TokenContestedError("the session was lost while the token was listed")
        finally:
            if self._session.generation == generation:  # else it ended with the module
                beside.close()
