"""An auditor outside of the cluster: a certificate of the operators' authority, a port-forward, and
`capsign log verify`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.ca import Authority
from system.cluster.fleet import SYSTEM, Fleet
from system.cluster.kit.cluster import KUBECTL

CAPSIGN = Path(sys.executable).with_name("capsign")
SERVER_NAME = f"capsign-adapter.{SYSTEM}.svc"


class Auditor:
    """Keeps the last checkpoint that it saw, and demands that the log extends it."""

    def __init__(self, fleet: Fleet, operators: Authority, directory: Path) -> None:
        self._fleet = fleet
        self._remembered = directory / "checkpoint"
        self._bundle = directory / "bundle.pem"
        issued = operators.issue("spiffe://cluster.local/auditor/test")
        self._certificate, self._key = issued.write(directory, "auditor")
        self._log_key = self._first_log_key()

    def _first_log_key(self) -> str:
        """What the adapter said when it started first: trust on first use, as with any log."""
        log = self._fleet.kubectl(
            "logs", "capsign-adapter-0", f"--namespace={SYSTEM}", "--container=adapter"
        )
        said = [json.loads(line) for line in log.splitlines() if '"adapter.serving"' in line]
        return said[0]["log_key"]

    def verify(self) -> dict[str, Any]:
        """Recompute the whole log. AssertionError if it does not add up, or does not extend what
        was seen before.
        """
        published = self._fleet.kubectl.get("configmap", "capsign-trust-bundle", SYSTEM)
        self._bundle.write_text(published["data"]["bundle.pem"])
        with self._forwarded() as port:
            where = [
                "--adapter",
                f"127.0.0.1:{port}",
                "--server-name",
                SERVER_NAME,
                "--ca",
                self._bundle,
            ]
            who = ["--cert", self._certificate, "--key", self._key]
            what = ["--log-key", self._log_key, "--remember", self._remembered]
            command = [CAPSIGN, "log", "verify", *where, *who, *what, "-o", "json"]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
            )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def _forwarded(self) -> Iterator[int]:
        """A port of ours that leads to the adapter's pod."""
        target = ["port-forward", f"--namespace={SYSTEM}", "statefulset/capsign-adapter", ":7446"]
        command = [KUBECTL, f"--kubeconfig={self._fleet.kubectl.kubeconfig}", *target]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as forwarding:
            try:
                assert forwarding.stdout is not None
                said = re.search(r"127\.0\.0\.1:(\d+) ->", forwarding.stdout.readline())
                assert said, "kubectl port-forward did not say where"
                yield int(said[1])
            finally:
                forwarding.terminate()
