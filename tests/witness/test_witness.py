"""The witness of this repository: what it cosigns, what it keeps, and what a kill leaves."""

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing

import pytest
from capsign_evidence.note import open_note
from capsign_evidence.witness_protocol import SIZE_TYPE, AddCheckpoint, origin_hash, read_answer
from capsign_witness import keys
from capsign_witness.failures import WitnessError
from capsign_witness.state import State
from capsign_witness.witness import Witness, known_logs
from support import crashing_witness
from support.witnessed_log import ORIGIN, log_and_fork

LOG, FORK = log_and_fork()
LOGS = f"log {LOG.key.text()}\nquorum none\n".encode()
NOW = 1_800_000_000


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "witness"
    keys.make(made, "witness.capsign.test/w1")
    State.create(made)
    return made


@pytest.fixture
def witness(folder):
    state = State(folder)
    yield Witness(keys.load(folder), state, known_logs(LOGS), lambda: NOW)
    state.close()


def test_it_cosigns_with_both_keys_and_keeps_the_checkpoint(folder, witness):
    answer = witness.add_checkpoint(LOG.request(0, 5))
    assert answer.status == 200
    cosigned = LOG.checkpoint(5) + answer.body
    for key in keys.load(folder).verifiers:
        line = open_note(cosigned, [key]).lines[1:]
        assert {key.time_s(one.signature) for one in line if one.key_id == key.key_id} == {NOW}
    assert witness.checkpoint(origin_hash(ORIGIN)).body == cosigned


def test_it_goes_forward_only_from_where_it_is(witness):
    assert witness.add_checkpoint(LOG.request(0, 5)).status == 200
    for old, new in ((0, 6), (4, 6), (3, 3)):
        conflict = witness.add_checkpoint(LOG.request(old, new))
        assert (conflict.status, conflict.body, conflict.content_type) == (409, b"5\n", SIZE_TYPE)
    assert witness.add_checkpoint(LOG.request(5, 9)).status == 200
    assert witness.add_checkpoint(LOG.request(9, 9)).status == 200


def test_it_never_cosigns_a_fork(witness):
    assert witness.add_checkpoint(LOG.request(0, 5)).status == 200
    for old, new in ((5, 5), (5, 9)):
        assert witness.add_checkpoint(FORK.request(old, new)).status == 422
    assert witness.checkpoint(origin_hash(ORIGIN)).body.startswith(LOG.checkpoint(5)[:60])


def test_what_proves_a_fork_is_kept_with_what_was_held(folder, witness):
    witness.add_checkpoint(LOG.request(0, 5))
    held = witness.checkpoint(origin_hash(ORIGIN)).body
    assert witness.add_checkpoint(FORK.request(5, 5)).status == 422
    assert kept(folder) == (FORK.checkpoint(5), held, True)
    witness.add_checkpoint(LOG.request(5, 9))
    assert witness.add_checkpoint(FORK.request(9, 12)).status == 422
    assert kept(folder) == (FORK.checkpoint(5), held, True)


def test_an_honest_checkpoint_with_junk_alarms_no_longer_than_until_it_is_cosigned(
    folder, witness, capsys
):
    """Anybody can send what the log has published, with another proof than the log's."""
    witness.add_checkpoint(LOG.request(0, 5))
    same = AddCheckpoint(5, (bytes(32),), LOG.checkpoint(5)).encode()
    assert witness.add_checkpoint(same).status == 422
    assert kept(folder) is None
    assert "witness.inconsistent" not in capsys.readouterr().err
    larger = AddCheckpoint(5, (bytes(32),) * 3, LOG.checkpoint(9)).encode()
    assert witness.add_checkpoint(larger).status == 422
    assert kept(folder)[2] is False
    witness.add_checkpoint(LOG.request(5, 9))
    assert kept(folder) is None


