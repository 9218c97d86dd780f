"""The parts of the two Kubernetes objects that the injector reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta


@dataclass(frozen=True, slots=True)
class Secret:
    """The Secret; `raw` is None if it does not exist. `rotation` is the value of the operator's
    annotation.
    """

    data: Mapping[str, bytes]
    rotation: str
    raw: Mapping[str, Any] | None

    def __repr__(self) -> str:
        return "Secret(...)"


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The webhook configuration: the PEM that each of its webhooks trusts."""

    bundles: tuple[bytes, ...]
    raw: Mapping[str, Any]


class _Metadata(msgspec.Struct, rename="camel"):
    resource_version: Annotated[str, Meta(min_length=1)]
    """Required: without it a write could not be conditional."""
    annotations: dict[str, str] | None = None


class _ClientConfig(msgspec.Struct, rename="camel"):
    ca_bundle: bytes | None = None


class _Webhook(msgspec.Struct, rename="camel"):
    client_config: _ClientConfig


class WebhooksObject(msgspec.Struct):
    metadata: _Metadata
    webhooks: list[_Webhook] | None = None


class SecretObject(msgspec.Struct):
    metadata: _Metadata
    data: dict[str, bytes] | None = None
