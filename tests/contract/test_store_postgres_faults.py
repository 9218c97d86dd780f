"""The way to PostgreSQL breaks, and the server misbehaves: before COMMIT is certain, in COMMIT is
unknown; then it goes on.
"""

from __future__ import annotations

import queue
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
from capsign_adapter.model.intents import Verdict
from capsign_adapter.model.lifecycle import IntentState
from capsign_adapter.store import faults, schema
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.store.open import create_store, open_store
from capsign_adapter.store.postgres import PostgresStore
from capsign_adapter.store.postgres_connection import USUAL, Patience, Target
from capsign_adapter.store.postgres_readers import Readers
from psycopg_pool import PoolTimeout
from support.cutting_proxy import CuttingProxy
from support.drafts import APP, NOW, check_log, draft
from support.postgres import PostgresServer

pytestmark = [pytest.mark.postgres, pytest.mark.system]


@pytest.fixture
def proxy(postgres_server):
    made = CuttingProxy(postgres_server.port)
    yield made
    made.close()


@pytest.fixture
def patience():
    """How long the store waits; a test with a server that is silent has less."""
    return USUAL


BRIEF = pytest.mark.parametrize("patience", [Patience(answer_s=2.0)], ids=["brief"])


@pytest.fixture
def proxied(postgres_server, postgres_place, proxy, patience):
    """A store whose connections run through the proxy."""
    postgres_place.create()
    database = postgres_place.url.split("?")[0].rsplit("/", 1)[1]
    url = postgres_server.url(database, host="127.0.0.1", port=proxy.port)
    with closing(PostgresStore(url, postgres_place.password_file, patience=patience)) as store:
        store.commit(1, [draft()], NOW)
        yield store


@pytest.mark.parametrize("happened", [False, True])
def test_a_connection_lost_in_commit_is_unknown_and_asking_again_gives_the_truth(
    proxied, proxy, happened
):
    item = draft()
    proxy.cut_at(b"COMMIT", happened=happened)
    with pytest.raises(CommitUnknownError):
        proxied.commit(1, [item], NOW)
    again = proxied.commit(1, [item], NOW)[0]
    assert proxy.cuts == 1
    assert (again.verdict, again.leaf_index) == (Verdict.REPLAY if happened else Verdict.NEW, 1)
    assert len(check_log(proxied)) == 2


@pytest.mark.parametrize(
    "word", [b"FOR UPDATE", b"INSERT INTO log_segments", b"INSERT INTO intents"]
)
@pytest.mark.parametrize("happened", [False, True])
def test_a_connection_lost_before_commit_wrote_nothing(proxied, proxy, word, happened):
    item = draft()
    proxy.cut_at(word, happened=happened)
    if word == b"FOR UPDATE":
        # Nothing was asked of that connection yet but its turn: the store takes another one by
        # itself.
        assert proxied.commit(1, [item], NOW)[0].leaf_index == 1
    else:
        with pytest.raises(StoreUnavailableError, match="cannot be reached"):
            proxied.commit(1, [item], NOW)
        assert proxied.find(APP, [item.intent_id]) == {}
        assert proxied.commit(1, [item], NOW)[0].verdict is Verdict.NEW
    assert proxy.cuts == 1
    assert len(check_log(proxied)) == 2


@BRIEF
def test_a_way_that_swallows_everything_is_given_up(proxied, proxy):
    """Neither an answer nor an end of the connection: a middlebox that forgot us. No caller waits
    for ever.
    """
    item = draft()
    proxy.swallow_from(b"COMMIT")
    with pytest.raises(CommitUnknownError):
        proxied.commit(1, [item], NOW)
    assert proxied.commit(1, [item], NOW)[0].verdict is Verdict.NEW


@BRIEF
@pytest.mark.parametrize(
    ("word", "call"),
    [
        (b"SELECT revocation_epoch", lambda store: store.control()),
        (b"FOR UPDATE", lambda store: store.append([b"x"], NOW)),
    ],
)
def test_a_server_that_hangs_costs_a_caller_one_wait(proxied, proxy, word, call):
    """Each of eight idle connections was tried in turn, and each stayed silent for its 45 s: one
    look at the epoch took six minutes, and whoever held a lock over it held it as long.
    """
    with ThreadPoolExecutor(4) as threads:
        meeting = threading.Barrier(4)
        for _ in threads.map(lambda _: proxied.read(lambda tx: meeting.wait()), range(4)):
            pass
    proxy.swallow_from(word)
    with pytest.raises(StoreUnavailableError, match="SilentError"):
        call(proxied)
    assert proxied.idle_readers >= 3
    call(proxied)


