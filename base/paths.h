/* SPDX-License-Identifier: ISC */
/*
 * paths: where everything lives below one root, so that several hosts run on one
 * machine (`--root DIR`). The root of a real host is empty: /etc/migrd/migrd.conf,
 * /run/migrd/control.sock, /var/lib/migrd. A fixed-size value, copied freely.
 */
#ifndef BASE_PATHS_H
#define BASE_PATHS_H

#include "base/err.h"

#define PATHS_LEN 256

struct paths {
    char root[PATHS_LEN];    /* "" or an absolute folder without a trailing slash */
    char config[PATHS_LEN];  /* ROOT/etc/migrd/migrd.conf */
    char etc[PATHS_LEN];     /* ROOT/etc/migrd */
    char pki[PATHS_LEN];     /* ROOT/etc/migrd/pki: ca.crt, host.crt, host.key */
    char run[PATHS_LEN];     /* ROOT/run/migrd */
    char control[PATHS_LEN]; /* ROOT/run/migrd/control.sock */
    char status[PATHS_LEN];  /* ROOT/run/migrd/status.sock */
    char hv[PATHS_LEN];      /* ROOT/run/migrd/xvm (or the hypervisor's name): one folder per running
                                domain, named by uuid */
    char state[PATHS_LEN];   /* ROOT/var/lib/migrd */
    char domains[PATHS_LEN]; /* ROOT/var/lib/migrd/domains: one definition per uuid */
    char journal[PATHS_LEN]; /* ROOT/var/lib/migrd/journal */
    char log[PATHS_LEN];     /* ROOT/var/log/migrd */
};

/* `root` NULL or "" is the machine itself; a relative one is made absolute. */
int paths_init(struct paths *p, const char *root, struct err *e);

/* Of another hypervisor than xvm. */
void paths_hypervisor(struct paths *p, const char *name);

/*
 * The folder that holds this project's programs (migrd-worker, xvm-domain): that
 * of the running executable, or ../libexec/migrd beside it when installed.
 */
int paths_program(char out[PATHS_LEN], const char *name, struct err *e);

#endif
