"""Tools that others wrote, and that know nothing of us, agree with a real deployment about
signatures, tokens, log and keys.

Each is also shown something false, so that its agreement means something.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import capsign
import jwt
import pymerkle
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key
from support import generic_client, go_log_verifier, needs
from support.dev import Dev
from support.direct_adapter import DirectAdapter
from support.direct_log import DirectLog, read
from support.pages import blocks

MESSAGE = b"order 7: two of everything"
JWT = {"purpose": "jwt", "protocol": "jwt", "role": "issuer", "protocol_version": "1"}
DERIVED = [("ES256", JWT), ("Ed25519", JWT)]
DIRECT = [
    (name, {"purpose": f"root-{name.lower()}"})
    for name in ("ES256", "ES384", "PS256", "RS256", "Ed25519")
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    deployment = Dev(tmp_path_factory.mktemp("world"))
    yield deployment
    deployment.close()


@pytest.fixture(scope="module")
def signer(world):
    with capsign.Signer(world.socket()) as one:
        yield one


# Signatures.


def openssl(algorithm: str, pem: Path, message: Path, signature: Path) -> bool:
    """Whether the command line of OpenSSL takes this signature."""
    command: list[str | Path]
    if algorithm == "Ed25519":
        command = [
            "pkeyutl",
            "-verify",
            "-rawin",
            "-pubin",
            "-inkey",
            pem,
            "-sigfile",
            signature,
            "-in",
            message,
        ]
    else:
        pss = [
            "-sigopt",
            "rsa_padding_mode:pss",
            "-sigopt",
            "rsa_pss_saltlen:digest",
            "-sigopt",
            "rsa_mgf1_md:sha256",
        ]
        digest = "-sha384" if algorithm == "ES384" else "-sha256"
        command = [
            "dgst",
            digest,
            *(pss if algorithm == "PS256" else []),
            "-verify",
            pem,
            "-signature",
            signature,
            message,
        ]
    done = subprocess.run(
        ["openssl", *command], capture_output=True, text=True, timeout=30, check=False
    )
    said = done.stdout + done.stderr
    assert ("Verified OK" in said or "Verified Successfully" in said) == (done.returncode == 0), (
        said
    )
    assert "Error loading" not in said
    assert "Error opening" not in said
    return done.returncode == 0


@pytest.mark.parametrize(
    ("algorithm", "wanted"),
    [*DERIVED, *DIRECT],
    ids=lambda value: value if isinstance(value, str) else value["purpose"],
)
def test_openssl_verifies(signer, tmp_path, algorithm, wanted):
    if shutil.which("openssl") is None:
        pytest.fail("openssl is not installed: apt-get install openssl", pytrace=False)
    pem, message, signature = (tmp_path / name for name in ("key.pem", "message", "signature"))
    signed = signer.sign(MESSAGE, algorithm=algorithm, **wanted)
    (key,) = [
        key for key in signer.public_keys(algorithm=algorithm, **wanted) if key.kid == signed.kid
    ]
    pem.write_text(key.pem)
    message.write_bytes(MESSAGE)
    signature.write_bytes(signed.value)
    assert openssl(algorithm, pem, message, signature)
    message.write_bytes(MESSAGE + b".")
    assert not openssl(algorithm, pem, message, signature)
    assert signed.custody == (
        "hsm-direct" if wanted["purpose"].startswith("root-") else "adapter-memory"
    )


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519"])
def test_a_bundle_is_checked_with_nothing_of_ours(world, tmp_path, algorithm):
    """`capsign sign --bundle` and the script of docs/operations/receipts.md, with OpenSSL; then our
    own verifier, offline.
    """
    message, bundle = tmp_path / "message", tmp_path / "bundle"
    message.write_bytes(MESSAGE)
    where = ["--socket", world.socket(), "-p", "jwt", "-a", algorithm, "--protocol", "jwt"]
    told = _capsign("sign", message, "--bundle", bundle, *where, "--role", "issuer")
    whole = json.loads(bundle.read_text())
    (tmp_path / "key.pem").write_text(whole["signatures"][0]["public_key"])
    [script] = [
        one.text for one in blocks("docs/operations/receipts.md") if "check.py B" in one.text
    ]
    (tmp_path / "check.py").write_text(script)
    log_key = world.about["log_key"]

    def check(text: bytes) -> int:
        message.write_bytes(text)
        command = [sys.executable, "-I", "-S", "check.py", "bundle", "message", log_key, "key.pem"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    assert check(MESSAGE) == 0
    assert check(b"another") == 1
    message.write_bytes(MESSAGE)
    verified = _capsign(
        "verify", message, "--receipt", bundle, "--log-key", log_key, "--kid", told["kid"]
    )
    assert verified["leaf_index"] == told["leaf_index"]


def _capsign(*arguments) -> dict:
    command = [sys.executable, "-m", "capsign_cli", *map(str, arguments), "-o", "json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_cryptography_verifies_ml_dsa_65(signer):
    """OpenSSL's command line knows ML-DSA from 3.5 on, which distributions do not have yet."""
    signed = signer.sign(MESSAGE, algorithm="ML-DSA-65", **JWT)
    (key,) = signer.public_keys(algorithm="ML-DSA-65", **JWT)
    public = load_der_public_key(key.spki)
    assert isinstance(public, mldsa.MLDSA65PublicKey)
    public.verify(signed.value, MESSAGE)
    with pytest.raises(InvalidSignature):
        public.verify(signed.value, MESSAGE + b".")


