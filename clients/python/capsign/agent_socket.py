"""The agent's socket as a client sees it: what keeps calls from reaching an agent there, and how
long to wait for one.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
from capsign_wire import unix_socket
from capsign_wire.failures import FailureError

from capsign.translate import AgentAwayError, failure_of


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What is wrong with the socket, and what to do about it. `lasting`: waiting does not help."""

    text: str
    advice: str
    lasting: bool = True

    def failure(self, *, lasting: bool) -> AgentAwayError:
        return AgentAwayError(self.text, advice=self.advice, lasting=lasting)


class AgentSocket:
    """One socket, and whether an agent has answered on it."""

    def __init__(self, path: str, connect_timeout: float) -> None:
        """`connect_timeout`: seconds to wait for a socket on which no agent has answered before."""
        self.path = path
        self._connect_timeout = connect_timeout
        self.open = False
        """Whether an agent has answered here before."""

    def blocked(self) -> AgentAwayError | None:
        """The failure of a call if no agent has answered here before and waiting cannot help; else
        None.
        """
        found = None if self.open else obstacle(self.path)
        return found.failure(lasting=True) if found is not None and found.lasting else None

    def deadline(self, wanted: float, now: float) -> float:
        """Until when a call waits for an answer. It is the wanted time if an agent has answered
        before, because that agent may be restarting.
        """
        return wanted if self.open else min(wanted, now + self._connect_timeout)

    def failed(
        self, error: grpc.RpcError, *, effect: bool, until: float = math.inf
    ) -> FailureError:
        """The failure that a failed RPC stands for. If no agent has answered here before, it says
        what is wrong with the socket. `until` is what `deadline` returned.
        """
        patient = time.monotonic() >= until - 0.05
        failure = failure_of(error, effect=effect)
        if FailureError.from_rpc(error) is not None:
            self.open = True  # an agent's own words
            return failure
        if self.open or effect:
            return self._named(failure) if isinstance(failure, AgentAwayError) else failure
        if not isinstance(failure, AgentAwayError):
            return self._stranger(error, lasting=True)
        found = obstacle(self.path)
        if found is not None:
            return found.failure(lasting=found.lasting or patient)
        return self._stranger(error, lasting=patient)

    def late(self) -> FailureError | None:
        """The failure that says what is wrong with the socket while a call waits for it; None if
        nothing is seen to be wrong.
        """
        found = obstacle(self.path)
        return None if found is None else found.failure(lasting=False)

    def _named(self, failure: AgentAwayError) -> FailureError:
        found = obstacle(self.path)
        return failure if found is None else found.failure(lasting=False)

    def _stranger(self, error: grpc.RpcError, *, lasting: bool) -> AgentAwayError:
        code = error.code()
        silent = code in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}
        said = (
            "does not answer as an agent of capsign"
            if silent
            else f"is no agent of capsign: it answers {code.name}"
        )
        text = f"Something listens at {unix_socket.shown(self.path)} and {said}."
        advice = (
            "Give the path of the agent's socket. If this is it, the agent hangs: see its "
            "log, and restart it."
        )
        return AgentAwayError(text, advice=advice, lasting=lasting)


def obstacle(path: str) -> Obstacle | None:
    """What is wrong with the socket at this path, as far as this process can see; None if a process
    listens there.
    """
    shown = unix_socket.shown(path)
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        return _unseen(path, shown, error)
    if not stat.S_ISSOCK(mode):
        return Obstacle(
            f"{shown} is {_kind(path, mode)}, and no socket.",
            "Give the path of the agent's socket.",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return None  # it listens, and has much to do
        except OSError as error:
            return _unopened(path, shown, error)
    return None


def _kind(path: str, mode: int) -> str:
    if stat.S_ISDIR(mode):
        inside = sorted(one.name for one in _entries(path) if one.is_socket())[:3]
        return "a directory" + (
            f" (with the sockets {', '.join(map(unix_socket.shown, inside))})" if inside else ""
        )
    return "a file" if stat.S_ISREG(mode) else "a device or a pipe"


def _entries(path: str) -> list[Path]:
    try:
        return list(Path(path).iterdir())
    except OSError:
        return []


def _unseen(path: str, shown: str, error: OSError) -> Obstacle:
    first = next((one for one in reversed(Path(path).parents) if not _is_open_directory(one)), None)
    where = unix_socket.shown(first) if first is not None else ""
    if error.errno == errno.EACCES and first is not None:
        text = f"User {os.geteuid()} may not enter {where}, in which {shown} would be."
        return Obstacle(text, "Run as a user who may, or see directory_mode of the agent's socket.")
    if error.errno == errno.ENOTDIR and first is not None:
        return Obstacle(
            f"{where} is no directory, so there is no {shown}.",
            "Give the path of the agent's socket.",
        )
    if error.errno != errno.ENOENT:
        return Obstacle(
            f"{shown} cannot be looked at: {error.strerror}.",
            "Give the path of the agent's socket.",
        )
    if first is not None:
        text = f"There is no directory {where}, so there is no socket {shown}."
        return Obstacle(
            text,
            "See that its volume is mounted into this container, or give another path.",
            lasting=False,
        )
    if os.path.lexists(path):
        return Obstacle(
            f"{shown} is a link to what does not exist.",
            "Give the path of the agent's socket.",
            lasting=False,
        )
    advice = "See that the agent runs, and that this is the path of its socket."
    return Obstacle(f"There is no socket {shown}.", advice, lasting=False)


def _is_open_directory(path: Path) -> bool:
    return path.is_dir() and os.access(
        path, os.X_OK, effective_ids=os.access in os.supports_effective_ids
    )


def _unopened(path: str, shown: str, error: OSError) -> Obstacle:
    if error.errno == errno.EACCES:
        about = Path(path).stat()
        whose = f"it is of user {about.st_uid}, mode {about.st_mode & 0o777:04o}"
        text = f"User {os.geteuid()} may not open the socket {shown}: {whose}."
        return Obstacle(text, "Run as a user who may, or see mode of the agent's socket.")
    if error.errno == errno.ECONNREFUSED:
        text = f"Nobody listens on the socket {shown}: the agent that made it has ended."
        return Obstacle(
            text,
            "Start the agent (`capsign-agent --config FILE`), or see why it ended: its log says.",
            lasting=False,
        )
    if error.errno == errno.EPROTOTYPE:
        return Obstacle(
            f"{shown} is another program's socket, for datagrams.",
            "Give the path of the agent's socket.",
        )
    return Obstacle(
        f"{shown} cannot be opened: {error.strerror}.", "See that the agent runs.", lasting=False
    )
