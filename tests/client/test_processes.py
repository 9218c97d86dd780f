"""Forks, exits and objects that nobody closed."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import capsign
import pytest
from capsign.async_connection import AsyncConnection
from capsign.connection import Connection
from support.instances import alive
from support.interposed import Interposed


def open_connections() -> list[Connection]:
    """Of signers that are not closed."""
    return [one for one in alive(Connection) if not one.stream.closing.begun]


MAIL = {"purpose": "mail", "algorithm": "Ed25519"}

THREE_LINES = """
import capsign
signer = capsign.Signer()
signature = signer.sign(b"...", purpose="jwt", algorithm="ES256")
print(len(signature.jose))
"""

FORKING = """
import os, sys, capsign
signer = capsign.Signer(timeout=8, coalesce=sys.argv[1] == "stream")
first = signer.sign(b"parent", purpose="mail", algorithm="Ed25519")
pid = os.fork()
if pid == 0:
    signature = signer.sign(b"child", purpose="mail", algorithm="Ed25519")
    signer.verify(b"child", signature, purpose="mail")
    os._exit(7)
_, status = os.waitpid(pid, 0)
again = signer.sign(b"parent", purpose="mail", algorithm="Ed25519", intent_id=first.intent_id)
print(os.waitstatus_to_exitcode(status), again == first)
"""

FORKING_UNDER_LOAD = """
import os, threading, capsign
signer = capsign.Signer(timeout=20)
stop, failures, done = threading.Event(), [], []
def work(name):
    while not stop.is_set():
        try:
            done.append(signer.sign(b"%d" % name, purpose="mail", algorithm="Ed25519"))
        except Exception as error:
            failures.append(error)
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for thread in threads:
    thread.start()
