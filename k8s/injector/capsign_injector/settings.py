"""The injector's settings: one strict YAML file that the platform team owns, usually written by the
chart into a ConfigMap. Pure.

A profile is a named set of values for the agents of some pods, and what an annotation may change in
it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
import yaml
from capsign_wire import addresses, settings
from capsign_wire.settings import SettingsError
from msgspec import Meta

from capsign_injector import __version__, quantity, server_settings
from capsign_injector.server_settings import DNS_NAME, OBJECT_NAME, LogLevel, Server

MAX_FILE_BYTES = 256 * 1024
"""Largest settings file, bytes."""

STATE_SPARE_BYTES = 8 * 1024 * 1024
"""What the agent's state volume holds beside the journal: certificates, trust bundles, sockets."""

MaySet = Literal["log-level", "cpu-request", "memory-limit", "otlp-endpoint"]

_POLICY_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PROFILE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
ENDPOINT = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?/?")
"""An OTLP/gRPC endpoint."""
_RATIO = re.compile(r"0(\.[0-9]{1,12})?|1(\.0{1,12})?")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
CONFIG_ENV = "CAPSIGN_AGENT_CONFIG"
"""Variable that holds the agent's configuration."""
_AUDIENCE = re.compile(r"[!-~]{1,253}")


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Values for the agent of a pod, and the bounds of what the pod's annotations may change in
    them.
    """

    grants: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    """Grants offered on the sockets of this profile; empty: all that policy gives to the workload.
    It only ever narrows.
    """
    namespaces: Annotated[tuple[str, ...], Meta(max_length=256)] = ()
    """Namespaces whose pods may choose this profile; empty: all."""
    log_level: LogLevel = "info"
    cpu_request: str = "10m"
    cpu_limit: str = ""
    """Empty: none, so that a burst of signatures is not throttled. A pod whose quality of service
    is Guaranteed needs one: there the agent's request and limit are this, or `cpu_request_max`
    where it is empty.
    """
    memory_request: str = "64Mi"
    memory_limit: str = "128Mi"
    """Of an agent with one socket or two."""
    memory_limit_per_socket: str = "24Mi"
    """What each further socket adds to it, up to `memory_limit_max`; empty: nothing. A pod that
    asks for a limit itself gets that.
    """
    ephemeral_storage: str = "32Mi"
    """Request and limit: what the agent writes to its log."""
    may_set: tuple[MaySet, ...] = ("log-level", "cpu-request", "memory-limit")
    """Annotations that a pod may use to change this profile's values, within the bounds below."""
    gate_readiness: bool = False
    """Whether a pod is ready only while its agent can sign: it leaves its Services while no adapter
    can be reached.
    """
    cpu_request_max: str = "500m"
    memory_limit_max: str = "512Mi"


