"""`capsign keys create|rotate|suspend|resume|deactivate|compromise|destroy|show`: the life of key
versions, for operators and responders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click
from click.shell_completion import CompletionItem

from capsign_cli import endpoints, key_values, key_words, output
from capsign_cli.failures import REFUSED, UNKNOWN, USAGE, CliError

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import keys_pb2

Command = TypeVar("Command", bound=Callable[..., Any])

SECONDS = 30.0
"""Longest wait for an answer: a withdrawal is in force on every replica by then."""


def _complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of keys and of their versions. Nothing if no adapter can be asked."""
    try:
        from capsign_wire.adapter.v1 import admin_pb2, admin_pb2_grpc

        with endpoints.completing(ctx) as channel:
            stub = admin_pb2_grpc.AdminServiceStub(channel)
            known = stub.ListKeys(admin_pb2.ListKeysRequest(), timeout=2.0).keys
    except Exception:  # whatever hinders: a shell that completes is no place for a message
        return []
    names = [f"{key.tenant}/{key.name}" for key in known]
    names += [
        f"{key.tenant}/{key.name}/{version.version}" for key in known for version in key.versions
    ]
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def _about_key(command: Command) -> Command:
    """A command about one key."""
    with_options = endpoints.adapter_options(output.option(command))
    return click.argument("name", metavar="TENANT/KEY", shell_complete=_complete)(with_options)


def about_version(command: Command) -> Command:
    """A command about one version, which may be left out where only one can be meant."""
    asking = click.option("--yes", is_flag=True, help="Do not ask.")(command)
    with_options = endpoints.adapter_options(output.option(asking))
    return click.argument("name", metavar="TENANT/KEY[/VERSION]", shell_complete=_complete)(
        with_options
    )


@click.command()
@_about_key
def show(name: str, **options: Any) -> None:
    """Show a key: its versions, what policy says of it, who signs with it."""
    with found(name, options) as (_, key):
        values = key_values.of_key(key)
    if output.is_json():
        output.record(values)
        return
    versions = values.pop("versions")
    output.record(values)
    columns = key_values.columns(key_values.VERSION_COLUMNS, versions)
    output.rows("versions", versions, columns, empty="No version yet.")


@click.command()
@_about_key
def create(name: str, **options: Any) -> None:
    """Create a key that the policy has and that has no version yet. It signs at once."""
    from capsign_wire.adapter.v1 import keys_pb2 as pb

    with found(name, options) as (stub, key):
        request = pb.CreateKeyRequest(tenant=key.key.tenant, key=key.key.name)
        answer = acted(stub.CreateKey, request, name)
    tell("created", name, answer.moved)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--keep-old", is_flag=True, help="Leave the version that signed until now active.")
@_about_key
def rotate(name: str, yes: bool, keep_old: bool, **options: Any) -> None:
    """Sign with a new version at once.

    Verifiers hear of its public keys only when it signs: those that keep older ones refuse it until
    they fetch again. `capsign rollout start` publishes first, waits, and goes on step by step.
    """
    with found(name, options) as (stub, key):
        if not key.key.versions:
            raise CliError(
                REFUSED,
                "NOTHING_TO_ROTATE",
                f"{name} has no version yet.",
                f"Create it: `capsign keys create {name}`.",
            )
        text = (
            f"{key_words.workloads(key)} sign with a new version of {name} at once. Verifiers "
            "that keep older public keys refuse it until they fetch again; `capsign rollout start` "
            "waits for them."
        )
        confirm(text, f"Rotate {name}?", yes)
        moved, before = _rotated(stub, key, name, keep_old)
    tell("rotated", name, moved, was=before)


