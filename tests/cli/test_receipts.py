"""`capsign verify --receipt`: offline, and each way in which a bundle can be bad has a sentence of
its own.
"""

from __future__ import annotations

import base64
import json

import pytest
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_cli.failures import CliError
from capsign_cli.log_policy import demanded
from capsign_evidence.cosignature import COSIGNATURE_ED25519, CosignerKey, cosign
from capsign_evidence.note import add_lines, parse_note
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.bundles import MESSAGE, NOW_MS, SignedLog, log_key_of

KID = "sJ7kgUiHmOAKOPWwmGcEHUZd4V2bxhOaKtGS9h2YQ-0"


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


@pytest.fixture(scope="module")
def signed() -> SignedLog:
    return SignedLog()


class Case:
    """Files of one bundle, and the command over them."""

    def __init__(self, folder, signed, capsys) -> None:
        self.signed, self._folder, self._capsys = signed, folder, capsys
        self.key = folder / "key.pem"
        self.key.write_text(signed.pem)

    def run(self, *options, data: bytes | None = None, message: bytes = MESSAGE, log_key=None):
        """Exit code, and the answer or the refusal."""
        file, bundle = self._folder / "message", self._folder / "bundle"
        file.write_bytes(message)
        bundle.write_bytes(self.signed.data() if data is None else data)
        key = self.signed.verifier_key.text() if log_key is None else log_key
        given = ["--log-key", key] if key else []
        with pytest.raises(SystemExit) as ended:
            cli.main(
                ["verify", str(file), "--receipt", str(bundle), *given, "-o", "json"]
                + [str(one) for one in options]
            )
        told = self._capsys.readouterr()
        return ended.value.code, json.loads(told.out or told.err)

    def reason(self, *options, **given) -> str:
        code, told = self.run(*options, **given)
        assert code == 1
        return told["error"]["reason"]


@pytest.fixture
def case(tmp_path, signed, capsys, monkeypatch):
    monkeypatch.delenv("CAPSIGN_LOG_KEY", raising=False)
    return Case(tmp_path, signed, capsys)


def test_a_good_bundle_is_verified_with_no_agent(case):
    code, told = case.run("--key", case.key)
    assert code == 0
    assert told["verified"]
    assert told["key"] == "shop/orders/3"
    assert (told["leaf_index"], told["leaves"]) == (300, 501)
    by_id, _ = case.run("--kid", told["signatures"][0]["kid"])
    assert by_id == 0


def test_a_key_set_is_taken_by_the_kid_that_the_bundle_names(case, tmp_path):
    point = case.signed.key.public_key().public_numbers()
    x, y = (
        base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()
        for value in (point.x, point.y)
    )
    jwk = {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "a-kid", "alg": "ES256"}
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [jwk]}))
    assert case.run("--key", keys)[0] == 0
    keys.write_text(json.dumps({"keys": [jwk | {"kid": "another"}]}))
    assert case.reason("--key", keys) == "WRONG_KEY"


def test_the_bundles_own_key_is_not_believed(case):
    """To an ECDSA signature and another message there is a key under which it verifies."""
    code, told = case.run()
    assert code == 2
    assert told["error"]["reason"] == "KEY_MISSING"
    assert case.reason("--kid", KID) == "WRONG_KEY"


def test_another_message(case):
    assert case.reason("--key", case.key, message=b"another") == "SIGNATURE_INVALID"


def test_another_log(case):
    stranger, _ = log_key_of(9)
    assert case.reason("--key", case.key, log_key=stranger.text()) == "CHECKPOINT_INVALID"


def test_a_tampered_proof(case):
    text = case.signed.receipt().decode()
    index, proof, rest = text.split("\n", 3)[1:]
    flipped = ("B" if proof[0] == "A" else "A") + proof[1:]
    data = case.signed.data(receipt="\n".join(["c2sp.org/tlog-proof@v1", index, flipped, rest]))
    assert case.reason("--key", case.key, data=data) == "PROOF_INVALID"


def test_a_tampered_checkpoint(case):
    text = case.signed.receipt().decode().replace("\n501\n", "\n502\n")
    data = case.signed.data(receipt=text)
    assert case.reason("--key", case.key, data=data) == "CHECKPOINT_INVALID"


def test_a_receipt_of_another_signature(case):
    [member] = case.signed.bundle()["signatures"]
    member["value"] = base64.b64encode(b"x" * 70).decode()
    data = case.signed.data(signatures=[member])
    assert case.reason("--key", case.key, data=data) == "RECEIPT_INVALID"


def test_an_algorithm_that_the_entry_does_not_record(case):
    [member] = case.signed.bundle()["signatures"]
    member["algorithm"] = "ES384"
    data = case.signed.data(signatures=[member])
    assert case.reason("--key", case.key, data=data) == "WRONG_KEY"


def test_a_file_that_is_no_bundle(case):
    assert case.reason("--key", case.key, data=b"{}") == "RECEIPT_MALFORMED"


def test_an_empty_log_key_is_none(case):
    """A variable that is set to nothing ended in a traceback."""
    code, told = case.run("--key", case.key, "--log-key", "", log_key="")
    assert (code, told["error"]["reason"]) == (2, "LOG_KEY_MISSING")


