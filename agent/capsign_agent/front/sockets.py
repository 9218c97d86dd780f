"""Unix sockets that nobody can take over: neither an attacker, nor a second agent, nor this one by
accident.

grpcio replaces a socket in use at the same path silently, follows a symbolic link there, and leaves
the mode to the umask. So the directory must belong to us alone, a lock is held before anything is
bound, what lies at the path is examined, and the inode that was bound is remembered: if another
socket takes its place, health reports it.

In Kubernetes a volume belongs to root and is open to all (an emptyDir: 0777, sticky in memory,
setgid under an fsGroup); who may write there is decided by who mounts it. The agent makes a
directory of its own in it, and takes it over, with a socket that was left behind, when the kubelet
restarts the container on the same volume. If only the agent mounts a volume, its sockets may lie in
the volume itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from pathlib import Path
from shlex import quote

from capsign_wire import unix_socket

from capsign_agent.writable import obstacle


class SocketError(Exception):
    """The socket cannot be made. The text names the path and the fix."""


def look_at(path: Path, directory_mode: int = 0o700) -> None:
    """Check whether a claim of this path would succeed, without changing anything. Raises
    SocketError.
    """
    hindrance = obstacle(path.parent)
    if hindrance:
        raise SocketError(
            f"The socket directory {path.parent} {hindrance}. Give the agent one of its own."
        )
    if path.parent.exists():
        _check_directory(path.parent, directory_mode, make=False)
        with contextlib.suppress(FileNotFoundError):
            os.close(_lock(path, make=False))
        _clear(path, remove=False)


class SocketClaim:
    """A path at which we may bind. Create it, bind the server, then call `bound`; call `release` at
    the end.
    """

    def __init__(self, path: Path, mode: int, directory_mode: int = 0o700) -> None:
        """Take the path. Raises SocketError."""
        self.path = path
        self._mode = mode
        _check_directory(path.parent, directory_mode)
        self._lock = _lock(path)
        try:
            _clear(path)
        except SocketError:
            os.close(self._lock)
            raise
        self._inode: tuple[int, int] | None = None

    @property
    def address(self) -> str:
        """The address in grpcio's syntax."""
        return unix_socket.target(self.path)

    def bound(self) -> None:
        """To be called when the server listens: sets the mode and remembers the inode."""
        self.path.chmod(self._mode)
        self._inode = self._look()

    @property
    def intact(self) -> bool:
        """Whether what lies at the path is still the socket that was bound."""
        return self._inode is not None and self._look() == self._inode

    def release(self) -> None:
        """Remove the socket if it is the one that was bound, and release the lock."""
        if self.intact:
            self.path.unlink(missing_ok=True)
        os.close(self._lock)

    def _look(self) -> tuple[int, int] | None:
        try:
            state = self.path.lstat()
        except OSError:
            return None
        return (state.st_dev, state.st_ino) if stat.S_ISSOCK(state.st_mode) else None


def _check_directory(directory: Path, mode: int, *, make: bool = True) -> None:
    """Make the directory, or check that it is ours and that nobody else can write into it. Raises
    SocketError.
    """
    try:
        if not make:
            raise FileExistsError
        directory.mkdir(mode=0o700, parents=True)
        directory.chmod(mode)
        return
    except FileExistsError:
        pass
    except OSError as error:
        raise SocketError(
            f"The socket directory {directory} cannot be made ({error.strerror})."
        ) from None
    state = directory.lstat()
    if not stat.S_ISDIR(state.st_mode):
        raise SocketError(
            f"The socket directory {directory} is not a directory itself. Remove what is "
            f"there, link or file."
        )
    if is_volume(state, mounted=directory.is_mount(), euid=os.geteuid()):
        return
    if state.st_uid != os.geteuid():
        raise SocketError(
            f"The socket directory {directory} belongs to user {state.st_uid}. Give the "
            f"agent one of its own."
        )
    found = stat.S_IMODE(state.st_mode)
    if found & 0o1777 & ~mode:
        raise SocketError(
            f"The socket directory {directory} has mode {found:04o}, wider than {mode:04o}. "
            f"Run `chmod {mode:04o} {quote(str(directory))}`, or set directory_mode."
        )
    if found != mode and make:
        # a life that ended between the two calls above, or setgid that came from the volume
        directory.chmod(mode)


def is_volume(state: os.stat_result, *, mounted: bool, euid: int) -> bool:
    """Whether the directory is a volume as the kubelet makes it for a process that is not root.

    It cannot be told from a /tmp that is a file system of its own: an emptyDir in memory is a tmpfs
    with the sticky bit. That is safe: with the sticky bit nobody else can remove or replace what is
    ours, and `_lock` and `_clear` refuse what another user put at the path before us.
    """
    return mounted and state.st_uid == 0 and euid != 0


def _lock(path: Path, *, make: bool = True) -> int:
    """Take the lock beside the socket. Raises SocketError; FileNotFoundError if nothing is to be
    made and it does not exist.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = os.open(
            lock, os.O_RDWR | (os.O_CREAT if make else 0) | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        if not make and isinstance(error, FileNotFoundError):
            raise
        raise SocketError(f"The lock {lock} cannot be opened ({error.strerror}).") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise SocketError(
            f"Another agent serves {path}. Stop it, or give this one another path."
        ) from None
    return descriptor


def _clear(path: Path, *, remove: bool = True) -> None:
    """Remove a socket that no process serves any more; raises SocketError for anything else."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(state.st_mode):
        raise SocketError(f"At {path} there is something that is not a socket. Remove it.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            if remove:
                # a dead one of an earlier life; the lock says that nobody else is about to serve it
                path.unlink()
            return
        except OSError as error:
            raise SocketError(
                f"The socket {path} neither answers nor is dead ({error.strerror}). Remove it."
            ) from None
    raise SocketError(f"Somebody serves {path} already. Stop that process, or choose another path.")
