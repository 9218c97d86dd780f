"""The attacks: who is hurt, who attacks, and where the CPU goes. A new row here is a new
measurement.

Victim and attacker are modules that are run as processes of their own. Each gets what `House.about`
says as JSON on its standard input. A victim takes `--seconds` and prints one JSON object with
`sps`, what it got done a second. An attacker prints a line when it is at work, and works until its
standard input is closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ADAPTER_VICTIM = ("bench.fairness.adapter_victim",)
POD_VICTIM = ("bench.fairness.pod_victim",)


@dataclass(frozen=True)
class Attack:
    """`server` is the process aimed at, `adapter` or `agent`; `victim` and `attacker` are a module
    and its arguments.
    """

    name: str
    story: str
    attacker: tuple[str, ...]
    victim: tuple[str, ...] = ADAPTER_VICTIM
    server: str = "adapter"


def _adapter(name: str, story: str, *arguments: str) -> Attack:
    return Attack(name, story, ("bench.fairness.adapter_attacker", *arguments))


def _pod(name: str, story: str, *arguments: str, victim: tuple[str, ...] = ()) -> Attack:
    return Attack(
        name, story, ("bench.fairness.pod_attacker", *arguments), (*POD_VICTIM, *victim), "agent"
    )


ATTACKS: Mapping[str, Attack] = {
    attack.name: attack
    for attack in (
        _adapter("forged", "256 forged handles a batch, each another, 8 streams", "forged"),
        _adapter("forged-same", "one forged handle 256 times a batch, 8 streams", "forged-same"),
        _adapter("grants", "one grant named 256 times in IssueHandles, 8 calls at once", "grants"),
        _adapter(
            "renewals", "one handle named 256 times in RenewHandles, 8 calls at once", "renewals"
        ),
        _adapter(
            "refusals",
            "1,024 items a batch in a context that is not allowed, 8 streams",
            "refusals",
        ),
        _adapter(
            "batches", "1,024 Ed25519 signatures a batch by another tenant, 8 streams", "batches"
        ),
        _adapter(
            "batches-mate",
            "the same by another workload of the tenant",
            "batches",
            "--account",
            "other",
        ),
        _adapter(
            "batches-sibling",
            "the same by another pod of the victim's Deployment",
            "batches",
            "--account",
            "app",
        ),
        _adapter(
            "batches-ml-dsa", "the same with ML-DSA-65", "batches", "--algorithm", "ML-DSA-65"
        ),
        _adapter(
            "batches-token",
            "64 RS256 signatures in the token a batch, 8 streams",
            "batches",
            "--algorithm",
            "RS256",
        ),
        _adapter(
            "contexts",
            "256 new transcripts a batch: a derivation and an attestation each, 8 streams",
            "contexts",
        ),
        _adapter("tags", "VerifyTag over 60 KiB, 8 calls at once", "tags"),
        _adapter(
            "public-keys",
            "GetPublicKeys with a new transcript each, 8 calls at once",
            "public-keys",
        ),
        _adapter("proofs", "tiles, proofs and checkpoints, 8 calls at once", "proofs"),
        _adapter("resolves", "ResolveIntent of what was never sent, 8 calls at once", "resolves"),
        _adapter("audit", "SubmitAudit of 4,096 records a batch, 8 calls at once", "audit"),
        _pod(
            "pod-batches",
            "1,024 signatures a call on another container's socket, 4 calls at once",
            "batches",
        ),
        _pod(
            "pod-streams",
            "1,024 signatures a message on 4 streams of another container's socket",
            "streams",
        ),
        _pod("pod-refusals", "refused calls on another container's socket, 64 at once", "refusals"),
        _pod(
            "pod-refused-batches",
            "1,024 refused items a call on another container's socket",
            "refused-batches",
        ),
        _pod(
            "pod-verifies",
            "signatures to verify on another container's socket, 64 at once",
            "verifies",
        ),
        _pod(
            "pod-public-keys",
            "public keys of new transcripts on another container's socket, 64 at once",
            "public-keys",
        ),
        _pod(
            "pod-resolves",
            "intents to resolve on another container's socket, 64 at once",
            "resolves",
        ),
        _pod(
            "pod-lookups",
            "public keys of new transcripts; the victim resolves",
            "public-keys",
            victim=("--resolves",),
        ),
        _pod(
            "pod-resets",
            "streams opened and reset without end on another container's socket",
            "resets",
        ),
        _adapter("resets", "streams opened and reset without end, on 8 connections", "resets"),
        _adapter(
            "siblings",
            "forged handles from all pods of the victim's Deployment but one",
            "forged",
            "--account",
            "app",
        ),
    )
}
