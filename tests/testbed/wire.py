# SPDX-License-Identifier: ISC
"""
wire: the frames that the tool, the agent of a virtual host and the clients of a lab exchange.

A frame is a job's number (u32, big endian), a kind (one byte), a length (u32) and so many bytes.
A job is one command on a host; numbers are the lab's towards an agent, 0 towards a client.

    to the agent   R  run: JSON with argv, cwd, env, merge, input     I  input    E  the input ends
                   S  a signal's number for the command's session     Q  sync the disks
    from it        H  it is up: JSON with status, text                O  output   D  output of errors
                   X  the command's exit status   A  so many bytes of input were taken   Q  it is done
    client to lab  R  a request: JSON with op and what it needs, then I, E, S
    lab to client  O, D, X, A as above, and M: the tool's own words
"""
import json
import struct

HEADER = struct.Struct(">IcI")
CHUNK = 65536
FRAME_MAX = 4 << 20


class Broken(Exception):
    """Bytes that are no frames."""


def frame(job, kind, data=b""):
    return HEADER.pack(job, kind, len(data)) + data


def message(job, kind, value):
    return frame(job, kind, json.dumps(value).encode())


class Frames:
    """Takes bytes as they come, gives whole frames."""

    def __init__(self):
        self.data = bytearray()

    def feed(self, data):
        self.data += data
        while len(self.data) >= HEADER.size:
            job, kind, length = HEADER.unpack_from(self.data)
            if length > FRAME_MAX:
                raise Broken(f"a frame of {length} bytes")
            if len(self.data) < HEADER.size + length:
                return
            body = bytes(self.data[HEADER.size:HEADER.size + length])
            del self.data[:HEADER.size + length]
            yield job, kind, body
