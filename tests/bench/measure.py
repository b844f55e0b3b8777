# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs every row with every program, interleaved, for a number of rounds.

A cell is one program on one row: daemon up, fio, daemon down. Within a row the programs follow each other
at once, in an order that rotates, so that a slow minute of the machine hits all of them.
"""

import os

import fio
import image
from export import Export, ExportError
from rows import EMPTY_SIZE, FULL_SIZE, MEMORY, READY

CELL_ERRORS = (fio.FioError, image.ImageError, ExportError, OSError)


class Bench:
    """Collects samples[row name][program key], a list of numbers, and what went wrong."""

    def __init__(self, programs, rows, work, runtime, tell):
        self.samples = {row.name: {} for row in (*rows, READY, MEMORY)}
        self.errors = []
        self._programs = programs
        self._rows = rows
        self._work = work
        self._runtime = runtime
        self._tell = tell
        self._full = os.path.join(work, "full.qcow2")

    def run(self, rounds):
        if not all(row.empty for row in self._rows):
            self._tell("filling the image")
            image.make_full(self._full)
        for number in range(rounds):
            self._round(number, rounds)
        if os.path.exists(self._full):
            self._judge_full()

    def _round(self, number, rounds):
        peak = {}
        if os.path.exists(self._full):
            image.warm(self._full)
        for index, row in enumerate(self._rows):
            self._tell(f"round {number + 1}/{rounds}  {row.title}")
            for program in self._rotated(number + index):
                if program.can(row):
                    self._attempt(f"{row.name}, {program.label}", lambda: self._cell(program, row, peak))
        for key, value in peak.items():
            self._add(MEMORY, key, value)

    def _judge_full(self):
        """Speed counts for nothing if the image is damaged or something else is shown."""
        self._tell("comparing what each program shows with the image")
        self._attempt("the image after all rounds", lambda: image.check(self._full))
        row = next(row for row in self._rows if not row.empty)
        for program in self._programs:
            self._attempt(f"contents, {program.label}", lambda: self._compare(program, row))

    def _compare(self, program, row):
        target = os.path.join(self._work, program.key)
        with Export(program.launch(self._full, target, row), target, FULL_SIZE):
            image.compare(target, self._full)

    def _rotated(self, by):
        by %= len(self._programs)
        return self._programs[by:] + self._programs[:by]

    def _cell(self, program, row, peak):
        path = self._image_of(row)
        target = os.path.join(self._work, program.key)
        try:
            size = EMPTY_SIZE if row.empty else FULL_SIZE
            with Export(program.launch(path, target, row), target, size) as export:
                result = fio.run(row, target, self._runtime)
                resident = export.resident_mib()
            if row.empty:
                image.check(path)
        finally:
            self._done_with(path, row)
        self._add(row, program.key, result)
        self._add(READY, program.key, export.ready_ms)
        peak[program.key] = max(peak.get(program.key, 0), resident)

    def _image_of(self, row):
        if not row.empty:
            return self._full
        path = os.path.join(self._work, "empty.qcow2")
        image.make_empty(path)
        return path

    def _done_with(self, path, row):
        if row.empty:
            os.unlink(path)
        elif row.writes:
            image.settle(path)

    def _add(self, row, key, value):
        self.samples[row.name].setdefault(key, []).append(value)

    def _attempt(self, what, step):
        """A cell that fails is reported and leaves a gap; the others go on."""
        try:
            step()
        except CELL_ERRORS as error:
            self.errors.append(f"{what}: {error}")
            self._tell(f"FAILED {self.errors[-1]}")
