"""Witnesses as processes: the one of this repository, and one written in Go from the specification
alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from capsign_evidence.cosignature import CosignerKey, parse_key

PROGRAM = Path(__file__).parent / "go_witness"


class WitnessProcess:
    """A running witness; `restart` after a kill takes the same state. `keys` are its verifier keys,
    ML-DSA-44 first.
    """

    url = ""
    keys: tuple[CosignerKey, ...] = ()

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        raise NotImplementedError

    def restart(self) -> None:
        self.kill()
        self.start()

    def kill(self) -> None:
        """SIGKILL, and wait until it is dead."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()
            self._process = None

    def post(self, body: bytes) -> tuple[int, str, bytes]:
        """Status, content type and body of add-checkpoint."""
        return self._ask("add-checkpoint", body)

    def get(self, path: str) -> tuple[int, str, bytes]:
        return self._ask(path, None)

    def policy_lines(self, name: str) -> str:
        """Lines of a tlog-policy, NAME-pq and NAME-classic and the group NAME of either."""
        pq, classic = self.keys
        return (
            f"witness {name}-pq {pq.text()} {self.url}\n"
            f"witness {name}-classic {classic.text()} {self.url}\n"
            f"group {name} any {name}-pq {name}-classic\n"
        )

    def _ask(self, path: str, body: bytes | None) -> tuple[int, str, bytes]:
        try:
            with urllib.request.urlopen(f"{self.url}/{path}", body, timeout=30) as answer:  # noqa: S310 - http
                return answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read()


class OurWitness(WitnessProcess):
    """capsign-witness."""

    def __init__(self, folder: Path, name: str, logs: list[str]) -> None:
        super().__init__()
        self._said = ""
        self._folder, self._logs, self._port = folder / name, folder / f"{name}.logs", 0
        self._logs.write_text("".join(f"log {one}\n" for one in logs) + "quorum none\n")
        made = self._run("init", "--name", f"{name}.capsign.test")
        self.keys = tuple(parse_key(line) for line in made.splitlines())
        self.start()

    def start(self, module: str = "capsign_witness") -> None:
        """Start it, perhaps through another module."""
        command = [sys.executable, "-m", module, "serve", "--dir", str(self._folder)]
        tests = str(Path(__file__).parent.parent)
        paths = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
        listen = f"127.0.0.1:{self._port}"
        self._process = subprocess.Popen(
            [*command, "--logs", str(self._logs), "--listen", listen],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": paths},
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said += line
            if '"witness.serving"' in line:
                self._port = json.loads(line)["port"]
                self.url = f"http://127.0.0.1:{self._port}"
                return
        raise AssertionError(f"the witness did not start: {self._said}")

    def left_behind(self) -> bytes:
        """End it; what it has said on its console, and every byte of its files."""
        if self._process is not None:
            self._process.terminate()
            self._said += self._process.communicate(timeout=30)[1]
            self._process = None
        files = [path for path in sorted(self._folder.rglob("*")) if path.is_file()]
        return self._said.encode() + b"".join(path.read_bytes() for path in files)

    def _run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "capsign_witness", *arguments, "--dir", str(self._folder)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return ran.stdout


class GoWitness(WitnessProcess):
    """The one from the specification; `binary` is what `build_go` made."""

    def __init__(self, binary: Path, folder: Path, name: str, logs: list[str]) -> None:
        super().__init__()
        self._binary, self._folder, self._logs = binary, folder / name, logs
        self._folder.mkdir()
        self._name, self._listen = f"{name}.capsign.test", "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        logs = [word for one in self._logs for word in ("-log", one)]
        named = ["-dir", str(self._folder), "-name", self._name, "-listen", self._listen]
        self._process = subprocess.Popen(
            [str(self._binary), *named, *logs], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        pq, classic, self._listen = (self._process.stdout.readline().strip() for _ in range(3))
        self.keys = (parse_key(pq), parse_key(classic))
        self.url = f"http://{self._listen}"


def build_go(folder: Path) -> Path:
    """The program. Skips where Go or its modules cannot be had: an outsider's language is not
    something that the project needs.
    """
    if shutil.which("go") is None:
        pytest.skip("go is not installed, so the other witness was not asked")
    fetched = subprocess.run(
        ["go", "mod", "download"],
        cwd=PROGRAM,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if fetched.returncode:
        pytest.skip(f"modules of Go cannot be fetched: {fetched.stderr.strip()[:200]}")
    binary = folder / "go_witness"
    subprocess.run(
        ["go", "build", "-mod=readonly", "-o", binary, "."], cwd=PROGRAM, check=True, timeout=240
    )
    return binary
