# SPDX-License-Identifier: ISC
"""What the tests of the cluster share: their frame, and words."""

import os
import sys
import time

from ha_lab import SKIP, Skip, Trouble, signals_end

BEGAN = time.monotonic()


def say(text):
    print(f"{time.monotonic() - BEGAN:6.1f} s  {text}", flush=True)


def check(true, text):
    if not true:
        raise Trouble(text)


def main(test):
    """Runs test(); the exit status is that of tests/run."""
    signals_end()
    if os.getuid() != 0:
        print("skip: needs root for namespaces")
        sys.exit(SKIP)
    try:
        test()
    except Skip as why:
        print(f"skip: {why}")
        sys.exit(SKIP)
    except Trouble as why:
        print(f"FAILED: {why}", file=sys.stderr)
        sys.exit(1)
    say("all is well")