def opened(place, patience):
    return closing(PostgresStore(place.url, place.password_file, patience=patience))


def test_readers_that_wait_behind_others_are_told_in_the_end(postgres_place):
    postgres_place.create()
    borrowed, let_go = threading.Event(), threading.Event()

    def hold(_):
        borrowed.set()
        assert let_go.wait(30)

    few = Patience(readers=1, reader_s=2.0)
    with opened(postgres_place, few) as store, ThreadPoolExecutor(1) as threads:
        holding = threads.submit(store.read, hold)
        assert borrowed.wait(30)
        with pytest.raises(StoreUnavailableError, match="readers of this process waited"):
            store.control()
        let_go.set()
        holding.result()
        assert store.control().tree_size == 0


def test_a_reader_is_told_why_there_is_no_connection_and_the_pool_tells_nobody(caplog):
    """The pool told a caller that it had waited for 10 s, and standard error what libpq said."""
    target = Target.parse("postgresql://nobody@127.0.0.1:1/nowhere", None)
    with closing(Readers(target)) as readers, pytest.raises(psycopg.OperationalError) as caught:
        readers.borrow()
    assert not isinstance(caught.value, PoolTimeout)
    assert caplog.records == []


@pytest.mark.parametrize("happened", [False, True])
def test_a_read_that_is_cut_is_read_again(proxied, proxy, happened):
    proxied.control()
    proxy.cut_at(b"SELECT revocation_epoch", happened=happened)
    assert proxied.control().tree_size == 1
    assert proxy.cuts == 1


def test_revocation_that_was_lost_on_its_way_back_can_be_repeated(proxied, proxy):
    """Unknown to the caller, yet in force: repeating it raises the epoch once more, which does no
    harm.
    """
    proxy.cut_at(b"COMMIT", happened=True)
    with pytest.raises(CommitUnknownError):
        proxied.revoke(1, "handle", lambda _: b"revocation", NOW)
    epoch, _ = proxied.revoke(1, "handle", lambda _: b"revocation", NOW)
    assert [entry.epoch for entry in proxied.revocations()[1]] == [epoch - 1, epoch]


@pytest.fixture
def own_server():
    """A server that the test may stop."""
    server = PostgresServer()
    yield server
    server.close()


def test_a_server_that_crashes_loses_nothing_and_the_store_goes_on(own_server):
    url, secret = own_server.new_database(), own_server.password_file_for_clients
    with closing(open_store(url, create=True, password_file=secret)) as store:
        items = [draft() for _ in range(50)]
        store.commit(1, items, NOW)
        own_server.stop(signal.SIGQUIT)
        item = draft()
        with pytest.raises(StoreUnavailableError):
            store.commit(1, [item], NOW)
        with pytest.raises(StoreUnavailableError, match="cannot be reached"):
            store.control()
        own_server.start()
        assert len(store.find(APP, [other.intent_id for other in items])) == 50
        assert store.commit(1, [item], NOW)[0].leaf_index == 50
        check_log(store)


def outcome_without_a_standby(server, call, act="pg_cancel_backend"):
    """What comes of a call of the store that waits for a standby until the server is told to wait
    no longer.
    """
    done: Any = queue.SimpleQueue()

    def run():
        try:
            done.put(call())
        except Exception as error:
            done.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    ended = f"SELECT {act}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"  # noqa: S608 - one of two constants
    while thread.is_alive() and not server.execute(ended).fetchall():
        pass
    thread.join()
    return done.get()


@pytest.mark.parametrize("act", ["pg_cancel_backend", "pg_terminate_backend"])
def test_what_no_standby_has_confirmed_is_unknown(own_server, act):
    """The standby is cut off. When the server gives up waiting for it (our own statement_timeout
    makes it, or an administrator), it answers COMMIT, with a warning: a signature released on that
    would be missing from the ledger after a failover. Nor may it leave a moment later because
    somebody asks what became of its intent.
    """
    url, secret = own_server.new_database(), own_server.password_file_for_clients
    with (
        closing(open_store(url, create=True, password_file=secret)) as store,
        own_server.connect() as other,
    ):
        store.commit(1, [draft()], NOW)
        other.execute("ALTER SYSTEM SET synchronous_standby_names = 'cut_off'")
        other.execute("SELECT pg_reload_conf()")
        while not isinstance(
            outcome_without_a_standby(other, lambda: store.commit(1, [draft()], NOW)),
            CommitUnknownError,
        ):
            pass  # the server has not read its configuration yet
        item = draft()
        for call in (
            lambda: store.commit(1, [item], NOW),
            lambda: store.commit(1, [item], NOW),
            lambda: store.resolve(APP, item.intent_id, item.grant, b"never", NOW),
        ):
            assert isinstance(outcome_without_a_standby(other, call, act), CommitUnknownError)
        other.execute("ALTER SYSTEM RESET synchronous_standby_names")
        other.execute("SELECT pg_reload_conf()")
        assert store.commit(1, [item], NOW)[0].verdict is Verdict.REPLAY
        assert (
            store.resolve(APP, item.intent_id, item.grant, b"never", NOW).state is IntentState.DONE
        )


