# SPDX-License-Identifier: ISC
"""A cluster on one machine: nodes with corosync, migrd and guests, an NFS server, and the means to
hurt them.

On top of lab.sh, which has the hosts' cables and names, and storage.sh. What makes a host a node: while it is
on, it has mount, ipc and process namespaces of its own, whose first process holds /run, /dev/shm,
/etc/corosync, /var/lib/corosync, and a boot id that is new each time. SIGKILL to that process is the host's
death: nothing in it survives, and nothing in it says good-bye. What the host has on its disk stays.

Cuts are made in the switch, by nftables' bridge family: nobody on either side is told. Labs are apart by
namespaces; all of it goes when the process that made it ends, however it ends.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid

from labs import BUILD, HERE, Trouble, read_file, send_signal, wait_for

COROSYNC_PORT, BEAT_PORT = 5405, 8003
SKIP = 77

# Answers each line of its input, a shell command, with its output and "@end STATUS"; see storage.sh
# and hosts.sh for what can be asked.
SHELL = r"""
. "$1/hosts.sh"
. "$1/storage.sh"
need_kvm
exec 3<&0 </dev/null
HOSTS=$2
lab_start "$HOSTS"
"$BUILD/migctl" pki init --dir "$LAB_DIR/ca" >/dev/null || die "certificate authority"
for h in $(seq "$HOSTS"); do
    mkdir -p "$(root_of "$h")/etc/migrd/pki"
    pki_for "$h"
done
printf '@end 0\n'
while IFS= read -r line <&3; do
    eval "$line" 2>&1
    printf '\n@end %d\n' $?
done
"""

# The first process of a node that is on. Whoever ignores SIGCHLD need not reap.
POWER_ON = r"""
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p /run/lock
mount --bind "$1/etc/corosync" /etc/corosync
mount --bind "$1/var/lib/corosync" /var/lib/corosync
mount --bind "$1/var/log/corosync" /var/log/corosync
mount --bind "$1/boot_id" /proc/sys/kernel/random/boot_id
mkdir -p "$1/run"
mount -t tmpfs -o mode=755 tmpfs "$1/run"
exec env --ignore-signal=CHLD sleep infinity
"""

ON = r"""#!/bin/sh
# Runs a command on a node of this lab, or in "net" or "storage".
node=$1 lab=$(dirname "$0")
BUILD=${BUILD:-%s}
shift
case $node in
[0-9]*)
    case $1 in
    xm | migctl) tool=$1 && shift && set -- "$BUILD/$tool" --root "$lab/h$node" "$@" ;;
    esac
    exec nsenter -t "$(cat "$lab/h$node.pid")" -m -u -i -n -p --wdns="$PWD" -- "$@"
    ;;
