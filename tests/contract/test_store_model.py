"""The ledger on SQLite against a model of a dictionary and a list: whatever the order of calls,
both say the same.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from capsign_adapter.model.intents import Draft, Stored, Verdict
from capsign_adapter.model.lifecycle import IntentEvent, IntentState, intent_state
from capsign_adapter.store.errors import EpochMovedError
from capsign_adapter.store.open import open_store
from capsign_adapter.store.stored_result import of_refusal
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.drafts import APP, NOW, OTHER_APP, check_log, draft

IDS = [new_intent_id(NOW + 100 * at) for at in range(8)]
WORKLOADS = [APP, OTHER_APP]

drafts = st.builds(
    lambda workload, intent_id, variant, grant, event, serial, nonce: draft(
        intent_id,
        workload=workload,
        fingerprint=bytes([variant]) * 32,
        grant=grant,
        event=event,
        result=b"result %d" % nonce,
        leaf=b"leaf %d" % nonce,
        refusal_leaf=lambda reason: b"refusal %d %d" % (reason, nonce),
        handle_serial=b"serial" if serial else b"",
        max_uses=2 if serial else 0,
    ),
    st.sampled_from(WORKLOADS),
    st.sampled_from(IDS),
    st.integers(0, 1),
    st.sampled_from(["orders", "refunds"]),
    st.sampled_from([IntentEvent.SIGN, IntentEvent.SIGN, IntentEvent.SIGN, IntentEvent.REFUSE]),
    st.booleans(),
    st.integers(0, 1 << 30),
)


class LedgerMachine(RuleBasedStateMachine):
    """Rows by (workload, id) with their fingerprint; the log as a list; one use counter; epoch and
    watermark.
    """

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="capsign-model-"))
        self.url = f"sqlite://{self.directory}/state/store.db"
        self.rows: dict[tuple[str, bytes], tuple[Stored, bytes]] = {}
        self.log: list[bytes] = []
        self.used = 0
        self.watermark = 0

    @initialize()
    def create(self) -> None:
        self.store = open_store(self.url, create=True)
        self.epoch = self.store.control().revocation_epoch

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)

    def expect(self, item: Draft) -> tuple:
        """What the model says of a draft, after doing it."""
        key, index = (item.workload, item.intent_id), len(self.log)
        stored, fingerprint = self.rows.get(key, (None, b""))
        old = int.from_bytes(item.intent_id[:6], "big") < self.watermark
        reason = None
        if stored is not None and stored.state is IntentState.NEVER:
            reason = failures_pb2.REASON_INTENT_NEVER
        elif stored is not None and (fingerprint, stored.grant) == (item.fingerprint, item.grant):
            return (Verdict.REPLAY, stored.leaf_index, stored)
        elif stored is not None:
            reason = failures_pb2.REASON_INTENT_CONFLICT
        elif old:
            reason = failures_pb2.REASON_INTENT_EXPIRED
        elif item.event is IntentEvent.SIGN and item.max_uses and self.used >= item.max_uses:
            reason = failures_pb2.REASON_USES_EXHAUSTED
            result = of_refusal(FailureError(reason).to_item())
            self.rows[key] = (
                Stored(IntentState.REFUSED, item.grant, result, index),
                item.fingerprint,
            )
        if reason is not None:
            self.log.append(item.refusal_leaf(reason))
            return (Verdict.REFUSED, index, reason)
        if item.event is IntentEvent.SIGN and item.max_uses:
            self.used += 1
        self.rows[key] = (
            Stored(intent_state(item.event), item.grant, item.result, index),
            item.fingerprint,
        )
        self.log.append(item.leaf)
        return (Verdict.NEW, index)

    @rule(batch=st.lists(drafts, max_size=6))
    def commit(self, batch: list[Draft]) -> None:
        results = self.store.commit(self.epoch, batch, NOW)
        for item, result in zip(batch, results, strict=True):
            said = {
                Verdict.NEW: (result.verdict, result.leaf_index),
                Verdict.REPLAY: (result.verdict, result.leaf_index, result.stored),
                Verdict.REFUSED: (result.verdict, result.leaf_index, result.reason),
            }[result.verdict]
            assert said == self.expect(item)

    @rule(item=drafts)
    def commit_plain_then_again(self, item: Draft) -> None:
        self.commit([item._replace(max_uses=0)])
        self.commit([item._replace(max_uses=0, result=b"another signature")])

    @rule(item=drafts, behind=st.integers(1, 2))
    def commit_under_an_old_epoch(self, item: Draft, behind: int) -> None:
        with pytest.raises(EpochMovedError):
            self.store.commit(self.epoch - behind, [item], NOW)

    @rule(
        workload=st.sampled_from(WORKLOADS),
        intent_id=st.sampled_from(IDS),
        grant=st.sampled_from(["orders", "refunds"]),
    )
    def resolve(self, workload: str, intent_id: bytes, grant: str) -> None:
        key = (workload, intent_id)
        if key in self.rows:
            stored = self.rows[key][0]
            if stored.grant == grant:
                assert self.store.resolve(workload, intent_id, grant, b"never", NOW) == stored
            else:
                self.resolve_refused(key, grant, failures_pb2.REASON_INTENT_CONFLICT)
        elif int.from_bytes(intent_id[:6], "big") < self.watermark:
            self.resolve_refused(key, grant, failures_pb2.REASON_INTENT_EXPIRED)
        else:
            made = Stored(IntentState.NEVER, grant, b"", len(self.log))
            assert self.store.resolve(workload, intent_id, grant, b"never", NOW) == made
            self.rows[key] = (made, b"")
            self.log.append(b"never")

    def resolve_refused(self, key: tuple[str, bytes], grant: str, reason: int) -> None:
        with pytest.raises(FailureError) as caught:
            self.store.resolve(*key, grant, b"never", NOW)
        assert caught.value.reason == reason

    @rule(offset=st.integers(-50, 850), retention=st.integers(0, 300), limit=st.integers(1, 5))
    def collect_garbage(self, offset: int, retention: int, limit: int) -> None:
        """The clock may step back, and the watermark may not; a clock that is ahead moves it no
        farther than the newest row.
        """
        if self.rows:
            newest = int.from_bytes(max(intent_id for _, intent_id in self.rows)[:6], "big")
            self.watermark = max(self.watermark, min(NOW + offset, newest) - retention)
        old = sorted(key for key in self.rows if int.from_bytes(key[1][:6], "big") < self.watermark)
        assert self.store.collect_garbage(NOW + offset, retention, limit) == min(limit, len(old))
        left = {key for key in old if self.store.find(key[0], [key[1]])}
        # The oldest go first; among workloads with the same id, either.
        assert len(left) == len(old) - min(limit, len(old))
        for key in set(old) - left:
            assert not left or key[1] <= min(other[1] for other in left)
            del self.rows[key]

    @rule()
    def revoke(self) -> None:
        assert self.store.revoke(1, "handle", lambda _: b"revocation", NOW) == (
            self.epoch + 1,
            len(self.log),
        )
        self.epoch += 1
        self.log.append(b"revocation")

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = open_store(self.url)

    @invariant()
    def they_agree(self) -> None:
        control = self.store.control()
        assert (control.revocation_epoch, control.intent_watermark_ms) == (
            self.epoch,
            self.watermark,
        )
        for workload in WORKLOADS:
            expected = {
                intent_id: stored
                for (owner, intent_id), (stored, _) in self.rows.items()
                if owner == workload
            }
            assert self.store.find(workload, IDS) == expected
        assert check_log(self.store) == self.log


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
