"""What breaks under a running deployment: processes, disks, files, the network, the clock.

Callers hear which of refused, unavailable and unknown is true, resolving an unknown tells the
truth, and when the fault is over the same processes sign again by themselves. Afterwards log,
ledger and the agent's records agree.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import capsign
import grpc
import pytest
from capsign_evidence import packed_batch, told_calls
from capsign_wire import sqlite_url
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.agent.v1 import agent_pb2, agent_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2, signing_pb2
from support.black_hole import BlackHole
from support.dev import Dev, stopped
from support.hostile import assert_consistent, assert_nothing_told, told_by

JWT = {"purpose": "jwt", "algorithm": "ES256", "protocol": "jwt"}
DIRECT = {"purpose": "root-es256", "algorithm": "ES256"}
PATIENCE_S = 40


@pytest.fixture
def dev(short_dir):
    one = Dev(short_dir / "d")
    try:
        yield one
        assert_consistent(one)
        assert_nothing_told(one)
    finally:
        one.close()


@pytest.fixture
def disks(short_dir):
    """The store and the agent's journal, each on a small disk of its own. The deployment is made
    afterwards.
    """
    if os.geteuid():
        pytest.fail("Small disks are mounted for this test: run it as root.", pytrace=False)
    state = short_dir / "d" / "state"
    state.mkdir(mode=0o700, parents=True)
    (short_dir / "d").chmod(0o700)
    with ExitStack() as mounted:
        for place in (state, state / "journal"):
            place.mkdir(mode=0o700, exist_ok=True)
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "none", str(place)], check=True
            )
            mounted.callback(subprocess.run, ["umount", "-l", str(place)], check=True)
        one = Dev(short_dir / "d")
        try:
            yield one
        finally:
            one.close()


def store_file(dev: Dev) -> Path:
    return Path(sqlite_url.path_of(dev.about["store"]))


def fill(disk: Path) -> None:
    """Not a byte is left."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * size)


