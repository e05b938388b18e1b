# SPDX-License-Identifier: ISC
"""Clients of libvirt's protocol that lie about lengths, stop half-way, send noise, take no answers,
or are too many. virsh_hostile.py SOCKET MAX-CLIENTS; fails if one of them is served on."""
import os
import random
import socket
import struct
import sys
import time

TIMEOUT = 25  # s; migrd cuts off who is half-open for 20
path, most = sys.argv[1], int(sys.argv[2])


def connect():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(TIMEOUT)
    s.connect(path)
    return s


def frame(proc, payload=b"", prog=0x20008086, kind=0, length=None):
    length = 28 + len(payload) if length is None else length
    return struct.pack(">IIIiiIi", length, prog, 1, proc, kind, 1, 0) + payload


def is_cut_off(s, what):
    try:
        while s.recv(65536):
            pass
    except ConnectionError:
        pass
    except socket.timeout:
        sys.exit(f"{what}: is not cut off")
    s.close()


OPEN = frame(1, struct.pack(">II", 0, 0))
LIES = {
    "length 0": frame(1, length=0),
    "length 27": frame(1, length=27),
    "length 4G": frame(1, length=0xFFFFFFFF),
    "length 1M": frame(1, length=1 << 20),
    "a reply": frame(1, kind=1),
    "a stream": frame(201, kind=3),
    "a keepalive call": frame(1, prog=0x6B656570),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 4,
}
for name, data in LIES.items():
    s = connect()
    s.sendall(data)
    is_cut_off(s, name)

rnd = random.Random(5)
for _ in range(200):
    s = connect()
    proc = rnd.choice([1, 11, 14, 22, 23, 204, 212, 231, 273, 298, 316, 350])
    try:
        s.sendall(OPEN + frame(proc, rnd.randbytes(rnd.randrange(0, 400))))
        s.recv(65536)
    except OSError:
        pass
    s.close()

# Takes nothing: cut off when the answers exceed what is held for it.
s = connect()
s.sendall(OPEN)
try:
    for _ in range(1 << 17):
        s.sendall(frame(7) * 64)
    sys.exit("a client that takes no answers is not cut off")
except OSError:
    pass


def half_open():
    """A client in the midst of its first message; None where its place is not free yet."""
    s = connect()
    try:
        s.sendall(OPEN[: rnd.randrange(1, 28)])
        s.settimeout(0.05)
        s.recv(1)
    except socket.timeout:
        s.settimeout(TIMEOUT)
        return s
    except OSError:
        pass
    s.close()
    return None


# They fill the table, as the calls of those before end, but for who else is a client; one more is
# hung up on.
half = []
give_up = time.monotonic() + 5
while len(half) < most and time.monotonic() < give_up:
    half += [s for s in [half_open()] if s]
if len(half) < most // 2:
    sys.exit(f"only {len(half)} of {most} clients are let in")
extra = connect()
is_cut_off(extra, "one client too many")
os._exit(0)
