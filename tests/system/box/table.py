# SPDX-License-Identifier: LGPL-2.1-or-later
"""Event by state: what a client saw. As text for the terminal, and as a table in a document."""

import re
from pathlib import Path

# In the order of the page; what is not here comes behind
EVENTS = ["start", "reload", "kill -9 of the worker", "kill -9 of the supervisor", "kill -9 of both", "stop", "restart",
          "power-off of the machine", "the worker hangs (WatchdogSec=4s)",
          "the supervisor hangs (WatchdogSec=4s)", "a request that crashes every worker",
          "21 kills of the supervisor in a minute", "the image's storage does not answer for a while"]
STATES = ["not in use", "raw file being written", "ext4 inside being written"]


def ordered(found, wanted):
    return sorted(dict.fromkeys(found), key=lambda name: wanted.index(name) if name in wanted else len(wanted))


class Table:
    def __init__(self, suite):
        self.suite = suite
        self.cells = {}     # (event, state) -> what was seen

    def note(self, event, state, seen):
        self.cells[event, state] = seen

    def lines(self):
        """Rows of columns; the first is the heading."""
        events = ordered((event for event, _ in self.cells), EVENTS)
        states = ordered((state for _, state in self.cells), STATES)
        rows = [["Event", *states]]
        rows += [[event, *(self.cells.get((event, state), "-") for state in states)] for event in events]
        return rows

    def text(self):
        rows = self.lines()
        widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)

    def write(self, document):
        """Replaces what stands in a document (scdoc) between the two comments that name our release. What was not seen
        this time (a run of some tests) stays."""
        begin, end = f"; {self.suite}: begin\n", f"; {self.suite}: end\n"
        text = Path(document).read_text(encoding="utf-8")
        self.cells = {**self.read(text.partition(begin)[2].partition(end)[0]), **self.cells}
        replaced, found = re.subn(f"{begin}.*{end}", lambda _: f"{begin}\n{self.scdoc()}\n{end}", text, flags=re.DOTALL)
        assert found == 1, f"{document} has no place for the table of {self.suite}"
        Path(document).write_text(replaced, encoding="utf-8")

    @staticmethod
    def read(table):
        """The cells of a table that scdoc() made."""
        heading, *rows = [re.findall(r"^(?:\[\[|:\[|[|:] ) ?(.*)$", row, re.MULTILINE)
                          for row in re.split(r"^(?=\|)", table, flags=re.MULTILINE)]
        states = [state.strip("*") for state in heading[1:]]
        return {(event, state): seen for event, *cells in rows for state, seen in zip(states, cells) if seen != "-"}

    def scdoc(self):
        """A table with lines between the rows, in the markup of scdoc(5)."""
        heading, *rows = self.lines()
        found = [f"[[ *{heading[0]}*", *(f":[ *{cell}*" for cell in heading[1:])]
        for row in rows:
            found += [f"|  {row[0]}", *(f":  {cell}" for cell in row[1:])]
        return "".join(f"{line}\n" for line in found)
