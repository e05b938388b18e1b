# SPDX-License-Identifier: ISC
"""A pair of hosts for t_matrix: lab.sh's namespaces, a migrd in each, one guest, and the means to
hurt them and to look at them.

What runs is not asked of migrd alone: each copy's memory is mapped from its process, and the
heartbeat page in it (tests/guests/README.md) tells which copies' vCPUs go on. A sampler
notes that every 10 ms, so that a copy which runs for a moment only is seen too.
"""

import ctypes
import json
import mmap
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time

from labs import BUILD, HERE, TOP, Trouble, read_file, send_signal, wait_for

PORT, RELAY_PORT = 8002, 8003
GUEST_MIB = 64
GUEST_WORDS = "fill=12:zero=30,comp=35,rand=35 ws=4 rate=10 tick_ms=500 verify_s=0"
DEAD_PEER_S = 2.0
HEARTBEAT, MAGIC = 0x100000, 0x74616562746C6775
FAULT_TEXT = 512
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)

LAB_SCRIPT = r"""
. "$1/hosts.sh"
lab_start 2
"$BUILD/migctl" pki init --dir "$LAB_DIR/ca" >/dev/null || die "certificate authority"
for h in 1 2; do
    r=$(root_of $h)
    mkdir -p "$r/etc/migrd/pki" "$r/var/lib/migrd"
    "$BUILD/migctl" pki issue "$(host_name $h)" --dir "$LAB_DIR/ca" --out "$r/etc/migrd/pki" \
        --alt "$(lab_addr host$h)" --alt 127.0.0.1 >/dev/null || die "certificate of host $h"
    lab_exec host$h mount -t tmpfs -o size=1m journal "$r/var/lib/migrd" || die "a small disk for host $h"
    printf '%s\n' 'xend-relocation-address = ""' \
        'xend-relocation-hosts-allow = "^host[0-9]+\.lab$ ^localhost$"' \
        "log-file = $(log_of $h)" "relocation-dead-peer-timeout = ${DEAD_PEER}ms" \
        >"$r/etc/migrd/migrd.conf"
done
echo "lab $LAB_DIR ${LAB_HOLDER[net]} ${LAB_HOLDER[host1]} ${LAB_HOLDER[host2]}"
cat >/dev/null
"""


def process_state(pid):
    text = read_file(f"/proc/{pid}/stat")
    return text.rsplit(")", 1)[1].split()[0] if text else ""


def alive(pid):
    return process_state(pid) not in ("", "Z", "X")


def goes_on(before, now):
    """Between two looks at a copy: its heart beat, by its own vCPU."""
    return before[0] != now[0] and before[1] != now[1]


class Copy:
    """One copy of the guest: a process of the hypervisor and its memory."""

    def __init__(self, host, pid):
        self.host, self.pid = host, pid
        self.memory = None
        for fd in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{fd}"
            try:
                if "xvm-ram" in os.readlink(path):
                    with open(path, "rb") as f:
                        self.memory = mmap.mmap(f.fileno(), 4096, access=mmap.ACCESS_READ,
                                                offset=HEARTBEAT)
                    break
            except (OSError, ValueError):
                continue
        if self.memory is None:
            raise OSError("no memory yet")
        self.vcpu = None

    def beats(self):
        magic, beats = struct.unpack_from("<QQ", self.memory, 0)
        return beats if magic == MAGIC else 0

    def vcpu_time(self):
        """Nanoseconds that the vCPU's thread has had. A copy that is being filled changes its
        heartbeat page too, but its vCPU gets none."""
        if self.vcpu is None:
            for task in sorted(os.listdir(f"/proc/{self.pid}/task")) if alive(self.pid) else []:
                if read_file(f"/proc/{self.pid}/task/{task}/comm").startswith("vcpu"):
                    self.vcpu = f"/proc/{self.pid}/task/{task}/schedstat"
        words = read_file(self.vcpu).split() if self.vcpu else []
        return int(words[0]) if words else 0

    def signs(self):
        return self.beats(), self.vcpu_time()


