# SPDX-License-Identifier: ISC
"""Watches a lab's guests from outside while a test hurts its nodes: never two running copies, never
two writers, epochs that only grow.

Neither migrd nor the log is asked. Each copy's memory is mapped from its process, and its heartbeat page with
the time its vCPU has had tells whether it runs (matrix_lane.Copy). Each guest's disk is read from the storage
itself: every record there names the epoch and the host that wrote it (tests/guests/testguest/disk.c).

What is wrong is kept in `broken`, as text; verdict() raises it. Times are CLOCK_MONOTONIC in seconds.
"""

import os
import struct
import threading
import time

from ha_lab import Trouble, link_of, read_file
from matrix_lane import Copy, alive, goes_on

BLOCK = 4096
HEADER_MAGIC, RECORD_MAGIC = 0x3130647268646D67, 0x31306B7369646D67
COPIES_S, SEARCH_S, DISKS_S = 0.02, 0.1, 0.1


def host_number(name):
    """What port 0x50c shows of a host: FNV-1a of its name, 32 bits."""
    h = 2166136261
    for byte in name.encode():
        h = (h ^ byte) * 16777619 & 0xFFFFFFFF
    return h


class Disk:
    """What the records on one disk say, poll by poll."""

    def __init__(self, name, path, hosts):
        self.name, self.path, self.hosts = name, path, hosts
        self.seen = {}       # block -> (run, epoch)
        self.owner = {}      # epoch -> host
        self.newest = 0      # epoch
        self.runs = {}       # run -> newest epoch that wrote in it
        self.first = {}      # run -> when its first record was seen
        self.writes, self.read = 0, 0.0

    def poll(self, now):
        """Faults found, as texts."""
        try:
            with open(self.path, "rb") as f:
                image = f.read()
        except OSError:
            return []
        found, newest, changed = [], self.newest, []
        for at in range(BLOCK, len(image) - BLOCK + 1, BLOCK):
            magic, _, _, run, number = struct.unpack_from("<5Q", image, at)
            if magic != RECORD_MAGIC:
                continue
            writer, = struct.unpack_from("<Q", image, at + 88)
            if self.seen.get(at) == (run, number, writer):
                continue
            self.seen[at] = (run, number, writer)
            changed.append((run, number, writer & 0xFFFFFFFF, writer >> 32, at // BLOCK))
        for run, number, epoch, host, block in changed:
            found += self._judge(run, number, epoch, host, block, newest)
            self.first.setdefault(run, now)
            self.runs[run] = max(epoch, self.runs.get(run, 0))
            self.newest = max(self.newest, epoch)
        if changed:
            self.writes += len(changed)
        return found

    def _judge(self, run, number, epoch, host, block, newest):
        what = f"{self.name}: block {block} was written as number {number} under epoch {epoch} by "
        known = self.owner.setdefault(epoch, host)
        if known != host:
            return [f"{what}{self._host(host)}; that epoch is {self._host(known)}'s"]
        # What a guest that moves had in flight is written again by the new owner, as it was.
        if epoch < newest and self.runs.get(run, 0) < newest:
            return [f"{what}{self._host(host)}, after epoch {newest} had written"]
        return []

    def _host(self, number):
        return self.hosts.get(number, f"host {number:#x}")


class Life:
    """One process of the hypervisor: where, and when it ran."""

    def __init__(self, node, pid, uuid, copy):
        self.node, self.pid, self.uuid, self.copy = node, pid, uuid, copy
        self.signs, self.first, self.last, self.epoch = copy.signs(), 0.0, 0.0, 0


class Oracle(threading.Thread):
    """Begins with the `with`; its end joins the thread, and raises what is broken."""

    def __init__(self, lab):
        super().__init__(daemon=True)
        self.lab, self.lock = lab, threading.Lock()
        self.lives, self.disks, self.broken = {}, {}, []
        self.epochs, self.both = {}, {}
        self.sampled, self.worst_gap = time.monotonic(), 0.0
        self.hosts = {host_number(n.host): n.name for n in lab.nodes}
        self.done = False

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done = True
        self.join()
        self.verdict()

    def add_disk(self, name, path):
        with self.lock:
            self.disks[name] = Disk(name, path, self.hosts)

    def verdict(self):
        with self.lock:
            if self.broken:
                raise Trouble("; ".join(self.broken[:5]))

    def run(self):
        search = 0.0
        while not self.done:
            now = time.monotonic()
            try:
                with self.lock:
                    if now >= search:
                        self._search()
                        search = now + SEARCH_S
                    self._look(time.monotonic())
                    self._read_a_disk(now)
            except Exception as why:  # an oracle that has ended silently would approve of everything
                self.broken.append(f"the oracle itself: {why!r}")
                raise
            time.sleep(COPIES_S)

    # --- copies

    def _search(self):
        """Processes of the hypervisor that are new, or have ended."""
        where = {n.namespace: n for n in self.lab.nodes if n.init}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) in self.lives:
                continue
            node = where.get(link_of(f"/proc/{entry}/ns/pid"))
            if node is None or read_file(f"/proc/{entry}/comm") != "xvm-domain\n":
                continue
            words = read_file(f"/proc/{entry}/cmdline").split("\0")
            if "--uuid" not in words:
                continue
            try:
                copy = Copy(node, int(entry))
            except (OSError, ValueError):
                continue
            self.lives[int(entry)] = Life(node, int(entry), words[words.index("--uuid") + 1], copy)

    def _look(self, now):
        gap, self.sampled = now - self.sampled, now
        self.worst_gap = max(self.worst_gap, gap)
        moved = {}
        for life in self.lives.values():
            signs = life.copy.signs()
            # Pages of a move fill the heartbeat of a copy that has not run: its first is no sign.
            if life.signs[0] and goes_on(life.signs, signs):
                moved.setdefault(life.uuid, []).append(life)
                life.first = life.first or now
                life.last = now
            life.signs = signs
        self._check_epochs([life for lives in moved.values() for life in lives])
        for uuid, lives in moved.items():
            nodes = {life.node for life in lives}
            self.both[uuid] = self.both.get(uuid, 0) + 1 if len(nodes) > 1 else 0
            # One sample may hold the end of one and the beginning of the other.
            if self.both[uuid] == 2:
                self.broken.append(f"{uuid} runs on {' and '.join(n.name for n in nodes)} at once")
        for pid in [p for p in self.lives if not alive(p)]:
            del self.lives[pid]

    def _check_epochs(self, lives):
        """Whoever ran since the last look is not older than what had run before that."""
        newest = dict(self.epochs)
        for life in lives:
            path = f"/proc/{life.node.init}/root{life.node.root}/run/migrd/xvm/{life.uuid}/epoch"
            text = read_file(path).strip()
            if not text.isdigit():
                continue
            life.epoch, known = int(text), self.epochs.get(life.uuid, 0)
            if life.epoch < known:
                self.broken.append(f"{life.uuid} runs on {life.node.name} under epoch {life.epoch}, "
                                   f"after epoch {known} had run")
            newest[life.uuid] = max(life.epoch, newest.get(life.uuid, 0))
        self.epochs = newest

    # --- disks

    def _read_a_disk(self, now):
        """The one that was read longest ago: many guests must not make the oracle a load."""
        disk = min(self.disks.values(), key=lambda d: d.read, default=None)
        if disk and now >= disk.read + DISKS_S:
            disk.read = now
            self.broken += disk.poll(now)

    # --- questions

    def running(self, uuid, within=0.3):
        """Nodes where that guest's vCPU went on within the last `within` s."""
        with self.lock:
            now = time.monotonic()
            return [life.node for life in self.lives.values()
                    if life.uuid == uuid and life.last > now - within]

    def copies(self, uuid=None):
        """(node, when it ran last; 0 never) of each process."""
        with self.lock:
            return [(life.node, life.last) for life in self.lives.values()
                    if uuid is None or life.uuid == uuid]

    def runs_of(self, name):
        """When the first record of each boot was seen, oldest first."""
        with self.lock:
            return sorted(self.disks[name].first.values())

    def writes(self, name):
        with self.lock:
            return self.disks[name].writes
