"""How our own processes run: gRPC's I/O engine with fewer threads, and a garbage collector that
leaves what stays alone.

gRPC reads its variable when it is loaded, so this is imported before it. The newer engine hands
each event to a thread of its own before Python's poller sees it; on the path of a single signature
that costs about a tenth of the time (docs/decisions/0011). What the operator sets wins, and a gRPC
that does not know these names ignores them.
"""

from __future__ import annotations

import gc
import os

os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")

YOUNG_OBJECTS = 20_000
"""Containers made before the collector looks at the young ones: a thousand signatures make about as
many, and keep none.
"""


def settle() -> None:
    """Call once everything that stays is loaded: the collector does not walk it again (4 % of the
    CPU of a signature).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