class Sampler(threading.Thread):
    """Follows all copies of both hosts, and notes when which of them went on."""

    def __init__(self, hosts):
        super().__init__(daemon=True)
        self.hosts, self.copies, self.lock = hosts, {}, threading.Lock()
        self.history, self.signs, self.both, self.worst_both = [], {}, 0, 0
        self.done = False

    def forget(self):
        with self.lock:
            self.copies, self.history, self.signs = {}, [], {}
            self.both = self.worst_both = 0

    def look(self):
        with self.lock:
            for host in self.hosts:
                for pid in host.guest_pids():
                    if pid not in self.copies:
                        try:
                            self.copies[pid] = Copy(host, pid)
                        except OSError:
                            continue
            signs = {pid: c.signs() for pid, c in self.copies.items()}
            now = {pid: b for pid, (b, _) in signs.items()}
            before = self.history[-1][1] if self.history else {}
            moved = [p for p, s in signs.items() if goes_on(self.signs.get(p, s), s)]
            self.signs = signs
            self.both = self.both + 1 if len(moved) > 1 else 0
            self.worst_both = max(self.worst_both, self.both)
            if now != before:
                self.history.append((time.monotonic(), now))

    def run(self):
        while not self.done:
            self.look()
            time.sleep(0.01)

    def running(self, seconds=0.15):
        """Copies whose heartbeat goes on now."""
        with self.lock:
            first = {c: c.signs() for c in self.copies.values() if alive(c.pid)}
        time.sleep(seconds)
        return [c for c, s in first.items() if alive(c.pid) and goes_on(s, c.signs())]

    def second_life(self):
        """Words about a copy that went on after a younger one had run, or None. A copy has run
        once it is ahead of all that its elders ever were: so much no transfer can bring."""
        with self.lock:
            history, pids = list(self.history), list(self.copies)
            if self.worst_both >= 8:
                return f"two copies went on side by side for {self.worst_both} samples"
        for i, old in enumerate(pids):
            last = [t for t, b in history if old in b]
            steps = [(t, b.get(old)) for t, b in history if old in b]
            moved = [t for (t, b), (_, a) in zip(steps[1:], steps) if b != a]
            peak = max((b for _, b in steps), default=0)
            for young in pids[i + 1:]:
                ran = [t for t, b in history if b.get(young, 0) > peak]
                if last and ran and moved and moved[-1] > ran[0] + 0.05:
                    return f"the old copy (process {old}) went on after the new one ({young}) had run"
        return None


class Relay:
    """A wire in user space before a host's relocation port, in its network: passes bytes on, and
    can turn one bit in each direction over, or reset all connections and refuse further ones."""

    def __init__(self, host):
        self.host = host
        self.pairs, self.lock = [], threading.Lock()
        self.listener, self.flip, self.open_again = None, set(), threading.Event()
        ready = threading.Event()
        threading.Thread(target=self.serve, args=(ready,), daemon=True).start()
        ready.wait(5)

    def in_network(self):
        fd = os.open(f"/proc/{self.host.holder}/ns/net", os.O_RDONLY)
        if LIBC.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(fd)

    def serve(self, ready):
        self.in_network()
        while True:
            self.listener = socket.create_server((self.host.address, RELAY_PORT))
            ready.set()
            try:
                while True:
                    self.join(self.listener.accept()[0])
            except OSError:
                pass
            self.open_again.wait()

    def join(self, client):
        try:
            server = socket.create_connection(("127.0.0.1", PORT), timeout=2)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for s in (client, server):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            self.pairs.append((client, server))
        for a, b, way in ((client, server, "out"), (server, client, "in")):
            threading.Thread(target=self.pump, args=(a, b, way), daemon=True).start()

    def pump(self, a, b, way):
        try:
            while data := a.recv(1 << 16):
                if way in self.flip and len(data) > 8:
                    self.flip.discard(way)
                    at = len(data) // 2
                    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
                b.sendall(data)
        except OSError:
            pass
        for s, how in ((b, socket.SHUT_WR), (a, socket.SHUT_RD)):
            try:
                s.shutdown(how)
            except OSError:
                pass

    def reset(self):
        self.open_again = threading.Event()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for s in pair:
                try:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                s.close()

    def heal(self):
        self.open_again.set()

    def forget(self):
        self.flip = set()
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for s in pair:
                s.close()


