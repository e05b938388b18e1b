# SPDX-License-Identifier: ISC
"""What the runs add up to: medians and ratios by row, and how the targets are met."""

import statistics

from rows import Row, Shape

FIGURES = ("total_s", "total_with_target_s", "pause_ms", "wire_bytes", "cpu_s", "rounds")
TOTAL_MAX = 1.0
PAUSE_MAX = 1 / 1.5
CPU_MAX = 1 / 1.3
TLS_MAX = 1 / 3
TLS_TO_PLAIN_MAX = 1.5


def row_of(record):
    """The Row that a result's record belongs to."""
    r = dict(record["row"])
    shape = Shape(**r.pop("shape"))
    return Row(shape=shape, **r)


def side(runs):
    """Medians of one engine's runs, with least and most; converged False if any did not, absent True if
    there are none."""
    done = [r for r in runs if r["converged"]]
    if not done or len(done) < len(runs):
        return {"converged": False, "absent": not runs,
                "limit_s": max((r.get("limit_s", 0) for r in runs), default=0),
                "error": next((r["error"] for r in runs if "error" in r), None)}
    out = {"converged": True, "absent": False, "throttled": max(r["throttled"] for r in done),
           "memory": all(r["memory"] == "ok" for r in done), "repeats": len(done)}
    for key in FIGURES:
        values = [r[key] for r in done]
        out[key] = statistics.median(values)
        out[key + "_range"] = (min(values), max(values))
    return out


def rows_of(results):
    """[(Row, ours, qemu)] with each side's medians, in the matrix's order."""
    return [(row_of(record), side(record["ours"]), side(record["qemu"]))
            for record in results["rows"] if record["ours"] or record["qemu"]]


def ratio(ours, qemu, key):
    """Ours by QEMU's; None when one has no figure."""
    if not ours["converged"] or not qemu["converged"] or not qemu[key]:
        return None
    return ours[key] / qemu[key]


def _judge(name, limit, cases):
    """One target: `cases` are (row, value or None, fine without value)."""
    cases = list(cases)
    bad = [(row, value) for row, value, fine in cases
           if not (fine if value is None else value <= limit)]
    valued = [(value, row) for row, value, _ in cases if value is not None]
    worst = max(valued, key=lambda v: v[0]) if valued else None
    return {"name": name, "limit": limit, "rows": len(cases), "met": len(cases) - len(bad),
            "missed": [row.name() for row, _ in bad],
            "worst": worst and (worst[0], worst[1].name())}


def _ratios(rows, key):
    """Where QEMU did not finish, finishing is enough."""
    return [(row, ratio(ours, qemu, key), ours["converged"]) for row, ours, qemu in rows]


def _over_limit(rows):
    return [(row, ours["pause_ms_range"][1] / row.limit_ms if ours["converged"] else None, False)
            for row, ours, _ in rows]


def _tls_to_plain(rows):
    """Our TLS rows by QEMU's plain ones of the same guest, channels and limit."""
    plain = {(r.shape, r.channels, r.limit_ms): q for r, _, q in rows if not r.tls}
    cases = []
    for row, ours, _ in rows:
        peer = plain.get((row.shape, row.channels, row.limit_ms))
        if row.tls and peer:
            cases.append((row, ratio(ours, peer, "total_s"), ours["converged"]))
    return cases


def _unthrottled(rows):
    return [(row, None, ours["converged"] and ours["throttled"] == 0)
            for row, ours, _ in rows if row.tls and row.shape.workload == "2000"]


def targets(rows):
    """Each target of the bench with the rows that meet it, of those that both engines ran."""
    rows = [r for r in rows if not r[1]["absent"] and not r[2]["absent"]]
    at_50 = [r for r in rows if r[0].limit_ms == 50]
    tls = [r for r in rows if r[0].tls]
    verified = [(row, None, ours["converged"] and ours["memory"]) for row, ours, _ in rows]
    return [
        _judge("total time not longer than QEMU's", TOTAL_MAX, _ratios(rows, "total_s")),
        _judge("the same, with the start of QEMU's target in its time", TOTAL_MAX,
               _ratios(rows, "total_with_target_s")),
        _judge("pause at 50 ms: at least 1.5 times shorter", PAUSE_MAX, _ratios(at_50, "pause_ms")),
        _judge("pause of no run over its limit", 1.0, _over_limit(rows)),
        _judge("CPU per GiB at least 1.3 times less", CPU_MAX, _ratios(rows, "cpu_s")),
        _judge("TLS: a third of QEMU's total time", TLS_MAX, _ratios(tls, "total_s")),
        _judge("TLS: at most 1.5 times QEMU's plain total", TLS_TO_PLAIN_MAX, _tls_to_plain(rows)),
        _judge("TLS at 2000 MiB/s converges unthrottled", 0, _unthrottled(rows)),
        _judge("memory verified after each run", 0, verified),
    ]


def target_line(target):
    """One target as a sentence."""
    text = f"{target['name']}: {target['met']} of {target['rows']} rows"
    if target["worst"]:
        text += f"; worst {target['worst'][0]:.2f} (allowed {target['limit']:.2f}) at {target['worst'][1]}"
    elif target["missed"]:
        text += "; not " + ", ".join(target["missed"][:4])
    return text


def _forecast_error(report):
    """How far a dry run's forecast was off, relative to what came: {"total": x, "pause": y}."""
    forecast = report.get("forecast") or {}
    if forecast.get("basis") != "dry run":
        return {}
    return {key: abs(forecast[key + "_ms"] * 1e3 - report[key + "_us"]) / report[key + "_us"]
            for key in ("total", "pause") if report[key + "_us"]}


def forecast_errors(results):
    """[(what, whether the link had been used, median, p90, runs)]: relative errors of the forecasts, of
    those without and with costs of earlier moves, and of all; empty without."""
    errors = {}
    for record in results["rows"]:
        for run in record["ours"]:
            report = run.get("report", {})
            known = "known" if (report.get("forecast") or {}).get("history") else "new"
            for key, error in _forecast_error(report).items():
                errors.setdefault((key, known), []).append(error)
                errors.setdefault((key, "any"), []).append(error)
    return [(key, known, statistics.median(v), _p90(v), len(v))
            for (key, known), v in sorted(errors.items(), reverse=True)]


def _p90(values):
    return sorted(values)[max(0, -(-9 * len(values) // 10) - 1)]
