"""`capsign drift`: what differs from what is expected, for people and for gates.

Exit code 0: nothing differs; 1: something does; 3: it is not known, because the adapter refused to
say (standard error tells why) or the token gave no answer; 4: no adapter could be reached.
"""

from __future__ import annotations

import time
from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import ages, endpoints, key_values, output
from capsign_cli.failures import UNKNOWN, predicate

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import inventory_pb2 as pb

SECONDS = 60
"""Longest wait for a look: a token with many keys takes its time."""

COLUMNS = ("kind", "subject", "aspect", "expected", "found", "since")

DIFFERS = 1
"""The exit code that says yes."""

EVERY_SECONDS = 5.0
"""Between looks of `--watch`."""


@click.command()
@click.option("--known", is_flag=True, help="Tell what was found before; do not look now.")
@click.option("--watch", is_flag=True, help="A line for each that comes and goes, until Ctrl-C.")
@endpoints.adapter_options
@output.option
def drift(known: bool, watch: bool, **options: Any) -> None:
    """What differs: TLS, keys and objects in the token, lifetimes, settings, software, policy file.

    Exit code 0: nothing differs. 1: something does. 3: not known. 4: no adapter was reached.
    """
    if watch and known:
        raise click.UsageError("--watch looks each time; leave --known out.")
    from capsign_wire.adapter.v1 import inventory_pb2, inventory_pb2_grpc

    with predicate(), endpoints.adapter_of(options).channel() as channel:
        stub = inventory_pb2_grpc.InventoryServiceStub(channel)

        def look() -> pb.ListDriftResponse:
            request = inventory_pb2.ListDriftRequest(look=not known)
            answer: pb.ListDriftResponse = stub.ListDrift(request, timeout=SECONDS)
            return answer

        if watch:
            _watched(look)
        answer = look()
    values = [values_of(one) for one in answer.differences]
    if output.is_json():
        output.record(
            {
                "drift": values,
                "looked_at": key_values.when(answer.looked_at),
                "token_seen": answer.token_seen,
                "replicas": [_replica(one) for one in answer.replicas],
            }
        )
    else:
        output.rows("drift", values, COLUMNS, empty=_nothing(answer))
        if values and not answer.token_seen:
            output.line({}, "The token gave no answer: what is known of it is older.")
    if values:
        click.get_current_context().exit(DIFFERS)
    if not (known or answer.token_seen):
        click.get_current_context().exit(UNKNOWN)


def _nothing(answer: pb.ListDriftResponse) -> str:
    count = len(answer.replicas)
    seen = "" if answer.token_seen else " The token gave no answer: what is in it is not known."
    return f"Nothing differs ({count} replica{'s' * (count != 1)}).{seen}"


def _watched(look: Any) -> None:
    """A line for each difference that comes or goes. Ends by Ctrl-C."""
    there: dict[tuple[str, ...], dict[str, Any]] = {}
    while True:
        values = [values_of(one) for one in look().differences]
        now = {tuple(str(one[name]) for name in COLUMNS[:5]): one for one in values}
        for name, one in now.items():
            if name not in there:
                output.line({"event": "found", **one}, f"found  {_line(one)}")
        for name, one in there.items():
            if name not in now:
                output.line({"event": "gone", **one}, f"gone   {_line(one)}")
        there = now
        time.sleep(EVERY_SECONDS)


def _line(one: dict[str, Any]) -> str:
    return (
        f"{one['kind']}: {one['subject']}: {one['aspect']} is {one['found']}, "
        f"expected {one['expected']} (since {one['since']})"
    )


def values_of(one: pb.Difference) -> dict[str, Any]:
    """A difference as the command line shows it."""
    from capsign_wire.adapter.v1 import inventory_pb2

    kind = inventory_pb2.DriftKind.Name(one.kind).removeprefix("DRIFT_KIND_")
    return {
        "kind": kind.lower().replace("_", "-"),
        "subject": one.subject,
        "aspect": one.aspect,
        "expected": one.expected,
        "found": one.found,
        "since": key_values.when(one.since),
        "leaf_index": one.leaf_index,
        "digest": one.digest.hex(),
    }


def _replica(one: pb.ReplicaSeen) -> dict[str, Any]:
    started = one.started_at.ToDatetime(tzinfo=UTC)
    return {
        "replica": one.replica.hex()[:12],
        "software": one.software,
        "started_at": key_values.when(one.started_at),
        "seen_at": key_values.when(one.seen_at),
        "age": ages.words(time.time() - started.timestamp()),
    }