class Host:
    def __init__(self, lane, number, holder):
        self.lane, self.number, self.holder = lane, number, int(holder)
        self.name, self.lab_name = f"host{number}", f"host{number}.lab"
        self.address = f"10.99.0.{number}"
        self.root = f"{lane.dir}/h{number}"
        self.run_dir = f"{self.root}/run/migrd/xvm"
        self.log, self.worker_log = f"{self.root}/migrd.log", f"{lane.dir}/host{number}-migrd.log"
        self.fault_file = f"{lane.dir}/fault{number}"
        with open(self.fault_file, "wb") as f:
            f.write(bytes(2 * FAULT_TEXT))
        self.net = os.stat(f"/proc/{holder}/ns/net").st_ino
        self.daemon = None
        self.base = {}

    # --- programs

    def enter(self, *command):
        return ["nsenter", "-t", str(self.holder), "-m", "-u", "-n", "--", "setpriv", "--pdeathsig",
                "KILL", *command]

    def start(self, wait=True):
        env = dict(os.environ, MIGRD_FAULT_FILE=self.fault_file)
        with open(self.worker_log, "ab") as log:
            self.daemon = subprocess.Popen(
                self.enter(f"{BUILD}/migrd", "--root", self.root), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=env)
        if wait:
            wait_for(10, f"migrd of {self.name} answers", lambda: self.tool("migctl", "status")[0])
            # later: its socket to a guest, and what is opened once with the first worker
            self.most_descriptors = self.descriptors() + 3

    def migrd_pid(self):
        """nsenter and setpriv become migrd: one process all along."""
        return self.daemon.pid if self.daemon and self.daemon.poll() is None else 0

    def tool(self, program, *words, limit=10):
        try:
            r = subprocess.run([f"{BUILD}/{program}", "--root", self.root, *words], text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            return False, "no answer"
        return r.returncode == 0, r.stdout

    def ask(self, *words):
        ok, out = self.tool("migctl", *words, "--json")
        try:
            return json.loads(out) if ok else {}
        except ValueError:
            return {}

    def domains(self):
        return {d["domain"]["name"]: d for d in self.ask("list").get("domains", [])}

    def busy(self):
        """Words about what is under way here, '' if nothing is."""
        if not self.migrd_pid():
            return "migrd is dead"
        reply = self.ask("migrations")
        if "migrations" not in reply:
            return "migrd does not answer"
        open_ones = [f"{m['domain']} {m['direction']} {m['state']}" for m in reply["migrations"]
                     if m.get("end_wall_ns", 0) in (0, "0")]
        return ", ".join(open_ones + [f"worker {p}" for p in self.workers()])

    # --- processes

    def processes(self):
        found = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == self.holder:
                continue
            try:
                if os.stat(f"/proc/{entry}/ns/net").st_ino == self.net and alive(int(entry)):
                    found[int(entry)] = read_file(f"/proc/{entry}/comm").strip()
            except OSError:
                continue
        return found

    def workers(self):
        return [p for p, name in self.processes().items() if name == "migrd-worker"]

    def guest_pids(self):
        try:
            names = os.listdir(self.run_dir)
        except OSError:
            return []
        pids = [(read_file(f"{self.run_dir}/{n}/pid").split() or [""])[0] for n in names]
        return [int(p) for p in pids if p.isdigit() and alive(int(p))]

    def kill_all(self):
        for sig in (signal.SIGSTOP, signal.SIGSTOP, signal.SIGKILL):
            for pid in self.processes():
                send_signal(pid, sig)
        wait_for(5, f"{self.name} is empty", lambda: self.daemon.poll() is not None and
                 not self.processes())
        subprocess.run(["rm", "-rf", f"{self.root}/run/migrd"], check=True)

    # --- faults

    def arm(self, text):
        self.lane.serial += 1
        line = f"{self.lane.serial} {text}\n".encode()
        with open(self.fault_file, "r+b", buffering=0) as f:
            f.write(line.ljust(FAULT_TEXT, b"\0"))
        return self.lane.serial

    def hit(self, serial):
        with open(self.fault_file, "rb") as f:
            words = f.read()[FAULT_TEXT:].split(b"\n")[0].decode().split()
        return int(words[1]) if len(words) == 3 and words[0] == str(serial) else 0

    def state_dir(self):
        return f"/proc/{self.holder}/root{self.root}/var/lib/migrd"

    def fill_disk(self):
        """Not a byte is left: neither free pages nor the rest of the journal's last one, which
        gets what a torn write leaves there."""
        journal = f"{self.state_dir()}/journal"
        with open(journal, "ab", buffering=0) as f:
            f.write(b"x" * (-os.path.getsize(journal) % 4096))
        with open(f"{self.state_dir()}/fill", "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(4096))
            except OSError:
                pass

    def free_disk(self):
        os.unlink(f"{self.state_dir()}/fill")

    # --- leaks

    def descriptors(self):
        pid = self.migrd_pid()
        return len(os.listdir(f"/proc/{pid}/fd")) if pid else 0

    def figures(self):
        status = self.ask("status")
        return {"reserved": int(status.get("memory_reserved_kib", -1)),
                "processes": sorted(self.processes().values()),
                "folders": sorted(os.listdir(self.run_dir)) if os.path.isdir(self.run_dir) else [],
                "domains": {n: d["state"].replace("blocked", "running")
                            for n, d in self.domains().items()}}


class Lane:
    def __init__(self, number):
        self.number, self.serial, self.guests = number, 0, 0
        env = dict(os.environ, BUILD=BUILD, DEAD_PEER=str(int(DEAD_PEER_S * 1000)))
        self.lab = subprocess.Popen(["bash", "-c", LAB_SCRIPT, "lab", HERE], env=env, text=True,
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        words = self.lab.stdout.readline().split()
        if not words or words[0] != "lab":
            status = self.lab.wait()
            raise SystemExit(status if status == 77 else f"the lab did not start: {words}")
        self.dir, self.net_holder = words[1], int(words[2])
        self.hosts = [Host(self, i + 1, words[3 + i]) for i in range(2)]
        for h in self.hosts:
            h.start()
            h.relay = Relay(h)
        self.sampler = Sampler(self.hosts)
        self.sampler.start()
        self.guest = None

    def close(self):
        self.sampler.done = True
        self.lab.stdin.close()
        self.lab.wait()
        for h in self.hosts:
            h.daemon.wait()

    def other(self, host):
        return self.hosts[1] if host is self.hosts[0] else self.hosts[0]

    # --- network

    def cable(self, host, *words):
        subprocess.run(["nsenter", "-t", str(self.net_holder), "-m", "-u", "-n", "--", *words],
                       check=True)

    def unplug(self, host):
        self.cable(host, "ip", "link", "set", f"{host.name}-lan", "down")

    def plug(self, host):
        self.cable(host, "ip", "link", "set", f"{host.name}-lan", "up")

    def black_hole(self, host):
        self.cable(host, "bridge", "link", "set", "dev", f"{host.name}-lan", "state", "0")

    def heal(self, host):
        self.cable(host, "bridge", "link", "set", "dev", f"{host.name}-lan", "state", "3")

    # --- the guest

    def make_guest(self, host):
        self.guests += 1
        self.guest = f"g{self.number}x{self.guests}"
        self.sampler.forget()
        path = f"{self.dir}/{self.guest}.cfg"
        with open(path, "w", encoding="utf-8") as f:
            f.write(f'name = "{self.guest}"\nmemory = {GUEST_MIB}\nvcpus = 1\n'
                    f'kernel = "{BUILD}/guests/testguest"\nextra = "{GUEST_WORDS}"\n')
        ok, out = host.tool("xm", "create", path)
        if not ok:
            raise Trouble(f"xm create on {host.name}: {out}")
        wait_for(10, "the guest's heart beats", lambda: self.where() is host)
        # the console's echo of its first lines comes late
        wait_for(10, "the guest is up", lambda: "testguest up" in self.console(host))

    def where(self):
        hosts = [c.host for c in self.sampler.running()]
        return hosts[0] if len(hosts) == 1 else None

    def console(self, host):
        return read_file(f"{host.root}/var/log/migrd/console-{self.guest}.log")

    def verify(self, host):
        """Memory and registers, as the guest itself finds them."""
        domain = host.domains().get(self.guest)
        if not domain or not domain.get("console"):
            raise Trouble(f"{self.guest} has no console on {host.name}")
        before = len(re.findall(r"^verify \d+ .*\n", self.console(host), re.M))

        def answers():
            return re.findall(r"^verify \d+ .*\n", self.console(host), re.M)[before:]
        for _ in range(6):
            with open(domain["console"], "w", encoding="utf-8") as f:
                f.write("verify\n")
            try:
                line = wait_for(1.5, "verify", answers)[-1]
            except Trouble:
                continue
            if "static=ok ws=ok fpu=ok regs=ok" not in line:
                raise Trouble(f"memory or registers differ on {host.name}: {line.strip()}")
            return
        raise Trouble(f"{self.guest} on {host.name} does not answer on its console")
