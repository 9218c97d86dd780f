"""The agent's configuration as TOML text; the same settings and pod give the same bytes. Pure.

The text becomes the value of an environment variable, in which Kubernetes replaces `$(NAME)`. So no
`$` is ever written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capsign_wire import pem, toml_text
from capsign_wire.settings import SettingsError

from capsign_injector.names import RUN, STATE, TOKEN_FILE
from capsign_injector.read.annotations import Choices
from capsign_injector.settings import Settings

MAX_BUNDLE_BYTES = 64 * 1024
"""Largest trust bundle, bytes of PEM. Linux allows 128 KiB for one variable."""


@dataclass(frozen=True, slots=True)
class Socket:
    """One container's socket."""

    index: int
    container: str
    grants: tuple[str, ...]


def text(settings: Settings, sockets: Sequence[Socket], choices: Choices, bundle_pem: str) -> str:
    """The whole configuration. `bundle_pem` may be empty if the pod is only inspected. Raises
    SettingsError for a bundle that no agent could use.
    """
    engine = choices.profile.engine
    parts = [
        _table(
            "upstream", targets=settings.adapter.targets, server_name=settings.adapter.server_name
        ),
        _table("identity", source=settings.identity.source),
        _identity(settings, bundle_pem),
        *(
            _table(
                "[sockets]",
                name=one.container,
                path=f"{RUN}/{one.index}/s/agent.sock",
                mode="0666",
                directory_mode="0711",
                grants=one.grants,
            )
            for one in sockets
        ),
        _table("journal", dir=f"{STATE}/journal", max_bytes=settings.journal_max_bytes),
        *([_table("log", key=settings.adapter.log_key)] if settings.adapter.log_key else []),
        _table("health", path=f"{STATE}/health.sock"),
        _table("telemetry", log_level=choices.log_level),
        *([_table("front", engine=engine)] if engine else []),
    ]
    return "\n".join(parts)


def _identity(settings: Settings, bundle_pem: str) -> str:
    identity = settings.identity
    place = TOKEN_FILE.rpartition("/")[0]
    if identity.source == "workload-api":
        return _table("identity.workload_api", socket=f"{place}/{identity.socket}")
    if identity.source == "files":
        names = {
            "ca_file": identity.ca_file,
            "cert_file": identity.cert_file,
            "key_file": identity.key_file,
        }
        return _table("identity.files", **{key: f"{place}/{name}" for key, name in names.items()})
    return (
        _table(
            "identity.kubernetes",
            enrolment_targets=settings.adapter.enrolment_targets,
            token_file=TOKEN_FILE,
        )
        + f'bundle = """\n{certificates(bundle_pem)}"""\n'
        + _lines(state_dir=f"{STATE}/identity")
    )


def certificates(bundle_pem: str) -> str:
    """The certificates in a bundle, without the text between them. Raises SettingsError."""
    if len(bundle_pem) > MAX_BUNDLE_BYTES:
        raise SettingsError(
            f"The trust bundle is larger than {MAX_BUNDLE_BYTES} bytes. Is it the right file?",
            key="bundle_file",
        )
    try:
        found = pem.unverified(bundle_pem.encode(errors="replace"))
    except ValueError as error:
        told = f"The trust bundle cannot be used: {error}. Is it the right file?"
        raise SettingsError(told, key="bundle_file") from None
    if bundle_pem.strip() and not found:
        raise SettingsError(
            "The trust bundle holds no PEM certificate. Is it the right file?", key="bundle_file"
        )
    return pem.written(found).decode()


def _table(name: str, /, **values: object) -> str:
    return f"[{name}]\n{_lines(**values)}"


def _lines(**values: object) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in values.items())


def _value(value: object) -> str:
    return toml_text.value(value, escape="$")
