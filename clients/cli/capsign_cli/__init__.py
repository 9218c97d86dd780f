"""The command line `capsign`: drives agents and adapters, and contains neither."""

from capsign_wire import __version__ as __version__
