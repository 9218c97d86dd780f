"""Runs a command in an image's root file system as a strict cluster would: read-only root, the
image's own user, no capability, no new privileges, no network; runc does it, with no image tool and
no shell in between.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

NAMESPACES = ("pid", "mount", "ipc", "uts", "network")


class Sandbox:
    """Commands in one root file system. `environment` and `user` come from the image's
    configuration.
    """

    def __init__(self, root: Path, environment: Sequence[str], user: str) -> None:
        self.root = root
        self._environment = list(environment)
        self._uid, self._gid = map(int, user.split(":"))

    def run(
        self, *arguments: str, writable: Mapping[Path, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end. `writable`: folders of the host (source: place in the sandbox)
        that it may write to.
        """
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "mode=755"],
            },
        ]
        for source, place in (writable or {}).items():
            mounts.append(
                {
                    "destination": place,
                    "type": "bind",
                    "source": str(source),
                    "options": ["bind", "rw", "nosuid"],
                }
            )
        specification = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": self._uid, "gid": self._gid},
                "args": list(arguments),
                "env": self._environment,
                "cwd": "/",
                "noNewPrivileges": True,
                "capabilities": {},
            },
            "root": {"path": str(self.root), "readonly": True},
            "mounts": mounts,
            "linux": {"namespaces": [{"type": name} for name in NAMESPACES]},
        }
        with tempfile.TemporaryDirectory(prefix="cs-") as place:
            bundle = Path(place)
            (bundle / "config.json").write_text(json.dumps(specification))
            command = [
                "runc",
                "--root",
                str(bundle / "state"),
                "run",
                "--bundle",
                place,
                f"capsign-{uuid.uuid4().hex[:12]}",
            ]
            return subprocess.run(
                command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
            )
