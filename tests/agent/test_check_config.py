"""`--check-config` of an agent: what a start would meet, told beforehand, and nothing made on the
way.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from capsign_agent import check_config
from capsign_agent.front.sockets import SocketClaim
from capsign_agent.journal.journal import Journal
from capsign_wire.settings import SettingsError
from support.agent_home import Home, home
from support.agent_pki import TestCa


@pytest.fixture
def place(ca: TestCa) -> Iterator[Home]:
    with home(ca, 7443) as one:
        yield one


def said(place: Home) -> str:
    """What the check says, which has made nothing."""
    config = place.config()
    before = sorted(place.root.rglob("*"))
    with pytest.raises(SettingsError) as caught:
        check_config.check(config)
    assert sorted(place.root.rglob("*")) == before
    return str(caught.value)


def test_what_is_good_makes_nothing(place: Home) -> None:
    config = place.config()
    before = sorted(place.root.rglob("*"))
    check_config.check(config)
    assert sorted(place.root.rglob("*")) == before


def test_what_another_agent_holds(place: Home) -> None:
    config = place.config()
    with ExitStack() as held:
        journal = Journal(config.journal.dir, 1 << 20, os.urandom(16), time.time_ns() // 1_000_000)
        held.callback(journal.close)
        assert "Another agent uses the journal" in said(place)
    claim = SocketClaim(place.socket, 0o660)
    try:
        assert "Another agent serves" in said(place)
    finally:
        claim.release()
    check_config.check(config)


def test_a_dead_socket_of_an_earlier_life_is_no_fault_and_stays(place: Home) -> None:
    place.socket.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as earlier:
        earlier.bind(str(place.socket))
    check_config.check(place.config())
    assert place.socket.exists()


def test_a_directory_that_others_may_write_to(place: Home) -> None:
    place.socket.parent.mkdir()
    place.socket.parent.chmod(0o777)
    assert "chmod 0700" in said(place)
    assert place.socket.parent.stat().st_mode & 0o777 == 0o777


def test_in_a_pod(place: Home) -> None:
    place.in_a_pod(7444, place.ca.pem)
    check_config.check(place.config())
    (place.root / "token").write_text("")
    assert "identity.kubernetes.token_file" in said(place)
    (place.root / "token").unlink()
    assert "identity.kubernetes.token_file" in said(place)
    place.in_a_pod(7444, b"nothing\n")
    assert "identity.kubernetes.bundle" in said(place)
    place.in_a_pod(7444, place.ca.pem)
    (place.root / "i").write_text("in the way")
    assert "identity.kubernetes.state_dir" in said(place)


def test_a_workload_api(place: Home) -> None:
    path = place.root / "api.sock"
    place.identity = (
        f'[identity]\nsource = "workload-api"\n[identity.workload_api]\nsocket = "{path}"\n'
    )
    assert "identity.workload_api.socket" in said(place)
    with socket.socket(socket.AF_UNIX) as api:
        api.bind(str(path))
        assert "identity.workload_api.socket" in said(place)
        api.listen()
        check_config.check(place.config())


def test_what_it_remembers_of_the_log_and_cannot_read(place: Home) -> None:
    (place.journal / "witness").mkdir(parents=True)
    (place.journal / "witness" / "checkpoint").write_text("not a note")
    assert "no log-key" in said(place)
