"""The adapter's configuration: one TOML file, overridden by CAPSIGN_ADAPTER_* variables. Unknown
keys are refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from capsign_wire import addresses, settings
from msgspec import Meta

from capsign_adapter.decide.authority_schedule import Lifetimes
from capsign_adapter.decide.reconcile_settings import Reconcile
from capsign_adapter.log_config import LogConfig as LogConfig
from capsign_adapter.log_config import log_faults

ENV_PREFIX = "CAPSIGN_ADAPTER"

_DNS_NAME = re.compile(r"[0-9A-Za-z]([0-9A-Za-z.-]{0,251}[0-9A-Za-z])?")
_CONFIG_MAP = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where one replica listens: one process, one address."""

    address: str
    """host:port for agents, over mTLS. People with roles are served here too; see
    `admin_address`.
    """
    admin_address: str = ""
    """host:port for operators, responders and auditors, over mTLS, with connections and threads of
    its own: what workloads do at the other addresses keeps nobody here from revoking. Empty: people
    share `address` with the workloads."""
    enrolment_address: str = ""
    """host:port for agents that have no certificate yet; needs `[identity.kubernetes]`. Empty:
    nobody enrols here.
    """
    health_address: str = "127.0.0.1:0"
    """host:port for grpc.health.v1 without TLS; keep it on the loopback or pod network. Port 0 is
    any free one, on the loopback only; the line `adapter.serving` of the log names it.
    """
    public_address: str = ""
    """host:port for whoever verifies, over HTTPS with the certificate of `[tls]`: JWK Sets at
    `/v1/jwks/TENANT/GRANT`, for anybody to read. Empty: no such listener.
    """
    streams: Annotated[int, Meta(ge=4, le=4096)] = 32
    """Calls and streams served at once, each on a thread of its own; the next one is refused. Half
    are kept for the tenants, an equal part for each, and an eighth for people with roles; the rest
    is common. One workload (SPIFFE ID) may hold three quarters of them with streams (16 at least)
    and seven eighths with all its calls (24 at least). Pods of one service account are one
    workload, and each has its signing streams and one that watches.
    """
    message_bytes: Annotated[int, Meta(ge=262_144, le=4_194_304)] = 262_144
    """Largest request, bytes. So much may be held for each of `streams` before anybody has looked
    at it, and the adapter does not start where that does not fit into the memory limit of its
    control group. Agents split what they send accordingly.
    """


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The certificate that this replica serves with, and whom it believes. Files are PEM and are
    read again when they change.
    """

    source: str = "files"
    """`files`: the three files below. `authority`: a certificate from our own authority
    (`[identity]`), for a key that is only in memory; whom it signed is believed, and whom
    `client_ca` signed.
    """
    certificate: Path | None = None
    """For `files`: the server's certificate, with intermediates after it."""
    private_key: Path | None = None
    """For `files`: its private key, without a passphrase."""
    client_ca: Path | None = None
    """Who signs the certificates of clients. With `authority` it may be left out, or name a further
    CA, for operators.
    """
    names: Annotated[tuple[str, ...], Meta(max_length=32)] = ()
    """For `authority`: DNS names and addresses under which clients reach this adapter."""


class TokenConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The PKCS#11 token. The PIN is in a secret file: one line."""

    module: Path
    label: str
    pin_file: Path
    config: Path | None = None
    """What the module itself reads: softhsm2.conf for SoftHSM, the database directory for NSS."""


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The store: sqlite:///path (a URL: %25 for %, %3F for ?, %23 for #) or
    postgresql://user@host/database, with the password in a file.
    """

    url: str
    password_file: Path | None = None
    capacity_bytes: Annotated[int, Meta(ge=0, le=1_125_899_906_842_624)] = 0
    """What the tables of a PostgreSQL store may take before its disk is full; 0: unknown. Changes
    nothing but the metrics `capsign.store.free` and `capsign.store.time_to_full`.
    """


class Subkeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of the subkeys in memory."""

    most: Annotated[int, Meta(ge=1, le=1_048_576)] = 4096
    """Subkeys held at once."""
    seconds: Annotated[int, Meta(ge=1, le=86_400)] = 300
    """Longest life of a subkey in memory."""


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often this replica looks for changes that others made."""

    poll_ms: Annotated[int, Meta(ge=10, le=60_000)] = 200
    """Between looks at the revocation epoch, which another replica's `revoke` waits for. A commit
    compares the epoch itself.
    """
    lease_ms: Annotated[int, Meta(ge=500, le=60_000)] = 3000
    """How long after the start of its commit a batch may be released, and so the longest that a
    dead replica, a peer that does not read, or a large batch among many delays a revocation.
    """
    lease_margin_ms: Annotated[int, Meta(ge=250, le=60_000)] = 1000
    """How much longer than a lease a revocation waits: for clocks that run at different rates and
    threads that were paused.
    """
    collect_every_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    """Between collections of intents older than the retention."""
    refusals_per_second: Annotated[int, Meta(ge=1, le=1_000_000)] = 200
    """Refusals recorded for one workload each second before it is rate limited, and beside them as
    many intents that it resolves and never sent; protects ledger and log from floods.
    """
    calls_per_second: Annotated[int, Meta(ge=1, le=1_000_000)] = 500
    """Calls of each method, other than signing, that are answered for one workload each second, and
    five times as many at once; a call counts once more for each 64 KiB of its request. Protects
    store and token from floods of look-ups, checks of tags and batches of agents' records, which
    then wait in the agents' journals. Who has a role is not counted.
    """
    work_ms_per_second: Annotated[int, Meta(ge=0, le=1_000_000)] = 200
    """Milliseconds of one CPU that a workload may use each second for other things than signatures,
    and five times as many at once: verifying handles, minting them, deriving keys, look-ups,
    refusals. Each kind has its price and is charged before it is done; signatures have their
    grant's rate. A tenant may use twice as much. The pods of a workload share it, and none can use
    it up. Who has a role is not charged. 0: no limit.
    """
    other_evidence_mib_per_day: Annotated[int, Meta(ge=0, le=1_048_576)] = 1024
    """MiB of evidence that a workload may cause in a day beside its signatures: refusals, intents
    closed as never sent, records of its agents. Each signature adds what its report takes. Beyond
    it refusals are told and not recorded, and agents keep their records in their journals. For each
    replica, anew when it starts. 0: no limit.
    """
    evidence_mib_per_day: Annotated[int, Meta(ge=0, le=1_073_741_824)] = 0
    """The same for everything, signatures included, 800 bytes each: for a disk that must last.
    Beyond it the signatures of the workload are refused as RATE_LIMITED. 0: no limit; then
    signatures have their grant's rate only.
    """


class Kubernetes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The cluster whose pods may enrol, as it looks from a pod of the adapter."""

    api_server: str = "https://kubernetes.default.svc"
    """URL of the API server."""
    token_file: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    """The adapter's own service account token; it changes, and is read anew."""
    ca_file: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
    """PEM of the CA of the API server."""
    audience: Annotated[str, Meta(min_length=1, max_length=255)] = "capsign"
    """What the tokens of agents must be meant for."""
    pod_address_check: bool = True
    """Whether an agent must connect from the address of the pod that its token is bound to. Turn it
    off only where the network changes source addresses between pods.
    """
    host_network_pods: bool = False
    """Whether pods on their node's network may enrol from any address. Theirs is the node's, and on
    the way to an adapter on the same node it may become another; it proves little in any case.
    """
    bundle_config_map: str = ""
    """namespace/name of the ConfigMap in which this adapter publishes what to trust, as
    `bundle.pem`. Empty: none.
    """


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The certificate authority, whose key is in the token. Without this section there is none, and
    nobody enrols.
    """

    svid_ttl_s: Annotated[int, Meta(ge=1, le=604_800)] = 3600
    """Life of a certificate; it is renewed at half of it."""
    authority_ttl_s: Annotated[int, Meta(ge=1, le=315_360_000)] = 31_536_000
    """Life of an authority; the next one is prepared after two thirds of it."""
    propagation_s: Annotated[int, Meta(ge=1, le=2_592_000)] = 600
    """How long a new authority is published before it signs: longer than a pod takes from its
    admission to its enrolment.
    """
    kubernetes: Kubernetes | None = None


class Chart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the chart was installed with; if policy or software say otherwise, that is drift."""

    trust_domain: Annotated[str, Meta(max_length=255)] = ""
    """Its value `trustDomain`; empty: not stated."""
    app_version: Annotated[str, Meta(max_length=64)] = ""
    """Its appVersion; empty: not stated."""
    grants: Annotated[tuple[str, ...], Meta(max_length=1024)] = ()
    """Grants that the profiles of its agents name (`agent.profiles`)."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    listen: Listen
    tls: Tls
    token: TokenConfig
    store: StoreConfig
    log: LogConfig
    policy: Path
    subkeys: Subkeys = Subkeys()
    control: Control = Control()
    identity: Identity | None = None
    chart: Chart | None = None
    reconcile: Reconcile = Reconcile()
    drain_seconds: Annotated[float, Meta(ge=0, le=600)] = 10.0
    """How long a stopping adapter waits for calls in flight."""


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Returns the checked configuration. Raises settings.SettingsError with a sentence that names
    the key and the fix.
    """
    config = settings.load(path, Config, ENV_PREFIX, environ)
    for key, sentence in _faults(config):
        raise settings.SettingsError(f"The key `{key}` {sentence}", key=key)
    return config


