"""The agent's configuration: one TOML file, overridden by CAPSIGN_AGENT_<SECTION>_<KEY> variables.
Unknown keys are refused.

In a pod there is no file: its text is in the variable CAPSIGN_AGENT_CONFIG.

Which process may use a socket is decided by who mounts its directory: one socket per container. A
check of the caller's uid would need SO_PEERCRED, which grpcio does not give, so no key here offers
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from capsign_wire import addresses, settings, svid, unix_socket
from capsign_wire.algorithms import BY_NAME
from msgspec import Meta

from capsign_agent import evidence_settings, front_settings

ENV_PREFIX = "CAPSIGN_AGENT"

MAX_BUNDLE_CHARS = 64 * 1024
"""Longest trust bundle, characters of PEM."""

_MODE = re.compile(r"0?[0-7]{3}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

Millis = Annotated[int, Meta(ge=1, le=600_000)]


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The adapter's replicas."""

    targets: Annotated[tuple[str, ...], Meta(min_length=1, max_length=16)]
    """host:port of each replica; all are used, and those that fail are avoided until they answer
    again.
    """
    server_name: str = ""
    """DNS name that the adapter's certificate must carry; empty: the host of the target. (gRPC's
    Python client compares DNS names and addresses only, so the adapter's SPIFFE ID cannot be
    demanded here: let its CA give this name to nobody else.)
    """
    streams: Annotated[int, Meta(ge=1, le=8)] = 2
    """Signing streams to each target, each on a connection of its own."""
    timeout_ms: Millis = 10_000
    """Longest time a call takes; callers may ask for less."""
    connect_timeout_ms: Millis = 3_000
    """Longest time one attempt to connect takes."""
    unreachable_after_ms: Annotated[int, Meta(ge=0, le=600_000)] = 3_000
    """With no connection for this long, new calls are refused when one more attempt to connect has
    failed, in about a second at most, instead of waiting for their deadline.
    """


