"""An application that signs one order after the other and says what it got; the check that nothing
of it is missing anywhere.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from capsign_adapter.store.interfaces.whole import Store
from capsign_evidence import told_calls
from capsign_evidence.leaf_reader import Entry, Signed
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.types.v1 import failures_pb2
from system.cluster.fleet import INJECT, SHOP
from system.cluster.kit import manifests
from system.cluster.kit.cluster import KUBECTL, Kubectl, until

# The same intent is asked for until it is answered: that is how an application survives whatever
# happens below it.
SIGN_ORDERS = """
import hashlib, itertools, json, signal, time
import capsign
from capsign_wire.intents import new_intent_id

leaving = False

def leave(*_):
    global leaving
    leaving = True

signal.signal(signal.SIGTERM, leave)
signer = capsign.Signer()
for number in itertools.count(1):
    intent, made, began = new_intent_id(), None, time.monotonic()
    while made is None:
        try:
            order = b"order %d" % number
            made = signer.sign(
                order, purpose="jwt", algorithm="ES256", intent_id=intent, timeout=5
            )
        except (capsign.Unavailable, capsign.Unknown):
            time.sleep(0.05)
    line = {"number": number, "intent": made.intent_id.hex(), "leaf": made.leaf_index,
            "sha256": hashlib.sha256(made.value).hexdigest(),
             "ms": round(1000 * (time.monotonic() - began))}
    print(json.dumps(line), flush=True)
    if leaving:
        break
    time.sleep(0.02)
"""


class Place(Protocol):
    """An installation that can be asked what it has recorded; a `Fleet` is one. `developer` makes
    the pods.
    """

    kubectl: Kubectl
    developer: Kubectl
    image: str

    def entries(self) -> list[Entry]: ...

    def store(self) -> AbstractContextManager[Store]: ...


@dataclass(frozen=True, slots=True)
class Received:
    pod: str
    number: int
    intent: bytes
    leaf: int
    signature_hash: bytes
    ms: int


class Ledger:
    """A Deployment of one pod. What each of its pods printed is kept here, because a pod's log goes
    with the pod.
    """

    def __init__(
        self,
        fleet: Place,
        namespace: str = SHOP,
        finish: Callable[[dict[str, Any]], dict[str, Any]] = lambda thing: thing,
    ) -> None:
        """`finish` has the last word about the Deployment, before it is made."""
        self.workload = f"spiffe://cluster.local/ns/{namespace}/sa/ledger"
        self._fleet = fleet
        self._name = "ledger"
        self._namespace = namespace
        self._finish = finish
        self._scratch = tempfile.TemporaryDirectory()
        self._followed: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        app = manifests.python("app", SIGN_ORDERS, self._fleet.image)
        spec = manifests.pod_spec(
            app, serviceAccountName="ledger", terminationGracePeriodSeconds=60
        )
        thing = manifests.replicated("Deployment", self._name, self._namespace, spec, labels=INJECT)
        self._fleet.developer.create(self._finish(thing))
        self.follow()

    def follow(self) -> str:
        """Wait for the pod of now, keep what it prints, and give its name."""
        self._fleet.developer(
            "rollout", "status", f"deployment/{self._name}", "--timeout=240s", timeout=250
        )
        pod = self.pod()
        if pod not in self._followed:
            command = [
                KUBECTL,
                f"--kubeconfig={self._fleet.developer.kubeconfig}",
                "logs",
                "--follow",
                pod,
                "--container=app",
            ]
            with self._log(pod).open("w") as log:
                self._followed[pod] = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.DEVNULL
                )
        return pod

    def pod(self) -> str:
        pods = self._fleet.kubectl.get("pod", "", self._namespace, app=self._name)["items"]
        (pod,) = [
            pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]
        ]
        return pod

    def stop(self) -> None:
        self._fleet.developer("scale", f"deployment/{self._name}", "--replicas=0")
        self._fleet.developer(
            "wait", "--for=delete", "pod", f"--selector=app={self._name}", "--timeout=180s"
        )
        for follower in self._followed.values():
            follower.wait(30)

    def go_on(self) -> None:
        """After `stop`: another pod."""
        self._fleet.developer("scale", f"deployment/{self._name}", "--replicas=1")
        self._fleet.developer(
            "wait", "--for=create", "pod", f"--selector=app={self._name}", "--timeout=120s"
        )

    def close(self) -> None:
        self._fleet.developer("delete", "deployment", self._name, "--wait=false")
        for follower in self._followed.values():
            follower.terminate()
            follower.wait(30)
        self._scratch.cleanup()

    def received(self) -> list[Received]:
        return [
            self._read(pod, line)
            for pod in self._followed
            for line in self._log(pod).read_text().splitlines()
        ]

    def keeps_signing(self, more: int = 10) -> None:
        """Some orders more than there are now."""
        before = len(self.received())
        until(lambda: len(self.received()) >= before + more, f"{more} signatures more")

    def _log(self, pod: str) -> Path:
        return Path(self._scratch.name) / pod

    def _read(self, pod: str, line: str) -> Received:
        said: dict[str, Any] = json.loads(line)
        intent, signature_hash = bytes.fromhex(said["intent"]), bytes.fromhex(said["sha256"])
        return Received(pod, said["number"], intent, said["leaf"], signature_hash, said["ms"])

    # --- nothing lost, nothing unrecorded ---

    def account(self) -> int:
        """Hold what the application got against the log, as far as both reach. AssertionError names
        what does not agree.

        Gives the number of signatures.
        """
        received = self.received()
        last = max(one.leaf for one in received)
        signed = self._signed()
        for pod in {one.pod for one in received}:
            numbers = [one.number for one in received if one.pod == pod]
            assert numbers == list(range(1, len(numbers) + 1)), (
                f"{pod} did not get every signature that it asked for"
            )
        for one in received:
            assert signed[one.leaf].signature_hash == one.signature_hash, (
                f"leaf {one.leaf} is of another signature"
            )
            assert signed[one.leaf].intent_id == one.intent
        assert [leaf for leaf in signed if leaf <= last] == sorted(one.leaf for one in received), (
            "signed, and never received"
        )
        return len(received)

    def reconcile(self) -> None:
        """After `stop`: the agents' reports and the adapter's records are the same signatures."""
        signed = self._signed()
        assert max(signed) == max(one.leaf for one in self.received())
        with self._fleet.store() as store:
            batches = [
                evidence_pb2.AuditBatch.FromString(batch)
                for batch in batches_of(store, self.workload)
            ]
        reported = {
            intent_id: named - 1
            for batch in batches
            for record in batch.records
            if record.kind == evidence_pb2.AUDIT_KIND_OUTCOME
            and record.outcome == failures_pb2.OUTCOME_DONE
            for intent_id, named in told_calls.each(record)
        }
        missing = [leaf for leaf, entry in signed.items() if reported.get(entry.intent_id) != leaf]
        assert not missing, f"signed and not reported: {missing}"
        twice = [
            intent
            for intent, count in Counter(entry.intent_id for entry in signed.values()).items()
            if count > 1
        ]
        assert not twice

    def _signed(self) -> dict[int, Signed]:
        entries = enumerate(self._fleet.entries())
        return {
            leaf: entry
            for leaf, entry in entries
            if isinstance(entry, Signed) and entry.group.workload == self.workload
        }


def batches_of(store: Store, workload: str) -> Iterator[bytes]:
    """Every batch of this workload's agents; the store gives them in pages."""
    first = 0
    while page := store.audit_batches(workload, first):
        yield from (batch for _, _, batch in page)
        first = page[-1][0] + 1
