"""Our witness, and one written from the specification alone, over HTTP: they cosign and refuse
alike, and each believes what the other's log key signed.
"""

import pytest
from capsign_adapter.keys import labels
from capsign_adapter.keys.log_keys import LogKeys
from capsign_evidence.note import open_note, parse_note
from capsign_evidence.tlog_policy import parse_policy
from capsign_evidence.witness_protocol import AddCheckpoint, origin_hash, read_answer
from support.fake_token import FakeToken
from support.witnessed_log import ORIGIN, log_and_fork
from support.witnesses import GoWitness, OurWitness, WitnessProcess, build_go

pytestmark = pytest.mark.system

LOG, FORK = log_and_fork()


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    return build_go(tmp_path_factory.mktemp("go"))


@pytest.fixture(scope="module")
def token():
    made = FakeToken()
    made.generate_key_pair(labels.LOG, 1)
    made.generate_secret(labels.LOG_ROOT)
    return made


@pytest.fixture(params=["ours", "go"])
def start(request, tmp_path):
    """Starts a witness that knows these log keys."""
    made: list[WitnessProcess] = []

    def one(*logs):
        name = f"w{len(made)}"
        if request.param == "ours":
            made.append(OurWitness(tmp_path, name, list(logs)))
        else:
            binary = request.getfixturevalue("binary")
            made.append(GoWitness(binary, tmp_path, name, list(logs)))
        return made[-1]

    yield one
    for each in made:
        each.kill()


def test_it_cosigns_what_extends_and_refuses_what_does_not(start):
    """One walk through all answers of the specification."""
    witness = start(LOG.key.text())
    assert witness.get(f"{origin_hash(ORIGIN)}/checkpoint")[0] == 404
    assert witness.post(b"nonsense")[0] == 400
    assert witness.post(LOG.request(9, 5))[0] == 400
    status, _, body = witness.post(LOG.request(0, 5))
    assert status == 200
    lines = read_answer(body, LOG.checkpoint(5), witness.keys)
    assert {line.key_id for line in lines} == {key.key_id for key in witness.keys}
    for old, new in ((0, 9), (3, 3), (4, 9)):
        status, kind, body = witness.post(LOG.request(old, new))
        assert (status, kind, body) == (409, "text/x.tlog.size", b"5\n")
    assert witness.post(LOG.request(5, 9))[0] == 200
    assert witness.post(LOG.request(9, 9))[0] == 200
    assert witness.post(FORK.request(9, 9))[0] == 422
    assert witness.post(FORK.request(9, 12))[0] == 422
    status, _, note = witness.get(f"{origin_hash(ORIGIN)}/checkpoint")
    assert status == 200
    for key in (LOG.key, *witness.keys):
        assert open_note(note, [key]).text == parse_note(LOG.checkpoint(9)).text
    forged = LOG.request(9, 12).replace(b"\xe2\x80\x94 log.", b"\xe2\x80\x94 gol.")
    assert witness.post(forged)[0] == 403
    other, _ = log_and_fork()
    other.key = type(other.key)("another.log", other.key.public_key)
    assert witness.post(other.request(0, 5))[0] == 404


def test_it_goes_on_from_where_it_was_killed(start):
    witness = start(LOG.key.text())
    assert witness.post(LOG.request(0, 5))[0] == 200
    witness.restart()
    assert witness.post(FORK.request(0, 5))[0] == 409
    assert witness.post(FORK.request(5, 9))[0] == 422
    assert witness.post(LOG.request(5, 9))[0] == 200


def test_each_signature_of_the_adapters_log_is_enough_for_it(start, token):
    """Go's ed25519 and circl's ML-DSA-44 believe what our keys signed, and the other way round."""
    keys = LogKeys(token, "log.capsign.test/adapter")
    note = keys.sign(5, LOG.root(5), 1_800_000_000)
    for known in keys.verifiers:
        witness = start(known.text())
        status, _, body = witness.post(AddCheckpoint(0, (), note).encode())
        assert status == 200
        policy = f"log {known.text()}\n{witness.policy_lines('w')}quorum w\n"
        assert parse_policy(policy.encode()).open(note + body).head.size == 5
        witness.kill()


@pytest.mark.parametrize("path", ["", "x", "../state.db", f"{'0' * 64}", f"{'0' * 63}/checkpoint"])
def test_nothing_else_is_there(start, path):
    assert start(LOG.key.text()).get(path)[0] == 404
