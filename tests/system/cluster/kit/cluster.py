"""A real one-node Kubernetes for a test: `with Cluster() as cluster: cluster.kubectl("get",
"nodes")`.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

from support import scratch
from system.cluster.kit.api import Api
from system.cluster.kit.archive import write_image
from system.cluster.kit.build import binaries
from system.cluster.kit.layout import NODE, NODE_ADDRESS, PAUSE, Layout
from system.cluster.kit.pki import MASTERS

TESTS = Path(__file__).parents[3]
KUBECTL = Path(sys.executable).with_name("kubectl")
START_PATIENCE_S = 240.0
PATIENCE_S = 180.0
CLONE_NEWNET = 0x4000_0000
"""linux/sched.h"""
Found = TypeVar("Found")


class ClusterError(Exception):
    """The node did not start or has ended; the message has the last words of its parts."""


class Kubectl:
    """kubectl in somebody's name."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def run(
        self, *arguments: str, stdin: str | None = None, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        command = [str(KUBECTL), f"--kubeconfig={self.kubeconfig}", *arguments]
        if stdin is None:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
            )
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 240) -> str:
        """What it printed. AssertionError with its complaint when it failed."""
        done = self.run(*arguments, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
        return done.stdout

    def refused(self, *arguments: str, stdin: str | None = None) -> str:
        """Its complaint. AssertionError when it succeeded."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode != 0, (
            f"kubectl {' '.join(arguments)} was not refused: {done.stdout.strip()}"
        )
        return done.stderr

    def apply(self, *things: dict[str, Any]) -> None:
        self("apply", "--server-side", "-f", "-", stdin=as_list(things))

    def create(self, *things: dict[str, Any]) -> None:
        self("create", "-f", "-", stdin=as_list(things))

    def get(self, kind: str, name: str = "", namespace: str = "default", **selectors: str) -> Any:
        chosen = (
            [name]
            if name
            else [f"--selector={','.join(f'{key}={value}' for key, value in selectors.items())}"]
        )
        return json.loads(self("get", kind, *chosen, f"--namespace={namespace}", "--output=json"))

    def wait(
        self, condition: str, what: str, namespace: str = "default", timeout_s: float = PATIENCE_S
    ) -> None:
        self(
            "wait",
            f"--for={condition}",
            what,
            f"--namespace={namespace}",
            f"--timeout={timeout_s:.0f}s",
            timeout=timeout_s + 10,
        )


def as_list(things: Iterable[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(things)})


def until(there: Callable[[], Found], what: str, timeout_s: float = PATIENCE_S) -> Found:
    """The first true answer. The API has events for most waits (`Kubectl.wait`); this is for what
    only asking shows.
    """
    end = time.monotonic() + timeout_s
    while not (found := there()):
        assert time.monotonic() < end, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.1)
    return found


class Cluster:
    """Started on entry, gone on exit: processes, mounts, network, control groups and files.

    The same holds when this process dies without an exit. Two clusters can run at once; they share
    nothing.
    """

    def __init__(self) -> None:
        self._binaries = binaries()
        self._layout = Layout(Path(tempfile.mkdtemp(prefix="capsign-kube-", dir=scratch.on_disk())))
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._authority = self._layout.make()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
            self.server = f"https://127.0.0.1:{port}"
            keeper = [
                "system.cluster.kit.keeper",
                str(self._layout.run),
                str(self._binaries),
                str(listener.fileno()),
            ]
            with (self._layout.logs / "keeper.log").open("w") as log:
                self._keeper = subprocess.Popen(
                    [sys.executable, "-m", *keeper],
                    cwd=TESTS,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[listener.fileno()],
                    start_new_session=True,
                )
        self.kubectl = self.speaking_as("admin", MASTERS)
        pki = self._layout.pki
        self.api = Api(port, pki / "ca.crt", pki / "helpers.crt", pki / "helpers.key")
        self._import_pause()
        self._await_stage("started")
        self._await_node()

    def _import_pause(self) -> None:
        archive = self._layout.run / "pause.tar"
        write_image(
            archive,
            PAUSE,
            {"/pause": (self._binaries / "pause").read_bytes()},
            {"Entrypoint": ["/pause"], "User": "65535"},
        )
        self._await_stage("containerd", "started")
        self.import_images(archive)

    def _await_stage(self, *wanted: str) -> None:
        end = time.monotonic() + START_PATIENCE_S
        while (stage := self._stage()) not in wanted:
            assert self._keeper is not None
            if (
                stage.startswith("failed")
                or self._keeper.poll() is not None
                or time.monotonic() > end
            ):
                raise ClusterError(
                    f"the node is at {stage!r}, not at {wanted[0]!r}\n{self.last_words()}"
                )
            time.sleep(0.05)

    def _stage(self) -> str:
        return self._layout.stage.read_text() if self._layout.stage.exists() else "nothing"

    def _await_node(self) -> None:
        """Ready, and with the account that pods run under."""
        end = time.monotonic() + START_PATIENCE_S
        for wait in (
            ("create", f"node/{NODE}"),
            ("condition=Ready", f"node/{NODE}"),
            ("create", "serviceaccount/default"),
        ):
            done = self.kubectl.run(
                "wait",
                f"--for={wait[0]}",
                wait[1],
                f"--timeout={max(1, end - time.monotonic()):.0f}s",
            )
            if done.returncode:
                raise ClusterError(f"{wait[1]}: {done.stderr}\n{self.last_words()}")

    def stop(self) -> None:
        if self._keeper is not None:
            assert self._keeper.stdin is not None
            self._keeper.stdin.close()
            self._keeper.wait(60)
            self._keeper = None
        shutil.rmtree(self._layout.run, ignore_errors=True)

    # --- what a test does with it ---

    def speaking_as(self, user: str, *groups: str, namespace: str = "default") -> Kubectl:
        """kubectl for a user with a certificate of its own; what it may do is for RBAC to say."""
        path = self._layout.kubeconfig(user)
        path.touch(mode=0o600)
        path.write_text(
            self._authority.kubeconfig(
                self.server, self._authority.issue(user, groups=groups), namespace
            )
        )
        return Kubectl(path)

    def import_images(self, *archives: Path) -> None:
        for archive in archives:
            self.on_node("ctr", "--namespace=k8s.io", "images", "import", str(archive))

    def on_node(self, *command: str) -> str:
        """Run something in the node's namespaces, as its administrator could."""
        enter = [
            "nsenter",
            f"--target={self._layout.init_pid.read_text()}",
            "--net",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
        ]
        done = subprocess.run(
            [*enter, "--", *command], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, (
            f"on the node: {' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}"
        )
        return done.stdout

    def listen_inside(self, port: int) -> socket.socket:
        """A listener on the node's address, held out here: what the machine has beside the cluster
        can be offered to pods.

        A socket stays in the network namespace in which it was made, and entering one changes the
        calling thread only.
        """
        made: list[socket.socket | OSError] = []

        def make() -> None:
            try:
                with Path(f"/proc/{self._layout.init_pid.read_text()}/ns/net").open() as namespace:
                    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                made.append(socket.create_server((NODE_ADDRESS, port)))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def process_of(self, pod: str, container: str, namespace: str = "default") -> int:
        """The pid, on the node, of a running container's first process."""
        status = self.kubectl.get("pod", pod, namespace)["status"]
        of_all = [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
        wanted = next(
            one["containerID"] for one in of_all if one["name"] == container
        ).removeprefix("containerd://")
        tasks = self.on_node("ctr", "--namespace=k8s.io", "task", "ls").splitlines()
        return next(int(task.split()[1]) for task in tasks if task.startswith(wanted))

    def outside(self, pid: int) -> Path:
        """The /proc directory, out here, of a process that has this pid on the node."""
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                line = next(
                    line for line in status.read_text().splitlines() if line.startswith("NSpid:")
                )
            except (OSError, StopIteration):  # it has just ended
                continue
            pids = [int(one) for one in line.split()[1:]]
            if len(pids) > 1 and pids[1] == pid and self._is_ours(status.parent):
                return status.parent
        raise AssertionError(f"no process {pid} on the node")

    def _is_ours(self, process: Path) -> bool:
        """In the node's PID namespace or below, by its control group, which is named like the run
        directory.
        """
        try:
            return self._layout.run.name in (process / "cgroup").read_text()
        except OSError:
            return False

    def audited(self) -> list[dict[str, Any]]:
        """The API server's audit log so far: requests about pods. A line that is being written is
        left for the next look.
        """
        lines = (
            self._layout.audit.read_bytes().split(b"\n")[:-1] if self._layout.audit.exists() else []
        )
        return [json.loads(line) for line in lines]

    @property
    def service_account_key(self) -> Path:
        """What the API server signs service account tokens with: only a test that forges one wants
        it.
        """
        return self._layout.pki / "service-account.key"

    def tell(self, *namespaces: str) -> str:
        """For the report of a failed test: pods, events, and the ends of logs in these
        namespaces.
        """
        asked = [["get", "pods", "--all-namespaces", "--output=wide"]]
        for namespace in dict.fromkeys(filter(None, namespaces)):
            asked.append(["get", "events", f"--namespace={namespace}", "--sort-by=.lastTimestamp"])
            pods = self.kubectl.run(
                "get", "pods", f"--namespace={namespace}", "--output=name"
            ).stdout.split()
            asked += [
                [
                    "logs",
                    pod,
                    f"--namespace={namespace}",
                    "--all-containers",
                    "--prefix",
                    "--tail=30",
                ]
                for pod in pods
            ]
        answers = [(arguments, self.kubectl.run(*arguments)) for arguments in asked]
        return "\n".join(
            f"$ kubectl {' '.join(said)}\n{done.stdout[-6000:]}{done.stderr}"
            for said, done in answers
        )

    def last_words(self, lines: int = 8) -> str:
        logs = sorted(self._layout.logs.glob("*.log")) if self._layout.logs.is_dir() else []
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
            for log in logs
        )
