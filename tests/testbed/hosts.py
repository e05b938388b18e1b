# SPDX-License-Identifier: ISC
"""
hosts: virtual hosts that are up, and commands in them. A Lab owns one temporary folder and one QEMU
for each host; both are gone when it is closed, and QEMU ends even after SIGKILL of this process. All of it
happens in one thread, in Lab.step(); nothing waits but its select.

    Lab -> Host -> QEMU -> virtio port -> agent.py in the host -> commands
        -> Job: a command; its owner is told by output(kind, data) and ended(status)

Hosts of a kind with a network have two cables, as those of tests/integration/lab.sh: eth0 is
10.99.0.N (host1.lab ...), eth1 is a port of the bridge xenbr0 or br0, 10.99.1.(200+N), for guests. Two hosts' cables are
joined directly; with more of them, a switch in this process passes the frames on.
"""
import ctypes
import json
import os
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import wire

HERE = os.path.dirname(os.path.realpath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
QEMU = "qemu-system-x86_64"
STATUS_TIMEOUT, STATUS_FAILED, STATUS_SKIP = 124, 125, 77
# Hidden in the virtual host by file systems of its own.
HIDDEN = ("/tmp/", "/run/", "/dev/", "/proc/", "/sys/")
CABLES = ("lan", "guests")
BACKLOG_MAX = 64 << 20
DGRAM_MAX = 70000
WWN = 0x5254000000000000  # of the first disk
SYNC_SECONDS = 5
TAIL_LINES = 25


class Failed(Exception):
    """Ends the run with a message and a status."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def die_with_parent():
    """In the child, before exec: SIGKILL when this tool is gone. Its own group keeps ^C away."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def hidden(path):
    """It is not seen in a virtual host."""
    return path.startswith(HIDDEN) and not path.startswith(REPO + "/")


class Stream:
    """A connection with frames in both directions."""

    def __init__(self, select, sock, on_frame, on_end):
        self.select, self.sock, self.on_frame, self.on_end = select, sock, on_frame, on_end
        self.out, self.frames = bytearray(), wire.Frames()
        sock.setblocking(False)
        select.register(sock, selectors.EVENT_READ, self.ready)

    def send(self, data):
        if not self.sock:
            return
        self.out += data
        if len(self.out) > BACKLOG_MAX:
            self.end()
        else:
            self.select.modify(self.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, self.ready)

    def ready(self, events):
        try:
            if events & selectors.EVENT_WRITE:
                self.flush()
            if events & selectors.EVENT_READ:
                data = self.sock.recv(wire.CHUNK)
                if not data:
                    return self.end()
                for frame in self.frames.feed(data):
                    self.on_frame(*frame)
        except (BlockingIOError, InterruptedError):
            pass
        except (OSError, wire.Broken):
            self.end()
        return None

    def flush(self):
        if self.out:
            del self.out[:self.sock.send(self.out)]
        if not self.out:
            self.select.modify(self.sock, selectors.EVENT_READ, self.ready)

    def end(self):
        if self.sock:
            self.close()
            self.on_end()

    def close(self):
        if self.sock:
            self.select.unregister(self.sock)
            self.sock.close()
            self.sock = None


class Job:
    """A command on a host. Its owner gives two functions."""

    def __init__(self, request, output, ended):
        self.request, self.output, self.ended = request, output, ended
        self.host = self.number = None
        self.early = []  # input that came before the host was up

    def send(self, kind, data=b""):
        if self.host and self.number:
            self.host.send(self.number, kind, data)
        elif self.host:
            self.early.append((kind, data))

    def kill(self):
        if self.host:
            self.host.forget(self)


class Host:
    """One virtual host. state: off, booting, up, dead (and `reason`)."""

    def __init__(self, lab, number):
        self.lab, self.number, self.name = lab, number, f"host{number}"
        self.folder = f"{lab.tmp}/{self.name}"
        self.console = f"{self.folder}/console"
        self.state, self.reason = "off", ""
        self.qemu = self.pidfd = self.listening = self.stream = None
        self.jobs, self.waiting, self.last = {}, [], 0
        self.synced = self.told = False
        os.mkdir(self.folder)

    # --- power

    def boot(self):
        """Switches it on."""
        self.last, self.booted = 0, time.monotonic()
        self.synced = self.told = False
        self.prepare_control()
        self.listening = socket.socket(socket.AF_UNIX)
        if os.path.exists(f"{self.folder}/agent"):
            os.unlink(f"{self.folder}/agent")
        self.listening.bind(f"{self.folder}/agent")
        self.listening.listen(1)
        self.lab.select.register(self.listening, selectors.EVENT_READ, self.accept)
        with open(f"{self.folder}/qemu", "wb") as errors:
            # pylint: disable=subprocess-popen-preexec-fn,consider-using-with
            self.qemu = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=errors,
                                         stderr=errors, preexec_fn=die_with_parent)
        self.pidfd = os.pidfd_open(self.qemu.pid)
        self.lab.select.register(self.pidfd, selectors.EVENT_READ, self.ended)
        self.state = "booting"

    def accept(self, _events):
        sock = self.listening.accept()[0]
        self.stop_listening()
        self.stream = Stream(self.lab.select, sock, self.frame, lambda: None)

    def stop_listening(self):
        if self.listening:
            self.lab.select.unregister(self.listening)
            self.listening.close()
            self.listening = None

    def ended(self, _events):
        self.off("the host ended by itself")

    def off(self, reason):
        """Power loss, also if QEMU has ended before."""
        if self.state in ("off", "dead"):
            return
        self.state, self.reason = "dead", reason
        if self.qemu.poll() is None:
            self.qemu.kill()
        self.qemu.wait()
        self.lab.select.unregister(self.pidfd)
        os.close(self.pidfd)
        if self.stream:
            self.stream.close()
        self.stop_listening()
        jobs = list(self.jobs.values()) + self.waiting
        self.jobs, self.waiting = {}, []
        for job in jobs:
            job.host = None
            job.ended(STATUS_FAILED, f"{self.name}: {reason}")

    # --- what it boots with

    def prepare_control(self):
        """The control share: what the host's first programs read."""
        control = f"{self.folder}/control"
        shutil.rmtree(control, ignore_errors=True)
        os.mkdir(control)
        for name in ("stage2.sh", "dom0.sh", "network.sh", "agent.py", "wire.py"):
            shutil.copy(f"{HERE}/{name}", control)
        args, count = self.lab.args, len(self.lab.hosts)
        if args.share:
            write(f"{control}/share", "")
        if (REPO + "/").startswith(HIDDEN):
            write(f"{control}/checkout", REPO + "\n")
        script = getattr(args, "script", None)
        if script and hidden(os.path.realpath(script)):
            shutil.copy(os.path.realpath(script), f"{control}/script")
        write(f"{control}/hostname", (self.name if self.lab.kind.network else "testbed") + "\n")
        write(f"{control}/environment",
              "".join(f"{name}={shlex.quote(value)}\n" for name, value in self.environment.items()))
        if not self.lab.kind.network:
            return
        names = [f"10.99.0.{n} host{n}.lab host{n}\nfd99::{n} host{n}v6.lab\n" for n in range(1, count + 1)]
        write(f"{control}/hosts", "127.0.0.1 localhost\n::1 ip6-localhost\n" + "".join(names))

    def command(self):
        args = self.lab.args
        command = [QEMU, "-name", f"testbed-{self.lab.kind.name}-{self.number}", "-nodefaults", "-no-reboot",
                   "-display", "none", "-smp", str(args.cpus), "-m", str(args.memory or self.lab.kind.memory),
                   "-serial", f"file:{self.console}", "-device", "virtio-serial-pci",
                   "-chardev", f"socket,id=agent,path={self.folder}/agent",
                   "-device", "virtserialport,chardev=agent,name=testbed.agent"]
        command += share("root", "/", True) + share("control", f"{self.folder}/control", True)
        if args.share:
            command += share("share", os.path.realpath(args.share).replace(",", ",,"), False)
        if args.disk:
            command += ["-device", "virtio-scsi-pci"]
        for i in range(len(args.disk)):
            command += ["-drive", f"if=none,id=disk{i},format=raw,file.locking=off,file={self.lab.disk(i)}",
                        "-device", f"scsi-hd,drive=disk{i},share-rw=on,serial=testbed-{i},wwn={WWN + i:#x}"]
        if self.lab.kind.network:
            for i, cable in enumerate(CABLES):
                command += ["-netdev", f"dgram,id={cable},local.type=unix,local.path={self.lab.cable(cable, self.number)},"
                            f"remote.type=unix,remote.path={self.lab.cable_end(cable, self.number)}",
                            "-device", f"virtio-net-pci,netdev={cable},mac=02:99:0{i}:00:01:0{self.number:x},romfile="]
        return command + self.lab.kind.arguments(args)

    # --- commands

    def run(self, job):
        """Begins it; when the host is up if it is not yet."""
        job.host = self
        if self.state in ("off", "dead"):
            job.host = None
            job.ended(STATUS_FAILED, f"{self.name} is off: {self.reason or 'it was not switched on'}")
        elif self.state == "booting":
            self.waiting.append(job)
        else:
            self.last += 1
            job.number = self.last
            self.jobs[job.number] = job
            env = dict(self.environment, **job.request.pop("env", {}))
            self.stream.send(wire.message(job.number, b"R", dict(job.request, env=env)))
            for kind, data in job.early:
                job.send(kind, data)

    @property
    def environment(self):
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
               "LANG": "C.UTF-8", "TERM": "dumb", "TESTBED": self.lab.kind.name,
               "TESTBED_HOST": str(self.number), "TESTBED_HOSTS": str(len(self.lab.hosts)),
               "TESTBED_DISKS": str(len(self.lab.args.disk))}
        if self.lab.kind.network:
            env["TESTBED_BRIDGE"] = self.lab.kind.bridge
        if self.lab.args.share:
            env["TESTBED_SHARE"] = "/run/share"
        return dict(env, **self.lab.kind.environment())

    def forget(self, job):
        """Its owner is gone: the command is ended, its answers go nowhere."""
        if job in self.waiting:
            self.waiting.remove(job)
        elif self.jobs.get(job.number) is job:
            self.send(job.number, b"S", str(int(signal.SIGKILL)).encode())
            job.output = job.ended = lambda *_: None

    def send(self, number, kind, data=b""):
        if self.stream:
            self.stream.send(wire.frame(number, kind, data))

    def frame(self, number, kind, body):
        job = self.jobs.get(number)
        if kind == b"H":
            self.hello(json.loads(body))
        elif kind == b"Q":
            self.synced = True
        elif job and kind == b"X":
            del self.jobs[number]
            job.host = None
            job.ended(int(body), "")
        elif job:
            job.output(kind, body)

    def hello(self, said):
        if said["status"]:
            self.off(f"the host was not set up: {said['text']}")
            return
        self.state = "up"
        self.lab.on_up(self, time.monotonic() - self.booted)
        waiting, self.waiting = self.waiting, []
        for job in waiting:
            self.run(job)

    def tail(self):
        """The end of what QEMU and the console say."""
        lines = []
        for name in ("qemu", "console"):
            try:
                with open(f"{self.folder}/{name}", "rb") as f:
                    lines += [f"{name}: {line.rstrip()}" for line in
                              f.read().decode(errors="replace").splitlines()[-TAIL_LINES:]]
            except OSError:
                continue
        return lines


