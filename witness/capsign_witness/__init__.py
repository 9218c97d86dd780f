"""A witness of transparency logs (C2SP tlog-witness): it cosigns a checkpoint of a log that it
knows if that extends the last one that it cosigned, and never anything else.
"""

from capsign_wire import __version__ as __version__
