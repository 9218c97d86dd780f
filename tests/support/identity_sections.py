"""Identity sections of an agent's settings."""

from __future__ import annotations

import json
from pathlib import Path


def kubernetes_section(targets: list[str], token: Path, bundle: bytes, state_dir: Path) -> str:
    """The settings of an agent in a pod."""
    return f"""
[identity]
source = "kubernetes"
[identity.kubernetes]
enrolment_targets = {json.dumps(targets)}
token_file = "{token}"
state_dir = "{state_dir}"
bundle = \"\"\"
{bundle.decode()}\"\"\"
"""
