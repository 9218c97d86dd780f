"""The in-process ceiling: the adapter's own pipeline, store and keys, without TLS, streams or an
agent. Batches of 64.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2

if TYPE_CHECKING:
    from bench.cells import Result
    from bench.deployment import Deployment

BATCH = 64
MESSAGE = b"x" * 100


def ceiling(deployment: Deployment, seconds: float) -> Result:
    """Each round parses a batch, runs the pipeline and serialises the answer, as one stream of the
    adapter would.
    """
    from bench.cells import Result
    from bench.in_process import pipeline_in

    with (
        tempfile.TemporaryDirectory(prefix="capsign-ceiling-") as scratch,
        pipeline_in(Path(scratch)) as (run, handle),
    ):
        latencies: list[float] = []
        run(_batch(handle))
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            wire = _batch(handle)
            began = time.perf_counter()
            run(wire)
            latencies.append(time.perf_counter() - began)
        busy = sum(latencies)
    latencies.sort()
    return Result(
        "ceiling",
        sps=BATCH * len(latencies) / busy,
        p50_us=latencies[len(latencies) // 2] * 1e6,
        p99_us=latencies[int(len(latencies) * 0.99)] * 1e6,
    )


def _batch(handle: bytes) -> bytes:
    items = [pb.SignItem(intent_id=new_intent_id(), input=MESSAGE) for _ in range(BATCH)]
    group = pb.SignGroup(algorithm=algorithms_pb2.ALGORITHM_ED25519, items=items)
    return pb.SignRequest(batch_id=1, handles=[handle], groups=[group]).SerializeToString()
