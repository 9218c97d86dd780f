"""Names by which a pod asks for an agent, and names of what an injection puts into it. Pure."""

from __future__ import annotations

PREFIX = "capsign.dev/"
"""Before every label and annotation of ours."""
LABEL = f"{PREFIX}inject"
"""Label that asks for injection, with the value "true"."""
INJECTED = f"{PREFIX}injected"
"""Annotation that the injector sets: the version of its format."""
FORMAT = "1"
"""Version of what an injection makes."""

AGENT = "capsign-agent"
"""The sidecar's container."""
OURS = "capsign-"
"""Before the names of our volumes; nobody else's may begin so."""
STATE_VOLUME = "capsign-state"
TOKEN_VOLUME = "capsign-token"  # noqa: S105 - a name
EMPTY_VOLUME = "capsign-none"
SOCKET_VOLUME = "capsign-socket-"
"""Before the number of a socket."""
MAX_SOCKETS = 16
"""Most containers of a pod that get a socket."""

RUN = "/run/capsign"
"""Where a container finds its socket, and the agent all of them."""
STATE = f"{RUN}/state"
TOKEN_FILE = "/var/run/secrets/capsign/token"  # noqa: S105 - a path
SOCKET_ENV, SOCKET_PATH = "CAPSIGN_SOCKET", f"{RUN}/s/agent.sock"
"""Variable that tells the client library where its socket is, and its value."""
