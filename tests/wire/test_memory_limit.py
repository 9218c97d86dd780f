"""The memory that the kernel leaves a process."""

from __future__ import annotations

import pytest
from capsign_wire import memory_limit

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("files", "own", "limit"),
    [
        ({"memory.max": "max"}, "0::/\n", None),
        ({"memory.max": "536870912"}, "0::/\n", 512 * MIB),
        ({"pod/memory.max": "1048576", "pod/app/memory.max": "max"}, "0::/pod/app\n", MIB),
        ({"pod/memory.max": "1048576", "pod/app/memory.max": "4096"}, "0::/pod/app\n", 4096),
        ({"memory/pod/memory.limit_in_bytes": "1048576"}, "9:memory:/pod\n0::/\n", MIB),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, "9:memory:/pod\n", None),
        ({"memory.max": "1048576"}, "0::/not/here\n", MIB),
        ({}, "", None),
    ],
)
def test_the_limit_of_the_control_group(tmp_path, files, own, limit):
    for name, content in files.items():
        file = tmp_path / "fs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")
    (tmp_path / "own").write_text(own)
    assert memory_limit.memory_limit(tmp_path / "fs", tmp_path / "own") == limit


def test_what_a_process_has_in_memory(tmp_path):
    assert MIB < memory_limit.resident() < 4096 * MIB
    assert memory_limit.resident(tmp_path / "not there") == 0
