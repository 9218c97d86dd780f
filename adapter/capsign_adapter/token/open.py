"""Opens the token that the settings name."""

from __future__ import annotations

from capsign_adapter.token.interface import Token
from capsign_adapter.token.settings import TokenSettings

__all__ = ["TokenSettings", "open_token"]


def open_token(settings: TokenSettings) -> Token:
    """Loads the module, logs in, and returns the token. One open token for each module and process.

    Raises PinFileError, PinRejectedError or TokenUnavailableError, each with the next step in its
    text.
    """
    from capsign_adapter.token.pkcs11_token import (
        Pkcs11Token,
    )  # loading it loads the binding: only where a token is opened

    return Pkcs11Token(settings)
