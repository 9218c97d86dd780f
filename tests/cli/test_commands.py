"""Exit codes, errors and help, without any process."""

from __future__ import annotations

import io
import json
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import grpc
import pytest
from capsign.errors import Refused, Unavailable, Unknown
from capsign_cli import __main__ as cli
from capsign_cli import credentials, endpoints, failures, output, profiles, revocations
from capsign_cli.dev import commands as dev
from capsign_cli.dev.ca import SERVER_NAME, DevelopmentCa
from capsign_wire.adapter.v1 import admin_pb2_grpc
from capsign_wire.failures import REASONS, FailureError
from capsign_wire.types.v1 import failures_pb2 as pb
from support.fake_agent import FakeAgent

VERIFIER = "capsign.test/log+172dd09e+AZDmYYjQCKgOlKVDMkk9++F+hyr9mnwZzD2oQmtUkFJG"


ENDED: dict[str, Any] = {"life": -timedelta(minutes=1), "backdate": timedelta(days=90)}
"""A development CA whose certificates ended a minute ago."""


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


def run(*arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(list(map(str, arguments)))
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


@pytest.mark.parametrize(
    ("kind", "code"),
    [(Refused, failures.REFUSED), (Unknown, failures.UNKNOWN), (Unavailable, failures.UNAVAILABLE)],
)
def test_three_outcomes_are_three_exit_codes(kind, code, capsys):
    told = failures.told(
        kind("REASON", "It went so. Do this.", advice="Do this.", intent_id=b"\x01" * 16)
    )
    assert (told.exit_code, told.message, told.advice) == (code, "It went so.", "Do this.")
    failures.show(told)
    assert ("01" * 16 in capsys.readouterr().err) == (kind is Unknown)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_has_an_exit_code(reason):
    told = failures.told(FailureError(reason, "So it was."))
    expected = {pb.OUTCOME_REFUSED: 1, pb.OUTCOME_UNKNOWN: 3, pb.OUTCOME_UNAVAILABLE: 4}[
        REASONS[reason].outcome
    ]
    assert (told.exit_code, told.reason, told.message) == (
        expected,
        REASONS[reason].name,
        "So it was.",
    )


def test_a_failed_connection_is_unavailable():
    class Broken(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.UNAVAILABLE

    assert failures.told(Broken()).exit_code == failures.UNAVAILABLE


def test_a_defect_is_not_explained_away():
    assert failures.told(ZeroDivisionError()) is None


@pytest.mark.parametrize(
    "command",
    [[], *[[name] for name in cli.COMMANDS], ["dev", "up"], ["keys", "list"], ["log", "verify"]],
)
def test_help_everywhere(command, capsys):
    code, out, _ = run(*command, "--help", capsys=capsys)
    assert code == 0
    assert "Usage: capsign" in out


def test_help_imports_no_command():
    code = (
        "import sys; from capsign_cli.__main__ import capsign\ntry: "
        "capsign(['--help'])\nexcept SystemExit: pass\n"
    )
    code += (
        "print([m for m in ('grpc', 'rich', 'cryptography', 'capsign_cli.signing') if m in "
        "sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["sign"],
        ["sign", "-a", "ES256", "--dir", "/nonexistent"],
        ["verify", "-a", "ES256", "-s", "!!", "--socket", "/nonexistent"],
        ["dev", "up", "--workers", "0"],
        ["keys", "list", "--adapter", "h:1"],
        ["dev", "status", "--dir", "/nonexistent"],
    ],
)
def test_wrong_use_is_exit_code_2_with_a_next_step(arguments, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the checkout may have the deployment of `make demo` in it
    monkeypatch.delenv("CAPSIGN_SOCKET", raising=False)
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: PTH123, SIM115 - closed with the process
    code, _, err = run(*arguments, capsys=capsys)
    assert code == failures.USAGE
    assert "Traceback" not in err


def test_errors_for_machines_are_json(capsys):
    code, out, err = run("dev", "status", "--dir", "/nonexistent", "-o", "json", capsys=capsys)
    error = json.loads(err)["error"]
    assert (code, out, error["outcome"], error["reason"]) == (2, "", "usage", "NOTHING_THERE")
    assert "capsign dev up" in error["advice"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["handles", "-o", "json", "--bogus"],
        ["handles", "--bogus", "--output=json"],
        ["revoke", "-o", "json", "banana"],
        ["revoke", "--output", "json", "grant"],
        ["keys", "list", "-ojson", "--ca", "/nonexistent"],
        [
            "sign",
            "-a",
            "ES256",
            "-o",
            "json",
            "--intent",
            "zz",
            "--socket",
            "/nonexistent",
            "/dev/null",
        ],
        ["revoke", "everything", "-o", "json"],
    ],
)
def test_wrong_options_are_json_too(arguments, capsys, directory):
    """They were told in click's words: a machine that reads JSON found none."""
    code, out, err = run(*arguments, "--dir", directory, capsys=capsys)
    assert (code, out, json.loads(err)["error"]["outcome"]) == (failures.USAGE, "", "usage")


def test_a_later_command_does_not_inherit_the_format(capsys):
    run("handles", "--bogus", "-o", "json", capsys=capsys)
    assert "Usage:" in run("handles", "--bogus", capsys=capsys)[2]


@pytest.fixture
def directory(tmp_path):
    """A directory as `dev up` leaves it, where nothing answers."""
    ca = DevelopmentCa(tmp_path / "pki")
    one = ca.issue("operator", "/operator/dev")
    client = {"certificate": str(one.certificate), "private_key": str(one.private_key)}
    state = {
        "dir": str(tmp_path),
        "run": str(tmp_path / "run"),
        "store": "sqlite",
        "store_password_file": None,
        "server_name": SERVER_NAME,
        "sockets": {"app": str(tmp_path / "none.sock")},
        "adapters": [{"address": "127.0.0.1:1"}],
        "ca": str(ca.certificate_file),
        "clients": {"operator": client},
        "processes": [],
        "log_key": VERIFIER,
    }
    (tmp_path / "capsign.json").write_text(json.dumps(state))
    return tmp_path


@pytest.mark.parametrize(
    "text", ["", "{bad", "[]", "null", '"x"', "{}", '{"sockets": {"app": "s"}}']
)
@pytest.mark.parametrize(
    "command",
    [
        ["handles"],
        ["keys", "list"],
        ["dev", "status"],
        ["dev", "down"],
        ["dev", "up"],
        ["log", "verify"],
    ],
)
def test_a_directory_of_another_version_is_explained(command, text, tmp_path, capsys):
    """It was a traceback, or the advice to run `dev up`, which said the same again."""
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "capsign.json").write_text(text)
    code, _, err = run(*command, "--dir", tmp_path / "d", "-o", "json", capsys=capsys)
    assert (code, json.loads(err)["error"]["reason"]) == (failures.USAGE, "STATE_DAMAGED")


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ([], "/the/environments"),
        (["--dir", "DIR"], "DIR/none.sock"),
        (["--container", "app"], "DIR/none.sock"),
        (["--socket", "/the/options", "--dir", "DIR"], "/the/options"),
    ],
)
def test_what_is_said_goes_before_the_environment(options, used, directory, capsys, monkeypatch):
    """`make demo` says to export CAPSIGN_SOCKET. Whoever did was shown that agent's handles for any
    --dir, and signed with it.
    """
    monkeypatch.setenv("CAPSIGN_SOCKET", "/the/environments")
    monkeypatch.setenv("CAPSIGN_DEV_DIR", str(directory))
    said = [directory if option == "DIR" else option for option in options]
    _, _, err = run("handles", *said, capsys=capsys)
    assert f" {used.replace('DIR', str(directory))}" in err


