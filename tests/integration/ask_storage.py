#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Plays migrd towards migrd-storage: a StorageRequest on its stdin, the reply from its stdout. A second
reader of storage.proto, by field numbers alone.

  ask_storage.py PROGRAM identify FILE SOURCE      leaves a challenge; keeps the identity in FILE
  ask_storage.py PROGRAM answer FILE SOURCE        prints "same" if the challenge of FILE is read back,
                                                   else the reason why not
  ask_storage.py PROGRAM clean FILE SOURCE         removes the challenge of FILE
What goes wrong with the disk is printed as "CODE: TEXT", exit status 1.
"""
import subprocess
import sys


def varint(n):
    out = bytearray()
    while n > 0x7f:
        out.append(n & 0x7f | 0x80)
        n >>= 7
    return bytes(out + bytes([n]))


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7f) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 == 0:
            value, at = read_varint(data, at)
        else:
            length, at = read_varint(data, at)
            value, at = data[at:at + length], at + length
        yield tag >> 3, value


def first(data, number, default=b""):
    return next((value for n, value in fields(data) if n == number), default)


def ask(program, what, source, theirs):
    request = field(1, what) + field(2, field(1, source) + field(2, "vda"))
    if theirs is not None:
        request += field(3, theirs)
    request += field(4, 1) + field(5, "tester") + field(8, 5000)
    return subprocess.run([program, "--serve"], input=request, stdout=subprocess.PIPE, check=True,
                          timeout=30).stdout


def main():
    program, verb, path, source = sys.argv[1:]
    theirs = None if verb == "identify" else open(path, "rb").read()
    reply = ask(program, ["identify", "answer", "clean"].index(verb), source, theirs)
    identity = first(reply, 1)
    code, error = first(identity, 15).decode(), first(identity, 16).decode()
    if code:
        sys.exit(f"{code}: {error}")
    if verb == "identify":
        open(path, "wb").write(identity)
        print(error or "left a challenge")
    elif verb == "answer":
        nonce = first(first(theirs, 8), 2)
        print("same" if nonce and first(reply, 2) == nonce else first(reply, 3).decode())


main()
