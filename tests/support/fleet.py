"""A small fleet in processes of their own: adapters, and an agent for each of three workloads that
sign with one key.
"""

from __future__ import annotations

import copy
import importlib.resources
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import psutil
import yaml
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_cli.dev.ca import DevelopmentCa
from capsign_wire import unix_socket
from capsign_wire.adapter.v1 import rollouts_pb2 as pb
from capsign_wire.adapter.v1 import rollouts_pb2_grpc
from capsign_wire.failures import FailureError
from support.dev import Dev

WORKLOADS = ("app", "other", "batch")
TENANT, KEY, GRANT = "demo", "orders", "orders-jwt"
PLACE = f"/v1/jwks/{TENANT}/{GRANT}?protocol=jwt&role=issuer"
PATIENCE_S = 90


def spiffe_id(workload: str) -> str:
    """The identity of one of WORKLOADS."""
    return f"spiffe://capsign.test/ns/demo/sa/{workload}"


def policy(rollouts: Mapping[str, Any], strict: str = "") -> str:
    """The policy of `capsign dev` as far as it concerns the key, with these stages, and one grant
    for all of WORKLOADS, whose open calls are ES256. `strict`: the name of another one for all of
    them, which demands of HS256 what SoftHSM cannot give: that it is derived inside.
    """
    packaged = importlib.resources.files("capsign_cli.dev") / "policy.yaml"
    document = yaml.safe_load(packaged.read_text())
    keys = [each for each in document["keys"] if each["name"] == KEY]
    grants = [
        each for each in document["grants"] if each["key"] == KEY and each["name"] != "other-jwt"
    ]
    for grant in grants:
        if grant["name"] == GRANT:
            grant["workloads"] = [spiffe_id(each) for each in WORKLOADS]
            grant["algorithms"] = ["ES256", "ML-DSA-65"]
    (usual,) = [each for each in grants if each["name"] == GRANT]
    if strict:
        refused = {"name": strict, "purpose": strict, "min_custody": "hsm-derived"}
        grants.append(copy.deepcopy(usual) | refused | {"algorithms": ["HS256"]})
    changed = {"keys": keys, "grants": grants, "rollouts": dict(rollouts)}
    return yaml.safe_dump(document | changed)