@pytest.mark.parametrize(
    "command",
    [["handles"], ["keys", "list"], ["dev", "status"], ["dev", "up"], ["dev", "down", "--purge"]],
)
def test_a_copy_is_not_the_original(command, directory, tmp_path_factory, capsys):
    """`dev down --purge` of a copy ended the original's processes and removed its directory; `dev
    up` wrote to its store.
    """
    copy = tmp_path_factory.mktemp("copies") / "copy"
    shutil.copytree(directory, copy)
    copy.chmod(0o700)
    code, _, err = run(*command, "--dir", copy, "-o", "json", capsys=capsys)
    assert (code, json.loads(err)["error"]["reason"]) == (failures.USAGE, "MOVED")
    assert (directory / "capsign.json").exists()


@pytest.mark.parametrize(
    "command", [["keys", "list"], ["log", "verify"], ["revoke", "grant", "some"]]
)
def test_an_adapter_that_does_not_answer(command, directory, capsys):
    code, _, err = run(*command, "--dir", directory, "-o", "json", capsys=capsys)
    assert (code, json.loads(err)["error"]["reason"]) == (failures.UNAVAILABLE, "UNREACHABLE")


@pytest.mark.parametrize("command", [["keys", "list"], ["revoke", "grant", "some"]])
def test_a_certificate_that_has_ended_is_named(command, directory, capsys):
    """The adapter closes the connection without a word; "no answer" sent people looking for a dead
    adapter.
    """
    (directory / "pki" / "operator.crt").unlink()
    DevelopmentCa(directory / "pki", **ENDED).issue("operator", "/operator/dev")
    code, _, err = run(*command, "--dir", directory, "-o", "json", capsys=capsys)
    error = json.loads(err)["error"]
    assert (code, error["reason"]) == (failures.UNAVAILABLE, "CERTIFICATE_ENDED")
    assert "operator.crt ended at" in error["message"]
    assert "dev up" in error["advice"]


