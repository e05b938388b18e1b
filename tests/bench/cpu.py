# SPDX-License-Identifier: ISC
"""CPU time of an engine without its guests, to the microsecond and with processes that come and go.

A control group of version 2 holds the engine's processes; children are born into it, and its usage
counts threads that have ended. Threads that run the guest are moved to a group of their own; one that was
made in the meantime is taken off by its own counter.
"""

import os
import time

VCPU_NAMES = ("vcpu", "CPU ")  # of xvm-domain's and QEMU's threads that run the guest


class NoControlGroups(Exception):
    """This machine has no usable cgroup2 hierarchy."""


def _hierarchy():
    with open("/proc/mounts", encoding="ascii") as f:
        for line in f:
            words = line.split()
            if words[2] == "cgroup2":
                return words[1]
    raise NoControlGroups("no cgroup2 is mounted")


def _write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(str(text))


def vcpu_threads(pid):
    """Thread ids of a process that run its guest."""
    found = []
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/comm", encoding="ascii") as f:
            if f.read().startswith(VCPU_NAMES):
                found.append(int(tid))
    return found


class Meter:
    """CPU seconds of the processes added, and their children. close() needs them gone."""

    def __init__(self, name):
        self.top = os.path.join(_hierarchy(), f"migrd-bench-{os.getpid()}-{name}")
        self.engine = os.path.join(self.top, "engine")
        self.guest = os.path.join(self.top, "guest")
        try:
            os.mkdir(self.top)
            for group in (self.engine, self.guest):
                os.mkdir(group)
                _write(os.path.join(group, "cgroup.type"), "threaded")
        except OSError as why:
            raise NoControlGroups(f"{why.filename}: {why.strerror}") from why

    def add(self, pid):
        """A process; its later children come by themselves."""
        _write(os.path.join(self.top, "cgroup.procs"), pid)
        _write(os.path.join(self.engine, "cgroup.procs"), pid)

    def pids(self):
        """Processes with at least one thread in the engine's group."""
        with open(os.path.join(self.top, "cgroup.procs"), encoding="ascii") as f:
            return [int(line) for line in f]

    def _threads(self):
        with open(os.path.join(self.engine, "cgroup.threads"), encoding="ascii") as f:
            return [int(line) for line in f]

    def part_guests(self):
        """Moves the threads that run guests out of the engine's group."""
        for pid in self.pids():
            for tid in vcpu_threads(pid):
                _write(os.path.join(self.guest, "cgroup.threads"), tid)

    def seconds(self):
        """So far, without the guests."""
        with open(os.path.join(self.engine, "cpu.stat"), encoding="ascii") as f:
            usage = int(f.readline().split()[1])
        return usage / 1e6 - self._guests_inside()

    def _guests_inside(self):
        inside = set(self._threads())
        seconds = 0.0
        for pid in self.pids():
            for tid in vcpu_threads(pid):
                if tid in inside:
                    with open(f"/proc/{pid}/task/{tid}/schedstat", encoding="ascii") as f:
                        seconds += int(f.read().split()[0]) / 1e9
        return seconds

    def close(self):
        """Removes the groups, as soon as the processes have ended."""
        for _ in range(50):
            if not self.pids():
                break
            time.sleep(0.1)
        for group in (self.engine, self.guest, self.top):
            os.rmdir(group)
