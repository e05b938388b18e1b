# SPDX-License-Identifier: ISC
"""
kinds: what the virtual hosts of the testbed boot from. A kind is a class: files that are made once and
kept, the arguments that make QEMU boot them, and whether its hosts have a network.
"""
import glob
import gzip
import hashlib
import os
import re

import bootfiles

HERE = os.path.dirname(os.path.realpath(__file__))
XEN_TOOLS = "/usr/lib/xen-{}/bin"


class KvmHost:
    """A Linux host with a nested KVM."""

    name = "kvm"
    memory = 2048
    network = False
    modules = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console", "virtio_scsi", "sd_mod", "kvm_amd",
               "kvm_intel", "tun", "veth", "bridge", "af_packet", "loop", "sch_netem", "sch_tbf")

    def __init__(self, cache):
        self.version, self.image = bootfiles.newest_kernel()
        self.stem = f"{cache}/{self.name}-{self.key()}"
        self.kernel, self.initramfs = f"{self.stem}.vmlinux", f"{self.stem}.initramfs"

    def sources(self):
        return [f"{HERE}/init.sh", f"{HERE}/bootfiles.py", bootfiles.BUSYBOX, self.image]

    def key(self):
        key = hashlib.sha256(repr((self.version, self.modules)).encode())
        for path in self.sources():
            if os.path.exists(path):
                key.update(f"{path} {os.stat(path).st_mtime_ns}".encode())
        return key.hexdigest()[:16]

    def make_files(self):
        """Kernel and initramfs, unless they are there and nothing that they are made of has changed."""
        if not os.path.exists(self.initramfs):
            for old in glob.glob(f"{os.path.dirname(self.stem)}/{self.name}-*"):
                os.unlink(old)
            data = bootfiles.initramfs(self.version, f"{HERE}/init.sh", self.modules)
            bootfiles.write_file(self.initramfs, data)
        if not os.path.exists(self.kernel):
            with open(self.image, "rb") as f:
                packed = f.read()
            bootfiles.write_file(self.kernel, bootfiles.vmlinux(packed) or packed)

    def environment(self):
        """Variables for what runs in there."""
        return {}

    def arguments(self, args):
        if args.accel == "kvm":
            cpu = ["-accel", "kvm", "-cpu", "host"]
        else:
            cpu = ["-accel", "tcg,thread=multi", "-cpu", args.cpu or "max,+svm,-la57"]
        return cpu + ["-kernel", self.kernel, "-initrd", self.initramfs, "-append",
                      "console=ttyS0 panic=-1 mitigations=off random.trust_cpu=on nokaslr"]


class XenHost(KvmHost):
    """Xen with its dom0. The emulated CPU is an old one, since newer models crash dom0, with what OpenSSL likes."""

    name = "xen"
    memory = 1536
    network, bridge = True, "xenbr0"
    cpu = "qemu64,+svm,+npt,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq,+rdrand"
    modules = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console", "virtio_net", "virtio_scsi", "sd_mod",
               "af_packet", "tun", "veth", "bridge", "loop", "xenfs", "xen_privcmd", "xen_evtchn", "xen_gntdev", "xen_gntalloc",
               "xen_netback", "xen_blkback", "nfs", "nfsv3", "sch_netem", "sch_tbf")

    def __init__(self, cache):
        self.release, self.packed = self.newest_hypervisor()
        super().__init__(cache)
        self.hypervisor = f"{self.stem}.elf"

    @staticmethod
    def newest_hypervisor():
        """(release, path) of the newest Xen that has its tools."""
        found, lonely = [], None
        for path in glob.glob("/boot/xen-*-amd64.gz"):
            release = re.fullmatch(r".*/xen-([0-9]+\.[0-9]+)[^/]*-amd64\.gz", path)
            if release and os.path.exists(XEN_TOOLS.format(release[1]) + "/xl"):
                found.append(([int(n) for n in release[1].split(".")], release[1], path))
            elif release:
                lonely = release[1]
        if found:
            return max(found)[1:]
        if lonely:
            raise bootfiles.BootError(f"no tools for Xen {lonely}: install xen-utils-{lonely}")
        raise bootfiles.BootError("no Xen in /boot: install xen-hypervisor-4.17-amd64 and xen-utils-4.17")

    def sources(self):
        return super().sources() + [self.packed]

    def make_files(self):
        super().make_files()
        if not os.path.exists(self.hypervisor):
            with gzip.open(self.packed) as f:
                bootfiles.write_file(self.hypervisor, f.read())

    def environment(self):
        return {"PATH": XEN_TOOLS.format(self.release) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

    def arguments(self, args):
        if args.accel == "kvm":
            cpu = ["-accel", "kvm", "-cpu", "host"]
        else:
            cpu = ["-accel", "tcg,thread=multi", "-cpu", args.cpu or self.cpu]
        # Without "noreboot", so that QEMU ends when Xen or dom0 crashes.
        xen = (f"console=com1 com1=115200,8n1 dom0_mem={args.dom0}M,max:{args.dom0}M "
               f"dom0_max_vcpus={args.cpus} {args.xen}")
        dom0 = "console=hvc0 quiet panic=-1 random.trust_cpu=on mitigations=off"
        return cpu + ["-kernel", self.hypervisor, "-append", xen.strip(), "-initrd",
                      f"{self.kernel} {dom0},{self.initramfs}"]


KINDS = {"kvm": KvmHost, "xen": XenHost}
