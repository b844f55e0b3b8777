# SPDX-License-Identifier: LGPL-2.1-or-later
"""Configuration files are read as systemd reads an EnvironmentFile=: the table of tests/unit/base/test-env-file.c, which
our reader is held to there, is given to the PID 1 of this release."""

import ast
import re

from box.layers import TREE

TABLE = TREE / "tests/unit/base/test-env-file.c"
LITERAL = r'"((?:[^"\\]|\\.)*)"'


def unescape(literal):
    """A C string literal's content; the escapes that occur mean the same in Python."""
    return ast.literal_eval(f'b"{literal}"')


def rows():
    """(text, {key: value}); the last of several values counts."""
    text = TABLE.read_text(encoding="utf-8")
    body = text[text.index("rows[] = {"):]
    found = re.findall(rf"^\t{{{LITERAL}, {LITERAL}(?:, true)?}},$", body[:body.index("\n};")], re.MULTILINE)
    return [(unescape(row), dict(pair.split(b"=", 1) for pair in unescape(pairs).split(b"|") if pair)) for row, pairs in found]


def test_systemd_reads_the_same(machine):
    table = rows()
    assert len(table) == TABLE.read_text(encoding="utf-8").count("\n\t{\"", 0, TABLE.read_text(encoding="utf-8").index("struct got {"))
    directory = machine.srv / "environment"
    directory.mkdir()
    for number, (text, _) in enumerate(table):
        (directory / str(number)).write_bytes(text)
    # one unit for each row, all in one go
    machine.run("sh", "-ec", f"""n=0
        while [ $n -lt {len(table)} ]; do
            systemd-run --quiet --wait --unit=environment-$n --property=EnvironmentFile=/srv/environment/$n \\
                --property=StandardOutput=file:/srv/environment/$n.out env -0
            n=$((n + 1))
        done""")
    for number, (text, wanted) in enumerate(table):
        answer = (directory / f"{number}.out").read_bytes()
        got = dict(pair.split(b"=", 1) for pair in answer.split(b"\0") if re.match(rb"[A-D]=", pair))
        assert got == wanted, text
