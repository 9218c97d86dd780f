"""A distribution for each trust boundary: what each wheel holds, asks for and can do alone."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import capsign_wire
import pytest
from support import wheels as built
from support.wheels import Environment, Wheel

pytestmark = pytest.mark.system  # pip, environments, commands

FOLDERS = built.folders()
NAMES = sorted(FOLDERS)
PACKAGES = {name: name.replace("-", "_") for name in NAMES}
COMMANDS = {name: set(built.project(FOLDERS[name]).get("scripts", {})) for name in NAMES}

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
absent = []
for module in pkgutil.walk_packages(package.__path__, sys.argv[1] + "."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        absent.append(f"{module.name} {error.name}")
for line in [package.__file__, *absent]:
    print(line)
"""

OF_AN_EXTRA = {
    "capsign": ["capsign.jwk cryptography"],
    "capsign-cli": [
        "capsign_cli.audit.export_otlp opentelemetry",
        "capsign_cli.audit.export_transport opentelemetry",
    ],
}
"""Modules that only an extra of the distribution makes importable, and what they lack: none but
these.
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Wheel]:
    return built.build(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory):
    """An environment for each, made when it is asked for."""
    made: dict[str, Environment] = {}

    def environment(name: str) -> Environment:
        if name not in made:
            made[name] = Environment(tmp_path_factory.mktemp(name), wheels, name)
        return made[name]

    return environment


def test_there_is_one_for_each_trust_boundary(wheels):
    assert set(wheels) == set(NAMES)
    assert {"capsign", "capsign-wire", "capsign-agent", "capsign-adapter"} <= set(wheels)


@pytest.mark.parametrize("name", NAMES)
def test_a_wheel_holds_its_package_and_no_other(wheels, name):
    """It was one wheel with all of them: whoever wanted to sign installed the adapter."""
    assert wheels[name].packages() == {PACKAGES[name]}
    folder = FOLDERS[name]
    listed = subprocess.run(
        ["git", "ls-files", PACKAGES[name]], cwd=folder, capture_output=True, text=True, check=True
    )
    assert set(listed.stdout.split()) <= set(wheels[name].names)
    assert f"{PACKAGES[name]}/py.typed" in wheels[name].names


@pytest.mark.parametrize("name", NAMES)
def test_a_wheel_carries_licence_and_version(wheels, name):
    assert wheels[name].version == capsign_wire.__version__
    assert wheels[name].metadata["License-Expression"] == "Apache-2.0"
    assert wheels[name].about("licenses/LICENSE") == (built.ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_release_belongs_together(wheels, name):
    """Each asks for the others in its own version: what crosses a socket is agreed on once."""
    needed = wheels[name].needs() + wheels[name].needs("dev")
    ours = {one.name: str(one.specifier) for one in needed if one.name in wheels}
    assert set(ours.values()) <= {f"=={capsign_wire.__version__}"}
    assert ("capsign-wire" in ours) == (name != "capsign-wire")


def test_an_application_installs_client_and_contracts_and_nothing_else(installed):
    """It brought agent, adapter, injector, command line, and four commands that crashed."""
    environment = installed("capsign")
    assert environment.ours == {"capsign", "capsign-wire"}
    assert environment.commands() == set()
    told = environment.run("python", "-I", "-c", "import capsign; print(capsign.Signer.__name__)")
    assert (told.returncode, told.stdout) == (0, "Signer\n"), told.stderr


@pytest.mark.parametrize("name", [name for name in NAMES if name != "capsign-wire"])
def test_what_it_asks_for_is_all_that_its_modules_need(installed, name):
    environment = installed(name)
    told = environment.run("python", "-I", "-c", IMPORT_ALL, PACKAGES[name])
    assert told.returncode == 0, told.stderr
    place, *absent = told.stdout.splitlines()
    assert place.startswith(str(environment.bin.parent)), "that was another installation's"
    assert absent == OF_AN_EXTRA.get(name, [])


def test_a_verifier_says_which_extra_it_needs(installed):
    code = "import capsign; capsign.Verifier('https://keys.example/set', algorithms=['ES256'])"
    told = installed("capsign").run("python", "-I", "-c", code)
    assert told.returncode != 0
    assert "pip install 'capsign[verify]'" in told.stderr


def test_the_contracts_alone_give_the_messages(installed):
    """Of `capsign-wire` the rest is for daemons, who ask for its libraries themselves."""
    environment = installed("capsign-wire")
    code = "from capsign_wire.agent.v1 import agent_pb2_grpc; from capsign_wire import intents"
    told = environment.run("python", "-I", "-c", code)
    assert told.returncode == 0, told.stderr
    assert (environment.ours, environment.commands()) == ({"capsign-wire"}, set())


@pytest.mark.parametrize("name", [name for name in NAMES if COMMANDS[name]])
def test_every_command_says_its_version(installed, name):
    (command,) = COMMANDS[name]
    environment = installed(name)
    assert command in environment.commands()
    for one in sorted(environment.commands() & set().union(*COMMANDS.values())):
        told = environment.run(one, "--version")
        assert (told.returncode, told.stderr) == (0, "")
        assert one in told.stdout
        assert capsign_wire.__version__ in told.stdout
        assert environment.run(one, "--help").returncode == 0


def test_without_the_processes_that_it_starts_dev_says_what_to_install(installed, tmp_path):
    """The command line contains no process: `capsign dev up` alone cannot start any."""
    told = installed("capsign-cli").run("capsign", "dev", "up", "--dir", str(tmp_path / "d"))
    assert told.returncode == 2
    assert "pip install 'capsign-cli[dev]'" in told.stderr
    assert not (tmp_path / "d").exists()


def test_the_extra_that_is_advised_exists(wheels):
    asked = {one.name for one in wheels["capsign-cli"].needs("dev")}
    assert asked - {one.name for one in wheels["capsign-cli"].needs()} == {
        "capsign-adapter",
        "capsign-agent",
    }
    extras = ["analytics", "dev", "otlp", "postgres"]
    assert sorted(wheels["capsign-cli"].metadata.get_all("Provides-Extra")) == extras


@pytest.mark.parametrize("absent", ["capsign_injector", "yaml"])
def test_what_is_not_there_is_named(installed, absent):
    """As where somebody installed without dependencies, or copied packages into an image."""
    code = f"import sys; sys.modules[{absent!r}] = None\n"
    code += "from capsign_cli.__main__ import main; main(['inject', '-f', '-'])"
    told = installed("capsign-cli").run("python", "-I", "-c", code)
    assert told.returncode == 2
    assert "pip install capsign-cli" in told.stderr
    assert "Traceback" not in told.stderr


def test_what_is_installed_here_has_the_same_commands():
    here = {
        name: {
            one.name
            for one in entry_points(group="console_scripts")
            if one.dist and one.dist.name == name
        }
        for name in NAMES
    }
    assert here == COMMANDS, f"run `make venv` for {sys.prefix}"
