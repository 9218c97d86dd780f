"""Whatever happens to honest agents, nobody is accused; one lie has exactly its own incident."""

from __future__ import annotations

import msgspec
from capsign_evidence.incident_leaf import PASSING, IncidentKind
from capsign_evidence.reconcile.reconciler import Reconciler
from capsign_evidence.reconcile.state import State
from capsign_evidence.reconcile.timing import MAX_STEP_MS, Timing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.two_streams import MINUTE, OTHER, WORKLOAD, Agent, Log

TIMING = Timing()
SPEAKS_MS = 15 * MINUTE
agents = st.integers(0, 2)


def wait(reconciler: Reconciler, until_ms: int) -> None:
    """As a replica does that runs all the while."""
    for now_ms in range(reconciler.state.wall_ms or until_ms, until_ms, MAX_STEP_MS):
        reconciler.advance(now_ms)
    reconciler.advance(until_ms)


class Fleet(RuleBasedStateMachine):
    """Three agents of two workloads, of which at most one tells one lie."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.agents = [
            Agent(self.log, number, workload)
            for number, workload in enumerate((WORKLOAD, WORKLOAD, OTHER), 1)
        ]
        self.cut_off_ms = [0] * 3
        self.lie: IncidentKind | None = None
        self.reconciler = Reconciler(TIMING, self.entry_at)

    def entry_at(self, index: int) -> bytes:
        return self.log.entries[index]

    # What happens to honest agents.

    @rule(at=agents, answered=st.booleans())
    def sign(self, at: int, answered: bool) -> None:
        if self.agents[at].alive:
            self.agents[at].sign(answered=answered)

    @rule(at=agents)
    def seal(self, at: int) -> None:
        self.agents[at].seal()

    @rule(at=agents, most=st.integers(1, 3))
    def deliver(self, at: int, most: int) -> None:
        self.agents[at].deliver(most)

    @rule(at=agents)
    def partition(self, at: int) -> None:
        self.agents[at].reached = False
        self.cut_off_ms[at] = self.log.now_ms

    @rule(at=agents)
    def heal(self, at: int) -> None:
        self.agents[at].reached = True

    @rule(at=agents)
    def crash(self, at: int) -> None:
        if self.agents[at].alive:
            self.agents[at].crash()

    @rule(at=agents)
    def drain(self, at: int) -> None:
        if self.agents[at].alive:
            self.agents[at].end()

    @rule(minutes=st.sampled_from([1, 4, 6, 15, 15, 15]))
    def time_passes(self, minutes: int) -> None:
        """Who can be reached delivers at once, and who lives speaks every 15 minutes; nobody is cut
        off for as long as a day.
        """
        self.log.now_ms += minutes * MINUTE
        for at, agent in enumerate(self.agents):
            if agent.alive and self.log.now_ms - agent.last_ms >= SPEAKS_MS:
                agent.speak()
                agent.last_ms = self.log.now_ms
            if self.log.now_ms - self.cut_off_ms[at] > TIMING.cut_ms // 2:
                agent.reached = True
            agent.deliver()

    @rule(hours=st.integers(1, 5))
    def hours_pass(self, hours: int) -> None:
        for _ in range(4 * hours):
            self.time_passes(15)

    @rule()
    def another_process_takes_over(self) -> None:
        self.read()
        known = msgspec.msgpack.decode(msgspec.msgpack.encode(self.reconciler.state), type=State)
        self.reconciler = Reconciler(TIMING, self.entry_at, known, self.reconciler.standing)

    # One lie, told by one who can be reached.

    def liar(self, at: int) -> Agent:
        agent = self.agents[at]
        agent.reached = True
        agent.deliver()
        return agent

    @precondition(lambda self: self.lie is None)
    @rule(at=agents)
    def steal(self, at: int) -> None:
        """The key of a living agent signs behind its back."""
        self.log.sign(self.agents[at].workload, self.agents[at].key, self.log.intent())
        self.lie = IncidentKind.SIGNED_NOT_REPORTED

    @precondition(lambda self: self.lie is None)
    @rule(at=agents)
    def make_up(self, at: int) -> None:
        if self.agents[at].alive:
            self.liar(at).done(self.log.intent(), 0)
            self.lie = IncidentKind.REPORTED_NOT_SIGNED

    @precondition(lambda self: self.lie is None)
    @rule(at=agents)
    def drop_a_batch(self, at: int) -> None:
        if self.agents[at].alive:
            agent = self.liar(at)
            agent.speak()
            agent.seal()
            agent.sealed.clear()
            agent.speak()
            agent.deliver()
            self.lie = IncidentKind.GAP

    @precondition(lambda self: self.lie is None)
    @rule(at=agents)
    def replay(self, at: int) -> None:
        self.liar(at)
        batches = list(self.log.batches.values())
        if batches:
            self.log.take(WORKLOAD, batches[at % len(batches)])
            self.lie = IncidentKind.REPLAYED_BATCH

    @precondition(lambda self: self.lie is None)
    @rule(at=agents)
    def forge(self, at: int) -> None:
        if self.agents[at].alive:
            agent = self.liar(at)
            agent.previous = b"f" * 32
            agent.speak()
            agent.deliver()
            self.lie = IncidentKind.FORGED_CHAIN

    @precondition(lambda self: self.lie is None)
    @rule(at=agents)
    def lose(self, at: int) -> None:
        if self.agents[at].alive:
            agent = self.liar(at)
            agent.speak()
            agent.deliver()
            self.log.batches[len(self.log.entries) - 1] = b""
            self.lie = IncidentKind.BATCH_LOST

    @precondition(lambda self: self.lie is None)
    @rule(at=agents)
    def vanish(self, at: int) -> None:
        """With its journal, and without a last word."""
        if self.agents[at].alive:
            self.liar(at).alive = False
            self.lie = IncidentKind.CUT_TAIL

    # What is said of it.

    def read(self) -> None:
        for index in range(self.reconciler.state.position, len(self.log.entries)):
            self.reconciler.entry(self.log.entries[index], self.log.batches.get(index))
        wait(self.reconciler, self.log.now_ms)

    @invariant()
    def nobody_else_is_accused(self) -> None:
        self.read()
        kinds = {one.kind for one in self.reconciler.standing} - PASSING
        assert kinds <= {self.lie}

    def teardown(self) -> None:
        for at, agent in enumerate(self.agents):
            self.heal(at)
            agent.deliver()
            if agent.alive:
                agent.end()
        self.read()
        for _ in range(2):
            self.log.now_ms += TIMING.cut_ms + 1
            self.read()
        kinds = {one.kind for one in self.reconciler.standing}
        assert kinds == (set() if self.lie is None else {self.lie})
        # Read at once, as `capsign audit reconcile` does, the log says the same.
        fresh = Reconciler(TIMING, self.entry_at)
        for index, entry in enumerate(self.log.entries):
            fresh.entry(entry, self.log.batches.get(index))
        wait(fresh, self.log.now_ms)
        assert {one.kind for one in fresh.standing} == kinds


Fleet.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestFleet = Fleet.TestCase
