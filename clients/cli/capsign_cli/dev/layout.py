"""Paths in a directory of `capsign dev up`, and the configuration files that name them. Pure except
for choosing ports.
"""

from __future__ import annotations

import os
import random
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsign_wire import sqlite_url, toml_text
from capsign_wire.shown_url import without_secrets

from capsign_cli.dev.ca import SERVER_NAME, TRUST_DOMAIN, Identity
from capsign_cli.failures import UNAVAILABLE, USAGE, CliError

LOG_ORIGIN = f"{TRUST_DOMAIN}/log"
CONTAINERS = {"app": (), "worker": ("orders-webhook", "orders-short")}
"""Sockets of the agent: name, and the grants offered on it; none means all of the workload's."""

TOKEN_KEYS = {"module": "module", "label": "label", "pin_file": "pin_file", "config": "conf"}
"""Keys of the adapter's section `token`, and the fields of `softhsm/init.py`'s output that they
get.
"""

# Below Linux's ephemeral range (32768 up), so that an outgoing connection of somebody else cannot
# take a port between its choice here and its use by the adapter.
PORTS = range(20_000, 32_000)
PORTS_VARIABLE = "CAPSIGN_DEV_PORTS"
"""Names other ports, as `20000-20999`, both ends included: for deployments whose adapters are down
at times, so that no other takes their ports meanwhile.
"""
ENGINE_VARIABLE = "CAPSIGN_DEV_ENGINE"
"""Names what serves the applications' sockets (`front.engine`); the agent's default without it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths. `run` holds the sockets; it lies elsewhere if `directory` is too long for a socket's
    path.
    """

    directory: Path
    run: Path

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def policy(self) -> Path:
        return self.directory / "policy.yaml"

    def config(self, name: str) -> Path:
        """The configuration file of a process."""
        return self.directory / f"{name}.toml"

    def log(self, name: str) -> Path:
        """What a process writes to standard error and output."""
        return self.logs / f"{name}.log"

    def socket(self, container: str) -> Path:
        """The socket of a container; each has a directory of its own."""
        return self.run / container / "agent.sock"

    @property
    def health(self) -> Path:
        return self.run / "health" / "agent.sock"


@dataclass(frozen=True, slots=True)
class Listener:
    """Addresses of one adapter."""

    address: str
    health: str
    admin: str = ""
    """The address for people with roles; empty: the same as for workloads."""
    public: str = ""
    """Where verifiers read public keys; empty: nowhere."""


def _ports() -> range:
    """The ports to choose from. Raises CliError."""
    told = os.environ.get(PORTS_VARIABLE)
    if not told:
        return PORTS
    found = re.fullmatch(r"(\d{4,5})-(\d{4,5})", told, re.ASCII)
    ports = range(int(found[1]), int(found[2]) + 1) if found else range(0)
    if not ports or ports.start < 1024 or ports.stop > 65536:
        detail = f"{PORTS_VARIABLE} says {told!r}."
        raise CliError(USAGE, "PORTS_MALFORMED", detail, "Say it as 20000-20999.")
    return ports


def free_listeners(count: int) -> list[Listener]:
    """Loopback addresses on which nothing listens. All are bound until all are chosen, so they
    differ. Raises CliError if there are not so many, or PORTS_VARIABLE says no ports.
    """
    held: list[socket.socket] = []
    ports = _ports()
    try:
        for port in random.sample(ports, k=min(len(ports), 200 + 4 * count)):
            one = socket.socket()
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                one.close()
                continue
            held.append(one)
            if len(held) == 4 * count:
                addresses = [f"127.0.0.1:{taken.getsockname()[1]}" for taken in held]
                return [Listener(*addresses[at : at + 4]) for at in range(0, len(addresses), 4)]
    finally:
        for taken in held:
            taken.close()
    raise CliError(
        UNAVAILABLE,
        "NO_FREE_PORT",
        f"No free ports from {ports.start} to {ports.stop - 1}.",
        "Stop what listens there.",
    )


def adapter_config(
    layout: Layout,
    listener: Listener,
    server: Identity,
    ca: Path,
    token: dict[str, str],
    store: str,
    password: Path | None,
) -> str:
    """The TOML of one adapter."""
    sections: dict[str, dict[str, Any]] = {
        "": {"policy": layout.policy},
        "listen": {
            "address": listener.address,
            **({"admin_address": listener.admin} if listener.admin else {}),
            **({"public_address": listener.public} if listener.public else {}),
            "health_address": listener.health,
        },
        "tls": {
            "certificate": server.certificate,
            "private_key": server.private_key,
            "client_ca": ca,
        },
        "token": {key: token[name] for key, name in TOKEN_KEYS.items()},
        "store": {"url": store, **({"password_file": password} if password else {})},
        "log": {"origin": LOG_ORIGIN},
    }
    return toml(sections)


def agent_config(layout: Layout, listeners: list[Listener], workload: Identity, ca: Path) -> str:
    """The TOML of the agent."""
    sections: dict[str, dict[str, Any]] = {
        "upstream": {"targets": [one.address for one in listeners], "server_name": SERVER_NAME},
        "identity": {"source": "files"},
        "identity.files": {
            "ca_file": ca,
            "cert_file": workload.certificate,
            "key_file": workload.private_key,
        },
        "journal": {"dir": layout.state / "journal"},
        "health": {"path": layout.health},
    }
    if engine := os.environ.get(ENGINE_VARIABLE):
        sections["front"] = {"engine": engine}
    text = toml(sections)
    for name, grants in CONTAINERS.items():
        text += "\n" + toml(
            {"[sockets]": {"name": name, "path": layout.socket(name), "grants": list(grants)}}
        )
    return text


def toml(sections: dict[str, dict[str, Any]]) -> str:
    """TOML of flat sections."""
    lines: list[str] = []
    for name, values in sections.items():
        if name:
            lines.append(f"\n[{name}]" if lines else f"[{name}]")
        lines += [f"{key} = {toml_text.value(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def store_url(layout: Layout, given: str) -> str:
    """The store's URL: "sqlite" is a file in the state directory."""
    if given == "sqlite":
        return sqlite_url.url(layout.state / "capsign.sqlite")
    if given.startswith(("postgresql://", "postgres://")):
        return given
    if given.startswith("sqlite:///"):
        try:
            sqlite_url.path_of(given)
        except ValueError as error:
            raise CliError(USAGE, "STORE", str(error), "Correct --store.") from None
        return given
    raise CliError(
        USAGE,
        "STORE",
        f"There is no store {without_secrets(given)!r}.",
        "Use sqlite, or postgresql://user@host/database.",
    )
