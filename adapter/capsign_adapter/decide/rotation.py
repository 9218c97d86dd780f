"""When a key is rotated by itself."""

from __future__ import annotations

import hashlib

from capsign_adapter.decide.policy import Rotation
from capsign_adapter.decide.policy_rollouts import DAY_MS
from capsign_adapter.model.key_versions import KeyVersionRow


def rotation_due_ms(row: KeyVersionRow, rotation: Rotation) -> int:
    """When the rollout to the version after `row`, which signs now, begins: milliseconds since
    1970.

    So long after its activation, later by a part of the jitter that is the key version's own, and
    then within the window. Every replica finds the same instant.
    """
    name = f"{row.tenant}/{row.key}/{row.version}".encode()
    spread = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
    later = spread % (rotation.jitter_ms + 1)
    return _in_window(row.activated_ms + rotation.every_ms + later, rotation)


def is_rotation_due(row: KeyVersionRow, rotation: Rotation, now_ms: int) -> bool:
    """Whether the rollout begins now. What was missed waits for the next window."""
    return rotation_due_ms(row, rotation) <= now_ms == _in_window(now_ms, rotation)


def _in_window(at_ms: int, rotation: Rotation) -> int:
    """The time itself if it is in the window, or the next beginning of it."""
    begin, end = rotation.window_begin_ms, rotation.window_end_ms
    of_day = at_ms % DAY_MS
    if begin == end or (of_day - begin) % DAY_MS < (end - begin) % DAY_MS:
        return at_ms
    return at_ms + (begin - of_day) % DAY_MS
