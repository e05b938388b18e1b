# SPDX-License-Identifier: ISC
"""Two hosts with Xen, a migrd each, and guests: the testbed's virtual hosts, driven from outside.

Booting two hosts costs a minute: a test makes one lab and does much in it. A command costs little where one shell
stays up in the host (Host.run), but seconds on a busy machine where each has its own (Host.begin). What runs in the hosts is the build's own programs, read over 9p; nothing of this machine is changed, and all
ends with the process that made the lab, however it ends.

XEN_LAB=DIR takes the hosts of `testbed shell DIR` that are up, for work on a test; it leaves them as they are in the end.

The guest is the Linux guest of tests/guests: a counter on its console, memory and a disk with checksums, a TCP
server. Its console is read from migrd's log, or from xenconsoled's if xl made it.
"""

import os
import re
import selectors
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import labs
from labs import BUILD, TOP, Trouble, read_file

SKIP = 77
TESTBED = f"{TOP}/tests/testbed/testbed"
BEGAN = time.monotonic()
FAULT_FILE, FAULT_TEXT = "/run/faults", 512
LOG = "/var/log/migrd/migrd.log"
PEER_LOG = "/tmp/peer.log"
GUEST_ADDRESS = "10.99.1.10"
# Pulse and disk go slowly: each wake-up costs an emulated processor, which dom0 needs too.
GUEST_WORDS = "guest.memory=16 guest.rate=2 guest.disk=4 guest.beat_ms=20 guest.disk_ms=50"
DISK = "/dev/disk/by-id/wwn-0x5254000000000000"


class Skip(Exception):
    """This machine lacks what the lab needs."""


def say(text):
    print(f"{time.monotonic() - BEGAN:6.1f} s  {text}", flush=True)


def check(true, text):
    if not true:
        raise Trouble(text)


def patient(seconds):
    """That many for a machine that does nothing else; more if it is busy, as emulated processors notice."""
    return seconds * max(1, os.getloadavg()[0] / 4)


def wait_for(seconds, what, probe, step=0.5):
    return labs.wait_for(patient(seconds), what, probe, step)


def words_of(line):
    """key=value words of a line, as numbers where they are."""
    pairs = (word.split("=", 1) for word in line.split() if "=" in word)
    return {k: int(v) if v.isdigit() else v for k, v in pairs}


