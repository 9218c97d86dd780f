"""A PKCS#11 token through python-pkcs11. The only module that imports `pkcs11`.

Two rules on top of everything here:

1. Only the token's thread calls the module (see worker.py).
2. After any error the session, the login and every object handle are thrown away and the module is initialised anew: that
   costs about a millisecond in SoftHSM, and what a half-lost token answers is worth nothing. One whose directory has vanished
   answers a search with "no such object". Absence therefore counts only when it was seen in a fresh login, with the token
   still there after it.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import pkcs11
from capsign_wire.types.v1 import algorithms_pb2 as pb
from pkcs11 import MGF, Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, PKCS11Error, _pkcs11
from pkcs11.attributes import AttributeMapper

from capsign_adapter.token import encodings
from capsign_adapter.token.encodings import Family
from capsign_adapter.token.interface import (
    Feature,
    KeyAttributes,
    KeyExistsError,
    KeyMissingError,
    PinRejectedError,
    TokenError,
    TokenUnavailableError,
)
from capsign_adapter.token.parameters import ParameterisedModule
from capsign_adapter.token.pin import read_pin
from capsign_adapter.token.profiles import profile_of
from capsign_adapter.token.worker import TokenThread

if TYPE_CHECKING:
    from capsign_adapter.token.open import TokenSettings

T = TypeVar("T")

_PIN_ERRORS = (pkcs11.PinIncorrect, pkcs11.PinLocked, pkcs11.PinExpired, pkcs11.PinInvalid, pkcs11.PinLenRange)

REOPEN_PAUSE_S = 0.1
"""After a failed opening, calls fail at once for this long: a dead HSM must not be asked once for every call."""

DERIVED_KEPT = 256
"""Derived keys that stay in the token between calls; session objects, gone with the session."""

_KEY_CLASSES = (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY)
_KEY_TYPES = {Family.P256: KeyType.EC, Family.P384: KeyType.EC, Family.ED25519: KeyType.EC_EDWARDS, Family.RSA: KeyType.RSA}

_EDDSA = 0x1057
_CKM_SHA256 = 0x250
_CKF_HKDF_SALT_NULL = 1
_HKDF_PARAMS = struct.Struct("@??LLPLLPL")
"""CK_HKDF_PARAMS (PKCS#11 3.0): extract, expand, PRF hash, salt type, salt, its length, salt key, info, its length."""


def _mechanism(name: str, value: int) -> Mechanism:
    """A mechanism that the binding does not list. It insists on a member of its enumeration, so this is one by hand."""
    member = int.__new__(Mechanism, value)
    member._name_ = name
    member._value_ = value
    return member


HKDF_DERIVE = _mechanism("HKDF_DERIVE", 0x402A)


def token_error(error: PKCS11Error, label: str) -> TokenError:
    """What a caller may know of a module's error: the PIN was refused, or there was no answer. Never "absent"."""
    kind = type(error).__name__
    if isinstance(error, _PIN_ERRORS):
        return PinRejectedError(f"the token {label!r} refused the PIN ({kind}); put the right one in the PIN file and restart")
    return TokenUnavailableError(f"the token {label!r} gave no answer ({kind}); it is reopened by itself, try again")


def _mapper() -> AttributeMapper:
    mapper = AttributeMapper()
    # A stranger's label in another encoding must not break the list of all labels.
    mapper.register_handler(Attribute.LABEL, lambda text: text.encode(), lambda raw: raw.decode("utf-8", "backslashreplace"))
    return mapper


def _starter(settings: TokenSettings) -> ParameterisedModule | None:
    parameters = profile_of(settings.module).parameters
    if parameters is None:
        return None
    if settings.config is None:
        raise TokenUnavailableError(f"{settings.module} needs its database directory; set token.config")
    return ParameterisedModule(settings.module, parameters(settings.config))


class _Login:
    """The module, the session and what was found in it. Thread-confined."""

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        self._starter = _starter(settings)
        environment = profile_of(settings.module).environment
        if settings.config is not None and environment is not None:
            os.environ.update(environment(settings.config))  # the module reads them when it starts
        self._library: Any = None
        self._session: Any = None
        self._serial: bytes | None = None
        self._found: dict[tuple[ObjectClass, str], Any] = {}
        self._families: dict[str, Family] = {}
        self._derived: OrderedDict[tuple[str, bytes], Any] = OrderedDict()
        self._rejected: PinRejectedError | None = None
        self._shut_until = 0.0

    def attempt(self, operation: Callable[[], T], *, again: bool) -> T:
        """Runs an operation on an open session, and once more on a fresh one where `again` says that this does no harm."""
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
        """The open session, opened if need be."""
        if self._session is None:
            self._open()
        return self._session

    def _open(self) -> None:
        if self._rejected:
            raise PinRejectedError(str(self._rejected))
        if time.monotonic() < self._shut_until:
            raise TokenUnavailableError(f"the token {self._settings.label!r} was not there a moment ago; try again")
        pin = read_pin(self._settings.pin_file)
        try:
            token = self._locate()
            try:
                self._session = token.open(rw=True, user_pin=pin, attribute_mapper=_mapper())
            except _PIN_ERRORS as error:
                # A token whose files are gone may answer the same: the verdict counts if it is still there in a fresh module.
                self.drop()
                self._locate()
                self._rejected = PinRejectedError(str(token_error(error, self._settings.label)))
                raise self._rejected from error
        except (PKCS11Error, TokenUnavailableError) as error:
            self.drop()
            self._shut_until = time.monotonic() + REOPEN_PAUSE_S
            if isinstance(error, PKCS11Error):
                raise token_error(error, self._settings.label) from error
            raise
        finally:
            del pin

    def _locate(self) -> Any:
        """The token by its label; once seen, also by its serial number, so that no namesake takes its place."""
        module, label = self._settings.module, self._settings.label
        if not module.is_file():
            raise TokenUnavailableError(f"there is no PKCS#11 module {module}; install it, or correct token.module")
        if self._starter is None:
            self._library = pkcs11.lib(str(module))
        else:
            self._starter.initialize()
            # Made without __init__, which would call C_Initialize(NULL); nothing else is done there that we use.
            library: Any = _pkcs11.lib
            self._library = library.__new__(library, str(module))
        tokens = list(self._library.get_tokens(token_label=label))
        if not tokens:
            raise TokenUnavailableError(f"no token labelled {label!r} behind {module}; initialise it, or correct token.label")
        if len(tokens) > 1:
            raise TokenUnavailableError(f"{len(tokens)} tokens labelled {label!r} behind {module}; give each its own label")
        if self._serial is not None and tokens[0].serial != self._serial:
            raise TokenUnavailableError(f"another token took the label {label!r}; restart only if that was meant")
        self._serial = tokens[0].serial
        return tokens[0]

    def drop(self) -> None:
        """Forgets session and objects, and takes the module down so that it reads its token anew."""
        session, library = self._session, self._library
        self._session = self._library = None
        self._found.clear()
        self._families.clear()
        self._derived.clear()
        module = self._starter or library
        for end in (session and session.close, module and module.finalize):
            try:
                if end:
                    end()
            except (PKCS11Error, TokenUnavailableError):
                pass  # it is going away: why it does not want to is of no use

    def mechanisms(self) -> set[int]:
        return {int(mechanism) for mechanism in self.ready().token.slot.get_mechanisms()}

    def search(self, template: dict[Attribute, Any]) -> list[Any]:
        """All objects that match. The list drains the iterator: an unfinished search blocks the session."""
        return list(self.ready().get_objects(template))

    def present(self, template: dict[Attribute, Any]) -> list[Any]:
        """Like `search`, but an empty list is the token's considered word: a fresh login saw nothing and the token stayed."""
        found = self.search(template)
        if not found:
            self.drop()
            found = self.search(template)
        if not found:
            self.drop()
            self.ready()
        return found

    def key(self, object_class: ObjectClass, label: str) -> Any:
        """The one key of that class and label."""
        cached = self._found.get((object_class, label))
        if cached is not None:
            return cached
        found = self.present({Attribute.CLASS: object_class, Attribute.LABEL: label})
        if not found:
            kind = "secret" if object_class is ObjectClass.SECRET_KEY else "private key"
            raise KeyMissingError(f"the token {self._settings.label!r} holds no {kind} labelled {label!r}")
        return self._remember(object_class, label, found)

    def private(self, label: str, family: Family) -> Any:
        """The one private key of that label, which must be of that family."""
        key = self.key(ObjectClass.PRIVATE_KEY, label)
        if self.family(label, key) is not family:
            raise KeyMissingError(f"the token {self._settings.label!r} holds {label!r}, but it is no {family.value} key")
        return key

    def family(self, label: str, key: Any) -> Family:
        if label not in self._families:
            self._families[label] = _family_of(key)
        return self._families[label]

    def any_key(self, label: str) -> Any:
        """The one private or secret key of that label."""
        for object_class in _KEY_CLASSES:
            if (object_class, label) in self._found:
                return self._found[object_class, label]
        for object_class in _KEY_CLASSES:
            if found := self.present({Attribute.CLASS: object_class, Attribute.LABEL: label}):
                return self._remember(object_class, label, found)
        raise KeyMissingError(f"the token {self._settings.label!r} holds no key labelled {label!r}")

    def _remember(self, object_class: ObjectClass, label: str, found: list[Any]) -> Any:
        if len(found) > 1:  # either could be the right one, and a signature by the wrong one cannot be taken back
            raise TokenUnavailableError(f"{len(found)} keys are labelled {label!r}; keep the right one and destroy the others")
        self._found[object_class, label] = found[0]
        return found[0]

    def forget(self, label: str) -> None:
        """Empties what is kept of a key."""
        for object_class in _KEY_CLASSES:
            self._found.pop((object_class, label), None)
        self._families.pop(label, None)
        for known in [known for known in self._derived if known[0] == label]:
            self._derived.pop(known).destroy()

    def derived(self, label: str, info: bytes) -> Any:
        """HKDF-Expand(secret, info, 32) as a session object that never leaves the token."""
        known = self._derived.get((label, info))
        if known is not None:
            self._derived.move_to_end((label, info))
            return known
        root = self.key(ObjectClass.SECRET_KEY, label)
        buffer = ctypes.create_string_buffer(info, len(info))
        params = _HKDF_PARAMS.pack(False, True, _CKM_SHA256, _CKF_HKDF_SALT_NULL, 0, 0, 0, ctypes.addressof(buffer), len(info))
        key = root.derive_key(
            KeyType.GENERIC_SECRET,
            8 * encodings.SECRET_LEN,
            capabilities=MechanismFlag.SIGN,
            mechanism=HKDF_DERIVE,
            mechanism_param=params,
            template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
        )
        self._derived[label, info] = key
        if len(self._derived) > DERIVED_KEPT:
            self._derived.popitem(last=False)[1].destroy()
        return key

    # Making keys

    def must_be_new(self, label: str) -> None:
        for object_class in _KEY_CLASSES:
            if self.present({Attribute.CLASS: object_class, Attribute.LABEL: label}):
                raise KeyExistsError(f"the token {self._settings.label!r} holds a key labelled {label!r} already")

    def settle(self, label: str, made: list[Any]) -> None:
        """Withdraws what was made when another process made the same label meanwhile: PKCS#11 has no unique labels."""
        same = [o for c in _KEY_CLASSES for o in self.search({Attribute.CLASS: c, Attribute.LABEL: label})]
        if len(same) > 1:
            for new in made:
                new.destroy()
            raise TokenUnavailableError(f"another process made {label!r} at the same time; nothing was made here, look again")


_HELD: set[str] = set()
_HELD_LOCK = threading.Lock()
"""Modules with an open token in this process. A second one would be a second thread in the same module."""


class Pkcs11Token:
    """`Token` on a PKCS#11 module. See the interface for what each method promises."""

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        self._module = os.path.realpath(settings.module)
        with _HELD_LOCK:
            if self._module in _HELD:
                raise RuntimeError(f"{settings.module} is open in this process already; share that token")
            _HELD.add(self._module)
        try:
            self._profile = profile_of(settings.module)
            self._name = f"{self._profile.name} {settings.label!r}"
            self._login = _Login(settings)
            self._thread = TokenThread(f"token {settings.label}", waiting=settings.waiting)
            try:
                self._mechanisms = self._run(self._login.mechanisms)
            except BaseException:
                self._end()
                raise
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        with _HELD_LOCK:
            _HELD.discard(self._module)

    def _run(self, operation: Callable[[], T]) -> T:
        """For what may be done twice: it is, on a fresh session, when the first try met a lost one."""
        return self._thread.run(lambda: self._login.attempt(operation, again=True), self._settings.call_timeout_s)

    def _run_once(self, operation: Callable[[], T]) -> T:
        """For what must not be done twice. After an error it may have happened: ask `attributes`."""
        return self._thread.run(lambda: self._login.attempt(operation, again=False), self._settings.generate_timeout_s)

    @property
    def name(self) -> str:
        return self._name

    @property
    def features(self) -> frozenset[Feature]:
        needs = {
            Feature.HKDF_INSIDE: {HKDF_DERIVE.value},
            Feature.ED25519: {_EDDSA, Mechanism.EC_EDWARDS_KEY_PAIR_GEN.value},
            Feature.RSA_PSS: {Mechanism.RSA_PKCS_PSS.value},
        }
        return frozenset(feature for feature, mechanisms in needs.items() if mechanisms <= self._mechanisms)

    def hmac(self, label: str, data: bytes) -> bytes:
        login = self._login

        def operation() -> bytes:
            tag: bytes = login.key(ObjectClass.SECRET_KEY, label).sign(data, mechanism=Mechanism.SHA256_HMAC)
            return tag

        return self._run(operation)

    def hkdf_hmac(self, label: str, info: bytes, data: bytes) -> bytes:
        if Feature.HKDF_INSIDE not in self.features:
            raise ValueError(f"{self._name} does not derive inside: it lacks CKM_HKDF_DERIVE")

        def operation() -> bytes:
            tag: bytes = self._login.derived(label, info).sign(data, mechanism=Mechanism.SHA256_HMAC)
            return tag

        return self._run(operation)

    def sign(self, label: str, algorithm: pb.Algorithm.ValueType, data: bytes) -> bytes:
        row = encodings.check_input(algorithm, data)

        def operation() -> bytes:
            key = self._login.private(label, row.family)
            if algorithm == pb.ALGORITHM_PS256:
                salted = (Mechanism.SHA256, MGF.SHA256, 32)
                raw: bytes = key.sign(data, mechanism=Mechanism.RSA_PKCS_PSS, mechanism_param=salted)
            elif algorithm == pb.ALGORITHM_RS256:
                raw = key.sign(encodings.digest_info(data), mechanism=Mechanism.RSA_PKCS)
            elif algorithm == pb.ALGORITHM_ED25519:
                raw = key.sign(data, mechanism=Mechanism.EDDSA)
            else:
                raw = encodings.ecdsa_der(key.sign(data, mechanism=Mechanism.ECDSA))
            return raw

        return self._run(operation)

    def generate_secret(self, label: str) -> None:
        capabilities = MechanismFlag.SIGN
        if Feature.HKDF_INSIDE in self.features:
            capabilities |= MechanismFlag.DERIVE

        def operation() -> None:
            self._login.must_be_new(label)
            made = self._login.ready().generate_key(
                KeyType.GENERIC_SECRET,
                8 * encodings.SECRET_LEN,
                id=secrets.token_bytes(16),
                label=label,
                store=True,
                capabilities=capabilities,
                template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.MODIFIABLE: False},
            )
            self._login.settle(label, [made])

        self._run_once(operation)

    def generate_key_pair(self, label: str, algorithm: pb.Algorithm.ValueType) -> None:
        row = encodings.in_token(algorithm)
        family = row.family
        if family is Family.ED25519 and Feature.ED25519 not in self.features:
            raise ValueError(f"{self._name} has no Ed25519 keys; choose another algorithm for {label!r}, or another token")

        def operation() -> None:
            self._login.must_be_new(label)
            public = {Attribute.EC_PARAMS: encodings.EC_PARAMS[family]} if family is not Family.RSA else {}
            made = self._login.ready().generate_keypair(
                _KEY_TYPES[family],
                encodings.RSA_BITS if family is Family.RSA else None,
                id=secrets.token_bytes(16),
                label=label,
                store=True,
                capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
                public_template=public,
                private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.MODIFIABLE: False},
            )
            self._login.settle(label, list(made))

        self._run_once(operation)

    def public_key(self, label: str) -> bytes:
        def operation() -> bytes:
            private = self._login.key(ObjectClass.PRIVATE_KEY, label)
            halves = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: label, Attribute.ID: private.id}
            found = self._login.search(halves)
            if len(found) != 1:
                raise TokenUnavailableError(f"{len(found)} public keys belong to {label!r}, not one; look at the token")
            family = self._login.family(label, private)
            if family is Family.RSA:
                return encodings.rsa_spki(found[0][Attribute.MODULUS], found[0][Attribute.PUBLIC_EXPONENT])
            return encodings.ec_spki(family, found[0][Attribute.EC_POINT])

        return self._run(operation)

    def attributes(self, label: str) -> KeyAttributes:
        def operation() -> KeyAttributes:
            key = self._login.any_key(label)
            origin = Attribute.LOCAL if self._profile.tells_local else Attribute.NEVER_EXTRACTABLE
            return KeyAttributes(
                label=label,
                sensitive=key[Attribute.SENSITIVE],
                extractable=key[Attribute.EXTRACTABLE],
                always_sensitive=key[Attribute.ALWAYS_SENSITIVE],
                never_extractable=key[Attribute.NEVER_EXTRACTABLE],
                local=key[origin],
            )

        return self._run(operation)

    def labels(self) -> list[str]:
        def once() -> list[str]:
            self._login.drop()
            return sorted(key.label for c in _KEY_CLASSES for key in self._login.search({Attribute.CLASS: c}))

        def operation() -> list[str]:
            listed = once()
            if once() != listed:  # a token on its way out shows fewer
                raise TokenUnavailableError(f"the keys of {self._settings.label!r} changed while they were listed; try again")
            return listed

        return self._run(operation)

    def destroy(self, label: str) -> None:
        def operation() -> None:
            key = self._login.any_key(label)
            identity = key.id
            self._login.forget(label)
            key.destroy()  # the private half first: an orphaned public key harms nobody
            halves = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: label, Attribute.ID: identity}
            for public in self._login.search(halves):
                public.destroy()

        self._run_once(operation)

    def close(self) -> None:
        self._end()
        self._release()

    def _end(self) -> None:
        try:
            self._thread.run(self._login.drop, self._settings.call_timeout_s)
        except TokenUnavailableError:  # closed before, or it does not answer: then there is nobody to log out
            pass
        finally:
            self._thread.stop(self._settings.call_timeout_s)


def _family_of(key: Any) -> Family:
    kind = key.key_type
    if kind is KeyType.RSA:
        return Family.RSA
    if kind is KeyType.EC_EDWARDS:
        return Family.ED25519
    params = key[Attribute.EC_PARAMS]
    for family in (Family.P256, Family.P384):
        if params == encodings.EC_PARAMS[family]:
            return family
    raise KeyMissingError(f"{key.label!r} is a key on a curve that no algorithm here uses")
