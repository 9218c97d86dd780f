"""A workload that signs at the adapter over one connection: some streams, each with small batches
one after the other.
"""

from __future__ import annotations

import argparse
import json
import threading
import time

from capsign_wire.adapter.v1 import signing_pb2 as pb

from bench.fairness.wire import Stream, connect, group, handle, read_about

STREAMS, ITEMS = 2, 4
WARM_UP_SECONDS = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    about = read_about()
    done, counted = [0] * STREAMS, [0] * STREAMS
    with connect(about, "app", 0) as channel:
        token = handle(channel, "jwt-app")
        begin = time.perf_counter() + WARM_UP_SECONDS
        end = begin + arguments.seconds

        def sign(number: int) -> None:
            stream = Stream(channel)
            while (now := time.perf_counter()) < end:
                request = pb.SignRequest(
                    batch_id=1, handles=[token], groups=[group("Ed25519", ITEMS)]
                )
                answer = stream.send(request)
                good = sum(bool(item.signatures) for each in answer.groups for item in each.items)
                done[number] += good
                counted[number] += good if now >= begin else 0
            stream.close()

        threads = [threading.Thread(target=sign, args=(number,)) for number in range(STREAMS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - begin
    print(json.dumps({"sps": sum(counted) / took, "done": sum(done)}))


if __name__ == "__main__":
    main()