def test_an_authority_that_has_ended_beside_one_that_lasts_is_no_reason(
    directory, tmp_path, capsys
):
    """A bundle with the authority of before: of an adapter that was down, "ca.crt ended" was
    said.
    """
    before = DevelopmentCa(tmp_path / "before", **ENDED).certificate_file.read_bytes()
    ca = directory / "pki" / "ca.crt"
    ca.write_bytes(before + ca.read_bytes())
    code, _, err = run("keys", "list", "--dir", directory, "-o", "json", capsys=capsys)
    assert (code, json.loads(err)["error"]["reason"]) == (failures.UNAVAILABLE, "UNREACHABLE")
    ca.write_bytes(before)
    code, _, err = run("keys", "list", "--dir", directory, "-o", "json", capsys=capsys)
    assert (code, json.loads(err)["error"]["reason"]) == (failures.UNAVAILABLE, "CERTIFICATE_ENDED")


def test_a_password_file_is_found_from_anywhere(tmp_path, monkeypatch):
    """Its path went into the adapters' configuration as it was typed: the next `dev up` from
    another directory found no file.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password").write_text("x")
    given = dev.up.make_context("up", ["--store-password-file", "password"]).params
    assert given["store_password_file"] == tmp_path / "password"


def test_everything_has_no_target(directory, capsys):
    """`revoke everything some-grant --yes` revoked everything."""
    code, _, err = run(
        "revoke",
        "everything",
        "some-grant",
        "--yes",
        "--dir",
        directory,
        "-o",
        "json",
        capsys=capsys,
    )
    assert (code, json.loads(err)["error"]["reason"]) == (failures.USAGE, "USAGE")


def test_a_command_that_is_advised_can_be_pasted(tmp_path, capsys):
    where = tmp_path / "two words"
    where.mkdir()
    where.chmod(0o755)  # whatever the umask is
    _, _, err = run("dev", "up", "--dir", where, "-o", "json", capsys=capsys)
    assert shlex.split(json.loads(err)["error"]["advice"].split("`")[1]) == [
        "chmod",
        "700",
        str(where),
    ]


class Breaks(admin_pb2_grpc.AdminServiceServicer):
    """Takes a revocation, and breaks the connection in place of an answer."""

    def Revoke(self, request, context):
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")


def test_a_revocation_without_an_answer_is_unknown(directory, capsys):
    """Exit code 4 says that it did not happen; of a request that was sent and not answered nobody
    can say so.
    """
    ca = DevelopmentCa(directory / "pki")
    server = ca.issue("adapter", "/adapter", server=True)
    pair = [(server.private_key.read_bytes(), server.certificate.read_bytes())]
    running = grpc.server(ThreadPoolExecutor(1))
    admin_pb2_grpc.add_AdminServiceServicer_to_server(
        Breaks(),  # type: ignore[abstract] # nothing else is asked
        running,
    )
    port = running.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials(pair, ca.certificate_file.read_bytes(), True)
    )
    running.start()
    file = directory / "capsign.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"adapters": [{"address": f"127.0.0.1:{port}"}]})
    )
    try:
        code, _, err = run(
            "revoke", "grant", "some", "--yes", "--dir", directory, "-o", "json", capsys=capsys
        )
    finally:
        running.stop(None).wait()
    assert (code, json.loads(err)["error"]["reason"]) == (failures.UNKNOWN, "NO_ANSWER")


@pytest.mark.parametrize("file", ["ca.crt", "operator.crt", "operator.key"])
def test_credentials_that_cannot_work_are_wrong_use(file, directory, capsys):
    (directory / "pki" / file).write_text("nonsense")
    code, _, err = run("keys", "list", "--dir", directory, "-o", "json", capsys=capsys)
    error = json.loads(err)["error"]
    assert (code, error["reason"]) == (failures.USAGE, "CREDENTIALS")
    assert file in error["message"]


def test_a_key_of_another_certificate_is_wrong_use(directory, capsys):
    """gRPC printed lines of its own between ours and said that nobody answered."""
    DevelopmentCa(directory / "pki").issue("other", "/ns/demo/sa/other").private_key.replace(
        directory / "pki" / "operator.key"
    )
    code, _, err = run("keys", "list", "--dir", directory, "-o", "json", capsys=capsys)
    assert (code, json.loads(err)["error"]["reason"]) == (failures.USAGE, "CREDENTIALS")


# How a run ends that something outside of it ended.


def stand_in(monkeypatch, body):
    """`capsign completion` does something else."""
    command = output.option(click.command("completion")(body))
    monkeypatch.setitem(sys.modules, "stand_in", SimpleNamespace(command=command))
    monkeypatch.setitem(cli.COMMANDS, "completion", ("stand_in", "command", ""))


@pytest.mark.parametrize("given", [[], ["-o", "json"]])
def test_ctrl_c_is_not_refused(given, monkeypatch, capsys):
    """Exit code 1 says that it did not and will not happen. After Ctrl-C in the middle of `revoke`
    nobody knows.
    """

    def interrupted():
        raise KeyboardInterrupt

    stand_in(monkeypatch, interrupted)
    code, _, err = run("completion", *given, capsys=capsys)
    assert code == failures.INTERRUPTED == 130
    assert (
        json.loads(err)["error"]["outcome"] if given else err.strip().split(":")[0]
    ) == "interrupted"


def test_no_answer_to_the_question_is_refused(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    stand_in(monkeypatch, lambda: revocations.confirm("everything", "*", None, yes=False))
    code, _, err = run("completion", capsys=capsys)
    assert code == failures.REFUSED
    assert "Nothing was done" in err


def test_a_defect_is_unknown_and_shows_where_it_is(monkeypatch, capsys):
    """Python's exit code for a traceback is 1, which says here that it did not and will not
    happen.
    """
    stand_in(monkeypatch, lambda: dict[str, str]()["x"])
    code, _, err = run("completion", capsys=capsys)
    assert code == failures.UNKNOWN
    assert "KeyError" in err


def ends(what, stdout):
    """How `capsign` ends when a command has printed to `stdout`."""
    code = (
        f"import sys; from capsign_cli import __main__ as cli, output; import "
        f"click\n{what}\ncli.main(['completion'])"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=environ,
    )
    return ran.returncode, ran.stderr


PRINTS = [
    "output.record({'a': 1})",
    "output._chosen['format'] = 'json'; output.record({'a': 1})",
    "output.rows('a', [{'a': 1}], ['a'], empty='')",
    "output.raw(bytes(100))",
]


@pytest.mark.parametrize("prints", PRINTS)
def test_a_reader_that_went_away_is_not_refused(prints):
    """`capsign revoke ... | head -1` was exit code 1, though it was revoked."""
    body = (
        f"def body(): {prints}\ncli.Commands.get_command = lambda *_: "
        f"click.Command('completion', callback=body)"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert ends(body, writer) == (failures.CUT_OFF, "")
    finally:
        os.close(writer)


@pytest.mark.parametrize("prints", PRINTS)
def test_an_answer_that_cannot_be_written_is_unknown(prints):
    """It was "2 wrong use", for something that had been done."""
    body = (
        f"def body(): {prints}\ncli.Commands.get_command = lambda *_: "
        f"click.Command('completion', callback=body)"
    )
    with Path("/dev/full").open("w") as full:
        code, err = ends(body, full)
    assert code == failures.UNKNOWN
    assert "It was done, but its answer could not be written" in err
    assert "Exception" not in err


def test_what_a_server_says_is_not_done_by_the_terminal(capsys):
    output.start([])
    failures.show(failures.Told(1, "REASON", "a\x1b]0;owned\x07b", "c\x9bd"))
    output.record({"checkpoint": "one\ntwo\x1b[2J"})
    shown = "".join(capsys.readouterr())
    assert "\\x1b]0;owned\\x07" in shown
    assert not set(shown) & set("\x1b\x07\x9b")


def test_an_alphabet_without_a_dash_is_no_reason_to_fail():
    """`log verify` had verified a good log, could not print its checkpoint's dash, and ended as if
    the log were bad.
    """
    code = "from capsign_cli import __main__ as cli, output; import click\n"
    code += (
        "cli.Commands.get_command = lambda *_: click.Command('x', callback=lambda: "
        "output.record({'a': '\u2014'}))\n"
    )
    code += "cli.main(['x'])"
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environ
    )
    assert (ran.returncode, ran.stdout) == (0, "a  \\u2014\n")


def test_a_pipe_gets_whole_lines(capsys):
    """A long row was folded at 240 columns, so that what read the pipe got two halves."""
    output.start([])
    output.rows("a", [{"grant": "g" * 200, "contexts": "c" * 400}], ["grant", "contexts"], empty="")
    assert ["g" * 200, "c" * 400] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_no_agent_is_unavailable_and_signs_nothing(capsys, tmp_path):
    file = tmp_path / "message"
    file.write_bytes(b"m")
    missing = str(tmp_path / "agent.sock")
    code, _, err = run(
        "sign",
        str(file),
        "-a",
        "ES256",
        "-p",
        "jwt",
        "--socket",
        missing,
        "--timeout",
        "0.3",
        capsys=capsys,
    )
    assert code == failures.UNAVAILABLE
    assert "→" in err


def test_completion_code(capsys):
    code, out, _ = run("completion", "bash", capsys=capsys)
    assert code == 0
    assert "_CAPSIGN_COMPLETE=bash_complete" in out


def _options(path):
    command, context = cli.capsign, click.Context(cli.capsign)
    for name in path:
        command = command.get_command(context, name)
    return [
        parameter.opts[-1] for parameter in command.params if isinstance(parameter, click.Option)
    ]


def test_options_are_listed_in_the_order_of_use():
    """Those of `sign` came last first: how long to wait, then the transcript, and at the end what
    to sign for.
    """
    assert _options(["sign"])[:4] == ["--purpose", "--grant", "--algorithm", "--protocol"]
    assert _options(["verify"])[:3] == ["--purpose", "--grant", "--algorithm"]
    for command in (["keys", "list"], ["revoke", "grant"], ["log", "verify"]):
        shown = [
            name
            for name in _options(command)
            if name in {"--adapter", "--ca", "--cert", "--key", "--server-name", "--dir"}
        ]
        assert shown == ["--adapter", "--ca", "--cert", "--key", "--server-name", "--dir"]
    for command in (["sign"], ["verify"], ["handles"]):
        shown = [name for name in _options(command) if name in {"--socket", "--container", "--dir"}]
        assert shown == ["--socket", "--container", "--dir"]


@pytest.mark.parametrize(
    "text", ['"/run/x.sock"', "/run/x.sock\n", "@abstract", "http://x/y", "unix:/a?b"]
)
def test_a_socket_that_cannot_be_one_is_wrong_use_and_no_defect(text, capsys, monkeypatch):
    monkeypatch.setenv("CAPSIGN_SOCKET", text)
    code, _, err = run("handles", capsys=capsys)
    assert (code, "SOCKET" in err, "Traceback" in err) == (failures.USAGE, True, False)


def test_a_certificate_that_has_not_begun_names_the_clock(tmp_path, capsys):
    """A clock that is hours behind: gRPC says of it only that nobody answers."""
    authority = DevelopmentCa(tmp_path / "pki")
    made = authority.issue("operator", "/operator/dev")
    behind = datetime.now(UTC) - timedelta(hours=5)
    said = credentials.out_of_time(made.certificate, authority.certificate_file, behind)
    assert "begins at" in said
    assert "set the clock" in said


PROFILE = """
[one]
adapter = "127.0.0.1:1"
ca = "ca.pem"
cert = "~/cert.pem"
key = "/abs/key.pem"
"""


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A file of profiles, and no variable of the shell that the tests run in."""
    for name in ("ADAPTER", "CA", "CERT", "KEY", "SERVER_NAME", "LOG_KEY", "PROFILE", "DEV_DIR"):
        monkeypatch.delenv(f"CAPSIGN_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "capsign").mkdir()
    file = tmp_path / "capsign" / "profiles.toml"
    file.write_text(PROFILE)
    return file


def test_a_profile_names_files_beside_it_and_at_home(profile):
    found = profiles.load("one")
    assert found.ca == str(profile.parent / "ca.pem")
    assert found.cert == str(Path.home() / "cert.pem")
    assert found.key == "/abs/key.pem"


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (PROFILE, "two", "There are: one"),
        ('[one]\nadaptor = "a:1"\n', "one", "Did you mean adapter?"),
        ("[one]\nadapter = 1\n", "one", "each a text"),
        ("one = 1\n", "one", "no profile"),
        ("[one", "one", "no TOML"),
        (None, "one", "There is no file"),
    ],
)
def test_a_profile_that_cannot_be_read_says_why(profile, text, name, words, capsys):
    profile.unlink() if text is None else profile.write_text(text)
    code, _, err = run("keys", "list", "--profile", name, capsys=capsys)
    assert (code, words in err, "Traceback" in err) == (failures.USAGE, True, False), err