def test_one_that_is_older_than_was_asked_for(case, monkeypatch):
    monkeypatch.setattr("time.time", lambda: NOW_MS / 1000 + 100)
    assert case.run("--key", case.key, "--max-age", "200")[0] == 0
    assert case.reason("--key", case.key, "--max-age", "50") == "RECEIPT_TOO_OLD"


def test_a_witness_that_the_policy_demands_is_missing(case, tmp_path):
    private = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
    public = private.public_key().public_bytes_raw()
    witness = CosignerKey("witness.test", COSIGNATURE_ED25519, public)
    policy = tmp_path / "policy"
    policy.write_text(
        f"log {case.signed.verifier_key.text()}\nwitness w {witness.text()}\nquorum w\n"
    )
    assert case.reason("--key", case.key, "--policy", policy, log_key="") == "WITNESS_MISSING"
    checkpoint = case.signed.checkpoint()
    line = cosign(parse_note(checkpoint).text, witness, NOW_MS // 1000, private.sign)
    cosigned = add_lines(checkpoint, [line])
    data = case.signed.data(receipt=case.signed.receipt(cosigned).decode())
    code, told = case.run("--key", case.key, "--policy", policy, log_key="", data=data)
    assert code == 0
    assert told["witnesses"] == ["w"]
    policy.write_text("quorum\n")
    code, told = case.run("--key", case.key, "--policy", policy, log_key="")
    assert (code, told["error"]["reason"]) == (2, "POLICY_MALFORMED")


def test_one_witness_that_is_ahead_makes_no_receipt_younger(case, tmp_path, monkeypatch):
    checkpoint, lines, known = case.signed.checkpoint(), [], []
    for name, when_s in (("a", NOW_MS // 1000), ("b", NOW_MS // 1000 + 90)):
        private = Ed25519PrivateKey.from_private_bytes(name.encode() * 32)
        public = private.public_key().public_bytes_raw()
        witness = CosignerKey(f"{name}.test", COSIGNATURE_ED25519, public)
        known.append(f"witness {name} {witness.text()}\n")
        lines.append(cosign(parse_note(checkpoint).text, witness, when_s, private.sign))
    data = case.signed.data(receipt=case.signed.receipt(add_lines(checkpoint, lines)).decode())
    monkeypatch.setattr("time.time", lambda: NOW_MS / 1000 + 100)
    policy = tmp_path / "policy"
    old = ("--key", case.key, "--policy", policy, "--max-age", "50")
    for quorum, reason in (("any", None), ("all", "RECEIPT_TOO_OLD")):
        policy.write_text(
            f"log {case.signed.verifier_key.text()}\n{''.join(known)}"
            f"group g {quorum} a b\nquorum g\n"
        )
        code, told = case.run(*old, log_key="", data=data)
        assert (code, told.get("error", {}).get("reason")) == (1 if reason else 0, reason)


def test_what_is_demanded_of_a_bundle_must_be_there(case):
    """A demand for a second algorithm was taken and not looked at."""
    assert case.run("--key", case.key, "--require", "ES256")[0] == 0
    assert case.reason("--key", case.key, "--require", "ML-DSA-65") == "SIGNATURE_MISSING"
    assert case.reason("--key", case.key, "--rule", "both") == "SIGNATURE_MISSING"
    assert case.run("--key", case.key, "--rule", "required")[0] == 2


@pytest.mark.parametrize(
    "option",
    [
        ("-a", "ES256"),
        ("-s", "ES256:AA"),
        ("--purpose", "jwt"),
        ("--role", "a"),
        ("--timeout", "1"),
    ],
)
def test_what_means_nothing_to_a_bundle_is_refused(case, option, monkeypatch):
    code, told = case.run("--key", case.key, *option)
    assert (code, told["error"]["reason"]) == (2, "USAGE")
    assert "--receipt" in told["error"]["message"]
    monkeypatch.setenv("CAPSIGN_SOCKET", "/run/a.sock")
    assert case.run("--key", case.key)[0] == 0


def test_two_signatures_have_a_key_each(case, tmp_path):
    second = ec.derive_private_key(54321, ec.SECP256R1())
    stranger = tmp_path / "stranger.pem"
    pem = second.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    stranger.write_bytes(pem)
    assert case.run("--key", stranger, "--key", case.key)[0] == 0
    assert case.reason("--key", stranger) == "SIGNATURE_INVALID"
    _, told = case.run("--key", case.key)
    [made] = told["signatures"]
    assert case.run("--kid", KID, "--kid", made["kid"])[0] == 0


def test_a_log_key_is_the_log_that_must_have_signed(case, tmp_path):
    """The policy names two logs, and the checkpoint is of the other one."""
    wanted, _ = log_key_of(9)
    policy = tmp_path / "policy"
    policy.write_text(f"log {wanted.text()}\nlog {case.signed.verifier_key.text()}\nquorum none\n")
    given = ("--key", case.key, "--policy", policy)
    assert case.reason(*given, log_key=wanted.text()) == "CHECKPOINT_INVALID"
    assert case.run(*given)[0] == 0
    assert case.run(*given, log_key="")[0] == 0
    with pytest.raises(CliError, match="not what the policy demands"):
        demanded(policy, case.signed.checkpoint(), wanted.text())


def test_somebody_must_be_trusted(case):
    code, told = case.run("--key", case.key, log_key="")
    assert code == 2
    assert told["error"]["reason"] == "LOG_KEY_MISSING"
