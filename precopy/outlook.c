/* SPDX-License-Identifier: ISC */
/*
 * Costs of a page, best source first:
 *
 *   history   nanoseconds per page that migrations to this host took, first and again; taken with
 *             ZERO_NS for a zero page
 *   probe     the same of pages that a target threw away
 *
 * History knows the hosts, the probe knows the link as it is at this moment: where the probe is
 * clearly slower than what history says, the probe counts. Channels beyond the one that was
 * probed help while a CPU is the limit, and only as far as there are CPUs.
 */
#include "precopy/outlook.h"

#include <string.h>
#include <unistd.h>

#include "precopy/policy.h"
#include "transport/transport.h"

#define PAGE_WIRE_BYTES 4120.0
#define ZERO_NS 150.0
#define SLOWER 1.5
#define GUESS_NS 8000.0 /* nothing known */
/* What a page of a migration takes, by what one of a probe of 0.3 s took: the median of 60 first
 * migrations on a link (docs/forecast.md). Seconds of it fill queues and share the CPUs with the
 * guest's bursts. */
#define SUSTAINED 1.25
#define CPU_FULL 75     /* percent */
#define ROUND_BASE_US 300
#define OTHER_US 50000 /* connect, build the domain there, end it here */

void outlook_point(struct outlook *o, uint64_t us, uint64_t pages)
{
    if (o->in.n_curve < FORECAST_POINTS_MAX)
        o->in.curve[o->in.n_curve++] = (struct forecast_point){ us, pages };
}

static void set_channels(struct outlook *o, const Migrd__PrecopyParams *par)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    bool cpu_bound = o->probe.source_cpu >= CPU_FULL || o->probe.target_cpu >= CPU_FULL;

    o->in.channels = par->channels == 0 ? 1 : par->channels;
    if (o->in.channels > TR_CHANNELS_MAX)
        o->in.channels = TR_CHANNELS_MAX;
    o->in.channels_useful = !cpu_bound               ? 1
                            : cpus > TR_CHANNELS_MAX ? TR_CHANNELS_MAX
                                                     : (unsigned)(cpus < 1 ? 1 : cpus);
}

static void costs_of_probe(struct outlook *o)
{
    unsigned n = o->in.channels < o->in.channels_useful ? o->in.channels : o->in.channels_useful;
    double share = (n > 1 ? n : 1) / SUSTAINED;

    o->in.first_ns = (o->probe.first_ns > 0 ? o->probe.first_ns : GUESS_NS) / share;
    o->in.again_ns = (o->probe.again_ns > 0 ? o->probe.again_ns : GUESS_NS) / share;
    o->in.page_bytes = o->probe.page_bytes;
    o->in.pause_us = POLICY_FIXED_BASE_US + POLICY_FIXED_TRIPS * o->probe.rtt_us;
    o->in.setup_us = OTHER_US + 10 * o->probe.rtt_us;
}

/* History's figure, unless the probe says that the link has become clearly slower. */
static double known_or_slower(double history, double probe)
{
    return history > 0 && probe <= history * SLOWER ? history : probe;
}

static void costs_of_history(struct outlook *o, const Migrd__LinkHistory *h)
{
    double slower = 1;

    if (h->page_bytes > 1)
        o->in.page_bytes = h->page_bytes;
    if (h->again_ns > 0 && o->probe.again_ns > 0)
        slower = known_or_slower(h->again_ns, o->in.again_ns) / h->again_ns;
    else if (h->first_ns > 0 && o->probe.first_ns > 0)
        slower = known_or_slower(h->first_ns, o->in.first_ns) / h->first_ns;
    if (h->first_ns > 0)
        o->in.first_ns = h->first_ns * slower;
    if (h->again_ns > 0)
        o->in.again_ns = h->again_ns * slower;
    for (size_t i = 1; i < FORECAST_ROUNDS && i < h->n_round_ns && i < h->n_round_bytes; i++) {
        o->in.round_ns[i] = h->round_ns[i] * slower;
        o->in.round_bytes[i] = h->round_bytes[i];
    }
    if (h->pause_us > 0)
        o->in.pause_us = (uint64_t)h->pause_us;
    if (h->other_us > 0)
        o->in.setup_us = (uint64_t)h->other_us;
}