class Files(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Credentials in files, as cert-manager's CSI driver writes them. PEM; read again when they
    change.
    """

    ca_file: Path
    """The authorities to trust."""
    cert_file: Path
    """The agent's certificate, with intermediates after it."""
    key_file: Path
    """Its private key, without a passphrase; readable by the agent only."""


class Kubernetes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A certificate from the adapter's own authority, for the pod's service account. The key never
    leaves the agent's memory.
    """

    enrolment_targets: Annotated[tuple[str, ...], Meta(min_length=1, max_length=16)]
    """host:port of each replica's enrolment address. `upstream.server_name` holds there too."""
    bundle: Annotated[str, Meta(max_length=MAX_BUNDLE_CHARS)]
    """PEM of the authorities to trust first. Those that the adapter names later are kept in
    `state_dir`.
    """
    state_dir: Path
    """Where the newest trust bundle is kept, so that a container that restarts in an old pod trusts
    the authority of today.
    """
    token_file: Path = Path("/var/run/secrets/capsign/token")
    """The projected service account token with the adapter's audience. Read anew for each request:
    the kubelet changes it.
    """


class WorkloadApi(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The SPIFFE Workload API, as SPIRE's agent serves it."""

    socket: Path
    """Its Unix socket."""
    spiffe_id: str = ""
    """Which of the identities to take where there are several; empty: the first, which is the
    default one.
    """


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the agent's certificate comes from."""

    source: str = "files"
    """files, kubernetes or workload-api. The section of that name must be there, and no other."""
    files: Files | None = None
    kubernetes: Kubernetes | None = None
    workload_api: WorkloadApi | None = None


class Narrow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a socket's handles are narrowed to, offline, as a block in the handle itself. Empty: not
    narrowed.
    """

    algorithms: tuple[str, ...] = ()
    role: str = ""
    ttl_s: Annotated[int, Meta(ge=0, le=86_400)] = 0


class Socket(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One socket for one container."""

    name: str
    """Label of the caller in evidence: a policy name."""
    path: Path
    """Absolute, at most 107 bytes, of any letters but a comma. Its directory is made with mode 0700
    if it is absent, and must belong to the agent.
    """
    mode: str = "0660"
    """Mode of the socket itself, octal. 0666 where a container with another uid mounts it: who
    mounts the volume may call.
    """
    directory_mode: str = "0700"
    """Mode of its directory: 0700, or 0710, 0750, 0711 or 0755 where a container with another uid
    mounts it.
    """
    grants: tuple[str, ...] = ()
    """Grants offered on this socket; empty: all of the workload's."""
    narrow: Narrow = Narrow()


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sockets on which the agent says how it is."""

    path: Path
    """grpc.health.v1."""
    probe_path: Path | None = None
    """One line of text for `capsign_agent/probe.py`; by default the health socket's path with
    `.probe` after it.
    """


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of the process."""

    queue_items: Annotated[int, Meta(ge=1024, le=1_048_576)] = 16_384
    """Items waiting for a stream; more are refused as OVERLOADED."""
    queue_bytes: Annotated[int, Meta(ge=4_194_304, le=1_073_741_824)] = 16_777_216
    """Bytes of input waiting for a stream."""
    stream_calls: Annotated[int, Meta(ge=1, le=4096)] = 256
    """Calls in work on one application stream, or answered and not read yet; further ones wait in
    the socket.
    """
    call_bytes: Annotated[int, Meta(ge=12_582_912, le=1_073_741_824)] = 33_554_432
    """Bytes that calls may hold, at work or answered and not read yet, in equal shares for the
    sockets; more are refused as OVERLOADED. Less where the memory limit of the control group leaves
    less. One call at a time that is too heavy for a share has a place of its own (17 MiB). A stream
    is not read from while its calls hold a quarter of its socket's share.
    """
    public_keys: Annotated[int, Meta(ge=16, le=65_536)] = 1024
    """Contexts whose public keys are kept."""
    clock_skew_s: Annotated[int, Meta(ge=0, le=300)] = 5
    """How far past its expiry a handle is still sent; the adapter's clock decides."""
    revocations_heard_s: Annotated[int, Meta(ge=30, le=86_400)] = 900
    """How long after the last word of an adapter handles are still offered and signatures are
    verified. Later that is unavailable (REVOCATIONS_UNHEARD), since they may have been revoked
    meanwhile. An adapter says how things are every 15 s.
    """
    drain_ms: Millis = 10_000
    """Longest time for a drain: calls in flight, then the journal."""


class Telemetry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is told to the outside, besides evidence. Exporters are set by the standard OTEL_*
    variables.
    """

    log_level: str = "info"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    upstream: Upstream
    identity: Identity
    sockets: Annotated[tuple[Socket, ...], Meta(min_length=1, max_length=16)]
    journal: evidence_settings.Journal
    health: Health
    log: evidence_settings.Log = evidence_settings.Log()
    front: front_settings.Front = front_settings.Front()
    limits: Limits = Limits()
    telemetry: Telemetry = Telemetry()

    @property
    def probe_path(self) -> Path:
        """Returns the path of the socket at which the probe connects."""
        return self.health.probe_path or Path(f"{self.health.path}.probe")


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Returns the checked configuration. Raises settings.SettingsError with a sentence that names
    the key and the fix.
    """
    if path is None and f"{ENV_PREFIX}_CONFIG" not in environ:
        raise settings.SettingsError(
            f"There are no settings. Give --config FILE, or the text of one in {ENV_PREFIX}_CONFIG."
        )
    config = settings.load(path, Config, ENV_PREFIX, environ)
    for key, sentence in _faults(config):
        raise settings.SettingsError(f"The key `{key}` {sentence}", key=key)
    return config


def _faults(config: Config) -> list[tuple[str, str]]:
    faults: list[tuple[str, str]] = []
    faults += _target_faults("upstream.targets", config.upstream.targets)
    faults += _identity_faults(config.identity)
    names = [one.name for one in config.sockets]
    for index, one in enumerate(config.sockets):
        where = f"sockets[{index}]"
        if not _NAME.fullmatch(one.name):
            faults.append(
                (
                    f"{where}.name",
                    "must be lower-case letters, digits, '.', '_' and '-', at most 64.",
                )
            )
        if names.count(one.name) > 1:
            faults.append((f"{where}.name", "is used twice; give each socket its own."))
        if not _MODE.fullmatch(one.mode):
            faults.append((f"{where}.mode", 'must be an octal mode, for example "0660".'))
        if one.directory_mode not in {"0700", "0710", "0750", "0711", "0755"}:
            faults.append(
                (
                    f"{where}.directory_mode",
                    "must be 0700, 0710, 0750, 0711 or 0755: only the agent may write there.",
                )
            )
        faults += [
            (
                f"{where}.narrow.algorithms",
                f"names an algorithm that is not known; known are {', '.join(BY_NAME)}.",
            )
            for name in one.narrow.algorithms
            if name not in BY_NAME
        ]
        if one.narrow.role and not _NAME.fullmatch(one.narrow.role):
            faults.append((f"{where}.narrow.role", "must be a policy name."))
    paths = [one.path for one in config.sockets] + [config.health.path, config.probe_path]
    for path in paths:
        why = unix_socket.fault(path) if path.is_absolute() else "must be an absolute path"
        if why:
            faults.append((unix_socket.shown(path), f"{why}."))
        if [unix_socket.absolute(each) for each in paths].count(unix_socket.absolute(path)) > 1:
            faults.append((unix_socket.shown(path), "is used for two sockets; give each its own."))
    faults += evidence_settings.faults(config.log) + front_settings.faults(config.front)
    if config.telemetry.log_level not in {"debug", "info", "warning", "error"}:
        faults.append(("telemetry.log_level", "must be debug, info, warning or error."))
    return faults


def _identity_faults(identity: Identity) -> list[tuple[str, str]]:
    sections = {
        "files": identity.files,
        "kubernetes": identity.kubernetes,
        "workload-api": identity.workload_api,
    }
    if identity.source not in sections:
        return [("identity.source", f"must be one of {', '.join(sections)}.")]
    faults: list[tuple[str, str]] = []
    if sections[identity.source] is None:
        faults.append(
            (
                _section(identity.source),
                f'is missing: identity.source is "{identity.source}". Add the section.',
            )
        )
    faults += [
        (
            _section(name),
            f'is not used: identity.source is "{identity.source}". Remove the section.',
        )
        for name, section in sections.items()
        if section is not None and name != identity.source
    ]
    kubernetes, workload_api = identity.kubernetes, identity.workload_api
    if kubernetes is not None:
        faults += _target_faults(
            "identity.kubernetes.enrolment_targets", kubernetes.enrolment_targets
        )
        for key, path in (
            ("state_dir", kubernetes.state_dir),
            ("token_file", kubernetes.token_file),
        ):
            if not path.is_absolute():
                faults.append((f"identity.kubernetes.{key}", "must be an absolute path."))
    if workload_api is not None:
        if not workload_api.socket.is_absolute():
            faults.append(
                ("identity.workload_api.socket", "must be an absolute path, without a scheme.")
            )
        elif unix_socket.fault(workload_api.socket):
            faults.append(
                ("identity.workload_api.socket", f"{unix_socket.fault(workload_api.socket)}.")
            )
        if workload_api.spiffe_id and not svid.SPIFFE_ID.fullmatch(workload_api.spiffe_id):
            faults.append(("identity.workload_api.spiffe_id", "must be a SPIFFE ID, or empty."))
    return faults


def _target_faults(key: str, targets: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for index, target in enumerate(targets):
        try:
            addresses.target(target)
        except ValueError as error:
            yield f"{key}[{index}]", f"{error}."


def _section(source: str) -> str:
    return f"identity.{source.replace('-', '_')}"
