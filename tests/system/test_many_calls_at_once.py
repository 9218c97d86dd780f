"""A client that is not ours, with many calls at once on one connection: what it hears above a bound
is said in our terms.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from capsign_wire.failures import FailureError
from support.hostile import deployment

CALLS = {
    "address": ("app", "/capsign.adapter.v1.EvidenceService/GetCheckpoint"),
    "admin": ("operator", "/capsign.adapter.v1.AdminService/GetStatus"),
}


@pytest.fixture(scope="module")
def dev():
    with deployment() as one:
        yield one


def channel_as(dev, name: str, where: str) -> grpc.Channel:
    """One connection, without gRPC's own second tries: they would hide what is looked for."""
    about = dev.about["clients"][name]
    files = dev.about["ca"], about["private_key"], about["certificate"]
    credentials = grpc.ssl_channel_credentials(*[Path(file).read_bytes() for file in files])
    options = [
        ("grpc.ssl_target_name_override", dev.about["server_name"]),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    return grpc.secure_channel(dev.about["adapters"][0][where], credentials, options)


@pytest.mark.parametrize("where", ["address", "admin"])
@pytest.mark.parametrize("at_once", [64, 256, 700, 2000])
def test_a_stock_client_hears_no_transport_error(dev, where, at_once):
    name, path = CALLS[where]
    heard: Counter[str] = Counter()
    with channel_as(dev, name, where) as channel, ThreadPoolExecutor(at_once) as pool:
        call: Any = channel.unary_unary(path)

        def one(_: int) -> str:
            try:
                call(b"", timeout=60)
            except grpc.RpcError as error:
                failure = FailureError.from_rpc(error)
                return (
                    failure.row.name if failure is not None else f"{error.code()} {error.details()}"
                )
            return "done"

        heard.update(pool.map(one, range(3000)))
    assert heard["done"]
    assert set(heard) <= {"done", "OVERLOADED", "RATE_LIMITED"}
