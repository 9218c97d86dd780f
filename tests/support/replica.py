"""A whole replica in this process: real TLS, real sockets, real SQLite; only the token is in
memory.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import grpc
from capsign_adapter.config import Config, Control, Listen, LogConfig, StoreConfig, Tls, TokenConfig
from capsign_adapter.serve import Replica
from capsign_wire.telemetry import Metrics
from capsign_wire.tracing import PassingTracer
from support.adapter_rig import AdapterRig
from support.ca import Authority, Credential

ENOUGH = 8 << 30
"""Bytes. This process has all tests in it: by its size the replica would think its memory short,
and end calls.
"""


class RunningReplica:
    """Starts at once; `channel` connects as somebody."""

    def __init__(
        self,
        directory: Path,
        rig: AdapterRig,
        streams: int = 16,
        authority: Authority | None = None,
        control: Control | None = None,
        listen: Listen | None = None,
        log: LogConfig | None = None,
    ) -> None:
        self.directory = directory
        self.rig = rig
        self.authority = authority or Authority()
        self.server = self.authority.issue("spiffe://capsign.test/adapter", dns=("localhost",))
        certificate, private_key = self.server.write(directory, "server")
        client_ca = directory / "ca.pem"
        client_ca.write_bytes(self.authority.certificate)
        policy = directory / "in-force.yaml"
        policy.write_bytes(rig.policy.document)
        config = Config(
            listen=listen or Listen(address="127.0.0.1:0", streams=streams),
            tls=Tls(certificate=certificate, private_key=private_key, client_ca=client_ca),
            token=TokenConfig(module=Path("/none"), label="none", pin_file=Path("/none")),
            store=StoreConfig(url=rig.url),
            log=log or LogConfig(origin="capsign.test/log"),
            policy=policy,
            control=control or Control(poll_ms=50),
            drain_seconds=5.0,
        )
        self.metrics = Metrics()
        self.replica = Replica(
            config,
            rig.policy,
            rig.token,
            rig.store,
            (self.metrics, PassingTracer()),
            memory=ENOUGH,
        )
        self.replica.start()
        self.address = f"127.0.0.1:{self.replica.port}"

    def channel(self, credential: Credential | None, root: bytes = b"") -> grpc.Channel:
        """A channel with that client certificate; None for none."""
        key, certificate = (
            (credential.private_key, credential.certificate) if credential else (None, None)
        )
        credentials = grpc.ssl_channel_credentials(
            root or self.authority.certificate, key, certificate
        )
        options = [
            ("grpc.ssl_target_name_override", "localhost"),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", 32 * 1024 * 1024),
        ]
        return grpc.secure_channel(self.address, credentials, options)

    @contextmanager
    def as_(self, spiffe_id: str):
        """A channel as that workload or person, with a fresh certificate."""
        with self.channel(self.authority.issue(spiffe_id)) as channel:
            yield channel

    def stop(self) -> None:
        self.replica.stop()
