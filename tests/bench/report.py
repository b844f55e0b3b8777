# SPDX-License-Identifier: LGPL-2.1-or-later
"""Results as data (a plain dict, saved as JSON) and as a table for people or for the README."""

import statistics

from programs import Fuseimg
from rows import MEMORY, READY

SIDE_ROWS = (READY, MEMORY)
FORMATS = {"IOPS": lambda value: f"{value / 1000:.1f}k", "MiB/s": "{:.0f}".format,
           "ms": "{:.1f}".format, "MiB": "{:.1f}".format}


def collect(machine, programs, rows, bench, settings):
    """All that a reader needs, samples included, so that a table can be made of it at any time."""
    return {"machine": machine,
            "settings": settings,
            "programs": [{"key": one.key, "label": one.label, "version": one.version,
                          "setting": one.setting} for one in programs],
            "rows": [_row(row, bench.samples[row.name]) for row in (*rows, *SIDE_ROWS)],
            "errors": bench.errors}


def _row(row, samples):
    medians = {key: statistics.median(values) for key, values in samples.items()}
    return {"name": row.name, "title": row.title, "unit": row.unit, "wanted": row.wanted,
            "samples": samples, "median": medians, "ratio": _ratio(medians, row in SIDE_ROWS)}


def _ratio(medians, less_is_better):
    """fuseimg against the better of the others; None where one side is missing."""
    others = [value for key, value in medians.items() if key != Fuseimg.key]
    own = medians.get(Fuseimg.key)
    if not others or not own:
        return None
    return min(others) / own if less_is_better else own / max(others)


def table(report):
    lines = _cells(report)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(_pad(cell, width, column) for column, (cell, width)
                      in enumerate(zip(line, widths))).rstrip() for line in lines]
    return "\n".join([*_facts(report), "", text[0], "-" * max(map(len, text)), *text[1:], *_errors(report)])


def markdown(report):
    lines = ["| " + " | ".join(line) + " |" for line in _cells(report)]
    rule = "|" + "|".join("---" if column == 0 else "---:" for column in range(len(_head(report)))) + "|"
    facts = [f"* {fact}" for fact in _facts(report)]
    return "\n".join([lines[0], rule, *lines[1:], "", *facts, *_errors(report)])


def _pad(cell, width, column):
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def _head(report):
    return ["", *(program["label"] for program in report["programs"]), "ratio", "wanted", ""]


def _cells(report):
    return [_head(report), *(_line(row, report["programs"]) for row in report["rows"])]


def _line(row, programs):
    ratio, verdict = "-", ""
    if row["ratio"] is not None:
        ratio = f"{row['ratio']:.2f}"
        verdict = "ok" if row["ratio"] >= row["wanted"] else "below"
    values = [_value(row["samples"].get(program["key"]), row["unit"]) for program in programs]
    return [f"{row['title']} ({row['unit']})", *values, ratio, f"{row['wanted']:.1f}", verdict]


def _value(samples, unit):
    """Median, and half the distance between the extremes in percent of it."""
    if not samples:
        return "-"
    median = statistics.median(samples)
    spread = (max(samples) - min(samples)) / 2 / median * 100
    return f"{FORMATS[unit](median)} ±{spread:.0f}%"


def _facts(report):
    facts = [", ".join(f"{name} {value}" for name, value in part.items())
             for part in (report["machine"], report["settings"])]
    return facts + [f"{one['label']}: {one['version']} ({one['setting']})" for one in report["programs"]]


def _errors(report):
    return ["", *(f"FAILED {error}" for error in report["errors"])] if report["errors"] else []