def test_the_time_that_it_states_never_goes_back(folder):
    own = keys.load(folder)
    for clock, told in ((NOW, NOW), (NOW - 60, NOW), (NOW + 1, NOW + 1)):
        state = State(folder)
        one = Witness(own, state, known_logs(LOGS), lambda clock=clock: clock)
        held = one.checkpoint(origin_hash(ORIGIN)).status == 200
        answer = one.add_checkpoint(LOG.request(5 if held else 0, 5))
        lines = read_answer(answer.body, LOG.checkpoint(5), own.verifiers)
        times = {
            key.time_s(line.signature)
            for key in own.verifiers
            for line in lines
            if line.key_id == key.key_id
        }
        assert times == {told}
        state.close()


def test_a_state_of_before_is_gone_on_with(folder):
    with closing(sqlite3.connect(folder / "state.db")) as db:
        db.execute("DROP TABLE IF EXISTS clock")
        db.execute("DROP TABLE IF EXISTS contradictions")
    state = State(folder)
    one = Witness(keys.load(folder), state, known_logs(LOGS), lambda: NOW)
    assert one.add_checkpoint(LOG.request(0, 5)).status == 200
    state.close()


def kept(folder):
    state = State(folder)
    found = state.contradiction(origin_hash(ORIGIN))
    state.close()
    return found


def test_what_it_has_not_seen_is_not_found(witness):
    assert witness.checkpoint(origin_hash(ORIGIN)).status == 404
    other, _ = log_and_fork()
    other.key = type(other.key)("another.log", other.key.public_key)
    assert witness.add_checkpoint(other.request(0, 5)).status == 404
    assert witness.add_checkpoint(b"nonsense").status == 400


@pytest.mark.parametrize("step", crashing_witness.STEPS)
def test_a_kill_at_any_step_never_gives_two_roots_for_one_size(folder, tmp_path, step):
    """Killed while it cosigns a tree; then asked for another one of the same size, and for the
    first again.
    """
    (tmp_path / "logs").write_bytes(LOGS)
    (tmp_path / "log").write_bytes(LOG.request(0, 5))
    (tmp_path / "fork").write_bytes(FORK.request(0, 5))

    def run(stop, *requests):
        command = [sys.executable, crashing_witness.__file__, folder, tmp_path / "logs", stop]
        ran = subprocess.run(
            [*command, *requests], capture_output=True, text=True, timeout=60, check=False
        )
        return ran.returncode, [line for line in ran.stdout.splitlines() if line.isdecimal()]

    code, before = run(step, tmp_path / "log")
    assert code == -9
    code, after = run("never", tmp_path / "fork", tmp_path / "log")
    assert code == 0
    assert [*before, *after].count("200") <= 1
    durable = step in ("committed", "answered")
    assert after == (["409", "409"] if durable else ["200", "409"])


def test_the_files_are_their_owners_alone(folder):
    for name in (keys.NAME_FILE, keys.ED25519_FILE, keys.ML_DSA_44_FILE):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    (folder / keys.ED25519_FILE).chmod(0o640)
    with pytest.raises(WitnessError, match="open to others"):
        keys.load(folder)


def test_a_witness_is_made_once(folder):
    with pytest.raises(WitnessError, match="there already"):
        keys.make(folder, "witness.capsign.test/w1")
    with pytest.raises(WitnessError, match="there already"):
        State.create(folder)


def test_a_witness_that_lost_its_state_does_not_begin_anew(folder):
    (folder / "state.db").unlink()
    with pytest.raises(WitnessError, match="must not go on"):
        State(folder)
    assert not (folder / "state.db").exists()


@pytest.mark.parametrize("name", ["", "a b", "a+b", "x" * 256])
def test_a_name_that_cannot_be_one_makes_nothing(tmp_path, name):
    with pytest.raises(WitnessError, match="name of a witness"):
        keys.make(tmp_path / "witness", name)
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("logs", [b"", b"quorum none\n", b"log x\nquorum none\n"])
def test_logs_that_cannot_be_read_are_told(logs):
    with pytest.raises(WitnessError, match="file of logs"):
        known_logs(logs)


def test_two_processes_do_not_cosign_side_by_side(folder, witness):
    other_state = State(folder)
    other = Witness(keys.load(folder), other_state, known_logs(LOGS), lambda: NOW)
    assert witness.add_checkpoint(LOG.request(0, 5)).status == 200
    assert other.add_checkpoint(FORK.request(0, 5)).status == 409
    other_state.close()
