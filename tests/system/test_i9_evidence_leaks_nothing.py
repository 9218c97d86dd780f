"""I9 with real processes: marked values go into every field of every method, into messages, files,
the environment; afterwards they are looked for, in every form and under the usual hashes, in
everything that the processes leave behind. A build that lets something out is caught by the same
search, at each way that it does.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import capsign
import grpc
import psutil
import pytest
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
from capsign_wire.agent.v1 import agent_pb2, agent_pb2_grpc
from capsign_wire.algorithms import BY_NAME
from capsign_wire.intents import new_intent_id
from support.dev import Dev
from support.leak_search import Search
from support.left_behind import Places
from support.marked_inputs import Marks, call, requests
from support.otlp_receiver import receiving

ADAPTER = (
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
WHO = ("app", "operator", "responder", "auditor", "approver", "developer")
CALLS = 10.0
"""Seconds for each marked request; most are refused at once."""

KEPT = {
    "store": (".intent_id",),
    "journal": (".intent_id",),
    **dict.fromkeys(
        ("batches", "exports", "files", "ocsf", "otlp", "parquet", "timeline"), (".intent_id",)
    ),
    "answers": (".tenant", ".key"),
}
"""What may stand where, by a part of its name: ids of intents are recorded, and who asks for a key
is told by its name that there is none.
"""


@contextmanager
def as_(dev: Dev, who: str):
    """A channel to the adapter as that client of the deployment."""
    pki = dev.directory / "pki"
    files = [(pki / name).read_bytes() for name in ("ca.crt", f"{who}.key", f"{who}.crt")]
    options = [("grpc.ssl_target_name_override", "localhost")]
    address = dev.about["adapters"][0]["address"]
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(*files), options) as channel:
        yield channel


def ask_everything(dev: Dev, marks: Marks, places: Places) -> None:
    """Each method of each service, at the agent's socket and at the adapter as everybody there."""
    with grpc.insecure_channel(f"unix:{dev.socket()}") as channel:
        for method, request in requests([agent_pb2], marks):
            places.answers.append(call(channel, method, request, CALLS))
    for who in WHO:
        with as_(dev, who) as channel:
            for method, request in requests(ADAPTER, marks):
                if method.name != "Watch":  # it has no field, and does not end
                    places.answers.append(call(channel, method, request, CALLS))


