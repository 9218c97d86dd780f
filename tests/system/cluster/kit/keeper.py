"""Keeps one cluster alive as long as the test that started it, and leaves nothing behind: also when
the test was killed.

    python -m system.cluster.kit.keeper RUN BINARIES LISTENER

It holds the read end of a pipe; the test holds the only write end. End of file means that the test
has ended, however it did. The node runs in namespaces of its own whose first process holds another
such pipe, from here: whoever dies, all below him go.
"""

from __future__ import annotations

import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

from system.cluster.kit.layout import Layout

HIERARCHIES = Path("/sys/fs/cgroup")
PATIENCE_S = 20.0


def make_cgroups(name: str) -> None:
    """The kubelet wants its root to exist in every hierarchy. (A cpuset without processors and
    memory takes no process.)
    """
    for hierarchy in HIERARCHIES.iterdir():
        if not hierarchy.is_dir() or hierarchy.is_symlink():
            continue
        ours = hierarchy / name.lstrip("/")
        ours.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (ours / setting).exists() and (hierarchy / setting).exists():
                (ours / setting).write_text((hierarchy / setting).read_text())


def remove_cgroups(name: str) -> None:
    end = time.monotonic() + PATIENCE_S
    for hierarchy in HIERARCHIES.iterdir():
        ours = hierarchy / name.lstrip("/")
        while ours.is_dir() and time.monotonic() < end:
            for directory in sorted(
                (path for path in ours.rglob("*") if path.is_dir()),
                key=lambda path: -len(path.parts),
            ):
                remove_if_empty(directory)
            remove_if_empty(ours)


def remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:  # its last process is still on its way out; the caller comes again
        time.sleep(0.01)


def only_child(parent: subprocess.Popen) -> int:
    """`unshare --fork` has one child: the first process of the new namespaces."""
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    while parent.poll() is None:
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.01)
    return 0


def main(run: Path, binaries: Path, listener: int) -> None:
    layout = Layout(run)
    make_cgroups(layout.cgroup)
    namespaces = [
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--uts",
        "--ipc",
        "--fork",
        "--kill-child",
    ]
    init = [sys.executable, "-m", "system.cluster.kit.init", str(run), str(binaries), str(listener)]
    with (layout.logs / "init.log").open("w") as log:
        node = subprocess.Popen(
            [*namespaces, *init],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[listener],
        )
    try:
        layout.init_pid.write_text(str(only_child(node)))
        lease = select.poll()
        lease.register(sys.stdin, select.POLLHUP)
        while node.poll() is None and not lease.poll(200):
            pass
        # the node ended by itself: say so, and wait to be told to clean up
        if node.poll() is not None:
            layout.stage.write_text(
                f"failed: the node's first process ended with {node.returncode}"
            )
            lease.poll()
    finally:
        # --kill-child: and with it the first process of the PID namespace, and so all of them
        node.kill()
        node.wait()
        remove_cgroups(layout.cgroup)
        shutil.rmtree(run, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
