# SPDX-License-Identifier: LGPL-2.1-or-later
"""`fuseimg serve` as a service manager runs it: what it tells its NOTIFY_SOCKET is received here."""

import os
import re
import signal
import socket
import subprocess
import threading
import time

from support import export, mounts, proc


class Manager:
    """Configuration files, a run-time directory and a socket; starts services and stops them all at the end."""

    def __init__(self, work):
        self.conf, self.runtime = work / "conf", work / "runtime"
        self.conf.mkdir()
        self.runtime.mkdir()
        self.services = []

    def configure(self, name, text=None, **settings):
        """Writes NAME.conf: from text, or from settings whose keys are in small letters."""
        lines = [f"{key.upper()}='{value}'" for key, value in settings.items()]
        path = self.conf / f"{name}.conf"
        path.write_text("\n".join([*lines, ""]) if text is None else text)
        return path

    def environment(self):
        return {"FUSEIMG_CONFIG_DIR": str(self.conf), "FUSEIMG_RUNTIME_DIR": str(self.runtime),
                "FUSEIMG_WORKER": str(export.WORKER)}

    def fuseimg(self, *words, **kwargs):
        return proc.run(export.PROGRAM, *words, env=self.environment(), **kwargs)

    def start(self, name, ready=True, **environment):
        service = Service(self, name, environment)
        self.services.append(service)
        if ready:
            service.wait_ready()
        return service

    def close(self):
        for service in self.services:
            service.close()


class Service:
    def __init__(self, manager, name, environment):
        self.name, self.target = name, manager.runtime / name
        self.path = self.target / "disk"
        self.log = manager.runtime.parent / f"{len(manager.services)}.log"
        self.messages = []          # (time, {key: value}), in the order of their arrival
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.address = f"fuseimg-test-{os.getpid()}-{time.monotonic_ns()}"
        self.socket.bind(f"\0{self.address}")
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()
        with self.log.open("w") as log:
            self.process = subprocess.Popen([export.PROGRAM, "serve", name], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**os.environ, **manager.environment(), "NOTIFY_SOCKET": f"@{self.address}",
                                                 **environment})

    def listen(self):
        while True:
            text = self.socket.recv(65536).decode()
            if text == "END":
                return
            # as systemd does: a backslash quotes what follows it
            assert not re.sub(r"\\.", "", text, flags=re.DOTALL).endswith("\\"), text
            text = re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
            self.messages.append((time.monotonic(), dict(line.split("=", 1) for line in text.splitlines())))

    def values(self, key):
        return [message[key] for _, message in list(self.messages) if key in message]

    @property
    def status(self):
        return self.values("STATUS")[-1] if self.values("STATUS") else ""

    def wait_value(self, key, value=None, timeout=10):
        """A message with this key (and value, or one for which value() is true) has come."""
        def met():
            return any(value is None or (value(got) if callable(value) else got == value) for got in self.values(key))
        try:
            proc.wait_until(met, timeout, what=f"{key}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.messages[-20:]}\n{self.log.read_text()}") from None

    def wait_ready(self):
        try:
            proc.wait_until(lambda: "1" in self.values("READY") or self.process.poll() is not None, what="READY=1")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.messages}\n{self.log.read_text()}") from None
        assert self.process.poll() is None, self.log.read_text()

    @property
    def worker(self):
        return proc.worker_of(self.process.pid)

    def stop(self, timeout=20, status=0):
        """As `systemctl stop`, with the patience that the service asks for: all is written to a disk that may be busy."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        while self.process.poll() is None:
            extended = [when + int(message["EXTEND_TIMEOUT_USEC"]) / 1e6 for when, message in list(self.messages)
                        if when >= begin and "EXTEND_TIMEOUT_USEC" in message]
            assert time.monotonic() < max([begin + timeout * proc.PATIENCE, *extended]), self.log.read_text()
            time.sleep(0.02)
        assert self.process.returncode == status, self.log.read_text()
        assert not mounts.at(self.target)

    def close(self):
        """Nothing stays behind, whatever the test did."""
        for pid in [self.process.pid, *proc.descendants(self.process.pid)] if self.process.poll() is None else []:
            proc.kill(pid)
        self.process.wait()
        while mounts.at(self.target):
            if proc.run("umount", "--lazy", self.target, check=False).returncode != 0:
                break
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"END", f"\0{self.address}")
        self.listener.join()
        self.socket.close()
