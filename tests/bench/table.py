# SPDX-License-Identifier: ISC
"""The bench's results as text: one table for terminals and for Markdown, and the lines below it."""

import summary

HEAD = ("guest", "writes", "way", "limit", "pages", "total s", "QEMU", "+start", "ratio", "pause ms", "QEMU",
        "ratio", "wire MB", "QEMU", "CPU s/GiB", "QEMU", "ratio", "rounds", "QEMU")


def _number(side, key, scale, digits):
    if side["absent"]:
        return ""
    if not side["converged"]:
        return "error" if side.get("error") else "not done"
    return f"{side[key] * scale:.{digits}f}"


def _ratio(ours, qemu, key):
    """Of a QEMU that was stopped, less than its time so far."""
    value = summary.ratio(ours, qemu, key)
    if key == "total_s" and ours["converged"] and not qemu["converged"] and qemu["limit_s"]:
        return f"<{ours[key] / qemu['limit_s']:.2f}"
    return "-" if value is None else f"{value:.2f}"


def _pair(ours, qemu, key, scale=1.0, digits=2):
    return [_number(ours, key, scale, digits), _number(qemu, key, scale, digits)]


def cells(row, ours, qemu):
    """One row of the table."""
    per_gib = 1 / row.shape.data_gib()
    workload = row.shape.workload if row.shape.workload in ("idle", "max") else f"{row.shape.workload} MiB/s"
    throttle = f" ({ours['throttled']} %)" if ours["converged"] and ours["throttled"] else ""
    rounds = _pair(ours, qemu, "rounds", 1, 0)
    return [f"{row.shape.mib // 1024} GiB", workload, row.way(), f"{row.limit_ms} ms",
            "2 MiB" if row.shape.huge else "4 KiB",
            *_pair(ours, qemu, "total_s"), _number(qemu, "total_with_target_s", 1, 2), _ratio(ours, qemu, "total_s"),
            *_pair(ours, qemu, "pause_ms", digits=1), _ratio(ours, qemu, "pause_ms"),
            *_pair(ours, qemu, "wire_bytes", 1e-6, 0),
            *_pair(ours, qemu, "cpu_s", per_gib), _ratio(ours, qemu, "cpu_s"),
            rounds[0] + throttle, rounds[1]]


def terminal(rows):
    """Columns in line."""
    lines = [list(HEAD)] + [cells(*r) for r in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join("  ".join(c.rjust(w) if i > 2 else c.ljust(w)
                               for i, (c, w) in enumerate(zip(line, widths))) for line in lines)


def markdown(rows):
    """The same for the docs."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---|---|---|" + "---:|" * (len(HEAD) - 3)]
    lines += ["| " + " | ".join(cells(*r)) + " |" for r in rows]
    return "\n".join(lines)


def limits_line(results):
    """The machine and what it can do at best."""
    m, gb = results["machine"], results["limits"]
    return (f"{m['cpus']} CPUs {m['cpu']}, {m['memory_gib']} GiB, Linux {m['kernel']}, TCP "
            f"{m['congestion_control']}, load {m['load_before']} at the start. Limits in GB/s: memcpy "
            f"{gb['memcpy']}, TCP over loopback {gb['tcp_1']} (2 streams: {gb['tcp_2']}), AES-128-GCM "
            f"{gb['aes_128_gcm']}, first touch of shared memory {gb['touch_4k']} by 4 KiB and "
            f"{gb['touch_2m']} by 2 MiB pages.")


def target_lines(rows):
    """How the targets are met: [(page size, lines)]."""
    out = []
    for pages, huge in (("2 MiB", True), ("4 KiB", False)):
        judged = summary.targets([r for r in rows if r[0].shape.huge == huge])
        lines = [summary.target_line(t) for t in judged if t["rows"]]
        if lines:
            out.append((pages, lines))
    return out


LINKS = {"any": "", "new": " on a way not taken before", "known": " on a way taken before"}


def forecast_lines(results):
    """How far the forecasts were off."""
    return [f"forecast of the {key}{LINKS[known]}: error {median:.0%} in the median, {p90:.0%} at the 90th "
            f"percentile, {count} runs"
            for key, known, median, p90, count in summary.forecast_errors(results)]
