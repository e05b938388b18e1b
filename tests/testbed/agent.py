# SPDX-License-Identifier: ISC
"""
agent: runs commands in a virtual host for the tool outside. It reads frames (wire.py) from a virtio
port and answers there; one thread, no waiting. Its standard input says when the host is set up: one
line "status text". Each command has a session of its own, which a signal reaches as a whole; what
left that session lives on when the command has ended.
"""
import json
import os
import selectors
import signal
import subprocess
import sys
import time

import wire

BACKLOG = 1 << 20  # bytes for the port; above that no output is read
LINGER = 1.0  # seconds that a process which the command left behind may hold its output open


class Job:
    """One command."""

    def __init__(self, agent, number, request):
        self.agent, self.number = agent, number
        self.input, self.input_ended = bytearray(), not request.get("input")
        self.status = self.ended = None
        self.waiting = False  # for the command to take input
        error = subprocess.STDOUT if request.get("merge") else subprocess.PIPE
        self.process = subprocess.Popen(
            request["argv"], cwd=request.get("cwd"), env=request.get("env"), start_new_session=True,
            stdin=subprocess.DEVNULL if self.input_ended else subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=error)
        self.outputs = {self.process.stdout: b"O"}
        if self.process.stderr:
            self.outputs[self.process.stderr] = b"D"
        for pipe in self.outputs:
            os.set_blocking(pipe.fileno(), False)
            agent.select.register(pipe, selectors.EVENT_READ, self.read)
        if self.process.stdin:
            os.set_blocking(self.process.stdin.fileno(), False)
        self.pidfd = os.pidfd_open(self.process.pid)
        agent.select.register(self.pidfd, selectors.EVENT_READ, self.end)

    def read(self, pipe, _events):
        if self.agent.full():
            return time.sleep(0.005)
        try:
            data = os.read(pipe.fileno(), wire.CHUNK)
        except BlockingIOError:
            return None
        if data:
            self.agent.send(self.number, self.outputs[pipe], data)
        else:
            self.close_output(pipe)
        return None

    def close_output(self, pipe):
        self.agent.select.unregister(pipe)
        pipe.close()
        del self.outputs[pipe]

    def end(self, _pidfd, _events):
        self.agent.select.unregister(self.pidfd)
        os.close(self.pidfd)
        self.status = self.process.wait()
        self.ended = time.monotonic()

    def take_input(self, data):
        self.input += data
        self.write()

    def end_input(self):
        self.input_ended = True
        self.write()

    def write(self, _pipe=None, _events=None):
        pipe = self.process.stdin
        if not pipe or pipe.closed:
            return
        self.stop_waiting()
        taken = 0
        try:
            while self.input:
                n = os.write(pipe.fileno(), self.input)
                del self.input[:n]
                taken += n
        except BlockingIOError:
            self.agent.select.register(pipe, selectors.EVENT_WRITE, self.write)
            self.waiting = True
        except BrokenPipeError:
            taken += len(self.input)
            self.input.clear()
        if taken:
            self.agent.send(self.number, b"A", str(taken).encode())
        if self.input_ended and not self.input:
            pipe.close()

    def stop_waiting(self):
        if self.waiting:
            self.agent.select.unregister(self.process.stdin)
            self.waiting = False

    def signal(self, number):
        if self.status is None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                pass

    def over(self):
        return self.status is not None and (not self.outputs or time.monotonic() > self.ended + LINGER)

    def close(self):
        for pipe in list(self.outputs):
            self.close_output(pipe)
        if self.process.stdin and not self.process.stdin.closed:
            self.stop_waiting()
            self.process.stdin.close()
        status = self.status if self.status >= 0 else 128 - self.status
        self.agent.send(self.number, b"X", str(status).encode())


class Agent:
    """The port and the commands that run."""

    def __init__(self, port):
        self.port = os.open(port, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.frames, self.out, self.jobs = wire.Frames(), bytearray(), {}
        self.select = selectors.DefaultSelector()
        self.select.register(self.port, selectors.EVENT_READ, self.port_ready)

    def full(self):
        return len(self.out) > BACKLOG

    def send(self, number, kind, data=b""):
        self.out += wire.frame(number, kind, data)

    def port_ready(self, _port, events):
        if events & selectors.EVENT_WRITE:
            try:
                n = os.write(self.port, self.out[:32768])
                del self.out[:n]
            except BlockingIOError:
                pass
        if events & selectors.EVENT_READ:
            try:
                data = os.read(self.port, wire.CHUNK)
            except BlockingIOError:
                return
            if not data:
                sys.exit("the tool outside is gone")
            for number, kind, body in self.frames.feed(data):
                self.obey(number, kind, body)

    def obey(self, number, kind, body):
        job = self.jobs.get(number)
        if kind == b"R":
            self.run(number, json.loads(body))
        elif kind == b"Q":
            os.sync()
            self.send(number, b"Q")
        elif not job:
            return
        elif kind == b"I":
            job.take_input(body)
        elif kind == b"E":
            job.end_input()
        elif kind == b"S":
            job.signal(int(body))

    def run(self, number, request):
        if not os.path.isdir(request.get("cwd") or "/"):
            request["cwd"] = "/"
        try:
            self.jobs[number] = Job(self, number, request)
        except OSError as e:
            self.send(number, b"D", f"{request['argv'][0]}: {e.strerror}\n".encode())
            self.send(number, b"X", b"127")

    def serve(self):
        while True:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.out else 0)
            self.select.modify(self.port, events, self.port_ready)
            ending = any(job.status is not None for job in self.jobs.values())
            for key, what in self.select.select(0.05 if ending else None):
                if key.fd in self.select.get_map():  # an earlier one of this round may have closed it
                    key.data(key.fileobj, what)
            for number, job in list(self.jobs.items()):
                if job.over():
                    job.close()
                    del self.jobs[number]


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    agent = Agent(sys.argv[1])
    status, _, text = sys.stdin.readline().strip().partition(" ")
    hello = {"status": int(status or 1), "text": text}
    agent.send(0, b"H", json.dumps(hello).encode())
    agent.serve()


main()
