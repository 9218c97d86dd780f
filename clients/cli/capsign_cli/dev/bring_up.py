"""`capsign dev up`, step by step. What exists is kept, what does not run is started: after a crash the same command mends it."""

from __future__ import annotations

import importlib.resources
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from capsign_cli import place
from capsign_cli.dev import layout as layouts
from capsign_cli.dev import processes
from capsign_cli.dev.ca import SERVER_NAME, DevelopmentCa, Identity
from capsign_cli.dev.processes import Process
from capsign_cli.failures import UNAVAILABLE, USAGE, CliError

READY_SECONDS = 60.0
"""Longest wait for a process to become ready."""

SOCKET_PATH_MAX = 107
"""sun_path of unix(7), without its final zero."""

CLIENTS = {
    "app": "/ns/demo/sa/app",
    "other": "/ns/demo/sa/other",
    "operator": "/operator/dev",
    "responder": "/responder/dev",
    "auditor": "/auditor/dev",
}
"""Client certificates that are made: two workloads and three people."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for; None: as it was before, or else the default."""

    directory: Path
    workers: int | None
    store: str | None
    password_file: Path | None
    policy: Path | None


def bring_up(wanted: Wanted, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything runs and is ready; returns what is needed to use it, as it is kept in the state file."""
    directory = wanted.directory.resolve()
    before = _before(directory)
    running = {one.name: one for one in known_processes(before) if one.alive} if before else {}

    # 1 The directory and what lies in it.
    layout = _layout(directory, before)
    store, password = _store(wanted, before, layout)
    if running and before:
        _refuse_change(wanted, before, len(before["adapters"]))
    if wanted.policy is not None:
        layout.policy.write_bytes(wanted.policy.read_bytes())
    elif not layout.policy.exists():
        packaged = importlib.resources.files("capsign_cli.dev") / "policy.yaml"
        layout.policy.write_bytes(packaged.read_bytes())

    # 2 Token and CA.
    say("token")
    token = _token(directory / "token")
    say("certificates")
    ca = DevelopmentCa(directory / "pki")
    server = ca.issue("adapter", "/adapter", server=True)
    clients = {name: ca.issue(name, path) for name, path in CLIENTS.items()}

    # 3 Configuration. The addresses of a process that still runs stay as they are.
    if running and before:
        listeners = [layouts.Listener(one["address"], one["health"]) for one in before["adapters"]]
    else:
        listeners = layouts.free_listeners(wanted.workers or (len(before["adapters"]) if before else 1))
        _write_configs(layout, listeners, server, clients["app"], ca.certificate_file, token, store, password)

    # 4 Keys are made by their own command: an adapter that starts never makes one.
    environ = _environ(token)
    names = [f"adapter-{number}" for number in range(1, len(listeners) + 1)]
    if not running:
        say("keys")
        _provision(layout, environ)

    # 5 The processes, each waited for.
    started: list[Process] = []
    living: dict[str, Process] = {}
    try:
        for name in [*names, "agent"]:
            living[name] = running.get(name) or _start(name, layout, environ, started)
        for name, listener in zip(names, listeners, strict=True):
            say(name)
            _await(living[name], listener.health, layout)
        say("agent")
        _await(living["agent"], f"unix:{layout.health}", layout)
        state = _state(layout, listeners, living, clients, ca.certificate_file, token, store, password)
    except BaseException:
        processes.end(started, 5.0)
        raise
    _keep(directory, state)
    return state


def known_processes(state: Mapping[str, Any]) -> list[Process]:
    """The processes of a state file."""
    return [Process(one["name"], one["pid"], one["started"]) for one in state["processes"]]


def _before(directory: Path) -> dict[str, Any] | None:
    return place.dev_state(directory) if (directory / place.STATE_FILE).exists() else None


def _layout(directory: Path, before: Mapping[str, Any] | None) -> layouts.Layout:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.geteuid() or directory.stat().st_mode & 0o077:
        raise CliError(USAGE, "DIRECTORY", f"Others can enter {directory}.", f"Run `chmod 700 {directory}`, or choose another.")
    layout = layouts.Layout(directory, directory / "run")
    if before is not None:
        layout = layouts.Layout(directory, Path(before["run"]))
    elif len(f"{layout.health}.probe".encode()) > SOCKET_PATH_MAX or any(
        len(os.fsencode(layout.socket(name))) > SOCKET_PATH_MAX for name in layouts.CONTAINERS
    ):
        layout = layouts.Layout(directory, Path(tempfile.mkdtemp(prefix="capsign-")))
    for path in (layout.run, layout.state, layout.state / "journal", layout.logs):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return layout


def _store(wanted: Wanted, before: Mapping[str, Any] | None, layout: layouts.Layout) -> tuple[str, Path | None]:
    """The store, which is never changed under keys that exist: evidence would stay behind."""
    if before is None:
        return layouts.store_url(layout, wanted.store or "sqlite"), wanted.password_file
    store: str = before["store"]
    if wanted.store is not None and layouts.store_url(layout, wanted.store) != store:
        raise CliError(USAGE, "STORE", f"{layout.directory} has the store {store}.", "Choose another --dir for another store.")
    kept = before["store_password_file"]
    return store, wanted.password_file or (Path(kept) if kept else None)


def _refuse_change(wanted: Wanted, before: Mapping[str, Any], workers: int) -> None:
    if wanted.workers not in {None, workers} or wanted.policy is not None:
        advice = f"Run `capsign dev down --dir {before['dir']}` first."
        raise CliError(USAGE, "RUNS_ALREADY", "The number of workers and the policy cannot change while it runs.", advice)


def _token(directory: Path) -> dict[str, str]:
    here = Path(__file__).resolve()
    candidates = (here.parent.parent / "softhsm" / "init.py", here.parents[4] / "softhsm" / "init.py")
    script = next((one for one in candidates if one.is_file()), None)
    if script is None:
        raise CliError(USAGE, "INCOMPLETE", "softhsm/init.py is not where this package looks.", "Install capsign again.")
    command = [sys.executable, str(script), "--dir", str(directory), "--label", "capsign", "-o", "json"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        advice = "`make system-packages` installs what is missing, or says how."
        raise CliError(UNAVAILABLE, "TOKEN", made.stderr.strip().removeprefix("softhsm/init.py: "), advice)
    token: dict[str, str] = json.loads(made.stdout)
    return token


def _write_configs(
    layout: layouts.Layout,
    listeners: list[layouts.Listener],
    server: Identity,
    workload: Identity,
    ca: Path,
    token: dict[str, str],
    store: str,
    password: Path | None,
) -> None:
    for old in layout.directory.glob("adapter-*.toml"):
        old.unlink()
    for number, listener in enumerate(listeners, 1):
        text = layouts.adapter_config(layout, listener, server, ca, token, store, password)
        layout.config(f"adapter-{number}").write_text(text)
    layout.config("agent").write_text(layouts.agent_config(layout, listeners, workload, ca))


def _environ(token: Mapping[str, str]) -> dict[str, str]:
    """Ours without CAPSIGN_*: several sets run side by side, and one set's overrides are not another's."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CAPSIGN_")}
    return {**ours, "SOFTHSM2_CONF": token["conf"]}


