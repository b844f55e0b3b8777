# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a machine has said that it would not have said had all been well."""

BAD = ["ordering cycle", "deleted to break", "mergency", "I/O error", "Transport endpoint", "Dependency failed",
       "blocked for more than", "Could not detach", "left-over process"]
# systemd says so of its own directories for credentials, too
BAD_OF_OURS = ["Failed unmounting", "Failed to unmount", "Mount disappeared", "imed out"]
OURS = ["fuseimg", "srv", "images"]


def complaints(machine):
    """In its journal, and on its console, which alone has what comes behind the end of the journal. For a machine that
    is off."""
    lines = machine.journal().splitlines() + machine.console_text().splitlines()
    return [line for line in lines if any(word in line for word in BAD)
            or any(word in line for word in BAD_OF_OURS) and any(word in line for word in OURS)]
