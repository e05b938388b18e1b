# SPDX-License-Identifier: ISC
"""
bootfiles: what a virtual machine boots from. Finds the newest installed kernel, takes the plain
ELF out of its compressed image (software emulation would spend seconds on unpacking it), and
writes small initramfs archives: static busybox, modules in the order of insertion, an init
script and further files. The same input gives the same bytes.
"""
import glob
import gzip
import lzma
import os
import re
import struct
import subprocess
import zlib

BUSYBOX = "/bin/busybox"
VMLINUX_MAX = 256 << 20


class BootError(Exception):
    """Says what is missing and what to install."""


def _version_key(version):
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", version) if p]


def newest_kernel():
    """(version, path) of the newest kernel whose modules are installed."""
    found = []
    for path in glob.glob("/boot/vmlinuz-*"):
        version = os.path.basename(path)[len("vmlinuz-"):]
        if os.path.isdir(f"/lib/modules/{version}/kernel"):
            found.append((_version_key(version), version, path))
    if not found:
        raise BootError("no kernel with modules in /boot: install linux-image-amd64")
    return max(found)[1:]


def _unpack(payload):
    if payload[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(payload, VMLINUX_MAX)
    if payload[:2] == b"\x1f\x8b":
        return zlib.decompressobj(31).decompress(payload, VMLINUX_MAX)
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        return subprocess.run(["zstd", "-dcq"], input=payload, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, check=False).stdout
    return b""


def vmlinux(image):
    """The ELF inside a bzImage (bytes), or None if it is packed in a way not known here."""
    if len(image) < 0x260 or image[0x202:0x206] != b"HdrS":
        return None
    setup = (image[0x1F1] or 4) * 512 + 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    try:
        elf = _unpack(image[setup + offset:setup + offset + length])
    except (lzma.LZMAError, zlib.error, OSError):
        return None
    return elf if elf[:4] == b"\x7fELF" else None


def module_files(version, names):
    """Files of the modules and their dependencies, each once, in the order of insertion."""
    files = []
    for name in names:
        run = subprocess.run(["modprobe", "-S", version, "--show-depends", name],
                             capture_output=True, text=True, check=False)
        if run.returncode:
            raise BootError(f"module {name} of kernel {version}: {run.stderr.strip()}")
        for line in run.stdout.splitlines():
            words = line.split()
            if words[0] == "insmod" and words[1] not in files:
                files.append(words[1])
    return files


class _Archive:
    """A cpio archive in the format that the kernel unpacks ("newc")."""

    def __init__(self):
        self.data = bytearray()
        self.inode = 0
        self.folders = set()

    def _entry(self, name, mode, body=b""):
        self.inode += 1
        raw = name.encode() + b"\0"
        fields = [self.inode, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(raw), 0]
        self.data += b"070701" + b"".join(b"%08X" % f for f in fields) + raw
        self.data += b"\0" * (-len(self.data) % 4) + body
        self.data += b"\0" * (-len(self.data) % 4)

    def folder(self, name):
        parts = name.split("/")
        for i in range(1, len(parts) + 1):
            path = "/".join(parts[:i])
            if path and path not in self.folders:
                self.folders.add(path)
                self._entry(path, 0o040755)

    def file(self, name, body, mode):
        self.folder(os.path.dirname(name))
        self._entry(name, 0o100000 | mode, body)

    def finish(self):
        self._entry("TRAILER!!!", 0)
        return bytes(self.data)


def _read(path):
    with open(path, "rb") as f:
        return f.read()


def initramfs(version, init, modules, extra=()):
    """A packed initramfs: /init, /bin/busybox, /modules/NNN-name.ko, and (file, name) of extra."""
    if not os.path.exists(BUSYBOX):
        raise BootError(f"no {BUSYBOX}: install busybox-static")
    archive = _Archive()
    for name in ("proc", "sys", "dev", "tmp", "run"):
        archive.folder(name)
    archive.file("bin/busybox", _read(BUSYBOX), 0o755)
    archive.file("init", _read(init), 0o755)
    for number, path in enumerate(module_files(version, modules)):
        archive.file(f"modules/{number:03}-{os.path.basename(path)}", _read(path), 0o644)
    for path, name in extra:
        archive.file(name.lstrip("/"), _read(path), 0o755)
    return gzip.compress(archive.finish(), 6, mtime=0)


def write_file(path, data):
    """Whole or not at all, for readers and writers at the same time."""
    partial = f"{path}.{os.getpid()}"
    with open(partial, "wb") as f:
        f.write(data)
    os.rename(partial, path)
