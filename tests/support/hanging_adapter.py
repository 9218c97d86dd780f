"""The adapter, except that its token hangs once the file CAPSIGN_TEST_HANGS is there: what is asked
then never returns, and neither does its end. Beside that file one that ends in `.begun` says that
something was asked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capsign_adapter import __main__
from capsign_adapter.token.session import Session

if __name__ == "__main__":
    told, never = Path(os.environ["CAPSIGN_TEST_HANGS"]), threading.Event()

    def hanging(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if told.exists():
                Path(f"{told}.begun").touch()
                never.wait()
            return real(*arguments, **named)

        return call

    for name in ("attempt", "drop"):
        setattr(Session, name, hanging(getattr(Session, name)))
    __main__.main()
