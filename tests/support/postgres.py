"""A real PostgreSQL server for tests: thrown away afterwards, durable while it lasts."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg

INSTALL = (
    "PostgreSQL is not installed: run `apt-get install postgresql` (the tests look in PATH "
    "and /usr/lib/postgresql)."
)


def _binary(name: str) -> str:
    places = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3])
    )
    found = str(places[-1]) if places else shutil.which(name)
    if not found:
        raise RuntimeError(INSTALL)
    return found


class PostgresServer:
    """A cluster in a directory of its own, on a Unix socket and a loopback port. It asks for a
    password on both.

    initdb and postgres refuse to run as root, so root lends the cluster to the `postgres` (or else
    `nobody`) user.
    """

    user = "capsign"

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        initdb, self._postgres = _binary("initdb"), _binary("postgres")
        self.directory = Path(tempfile.mkdtemp(prefix="capsign-pg-"))
        self.password_file = self.directory / "password"
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(secrets.token_urlsafe(24))
        self._owner = self._unprivileged_user()
        self.port = _free_port()
        self._as_owner(
            [
                initdb,
                "-D",
                str(self.directory / "data"),
                "-U",
                self.user,
                "-A",
                "scram-sha-256",
                "--pwfile",
                str(self.password_file),
                "--encoding=UTF8",
                "--no-locale",
                "--no-instructions",
            ]
        )
        self.password_file_for_clients = self._client_copy()
        self.start()

    def _unprivileged_user(self) -> str | None:
        if os.geteuid():
            return None
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            for path in (self.directory, self.password_file):
                os.chown(path, entry.pw_uid, entry.pw_gid)
            return name
        raise RuntimeError(
            "initdb does not run as root, and there is no user `postgres` or `nobody` to run it as."
        )

    def _client_copy(self) -> Path:
        copy = Path(tempfile.mkdtemp(prefix="capsign-pg-client-")) / "password"
        copy.touch(mode=0o600)
        copy.write_text(self.password_file.read_text())
        return copy

    def _owned(self, command: list[str]) -> list[str]:
        """The command as the cluster's owner, ended by the kernel when we end.

        By setpriv, because `user=` and `preexec_fn=` make Python fork, and a fork among gRPC's
        threads can end in gRPC's own code before it gets to the command.
        """
        change: list[str] = []
        if self._owner:
            group = str(pwd.getpwnam(self._owner).pw_gid)
            change = ["--reuid", self._owner, "--regid", group, "--clear-groups"]
        return ["setpriv", "--pdeathsig", "QUIT", *change, "--", *command]

    def _as_owner(self, command: list[str]) -> None:
        done = subprocess.run(
            self._owned(command), cwd=self.directory, capture_output=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr.decode()[-2000:]}")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "max_connections": 60,
            "shared_buffers": "32MB",
        }
        command = [self._postgres, "-D", str(self.directory / "data")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._owned(command), cwd=self.directory, stdout=log, stderr=log
            )
        ready = [_binary("pg_isready"), "-q", "-h", str(self.directory), "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            try:
                self._process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError(f"postgres ended: {(self.directory / 'log').read_text()[-2000:]}")

    def stop(self, sig: int = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends its sessions, SIGQUIT leaves recovery to the next start."""
        if self._process:
            self._process.send_signal(sig)
            self._process.wait(timeout=60)
            self._process = None

    def close(self) -> None:
        """Stop it and remove its files."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory)
        shutil.rmtree(self.password_file_for_clients.parent)

    def url(self, database: str, *, host: str = "", port: int = 0) -> str:
        """URL of a database, by the Unix socket unless a host is given."""
        where = f"host={host or self.directory}&port={port or self.port}"
        return f"postgresql://{self.user}@/{database}?{where}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A plain connection, past the store."""
        return psycopg.connect(
            self.url(database), password=self.password_file_for_clients.read_text(), autocommit=True
        )

    def new_database(self) -> str:
        """Make an empty database; its URL."""
        self._databases += 1
        name = f"capsign_{self._databases}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def restored(self, url: str) -> str:
        """Dump a database, which may be in use, and restore it into a new one; its URL."""
        copy = self.new_database()
        password = {"PGPASSWORD": self.password_file_for_clients.read_text()}
        dump = [_binary("pg_dump"), "--no-owner", "--dbname", url]
        load = [_binary("psql"), "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", copy]
        told = subprocess.run(dump, env=os.environ | password, stdout=subprocess.PIPE, check=True)
        subprocess.run(
            load,
            env=os.environ | password,
            input=told.stdout,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return copy


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