def share(tag, path, read_only):
    return ["-virtfs", f"local,path={path},mount_tag={tag},security_model=none,multidevs=remap"
            + (",readonly=on" if read_only else "")]


class Switch:
    """Joins the cables of more than two hosts: passes frames on by their MAC addresses. Never waits: a
    frame for which a host has no room is lost."""

    def __init__(self, lab, cable):
        self.ports, self.where = {}, {}
        for number in range(1, len(lab.hosts) + 1):
            s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            s.bind(lab.cable_end(cable, number))
            self.ports[number] = (s, lab.cable(cable, number))
            lab.select.register(s, selectors.EVENT_READ, lambda _events, n=number: self.receive(n))

    def receive(self, number):
        for _ in range(64):
            try:
                data = self.ports[number][0].recv(DGRAM_MAX)
            except OSError:
                return
            self.where[data[6:12]] = number
            target = self.where.get(data[:6]) if not data[0] & 1 else None
            for other in [target] if target else self.ports:
                if other != number:
                    try:
                        self.ports[other][0].sendto(data, self.ports[other][1])
                    except OSError:
                        pass

    def close(self):
        for s, _ in self.ports.values():
            s.close()


class Lab:
    """The hosts of one run."""

    def __init__(self, kind, args, on_up=lambda host, seconds: None):
        self.kind, self.args, self.on_up = kind, args, on_up
        self.select = selectors.DefaultSelector()
        self.tmp = tempfile.mkdtemp(prefix="testbed.")
        self.hosts, self.switches = [], []
        for i, mib in enumerate(args.disk):
            with open(self.disk(i), "wb") as f:
                f.truncate(mib << 20)
        self.hosts += [None] * args.hosts
        for number in range(1, args.hosts + 1):
            self.hosts[number - 1] = Host(self, number)
        if kind.network and args.hosts > 2:
            self.switches = [Switch(self, cable) for cable in CABLES]

    def cable(self, cable, number):
        """The socket of a host's own end."""
        return f"{self.tmp}/{cable}{number}"

    def cable_end(self, cable, number):
        """The socket of the other end."""
        if len(self.hosts) > 2:
            return f"{self.tmp}/{cable}{number}s"
        return self.cable(cable, 3 - number)

    def disk(self, i):
        """The file of a disk that all hosts have."""
        return f"{self.tmp}/disk{i}"

    def boot(self):
        for host in self.hosts:
            host.boot()

    def step(self, seconds):
        """Waits for events, no longer than that, and handles them."""
        for key, events in self.select.select(max(seconds, 0)):
            if self.select.get_map().get(key.fd) is key:  # an earlier one may have closed it
                key.data(events)

    def sync(self):
        """What the hosts wrote to the share is written."""
        up = [h for h in self.hosts if h.state == "up"]
        end = time.monotonic() + SYNC_SECONDS
        for host in up:
            host.send(0, b"Q")
        while time.monotonic() < end and not all(h.synced or h.state != "up" for h in up):
            self.step(0.2)

    def keep_consoles(self, path):
        for host in self.hosts:
            if os.path.exists(host.console):
                shutil.copy(host.console, path if len(self.hosts) == 1 else f"{path}.{host.number}")

    def close(self):
        for host in self.hosts:
            if host:
                host.off("the lab ends")
        for switch in self.switches:
            switch.close()
        shutil.rmtree(self.tmp, ignore_errors=True)