def signs_again(signer: capsign.Signer, **wish) -> capsign.Signature:
    """The fault is over: within bounds, and without anything being restarted, a call is done."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return signer.sign(b"after the fault", timeout=5.0, **(wish or JWT))
        except (capsign.Unavailable, capsign.Unknown):
            if time.monotonic() > end:
                raise


def ask(dev: Dev, wish: dict = JWT) -> tuple[FailureError | None, bytes]:
    """One attempt at the agent, without the client's retries: how it failed, if it did, and its
    intent.
    """
    with grpc.insecure_channel(
        f"unix:{dev.socket()}", [("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        stub = agent_pb2_grpc.SigningServiceStub(channel)
        listed = stub.ListHandles(agent_pb2.ListHandlesRequest(), timeout=10).handles
        (handle,) = [one.id for one in listed if one.purpose == wish["purpose"]]
        request = agent_pb2.SignRequest(
            handle_id=handle,
            algorithm=algorithms_pb2.ALGORITHM_ES256,
            context=signing_pb2.ContextSuffix(protocol=wish.get("protocol", "")),
            item=agent_pb2.SignItem(intent_id=new_intent_id(), message=b"during the fault"),
        )
        error = stub.Sign.future(request, timeout=30).exception()
    failure = FailureError.from_rpc(error) if error is not None else None
    assert (failure is None) == (error is None), f"not in our terms: {error}"
    return failure, request.item.intent_id


def fails(dev: Dev, reason: str, wish: dict = JWT) -> None:
    """It fails for this reason, which says that nothing happened, and nothing did."""
    failure, intent = ask(dev, wish)
    assert failure is not None
    assert failure.row.name == reason
    assert failure.outcome == failures_pb2.OUTCOME_UNAVAILABLE
    assert intent not in dev.signed_intents()


def exhausted(dev: Dev, disk: Path, reason: str) -> list[bytes]:
    """The disk is filled until a call fails for this reason. The intents that were signed on the
    way.
    """
    done = []
    for _ in range(400):  # the last page of a file that exists may still take a few
        fill(disk)
        failure, intent = ask(dev)
        if failure is not None and failure.row.name == "ANSWER_LOST":
            # the intent still found room in the journal and its outcome did not: signed, and not
            # handed out
            done.append(intent)
        elif failure is not None:
            assert failure.row.name == reason
            assert failure.outcome == failures_pb2.OUTCOME_UNAVAILABLE
            return done
        else:
            done.append(intent)
    raise AssertionError("a full disk never stopped it")


# Disks and files.


def test_a_full_disk_under_the_store_is_a_certain_no_and_signing_resumes(disks):
    state = store_file(disks).parent
    done = exhausted(disks, state, "STORE_UNAVAILABLE")
    (state / "ballast").unlink()
    with capsign.Signer(disks.socket()) as signer:
        done.append(signs_again(signer).intent_id)
    assert disks.signed_intents().keys() >= set(done)
    assert_reported(disks)
    assert_consistent(disks)
    assert_nothing_told(disks)


def test_a_full_disk_under_the_journal_stops_signing_and_loses_nothing(disks):
    journal = store_file(disks).parent / "journal"
    done = exhausted(disks, journal, "JOURNAL_FULL")
    (journal / "ballast").unlink()
    with capsign.Signer(disks.socket()) as signer:
        done.append(signs_again(signer).intent_id)
    assert disks.signed_intents().keys() >= set(done)
    assert_reported(disks)
    assert_consistent(disks)
    assert_nothing_told(disks)


def test_a_read_only_disk_stops_the_adapter_at_its_start(disks):
    state = store_file(disks).parent
    disks.end(disks.adapter())
    subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
    about = disks.about["adapters"][0]
    command = [sys.executable, "-m", "capsign_adapter", "--config", about["config"]]
    environ = os.environ | {"SOFTHSM2_CONF": disks.about["token"]["conf"]}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environ, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "ead-only" in done.stderr or "writable" in done.stderr
    failure, intent = ask(disks)
    assert failure is not None
    assert failure.row.name == "UPSTREAM_UNREACHABLE"
    subprocess.run(["mount", "-o", "remount,rw", str(state)], check=True)
    disks.start_adapter()
    with capsign.Signer(disks.socket()) as signer:
        signs_again(signer)
    assert intent not in disks.signed_intents()
    assert_consistent(disks)


def test_a_store_that_vanishes_takes_no_commit_and_is_not_made_anew(dev):
    path = store_file(dev)
    with capsign.Signer(dev.socket()) as signer:
        signer.sign(b"before", **JWT)
        path.rename(path.with_name("moved"))
        failure, intent = ask(dev)
        assert failure is not None
        assert failure.row.name == "STORE_UNAVAILABLE"
        assert not path.exists()
        path.with_name("moved").rename(path)
        assert intent not in dev.signed_intents()
        signs_again(signer)


def test_a_token_that_vanishes_is_unavailable_and_never_absent(dev):
    tokens = Path(dev.about["token"]["tokens"])
    with capsign.Signer(dev.socket()) as signer:
        signer.sign(b"before", **DIRECT)
        tokens.rename(tokens.with_name("gone"))
        fails(dev, "TOKEN_UNAVAILABLE", DIRECT)
        tokens.with_name("gone").rename(tokens)
        signs_again(signer, **DIRECT)


# Processes.


@contextmanager
def load(dev: Dev, threads: int = 8):
    """Applications that sign all the while. What they got, and what they do not know, is in the
    lists.
    """
    done: list[capsign.Signature] = []
    unknown: list[capsign.Unknown] = []
    stop = threading.Event()

    def work(_):
        with capsign.Signer(dev.socket()) as signer:
            while not stop.is_set():
                try:
                    done.append(signer.sign(b"under load", timeout=5.0, **JWT))
                except capsign.Unknown as error:
                    unknown.append(error)
                except capsign.Unavailable:
                    continue

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(work, number) for number in range(threads)]
        try:
            yield done, unknown
        finally:
            stop.set()
            for one in running:
                one.result(60)


def more(done: list, count: int = 50) -> None:
    """Wait until so many more are done."""
    until, end, pause = len(done) + count, time.monotonic() + PATIENCE_S, threading.Event()
    while len(done) < until:
        assert time.monotonic() < end, "nothing is signed any more"
        pause.wait(0.02)


def assert_reported(dev: Dev) -> None:
    """Every signature in the log is in an agent's record too, once the agent has delivered: none
    was signed unseen (I8).
    """
    pause, end = threading.Event(), time.monotonic() + PATIENCE_S
    while True:
        missing = dev.signed_intents().keys() - _reported(dev)
        if not missing:
            return
        assert time.monotonic() < end, f"{len(missing)} signatures were never reported"
        pause.wait(0.2)


def _reported(dev: Dev) -> set[bytes]:
    connection = sqlite3.connect(f"{store_file(dev).as_uri()}?mode=ro", uri=True)
    try:
        batches = [
            evidence_pb2.AuditBatch.FromString(packed_batch.unpack(row[0]))
            for row in connection.execute("SELECT batch FROM audit_batches")
        ]
    finally:
        connection.close()
    return {
        intent_id
        for batch in batches
        for record in batch.records
        for intent_id in told_calls.intents(record)
        if intent_id
    }


def settle(dev: Dev, done: list, unknown: list) -> None:
    """Resolve what is unknown; then everything that anybody has is in the log, once, and in an
    agent's record.
    """
    with capsign.Signer(dev.socket(), timeout=20) as signer:
        endings = [(error, signer.resolve(error.intent_id, purpose="jwt")) for error in unknown]
    signed = dev.signed_intents()
    for error, ending in endings:
        assert (error.intent_id in signed) == isinstance(ending, capsign.Done)
    assert all(len(signed[one.intent_id]) == 1 for one in done)
    assert_reported(dev)


def test_adapter_and_agent_killed_under_load_lose_nothing(dev):
    with load(dev) as (done, unknown):
        more(done)
        dev.end(dev.adapter(), signal.SIGKILL)
        dev.end(dev.agent, signal.SIGKILL)
        dev.start_adapter()
        dev.start_agent()
        more(done)
    settle(dev, done, unknown)


def test_a_stopped_adapter_makes_unknowns_and_each_is_resolved_truly(dev):
    with load(dev, threads=4) as (done, unknown):
        more(done)
        with stopped(dev.adapter()):
            end = time.monotonic() + PATIENCE_S
            while len(unknown) < 4 and time.monotonic() < end:
                time.sleep(0.05)
        more(done)
    assert len(unknown) >= 4
    settle(dev, done, unknown)


def test_a_stopped_agent_is_unknown_to_its_application_until_it_goes_on(dev):
    with capsign.Signer(dev.socket()) as signer:
        signer.sign(b"before", **JWT)
        with stopped(dev.agent), pytest.raises(capsign.Unknown) as caught:
            signer.sign(b"stuck", timeout=1.0, **JWT)
        ending = signer.resolve(caught.value)
        assert (caught.value.intent_id in dev.signed_intents()) == isinstance(ending, capsign.Done)


# The network.


@contextmanager
def partitioned(dev: Dev):
    """The agent reaches each replica through a proxy that can swallow everything."""
    dev.end(dev.agent)
    config, proxies = Path(dev.about["agent"]["config"]), []
    text = config.read_text()
    for adapter in dev.about["adapters"]:
        proxies.append(BlackHole(adapter["address"]))
        assert adapter["address"] in text
        text = text.replace(adapter["address"], proxies[-1].address)
    config.write_text(text)
    agent = dev.start_agent()
    dev.wait_serving(dev.about["agent"]["health"])
    try:
        yield proxies
    finally:
        agent.terminate()  # while it can still deliver its journal
        agent.wait(30)
        for one in proxies:
            one.close()


def test_a_network_that_swallows_everything_makes_unknowns_and_heals(dev):
    with partitioned(dev) as (proxy,):
        with load(dev, threads=4) as (done, unknown):
            more(done)
            proxy.swallow()
            end = time.monotonic() + PATIENCE_S
            while len(unknown) < 4 and time.monotonic() < end:
                time.sleep(0.05)
            proxy.heal()
            more(done)
        settle(dev, done, unknown)
    assert unknown


def test_one_replica_cut_off_does_not_stop_the_other(short_dir):
    dev = Dev(short_dir / "d", workers=2)
    try:
        with partitioned(dev) as (first, _):
            with load(dev, threads=4) as (done, unknown):
                more(done)
                first.swallow()
                more(done, 400)
                first.heal()
                more(done)
            settle(dev, done, unknown)
        assert_consistent(dev)
    finally:
        dev.close()


# The clock.


def until_signed(signer: capsign.Signer, message: bytes) -> set[str]:
    """Why it was refused, until it is done."""
    refusals, pause, end = set(), threading.Event(), time.monotonic() + PATIENCE_S
    while True:
        try:
            signer.sign(message, timeout=5.0, **JWT)
        except capsign.Refused as error:
            refusals.add(error.reason)
            pause.wait(0.1)
        else:
            return refusals
        assert time.monotonic() < end, refusals


def test_an_adapter_whose_clock_steps_forwards_and_back_signs_again(dev, short_dir):
    """An hour forwards ends every handle: the agent fetches new ones. An hour back, intents seem to
    come from the future.
    """
    clock = short_dir / "clock"
    clock.write_text("0")
    dev.end(dev.adapter())
    dev.start_adapter(module="support.skewed_adapter", CAPSIGN_TEST_CLOCK=str(clock))
    with capsign.Signer(dev.socket()) as signer:
        signs_again(signer)
        clock.write_text("3600000")
        assert until_signed(signer, b"an hour later") <= {"HANDLE_EXPIRED", "HANDLE_UNKNOWN"}
        clock.write_text("-3600000")
        failure, _ = ask(dev)
        assert failure is not None
        assert failure.row.name in {"INTENT_FROM_FUTURE", "UPSTREAM_UNREACHABLE"}
        clock.write_text("0")
        assert until_signed(signer, b"as before") <= {"HANDLE_EXPIRED", "HANDLE_UNKNOWN"}
    assert b"internal.failed" not in told_by(dev)
