# SPDX-License-Identifier: LGPL-2.1-or-later
"""fio jobs that write and read back with checksums."""

from support.proc import run

BLOCK_SIZES = ("4k", "68k", "512", "256k")


def verify_job(path, size_each, loops=1, depth=8, direct=1, extra=()):
    """The job that finds a write buffer reused too early: parallel sizes, separate ranges."""
    lines = ["[global]", f"filename={path}", "ioengine=libaio", f"iodepth={depth}", f"direct={direct}",
             "rw=randwrite", "verify=crc32c", "verify_fatal=1", "do_verify=1", "allow_file_create=0",
             f"loops={loops}", f"size={size_each}", *extra]
    for n, block in enumerate(BLOCK_SIZES):
        lines += [f"[b{block}]", f"bs={block}", f"offset={n * size_each}",
                  # as many 512-byte writes would take minutes
                  f"io_size={min(size_each, size_each // 8) if block == '512' else size_each}"]
    return "\n".join(lines) + "\n"


def run_job(directory, text, timeout=120):
    job = directory / "verify.fio"
    job.write_text(text)
    # fio writes its verify state to the directory it runs in
    done = run("fio", "--output-format=terse", job, cwd=directory, timeout=timeout, check=False)
    assert done.returncode == 0, f"fio ended with {done.returncode}\n{text}\n{done.stdout}\n{done.stderr}"
    assert "verify:" not in done.stderr, done.stderr
