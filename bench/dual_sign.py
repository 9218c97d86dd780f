"""A rollout in the stage in which every call answers both signatures, while a cell runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from capsign_wire.adapter.v1 import rollouts_pb2 as pb
from capsign_wire.adapter.v1 import rollouts_pb2_grpc

from bench.deployment import Deployment

TENANT, KEY = "demo", "orders"
LONGEST_S = 60.0


@contextmanager
def signing_twice(deployment: Deployment) -> Iterator[None]:
    """The key of the cells is on its way to a new version, and stays where both sign. Afterwards
    all sign as before.
    """
    with _operator(deployment) as channel:
        stub = rollouts_pb2_grpc.RolloutServiceStub(channel)
        stub.StartRollout(pb.StartRolloutRequest(tenant=TENANT, key=KEY), timeout=20)
        try:
            _hold_in_dual_sign(stub)
            yield
        finally:
            stub.AbortRollout(pb.AbortRolloutRequest(tenant=TENANT, key=KEY), timeout=20)


def _hold_in_dual_sign(stub: rollouts_pb2_grpc.RolloutServiceStub) -> None:
    pause, end = threading.Event(), time.monotonic() + LONGEST_S
    while True:
        request = pb.GetRolloutRequest(tenant=TENANT, key=KEY)
        row = stub.GetRollout(request, timeout=20).rollout
        if row.stage == pb.ROLLOUT_STAGE_DUAL_SIGN:
            stub.PauseRollout(pb.PauseRolloutRequest(tenant=TENANT, key=KEY), timeout=20)
            return
        if row.stage > pb.ROLLOUT_STAGE_DUAL_SIGN or time.monotonic() > end:
            raise SystemExit(f"the rollout is not where both sign: {row}")
        pause.wait(0.05)


@contextmanager
def _operator(deployment: Deployment) -> Iterator[grpc.Channel]:
    about = deployment.description
    operator = about["clients"]["operator"]
    files = (about["ca"], operator["private_key"], operator["certificate"])
    credentials = grpc.ssl_channel_credentials(*(Path(file).read_bytes() for file in files))
    options = [("grpc.ssl_target_name_override", about["server_name"])]
    with grpc.secure_channel(about["adapters"][0]["admin"], credentials, options) as channel:
        yield channel
