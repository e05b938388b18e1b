#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Second reader of the relocation wire (docs/WIRE.md), sharing no code with the first.

    wire_reader.py [-v] DIR...          captures NNN.c2s, NNN.s2c as wire_proxy.py writes them
    wire_reader.py [-v] --save FILE...  save files

Checks every rule that can be seen from outside: lines, lengths, order of messages,
frames, sequence, channel of each page, rounds, digests of frames, stream and memory.
Prints a summary. Exit status: 0 all is well, 1 a rule is broken, 2 it cannot be read
here (a Python module is missing, no such file).
"""

import argparse
import glob
import os
import re
import struct
import sys

try:
    import lz4.block
    import xxhash
    import zstandard
except ImportError:
    print("wire_reader: needs Debian's python3-xxhash, python3-lz4 and python3-zstandard",
          file=sys.stderr)
    sys.exit(2)

PAGE = 4096
BLOCK_PAGES = 512
MASK = (1 << 64) - 1
MESSAGE_SMALL = 1 << 20
PROBE_FOLLOW = 8 << 20
MESSAGE_STATE = 72 << 20
STATE_MAX = 64 << 20
CODES = {"system", "memory", "invalid", "protocol", "refused", "exists", "not-found", "state",
         "timeout", "peer", "cancelled", "resource", "unsupported", "epoch", "integrity",
         "internal"}


class Broken(Exception):
    """A rule of WIRE.md is broken."""


def need(condition, text):
    if not condition:
        raise Broken(text)


# --- bytes --------------------------------------------------------------------------------

class Bytes:
    """A cursor over captured bytes."""

    def __init__(self, data, name):
        self.data, self.at, self.name = memoryview(data), 0, name

    def left(self):
        return len(self.data) - self.at

    def take(self, n, what):
        need(n <= self.left(), f"{self.name}: {what} is cut off at byte {self.at}")
        part = self.data[self.at:self.at + n]
        self.at += n
        return part

    def line(self):
        end = bytes(self.data[self.at:self.at + 512]).find(b"\n")
        need(end >= 0, f"{self.name}: no line end within 512 bytes")
        text = bytes(self.take(end + 1, "line"))
        text = text[:-2] if text.endswith(b"\r\n") else text[:-1]
        need(all(0x20 <= b <= 0x7e for b in text), f"{self.name}: line has other bytes than text")
        return text.decode("ascii")


# --- protobuf, by hand --------------------------------------------------------------------

def varint(buf, at):
    value = shift = 0
    while True:
        need(at < len(buf) and shift < 64, "a varint does not end")
        byte = buf[at]
        at += 1
        value |= (byte & 0x7f) << shift
        if byte < 0x80:
            return value & MASK, at
        shift += 7


def fields(buf):
    """All (number, wire type, value) of a message."""
    at = 0
    while at < len(buf):
        tag, at = varint(buf, at)
        number, kind = tag >> 3, tag & 7
        need(number > 0, "field number 0")
        if kind == 0:
            value, at = varint(buf, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            need(at + size <= len(buf), "a fixed field is cut off")
            value = int.from_bytes(buf[at:at + size], "little")
            at += size
        elif kind == 2:
            size, at = varint(buf, at)
            need(at + size <= len(buf), "a length-delimited field is cut off")
            value = buf[at:at + size]
            at += size
        else:
            raise Broken(f"wire type {kind}")
        yield number, kind, value


# Schema: field number -> (name, type). Types: u unsigned varint, b bool, F fixed64,
# s string, y bytes, w repeated numbers, [X] repeated X, or the name of a message.
SCHEMA = {
    "Region": {1: ("gfn", "u"), 2: ("pages", "u")},
    "CpuReport": {1: ("vendor", "s"), 2: ("model", "s"), 3: ("features", "w"),
                  4: ("xsave_size", "u"), 5: ("xcr0", "u"), 6: ("tsc_khz", "u")},
    "Domain": {1: ("uuid", "s"), 2: ("name", "s"), 3: ("hypervisor", "s"),
               4: ("memory_kib", "u"), 6: ("vcpus", "u"), 10: ("disks", ["Disk"])},
    "Disk": {1: ("source", "s"), 2: ("device", "s"), 3: ("read_only", "b")},
    "NetFacts": {1: ("name", "s"), 2: ("kind", "s"), 3: ("mtu", "u"), 4: ("vlans", "w"),
                 5: ("subnets", ["s"]), 6: ("macs", ["s"]), 7: ("error", "s")},
    "HugePages": {1: ("size_kib", "u"), 2: ("total", "u"), 3: ("free", "u")},
    "Designator": {1: ("kind", "s"), 2: ("value", "s")},
    "Challenge": {1: ("name", "s"), 2: ("nonce", "s")},
    "DiskIdentity": {1: ("device", "s"), 2: ("source", "s"), 3: ("kind", "u"), 4: ("size", "u"),
                     5: ("block_size", "u"), 6: ("read_only", "b"),
                     7: ("designators", ["Designator"]), 8: ("challenge", "Challenge"),
                     9: ("fence", "s"), 10: ("fence_note", "s"), 11: ("locks", "b"),
                     12: ("used_by", "s"), 13: ("backing", ["s"]), 14: ("cache", "s"),
                     15: ("code", "s"), 16: ("error", "s"), 17: ("lease_owner", "s"),
                     18: ("lease_epoch", "u"), 19: ("shared", "b"), 20: ("path_kind", "s")},
    "Check": {1: ("result", "s"), 2: ("area", "s"), 3: ("object", "s"), 4: ("source", "s"),
              5: ("target", "s"), 6: ("text", "s"), 7: ("remedy", "s")},
    "CheckReport": {1: ("checks", ["Check"])},
    "Offer": {1: ("protocol", "u"), 2: ("migration", "s"), 3: ("source_host", "s"),
              4: ("domain", "Domain"), 5: ("epoch", "u"), 6: ("regions", ["Region"]),
              7: ("cpu", "CpuReport"), 8: ("hypervisor_release", "s"), 9: ("channels", "u"),
              10: ("verify", "b"), 11: ("live", "b"), 12: ("stay_paused", "b"),
              13: ("change_home", "b"), 14: ("populated_pages", "u"), 15: ("encodings", "u"),
              20: ("source", "HostFacts"), 21: ("guest_cpu", "CpuReport"),
              22: ("disks", ["DiskIdentity"]), 23: ("identified", "b"),
              24: ("home", "Domain")},
    "Accept": {1: ("session", "s"), 2: ("channels", "u"), 3: ("target_host", "s"),
               4: ("encodings", "u"), 5: ("report", "CheckReport")},
    "Refuse": {1: ("code", "s"), 2: ("text", "s"), 3: ("report", "CheckReport")},
    "RoundEnd": {1: ("round", "u"), 2: ("frames", "u"), 3: ("wire_bytes", "u")},
    "RoundAck": {1: ("round", "u"), 2: ("frames", "u")},
    "FinalState": {1: ("state", "y"), 2: ("frames", "u"), 3: ("paused_wall_ns", "u"),
                   4: ("sent_digest", "F")},
    "DigestRange": {1: ("gfn", "u"), 2: ("pages", "u"), 3: ("low", "F"), 4: ("high", "F")},
    "MemoryDigests": {1: ("ranges", ["DigestRange"]), 2: ("last", "b")},
    "Ready": {1: ("epoch", "u"), 2: ("received_digest", "F")},
    "Go": {1: ("epoch", "u")},
    "TargetStep": {1: ("name", "s"), 2: ("us", "u")},
    "Running": {1: ("epoch", "u"), 2: ("resume_us", "u"), 3: ("steps", ["TargetStep"])},
    "Query": {1: ("migration", "s"), 2: ("domain_uuid", "s"), 3: ("epoch", "u"), 4: ("go", "b"),
              5: ("abort", "b")},
    "QueryReply": {1: ("outcome", "u"), 2: ("epoch", "u"), 3: ("text", "s"), 4: ("host", "s")},
    "Probe": {1: ("number", "u"), 2: ("last", "b"), 3: ("follow", "u"),
              4: ("anew", "b")},
    "ProbeAck": {1: ("number", "u"), 2: ("bytes", "u"), 3: ("cpu_us", "u")},
    "FactsQuery": {1: ("source_host", "s")},
    "HostFacts": {1: ("host", "s"), 2: ("hypervisor", "s"), 3: ("hypervisor_release", "s"),
                  4: ("release", "s"), 5: ("cpu", "CpuReport"), 6: ("cpus", "u"),
                  7: ("max_vcpus", "u"), 8: ("memory_total_kib", "u"), 9: ("memory_free_kib", "u"),
                  10: ("memory_promised_kib", "u"), 11: ("huge_pages", ["HugePages"]),
                  12: ("nets", ["NetFacts"]), 13: ("overcommit", "b"),
                  14: ("tsc_scaling", "b"), 15: ("memory_reserve_kib", "u")},
    "Ping": {1: ("stamp_ns", "u")},
    "Pong": {1: ("stamp_ns", "u")},
}
BODIES = {1: "Offer", 2: "Accept", 3: "Refuse", 4: "RoundEnd", 5: "RoundAck", 6: "FinalState",
          7: "MemoryDigests", 8: "Ready", 9: "Go", 10: "Running", 11: "Query", 12: "QueryReply",
          13: "Ping", 14: "Pong", 15: "DryRun", 16: "Probe", 17: "ProbeAck",
          18: "FactsQuery", 19: "HostFacts"}
SCHEMA["DryRun"] = SCHEMA["Offer"]
EMPTY = {"u": 0, "b": False, "F": 0, "s": "", "y": b"", "w": ()}


def scalar(kind, wire, value, where):
    wanted = {"u": 0, "b": 0, "F": 1, "s": 2, "y": 2}[kind]
    need(wire == wanted, f"{where}: wire type {wire}")
    if kind == "b":
        return value != 0
    if kind == "s":
        try:
            return bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            raise Broken(f"{where}: not UTF-8") from None
    return value


def parse(name, buf):
    """A message as a dictionary; unknown fields are ignored."""
    schema = SCHEMA[name]
    out = {n: [] if isinstance(t, list) else EMPTY.get(t) for n, t in schema.values()}
    for number, wire, value in fields(buf):
        if number not in schema:
            continue
        key, kind = schema[number]
        where = f"{name}.{key}"
        if kind == ["s"]:
            out[key].append(scalar("s", wire, value, where))
        elif isinstance(kind, list):
            need(wire == 2, f"{where}: wire type {wire}")
            out[key].append(parse(kind[0], value))
        elif kind == "w":
            need(wire in (0, 2, 5), f"{where}: wire type {wire}")
        elif kind in EMPTY:
            out[key] = scalar(kind, wire, value, where)
        else:
            need(wire == 2, f"{where}: wire type {wire}")
            out[key] = parse(kind, value)
    return out


def messages(b):
    """All (kind, dictionary) of one direction of a message channel."""
    while b.left() > 0:
        start = b.at
        size = int.from_bytes(b.take(4, "length of a message"), "big")
        need(0 < size <= MESSAGE_STATE, f"{b.name}: message of {size} bytes at byte {start}")
        buf = b.take(size, "message")
        body = list(fields(buf)) if size <= MESSAGE_SMALL else [next(fields(buf))]
        need(len(body) == 1 and body[0][1] == 2, f"{b.name}: not exactly one body at byte {start}")
        number, _, value = body[0]
        need(number in BODIES, f"{b.name}: message of unknown kind {number} at byte {start}")
        kind = BODIES[number]
        need(size <= MESSAGE_SMALL or kind == "FinalState", f"{b.name}: {kind} of {size} bytes")
        if size > MESSAGE_SMALL:
            head = size - len(value)
            need(head <= 12 and bytes(buf[head:head + 16]) == bytes(value[:16]),
                 f"{b.name}: bytes after the body at byte {start}")
        message = parse(kind, value)
        if kind == "Probe":
            need(message["follow"] <= PROBE_FOLLOW, f"{b.name}: a probe of {message['follow']} bytes")
            b.take(message["follow"], "a probe's bytes")
        yield kind, message


# --- guest memory and frames ----------------------------------------------------------------

class Memory:
    """What the target would hold: pages that were sent, zeroes elsewhere."""

    def __init__(self, regions):
        end = 0
        need(1 <= len(regions) <= 16, f"{len(regions)} memory regions")
        for r in regions:
            need(r["pages"] > 0 and r["gfn"] >= end, "regions are empty, overlap or do not ascend")
            end = r["gfn"] + r["pages"]
        self.regions = [(r["gfn"], r["gfn"] + r["pages"]) for r in regions]
        self.page = {}

    def has(self, gfn, pages):
        return any(a <= gfn and gfn + pages <= b for a, b in self.regions)

    def set(self, gfn, data):
        for i in range(len(data) // PAGE):
            self.page[gfn + i] = data[i * PAGE:(i + 1) * PAGE]

    def zero(self, gfn, pages):
        if pages > len(self.page):
            for g in [g for g in self.page if gfn <= g < gfn + pages]:
                del self.page[g]
        else:
            for g in range(gfn, gfn + pages):
                self.page.pop(g, None)

    def digest(self, gfn, pages):
        h, nothing = xxhash.xxh3_128(), bytes(PAGE)
        for g in range(gfn, gfn + pages):
            h.update(self.page.get(g, nothing))
        return h.intdigest()


PAGES, ROUND_END, END = 1, 2, 3
RAW, ZERO, LZ4, ZSTD, DELTA = 0, 1, 2, 3, 4
PLAIN = 1 << RAW | 1 << ZERO


def unpack(encoding, data, size, where):
    """The pages of a compressed run."""
    try:
        if encoding == LZ4:
            out = lz4.block.decompress(data, uncompressed_size=size)
        else:
            head = zstandard.get_frame_parameters(data)
            need(head.content_size == size and head.dict_id == 0, f"{where}: head of a zstd frame")
            frame = zstandard.ZstdDecompressor().decompressobj()
            out = frame.decompress(data)
            need(frame.unused_data == b"", f"{where}: bytes after a zstd frame")
    except (lz4.block.LZ4BlockError, zstandard.ZstdError) as why:
        raise Broken(f"{where}: {why}") from None
    need(len(out) == size, f"{where}: {len(out)} bytes come of a run of {size}")
    return out


def patch(page, segments, where):
    """A page with the words of a delta's segments in it."""
    page, at, word = bytearray(page), 0, 0
    while at < len(segments):
        need(at + 2 <= len(segments), f"{where}: a delta ends inside of a segment")
        head = segments[at] | segments[at + 1] << 8
        first, count = head & 511, (head >> 9) + 1
        need(first >= word and first + count <= PAGE // 8, f"{where}: segments of a delta")
        need(at + 2 + count * 8 <= len(segments), f"{where}: a delta ends inside of a segment")
        page[first * 8:(first + count) * 8] = segments[at + 2:at + 2 + count * 8]
        at, word = at + 2 + count * 8, first + count
    return bytes(page)


class Channel:
    """One stream of frames: checks them, applies them to memory, folds their digests."""

    def __init__(self, b, number, channels, memory, encodings=PLAIN):
        self.b, self.number, self.channels, self.memory = b, number, channels, memory
        self.encodings = encodings | PLAIN
        self.seq = self.fold = self.round = 0
        self.marks = []  # frames and bytes up to the end of each round
        self.rounds_live = {}
        self.raw = self.zero = self.encoded = 0
        self.bytes = 0
        self.round_over = self.over = False

    def frame(self):
        b, where = self.b, f"channel {self.number} frame {self.seq}"
        start = b.at
        (magic, version, kind, flags, rnd, runs, payload, channel, seq, digest,
         reserved) = struct.unpack("<IBBHIIIIQQQ", b.take(48, where))
        need(magic == 0x4250474d, f"{where}: no frame at byte {start}")
        need(version == 1, f"{where}: version {version}")
        need(channel == self.number, f"{where}: says it is of channel {channel}")
        need(seq == self.seq, f"{where}: says it is frame {seq}")
        need(reserved == 0, f"{where}: reserved field is set")
        need(flags & ~(1 if kind == PAGES else 0) == 0, f"{where}: flags {flags:#x}")
        self.place(kind, rnd, where)
        if kind == PAGES:
            need(1 <= runs <= 1024 and payload <= 1024 * PAGE, f"{where}: {runs} runs, {payload}")
        else:
            need(runs == 0 and payload == 0, f"{where}: runs or payload in a mark")
        entries = b.take(24 * runs, f"{where}: runs")
        data = b.take(payload, f"{where}: payload")
        h = xxhash.xxh3_64(bytes(entries))
        if not flags & 1:
            h.update(data)
        need(h.intdigest() == digest, f"{where}: digest differs")
        self.apply(entries, data, where)
        self.fold = xxhash.xxh3_64(struct.pack("<QQ", self.fold, digest)).intdigest()
        self.seq += 1
        self.bytes += b.at - start
        if kind == PAGES:
            self.rounds_live.setdefault(rnd, set()).add(flags & 1)
        elif kind == ROUND_END:
            self.marks.append((self.seq, self.bytes))
        return kind

    def place(self, kind, rnd, where):
        need(not self.over, f"{where}: comes after the end")
        if kind == END:
            need(self.round_over and rnd == self.round - 1, f"{where}: end within round {rnd}")
            self.over = True
            return
        need(kind in (PAGES, ROUND_END), f"{where}: type {kind}")
        need(rnd == self.round, f"{where}: of round {rnd} in round {self.round}")
        self.round_over = kind == ROUND_END
        if kind == ROUND_END:
            self.round += 1

    def apply(self, entries, data, where):
        at = next_gfn = content = 0
        for gfn, pages, encoding, r1, length, r2 in struct.iter_unpack("<QIHHII", entries):
            need(pages > 0 and r1 == 0 and r2 == 0, f"{where}: empty run or reserved field")
            need(gfn >= next_gfn, f"{where}: runs overlap or do not ascend at {gfn:#x}")
            need(self.memory.has(gfn, pages), f"{where}: {gfn:#x}+{pages} is in no region")
            self.own(gfn, pages, where)
            next_gfn = gfn + pages
            need(self.encodings >> encoding & 1, f"{where}: encoding {encoding}")
            content += pages if encoding != ZERO else 0
            need(content <= 1024, f"{where}: {content} pages with content")
            self.run(gfn, pages, encoding, data[at:at + length], where)
            at += length
        need(at == len(data), f"{where}: runs have {at} bytes, payload {len(data)}")

    def run(self, gfn, pages, encoding, data, where):
        length, size = len(data), pages * PAGE
        if encoding == RAW:
            need(length == size, f"{where}: raw run of {length}")
            self.memory.set(gfn, data)
            self.raw += pages
        elif encoding == ZERO:
            need(length == 0 and pages <= 1 << 28, f"{where}: zero run with {length} bytes")
            self.memory.zero(gfn, pages)
            self.zero += pages
        else:
            need(length < size, f"{where}: encoded run of {length}")
            if encoding == DELTA:
                self.deltas(gfn, pages, bytes(data), where)
            else:
                need(pages <= 16 and length > 0, f"{where}: compressed run of {pages} pages")
                self.memory.set(gfn, unpack(encoding, bytes(data), size, where))
            self.encoded += pages

    def deltas(self, gfn, pages, data, where):
        at = 0
        for g in range(gfn, gfn + pages):
            need(at + 10 <= len(data), f"{where}: a delta is cut off")
            base, length = struct.unpack_from("<QH", data, at)
            need(at + 10 + length <= len(data), f"{where}: a delta is cut off")
            old = self.memory.page.get(g, bytes(PAGE))
            need(xxhash.xxh3_64(bytes(old)).intdigest() == base,
                 f"{where}: the delta of {g:#x} is of another page")
            self.memory.set(g, patch(old, data[at + 10:at + 10 + length], where))
            at += 10 + length
        need(at == len(data), f"{where}: a delta run is longer than its pages")

    def own(self, gfn, pages, where):
        if self.channels == 1:
            return
        block = gfn // BLOCK_PAGES
        need((gfn + pages - 1) // BLOCK_PAGES == block, f"{where}: run crosses a block")
        need(1 + block % self.channels == self.number, f"{where}: {gfn:#x} on the wrong channel")

    def read_all(self):
        while self.b.left() > 0:
            self.frame()


def fold(channels):
    out = 0
    for c in channels:
        n = c.number % 64
        out ^= ((c.fold << n) | (c.fold >> (64 - n))) & MASK if n else c.fold
    return out


# --- sessions ---------------------------------------------------------------------------------

# (state, sender, message) -> state; WIRE.md 4.1. Sender: S source, T target.
ORDER = {
    ("start", "S", "Offer"): "offered",
    ("start", "S", "Query"): "asked",
    ("asked", "T", "QueryReply"): "end",
    ("start", "S", "FactsQuery"): "wondered",
    ("wondered", "T", "HostFacts"): "end",
    ("start", "S", "DryRun"): "weighed",
    ("weighed", "T", "Accept"): "probed",
    ("probed", "S", "Probe"): "probe ends",
    ("probe ends", "T", "ProbeAck"): "probed",
    ("offered", "T", "Accept"): "rounds",
    ("rounds", "S", "RoundEnd"): "round ends",
    ("round ends", "T", "RoundAck"): "rounds",
    ("rounds", "S", "FinalState"): "digests",
    ("digests", "S", "MemoryDigests"): "digests",
    ("loaded", "T", "Ready"): "ready",
    ("ready", "S", "Go"): "committed",
    ("committed", "T", "Running"): "end",
}


def check_facts(offer):
    """What an offer tells beside the domain."""
    disks = offer["domain"]["disks"]
    if offer["identified"]:
        need(len(offer["disks"]) == len(disks), f"{len(offer['disks'])} identities")
        for disk, identity in zip(disks, offer["disks"]):
            need(disk["device"] == identity["device"], f"identity of {identity['device']}")
    else:
        need(not offer["disks"], "identities of a source that knows none")
    for disk in offer["disks"]:
        need("@" not in re.sub(r"^[a-z]+://[^@/:]*@", "", disk["source"]), "a password in a source")
    for net in offer["source"]["nets"] if offer["source"] else ():
        need(net["kind"] in ("", "bridge", "tap", "tap in use", "device"), f"net {net['kind']}")


def check_report(report, side):
    """The lines of a comparison, which only the target makes."""
    if report is None:
        return
    need(side == "T", "a report of the source")
    need(len(report["checks"]) <= 256, f"a report of {len(report['checks'])} lines")
    for c in report["checks"]:
        need(c["result"] in ("ok", "warning", "refused"), f"check with result {c['result']!r}")
        need(c["area"] != "" and c["text"] != "", "a check without area or text")
        need(max(len(c[k].encode()) for k in ("text", "remedy")) < 400, "a check too long")
        need(max(len(c[k].encode()) for k in ("source", "target")) < 160, "a value too long")
        need(not re.search("[\x00-\x1f\x7f]", "".join(c.values())), "control characters")


class Session:
    """Messages of both directions, merged: each state has one side that may speak."""

    def __init__(self, source, target):
        self.queue = {"S": source, "T": target}
        self.state = "start"
        self.refused = None
        self.probes = self.probed = 0
        self.offer = self.accept = self.final = self.ready = None
        self.round_ends, self.round_acks, self.digests = [], [], []
        self.counts = {}

    def next_of(self, side):
        """The next message of a side that is not a ping or pong."""
        for kind, m in self.queue[side]:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            if kind not in ("Ping", "Pong"):
                return kind, m
        return None

    def speaker(self):
        for state, side, _ in ORDER:
            if state == self.state:
                return side
        return None

    def read_all(self):
        while self.state != "end":
            side = self.speaker()
            got = self.next_of(side)
            if got is None:
                break
            self.take(side, *got)
        for side in "ST":
            got = self.next_of(side)
            if got is None:
                continue
            need(got[0] == "Refuse" and (self.refused is None or self.refused[0] != side),
                 f"{got[0]} of {side} in state {self.state}")
            self.take(side, *got)
            need(self.next_of(side) is None, "something follows a Refuse")

    def take(self, side, kind, m):
        if kind == "Refuse":
            need(m["code"] in CODES, f"Refuse with code {m['code']!r}")
            check_report(m["report"], side)
            self.refused = self.refused or (side, m["code"], m["text"])
            self.state = "end"
            return
        key = (self.state, side, kind)
        need(key in ORDER, f"{kind} of {side} in state {self.state}")
        self.state = ORDER[key]
        if kind == "Probe" and not m["last"]:
            self.state = "probed"
        getattr(self, "on_" + kind)(m)

    def on_Offer(self, m):
        need(m["protocol"] == 1, f"offer of protocol {m['protocol']}")
        need(m["migration"] != "", "offer without migration")
        need(m["domain"] is not None and m["domain"]["name"] != "", "offer without domain")
        need(1 <= m["channels"] <= 16, f"offer of {m['channels']} channels")
        check_facts(m)
        self.offer = m

    def on_DryRun(self, m):
        need(m["protocol"] == 1, f"dry run of protocol {m['protocol']}")
        need(m["migration"] == "", "a dry run names a migration")
        check_facts(m)

    def on_Probe(self, m):
        need(m["number"] == self.probes + 1, f"probe {m['number']} out of turn")
        self.probes += 1
        self.probed += m["follow"]
        need(self.probed <= 300 << 20, "too many bytes in probes")

    def on_ProbeAck(self, m):
        need(m["number"] == self.probes, "ProbeAck of another probe")

    def on_Accept(self, m):
        check_report(m["report"], "T")
        need(m["report"] is None or all(c["result"] != "refused" for c in m["report"]["checks"]),
             "an Accept with a refusal in its report")
        if self.offer is None:  # of a dry run
            need(m["session"] == "", "a dry run gets a session")
            return
        need(re.fullmatch(r"[0-9a-f]{32}", m["session"]), "session is not 32 hex digits")
        need(1 <= m["channels"] <= self.offer["channels"], "accepts more channels than offered")
        need(m["encodings"] & ~self.offer["encodings"] == 0, "accepts more encodings than offered")
        self.accept = m

    def on_RoundEnd(self, m):
        need(m["round"] == len(self.round_ends), f"round {m['round']} ends out of turn")
        self.round_ends.append(m)

    def on_RoundAck(self, m):
        end = self.round_ends[-1]
        need(m["round"] == end["round"] and m["frames"] == end["frames"], "RoundAck of another end")
        self.round_acks.append(m)

    def on_FinalState(self, m):
        need(len(m["state"]) <= STATE_MAX, f"state of {len(m['state'])} bytes")
        self.final = m

    def on_MemoryDigests(self, m):
        need(len(m["ranges"]) <= 256, f"{len(m['ranges'])} digests in one message")
        self.digests += m["ranges"]
        if m["last"]:
            self.state = "loaded"

    def epoch(self, m, kind):
        need(m["epoch"] == self.offer["epoch"], f"{kind} for epoch {m['epoch']}")

    def on_Ready(self, m):
        self.epoch(m, "Ready")
        need(m["received_digest"] == self.final["sent_digest"], "received_digest differs")
        self.ready = m

    def on_Go(self, m):
        self.epoch(m, "Go")

    def on_Running(self, m):
        self.epoch(m, "Running")
        need(len(m["steps"]) <= 16, f"{len(m['steps'])} steps in Running")
        need(all(0 < len(s["name"]) <= 31 for s in m["steps"]), "name of a step")

    def on_Query(self, m):
        need(not (m["go"] and m["abort"]), "query with go and abort")

    def on_QueryReply(self, m):
        need(m["outcome"] <= 3, f"outcome {m['outcome']}")

    def on_FactsQuery(self, m):
        pass

    def on_HostFacts(self, m):
        need(m["host"] != "" and m["cpu"] is not None, "facts without a host or a CPU")
        need(m["cpu"]["vendor"] != "", "a CPU without a vendor")


def check_memory(session, memory):
    pages = 0
    for r in session.digests:
        gfn, n = r["gfn"], r["pages"]
        need(1 <= n <= BLOCK_PAGES and memory.has(gfn, n), f"digest of {gfn:#x}+{n}")
        need(gfn // BLOCK_PAGES == (gfn + n - 1) // BLOCK_PAGES, f"digest of {gfn:#x} over a block")
        got, want = memory.digest(gfn, n), r["high"] << 64 | r["low"]
        need(got == want, f"memory {gfn:#x}+{n} differs from its digest")
        pages += n
    return pages


def check_rounds(session, channels):
    """RoundEnd's totals, and which rounds were sent alive, against the frames."""
    for end in session.round_ends:
        r = end["round"]
        need(all(len(c.marks) > r for c in channels), f"round {r} has not ended on every channel")
        frames = sum(c.marks[r][0] for c in channels)
        size = sum(c.marks[r][1] for c in channels)
        need(end["frames"] == frames, f"round {r}: {frames} frames, RoundEnd says {end['frames']}")
        need(end["wire_bytes"] == size, f"round {r}: {size} bytes, RoundEnd says otherwise")


def check_final(final, channels):
    last = channels[0].round - 1
    need(all(c.over for c in channels), "FinalState, but a channel has not ended")
    need(all(c.round - 1 == last for c in channels), "channels ended in different rounds")
    need(all(1 not in c.rounds_live.get(last, ()) for c in channels), "last round sent as LIVE")
    frames = sum(c.seq for c in channels)
    need(final["frames"] == frames, f"{frames} frames, FinalState says {final['frames']}")
    need(final["sent_digest"] == fold(channels), "sent_digest differs from the frames' fold")


# --- captures -----------------------------------------------------------------------------------

class Connection:
    """The lines of one captured connection; what follows is left in c2s and s2c."""

    def __init__(self, stem):
        with open(stem + ".c2s", "rb") as f:
            self.c2s = Bytes(f.read(), os.path.basename(stem) + ".c2s")
        with open(stem + ".s2c", "rb") as f:
            self.s2c = Bytes(f.read(), os.path.basename(stem) + ".s2c")
        self.kind = self.session = self.number = None
        if self.s2c.left() > 0 and self.greeted() and self.c2s.left() > 0:
            self.asked()

    def greeted(self):
        line = self.s2c.line()
        if re.fullmatch(r"(421|530) .+", line):
            need(self.s2c.left() == 0, f"{self.s2c.name}: speaks on after '{line}'")
            return False
        m = re.fullmatch(r"220 \S+ migrd relocation ([1-9]\d{0,3})", line)
        need(m, f"{self.s2c.name}: greeting '{line}'")
        return True

    def asked(self):
        line = self.c2s.line()
        r = re.fullmatch(r"RELOCATE ([1-9]\d{0,3})", line)
        c = re.fullmatch(r"CHANNEL ([0-9a-f]{32}) ([1-9]\d?)", line)
        need(r or c, f"{self.c2s.name}: preamble '{line}'")
        answer = self.s2c.line() if self.s2c.left() > 0 else ""
        if answer != "220 go ahead":
            need(re.fullmatch(r"((421|500|530) .+)?", answer), f"answer '{answer}'")
            need(self.c2s.left() == 0, f"{self.c2s.name}: speaks on without leave")
            return
        if r:
            need(r[1] == "1", f"protocol {r[1]}")
            self.kind = "session"
        else:
            self.kind, self.session, self.number = "channel", c[1], int(c[2])
            need(self.s2c.left() == 0, f"{self.s2c.name}: the target speaks on a data channel")


def read_channels(session, conns):
    memory = Memory(session.offer["regions"])
    mine = [c for c in conns if c.kind == "channel" and c.session == session.accept["session"]]
    count = session.accept["channels"]
    numbers = sorted(c.number for c in mine)
    need(len(set(numbers)) == len(numbers) and all(n <= count for n in numbers),
         f"channels {numbers} of {count}")
    need(session.final is None or len(numbers) == count, f"channels {numbers} of {count}")
    out = []
    for c in sorted(mine, key=lambda c: c.number):
        channel = Channel(c.c2s, c.number, count, memory, session.accept["encodings"])
        out.append(channel)
        try:
            channel.read_all()
        except Broken as why:  # a migration that ended early may end inside of a frame
            if session.final is not None or "cut off" not in str(why):
                raise
    return memory, out


def read_session(conn, conns):
    s = Session(messages(conn.c2s), messages(conn.s2c))
    s.read_all()
    if s.accept is None:
        return describe(s, [], 0)
    memory, channels = read_channels(s, conns)
    check_rounds(s, channels)
    verified = 0
    if s.final is not None:
        check_final(s.final, channels)
        verified = check_memory(s, memory)
    return describe(s, channels, verified)


def describe(s, channels, verified):
    name = s.offer["domain"]["name"] if s.offer else "query"
    end = f"refused by {'source' if s.refused[0] == 'S' else 'target'}: {s.refused[1]}: " \
          f"{s.refused[2]}" if s.refused else f"state '{s.state}'"
    out = [f"session {name}: {end}", "  messages: " +
           ", ".join(f"{n} {k}" for k, n in sorted(s.counts.items()))]
    if channels:
        out.append(f"  {len(channels)} channels, {max(c.round for c in channels)} rounds, "
                   f"{sum(c.seq for c in channels)} frames, "
                   f"{sum(c.bytes for c in channels)} bytes, {sum(c.raw for c in channels)} raw, "
                   f"{sum(c.encoded for c in channels)} encoded "
                   f"and {sum(c.zero for c in channels)} zero pages, {verified} pages verified")
    return out


def read_captures(folder):
    stems = sorted(p[:-4] for p in glob.glob(os.path.join(folder, "*.c2s")))
    need(stems, f"{folder}: no captures")
    conns = [Connection(p) for p in stems]
    sessions = [c for c in conns if c.kind == "session"]
    need(sessions, f"{folder}: no session among {len(conns)} connections")
    out = []
    for c in sessions:
        out += read_session(c, conns)
    return out


# --- save file ------------------------------------------------------------------------------------

def block(b, kind, limit):
    length, reserved, digest = struct.unpack("<IIQ", b.take(16, f"head of {kind}"))
    need(length <= limit and reserved == 0, f"{kind} of {length} bytes")
    buf = b.take(length, kind)
    need(xxhash.xxh3_64(bytes(buf)).intdigest() == digest, f"{kind}: digest differs")
    return parse(kind, buf)


def read_save(path):
    with open(path, "rb") as f:
        b = Bytes(f.read(), os.path.basename(path))
    magic, version, reserved = struct.unpack("<8sII", b.take(16, "head"))
    need(magic == b"MGRDSAVE", "not a save file")
    need(version == 1 and reserved == 0, f"format {version}")
    offer = block(b, "Offer", 1 << 20)
    need(offer["channels"] == 1 and offer["migration"] == "", "the offer is one of a migration")
    channel = Channel(b, 1, 1, Memory(offer["regions"]))
    while channel.frame() != END:
        pass
    need(channel.round == 1, f"{channel.round} rounds")
    final = block(b, "FinalState", STATE_MAX + 4096)
    check_final(final, [channel])
    need(b.left() == 0, f"{b.left()} bytes follow the end")
    return [f"save file of {offer['domain']['name']}: {channel.seq} frames, {channel.raw} raw and "
            f"{channel.zero} zero pages, state of {len(final['state'])} bytes"]


def main():
    p = argparse.ArgumentParser(description="check captured relocation streams, or a save file")
    p.add_argument("-v", action="store_true", help="with a traceback when a rule is broken")
    p.add_argument("--save", action="store_true", help="PATH is a save file")
    p.add_argument("path", nargs="+")
    args = p.parse_args()
    status = 0
    for path in args.path:
        try:
            for line in (read_save if args.save else read_captures)(path):
                print(line)
        except OSError as why:
            print(f"wire_reader: {why}", file=sys.stderr)
            return 2
        except Broken as why:
            if args.v:
                raise
            print(f"wire_reader: {path}: {why}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