*) exec nsenter -t "$(cat "$lab/$node.pid")" -m -u -n --wdns="$PWD" -- "$@" ;;
esac
"""


class Skip(Exception):
    """This machine lacks what the lab needs."""


def write_file(path, text, mode=0o644):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, mode)


def link_of(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def signals_end():
    """A signal ends the program as an exception does, so that the lab is taken down."""
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sig, lambda n, _: sys.exit(128 + n))


class Node:
    """A host of the cluster. `init` is its first process while it is on, 0 while it is off."""

    def __init__(self, lab, number):
        self.lab, self.number = lab, number
        self.host, self.name, self.address = f"host{number}", f"host{number}.lab", f"10.99.0.{number}"
        self.port = f"host{number}-lan"  # its cable, at the switch
        self.root = f"{lab.dir}/h{number}"
        self.holder = lab.holder(f"host{number}")
        self.init, self.namespace, self.power, self.daemon = 0, "", None, None
        for folder in ("etc/corosync/uidgid.d", "var/lib/corosync", "var/log/corosync",
                       "etc/migrd"):
            os.makedirs(f"{self.root}/{folder}", exist_ok=True)

    def __repr__(self):
        return f"node {self.number}"

    # --- power

    def begin_power_on(self):
        """The first half, so that several nodes boot at once."""
        write_file(f"{self.root}/boot_id", f"{uuid.uuid4()}\n")
        self.power = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "nsenter", "-t", str(self.holder), "-m", "-u", "-n",
             "unshare", "-m", "-i", "-p", "--fork", "--kill-child", "--propagation", "private",
             "sh", "-e", "-c", POWER_ON, "node", self.root],
            stdin=subprocess.DEVNULL, stdout=self.log_file("power"), stderr=subprocess.STDOUT)

    def end_power_on(self):
        self.init = wait_for(10, f"{self} is on", self._booted, 0.005)
        self.namespace = link_of(f"/proc/{self.init}/ns/pid")
        write_file(f"{self.lab.dir}/h{self.number}.pid", f"{self.init}\n")

    def _booted(self):
        if self.power.poll() is not None:
            raise Trouble(f"{self} does not boot: {read_file(f'{self.root}/power.log')}")
        child = read_file(f"/proc/{self.power.pid}/task/{self.power.pid}/children").split()
        if child and read_file(f"/proc/{child[0]}/comm") == "sleep\n":
            return int(child[0])
        return 0

    def power_on(self):
        self.begin_power_on()
        self.end_power_on()

    def kill(self):
        """SIGKILL to all that is on it, at one instant, which is returned (CLOCK_MONOTONIC).
        What sockets say when their process goes never arrives: as with a power loss, its frames end first."""
        self.lab.cut(f"dead {self.number}", [f'iifname "{self.port}"', f'oifname "{self.port}"'])
        at = time.monotonic()
        send_signal(self.init, signal.SIGKILL)
        if self.daemon:
            send_signal(self.daemon.pid, signal.SIGCONT)  # nsenter stops with a child that was stopped
        self.power.wait()
        wait_for(10, f"{self} is off", lambda: not self.pids(), 0.005)
        self.init = 0
        if self.daemon:
            self.daemon.wait()
        self.daemon = None
        self.lab.heal(f"dead {self.number}")
        return at

    # --- processes

    def pids(self, name=None):
        """Processes on it, as this machine sees them; only those called so, without its init."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and link_of(f"/proc/{entry}/ns/pid") == self.namespace:
                if name is None or read_file(f"/proc/{entry}/comm").strip() == name[:15]:
                    found.append(int(entry))
        return found

    def enter(self, *command):
        """The argument vector that runs `command` there. It ends with the process that runs it."""
        if not self.init:
            raise Trouble(f"{self} is off")
        return ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-n", "-p",
                f"--wdns={os.getcwd()}", "--", "setpriv", "--pdeathsig", "KILL", *command]

    def run(self, *command, limit=30, check=True):
        """Runs it there; its output. A failure is an error unless check is False."""
        try:
            p = subprocess.run(self.enter(*command), stdin=subprocess.DEVNULL, timeout=limit,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               errors="replace", check=False)
        except subprocess.TimeoutExpired as late:
            raise Trouble(f"{self}: {shlex.join(command)}: no end in {limit} s") from late
        if check and p.returncode != 0:
            raise Trouble(f"{self}: {shlex.join(command)}: status {p.returncode}: {p.stdout.strip()}")
        return p.stdout

    def begin(self, name, *command, env=None):
        """A process in the background, whose log is NAME.log in the node's folder."""
        return subprocess.Popen(self.enter(*command), stdin=subprocess.DEVNULL, env=env,
                                stdout=self.log_file(name), stderr=subprocess.STDOUT)

    def log_file(self, name):
        return open(f"{self.root}/{name}.log", "ab")  # the child's from now on

    def send(self, name, sig):
        """To all processes of that name there."""
        for pid in self.pids(name):
            send_signal(pid, sig)

    def end(self, name, sig=signal.SIGKILL, seconds=10):
        self.send(name, sig)
        wait_for(seconds, f"{name} of {self} ends", lambda: not self.pids(name), 0.005)

    # --- corosync

    def begin_corosync(self):
        return subprocess.Popen(self.enter("corosync"), stdin=subprocess.DEVNULL,
                                stdout=self.log_file("corosync"), stderr=subprocess.STDOUT)

    def start_corosync(self):
        self.end_corosync_start(self.begin_corosync())

    def end_corosync_start(self, process):
        """It goes into the background when it can be asked."""
        try:
            status = process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            status = "none in 20 s"
        if status != 0:
            raise Trouble(f"corosync of {self}: status {status}: {read_file(f'{self.root}/corosync.log')}"
                          f"{read_file(f'{self.root}/var/log/corosync/corosync.log')[-1500:]}")

    def members(self):
        """Node ids that corosync has in its membership, and whether they are a majority."""
        out = self.run("corosync-quorumtool", "-s", check=False, limit=5)
        ids = [int(line.split()[0]) for line in out.splitlines()
               if line.strip() and line.split()[0].isdigit()]
        quorate = any(line.split() == ["Quorate:", "Yes"] for line in out.splitlines())
        return sorted(ids), quorate