# Tokens.


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize(("algorithm", "name"), [("ES256", "ES256"), ("Ed25519", "EdDSA")])
def test_pyjwt_verifies_a_token_made_of_a_signature(signer, algorithm, name):
    (key,) = signer.public_keys(algorithm=algorithm, **JWT)
    header = {"alg": name, "typ": "JWT", "kid": key.kid}
    claims = {"sub": "order-7", "aud": "shop"}
    signing_input = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
    signed = signer.sign(signing_input.encode(), algorithm=algorithm, **JWT)
    token = f"{signing_input}.{base64url(signed.jose)}"

    assert jwt.decode(token, key.pem, algorithms=[name], audience="shop") == claims
    assert jwt.get_unverified_header(token)["kid"] == signed.kid
    # Another claim set under the same signature; and, for ECDSA, the encoding that JOSE does not
    # know.
    forged = base64url(json.dumps(claims | {"sub": "order-8"}).encode())
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(
            ".".join([token.split(".")[0], forged, token.split(".")[2]]),
            key.pem,
            algorithms=[name],
            audience="shop",
        )
    if algorithm == "ES256":
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(
                f"{signing_input}.{base64url(signed.value)}",
                key.pem,
                algorithms=[name],
                audience="shop",
            )


# The log.


@pytest.fixture(scope="module")
def exported(world, signer, tmp_path_factory):
    """The real log, taken away twice: at a first checkpoint and, larger, at a second."""
    root = tmp_path_factory.mktemp("log") / "log"
    with DirectAdapter(world.about, client="auditor") as adapter:
        log = DirectLog(adapter.channel)
        for count in (300, 400):
            results = signer.sign_many(
                [b"%d" % number for number in range(count)], algorithm="Ed25519", **JWT
            )
            assert all(isinstance(result, capsign.Signature) for result in results)
            if count == 300:
                older = log.checkpoint()
        newer = log.checkpoint()
        entries = log.export(root, newer, older, world.about["log_key"])
    assert read(newer)[0] == len(entries) > read(older)[0] > 256
    return root, older, newer, entries


def test_pymerkle_computes_the_roots_that_the_adapter_signed(exported):
    _, older, newer, entries = exported
    oracle = pymerkle.InmemoryTree(algorithm="sha256")
    roots = {}
    for size, entry in enumerate(entries, 1):
        oracle.append_entry(entry)
        if size in {read(older)[0], read(newer)[0]}:
            roots[size] = oracle.get_root()
    assert [roots[read(one)[0]] for one in (older, newer)] == [
        read(one)[1] for one in (older, newer)
    ]

    changed = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in [*entries[:-1], entries[-1] + b"."]:
        changed.append_entry(entry)
    assert changed.get_root() != read(newer)[1]


@pytest.fixture(scope="module")
def go(tmp_path_factory):
    return go_log_verifier.build(tmp_path_factory.mktemp("go"))


def test_go_verifies_the_real_log(go, exported):
    root, _, newer, entries = exported
    done = go_log_verifier.run(go, root)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["size"] == found["entries"] == read(newer)[0] == len(entries)
    assert (found["consistency"], found["inclusion"], found["receipts"]) == (1, 6, 6)


def test_go_takes_no_log_under_another_key_and_no_changed_entry(go, exported, world, tmp_path):
    root, *_ = exported
    for name, spoil in {
        "key": _another_key,
        "entry": _change_an_entry,
        "older": _claim_another_past,
    }.items():
        copy = tmp_path / name
        shutil.copytree(root, copy)
        spoil(copy)
        assert go_log_verifier.run(go, copy).returncode == 1, name


