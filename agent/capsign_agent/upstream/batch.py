"""Calls that are sent in one message: builds the request, and splits the response."""

from __future__ import annotations

from capsign_wire.adapter.v1 import signing_pb2
from capsign_wire.bounds import ADAPTER_REQUEST_BYTES
from capsign_wire.trace_context import gathered

from capsign_agent.upstream.call import Answer, Call

BATCH_BYTES = ADAPTER_REQUEST_BYTES - 32 * 1024
"""Most bytes of a batch, counted as `Call.cost` and `Call.group_cost`. The handle and context of a
single call may exceed it and still fit into what every adapter takes.
"""

MAX_GROUPS = 256
"""Most groups, and most handles, in a batch."""


class Batch:
    """Calls that are sent in one message."""

    __slots__ = ("calls", "groups", "items")

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self.items = 0
        self.groups: dict[tuple[str, int, bytes, str], list[Call]] = {}
        for call in calls:
            self.items += len(call.intents)
            if call.key in self.groups:
                self.groups[call.key].append(call)
            else:
                self.groups[call.key] = [call]

    def request(self, batch_id: int) -> signing_pb2.SignRequest:
        """The request. Tokens are read now, so that a handle that was renewed while its call waited
        is sent as it is now.
        """
        request = signing_pb2.SignRequest(batch_id=batch_id)
        handles: dict[str, int] = {}
        traces: list[str] = []
        for calls in self.groups.values():
            first = calls[0]
            index = handles.get(first.held.id)
            if index is None:
                index = handles[first.held.id] = len(handles)
                # a dropped one is refused upstream, for good
                request.handles.append(first.held.token or first.token)
            group = request.groups.add(
                handle_index=index,
                algorithm=first.algorithm,
                expected_kid=first.expected_kid,
                caller=first.held.socket,
                open_algorithm=not first.algorithm,
                second_kid=first.second_kid,
            )
            group.context.CopyFrom(first.suffix)
            add = group.items.add
            for call in calls:
                if call.second_kid or call.digests:
                    _add_with_second(group, call)
                else:
                    for intent_id, data in zip(call.intents, call.inputs, strict=True):
                        add(intent_id=intent_id, input=data)
                if call.traceparent:
                    traces.append(call.traceparent)
        if traces:
            request.traceparent, links = gathered(traces)
            request.linked_traceparents.extend(links)
        return request

    def answers(self, response: signing_pb2.SignResponse) -> list[tuple[Call, Answer]]:
        """The answer for each call. Raises ValueError if the response does not have the shape of
        the batch.
        """
        if len(response.groups) != len(self.groups):
            raise ValueError("wrong number of groups")
        answers = []
        for calls, group in zip(self.groups.values(), response.groups, strict=True):
            items, signed_by, at = group.items, group.signed_by, 0
            if len(calls) == 1:
                at = len(calls[0].intents)
                answers.append((calls[0], Answer(signed_by, items, group)))
            else:
                for call in calls:
                    end = at + len(call.intents)
                    answers.append((call, Answer(signed_by, items[at:end])))
                    at = end
            if len(items) != at:
                raise ValueError("wrong number of items")
        return answers


def _add_with_second(group: signing_pb2.SignGroup, call: Call) -> None:
    """Add the items of a call that two keys sign, or whose algorithm is open."""
    nothing = (b"",) * len(call.intents)
    for intent_id, data, second, digest in zip(
        call.intents, call.inputs, call.seconds or nothing, call.digests or nothing, strict=True
    ):
        group.items.add(intent_id=intent_id, input=data, second_input=second, message_sha256=digest)
