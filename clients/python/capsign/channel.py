"""How both clients use gRPC: channel options, the messages of unary calls, and how a failed call is
read.
"""

from __future__ import annotations

import grpc
from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.backoff import Backoff
from capsign_wire.bounds import MAX_ANSWER_BYTES, MAX_MESSAGE_BYTES
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2, signing_pb2

from capsign.jobs import Answer, Job
from capsign.translate import failure_of, is_transport_loss, made

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # The agent is on the same node: look again soon, not after gRPC's usual seconds.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Retries are ours: they keep the intent id and know which failures may be repeated.
    ("grpc.enable_retries", 0),
    # After a fork a new channel must not find the parent's connection in a pool that both have.
    ("grpc.use_local_subchannel_pool", 1),
)

_MISSHAPEN = Answer(
    failure=FailureError(
        failures_pb2.REASON_INTERNAL, "The agent's answer does not have the shape of the question."
    )
)

CONNECT_SLICE = 5.0
"""Seconds of one attempt to reach the agent; by default also how long a call waits for an agent
that has never answered.
"""

AFTER_BREAKS = Backoff(0.02, 1.0)
"""The wait between attempts to open a stream that broke."""


def metadata(trace: str) -> tuple[tuple[str, str], ...]:
    return (("traceparent", trace),) if trace else ()


def single(job: Job) -> pb.SignRequest:
    """The job of one item as a request of Sign."""
    group, item = job.template.group, job.items[0]
    request = pb.SignRequest(
        handle_id=group.handle_id,
        purpose=group.purpose,
        algorithm=group.algorithm,
        open_algorithm=group.open_algorithm,
    )
    if group.HasField("context"):
        request.context.CopyFrom(group.context)
    request.item.intent_id = item.intent_id
    if item.digest:
        request.item.digest = item.data
    else:
        request.item.message = item.data
    return request


def batch(job: Job) -> pb.SignBatchRequest:
    """The job as a request of SignBatch, with one group."""
    request = pb.SignBatchRequest(groups=[job.template.group])
    for item in job.items:
        if item.digest:
            request.groups[0].items.add(intent_id=item.intent_id, digest=item.data)
        else:
            request.groups[0].items.add(intent_id=item.intent_id, message=item.data)
    return request


def single_answer(response: pb.SignResponse) -> Answer:
    return _answer(response.signed, 1)


def batch_answer(job: Job, response: pb.SignBatchResponse) -> Answer:
    return _answer(response.groups[0], len(job.items)) if len(response.groups) == 1 else _MISSHAPEN


def _answer(group: signing_pb2.SignedGroup, items: int) -> Answer:
    if len(group.items) != items:
        return _MISSHAPEN
    return Answer(group.items, made(group.signed_by))


def failed_answer(job: Job, error: grpc.RpcError) -> Answer:
    """The answer of a job whose unary call failed. The job is marked as lost if it may have been
    signed all the same.
    """
    job.lost = job.lost or is_transport_loss(error)
    return Answer(failure=failure_of(error, effect=True))
