"""The agent: the sidecar that holds capability handles, and no key."""

from capsign_wire import __version__ as __version__
from capsign_wire import runtime as runtime  # before anything of ours loads gRPC
