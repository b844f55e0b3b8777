# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the journal says when mounts and services were stopped in the wrong order, or came too late."""

BAD = ["Failed unmounting", "Mount disappeared", "timed out", "Timed out", "left-over process", "Job type",
       "Found left-over", "deleted to break"]
# Of other mounts of the machine it may say so
OURS = ["fuseimg", "inside", "mnt-"]


def complaints(text, forgiven=()):
    lines = [line for line in text.splitlines() if not any(text in line for text in forgiven)]
    found = [line for line in lines if "ordering cycle" in line]
    return found + [line for line in lines if any(word in line for word in BAD) and any(word in line for word in OURS)]
