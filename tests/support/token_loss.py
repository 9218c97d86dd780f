"""Scenes that end badly for a PKCS#11 module. Each runs in a spawned process, so that a crash is a
failure of one test.

They return plain values; the tests judge them.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pkcs11
from capsign_adapter.token.open import TokenSettings, open_token
from capsign_adapter.token.pkcs11_token import Pkcs11Token
from capsign_adapter.token.session import Kind, Session
from capsign_wire.types.v1 import algorithms_pb2 as pb


def apart(scene: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a scene in a process of its own: the module is loaded there for the first time."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(scene, *arguments).result(timeout=120)


def verdict(ask: Callable[[], Any]) -> str:
    """The name of the exception that a call raised, or "ok"."""
    try:
        ask()
    except Exception as error:
        return type(error).__name__
    return "ok"


def patiently(ask: Callable[[], Any], seconds: float = 30) -> str:
    """Asks until it is answered: after a loss the token is tried again only after a pause."""
    end = time.monotonic() + seconds
    while (last := verdict(ask)) == "TokenUnavailableError" and time.monotonic() < end:
        time.sleep(0.01)
    return last


def opening(settings: TokenSettings) -> tuple[str, str]:
    """How opening ends: the exception's name and text."""
    try:
        open_token(settings).close()
    except Exception as error:
        return type(error).__name__, str(error)
    return "ok", ""


def asks(token: Any) -> dict[str, Callable[[], Any]]:
    """One call of each kind that could mistake a lost token for an empty one."""
    return {
        "hmac": lambda: token.hmac("secret", b"data"),
        "sign": lambda: token.sign("pair", pb.ALGORITHM_ES256, bytes(32)),
        "public_key": lambda: token.public_key("pair"),
        "attributes": lambda: token.attributes("secret"),
        "labels": token.labels,
        "hmac of a label never asked for": lambda: token.hmac("other", b"data"),
        "destroy": lambda: token.destroy("other"),
        "generate_secret": lambda: token.generate_secret("new"),
        "generate_key_pair": lambda: token.generate_key_pair("new pair", pb.ALGORITHM_ES256),
    }


def lost_and_restored(settings: TokenSettings, lost: Path) -> dict[str, Any]:
    """A directory is taken away under a live session, everything is asked, and it is put back."""
    token = open_token(settings)
    for label in ("secret", "other"):
        token.generate_secret(label)
    token.generate_key_pair("pair", pb.ALGORITHM_ES256)
    before = token.hmac("secret", b"data"), token.public_key("pair"), token.labels()
    # not beside it: SoftHSM takes any directory there for a token
    away = lost.parents[1] / f"{lost.name}.away"
    seen: dict[str, Any] = {"while away": {}}
    for name, ask in asks(token).items():  # each of them as the first call after the loss
        lost.rename(away)
        seen["while away"][name] = [verdict(ask), verdict(ask)]
        away.rename(lost)
        seen["back"] = patiently(token.labels)
        if seen["back"] != "ok":
            break
        token.hmac("secret", b"data")  # the live session holds its objects again
    seen["same"] = before == (
        token.hmac("secret", b"data"),
        token.public_key("pair"),
        token.labels(),
    )
    token.close()
    return seen


def destroyed_from_elsewhere(settings: TokenSettings) -> list[str]:
    """Another process destroys a key whose handle is held here."""
    token = open_token(settings)
    token.generate_secret("secret")
    token.hmac("secret", b"data")
    apart(_destroy, settings, "secret")
    seen = [
        verdict(lambda: token.hmac("secret", b"data")),
        verdict(lambda: token.attributes("secret")),
    ]
    apart(_generate, settings, "secret")
    seen.append(verdict(lambda: token.hmac("secret", b"data")))
    seen.append(verdict(lambda: token.generate_secret("secret")))
    token.close()
    return seen


def _destroy(settings: TokenSettings, label: str) -> None:
    token = open_token(settings)
    token.destroy(label)
    token.close()


def _generate(settings: TokenSettings, label: str) -> None:
    token = open_token(settings)
    token.generate_secret(label)
    token.close()


def doubled(settings: TokenSettings) -> list[str]:
    """Two keys under one label, as only a stranger to our rules makes them."""
    from support.tokens import import_secret

    token = open_token(settings)
    token.generate_secret("secret")
    import_secret(token, "secret", bytes(32))
    seen = [verdict(lambda: token.hmac("secret", b"data"))]
    token.close()
    return seen


