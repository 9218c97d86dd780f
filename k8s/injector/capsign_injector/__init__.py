"""The injector: adds an agent to pods, and the webhook around that."""

from capsign_wire import __version__ as __version__
