# SPDX-License-Identifier: ISC
"""The matrix of the bench: which guests, which workloads, which ways to move them."""

import dataclasses
import itertools
import re

SIZES_MIB = (1024, 4096)
LIMITS_MS = (300, 50)
WAYS = ((False, 1), (False, 2), (True, 1), (True, 2))  # TLS, channels
PACED_MIB = 256  # working set of the paced writers
WORKLOADS = ("idle", "100", "500", "2000", "max")
SMALL_PAGES = re.compile(r"/(idle|500)/(plain|tls)/1ch/300ms")  # rows measured with 4 KiB pages as well
QUICK = re.compile(r"1G/(idle|500)/plain/1ch/300ms/2M|1G/(idle|500|2000)/(plain/2ch|tls/1ch)/50ms/2M"
                   r"|4G/idle/(plain|tls)/1ch/300ms/2M|4G/max/plain/1ch/50ms/2M")


@dataclasses.dataclass(frozen=True)
class Shape:
    """A guest: its memory and what it does."""

    mib: int
    workload: str
    huge: bool
    idle: str = "spin"

    def ws_mib(self):
        """Working set: 1 GiB of the unbounded writer in a 4 GiB guest, half of a smaller one."""
        return min(1024, self.mib // 2) if self.workload == "max" else PACED_MIB

    def words(self):
        """The guest's command line. Its whole memory is filled; half of what it never writes is zero."""
        rate = "0" if self.workload == "idle" else self.workload
        return (f"fill=max:zero=50,comp=25,rand=25 ws={self.ws_mib()} rate={rate} "
                f"idle={self.idle} verify_s=0")

    def data_gib(self):
        """Memory that is not zero, to relate CPU time to."""
        return (self.mib + self.ws_mib()) / 2 / 1024


@dataclasses.dataclass(frozen=True)
class Row:
    """One migration: a guest, a way, a pause limit."""

    shape: Shape
    tls: bool
    channels: int
    limit_ms: int

    def way(self):
        """plain/1ch and so on."""
        return f"{'tls' if self.tls else 'plain'}/{self.channels}ch"

    def name(self):
        """As rows are selected and printed."""
        pages = "2M" if self.shape.huge else "4K"
        return (f"{self.shape.mib // 1024}G/{self.shape.workload}/{self.way()}/"
                f"{self.limit_ms}ms/{pages}")


def matrix(idle):
    """All rows, grouped by guest."""
    rows = []
    for huge, mib, workload in itertools.product((True, False), SIZES_MIB, WORKLOADS):
        shape = Shape(mib, workload, huge, idle)
        for (tls, channels), limit in itertools.product(WAYS, LIMITS_MS):
            row = Row(shape, tls, channels, limit)
            if huge or SMALL_PAGES.search(row.name()):
                rows.append(row)
    return rows


def select(rows, quick, only):
    """The rows of a quick run, and those whose name a pattern finds."""
    pattern = re.compile(only or "")
    return [r for r in rows
            if pattern.search(r.name()) and (not quick or QUICK.search(r.name()))]
