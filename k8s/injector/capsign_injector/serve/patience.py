"""How long a listener waits for its callers. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds."""

    handshake_s: float = 5.0
    """Longest TLS handshake."""

    head_s: float = 10.0
    """From the first byte of a request to the end of its head."""

    body_s: float = 10.0
    """Longest time for the body of a request."""

    answer_s: float = 10.0
    """Longest time for a caller to take its answer."""

    linger_s: float = 2.0
    """How long the rest of a refused body is read and thrown away, so that the refusal arrives."""

    keep_alive_s: float = 120.0
    """Longest idle time. Above the 90 s of Go's client: the API server closes first, and never
    sends into what we have closed.
    """

    last_words_s: float = 1.0
    """After the listener closed: how long a connection that was just made may take to send its
    request.
    """


USUAL = Patience()
"""What an injector runs with."""
