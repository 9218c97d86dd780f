"""The development token: made once, found again, finished after a crash; its PINs stay in their
files.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import needs
from support.tokens import INIT


def run(directory, *more, expect=0):
    needs.softhsm()
    command = [sys.executable, "-I", str(INIT), "--dir", str(directory), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == expect, done.stderr
    return done


def made(directory, *more):
    return json.loads(run(directory, "-o", "json", *more).stdout)


def mode(path):
    return stat.S_IMODE(Path(path).stat().st_mode)


def tokens_in(directory):
    return [path for path in (directory / "tokens").iterdir() if path.is_dir()]


def test_paths_modes_and_nothing_else(tmp_path):
    home = tmp_path / "token"
    paths = made(home)
    assert set(paths) == {"module", "conf", "label", "pin_file", "so_pin_file", "tokens"}
    assert paths["label"] == "capsign"
    assert mode(home) == mode(paths["tokens"]) == 0o700
    assert mode(paths["pin_file"]) == mode(paths["so_pin_file"]) == mode(paths["conf"]) == 0o600
    conf = (home / "softhsm2.conf").read_text()
    assert "library.reset_on_fork = true" in conf
    assert f"directories.tokendir = {paths['tokens']}" in conf


def test_run_again_it_changes_nothing(tmp_path):
    first = made(tmp_path / "token")
    pin = (tmp_path / "token" / "capsign.pin").read_text()
    assert made(tmp_path / "token") == first
    assert (tmp_path / "token" / "capsign.pin").read_text() == pin
    assert len(tokens_in(tmp_path / "token")) == 1


def test_replicas_that_start_together_make_one_token(tmp_path):
    """Two adapters shared a volume and started at once: both made a token, and from then on neither
    could start.
    """
    with ThreadPoolExecutor(6) as replicas:
        found = list(replicas.map(lambda _: made(tmp_path / "token"), range(6)))
    assert all(one == found[0] for one in found)
    assert len(tokens_in(tmp_path / "token")) == 1


def test_two_labels_two_tokens(tmp_path):
    made(tmp_path / "token", "--label", "one")
    made(tmp_path / "token", "--label", "two")
    assert len(tokens_in(tmp_path / "token")) == 2
    assert (tmp_path / "token" / "one.pin").read_text() != (
        tmp_path / "token" / "two.pin"
    ).read_text()


def test_pins_are_random_and_never_printed(tmp_path):
    done = run(tmp_path / "token")
    pins = [
        (tmp_path / "token" / name).read_text().strip()
        for name in ("capsign.pin", "capsign.so-pin")
    ]
    assert len(set(pins)) == 2
    for pin in pins:
        assert len(pin) == 32
        assert pin not in done.stdout + done.stderr


def test_crash_before_the_token_was_made_is_finished(tmp_path):
    made(tmp_path / "token")
    for token in tokens_in(tmp_path / "token"):
        for file in token.iterdir():
            file.unlink()
        token.rmdir()
    pin = (tmp_path / "token" / "capsign.pin").read_text()
    made(tmp_path / "token")
    assert (tmp_path / "token" / "capsign.pin").read_text() == pin
    assert len(tokens_in(tmp_path / "token")) == 1


def test_crash_before_the_user_pin_was_set_is_finished(tmp_path):
    home = tmp_path / "token"
    crash = (
        "import importlib.util, os, pathlib, sys\n"
        f"spec = importlib.util.spec_from_file_location('init', {str(INIT)!r})\n"
        "init = importlib.util.module_from_spec(spec); spec.loader.exec_module(init)\n"
        "init.Module.init_pin = lambda *_: os._exit(9)\n"
        f"init.main(['--dir', {str(home)!r}])\n"
    )
    needs.softhsm()
    assert subprocess.run([sys.executable, "-c", crash], timeout=60, check=False).returncode == 9
    assert len(tokens_in(home)) == 1
    paths = made(home)
    assert len(tokens_in(home)) == 1
    listing = [
        needs.pkcs11_tool(),
        "--module",
        paths["module"],
        "--login",
        "--pin",
        "env:TEST_PIN",
        "--list-objects",
    ]
    pin = (home / "capsign.pin").read_text().strip()
    subprocess.run(
        listing,
        check=True,
        capture_output=True,
        timeout=60,
        env={"SOFTHSM2_CONF": paths["conf"], "TEST_PIN": pin},
    )


def test_lost_pin_file_is_not_replaced(tmp_path):
    made(tmp_path / "token")
    (tmp_path / "token" / "capsign.pin").unlink()
    assert "restore it" in run(tmp_path / "token", expect=1).stderr
    assert not (tmp_path / "token" / "capsign.pin").exists()


def test_directory_that_others_can_enter_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    assert "chmod 700" in run(tmp_path / "open", expect=1).stderr


def test_link_instead_of_a_directory_is_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert "another --dir" in run(tmp_path / "link", expect=1).stderr


@pytest.mark.parametrize("label", ["", "x" * 33, "a/b", ".hidden", " blank", "new\nline"])
def test_labels_that_cannot_be_are_refused(tmp_path, label):
    assert "a label has" in run(tmp_path / "token", "--label", label, expect=1).stderr


@pytest.mark.parametrize("name", [b"a#b", b"a=b", b"a\nb", b"\xff"])
def test_a_path_that_its_configuration_cannot_hold_is_refused(tmp_path, name):
    """SoftHSM cuts a line at `#` and at the second `=`: the token would be made elsewhere, or
    nowhere.
    """
    assert (
        "softhsm2.conf cannot hold the path" in run(tmp_path / os.fsdecode(name), expect=1).stderr
    )


def test_missing_module_names_the_package(tmp_path):
    assert (
        "there is no module"
        in run(tmp_path / "token", "--module", str(tmp_path / "none.so"), expect=1).stderr
    )


def test_help_says_what_it_is_for():
    assert "development" in run("unused", "--help").stdout
