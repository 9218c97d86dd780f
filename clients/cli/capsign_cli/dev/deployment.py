"""A deployment of `capsign dev up`: what its configuration and state files say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsign_wire import unix_socket

from capsign_cli.dev import layout as layouts
from capsign_cli.dev.ca import SERVER_NAME, Identity
from capsign_cli.dev.processes import Process


@dataclass(frozen=True, slots=True)
class Deployment:
    """What was made or found before the processes are started."""

    layout: layouts.Layout
    listeners: list[layouts.Listener]
    """Addresses, one adapter each."""
    ca: Path
    """Certificate of the development CA."""
    server: Identity
    """The adapters' certificate."""
    clients: Mapping[str, Identity]
    token: dict[str, str]
    """What `softhsm/init.py` says of the token."""
    store: str
    """The store's URL."""
    password: Path | None
    """File with the store's password."""

    @property
    def adapters(self) -> list[str]:
        """Names of the adapters' processes, in the order of `listeners`."""
        return [f"adapter-{number}" for number in range(1, len(self.listeners) + 1)]

    def write_configs(self) -> None:
        """Write the configuration of every process; those of adapters that are no more go."""
        layout = self.layout
        for old in layout.directory.glob("adapter-*.toml"):
            old.unlink()
        for name, listener in zip(self.adapters, self.listeners, strict=True):
            text = layouts.adapter_config(
                layout, listener, self.server, self.ca, self.token, self.store, self.password
            )
            layout.config(name).write_text(text, encoding="utf-8")
        text = layouts.agent_config(layout, self.listeners, self.clients["app"], self.ca)
        layout.config("agent").write_text(text, encoding="utf-8")

    def state(self, living: Mapping[str, Process]) -> dict[str, Any]:
        """What the state file says. A process that is not `living` has no pid yet, and the log's
        key is not known.
        """
        layout, pids = self.layout, {name: one.pid for name, one in living.items()}
        return {
            "dir": str(layout.directory),
            "sockets": {name: str(layout.socket(name)) for name in layouts.CONTAINERS},
            "adapters": self._adapters(pids),
            "agent": {
                "pid": pids.get("agent"),
                "health": unix_socket.target(layout.health),
                "config": str(layout.config("agent")),
                "log": str(layout.log("agent")),
            },
            "ca": str(self.ca),
            "server_name": SERVER_NAME,
            "clients": {name: _client(one) for name, one in self.clients.items()},
            "policy": str(layout.policy),
            "state": str(layout.state),
            "run": str(layout.run),
            "store": self.store,
            "store_password_file": str(self.password) if self.password else None,
            "token": self.token,
            "log_origin": layouts.LOG_ORIGIN,
            "log_key": "",
            "pids": list(pids.values()),
            "processes": [
                {"name": one.name, "pid": one.pid, "started": one.started}
                for one in living.values()
            ],
        }

    def _adapters(self, pids: Mapping[str, int]) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "address": one.address,
                "health": one.health,
                "admin": one.admin,
                "public": one.public,
                "pid": pids.get(name),
                "config": str(self.layout.config(name)),
                "log": str(self.layout.log(name)),
            }
            for name, one in zip(self.adapters, self.listeners, strict=True)
        ]


def _client(identity: Identity) -> dict[str, str]:
    return {
        "spiffe_id": identity.spiffe_id,
        "certificate": str(identity.certificate),
        "private_key": str(identity.private_key),
    }