def _another_key(root: Path) -> None:
    claims = json.loads((root / "claims.json").read_text())
    name, _, encoded = claims["verifier_key"].split("+", 2)
    public = b"\x01" + hashlib.sha256(base64.b64decode(encoded)).digest()
    key_id = hashlib.sha256(name.encode() + b"\n" + public).hexdigest()[:8]
    claims["verifier_key"] = f"{name}+{key_id}+{base64.b64encode(public).decode()}"
    (root / "claims.json").write_text(json.dumps(claims))


def _change_an_entry(root: Path) -> None:
    path = root / "tile/entries/000"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


def _claim_another_past(root: Path) -> None:
    claims = json.loads((root / "claims.json").read_text())
    claims["consistency"][0]["old_root"] = base64.b64encode(bytes(32)).decode()
    (root / "claims.json").write_text(json.dumps(claims))


# The token.


def pkcs11_tool(token: dict[str, str], *arguments: str) -> str:
    """What OpenSC's tool says of a token. The PIN goes by the environment, never on the command
    line.
    """
    environ = os.environ | {
        "SOFTHSM2_CONF": token["conf"],
        "TEST_PIN": Path(token["pin_file"]).read_text().strip(),
    }
    command = [
        needs.pkcs11_tool(),
        "--module",
        token["module"],
        "--token-label",
        token["label"],
        "--login",
        "--pin",
        "env:TEST_PIN",
    ]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, env=environ, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def keys_of(token: dict[str, str]) -> dict[str, set[str]]:
    """Access attributes of every private and secret key, by label and kind."""
    found = {}
    for part in re.split(r"\n(?=\S)", pkcs11_tool(token, "--list-objects")):
        kind = part.split(" Key Object")[0]
        if kind not in {"Private", "Secret"}:
            continue
        label = re.search(r"label:\s+(\S+)", part)
        access = re.search(r"Access:\s+(.+)", part)
        assert label is not None
        found[label[1]] = {word.strip() for word in access[1].split(",")} if access else set()
    return found


SAFE = {"sensitive", "always sensitive", "never extractable", "local"}


def test_pkcs11_tool_shows_every_key_as_sensitive_and_never_extractable(world):
    found = keys_of(world.about["token"])
    assert set(found) >= {
        "capsign/demo/orders/1",
        "capsign/demo/pepper",
        "capsign/log",
        "capsign/mint",
    }
    assert set(found) >= {
        f"capsign/demo/root-{name}/1" for name in ("es256", "es384", "ps256", "rs256", "ed25519")
    }
    assert found == dict.fromkeys(found, SAFE)


def test_pkcs11_tool_would_show_a_key_that_is_not(tmp_path):
    home = tmp_path / "token"
    script = Path(__file__).parents[2] / "softhsm/init.py"
    made = subprocess.run(
        [sys.executable, script, "--dir", home, "--label", "weak", "-o", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    token = json.loads(made.stdout)
    pkcs11_tool(token, "--keygen", "--key-type", "GENERIC:32", "--label", "leaky", "--extractable")
    assert keys_of(token)["leaky"] & {"never extractable", "sensitive"} == set()


# A client in another language.


@pytest.mark.parametrize(
    ("purpose", "algorithm", "hashed"),
    [
        ("root-es256", "ALGORITHM_ES256", True),
        ("artifact", "ALGORITHM_ES256", False),
        ("artifact", "ALGORITHM_ML_DSA_65", False),
    ],
)
def test_a_client_made_from_the_protos_alone_signs_and_verifies(
    world, pytestconfig, purpose, algorithm, hashed
):
    folder = generic_client.install(pytestconfig)
    given = {"digest": hashlib.sha256(MESSAGE).digest()} if hashed else {"message": MESSAGE}
    found = generic_client.run(folder, Path(world.socket()), purpose, algorithm, **given)
    signature, public = (
        bytes.fromhex(found["signature"]),
        load_der_public_key(bytes.fromhex(found["spki"])),
    )
    if isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, MESSAGE, ec.ECDSA(hashes.SHA256()))
    else:
        assert isinstance(public, mldsa.MLDSA65PublicKey)
        public.verify(signature, MESSAGE)
    assert found["verified_kid"] == found["kid"]
    assert found["same_bytes"]
    assert (found["resolution"], found["resolved_same"]) == ("done", True)
    assert found["refusal"] == {"code": 9, "reason": "SIGNATURE_INVALID"}
    assert hashlib.sha256(signature).digest() in {
        leaf for leaves in world.signed_intents().values() for leaf in leaves
    }
    assert len({handle["grant"] for handle in found["handles"]}) == 9


def test_the_pem_is_what_cryptography_reads(signer):
    (key,) = signer.public_keys(algorithm="ES256", **JWT)
    assert load_pem_public_key(key.pem.encode()) == load_der_public_key(key.spki)
