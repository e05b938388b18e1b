#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Records plain-TCP relocations: wire_proxy.py LISTEN-ADDR PORT TARGET-ADDR PORT DIR

Passes each connection on to the target and writes its two directions to DIR/NNN.c2s
and DIR/NNN.s2c, for wire_reader.py. Ends on SIGTERM or SIGINT.
"""

import os
import socket
import sys
import threading


def pump(a, b, path):
    with open(path, "wb", buffering=0) as f:
        try:
            while data := a.recv(1 << 18):
                f.write(data)
                b.sendall(data)
        except OSError:
            pass
    for s, how in ((b, socket.SHUT_WR), (a, socket.SHUT_RD)):
        try:
            s.shutdown(how)
        except OSError:
            pass


def main():
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    address, port, target, target_port, folder = sys.argv[1:]
    listener = socket.create_server((address, int(port)),
                                    family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    print("ready", flush=True)
    number = 0
    while True:
        client, _ = listener.accept()
        try:
            server = socket.create_connection((target, int(target_port)), timeout=10)
        except OSError as why:
            print(f"wire_proxy: {why}", file=sys.stderr)
            client.close()
            continue
        server.settimeout(None)
        for s in (client, server):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stem = os.path.join(folder, f"{number:03}")
        number += 1
        for a, b, way in ((client, server, ".c2s"), (server, client, ".s2c")):
            threading.Thread(target=pump, args=(a, b, stem + way), daemon=True).start()


try:
    main()
except KeyboardInterrupt:
    pass