def race_to_generate(settings: TokenSettings, rounds: int) -> list[str]:
    """One of several processes that make the same labels."""
    token = open_token(settings)
    seen = [
        verdict(lambda label=f"raced/{number}": token.generate_secret(label))
        for number in range(rounds)
    ]
    token.close()
    return seen


class FailingSession(Session):
    """Something happens to the token's session behind our back, when it is told so."""

    before_use: Callable[[Session], object] | None = None
    """Done once, before the next call."""
    after_renewal: Callable[[Session], object] | None = None
    """Done once, after the next fresh login."""

    def ready(self) -> Any:
        session, happens = super().ready(), self.before_use
        if happens is not None:
            self.before_use = None
            happens(self)
        return session

    def renew(self) -> None:
        super().renew()
        happens, self.after_renewal = self.after_renewal, None
        if happens is not None:
            happens(self)


def with_failing_session(settings: TokenSettings) -> tuple[Pkcs11Token, FailingSession]:
    session = FailingSession(settings)
    return Pkcs11Token(settings, lambda _: session), session


def close_below(session: Session) -> None:
    """As an HSM's idle timeout does."""
    session.ready().close()


def session_closed_below(settings: TokenSettings) -> list[Any]:
    """The session dies although the token is well. What can be repeated is, unseen by the
    caller.
    """
    token, session = with_failing_session(settings)
    token.generate_secret("secret")
    before = token.hmac("secret", b"data")
    session.before_use = close_below
    after = token.hmac("secret", b"data")
    session.after_renewal = close_below
    generated = [
        verdict(lambda: token.generate_secret("second")),
        patiently(lambda: token.generate_secret("second")),
    ]
    token.close()
    return [before == after, *generated]


def object_gone_below(settings: TokenSettings) -> list[str]:
    """A handle goes stale under the cache."""
    token, session = with_failing_session(settings)
    token.generate_secret("secret")
    token.hmac("secret", b"data")
    session.before_use = lambda below: below.search(Kind.SECRET, "secret")[0].destroy()
    seen = [verdict(lambda: token.hmac("secret", b"data"))]
    token.close()
    return seen


def open_and_fork(settings: TokenSettings) -> tuple[str, bool]:
    """A forked child finds the token closed, at once, and the parent's is unharmed."""
    import os

    token = open_token(settings)
    token.generate_secret("secret")
    before = token.hmac("secret", b"data")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, verdict(lambda: token.hmac("secret", b"data")).encode())
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(reader, 100).decode()
    same = token.hmac("secret", b"data") == before
    token.close()
    return said, same


def reopened(settings: TokenSettings) -> list[Any]:
    """Closed, closed again, asked, opened again."""
    first = open_token(settings)
    first.generate_secret("secret")
    tag = first.hmac("secret", b"data")
    twice = verdict(lambda: open_token(settings))
    first.close()
    first.close()
    closed = verdict(lambda: first.hmac("secret", b"data"))
    again = open_token(settings)
    same = again.hmac("secret", b"data") == tag
    again.close()
    return [twice, closed, same]


