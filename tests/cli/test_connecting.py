"""No thread of gRPC's is left when `capsign revoke` ends: the one that looks at a channel's state
ended with a traceback when the channel was closed under it.
"""

from __future__ import annotations

import threading

import grpc
import pytest
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_cli.connecting import connected
from support.adapter_rig import RESPONDER, AdapterRig
from support.replica import RunningReplica


class HeldThreads:
    """The threads in which gRPC looks at a channel's state. None ends before somebody waits for it,
    or `let_go` is called: what leaves one behind does so each time, and not once in a thousand.
    """

    def __init__(self, monkeypatch):
        self.seen: set[threading.Thread] = set()
        self._gate = threading.Event()
        join = threading.Thread.join

        def joined(thread, timeout=None):
            if thread in self.seen:
                self.let_go()
            join(thread, timeout)

        monkeypatch.setattr(threading.Thread, "join", joined)

    def let_go(self):
        self._gate.set()

    def trace(self, frame, event, _):
        caller = frame.f_back
        if (
            event in {"call", "return"}
            and frame.f_code.co_filename.endswith("grpc/_channel.py")
            and caller is not None
            and caller.f_code.co_filename == threading.__file__
        ):
            self.seen.add(threading.current_thread())
            if event == "return":
                self._gate.wait(60)

    def left(self):
        return [thread for thread in self.seen if thread.is_alive()]


@pytest.fixture
def held(monkeypatch):
    threads = HeldThreads(monkeypatch)
    threading.setprofile(threads.trace)
    yield threads
    threading.setprofile(None)
    threads.let_go()
    for thread in threads.seen:
        thread.join()


@pytest.fixture
def running(tmp_path):
    replica = RunningReplica(tmp_path, AdapterRig(tmp_path / "store"))
    yield replica
    replica.stop()
    output.start([])


def test_grpcs_own_way_to_wait_leaves_a_thread(running, held):
    """The control: without it the next tests would prove nothing."""
    with running.as_(RESPONDER) as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        assert held.left()


def test_ours_leaves_none(running, held):
    with running.as_(RESPONDER) as channel:
        with connected(channel):
            assert held.seen
        assert not held.left()


def test_nor_where_nobody_listens(held):
    with grpc.insecure_channel("127.0.0.1:9") as channel:
        with pytest.raises(grpc.FutureTimeoutError), connected(channel):
            raise AssertionError
        assert held.seen
        assert not held.left()


@pytest.mark.parametrize("serial", ["5e" * 16, "not-a-serial"])
def test_a_revocation_ends_without_a_thread(running, held, serial, capsys):
    certificate, key = running.authority.issue(RESPONDER).write(running.directory, "responder")
    at = ["--adapter", running.address, "--ca", str(running.directory / "ca.pem"), "--cert"]
    at += [str(certificate), "--key", str(key), "--server-name", "localhost"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["revoke", "handle", serial, *at])
    told = capsys.readouterr()
    assert not held.left()
    assert (ended.value.code == 0) == ("Serials are not kept" in told.out), told.err
    assert "Traceback" not in told.err
