"""Adapters with an authority of their own, and an agent that enrols as in a pod: real processes, a
SoftHSM token, a cluster that behaves. Nothing here holds a certificate or a key but the processes
themselves.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
from capsign_adapter.store.open import open_store
from capsign_cli.dev.layout import free_listeners, toml
from capsign_evidence.leaf_reader import Entry, decode
from capsign_wire.adapter.v1 import identity_pb2, identity_pb2_grpc
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support import tokens
from support.adapter_rig import POLICY
from support.certificate_requests import request
from support.fake_cluster import FakeCluster
from support.identity_sections import kubernetes_section

CONFIG_MAP = ("capsign-system", "capsign-trust-bundle")


class PodDeployment:
    """Started by `__init__`; `lives` are the seconds of [identity]."""

    def __init__(self, root: Path, *, replicas: int = 1, **lives: int) -> None:
        self.root = root
        self.cluster = FakeCluster(root)
        self.pod = self.cluster.run("demo", "app-0", "app", "127.0.0.1")
        self._processes: list[subprocess.Popen[bytes]] = []
        self.token = tokens.softhsm(root / "token")
        (root / "policy.yaml").write_text(POLICY)
        self.store_url = f"sqlite://{root}/state/store.db"
        mains, doors = free_listeners(replicas), free_listeners(replicas)
        self.targets = [one.address for one in mains]
        self.doors = [one.address for one in doors]
        self._health = [one.health for one in mains]
        for index in range(replicas):
            self._config(index).write_text(self._adapter(index, lives))
        self.said = self.adapter_command("provision")
        for index in range(replicas):
            self._spawn(f"adapter-{index}", "capsign_adapter", self._config(index))
        for index, address in enumerate(self._health):
            try:
                _wait_serving(address)
            except TimeoutError as error:
                error.add_note((self.root / f"adapter-{index}.log").read_text()[-2000:])
                self.close()
                raise

    def _config(self, index: int) -> Path:
        return self.root / f"adapter-{index}.toml"

    def _adapter(self, index: int, lives: dict[str, int]) -> str:
        return toml(
            {
                "": {"policy": self.root / "policy.yaml"},
                "listen": {
                    "address": self.targets[index],
                    "enrolment_address": self.doors[index],
                    "health_address": self._health[index],
                },
                "tls": {"source": "authority", "names": ["localhost", "127.0.0.1"]},
                "token": {
                    "module": self.token.module,
                    "label": self.token.label,
                    "pin_file": self.token.pin_file,
                    "config": self.token.config,
                },
                "store": {"url": self.store_url},
                "log": {"origin": "capsign.test/log"},
                "identity": lives,
                "identity.kubernetes": {
                    "api_server": self.cluster.url,
                    "token_file": self.cluster.token_file,
                    "ca_file": self.cluster.ca_file,
                    "bundle_config_map": "/".join(CONFIG_MAP),
                },
            }
        )

    def _spawn(self, name: str, module: str, config: Path) -> subprocess.Popen[bytes]:
        with (self.root / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, "--config", str(config)], stderr=log
            )
        self._processes.append(process)
        return process

    def adapter_command(self, *arguments: str) -> str:
        """What `capsign-adapter` answers, beside the replicas that serve."""
        command = [
            sys.executable,
            "-m",
            "capsign_adapter",
            "--config",
            str(self._config(0)),
            *arguments,
        ]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def authorities(self) -> dict[str, Any]:
        """`capsign-adapter authority status`."""
        told: dict[str, Any] = json.loads(self.adapter_command("authority", "status", "-o", "json"))
        return told

    def wait_for(self, version: int, state: str, seconds: float = 120.0) -> None:
        """Until an authority is in that state."""
        end = time.monotonic() + seconds
        while {row["version"]: row["state"] for row in self.authorities()["authorities"]}.get(
            version
        ) != state:
            assert time.monotonic() < end, (
                f"authority {version} never became {state}: {self.authorities()}"
            )
            time.sleep(0.2)

    def published(self) -> bytes:
        """The bundle in the ConfigMap, as the injector gives it to a new pod. Waits for the first
        one.
        """
        end = time.monotonic() + 30
        while CONFIG_MAP not in self.cluster.config_maps:
            assert time.monotonic() < end, "no bundle was published"
            time.sleep(0.05)
        bundle: str = self.cluster.config_maps[CONFIG_MAP]["data"]["bundle.pem"]
        return bundle.encode()

    def wait_published(self, subjects: set[str], seconds: float = 30.0) -> None:
        """Until the bundle that new pods are given names these authorities and no other: it follows
        the store within a tick.
        """
        end = time.monotonic() + seconds
        while (
            named := {
                one.subject.rfc4514_string()
                for one in x509.load_pem_x509_certificates(self.published())
            }
        ) != subjects:
            assert time.monotonic() < end, f"published are {named}, not {subjects}"
            time.sleep(0.1)

    def enrol(self, bundle: bytes, door: int = 0) -> identity_pb2.EnrolResponse:
        """What a fresh pod that knows this bundle is given, over a connection of its own."""
        options = [
            ("grpc.ssl_target_name_override", "localhost"),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        with grpc.secure_channel(
            self.doors[door], grpc.ssl_channel_credentials(bundle), options
        ) as channel:
            asked = identity_pb2.EnrolRequest(
                certificate_request=request(), service_account_token=self.cluster.token(self.pod)
            )
            return identity_pb2_grpc.EnrolmentServiceStub(channel).Enrol(asked, timeout=20)

    def start_agent(self) -> Path:
        """The agent of a pod, with a token and the bundle of now; its socket."""
        home = self.root / "pod"
        home.mkdir(mode=0o700)
        token = home / "token"
        token.write_text(self.cluster.token(self.pod, seconds=3600))
        socket = home / "s" / "agent.sock"
        targets = ", ".join(f'"{target}"' for target in self.targets)
        (self.root / "agent.toml").write_text(
            f'[upstream]\ntargets = [{targets}]\nserver_name = "localhost"\n'
            + kubernetes_section(self.doors, token, self.published(), home / "i")
            + toml({"journal": {"dir": home / "j"}, "health": {"path": home / "h" / "health.sock"}})
            + f'[[sockets]]\nname = "app"\npath = "{socket}"\n'
        )
        self._spawn("agent", "capsign_agent", self.root / "agent.toml")
        return socket

    def entries(self) -> list[Entry]:
        """Every entry of the log."""
        store = open_store(self.store_url)
        try:
            entries: list[Any]
            size, entries = store.control().tree_size, []
            while len(entries) < size:
                entries += store.entries(len(entries), 4096)
            return [decode(entry) for entry in entries]
        finally:
            store.close()

    def events(self, name: str) -> list[dict[str, Any]]:
        """What a process has logged."""
        lines = (self.root / f"{name}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(timeout=60)
        self.cluster.close()


def _wait_serving(address: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    with grpc.insecure_channel(address, [("grpc.max_reconnect_backoff_ms", 250)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < end:
            try:
                if (
                    stub.Check(
                        health_pb2.HealthCheckRequest(), timeout=2.0, wait_for_ready=True
                    ).status
                    == 1
                ):
                    return
            except grpc.RpcError:
                continue
    raise TimeoutError(f"{address} is not serving")
