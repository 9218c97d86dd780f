"""docs/operations/bounds.md is complete and true: every RPC has a row, and what a row names is
there.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from capsign_adapter.config import Config as AdapterConfig
from capsign_agent.config import Config as AgentConfig
from capsign_agent.timing import USUAL
from capsign_injector.server_settings import Server as InjectorServer
from capsign_wire.adapter.v1 import (
    admin_pb2,
    approvals_pb2,
    capability_pb2,
    evidence_pb2,
    identity_pb2,
    inventory_pb2,
    keys_pb2,
    policy_pb2,
    revocations_pb2,
    rollouts_pb2,
    signing_pb2,
    tenants_pb2,
)
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import REASONS
from grpc_health.v1 import health_pb2

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations" / "bounds.md"
SERVED = {
    "Adapter": (
        admin_pb2,
        approvals_pb2,
        capability_pb2,
        evidence_pb2,
        identity_pb2,
        inventory_pb2,
        keys_pb2,
        policy_pb2,
        revocations_pb2,
        rollouts_pb2,
        signing_pb2,
        tenants_pb2,
        health_pb2,
    ),
    "Agent": (agent_pb2, health_pb2),
    "Injector": (),
}
"""What each process serves over gRPC."""

LISTENERS = {
    "Adapter": (
        "listen.address",
        "listen.enrolment_address",
        "listen.health_address",
        "listen.public_address",
    ),
    "Agent": ("sockets[].path", "health.path", "health.probe_path"),
    "Injector": ("server.listen", "server.health"),
}
SETTINGS: dict[str, Any] = {"Adapter": AdapterConfig, "Agent": AgentConfig}
PACKAGES = {"Adapter": "capsign_adapter", "Agent": "capsign_agent", "Injector": "capsign_injector"}


HEADS = ("|---", "| RPC or listener", "| what is behind")
"""How lines of a table begin that are no rows."""


class Row(NamedTuple):
    """A row of the page, and the process and line that it is about."""

    process: str
    line: int
    what: str
    bound: str
    refusal: str
    tests: str


@cache
def rows() -> list[Row]:
    found, process = [], ""
    for number, line in enumerate(PAGE.read_text().splitlines(), 1):
        if line.startswith("## "):
            process = line.removeprefix("## ")
        elif line.startswith("|") and not line.startswith(HEADS):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 6, f"line {number} has {len(cells)} cells"
            found.append(Row(process, number, cells[0], cells[3], cells[4], cells[5]))
    return found


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("process", SERVED)
def test_every_rpc_has_a_row(process):
    """Whoever adds an RPC says what it can cost, and by what that is bounded."""
    named = {name for row in rows() if row.process == process for name in quoted(row.what)}
    rpcs = {
        f"{service.full_name}/{method.name}"
        for module in SERVED[process]
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert rpcs - named == set()
    assert {name for name in named if "/" in name} - rpcs == set(), "rows about RPCs that are gone"


@pytest.mark.parametrize("process", LISTENERS)
def test_every_listener_is_named(process):
    _, _, section = PAGE.read_text().partition(f"\n## {process}\n")
    section = section.partition("\n## ")[0]
    for listener in LISTENERS[process]:
        assert f"`{listener}`" in section


def test_what_bounds_is_there_with_the_value_that_is_said():
    wrong = []
    for row in rows():
        for name, said in re.findall(r"`([A-Za-z_.]+) = ([0-9.]+)`", row.bound):
            is_now = (
                _constant(row.process, name)
                if name.rsplit(".", 1)[-1].isupper()
                else _default(row.process, name)
            )
            if is_now != float(said):
                wrong.append(f"line {row.line}: {name} is {is_now}")
    assert wrong == []


def test_every_reason_is_one():
    names = {row.name for row in REASONS.values()}
    wrong = [
        f"line {row.line}: {name}"
        for row in rows()
        for name in quoted(row.refusal)
        if name not in names
    ]
    assert wrong == []


def test_every_test_is_there():
    wrong = []
    for row in rows():
        for name in quoted(row.tests):
            path, _, function = name.partition("::")
            file = ROOT / path
            if not file.is_file() or not re.search(
                rf"^(?:async )?def {re.escape(function)}\(", file.read_text(), re.MULTILINE
            ):
                wrong.append(f"line {row.line}: {name}")
    assert wrong == []


def test_every_row_says_what_bounds_it_and_which_test_shows_it():
    assert [row.line for row in rows() if not row.bound or not quoted(row.tests)] == []


def _constant(process: str, name: str) -> Any:
    path, _, constant = name.rpartition(".")
    module = path if path.startswith("capsign_") else f"{PACKAGES[process]}.{path}"
    return getattr(importlib.import_module(module), constant)


def _default(process: str, name: str) -> Any:
    """The default of a setting, or of the agent's timing. Raises KeyError if there is none of that
    name.
    """
    if name.startswith("timing."):
        return getattr(USUAL, name.removeprefix("timing."))
    if process == "Injector":
        kind, path = InjectorServer, name.removeprefix("server.").split(".")
    else:
        kind, path = SETTINGS[process], name.split(".")
    for part in path[:-1]:
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.name == part)
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    return defaults[path[-1]]
