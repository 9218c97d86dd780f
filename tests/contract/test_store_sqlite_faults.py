"""The SQLite file and its disk misbehave: each fault has a type, a sentence for an operator, and no
effect on the log.
"""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from capsign_adapter.model.intents import Verdict
from capsign_adapter.store import faults, schema, sqlite
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.store.lockfile import LockFile
from capsign_adapter.store.open import create_store, open_store
from support.drafts import APP, NOW, check_log, draft
from support.store_processes import open_watched


@pytest.fixture
def path(tmp_path) -> Path:
    """A database file with ten leaves, closed."""
    file = tmp_path / "state" / "store.db"
    url = f"sqlite://{file}"
    create_store(url)
    with closing(open_store(url)) as store:
        store.commit(1, [draft() for _ in range(10)], NOW)
    return file


def opened(path: Path):
    return closing(open_store(f"sqlite://{path}"))


@pytest.fixture
def watched(path):
    """The store, and how to put somebody between it and its writing connection."""
    store, watch = open_watched(path)
    with closing(store):
        yield store, watch


def test_files_are_for_their_owner_only(path):
    with opened(path) as store:
        store.append([b"x"], NOW)
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert modes == {
        "store.db": 0o600,
        "store.db-wal": 0o600,
        "store.db-shm": 0o600,
        "store.db.lock": 0o600,
    }
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def test_on_a_roomy_disk_the_log_has_its_length_at_once_and_the_database_none_of_it(path):
    before = path.stat().st_size
    with opened(path) as store:
        assert log_of(path).stat().st_size >= sqlite.LOG_BYTES
        store.commit(1, [draft()], NOW)
        assert log_of(path).stat().st_size < sqlite.LOG_BYTES * 1.1
        assert len(check_log(store)) == 11
    assert path.stat().st_size < before + sqlite.LOG_BYTES / 4


def test_a_small_disk_keeps_its_room_for_the_database(path, monkeypatch):
    small = SimpleNamespace(f_bavail=sqlite.ROOMY_BYTES // 4096 - 1, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    with opened(path) as store:
        store.commit(1, [draft()], NOW)
        assert log_of(path).stat().st_size < 1 << 20
        assert len(check_log(store)) == 11


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_database_open_to_others_is_refused(path, mode):
    path.chmod(mode)
    with pytest.raises(faults.StoreUnsafeError, match="chmod 600"):
        open_store(f"sqlite://{path}")


def test_a_directory_open_to_others_is_refused(path):
    path.parent.chmod(0o755)
    with pytest.raises(faults.StoreUnsafeError, match="chmod 700"):
        open_store(f"sqlite://{path}")
    with pytest.raises(faults.StoreUnsafeError, match="chmod 700"):
        create_store(f"sqlite://{path}.new")


# Absence means stop and ask.


def test_a_database_that_vanished_is_not_made_again(path):
    path.unlink()
    with pytest.raises(faults.StoreMissingError, match="find it or restore it"):
        open_store(f"sqlite://{path}")
    assert not path.exists()


def test_a_database_that_vanished_is_not_made_again_even_when_creation_is_allowed(path):
    """A service that starts with `create` for its first day still has it on the day the disk is
    lost.
    """
    path.unlink()
    with pytest.raises(faults.StoreExistsError, match="left from a store that is gone"):
        create_store(f"sqlite://{path}")
    with pytest.raises(faults.StoreMissingError, match="find it or restore it"):
        open_store(f"sqlite://{path}", create=True)
    assert not path.exists()


def test_creating_is_explicit_and_never_overwrites(path):
    before = path.read_bytes()
    with pytest.raises(faults.StoreExistsError):
        create_store(f"sqlite://{path}")
    assert path.read_bytes() == before
    with closing(open_store(f"sqlite://{path}", create=True)) as store:
        assert store.control().tree_size == 10


def test_create_where_nothing_is(tmp_path):
    url = f"sqlite://{tmp_path}/a/b/store.db"
    with closing(open_store(url, create=True)) as store:
        assert store.append([b"x"], NOW) == 0
    assert sorted(entry.name for entry in (tmp_path / "a" / "b").iterdir()) == [
        "store.db",
        "store.db.lock",
    ]


def test_an_empty_file_is_damage_even_when_creation_is_allowed(path):
    path.write_bytes(b"")
    for create in (False, True):
        with pytest.raises(faults.StoreDamagedError, match="empty"):
            open_store(f"sqlite://{path}", create=create)


def test_a_file_removed_or_replaced_in_use_takes_no_commit(path, tmp_path):
    """The open descriptor would go on taking commits, durably, into a file that has no name any
    more.
    """
    with opened(path) as store:
        kept = tmp_path / "kept"
        path.rename(kept)
        with pytest.raises(faults.StoreMissingError, match="while it was in use"):
            store.commit(1, [draft()], NOW)
        shutil.copy(kept, path)
        with pytest.raises(faults.StoreMissingError, match="replaced"):
            store.commit(1, [draft()], NOW)
        path.unlink()
        kept.rename(path)
        assert store.append([b"x"], NOW) == 10


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:store.db",
        "sqlite://store.db",
        "sqlite:///",
        "sqlite:///a?mode=memory",
        "mysql://x/y",
        "",
    ],
)
def test_urls_that_name_no_store(url):
    with pytest.raises(ValueError, match="sqlite:///absolute"):
        open_store(url)


