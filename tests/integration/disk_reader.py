#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""
disk_reader: the other reader of what the test guest writes to its disk (tests/guests/testguest/disk.c
tells the layout). Reads the image itself, behind the back of guest, hypervisor and server, and says
whether each write that was acknowledged is there, once, where it must be.

    disk_reader.py IMAGE [--json]

A guest that said "disk stopped" has left in the header how far it came: then every block is known exactly. Of
one that ended otherwise only what its records call acknowledged must be there; up to `depth` more may be.

wrong    a block with a record that is damaged or belongs elsewhere
lost     a block that holds an older record than the newest that was acknowledged, or none
doubled  a record that lies in a second place, or in a block that was never written
mixed    two copies wrote: a record of an older epoch behind one of a newer epoch, or one epoch's by two hosts
"""
import argparse
import json
import struct
import sys
import zlib

BLOCK = 4096
HEADER_MAGIC = 0x3130647268646D67
RECORD_MAGIC = 0x31306B7369646D67
GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
LOG, RANDOM = 1, 2
SHOWN = 20


def mix64(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def has_checksum(block):
    return zlib.crc32(block[:-8]) == struct.unpack_from("<Q", block, BLOCK - 8)[0]


class Header:
    def __init__(self, block):
        (magic, self.seed, self.run, self.blocks, self.log_blocks, self.depth, self.stopped,
         self.sequences, self.randoms) = struct.unpack_from("<9Q", block)
        if magic != HEADER_MAGIC:
            raise ValueError("the first block is no header of the test guest's")
        if not has_checksum(block):
            raise ValueError("the header is damaged")

    def random_block(self, r):
        blocks = self.blocks - 1 - self.log_blocks
        return 1 + self.log_blocks + mix64((self.run + r * GOLDEN) & MASK) % blocks


class Record:
    """One block: `fault` says what is wrong with it; a block of another run, or of none, has number 0."""

    def __init__(self, block, header):
        (magic, self.kind, seed, run, self.number, self.block, self.acked, self.acked_random,
         self.flushed, self.flushed_random, self.clock, self.writer) = struct.unpack_from("<12Q", block)
        self.fault = ""
        if magic != RECORD_MAGIC or run != header.run:
            self.number = 0
        elif seed != header.seed:
            self.fault = "seed"
        elif not has_checksum(block):
            self.fault = "checksum"
        elif not self.payload_is_right(block, run):
            self.fault = "payload"

    def payload_is_right(self, block, run):
        base = mix64(run ^ (((self.number * 2 + self.kind) * GOLDEN) & MASK))
        return all(struct.unpack_from("<Q", block, 96 + 8 * i)[0] == base * (i + 1) & MASK
                   for i in (0, 1, 250, 498))


class Reader:
    def __init__(self, path):
        self.found = {"wrong": 0, "lost": 0, "doubled": 0, "mixed": 0}
        self.lines = []
        with open(path, "rb") as image:
            self.header = Header(image.read(BLOCK))
            image.seek(0)
            data = image.read(self.header.blocks * BLOCK)
        if len(data) < self.header.blocks * BLOCK:
            raise ValueError("the image is shorter than the part that the guest works on")
        view = memoryview(data)
        self.records = [None] + [Record(view[i * BLOCK:(i + 1) * BLOCK], self.header)
                                 for i in range(1, self.header.blocks)]

    def say(self, what, block, text):
        self.found[what] += 1
        self.lines.append(f"{what}: block {block}: {text}")

    def limits(self):
        """(must be there, may be there) for the log and for random writes."""
        h = self.header
        if h.stopped:
            return (h.sequences, h.sequences), (h.randoms, h.randoms)
        sound = [r for r in self.records[1:] if r.number and not r.fault]
        acked = max((r.acked for r in sound), default=0)
        acked_random = max((r.acked_random for r in sound), default=0)
        return (acked, acked + 2 * h.depth), (acked_random, acked_random + 2 * h.depth)

    def newest_log(self, block, sequence):
        return 0 if sequence < block else sequence - (sequence - block) % self.header.log_blocks

    def check(self, block, kind, allowed):
        """`allowed`: the numbers that the block may hold, oldest first; 0 is none of this run."""
        r = self.records[block]
        name = "sequence" if kind == LOG else "random write"
        if r.fault:
            self.say("wrong", block, f"{r.fault} of {name} {r.number}")
        elif r.number and (r.kind != kind or r.block != block):
            self.say("doubled", block, f"a record that belongs into block {r.block}, number {r.number}")
        elif r.number in allowed:
            return
        elif r.number < allowed[0]:
            self.say("lost", block, f"{name} {allowed[0]}: here is {r.number or 'nothing'}")
        else:
            self.say("doubled", block, f"{name} {r.number}, where {allowed} may be")

    def check_log(self, must, may):
        for block in range(1, self.header.log_blocks + 1):
            oldest, newest = self.newest_log(block, must), self.newest_log(block, may)
            self.check(block, LOG, [oldest] if oldest == newest else [oldest, newest])

    def check_random(self, must, may):
        allowed = {}
        for r in range(1, may + 1):
            block = self.header.random_block(r)
            if r <= must:
                allowed[block] = [r]
            else:
                allowed.setdefault(block, [0]).append(r)
        for block in range(self.header.log_blocks + 1, self.header.blocks):
            self.check(block, RANDOM, allowed.get(block, [0]))

    def check_writers(self):
        """By the guest's clock, which goes on when it moves; returns hosts by epoch."""
        hosts, newest = {}, 0
        records = [(r.clock, r.writer & 0xFFFFFFFF, r.writer >> 32, r.number, r.block)
                   for r in self.records[1:] if r.number and not r.fault]
        for _, epoch, host, number, block in sorted(records):
            if epoch < newest:
                self.say("mixed", block, f"number {number} of epoch {epoch} behind epoch {newest}")
            elif hosts.setdefault(epoch, host) != host:
                self.say("mixed", block, f"number {number} of epoch {epoch} by a second host")
            newest = max(newest, epoch)
        return hosts

    def run(self):
        hosts = self.check_writers()
        log, random = self.limits()
        self.check_log(*log)
        self.check_random(*random)
        return {"run": f"{self.header.run:#x}", "stopped": bool(self.header.stopped),
                "sequences": log[0], "randoms": random[0], "epochs": sorted(hosts),
                "sequences_on_disk": min(log[0], self.header.log_blocks), **self.found}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        reader = Reader(args.image)
        result = reader.run()
    except (OSError, ValueError) as why:
        print(f"{args.image}: {why}")
        return 2
    bad = sum(reader.found.values())
    for line in reader.lines[:SHOWN]:
        print(line)
    if args.json:
        print(json.dumps(result))
    else:
        how = "the guest had stopped" if result["stopped"] else "the guest had not stopped"
        print(f"{result['sequences']} sequences and {result['randoms']} random writes ({how}): "
              + ("each is there once, where it must be" if not bad else
                 ", ".join(f"{n} {what}" for what, n in reader.found.items()))
              + f"; the last {result['sequences_on_disk']} sequences were read")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
