"""`capsign sign`, `verify` and `handles`: what an application can do, from the command line."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click
from click.core import ParameterSource

from capsign_cli import endpoints, numbers, output
from capsign_cli.failures import UNAVAILABLE, USAGE, CliError
from capsign_cli.receipts import OF_BUNDLES, Trust, receipt_options, verify_bundle_file
from capsign_cli.signed_bundle import write_bundle
from capsign_cli.verify_rule import rule, rule_options, signatures

if TYPE_CHECKING:
    from capsign import Signature, Signer

Command = TypeVar("Command", bound=Callable[..., Any])

NO_HANDLES = (
    "No handles: the policy has no grant for this workload on this socket, or what it grants "
    "was revoked."
)

_RENEWED_WITHIN = timedelta(seconds=5)
"""The clock skew that an agent allows between itself and the adapter."""

MAX_MESSAGE = 64 * 1024
"""Bytes of the largest message that is sent; of a larger one the digest is signed, if the algorithm
allows that.
"""


def _context_options(algorithm: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """The options that say what is signed with; `algorithm` is that of the algorithm."""
    return lambda command: _decorated(command, algorithm)


def _decorated(command: Command, algorithm: Callable[[Any], Any]) -> Command:
    for decorate in reversed(
        (
            click.option("-p", "--purpose", help="Purpose of the handle to use."),
            click.option(
                "-g", "--grant", help="Grant of the handle to use, where the purpose does not tell."
            ),
            algorithm,
            click.option(
                "--protocol",
                default="",
                help="Protocol of the context, where the handle does not pin it.",
            ),
            click.option("--role", default="", help="Role in that protocol."),
            click.option("--protocol-version", default="", help="Version of that protocol."),
            click.option(
                "--transcript",
                default="",
                metavar="HEX",
                help="32 bytes that both sides have seen, in hexadecimal.",
            ),
            click.option(
                "--timeout",
                type=numbers.Seconds(0.001, 60),
                default=10.0,
                show_default=True,
                help="Seconds.",
            ),
        )
    ):
        command = decorate(command)
    return command


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@_context_options(
    click.option(
        "-a",
        "--algorithm",
        default=None,
        help="One that the handle allows (`capsign handles` lists them); without it, what the "
        "key's rollout says for this workload.",
    )
)
@click.option(
    "--intent",
    default="",
    metavar="HEX",
    help="Intent id of an earlier call: gives the same bytes again.",
)
@click.option("--raw", is_flag=True, help="Write the signature's bytes and nothing else.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write signature, public key and receipt of the log to this file too.",
)
@endpoints.socket_options
@output.option
def sign(file: BinaryIO, intent: str, bundle: Path | None, *, raw: bool, **options: Any) -> None:
    """Sign FILE (default: standard input)."""
    content = _content(file, options["algorithm"])
    with _signer(options, options.pop("timeout")) as signer:
        made = signer.sign(
            **content,
            **_context(options),
            intent_id=_hex("--intent", intent, 16) if intent else None,
        )
        _tell(made, raw=raw)
        if bundle is not None:
            write_bundle(signer, made, _context(options), bundle)


def _tell(made: Signature, *, raw: bool) -> None:
    if raw:
        output.raw(made.value)
        return
    values = {
        **_by(made),
        "intent_id": made.intent_id.hex(),
        "leaf_index": made.leaf_index,
        "context_digest": made.context_digest.hex(),
        "policy_digest": made.policy_digest.hex(),
    }
    if made.others:
        values["others"] = [_by(other) for other in made.others]
    output.record(values)


def _by(made: Signature) -> dict[str, Any]:
    """A signature, and the key that made it."""
    return {
        "signature": base64.b64encode(made.value).decode(),
        "algorithm": made.algorithm,
        "kid": made.kid,
        "key_version": made.key_version,
        "custody": made.custody,
    }


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@_context_options(
    click.option(
        "-a",
        "--algorithm",
        default=None,
        help="One that the handle allows; `capsign handles` lists them.",
    )
)
@rule_options
@receipt_options
@endpoints.socket_options
@output.option
def verify(file: BinaryIO, receipt: Path | None, **options: Any) -> None:
    """Verify the signature of FILE (default: standard input). Exit code 1 if it does not verify.

    Where a call was answered by two keys, --rule says whether one good signature is enough.

    With --receipt it is verified offline, from a bundle that `capsign sign --bundle` wrote: that
    the log has it, and that it is of FILE. No agent is asked. All signatures of the bundle must be
    good, unless --rule either says that one is enough.
    """
    of_bundle = {name: options.pop(name) for name in OF_BUNDLES}
    rules = rule(options["rule"], options["require"])
    _demand_apply(receipt is not None, set(of_bundle), set(options) - {"rule", "require"})
    name, required = options.pop("rule"), options.pop("require")
    if receipt is not None:
        verify_bundle_file(file, receipt, Trust(*of_bundle.values()), name, required)
        return
    given = signatures(options.pop("signature"), options.pop("signed"), options.pop("algorithm"))
    content = _content(file, _one_hash([algorithm for algorithm, _ in given]))
    with _signer(options, options.pop("timeout")) as signer:
        key = signer.verify(
            content.get("message"),
            given,
            digest=content.get("digest"),
            **rules,
            **_context(options),
        )
    output.record(
        {
            "verified": True,
            "kid": key.kid,
            "algorithm": key.algorithm,
            "key_version": key.version,
            "state": key.state,
        }
    )


def _demand_apply(offline: bool, of_bundle: set[str], of_agent: set[str]) -> None:
    """Raise click.UsageError for an option on the command line that means nothing here: whoever
    gives one relies on it. The environment may name what other commands use.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if name in (of_agent if offline else of_bundle):
            how = (
                "is for asking an agent, and --receipt asks none" if offline else "needs --receipt"
            )
            raise click.UsageError(f"{parameter.opts[-1]} {how}.")


