/* SPDX-License-Identifier: ISC */
/*
 * daemon: one migrd from configuration to clean stop: opens the parts in order, runs the
 * loop, reloads on SIGHUP, stops on SIGTERM without touching a guest. Speaks sd_notify
 * (notify.h). Nothing here knows of command lines.
 */
#ifndef DAEMON_H
#define DAEMON_H

#include "migrd/migrd.h"

#define DAEMON_STOP_MS 5000 /* workers near their commit get that long at SIGTERM */
#define DAEMON_POOL_THREADS "16"

struct daemon_options {
    const char *root;      /* NULL: the machine itself */
    const char *config;    /* NULL: the root's */
    const char *log_level; /* NULL: the configuration's */
};

/* Runs until SIGTERM or SIGINT. 0, or -1 when it could not start or had to end. */
int daemon_run(const struct daemon_options *o, struct err *e);

/* Reads the configuration anew and puts it in force; `text` says what changed and what needs a
 * restart. On failure the old one stays. */
int daemon_reload(struct migrd *m, char *text, size_t len, struct err *e);

/* Reads the configuration for `migrd -n`; a missing file is the defaults. */
int daemon_read_config(
    const struct daemon_options *o, const struct paths *p, struct config *c, struct err *e);

#endif
