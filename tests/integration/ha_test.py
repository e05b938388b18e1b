# SPDX-License-Identifier: ISC
"""What the tests of the cluster share: their frame, and words."""

import os
import shutil
import sys
import time

from ha_cluster import Cluster
from ha_lab import SKIP, Skip, Trouble, signals_end, wait_for
from ha_oracle import Oracle

BEGAN = time.monotonic()


def say(text):
    print(f"{time.monotonic() - BEGAN:6.1f} s  {text}", flush=True)


def check(true, text):
    if not true:
        raise Trouble(text)


class Bench:
    """A cluster with guests, and the oracle watching it; for `with`."""

    def __init__(self, nodes, token=1000, config=()):
        self.lab = Cluster(nodes, token, config=config)
        self.oracle = Oracle(self.lab)

    def __enter__(self):
        try:
            self.lab.up()
            self.oracle.__enter__()
        except BaseException:
            self.lab.close()
            raise
        return self

    def __exit__(self, kind, why, trace):
        try:
            if kind is not None and issubclass(kind, Trouble):
                self.show(why)
            self.oracle.__exit__(kind)
        finally:
            self.lab.close()

    def show(self, why):
        """What one wants to see of a failure. HA_LOGS: a folder for the whole logs."""
        print(f"--- {why}", file=sys.stderr)
        for text in self.oracle.broken[:5]:
            print(f"--- oracle: {text}", file=sys.stderr)
        for node in self.lab.nodes:
            print(f"--- {node}: log", file=sys.stderr)
            lines = [line for line in node.log().splitlines() if " ha: " in line or " error " in line]
            print("\n".join(lines[-40:]), file=sys.stderr)
            if os.environ.get("HA_LOGS"):
                shutil.copytree(f"{node.root}/var/log", f"{os.environ['HA_LOGS']}/h{node.number}",
                                dirs_exist_ok=True)
                shutil.copy(f"{node.root}/migrd.log", f"{os.environ['HA_LOGS']}/h{node.number}/")
        for node in self.lab.on():
            for words in (("ha", "status"), ("list",)):
                try:
                    print(f"--- {node}: migctl {' '.join(words)}\n{node.migctl(*words, check=False, limit=5)}",
                          file=sys.stderr)
                except Trouble as more:
                    print(f"--- {more}", file=sys.stderr)

    def guest(self, name, node, *options, **more):
        """A protected guest that runs on `node`."""
        guest = self.lab.guest(name, **more).create(node)
        self.oracle.add_disk(name, guest.image)
        guest.protect(node, *options)
        return guest

    def where(self, guest):
        """The one node on which it runs, by its own heartbeat; None: nowhere."""
        nodes = self.oracle.running(guest.uuid)
        return nodes[0] if len(nodes) == 1 else None

    def runs(self, guest, on=None, but=None, seconds=25):
        """Until it runs, and the log says the same; returns the node."""
        def there():
            self.oracle.verdict()
            node = self.where(guest)
            if node is None or (on and node is not on) or node is but:
                return None
            record = guest.record(node)
            return node if record.get("state") == "running" and record.get("owner") == node.number else None
        wanted = f" on {on}" if on else f" elsewhere than on {but}" if but else ""
        return wait_for(seconds, f"{guest.name} runs{wanted}", there, 0.05)

    def stands(self, guest, seconds=15):
        """Until it runs nowhere."""
        wait_for(seconds, f"{guest.name} stands still", lambda: not self.oracle.running(guest.uuid), 0.05)

    def stays(self, guest, node, seconds):
        """It runs there all the time, as a single boot."""
        boots, end = len(self.oracle.runs_of(guest.name)), time.monotonic() + seconds
        while time.monotonic() < end:
            self.oracle.verdict()
            check(self.oracle.running(guest.uuid, 1.0) == [node], f"{guest.name} does not go on on {node}")
            time.sleep(0.05)
        check(len(self.oracle.runs_of(guest.name)) == boots, f"{guest.name} was started again")

    def one_each(self, guests, seconds=40):
        """All nodes back and every guest runs once: no domain is lost."""
        self.lab.repair()
        for guest in guests:
            self.runs(guest, seconds=seconds)
        for guest in guests:
            copies = [n.name for n, _ in self.oracle.copies(guest.uuid)]
            wait_for(15, f"no second process of {guest.name} is left (there are {copies})",
                     lambda g=guest: len(self.oracle.copies(g.uuid)) == 1, 0.1)
        self.oracle.verdict()


def main(test, last="all is well"):
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
        sys.exit(why.STATUS)
    if last:
        say(last)