class Shell:
    """A bash that stays in a host; one line after the other, each in a subshell of its own."""

    END = re.compile(rb"\0(\d+)\n$")

    def __init__(self, host):
        words = [TESTBED, "exec", "-i", "--cwd", "/", host.lab.dir, str(host.number), "/bin/bash"]
        self.host, self.out, self.answer = host, b"", None
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.select = selectors.DefaultSelector()
        self.select.register(self.process.stdout, selectors.EVENT_READ)

    def send(self, line):
        self.out, self.answer = b"", None
        try:
            self.process.stdin.write(f"(\n{line}\n) </dev/null 2>&1\nprintf '\\0%d\\n' $?\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Trouble(f"{self.host} is off") from None

    def receive(self, seconds):
        """(status, output) of what was sent; None: not yet."""
        end = time.monotonic() + seconds
        while not self.answer:
            if not self.select.select(max(0, end - time.monotonic())):
                return None
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise Trouble(f"{self.host} is off")
            self.out += data
            if found := self.END.search(self.out):
                self.answer = int(found[1]), self.out[:found.start()].decode(errors="replace").strip()
        return self.answer

    def close(self):
        self.select.close()
        self.process.terminate()
        self.process.communicate()


class Host:
    """One dom0. `daemon` is migrd's process in there, 0 if none runs."""

    def __init__(self, lab, number):
        self.lab, self.number, self.name = lab, number, f"host{number}.lab"
        self.serial = 0
        self.shells = {}

    def __repr__(self):
        return f"host {self.number}"

    # --- commands

    def begin(self, *command, limit=None, **more):
        """Starts it there; a Popen whose output is read by the caller."""
        command = ("/bin/bash", "-c", *command) if len(command) == 1 else command
        words = [TESTBED, "exec", *(["--timeout", str(patient(limit))] if limit else []),
                 *(["-i"] if "stdin" in more else []), "--cwd", "/", self.lab.dir, str(self.number), *command]
        more = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **more}
        return subprocess.Popen(words, text=True, errors="replace", **more)

    def later(self, *command, shell="later"):
        """Starts it, a single word as a shell's line, in the shell of that name, whose receive() tells how it ended."""
        if shell not in self.shells:
            self.shells[shell] = Shell(self)
        self.shells[shell].send(command[0] if len(command) == 1 else shlex.join(command))
        return self.shells[shell]

    def later_answer(self, limit=60, shell="later"):
        """(status, output) of what was started last."""
        answer = None
        try:
            answer = self.shells[shell].receive(patient(limit))
        finally:
            if answer is None:
                self.hang_up()
        if answer is None:
            raise Trouble(f"{self}: no answer in {patient(limit):.0f} s")
        return answer

    def status(self, *command, limit=60):
        """(status, output)."""
        self.later(*command, shell="now")
        try:
            return self.later_answer(limit, "now")
        except Trouble as why:
            raise Trouble(f"{shlex.join(command)}: {why}") from None

    def run(self, *command, limit=60, ok=True):
        """Its output. A failure is an error unless ok is False."""
        status, out = self.status(*command, limit=limit)
        if ok and status != 0:
            raise Trouble(f"{self}: {shlex.join(command)}: status {status}: {out}")
        return out

    def hang_up(self):
        """What its shells do ends."""
        for shell in self.shells.values():
            shell.close()
        self.shells = {}

    def xm(self, *words, **more):
        return self.run(f"{BUILD}/xm", *words, **more)

    def migctl(self, *words, **more):
        return self.run(f"{BUILD}/migctl", *words, **more)

    def virsh(self, *words, **more):
        return self.run("virsh", "-c", "xen:///system", *words, **more)

    def put(self, path, text):
        self.run(f"mkdir -p {shlex.quote(os.path.dirname(path))}; printf %s {shlex.quote(text)} >{shlex.quote(path)}")

    # --- migrd

    def configure(self, *lines):
        self.put("/etc/migrd/migrd.conf", "\n".join([
            "hypervisor = xen", 'xend-relocation-address = ""',
            'xend-relocation-hosts-allow = "^host[12]\\.lab$"', f"log-file = {LOG}", "log-level = debug", *lines, ""]))

    def start_daemon(self):
        """migrd, in a session of its own: it outlives the command that starts it."""
        self.run(f"mkdir -p /var/log/migrd; MIGRD_FAULT_FILE={FAULT_FILE} setsid {BUILD}/migrd "
                 "</dev/null >>/var/log/migrd/output 2>&1 & "
                 f"for i in $(seq 100); do {BUILD}/migctl status >/dev/null 2>&1 && exit; sleep 0.3; done; "
                 "cat /var/log/migrd/output; exit 1")

    def kill_daemon(self):
        self.run("pkill -KILL -o -x migrd; while pgrep -x migrd >/dev/null; do sleep 0.1; done")

    def log(self):
        return self.run(f"cat {LOG} /var/log/migrd/output 2>/dev/null", ok=False)

    # --- fault points

    def arm(self, text):
        """See base/fault.h. The file is there before migrd starts."""
        self.serial += 1
        self.run(f"[ -e {FAULT_FILE} ] || : >{FAULT_FILE}; {{ echo {self.serial} {text}; head -c {FAULT_TEXT} /dev/zero; }} | "
                 f"dd of={FAULT_FILE} conv=notrunc bs={FAULT_TEXT} count=1 iflag=fullblock status=none")

    def fired(self):
        """The process that hit the armed point, or 0."""
        for line in self.run(f"tail -c +{FAULT_TEXT + 1} {FAULT_FILE}").splitlines():
            words = line.split()
            if words and words[0] == str(self.serial):
                return int(words[1])
        return 0

    # --- domains as Xen itself has them

    def xl_list(self):
        """name -> state, by stock xl: what there is beside Domain-0."""
        rows = [line.split() for line in self.run("xl", "list").splitlines()[1:]]
        return {row[0]: row[4] for row in rows if row[0] != "Domain-0"}

    def runs(self, name):
        """A domain of that name that is neither paused nor ended."""
        state = self.xl_list().get(name)
        return state is not None and not set(state) & set("psc")

    # --- guests

    def connect_peer(self):
        """A TCP connection from here to the guest, of lifeline's."""
        self.run(f"setsid {BUILD}/guests/lifeline peer {GUEST_ADDRESS} 7000 interval_ms=100 </dev/null >{PEER_LOG} 2>&1 & "
                 f"for i in $(seq 60); do grep -q connected {PEER_LOG} && exit; sleep 0.5; done; exit 1")
        say(f"a TCP connection from {self}")

    def still_connected(self):
        """The connection that there was is there; it ends."""
        said = self.run(f"pkill -TERM -x lifeline; for i in $(seq 60); do grep -E '^peer (ok|FAILED)' {PEER_LOG} && exit; "
                        f"sleep 0.5; done; cat {PEER_LOG}")
        check(said.startswith("peer ok"), f"the TCP connection: {said}")
        say(f"the connection stayed: {said}")

    @staticmethod
    def console_files(name):
        return f"/var/log/migrd/console-{name}.log /var/log/xen/guest-{name}.log /var/log/xen/guest-{name}--incoming.log"

    def console(self, name):
        """All that the guest has written here."""
        return self.run(f"cat {self.console_files(name)} 2>/dev/null", ok=False)

    def last_tick(self, name):
        """Its words; {} if there is none."""
        line = self.run(f"tail -qn 6 {self.console_files(name)} 2>/dev/null | grep '^tick .* workers=' | tail -n 1", ok=False)
        return words_of(line) | {"tick": int(line.split()[1])} if line else {}


