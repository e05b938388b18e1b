# SPDX-License-Identifier: ISC
"""Two hundred hostile clients of libvirt's protocol for SECONDS, or until SIGTERM, each kept up after
it is cut off.
virsh_flood.py SOCKET HOST PKI UUID SECONDS: HOST's TLS port, with the client's files in PKI; UUID is
of a domain whose console is flooded. Prints how often each kind connected."""
import os
import random
import signal
import socket
import ssl
import struct
import sys
import time

path, host, pki, uuid, seconds = sys.argv[1:6]
rnd = random.Random(7)


def frame(proc, payload=b"", kind=0, status=0, serial=1, length=None):
    length = 28 + len(payload) if length is None else length
    return struct.pack(">IIIiiIi", length, 0x20008086, 1, proc, kind, serial, status) + payload


OPEN = frame(1, struct.pack(">II", 0, 0))
DOMAIN = struct.pack(">I4s", 4, b"web2") + bytes.fromhex(uuid.replace("-", "")) + struct.pack(">i", -1)
CONSOLE = frame(201, DOMAIN + struct.pack(">II", 0, 1), serial=9)


def unix():
    s = socket.socket(socket.AF_UNIX)
    s.setblocking(False)
    s.connect(path)
    return s


def tcp():
    s = socket.create_connection((host, 16514), timeout=2)
    s.setblocking(False)
    return s


def tls(with_certificate):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(os.path.join(pki, "cacert.pem"))
    if with_certificate:
        c.load_cert_chain(os.path.join(pki, "clientcert.pem"), os.path.join(pki, "clientkey.pem"))
    s = socket.create_connection((host, 16514), timeout=2)
    s = c.wrap_socket(s, server_hostname=host)
    s.setblocking(False)
    return s


# Each kind: how it connects, and what it sends at step n; nothing is ever read.
def slow(n):
    return OPEN[n % len(OPEN):][:1]


def huge(n):
    return frame(1, length=rnd.choice([0, 27, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF]))


def bad_xdr(n):
    proc = rnd.choice([8, 11, 14, 23, 57, 58, 204, 265, 273, 303, 305, 344, 350])
    head = rnd.choice([b"", b"\xff\xff\xff\xff", b"\0\0\0\x04web1", b"\0\0\x10\0"])
    return (OPEN if n == 0 else b"") + frame(proc, head + rnd.randbytes(rnd.randrange(0, 400)))


def half(n):
    return OPEN[:20] if n == 0 else b""


def glutton(n):
    return (OPEN if n == 0 else b"") + frame(7) * 64


def stream(n):
    if n == 0:
        return OPEN + CONSOLE
    return frame(201, (b"z" * 1000 + b"\n") * 32, kind=3, status=2, serial=rnd.choice([9, 9, 9, 10]))


def garbage(n):
    return rnd.randbytes(300)


def silence(n):
    return b""


KINDS = [("slow", unix, slow), ("huge", unix, huge), ("bad XDR", unix, bad_xdr), ("half", unix, half),
         ("glutton", unix, glutton), ("stream", unix, stream), ("no TLS", tcp, garbage),
         ("silent TCP", tcp, silence), ("no certificate", lambda: tls(False), silence),
         ("TLS glutton", lambda: tls(True), glutton)]


class Client:
    def __init__(self, kind):
        self.name, self.connect, self.send = kind
        self.s, self.n, self.left = None, 0, b""

    def step(self, counts):
        try:
            if self.s is None:
                self.s, self.n, self.left = self.connect(), 0, b""
                counts[self.name] = counts.get(self.name, 0) + 1
            if not self.left:
                self.left = self.send(self.n)
                self.n += 1
            if self.left:
                self.left = self.left[self.s.send(self.left):]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            if self.s is not None:
                self.s.close()
            self.s = None


over = False


def stop(signum, frame_of_python):
    global over
    over = True


signal.signal(signal.SIGTERM, stop)
clients = [Client(KINDS[i % len(KINDS)]) for i in range(200)]
counts = {}
end = time.monotonic() + float(seconds)
while time.monotonic() < end and not over:
    for c in clients:
        c.step(counts)
    time.sleep(0.05)
print(" ".join(f"{name}:{counts.get(name, 0)}" for name, _, _ in KINDS))
os._exit(0)
