# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine in a container: a Debian release with systemd as PID 1 and our package installed."""
