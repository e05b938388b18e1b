# SPDX-License-Identifier: ISC
"""The steps of virsh's managed migration in orders that virsh never uses, between two migrds.
virsh_steps.py SOCKET1 SOCKET2 DOMAIN URI2: DOMAIN runs on host 1, and on host 2 in the end; URI2 is
host 2's migrate URI. Nothing of it may make a second copy, or end one: `expect` asks both hosts."""
import socket
import struct
import sys
import uuid

REMOTE, KEEPALIVE = 0x20008086, 0x6B656570
OPEN, DEFINE, SUSPEND, LOOKUP, STATE, DOMAINS = 1, 11, 34, 23, 212, 273
BEGIN, PREPARE, PERFORM, FINISH, CONFIRM = 302, 303, 305, 306, 307
LIVE, PERSIST, UNDEFINE, PROTECT, OFFLINE = 1, 8, 16, 256, 1024
STRING = 7


class Refused(Exception):
    """What the server said no with; args: number, text."""


def opaque(data):
    data = data.encode() if isinstance(data, str) else data
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self):
        self.at += 4
        return struct.unpack_from(">i", self.data, self.at - 4)[0]

    def opaque(self):
        n = self.number()
        self.at += n + -n % 4
        return self.data[self.at - n - -n % 4: self.at - -n % 4]

    def domain(self):
        name = self.opaque()
        self.at += 16
        return name, self.data[self.at - 16: self.at], self.number()


def params(**words):
    out = struct.pack(">I", len(words))
    for field, text in words.items():
        out += opaque(field) + struct.pack(">I", STRING) + opaque(text)
    return out


class Host:
    """A connection, opened."""

    def __init__(self, path):
        self.path, self.serial = path, 0
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(30)
        self.s.connect(path)
        self.call(OPEN, struct.pack(">II", 0, 0))

    def close(self):
        self.s.close()

    def exactly(self, n):
        data = b""
        while len(data) < n:
            more = self.s.recv(n - len(data))
            if not more:
                raise ConnectionError("hung up on")
            data += more
        return data

    def send(self, proc, payload=b""):
        self.serial += 1
        self.s.sendall(struct.pack(">IIIiiIi", 28 + len(payload), REMOTE, 1, proc, 0, self.serial, 0)
                       + payload)
        return self.serial

    def answer(self, serial):
        while True:
            length, prog, _, _, kind, got, status = struct.unpack(">IIIiiIi", self.exactly(28))
            r = Reader(self.exactly(length - 28))
            if prog == KEEPALIVE or kind != 1 or got != serial:
                continue
            if status == 0:
                return r
            code, _, text = r.number(), r.number(), r.opaque() if r.number() else b""
            raise Refused(code, text.decode())

    def call(self, proc, payload=b""):
        return self.answer(self.send(proc, payload))

    # --- the steps

    def lookup(self, name):
        return self.call(LOOKUP, opaque(name)).domain()

    def begin(self, dom, flags=LIVE, **words):
        r = self.call(BEGIN, pack(dom) + params(**words) + struct.pack(">I", flags))
        return r.opaque(), r.opaque().decode()

    def prepare(self, cookie, xml, flags=LIVE, **words):
        r = self.call(PREPARE, params(destination_xml=xml, **words) + opaque(cookie)
                      + struct.pack(">I", flags))
        cookie = r.opaque()
        return cookie, r.opaque().decode() if r.number() else ""

    def perform(self, dom, cookie, uri, flags=LIVE):
        return self.send(PERFORM, pack(dom) + struct.pack(">I", 0) + params(migrate_uri=uri)
                         + opaque(cookie) + struct.pack(">I", flags))

    def finish(self, cookie, flags=LIVE, cancelled=0, **words):
        r = self.call(FINISH, params(**words) + opaque(cookie) + struct.pack(">II", flags, cancelled))
        return r.domain(), r.opaque()

    def confirm(self, dom, cookie, flags=LIVE, cancelled=0):
        self.call(CONFIRM, pack(dom) + params() + opaque(cookie)
                  + struct.pack(">II", flags, cancelled))


def pack(dom):
    name, ident, number = dom
    return opaque(name) + ident + struct.pack(">i", number)


def refused(what, pattern, call, *args, **words):
    try:
        call(*args, **words)
    except Refused as why:
        if pattern not in why.args[1]:
            sys.exit(f"{what}: expected '{pattern}', got: {why.args}")
        print(f"  {what}: {why.args[1]}")
        return why.args[0]
    sys.exit(f"{what}: was not refused")


