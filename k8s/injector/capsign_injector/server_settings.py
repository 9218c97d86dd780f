"""The section `server` of the injector's settings: its listeners, its serving certificate, its
bounds. Pure.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from capsign_wire import addresses
from msgspec import Meta

LogLevel = Literal["debug", "info", "warning", "error"]

DNS_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
OBJECT_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
)
"""Like a DNS name, but for the API server a part of it may be longer than 63."""

Life = Annotated[int, Meta(ge=60, le=315_360_000)]


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The webhook's own process."""

    listen: str = "0.0.0.0:8443"
    """host:port of the webhook, HTTPS. `[::]:8443` takes IPv4 too."""
    health: str = "0.0.0.0:8080"
    """host:port of liveness and readiness, without TLS."""
    certificate: Literal["own", "files"] = "own"
    """"own": made, rotated and published by the injector itself. "files": `cert_file` and
    `key_file`, made by others, read anew when they change; the webhook configuration is then not
    touched.
    """
    cert_file: str = ""
    """PEM, the leaf first, for "files"."""
    key_file: str = ""
    """PEM without a passphrase, for "files"."""
    namespace: str = "capsign-system"
    """Where the injector runs, with its Service and its Secret."""
    service: str = "capsign-injector"
    """Service in front of it: the name in its certificate is <service>.<namespace>.svc."""
    further_names: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    """More DNS names for the certificate, where the webhook is called by URL."""
    secret: str = "capsign-injector-tls"  # noqa: S105 - a name
    """Secret that holds authority and serving certificate, for "own"."""
    webhook_configuration: str = "capsign-injector"
    """MutatingWebhookConfiguration into which the authority is published, for "own"."""
    authority_life_s: Life = 31_536_000
    """How long an authority is valid. Its successor is made after two thirds of it."""
    leaf_life_s: Life = 2_592_000
    """How long a serving certificate is valid. It is renewed after two thirds of it."""
    propagation_s: Annotated[int, Meta(ge=2, le=86_400)] = 600
    """How long until every API server has seen what was published and every replica what is in the
    Secret; clock differences between API servers included. An authority is published for this long
    before it serves, and after it served last.
    """
    look_s: Annotated[int, Meta(ge=1, le=3_600)] = 30
    """How often the Secret and the webhook configuration are looked at."""
    confirm_bundle: bool = True
    """Give pods a trust bundle only when the adapter at `adapter.enrolment_targets` has a
    certificate of it. Turn off where the injector cannot reach the adapter.
    """
    api_server: str = ""
    """URL of the Kubernetes API; empty: what Kubernetes puts into the environment of every pod."""
    token_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
    ca_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    max_reviews: Annotated[int, Meta(ge=1, le=65_536)] = 1_280
    """Reviews in work at once; to one more the API server is told to come again after a second, and
    does.
    """
    max_review_bytes: Annotated[int, Meta(ge=8_388_608, le=1_073_741_824)] = 33_554_432
    """Bytes of all bodies in work at once."""
    max_connections: Annotated[int, Meta(ge=16, le=65_536)] = 1_280
    """Connections, each about 60 KiB; for one more the one that is idle longest is closed."""
    drain_delay_s: Annotated[int, Meta(ge=0, le=120)] = 10
    """After SIGTERM: how long connections are still taken, while the cluster learns that this
    replica is not ready.
    """
    drain_s: Annotated[int, Meta(ge=1, le=120)] = 15
    """After that: longest time for reviews in work. `terminationGracePeriodSeconds` must be above
    the sum of both.
    """
    log_level: LogLevel = "info"

    @property
    def names(self) -> tuple[str, ...]:
        """DNS names of the serving certificate; the first is what the API server asks for."""
        return (f"{self.service}.{self.namespace}.svc", *self.further_names)


def address(text: str) -> tuple[str | None, int]:
    """Host (None: all) and port of a listener. `text` has passed `faults`."""
    found = addresses.listener(text)
    return found.host or None, found.port


def faults(server: Server) -> list[tuple[str, str]]:
    """What the types cannot say: pairs of a key and a sentence with its fix."""
    found = [
        (key, sentence)
        for key, value, form, sentence in (
            ("namespace", server.namespace, DNS_NAME, "must be the name of a namespace."),
            ("service", server.service, DNS_NAME, "must be the name of a Service."),
            ("secret", server.secret, OBJECT_NAME, "must be the name of a Secret."),
            (
                "webhook_configuration",
                server.webhook_configuration,
                OBJECT_NAME,
                "must be an object's name.",
            ),
            *(
                (f"further_names[{index}]", name, DNS_NAME, "must be a DNS name in lower case.")
                for index, name in enumerate(server.further_names)
            ),
        )
        if not form.fullmatch(value)
    ]
    for key, text in (("listen", server.listen), ("health", server.health)):
        try:
            addresses.listener(text)
        except ValueError as error:
            found.append((key, f"{error}."))
    if server.api_server:
        try:
            addresses.https(server.api_server)
        except ValueError as error:
            found.append(("api_server", f"{error}, or be left out."))
    if server.certificate == "files":
        found += [
            (key, 'must be an absolute path when `server.certificate` is "files".')
            for key, path in (("cert_file", server.cert_file), ("key_file", server.key_file))
            if not path.startswith("/")
        ]
    else:
        found += _rotation_faults(server)
    return found


def _rotation_faults(server: Server) -> list[tuple[str, str]]:
    """A rotation takes two propagation times, and must be over before what it replaces ends."""
    found = []
    if server.look_s * 2 > server.propagation_s:
        found.append(
            (
                "look_s",
                "must be at most half of `propagation_s`: a replica that looks late "
                "serves what is gone.",
            )
        )
    if server.leaf_life_s < 6 * server.propagation_s:
        found.append(("leaf_life_s", "must be at least six times `propagation_s`."))
    if server.authority_life_s < 2 * server.leaf_life_s:
        found.append(("authority_life_s", "must be at least twice `leaf_life_s`."))
    return found
