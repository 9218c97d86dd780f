"""A whole replica with two witnesses, ours and the one in Go: what it shows is cosigned by both,
and it does not go on from an older copy of its store.
"""

import shutil
import socket
import threading

import grpc
import pytest
from capsign_adapter.log_config import LogConfig, Witnesses
from capsign_adapter.store.open import open_store
from capsign_evidence.cosignature import COSIGNATURE_ED25519, CosignerKey
from capsign_evidence.note import VerifierKey
from capsign_evidence.tlog_policy import parse_policy
from capsign_wire.adapter.v1 import evidence_pb2, evidence_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.settings import SettingsError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APP, AdapterRig
from support.replica import RunningReplica
from support.signed_at import Asking
from support.witnesses import GoWitness, OurWitness, build_go

pytestmark = pytest.mark.system

ORIGIN = "capsign.test/log"


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    return build_go(tmp_path_factory.mktemp("go"))


class Deployment:
    """A store, a token, two witnesses that know its log, and the policy that demands both."""

    def __init__(self, folder, binary):
        self.folder = folder
        self.rig = AdapterRig(folder / "store")
        logs = list(self.rig.checkpoints.verifier_keys)
        self.ours = OurWitness(folder, "w1", logs[1:])
        self.other = GoWitness(binary, folder, "w2", logs[:1])
        self.policy = folder / "policy"
        self.policy.write_text(
            f"{self.ours.policy_lines('w1')}{self.other.policy_lines('w2')}"
            "group both all w1 w2\nquorum both\n"
        )

    def start(self):
        witnesses = Witnesses(policy=self.policy, timeout_ms=2000)
        log = LogConfig(origin=ORIGIN, checkpoint_every_ms=50, witnesses=witnesses)
        return RunningReplica(self.folder, self.rig, log=log)

    def reopen(self):
        """Store and token as the next process finds them."""
        self.rig.store = open_store(self.rig.url)
        self.rig.token = self.rig.token.beside()

    def end(self):
        self.ours.kill()
        self.other.kill()


@pytest.fixture
def deployment(tmp_path, binary):
    made = Deployment(tmp_path, binary)
    yield made
    made.end()


def cosigned(deployment, replica, least):
    """The tree of the first checkpoint shown with so many leaves, and who cosigned it: by the
    policy, with either key of the log.
    """
    policy = parse_policy(deployment.policy.read_bytes())
    keys = replica.replica.state.checkpoints.keys.verifiers
    with replica.as_(APP) as channel:
        stub = evidence_pb2_grpc.EvidenceServiceStub(channel)
        for _ in range(600):
            shown = replica.replica.state.checkpoints.stored()
            if shown is not None and shown.tree_size >= least:
                note = stub.GetCheckpoint(evidence_pb2.GetCheckpointRequest()).checkpoint
                return policy.open(note, keys[0]).head, policy.open(note, keys[1]).witnesses
            threading.Event().wait(0.05)
    raise AssertionError("no checkpoint was published")


def test_both_witnesses_cosign_what_is_shown_and_an_older_store_is_not_gone_on_from(deployment):
    replica = deployment.start()
    head, witnesses = cosigned(deployment, replica, 1)
    assert set(witnesses) == {"w1-pq", "w1-classic", "w2-pq", "w2-classic"}
    replica.stop()
    folder = deployment.folder / "store"
    shutil.copytree(folder, deployment.folder / "backup")

    deployment.reopen()
    replica = deployment.start()
    replica.replica.state.store.append([b"later"], 1)
    later, _ = cosigned(deployment, replica, head.size + 1)
    assert later.size > head.size
    replica.stop()

    shutil.rmtree(folder)
    shutil.copytree(deployment.folder / "backup", folder)
    deployment.reopen()
    with pytest.raises(FailureError) as caught:
        deployment.start()
    assert caught.value.reason == reasons.REASON_LOG_ROLLED_BACK
    assert "that the witness w" in caught.value.detail


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("nonsense\n", "is not good. line 1"),
        ("log {other}\nquorum none\n", "this one is not among them"),
        ("witness w {key}\nquorum w\n", "Give those a URL"),
        ("witness w {key} ftp://w\nquorum w\n", "is not https://host/prefix"),
    ],
)
def test_a_policy_that_cannot_be_met_stops_the_start(tmp_path, lines, said):
    policy = tmp_path / "policy"
    key = CosignerKey("w", COSIGNATURE_ED25519, bytes(32)).text()
    policy.write_text(lines.format(other=VerifierKey("x", bytes(32)).text(), key=key))
    log = LogConfig(origin=ORIGIN, witnesses=Witnesses(policy=policy))
    with pytest.raises(SettingsError, match=said):
        RunningReplica(tmp_path, AdapterRig(tmp_path / "store"), log=log)


def test_a_witness_that_hangs_keeps_nobody_from_signing(tmp_path):
    """It takes the connection and says nothing. What is new has no receipt meanwhile."""
    policy, rig = tmp_path / "policy", AdapterRig(tmp_path / "store")
    key = CosignerKey("w", COSIGNATURE_ED25519, bytes(32)).text()
    with socket.create_server(("127.0.0.1", 0)) as hung:
        hung.settimeout(60)
        policy.write_text(f"witness w {key} http://127.0.0.1:{hung.getsockname()[1]}\nquorum w\n")
        witnesses = Witnesses(policy=policy, timeout_ms=3000)
        log = LogConfig(origin=ORIGIN, checkpoint_every_ms=50, witnesses=witnesses)
        replica = RunningReplica(tmp_path, rig, log=log)
        try:
            with replica.as_(APP) as channel:
                app = Asking(channel)
                at_start, _ = hung.accept()
                asked, _ = hung.accept()
                assert app.sign(), "while the witness is asked and does not answer"
                assert not replica.replica.state.checkpoints.stored()
                stub = evidence_pb2_grpc.EvidenceServiceStub(channel)
                with pytest.raises(grpc.RpcError) as refused:
                    stub.GetCheckpoint(evidence_pb2.GetCheckpointRequest(), timeout=20)
                told = FailureError.from_rpc(refused.value)
                assert told.reason == reasons.REASON_NOT_WITNESSED
            at_start.close()
            asked.close()
        finally:
            replica.stop()
