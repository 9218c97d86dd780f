"""An application in the pod that signs one after another on the second socket, or resolves intents
there.
"""

from __future__ import annotations

import argparse
import json
import time

import capsign
import grpc
from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.agent.v1 import agent_pb2_grpc
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2

from bench.fairness.wire import read_about

WARM_UP_SECONDS = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--resolves", action="store_true")
    arguments = parser.parse_args()
    path = read_about()["sockets"]["worker"]
    done = counted = 0
    with (
        capsign.Signer(path, timeout=30) as signer,
        grpc.insecure_channel(f"unix:{path}") as channel,
    ):
        stub = agent_pb2_grpc.SigningServiceStub(channel)
        [handle] = stub.ListHandles(
            pb.ListHandlesRequest(), timeout=30, wait_for_ready=True
        ).handles
        begin = time.perf_counter() + WARM_UP_SECONDS
        end = begin + arguments.seconds
        while (now := time.perf_counter()) < end:
            if arguments.resolves:
                asked = pb.ResolveIntentRequest(handle_id=handle.id, intent_id=new_intent_id())
                try:
                    stub.ResolveIntent(asked, timeout=30)
                except grpc.RpcError:
                    continue  # refused: not done
            else:
                signer.sign(
                    b"victim",
                    purpose="short",
                    algorithm=algorithms_pb2.Algorithm.Name(handle.algorithms[0])[10:].title(),
                )
            done += 1
            counted += now >= begin
    print(json.dumps({"sps": counted / (time.perf_counter() - begin), "done": done}))


if __name__ == "__main__":
    main()
