# SPDX-License-Identifier: LGPL-2.1-or-later
"""The package: where its files are, what installing and removing it does, and what systemd thinks of the units."""

import re

import pytest

from support import proc

UNITS = ["fuseimg@.service", "fuseimg-cleanup@.service", "system-fuseimg.slice", "run-fuseimg-.mount.d/10-fuseimg.conf"]
# fuseimg@.service(8) states it, with what keeps it from being lower
SCORE = 4.5


def test_files_are_where_this_release_wants_them(machine, suite):
    listed = machine.say("dpkg", "--listfiles", "fuseimg").splitlines()
    units = "/lib/systemd/system" if suite == "bookworm" else "/usr/lib/systemd/system"
    wanted = [f"{units}/{unit}" for unit in UNITS]
    wanted += ["/usr/lib/tmpfiles.d/fuseimg.conf", "/usr/lib/sysusers.d/fuseimg.conf", "/etc/fuseimg",
               "/usr/bin/fuseimg", "/usr/libexec/fuseimg/fuseimg-worker",
               "/usr/share/bash-completion/completions/fuseimg", "/usr/sbin/mount.fuseimg", "/usr/sbin/mount.fuse.fuseimg",
               "/usr/sbin/umount.fuseimg", "/etc/needrestart/conf.d/fuseimg.conf"]
    wanted += [units.replace("systemd/system", path) for path in
               ("systemd/system-generators/fuseimg-generator", "udev/fuseimg-udev-probe", "udev/rules.d/61-fuseimg.rules")]
    wanted += [f"/usr/share/man/{page}.gz" for page in
               ("man1/fuseimg.1", "man5/fuseimg.conf.5", "man8/fuseimg@.service.8", "man8/fuseimg-generator.8",
                "man8/mount.fuseimg.8")]
    assert not set(wanted) - set(listed)


def test_nothing_is_left_to_do_by_hand(machine):
    """The worker's user, the run-time directory, and units that systemd has read."""
    user = machine.say("getent", "passwd", "fuseimg").split(":")
    assert 0 < int(user[2]) < 1000 and user[6] == "/usr/sbin/nologin"
    assert machine.say("stat", "--format=%a %U %F", "/run/fuseimg") == "755 root directory"
    assert machine.say("stat", "--format=%a %U %F", "/etc/fuseimg") == "755 root directory"
    assert machine.show("fuseimg@x.service", "NeedDaemonReload") == "no"
    assert machine.say("dpkg", "--verify", "fuseimg") == ""


def test_units_verify(machine):
    units = ["fuseimg@x.service", "fuseimg-cleanup@x.service", "system-fuseimg.slice"]
    done = machine.run("systemd-analyze", "verify", "--man=no", *units)
    assert done.stdout + done.stderr == ""


def test_units_are_documented_by_pages_that_exist(machine):
    for page in re.findall(r"man:([^ ]+)\((\d)\)", machine.say("systemctl", "cat", "fuseimg@x.service")):
        machine.run("test", "-e", f"/usr/share/man/man{page[1]}/{page[0]}.{page[1]}.gz")


def test_units_exposure(machine):
    """What the page says of the score is true, on either release."""
    done = machine.run("systemd-analyze", "security", "--offline=true", "--no-pager", "fuseimg@x.service")
    score = float(re.search(r"exposure level for .*: ([\d.]+)", done.stdout)[1])
    assert score <= SCORE, [line for line in done.stdout.splitlines() if "✗" in line]


def test_the_service_has_no_mount_namespace(machine):
    """One would hide the export from everybody else."""
    shown = machine.say("systemctl", "show", "fuseimg@x.service")
    for name in ("PrivateTmp", "PrivateDevices", "ProtectSystem", "ProtectHome", "ProtectKernelTunables",
                 "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "PrivateMounts", "PrivateIPC",
                 "PrivateNetwork", "DynamicUser"):
        assert f"\n{name}=no\n" in shown, name
    assert "\nProtectProc=default\n" in shown and "\nProcSubset=all\n" in shown


@pytest.mark.limit(120)
def test_removed_and_installed_again(boot, export, package):
    """Removing stops what runs and nobody uses; an installation over a running export leaves it alone."""
    machine = boot()
    running = export(machine, "running")
    running.start()
    pid = running.supervisor
    (machine.srv / "fuseimg.deb").write_bytes(package.read_bytes())
    machine.run("dpkg", "--install", "/srv/fuseimg.deb")
    assert running.active == "active" and running.supervisor == pid
    user = machine.start("sh", "-c", 'exec <"$1"; touch /srv/opened; exec sleep 1000', "sh", running.disk)
    proc.wait_until((machine.srv / "opened").exists)
    refused = machine.run("dpkg", "--remove", "fuseimg", check=False)
    holder = re.search(r"in use by sleep \(pid (\d+)\)", refused.stderr)
    assert refused.returncode != 0 and holder and running.unit in refused.stderr
    assert running.active == "active" and running.supervisor == pid
    machine.run("sh", "-c", f"kill {holder[1]}")
    user.wait(20 * proc.PATIENCE)
    machine.run("dpkg", "--remove", "fuseimg")
    assert not running.mounted()
    assert machine.say("systemctl", "list-units", "--no-legend", "--all", "fuseimg*") == ""
    machine.run("dpkg", "--install", "/srv/fuseimg.deb")
    running.start()
    assert running.mounted()
    running.systemctl("stop")
    machine.run("dpkg", "--purge", "fuseimg")
    assert machine.run("systemctl", "cat", "fuseimg@x.service", check=False).returncode != 0
    machine.poweroff()