def corosync_conf(nodes, token, more=()):
    """corosync.conf of a cluster of these nodes."""
    lines = ["totem {", "  version: 2", "  cluster_name: lab", "  transport: knet",
             "  crypto_cipher: aes256", "  crypto_hash: sha256", f"  token: {token}",
             "  token_coefficient: 0", *(f"  {line}" for line in more), "}", "nodelist {"]
    for n in nodes:
        lines += ["  node {", f"    name: {n.name}", f"    nodeid: {n.number}",
                  f"    ring0_addr: {n.address}", "  }"]
    lines += ["}", "quorum {", "  provider: corosync_votequorum", "}", "logging {",
              "  to_stderr: no", "  to_syslog: no", "  to_logfile: yes",
              "  logfile: /var/log/corosync/corosync.log", "  timestamp: hires", "}",
              "system {", "  allow_knet_handle_fallback: yes", "}", ""]
    return "\n".join(lines)


class Lab:
    """The whole of it. Use it in a `with`: all ends with it."""

    node_class = Node

    def __init__(self, count=3, token=1000, storage=True):
        self.token, self.cuts, self.nodes = token, {}, []
        for program in ("corosync", "nft", "nsenter", "unshare", "setpriv"):
            if not shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
                raise Skip(f"the program {program} is missing")
        self.shell = subprocess.Popen(
            ["bash", "-c", SHELL, "ha_lab", HERE, str(count)], text=True, errors="replace",
            env=dict(os.environ, BUILD=BUILD), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        try:
            self._answer("the lab")
            self.dir = self.sh("echo $LAB_DIR")
            self.nodes = [self.node_class(self, i) for i in range(1, count + 1)]
            self.switch = self.holder("net")
            write_file(f"{self.dir}/on", ON % BUILD, 0o755)
            write_file(f"{self.dir}/net.pid", f"{self.switch}\n")
            self._nft("")
            self._configure()
            if storage:
                self.sh("storage_start nfs")
                write_file(f"{self.dir}/storage.pid", f"{self.holder('storage')}\n")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for node in self.nodes:
            if node.power and node.power.poll() is None:
                node.power.kill()
                node.power.wait()
        if self.shell.poll() is None:
            self.shell.stdin.close()
            self.shell.stdout.read()
            self.shell.wait()

    def _answer(self, command):
        lines = []
        for line in self.shell.stdout:
            if line.startswith("@end "):
                if line != "@end 0\n":
                    raise Trouble(f"{command}: status {line.split()[1]}: {''.join(lines).strip()}")
                return "".join(lines).strip()
            lines.append(line)
        text = "".join(lines).strip()
        if self.shell.wait() == SKIP:
            raise Skip(text.splitlines()[-1] if text else "lab.sh says so")
        raise Trouble(f"the lab ended at '{command}': {text}")

    def sh(self, command):
        """A shell command with lab.sh, hosts.sh and storage.sh at hand; its output."""
        self.shell.stdin.write(command + "\n")
        self.shell.stdin.flush()
        return self._answer(command)

    def holder(self, host):
        return int(self.sh(f"echo ${{LAB_HOLDER[{host}]}}"))

    def node(self, number):
        return self.nodes[number - 1]

    def on(self):
        """Nodes that are on."""
        return [n for n in self.nodes if n.init]

    def _configure(self):
        key = os.urandom(256)
        for node in self.nodes:
            write_file(f"{node.root}/etc/corosync/corosync.conf", corosync_conf(self.nodes, self.token))
            with open(f"{node.root}/etc/corosync/authkey", "wb") as f:
                f.write(key)
            os.chmod(f.name, 0o400)

    def power_on(self, nodes=None):
        nodes = self.nodes if nodes is None else nodes
        for node in nodes:
            node.begin_power_on()
        for node in nodes:
            node.end_power_on()

    def start_corosync(self, nodes=None):
        """On these nodes at once, until they see each other."""
        nodes = self.nodes if nodes is None else nodes
        begun = [(n, n.begin_corosync()) for n in nodes]
        for node, process in begun:
            node.end_corosync_start(process)
        self.wait_members(nodes)

    def wait_members(self, nodes, seconds=20):
        want = sorted(n.number for n in nodes)
        for node in nodes:
            wait_for(seconds, f"corosync of {node} has the members {want}",
                     lambda n=node: set(n.members()[0]) >= set(want))

    # --- cuts: name -> what the switch does not forward

    def _nft(self, rules):
        subprocess.run(["nsenter", "-t", str(self.switch), "-n", "nft", "-f", "-"], check=True, text=True,
                       input="table bridge lab\ndelete table bridge lab\ntable bridge lab { chain f {\n"
                       f"type filter hook forward priority 0;\n{rules}\n}}\n}}\n")

    def cut(self, name, matches):
        """Frames that one of `matches` (of nftables) fits are dropped until heal(name)."""
        self.cuts[name] = matches
        self._apply()

    def heal(self, name=None):
        """That cut, or all of them; cables too."""
        if name is None:
            self.cuts = {}
            for node in self.nodes:
                self.plug(node)
        else:
            self.cuts.pop(name, None)
        self._apply()

    def _apply(self):
        self._nft("\n".join(f"{match} drop" for matches in self.cuts.values() for match in matches))

    def unplug(self, node):
        """The cable is pulled: both ends see it."""
        self.sh(f"lab_unplug host{node.number}")

    def plug(self, node):
        self.sh(f"lab_plug host{node.number}")

    def _pairs(self, ones, others, what=""):
        return [f'iifname "{a.port}" oifname "{b.port}" {what}' for a in ones for b in others]

    def cut_off(self, node, ways="both"):
        """Between `node` and the other nodes, silently; the storage stays. ways: in, out, both. One way only
        spares ARP: else the other way ends with it."""
        others = [n for n in self.nodes if n is not node]
        what = "" if ways == "both" else "ether type ip"
        matches = []
        if ways in ("out", "both"):
            matches += self._pairs([node], others, what)
        if ways in ("in", "both"):
            matches += self._pairs(others, [node], what)
        self.cut(f"off {node.number}", matches)

    def cut_dead(self, node):
        """Node and all others, the storage as well."""
        self.cut(f"off {node.number}", [f'iifname "{node.port}"', f'oifname "{node.port}"'])

    def cut_port(self, node, port, ways="both"):
        """UDP to that port, between this node and all others."""
        matches = [f'{way} "{node.port}" udp dport {port}'
                   for key, way in (("out", "iifname"), ("in", "oifname")) if ways in (key, "both")]
        self.cut(f"port {port} {node.number}", matches)

    def cut_beats(self, node, ways="both"):
        self.cut_port(node, BEAT_PORT, ways)

    def cut_corosync(self, node, ways="both"):
        self.cut_port(node, COROSYNC_PORT, ways)

    def cut_storage(self, node, ways="both"):
        matches = []
        if ways in ("out", "both"):
            matches += [f'iifname "{node.port}" oifname "storage-lan"']
        if ways in ("in", "both"):
            matches += [f'iifname "storage-lan" oifname "{node.port}"']
        self.cut(f"storage {node.number}", matches)

    def split(self, ones):
        """These nodes on one side, the others on the other; both reach the storage."""
        others = [n for n in self.nodes if n not in ones]
        self.cut("split", self._pairs(ones, others) + self._pairs(others, ones))
