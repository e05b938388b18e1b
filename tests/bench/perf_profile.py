# SPDX-License-Identifier: ISC
"""A profile of the whole machine while one migration runs, by Linux perf: which function of which
program of the engine had the CPUs. By the clock, because virtual machines often have no counters."""

import contextlib
import os
import signal
import subprocess

RECORD = ["perf", "record", "-q", "-a", "-e", "cpu-clock", "-F", "1999"]
PROGRAMS = "migrd,migrd-worker,xvm-domain,migctl,qemu-system-x86"
REPORT = ["perf", "report", "--stdio", "-q", "--no-children", "--fields", "overhead,comm,dso,symbol",
          "--percent-limit", "0.5", "--percentage", "relative", "--comms", PROGRAMS,
          "-w", "8,16,28,72"]


@contextlib.contextmanager
def profiled(folder, name):
    """Writes FOLDER/NAME.txt, and the data beside it; without a folder nothing is recorded."""
    if not folder:
        yield
        return
    os.makedirs(folder, exist_ok=True)
    base = os.path.join(folder, name.replace("/", "-"))
    with subprocess.Popen([*RECORD, "-o", base + ".data"], stderr=subprocess.DEVNULL) as recorder:
        try:
            yield
        finally:
            recorder.send_signal(signal.SIGINT)
    with open(base + ".txt", "w", encoding="utf-8") as f:
        subprocess.run([*REPORT, "-i", base + ".data"], stdout=f, stderr=subprocess.DEVNULL,
                       check=False)
