"""Real tokens in a temporary directory: `softhsm(directory)` and `nss(directory)` give settings to
open.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from capsign_adapter.token.open import TokenSettings
from capsign_adapter.token.pkcs11_token import Pkcs11Token
from pkcs11 import Attribute, KeyType, ObjectClass
from support import needs

INIT = Path(__file__).parents[2] / "softhsm" / "init.py"


def softhsm(directory: Path, label: str = "capsign") -> TokenSettings:
    """A new SoftHSM token, made as a developer would make it."""
    module = needs.softhsm()
    command = [
        sys.executable,
        str(INIT),
        "--dir",
        str(directory),
        "--label",
        label,
        "--module",
        str(module),
        "-o",
        "json",
    ]
    made = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    )
    return TokenSettings(
        module=Path(made["module"]),
        label=label,
        pin_file=Path(made["pin_file"]),
        config=Path(made["conf"]),
        call_timeout_s=60,
    )


def nss(directory: Path) -> TokenSettings:
    """A new NSS database with a password."""
    module, certutil = needs.nss(), needs.certutil()
    database = directory / "nss"
    database.mkdir(mode=0o700, parents=True)
    pin_file = directory / "nss.pin"
    pin_file.touch(mode=0o600)
    pin_file.write_text("a test password 1\n")
    command = [certutil, "-N", "-d", f"sql:{database}", "-f", str(pin_file)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return TokenSettings(
        module=module,
        label="NSS Certificate DB",
        pin_file=pin_file,
        config=database,
        call_timeout_s=60,
    )


def import_secret(token: Any, label: str, value: bytes) -> None:
    """Puts a known secret into any token of ours, as production never does."""
    if not isinstance(token, Pkcs11Token):
        token.import_secret(label, value)
        return
    template = {
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
        Attribute.LABEL: label,
        Attribute.VALUE: value,
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.SIGN: True,
        Attribute.DERIVE: True,
    }
    token.probe(lambda session: session.ready().create_object(template))
