"""`capsign verify --receipt`: a bundle of signature, entry and receipt, verified offline.

1 the receipt's checkpoint is signed by the log, and cosigned as the policy demands; 2 its proof
leads from the entry to that root; 3 the entry records these signatures; 4 each verifies under a key
that whoever verifies trusts; 5 it is not older than was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from capsign_cli import numbers, output
from capsign_cli.failures import REFUSED, USAGE, CliError
from capsign_cli.trusted_keys import trusted_keys

if TYPE_CHECKING:
    from capsign_evidence.bundle import Bundle, BundledSignature, Proven
    from capsign_evidence.checkpoint import TreeHead
    from capsign_evidence.note import VerifierKey

MAX_MESSAGE = 256 * 1024 * 1024
"""Longest message that is read, bytes."""

Command = TypeVar("Command", bound=Callable[..., Any])

_DO_NOT_TRUST = "Do not trust it. Keep the file: it may be evidence against whoever handed it in."


@dataclass(frozen=True, slots=True)
class Trust:
    """What whoever verifies trusts, from options."""

    log_key: str | None
    policy: Path | None
    keys: tuple[Path, ...]
    kids: tuple[str, ...]
    max_age_s: float | None


OF_BUNDLES = ("log_key", "policy", "key", "kid", "max_age")
"""The options with which a bundle is verified, in the order of Trust's fields."""


def receipt_options(command: Command) -> Command:
    """What a bundle is verified by."""
    path = click.Path(path_type=Path, dir_okay=False)
    for decorate in reversed(
        (
            click.option(
                "--receipt", type=path, help="A bundle: verify it offline, with no agent."
            ),
            click.option(
                "--log-key",
                envvar="CAPSIGN_LOG_KEY",
                help="With --receipt: the verifier key (name+id+base64) of the log that must have "
                "signed.",
            ),
            click.option(
                "--policy",
                type=path,
                help="With --receipt: a C2SP tlog-policy, which says whose cosignatures it takes.",
            ),
            click.option(
                "--key",
                type=path,
                multiple=True,
                help="With --receipt: who signs, as PEM or as a JWK Set; again for the key of a "
                "second signature.",
            ),
            click.option(
                "--kid",
                multiple=True,
                help="With --receipt: the id (RFC 7638 thumbprint) of the key in the bundle; again "
                "for the key of a second signature.",
            ),
            click.option(
                "--max-age",
                type=numbers.Seconds(1),
                help="With --receipt: refuse one that is older, seconds: by the latest time that a "
                "quorum of the policy's witnesses states, or else by what the log says.",
            ),
        )
    ):
        command = decorate(command)
    return command


def verify_bundle_file(
    file: BinaryIO, receipt: Path, trust: Trust, rule: str | None, required: Collection[str]
) -> None:
    """Verify, and write what was found. All signatures must be good, those of the algorithms
    `required` among them; by the rule "either" one is enough, by "both" they are two, by two keys.
    Raises CliError.
    """
    bundle = _read(receipt)
    checkpoints = _Checkpoints(trust)
    proven = _proven(bundle, checkpoints.open)
    message = file.read(MAX_MESSAGE + 1)
    if len(message) > MAX_MESSAGE:
        text = f"The file is larger than {MAX_MESSAGE} bytes, and a bundle is of a message."
        advice = "Give the message that was signed; no longer one is."
        raise CliError(USAGE, "INPUT_TOO_LARGE", text, advice)
    found = _by_rule(bundle, message, trust, rule, required)
    _demand_recorded(bundle, proven)
    when_s = checkpoints.cosigned_s or proven.record.time_ms / 1000
    if trust.max_age_s is not None and time.time() - when_s > trust.max_age_s:
        said = datetime.fromtimestamp(when_s, UTC).isoformat(timespec="seconds")
        raise CliError(
            REFUSED,
            "RECEIPT_TOO_OLD",
            f"The receipt is from {said}, which is longer ago than --max-age allows.",
            "Ask the signer for a fresh receipt of the same signature.",
        )
    output.record(_told(proven, found, checkpoints.witnesses))


