"""The coalescing core, without any I/O: nothing is lost, nothing is settled twice, every bound
holds.
"""

from __future__ import annotations

from capsign.batch_scheduler import (
    MAX_BYTES,
    MAX_GROUPS,
    MAX_WAITING,
    BatchScheduler,
)
from capsign.handle_selector import HandleSelector
from capsign.handles import HandleCache, Template
from capsign.inputs import split
from capsign.jobs import Item, Job
from capsign.send_window import FEW, LARGE, MAX_IN_FLIGHT, STALLED_AFTER, STALLED_AT_MOST
from capsign.translate import key_handle
from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.bounds import MAX_BATCH_ITEMS, check
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2 as types
from capsign_wire.types.v1.algorithms_pb2 import ALGORITHM_ES256
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

TEMPLATES = [Template(pb.SignGroup(handle_id=f"h{number}", algorithm=1)) for number in range(80)]


def a_job(items=1, template=0, size=10, deadline=100.0):
    return Job(
        TEMPLATES[template],
        [Item(number.to_bytes(16, "big"), bytes(size), False) for number in range(items)],
        deadline,
    )


def answer_to(request):
    groups = [
        types.SignedGroup(
            items=[
                types.SignedItem(
                    signatures=[types.Signature(value=group.handle_id.encode() + item.intent_id)]
                )
                for item in group.items
            ]
        )
        for group in request.groups
    ]
    return pb.SignStreamResponse(call_id=request.call_id, groups=groups)


def test_one_job_goes_at_once_and_the_next_ones_gather():
    scheduler = BatchScheduler(1)
    scheduler.add(a_job())
    first = scheduler.next_message(0)
    for number in range(10):
        scheduler.add(a_job(template=number % 2))
    assert scheduler.next_message(0) is None
    assert len(scheduler.answer(answer_to(first), 0)) == 1
    second = scheduler.next_message(0)
    assert [len(group.items) for group in second.groups] == [5, 5]
    assert scheduler.next_message(0) is None


def test_a_message_keeps_the_bounds_of_the_wire():
    scheduler = BatchScheduler(1000)
    for number in range(MAX_GROUPS + 5):
        scheduler.add(a_job(template=number))
    first = scheduler.next_message(0)
    check(first)
    assert len(first.groups) == MAX_GROUPS
    scheduler = BatchScheduler(1000)
    for _ in range(3):
        scheduler.add(a_job(items=600, size=4))
    assert [sum(len(g.items) for g in scheduler.next_message(0).groups) for _ in range(3)] == [
        600,
        600,
        600,
    ]
    for _ in range(40):
        scheduler.add(a_job(items=1, size=65536))
    message = scheduler.next_message(STALLED_AFTER)
    check(message)
    assert len(message.SerializeToString()) < MAX_BYTES + 10_000


def test_split_keeps_order_and_bounds():
    items = [Item(bytes(16), bytes(65536 if number % 3 else 1), False) for number in range(2500)]
    parts = list(split(items))
    assert [index for part in parts for index in part] == list(range(2500))
    assert all(len(part) <= MAX_BATCH_ITEMS for part in parts)
    assert all(sum(len(items[i].data) for i in part) <= MAX_BYTES for part in parts)
    assert list(split([])) == []


def test_an_unanswered_message_stops_holding_others_back():
    scheduler = BatchScheduler(1)
    sent = []
    for number in range(MAX_IN_FLIGHT + 5):
        scheduler.add(a_job())
        message = scheduler.next_message(number * STALLED_AFTER * 1.01)
        if message is not None:
            sent.append(message)
    assert len(sent) == MAX_IN_FLIGHT


def sent(scheduler, callers, now=0.0):
    for _ in range(callers):
        scheduler.add(a_job())
    return scheduler.next_message(now)


def test_of_many_callers_half_share_a_message_beside_the_one_in_flight():
    """Threads come back from an answer one by one; each must not get a message of its own."""
    scheduler = BatchScheduler(2)
    first = sent(scheduler, 40)
    assert len(scheduler.answer(answer_to(first), 0.001)) == 40
    second = sent(scheduler, 19, 0.001)  # none is in flight
    assert second is not None
    assert sent(scheduler, 19, 0.001) is None
    assert len(sent(scheduler, 1, 0.001).groups[0].items) == 20


def test_few_callers_do_not_wait_for_each_other():
    scheduler = BatchScheduler(2)
    assert sent(scheduler, FEW - 1) is not None
    assert sent(scheduler, 1) is not None


def test_half_of_very_many_are_not_waited_for():
    scheduler = BatchScheduler(2)
    assert sent(scheduler, 10 * LARGE) is not None
    assert sent(scheduler, LARGE - 1) is None
    assert sent(scheduler, 1) is not None


def test_callers_that_do_not_come_back_are_not_waited_for():
    scheduler = BatchScheduler(2)
    scheduler.answer(answer_to(sent(scheduler, 50)), 0.001)
    for _ in range(5):
        scheduler.answer(answer_to(sent(scheduler, 1)), 0.001)
    assert sent(scheduler, 1) is not None
    assert sent(scheduler, 1) is not None


def test_where_every_answer_is_late_none_counts_as_stalled():
    """On an overloaded machine messages took longer than STALLED_AFTER; more of them were sent, of
    a third of the size, and all took longer still.
    """
    scheduler = BatchScheduler(1)
    now = 0.0
    for _ in range(8):
        message = sent(scheduler, 1, now)
        now += 0.1
        scheduler.answer(answer_to(message), now)
    assert sent(scheduler, 1, now) is not None
    assert sent(scheduler, 1, now + 0.19) is None
    assert sent(scheduler, 1, now + 0.21) is not None
    assert scheduler.stalled_after < STALLED_AT_MOST


