# SPDX-License-Identifier: ISC
"""A program on a terminal of its own. virsh_console.py SCRIPT PROGRAM ARGUMENTS...; SCRIPT has steps,
one a line: "expect REGEX" waits for it, "send TEXT" types a line, "leave" types ^], "end STATUS"
waits for the program's end. Fails at the first step that does."""
import os
import pty
import re
import select
import sys
import time

script, args = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(args[0], args)
seen = b""


def more(until):
    """False at the end of the program, or of the time."""
    global seen
    ready, _, _ = select.select([terminal], [], [], max(0, until - time.monotonic()))
    try:
        data = os.read(terminal, 65536) if ready else b""
    except OSError:
        data = b""
    seen += data
    return data != b""


def expect(regex):
    global seen
    until = time.monotonic() + 30
    while True:
        found = re.search(regex.encode(), seen)
        if found:
            print(f"  {found.group(0).decode()}")
            seen = seen[found.end():]
            return
        if not more(until):
            sys.exit(f"waited in vain for {regex}: {seen[-400:].decode(errors='replace')}")


for step in script.splitlines():
    word, _, rest = step.strip().partition(" ")
    if word == "expect":
        expect(rest)
    elif word == "send":
        os.write(terminal, rest.encode() + b"\n")
    elif word == "leave":
        os.write(terminal, b"\x1d")
    elif word == "end":
        while more(time.monotonic() + 30):
            pass
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status != int(rest):
            sys.exit(f"it ended with {status}: {seen[-400:].decode(errors='replace')}")
