# SPDX-License-Identifier: LGPL-2.1-or-later
"""One fio run against one file, and its result as one number."""

import json
import subprocess

RAMP = "300ms"
VOLUME_LIMIT_S = 20     # a row of fixed volume ends after this time at the latest


class FioError(Exception):
    """fio failed or said nothing that could be read."""


def command(row, path, runtime):
    """The fio command line of `row`.

    gtod_reduce leaves out latency statistics: fio shares the cores with the daemon, and its clock calls
    would cost the faster daemon most."""
    engine = ("libaio", f"--iodepth={row.depth}") if row.direct else ("psync", "--invalidate=1")
    return ["fio", f"--name={row.name}", f"--filename={path}", "--output-format=json",
            f"--rw={row.rw}", f"--bs={row.block}", f"--direct={int(row.direct)}",
            f"--ioengine={engine[0]}", engine[1],
            f"--numjobs={row.jobs}", "--thread", "--group_reporting", "--gtod_reduce=1",
            "--allow_file_create=0", "--fallocate=none", *_extent(row, runtime)]


def _extent(row, runtime):
    if row.volume:
        return [f"--io_size={row.volume}", f"--runtime={VOLUME_LIMIT_S}"]
    return ["--time_based", f"--runtime={round(runtime * 1000)}ms", f"--ramp_time={RAMP}", "--norandommap"]


def run(row, path, runtime):
    """Runs `row` on the file at `path`; returns IOPS or MiB/s, as row.unit says."""
    limit = VOLUME_LIMIT_S + runtime + 60
    try:
        done = subprocess.run(command(row, path, runtime), stdout=subprocess.PIPE, timeout=limit,
                              stderr=subprocess.PIPE, text=True, check=False)
    except subprocess.TimeoutExpired:
        raise FioError(f"fio did not end within {limit:.0f} s") from None
    if done.returncode:
        raise FioError(f"fio exited with {done.returncode}: {_last_line(done.stderr or done.stdout)}")
    return _result(row, done.stdout)


def _result(row, output):
    try:
        job = json.loads(output[output.index("{"):])["jobs"][0]
    except (ValueError, KeyError, IndexError):
        raise FioError(f"unreadable output of fio: {_last_line(output)}") from None
    side = job["write" if row.writes else "read"]
    if job["error"] or not side["total_ios"]:
        raise FioError(f"fio reports error {job['error']}, {side['total_ios']} requests done")
    return side["iops"] if row.unit == "IOPS" else side["bw_bytes"] / (1 << 20)


def _last_line(text):
    lines = text.strip().splitlines()
    return lines[-1] if lines else "(no output)"
