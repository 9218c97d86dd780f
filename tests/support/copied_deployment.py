"""A copy of a deployment that is not running, to be broken: settings, policy, token, store,
files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from capsign_adapter.token.settings import TokenSettings
from support.hostile import assert_nothing_told

LONGEST_S = 20


class Place:
    """A copy of a deployment's directory with every path in its settings moved along."""

    def __init__(self, dev, root: Path) -> None:
        shutil.copytree(
            dev.directory, root, symlinks=True, ignore=shutil.ignore_patterns("*.sock", "*.probe")
        )
        root.chmod(0o700)
        self.dev, self.root = dev, root
        for path in [*root.glob("*.toml"), root / "token" / "softhsm2.conf"]:
            path.write_text(path.read_text().replace(str(dev.directory), str(root)))
        self.store = root / "state" / "capsign.sqlite"
        self.policy = root / "policy.yaml"
        self.token = root / "token"

    def config(self, program: str) -> Path:
        return self.root / ("agent.toml" if program == "agent" else "adapter-1.toml")

    def change(self, program: str, old: str, new: str) -> None:
        path = self.config(program)
        text = path.read_text()
        changed = re.sub(old, new.replace("\\", r"\\"), text, count=1, flags=re.MULTILINE)
        assert changed != text, f"{old} is not in {path.name}"
        path.write_text(changed)

    def start(
        self, program: str, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess:
        """Run it; it must end by itself."""
        command = [
            sys.executable,
            "-m",
            f"capsign_{program}",
            "--config",
            str(self.config(program)),
            *arguments,
        ]
        environ = os.environ | {"SOFTHSM2_CONF": str(self.token / "softhsm2.conf")} | environment
        return subprocess.run(
            command, capture_output=True, timeout=LONGEST_S, env=environ, check=False
        )

    def refused(self, program: str, *arguments: str, **environment: str) -> str:
        """What it said: one sentence or a few, for a person, with exit code 2."""
        done = self.start(program, *arguments, **environment)
        said = done.stderr.decode()
        assert done.returncode == 2, said
        assert "Traceback" not in said
        assert re.search(
            r"^(capsign-agent: |capsign-adapter cannot start\. )", said, re.MULTILINE
        ), said
        assert len(said) < 4000
        assert_nothing_told(self.dev, text=done.stderr + done.stdout)
        return said

    def token_settings(self) -> TokenSettings:
        """What the adapter opens."""
        text = self.config("adapter").read_text()
        module, label = (
            re.findall(rf'^{key} = "(.*)"$', text, re.MULTILINE)[0] for key in ("module", "label")
        )
        return TokenSettings(
            Path(module), label, self.token / "capsign.pin", self.token / "softhsm2.conf"
        )
