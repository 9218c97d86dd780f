"""Connections to a PostgreSQL server: address, password, and the checks that a connection must pass
before it may commit.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from capsign_wire import settings
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict

from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.store.faults import StoreDamagedError, StoreMissingError, StoreUnsafeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long and how many wait for a server. Seconds."""

    answer_s: float = 45.0
    """Longest wait for an answer. Longer than the server's own limit for a statement, so that only
    a dead connection reaches it.
    """

    control_row_s: float = 10.0
    """Longest wait for the control row while another replica holds it."""

    readers: int = 32
    """Reading connections of one process; more threads than that wait for a turn."""

    reader_s: float = 10.0
    """Longest wait for a reading connection while others have all of them."""


USUAL = Patience()
"""What an adapter runs with."""

Answer = TypeVar("Answer")


class SilentError(psycopg.OperationalError):
    """The server did not answer in time."""


class Link(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which every wait is bounded: one that stays silent is closed, and counts as
    lost.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.answer_s = USUAL.answer_s
        """Longest wait for an answer, seconds."""
        self.warned = False
        """Whether the server has warned since this was last set to False."""
        self.served = False
        """Whether somebody has used it already: it may have died while it was idle."""
        self.add_notice_handler(self._noticed)

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        self.warned = self.warned or notice.severity_nonlocalized == "WARNING"

    def wait(self, gen: PQGen[Answer], *arguments: Any, **options: Any) -> Answer:
        try:
            return super().wait(
                _bounded(gen, time.monotonic() + self.answer_s), *arguments, **options
            )
        except _OverError as error:
            self.close()
            raise SilentError(f"no answer within {self.answer_s:g} s") from error


class _OverError(Exception):
    """Raised inside the driver's own loop of waiting."""


def _bounded(steps: PQGen[Answer], until: float) -> PQGen[Answer]:
    """Returns the driver's steps, which raise _OverError after `until`. The driver calls them every
    tenth of a second even when nothing is ready.
    """
    try:
        state = next(steps)
        while True:
            ready = yield state
            if not ready and time.monotonic() > until:
                raise _OverError
            state = steps.send(ready)
    except StopIteration as done:
        answer: Answer = done.value
        return answer


OLDEST_SERVER = 140_000
"""PostgreSQL 14: the oldest release that this is tested for."""

_DEFAULTS = {
    "application_name": "capsign-adapter",
    "connect_timeout": "5",
    # A server that is gone without a word is noticed within about ten seconds, also in the middle
    # of a commit.
    "keepalives_idle": "4",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}

_SESSION = (
    # A commit that no standby has confirmed is told by a warning: whatever the role says, warnings
    # must come.
    "SET synchronous_commit = on; SET client_min_messages = warning;"
    # A replica that stops while it holds the control row must not stop the others: the server ends
    # its transaction.
    " SET lock_timeout = {control_row_ms}; SET statement_timeout = '30s'; SET "
    "idle_in_transaction_session_timeout = '15s';"
    " SELECT current_setting('fsync'), current_setting('full_page_writes'), pg_is_in_recovery()"
)

_WEAK_TLS = {"disable", "allow", "prefer"}
_LOOPBACK = {"", "localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class Target:
    """The address of a database. Its text form is safe to log: it holds no secret."""

    parameters: dict[str, str] = field(repr=False)
    password_file: Path | None = field(repr=False)
    patience: Patience = field(default=USUAL, repr=False)

    def __str__(self) -> str:
        return (
            f"postgresql database {self.parameters.get('dbname', '')!r} on "
            f"{self.parameters.get('host', 'the default socket')!r}"
        )

    @classmethod
    def parse(cls, url: str, password_file: Path | None, patience: Patience = USUAL) -> Target:
        """Raises ValueError for a URL that cannot be read or that carries a password."""
        try:
            given = {
                name: str(value)
                for name, value in conninfo_to_dict(url).items()
                if value is not None
            }
        except psycopg.Error:
            # libpq's own words repeat the URL.
            raise ValueError(
                "The PostgreSQL URL cannot be read: "
                "postgresql://user@host:port/database?option=value."
            ) from None
        if "password" in given:
            raise ValueError(
                "A password in the PostgreSQL URL would show in logs and process lists: "
                "put it into a file."
            )
        local = all(
            host in _LOOPBACK or host.startswith(("/", "@"))
            for host in given.get("host", "").split(",")
        )
        mode = given.setdefault("sslmode", "prefer" if local else "verify-full")
        if mode in _WEAK_TLS and not local:
            raise ValueError(
                f"sslmode={mode} does not protect the connection to {given['host']}: use "
                f"verify-full."
            )
        return cls(_DEFAULTS | given, password_file, patience)

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of a connection; the password is read from its file now."""
        arguments: dict[str, Any] = {**self.parameters, "autocommit": True}
        if self.password_file is not None:
            arguments["password"] = _read_secret(self.password_file)
        return arguments

    def connect(self) -> Link:
        """Returns a connection in autocommit mode that commits durably. Raises psycopg.Error, and
        StoreUnavailableError or a subclass.
        """
        link = Link.connect(**self.arguments())
        self.check(link)
        return link

    def check(self, link: Link) -> None:
        """Configure a new connection, and close it if it does not pass the checks. Raises as
        `connect`.
        """
        try:
            self._check(link)
        except BaseException:
            link.close()
            raise

    def _check(self, link: Link) -> None:
        if link.info.server_version < OLDEST_SERVER:
            raise StoreUnsafeError(
                f"{self}: the server is older than PostgreSQL {OLDEST_SERVER // 10_000}. "
                f"Upgrade it."
            )
        link.answer_s = self.patience.answer_s
        control_row_ms = int(self.patience.control_row_s * 1000)
        cursor = link.execute(_SESSION.format(control_row_ms=control_row_ms).encode())
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        if row is None or row[:2] != ("on", "on"):
            raise StoreUnsafeError(
                f"{self}: the server runs with fsync or full_page_writes off and would "
                f"lose commits. Turn them on."
            )
        if row[2]:
            raise StoreUnavailableError(
                f"{self}: the server is a standby. Point the URL at the primary, or promote it."
            )


def _read_secret(path: Path) -> str:
    """The database password, as a file of ours or as a mounted Kubernetes Secret has it; see
    `settings.read_secret`.
    """
    try:
        return settings.read_secret(path).decode().rstrip("\r\n")
    except settings.SettingsError as error:
        raise StoreUnsafeError(f"{error} The database password is read from there.") from None
    except UnicodeDecodeError:  # the cause would quote the password
        raise StoreUnsafeError(
            f"{path} is not UTF-8. The database password is read from there."
        ) from None


_SENTENCES = {
    "53100": "The disk of the database server is full. Free space; signing resumes by itself.",
    "53300": "The server has no connection left. Raise max_connections or run fewer replicas.",
    "25006": "The server takes reads only. Point the URL at the primary.",
    "28P01": "The server did not accept the password. Correct the password file.",
    "28000": "The server does not let this user in. See its pg_hba.conf.",
    "42501": "The user lacks rights on the tables. Grant them, or open the store as their owner.",
    "55P03": "Another replica has held the control row for 10 s. See pg_stat_activity.",
    "57014": "The server ended a statement that took too long.",
    "57P01": "The server is shutting down.",
    "57P03": "The server is starting up.",
}

_LOGIN_FAILURES = {
    # libpq passes on no code for a refused login, only the server's words; in another language the
    # general sentence is given.
    re.compile(r'database ".*" does not exist'): "3D000",
    re.compile(r"password authentication failed"): "28P01",
    re.compile(r"no pg_hba.conf entry|role \".*\" does not exist"): "28000",
    re.compile(r"too many clients|remaining connection slots"): "53300",
    re.compile(r"the database system is starting up"): "57P03",
    re.compile(r"the database system is shutting down"): "57P01",
}

_DAMAGE = {"XX001", "XX002"}
_NO_DATABASE = "3D000"


def from_postgres(error: psycopg.Error, target: Target) -> StoreUnavailableError:
    """Returns the store's error for an error outside COMMIT: nothing was written. libpq's text is
    not repeated, for it may hold values.
    """
    code = error.sqlstate or next(
        (code for text, code in _LOGIN_FAILURES.items() if text.search(str(error))), None
    )
    name = f"({code or type(error).__name__})"
    if code in _DAMAGE:
        return StoreDamagedError(
            f"{target}: the server found damaged data {name}. Stop every replica; restore a backup."
        )
    if code == _NO_DATABASE:
        return StoreMissingError(
            f"{target} does not exist {name}. If this deployment had one, restore it; if "
            f"it is new, make it with `createdb`, "
            "then its tables with `capsign-adapter --config FILE provision`."
        )
    if code is None:
        return StoreUnavailableError(
            f"{target} cannot be reached. See that the server runs and that the way to it "
            f"is open {name}."
        )
    return StoreUnavailableError(
        f"{target}: {_SENTENCES.get(code, 'The server refused the work.')} {name}"
    )