def _provision(layout: layouts.Layout, environ: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "capsign_adapter", "--config", str(layout.config("adapter-1")), "provision"]
    made = subprocess.run(command, capture_output=True, text=True, env=dict(environ), check=False)
    if made.returncode != 0:
        last = (made.stderr.strip().splitlines() or ["It said nothing."])[-1]
        raise CliError(UNAVAILABLE, "PROVISION", f"Keys could not be made. {last}", "Nothing runs. Put it right and try again.")


def _start(name: str, layout: layouts.Layout, environ: Mapping[str, str], started: list[Process]) -> Process:
    module = "capsign_agent" if name == "agent" else "capsign_adapter"
    one = processes.start(name, module, ["--config", str(layout.config(name))], layout.log(name), environ)
    started.append(one)
    return one


def _await(process: Process, target: str, layout: layouts.Layout) -> None:
    """Wait until the process says SERVING on its health address, or ends."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    deadline = time.monotonic() + READY_SECONDS
    with grpc.insecure_channel(
        target, [("grpc.max_reconnect_backoff_ms", 250), ("grpc.initial_reconnect_backoff_ms", 50)]
    ) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=0.5, wait_for_ready=True)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                pass  # not there yet; whether it ever will be is seen below
            if processes.wait(process, 0.05):
                break
    log = layout.log(process.name)
    what = "ended" if not process.alive else f"was not ready after {READY_SECONDS:.0f} s"
    raise CliError(
        UNAVAILABLE, "NOT_READY", f"{process.name} {what}. It said:\n{processes.tail(log)}\n", f"All of it is in {log}."
    )


def _state(
    layout: layouts.Layout,
    listeners: list[layouts.Listener],
    living: Mapping[str, Process],
    clients: Mapping[str, Identity],
    ca: Path,
    token: dict[str, str],
    store: str,
    password: Path | None,
) -> dict[str, Any]:
    adapters = [
        {
            "name": f"adapter-{number}",
            "address": one.address,
            "health": one.health,
            "pid": living[f"adapter-{number}"].pid,
            "config": str(layout.config(f"adapter-{number}")),
            "log": str(layout.log(f"adapter-{number}")),
        }
        for number, one in enumerate(listeners, 1)
    ]
    operator = clients["operator"]
    adapter = place.Adapter(listeners[0].address, ca, operator.certificate, operator.private_key, SERVER_NAME, "")
    return {
        "dir": str(layout.directory),
        "sockets": {name: str(layout.socket(name)) for name in layouts.CONTAINERS},
        "adapters": adapters,
        "agent": {
            "pid": living["agent"].pid,
            "health": f"unix:{layout.health}",
            "config": str(layout.config("agent")),
            "log": str(layout.log("agent")),
        },
        "ca": str(ca),
        "server_name": SERVER_NAME,
        "clients": {
            name: {"spiffe_id": one.spiffe_id, "certificate": str(one.certificate), "private_key": str(one.private_key)}
            for name, one in clients.items()
        },
        "policy": str(layout.policy),
        "state": str(layout.state),
        "run": str(layout.run),
        "store": store,
        "store_password_file": str(password) if password else None,
        "token": token,
        "log_origin": layouts.LOG_ORIGIN,
        "log_key": _log_key(adapter),
        "pids": [one.pid for one in living.values()],
        "processes": [{"name": one.name, "pid": one.pid, "started": one.started} for one in living.values()],
    }


def _log_key(adapter: place.Adapter) -> str:
    """The log's verifier key. Trusted on first use: this is the machine that has just made it."""
    from capsign_wire.adapter.v1 import evidence_pb2, evidence_pb2_grpc

    with adapter.channel() as channel:
        stub = evidence_pb2_grpc.EvidenceServiceStub(channel)
        key: str = stub.GetCheckpoint(evidence_pb2.GetCheckpointRequest(), timeout=10).verifier_key
    return key


def _keep(directory: Path, state: Mapping[str, Any]) -> None:
    scratch = directory / f".{place.STATE_FILE}.new"
    scratch.write_text(json.dumps(state, indent=2) + "\n")
    scratch.replace(directory / place.STATE_FILE)