def test_warnings_come_whatever_the_database_says(postgres_place):
    """They were off for its sessions, and so was the word that no standby has confirmed a
    commit.
    """
    with closing(Target.parse(postgres_place.url, postgres_place.password_file).connect()) as link:
        link.execute(f"ALTER DATABASE {link.info.dbname} SET client_min_messages = error")
    with closing(Target.parse(postgres_place.url, postgres_place.password_file).connect()) as link:
        link.execute("DO $$ BEGIN RAISE WARNING 'no standby'; END $$")
        assert link.warned


def test_a_session_ended_by_an_administrator_in_the_middle_of_the_work(
    postgres_place, postgres_server
):
    postgres_place.create()
    with closing(postgres_place.open()) as store:
        item = draft()
        store.commit(1, [item], NOW)

        def end_sessions(reason):
            with postgres_server.connect() as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'capsign-adapter' AND state = 'idle in transaction'"
                )
            return b"refused"

        # The leaf of a refusal is made inside the transaction: the session dies right there.
        with pytest.raises(StoreUnavailableError):
            store.commit(
                1,
                [draft(item.intent_id, fingerprint=b"other", refusal_leaf=end_sessions), draft()],
                NOW,
            )
        assert store.commit(1, [draft()], NOW)[0].leaf_index == 1


def test_a_server_that_takes_reads_only(postgres_place, postgres_server):
    postgres_place.create()
    database = postgres_place.url.split("?")[0].rsplit("/", 1)[1]
    with closing(postgres_place.open()) as store:
        store.commit(1, [draft()], NOW)
        with postgres_server.connect() as connection:
            connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [database],
            )
        with pytest.raises(StoreUnavailableError, match="takes reads only"):
            store.commit(1, [draft()], NOW)
        assert store.control().tree_size == 1


def test_another_replica_that_hangs_in_its_turn_is_named(postgres_place, postgres_server):
    brief = Patience(control_row_s=0.05)
    postgres_place.create()
    database = postgres_place.url.split("?")[0].rsplit("/", 1)[1]
    with opened(postgres_place, brief) as store, postgres_server.connect(database) as hanging:
        hanging.execute("BEGIN; SELECT * FROM control FOR UPDATE")
        with pytest.raises(StoreUnavailableError, match="control row"):
            store.append([b"x"], NOW)
        hanging.execute("ROLLBACK")
        assert store.append([b"x"], NOW) == 0


# Opening.


def test_a_database_without_a_schema_is_not_given_one(postgres_place):
    with pytest.raises(faults.StoreMissingError, match="no capsign schema"):
        postgres_place.open()
    with pytest.raises(faults.StoreMissingError):
        postgres_place.open()
    with closing(
        open_store(postgres_place.url, create=True, password_file=postgres_place.password_file)
    ) as store:
        assert store.append([b"x"], NOW) == 0
    with pytest.raises(faults.StoreExistsError):
        postgres_place.create()


def test_two_replicas_that_create_at_once_make_one_deployment(postgres_place):
    barrier, made = threading.Barrier(4), []

    def start():
        barrier.wait()
        with closing(
            open_store(postgres_place.url, create=True, password_file=postgres_place.password_file)
        ) as store:
            made.append(store.append([b"x"], NOW))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [0, 1, 2, 3]


def test_a_database_that_does_not_exist(postgres_server):
    url = postgres_server.url("nowhere")
    with pytest.raises(faults.StoreMissingError, match="does not exist"):
        open_store(url, password_file=postgres_server.password_file_for_clients)


def test_a_schema_from_the_future_and_a_lost_control_row(postgres_place, postgres_server):
    postgres_place.create()
    database = postgres_place.url.split("?")[0].rsplit("/", 1)[1]
    with postgres_server.connect(database) as connection:
        connection.execute(
            "INSERT INTO schema_migrations VALUES (%s, 'from the future', 0)", [schema.LATEST + 1]
        )
        with pytest.raises(faults.StoreTooNewError, match="newer release"):
            postgres_place.open()
        connection.execute("DELETE FROM schema_migrations WHERE number = %s", [schema.LATEST + 1])
        connection.execute("UPDATE control SET tree_size = 3")
        with pytest.raises(faults.StoreDamagedError, match="restore a backup"):
            postgres_place.open()
        connection.execute("DELETE FROM control")
        with pytest.raises(faults.StoreDamagedError, match="control row is gone"):
            postgres_place.open()


