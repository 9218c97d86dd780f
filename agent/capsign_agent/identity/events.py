"""Reports changes of the agent's identity to journal, log and health. The sources call it, once for
each change.
"""

from __future__ import annotations

from collections.abc import Callable

from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.identity.credentials import Credentials
from capsign_agent.identity.source import IdentityError
from capsign_agent.journal import records


class IdentityEvents:
    """`append` writes records to the journal and raises FailureError when it is full. For one event
    loop.
    """

    def __init__(self, append: Callable[[records.Piece], None]) -> None:
        self._append = append
        self.last_error = ""
        """Why there is no newer certificate, as the word of an IdentityError; empty if the last
        attempt succeeded.
        """
        self.advice = ""
        """What to do about it, as a sentence; empty if only the adapter knows."""

    def issued(self, source: str, held: Credentials) -> None:
        """The first certificate of this life, or one that does not follow another."""
        self._good("identity.issued", records.identity_issued(held.key_hash), source, held)

    def renewed(self, source: str, held: Credentials) -> None:
        """A certificate that follows the one in use."""
        self._good("identity.renewed", records.identity_renewed(held.key_hash), source, held)

    def hindered(self, error: IdentityError) -> None:
        """There is no new certificate for now. Reported once for each reason and not for each
        attempt; only an adapter's refusal is recorded in the journal.
        """
        if error.word == self.last_error:
            return
        self.last_error, self.advice = error.word, error.advice
        if error.outcome == failures_pb2.OUTCOME_REFUSED:
            logs.warning("identity.refused", reason=error.word)
            self._note(records.identity_refused(error.reason))
        else:
            advice = {"advice": error.advice} if error.advice else {}
            logs.warning("identity.unavailable", reason=error.word, **advice)

    def unhindered(self) -> None:
        """The last attempt succeeded, without a new certificate."""
        self.last_error = self.advice = ""

    def _good(self, event: str, piece: records.Piece, source: str, held: Credentials) -> None:
        self.unhindered()
        logs.event(event, source=source, ends=int(held.ends))
        self._note(piece)

    def _note(self, piece: records.Piece) -> None:
        try:
            self._append(piece)
        except FailureError as error:
            logs.warning("journal.refused", reason=error.row.name)
