"""Enrolment put together in this process: real policy, real store and log, a cluster over HTTPS, an
authority in memory.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.enrol.api import Api
from capsign_adapter.enrol.cluster import Cluster
from capsign_adapter.enrol.enrolment import Enrolment, Identity, Settings
from capsign_adapter.sign.clock import now_ms
from capsign_evidence.leaf_reader import Entry, decode
from support.adapter_rig import AdapterRig, peer
from support.certificate_requests import request
from support.fake_cluster import AUDIENCE, FakeCluster, Pod
from support.svid_authority import SvidAuthority

HERE = "127.0.0.1"


class EnrolmentRig:
    """Attributes are the parts; `enrol` and `renew` are short ways through them. Pods of `self.pod`
    run at the address HERE.
    """

    def __init__(self, directory: Path, adapter: AdapterRig) -> None:
        self.adapter = adapter
        self.cluster = FakeCluster(directory)
        self.authority = SvidAuthority()
        self.api = Api(self.cluster.url, self.cluster.token_file, self.cluster.ca_file)
        self.before = adapter.store.control().tree_size
        self.ahead_ms = 0
        self.rates_ms = 0
        """The clock by which refusals are counted: it stands still."""
        self.wire()

    def wire(
        self,
        *,
        pod_address_check: bool = True,
        refusals_per_second: int = 100,
        host_network_pods: bool = False,
        wait_s: float = 2.0,
    ) -> None:
        """Put the parts together; call again after changing one."""
        settings = Settings(
            AUDIENCE, pod_address_check, refusals_per_second, host_network_pods, wait_s
        )
        adapter = self.adapter
        self.enrolment = Enrolment(
            adapter.snapshots.policy,
            Cluster(self.api),
            self.authority,
            adapter.store,
            lambda: adapter.snapshots.refresh().revoked,
            settings,
            lambda: now_ms() + self.ahead_ms,
            Buckets(lambda: self.rates_ms),
        )

    def pod(self, account: str = "app", name: str = "web-0", *addresses: str) -> Pod:
        return self.cluster.run("demo", name, account, *(addresses or (HERE,)))

    def enrol(self, token: str, der: bytes | None = None, address: str | None = HERE) -> Identity:
        return self.enrolment.enrol(
            request() if der is None else der, token, address and ip_address(address)
        )

    def renew(
        self, token: str, who: Peer | None = None, der: bytes | None = None, address: str = HERE
    ) -> Identity:
        return self.enrolment.renew(
            who or peer(), request() if der is None else der, token, ip_address(address)
        )

    def entries(self) -> list[Entry]:
        """What was recorded since the rig was made."""
        return [decode(entry) for entry in self.adapter.entries()[self.before :]]

    def close(self) -> None:
        self.api.close()
        self.cluster.close()