def _rotated(stub: Any, key: keys_pb2.GetKeyResponse, name: str, keep_old: bool) -> Any:
    """Make a version, or take up the newest one if that was made and never used; publish and
    activate it, and deactivate those that signed. The last move, and the versions deactivated.
    """
    from capsign_wire.adapter.v1 import keys_pb2 as pb
    from capsign_wire.types.v1 import signing_pb2

    tenant, own = key.key.tenant, key.key.name
    newest = key.key.versions[0]
    if newest.state != signing_pb2.KEY_STATE_PRE_ACTIVATION:
        request = pb.CreateKeyVersionRequest(tenant=tenant, key=own, newest=newest.version)
        newest = acted(stub.CreateKeyVersion, request, name).moved.version
    if not newest.activation_epoch:
        changed(stub, name, tenant, own, newest.version, pb.KEY_CHANGE_PUBLISH)
    moved = changed(stub, name, tenant, own, newest.version, pb.KEY_CHANGE_ACTIVATE)
    signing = [one.version for one in key.key.versions if one.state == signing_pb2.KEY_STATE_ACTIVE]
    for version in [] if keep_old else signing:
        changed(stub, name, tenant, own, version, pb.KEY_CHANGE_DEACTIVATE)
    return moved, [] if keep_old else signing


@click.command()
@about_version
def suspend(name: str, yes: bool, **options: Any) -> None:
    """Stop the use of a version at once, until it is resumed."""
    _withdraw("suspend", name, yes, options)


@click.command()
@about_version
def compromise(name: str, yes: bool, **options: Any) -> None:
    """Mark a version as known or feared to be disclosed. Final."""
    _withdraw("compromise", name, yes, options)


@click.command()
@about_version
def resume(name: str, yes: bool, **options: Any) -> None:
    """Let a suspended version sign again."""
    _change("resume", name, yes, options)


@click.command()
@about_version
def deactivate(name: str, yes: bool, **options: Any) -> None:
    """Let a version sign no more; what it signed still verifies. Final."""
    _change("deactivate", name, yes, options)


@click.command()
@about_version
def destroy(name: str, yes: bool, **options: Any) -> None:
    """Propose to destroy a version. An approver agrees, and a waiting period runs, before it is."""
    from capsign_wire.adapter.v1 import keys_pb2 as pb

    with _meant("destroy", name, yes, options) as (stub, key, version):
        request = pb.DestroyKeyVersionRequest(name=_named(key, version))
        answer = acted(stub.DestroyKeyVersion, request, name)
    proposal = str(UUID(bytes=answer.proposal_id))
    output.record(
        {
            "proposed": f"destroy {key.key.tenant}/{key.key.name}/{version}",
            "proposal": proposal,
            "expires_at": key_values.when(answer.expires_at),
            "waits_s": answer.waits_ms // 1000,
            "next": f"somebody else: capsign approvals approve {proposal}",
        }
    )


def _withdraw(event: str, name: str, yes: bool, options: dict[str, Any]) -> None:
    from capsign_wire.adapter.v1 import keys_pb2 as pb

    number = pb.KeyWithdrawal.Value(f"KEY_WITHDRAWAL_{event.upper()}")
    with _meant(event, name, yes, options) as (stub, key, version):
        request = pb.WithdrawKeyVersionRequest(name=_named(key, version), withdrawal=number)
        answer = acted(stub.WithdrawKeyVersion, request, name)
    tell(event, name, answer.moved)


def _change(event: str, name: str, yes: bool, options: dict[str, Any]) -> None:
    from capsign_wire.adapter.v1 import keys_pb2 as pb

    number = pb.KeyChange.Value(f"KEY_CHANGE_{event.upper()}")
    with _meant(event, name, yes, options) as (stub, key, version):
        moved = changed(stub, name, key.key.tenant, key.key.name, version, number)
    tell(event, name, moved)


def changed(stub: Any, name: str, tenant: str, key: str, version: int, change: Any) -> Any:
    """The version after the change. Raises CliError, grpc.RpcError."""
    from capsign_wire.adapter.v1 import keys_pb2 as pb

    which = pb.KeyVersionName(tenant=tenant, key=key, version=version)
    request = pb.ChangeKeyVersionRequest(name=which, change=change)
    return acted(stub.ChangeKeyVersion, request, name).moved


