"""The distributions of this repository as wheels, and environments in which one of them is
installed with what it asks for, and nothing else.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def folders() -> dict[str, Path]:
    """Name and folder of each distribution, from the Makefile's list."""
    (line,) = re.findall(r"^DISTRIBUTIONS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {project(ROOT / folder)["name"]: ROOT / folder for folder in line.split()}


def project(folder: Path) -> dict[str, Any]:
    """The table `[project]` of a folder."""
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return found


class Wheel:
    """A wheel as it was built."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            self.names = archive.namelist()
            self._info = next(
                name.partition("/")[0] for name in self.names if ".dist-info/" in name
            )
            self._texts = {
                name.partition("/")[2]: archive.read(name)
                for name in self.names
                if name.startswith(self._info)
            }
        self.metadata: Message = HeaderParser().parsestr(self._texts["METADATA"].decode())
        self.name = canonicalize_name(self.metadata["Name"])
        self.version: str = self.metadata["Version"]

    def about(self, name: str) -> str:
        """A text beside the packages, such as `licenses/LICENSE`; empty if it is not there."""
        return self._texts.get(name, b"").decode()

    def packages(self) -> set[str]:
        """What it puts beside other packages."""
        return {name.partition("/")[0] for name in self.names} - {self._info}

    def needs(self, extra: str = "") -> list[Requirement]:
        """What it asks for."""
        asked = [Requirement(line) for line in self.metadata.get_all("Requires-Dist", [])]
        return [one for one in asked if one.marker is None or one.marker.evaluate({"extra": extra})]


def build(into: Path) -> dict[str, Wheel]:
    """All wheels, by the command of `make wheels`, without a network."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(into)]
    done = subprocess.run(
        [*command, *map(str, folders().values())], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    wheels = [Wheel(path) for path in into.glob("*.whl")]
    return {wheel.name: wheel for wheel in wheels}


class Environment:
    """A virtual environment with one of our distributions, its siblings, and what they ask for:
    links to the libraries of the environment that the tests run in, which are those of the lock.
    """

    def __init__(self, home: Path, wheels: dict[str, Wheel], name: str) -> None:
        self.bin = home / "bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
        ours, theirs = closure(wheels, name)
        self.ours = {wheel.name for wheel in ours}
        (site,) = home.glob("lib/python3*/site-packages")
        for library in theirs:
            _lend(library, site)
        command = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install"]
        command += ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
        subprocess.run([*command, *(str(wheel.path) for wheel in ours)], check=True)

    def commands(self) -> set[str]:
        """What it installed beside Python."""
        return {
            path.name
            for path in self.bin.iterdir()
            if not path.name.lower().startswith(("python", "activate"))
        }

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of its programs to its end, in an environment that says nothing of ours."""
        return subprocess.run(
            [str(self.bin / command), *arguments],
            cwd=self.bin,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def closure(wheels: dict[str, Wheel], name: str) -> tuple[list[Wheel], list[Distribution]]:
    """What installing one of ours brings: wheels of ours, and libraries."""
    ours: dict[str, Wheel] = {}
    theirs: dict[str, Distribution] = {}
    waiting = [Requirement(name)]
    while waiting:
        one = waiting.pop()
        key = canonicalize_name(one.name)
        if key in ours or (key in theirs and not one.extras):
            continue
        if key in wheels:
            ours[key] = wheels[key]
            waiting += wheels[key].needs()
        else:
            theirs[key] = distribution(key)
            waiting += _needs(theirs[key], one.extras)
    return list(ours.values()), list(theirs.values())


def _needs(library: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for line in library.requires or ():
        one = Requirement(line)
        if one.marker is None or any(
            one.marker.evaluate({"extra": name}) for name in ("", *extras)
        ):
            yield one


def _lend(library: Distribution, site: Path) -> None:
    """File by file: namespaces such as `google` belong to several."""
    for file in library.files or ():
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(Path(str(file.locate())))