class Lab:
    """The hosts. Use it in a `with`."""

    def __init__(self, hosts=2, disk_mib=16, cpus=1, memory=None, timeout=1800):
        self.count = hosts
        self.hosts = [Host(self, n) for n in range(1, hosts + 1)]
        self.shell = None
        self.dir = os.environ.get("XEN_LAB")
        if not self.dir:
            self.boot(disk_mib, cpus, memory, timeout)

    def boot(self, disk_mib, cpus, memory, timeout):
        self.dir = tempfile.mkdtemp(prefix="xen.")
        words = [TESTBED, "shell", "--die-with-parent", "--kind", "xen", "--hosts", str(self.count), "--cpus", str(cpus),
                 "--console", f"{self.dir}/console", "--timeout", str(timeout)]
        words += ["--disk", str(disk_mib)] * 2
        words += ["--memory", str(memory)] if memory else []
        self.log = open(f"{self.dir}/shell", "wb")
        self.shell = subprocess.Popen([*words, self.dir], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def __enter__(self):
        try:
            if self.shell:
                self.wait_up()
            for host in self.hosts:
                host.run("/bin/true", limit=300)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind, why, trace):
        if kind is not None and issubclass(kind, Trouble):
            self.show(why)
        self.close()

    def wait_up(self):
        def up():
            if self.shell.poll() is not None:
                text = read_file(f"{self.dir}/shell").strip()
                if self.shell.returncode == SKIP:
                    raise Skip(text.splitlines()[-1].removeprefix("testbed: skip: "))
                raise Trouble(f"the testbed ended: {text}")
            return read_file(f"{self.dir}/shell").count("is up after") >= self.count
        wait_for(300, "the hosts are up", up, 0.2)
        say("; ".join(line.removeprefix("testbed: ") for line in read_file(f"{self.dir}/shell").splitlines()))

    def close(self):
        for host in self.hosts:
            host.hang_up()
        if not self.shell:
            return
        if self.shell.poll() is None:
            self.shell.terminate()
            self.shell.wait()
        self.log.close()
        if os.environ.get("XEN_LOGS"):
            shutil.copytree(self.dir, os.environ["XEN_LOGS"], dirs_exist_ok=True)
        shutil.rmtree(self.dir, ignore_errors=True)

    def testbed(self, *words):
        """kill, boot, ... of a host."""
        subprocess.run([TESTBED, words[0], self.dir, *words[1:]], check=True)

    def host(self, number):
        return self.hosts[number - 1]

    def other(self, host):
        return self.hosts[2 - host.number]

    def show(self, why):
        """What one wants to see of a failure. XEN_LOGS: a folder for the whole logs."""
        print(f"--- {why}", file=sys.stderr)
        for host in self.hosts:
            try:
                text = host.run(f"tail -n 60 {LOG}; tail -n 20 /var/log/migrd/output; tail -n 15 /var/log/migrd/xen-*; xl list; "
                                "tail -qn 4 /var/log/xen/guest-*", ok=False, limit=30)
            except Trouble as more:
                text = str(more)
            print(f"--- {host}:\n{text}", file=sys.stderr)

    # --- migrd

    def daemons_up(self, *lines):
        """Certificates, configuration, a migrd on each host."""
        ca = f"{self.dir}/ca"
        if not self.shell:
            self.clean()
        self.local("migctl", "pki", "init", "--dir", ca)
        for host in self.hosts:
            pki = f"{self.dir}/pki{host.number}"
            self.local("migctl", "pki", "issue", host.name, "--dir", ca, "--out", pki,
                       "--alt", f"10.99.0.{host.number}")
            subprocess.run([TESTBED, "copy", self.dir, str(host.number), *(f"{pki}/{f}" for f in os.listdir(pki)),
                            "/etc/migrd/pki"], check=True)
            host.configure(*lines)
            host.arm("")
            host.start_daemon()
        say("migrd answers on all hosts")

    def clean(self):
        """Hosts that were used before are as if they were new."""
        shutil.rmtree(f"{self.dir}/ca", ignore_errors=True)
        for host in self.hosts:
            shutil.rmtree(f"{self.dir}/pki{host.number}", ignore_errors=True)
            host.kill_daemon()
            host.run("for d in $(xl list | awk 'NR > 2 {print $2}'); do xl destroy $d; done; "
                     f"rm -rf /etc/migrd /run/migrd /var/lib/migrd /var/log/migrd /var/log/xen/guest-* {FAULT_FILE}")

    @staticmethod
    def local(program, *words):
        p = subprocess.run([f"{BUILD}/{program}", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, check=False)
        check(p.returncode == 0, f"{program} {shlex.join(words)}: {p.stdout}")

    # --- guests

    @staticmethod
    def guest_file(name, kind="pvh", disk=f"phy:{DISK},xvda,w", mib=128, words=GUEST_WORDS):
        """xm's file of the Linux guest. What it is: kind pvh or pv."""
        return f"""name = "{name}"
type = "{kind}"
memory = {mib}
vcpus = 1
kernel = "{BUILD}/guests/vmlinux"
ramdisk = "{BUILD}/guests/linux-initrd.gz"
extra = "console=hvc0 quiet panic=-1 guest.ip={GUEST_ADDRESS}/24 {words}"
{f"disk = ['{disk}']" if disk else ""}
vif = ['mac=02:99:01:00:01:0a,bridge=xenbr0']
on_crash = "preserve"
"""

    def make_guest(self, host, name, **more):
        """xm create, and the guest ticks. The emulated processor may hang or crash it: three attempts."""
        host.put(f"/etc/xen/{name}.cfg", self.guest_file(name, **more))
        for attempt in (1, 2, 3):
            host.xm("create", f"/etc/xen/{name}.cfg", limit=120)
            try:
                wait_for(120, f"{name} ticks", lambda: host.last_tick(name), 1)
                return
            except Trouble as why:
                say(f"attempt {attempt}: {why}; the end of its console:")
                print("\n".join("  | " + line for line in host.console(name).splitlines()[-15:]), flush=True)
                host.xm("destroy", name)
        raise Trouble(f"{name} does not boot")

    def copies(self, name):
        """Hosts where a copy runs, by Xen's own word."""
        return [h for h in self.hosts if h.runs(name)]

    def guest_is_well(self, host, name, after=0):
        """The counter goes on from there, checksums hold; the tick's words."""
        tick = wait_for(60, f"{name} ticks on {host} after tick {after}",
                        lambda: (lambda t: t if t.get("tick", 0) > after else None)(host.last_tick(name)), 0.5)
        bad = [k for k in ("memory", "tcp", "disk", "workers") if tick[k] != "ok"]
        check(not bad, f"{name} on {host}: {' and '.join(bad)} not ok: {tick}")
        return tick


def main(test):
    """Runs it, and ends with the status that tests/run wants."""
    if os.geteuid() != 0:
        print("skipped: needs root")
        return SKIP
    try:
        test()
    except Skip as why:
        print(f"skipped: {why}")
        return SKIP
    except Trouble as why:
        print(f"FAILED: {why}", file=sys.stderr)
        return 1
    say("passed")
    return 0
