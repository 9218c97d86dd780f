"""Several processes on one store, and processes that are killed: whatever was acknowledged is
there, and the log adds up.
"""

from __future__ import annotations

import itertools
import multiprocessing
import signal

import pytest
from capsign_adapter.model.intents import Verdict
from capsign_adapter.model.lifecycle import IntentState
from capsign_evidence.merkle import Frontier, leaf_hash
from capsign_wire.intents import new_intent_id
from support.drafts import APP, NOW, check_log, draft
from support.store_processes import commit_and_die, commit_batches, commit_until_killed

pytestmark = pytest.mark.system

spawn = multiprocessing.get_context("spawn")
# A process that opens its own store and dies at once need not start a new interpreter. It is forked
# from one that has the modules and nothing else: this one may have threads of gRPC's.
fork = multiprocessing.get_context("forkserver")
fork.set_forkserver_preload(["support.store_processes", "contract.conftest"])


def test_processes_that_commit_side_by_side_make_one_dense_log(place):
    ready, results = spawn.Barrier(3), spawn.Queue()
    workers = [
        spawn.Process(target=commit_batches, args=(place.open, ready, results, 40, size))
        for size in (1, 7)
    ]
    for worker in workers:
        worker.start()
    ready.wait(60)
    store = place.open()
    revocations = [
        store.revoke(1, f"handle-{at}", lambda _, at=at: b"revocation %d" % at, NOW)
        for at in range(5)
    ]
    claimed = [claim for _ in workers for claim in results.get(timeout=60)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    claimed += [(index, b"revocation %d" % at) for at, (_, index) in enumerate(revocations)]
    entries = check_log(store)
    assert sorted(claimed) == list(enumerate(entries))
    assert len(entries) == 40 * 8 + 5
    # The frontier that writers handed each other is that of all the entries.
    expected, _ = Frontier().append([leaf_hash(entry) for entry in entries])
    assert frontier_of(store) == expected.root()
    store.close()


def frontier_of(store) -> bytes:
    row = store.read(lambda tx: tx.one("SELECT frontier FROM control WHERE id = 1"))
    return Frontier.decode(bytes(row[0])).root()


@pytest.mark.parametrize("size", [1, 50])
def test_kill_9_of_a_writer_loses_nothing_that_was_acknowledged(place, size):
    acknowledged: dict[bytes, int] = {}
    for round_ in range(8):
        here, there = spawn.Pipe(duplex=False)
        worker = fork.Process(target=commit_until_killed, args=(place.open, there, size))
        worker.start()
        there.close()
        # Killed when the n-th answer arrives: somewhere in the commit after it.
        for _ in range(1 + round_ * 3):
            ids, first = here.recv()
            acknowledged |= {intent_id: first + at for at, intent_id in enumerate(ids)}
        worker.kill()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
        # What it sent before it died was acknowledged as well.
        while True:
            try:
                ids, first = here.recv()
            except EOFError:
                break
            acknowledged |= {intent_id: first + at for at, intent_id in enumerate(ids)}
        store = place.open()
        found = store.find(APP, list(acknowledged))
        assert {intent_id: row.leaf_index for intent_id, row in found.items()} == acknowledged
        entries = check_log(store)
        assert all(
            entries[index] == b"leaf of " + intent_id for intent_id, index in acknowledged.items()
        )
        assert len(entries) - len(acknowledged) in {batch * size for batch in range(round_ + 2)}
        store.close()


STATEMENTS = [
    "BEGIN",
    "SELECT revocation_epoch",
    "INSERT INTO log_segments",
    "INSERT INTO intents",
    "UPDATE control",
    "COMMIT",
]


@pytest.mark.parametrize(("prefix", "after"), list(itertools.product(STATEMENTS, [False, True])))
def test_kill_9_at_each_statement_of_a_commit_leaves_all_or_nothing(sqlite_place, prefix, after):
    sqlite_place.create()
    intent_id = new_intent_id(NOW)
    here, there = fork.Pipe(duplex=False)
    worker = fork.Process(
        target=commit_and_die, args=(sqlite_place.path, prefix, after, intent_id, there)
    )
    worker.start()
    there.close()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    with pytest.raises(EOFError):
        here.recv()
    store = sqlite_place.open()
    committed = prefix == "COMMIT" and after
    assert (intent_id in store.find(APP, [intent_id])) is committed
    assert len(check_log(store)) == 1 + committed
    # The same intent again gives the truth, whichever it was.
    again = store.commit(1, [draft(intent_id)], NOW)[0]
    assert again.verdict is (Verdict.REPLAY if committed else Verdict.NEW)
    assert store.resolve(APP, intent_id, "orders", b"never", NOW).state is IntentState.DONE
    check_log(store)
    store.close()
