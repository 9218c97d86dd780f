"""The session with a PKCS#11 module. The only module that imports `pkcs11`; for the token's thread
only.

After any error the session, the login and all object handles are dropped and the module is
initialised again, which takes about a millisecond in SoftHSM: the answers of a token that is partly
lost cannot be trusted. `generation` counts this, so that callers know when their object handles are
invalid.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

import pkcs11
from pkcs11 import (
    MGF,
    Attribute,
    KeyType,
    Mechanism,
    MechanismFlag,
    ObjectClass,
    PKCS11Error,
    TokenFlag,
    _pkcs11,
)
from pkcs11.attributes import AttributeMapper

from capsign_adapter.algorithms.kinds import Family, Feature
from capsign_adapter.model.drift import TokenObject
from capsign_adapter.token import encodings
from capsign_adapter.token.interface import (
    KeyAttributes,
    PinRejectedError,
    TokenError,
    TokenUnavailableError,
)
from capsign_adapter.token.parameters import HkdfParameters, ParameterisedModule
from capsign_adapter.token.pin import mark_of, read_pin
from capsign_adapter.token.pin_trials import PinTrials
from capsign_adapter.token.profiles import profile_of

if TYPE_CHECKING:
    from capsign_adapter.token.settings import TokenSettings

T = TypeVar("T")

FIRST_PATIENCE_S = 1.0
PATIENCE_S = 0.25
"""How long opening a session is tried, seconds. SoftHSM writes the token's file at each login, and
while one process writes it, others see no token: with four that did nothing but log in, one opening
in three failed at its first try.
"""

REOPEN_PAUSE_S = 0.1
"""After a failed opening, calls fail at once for this long, seconds, so that a dead HSM is not
asked once for each call.
"""

_PIN_ERRORS = (
    pkcs11.PinIncorrect,
    pkcs11.PinLocked,
    pkcs11.PinExpired,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
)
_FINAL_PIN_ERRORS = (pkcs11.PinLocked, pkcs11.PinExpired)
_LAST_TRY = TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED

_KEY_TYPES = {
    Family.P256: KeyType.EC,
    Family.P384: KeyType.EC,
    Family.ED25519: KeyType.EC_EDWARDS,
    Family.RSA: KeyType.RSA,
}

_EDDSA = 0x1057

_STRONG = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.MODIFIABLE: False}


class Kind(Enum):
    """Classes of objects that are keys."""

    SECRET = ObjectClass.SECRET_KEY
    PRIVATE = ObjectClass.PRIVATE_KEY
    PUBLIC = ObjectClass.PUBLIC_KEY


_CLASSES = {
    "secret-key": ObjectClass.SECRET_KEY,
    "private-key": ObjectClass.PRIVATE_KEY,
    "public-key": ObjectClass.PUBLIC_KEY,
    "certificate": ObjectClass.CERTIFICATE,
    "data": ObjectClass.DATA,
}
"""Classes of objects that are listed, by the names that `model.drift` gives them."""

_KINDS = {number: name for name, number in _CLASSES.items()}

_TOLD = {
    "sensitive": Attribute.SENSITIVE,
    "extractable": Attribute.EXTRACTABLE,
    "always-sensitive": Attribute.ALWAYS_SENSITIVE,
    "never-extractable": Attribute.NEVER_EXTRACTABLE,
    "local": Attribute.LOCAL,
    "modifiable": Attribute.MODIFIABLE,
    "private": Attribute.PRIVATE,
    "sign": Attribute.SIGN,
    "verify": Attribute.VERIFY,
    "encrypt": Attribute.ENCRYPT,
    "decrypt": Attribute.DECRYPT,
    "wrap": Attribute.WRAP,
    "unwrap": Attribute.UNWRAP,
    "derive": Attribute.DERIVE,
}
"""Attributes of keys, by the names that `model.drift` gives them."""

_OFFERED = {
    Mechanism.SHA256_HMAC: "SHA256_HMAC",
    Mechanism.GENERIC_SECRET_KEY_GEN: "GENERIC_SECRET_KEY_GEN",
    Mechanism.ECDSA: "ECDSA",
    Mechanism.EC_KEY_PAIR_GEN: "EC_KEY_PAIR_GEN",
    Mechanism.EDDSA: "EDDSA",
    Mechanism.EC_EDWARDS_KEY_PAIR_GEN: "EC_EDWARDS_KEY_PAIR_GEN",
    Mechanism.RSA_PKCS: "RSA_PKCS",
    Mechanism.RSA_PKCS_PSS: "RSA_PKCS_PSS",
    Mechanism.RSA_PKCS_KEY_PAIR_GEN: "RSA_PKCS_KEY_PAIR_GEN",
}
"""Mechanisms that our keys need: all others are of no interest."""


class Signing(Enum):
    """How a key signs: mechanism and parameter. ECDSA gives R ‖ S, RSA_PKCS takes a DigestInfo."""

    HMAC_SHA256 = (Mechanism.SHA256_HMAC, None)
    ECDSA = (Mechanism.ECDSA, None)
    EDDSA = (Mechanism.EDDSA, None)
    RSA_PKCS = (Mechanism.RSA_PKCS, None)
    RSA_PSS = (Mechanism.RSA_PKCS_PSS, (Mechanism.SHA256, MGF.SHA256, 32))


def _mechanism(name: str, value: int) -> Mechanism:
    """Returns a mechanism that the binding does not list, as a hand-made member of its
    enumeration.
    """
    member = int.__new__(Mechanism, value)
    member._name_ = name
    member._value_ = value
    return member


_HKDF_DERIVE = _mechanism("HKDF_DERIVE", 0x402A)

_NEEDS = {
    Feature.HKDF_INSIDE: {_HKDF_DERIVE.value},
    Feature.ED25519: {_EDDSA, Mechanism.EC_EDWARDS_KEY_PAIR_GEN.value},
    Feature.RSA_PSS: {Mechanism.RSA_PKCS_PSS.value},
}


def token_error(error: PKCS11Error, label: str) -> TokenError:
    """Returns the token's error for an error of the module: the PIN was refused, or there was no
    answer. Never "absent".
    """
    kind = type(error).__name__
    if isinstance(error, _PIN_ERRORS):
        return PinRejectedError(
            f"the token {label!r} refused the PIN ({kind}); put the right one in the PIN "
            f"file and restart"
        )
    return TokenUnavailableError(
        f"the token {label!r} gave no answer ({kind}); it is reopened by itself, try again"
    )


def _mapper() -> AttributeMapper:
    mapper = AttributeMapper()
    # A stranger's label in another encoding must not break the list of all labels.
    mapper.register_handler(
        Attribute.LABEL,
        lambda text: text.encode(),
        lambda raw: raw.decode("utf-8", "backslashreplace"),
    )
    return mapper


class Session:
    """The module, the login, and operations on objects. Methods raise PKCS11Error, which `attempt`
    converts.
    """

    def __init__(
        self,
        settings: TokenSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`clock`: seconds, monotonic; `sleep` waits so many of them."""
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._profile = profile_of(settings.module)
        self._starter: ParameterisedModule | None = None
        if self._profile.parameters is not None:
            if settings.config is None:
                raise TokenUnavailableError(
                    f"{settings.module} needs its database directory; set token.config"
                )
            self._starter = ParameterisedModule(
                settings.module, self._profile.parameters(settings.config)
            )
        elif settings.config is not None and self._profile.environment is not None:
            # the module reads them when it starts
            os.environ.update(self._profile.environment(settings.config))
        self._library: Any = None
        self._session: Any = None
        self._serial: bytes | None = None
        self._rejected: PinRejectedError | None = None
        self._trials = PinTrials()
        self._shut_until = 0.0
        self.generation = 0

    # Life

    def attempt(self, operation: Callable[[], T], *, again: bool) -> T:
        """Run an operation on an open session; with `again` once more on a fresh one, if the first
        failed.
        """
        for more in (again, False):
            try:
                self.ready()
                return operation()
            except PKCS11Error as error:
                self.drop()
                if not more:
                    raise token_error(error, self._settings.label) from error
        raise AssertionError("unreachable: the second round returns or raises")

    def ready(self) -> Any:
        """Returns the open session; opens one if necessary."""
        if self._session is None:
            self._open()
        return self._session

    def renew(self) -> None:
        """Initialise the module and log in again, so that the token's present content is seen."""
        self.drop()
        self.ready()

    def _open(self) -> None:
        now = self._clock()
        if self._rejected and not self._trials.may_try(now, mark_of(self._settings.pin_file)):
            raise PinRejectedError(str(self._rejected))  # tokens lock after a few wrong ones
        if now < self._shut_until:
            raise TokenUnavailableError(
                f"the token {self._settings.label!r} was not there a moment ago; try again"
            )
        if not self._settings.module.is_file():
            raise TokenUnavailableError(
                f"there is no PKCS#11 module {self._settings.module}; install it "
                f"(SoftHSM: `apt-get install softhsm2`), "
                "or correct token.module"
            )
        pin = read_pin(self._settings.pin_file)
        end = now + (FIRST_PATIENCE_S if self._serial is None else PATIENCE_S)
        pause = 0.005
        self._profile.keep(self._settings.config)
        while self._session is None:
            try:
                self._session = self._enter(pin)
            except TokenUnavailableError:
                self.drop()
                if self._clock() >= end and not self._profile.restore(self._settings.config):
                    self._shut_until = self._clock() + REOPEN_PAUSE_S
                    raise
                self._sleep(pause)
                pause *= 2

    def _enter(self, pin: str) -> Any:
        """Open a session and log in. After a refused PIN `pin_trials` decides when it may be tried
        again.
        """
        try:
            token = self.locate()
            if self._settings.cautious and token.flags & _LAST_TRY:
                label = self._settings.label
                raise PinRejectedError(
                    f"the token {label!r} has refused PINs, and one more wrong one locks "
                    f"it: the PIN was not tried. "
                    "Log in with the right one by the token's own tool"
                )
            try:
                session = token.open(rw=True, user_pin=pin, attribute_mapper=_mapper())
            except _PIN_ERRORS as error:
                # A token whose files are gone may answer the same: the verdict counts if it is
                # still there in a fresh module.
                self.drop()
                last = self.locate().flags & _LAST_TRY
                self.drop()
                final = bool(last) or isinstance(error, _FINAL_PIN_ERRORS)
                self._trials.refused(self._clock(), mark_of(self._settings.pin_file), final=final)
                self._rejected = PinRejectedError(str(token_error(error, self._settings.label)))
                raise self._rejected from error
            # the first was read while another process wrote
            if token.slot.get_token().serial != token.serial:
                raise TokenUnavailableError(
                    f"the token {self._settings.label!r} changed while it was opened; try again"
                )
            self._serial = token.serial
            self._trials.accepted()
            self._rejected = None
            return session
        except PKCS11Error as error:
            raise token_error(error, self._settings.label) from error

    def locate(self) -> Any:
        """Find the token by its label; after the first time by its serial number too, so that
        another token with the same label is not used.
        """
        module, label = self._settings.module, self._settings.label
        if self._starter is None:
            self._library = pkcs11.lib(str(module))
        else:
            self._starter.initialize()
            # Made without __init__, which would call C_Initialize(NULL); nothing else is done there
            # that we use.
            library: Any = _pkcs11.lib
            self._library = library.__new__(library, str(module))
        tokens = list(self._library.get_tokens(token_label=label))
        if not tokens:
            how = "`pkcs11-tool --module … --init-token`, for SoftHSM `python3 softhsm/init.py`"
            raise TokenUnavailableError(
                f"no token labelled {label!r} behind {module}; make it ({how}), or "
                f"correct token.label"
            )
        if len(tokens) > 1:
            raise TokenUnavailableError(
                f"{len(tokens)} tokens labelled {label!r} behind {module}; give each its own label"
            )
        if self._serial is not None and tokens[0].serial != self._serial:
            raise TokenUnavailableError(
                f"another token took the label {label!r}; restart only if that was meant"
            )
        return tokens[0]

    def drop(self) -> None:
        """End the session and finalise the module, so that it reads its token again."""
        session, module = self._session, self._starter or self._library
        self._session = self._library = None
        self.generation += 1
        for end in (session and session.close, module and module.finalize):
            try:
                if end:
                    end()
            except (PKCS11Error, TokenUnavailableError):
                pass  # it is going away: why it does not want to is of no use

    # What the token holds

    def features(self) -> frozenset[Feature]:
        mechanisms = {int(mechanism) for mechanism in self.ready().token.slot.get_mechanisms()}
        return frozenset(feature for feature, needs in _NEEDS.items() if needs <= mechanisms)

    def search(
        self, kind: Kind, label: str | None = None, identity: bytes | None = None
    ) -> list[Any]:
        """Returns all objects that match, as a list, because an unfinished search blocks the
        session. An empty list does not prove absence: see `Objects`.
        """
        template: dict[Attribute, Any] = {Attribute.CLASS: kind.value}
        if label is not None:
            template[Attribute.LABEL] = label
        if identity is not None:
            template[Attribute.ID] = identity
        return list(self.ready().get_objects(template))

    def mechanisms(self) -> frozenset[str]:
        """Those of _OFFERED that the token offers."""
        offered = {int(mechanism) for mechanism in self.ready().token.slot.get_mechanisms()}
        return frozenset(name for number, name in _OFFERED.items() if int(number) in offered)

    def beside(self) -> Any:
        """A second session, logged in as the first is: a search that is not at its end blocks the
        session that it runs in. Whoever asks closes it.
        """
        return self.ready().token.open(attribute_mapper=_mapper())

    def objects(self, session: Any) -> Iterator[TokenObject]:
        """What is stored in the token, with what it tells of the keys, by a search in `session`."""
        for one in session.get_objects({Attribute.TOKEN: True}):
            kind = _KINDS.get(one[Attribute.CLASS])
            if kind is not None:
                yield TokenObject(kind, *self._told(one, kind))

    def _told(self, one: Any, kind: str) -> tuple[str, tuple[tuple[str, bool], ...]]:
        keys = kind.endswith("-key")
        told = one.get_attributes([Attribute.LABEL, *(_TOLD.values() if keys else ())])
        known = [(name, told[number]) for name, number in _TOLD.items() if number in told]
        if not self._profile.tells_local:
            known = [(name, value) for name, value in known if name != "local"]
        return told.get(Attribute.LABEL, ""), tuple(known)

    def attributes(self, key: Any) -> KeyAttributes:
        origin = Attribute.LOCAL if self._profile.tells_local else Attribute.NEVER_EXTRACTABLE
        return KeyAttributes(
            label=key.label,
            sensitive=key[Attribute.SENSITIVE],
            extractable=key[Attribute.EXTRACTABLE],
            always_sensitive=key[Attribute.ALWAYS_SENSITIVE],
            never_extractable=key[Attribute.NEVER_EXTRACTABLE],
            local=key[origin],
        )

    @staticmethod
    def family(key: Any) -> Family | None:
        """Returns the family of a private or public key; None for one that no algorithm of the
        table uses.
        """
        if key.key_type is KeyType.RSA:
            return Family.RSA
        if key.key_type is KeyType.EC_EDWARDS:
            return Family.ED25519
        if key.key_type is KeyType.EC:
            params = key[Attribute.EC_PARAMS]
            return next(
                (f for f in (Family.P256, Family.P384) if encodings.EC_PARAMS[f] == params), None
            )
        return None

    @staticmethod
    def spki(key: Any, family: Family) -> bytes:
        """Returns the SubjectPublicKeyInfo of a public key object."""
        if family is Family.RSA:
            return encodings.rsa_spki(key[Attribute.MODULUS], key[Attribute.PUBLIC_EXPONENT])
        return encodings.ec_spki(family, key[Attribute.EC_POINT])

    # What it does

    @staticmethod
    def sign(key: Any, how: Signing, data: bytes) -> bytes:
        mechanism, parameter = how.value
        signature: bytes = key.sign(data, mechanism=mechanism, mechanism_param=parameter)
        return signature

    @staticmethod
    def expand(root: Any, info: bytes) -> Any:
        """Returns HKDF-Expand(root, info, 32) as a session object that signs and never leaves the
        token.
        """
        parameters = HkdfParameters(info)
        return root.derive_key(
            KeyType.GENERIC_SECRET,
            8 * encodings.SECRET_LEN,
            capabilities=MechanismFlag.SIGN,
            mechanism=_HKDF_DERIVE,
            mechanism_param=parameters.packed,
            template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
        )

    def make_secret(self, label: str, identity: bytes, *, derives: bool) -> None:
        """Make a generic secret for HMAC, and for derivation if the token supports it, and for
        nothing else.
        """
        self.ready().generate_key(
            KeyType.GENERIC_SECRET,
            8 * encodings.SECRET_LEN,
            id=identity,
            label=label,
            store=True,
            capabilities=MechanismFlag.SIGN | MechanismFlag.DERIVE
            if derives
            else MechanismFlag.SIGN,
            template=_STRONG,
        )

    def make_pair(self, label: str, identity: bytes, family: Family) -> None:
        """Make a key pair that signs; both halves have that label and CKA_ID."""
        self.ready().generate_keypair(
            _KEY_TYPES[family],
            encodings.RSA_BITS if family is Family.RSA else None,
            id=identity,
            label=label,
            store=True,
            capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
            public_template={}
            if family is Family.RSA
            else {Attribute.EC_PARAMS: encodings.EC_PARAMS[family]},
            private_template=_STRONG,
        )
