# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of fuseimg@.service(8): a run of some tests leaves the other rows as they are."""

import pytest

from box.table import EVENTS, STATES, Table

DOCUMENT = "before\n; trixie: begin\n{}\n; trixie: end\nafter\n"


@pytest.fixture
def page(tmp_path):
    page = tmp_path / "page"
    page.write_text(DOCUMENT.format(""), encoding="utf-8")
    return page


def test_written_and_read(page):
    table = Table("trixie")
    table.note("stop", STATES[1], "nothing; the stop waits, and says for whom")
    table.note("start", STATES[0], "there after 50 ms")
    table.write(page)
    assert Table.read(page.read_text(encoding="utf-8").split("begin\n")[1]) == table.cells
    other = Table("trixie")
    other.note("start", STATES[0], "there after 40 ms")
    other.note(EVENTS[-1], STATES[2], "waits")
    other.write(page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n")
    assert Table.read(text) == {("stop", STATES[1]): "nothing; the stop waits, and says for whom",
                                ("start", STATES[0]): "there after 40 ms", (EVENTS[-1], STATES[2]): "waits"}
    assert text.index("start") < text.index("stop") < text.index(EVENTS[-1])