# Damage.


def test_a_file_that_is_no_database(path):
    path.write_bytes(b"this is not a database" * 500)
    with pytest.raises(faults.StoreDamagedError, match="damaged"):
        open_store(f"sqlite://{path}")


def test_a_database_of_something_else(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE photographs (id INTEGER)")
    path.chmod(0o600)
    with pytest.raises(faults.StoreDamagedError, match="not a capsign database"):
        open_store(f"sqlite://{path}")


def test_damaged_pages_are_named_as_damage(path):
    with opened(path) as store:
        store.append([os.urandom(60_000) for _ in range(4)], NOW)
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(faults.StoreDamagedError, match="damaged"):
        open_store(f"sqlite://{path}")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM log_segments",
        "UPDATE control SET tree_size = 9",
        "UPDATE control SET frontier = x'00'",
        "INSERT INTO log_segments VALUES (10, 1, x'00', x'00', 1)",
        "DELETE FROM control",
    ],
)
def test_a_log_that_contradicts_itself_is_not_continued(path, statement):
    with closing(sqlite3.connect(path)) as other:
        other.execute(statement)
        other.commit()
    with pytest.raises(faults.StoreDamagedError, match="restore a backup"):
        open_store(f"sqlite://{path}")


def test_a_newer_schema_is_refused(path):
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            "INSERT INTO schema_migrations VALUES (?, 'from the future', 0)", (schema.LATEST + 1,)
        )
        other.commit()
    with pytest.raises(faults.StoreTooNewError, match="newer release"):
        open_store(f"sqlite://{path}")


