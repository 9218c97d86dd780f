"""Somebody with the PIN, who signs in the token behind the adapter's back: with the key pair of a
direct key, and with a subkey that he derives from what the token's HMAC with a root gives him.

A process of its own (`python -m support.pin_thief`), because a module logs in for a whole process.
He has another client of PKCS#11 and the published formats, and nothing of the adapter. Reads JSON,
answers JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pkcs11
from capsign_adapter.decide.context import Context, hkdf_info
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pkcs11 import Mechanism, ObjectClass


@dataclass(frozen=True)
class Stolen:
    """`direct`: R || S over the digest, with the key pair's private key. `derived`: with Ed25519,
    over each message, under the subkey of the context.
    """

    direct: bytes
    derived: list[bytes]


def sign(
    token: dict[str, str], label: str, digest: bytes, context: Context, messages: list[bytes]
) -> Stolen:
    """`token`: of a deployment's description; `label`: of the direct key."""
    question = {
        "module": token["module"],
        "token": token["label"],
        "pin": Path(token["pin_file"]).read_text().strip(),
        "label": label,
        "digest": digest.hex(),
        "root": f"capsign/{context.tenant}/{context.key}/{context.epoch}",
        # docs/formats.md, "HKDF info": public, as the context's digest is
        "info": hkdf_info(context.purpose, context.digest(), 32).hex(),
        "messages": [one.hex() for one in messages],
    }
    paths = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "support.pin_thief"],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths, "SOFTHSM2_CONF": token["conf"]},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return Stolen(bytes.fromhex(told["direct"]), [bytes.fromhex(one) for one in told["derived"]])


def main() -> None:
    question: dict[str, Any] = json.load(sys.stdin)
    token: Any = pkcs11.lib(question["module"]).get_token(token_label=question["token"])
    with token.open(user_pin=question["pin"]) as session:
        private = session.get_key(ObjectClass.PRIVATE_KEY, label=question["label"])
        direct = private.sign(bytes.fromhex(question["digest"]), mechanism=Mechanism.ECDSA)
        root = session.get_key(ObjectClass.SECRET_KEY, label=question["root"])
        # T(1) of HKDF-Expand, RFC 5869 section 2.3, is the seed of RFC 8032
        block = bytes.fromhex(question["info"]) + b"\x01"
        seed = root.sign(block, mechanism=Mechanism.SHA256_HMAC)
    subkey = Ed25519PrivateKey.from_private_bytes(seed)
    derived = [subkey.sign(bytes.fromhex(one)).hex() for one in question["messages"]]
    json.dump({"direct": direct.hex(), "derived": derived}, sys.stdout)


if __name__ == "__main__":
    main()
