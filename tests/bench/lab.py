# SPDX-License-Identifier: ISC
"""Two hosts in network namespaces, with a migrd each: hosts.sh of the integration tests, driven
from Python. Also what both engines share: the guest's console, and counters of the cable."""

import json
import os
import shlex
import subprocess
import time

HERE = os.path.dirname(os.path.realpath(__file__))
GUEST_LINES = {"reset-gap": "gap reset"}  # command: how its answer begins, if not with the command
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

    def _text(self):
        try:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def _lines(self, begin):
        return [line for line in self._text().split("\n")[:-1] if line.startswith(begin)]

    def wait_line(self, begin, known=0, limit_s=60):
        """The newest line that begins so, when there are more than `known` of them; None if none comes."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            lines = self._lines(begin)
            if len(lines) > known:
                return lines[-1]
            time.sleep(POLL_S)
        return None

    def ask(self, command, limit_s=60):
        """A command to the guest and its answer. What is not answered in 5 s is asked again."""
        begin = GUEST_LINES.get(command, command)
        known = len(self._lines(begin))
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            with self.opener() as send:
                send((command + "\n").encode())
                line = self.wait_line(begin, known, 5)
            if line:
                return line
        raise LabError(f"the guest does not answer '{command}'; console: {self._text()[-300:]}")


def value_of(line, key):
    """The value of key in a line of key=value words, as text; empty if it is not there."""
    for word in line.split():
        if word.startswith(key + "="):
            return word[len(key) + 1:]
    return ""
