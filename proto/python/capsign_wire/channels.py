"""Makes all gRPC channels of capsign, none of which uses a proxy.

gRPC itself reads `http_proxy`, `https_proxy` and `grpc_proxy`. Such a variable is meant for access
to the web. Set for a whole node or shell, it would cut a pod off from its adapter and a responder
from `revoke`. A test checks that no other module makes a channel (docs/decisions/0026).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

Options = Sequence[tuple[str, Any]]

NO_PROXY: tuple[tuple[str, Any], ...] = (("grpc.enable_http_proxy", 0),)


def insecure(target: str, options: Options = ()) -> grpc.Channel:
    """Returns a channel without TLS, for a Unix socket or a health address on the loopback."""
    return grpc.insecure_channel(target, [*options, *NO_PROXY])


def secure(
    target: str, credentials: grpc.ChannelCredentials, options: Options = ()
) -> grpc.Channel:
    """Returns a channel with TLS."""
    return grpc.secure_channel(target, credentials, [*options, *NO_PROXY])


def aio_insecure(target: str, options: Options = ()) -> grpc.aio.Channel:
    """As `insecure`, for the running event loop."""
    return grpc.aio.insecure_channel(target, options=[*options, *NO_PROXY])


def aio_secure(
    target: str, credentials: grpc.ChannelCredentials, options: Options = ()
) -> grpc.aio.Channel:
    """As `secure`, for the running event loop."""
    return grpc.aio.secure_channel(target, credentials, options=[*options, *NO_PROXY])