def lifetimes(identity: Identity) -> Lifetimes:
    """Returns how long certificates and authorities live, milliseconds."""
    return Lifetimes(
        identity.svid_ttl_s * 1000, identity.authority_ttl_s * 1000, identity.propagation_s * 1000
    )


def _faults(config: Config) -> Iterator[tuple[str, str]]:
    yield from _tls_faults(config)
    yield from _address_faults(config.listen)
    if config.listen.enrolment_address and (
        config.identity is None or config.identity.kubernetes is None
    ):
        yield (
            "listen.enrolment_address",
            "needs the section [identity.kubernetes]: who enrols is asked of a cluster. Add it.",
        )
    if config.identity is not None:
        yield from _identity_faults(config.identity)
    yield from log_faults(config.log)
    if not config.reconcile.ordered:
        yield (
            "reconcile.silence_seconds",
            "must not be below `report_seconds` nor above `cut_tail_seconds`.",
        )


def _address_faults(listen: Listen) -> Iterator[tuple[str, str]]:
    """Returns the faults of every key of the section that is an address; an empty one is none,
    where that may be.
    """
    for name in listen.__struct_fields__:
        if not name.endswith("address") or (name != "address" and not getattr(listen, name)):
            continue
        try:
            addresses.listener(getattr(listen, name))
        except ValueError as error:
            yield f"listen.{name}", f"{error}."


def _tls_faults(config: Config) -> Iterator[tuple[str, str]]:
    tls = config.tls
    files = {"certificate": tls.certificate, "private_key": tls.private_key}
    if tls.source == "files":
        for name, path in {**files, "client_ca": tls.client_ca}.items():
            if path is None:
                yield f"tls.{name}", 'is missing: `tls.source` is "files". Name the PEM file.'
        if tls.names:
            yield (
                "tls.names",
                'is not used: `tls.source` is "files", and the names are in the '
                "certificate. Remove it.",
            )
    elif tls.source == "authority":
        for name, path in files.items():
            if path is not None:
                yield (
                    f"tls.{name}",
                    'is not used: `tls.source` is "authority". Remove it, or change the source.',
                )
        if config.identity is None:
            yield "tls.source", 'is "authority", and there is no section [identity]. Add it.'
        if not tls.names:
            yield (
                "tls.names",
                "is missing. List the DNS names and addresses under which clients reach "
                "this adapter.",
            )
        for name in tls.names:
            if not _is_name(name):
                yield "tls.names", "must list DNS names and addresses, without ports."
    else:
        yield "tls.source", "must be files or authority."


def _is_name(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return _DNS_NAME.fullmatch(name) is not None
    return True


def _identity_faults(identity: Identity) -> Iterator[tuple[str, str]]:
    least_s = -(-lifetimes(identity).least_authority_ms // 1000)
    if identity.authority_ttl_s < least_s:
        yield (
            "identity.authority_ttl_s",
            f"must be at least {least_s}: in its last third an authority publishes its "
            f"successor (`propagation_s`) and outlives "
            "the last certificate that it signed (`svid_ttl_s`).",
        )
    kubernetes = identity.kubernetes
    if kubernetes is None:
        return
    try:
        addresses.https(kubernetes.api_server)
    except ValueError as error:
        yield "identity.kubernetes.api_server", f"{error}."
    if kubernetes.bundle_config_map and not _CONFIG_MAP.fullmatch(kubernetes.bundle_config_map):
        yield "identity.kubernetes.bundle_config_map", "must be namespace/name of a ConfigMap."
    for name, path in (("token_file", kubernetes.token_file), ("ca_file", kubernetes.ca_file)):
        if not path.is_absolute():
            yield f"identity.kubernetes.{name}", "must be an absolute path."
