"""A witness without its HTTP: bytes in, status and bytes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.note import NoteVerifier, SignatureLine, add_lines, parse_note
from capsign_evidence.tlog_policy import PolicyError, parse_policy
from capsign_evidence.witness_protocol import (
    SIZE_TYPE,
    AddCheckpoint,
    ConflictError,
    InconsistentError,
    RefusedError,
    admit,
    answer_of,
    authentic,
)
from capsign_wire import logs

from capsign_witness.failures import WitnessError
from capsign_witness.keys import WitnessKeys
from capsign_witness.state import State

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    content_type: str = TEXT


class Witness:
    """Cosigns for the logs that it knows. For one thread."""

    def __init__(
        self,
        keys: WitnessKeys,
        state: State,
        known: Mapping[str, Sequence[NoteVerifier]],
        clock_s: Callable[[], int],
    ) -> None:
        """`known`: keys of logs by origin. `clock_s`: seconds since 1970."""
        self._keys = keys
        self._state = state
        self._known = known
        self._clock_s = clock_s

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answers `add-checkpoint`: cosignature lines, or why there are none."""
        try:
            request = AddCheckpoint.parse(body)
            head, signed = authentic(request, self._known)
            return self._cosigned(request, head, signed)
        except ConflictError as conflict:
            return Answer(409, str(conflict).encode(), SIZE_TYPE)
        except RefusedError as refused:
            return Answer(refused.status, f"{refused}\n".encode())

    def _cosigned(self, request: AddCheckpoint, head: TreeHead, signed: bytes) -> Answer:
        text = parse_note(signed).text
        lines: list[SignatureLine] = []

        def note(at_s: int) -> bytes:
            """With the signatures of the log that were verified, and ours."""
            lines.extend(self._keys.cosign(text, at_s))
            return add_lines(signed, lines)

        try:
            self._state.move(head, lambda held: admit(request, head, held), note, self._clock_s)
        except InconsistentError as error:
            # whoever runs the witness wants to know, and needs the note
            self._state.keep_contradiction(head, signed, proven=error.proven)
            logs.error(
                "witness.inconsistent", origin=head.origin, size=head.size, proven=error.proven
            )
            raise
        return Answer(200, answer_of(lines))

    def checkpoint(self, key: str) -> Answer:
        """Answers for the last checkpoint of the log whose origin has this hash."""
        note = self._state.note(key)
        if note is None:
            return Answer(404, b"No checkpoint of such a log was cosigned here.\n")
        return Answer(200, note)


def known_logs(data: bytes) -> dict[str, list[NoteVerifier]]:
    """Keys by origin from the `log` lines of a tlog-policy file. Raises WitnessError."""
    try:
        policy = parse_policy(data)
    except PolicyError as error:
        raise WitnessError(f"The file of logs is not good: {error}.") from None
    found: dict[str, list[NoteVerifier]] = {}
    for log in policy.logs:
        found.setdefault(log.key.name, []).append(log.key)
    if not found:
        raise WitnessError("The file of logs names none. Add a line: log <verifier key>.")
    return found
