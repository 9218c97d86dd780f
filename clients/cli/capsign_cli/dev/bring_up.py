"""`capsign dev up`, step by step. What exists is kept and what does not run is started, so the same
command repairs the deployment after a crash.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from capsign_wire import channels, unix_socket

from capsign_cli import dev_state
from capsign_cli.adapter_connection import Adapter
from capsign_cli.dev import layout as layouts
from capsign_cli.dev import prepare, processes
from capsign_cli.dev.ca import SERVER_NAME, DevelopmentCa
from capsign_cli.dev.deployment import Deployment
from capsign_cli.dev.lock import alone_in
from capsign_cli.dev.processes import Process
from capsign_cli.failures import UNAVAILABLE, CliError

READY_SECONDS = 60.0
"""Seconds that a process may take to become ready."""


def bring_up(wanted: prepare.Wanted, say: Callable[[str], None]) -> dict[str, Any]:
    """Start everything and wait until it is ready; returns what the state file says."""
    directory = wanted.directory.resolve()
    prepare.refuse_name(directory)
    prepare.refuse_without_processes()
    with alone_in(directory, say), ExitStack() as afterwards:
        return _bring_up(wanted, directory, say, afterwards)


def _bring_up(
    wanted: prepare.Wanted, directory: Path, say: Callable[[str], None], afterwards: ExitStack
) -> dict[str, Any]:
    before = _before(directory)
    running = {one.name: one for one in known_processes(before) if one.alive} if before else {}

    # 1 The directory and what lies in it.
    layout = prepare.make_directories(directory, before)
    afterwards.callback(_forget_sockets, layout)
    store = prepare.choose_store(wanted, before, layout)
    if running and before:
        prepare.refuse_change(wanted, before, len(before["adapters"]))
    policy = prepare.find_policy(layout, wanted.policy)

    # 2 Token and CA.
    say("token")
    token = prepare.make_token(directory / "token")
    say("certificates")
    ca = DevelopmentCa(directory / "pki", renew=not running)
    server = ca.issue("adapter", "/adapter", server=True)
    clients = {name: ca.issue(name, path) for name, path in prepare.CLIENTS.items()}

    # 3 Configuration. The addresses of a process that still runs stay as they are.
    kept = before["adapters"] if before and running else None
    listeners = _listeners(kept, wanted.workers or (len(before["adapters"]) if before else 1))
    deployment = Deployment(layout, listeners, ca.certificate_file, server, clients, token, *store)
    environ = prepare.clean_environ()
    if not running:
        deployment.write_configs()
        # 4 Keys are made by their own command: an adapter that starts never makes one.
        say("keys")
        prepare.make_keys(layout, environ, policy, wanted.policy)

    # 5 The processes.
    return _run(deployment, environ, running, say)


def _listeners(kept: list[dict[str, str]] | None, count: int) -> list[layouts.Listener]:
    """The addresses of adapters that run, or unused ones."""
    if kept is None:
        return layouts.free_listeners(count)
    return [
        layouts.Listener(one["address"], one["health"], one.get("admin", ""), one.get("public", ""))
        for one in kept
    ]


def _run(
    deployment: Deployment,
    environ: Mapping[str, str],
    running: Mapping[str, Process],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Start what does not run, and wait until all of it is ready; returns what the state file says.

    Each process is written down as soon as it lives, so that `dev down` and the next `dev up` know
    it if this one is killed half-way. If one does not become ready, those started here are ended.
    """
    layout, living = deployment.layout, dict(running)
    started: list[Process] = []
    try:
        for name in [*deployment.adapters, "agent"]:
            if name not in living:
                living[name] = _start(name, layout, environ, started)
                _keep(layout.directory, deployment.state(living))
        for name, listener in zip(deployment.adapters, deployment.listeners, strict=True):
            say(name)
            _await(living[name], listener.health, layout)
        say("agent")
        _await(living["agent"], unix_socket.target(layout.health), layout)
        complete = deployment.state(living) | {"log_key": _log_key(deployment)}
    except BaseException:
        processes.end(started, 5.0)
        raise
    _keep(layout.directory, complete)
    return complete


def known_processes(state: Mapping[str, Any]) -> list[Process]:
    """The processes of a state file."""
    return [Process(one["name"], one["pid"], one["started"]) for one in state["processes"]]


def _before(directory: Path) -> dict[str, Any] | None:
    return dev_state.load(directory) if (directory / dev_state.STATE_FILE).exists() else None


def _forget_sockets(layout: layouts.Layout) -> None:
    """Remove a directory for sockets that lies elsewhere, unless the state file names it, because
    nothing would find it again.
    """
    state = _before(layout.directory)
    if not layout.run.is_relative_to(layout.directory) and (
        state is None or state["run"] != str(layout.run)
    ):
        shutil.rmtree(layout.run, ignore_errors=True)


def _start(
    name: str, layout: layouts.Layout, environ: Mapping[str, str], started: list[Process]
) -> Process:
    module = "capsign_agent" if name == "agent" else "capsign_adapter"
    one = processes.start(
        name, module, ["--config", str(layout.config(name))], layout.log(name), environ
    )
    started.append(one)
    return one


def _await(process: Process, target: str, layout: layouts.Layout) -> None:
    """Wait until the process reports SERVING at its health address. Raises CliError if it ends or
    takes too long.
    """
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    deadline = time.monotonic() + READY_SECONDS
    options = [("grpc.max_reconnect_backoff_ms", 250), ("grpc.initial_reconnect_backoff_ms", 50)]
    with channels.insecure(target, options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            try:
                answer = stub.Check(
                    health_pb2.HealthCheckRequest(), timeout=0.5, wait_for_ready=True
                )
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                pass  # not there yet; whether it ever will be is seen below
            if processes.wait(process, 0.05):
                break
    log = layout.log(process.name)
    what = "ended" if not process.alive else f"was not ready after {READY_SECONDS:.0f} s"
    raise CliError(
        UNAVAILABLE,
        "NOT_READY",
        f"{process.name} {what}. It said:\n{processes.tail(log)}\n",
        f"All of it is in {log}.",
    )


def _log_key(deployment: Deployment) -> str:
    """The log's verifier key. Trusted on first use: this is the machine that has just made it."""
    from capsign_wire.adapter.v1 import evidence_pb2, evidence_pb2_grpc

    operator = deployment.clients["operator"]
    adapter = Adapter(
        deployment.listeners[0].address,
        deployment.ca,
        operator.certificate,
        operator.private_key,
        SERVER_NAME,
        "",
        dev_state.renewal(deployment.layout.directory),
    )
    with adapter.channel() as channel:
        stub = evidence_pb2_grpc.EvidenceServiceStub(channel)
        key: str = stub.GetCheckpoint(evidence_pb2.GetCheckpointRequest(), timeout=10).verifier_key
    return key


def _keep(directory: Path, state: Mapping[str, Any]) -> None:
    scratch = directory / f".{dev_state.STATE_FILE}.new"
    scratch.write_text(json.dumps(state, indent=2) + "\n")
    scratch.replace(directory / dev_state.STATE_FILE)
