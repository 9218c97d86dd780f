"""A server that has another certificate at every handshake. For a process of its own: it may
die.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import grpc
from capsign_adapter.front import tls
from support.agent_pki import ADAPTER_ID, TestCa


def serve(pipe: Connection, wait_s: float | None) -> None:
    """Tell the port, serve until something comes, tell how many certificates there were. `wait_s`
    is put for OLD_IN_USE_S.
    """
    if wait_s is not None:
        tls.OLD_IN_USE_S = wait_s
    swaps = 0
    pair = TestCa().issue(ADAPTER_ID)[::-1]

    def another() -> grpc.ServerCertificateConfiguration:
        nonlocal swaps
        swaps += 1
        return grpc.ssl_server_certificate_configuration([pair])

    server = grpc.server(ThreadPoolExecutor(2))
    credentials = tls.dynamic_credentials(another(), another, demand_certificate=False)
    pipe.send(server.add_secure_port("127.0.0.1:0", credentials))
    server.start()
    pipe.recv()
    pipe.send(swaps)
