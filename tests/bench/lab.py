# SPDX-License-Identifier: ISC
"""Two hosts in network namespaces, with a migrd each: hosts.sh of the integration tests, driven
from Python. Also what both engines share: the guest's console, and counters of the cable."""

import json
import os
import shlex
import subprocess
import time

HERE = os.path.dirname(os.path.realpath(__file__))
# Commands whose answers do not begin with the command.
GUEST_LINES = {"reset-gap": "gap reset", "bench": "bench op="}
POLL_S = 0.02


class LabError(Exception):
    """The lab, a host or a guest in it did not do what was asked."""


class Lab:
    """The hosts. Everything in them ends with close()."""

    def __init__(self, build, *config):
        env = dict(os.environ, BUILD=os.path.abspath(build))
        self.shell = subprocess.Popen(
            [os.path.join(HERE, "lab_shell"), *config], env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.build = env["BUILD"]
        self._answer("hosts up")
        self.dir = self.sh("echo $LAB_DIR")
        self.holders = {h: int(self.sh(f"echo ${{LAB_HOLDER[{h}]}}"))
                        for h in ("host1", "host2", "net")}
        self.daemons = [int(self.sh(f"echo ${{DAEMON_PID[{h}]}}")) for h in (1, 2)]

    def _answer(self, command):
        lines = []
        for line in self.shell.stdout:
            if line.startswith("@end "):
                status = int(line.split()[1])
                text = "".join(lines).strip()
                if status != 0:
                    raise LabError(f"{command}: status {status}: {text}")
                return text
            lines.append(line)
        raise LabError(f"the lab ended at '{command}': {''.join(lines).strip()}")

    def sh(self, command):
        """A shell command in the lab; its output. Raises LabError when it fails."""
        self.shell.stdin.write(command + "\n")
        self.shell.stdin.flush()
        return self._answer(command)

    def root(self, host):
        """Root folder of host 1 or 2."""
        return f"{self.dir}/h{host}"

    def enter(self, host, *command):
        """The argument vector that runs `command` on host 1 or 2."""
        return ["nsenter", "-t", str(self.holders[f"host{host}"]), "-m", "-u", "-n",
                f"--wdns={os.getcwd()}", "--", *command]

    def tool(self, host, name, *words):
        """The argument vector of xm or migctl for a host's migrd."""
        return self.enter(host, f"{self.build}/{name}", "--root", self.root(host), *words)

    def background(self, host, name, *command):
        """A process on a host, which ends with the lab at the latest; its pid."""
        self.sh(f"lab_bg host{host} {name} {shlex.join(command)}")
        return int(self.sh("echo $LAB_PID"))

    def end(self, pid, signal="TERM"):
        """Ends a process of background() and waits for it."""
        self.sh(f"lab_kill {pid} {signal} || true")

    def migctl_json(self, host, *words):
        """The JSON that a migctl command of a host prints."""
        out = subprocess.run(self.tool(host, "migctl", *words), check=True, capture_output=True)
        return json.loads(out.stdout)

    def wire_bytes(self):
        """Bytes that have crossed host 1's cable, both ways, headers as the interface counts."""
        with open(f"/proc/{self.holders['host1']}/net/dev", encoding="ascii") as f:
            for line in f:
                name, _, counters = line.partition(":")
                if name.strip() == "eth0":
                    words = counters.split()
                    return int(words[0]) + int(words[8])
        raise LabError("host 1 has no eth0")

    def close(self):
        """Ends everything in the lab."""
        self.shell.stdin.close()
        self.shell.stdout.read()
        self.shell.wait()


class Console:
    """A test guest's console: a log that grows, and a way to write (`opener` gives a context manager
    with a send function)."""

    def __init__(self, log, opener):
        self.log = log
        self.opener = opener

    def _size(self):
        return os.path.getsize(self.log) if os.path.exists(self.log) else 0

    def _since(self, mark):
        """What has been written since the log had `mark` bytes."""
        if self._size() < mark:  # it was rotated
            return _read(self.log + ".1", mark) + _read(self.log, 0)
        return _read(self.log, mark)

    def wait_line(self, begin, mark=0, limit_s=60):
        """The first whole line behind `mark` that begins so; None if none comes."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            for line in self._since(mark).split("\n")[:-1]:
                if line.startswith(begin):
                    return line
            time.sleep(POLL_S)
        return None

    def ask(self, command, limit_s=60, quiet_s=0):
        """A command to the guest and its answer, for which nobody looks before quiet_s."""
        mark = self._size()
        with self.opener() as send:
            send((command + "\n").encode())
            time.sleep(quiet_s)
            line = self.wait_line(GUEST_LINES.get(command.split()[0], command), mark, limit_s)
        if line is None:
            raise LabError(f"the guest does not answer '{command}' in {limit_s} s; its console: "
                           f"{self._since(mark)[-300:]}")
        return line


def _read(path, offset):
    if not os.path.exists(path):
        return ""
    with open(path, "rb") as f:
        f.seek(offset)
        return f.read().decode(errors="replace")


def value_of(line, key):
    """The value of key in a line of key=value words, as text; empty if it is not there."""
    for word in line.split():
        if word.startswith(key + "="):
            return word[len(key) + 1:]
    return ""
