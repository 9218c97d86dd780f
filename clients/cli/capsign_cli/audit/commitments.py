"""The commitments under which a message stands in the log, as an adapter tells them while the
tenant's pepper exists.

Only digests of the message go there. ML-DSA signs a digest that its public key is part of, so its
key sets must be at hand.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from capsign_cli import numbers
from capsign_cli.failures import USAGE, CliError

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import tenants_pb2

Command = TypeVar("Command", bound=Callable[..., Any])

SECONDS = 30.0
"""Longest wait for an answer."""

MLDSA65_PUBLIC = 1952
"""Bytes of a public key of ML-DSA-65, FIPS 204."""

MAX_MESSAGE = 1 << 30
"""Largest message, bytes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A message of a tenant, and in which ways it can have been signed: what the options say."""

    message: Path
    tenant: str
    grant: str
    transcripts: tuple[bytes, ...]
    key_sets: tuple[Path, ...]
    policy_version: int


@dataclass(frozen=True, slots=True)
class Told:
    """Ways by the commitment that entries of the log have; grants of which not all could be told;
    the leaf that says that somebody asked.
    """

    by_commitment: Mapping[bytes, tenants_pb2.MessageCommitment]
    incomplete: tuple[str, ...]
    leaf_index: int


def message_options(command: Command) -> Command:
    """`--message` and what belongs to it. `asked_of` takes them out of a command's options."""
    file = click.Path(path_type=Path, exists=True, dir_okay=False)
    for decorate in reversed(
        (
            click.option("--message", type=file, help="Only what signed this file."),
            click.option("--tenant", default="", help="The tenant whose message it is."),
            click.option("--grant", default="", help="Only under this grant."),
            click.option(
                "--transcript",
                "transcripts",
                multiple=True,
                help="A transcript that it may have been signed under, in hexadecimal.",
            ),
            click.option(
                "--key-set",
                "key_sets",
                type=file,
                multiple=True,
                help="A JWK Set with ML-DSA keys that may have signed it.",
            ),
            click.option(
                "--policy-version",
                type=numbers.whole(1),
                help="By the grants of this version of the policy, not of the one in force.",
            ),
        )
    ):
        command = decorate(command)
    return command


def asked_of(options: dict[str, Any]) -> Asked | None:
    """What `message_options` gave, taken out of `options`; None without `--message`. Raises
    CliError.
    """
    message, tenant, grant = (options.pop(name) for name in ("message", "tenant", "grant"))
    transcripts, key_sets = options.pop("transcripts"), options.pop("key_sets")
    version = options.pop("policy_version") or 0
    if message is None:
        return None
    if not tenant:
        text = "Commitments are made under a key of the tenant."
        raise CliError(USAGE, "NO_TENANT", text, "Say whose message it is: --tenant NAME.")
    try:
        raw = tuple(bytes.fromhex(each) for each in transcripts)
    except ValueError:
        raw = (b"",)
    if any(len(each) != 32 for each in raw):
        text = "A transcript is a SHA-256: 64 hexadecimal digits."
        raise CliError(USAGE, "TRANSCRIPT", text, "Say it as the application gave it.")
    return Asked(message, tenant, grant, raw, tuple(key_sets), version)


def request_of(asked: Asked) -> tenants_pb2.GetCommitmentsRequest:
    """What an adapter is asked: digests alone. Raises CliError."""
    from capsign_wire.adapter.v1 import tenants_pb2 as pb

    if asked.message.stat().st_size > MAX_MESSAGE:
        text = f"Messages of more than {MAX_MESSAGE >> 20} MiB are not looked for."
        raise CliError(USAGE, "TOO_LARGE", text, "No single call signs one that large.")
    message = asked.message.read_bytes()
    return pb.GetCommitmentsRequest(
        tenant=asked.tenant,
        sha256=hashlib.sha256(message).digest(),
        sha384=hashlib.sha384(message).digest(),
        mus=[_mu(key, message) for path in asked.key_sets for key in _mldsa_keys(path)][:64],
        transcripts=asked.transcripts,
        grant=asked.grant,
        policy_version=asked.policy_version,
    )


def commitments_of(channel: Any, asked: Asked) -> Told:
    """Ask an adapter. Raises CliError, grpc.RpcError."""
    from capsign_wire.adapter.v1 import tenants_pb2_grpc

    stub = tenants_pb2_grpc.TenantServiceStub(channel)
    answer = stub.GetCommitments(request_of(asked), timeout=SECONDS)
    found = {each.commitment: each for each in answer.commitments}
    return Told(found, tuple(answer.incomplete), answer.leaf_index)


def _mu(public_key: bytes, message: bytes) -> bytes:
    """The external mu of a message with an empty context, FIPS 204 algorithm 7 lines 6 and 7."""
    tr = hashlib.shake_256(public_key).digest(64)
    return hashlib.shake_256(tr + b"\x00\x00" + message).digest(64)


def _mldsa_keys(path: Path) -> list[bytes]:
    """The public keys of ML-DSA in a JWK Set. Raises CliError."""
    try:
        keys = json.loads(path.read_bytes())["keys"]
        found = [
            base64.urlsafe_b64decode(each["pub"] + "==") for each in keys if each["kty"] == "AKP"
        ]
    except (ValueError, KeyError, TypeError):
        text = f"{path} is no JWK Set."
        raise CliError(
            USAGE, "KEY_SET", text, "`capsign keys jwks TENANT/KEY` writes one."
        ) from None
    return [each for each in found if len(each) == MLDSA65_PUBLIC]
