"""What is particular about the modules we know. Everything else about a token is found out by asking it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


def _nothing(config: Path) -> Mapping[str, str]:
    raise ValueError(f"token.config is given ({config}), but this module takes none from us: set what its maker documents")


def _softhsm(config: Path) -> Mapping[str, str]:
    return {"SOFTHSM2_CONF": str(config)}


def _nss(config: Path) -> Mapping[str, str]:
    # softokn wants parameters at C_Initialize and takes them from this variable where the caller, like our binding, gives none.
    quoted = str(config).replace("\\", "\\\\").replace("'", "\\'")
    return {"NSS_LIB_PARAMS": f"configdir='sql:{quoted}' certPrefix='' keyPrefix='' secmod='secmod.db' flags="}


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of module.

    `environment` gives the variables that must be set before the module is loaded, from the path of its configuration.
    """

    name: str
    environment: Callable[[Path], Mapping[str, str]]


SOFTHSM = Profile("SoftHSM", _softhsm)
"""Configuration: the path of softhsm2.conf."""

NSS = Profile("NSS softokn", _nss)
"""Configuration: the directory of the database that `certutil -N` made. Its token is called "NSS Certificate DB"."""

OTHER = Profile("PKCS#11", _nothing)


def profile_of(module: Path) -> Profile:
    """The profile of a module, told from its file name."""
    if "softhsm" in module.name:
        return SOFTHSM
    if "softokn" in module.name:
        return NSS
    return OTHER