@click.command()
@click.option(
    "--timeout", type=numbers.Seconds(0.001, 60), default=10.0, show_default=True, help="Seconds."
)
@endpoints.socket_options
@output.option
def handles(timeout: float, **options: Any) -> None:
    """List what a socket may sign."""
    with _signer(options, timeout) as signer:
        found = signer.handles()
    values = [
        {
            "grant": one.grant,
            "purpose": one.purpose,
            "algorithms": list(one.algorithms),
            "contexts": [
                f"{rule.protocol} as {'/'.join(rule.roles)} {'/'.join(rule.versions)}"
                for rule in one.protocols
            ],
            "transcript": one.transcript,
            "expires_at": one.expires_at.isoformat(timespec="seconds") if one.expires_at else "",
            "rate_per_second": one.rate_per_second or None,
            "withdrawn": one.withdrawn,
            "id": one.id,
        }
        for one in found
    ]
    columns: tuple[str, ...] = ("grant", "purpose", "algorithms", "contexts", "expires_at")
    if any(one.withdrawn for one in found):
        columns = (*columns, "withdrawn")
    output.rows("handles", values, columns, empty=NO_HANDLES)
    ended = [
        one.grant
        for one in found
        if not one.withdrawn
        and one.expires_at
        and one.expires_at < datetime.now(UTC) - _RENEWED_WITHIN
    ]
    if ended:
        text = f"Ended, and not renewed yet: {', '.join(ended)}."
        raise CliError(
            UNAVAILABLE,
            "NOT_RENEWED",
            text,
            "See that an adapter runs; the agent renews them by itself.",
        )


def _signer(options: dict[str, Any], timeout: float) -> Signer:
    """A Signer at the socket that the options name. Raises CliError if that cannot be a socket."""
    path = endpoints.socket_path(
        options.pop("socket"), options.pop("directory"), options.pop("container")
    )
    return signer_at(path, timeout)


def signer_at(path: str, timeout: float) -> Signer:
    """A Signer at that socket. Raises CliError if that cannot be a socket."""
    from capsign import Signer

    try:
        return Signer(path, timeout=timeout)
    except ValueError as error:
        said = str(error)
        raise CliError(
            USAGE,
            "SOCKET",
            f"{said[:1].upper()}{said[1:]}.",
            "Give --socket, or set CAPSIGN_SOCKET.",
        ) from None


def _context(options: dict[str, Any]) -> dict[str, Any]:
    given = options["transcript"]
    return {**options, "transcript": _hex("--transcript", given, 32) if given else b""}


def _content(file: BinaryIO, algorithm: str | None) -> dict[str, Any]:
    """The message, or its digest if it is too long to send and the algorithm signs digests. Raises
    CliError if it does not.
    """
    message = file.read(MAX_MESSAGE + 1)
    if len(message) <= MAX_MESSAGE:
        return {"message": message}
    if algorithm is None:
        text = f"The file is larger than {MAX_MESSAGE} bytes, and no algorithm is named."
        advice = "Name one that signs digests (ES256, ES384, PS256, RS256) by --algorithm."
        raise CliError(USAGE, "INPUT_TOO_LARGE", text, advice)
    hashed = _hash_of(algorithm)
    if not hashed:
        text = (
            f"The file is larger than {MAX_MESSAGE} bytes, and {algorithm} signs messages, "
            f"not digests."
        )
        raise CliError(
            USAGE,
            "INPUT_TOO_LARGE",
            text,
            "Use an algorithm that signs digests (ES256, ES384, PS256, RS256).",
        )
    digest = hashlib.new(hashed, message)
    while block := file.read(1 << 20):
        digest.update(block)
    return {"digest": digest.digest()}


def _one_hash(algorithms: list[str]) -> str | None:
    """One of the algorithms, if all of them sign the same digest; None if they do not."""
    return algorithms[0] if len({_hash_of(name) for name in algorithms}) == 1 else None


def _hash_of(algorithm: str) -> str:
    """The hash function whose digest the algorithm signs; empty if it signs no plain digest."""
    from capsign_wire.algorithms import BY_NAME
    from capsign_wire.types.v1 import algorithms_pb2

    hashes = {algorithms_pb2.UPSTREAM_SHA256: "sha256", algorithms_pb2.UPSTREAM_SHA384: "sha384"}
    row = BY_NAME.get(algorithm)
    return hashes.get(row.upstream, "") if row is not None else ""


def _hex(name: str, text: str, length: int) -> bytes:
    try:
        value = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        value = b""
    if len(value) != length:
        raise click.BadParameter(f"{name} is {length} bytes in hexadecimal.")
    return value
