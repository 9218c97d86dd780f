"""What a key version may be used for in each of its states (NIST SP 800-57 part 1, section 7)."""

from __future__ import annotations

from capsign_wire.types.v1 import signing_pb2 as pb

SIGNS = frozenset({pb.KEY_STATE_ACTIVE})
"""States in which a version signs."""

VERIFIES = frozenset({pb.KEY_STATE_ACTIVE, pb.KEY_STATE_DEACTIVATED})
"""States in which signatures that a version made count."""
