# SPDX-License-Identifier: ISC
"""Our engine: migctl asks one migrd to move the test guest to the other host's."""

import contextlib
import json
import os
import subprocess
import time

from lab import Console, LabError

NAME = "bench"
SETTLE_S = 5


class Ours:
    """The engine as the bench drives it: boot, move, end."""

    name = "migrd"

    def __init__(self, lab, meter, options):
        self.lab, self.meter = lab, meter
        self.host = 1
        self.tls = None
        self.limit_s = options.limit
        self.can_forecast = options.forecast and "--dry-run" in self._help()
        for pid in lab.daemons:
            meter.add(pid)

    def _help(self):
        words = self.lab.tool(1, "migctl", "migrate", "--help")
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    def boot(self, shape):
        """Starts the guest of a shape on host 1, and waits until it is up."""
        self.host = 1
        self.lab.sh(f"GUEST_HUGE={int(shape.huge)} guest_make 1 {NAME} {shape.mib} {shape.words()}")

    @property
    def console(self):
        """The console of the running guest."""
        return Console(f"{self.lab.root(self.host)}/var/log/migrd/console-{NAME}.log",
                       self._open_console)

    @contextlib.contextmanager
    def _open_console(self):
        path = self.lab.sh(f"guest_pty {self.host} {NAME}")
        if not path:
            raise LabError(f"{NAME} has no console on host {self.host}")
        with open(path, "wb", buffering=0) as pty:
            yield pty.write

    def _migrate_words(self, row):
        """For the move and its dry run: only one with the same options is scored."""
        target = f"host{3 - self.host}.lab"
        return ["migrate", NAME, target, "--json", "--channels", str(row.channels), "--budget",
                f"{row.limit_ms}ms", "--tls", "yes" if row.tls else "no", "--time-limit",
                f"{self.limit_s}s"]

    def _listen(self, tls):
        """Both migrds expect TLS, or plain TCP: the listening side's configuration decides."""
        for host in (1, 2):
            self.lab.sh(f"config_for {host} 'relocation-tls = {'yes' if tls else 'no'}'")
            self.lab.sh(f"migctl {host} reload")
        self.tls = tls

    def start_target(self, row):
        """Nothing has to be there before a move. A dry run is asked for here, whose forecast the
        report of the move then has; that it expects no end is no reason not to try."""
        if row.tls != self.tls:
            self._listen(row.tls)
        self.meter.part_guests()
        if self.can_forecast:
            words = self.lab.tool(self.host, "migctl", *self._migrate_words(row), "--dry-run")
            subprocess.run(words, capture_output=True, check=False)

    def move(self, row, _target, limit_s):
        """The migration itself, and what its report says, or None if it is not done in limit_s."""
        words = self.lab.tool(self.host, "migctl", *self._migrate_words(row))
        began = time.monotonic()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        total = time.monotonic() - began
        if done.returncode != 0:
            if total >= limit_s:
                return None
            raise LabError(f"migctl migrate: status {done.returncode}: {done.stderr or done.stdout}")
        return self._report(total, json.loads(done.stdout))

    def _report(self, total, record):
        report = record["report"]
        rounds = report.get("rounds", [])
        return {"total_s": total, "total_with_target_s": total, "report_total_s": report["total_us"] / 1e6,
                "own_pause_ms": report["pause_us"] / 1e3, "rounds": len(rounds),
                "throttled": max((r.get("throttle", 0) for r in rounds), default=0),
                "report": report}

    def hand_over(self, _target):
        """After a move: waits until the worker and the old domain have ended."""
        self.host = 3 - self.host
        until = time.monotonic() + SETTLE_S
        while time.monotonic() < until:
            if sorted(self._programs()) == ["migrd", "migrd", "xvm-domain"]:
                return
            time.sleep(0.01)
        raise LabError(f"processes are left after a migration: {self._programs()}")

    def _programs(self):
        names = []
        for pid in self.meter.pids():
            with contextlib.suppress(FileNotFoundError):
                names.append(os.path.basename(os.readlink(f"/proc/{pid}/exe")))
        return names

    def drop(self, _target):
        """After a move that was not one: the guest is where it was."""

    def end(self):
        """Destroys the guest."""
        self.lab.sh(f"xm {self.host} destroy {NAME}")
