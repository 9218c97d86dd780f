"""What agents report beside what was signed, with real processes: honest ones add up, also when
they are killed; who signs with an agent's credentials behind its back is named.
"""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import time
from pathlib import Path
from typing import Any

import capsign
import psutil
import pytest
from capsign_adapter.decide.context import Context
from capsign_cli import __main__ as cli
from capsign_wire.adapter.v1 import inventory_pb2, inventory_pb2_grpc
from capsign_wire.intents import new_intent_id
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from support import pin_thief
from support.dev import Dev
from support.direct_adapter import DirectAdapter

ASKED = {"purpose": "jwt", "protocol": "jwt", "algorithm": "ES256"}


def sign(dev: Dev, message: bytes) -> capsign.Signature:
    with capsign.Signer(dev.socket(), timeout=60) as signer:
        return signer.sign(message, **ASKED)


def reconciled(dev: Dev, capsys: pytest.CaptureFixture[str], *more: object) -> tuple[int, Any]:
    """Exit code and answer of what a responder runs on a copy, or on the store itself."""
    command = ["audit", "reconcile", dev.about["store"], *map(str, more), "-o", "json"]
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


def wait_for_the_running_adapter(dev: Dev) -> None:
    """Until it says by itself what a responder asks it for."""
    end = time.monotonic() + 120
    with DirectAdapter(dev.about, client="responder", where=people(dev)) as adapter:
        stub = inventory_pb2_grpc.InventoryServiceStub(adapter.channel)
        request = inventory_pb2.ListIncidentsRequest()
        while not (standing := stub.ListIncidents(request, timeout=30).incidents):
            assert time.monotonic() < end, "it found nothing"
            time.sleep(0.5)
    assert [one.kind for one in standing] == [inventory_pb2.INCIDENT_KIND_SIGNED_NOT_REPORTED]


def people(dev: Dev) -> str:
    return "admin" if "admin" in dev.about["adapters"][0] else "address"


def kinds(told: Any) -> list[str]:
    return [one["incident"] for one in told["incidents"]]


def test_agents_that_are_killed_and_come_back_add_up(
    dev: Dev, capsys: pytest.CaptureFixture[str]
) -> None:
    sign(dev, b"one")
    dev.end(dev.agent, signal.SIGKILL)
    again = dev.start_agent()
    sign(dev, b"two")
    dev.end(psutil.Process(again.pid))
    code, told = reconciled(dev, capsys)
    assert (code, told["incidents"]) == (0, [])


def test_who_signs_with_an_agents_credentials_is_named(
    dev: Dev, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The thief has the agent's certificate, key and a handle: all that the adapter asks for. What
    he cannot do is to have the agent report it.
    """
    dev.replace_adapter(CAPSIGN_ADAPTER_RECONCILE_REPORT_SECONDS="10")
    honest = sign(dev, b"one")
    intent_id = new_intent_id()
    with DirectAdapter(dev.about) as adapter:
        handle = adapter.handle("orders-jwt")
        stolen = adapter.sign(
            handle, "ES256", intent_id, hashlib.sha256(b"two").digest(), protocol="jwt"
        )
    sign(dev, b"three")  # the agent names a later leaf
    wait_for_the_running_adapter(dev)
    dev.end(dev.agent)
    code, told = reconciled(dev, capsys)
    [incident] = told["incidents"]
    assert (code, incident["incident"]) == (1, "signed-not-reported")
    assert incident["intent"].replace("-", "") == intent_id.hex()
    assert incident["leaf"] == stolen.leaf_index
    handed = tmp_path / "signatures"
    handed.write_text(f"{hashlib.sha256(honest.value).hexdigest()}\n")
    code, told = reconciled(dev, capsys, "--signatures", handed)
    assert (code, kinds(told)) == (1, ["signed-not-reported"])


def test_who_signs_in_the_token_with_the_pin_is_named(
    dev: Dev, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """There is not even a leaf, and every verifier takes what he signs: only who was shown the
    signature knows of it.
    """
    jwt = {"purpose": "jwt", "protocol": "jwt", "role": "issuer", "protocol_version": "1"}
    direct = {"purpose": "root-es256", "protocol": "root", "algorithm": "ES256"}
    with capsign.Signer(dev.socket(), timeout=60) as signer:
        honest = signer.sign(b"one", algorithm="Ed25519", **jwt)
        also_honest = signer.sign(b"one", **direct)
        context = Context("demo", "orders", 1, algorithm="Ed25519", **jwt)
        digest = hashlib.sha256(b"two").digest()
        label = "capsign/demo/root-es256/1"
        stolen = pin_thief.sign(dev.about["token"], label, digest, context, [b"one", b"two"])
        assert stolen.derived[0] == honest.value, "this is the subkey that signs for the agent"
        (key,) = signer.public_keys(**direct)
    half = len(stolen.direct) // 2
    r, s = (int.from_bytes(one, "big") for one in (stolen.direct[:half], stolen.direct[half:]))
    forged = encode_dss_signature(r, s)
    public = load_der_public_key(key.spki)
    assert isinstance(public, EllipticCurvePublicKey)
    public.verify(forged, b"two", ECDSA(SHA256()))
    handed = tmp_path / "signatures"
    handed.write_text(
        "".join(
            f"{base64.b64encode(one).decode()}\n"
            for one in (honest.value, also_honest.value, forged, stolen.derived[1])
        )
    )
    code, told = reconciled(dev, capsys, "--signatures", handed)
    assert (code, kinds(told)) == (1, ["signature-without-leaf"] * 2)
    assert {one["digest"] for one in told["incidents"]} == {
        hashlib.sha256(one).hexdigest() for one in (forged, stolen.derived[1])
    }
