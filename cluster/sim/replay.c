/* SPDX-License-Identifier: ISC */
/*
 * replay: the same events at the same times make the same decisions. Actions are printed, not
 * carried out: what came of them is among the events.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/io.h"
#include "cluster/record.h"
#include "cluster/sim/replay.h"
#include "cluster/sim/text.h"

#define FILE_MAX (1u << 30)

struct replay {
    FILE *out;
    bool verbose;
    uint64_t digest, events;
};

static void print_actions(struct replay *p, uint64_t now, const struct ha_actions *actions)
{
    for (size_t i = 0; p->out != NULL && i < actions->n; i++) {
        const struct ha_action *a = &actions->action[i];

        if (!p->verbose && !action_is_decision(a->type))
            continue;
        fprintf(p->out, "%12" PRIu64 "  %-8s", now, action_name(a->type));
        if (a->uuid[0] != '\0')
            fprintf(p->out, " %s epoch %" PRIu64, a->uuid, a->epoch);
        if (a->node != 0)
            fprintf(p->out, " node %u", a->node);
        fprintf(p->out, "%s %s\n", a->alarm ? " ALARM" : "", a->text);
    }
}

static int replay(struct replay *p, struct flight_reader *r, struct ha_core *core, struct err *e)
{
    struct ha_actions actions;
    struct ha_event event;
    uint64_t now;
    int got;

    while ((got = flight_next(r, &event, &now, e)) > 0) {
        if (p->out != NULL && p->verbose)
            fprintf(p->out, "%12" PRIu64 "  [%s]\n", now, event_name(event.type));
        ha_step(core, &event, now, &actions);
        p->digest = actions_digest(p->digest, &actions);
        print_actions(p, now, &actions);
        p->events++;
    }
    return got;
}

static int replay_bytes(struct replay *p, const char *bytes, size_t len, struct err *e)
{
    struct flight_reader *r = flight_read(bytes, len, e);
    const struct ha_record *saved;
    struct ha_core *core;
    uint64_t now;
    size_t n;
    int status = -1;

    if (r == NULL)
        return -1;
    saved = flight_saved(r, &n, &now);
    if (p->out != NULL)
        fprintf(p->out, "node %u (%s), incarnation %" PRIx64 ", %zu saved records%s\n",
            flight_config(r)->node, flight_config(r)->name, flight_config(r)->incarnation, n,
            flight_continued(r) ? "; recorded from the middle: exact from the next view on" : "");
    core = ha_core_new(flight_config(r), saved, n, now, e);
    if (core != NULL)
        status = replay(p, r, core, e);
    ha_core_free(&core);
    flight_read_free(&r);
    return status;
}

int replay_file(const char *path, bool verbose, FILE *out, uint64_t *digest, struct err *e)
{
    struct replay p = { .out = out, .verbose = verbose };
    size_t len;
    char *bytes = io_read_file(path, FILE_MAX, &len, e);
    int status = bytes != NULL ? replay_bytes(&p, bytes, len, e) : -1;

    free(bytes);
    if (status < 0)
        return err_prefix(e, "%s", path);
    if (out != NULL)
        fprintf(out, "%" PRIu64 " events\n", p.events);
    if (digest != NULL)
        *digest = p.digest;
    return 0;
}