class _Checkpoints:
    """Opens the checkpoint by the log's key, by a policy, or both."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self.witnesses: tuple[str, ...] = ()
        self.cosigned_s = 0
        """When it was cosigned by the word of a whole quorum, seconds since 1970; 0: no quorum is
        demanded, or no policy was given.
        """
        if not trust.log_key and trust.policy is None:
            raise CliError(
                USAGE,
                "LOG_KEY_MISSING",
                "Whose signature should the checkpoint carry?",
                "Give --log-key or CAPSIGN_LOG_KEY, or --policy.",
            )

    def open(self, note: bytes) -> TreeHead:
        """The content of the checkpoint. Raises NoteError, CliError for keys that are malformed."""
        from capsign_evidence.checkpoint import open_checkpoint
        from capsign_evidence.note import NoteError
        from capsign_evidence.note import VerifierKey as Key

        try:
            key = Key.parse(self._trust.log_key) if self._trust.log_key else None
        except NoteError as error:
            raise CliError(
                USAGE, "LOG_KEY_MALFORMED", f"--log-key: {error}.", "Copy it whole."
            ) from None
        if self._trust.policy is None:
            assert key is not None
            return open_checkpoint(note, key)
        return self._by_policy(note, self._trust.policy, key)

    def _by_policy(self, note: bytes, policy: Path, key: VerifierKey | None) -> TreeHead:
        from capsign_evidence.tlog_policy import (
            MAX_POLICY_LEN,
            PolicyError,
            QuorumError,
            parse_policy,
        )

        with policy.open("rb") as file:
            data = file.read(MAX_POLICY_LEN + 1)
        try:
            opened = parse_policy(data).open(note, key)
        except PolicyError as error:
            raise CliError(
                USAGE, "POLICY_MALFORMED", f"{policy}: {error}.", "See c2sp.org/tlog-policy."
            ) from None
        except QuorumError as error:
            text = f"The log signed the receipt's checkpoint, and witnesses are missing: {error}."
            advice = "Ask the signer for a receipt again, once the witnesses have cosigned."
            raise CliError(REFUSED, "WITNESS_MISSING", text, advice) from None
        self.witnesses = tuple(sorted(opened.witnesses))
        self.cosigned_s = opened.quorum_s
        return opened.head


def _read(path: Path) -> Bundle:
    from capsign_evidence.bundle import MAX_BUNDLE_LEN, Bundle
    from capsign_evidence.receipt import ReceiptError

    with path.open("rb") as file:
        data = file.read(MAX_BUNDLE_LEN + 1)
    try:
        return Bundle.parse(data)
    except ReceiptError as error:
        raise CliError(REFUSED, "RECEIPT_MALFORMED", f"{path}: {error}.", _DO_NOT_TRUST) from None


def _proven(bundle: Bundle, open_head: Callable[[bytes], TreeHead]) -> Proven:
    from capsign_evidence.bundle import verify_bundle
    from capsign_evidence.leaf_fields import LeafError
    from capsign_evidence.note import NoteError
    from capsign_evidence.proofs import ProofError
    from capsign_evidence.receipt import ReceiptError

    try:
        return verify_bundle(bundle, open_head)
    except NoteError as error:
        text = f"The receipt's checkpoint is not one of the log that you trust: {error}."
        raise CliError(REFUSED, "CHECKPOINT_INVALID", text, _DO_NOT_TRUST) from None
    except ProofError as error:
        text = f"The receipt does not prove that the entry is in the log: {error}."
        raise CliError(REFUSED, "PROOF_INVALID", text, _DO_NOT_TRUST) from None
    except ReceiptError as error:
        text = f"The receipt is not of this signature: {error}."
        raise CliError(REFUSED, "RECEIPT_INVALID", text, _DO_NOT_TRUST) from None
    except LeafError as error:
        text = f"The entry cannot be read: {error}."
        raise CliError(
            REFUSED, "ENTRY_UNREADABLE", text, "Use a release as new as the log."
        ) from None


def _by_rule(
    bundle: Bundle, message: bytes, trust: Trust, rule: str | None, required: Collection[str]
) -> list[dict[str, str]]:
    """The signatures that are good, as many as the rule demands."""
    lacking = sorted(set(required) - {one.algorithm for one in bundle.signatures})
    if lacking:
        raise _missing(f"The bundle has no signature by {', '.join(lacking)}.")
    found: list[dict[str, str]] = []
    refusal: CliError | None = None
    for one in bundle.signatures:
        try:
            found.append(_verified(one, message, trust))
        except CliError as error:
            if rule != "either":
                raise
            refusal = refusal or error
    if not found and refusal is not None:
        raise refusal
    if rule == "both" and len({one["kid"] for one in found}) < 2:
        raise _missing("The bundle has no two signatures by two keys.")
    return found


def _missing(text: str) -> CliError:
    advice = "Do not take it for one that is signed as you demand; ask the signer for another."
    return CliError(REFUSED, "SIGNATURE_MISSING", text, advice)


def _verified(signature: BundledSignature, message: bytes, trust: Trust) -> dict[str, str]:
    from capsign.errors import InvalidSignature
    from capsign.jose import COORDINATE_BYTES, raw_ecdsa

    size = COORDINATE_BYTES.get(signature.algorithm)
    for key, where in trusted_keys(signature, trust.keys, trust.kids):
        try:
            raw = signature.value if size is None else raw_ecdsa(signature.value, size)
            key.check(raw, message)
        except (InvalidSignature, ValueError):
            continue
        return {"algorithm": signature.algorithm, "kid": key.kid, "key_from": where}
    raise CliError(
        REFUSED,
        "SIGNATURE_INVALID",
        f"The receipt is good, and the {signature.algorithm} signature is not of this message "
        f"under a key that you trust.",
        "Is it the message that was signed, byte for byte? If so, do not trust it.",
    )


def _demand_recorded(bundle: Bundle, proven: Proven) -> None:
    """The algorithms that the bundle states are those of the entry."""
    from capsign_evidence.leaf_reader import SignedTwice
    from capsign_wire.algorithms import ALGORITHMS

    numbers = {proven.record.group.algorithm}
    if isinstance(proven.record, SignedTwice):
        numbers.add(proven.record.second.algorithm)
    if {one.algorithm for one in bundle.signatures} != {ALGORITHMS[n].name for n in numbers}:
        raise CliError(
            REFUSED,
            "RECEIPT_INVALID",
            "The entry records another algorithm than the bundle names.",
            _DO_NOT_TRUST,
        )


def _told(
    proven: Proven, signatures: list[dict[str, str]], witnesses: tuple[str, ...]
) -> dict[str, Any]:
    record, group = proven.record, proven.record.group
    when = datetime.fromtimestamp(record.time_ms / 1000, UTC)
    return {
        "verified": True,
        "signatures": signatures,
        "signed_at": when.isoformat(timespec="milliseconds"),
        "workload": group.workload,
        "key": f"{group.tenant}/{group.key}/{group.key_version}",
        "purpose": group.purpose,
        "context_digest": group.context_digest.hex(),
        "policy_digest": group.policy_digest.hex(),
        "intent_id": record.intent_id.hex(),
        "leaf_index": proven.index,
        "leaves": proven.head.size,
        "origin": proven.head.origin,
        "witnesses": list(witnesses),
    }
