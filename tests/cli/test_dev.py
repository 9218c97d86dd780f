"""`capsign dev up` with real processes: side by side, crashed and mended, signed and verified,
ended without a trace.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from capsign_cli.dev import processes
from capsign_cli.dev.bring_up import known_processes

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        shutil.which("softhsm2-util") is None,
        reason="SoftHSM2 is not installed: make system-packages",
    ),
]


def capsign(*arguments, stdin=b"", code=0, environ=None):
    command = [sys.executable, "-m", "capsign_cli", *map(str, arguments)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CAPSIGN_")}
    ran = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=120,
        env={**clean, **(environ or {})},
    )
    assert ran.returncode == code, (ran.stdout + ran.stderr).decode()
    return json.loads(ran.stdout or "null") if "json" in arguments else ran


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    directory = tmp_path_factory.mktemp("dev")
    state = capsign("dev", "up", "--dir", directory, "--workers", "2", "-o", "json")
    yield state
    ended = capsign("dev", "down", "--dir", directory, "-o", "json")
    assert sorted(ended["ended"]) == ["adapter-1", "adapter-2", "agent"]
    assert (ended["killed"], ended["leftovers"]) == ([], [])
    assert not any(one.alive for one in known_processes(state))


def at(running):
    return ("--dir", running["dir"], "-o", "json")


def test_everything_is_named_and_there(running):
    assert len(running["adapters"]) == 2
    assert len(running["pids"]) == 3
    assert running["log_key"].startswith("capsign.test/log+")
    for path in (running["ca"], running["policy"], running["state"], *running["sockets"].values()):
        assert Path(path).exists()
    for client in running["clients"].values():
        assert Path(client["certificate"]).exists()
        assert Path(client["private_key"]).stat().st_mode & 0o077 == 0
    assert Path(running["dir"]).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("algorithm", ["Ed25519", "ES256", "HS256", "ML-DSA-65"])
def test_sign_and_verify(running, algorithm):
    context = ("-p", "jwt", "--protocol", "jwt", "-a", algorithm)
    made = capsign("sign", *context, *at(running), stdin=b"message")
    again = capsign("sign", *context, "--intent", made["intent_id"], *at(running), stdin=b"message")
    assert (again["signature"], again["leaf_index"]) == (made["signature"], made["leaf_index"])
    assert capsign("verify", *context, "-s", made["signature"], *at(running), stdin=b"message")[
        "verified"
    ]
    capsign(
        "verify",
        *context,
        "-s",
        made["signature"],
        "--dir",
        running["dir"],
        stdin=b"messagE",
        code=1,
    )
    raw = capsign(
        "sign",
        *context,
        "--raw",
        "--intent",
        made["intent_id"],
        "--dir",
        running["dir"],
        stdin=b"message",
    )
    assert raw.stdout == base64.b64decode(made["signature"])


def test_what_the_readme_shows_runs_where_it_says(running):
    """Its first lines of Python were refused by what `make demo` leaves running: that purpose has
    two protocols there.
    """
    (shown,) = re.findall(
        r"```python\n(.*?)```", (Path(__file__).parents[2] / "README.md").read_text(), re.DOTALL
    )
    environ = {**os.environ, "CAPSIGN_SOCKET": running["sockets"]["app"]}
    command = [sys.executable, "-c", shown + "print(signature.algorithm)"]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=environ
    )
    assert (ran.returncode, ran.stdout.splitlines()[-1:]) == (0, ["ES256"]), ran.stderr


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "PS256", "RS256", "Ed25519"])
def test_keys_in_the_token_sign(running, algorithm):
    made = capsign(
        "sign", "-p", f"root-{algorithm.lower()}", "-a", algorithm, *at(running), stdin=b"message"
    )
    assert made["custody"] == "hsm-direct"


def test_a_large_file_is_sent_as_its_digest(running):
    large = b"x" * 3_000_000
    context = ("-p", "artifact", "-a", "ES256")
    made = capsign("sign", *context, *at(running), stdin=large)
    assert capsign("verify", *context, "-s", made["signature"], *at(running), stdin=large)[
        "verified"
    ]
    capsign("sign", "-p", "artifact", "-a", "Ed25519", "--dir", running["dir"], stdin=large, code=2)


def test_refusals_have_reason_and_exit_code(running):
    ran = capsign(
        "sign",
        "-p",
        "jwt",
        "--protocol",
        "tls",
        "-a",
        "ES256",
        "--dir",
        running["dir"],
        stdin=b"m",
        code=1,
    )
    assert b"CONTEXT_NOT_ALLOWED" in ran.stderr
    capsign("keys", "list", "--as", "app", "--dir", running["dir"], code=1)
    capsign("log", "verify", "--as", "app", "--dir", running["dir"], code=1)


def test_handles_of_two_containers(running):
    app = {one["grant"] for one in capsign("handles", *at(running))["handles"]}
    worker = {
        one["grant"] for one in capsign("handles", "--container", "worker", *at(running))["handles"]
    }
    assert worker == {"orders-webhook", "orders-short"}
    assert worker < app


def test_keys(running):
    keys = {one["key"]: one for one in capsign("keys", "list", *at(running))["keys"]}
    assert keys["orders"]["state"] == "active"
    assert keys["root-es384"]["custody"] == "hsm-direct"


def test_public_keys_are_where_verifiers_find_them(running):
    """What the command prints over the listener for people is what anybody is served."""
    asked = ("keys", "jwks", "orders-jwt", "--protocol", "jwt", "--dir", running["dir"])
    path, printed = (capsign(*asked, *more).stdout.decode().strip() for more in (["--path"], []))
    host, _, port = running["adapters"][0]["public"].partition(":")
    tls = ssl.create_default_context(cafile=running["ca"])
    with (
        socket.create_connection((host, int(port)), timeout=20) as plain,
        tls.wrap_socket(plain, server_hostname=running["server_name"]) as secure,
    ):
        connection = http.client.HTTPConnection(host, int(port))
        connection.sock = secure
        connection.request("GET", path)
        assert connection.getresponse().read().decode() == printed
    assert json.loads(printed)["keys"]
    at_socket = capsign(*asked[:-2], "--socket", running["sockets"]["app"]).stdout.decode().strip()
    assert at_socket == printed


def test_what_was_revoked_does_not_sign(running):
    sign = ("sign", "-p", "root-ed25519", "-a", "Ed25519", "--dir", running["dir"])
    capsign(*sign, stdin=b"before")
    capsign("revoke", "grant", "root-ed25519", "--as", "app", "--dir", running["dir"], code=1)
    answer = capsign("revoke", "grant", "root-ed25519", "--as", "responder", "--yes", *at(running))
    assert answer["revocation_epoch"] > 1
    ran = capsign(*sign, stdin=b"after", code=1)
    assert b"HANDLE_REVOKED" in ran.stderr
    assert b"was revoked at epoch" in ran.stderr or b"withdrew" in ran.stderr
    capsign("revoke", "grant", "--dir", running["dir"], code=2)
    capsign("revoke", "key", "not-a-key", "--as", "responder", "--dir", running["dir"], code=1)


def test_a_revocation_is_lifted_by_two_people_and_it_signs_again(running):
    """Proposed by one, read and approved by another; a part of the id is enough."""
    sign = ("sign", "-p", "root-ed25519", "-a", "Ed25519", "--dir", running["dir"])
    (stands,) = [
        one
        for one in capsign("revoke", "list", *at(running))["revocations"]
        if one["target"] == "root-ed25519"
    ]
    assert (stands["kind"], stands["revoked_by"]) == (
        "grant",
        "spiffe://capsign.test/responder/dev",
    )
    told = capsign("revoke", "lift", "grant", "root-ed25519", *at(running))
    assert capsign("revoke", "lift", "grant", "root-ed25519", *at(running)) == told
    some = told["proposal"][:18]
    shown = capsign("approvals", "show", some, *at(running))
    assert shown["proposer"] == "spiffe://capsign.test/operator/dev"
    assert shown["what_will_happen"][0].startswith("The grant root-ed25519, which is revoked, may")
    words = capsign("approvals", "show", some, "--dir", running["dir"]).stdout.decode()
    assert "The grant root-ed25519" in words
    listed = capsign("approvals", "list", *at(running))["proposals"]
    assert [one["id"] for one in listed] == [told["proposal"]]
    asked = {
        "_CAPSIGN_COMPLETE": "bash_complete",
        "COMP_WORDS": f"capsign approvals show --dir {running['dir']} {some[:4]}",
        "COMP_CWORD": "5",
    }
    completed = capsign(environ=asked).stdout.decode()
    assert told["proposal"] in completed
    ran = capsign("approvals", "approve", some, "--yes", "--dir", running["dir"], code=1)
    assert b"ROLE_MISSING" in ran.stderr
    approve = ("approvals", "approve", some, "--as", "approver")
    capsign(*approve, *at(running), code=2)
    done = capsign(*approve, "--yes", *at(running))
    assert (done["state"], done["decided_by"]) == ("executed", "spiffe://capsign.test/approver/dev")
    assert capsign("approvals", "list", *at(running))["proposals"] == []
    capsign("approvals", "show", "ffffffff", "--dir", running["dir"], code=1)
    capsign("approvals", "show", "what", "--dir", running["dir"], code=2)
    for _ in range(150):  # each look is a process: the agent hears of it within some of them
        handles = capsign("handles", *at(running))["handles"]
        if [one["withdrawn"] for one in handles if one["grant"] == "root-ed25519"] == [""]:
            break
    else:
        pytest.fail(f"the agent never offered the grant again: {handles}")
    capsign(*sign, stdin=b"again")


def test_a_workload_that_nobody_has_is_not_revoked_unless_that_is_meant(running):
    """`revoke workload` with a letter too much answered as if it had withdrawn something."""
    wrong = "spiffe://capsign.test/ns/demo/sa/othr"
    revoke = ("revoke", "workload", wrong, "--as", "responder", "--dir", running["dir"])
    ran = capsign(*revoke, code=1)
    assert b"Nothing was revoked" in ran.stderr
    assert b"sa/other'?" in ran.stderr
    assert b"--unknown-too" in ran.stderr
    assert capsign(*revoke, "--unknown-too", "-o", "json")["target"] == wrong
    capsign(*revoke)  # what was revoked before may be again


def test_adapter_and_files_by_variables_or_by_a_profile(running, tmp_path):
    """A real `revoke` needed five options, in the moment when nobody has time for them."""
    mine = running["clients"]["responder"]
    variables = {
        "CAPSIGN_ADAPTER": running["adapters"][0]["admin"],
        "CAPSIGN_CA": running["ca"],
        "CAPSIGN_CERT": mine["certificate"],
        "CAPSIGN_KEY": mine["private_key"],
        "CAPSIGN_SERVER_NAME": running["server_name"],
        "CAPSIGN_LOG_KEY": running["log_key"],
    }
    assert capsign("keys", "list", "-o", "json", environ=variables)["keys"]
    assert (
        capsign("revoke", "handle", "00" * 16, "-o", "json", environ=variables)["revocation_epoch"]
        > 1
    )
    assert (
        capsign("log", "verify", "-o", "json", environ=variables)["log_key"] == running["log_key"]
    )
    (tmp_path / "capsign").mkdir()
    names = {
        "adapter": "CAPSIGN_ADAPTER",
        "server_name": "CAPSIGN_SERVER_NAME",
        "log_key": "CAPSIGN_LOG_KEY",
    }
    lines = [f"{key} = {json.dumps(variables[variable])}" for key, variable in names.items()]
    for key in ("ca", "cert", "key"):  # beside the file that names them
        shutil.copy(variables[f"CAPSIGN_{key.upper()}"], tmp_path / "capsign" / f"{key}.pem")
        lines.append(f'{key} = "{key}.pem"')
    (tmp_path / "capsign" / "profiles.toml").write_text("[here]\n" + "\n".join(lines) + "\n")
    at = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert capsign("revoke", "handle", "00" * 16, "--profile", "here", "-o", "json", environ=at)[
        "leaf_index"
    ]
    assert capsign("log", "verify", "-o", "json", environ=at | {"CAPSIGN_PROFILE": "here"})[
        "verified"
    ]


def test_log_grows_and_extends_what_was_seen(running, tmp_path):
    seen = tmp_path / "checkpoint"
    first = capsign("log", "verify", "--remember", seen, "--as", "auditor", *at(running))
    capsign("sign", "-p", "artifact", "-a", "ES256", *at(running), stdin=b"one more")
    second = capsign("log", "verify", "--remember", seen, "--as", "auditor", *at(running))
    assert second["extends"] == first["leaves"] < second["leaves"]
    assert seen.read_text() == second["checkpoint"]


def test_a_split_view_is_noticed(running, tmp_path):
    """A log that shows one auditor another history: the checkpoint remembered is of another log
    with the same name.
    """
    other = tmp_path / "other"
    state = capsign("dev", "up", "--dir", other, "-o", "json")
    try:
        seen = tmp_path / "seen"
        capsign("log", "verify", "--remember", seen, "--dir", other, "-o", "json")
        assert state["adapters"][0]["address"] not in {
            one["address"] for one in running["adapters"]
        }
        refused = capsign("log", "verify", "--remember", seen, "--dir", running["dir"], code=1)
        assert b"CHECKPOINT_INVALID" in refused.stderr
    finally:
        capsign("dev", "down", "--dir", other, "--purge", "-o", "json")
    assert not other.exists()


def test_up_again_mends_what_was_killed(running):
    victim = next(one for one in known_processes(running) if one.name == "adapter-1")
    os.kill(victim.pid, signal.SIGKILL)
    assert processes.wait(victim, 10)
    capsign("dev", "status", "--dir", running["dir"], code=4)
    # The first adapter was once the only one that was asked: with it gone nobody could revoke.
    assert (
        capsign("revoke", "grant", "root-rs256", "--as", "responder", "--yes", *at(running))[
            "revocation_epoch"
        ]
        > 1
    )
    mended = capsign("dev", "up", "--dir", running["dir"], "-o", "json")
    assert capsign("dev", "status", *at(running))["processes"]
    before = {one["name"]: one["pid"] for one in running["processes"]}
    after = {one["name"]: one["pid"] for one in mended["processes"]}
    assert [name for name in before if before[name] != after[name]] == ["adapter-1"]
    assert [one["address"] for one in mended["adapters"]] == [
        one["address"] for one in running["adapters"]
    ]
    running.update(mended)


KILLED = """
import os
from capsign_cli.dev import bring_up
bring_up._await = lambda *_: os._exit(137)  # everything is started, and nothing waited for
from capsign_cli.__main__ import main
main(["dev", "up", "--dir", {directory!r}, "--workers", "2"])
"""


@pytest.mark.parametrize("then", ["up", "down"])
def test_up_that_was_killed_half_way_is_known(tmp_path, then):
    """What it had started ran on and was in no file: `dev down` knew nothing of it, and the next
    `dev up` started a second agent on the same sockets, took the first one's health for its own,
    and said that all was well while its own agent had ended.
    """
    directory = tmp_path / "d"
    ended = subprocess.run(
        [sys.executable, "-c", KILLED.format(directory=str(directory))], check=False, timeout=120
    )
    assert ended.returncode == 137
    left = known_processes(json.loads((directory / "capsign.json").read_text()))
    assert ([one.name for one in left], [one.alive for one in left]) == (
        ["adapter-1", "adapter-2", "agent"],
        [True] * 3,
    )
    if then == "up":
        state = capsign("dev", "up", "--dir", directory, "-o", "json")
        assert known_processes(state) == left
        assert (
            capsign("log", "verify", "--dir", directory, "-o", "json")["log_key"]
            == state["log_key"]
        )
    capsign("dev", "down", "--dir", directory, "-o", "json")
    assert not any(one.alive for one in left)


def test_two_ups_at_once_are_one(tmp_path):
    """Both started everything, on the same sockets and store; one failed at once, the other after a
    minute, and nothing ran.
    """
    directory = tmp_path / "d"
    command = [
        sys.executable,
        "-m",
        "capsign_cli",
        "dev",
        "up",
        "--dir",
        str(directory),
        "-o",
        "json",
    ]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        first, second = [json.loads(one.communicate(timeout=120)[0]) for one in both]
        assert first == second
        assert all(one.alive for one in known_processes(first))
    finally:
        capsign("dev", "down", "--dir", directory, "--purge", "-o", "json")


def test_what_runs_is_not_changed_under_way(running, tmp_path):
    """`dev up` without --store on a directory with PostgreSQL once would have begun a new SQLite
    log next to the old keys.
    """
    capsign("dev", "up", "--dir", running["dir"], "--workers", "3", code=2)
    capsign("dev", "up", "--dir", running["dir"], "--policy", running["policy"], code=2)
    capsign("dev", "up", "--dir", running["dir"], "--store", f"sqlite://{tmp_path}/other", code=2)
    assert capsign("dev", "up", "--workers", "2", *at(running))["processes"] == running["processes"]


def test_down_and_up_keeps_keys_and_evidence(tmp_path):
    first = capsign("dev", "up", "--dir", tmp_path, "--workers", "2", "-o", "json")
    try:
        context = ("-p", "artifact", "-a", "Ed25519", "--dir", tmp_path, "-o", "json")
        made = capsign("sign", *context, stdin=b"m")
        capsign("dev", "down", "--dir", tmp_path, "-o", "json")
        again = capsign("dev", "up", "--dir", tmp_path, "-o", "json")
        assert (again["log_key"], len(again["adapters"])) == (first["log_key"], 2)
        assert (
            capsign("sign", *context, "--intent", made["intent_id"], stdin=b"m")["leaf_index"]
            == made["leaf_index"]
        )
    finally:
        capsign("dev", "down", "--dir", tmp_path, "-o", "json")


def test_a_directory_with_a_long_name(tmp_path):
    """The path of a socket has 107 bytes; a directory of a CI job is often longer."""
    directory = tmp_path / ("d" * 100)
    for _ in range(2):
        state = capsign("dev", "up", "--dir", directory, "-o", "json")
        assert capsign("handles", "--dir", directory, "-o", "json")["handles"]
        capsign("dev", "down", "--dir", directory, "-o", "json")
        assert not Path(state["run"]).exists()


def test_down_leaves_a_stranger_alone_that_got_the_pid(running, tmp_path):
    """A pid is used anew after a while: `dev down` of yesterday's directory must not end today's
    process.
    """
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        one = processes.Process("agent", stranger.pid, 1)
        assert processes.end([one], 0.1) == []
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n")


def test_a_directory_that_others_can_enter_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    ran = capsign("dev", "up", "--dir", tmp_path / "open", code=2)
    assert b"chmod 700" in ran.stderr


def test_a_wrong_policy_is_explained_and_nothing_is_left_running(tmp_path):
    (tmp_path / "policy.yaml").write_text("version: 1\ntrust_domain: capsign.test\n")
    for directory in (tmp_path / "d", tmp_path / ("d" * 100)):
        sockets = tmp_path / "tmp"
        sockets.mkdir(exist_ok=True)
        ran = capsign(
            "dev",
            "up",
            "--dir",
            directory,
            "--policy",
            tmp_path / "policy.yaml",
            code=4,
            environ={"TMPDIR": str(sockets)},
        )
        assert b"tenants" in ran.stderr
        # A long path's sockets are elsewhere; each start that failed left one more directory there,
        # which nothing ever removed.
        assert list(sockets.iterdir()) == []


def test_a_wrong_policy_does_not_replace_the_good_one(tmp_path):
    """It was copied over it, and then looked at: the next `dev up` without --policy failed too."""
    place, other = tmp_path / "d", tmp_path / "other.yaml"
    state = capsign("dev", "up", "--dir", place, "-o", "json")
    capsign("dev", "down", "--dir", place)
    good = Path(state["policy"]).read_bytes()
    for bad in (b"version: 1\ntrust_domain: capsign.test\n", b"no: {yaml", b"", b"\xff\0"):
        other.write_bytes(bad)
        ran = capsign("dev", "up", "--dir", place, "--policy", other, code=4)
        assert str(other).encode() in ran.stderr
        assert Path(state["policy"]).read_bytes() == good
        assert [path.name for path in place.glob("policy*")] == ["policy.yaml"]
    other.write_bytes(good + b"# another\n")
    capsign("dev", "up", "--dir", place, "--policy", other, "-o", "json")
    assert Path(state["policy"]).read_bytes() == good + b"# another\n"
    capsign("dev", "down", "--dir", place, "--purge")


ODD_PLACE = "feature%2Flogin ?'\"$(x)\\ \U0001f511"


@pytest.fixture
def short():
    """A directory in which the paths of sockets are short enough to be there."""
    found = Path(tempfile.mkdtemp(prefix="c-"))
    yield found
    shutil.rmtree(found)


def test_a_directory_of_any_name_has_a_deployment_of_its_own(short):
    """`dev up --dir feature%2Flogin` opened the store of `feature/login`; one with an emoji in it
    wrote settings that nobody could read; and with a proxy in the environment an agent never
    connected and `revoke` ended with UPSTREAM_UNREACHABLE.
    """
    plain, odd = short / "feature" / "login", short / ODD_PLACE
    environ = dict.fromkeys(
        ("http_proxy", "https_proxy", "grpc_proxy", "HTTPS_PROXY", "ALL_PROXY"),
        "http://127.0.0.1:9",
    )
    told = subprocess.run(
        [
            "sh",
            "-c",
            f"exec {shlex.quote(sys.executable)} -m capsign_cli dev up --dir "
            f"{shlex.quote(str(odd))}",
        ],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    try:
        (printed,) = re.findall(r"Try:  capsign (.*)", told.stdout)
        words = shlex.split(printed)
        assert capsign(*words, "-o", "json", environ=environ)["handles"]
        made = capsign(
            "sign",
            "-p",
            "root-ed25519",
            "-a",
            "Ed25519",
            "--dir",
            odd,
            "-o",
            "json",
            stdin=b"m",
            environ=environ,
        )
        assert made["custody"] == "hsm-direct"
        capsign(
            "revoke",
            "grant",
            "root-ed25519",
            "--as",
            "responder",
            "--yes",
            "--dir",
            odd,
            environ=environ,
        )
        assert (odd / "state" / "capsign.sqlite").is_file()
        assert not plain.exists()
        assert [each.name for each in short.iterdir()] == [ODD_PLACE]
        assert (odd / "run" / "app" / "agent.sock").is_socket(), (
            "and not elsewhere, for a path that is too long"
        )
    finally:
        capsign("dev", "down", "--purge", "--dir", odd)
    assert not odd.exists()


@pytest.mark.parametrize("name", [b"fix#12", b"a=b", b"line\nend", b"\xff\xfe"])
def test_a_name_that_settings_cannot_hold_is_told_before_anything_is_made(tmp_path, name):
    directory = os.fsencode(tmp_path) + b"/" + name
    ran = capsign("dev", "up", "--dir", os.fsdecode(directory), code=2)
    assert b"Choose another --dir." in ran.stderr
    assert b"Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []
