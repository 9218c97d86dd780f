"""Checkpoints are signed with both keys, durable before they are shown, and never contradict each
other.
"""

import shutil
import subprocess
import sys

import pytest
from capsign_adapter.keys import labels
from capsign_adapter.keys.provision import InventoryError
from capsign_adapter.model.evidence import Checkpoint
from capsign_adapter.provisioning import provision_all
from capsign_adapter.sign.checkpoints import Checkpoints
from capsign_adapter.store.open import create_store, open_store
from capsign_evidence.checkpoint import open_checkpoint
from capsign_evidence.cosignature import parse_key
from capsign_evidence.note import parse_note
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support import crashing_checkpoints
from support.adapter_rig import RULES
from support.fake_token import FakeToken

ORIGIN = crashing_checkpoints.ORIGIN
NOW = 1_800_000_000_000


@pytest.fixture
def token():
    return FakeToken()


@pytest.fixture
def log(tmp_path, token):
    """A store with a few leaves, its directory, and how to open its checkpoints."""
    return Log(tmp_path / "log", token)


class Reopened:
    """The store of a log, as it is opened at the time of a call."""

    def __init__(self, log):
        self._log = log

    def __getattr__(self, name):
        return getattr(self._log.store, name)


class Log:
    def __init__(self, folder, token):
        folder.mkdir(mode=0o700)
        self.folder, self.token = folder, token
        self.url = f"sqlite://{folder}/store.db"
        self.file = folder / "store.db.checkpoint"
        self.store = open_store(self.url, create=True)
        provision_all(RULES, token, self.store, NOW)

    def open(self):
        return Checkpoints(Reopened(self), self.token, ORIGIN, remembered=self.file)

    def grow(self, *leaves):
        self.store.append([leaf.encode() for leaf in leaves], NOW)

    def copy(self):
        """A copy of the database, as a backup makes it."""
        self.store.close()
        kept = self.folder.parent / "copy"
        shutil.copytree(self.folder, kept)
        self.store = open_store(self.url)
        return kept

    def restore(self, kept):
        """The database of the copy; what is beside it stays."""
        self.store.close()
        for name in ("store.db", "store.db-wal", "store.db-shm"):
            (self.folder / name).unlink(missing_ok=True)
            if (kept / name).exists():
                shutil.copy(kept / name, self.folder / name)
        self.store = open_store(self.url)


def rolled_back(call, *arguments):
    with pytest.raises(FailureError) as caught:
        call(*arguments)
    assert caught.value.reason == reasons.REASON_LOG_ROLLED_BACK
    return caught.value.detail


def test_each_key_of_the_log_verifies_alone(log):
    checkpoints = log.open()
    note = checkpoints.current(NOW).note
    heads = {open_checkpoint(note, parse_key(key)) for key in checkpoints.verifier_keys}
    assert len(checkpoints.verifier_keys) == 2
    assert [head.size for head in heads] == [log.store.control().tree_size]
    assert parse_key(checkpoints.verifier_keys[1]).time_s(parse_note(note).lines[1].signature) == (
        NOW // 1000
    )
    assert log.store.latest_checkpoint().note == note
    assert log.file.read_bytes() == note


def test_the_time_of_a_checkpoint_never_goes_back(log):
    first = log.open().current(NOW)
    log.grow("a")
    other = log.open()
    later = other.current(NOW - 60_000)
    assert later.at_ms == first.at_ms
    (key,) = (parse_key(text) for text in other.verifier_keys[1:])
    assert key.time_s(parse_note(later.note).lines[1].signature) == first.at_ms // 1000


def test_every_replica_has_the_same_keys(log):
    assert log.open().verifier_keys == log.open().verifier_keys


def test_a_token_of_before_signs_with_one_key_until_it_is_provisioned(log):
    log.token.destroy(labels.LOG_ROOT)
    assert len(log.open().verifier_keys) == 1
    assert len(parse_note(log.open().current(NOW).note).lines) == 1
    assert provision_all(RULES, log.token, log.store, NOW) == [labels.LOG_ROOT]
    log.grow("more")
    assert len(parse_note(log.open().current(NOW).note).lines) == 2


def test_a_key_that_has_signed_and_is_gone_stops_the_start_and_is_not_made_again(log):
    log.open().current(NOW)
    log.token.destroy(labels.LOG_ROOT)
    with pytest.raises(InventoryError, match="log-root is missing"):
        log.open()
    with pytest.raises(InventoryError, match="log-root is missing"):
        provision_all(RULES, log.token, log.store, NOW)


def test_an_older_copy_of_the_database_is_not_gone_on_from(log):
    kept = log.copy()
    log.grow("a", "b")
    log.open().current(NOW)
    log.restore(kept)
    assert "in the file beside the store" in rolled_back(log.open)