def state(host, name):
    """1 running, 2 idle, 3 paused, 5 off; 0: not there."""
    try:
        return host.call(STATE, pack(host.lookup(name)) + struct.pack(">I", 0)).number()
    except Refused:
        return 0


def expect(name, where, other):
    runs, rests = Host(where), Host(other)
    if state(runs, name) not in (1, 2) or state(rests, name) not in (0, 5):
        sys.exit(f"states of {name}: {state(runs, name)} and {state(rests, name)}")
    runs.close()
    rests.close()


def main():
    path1, path2, name, uri2 = sys.argv[1:]
    src, dst, stranger = Host(path1), Host(path2), Host(path1)
    dom = src.lookup(name)

    # Begin holds the domain while its client lives, and not longer.
    cookie, xml = src.begin(dom, LIVE | PROTECT)
    src.begin(dom, LIVE | PROTECT)
    refused("others, after Begin", "about to be migrated", stranger.call, SUSPEND, pack(dom))
    refused("Begin, after another's", "about to be migrated", stranger.begin, dom, LIVE | PROTECT)
    src.close()
    src = Host(path1)
    stranger.begin(dom, LIVE | PROTECT)
    stranger.confirm(dom, b"", LIVE, 1)
    src.begin(dom, LIVE | PROTECT)
    src.confirm(dom, b"", LIVE, 1)

    # Prepare and no Perform, many times.
    cookie, xml = src.begin(dom)
    for _ in range(100):
        prepared, uri = dst.prepare(cookie, xml)
    if uri2 not in uri:
        sys.exit(f"Prepare gives {uri}")
    dst.close()
    dst = Host(path2)
    expect(name, path1, path2)

    # Cookies of nobody, of another step, of another domain.
    forged = cookie.replace(dom[1].hex().encode(), b"0" * 32)
    text = str(uuid.UUID(bytes=dom[1])).encode()
    other = prepared.replace(text, text[::-1].replace(b"-", b"0")[:8] + text[8:])
    for bad in (b"", b"x", b"<qemu-migration/>\0", bytes(3000), cookie[:-1], forged[:20]):
        refused("Prepare with a cookie of nobody", "cookie", dst.prepare, bad, xml)
        refused("Finish with a cookie of nobody", "cookie", dst.finish, bad)
    refused("Finish with Begin's", "cookie", dst.finish, cookie)
    refused("Finish with Prepare's", "cookie", dst.finish, prepared)
    for bad in (b"x", cookie, prepared):
        refused("Confirm with a wrong cookie", "cookie", src.confirm, dom, bad)
        refused("Confirm of an undefine", "cookie", src.confirm, dom, bad, OFFLINE | UNDEFINE)
    refused("Confirm of an undefine without one", "cookie", src.confirm, dom, b"", OFFLINE | UNDEFINE)
    for bad in (b"x", cookie, other):
        refused("Perform with a wrong cookie", "cookie",
                lambda b: src.answer(src.perform(dom, b, uri)), bad)
    refused("Prepare with another's definition", "another domain",
            dst.prepare, cookie, xml.replace(text.decode(), str(uuid.uuid4())))
    expect(name, path1, path2)

    # Perform twice, Finish(cancelled) after success, Confirm(cancelled), and all of it again.
    first = src.perform(dom, prepared, uri)
    twice = Host(path1)
    refused("a second Perform", "migration in progress",
            lambda: twice.answer(twice.perform(dom, prepared, uri)))
    performed = src.answer(first).opaque()
    expect(name, path2, path1)
    if refused("Finish(cancelled)", "cancelled", dst.finish, performed, LIVE, 1) != 93:
        sys.exit("Finish(cancelled) has another number than libvirt's")
    src.confirm(dom, b"", LIVE, 1)
    expect(name, path2, path1)
    for _ in range(2):
        found, finished = dst.finish(performed)
        if found[1] != dom[1]:
            sys.exit(f"Finish gives {found}")
        src.confirm(dom, finished)
    refused("Confirm of an undefine, of one that moved live", "did not announce", src.confirm, dom,
            finished, OFFLINE | UNDEFINE)
    refused("Perform again, of one that went", "shut off",
            lambda: src.answer(src.perform(dom, prepared, uri)))
    refused("Finish at the source", "gone to host",
            lambda: src.finish(performed.replace(b"host1", b"hostX")))
    refused("Prepare at its own host", "where the domain is already", src.prepare, cookie, xml)
    refused("an offline Finish that nobody prepared", "not announce", src.finish, b"",
            OFFLINE | PERSIST, 0, destination_xml=xml)
    expect(name, path2, path1)


main()
