# SPDX-License-Identifier: ISC
"""The peer: QEMU's own migration of the test guest, from one host of the lab to the other.

One QEMU runs the guest; for each move a second one is started on the other host with its memory
pre-faulted, and becomes the source of the next. Parameters go over QMP.
"""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import threading
import time

from lab import Console, LabError

PROGRAM = "qemu-system-x86_64"
PORT = 4444
UNLIMITED = 1 << 44  # bytes per second; QEMU multiplies it
POLL_S = 0.01
TLS_FILES = {"ca-cert.pem": "ca.crt", "server-cert.pem": "host.crt", "server-key.pem": "host.key",
             "client-cert.pem": "host.crt", "client-key.pem": "host.key"}


def version():
    """The first line of its --version."""
    out = subprocess.run([PROGRAM, "--version"], check=True, capture_output=True, text=True)
    return out.stdout.split("\n")[0]


class Qmp:
    """QEMU's control socket."""

    def __init__(self, path, limit_s):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        until = time.monotonic() + limit_s
        while True:
            try:
                self.sock.connect(path)
                break
            except OSError as why:
                if time.monotonic() > until:
                    raise LabError(f"QEMU does not come up: {path}: {why}") from why
                time.sleep(0.02)
        self.lines = self.sock.makefile("r", encoding="utf-8")
        self.lines.readline()
        self.run("qmp_capabilities")

    def run(self, command, **arguments):
        """A command; its return value. Raises LabError for QEMU's errors."""
        message = {"execute": command, "arguments": arguments}
        self.sock.sendall(json.dumps(message).encode() + b"\n")
        for line in self.lines:
            answer = json.loads(line)
            if "error" in answer:
                raise LabError(f"QEMU: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise LabError(f"QEMU ended at {command}")

    def close(self):
        """Lets go of the socket."""
        self.lines.close()
        self.sock.close()


class Process:
    """One QEMU on a host of the lab."""

    def __init__(self, lab, host, label, words):
        self.lab, self.host = lab, host
        self.base = f"{lab.dir}/{label}"
        began = time.monotonic()
        self.pid = lab.background(host, label, PROGRAM, *words, *self._sockets(),
                                  "-name", "debug-threads=on")
        self.qmp = self._connect(f"{lab.dir}/host{host}-{label}.log")
        self.start_s = time.monotonic() - began
        self.console = Console(self.base + ".console", self._open_console)

    def _connect(self, log):
        """Its control socket, once it answers; if it does not, with QEMU's own words."""
        try:
            qmp = Qmp(self.base + ".qmp", 60)
            qmp.run("query-status")
            return qmp
        except (OSError, ValueError, LabError) as why:
            with open(log, encoding="utf-8", errors="replace") as f:
                raise LabError(f"QEMU does not start: {why}: {f.read()[-300:].strip()}") from why

    def _sockets(self):
        return ["-chardev", f"socket,id=c,path={self.base}.serial,server=on,wait=off,"
                            f"logfile={self.base}.console",
                "-serial", "chardev:c", "-qmp", f"unix:{self.base}.qmp,server=on,wait=off"]

    @contextlib.contextmanager
    def _open_console(self):
        """Connects, and reads what comes, which the log has as well."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.base + ".serial")
            drain = threading.Thread(target=_drain, args=(sock,), daemon=True)
            drain.start()
            yield sock.sendall
            sock.shutdown(socket.SHUT_RDWR)
            drain.join()

    def end(self):
        """Kills it at once; its files go with the lab."""
        self.qmp.close()
        self.lab.end(self.pid, "KILL")


def _drain(sock):
    with contextlib.suppress(OSError):
        while sock.recv(65536):
            pass


class Qemu:
    """The engine as the bench drives it: boot, move, end."""

    name = "QEMU"

    def __init__(self, lab, meter, _options):
        self.lab, self.meter = lab, meter
        self.labels = (f"qemu{n}" for n in itertools.count(1))
        self.source = None
        self.words = []
        for host in (1, 2):
            self._make_tls_folder(host)

    def _tls_folder(self, host):
        return f"{self.lab.root(host)}/qemu-tls"

    def _make_tls_folder(self, host):
        folder = self._tls_folder(host)
        os.makedirs(folder)
        for name, ours in TLS_FILES.items():
            os.symlink(f"{self.lab.root(host)}/etc/migrd/pki/{ours}", f"{folder}/{name}")

    def boot(self, shape):
        """Starts the guest of a shape on host 1, and waits until it is up."""
        huge = ",hugetlb=on,hugetlbsize=2M" if shape.huge else ""
        self.words = [
            "-accel", "kvm", "-cpu", "host,-arch-capabilities", "-m", str(shape.mib), "-object",
            f"memory-backend-memfd,id=m,size={shape.mib}M,share=on,prealloc=on{huge}",
            "-machine", "pc,memory-backend=m", "-nodefaults", "-no-user-config", "-display", "none",
            "-kernel", f"{self.lab.build}/guests/testguest", "-append", shape.words()]
        self.source = self._start(1, "server", [])
        if not self.source.console.wait_line("tick "):
            raise LabError(f"QEMU's guest does not start, see {self.source.base}.console")

    def _start(self, host, endpoint, more):
        tls = f"tls-creds-x509,id=tls,dir={self._tls_folder(host)},endpoint="
        words = [*self.words, "-object", f"{tls}{endpoint},verify-peer=on", *more]
        process = Process(self.lab, host, next(self.labels), words)
        self.meter.add(process.pid)
        self.meter.part_guests()
        return process

    @property
    def console(self):
        """The console of the running guest."""
        return self.source.console

    def _parameters(self, row, tls_id):
        return {"max-bandwidth": UNLIMITED, "downtime-limit": row.limit_ms,
                "multifd-channels": row.channels, "tls-creds": tls_id if row.tls else "",
                "tls-hostname": f"host{3 - self.source.host}.lab" if row.tls else ""}

    def _prepare(self, row, target):
        """The same capabilities on both sides; the client's certificates on the source."""
        multifd = [{"capability": "multifd", "state": row.channels > 1}]
        for process in (self.source, target):
            process.qmp.run("migrate-set-capabilities", capabilities=multifd)
        target.qmp.run("migrate-set-parameters", **self._parameters(row, "tls"))
        with contextlib.suppress(LabError):
            self.source.qmp.run("object-del", id="tls")
        self.source.qmp.run("object-add", **{
            "qom-type": "tls-creds-x509", "id": "tls", "endpoint": "client",
            "dir": self._tls_folder(self.source.host), "verify-peer": True})
        self.source.qmp.run("migrate-set-parameters", **self._parameters(row, "tls"))

    def start_target(self, row):
        """What is not in the measured time: the target with its memory touched, and the parameters."""
        host = 3 - self.source.host
        target = self._start(host, "server", ["-incoming", "defer"])
        self._prepare(row, target)
        target.qmp.run("migrate-incoming", uri=f"tcp:0.0.0.0:{PORT}")
        return target

    def move(self, row, target, limit_s):
        """The migration itself; what QEMU says about it, or None if it is not done in limit_s."""
        self.source.qmp.run("migrate", uri=f"tcp:host{target.host}.lab:{PORT}")
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            info = self.source.qmp.run("query-migrate")
            if info["status"] == "completed":
                return self._report(info, target)
            if info["status"] == "failed":
                raise LabError(f"QEMU's migration failed: {info.get('error-desc', row)}")
            time.sleep(POLL_S)
        self._cancel()
        return None

    @staticmethod
    def _report(info, target):
        return {"total_s": info["total-time"] / 1e3, "own_pause_ms": info["downtime"],
                "rounds": info["ram"]["dirty-sync-count"], "throttled": 0,
                "total_with_target_s": info["total-time"] / 1e3 + target.start_s}

    def _cancel(self):
        self.source.qmp.run("migrate_cancel")
        for _ in range(1000):
            if self.source.qmp.run("query-migrate")["status"] == "cancelled":
                return
            time.sleep(POLL_S)
        raise LabError("QEMU does not cancel its migration")

    def hand_over(self, target):
        """After a move: the old source ends, its teardown is part of the CPU time."""
        self.source.end()
        self.source = target

    def drop(self, target):
        """After a move that was not one."""
        target.end()

    def end(self):
        """Ends the guest."""
        if self.source:
            self.source.end()
        self.source = None
