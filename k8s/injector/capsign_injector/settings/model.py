"""The injector's settings: one strict YAML file that the platform team owns, usually written by the
chart into a ConfigMap. Pure.

A profile is a named set of values for the agents of some pods, and what an annotation may change in
it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from capsign_wire import addresses
from msgspec import Meta

from capsign_injector import __version__
from capsign_injector.server_settings import LogLevel, Server

STATE_SPARE_BYTES = 8 * 1024 * 1024
"""What the agent's state volume holds beside the journal: certificates, trust bundles, sockets."""

MaySet = Literal["log-level", "cpu-request", "memory-limit", "otlp-endpoint"]

ENDPOINT = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?/?")
"""An OTLP/gRPC endpoint."""
CONFIG_ENV = "CAPSIGN_AGENT_CONFIG"
"""Variable that holds the agent's configuration."""


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
    engine: Literal["", "grpcio", "native"] = ""
    """What speaks HTTP/2 on the agent's sockets; empty: the agent's default. With `native` any
    container of the pod can end the agent, so it is for pods whose containers trust each other.
    """
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
    log_key: str = ""
    """The verifier key of its evidence log; empty: each agent keeps the first one that it is
    shown.
    """


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
