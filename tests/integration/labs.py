# SPDX-License-Identifier: ISC
"""What the labs in Python share: where things are, waiting, files and signals that may be gone."""

import os
import time

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(os.environ.get("BUILD") or os.path.join(TOP, "build"))


class Trouble(Exception):
    """Something is not as it must be; the text says what."""

    STATUS = 1  # of a test that ends with it


class TooLate(Trouble):
    """A wait was in vain: tests/run tries such a test once more."""

    STATUS = 75


def wait_for(seconds, what, probe, step=0.02):
    """Until probe() gives something true, which is returned."""
    end = time.monotonic() + seconds
    while True:
        got = probe()
        if got:
            return got
        if time.monotonic() > end:
            raise TooLate(f"waited {seconds} s in vain: {what}")
        time.sleep(step)


def read_file(path):
    """Its text; empty if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def send_signal(pid, sig):
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass
