"""The authority rolls under running pods: nobody restarts, no call fails, and the old one leaves
the bundle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

import capsign
import pytest
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, IdentityIssued, Signed
from cryptography import x509
from support.adapter_rig import APP
from support.pod_deployment import PodDeployment


@pytest.fixture
def deployment(short_dir):
    made = PodDeployment(short_dir, replicas=2, svid_ttl_s=10, propagation_s=3, authority_ttl_s=120)
    yield made
    made.close()


class Repeated:
    """Does something again and again on a thread, until told to stop, and remembers what went
    wrong.
    """

    def __init__(self, work: Callable[[], object], pause: float) -> None:
        self.count = 0
        self.failures: list[BaseException] = []
        self._stop = threading.Event()
        self._work = work
        self._pause = pause
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                self._work()
                self.count += 1
            except BaseException as error:
                self.failures.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_an_authority_rolls_under_a_signing_pod(deployment):
    assert "made capsign/authority/1" in deployment.said
    first_bundle = deployment.published()
    socket = deployment.start_agent()
    enrolled: list[str] = []

    with capsign.Signer(f"unix:{socket}") as signer:
        signer.sign(
            b"the first",
            purpose="jwt",
            algorithm="ES256",
            protocol="jwt",
            role="issuer",
            timeout=60,
        )

        def sign() -> None:
            signer.sign(
                b"while it rolls", purpose="jwt", algorithm="ES256", protocol="jwt", role="issuer"
            )

        admitted = [first_bundle]

        def come_as_a_new_pod() -> None:
            """It knows the bundle that was published when the last one came."""
            answer = deployment.enrol(admitted[-1], door=len(enrolled) % 2)
            admitted.append(deployment.published())
            leaf = x509.load_der_x509_certificate(answer.svid.certificates[0])
            roots = [x509.load_der_x509_certificate(one) for one in answer.bundle.authorities]
            (issuer,) = [root for root in roots if root.subject == leaf.issuer]
            leaf.verify_directly_issued_by(issuer)
            enrolled.append(issuer.subject.rfc4514_string())

        with Repeated(sign, 0.02) as signing, Repeated(come_as_a_new_pod, 0.3) as coming:
            deployment.adapter_command("authority", "rotate")
            deployment.wait_for(2, "active")
            deployment.wait_for(1, "retired")
            # And once more, until nobody knows what everybody began with.
            deployment.adapter_command("authority", "rotate")
            deployment.wait_for(2, "retired")

    assert signing.failures == []
    assert coming.failures == []
    assert signing.count > 100
    assert set(enrolled) == {f"CN=capsign authority {version}" for version in (1, 2, 3)}
    assert enrolled == sorted(enrolled), (
        "a certificate of an older authority came after one of a newer"
    )
    deployment.wait_published({"CN=capsign authority 3"})
    entries = deployment.entries()
    acts = [
        (entry.act, entry.target)
        for entry in entries
        if isinstance(entry, Admin) and entry.act >= 30
    ]
    assert sorted(acts) == sorted(
        [(Act.AUTHORITY_PREPARED, f"authority/{version}") for version in (1, 2, 3)]
        + [(Act.AUTHORITY_ACTIVATED, f"authority/{version}") for version in (1, 2, 3)]
        + [(Act.AUTHORITY_RETIRED, f"authority/{version}") for version in (1, 2)]
    )
    assert {entry.workload for entry in entries if isinstance(entry, IdentityIssued)} == {APP}
    assert sum(isinstance(entry, Signed) for entry in entries) == signing.count + 1
    for name in ("adapter-0", "adapter-1"):
        assert [
            event for event in deployment.events(name) if event["event"] == "ticker.failed"
        ] == []


def test_a_second_rotation_waits_for_the_first(deployment):
    deployment.adapter_command("authority", "rotate")
    with pytest.raises(Exception, match="returned non-zero exit status 2") as caught:
        deployment.adapter_command("authority", "rotate")
    assert "following another already" in caught.value.stderr
    coming = [step["step"] for step in deployment.authorities()["next"]]
    # On a busy machine the one that was asked for signs by now.
    assert coming in (["activate", "retire"], ["retire", "prepare"])