class SetClock:
    """Monotonic seconds that pass when they are set, and while somebody sleeps."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class SeenToken:
    """A token, and who logs in to it; `login` may be refused in its place."""

    def __init__(self, token: Any, log_in: Callable[..., Any], flags: Any) -> None:
        self.open = log_in
        self.flags = flags
        self.serial = token.serial
        self.slot = token.slot


def pin_tries(settings: TokenSettings) -> list[Any]:
    """A refused PIN in a live process, then a right one in the file: only a restart takes it. Also
    counts C_Login.
    """
    right = settings.pin_file.read_text()
    settings.pin_file.write_text("wrong\n")
    logins: list[str] = []

    class Counting(Session):
        def locate(self) -> Any:
            token = super().locate()

            def log_in(*, user_pin: str, **more: Any) -> Any:
                logins.append(user_pin)
                return token.open(user_pin=user_pin, **more)

            return SeenToken(token, log_in, token.flags)

    login = Counting(settings)
    seen: list[Any] = []
    for number in range(5):
        if number == 3:
            settings.pin_file.write_text(right)
        seen.append(verdict(lambda: login.attempt(login.features, again=True)))
    return [*seen, len(logins)]


def pin_refused_once(settings: TokenSettings) -> list[str]:
    """A log-in that worked before is refused once. The pauses pass by a clock that is set."""
    from capsign_adapter.token.pin_trials import PAUSES_S

    clock = SetClock()
    login = Session(settings, clock=clock, sleep=clock.sleep)

    def ask() -> str:
        return verdict(lambda: login.attempt(login.features, again=True))

    seen = [ask()]
    right, state = settings.pin_file.read_text(), settings.pin_file.stat()

    def put(text: str) -> None:
        settings.pin_file.write_text(text)
        os.utime(
            settings.pin_file, ns=(state.st_atime_ns, state.st_mtime_ns)
        )  # as if nobody had touched it

    put("0" * (len(right) - 1) + "\n")
    login.drop()
    seen.append(ask())
    put(right)
    clock.now += PAUSES_S[0] - 1
    seen.append(ask())
    clock.now += 2
    seen.append(ask())
    login.drop()
    seen.append(ask())
    return seen


def pin_locked_once(settings: TokenSettings) -> list[str]:
    """The token says CKR_PIN_LOCKED at a log-in that worked before: nothing but a restart asks it
    again.
    """
    import pkcs11

    class Locking(Session):
        locked = False

        def locate(self) -> Any:
            token = super().locate()
            return SeenToken(token, refuse, token.flags) if self.locked else token

    def refuse(**_: Any) -> None:
        raise pkcs11.PinLocked

    clock = SetClock()
    login = Locking(settings, clock=clock, sleep=clock.sleep)

    def ask() -> str:
        return verdict(lambda: login.attempt(login.features, again=True))

    seen = [ask()]
    login.locked = True
    login.drop()
    seen.append(ask())
    login.locked = False
    for hours in (1, 100):
        clock.now += hours * 3600
        seen.append(ask())
    return seen


def cautious_login(settings: TokenSettings) -> list[Any]:
    """A token that says that the next wrong PIN locks it, and one who only wants to know: what it
    meets, and C_Logins.
    """
    from pkcs11 import TokenFlag

    tries: list[int] = []

    class AtItsLastTry(Session):
        def locate(self) -> Any:
            token = super().locate()
            flags = token.flags | TokenFlag.USER_PIN_FINAL_TRY
            return SeenToken(token, lambda **_: tries.append(1), flags)

    login = AtItsLastTry(replace(settings, cautious=True))
    return [verdict(lambda: login.attempt(login.features, again=True)), len(tries)]


def replaced(settings: TokenSettings, mine: Path, other: Path) -> str:
    """Another token of the same label takes the place of ours, with a PIN that it accepts."""
    token = open_token(settings)
    token.generate_secret("secret")
    mine.rename(mine.with_name("away"))
    mine.with_name("away").rename(mine.parents[1] / "away")
    other.rename(mine.parent / other.name)
    settings.pin_file.write_text((other.parents[1] / "unused").read_text())
    seen = patiently(lambda: token.hmac("secret", b"data"), seconds=1)
    token.close()
    return seen


def listed(settings: TokenSettings) -> list[str]:
    token = open_token(settings)
    labels = token.labels()
    token.close()
    return labels


def one_of_each(settings: TokenSettings) -> list[str]:
    """A key of every kind, as production makes them."""
    token = open_token(settings)
    token.generate_secret("secret")
    for number in (
        pb.ALGORITHM_ED25519,
        pb.ALGORITHM_ES256,
        pb.ALGORITHM_ES384,
        pb.ALGORITHM_PS256,
    ):
        token.generate_key_pair(f"pair {number}", number)
    labels = token.labels()
    token.close()
    return labels


def open_again_and_again(settings: TokenSettings, times: int) -> list[str]:
    """A replica that starts while others do: SoftHSM rewrites the token's file at each login."""
    return [opening(settings)[0] for _ in range(times)]


def log_in_for_ever(settings: TokenSettings) -> None:
    """Nothing but logins, to be killed in one of them."""
    os.environ["SOFTHSM2_CONF"] = str(settings.config)
    token = pkcs11.lib(str(settings.module)).get_token(token_label=settings.label)
    pin = settings.pin_file.read_text().strip()
    while True:
        token.open(user_pin=pin).close()
