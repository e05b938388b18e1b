# SPDX-License-Identifier: ISC
"""Nodes of ha_lab.py with a migrd each, and guests with a disk on the NFS server."""

import json
import signal
import uuid

from ha_lab import BUILD, Lab, Node, Trouble, read_file, wait_for, write_file

# Daemons of a host, for their names' sake.
MIGRD, COROSYNC, DOMAIN = "migrd", "corosync", "xvm-domain"


class Host(Node):
    """A node with a migrd; `more` are lines of its own for migrd.conf."""

    more = ()

    def tool(self, name, *words, check=True, limit=60):
        """xm or migctl on this host: what it prints."""
        return self.run(f"{BUILD}/{name}", "--root", self.root, *words, check=check, limit=limit)

    def migctl(self, *words, **more):
        return self.tool("migctl", *words, **more)

    def xm(self, *words, **more):
        return self.tool("xm", *words, **more)

    def begin_migrd(self):
        write_file(f"{self.root}/etc/migrd/migrd.conf", "".join(f"{k} = {v}\n" for k, v in self.config()))
        self.daemon = self.begin("migrd-output", f"{BUILD}/migrd", "--root", self.root)

    def end_migrd_start(self):
        wait_for(15, f"migrd of {self} answers", self._answers, 0.05)

    def start_migrd(self):
        self.begin_migrd()
        self.end_migrd_start()

    def _answers(self):
        if self.daemon.poll() is not None:
            raise Trouble(f"migrd of {self} has ended: {read_file(f'{self.root}/migrd-output.log')[-1500:]}")
        return "Hypervisor" in self.migctl("status", check=False)

    def config(self):
        """migrd.conf: keys and values."""
        return [("xend-relocation-address", '""'),
                ("xend-relocation-hosts-allow", r'"^host[0-9]+\.lab$"'),
                ("relocation-dead-peer-timeout", "2s"),
                ("storage-nfs-uid-base", "100000"),
                ("log-file", f"{self.root}/migrd.log"),
                ("cluster", "yes"), *self.lab.config, *self.more]

    def kill_migrd(self):
        self.end(MIGRD)
        self.daemon.wait()

    def start_daemons(self):
        """What of them does not run."""
        if not self.pids(COROSYNC):
            self.start_corosync()
        if not self.pids(MIGRD):
            self.start_migrd()

    def overview(self):
        """`migctl ha status`; {} while migrd does not answer."""
        text = self.migctl("ha", "status", "--json", check=False, limit=15)
        try:
            return json.loads(text)
        except ValueError:
            return {}

    def log(self):
        return read_file(f"{self.root}/migrd.log")


class Guest:
    """A test guest whose disk the oracle reads."""

    def __init__(self, lab, name, mib, words, disk_mib):
        self.lab, self.name, self.uuid = lab, name, str(uuid.uuid4())
        image = f"{name}.img"
        self.image = f"{lab.exports}/{image}"
        with open(self.image, "wb") as f:
            f.truncate(disk_mib << 20)
        self.file = f"{lab.dir}/{name}.cfg"
        write_file(self.file, "\n".join([
            f'name = "{name}"', f'uuid = "{self.uuid}"', f"memory = {mib}", "vcpus = 1", f'kernel = "{BUILD}/guests/testguest"',
            f'extra = "disk={disk_mib} disk_rate=60 disk_depth=2 tick_ms=200 verify_s=0 nap_ms=10 {words}"',
            f"disk = ['nfs://storage.lab/export/{image},vda,w']", ""]))

    def create(self, node):
        """Started by hand, not protected yet."""
        node.xm("create", self.file)
        return self

    def protect(self, node, *options):
        """`migctl ha add` there."""
        node.migctl("ha", "add", self.name, *options)
        return self

    def record(self, node):
        """What the log says of it, as that node knows it; {}: not protected."""
        for d in node.overview().get("state", {}).get("domain", []):
            if d["uuid"] == self.uuid:
                return d
        return {}

    def domain_on(self, node):
        for d in json.loads(node.migctl("list", "--json")).get("domains", []):
            if d["domain"]["name"] == self.name:
                return d["domain"] | {"console": d.get("console", "")}
        raise Trouble(f"{self.name} is not on {node}")

    def console(self, node):
        return read_file(f"{node.root}/var/log/migrd/console-{self.name}.log")

    def type(self, node, line):
        """A line on its console there."""
        with open(self.domain_on(node)["console"], "wb", buffering=0) as f:
            f.write(line.encode() + b"\n")


class Cluster(Lab):
    """The lab with migrd on each node."""

    node_class = Host

    def __init__(self, count=3, token=1000, storage=True, config=()):
        self.config, self.guests = list(config), []
        super().__init__(count, token, storage)
        self.exports = self.sh("nfs_file .").removesuffix("/.") if storage else ""

    def start_migrd(self, nodes=None):
        nodes = self.nodes if nodes is None else nodes
        for node in nodes:
            node.begin_migrd()
        for node in nodes:
            node.end_migrd_start()

    def guest(self, name, mib=32, words="", disk_mib=1):
        guest = Guest(self, name, mib, words, disk_mib)
        self.guests.append(guest)
        return guest

    def decider(self):
        """A node that takes part in decisions; None: there is none."""
        for node in self.on():
            view = node.overview()
            if view and not view.get("undecided") and view["state"]["local"].get("joined"):
                return node
        return None

    def ready(self, nodes=None):
        """Each of these nodes is a member of the log's view and has a lease, says each of them."""
        want = {n.number for n in (self.nodes if nodes is None else nodes)}
        for node in (self.nodes if nodes is None else nodes):
            view = node.overview()
            if not view or view.get("undecided") or not view["state"]["local"].get("joined"):
                return False
            there = {n["id"] for n in view["state"].get("node", [])
                     if n.get("member") and n.get("holds") and n.get("state") == "online"}
            if not want <= there:
                return False
        return True

    def up(self):
        """Everything on, everybody a member."""
        self.power_on()
        self.start_corosync()
        self.start_migrd()
        wait_for(30, "all nodes are members of the log", self.ready, 0.1)

    def repair(self):
        """Heals and starts whatever a test has broken."""
        self.heal()
        for node in self.nodes:
            if not node.init:
                node.power_on()
            for name in (MIGRD, COROSYNC, DOMAIN):
                node.send(name, signal.SIGCONT)
        begun = [(n, n.begin_corosync()) for n in self.nodes if not n.pids(COROSYNC)]
        for node, process in begun:
            node.end_corosync_start(process)
        asleep = [n for n in self.nodes if not n.pids(MIGRD)]
        self.start_migrd(asleep)
        wait_for(30, "all nodes are members of the log again", self.ready, 0.1)
        self.end_quarantine()

    def end_quarantine(self):
        """A test hurts the same hosts more often than an hour should see."""
        node = self.on()[0]
        for other in node.overview()["state"].get("node", []):
            if other.get("quarantined"):
                node.migctl("ha", "release", other["name"])
