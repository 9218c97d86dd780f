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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import capsign
import grpc
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
from support.forked_replica import forked, serve_the_fork, store_of
from support.leak_search import Search
from support.left_behind import Places
from support.marked_inputs import Marks, call, requests
from support.otlp_receiver import receiving
from support.witnesses import OurWitness

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


def ask_the_witness(witness: OurWitness, marks: Marks, places: Places) -> None:
    """What anybody may send it: paths, and bodies that are like a checkpoint or like nothing."""
    text = "\n".join(marks.text(f"line {n} of a checkpoint") for n in range(4))
    signer, signature = marks.text("signer"), marks.text("signature")
    note = f"old 7\n\n{text}\n\n\u2014 {signer} {signature}\n"
    for body in (note.encode(), marks.text("body for the witness").encode()):
        places.answers.append(str(witness.post(body)))
    for path in (marks.text("path"), f"{secrets.token_hex(32)}/checkpoint?{marks.text('query')}"):
        places.answers.append(str(witness.get(path)))


class Deployment:
    """What `dev up` starts, and a witness that its log needs. One replica serves; the other is
    there to serve a fork.
    """

    def __init__(self, directory: Path, received: Any) -> None:
        self.dev = Dev(directory / "d", workers=2)
        self.places = Places(self.dev, received)
        self.dev.end(self.dev.adapter(1))
        self.witness = OurWitness(directory, "w1", [self.dev.about["log_key"]])
        policy = directory / "policy"
        policy.write_text(f"{self.witness.policy_lines('w1')}quorum w1\n")
        with Path(self.dev.about["adapters"][0]["config"]).open("a") as settings:
            settings.write(f'\n[log.witnesses]\npolicy = "{policy}"\n')
        for process in (self.dev.agent, self.dev.adapter()):
            self.dev.end(process)
        self._fork = directory / "fork.sqlite"
        forked(store_of(self.dev), self._fork)
        self.processes: list[subprocess.Popen] = []
        self.start()

    def start(self, adapter: str = "capsign_adapter", agent: str = "capsign_agent") -> None:
        """Start both, perhaps through other modules."""
        self.processes.append(self.dev.start_adapter(module=adapter))
        self.dev.wait_serving(self.dev.about["adapters"][0]["health"])
        process = self.dev.start_agent(module=agent, CAPSIGN_AGENT_LOG_LOOK_EVERY_S="1")
        self.dev.wait_serving(self.dev.about["agent"]["health"])
        self.processes.append(process)

    def show_the_agent_a_fork(self) -> None:
        """The second replica serves a log that went another way than the one the agent saw."""
        self.processes.insert(0, serve_the_fork(self.dev, self._fork))
        for kept in self.places.until_split():
            self.places.keep_journal()
            kept.unlink()  # as a person does who has looked into it

    def end(self) -> None:
        """End both, the agent first: what it and the adapter have left to tell is told by then, and
        covered by a checkpoint.
        """
        for number, process in enumerate(reversed(self.processes)):
            process.terminate()
            process.wait(30)
            if number == 0:
                self.places.until_covered()
        self.processes.clear()

    def close(self) -> None:
        self.dev.close()
        self.witness.kill()


@pytest.fixture(scope="module")
def deployment():
    """A deployment whose telemetry is received, and a secret in the environment of all of it."""
    secret = f"mk{secrets.token_hex(12)}"
    directory = Path(tempfile.mkdtemp(prefix="cs-"))
    with receiving() as (endpoint, received), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOMEBODYS_PASSWORD", secret)
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        made = Deployment(directory, received)
        try:
            yield made, secret
        finally:
            made.close()
            shutil.rmtree(directory, ignore_errors=True)


def found(marks: Marks, contents: dict[str, bytes]) -> dict[str, set[str]]:
    search = Search(marks.values)
    looked = {place: search.within(data) for place, data in contents.items()}
    return {
        place: kept
        for place, names in looked.items()
        if (kept := {one for one in names if not any(part in one for part in KEPT.get(place, ()))})
    }


def test_nothing_that_was_put_in_anywhere_is_found_anywhere(deployment, tmp_path):
    running, secret = deployment
    dev, places = running.dev, running.places
    marks = Marks({"environment": secret.encode()})
    places.until_remembered()
    ask_everything(dev, marks, places)
    sign_marked(dev, marks, places)
    sign_from_the_command_line(dev, marks, places, tmp_path)
    ask_the_witness(running.witness, marks, places)
    for process in running.processes:
        limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
        (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
        assert core[4] == "0", "no core file of it is ever written"
    places.keep_inventory()
    running.show_the_agent_a_fork()
    running.end()
    assert len(marks.values) > 150
    contents = places.contents() | {"witness's own": running.witness.left_behind()}
    leaks = found(marks, contents)
    assert not leaks, "\n".join(
        f"{place}: {one}" for place, names in leaks.items() for one in sorted(names)
    )
    sizes = {place: len(data) for place, data in contents.items()}
    assert min(sizes.values()) > 200, sizes


def test_a_build_that_lets_something_out_is_caught_at_each_way(deployment):
    running, _ = deployment
    dev, places = running.dev, running.places
    running.end()
    running.witness.left_behind()
    running.witness.start("support.talkative_witness")
    running.start("support.talkative_adapter", "support.talkative_agent")
    marks = Marks()
    ask_the_witness(running.witness, marks, places)
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
    running.end()
    own = {"witness's own": running.witness.left_behind()}
    leaks = found(marks, places.contents() | own)
    everywhere = {"console", "store", "exports", "answers", "journal", "traces", "ocsf", "otlp"}
    everywhere |= own.keys()
    assert set(leaks) >= everywhere | {"batches", "files", "parquet", "timeline"}, set(leaks)
    packed = {one for one in leaks["batches"] if one.endswith("itself")}
    assert packed, "a message that stands in a record is found, though the store packs batches"
