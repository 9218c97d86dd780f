"""The W3C traceparent of the current OpenTelemetry span, if the application uses OpenTelemetry at
all.
"""

from __future__ import annotations

import sys


def current_traceparent() -> str:
    """The header, or "" when there is no current span.

    An application that never imported OpenTelemetry cannot have a current span, so nothing is
    imported here and a call costs one dictionary look-up.
    """
    current_span = getattr(sys.modules.get("opentelemetry.trace"), "get_current_span", None)
    if current_span is None:  # not imported, or another thread is importing it now
        return ""
    span = current_span().get_span_context()
    if not span.is_valid:
        return ""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
