#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""net_peer: somebody on the network who talks to a guest while it moves.

    net_peer.py ADDRESS INTERFACE [interval_ms]

Sends numbered datagrams to the guest's UDP echo (port 7) all the time, and listens on the interface for what the
guest's hosts announce. Until SIGTERM; then it prints a line for each move, which it knows by its announcements, and one
for all:

    move gap_ms=X announced_after_ms=X
    peer sent=N answered=N lost=N twice=N moves=N longest_gap_ms=X rarp=N arp=N na=N

gap_ms: the longest time between two answers around the announcement; announced_after_ms: from the last answer before it
to the announcement. longest_gap_ms: the longest of the moves'.
"""
import select
import signal
import socket
import sys
import time

RARP, ARP, IPV6 = 0x8035, 0x0806, 0x86DD
ETH_P_ALL = 3
BETWEEN_MOVES = 0.6  # longer than between two rounds of announcements
AROUND = 0.1


class Peer:
    def __init__(self, address, interface, interval):
        self.to, self.interval = (address, 7), interval
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("", 0))
        self.udp.setblocking(False)
        self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.wire.bind((interface, 0))
        self.wire.setblocking(False)
        self.stop = False
        self.sent = self.answered = self.twice = 0
        self.open = {}
        self.times = []      # of all answers
        self.announced = []  # of the first announcement of each move
        self.heard = 0.0     # the announcement before
        self.kinds = {"rarp": 0, "arp": 0, "na": 0}

    def send(self):
        self.sent += 1
        try:
            self.udp.sendto(b"%016d" % self.sent, self.to)
            self.open[self.sent] = True
        except OSError:
            pass  # nobody answers ARP, or the buffer is full: it counts as lost

    def answers(self):
        while True:
            try:
                data, _ = self.udp.recvfrom(64)
            except OSError:
                return
            now, number = time.monotonic(), int(data)
            if self.open.pop(number, None) is None:
                self.twice += 1
                continue
            self.answered += 1
            self.times.append(now)

    @staticmethod
    def kind(frame):
        """What a frame announces, if it does."""
        ethertype = int.from_bytes(frame[12:14], "big")
        if ethertype == RARP:
            return "rarp"
        if ethertype == ARP and frame[28:32] == frame[38:42]:
            return "arp"
        if ethertype == IPV6 and len(frame) >= 62 and frame[20] == 58 and frame[54] == 136 and frame[58] & 0x40 == 0:
            return "na"
        return None

    def wires(self):
        while True:
            try:
                frame, where = self.wire.recvfrom(128)
            except OSError:
                return
            kind = self.kind(frame) if where[2] != socket.PACKET_OUTGOING else None
            if kind is not None:
                now = time.monotonic()
                self.kinds[kind] += 1
                if now - self.heard > BETWEEN_MOVES:
                    self.announced.append(now)
                self.heard = now

    def run(self):
        due = time.monotonic()
        while not self.stop:
            now = time.monotonic()
            if now >= due:
                self.send()
                due = max(due + self.interval, now)
            select.select([self.udp, self.wire], [], [], max(0.0, due - time.monotonic()))
            self.wires()
            self.answers()

    def report(self):
        end = time.monotonic() + 1
        while self.open and time.monotonic() < end:
            select.select([self.udp], [], [], 0.1)
            self.answers()
        gaps = [g for g in (self.gap_at(t) for t in self.announced) if g is not None]
        for gap, after in gaps:
            print(f"move gap_ms={gap * 1000:.1f} announced_after_ms={after * 1000:.1f}")
        longest = max((g for g, _ in gaps), default=0.0)
        print(f"peer sent={self.sent} answered={self.answered} lost={self.sent - self.answered} twice={self.twice} "
              f"moves={len(gaps)} longest_gap_ms={longest * 1000:.1f} "
              + " ".join(f"{k}={n}" for k, n in self.kinds.items()), flush=True)

    def gap_at(self, when):
        """The longest gap between answers that begins within AROUND before an announcement, or holds it."""
        near = [t for t in self.times if when - AROUND <= t <= when + 10]
        gaps = [(b - a, when - a) for a, b in zip(near, near[1:]) if a <= when]
        return max(gaps, default=None)


def main():
    peer = Peer(sys.argv[1], sys.argv[2], float(sys.argv[3] if len(sys.argv) > 3 else 2) / 1000)
    signal.signal(signal.SIGTERM, lambda *_: setattr(peer, "stop", True))
    peer.run()
    peer.report()


main()
