"""What became of the agent's identity: a record, a log line, a word for health. Told by the
sources, once for each change.
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
    """For one event loop. `append` puts records into the journal and raises FailureError when it is
    full.
    """

    def __init__(self, append: Callable[[records.Piece], None]) -> None:
        self._append = append
        self.last_error = ""
        """Why there is no newer identity: the word of an IdentityError; empty while nothing
        hinders.
        """
        self.advice = ""
        """What to do about it, a sentence; empty where only the adapter knows."""

    def issued(self, source: str, held: Credentials) -> None:
        """The first certificate of this life, or one that follows no other."""
        self._good("identity.issued", records.identity_issued(), source, held)

    def renewed(self, source: str, held: Credentials) -> None:
        """The certificate that follows the one in use."""
        self._good("identity.renewed", records.identity_renewed(), source, held)

    def hindered(self, error: IdentityError) -> None:
        """There is none for now. Said once for each reason, not for each try; a refusal is
        evidence, the rest is not.
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
        """What was tried last went well, and was no certificate."""
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
