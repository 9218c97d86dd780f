from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from capsign_agent.front import sockets
from capsign_agent.front.sockets import SocketClaim, SocketError


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cs") as root:
        yield Path(root) / "d" / "agent.sock"


def listen(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server


def test_the_directory_is_made_for_us_alone_and_the_socket_has_its_mode(path: Path) -> None:
    claim = SocketClaim(path, 0o660)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with listen(path):
        claim.bound()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert claim.intact
        claim.release()
    assert not path.exists()


def test_a_live_socket_is_not_taken_over(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with listen(path) as server:
        with pytest.raises(SocketError, match="serves"):
            SocketClaim(path, 0o660)
        server.accept()[0].close()
        assert path.exists()


def test_a_second_agent_is_refused_before_the_first_has_bound(path: Path) -> None:
    claim = SocketClaim(path, 0o660)
    with pytest.raises(SocketError, match="Another agent"):
        SocketClaim(path, 0o660)
    claim.release()
    SocketClaim(path, 0o660).release()


def test_a_dead_socket_is_removed(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    listen(path).close()
    assert path.exists()
    SocketClaim(path, 0o660).release()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["link", "file", "directory"])
def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    path.parent.mkdir(mode=0o700)
    if kind == "link":
        target = path.with_name("other.sock")
        with listen(target):
            path.symlink_to(target)
            with pytest.raises(SocketError, match="not a socket"):
                SocketClaim(path, 0o660)
    else:
        path.touch() if kind == "file" else path.mkdir()
        with pytest.raises(SocketError, match="not a socket"):
            SocketClaim(path, 0o660)
    assert path.is_symlink() or path.exists()


ROOT, OURS, VOLUME = 0, 65532, stat.S_IFDIR | 0o777


@pytest.mark.parametrize(
    ("mode", "owner", "mounted", "euid", "is_volume"),
    [
        (VOLUME, ROOT, True, OURS, True),
        (VOLUME | stat.S_ISGID, ROOT, True, OURS, True),  # under an fsGroup
        (VOLUME | stat.S_ISVTX, ROOT, True, OURS, True),  # in memory: a tmpfs is sticky from birth
        (VOLUME, ROOT, False, OURS, False),  # somebody's directory
        (VOLUME, 1000, True, OURS, False),
        (VOLUME, ROOT, True, ROOT, False),  # we could make it ours alone
    ],
)
def test_what_counts_as_a_volume_of_the_pod(
    mode: int, owner: int, mounted: bool, euid: int, is_volume: bool
) -> None:
    state = os.stat_result((mode, 1, 1, 1, owner, 0, 0, 0, 0, 0))
    assert sockets.is_volume(state, mounted=mounted, euid=euid) is is_volume


def test_a_directory_that_a_killed_life_had_not_finished_is_finished(path: Path) -> None:
    """Made with the volume's setgid and for the agent alone; then came kill -9, before the mode was
    set.
    """
    path.parent.mkdir()
    path.parent.chmod(0o2700)
    SocketClaim(path, 0o666, 0o711).release()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o711


def test_who_mounts_the_volume_may_call_where_that_is_configured(path: Path) -> None:
    claim = SocketClaim(path, 0o666, 0o711)
    with listen(path):
        claim.bound()
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        claim.release()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o755])
def test_a_directory_that_others_can_enter_is_refused(path: Path, mode: int) -> None:
    path.parent.mkdir()
    path.parent.chmod(mode)
    with pytest.raises(SocketError, match="wider than"):
        SocketClaim(path, 0o660)


def test_a_wider_directory_is_fine_where_it_is_configured(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o755)
    SocketClaim(path, 0o660, 0o755).release()


def test_a_directory_that_is_a_link_is_refused(path: Path) -> None:
    real = path.parent.with_name("real")
    real.mkdir(mode=0o700)
    path.parent.symlink_to(real)
    with pytest.raises(SocketError, match="not a directory itself"):
        SocketClaim(path, 0o660)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_a_directory_of_somebody_else_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    os.chown(path.parent, 12345, 12345)
    with pytest.raises(SocketError, match="belongs to user 12345"):
        SocketClaim(path, 0o660)


def test_a_replaced_socket_is_noticed_and_not_removed(path: Path) -> None:
    claim = SocketClaim(path, 0o660)
    with listen(path):
        claim.bound()
        path.unlink()
        assert not claim.intact
        with listen(path):
            assert not claim.intact
            claim.release()
            assert path.exists()
