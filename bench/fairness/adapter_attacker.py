"""Attacks an adapter over mTLS, as a workload that policy knows and that somebody has taken over.
Its agent is not ours.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from capsign_wire.adapter.v1 import (
    capability_pb2,
    capability_pb2_grpc,
    evidence_pb2,
    evidence_pb2_grpc,
    signing_pb2_grpc,
)
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.algorithms import BY_NAME
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import signing_pb2

from bench.fairness.resets import flood, headers
from bench.fairness.wire import Stream, connect, group, handle, read_about

AT_ONCE = 8
"""Streams, or unary calls, of one certificate at the same time."""

Step = Callable[[], object]


class Taken:
    """The pod that was taken over: its channel and its good handles."""

    def __init__(self, channel: grpc.Channel, account: str, about: dict[str, Any]) -> None:
        self.account = account
        self.about = about
        self.channel = channel
        self.token = handle(channel, f"jwt-{account}")
        self.root = handle(channel, f"root-{account}")
        self.signing = signing_pb2_grpc.SigningServiceStub(channel)
        self.capability = capability_pb2_grpc.CapabilityServiceStub(channel)
        self.evidence = evidence_pb2_grpc.EvidenceServiceStub(channel)


def _forgery(token: bytes) -> bytes:
    """Ours but for some bytes of the signed block: as dear to refuse as a token can be made without
    the mint's key.
    """
    return token[:60] + os.urandom(16) + token[76:]


def forged(taken: Taken, arguments: argparse.Namespace) -> Step:
    stream = Stream(taken.channel)

    def step() -> None:
        handles = [_forgery(taken.token) for _ in range(256)]
        groups = [group("Ed25519", 1, index=index) for index in range(256)]
        stream.send(pb.SignRequest(batch_id=1, handles=handles, groups=groups))

    return step


def forged_same(taken: Taken, arguments: argparse.Namespace) -> Step:
    stream, handles = Stream(taken.channel), [_forgery(taken.token)] * 256

    def step() -> None:
        groups = [group("Ed25519", 1, index=index) for index in range(256)]
        stream.send(pb.SignRequest(batch_id=1, handles=handles, groups=groups))

    return step


def grants(taken: Taken, arguments: argparse.Namespace) -> Step:
    request = capability_pb2.IssueHandlesRequest(grants=[f"jwt-{taken.account}"] * 256)
    return lambda: taken.capability.IssueHandles(request, timeout=30)


def renewals(taken: Taken, arguments: argparse.Namespace) -> Step:
    request = capability_pb2.RenewHandlesRequest(tokens=[taken.token] * 256)
    return lambda: taken.capability.RenewHandles(request, timeout=30)


def refusals(taken: Taken, arguments: argparse.Namespace) -> Step:
    stream = Stream(taken.channel)
    return lambda: stream.send(
        pb.SignRequest(
            batch_id=1, handles=[taken.token], groups=[group("Ed25519", 1024, role="nobody")]
        )
    )


def batches(taken: Taken, arguments: argparse.Namespace) -> Step:
    stream, algorithm = Stream(taken.channel), arguments.algorithm
    token, items = (taken.root, 64) if algorithm == "RS256" else (taken.token, 1024)
    return lambda: stream.send(
        pb.SignRequest(batch_id=1, handles=[token], groups=[group(algorithm, items)])
    )


def contexts(taken: Taken, arguments: argparse.Namespace) -> Step:
    stream = Stream(taken.channel)

    def step() -> None:
        groups = [group("Ed25519", 1, transcript=os.urandom(32)) for _ in range(256)]
        stream.send(pb.SignRequest(batch_id=1, handles=[taken.token], groups=groups))

    return step


def tags(taken: Taken, arguments: argparse.Namespace) -> Step:
    context = signing_pb2.ContextSuffix(role="issuer")
    request = pb.VerifyTagRequest(
        handle=taken.token, context=context, message=b"x" * 60_000, tag=b"t" * 32
    )
    return lambda: taken.signing.VerifyTag(request, timeout=30)


def public_keys(taken: Taken, arguments: argparse.Namespace) -> Step:
    algorithm = BY_NAME["Ed25519"].number

    def step() -> None:
        context = signing_pb2.ContextSuffix(role="issuer", transcript=os.urandom(32))
        request = pb.GetPublicKeysRequest(handle=taken.token, algorithm=algorithm, context=context)
        taken.signing.GetPublicKeys(request, timeout=30)

    return step


def proofs(taken: Taken, arguments: argparse.Namespace) -> Step:
    def calls() -> Iterator[object]:
        while True:
            yield taken.evidence.GetCheckpoint(evidence_pb2.GetCheckpointRequest(), timeout=30)
            yield taken.evidence.GetTile(evidence_pb2.GetTileRequest(width=1), timeout=30)
            request = evidence_pb2.GetConsistencyProofRequest(old_size=1, new_size=2)
            yield taken.evidence.GetConsistencyProof(request, timeout=30)

    # A generator is over once it has raised, so each step makes the three calls anew.
    def step() -> None:
        made = calls()
        for _ in range(3):
            next(made)

    return step


def resolves(taken: Taken, arguments: argparse.Namespace) -> Step:
    def step() -> None:
        request = pb.ResolveIntentRequest(handle=taken.token, intent_id=new_intent_id())
        taken.signing.ResolveIntent(request, timeout=30)

    return step


def audit(taken: Taken, arguments: argparse.Namespace) -> Step:
    def step() -> None:
        records = [
            evidence_pb2.AuditRecord(sequence=number, kind=evidence_pb2.AUDIT_KIND_INTENT)
            for number in range(1, 4097)
        ]
        batch = evidence_pb2.AuditBatch(boot_id=os.urandom(16), records=records)
        wire = batch.SerializeToString(deterministic=True)
        taken.evidence.SubmitAudit(evidence_pb2.SubmitAuditRequest(batch=wire), timeout=30)

    return step


def resets(taken: Taken, arguments: argparse.Namespace) -> Step:
    about, block = taken.about, headers("/capsign.adapter.v1.EvidenceService/GetCheckpoint")
    context = ssl.create_default_context(cafile=about["ca"])
    context.load_cert_chain(*about["identities"][taken.account][1])
    context.set_alpn_protocols(["h2"])
    host, port = about["address"].rsplit(":", 1)

    def step() -> None:
        with (
            socket.create_connection((host.rpartition(":")[2], int(port)), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname=about["server_name"]) as one,
        ):
            flood(one, block)

    return step


WAYS: dict[str, Callable[[Taken, argparse.Namespace], Step]] = {
    "forged": forged,
    "forged-same": forged_same,
    "grants": grants,
    "renewals": renewals,
    "refusals": refusals,
    "batches": batches,
    "contexts": contexts,
    "tags": tags,
    "public-keys": public_keys,
    "proofs": proofs,
    "resolves": resolves,
    "audit": audit,
    "resets": resets,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument(
        "--account",
        default="stranger",
        help="whose pod was taken over; of the victim's, one of its siblings",
    )
    parser.add_argument("--algorithm", default="Ed25519")
    arguments = parser.parse_args()
    about = read_about()
    channel: Any = connect(about, arguments.account, 1)
    taken = Taken(channel, arguments.account, about)
    for _ in range(AT_ONCE):
        step = WAYS[arguments.way](taken, arguments)
        threading.Thread(target=_for_ever, args=(step,), daemon=True).start()
    print("at work", flush=True)
    sys.stdin.read()
    os._exit(0)  # threads in the middle of calls hold up an orderly end


def _for_ever(step: Step) -> None:
    while True:
        try:
            step()
        except (grpc.RpcError, OSError):
            continue  # refused, or hung up on: at once again


if __name__ == "__main__":
    main()
