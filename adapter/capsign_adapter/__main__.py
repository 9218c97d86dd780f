"""capsign-adapter: `provision` makes keys, `serve` signs, `authority` shows who signs identities
and rolls it.
"""

from __future__ import annotations

from capsign_adapter import tls_floor as tls_floor  # isort: skip # before anything loads gRPC

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from capsign_wire import logs, otel, settings, std_streams
from capsign_wire.failures import FailureError
from capsign_wire.hardening import harden
from capsign_wire.telemetry import Metrics
from capsign_wire.tracing import PassingTracer

from capsign_adapter import __version__, authority_command
from capsign_adapter.config import Config, load
from capsign_adapter.decide.policy import Policy, PolicyNow
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.policy_shape import PolicyError
from capsign_adapter.drift.settings import OnDisk
from capsign_adapter.identities import realm_of
from capsign_adapter.keys.provision import InventoryError, KeyWeakError
from capsign_adapter.provisioning import provision_all
from capsign_adapter.serve import Replica, run_until_signalled
from capsign_adapter.sign import policy_in_force
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.policy_in_force import InForce
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.store.faults import StoreOlderError
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.store.open import open_store
from capsign_adapter.token.counted import CountedToken
from capsign_adapter.token.interface import Token, TokenError
from capsign_adapter.token.open import TokenSettings, open_token

EXPLAINED = (
    settings.SettingsError,
    InventoryError,
    KeyWeakError,
    TokenError,
    StoreUnavailableError,
    CommitUnknownError,
    FailureError,
)
"""Errors whose text was written for the person who starts the adapter."""


def main() -> None:
    """Entry point of the command. Exit code 0, or 2 for anything that keeps it from starting."""
    std_streams.hold(answers=False)
    # subkeys, the mint's secret and commitment keys live in this memory; PINs pass through that of
    # every command
    harden()
    os.umask(0o077)
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.action and arguments.command != "authority":
        parser.error(f"{arguments.command} takes no {arguments.action}")
    logs.configure("capsign-adapter")
    try:
        config = load(arguments.config, os.environ)
        policy = _policy(config)
        if arguments.check_config or arguments.check_documents:
            note = "" if arguments.check_documents else _tried(config, policy)
            print(f"{arguments.config} and {config.policy} are good.{note}")  # noqa: T201 - the answer of the command
            return
        if arguments.command == "provision":
            _provision(config, policy)
        elif arguments.command == "authority":
            _authority(config, policy, arguments.action or "status", arguments.output)
        else:
            path = arguments.config
            _serve(config, policy, OnDisk(path, lambda: load(path, os.environ)))
    except (*EXPLAINED, OSError) as error:
        what = "do that" if arguments.command == "authority" else "start"
        print(f"capsign-adapter cannot {what}. {error}", file=sys.stderr)  # noqa: T201 - for the person at the terminal
        raise SystemExit(2) from None


def _policy(config: Config) -> Policy:
    try:
        return parse_policy(config.policy.read_bytes())
    except PolicyError as error:
        raise settings.SettingsError(
            f"The policy {config.policy} is not good. {error}", key="policy"
        ) from None


def _tried(config: Config, policy: Policy) -> str:
    """Do what a start does up to its first call, and change nothing; what there is to add. Raises
    what a start raises.
    """
    try:
        store = _store(config, trial=True)
    except StoreOlderError as error:
        token = _token(config, cautious=True)
        token.close()
        return f" {error} What is in it was not looked at."
    try:
        token = _token(config, cautious=True)
        try:
            Replica(config, policy, token, store, (Metrics(), PassingTracer()), trial=True)
        finally:
            token.close()
    finally:
        store.close()
    return ""


def _in_force(store: Store, first: Policy) -> PolicyNow:
    """What the store says at the time of the call; `first` as long as it says nothing."""
    return lambda: policy_in_force.read(store, InForce(0, first)).policy


def _provision(config: Config, policy: Policy) -> None:
    token = _token(config)
    store = _store(config, create=True)
    try:
        in_force = _in_force(store, policy)
        realm = realm_of(config.identity, in_force) if config.identity is not None else None
        for label in provision_all(policy, token, store, now_ms(), realm):
            print(f"made {label}")  # noqa: T201 - the answer of the command
    finally:
        store.close()
        token.close()


def _authority(config: Config, policy: Policy, action: str, output: str) -> None:
    if config.identity is None:
        raise settings.SettingsError(
            "There is no section [identity], and so no certificate authority.", key="identity"
        )
    store = _store(config)
    try:
        realm = realm_of(config.identity, _in_force(store, policy))
        if action == "rotate":
            token = _token(config)
            try:
                authority_command.rotate(token, store, realm, store.clock_ms() or now_ms())
            finally:
                token.close()
        found = authority_command.status(store, realm.lifetimes, now_ms())
        told = authority_command.as_json if output == "json" else authority_command.shown
        print(told(found))  # noqa: T201 - the answer
    finally:
        store.close()


def _serve(config: Config, policy: Policy, reload: Callable[[], Config]) -> None:
    store = _store(config)
    metrics = Metrics()
    telemetry = otel.start("capsign-adapter", __version__, metrics, os.environ)
    try:
        token = CountedToken(_token(config), metrics)
        replica = Replica(config, policy, token, store, (metrics, telemetry.tracer))
        replica.drift.reload_with(reload)
        run_until_signalled(replica)
    finally:
        telemetry.close()


def _store(config: Config, *, create: bool = False, trial: bool = False) -> Store:
    try:
        return open_store(
            config.store.url, create=create, trial=trial, password_file=config.store.password_file
        )
    except ValueError as error:
        raise settings.SettingsError(
            f"The key `store.url` names no store. {error}", key="store.url"
        ) from None


def _token(config: Config, *, cautious: bool = False) -> Token:
    token = config.token
    try:
        return open_token(
            TokenSettings(
                token.module, token.label, token.pin_file, token.config, cautious=cautious
            )
        )
    except ValueError as error:
        raise settings.SettingsError(
            f"The section [token] for {config.token.module} is not good: {error}.", key="token"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="capsign-adapter", description=__doc__)
    parser.add_argument("--version", action="version", version=f"capsign-adapter {__version__}")
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        help="TOML file; CAPSIGN_ADAPTER_* variables override it",
    )
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="try what a start would, change nothing, say what is wrong, and end",
    )
    parser.add_argument(
        "--check-documents",
        action="store_true",
        help="read configuration and policy only: where token and store are not",
    )
    parser.add_argument(
        "-o", "--output", choices=["text", "json"], default="text", help="how `authority` answers"
    )
    parser.add_argument(
        "command", nargs="?", choices=["serve", "provision", "authority"], default="serve"
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=["status", "rotate"],
        help="of `authority`; status if none is named",
    )
    return parser


if __name__ == "__main__":
    main()