@pytest.mark.parametrize("trial", [False, True])
def test_answers_of_a_form_that_is_no_more_are_refused_in_words(path, trial):
    """Read as what is stored now, they would be something else."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("DELETE FROM schema_migrations WHERE number >= ?", (schema.STORED_RESULTS,))
        other.execute("UPDATE intents SET result = x'0a01730a'")
        other.commit()
    with pytest.raises(faults.StoreTooOldError, match="cannot read; nothing was changed"):
        open_store(f"sqlite://{path}", trial=trial)


@pytest.fixture
def earlier(sqlite_place):
    """A store of ten leaves as it was before migrations that make tables, and these tables."""
    through = schema.STORED_RESULTS
    with closing(sqlite_place.earlier(through=through)) as store:
        store.append([b"of then"] * 10, NOW)
    later = [one for one in schema.MIGRATIONS if one.number > through]
    made = [
        statement.split()[2]
        for one in later
        for statement in one.render("sqlite")
        if statement.startswith("CREATE TABLE")
    ]
    assert len(made) > 1
    return sqlite_place.path, made


def tables(path):
    with closing(sqlite3.connect(path)) as other:
        return {name for (name,) in other.execute("SELECT name FROM sqlite_master")}


def test_an_older_schema_is_brought_up_to_date(earlier):
    path, made = earlier
    assert not tables(path) & set(made)
    for _ in range(2):
        with opened(path) as store:
            assert store.control().tree_size == 10
    assert tables(path) >= set(made)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT MAX(number) FROM schema_migrations").fetchone() == (
            schema.LATEST,
        )


def test_a_migration_that_fails_leaves_the_old_schema(earlier):
    path, made = earlier
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"CREATE TABLE {made[-1]} (stands INTEGER, in_its_way INTEGER)")
    with pytest.raises(StoreUnavailableError):
        open_store(f"sqlite://{path}")
    assert tables(path) & set(made) == {made[-1]}
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"DROP TABLE {made[-1]}")
    with opened(path) as store:
        assert store.control().tree_size == 10


# The disk.


class FailAt:
    """One statement fails: without effect, or after it had its effect."""

    def __init__(self, prefix: str, code: int, *, happened: bool) -> None:
        self.prefix, self.code, self.happened, self.left = prefix, code, happened, 1

    def __call__(self, sql, run):
        if not self.left or not sql.lstrip().startswith(self.prefix):
            return run()
        self.left -= 1
        if self.happened:
            run()
        error = sqlite3.OperationalError("disk")
        error.sqlite_errorcode, error.sqlite_errorname = self.code, "SQLITE_TEST"
        raise error


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE])
@pytest.mark.parametrize("happened", [False, True])
def test_an_io_error_in_commit_is_unknown_and_asking_again_gives_the_truth(watched, code, happened):
    store, watch = watched
    store.commit(1, [draft()], NOW)
    item = draft()
    watch(FailAt("COMMIT", code, happened=happened))
    with pytest.raises(CommitUnknownError):
        store.commit(1, [item], NOW)
    again = store.commit(1, [item], NOW)[0]
    assert again.verdict is (Verdict.REPLAY if happened else Verdict.NEW)
    assert again.leaf_index == 11
    assert len(check_log(store)) == 12


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY]
)
def test_a_full_disk_in_commit_is_certain(watched, code):
    store, watch = watched
    store.commit(1, [draft()], NOW)
    item = draft()
    watch(FailAt("COMMIT", code, happened=False))
    with pytest.raises(StoreUnavailableError):
        store.commit(1, [item], NOW)
    assert store.find(APP, [item.intent_id]) == {}
    assert store.commit(1, [item], NOW)[0].verdict is Verdict.NEW


@pytest.mark.parametrize(
    "prefix",
    [
        "BEGIN",
        "SELECT revocation_epoch",
        "INSERT INTO log_segments",
        "INSERT INTO intents",
        "UPDATE",
    ],
)
@pytest.mark.parametrize("happened", [False, True])
def test_an_io_error_before_commit_writes_nothing(watched, prefix, happened):
    store, watch = watched
    store.commit(1, [draft()], NOW)
    item = draft()
    watch(FailAt(prefix, sqlite3.SQLITE_IOERR, happened=happened))
    with pytest.raises(StoreUnavailableError, match="I/O error"):
        store.commit(1, [item], NOW)
    assert store.find(APP, [item.intent_id]) == {}
    assert store.commit(1, [item], NOW)[0].leaf_index == 11


def test_a_defect_of_ours_rolls_back(path):
    def broken(reason):
        raise ZeroDivisionError

    with opened(path) as store:
        item = draft(refusal_leaf=broken)
        store.commit(1, [item], NOW)
        with pytest.raises(ZeroDivisionError):
            store.commit(
                1, [draft(), draft(item.intent_id, fingerprint=b"other", refusal_leaf=broken)], NOW
            )
        assert len(check_log(store)) == 11


FILL_AND_FREE = """
import resource, signal, sys
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.store.open import open_store
from support.drafts import NOW, APP, draft, check_log
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = open_store(sys.argv[1])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
done, lost = [], None
while lost is None:
    item = draft(result=b"r" * 20_000)
    try:
        store.commit(1, [item], NOW)
        done.append(item)
    except (StoreUnavailableError, CommitUnknownError) as error:
        lost, why = item, error
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
again = store.commit(1, [lost], NOW)[0]
assert again.verdict.name == "NEW", again
found = store.find(APP, [item.intent_id for item in done])
assert len(found) == len(done) > 5
assert len(check_log(store)) == 10 + len(done) + 1
print(type(why).__name__)
"""


@pytest.mark.system
def test_a_file_at_its_size_limit_loses_nothing_and_recovers(path):
    """Every write beyond the limit fails with EFBIG, for real, in the write-ahead log."""
    tests = Path(__file__).parent.parent
    command = [sys.executable, "-c", FILL_AND_FREE, f"sqlite://{path}"]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tests)},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() in {"StoreUnavailableError", "CommitUnknownError"}


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of one mebibyte."""
    if os.geteuid():
        pytest.skip("only root may mount a tmpfs")
    place = tmp_path / "disk"
    place.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.system