def test_an_older_copy_that_grew_again_is_not_gone_on_from(log):
    """As many leaves as before, and others: the key would sign a second root for that size."""
    kept = log.copy()
    log.grow("a", "b")
    log.open().current(NOW)
    log.restore(kept)
    log.grow("a", "c", "d")
    assert "are not those of" in rolled_back(log.open)


def test_a_store_that_goes_back_under_a_running_replica_ends_its_checkpoints(log):
    kept = log.copy()
    log.grow("a", "b")
    checkpoints = log.open()
    told = []
    checkpoints.tell_contradictions(lambda: told.append(True))
    checkpoints.current(NOW)
    assert checkpoints.fault() == ""
    log.restore(kept)
    rolled_back(checkpoints.current, NOW)
    log.grow("x", "y", "z")
    rolled_back(checkpoints.current, NOW)
    assert checkpoints.fault() == "log_rolled_back"
    assert told == [True]


def test_all_replicas_stop_once_one_knows_that_the_log_went_back(log):
    """PostgreSQL failed over to a copy that was behind. Only one replica had signed more than that
    copy has; the other would sign another root for the same size. There is no file between them.
    """
    ahead = Checkpoints(Reopened(log), log.token, ORIGIN)
    behind = Checkpoints(Reopened(log), log.token, ORIGIN)
    kept = log.copy()
    log.grow("a", "b")
    shown = ahead.signed(NOW)
    log.restore(kept)
    log.grow("x")
    behind.demand_unbroken()
    sentence = rolled_back(ahead.signed, NOW)
    found = log.store.contradiction()
    assert found.note == shown.note
    assert found.at_ms >= NOW
    assert sentence.startswith(found.sentence)
    assert rolled_back(behind.signed, NOW) == sentence
    assert rolled_back(behind.demand_unbroken) == sentence
    assert rolled_back(lambda: Checkpoints(Reopened(log), log.token, ORIGIN)) == sentence


def test_a_file_that_one_replica_cannot_read_stops_that_one_alone(log):
    log.open().current(NOW)
    one, two = log.open(), Checkpoints(Reopened(log), log.token, ORIGIN)
    log.grow("a")
    log.file.write_bytes(b"damaged")
    rolled_back(one.signed, NOW)
    assert log.store.contradiction() is None
    assert two.signed(NOW).tree_size == log.store.control().tree_size


def test_a_changed_leaf_ends_checkpoints(log):
    log.open().current(NOW)
    head = log.store.control().tree_size
    log.file.unlink()
    forged = Checkpoint(head, b"x" * 32, log.store.latest_checkpoint().note, NOW)
    log.store.latest_checkpoint = lambda: forged
    rolled_back(log.open)


@pytest.mark.parametrize("content", [b"", b"nothing", b"x" * 70_000])
def test_a_file_that_is_no_checkpoint_of_ours_stops_the_start(log, content):
    log.file.write_bytes(content)
    assert "no checkpoint of this log" in rolled_back(log.open)


def test_two_replicas_share_the_file_and_it_never_goes_back(log):
    one, two = log.open(), log.open()
    two.current(NOW)
    log.grow("a")
    larger = one.current(NOW)
    assert two.current(NOW).tree_size == larger.tree_size
    assert open_checkpoint(log.file.read_bytes(), one.keys.classic).size == larger.tree_size


def test_what_the_store_had_is_shown_once_the_file_has_it(log, monkeypatch):
    """Whoever signed it died between the store and the file. Shown without it, an older copy of the
    store would be gone on from.
    """
    checkpoints = log.open()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(FailureError):
        checkpoints.signed(NOW)
    again = log.open()
    with pytest.raises(FailureError) as caught:
        again.stored()
    assert caught.value.reason == reasons.REASON_STORE_UNAVAILABLE
    monkeypatch.undo()
    shown = again.stored()
    assert shown is not None
    assert shown.note == log.file.read_bytes()


def test_a_file_that_cannot_be_written_means_no_checkpoint(log, monkeypatch):
    """What would be shown could not be remembered."""
    checkpoints = log.open()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(FailureError) as caught:
        checkpoints.current(NOW)
    assert caught.value.reason == reasons.REASON_STORE_UNAVAILABLE
    monkeypatch.undo()
    assert checkpoints.current(NOW).note == log.file.read_bytes()


@pytest.mark.parametrize("step", crashing_checkpoints.STEPS)
def test_a_crash_at_any_step_never_gives_two_roots_for_one_size(tmp_path, step):
    """Killed with SIGKILL in the middle of publication; what was shown before is extended by all
    that is shown after.
    """
    folder = tmp_path / "log"
    folder.mkdir(mode=0o700)
    create_store(f"sqlite://{folder}/store.db")

    def run(stops):
        command = [sys.executable, crashing_checkpoints.__file__, str(folder), stops]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return ran.returncode, [line.split() for line in ran.stdout.splitlines()]

    code, before = run(f"{step}:3")
    assert (code, len(before)) == (-9, 2)
    code, after = run("never:1")
    assert code == 0
    assert int(before[-1][0]) < int(after[0][0])