def test_options_count_before_variables_and_those_before_a_profile(profile, monkeypatch):
    monkeypatch.setenv("CAPSIGN_ADAPTER", "variable:1")
    monkeypatch.setenv("CAPSIGN_SERVER_NAME", "of-the-variable")
    found = (
        profiles.Named(ca="option")
        .or_else(profiles.of_environment(os.environ))
        .or_else(profiles.load("one"))
    )
    assert (found.ca, found.address, found.server_name, found.key) == (
        "option",
        "variable:1",
        "of-the-variable",
        "/abs/key.pem",
    )
    # The name in the certificate of one adapter is not that of another.
    other = profiles.Named(address="option:1").or_else(profiles.of_environment(os.environ))
    assert (other.address, other.server_name) == ("option:1", "")


@pytest.fixture
def meant(monkeypatch):
    """What `capsign completion` takes for the adapter that is meant, by the options of every
    command that goes to one.
    """
    seen = []

    @endpoints.adapter_options
    def look(**options):
        adapter = endpoints.adapter_of(options)
        seen.append((adapter.address, str(adapter.ca), adapter.server_name))

    stand_in(monkeypatch, look)
    return seen


def test_a_profile_that_is_asked_for_counts_before_what_the_shell_has(
    profile, meant, monkeypatch, capsys
):
    """A responder says --profile production, and a variable of an hour ago names another
    adapter.
    """
    for name in ("ca", "cert", "key"):
        (profile.parent / f"{name}.pem").touch()
    at = {name: str(profile.parent / f"{name}.pem") for name in ("ca", "cert", "key")}
    lines = [f"{name} = {json.dumps(path)}" for name, path in at.items()]
    profile.write_text("\n".join(["[one]", 'adapter = "production:1"', *lines]))
    monkeypatch.setenv("CAPSIGN_ADAPTER", "left-over:1")
    monkeypatch.setenv("CAPSIGN_SERVER_NAME", "of-the-left-over")
    run("completion", "--profile", "one", capsys=capsys)
    run("completion", "--profile", "one", "--adapter", "option:1", capsys=capsys)
    monkeypatch.setenv("CAPSIGN_PROFILE", "one")
    run("completion", capsys=capsys)
    names = [("production:1", ""), ("option:1", ""), ("left-over:1", "of-the-left-over")]
    assert meant == [(address, at["ca"], name) for address, name in names]


