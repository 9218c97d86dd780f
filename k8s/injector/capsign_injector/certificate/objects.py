"""What the injector reads of its two Kubernetes objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta


@dataclass(frozen=True, slots=True)
class Secret:
    """The Secret as read; without `raw` there is none. `rotation` is what an operator's annotation
    says.
    """

    data: Mapping[str, bytes]
    rotation: str
    raw: Mapping[str, Any] | None

    def __repr__(self) -> str:
        return "Secret(...)"


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The webhook configuration as read: PEM that each of its webhooks trusts."""

    bundles: tuple[bytes, ...]
    raw: Mapping[str, Any]


class _Metadata(msgspec.Struct, rename="camel"):
    resource_version: Annotated[str, Meta(min_length=1)]
    """Without one no write could be conditional."""
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
