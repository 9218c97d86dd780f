"""The four commands of a wheel: each says its version, and what to install where its libraries are
not there.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    "capsign": "cli",
    "capsign-agent": "agent",
    "capsign-adapter": "adapter",
    "capsign-injector": "injector",
}

WITHOUT = """
import sys
from importlib.abc import MetaPathFinder
absent = set(sys.argv[2].split(","))
class Bare(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Bare())
module, _, function = sys.argv[1].partition(":")
sys.argv[1:] = ["--help"]
import importlib
getattr(importlib.import_module(module), function)()
"""

OPTIONAL = sorted(
    {
        "msgspec",
        "yaml",
        "click",
        "rich",
        "cryptography",
        "biscuit_auth",
        "uvloop",
        "aiohttp",
        "psycopg",
        "pkcs11",
        "grpc_health",
    }
)


@pytest.mark.parametrize("command", EXTRAS)
def test_without_its_libraries_a_command_says_what_to_install(command):
    """`pip install` of the wheel installs all four, an application needs none of their libraries:
    each ended in a traceback.
    """
    target = PROJECT["scripts"][command]
    arguments = [sys.executable, "-c", WITHOUT, target, ",".join(OPTIONAL)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{command}: It needs ")
    assert line.endswith(f"pip install 'capsign[{EXTRAS[command]}]'")


@pytest.mark.parametrize("command", EXTRAS)
def test_every_command_says_its_version(command):
    module, _, function = PROJECT["scripts"][command].partition(":")
    code = (
        f"import sys; sys.argv = [{command!r}, '--version']; import {module} as m; m.{function}()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert command in done.stdout
    assert PROJECT["version"] in done.stdout


def test_the_extras_that_are_advised_exist():
    assert set(EXTRAS.values()) <= PROJECT["optional-dependencies"].keys()
    assert set(EXTRAS) == PROJECT["scripts"].keys()


def test_what_is_installed_here_has_the_same_commands():
    assert {
        one.name
        for one in entry_points(group="console_scripts")
        if one.dist and one.dist.name == "capsign"
    } == set(EXTRAS)
