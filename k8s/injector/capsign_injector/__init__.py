"""The injector: pod in, patch out, and the server around it."""

from capsign_wire import __version__ as __version__
