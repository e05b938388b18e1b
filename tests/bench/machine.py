# SPDX-License-Identifier: ISC
"""The machine under the bench: its limits, what it is, and 2 MiB pages for as long as the bench runs."""

import json
import os
import subprocess

NR_HUGE = "/proc/sys/vm/nr_hugepages"
SPARE_PAGES = 64


def limits(build):
    """What the bench's C program measures of this machine: GB/s by name."""
    out = subprocess.run([f"{build}/bench/limits"], check=True, capture_output=True)
    return json.loads(out.stdout)


def _value_of(path, key):
    with open(path, encoding="utf-8") as f:
        for line in f:
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def _sysctl(name):
    with open(f"/proc/sys/{name}", encoding="ascii") as f:
        return f.read().strip()


def describe():
    """What a reader has to know about the machine."""
    return {"cpu": _value_of("/proc/cpuinfo", "model name"), "cpus": os.cpu_count(),
            "memory_gib": round(int(_value_of("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20)),
            "kernel": os.uname().release,
            "congestion_control": _sysctl("net/ipv4/tcp_congestion_control"),
            "load_before": round(os.getloadavg()[0], 2)}


class HugePages:
    """Makes sure of 2 MiB pages for two copies of the largest guest; gives back what it took."""

    def __init__(self, rows, say):
        self.need = max((r.shape.mib for r in rows if r.shape.huge), default=0) + SPARE_PAGES
        self.wanted = any(r.shape.huge for r in rows)
        self.say = say
        self.before = None

    @staticmethod
    def _free():
        return int(_value_of("/proc/meminfo", "HugePages_Free"))

    def __enter__(self):
        missing = self.need - self._free()
        if not self.wanted or missing <= 0:
            return self
        self.before = int(_sysctl("vm/nr_hugepages"))
        self._set(self.before + missing)
        self.say(f"vm.nr_hugepages is {_sysctl('vm/nr_hugepages')} until the end, then "
                 f"{self.before} again")
        return self

    def enough_for(self, shape):
        """Whether source and target of this guest can have 2 MiB pages."""
        return self._free() >= shape.mib

    def __exit__(self, *_):
        if self.before is not None:
            self._set(self.before)

    @staticmethod
    def _set(count):
        with open(NR_HUGE, "w", encoding="ascii") as f:
            f.write(str(count))