@pytest.fixture
def configured(postgres_server):
    """Sets a parameter of the whole server, until the test is over."""

    def wait_until(connection, name, is_so):
        pause = threading.Event()
        while not is_so(connection.execute(f"SHOW {name}").fetchone()[0]):
            pause.wait(0.01)

    changed = []

    def configure(name, value):
        with postgres_server.connect() as connection:
            changed.append((name, connection.execute(f"SHOW {name}").fetchone()[0]))
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            connection.execute("SELECT pg_reload_conf()")
            wait_until(connection, name, lambda now: now == value)

    yield configure
    for name, before in changed:
        with postgres_server.connect() as connection:
            connection.execute(f"ALTER SYSTEM RESET {name}")
            connection.execute("SELECT pg_reload_conf()")
            wait_until(connection, name, lambda now, before=before: now == before)


@pytest.mark.parametrize("parameter", ["fsync", "full_page_writes"])
def test_a_server_that_would_lose_commits_is_refused(postgres_place, configured, parameter):
    postgres_place.create()
    configured(parameter, "off")
    with pytest.raises(faults.StoreUnsafeError, match="fsync"):
        postgres_place.open()


def test_synchronous_commit_is_on_whatever_the_role_says(postgres_place, postgres_server):
    postgres_place.create()
    database = postgres_place.url.split("?")[0].rsplit("/", 1)[1]
    with postgres_server.connect() as connection:
        connection.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    with closing(Target.parse(postgres_place.url, postgres_place.password_file).connect()) as link:
        assert link.execute("SHOW synchronous_commit").fetchone() == ("on",)


# The password.


def test_the_password_comes_from_a_file_and_is_never_shown(
    postgres_place, postgres_server, tmp_path
):
    postgres_place.create()
    secret = postgres_place.password_file.read_text()
    with closing(postgres_place.open()) as store:
        assert secret not in repr(store)
        assert secret not in repr(vars(store))
    wrong = tmp_path / "password"
    wrong.touch(mode=0o600)
    wrong.write_text("wrong-" + secret)
    with pytest.raises(StoreUnavailableError, match="did not accept the password") as caught:
        open_store(postgres_place.url, password_file=wrong)
    assert secret not in str(caught.value)
    wrong.chmod(0o644)
    with pytest.raises(faults.StoreUnsafeError, match="chmod 600"):
        open_store(postgres_place.url, password_file=wrong)
    wrong.chmod(0o600)
    wrong.write_text("")
    with pytest.raises(StoreUnavailableError, match="empty"):
        open_store(postgres_place.url, password_file=wrong)
    with pytest.raises(StoreUnavailableError, match="no such file"):
        open_store(postgres_place.url, password_file=tmp_path / "absent")


@pytest.mark.parametrize(
    "url", ["postgresql://user:s3cret@host/db", "postgresql://user@host/db?password=s3cret"]
)
def test_a_password_in_the_url_is_refused_without_repeating_it(url):
    for use in (open_store, create_store):
        with pytest.raises(ValueError, match="put it into a file") as caught:
            use(url)
        assert "s3cret" not in str(caught.value)


def test_a_url_that_cannot_be_read_is_not_repeated():
    with pytest.raises(ValueError, match="cannot be read") as caught:
        open_store("postgresql://user:s3cret@host:port/db?nonsense=1")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_connections_over_the_network_are_verified():
    assert Target.parse("postgresql://u@db.example/x", None).parameters["sslmode"] == "verify-full"
    assert Target.parse("postgresql://u@/x?host=/run/pg", None).parameters["sslmode"] == "prefer"
    with pytest.raises(ValueError, match="verify-full"):
        Target.parse("postgresql://u@db.example/x?sslmode=prefer", None)


def test_every_kind_of_error_of_the_driver_has_a_sentence():
    """A new exception class of psycopg must not reach the signing path bare."""
    target = Target.parse("postgresql://u@/x", None)
    from capsign_adapter.store.postgres_connection import from_postgres

    kinds = [
        kind
        for kind in vars(psycopg.errors).values()
        if isinstance(kind, type) and issubclass(kind, psycopg.Error)
    ]
    assert len(kinds) > 200
    for kind in kinds:
        mapped = from_postgres(kind("text with a value: s3cret"), target)
        assert isinstance(mapped, StoreUnavailableError)
        assert "s3cret" not in str(mapped)
