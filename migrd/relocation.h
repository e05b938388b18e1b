/* SPDX-License-Identifier: ISC */
/*
 * relocation: port 8002. Accepts, asks the acl, greets (the server speaks first), reads one
 * bounded line within a total time, and hands the socket to a worker. Peers that wait are
 * bounded in number; when full, the oldest peer of an address that has more than its share
 * goes, so that a crowd that says nothing cannot keep a real migration out. In the loop's thread.
 */
#ifndef RELOCATION_H
#define RELOCATION_H

#include <stdbool.h>

#include "migrd/migrd.h"

#define RELOCATION_PER_ADDRESS 32
#define RELOCATION_BIND_RETRY_MS 2000
#define RELOCATION_BIND_TRIES 30

/* Starts listening as configured; an address in use is tried again for a while. */
int relocation_start(struct migrd *m, struct err *e);
/* The configuration has changed: new acl, and new listeners if their keys have changed. `changed`
 * (may be NULL) gets a line on what was done. */
int relocation_reload(
    struct migrd *m, const struct config *before, char *changed, size_t len, struct err *e);
void relocation_stop(struct migrd *m);
/* After the loop has ended. */
void relocation_close(struct migrd *m);
/* "listening on 127.0.0.1 port 8002 with TLS", or why not. */
const char *relocation_text(const struct migrd *m);
/* Warnings of the acl, one a line, "" none. */
const char *relocation_warnings(const struct migrd *m);
/* Explains what the acl says of a name or an address; blocks for a lookup of neither. */
int relocation_acl_test(struct migrd *m, const char *who, char *out, size_t len, struct err *e);

#endif
