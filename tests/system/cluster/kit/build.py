"""The node's two binaries, built from Go modules once and kept in the user's cache.

A cold build takes 6 to 14 minutes on two cores (the link alone wants 3.3 GiB), so the result is
kept under a hash of everything that it was made from. Nothing is ever built into the work tree.

    python -m system.cluster.kit.build        prints the directory of the binaries
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent.parent / "go"
PROGRAMS = ("node", "pause")
KUBERNETES = "k8s.io/kubernetes"
FLAGS = ("-mod=readonly", "-trimpath")
PROGRESS_EVERY_S = 15.0
KEPT_BUILDS = 2


class BuildError(Exception):
    """Go could not build the node; the message ends with its last words."""


def cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capsign"


def environment() -> dict[str, str]:
    """What the caller set for other Go code (flags, workspaces, cgo) must not change this build, or
    its hash would lie.
    """
    ours = {
        "CGO_ENABLED": "0",
        "GOFLAGS": "",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
        "GOGC": "400",
    }
    return {**os.environ, **ours}


def go(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["go", *arguments],
            cwd=SOURCES,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise BuildError(
            "there is no `go` in PATH; run .ci/kube-packages or install Go 1.26"
        ) from None
    except subprocess.CalledProcessError as error:
        raise BuildError(f"go {arguments[0]}: {error.stderr.strip()[-2000:]}") from None
    return done.stdout.strip()


def link_flags() -> str:
    """The release that `/version` names; without them it says v0.0.0-master and clients refuse
    features.
    """
    release = go("list", "-mod=readonly", "-m", "-f", "{{.Version}}", KUBERNETES)
    major, minor, _ = release.removeprefix("v").split(".")
    values = {
        "k8s.io/component-base/version.gitVersion": release,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/component-base/version.gitTreeState": "clean",
        "k8s.io/client-go/pkg/version.gitVersion": release,
    }
    return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in values.items())])


def identity() -> str:
    """A hash of all that decides the binaries: sources, locked modules, flags, toolchain and
    platform.
    """
    digest = hashlib.sha256(json.dumps([FLAGS, go("env", "GOVERSION", "GOOS", "GOARCH")]).encode())
    for path in sorted(
        path for path in SOURCES.rglob("*") if path.suffix in {".go", ".mod", ".sum"}
    ):
        content = path.read_bytes()
        digest.update(f"\n{path.relative_to(SOURCES)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:20]


@contextmanager
def one_at_a_time(cache: Path):
    with (cache / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compile_all(target: Path) -> None:
    """Build into `target`, saying every few seconds how far it is."""
    started = said = time.monotonic()
    total = len(
        go("list", "-mod=readonly", "-deps", *(f"./{name}" for name in PROGRAMS)).splitlines()
    )
    print(
        f"building the cluster's node: {total} packages, 6 to 14 minutes when nothing is cached",
        file=sys.stderr,
        flush=True,
    )
    command = [
        "go",
        "build",
        "-v",
        *FLAGS,
        "-ldflags",
        link_flags(),
        "-o",
        f"{target}/",
        *(f"./{name}" for name in PROGRAMS),
    ]
    last_words: list[Any]
    compiled, last_words = 0, []
    with subprocess.Popen(
        command,
        cwd=SOURCES,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as build:
        for line in build.stderr:
            compiled, last_words = compiled + 1, [*last_words[-30:], line]
            if (now := time.monotonic()) - said >= PROGRESS_EVERY_S:
                said = now
                print(
                    f"  {now - started:4.0f} s: {compiled} compiled, {line.strip()}",
                    file=sys.stderr,
                    flush=True,
                )
    if build.returncode:
        raise BuildError(f"go build ended with {build.returncode}:\n{''.join(last_words)}")
    print(f"  built in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def drop_old_builds(cache: Path) -> None:
    by_age = sorted(
        (path for path in cache.glob("cluster-*") if path.is_dir()),
        key=lambda path: path.stat().st_mtime,
    )
    for old in by_age[:-KEPT_BUILDS]:
        for program in PROGRAMS:
            (old / program).unlink(missing_ok=True)
        old.rmdir()


def binaries() -> Path:
    """The directory with `node` and `pause`, built now if these sources were never built here."""
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    built = cache / f"cluster-{identity()}"
    if built.is_dir():
        os.utime(built)  # the oldest is dropped first
        return built
    with one_at_a_time(cache):
        if not built.is_dir():
            with tempfile.TemporaryDirectory(prefix="building-", dir=cache) as scratch:
                target = Path(scratch) / "out"
                target.mkdir()
                compile_all(target)
                # all or nothing: a build that was cut off leaves no directory of this name
                target.rename(built)
            drop_old_builds(cache)
    return built


if __name__ == "__main__":
    try:
        print(binaries())
    except BuildError as failed:
        sys.exit(str(failed))