static void set_inputs(struct outlook *o, const Migrd__PrecopyParams *par, bool live)
{
    struct forecast_input *in = &o->in;

    set_channels(o, par);
    costs_of_probe(o);
    if (o->history != NULL && o->history->migrations > 0)
        costs_of_history(o, o->history);
    if (o->measured_ns > 0) {
        for (unsigned i = 0; i < FORECAST_ROUNDS; i++)
            in->round_ns[i] *= o->measured_ns / in->first_ns;
        in->again_ns *= o->measured_ns / in->first_ns;
        in->first_ns = o->measured_ns;
    }
    in->zero_ns = o->history == NULL && o->probe.zero_ns > 0 ? o->probe.zero_ns : ZERO_NS;
    if (par->delta_cache > 0) {
        in->admit_ns = o->admit_ns;
        in->hit_ns = o->hit_ns;
        in->hit_bytes = o->hit_bytes;
    }
    in->round_us = ROUND_BASE_US + o->probe.rtt_us + o->collect_us;
    in->cap = par->bandwidth;
    in->par = (struct policy_params){ .budget_us = (uint64_t)par->pause_budget_ms * 1000,
        .fixed_us = POLICY_FIXED_BASE_US + POLICY_FIXED_TRIPS * o->probe.rtt_us,
        .time_limit_us = (uint64_t)par->time_limit_s * 1000000,
        .max_rounds = par->max_rounds,
        .throttle_max = par->throttle_max,
        .bandwidth_cap = par->bandwidth,
        .live = live };
}

static void fill(struct outlook *o)
{
    Migrd__Forecast *m = &o->message;
    const struct forecast *f = &o->out;

    migrd__forecast__init(m);
    m->total_ms = (double)f->total_us / 1000;
    m->total_low_ms = (double)f->total_low_us / 1000;
    m->total_high_ms = (double)f->total_high_us / 1000;
    m->pause_ms = (double)f->pause_us / 1000;
    m->pause_low_ms = (double)f->pause_low_us / 1000;
    m->pause_high_ms = (double)f->pause_high_us / 1000;
    m->wire_bytes = f->wire_bytes;
    m->rounds = f->rounds;
    m->converges = f->converges;
    m->throttle = f->throttle;
    m->knob = o->out.knob;
    m->reason = o->out.reason;
    m->bandwidth = (uint64_t)(PAGE_WIRE_BYTES * 1e9 / o->in.first_ns);
    m->probe_bandwidth = (uint64_t)o->probe.rate;
    m->rtt_us = (uint32_t)o->probe.rtt_us;
    m->populated_pages = o->in.populated;
    m->zero_share = o->in.zero_share;
    m->source_cpu = o->probe.source_cpu;
    m->target_cpu = o->probe.target_cpu;
    m->history = o->history != NULL ? o->history->migrations : 0;
    m->budget_ms = (uint32_t)(o->in.par.budget_us / 1000);
    m->basis = (char *)(uintptr_t)o->basis;
    for (unsigned i = 0; i < o->in.n_curve; i++) {
        migrd__forecast_point__init(&o->point[i]);
        o->point[i].ms = (uint32_t)((o->in.curve[i].us + 500) / 1000);
        o->point[i].pages = o->in.curve[i].pages;
        o->point_ptr[i] = &o->point[i];
    }
    m->curve = o->point_ptr;
    m->n_curve = o->in.n_curve;
}

void outlook_make(struct outlook *o, const Migrd__PrecopyParams *par, bool live)
{
    set_inputs(o, par, live);
    if (o->quick)
        forecast_play(&o->in, &o->out);
    else
        forecast_make(&o->in, &o->out);
    fill(o);
}
