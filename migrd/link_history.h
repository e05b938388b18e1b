/* SPDX-License-Identifier: ISC */
/*
 * link_history: what migrations to a host cost before (per page, pause, the rest), so that a
 * forecast need not guess; and the newest dry runs, to be scored by the migration that follows.
 * Costs are kept in a small JSON file (/var/lib/migrd/link-history.json), read once, written by the
 * pool after each migration; a damaged file is ignored and said. In the loop's thread.
 */
#ifndef LINK_HISTORY_H
#define LINK_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrd/migrd.h"
#include "precopy/forecast.h"
#include "precopy/worker.pb-c.h"

#define LINK_HISTORY_MAX 64      /* links; the one not used for longest goes */
#define LINK_HISTORY_DRY_RUNS 16 /* forecasts kept */
#define LINK_HISTORY_DRY_RUN_S 600
#define LINK_HISTORY_FILE_MAX (256u << 10)

struct link_history;

/* Which costs are comparable. */
struct link_kind {
    const char *host; /* as it was asked for */
    unsigned port, channels;
    bool tls, huge_pages;
    Migrd__Compression compression;
};

/* NULL only without memory. */
struct link_history *link_history_open(const char *path);
void link_history_close(struct link_history **h);

/* False: none yet. The lists in it are good until the history changes. */
bool link_history_get(struct link_history *h, const struct link_kind *l, Migrd__LinkHistory *out);
/* A migration that ended well. `par` as it was run with. The file follows, by `loop`'s pool. */
void link_history_learn(struct link_history *h, uv_loop_t *loop, const struct link_kind *l,
    const Migrd__PrecopyParams *par, const Migrd__Finished *f, uint64_t wall_s);

/* Keeps a copy of a dry run's forecast. */
void link_history_dry_run(struct link_history *h, const char *uuid, const struct link_kind *l,
    const Migrd__PrecopyParams *par, const Migrd__Forecast *f, uint64_t wall_s);
/* That of the same domain, link and parameters that is not too old; a copy, the caller frees. */
Migrd__Forecast *link_history_forecast(struct link_history *h, const char *uuid,
    const struct link_kind *l, const Migrd__PrecopyParams *par, uint64_t wall_s);

/* The file's text and back, for tests and fuzzing. The text is malloc'ed. */
char *link_history_text(const struct link_history *h);
int link_history_parse(struct link_history *h, const char *text, size_t len, struct err *e);

#endif
