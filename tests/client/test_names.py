"""What `capsign` offers: `__all__`, `dir()`, the type checker and the documents say the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import capsign
import pytest

ROOT = Path(__file__).parents[2]


def test_every_name_is_there_and_shown():
    assert sorted(set(capsign.__all__)) == sorted(capsign.__all__)
    assert set(capsign.__all__) <= set(dir(capsign))
    assert {"SignedBy", "new_intent_id"} <= set(capsign.__all__), "examples need them"
    for name in capsign.__all__:
        assert getattr(capsign, name) is not None
    public = {name for name in dir(capsign) if not name.startswith("_")}
    modules = {path.stem for path in (ROOT / "clients/python/capsign").glob("*.py")} | {
        "sys",
        "annotations",
        "TYPE_CHECKING",
    }
    assert public - modules == set(capsign.__all__)


def test_a_fresh_dir_shows_what_was_not_loaded_yet_and_loads_nothing():
    code = (
        "import sys, capsign; print('Signer' in dir(capsign), 'new_intent_id' in "
        "dir(capsign), 'grpc' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Singer"):
        _ = capsign.Singer  # a type checker says it too, as the next test shows


def test_a_type_checker_knows_every_name_and_no_other(tmp_path):
    """`capsign.Singer()` passed mypy --strict: the lazy module gave Any for whatever was asked."""
    good = tmp_path / "good.py"
    good.write_text(
        "import capsign\n" + "".join(f"reveal_type(capsign.{name})\n" for name in capsign.__all__)
    )
    bad = tmp_path / "bad.py"
    bad.write_text("import capsign\nfrom capsign import AsyncSinger\nsigner = capsign.Singer()\n")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(tmp_path / "c"),
        str(good),
        str(bad),
    ]
    said = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT / "clients/python", check=False
    ).stdout
    shown = [line for line in said.splitlines() if "good.py" in line and "Revealed type" in line]
    assert len(shown) == len(capsign.__all__), said
    assert not [line for line in shown if '"Any"' in line]
    errors = [line for line in said.splitlines() if "error:" in line and "bad.py" in line]
    assert len(errors) == 2, said
    assert "Singer" in errors[1]


def test_what_the_documents_import_is_there():
    texts = [path for path in (ROOT / "docs").rglob("*") if path.suffix in {".md", ".py"}]
    texts += [ROOT / "README.md", ROOT / "clients/python/README.md"]
    named = set()
    for path in texts:
        text = path.read_text()
        for names in re.findall(r"^\s*from capsign import ([\w, ]+)$", text, re.MULTILINE):
            named |= {name.strip() for name in names.split(",")}
        named |= set(re.findall(r"\bcapsign\.([A-Z]\w+)", text))
        assert not re.search(r"^\s*from capsign\.\w+ import", text, re.MULTILINE), (
            f"{path} reaches into the package"
        )
    assert {"Signer", "AsyncSigner", "new_intent_id"} <= named
    assert named <= set(capsign.__all__)
