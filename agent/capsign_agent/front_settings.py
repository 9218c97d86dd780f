"""The section of the configuration about the server that applications connect to."""

from __future__ import annotations

import importlib.util

import msgspec

NATIVE_PACKAGE = "pygrpc_native"
ENGINES = ("grpcio", "native")


class Front(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The server on the applications' sockets."""

    engine: str = "grpcio"
    """What speaks HTTP/2 there: `grpcio`, or `native` (pygrpc-native, an extra). `native` takes
    less CPU for each call and has no bound on memory: any container of the pod can end its agent.
    Only for pods whose containers trust each other.
    """


def faults(front: Front) -> list[tuple[str, str]]:
    """Key and sentence of what is wrong in the section."""
    if front.engine not in ENGINES:
        return [("front.engine", f"must be one of {', '.join(ENGINES)}.")]
    if front.engine == "native" and importlib.util.find_spec(NATIVE_PACKAGE) is None:
        sentence = "needs the package pygrpc-native: install `capsign-agent[native]`."
        return [("front.engine", sentence)]
    return []
