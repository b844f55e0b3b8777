# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine by QEMU, without KVM: its boots, commands in it, and its ends, orderly or by a power cut.

Only the process that was started here is ever killed, and nothing is waited for without a limit."""

import base64
import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from support import proc

# Machines that may be alive
live = []

# What makes an emulated machine slow and shows us nothing
CMDLINE = ["root=/dev/vda", "rw", "console=ttyS0", "nokaslr", "mitigations=off", "audit=0", "apparmor=0",
           "panic=1", "systemd.log_color=0", "module_blacklist=ata_piix,ata_generic,pata_acpi,kvm_amd,kvm_intel,kvm,"
           "powernow_k8,floppy,i2c_piix4,aesni_intel,ghash_clmulni_intel,pcspkr,cryptd"]
# Not "max": a CPU with less makes the kernel load and test less. Without cx16, since QEMU 7.2's cmpxchg16b can leave
# flags that are none, and a kernel of Debian 13 ends with a double fault.
CPU = "qemu64,+rdrand,-svm,-cx16"
# One thread runs both CPUs in turn: with a thread for each, QEMU before 8.1 may keep a translation of code that the
# other CPU has just patched. The kernel, which patches itself, then meets a breakpoint that it has taken away, and dies.
ACCELERATOR = "tcg,thread=single"
# None of them is about how fast something is: what exceeds them hangs
BOOT_LIMIT, END_LIMIT, LIMIT = 900, 600, 180


class Port:
    """What the machine writes to a port of its own, line by line; and lines to it."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))
        self.lines = []
        self.news = threading.Condition()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        with self.socket.makefile(encoding="utf-8", errors="replace") as file, contextlib.suppress(OSError):
            for line in file:
                # one that was cut off is none
                if line.endswith("\n"):
                    with self.news:
                        self.lines.append(line.strip("\0\n"))
                        self.news.notify_all()

    def wait(self, beginning, timeout, after=0):
        """The index of the first line that begins so, None when there is none."""
        def find():
            return next((n for n in range(after, len(self.lines)) if self.lines[n].startswith(beginning)), None)
        with self.news:
            self.news.wait_for(lambda: find() is not None, timeout)
            return find()

    def say(self, line):
        self.socket.sendall(f"{line}\n".encode())

    def close(self):
        self.socket.close()