codes = []
for turn in range(5):
    while len(done) < 20 * (turn + 1):
        stop.wait(0.001)
    pid = os.fork()
    if pid == 0:
        signer.sign(b"child", purpose="mail", algorithm="Ed25519")
        grandchild = os.fork()
        if grandchild == 0:
            signer.sign(b"grandchild", purpose="mail", algorithm="Ed25519")
            os._exit(3)
        os._exit(4 + os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
signer.close()
print(codes, failures)
"""


AT_EXIT = """
import atexit, sys, capsign
signer = capsign.Signer(coalesce=sys.argv[1] == "stream")
def last_words():
    try:
        print(bool(signer.sign(b"bye", purpose="mail", algorithm="Ed25519")))
    except capsign.Unavailable as error:
        print("closed" in str(error))
atexit.register(last_words)
if sys.argv[2] == "later":
    signer.sign(b"m", purpose="mail", algorithm="Ed25519")
"""


def run(code, agent, *arguments, **variables):
    environment = {**os.environ, "CAPSIGN_SOCKET": str(agent.path), **variables}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_program_that_never_closes_its_signer_ends_quietly(agent):
    result = run(THREE_LINES, agent)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "64", "")


@pytest.mark.parametrize("mode", ["stream", "unary"])
@pytest.mark.parametrize("use", ["first", "later"])
def test_a_signer_may_be_used_when_the_process_ends(agent, mode, use):
    """Used there for the first time, it was closed after all threads had gone, and the process
    waited for them for ever. Used after it was closed, a unary one raised gRPC's ValueError.
    """
    result = run(AT_EXIT, agent, mode, use)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "True", "")


@pytest.mark.parametrize("mode", ["stream", "unary"])
def test_a_signer_works_on_both_sides_of_a_fork(agent, mode):
    result = run(FORKING, agent, mode)
    assert (result.returncode, result.stdout.strip()) == (0, "7 True"), result.stderr


def test_forks_while_threads_sign_harm_neither_side(agent):
    result = run(FORKING_UNDER_LOAD, agent)
    assert (result.returncode, result.stdout.strip()) == (0, "[7, 7, 7, 7, 7] []"), result.stderr
    assert set(agent.signed.values()) == {1}


FORKING_BESIDE_ANOTHER_CHANNEL = """
import os, grpc, capsign
from capsign_wire.agent.v1 import agent_pb2, agent_pb2_grpc
other = grpc.insecure_channel("unix:" + os.environ["CAPSIGN_SOCKET"])
agent_pb2_grpc.SigningServiceStub(other).ListHandles(agent_pb2.ListHandlesRequest())
signer = capsign.Signer(timeout=8)
signer.sign(b"parent", purpose="mail", algorithm="Ed25519")
pid = os.fork()
if pid == 0:
    try:
        signer.sign(b"child", purpose="mail", algorithm="Ed25519")
    except RuntimeError as error:
        os._exit(5 if "GRPC_ENABLE_FORK_SUPPORT" in str(error) else 6)
    os._exit(7)
_, status = os.waitpid(pid, 0)
after = signer.sign(b"parent", purpose="mail", algorithm="Ed25519")
print(os.waitstatus_to_exitcode(status), bool(after))
"""


@pytest.mark.parametrize("mode", ["stream", "unary"])
@pytest.mark.parametrize("chosen", ["0", "1", "false", "true"])
def test_a_signer_works_on_both_sides_of_a_fork_whatever_was_chosen_for_grpc(agent, mode, chosen):
    """With 0 the child waited for threads that are not there, far past its timeout; with 1 each
    fork took three seconds.
    """
    result = run(FORKING, agent, mode, GRPC_ENABLE_FORK_SUPPORT=chosen)
    assert (result.returncode, result.stdout.strip()) == (0, "7 True"), result.stderr


@pytest.mark.parametrize("chosen", ["0", "1"])
def test_forks_while_threads_sign_harm_neither_side_whatever_was_chosen_for_grpc(agent, chosen):
    """With 1 the threads of the parent lost their answers."""
    result = run(FORKING_UNDER_LOAD, agent, GRPC_ENABLE_FORK_SUPPORT=chosen)
    assert (result.returncode, result.stdout.strip()) == (0, "[7, 7, 7, 7, 7] []"), result.stderr
    assert set(agent.signed.values()) == {1}


def test_a_child_that_cannot_use_grpc_says_so_at_once(agent):
    """Another channel is open in the parent, and ours to close are only our own: the call would
    wait for ever.
    """
    result = run(FORKING_BESIDE_ANOTHER_CHANNEL, agent, GRPC_ENABLE_FORK_SUPPORT="0")
    assert (result.returncode, result.stdout.strip()) == (0, "5 True"), result.stderr


def test_a_signer_that_is_dropped_takes_its_thread_along(agent):
    signer = capsign.Signer(agent.path)
    signer.sign(b"m", purpose="mail", algorithm="Ed25519")
    (reader,) = [thread for thread in threading.enumerate() if thread.name == "capsign-stream"]
    del signer
    gc.collect()
    reader.join(5)
    assert not reader.is_alive()


MANY_LOOPS = """
import asyncio, sys, capsign
signer = capsign.AsyncSigner(coalesce=sys.argv[1] == "stream")
async def several():
    calls = (signer.sign(b"m", purpose="mail", algorithm="Ed25519") for _ in range(20))
    await asyncio.gather(*calls)
for _ in range(30):
    asyncio.run(several())
print("done")
"""


@pytest.mark.parametrize("mode", ["stream", "unary"])
def test_loops_that_have_ended_leave_no_errors_to_those_that_follow(agent, mode):
    """gRPC told each loop of the calls of those before it: "Exception in callback …, RuntimeError:
    Event loop is closed".
    """
    result = run(MANY_LOOPS, agent, mode)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "done", "")


CLOSED_AT_ONCE = """
import asyncio, sys, capsign
async def several():
    async with capsign.AsyncSigner(coalesce=sys.argv[1] == "stream") as signer:
        calls = (signer.sign(b"m", purpose="mail", algorithm="Ed25519") for _ in range(20))
        await asyncio.gather(*calls)
for _ in range(60):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(several())
    loop.close()
print("done")
"""


@pytest.mark.parametrize("mode", ["stream", "unary"])
def test_a_loop_that_is_closed_right_after_the_signer_leaves_no_errors(agent, mode):
    """In one of three loops gRPC had not heard the end of the stream yet, and told the next one:
    "Event loop is closed".
    """
    result = run(CLOSED_AT_ONCE, agent, mode)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "done", "")


async def test_what_a_loop_had_open_is_closed_with_it(agent):
    signer = capsign.AsyncSigner(agent.path)
    opened: list[Any] = []

    async def one():
        await signer.sign(b"m", purpose="mail", algorithm="Ed25519")
        opened.extend(one for one in alive(AsyncConnection) if one.usable)

    await asyncio.to_thread(asyncio.run, one())
    assert [connection.closing.is_set() for connection in opened] == [True]
    await signer.close()


def test_an_async_signer_serves_one_loop_after_another(agent):
    signer = capsign.AsyncSigner(agent.path)

    async def one():
        return await signer.sign(b"m", purpose="mail", algorithm="Ed25519")

    assert asyncio.run(one())
    assert asyncio.run(one())


def stream_tasks(loop):
    return {
        task for task in asyncio.all_tasks(loop) if task.get_name().startswith("capsign-stream")
    }


def test_an_async_signer_keeps_a_stream_for_each_loop(agent):
    """Two loops used it in turns: each change opened another stream, and none of them was ever
    closed.
    """
    signer = capsign.AsyncSigner(agent.path)
    loops = [asyncio.new_event_loop(), asyncio.new_event_loop()]
    for _ in range(10):
        for loop in loops:
            assert loop.run_until_complete(signer.sign(b"m", **MAIL))
    assert agent.listings == 4, "in each loop one for the call, one by the stream that connects"
    loops[0].run_until_complete(signer.close())
    for loop in loops:
        if tasks := stream_tasks(loop):
            loop.run_until_complete(asyncio.wait(tasks, timeout=20))
        assert not stream_tasks(loop)
        loop.close()


async def test_an_async_signer_serves_loops_of_several_threads(agent):
    """Two threads forgot loops that had ended, or one opened another meanwhile: a call raised
    KeyError or RuntimeError.
    """

    interrupted = []

    class Ended(asyncio.SelectorEventLoop):
        """A loop that has ended. Asked for that, it lets another thread in, which forgets it and
        opens a connection.
        """

        lets_in = False

        def is_closed(self):
            if self.lets_in:
                self.lets_in = False
                interrupted.append(self)
                in_a_thread(call_from_elsewhere)
            return super().is_closed()

    def call_from_elsewhere():
        loop = asyncio.new_event_loop()
        loop.run_until_complete(signer.sign(b"m", **MAIL))
        others.append(loop)

    def in_a_thread(act, *arguments):
        thread = threading.Thread(target=act, args=arguments)
        thread.start()
        thread.join(20)

    def end(loop):
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    others: list[Any]
    others, loops = [], [Ended(), Ended()]
    async with capsign.AsyncSigner(agent.path) as signer:
        for loop in loops:
            in_a_thread(loop.run_until_complete, signer.sign(b"m", **MAIL))
        for loop in loops:
            in_a_thread(end, loop)
            loop.lets_in = True
        assert await signer.sign(b"m", **MAIL)
        for loop in others:
            in_a_thread(end, loop)
    assert set(interrupted) == set(loops)
    assert len(others) == 2


async def test_an_async_signer_that_is_dropped_takes_its_stream_along(agent):
    signer = capsign.AsyncSigner(agent.path)
    await signer.sign(b"m", **MAIL)
    tasks = stream_tasks(None)
    assert tasks
    del signer
    gc.collect()
    await asyncio.wait(tasks, timeout=20)
    assert all(task.done() for task in tasks)


@pytest.mark.parametrize("end", ["close", "agent gone"])
def test_a_stream_that_ended_needs_no_garbage_collector(agent, end):
    """A process hung for ever at its exit: gRPC's call was freed there, after the thread that held
    its lock was gone.

    gRPC raises the call itself, and its traceback held our frames, which held the call: only the
    collector, or the end of the interpreter, would free it. Without that circle it is freed while
    all threads are there.
    """
    gc.collect()
    gc.disable()
    try:
        with capsign.Signer(agent.path, timeout=5) as signer:
            signer.sign(b"m", **MAIL)
            (connection,) = open_connections()
            call = weakref.ref(connection.stream.call)
            del connection
            assert call() is not None
            if end == "agent gone":
                agent.stop()
        freed = threading.Event()
        for _ in range(5000):
            if call() is None:
                break
            freed.wait(0.001)
        assert call() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("ending", ["close", "fork"])
def test_the_stream_survives_what_ends_its_attempt_to_connect(agent, ending):
    """A cancelled attempt raises FutureCancelledError, no RpcError: it killed the stream's thread,
    and none took its place.
    """
    pause = threading.Event()
    with capsign.Signer(agent.path) as signer, ThreadPoolExecutor(1) as pool:
        signer.sign(b"first", **MAIL)
        (connection,) = open_connections()
        stream = connection.stream
        agent.stop()
        while stream.call is not None:
            pause.wait(0.001)
        waiting = pool.submit(signer.sign, b"m", timeout=60, **MAIL)
        while stream.call is None:
            pause.wait(0.001)
        if ending == "close":
            signer.close()
            assert stream.reader is None
            with pytest.raises(capsign.Unavailable):
                waiting.result(5)
        else:
            stream.pause()
            assert stream.reader is None
            stream.resume()
            agent.start()
            assert waiting.result(5)


@pytest.mark.parametrize("where", ["reader", "writer"])
async def test_the_async_stream_survives_what_nobody_expected(agent, where):
    """An error that is none of gRPC's ended the stream's task, none took its place, and all calls
    waited out their deadline.
    """
    async with capsign.AsyncSigner(agent.path) as signer:
        await signer.handles()
        (connection,) = [one for one in alive(AsyncConnection) if one.usable]
        scheduler = connection.stream.scheduler
        faults, real = [RuntimeError("first"), RuntimeError("second")], scheduler.next_message

        def faulty(now):
            if faults:
                raise faults.pop(0)
            return real(now)

        if where == "reader":
            agent.impossible_lists = 2
        else:
            connection.stream.scheduler = Interposed(scheduler)
            connection.stream.scheduler.instead(next_message=faulty)
        reported = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context["exception"])
        )
        assert await asyncio.wait_for(signer.sign(b"m", timeout=60, **MAIL), 20)
        assert isinstance(reported[0], ValueError if where == "reader" else RuntimeError)
        assert not agent.impossible_lists


@pytest.mark.parametrize("first", [True, False], ids=["first call", "later call"])
@pytest.mark.parametrize("inside", ["add", "next_message"])
def test_a_signal_handler_may_close_a_signer_wherever_it_interrupts(agent, first, inside):
    """The handler ran while its own thread held the stream's lock, and waited for that lock for
    ever.
    """
    signer, told = capsign.Signer(agent.path), []
    signer.handles()
    if not first:
        signer.sign(b"m", **MAIL)
    (connection,) = open_connections()
    scheduler = connection.stream.scheduler
    real = getattr(scheduler, inside)

    def interrupted(*arguments):
        result = real(*arguments)
        signer.close()
        return result

    connection.stream.scheduler = Interposed(scheduler)
    connection.stream.scheduler.instead(**{inside: interrupted})

    def call():
        try:
            signer.sign(b"m", timeout=600, **MAIL)
        except capsign.CapsignError as error:
            told.append(error)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    caller.join(20)
    assert not caller.is_alive()
    assert ["closed" in str(error) for error in told] == [True]


def refuse_one_thread(monkeypatch, chosen):
    """The first thread whose start `chosen` picks cannot be started, as at a limit of pids."""
    real, left = threading.Thread.start, [1]

    def start(thread):
        if left[0] and chosen(thread):
            left[0] = 0
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)


def test_a_call_that_could_not_start_its_thread_leaves_nothing_behind(agent, monkeypatch):
    """No thread read the stream from then on, so calls waited until their deadline; the failed one
    was signed with the next.
    """
    refuse_one_thread(monkeypatch, lambda thread: thread.name == "capsign-stream")
    with capsign.Signer(agent.path, timeout=5) as signer:
        with pytest.raises(RuntimeError, match="can't start"):
            signer.sign(b"told that it failed", **MAIL)
        assert signer.sign(b"m", **MAIL)
    assert len(agent.signed) == 1


def test_an_interrupt_that_comes_while_the_thread_starts_leaves_one_reader(agent, monkeypatch):
    """Ctrl-C came between its start and the note of it: the next call started another, and two
    threads read for one signer.
    """
    real, started = threading.Thread.start, []

    def start(thread):
        real(thread)
        if thread.name == "capsign-stream":
            started.append(thread)
            if len(started) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    with capsign.Signer(agent.path, timeout=5) as signer:
        with pytest.raises(KeyboardInterrupt):
            signer.sign(b"m", **MAIL)
        hold = agent.plan("hold")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(signer.sign, b"m", **MAIL)
            assert hold.reached.wait(5)
            started[0].join(5)
            assert [thread.is_alive() for thread in started] == [False, True]
            hold.release.set()
            assert waiting.result(5)


def test_the_stream_survives_what_nobody_expected(agent, monkeypatch):
    """An error that is none of gRPC's ended the stream's thread, none took its place, and all calls
    waited out their deadline.
    """
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    with capsign.Signer(agent.path, timeout=5) as signer:
        signer.handles()
        agent.impossible_lists = 2
        assert signer.sign(b"m", **MAIL)
    assert not agent.impossible_lists
    assert [report.exc_type for report in reported] == [ValueError]
