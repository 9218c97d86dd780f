"""PKCS#11 structures that the binding cannot make: arguments of C_Initialize, parameters of
CKM_HKDF_DERIVE.

NSS softokn wants the first: CK_NSS_C_INITIALIZE_ARGS, the ordinary CK_C_INITIALIZE_ARGS with a
string before the reserved word.
"""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

from capsign_adapter.token.interface import TokenUnavailableError

_OS_LOCKING_OK = 2  # CKF_OS_LOCKING_OK: softokn refuses arguments without it

_INITIALIZE, _FINALIZE = 0, 1
"""Indices in CK_FUNCTION_LIST, after the version."""


class _Arguments(ctypes.Structure):
    """CK_NSS_C_INITIALIZE_ARGS."""

    _fields_ = [
        ("mutexes", ctypes.c_void_p * 4),
        ("flags", ctypes.c_ulong),
        ("library_parameters", ctypes.c_char_p),
        ("reserved", ctypes.c_void_p),
    ]


class _FunctionList(ctypes.Structure):
    """The head of CK_FUNCTION_LIST."""

    _fields_ = [("version", ctypes.c_ubyte * 2), ("functions", ctypes.c_void_p * 2)]


class ParameterisedModule:
    """A module that is initialised with parameters, and finalised. For the token's thread only."""

    def __init__(self, path: Path, parameters: str) -> None:
        self._path = path
        self._parameters = parameters.encode()
        self._up = False

    def initialize(self) -> None:
        if not self._up:
            self._call(
                _INITIALIZE,
                ctypes.pointer(
                    _Arguments(flags=_OS_LOCKING_OK, library_parameters=self._parameters)
                ),
            )
            self._up = True

    def finalize(self) -> None:
        if self._up:
            self._up = False
            self._call(_FINALIZE, None)

    def _call(self, place: int, arguments: ctypes._Pointer[_Arguments] | None) -> None:
        table = ctypes.POINTER(_FunctionList)()
        try:
            result = ctypes.CDLL(str(self._path)).C_GetFunctionList(ctypes.byref(table))
        except (OSError, AttributeError) as error:
            raise TokenUnavailableError(
                f"{self._path} cannot be loaded as a PKCS#11 module: {error}"
            ) from error
        if not result:
            prototype = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.POINTER(_Arguments))
            result = prototype(table.contents.functions[place])(arguments)
        if result:
            raise TokenUnavailableError(
                f"{self._path} does not start (0x{result:x}); look at the path and owner "
                f"of token.config"
            )


_CKM_SHA256 = 0x250
_CKF_HKDF_SALT_NULL = 1
_HKDF_PARAMS = struct.Struct("@??LLPLLPL")
"""CK_HKDF_PARAMS (PKCS#11 3.0): extract, expand, PRF hash, salt type, salt, its length, salt key,
info, its length.
"""


class HkdfParameters:
    """CK_HKDF_PARAMS for HKDF-Expand with SHA-256. Keep it until the call is over: `packed` points
    into it.
    """

    def __init__(self, info: bytes) -> None:
        self._info = ctypes.create_string_buffer(info, max(len(info), 1))
        address = ctypes.addressof(self._info)
        self.packed = _HKDF_PARAMS.pack(
            False, True, _CKM_SHA256, _CKF_HKDF_SALT_NULL, 0, 0, 0, address, len(info)
        )
