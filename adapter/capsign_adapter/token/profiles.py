"""Special properties of known PKCS#11 modules. Everything else is found out by asking the token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from capsign_adapter.token import softhsm_files


def _no_environment(config: Path) -> Mapping[str, str]:
    raise ValueError(
        f"token.config is given ({config}), but this module takes none from us: set what "
        f"its maker documents"
    )


def _nothing_to_keep(_: Path | None) -> None:
    """This module's own files survive a kill."""


def _nothing_to_restore(_: Path | None) -> bool:
    return False


def _softhsm_environment(config: Path) -> Mapping[str, str]:
    return {"SOFTHSM2_CONF": str(config)}


def _nss_parameters(config: Path) -> str:
    quoted = str(config).replace("\\", "\\\\").replace("'", "\\'")
    return f"configdir='sql:{quoted}' certPrefix='' keyPrefix='' secmod='secmod.db' flags="


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of module.

    `environment` gives the variables that must be set before the module starts, `parameters` the
    string that its C_Initialize wants; both from the path of its configuration. None: it has no
    such thing. `keep` is called before each login, and `restore` when the token is not there: it
    returns whether to look again.
    """

    name: str
    environment: Callable[[Path], Mapping[str, str]] | None = None
    parameters: Callable[[Path], str] | None = None
    tells_local: bool = True
    """Whether the module stores CKA_LOCAL of token objects."""
    keep: Callable[[Path | None], None] = _nothing_to_keep
    restore: Callable[[Path | None], bool] = _nothing_to_restore


SOFTHSM = Profile(
    "SoftHSM",
    environment=_softhsm_environment,
    keep=softhsm_files.keep,
    restore=softhsm_files.restore,
)
"""Configuration: the path of softhsm2.conf."""

NSS = Profile("NSS softokn", parameters=_nss_parameters, tells_local=False)
"""Configuration: the directory of the database that `certutil -N` made. Its token is called "NSS
Certificate DB".

softokn does not store CKA_LOCAL: it reads False for every token object. Its CKA_NEVER_EXTRACTABLE
tells generated from imported.
"""

OTHER = Profile("PKCS#11", environment=_no_environment)
"""Its configuration is in the environment."""


def profile_of(module: Path) -> Profile:
    """The profile of a module, told from its file name."""
    if "softhsm" in module.name:
        return SOFTHSM
    if "softokn" in module.name:
        return NSS
    return OTHER
