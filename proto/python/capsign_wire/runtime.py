"""Tuning of capsign's own processes: gRPC's I/O engine with fewer threads, and a garbage collector
that skips long-lived objects.

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
"""Allocations between collections of the youngest generation: a thousand signatures make about as
many containers, and keep none.
"""


def freeze_heap() -> None:
    """Exclude everything that exists now from garbage collection, which saves 4 % of the CPU of a
    signature. Call it once all modules are loaded and the process is set up.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
