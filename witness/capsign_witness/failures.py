"""What keeps a witness from working, in words for whoever runs it."""

from __future__ import annotations


class WitnessError(Exception):
    """A sentence that says what is wrong and what to do."""