@contextmanager
def found(name: str, options: dict[str, Any]) -> Iterator[tuple[Any, keys_pb2.GetKeyResponse]]:
    """KeyService at the adapter that is meant, and the key of that name as it is now."""
    from capsign_wire.adapter.v1 import keys_pb2 as pb
    from capsign_wire.adapter.v1 import keys_pb2_grpc

    tenant, key, _ = parts(name)
    with endpoints.adapter_of(options).channel() as channel:
        stub = keys_pb2_grpc.KeyServiceStub(channel)
        yield stub, stub.GetKey(pb.GetKeyRequest(tenant=tenant, key=key), timeout=10)


@contextmanager
def _meant(
    event: str, name: str, yes: bool, options: dict[str, Any]
) -> Iterator[tuple[Any, keys_pb2.GetKeyResponse, int]]:
    """The version that an event is about, once whoever asks for it was told what will happen."""
    with found(name, options) as (stub, key):
        version = parts(name)[2] or only(event, name, key)
        whole = f"{key.key.tenant}/{key.key.name}/{version}"
        confirm(
            key_words.foretold(event, whole, key, version), f"{event.capitalize()} {whole}?", yes
        )
        yield stub, key, version


def only(event: str, name: str, key: keys_pb2.GetKeyResponse) -> int:
    """The one version that can be meant. Raises CliError."""
    fitting = [
        one.version
        for one in key.key.versions
        if key_values.state(one.state) in key_words.FROM[event]
    ]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(map(str, fitting)) or "none"
    raise CliError(
        USAGE,
        "WHICH_VERSION",
        f"Versions of {name} that can be meant: {listed}.",
        f"Say which one, for example {name}/{key.key.versions[0].version or 1}."
        if key.key.versions
        else f"See `capsign keys show {name}`.",
    )


def parts(name: str) -> tuple[str, str, int]:
    """Tenant, key, and version; 0 where none is named. Raises click.UsageError."""
    parts = name.split("/")
    if len(parts) == 2 and all(parts):
        return parts[0], parts[1], 0
    if len(parts) == 3 and all(parts) and parts[2].isdecimal() and 0 < int(parts[2]) < 1 << 32:
        return parts[0], parts[1], int(parts[2])
    raise click.UsageError(f"{name!r} is not TENANT/KEY or TENANT/KEY/VERSION.")


def _named(key: keys_pb2.GetKeyResponse, version: int) -> keys_pb2.KeyVersionName:
    from capsign_wire.adapter.v1 import keys_pb2 as pb

    return pb.KeyVersionName(tenant=key.key.tenant, key=key.key.name, version=version)


def confirm(text: str, question: str, yes: bool) -> None:
    """Say what will happen and ask, unless `yes`. Raises CliError, click.Abort."""
    if yes:
        return
    if output.is_json():
        raise CliError(USAGE, "NOT_CONFIRMED", text, "Say --yes; -o json asks nothing.")
    click.echo(output.printable(text, lines=True), err=True)
    click.confirm(question, abort=True, err=True)


def acted(call: Any, request: Any, name: str) -> Any:
    """The answer. The connection was there a moment ago, so that what breaks now leaves open
    whether it happened. Raises CliError, grpc.RpcError.
    """
    import grpc
    from capsign_wire.failures import FailureError

    try:
        return call(request, timeout=SECONDS)
    except grpc.RpcError as error:
        if FailureError.from_rpc(error) is not None:
            raise
        text = "The connection broke, or took too long, after it was asked for."
        raise CliError(
            UNKNOWN, "NO_ANSWER", text, f"Look before you ask again: capsign keys show {name}"
        ) from None


def tell(event: str, name: str, moved: keys_pb2.KeyVersionMoved, **more: Any) -> None:
    """Print what became of a version."""
    tenant, key, _ = parts(name)
    values = key_values.of_version(moved.version)
    output.record(
        {
            "act": event,
            "version": f"{tenant}/{key}/{values['version']}",
            "state": values["state"],
            "algorithms": values["algorithms"],
            **{label: value for label, value in more.items() if value},
            "epoch": moved.epoch,
            "leaf_index": moved.leaf_index,
        }
    )
