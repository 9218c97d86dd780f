"""The agent as a process on volumes as the kubelet makes them, as a user that is not root, with its
settings in a variable.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import capsign_agent
import capsign_wire
import grpc
import psutil
import pytest
from capsign_wire.agent.v1 import agent_pb2, agent_pb2_grpc
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as alg
from support.agent_home import first_handle, until
from support.fake_adapter import FakeAdapter
from support.fake_identity import FakeIdentity
from support.identity_sections import kubernetes_section
from support.signed import only_of

AGENT, APPLICATION, FS_GROUP = 65532, 1000, 2000
PROBE = Path(capsign_agent.__file__).parent / "probe.py"


def as_user(uid: int, *groups: int) -> list[str]:
    """Puts what follows under another user. A program of its own: a fork among gRPC's threads would
    not be safe.
    """
    return [
        "setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        f"--groups={','.join(map(str, (uid, *groups)))}",
    ]


@functools.cache
def python_for_all() -> str:
    """An interpreter like ours that other users may run too: ours may lie in somebody's home.
    Empty: there is none.
    """
    ask = "import sys; print(*sys.version_info[:2])"
    for path in (sys.executable, "/usr/bin/python3"):
        done = subprocess.run(
            [*as_user(AGENT), path, "-c", ask], capture_output=True, text=True, check=False
        )
        if done.stdout.split() == [str(part) for part in sys.version_info[:2]]:
            return path
    return ""


def able() -> bool:
    return os.geteuid() == 0 and shutil.which("setpriv") is not None and bool(python_for_all())


pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        not able(),
        reason="needs root to mount volumes, setpriv, and a Python that other users may run",
    ),
]
SOURCES = [str(Path(package.__path__[0]).parent) for package in (capsign_agent, capsign_wire)]
LIBRARIES = [path for path in sys.path if "site-packages" in path]


class Pod:
    """Two Memory emptyDirs: the agent's own, and the one that it shares with the container
    `web`.
    """

    def __init__(self, root: Path, *, setgid: bool) -> None:
        self.root = root
        root.chmod(0o755)
        self.state, self.shared = root / "state", root / "0"
        for volume in (self.state, self.shared):
            volume.mkdir()
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=16m,mode=1777", "tmpfs", volume], check=True
            )
            if setgid:
                os.chown(volume, 0, FS_GROUP)
                volume.chmod(0o3777)
        self.identity = FakeIdentity()
        self.adapter = FakeAdapter(self.identity.active, identity=self.identity).start()
        (root / "token").write_text("token-1")
        self.socket = self.shared / "s" / "agent.sock"
        self.log = root / "log"

    @property
    def settings(self) -> str:
        targets = [f"127.0.0.1:{self.adapter.enrolment_port}"]
        identity = kubernetes_section(
            targets, self.root / "token", self.identity.active.pem, self.state / "identity"
        )
        return f"""
[upstream]
targets = ["127.0.0.1:{self.adapter.port}"]
server_name = "localhost"
{identity}
[[sockets]]
name = "web"
path = "{self.socket}"
mode = "0666"
directory_mode = "0711"
[journal]
dir = "{self.state}/journal"
max_bytes = 8388608
[health]
path = "{self.state}/health.sock"
"""

    def start(self) -> subprocess.Popen[bytes]:
        """As the container starts: no arguments."""
        paths = os.pathsep.join([*SOURCES, *LIBRARIES])
        environ = {**os.environ, "PYTHONPATH": paths, "CAPSIGN_AGENT_CONFIG": self.settings}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*as_user(AGENT, FS_GROUP), python_for_all(), "-m", "capsign_agent"],
                env=environ,
                stderr=log,
                cwd="/",
            )

    def started(self) -> bool:
        """The start-up probe."""
        command = [
            *as_user(AGENT),
            python_for_all(),
            "-I",
            "-S",
            str(PROBE),
            f"{self.state}/health.sock.probe",
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def close(self) -> None:
        self.adapter.stop()
        for volume in (self.state, self.shared):
            subprocess.run(["umount", "--lazy", volume], check=True)
        shutil.rmtree(self.root)


@pytest.fixture(params=[False, True], ids=["plain", "fsGroup"])
def pod(request: pytest.FixtureRequest) -> Iterator[Pod]:
    one = Pod(Path(tempfile.mkdtemp(prefix="cs")), setgid=request.param)
    yield one
    one.close()


@pytest.fixture
async def agent(pod: Pod) -> AsyncIterator[psutil.Process]:
    child = pod.start()
    try:
        await until(lambda: pod.started() or child.poll() is not None)
        assert child.poll() is None, pod.log.read_text()
        yield psutil.Process(child.pid)
    finally:
        child.kill()
        child.wait()


async def sign(pod: Pod) -> bytes:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"unix:{pod.socket}", options=options) as channel:
        stub = agent_pb2_grpc.SigningServiceStub(channel)
        item = agent_pb2.SignItem(intent_id=new_intent_id(), message=b"message")
        handle = await first_handle(stub)
        answer = await stub.Sign(
            agent_pb2.SignRequest(handle_id=handle.id, algorithm=alg.ALGORITHM_ED25519, item=item)
        )
        return only_of(answer.signed)


def reachable_by(uid: int, path: Path) -> bool:
    program = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    command = [*as_user(uid), python_for_all(), "-I", "-S", "-c", program, str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


async def test_it_serves_in_a_volume_and_takes_it_over_after_kill_9(
    pod: Pod, agent: psutil.Process
) -> None:
    assert await sign(pod)
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    assert pod.socket.exists()  # stale, as the kubelet leaves it for the next life of the container
    child = pod.start()
    try:
        await until(lambda: pod.started() or child.poll() is not None)
        assert child.poll() is None, pod.log.read_text()
        assert await sign(pod)
    finally:
        child.kill()
        child.wait()
    assert pod.identity.enrolled == ["token-1", "token-1"]


async def test_another_user_may_call_and_nothing_more(pod: Pod, agent: psutil.Process) -> None:
    assert reachable_by(APPLICATION, pod.socket)
    assert not reachable_by(APPLICATION, pod.state / "health.sock")
    assert stat.S_IMODE(pod.socket.parent.stat().st_mode) == 0o711
    for path in (pod.state / "identity", pod.state / "journal"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o777 == 0o700


async def test_the_private_key_is_on_no_volume_and_in_no_log(
    pod: Pod, agent: psutil.Process
) -> None:
    await sign(pod)
    files = [path for path in pod.root.rglob("*") if path.is_file()]
    assert any(path.name == "trust-bundle.pem" for path in files)
    assert not [path for path in files if b"PRIVATE" in path.read_bytes()]
    assert "token-1" not in pod.log.read_text()


async def test_it_stays_within_the_memory_that_a_pod_asks_for(
    pod: Pod, agent: psutil.Process
) -> None:
    """64 MiB is what the injector requests by default. Pages of files that the kernel can drop
    again do not count.
    """
    for _ in range(20):
        await sign(pod)
    assert agent.memory_full_info().uss < 48 * 1024 * 1024
