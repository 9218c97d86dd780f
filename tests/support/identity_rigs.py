"""Each identity source among its real surroundings: what it needs to give an identity, to give
another, and to be hindered.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from capsign_agent import config as configuration
from capsign_agent.identity.configured_source import source_of
from capsign_agent.identity.credentials import Credentials
from capsign_agent.identity.events import IdentityEvents
from capsign_agent.identity.source import IdentityError, IdentitySource
from capsign_agent.timing import Timing
from capsign_agent.upstream.adapter_calls import AdapterCalls
from capsign_agent.upstream.connection_generation import ConnectionGeneration
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_pki import TestCa
from support.clocks import ShiftedClock
from support.fake_adapter import FakeAdapter
from support.fake_identity import FakeIdentity
from support.fake_workload_api import FakeWorkloadApi, svid
from support.identity_sections import kubernetes_section

REST = """
[[sockets]]
name = "app"
path = "/nowhere/agent.sock"
[journal]
dir = "/nowhere/journal"
[health]
path = "/nowhere/health.sock"
"""


class CountedEvents(IdentityEvents):
    """Counts what hinders, also what was said before."""

    hindrances = 0

    def hindered(self, error: IdentityError) -> None:
        self.hindrances += 1
        super().hindered(error)


class Rig:
    """A source, its account, and the generation of connections that its latest credentials made."""

    hindrance = ""
    """The word that `hinder` leads to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.records: list[Any] = []
        self.identity_events = CountedEvents(lambda piece: self.records.extend(piece.records))
        self.upstream: ConnectionGeneration | None = None
        self.port = 1
        self.clock = ShiftedClock()
        self.made: list[IdentitySource] = []
        """The sources that were asked for."""

    def section(self) -> str:
        """The identity sections of the settings."""
        raise NotImplementedError

    def replace(self) -> None:
        """Something happens after which another identity must follow."""
        raise NotImplementedError

    def hinder(self) -> None:
        """From now on there is none to be had."""
        raise NotImplementedError

    def allow(self) -> None:
        """There is one again."""
        raise NotImplementedError

    def tries(self) -> int:
        """How often the source has looked or asked."""
        raise NotImplementedError

    def close(self) -> None:
        """End what was started."""

    def config(self) -> configuration.Config:
        text = (
            f'[upstream]\ntargets = ["127.0.0.1:{self.port}"]\nserver_name = '
            f'"localhost"\n{self.section()}{REST}'
        )
        return configuration.load(None, {"CAPSIGN_AGENT_CONFIG": text})

    def source(self) -> IdentitySource:
        config = self.config()
        self.upstream = ConnectionGeneration(config.upstream, None, Metrics())
        timing = Timing(
            certificate_clock=self.clock,
            retry_delay_s=lambda failures: 0.01,
            look_at_clock_s=0.01,
            look_at_files_s=0.01,
            spread_s=0.0,
        )
        calls = AdapterCalls(self._current, 5.0)
        self.made.append(source_of(config, calls, self.identity_events, timing))
        return self.made[-1]

    @contextlib.asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[Credentials]]:
        """What the source gives, each put to use as the agent does."""

        async def used() -> AsyncIterator[Credentials]:
            async for fresh in stream:
                old, self.upstream = self.upstream, ConnectionGeneration(config, fresh, Metrics())
                if old is not None:
                    await old.close()
                yield fresh

        config = self.config().upstream
        stream = self.source().changes()
        async with contextlib.aclosing(stream):
            yield used()
        if self.upstream is not None:
            await self.upstream.close()

    def _current(self) -> ConnectionGeneration:
        assert self.upstream is not None
        return self.upstream


class FilesRig(Rig):
    hindrance = "CREDENTIALS_UNUSABLE"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.ca = TestCa()
        self.ca.write(root / "tls")

    def section(self) -> str:
        tls = self.root / "tls"
        files = (
            f'ca_file = "{tls}/ca.pem"\ncert_file = "{tls}/cert.pem"\nkey_file = "{tls}/key.pem"\n'
        )
        return f'[identity]\nsource = "files"\n[identity.files]\n{files}'

    def replace(self) -> None:
        self.ca.write(self.root / "tls")

    def hinder(self) -> None:
        (self.root / "tls" / "cert.pem").write_text("half of a file")

    def allow(self) -> None:
        self.ca.write(self.root / "tls")

    def tries(self) -> int:
        return self.identity_events.hindrances


class KubernetesRig(Rig):
    hindrance = "SERVICE_TOKEN_REFUSED"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.identity = FakeIdentity()
        self.adapter = FakeAdapter(self.identity.active, identity=self.identity).start()
        self.port = self.adapter.port
        self.bundle = self.identity.active.pem
        self.token = root / "token"
        self.token.write_text("token-1\n")
        self.targets = [f"127.0.0.1:{self.adapter.enrolment_port}"]

    def section(self) -> str:
        return kubernetes_section(
            self.targets, self.token, self.bundle, self.root / "state" / "identity"
        )

    def replace(self) -> None:
        """More than half of the certificate's life goes by."""
        self.clock.ahead_s += self.identity.life.total_seconds() * 0.55

    def hinder(self) -> None:
        self.identity.refuse = fail.REASON_SERVICE_TOKEN_REFUSED
        self.replace()

    def allow(self) -> None:
        self.identity.refuse = 0

    def tries(self) -> int:
        return len(self.identity.enrolled) + len(self.identity.renewed)

    def close(self) -> None:
        self.adapter.stop()


class WorkloadApiRig(Rig):
    hindrance = "WORKLOAD_API_REFUSED"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.ca = TestCa()
        self.api = FakeWorkloadApi(root / "w.sock").start()
        self.api.push(svid(self.ca))
        self.spiffe_id = ""

    def section(self) -> str:
        wanted = f'socket = "{self.api.path}"\nspiffe_id = "{self.spiffe_id}"\n'
        return f'[identity]\nsource = "workload-api"\n[identity.workload_api]\n{wanted}'

    def replace(self) -> None:
        self.api.push(svid(self.ca))

    def hinder(self) -> None:
        self.api.refuse = grpc.StatusCode.PERMISSION_DENIED
        self.api.drop()

    def allow(self) -> None:
        self.api.refuse = None
        self.replace()

    def tries(self) -> int:
        return len(self.api.headers)

    def close(self) -> None:
        self.api.stop()
