# SPDX-License-Identifier: LGPL-2.1-or-later
"""A time limit for a test that may hang in a system call on our own mount.

A signal alone does not help: a request that the worker has taken over is waited for until it is
answered. So the exports of the test are ended by force first, which answers it with an error; then
the signal raises TestTimeout in the test."""

import faulthandler
import os
import signal
import sys
import threading

from support import export

GRACE = 30  # seconds from the limit to the end of the whole run


class TestTimeout(Exception):
    __test__ = False


def raise_timeout(_number, _frame):
    raise TestTimeout("the test took longer than its limit")


class Watchdog:
    def __init__(self, seconds):
        self.seconds = seconds
        self.timers = []

    def __enter__(self):
        signal.signal(signal.SIGUSR1, raise_timeout)
        self.start(self.seconds, self.bite)
        self.start(self.seconds + GRACE, self.give_up)
        return self

    def __exit__(self, *_):
        for timer in self.timers:
            timer.cancel()

    def start(self, seconds, action):
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.start()
        self.timers.append(timer)

    def bite(self):
        print(f"\nwatchdog: {self.seconds:g} s are over, here is where everybody stands", file=sys.__stderr__)
        faulthandler.dump_traceback(sys.__stderr__)
        for item in list(export.live):
            item.abort()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    def give_up(self):
        print("\nwatchdog: the test does not end; ending the run", file=sys.__stderr__)
        sys.__stderr__.flush()
        os._exit(70)
