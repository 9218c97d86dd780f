"""Attacks the other containers of a pod through the first socket of its agent."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import grpc
from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.agent.v1 import agent_pb2_grpc
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import signing_pb2 as types

from bench.fairness.resets import flood, headers
from bench.fairness.wire import read_about

Step = Callable[[], object]
JWT = types.ContextSuffix(protocol="jwt", role="issuer")


def _group(handle: str, items: int, *, context: types.ContextSuffix = JWT) -> pb.SignGroup:
    made = [pb.SignItem(intent_id=new_intent_id(), message=b"x" * 64) for _ in range(items)]
    return pb.SignGroup(
        handle_id=handle, algorithm=algorithms.ALGORITHM_ED25519, context=context, items=made
    )


class Taken:
    """The container that was taken over."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.channel = grpc.insecure_channel(
            f"unix:{path}", [("grpc.max_receive_message_length", -1)]
        )
        self.stub = agent_pb2_grpc.SigningServiceStub(self.channel)
        listed = self.stub.ListHandles(
            pb.ListHandlesRequest(), timeout=30, wait_for_ready=True
        ).handles
        [self.handle] = [one.id for one in listed if one.grant == "jwt-app"]


def batches(taken: Taken) -> Step:
    return lambda: taken.stub.SignBatch(
        pb.SignBatchRequest(groups=[_group(taken.handle, 1024)]), timeout=30
    )


def streams(taken: Taken) -> Step:
    def step() -> None:
        requests = (
            pb.SignStreamRequest(call_id=number, groups=[_group(taken.handle, 1024)])
            for number in range(1, 20)
        )
        for _ in taken.stub.SignStream(requests, timeout=60):
            pass

    return step


def refused_batches(taken: Taken) -> Step:
    elsewhere = types.ContextSuffix(protocol="tls")
    return lambda: taken.stub.SignBatch(
        pb.SignBatchRequest(groups=[_group(taken.handle, 1024, context=elsewhere)]), timeout=30
    )


def refusals(taken: Taken) -> Step:
    asked = pb.SignRequest(
        handle_id=taken.handle,
        algorithm=algorithms.ALGORITHM_ED25519,
        context=types.ContextSuffix(protocol="tls"),
        item=pb.SignItem(intent_id=new_intent_id(), message=b"x"),
    )
    return lambda: taken.stub.Sign(asked, timeout=30)


def verifies(taken: Taken) -> Step:
    asked = pb.VerifyRequest(
        handle_id=taken.handle,
        algorithm=algorithms.ALGORITHM_ED25519,
        context=JWT,
        message=bytes(60_000),
        signature=bytes(64),
    )
    return lambda: taken.stub.Verify(asked, timeout=30)


def public_keys(taken: Taken) -> Step:
    def step() -> None:
        context = types.ContextSuffix(protocol="jwt", role="issuer", transcript=os.urandom(32))
        asked = pb.GetPublicKeysRequest(
            handle_id=taken.handle, algorithm=algorithms.ALGORITHM_ED25519, context=context
        )
        taken.stub.GetPublicKeys(asked, timeout=30)

    return step


def resolves(taken: Taken) -> Step:
    return lambda: taken.stub.ResolveIntent(
        pb.ResolveIntentRequest(handle_id=taken.handle, intent_id=new_intent_id()), timeout=30
    )


def resets(taken: Taken) -> Step:
    block = headers("/capsign.agent.v1.SigningService/Sign")

    def step() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.connect(taken.path)
            flood(one, block)

    return step


ATTACKS: dict[str, tuple[Callable[[Taken], Step], int]] = {
    "batches": (batches, 4),
    "streams": (streams, 4),
    "refused-batches": (refused_batches, 4),
    "refusals": (refusals, 64),
    "verifies": (verifies, 64),
    "public-keys": (public_keys, 64),
    "resolves": (resolves, 64),
    "resets": (resets, 1),
}
"""And how many at once."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attack", choices=ATTACKS)
    attack, at_once = ATTACKS[parser.parse_args().attack]
    taken = Taken(read_about()["sockets"]["app"])
    ended = threading.Event()

    def work() -> None:
        step: Any = attack(taken)
        while not ended.is_set():
            try:
                step()
            except (grpc.RpcError, OSError):
                continue  # refused, or hung up on: that is what it is here for

    for _ in range(at_once):
        threading.Thread(target=work, daemon=True).start()
    print("at work", flush=True)
    sys.stdin.read()
    ended.set()
    os._exit(0)


if __name__ == "__main__":
    main()