def test_a_full_disk_is_certain_refusal_and_signing_resumes_when_there_is_room(small_disk):
    url = f"sqlite://{small_disk}/store.db"
    with closing(open_store(url, create=True)) as store:
        done = []

        def fill():
            while True:
                item = draft(result=b"r" * 20_000)
                done.append(item)
                store.commit(1, [item], NOW)

        with pytest.raises(StoreUnavailableError, match="full"):
            fill()
        item = done.pop()
        assert len(done) > 5
        assert set(store.find(APP, [other.intent_id for other in [*done, item]])) == {
            other.intent_id for other in done
        }
        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
        assert store.commit(1, [item], NOW)[0].leaf_index == len(done)
        check_log(store)


@pytest.mark.system
def test_a_disk_that_turns_read_only(small_disk):
    url = f"sqlite://{small_disk}/store.db"
    with closing(open_store(url, create=True)) as store:
        store.append([b"x"], NOW)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreUnavailableError, match=r"writable|read-only|Read-only"):
        open_store(url)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    with closing(open_store(url)) as store:
        assert store.entries(0, 2) == [b"x"]


def test_a_database_that_became_read_only_takes_no_commit_and_says_so(watched):
    store, watch = watched
    watch(FailAt("INSERT", sqlite3.SQLITE_READONLY, happened=False))
    with pytest.raises(StoreUnavailableError, match="read-only"):
        store.commit(1, [draft()], NOW)


# The lock file.


def test_waiting_for_the_lock_has_an_end(tmp_path):
    held, waiting = LockFile(tmp_path / "lock"), LockFile(tmp_path / "lock", wait_s=0.05)
    with held, pytest.raises(StoreUnavailableError, match="held the lock"), waiting:
        pass
    with waiting:
        pass
    held.close()
    waiting.close()
    with pytest.raises(StoreUnavailableError, match="closed"), held:
        pass


def test_a_symbolic_link_is_no_lock_file(path, tmp_path):
    lock = path.with_name("store.db.lock")
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailableError, match=r"store\.db\.lock"):
        open_store(f"sqlite://{path}")


def test_nothing_is_left_open(path):
    """A store that is opened and closed many times, or refused, keeps no descriptor."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with opened(path) as store:
        store.control()
    before = descriptors()
    for _ in range(5):
        with opened(path) as store:
            store.control()
    path.chmod(0o644)
    for _ in range(5):
        with pytest.raises(faults.StoreUnsafeError):
            open_store(f"sqlite://{path}")
    assert descriptors() == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before