class Machine:
    """`system` is what it boots (build.System), with `files` (path: text) put into it; `disk` (disk.Disk) is at
    /var/lib/images."""

    def __init__(self, system, directory, name, disk, files):
        self.name, self.system, self.disk = name, system, disk
        self.root = directory / f"{name}.root"
        self.console = directory / f"{name}.console"
        # sockets have short names only
        self.run_dir = Path(tempfile.mkdtemp(prefix="fuseimg-vm-"))
        self.process = self.agent = self.witness = None
        self.number = 0
        self.console.unlink(missing_ok=True)
        shutil.copyfile(system.image, self.root)
        self.put(files)

    def put(self, files):
        """Into the file system of a machine that is off, in directories that it has."""
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            for path, text in files.items():
                file.seek(0)
                file.truncate()
                file.write(text)
                file.flush()
                done = proc.run("debugfs", "-w", "-R", f'write "{file.name}" "{path}"', self.root)
                assert "Allocated inode" in done.stdout, done.stdout + done.stderr

    def command(self):
        console = ["-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console"]
        ports = ["-device", "virtio-serial-pci"]
        for name in ("agent", "witness"):
            ports += ["-chardev", f"socket,id={name},path={self.run_dir}/{name},server=on,wait=off",
                      "-device", f"virtserialport,chardev={name},name={name}"]
        # the host never crashes here, so its page cache will do for the system; not so for the other disk
        disks = ["-drive", f"file={self.root},format=raw,if=virtio,cache=unsafe",
                 "-drive", f"file={self.disk.address},format=raw,if=virtio"]
        # it ends with us in any case; and at a reboot, for in a QEMU that was reset Linux takes three times as long
        return ["setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-no-reboot",
                "-accel", ACCELERATOR, "-cpu", CPU, "-smp", "2", "-m", "1024",
                "-nodefaults", "-no-user-config", "-display", "none", "-device", "virtio-rng-pci",
                "-kernel", self.system.kernel, "-initrd", self.system.initrd, "-append", " ".join(CMDLINE),
                *console, *ports, *disks]

    # its life

    def boot(self):
        """To the end, also when some units have failed."""
        begin = time.monotonic()
        self.disk.serve()
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        live.append(self)
        for name in ("agent", "witness"):
            path = self.run_dir / name
            proc.wait_until(lambda path=path: path.exists() or not self.alive, 20, what="QEMU's sockets")
            assert self.alive, self.process.stderr.read().decode()
            setattr(self, name, Port(path))
        while self.agent.wait("hello ", 1) is None:
            # "panic=1" makes a panic a reboot
            assert self.alive and time.monotonic() - begin < BOOT_LIMIT, f"{self.name} does not boot"
        self.run("systemctl is-system-running --wait", BOOT_LIMIT, check=False)
        print(f"{self.name}: up after {time.monotonic() - begin:.0f} s")

    @property
    def alive(self):
        return self.process is not None and self.process.poll() is None

    def reboot(self):
        self.end("reboot")
        self.boot()

    def poweroff(self):
        self.end("poweroff")

    def end(self, how):
        """An orderly one. The disk loses what nobody has flushed then, too."""
        begin = time.monotonic()
        self.run(f"systemctl {how} --no-block")
        self.process.wait(END_LIMIT)
        print(f"{self.name}: {how}, down after {time.monotonic() - begin:.0f} s")
        self.after_the_end()

    def cut_power(self):
        """All that was in the machine is gone: its memory, and what its disk had not written yet. The lines that its
        witness had told until then."""
        self.process.kill()
        self.process.wait(20)
        time.sleep(0.2)     # what is still in the socket was sent before
        told = list(self.witness.lines)
        self.after_the_end()
        return told

    def after_the_end(self):
        for port in (self.agent, self.witness):
            if port:
                port.close()
        for name in ("agent", "witness"):
            (self.run_dir / name).unlink(missing_ok=True)
        self.disk.lose_power()
        if self in live:
            live.remove(self)

    def destroy(self):
        if self.alive:
            self.process.kill()
            self.process.wait(20)
        # also one that has ended by itself
        if self in live:
            self.after_the_end()
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.root.unlink(missing_ok=True)

    # commands

    def run(self, command, timeout=LIMIT, check=True):
        """By its shell. What it said, on both outputs."""
        self.number += 1
        after = len(self.agent.lines)
        self.agent.say(f"{self.number} {base64.b64encode(command.encode()).decode()}")
        found = self.agent.wait(f"{self.number} ", timeout, after)
        assert found is not None, f"{self.name}: no answer within {timeout} s to: {command}"
        answer = self.agent.lines[found].partition(" ")[2]
        output, _, status = base64.b64decode(answer).decode(errors="replace").rstrip("\n").rpartition("\n")
        assert not check or status == "0", f"{command}\nended with {status}\n{output}"
        return output

    def wait_for(self, command, timeout=LIMIT):
        """Until it succeeds."""
        return self.run(f"n=0; until {command}; do n=$((n + 1)); [ $n -lt {timeout * 5} ] || exit 1; sleep 0.2; done",
                        timeout + 60)

    def write(self, path, text):
        encoded = base64.b64encode(text.encode()).decode()
        self.run(f"mkdir -p \"$(dirname '{path}')\" && echo {encoded} | base64 -d >'{path}' && sync '{path}'")

    def show(self, unit, name):
        return self.run(f"systemctl show --value --property={name} '{unit}'")

    # what it leaves

    def console_text(self):
        return self.console.read_text(encoding="utf-8", errors="replace")

    def journal(self):
        """Of all its boots, once it is off."""
        assert not self.alive
        with tempfile.TemporaryDirectory(prefix="fuseimg-vm-", dir=self.root.parent) as directory:
            proc.run("debugfs", "-R", f"rdump /var/log/journal {directory}", self.root)
            return proc.run("journalctl", "--no-pager", "--quiet", "-o", "short-monotonic", "--directory",
                            f"{directory}/journal").stdout

    def last_words(self):
        """For the report of a test that failed: from the end of its console, and its journal if it still answers."""
        # what is reported may be that there is none
        console = self.console_text() if self.console.exists() else ""
        return [(f"console of {self.name}", "\n".join(console.splitlines()[-60:])),
                (f"journal of {self.name}", self.journal_now())]

    def journal_now(self):
        if not self.alive:
            return f"QEMU has ended with {self.process.returncode}: {self.process.stderr.read().decode()}"
        try:
            return self.run("journalctl --no-pager --boot --lines=100 -o short-monotonic; systemctl list-jobs", 30)
        except (AssertionError, OSError) as error:
            return str(error)
