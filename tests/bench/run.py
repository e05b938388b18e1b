# SPDX-License-Identifier: ISC
"""One engine measured over the rows of one guest."""

import contextlib
import time

from cpu import Meter
from lab import Lab, LabError, value_of
from ours import Ours
from qemu import Qemu

ENGINES = {"qemu": Qemu, "ours": Ours}
CONFIG = ["log-level = info"]
MEMORY_FINE = "static=ok ws=ok fpu=ok regs=ok"
WARM_UP_S = 0.5  # between a change of the guest's life and the clock's start


@contextlib.contextmanager
def engine_up(name, build, shape):
    """The lab, with a guest of that shape under that engine."""
    lab = Lab(build, *CONFIG)
    meter = None
    try:
        meter = Meter(name)
        engine = ENGINES[name](lab, meter)
        engine.boot(shape)
        try:
            yield lab, engine
        finally:
            engine.end()
    finally:
        lab.close()
        if meter:
            meter.close()


def _checked_console(engine):
    """What the guest says of the move: the longest time it did not run, and its memory."""
    stat = engine.console.ask("stat")
    memory = engine.console.ask("verify")
    return {"pause_ms": int(value_of(stat, "longest_gap_us")) / 1e3,
            "memory": "ok" if MEMORY_FINE in memory else memory}


def measure(lab, engine, row, limit_s):
    """One migration. {"converged": False} when it was not done in limit_s."""
    target = engine.start_target(row)
    time.sleep(WARM_UP_S)
    engine.console.ask("reset-gap")
    wire, cpu = lab.wire_bytes(), engine.meter.seconds()
    result = engine.move(row, target, limit_s)
    if result is None:
        engine.drop(target)
        return {"converged": False, "limit_s": limit_s}
    engine.hand_over(target)
    result["cpu_s"] = engine.meter.seconds() - cpu
    result["wire_bytes"] = lab.wire_bytes() - wire
    result["converged"] = True
    result.update(_checked_console(engine))
    return result


def _repeat(lab, engine, row, options, told):
    """The repeats of a row, as far as they make sense; `told` gets each."""
    for _ in range(options.repeats):
        told(row, measure(lab, engine, row, options.limit))
        if not told.last["converged"]:
            return


def measure_rows(name, shape, rows, options, told):
    """All rows of a guest under one engine. After an error the next row has a lab of its own."""
    left = list(rows)
    while left:
        try:
            with engine_up(name, options.build, shape) as (lab, engine):
                while left:
                    row = left.pop(0)
                    _repeat(lab, engine, row, options, told)
        except (LabError, OSError, ValueError, KeyError) as why:
            told(row if left or row else rows[0], {"converged": False, "error": str(why)})