def test_one_slow_key_among_quick_ones_counts_as_stalled():
    scheduler = BatchScheduler(1)
    scheduler.answer(answer_to(sent(scheduler, 1, 0.0)), 0.001)
    for turn in range(1, 7):
        scheduler.answer(answer_to(sent(scheduler, 1, turn)), turn + 0.4)
    assert scheduler.stalled_after == STALLED_AFTER


def test_a_full_line_refuses_before_anything_is_sent():
    scheduler = BatchScheduler(1)
    taken = 0
    while (refused := scheduler.add(a_job(items=1024))) is None:
        taken += 1024
    assert taken == MAX_WAITING
    assert refused.failure.reason == reasons.REASON_OVERLOADED


def test_those_who_gave_up_do_not_fill_the_line():
    scheduler = BatchScheduler(1)
    for turn in range(3 * MAX_WAITING // 1024):
        assert scheduler.add(a_job(items=1024, deadline=float(turn))) is None
        assert len(scheduler.expire(float(turn))) == 1
    assert scheduler.idle


def test_what_is_true_at_the_deadline_depends_on_whether_it_was_sent():
    scheduler = BatchScheduler(1)
    scheduler.add(a_job(template=1))
    scheduler.next_message(0)
    scheduler.add(a_job(template=2))
    outcomes = {job.template: answer.failure.outcome for job, answer in scheduler.expire(100.0)}
    assert outcomes == {
        TEMPLATES[1]: reasons.OUTCOME_UNKNOWN,
        TEMPLATES[2]: reasons.OUTCOME_UNAVAILABLE,
    }


class PipelineMachine(RuleBasedStateMachine):
    """Adds, sends, answers, loses, drops and expires in any order."""

    def __init__(self):
        super().__init__()
        self.scheduler = BatchScheduler(2)
        self.now = 0.0
        self.jobs = []
        self.wire = {}
        self.told = {}

    @rule(items=st.integers(1, 5), template=st.integers(0, 3), patience=st.integers(1, 50))
    def add(self, items, template, patience):
        job = a_job(items, template, deadline=self.now + patience)
        job.waiter = len(self.jobs)
        self.jobs.append(job)
        assert self.scheduler.add(job) is None

    @rule()
    def send(self):
        request = self.scheduler.next_message(self.now)
        if request is not None:
            check(request)
            self.wire[request.call_id] = request

    @precondition(lambda self: self.wire)
    @rule(data=st.data(), kind=st.sampled_from(["good", "short", "whole"]))
    def answer(self, data, kind):
        request = self.wire.pop(data.draw(st.sampled_from(sorted(self.wire))))
        response = answer_to(request)
        if kind == "short":
            del response.groups[0].items[0]
        if kind == "whole":
            failure = FailureError(reasons.REASON_INPUT_MALFORMED).to_item()
            response = pb.SignStreamResponse(call_id=request.call_id, failure=failure)
        self.tell(self.scheduler.answer(response, self.now))

    @rule()
    def lose(self):
        self.scheduler.lose()
        self.wire.clear()

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def drop(self, data):
        job = data.draw(st.sampled_from(self.jobs))
        if not job.settled:
            self.told[job.waiter] = "dropped"
        self.scheduler.drop(job)

    @rule(seconds=st.integers(1, 30))
    def time_passes(self, seconds):
        self.now += seconds
        self.tell(self.scheduler.expire(self.now))

    def tell(self, settled):
        for job, answer in settled:
            assert job.waiter not in self.told, "settled twice"
            self.told[job.waiter] = answer
            if answer.failure is None:
                expected = [
                    job.template.group.handle_id.encode() + item.intent_id for item in job.items
                ]
                assert [item.signatures[0].value for item in answer.items] == expected

    @invariant()
    def settled_means_told(self):
        assert {job.waiter for job in self.jobs if job.settled} == set(self.told)

    @invariant()
    def nobody_is_forgotten(self):
        for job in self.jobs:
            assert job.settled or job.deadline > self.now
        assert self.scheduler.idle == all(job.settled for job in self.jobs) or not self.wire

    def teardown(self):
        self.now = 1e9
        self.tell(self.scheduler.expire(self.now))
        assert len(self.told) == len(self.jobs)
        assert self.scheduler.idle


TestPipelineMachine = PipelineMachine.TestCase
TestPipelineMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def a_list(life):
    return [
        key_handle(
            pb.KeyHandle(id=f"{life}-jwt", grant="web", purpose="jwt", algorithms=[ALGORITHM_ES256])
        )
    ]


def test_a_list_that_changes_while_a_template_is_made_leaves_no_stale_one():
    """The agent restarted while a selector was first used: its template kept the old id, and the
    selector was refused for good.
    """
    book = HandleCache()
    book.store(a_list("old"))

    class Overtaking(str):
        """No protocol. Asked for it, while the template is made, it lets the agent restart."""

        __slots__ = ()

        def __bool__(self):
            book.store(a_list("new"))
            return False

    selector = HandleSelector("jwt", None, None, "ES256", protocol=Overtaking())
    assert book.template(selector).group.handle_id == "old-jwt"
    assert book.template(selector).group.handle_id == "new-jwt"