def sign_in_a_trace(dev: Dev, message: bytes) -> None:
    """One call that its application has recorded, so that ours record it too."""
    trace = ("traceparent", f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01")
    with grpc.insecure_channel(f"unix:{dev.socket()}") as channel:
        stub = agent_pb2_grpc.SigningServiceStub(channel)
        handles = stub.ListHandles(agent_pb2.ListHandlesRequest(), timeout=CALLS).handles
        request = agent_pb2.SignRequest(
            handle_id=next(one.id for one in handles if one.purpose == "artifact"),
            algorithm=BY_NAME["Ed25519"].number,
            item=agent_pb2.SignItem(intent_id=new_intent_id(), message=message),
        )
        stub.Sign(request, timeout=CALLS, metadata=[trace])


def sign_marked(dev: Dev, marks: Marks, places: Places) -> None:
    """Messages that are marked, signed by every algorithm and in every way that calls have; and
    some that are refused.
    """
    with capsign.Signer(dev.socket()) as signer:
        for algorithm in ("Ed25519", "ES256", "HS256", "ML-DSA-65"):
            where = {"purpose": "jwt", "algorithm": algorithm, "protocol": "jwt"}
            text = marks.text(f"message of {algorithm}").encode()
            signature = signer.sign(text, **where)
            signer.verify(text, signature, **where)
            many = [marks.text(f"message {n} of {algorithm}").encode() for n in range(8)]
            signer.sign_many(many, **where)
            other = marks.text(f"another message of an intent of {algorithm}").encode()
            with pytest.raises(capsign.Refused) as caught:
                signer.sign(other, intent_id=signature.intent_id, **where)
            places.answers.append(str(caught.value))
        for wrong in ({"purpose": "nothing"}, {"purpose": "jwt", "protocol": "other"}):
            refused = marks.text(f"refused for {wrong}").encode()
            with pytest.raises(capsign.Refused) as caught:
                signer.sign(refused, algorithm="Ed25519", **wrong)
            places.answers.append(str(caught.value))
        open_call = marks.text("message of an open call").encode()
        signer.sign(open_call, purpose="jwt", protocol="jwt")
    sign_in_a_trace(dev, marks.text("message of a trace").encode())
    places.keep_journal()


def sign_from_the_command_line(dev: Dev, marks: Marks, places: Places, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_text(marks.text("content of a file"))
    place = ["--purpose", "jwt", "--protocol", "jwt", "--algorithm", "ES256"]
    for more in ([], ["--role", "nobody"]):
        command = [sys.executable, "-m", "capsign_cli", "sign", "--socket", dev.socket(), *place]
        done = subprocess.run(
            [*command, *more, str(content)], capture_output=True, text=True, check=False
        )
        places.answers.append(done.stdout + done.stderr)


@pytest.fixture(scope="module")
def deployment():
    """A deployment whose telemetry is received, and a secret in the environment of all of it."""
    secret = f"mk{secrets.token_hex(12)}"
    directory = Path(tempfile.mkdtemp(prefix="cs-"))
    with receiving() as (endpoint, received), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOMEBODYS_PASSWORD", secret)
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        dev = Dev(directory / "d")
        try:
            yield dev, Places(dev, received), secret
        finally:
            dev.close()
            shutil.rmtree(directory, ignore_errors=True)


def end_all(dev: Dev, places: Places) -> None:
    """End what `dev up` started, the agent first: what it and the adapter have left to tell is told
    by then, and covered by a checkpoint.
    """
    for about in (dev.about["agent"], dev.about["adapters"][0]):
        with suppress(psutil.NoSuchProcess):
            dev.end(psutil.Process(about["pid"]))
        if about is dev.about["agent"]:
            places.until_covered()


def found(marks: Marks, contents: dict[str, bytes]) -> dict[str, set[str]]:
    search = Search(marks.values)
    looked = {place: search.within(data) for place, data in contents.items()}
    return {
        place: kept
        for place, names in looked.items()
        if (kept := {one for one in names if not any(part in one for part in KEPT.get(place, ()))})
    }


def test_nothing_that_was_put_in_anywhere_is_found_anywhere(deployment, tmp_path):
    dev, places, secret = deployment
    marks = Marks({"environment": secret.encode()})
    places.until_remembered()
    ask_everything(dev, marks, places)
    sign_marked(dev, marks, places)
    sign_from_the_command_line(dev, marks, places, tmp_path)
    for process in (dev.adapter(), dev.agent):
        limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
        (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
        assert core[4] == "0", "no core file of it is ever written"
    places.keep_inventory()
    end_all(dev, places)
    assert len(marks.values) > 150
    contents = places.contents()
    leaks = found(marks, contents)
    assert not leaks, "\n".join(
        f"{place}: {one}" for place, names in leaks.items() for one in sorted(names)
    )
    sizes = {place: len(data) for place, data in contents.items()}
    assert min(sizes.values()) > 200, sizes


def test_a_build_that_lets_something_out_is_caught_at_each_way(deployment):
    dev, places, _ = deployment
    end_all(dev, places)
    adapter = dev.start_adapter(module="support.talkative_adapter")
    dev.wait_serving(dev.about["adapters"][0]["health"])
    agent = dev.start_agent(module="support.talkative_agent")
    dev.wait_serving(dev.about["agent"]["health"])
    marks = Marks()
    with capsign.Signer(dev.socket()) as signer:
        where = {"purpose": "jwt", "protocol": "jwt"}
        first = signer.sign(marks.text("message").encode(), algorithm="ES256", **where)
        with pytest.raises(capsign.Refused) as caught:
            signer.sign(
                marks.text("refused").encode(),
                algorithm="Ed25519",
                intent_id=first.intent_id,
                **where,
            )
        places.answers.append(str(caught.value))
        signer.sign(marks.text("second").encode(), algorithm="ES256", **where)
        places.keep_journal()
    sign_in_a_trace(dev, marks.text("message of a trace").encode())
    for process in (agent, adapter):
        process.terminate()
        process.wait(30)
        if process is agent:
            places.until_covered()
    leaks = found(marks, places.contents())
    everywhere = {"console", "store", "exports", "answers", "journal", "traces", "ocsf", "otlp"}
    assert set(leaks) >= everywhere | {"batches", "files", "parquet", "timeline"}, set(leaks)
    packed = {one for one in leaks["batches"] if one.endswith("itself")}
    assert packed, "a message that stands in a record is found, though the store packs batches"
