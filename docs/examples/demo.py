"""`make demo`: everything on one machine, an application that signs, an attacker who does not, and
the evidence.

It leaves the system running; `make demo-down` ends it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
from capsign_wire import channels
from capsign_wire.adapter.v1 import (
    capability_pb2,
    capability_pb2_grpc,
    signing_pb2,
    signing_pb2_grpc,
)
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2
from rich.console import Console

HERE = Path(__file__).parent
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def step(number: int, title: str) -> None:
    console.print(f"\n[bold cyan]{number}[/] [bold]{title}[/]")
    sys.stdout.flush()


def capsign(*arguments: str, capture: bool = False) -> str:
    """Run the command line."""
    command = [sys.executable, "-m", "capsign_cli", *arguments]
    ran = subprocess.run(
        command, check=False, text=True, stdout=subprocess.PIPE if capture else None
    )
    if ran.returncode != 0:
        raise SystemExit(ran.returncode)
    return ran.stdout or ""


class Workload:
    """A pod seen from the adapter: a certificate and its key. Here it speaks to the adapter
    directly, as an agent does.
    """

    def __init__(self, state: dict[str, Any], name: str) -> None:
        client = state["clients"][name]
        self.spiffe_id = client["spiffe_id"]
        files = (state["ca"], client["private_key"], client["certificate"])
        credentials = grpc.ssl_channel_credentials(*(Path(file).read_bytes() for file in files))
        options = [("grpc.ssl_target_name_override", state["server_name"])]
        self.channel = channels.secure(state["adapters"][0]["address"], credentials, options)

    def fetch(self, grant: str) -> capability_pb2.IssuedHandle:
        """A handle of its own."""
        stub = capability_pb2_grpc.CapabilityServiceStub(self.channel)
        return stub.IssueHandles(
            capability_pb2.IssueHandlesRequest(grants=[grant]), timeout=10
        ).handles[0]

    def sign(self, handle: capability_pb2.IssuedHandle) -> str:
        """Try to sign under a handle; the leaf of the signature, or why there is none."""
        item = signing_pb2.SignItem(intent_id=new_intent_id(), input=b"a message")
        group = signing_pb2.SignGroup(algorithm=algorithms_pb2.ALGORITHM_ED25519, items=[item])
        group.context.protocol = handle.context_rule.protocols[0].protocol
        request = signing_pb2.SignRequest(batch_id=1, handles=[handle.token], groups=[group])
        (answer,) = signing_pb2_grpc.SigningServiceStub(self.channel).Sign(
            iter([request]), timeout=10
        )
        result = answer.groups[0].items[0] if answer.groups else None
        failure = answer.failure if result is None else result.failure
        if result is not None and result.signatures:
            return f"signed, leaf {result.leaf_index}"
        error = FailureError.from_item(failure)
        said = error.detail.removesuffix(error.row.advice).strip()
        return f"refused: {error.row.name}\n{'':<20}[dim]{said}[/]"


def show_attacks(state: dict[str, Any], short: capability_pb2.IssuedHandle, app: Workload) -> None:
    other = Workload(state, "other")
    stolen = app.fetch("orders-artifact")
    console.print(f"  its owner         {app.sign(stolen)}")
    answer = other.sign(stolen)
    console.print(f"  a thief's copy    {answer}\n{'':<20}[dim]The thief is {other.spiffe_id}.[/]")
    if "HANDLE_STOLEN" not in answer:
        raise SystemExit("a stolen handle was not refused as stolen")
    left = short.expires_at.ToDatetime(datetime.UTC).timestamp() - time.time()
    console.print(
        f"  an old handle     [dim]made in step 1 to live ten seconds; {max(0, left):.0f} "
        f"s left, waiting …[/]"
    )
    # the policy forgives two seconds of clock skew
    while time.time() < short.expires_at.seconds + 4:
        time.sleep(0.25)
    answer = app.sign(short)
    console.print(f"{'':<20}{answer}")
    if "HANDLE_EXPIRED" not in answer:
        raise SystemExit("an expired handle was not refused as expired")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path(".demo"))
    directory = str(parser.parse_args().dir)
    began = time.monotonic()

    step(1, "Start a token, a development CA, an adapter and a sidecar")
    state = json.loads(capsign("dev", "up", "--dir", directory, "-o", "json", capture=True))
    for process in state["processes"]:
        console.print(f"  {process['name']:<10} pid {process['pid']}")
    console.print(
        f"  keys are in {state['token']['label']} "
        f"({Path(state['token']['module']).name}); evidence is in {state['store']}"
    )
    app = Workload(state, "app")
    short = app.fetch("orders-short")

    step(2, "An application in another process signs; it holds a socket and no key")
    environ = {**os.environ, "CAPSIGN_SOCKET": state["sockets"]["app"]}
    if (
        subprocess.run([sys.executable, str(HERE / "app.py")], env=environ, check=False).returncode
        != 0
    ):
        raise SystemExit("the application failed; see above")

    step(3, "Handles that are not one's own, or too old")
    show_attacks(state, short, app)

    step(
        4,
        "The evidence: every decision is a leaf; the tree is recomputed here and held "
        "against the signed checkpoint",
    )
    verified = json.loads(capsign("log", "verify", "--dir", directory, "-o", "json", capture=True))
    for line in verified["checkpoint"].rstrip().split("\n"):
        short = line if len(line) <= 120 else f"{line[:60]}… ({len(line)} characters)"
        console.print(f"  [dim]│[/] {short}", soft_wrap=True)
    console.print(
        f"  [green]verified[/]: {verified['leaves']} leaves, root "
        f"{verified['root'][:16]}…, signed by the key in the token"
    )

    console.print(
        f"\n[bold green]Done[/] in {time.monotonic() - began:.0f} s. It stays up. Talk to it:\n"
    )
    hint = "" if directory == ".demo" else f" --dir {directory}"
    for line in (
        f"export CAPSIGN_SOCKET={state['sockets']['app']}",
        f".venv/bin/capsign handles{hint}",
        f"echo hello | .venv/bin/capsign sign{hint} -p jwt --protocol jwt -a ES256",
        f".venv/bin/capsign keys list{hint}",
        """.venv/bin/python -c 'import capsign as c; """
        """print(c.Signer().sign(b"hi", purpose="artifact", algorithm="ES256"))'""",
        f"tail -f {directory}/logs/*.log",
        "make demo-down" if not hint else f".venv/bin/capsign dev down{hint}",
    ):
        console.print(f"  {line}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
