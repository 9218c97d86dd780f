"""The adapter, except that its ledger does not find what it wrote: each test of I5 must see one of
these.

CAPSIGN_TEST_FORGET says what is broken:
  lookup   every copy of an intent is entered under an id of its own, so none is ever found;
  release  the ledger is asked, and the signature just made is let out all the same;
  compare  two fingerprints are always equal;
  never    a tombstone is promised and not written.
Everything else is the real program.
"""

from __future__ import annotations

import os
from typing import Any

from capsign_adapter import __main__
from capsign_adapter.model.intents import Stored, Verdict
from capsign_adapter.model.lifecycle import IntentState
from capsign_adapter.sign import release
from capsign_adapter.store import ledger, relational
from capsign_wire.intents import new_intent_id


def _lookup() -> None:
    commit = relational.RelationalStore.commit

    def forgetful(store: Any, epoch: int, drafts: Any, now_ms: int) -> Any:
        return commit(
            store, epoch, [draft._replace(intent_id=new_intent_id()) for draft in drafts], now_ms
        )

    relational.RelationalStore.commit = forgetful


def _release() -> None:
    answer = release.answer

    def hasty(batch: Any) -> Any:
        answered = answer(batch)
        slots = [slot for group in answered.groups for slot in group.items]
        for item, slot in zip(batch.items, slots, strict=True):
            if item.committed.verdict == Verdict.REPLAY and item.signatures:
                slot.signatures[0].value = item.signatures[0]
        return answered

    release.answer = hasty


def _compare() -> None:
    ledger.same = lambda left, right: True


def _never() -> None:
    resolve = relational.RelationalStore.resolve

    def promise(
        store: Any, workload: str, intent_id: bytes, grant: str, never_leaf: bytes, now_ms: int
    ) -> Any:
        if store.find(workload, [intent_id]):
            return resolve(store, workload, intent_id, grant, never_leaf, now_ms)
        return Stored(IntentState.NEVER, grant, b"", store.append([never_leaf], now_ms))

    relational.RelationalStore.resolve = promise


BROKEN = {"lookup": _lookup, "release": _release, "compare": _compare, "never": _never}

if __name__ == "__main__":
    BROKEN[os.environ["CAPSIGN_TEST_FORGET"]]()
    __main__.main()
