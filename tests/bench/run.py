# SPDX-License-Identifier: ISC
"""One engine measured over the rows of one guest."""

import contextlib
import time

from cpu import Meter
from lab import Lab, LabError, value_of
from ours import Ours
from perf_profile import profiled
from qemu import Qemu

ENGINES = {"qemu": Qemu, "ours": Ours}
MEMORY_FINE = "static=ok ws=ok fpu=ok regs=ok"
VERIFY_S = 120  # a busy machine takes its time over 4 GiB
WARM_UP_S = 0.5  # between a change of the guest's life and the clock's start


@contextlib.contextmanager
def engine_up(name, shape, options):
    """The lab, with a guest of that shape under that engine."""
    lab = Lab(options.build)
    meter = None
    try:
        meter = Meter(name)
        engine = ENGINES[name](lab, meter, options)
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
    memory = engine.console.ask("verify", VERIFY_S)
    return {"pause_ms": int(value_of(stat, "longest_gap_us")) / 1e3,
            "memory": "ok" if MEMORY_FINE in memory else memory}


def measure(lab, engine, row, options):
    """One migration. {"converged": False} when it was not done in the time for it."""
    target = engine.start_target(row)
    time.sleep(WARM_UP_S)
    engine.console.ask("reset-gap")
    wire, cpu = lab.wire_bytes(), engine.meter.seconds()
    with profiled(options.profile, f"{row.name()}-{engine.name}"):
        result = engine.move(row, target, options.limit)
    if result is None:
        engine.drop(target)
        return {"converged": False, "limit_s": options.limit}
    engine.hand_over(target)
    result["cpu_s"] = engine.meter.seconds() - cpu
    result["wire_bytes"] = lab.wire_bytes() - wire
    result["converged"] = True
    result.update(_checked_console(engine))
    return result


def _repeat(lab, engine, row, options, told):
    """The repeats of a row, as far as they make sense."""
    for left in reversed(range(options.repeats)):
        result = measure(lab, engine, row, options)
        told(row, result)
        if not result["converged"]:
            told.skip(left)
            return


def measure_rows(name, shape, rows, options, told):
    """All rows of a guest under one engine. After an error the next row has a lab of its own."""
    left = list(rows)
    while left:
        try:
            with engine_up(name, shape, options) as (lab, engine):
                while left:
                    _repeat(lab, engine, left[0], options, told)
                    left.pop(0)
        except (LabError, OSError, ValueError, KeyError) as why:
            if not left:
                print(f"{name} did not end well: {why}")
                return
            told(left.pop(0), {"converged": False, "error": str(why)})
