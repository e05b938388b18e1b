/* SPDX-License-Identifier: ISC */
/*
 * migrate: follows a migration that migrd carries out: progress on stderr, the report on
 * stdout, ^C. Shared by xm migrate (silent) and migctl migrate and watch.
 */
#ifndef TOOLS_MIGRATE_H
#define TOOLS_MIGRATE_H

#include "tools/tool.h"

enum migrate_show {
    MIGRATE_SILENT,   /* errors only */
    MIGRATE_PROGRESS, /* a bar on a terminal, else a line each second; then the report */
    MIGRATE_REPORT,   /* the report alone */
    MIGRATE_JSON,     /* the final record as JSON */
};

/*
 * Sends `rq` (Migrate or WatchMigration) and follows it to its end. ^C asks migrd to cancel and
 * goes on waiting for what comes of it; a second ^C leaves the migration alone and returns. With
 * `watch_only` the first one does. Returns an exit code.
 */
int migrate_follow(struct tool *t, Migrd__Request *rq, const char *domain, bool watch_only,
    enum migrate_show show);

/* Asks migrd to cancel the migration of `domain`, on a connection of its own. */
int migrate_cancel(struct tool *t, const char *domain, struct err *e);

/* progress.c: one line about a running migration, without line end; its bar is as long as `width`
 * allows. */
void progress_line(const Migrd__MigrationInfo *m, char *out, size_t len, size_t width);
/* Shows a progress report as it comes; `state` starts zeroed and is used for one migration. */
struct progress {
    uint64_t last_line_ns;
    char note[256]; /* the policy's last remark */
    bool drawn;     /* a bar stands on the terminal */
};
void progress_show(struct progress *p, const Migrd__MigrationInfo *m);
/* Ends the bar's line, so that other text can follow. */
void progress_end(struct progress *p);

/* report.c: what became of a finished migration. */
void report_print(const Migrd__MigrationInfo *m);

/* checks.c: what the target compared: its whole report, or refusals and warnings alone. */
void checks_print(const Migrd__MigrationInfo *m, bool all);
bool checks_refused(const Migrd__Finished *f);
/* Says the first refusal, what would mend it, and how many more there are; TOOL_FAILED. Only if there
 * is one. */
int checks_refusal(const Migrd__MigrationInfo *m, bool all_shown);

/* forecast.c: a dry run's result; one line that compares a migration with what was forecast. */
#define FORECAST_SURE 0.8 /* a migration of that probability is expected to converge */
bool forecast_is_good(const Migrd__Forecast *f);
void forecast_print(const Migrd__MigrationInfo *m, const Migrd__Forecast *f);
void forecast_print_score(const Migrd__Finished *f);

#endif
