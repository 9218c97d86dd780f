"""Labels and annotations by which a pod asks for an agent, and names of what an injection adds.
Pure.
"""

from __future__ import annotations

PREFIX = "capsign.dev/"
"""Prefix of all our labels and annotations."""
LABEL = f"{PREFIX}inject"
"""Label that asks for injection, with the value "true"."""
INJECTED = f"{PREFIX}injected"
"""Annotation that the injector sets: the version of its format."""
FORMAT = "1"
"""Version of the result of an injection."""

AGENT = "capsign-agent"
"""Name of the sidecar container."""
OURS = "capsign-"
"""Prefix of our volumes' names; no other name may begin so."""
STATE_VOLUME = "capsign-state"
TOKEN_VOLUME = "capsign-token"  # noqa: S105 - a name
EMPTY_VOLUME = "capsign-none"
SOCKET_VOLUME = "capsign-socket-"
"""Prefix of a socket volume's name; its number follows."""
MAX_SOCKETS = 16
"""Most containers with a socket in one pod."""

RUN = "/run/capsign"
"""Mount path of the socket in a container, and of all sockets in the agent."""
STATE = f"{RUN}/state"
TOKEN_FILE = "/var/run/secrets/capsign/token"  # noqa: S105 - a path
SOCKET_ENV, SOCKET_PATH = "CAPSIGN_SOCKET", f"{RUN}/s/agent.sock"
"""Variable that tells the client library the socket's path, and its value."""
