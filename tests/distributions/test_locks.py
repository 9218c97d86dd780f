"""Each lock of `requirements` has what its projects ask for, and `make lock` writes every one."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
from capsign_images.catalogue import IMAGES
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import wheels as built
from support.wheels import ROOT

LOCKS = ROOT / "requirements"


def locked(*names: str) -> dict[str, str]:
    """The version of each package of these locks."""
    text = "".join((LOCKS / f"{name}.lock").read_text() for name in names)
    return {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    }


def misfits(asked: list[str], versions: dict[str, str]) -> list[str]:
    """What is asked for and not in these versions; our own packages are none of them."""
    found = []
    for line in asked:
        one = Requirement(line)
        name = canonicalize_name(one.name)
        if name.startswith("capsign") or (one.marker and not one.marker.evaluate()):
            continue
        if name not in versions or versions[name] not in one.specifier:
            found.append(f"{line}, and the lock has {versions.get(name)}")
    return found


def asked_by(folder: str, extra: str = "") -> list[str]:
    project = built.project(ROOT / folder)
    asked: list[str] = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return asked


def test_every_lock_is_written_by_make_lock():
    """What no target writes stays as it was: the extra's lock was made by hand."""
    commands = subprocess.run(
        ["make", "--dry-run", "lock"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    written = set(re.findall(r"-o requirements/(\S+\.lock)", commands))
    assert written == {path.name for path in LOCKS.glob("*.lock")}


@pytest.mark.parametrize("name", sorted(built.folders()))
def test_the_lock_of_everything_has_what_a_project_asks_for(name):
    folder = built.folders()[name]
    project = built.project(folder)
    extras = project.get("optional-dependencies", {}).values()
    asked = [*project["dependencies"], *(one for each in extras for one in each)]
    assert not misfits(asked, locked("dev"))


def test_the_lock_of_everything_has_the_tools():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert not misfits(groups["dev"], locked("dev"))


@pytest.mark.parametrize("name", ["proto", "images"])
def test_the_locks_of_tools_have_what_is_asked_for(name):
    assert not misfits((LOCKS / f"{name}.in").read_text().split(), locked(name))


@pytest.mark.parametrize("image", IMAGES.values(), ids=sorted(IMAGES))
def test_the_locks_of_an_image_have_what_is_in_it(image):
    folders = {package.rpartition("/")[0] for package in image.packages}
    if image.name == "injector":
        folders -= {"proto/python"}  # speaks no gRPC
    for folder in sorted(folders):
        assert not misfits(asked_by(folder), locked(image.name)), folder
    own = next(folder for folder in folders if folder.endswith(image.name))
    for extra in image.extras:
        lock = f"{image.name}-{extra}"
        assert not misfits(asked_by(own, extra), locked(lock))
        assert not set(locked(lock)) & set(locked(image.name)), "each is installed once"
    versions = locked(*(lock.removesuffix(".lock") for lock in image.locks))
    tested = locked("dev")
    assert {name: tested[name] for name in versions} == versions
