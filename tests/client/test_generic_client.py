"""An outsider's client, made in Node from `proto/` alone, signs and verifies."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from support import generic_client
from support.fake_agent import FakeAgent

pytestmark = pytest.mark.system


def verify(found, algorithm, message):
    key: Any = load_der_public_key(bytes.fromhex(found["spki"]))
    signature = bytes.fromhex(found["signature"])
    if algorithm == "ALGORITHM_ES256":
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    else:
        key.verify(signature, message)


@pytest.mark.parametrize(
    ("purpose", "algorithm", "hashed"),
    [
        ("jwt", "ALGORITHM_ES256", False),
        ("jwt", "ALGORITHM_ES256", True),
        ("mail", "ALGORITHM_ED25519", False),
    ],
)
def test_a_client_made_from_the_protos_alone_signs_and_verifies(
    agent, pytestconfig, purpose, algorithm, hashed
):
    folder = generic_client.install(pytestconfig)
    message = b"from another language"
    given = {"digest": hashlib.sha256(message).digest()} if hashed else {"message": message}
    found = generic_client.run(folder, agent.path, purpose, algorithm, **given)
    verify(found, algorithm, message)
    assert {handle["grant"] for handle in found["handles"]} == {"web-jwt", "web-mail"}
    assert found["same_bytes"]
    assert found["verified_kid"] == found["kid"]
    assert found["refusal"] == {"code": 9, "reason": "SIGNATURE_INVALID"}
    assert (found["resolution"], found["resolved_same"]) == ("done", True)
    assert list(agent.signed.values()) == [1]


def test_node_names_an_odd_path_as_it_is(pytestconfig):
    """What clients/python/README.md says of other languages: gRPC for Node decodes nothing after
    `unix:`.
    """
    folder = generic_client.install(pytestconfig)
    with tempfile.TemporaryDirectory(prefix="c-") as home:
        path = Path(home) / "a#b?c%20d \U0001f511" / "s"
        path.parent.mkdir()
        agent = FakeAgent(path).start()
        try:
            assert generic_client.run(folder, path, "mail", "ALGORITHM_ED25519", b"m")["same_bytes"]
        finally:
            agent.stop()