class EnvVar(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One more environment variable of the agent: a text, or a field of the pod."""

    name: str
    value: str = ""
    field_path: str = ""
    """Such as spec.nodeName, instead of `value`."""


class Telemetry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What agents export by OpenTelemetry."""

    otlp_endpoint: str = ""
    """OTLP/gRPC endpoint, as the agents' pods reach it, such as http://collector.monitoring:4317.
    Empty: nothing is exported, unless the profile lets a pod name an endpoint by its annotation.
    """
    metric_interval_s: Annotated[int, Meta(ge=1, le=3600)] = 60
    traces_sample_ratio: str = "0.01"
    """Share of the calls without a trace of their own that are traced, from 0.0 to 1.0."""


class Csi(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A volume that a CSI driver of the node fills, mounted in the agent alone, read-only, at
    /var/run/secrets/capsign.
    """

    driver: str
    """Such as csi.spiffe.io or spiffe.csi.cert-manager.io."""
    attributes: dict[str, str] = {}


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where agents have their certificate from."""

    source: Literal["kubernetes", "workload-api", "files"] = "kubernetes"
    """"kubernetes": from the adapter, for the pod's service account. "workload-api": from SPIRE,
    over the socket in `csi`. "files": what the driver of `csi` writes. The adapter must trust
    whoever signs them.
    """
    csi: Csi | None = None
    socket: str = "spire-agent.sock"
    """Name of the socket in the volume, for "workload-api"."""
    ca_file: str = "ca.crt"
    """Names of the files in the volume, for "files"."""
    cert_file: str = "tls.crt"
    key_file: str = "tls.key"


class Adapter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where agents find the adapter."""

    targets: Annotated[tuple[str, ...], Meta(min_length=1, max_length=16)] = (
        "capsign-adapter.capsign-system.svc:7443",
    )
    """host:port of each replica's mTLS listener, or of the Service before them."""
    enrolment_targets: Annotated[tuple[str, ...], Meta(min_length=1, max_length=16)] = (
        "capsign-adapter.capsign-system.svc:7444",
    )
    """host:port of the listener where a token becomes a certificate."""
    server_name: str = "capsign-adapter.capsign-system.svc"
    """DNS name that the adapter's certificate carries."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    image: str = f"localhost/capsign-agent:{__version__}"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    """Secrets added to the pod's own; they must be in the pod's namespace."""
    trust_domain: str = "cluster.example"
    """Of the policy. Used in messages only: identities are made by the adapter."""
    audience: str = "capsign"
    """Of the projected token; the adapter takes no other."""
    adapter: Adapter = Adapter()
    bundle_file: str = "/etc/capsign/trust/bundle.pem"
    """Authorities that an agent trusts at first, PEM; read anew when it changes."""
    profiles: Annotated[dict[str, Profile], Meta(min_length=1, max_length=64)] = msgspec.field(
        default_factory=lambda: {"default": Profile()}
    )
    """By name. A pod that names none gets `default`."""
    journal_max_bytes: Annotated[int, Meta(ge=1_048_576, le=268_435_456)] = 8_388_608
    """Size at which an agent stops signing until its records went upstream. It is memory of the
    agent's container.
    """
    allow_host_network: bool = False
    """Take pods with `hostNetwork`. Their address is the node's, so the adapter's check of the
    pod's address proves less.
    """
    allow_node_access: bool = False
    """Take pods with a container that is as good as root on the node (privileged, or with the
    kubelet's directory mounted) and so could reach any agent there. Then there is a warning instead
    of a refusal.
    """
    run_as_user: Annotated[int, Meta(ge=1, le=4_294_967_295)] | None = 65_532
    """Of the agent. null: what the cluster gives, such as a user of the namespace's range on
    OpenShift; else the image's.
    """
    run_as_group: Annotated[int, Meta(ge=1, le=4_294_967_295)] | None = 65_532
    extra_env: Annotated[tuple[EnvVar, ...], Meta(max_length=64)] = ()
    """Further environment variables of the agent."""
    telemetry: Telemetry = Telemetry()
    identity: Identity = Identity()
    harmless_host_paths: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    """Paths of the node that labelled pods may mount, with all that is below them, beside the few
    that the injector knows to be harmless; such as a disk's directory. Whoever can write there must
    gain nothing on the node by it.
    """
    server: Server = Server()

    @property
    def needs_bundle(self) -> bool:
        """Whether agents are given authorities to trust; with another source of identity they come
        from there.
        """
        return self.identity.source == "kubernetes"

    @property
    def cluster_name(self) -> str:
        """A name that agents ask for first and only the cluster's DNS knows; empty: the adapter is
        outside.
        """
        targets = self.adapter.enrolment_targets if self.needs_bundle else self.adapter.targets
        hosts = (addresses.target(one).host for one in targets)
        return next(
            (
                host
                for host in hosts
                if host.endswith((".svc", ".cluster.local")) or not {".", ":"} & set(host)
            ),
            "",
        )

    @property
    def state_bytes(self) -> int:
        """Size limit of the agent's state volume, bytes."""
        return self.journal_max_bytes + STATE_SPARE_BYTES


def parse(data: bytes, source: str) -> Settings:
    """The checked settings in a YAML file's bytes; `source` is its name for messages. Raises
    SettingsError, a sentence that names the key and the fix.
    """
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(
            f"{source} is larger than {MAX_FILE_BYTES} bytes. Is it the right file?"
        )
    try:
        tree = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{source} is not YAML{where}. Correct it there.") from None
    except RecursionError:
        raise SettingsError(f"{source} is nested too deeply. Is it the right file?") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise SettingsError(
            f"{source} must be a mapping of settings. See `values.yaml` of the chart, "
            f"`injector.settings`."
        )
    if isinstance(tree.get("profiles"), dict):
        for name, profile in tree["profiles"].items():
            settings.check(profile, Profile, source, at=f"profiles.{str(name)[:64]}")
    checked = settings.check(tree, Settings, source)
    for key, sentence in _faults(checked):
        raise SettingsError(f"{source}: the key `{key}` {sentence}", key=key)
    return checked


def _faults(given: Settings) -> list[tuple[str, str]]:
    faults = [
        (key, sentence)
        for key, value, form, sentence in (
            (
                "image",
                given.image,
                _IMAGE,
                "must be an image reference such as localhost/capsign-agent:0.1.0.",
            ),
            (
                "trust_domain",
                given.trust_domain,
                DNS_NAME,
                "must be a SPIFFE trust domain such as cluster.example.",
            ),
            (
                "audience",
                given.audience,
                _AUDIENCE,
                "must be 1 to 253 printable ASCII characters without spaces.",
            ),
            (
                "adapter.server_name",
                given.adapter.server_name,
                DNS_NAME,
                "must be a DNS name in lower case.",
            ),
        )
        if not form.fullmatch(value)
    ]
    for name, targets in (
        ("targets", given.adapter.targets),
        ("enrolment_targets", given.adapter.enrolment_targets),
    ):
        for index, target in enumerate(targets):
            try:
                addresses.target(target)
            except ValueError as error:
                faults.append((f"adapter.{name}[{index}]", f"{error}."))
    faults += [
        (f"image_pull_secrets[{index}]", "must be the name of a Secret.")
        for index, name in enumerate(given.image_pull_secrets)
        if not OBJECT_NAME.fullmatch(name)
    ]
    faults += [
        (
            f"harmless_host_paths[{index}]",
            "must be an absolute path without `..`, and not the whole node.",
        )
        for index, path in enumerate(given.harmless_host_paths)
        if not path.startswith("/")
        or ".." in path.split("/")
        or not path.strip("/")
        or not path.isprintable()
    ]
    if given.telemetry.otlp_endpoint and not ENDPOINT.fullmatch(given.telemetry.otlp_endpoint):
        faults.append(
            (
                "telemetry.otlp_endpoint",
                "must be http:// or https:// and host:port, such as http://collector:4317.",
            )
        )
    if not _RATIO.fullmatch(given.telemetry.traces_sample_ratio):
        faults.append(
            ("telemetry.traces_sample_ratio", "must be a number from 0.0 to 1.0, as text.")
        )
    faults += _env_faults(given.extra_env) + _identity_faults(given.identity)
    if not given.bundle_file.startswith("/"):
        faults.append(
            ("bundle_file", "must be an absolute path, for example /etc/capsign/trust/bundle.pem.")
        )
    faults += [
        (f"server.{key}", sentence) for key, sentence in server_settings.faults(given.server)
    ]
    if "default" not in given.profiles:
        faults.append(("profiles", "must have a profile `default`, for pods that name none."))
    for name, profile in given.profiles.items():
        if not _PROFILE_NAME.fullmatch(name):
            faults.append(
                (
                    f"profiles.{name[:64]}",
                    "must be named with at most 63 lower-case letters, digits, '.' and '-'.",
                )
            )
        faults += [
            (f"profiles.{name[:64]}.{key}", sentence)
            for key, sentence in _profile_faults(profile, given.state_bytes)
        ]
    return faults


def _env_faults(given: tuple[EnvVar, ...]) -> list[tuple[str, str]]:
    faults = []
    for index, one in enumerate(given):
        at = f"extra_env[{index}]"
        if (
            not _VARIABLE.fullmatch(one.name)
            or one.name == CONFIG_ENV
            or one.name.startswith("LD_")
        ):
            faults.append(
                (
                    f"{at}.name",
                    f"must be the name of a variable, and neither {CONFIG_ENV} nor the "
                    f"loader's LD_….",
                )
            )
        if one.value and one.field_path:
            faults.append((at, "must have `value` or `field_path`, not both."))
        if one.name in {other.name for other in given[:index]}:
            faults.append((f"{at}.name", "is there twice. Keep one."))
    return faults


def _identity_faults(given: Identity) -> list[tuple[str, str]]:
    if given.source == "kubernetes":
        return (
            [("identity.csi", "is for other sources than kubernetes. Remove it.")]
            if given.csi
            else []
        )
    if given.csi is None or not OBJECT_NAME.fullmatch(given.csi.driver):
        return [("identity.csi.driver", "must be the name of a CSI driver, such as csi.spiffe.io.")]
    names = ("socket", "ca_file", "cert_file", "key_file")
    return [
        (f"identity.{name}", "must be the name of a file in the volume, without `/`.")
        for name in names
        if not _FILE_NAME.fullmatch(getattr(given, name))
    ]


def _profile_faults(profile: Profile, state_bytes: int) -> list[tuple[str, str]]:
    faults = [
        (
            f"grants[{index}]",
            "must be the name of a grant: lower-case letters, digits, '.', '_' and '-', "
            "at most 64.",
        )
        for index, grant in enumerate(profile.grants)
        if not _POLICY_NAME.fullmatch(grant)
    ]
    faults += [
        (f"namespaces[{index}]", "must be the name of a namespace.")
        for index, name in enumerate(profile.namespaces)
        if not DNS_NAME.fullmatch(name)
    ]
    values = {}
    for key in (
        "cpu_request",
        "cpu_limit",
        "cpu_request_max",
        "memory_request",
        "memory_limit",
        "memory_limit_per_socket",
        "memory_limit_max",
        "ephemeral_storage",
    ):
        text = getattr(profile, key)
        if key in {"cpu_limit", "memory_limit_per_socket"} and not text:
            continue
        try:
            values[key] = quantity.parse(text)
        except quantity.NotAQuantityError:
            values[key] = quantity.parse("0")
        if not values[key]:
            faults.append((key, "must be a quantity above 0 such as 10m (cpu) or 64Mi (memory)."))
    if faults:
        return faults
    for lesser, greater in (
        ("cpu_request", "cpu_request_max"),
        ("cpu_request", "cpu_limit"),
        ("memory_request", "memory_limit"),
        ("memory_limit", "memory_limit_max"),
    ):
        if greater in values and values[lesser] > values[greater]:
            faults.append((lesser, f"must not be above `{greater}`."))
    if values["memory_limit"] < 2 * state_bytes:
        faults.append(
            (
                "memory_limit",
                f"must be at least {2 * state_bytes // 2**20}Mi: `journal_max_bytes` is "
                f"kept in that memory too.",
            )
        )
    return faults