class Fleet:
    """`dev` has the adapters and the first agent, `sockets` the agents' by workload."""

    def __init__(
        self,
        directory: Path,
        rollouts: Mapping[str, Any],
        *,
        store: tuple[str, Path] | None = None,
        replicas: int = 2,
        older: Mapping[str, Mapping[str, str]] | None = None,
        strict: str = "",
    ) -> None:
        """`store`: URL and password file of an empty database; otherwise it is SQLite. `older`: the
        environments of agents of another release, by workload; the first one's is of now. `strict`:
        as `policy` takes it.
        """
        self._older = older or {}
        document = directory.with_name("policy.yaml")
        document.write_text(policy(rollouts, strict))
        arguments = ["--policy", str(document)]
        if store is not None:
            arguments += ["--store", store[0], "--store-password-file", str(store[1])]
        self.dev = Dev(directory, workers=replicas, arguments=tuple(arguments))
        self.replicas = [psutil.Process(each["pid"]) for each in self.dev.about["adapters"]]
        self.sockets = {WORKLOADS[0]: self.dev.socket()}
        self.agents: dict[str, subprocess.Popen] = {}
        self._channels: list[grpc.Channel] = []
        try:
            for workload in WORKLOADS[1:]:
                self._add(workload)
            self._channels = [self._admin(each["admin"]) for each in self.dev.about["adapters"]]
        except BaseException:
            self.close()
            raise

    @property
    def addresses(self) -> list[str]:
        """Where verifiers read public keys."""
        return [each["public"] for each in self.dev.about["adapters"]]

    @property
    def channel(self) -> grpc.Channel:
        """An operator's, to the first replica."""
        return self._channels[0]

    def _add(self, workload: str) -> None:
        """An agent of its own for this workload."""
        about, identity = self.dev.about, self._identity(workload)
        text = Path(about["agent"]["config"]).read_text()
        run, journal = Path(about["run"]) / workload, Path(about["state"]) / f"journal-{workload}"
        for made in (run, journal):
            made.mkdir(mode=0o700)
        for old, new in (
            (about["clients"]["app"]["certificate"], identity.certificate),
            (about["clients"]["app"]["private_key"], identity.private_key),
            (f"{about['state']}/journal", journal),
            (f"{about['run']}/", f"{run}/"),
        ):
            assert old in text
            text = text.replace(old, str(new))
        config = self.dev.directory / f"agent-{workload}.toml"
        config.write_text(text)
        log = self.dev.directory / "logs" / f"agent-{workload}.log"
        self.agents[workload] = self.dev.start_agent_of(
            config, log, **self._older.get(workload, {})
        )
        self.sockets[workload] = self.dev.socket().replace(about["run"], str(run))
        self.dev.wait_serving(unix_socket.target(run / "health" / "agent.sock"))

    def _identity(self, workload: str):
        authority = DevelopmentCa(self.dev.directory / "pki", renew=False)
        return authority.issue(workload, f"/ns/demo/sa/{workload}")

    def _admin(self, address: str) -> grpc.Channel:
        about = self.dev.about
        operator = about["clients"]["operator"]
        files = (about["ca"], operator["private_key"], operator["certificate"])
        credentials = grpc.ssl_channel_credentials(*(Path(file).read_bytes() for file in files))
        options = [
            ("grpc.ssl_target_name_override", about["server_name"]),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 250),
        ]
        return grpc.secure_channel(address, credentials, options)

    def kill(self, replica: int) -> None:
        """End it as a machine that loses its power does."""
        self.dev.end(self.replicas[replica], signal.SIGKILL)

    def start_again(
        self, replica: int, *, module: str = "capsign_adapter", **environment: str
    ) -> None:
        """Start it in its place, perhaps through another module, and wait until it serves."""
        process = self.dev.start_adapter(replica, module=module, **environment)
        self.replicas[replica] = psutil.Process(process.pid)
        self.dev.wait_serving(self.dev.about["adapters"][replica]["health"], PATIENCE_S)

    def ask(self, method: str, request: Any, replica: int | None = None) -> Any:
        """An act on rollouts, by an operator, at that replica, or at any that answers. Raises
        FailureError.
        """
        channels = self._channels if replica is None else [self._channels[replica]]
        end = time.monotonic() + PATIENCE_S
        while True:
            for channel in channels:
                stub = rollouts_pb2_grpc.RolloutServiceStub(channel)
                try:
                    return getattr(stub, method)(request, timeout=20)
                except grpc.RpcError as error:
                    failure = FailureError.from_rpc(error)
                    if failure is not None:
                        raise failure from None
                    if time.monotonic() > end:
                        raise
            threading.Event().wait(0.05)

    def start(self, **wish: Any) -> pb.Rollout:
        """A rollout of the key begins."""
        request = pb.StartRolloutRequest(tenant=TENANT, key=KEY, **wish)
        return self.ask("StartRollout", request).rollout

    def get(self) -> pb.GetRolloutResponse:
        """The newest rollout of the key, and its steps."""
        return self.ask("GetRollout", pb.GetRolloutRequest(tenant=TENANT, key=KEY))

    def until(self, done: Callable[[pb.Rollout], bool]) -> pb.Rollout:
        """Look until it is so. A rollout that is paused, or at its end, is no use to wait for."""
        pause, end = threading.Event(), time.monotonic() + PATIENCE_S
        while True:
            row = self.get().rollout
            if done(row):
                return row
            where = f"{RolloutStage(row.stage).name}, pace {row.pace}: {row.new_side}"
            assert row.stage < RolloutStage.DONE, where
            assert time.monotonic() < end, where
            pause.wait(0.1)

    def end_agents(self) -> None:
        """Every agent delivers what it has and ends: then each record is in the store."""
        ours = [*self.agents.values()]
        for process in ours:
            process.terminate()
        self.dev.end(self.dev.agent)
        for process in ours:
            process.wait(timeout=60)

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        self.dev.close()