@pytest.mark.parametrize("text", [PROFILE, None])
def test_a_user_without_a_home_is_told_so(profile, text, monkeypatch, capsys):
    """As in a container with a user id of the cluster's choice."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    if text is None:
        monkeypatch.delenv("XDG_CONFIG_HOME")
    code, _, err = run("keys", "list", "--profile", "one", capsys=capsys)
    assert (code, "NO_HOME" in err, "Traceback" in err) == (failures.USAGE, True, False), err


def test_half_of_what_names_an_adapter_is_wrong_use_and_says_which_half(
    profile, monkeypatch, capsys
):
    monkeypatch.setenv("CAPSIGN_ADAPTER", "somewhere:1")
    code, _, err = run("keys", "list", capsys=capsys)
    assert (code, "--ca and --cert and --key is missing" in err) == (failures.USAGE, True), err


def test_the_names_of_profiles_complete(profile):
    assert profiles.complete(None, None, "o") == ["one"]
    assert profiles.complete(None, None, "x") == []
    profile.unlink()
    profile.mkdir()
    assert profiles.complete(None, None, "o") == []


@pytest.fixture
def agent():
    folder = Path(tempfile.mkdtemp(prefix="cs"))  # a socket's path is short
    fake = FakeAgent(folder / "agent.sock").start()
    yield fake
    fake.stop()
    shutil.rmtree(folder)


def test_a_handle_that_ended_is_listed_and_told_as_not_renewed(agent, capsys):
    """One of two handles ended during an outage. The list is what there is; the exit code says that
    something is amiss.
    """
    agent.lives = {"web-jwt": timedelta(minutes=5), "web-mail": timedelta(minutes=-5)}
    code, out, err = run("handles", "--socket", agent.path, capsys=capsys)
    assert code == failures.UNAVAILABLE
    assert "web-jwt" in out
    assert "web-mail" in out
    assert "NOT_RENEWED. Ended, and not renewed yet: web-mail." in err
