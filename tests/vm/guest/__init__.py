# SPDX-License-Identifier: LGPL-2.1-or-later
"""A virtual machine: a Debian release with its own kernel, and a disk that loses what was not flushed."""
