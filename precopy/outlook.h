/* SPDX-License-Identifier: ISC */
/*
 * outlook: from what was measured (a probe of the link, the costs of earlier migrations, the
 * pages that the guest writes) to the inputs of a forecast, and from its result to a message.
 * The struct is the caller's; the message points into it.
 */
#ifndef OUTLOOK_H
#define OUTLOOK_H

#include "precopy/dry_probe.h"
#include "precopy/forecast.h"
#include "precopy/worker.pb-c.h"

struct outlook {
    struct forecast_input in;           /* curve, populated, zero_share: set by the caller */
    const Migrd__LinkHistory *history;  /* may be NULL */
    struct dry_costs probe;             /* of one channel without a cap; 0: not measured */
    double measured_ns;                 /* of a page, by the migration itself; 0: not yet */
    double admit_ns, hit_ns, hit_bytes; /* of deltas; 0: not measured */
    uint64_t collect_us;
    const char *basis;
    bool quick; /* without a look for knobs */

    struct forecast out;
    Migrd__Forecast message;
    Migrd__ForecastPoint point[FORECAST_POINTS_MAX], *point_ptr[FORECAST_POINTS_MAX];
};

/* Adds a point of the curve; beyond FORECAST_POINTS_MAX none. */
void outlook_point(struct outlook *o, uint64_t us, uint64_t pages);

/* Makes the forecast and fills the message. */
void outlook_make(struct outlook *o, const Migrd__PrecopyParams *par, bool live);

#endif
