/* SPDX-License-Identifier: ISC */
/*
 * facts_query: what hosts are, asked and answered: this one's facts from the pool, another
 * one's by a session of its relocation port (acl and TLS as for any), and the answers to such
 * sessions of others. Makes no entry anywhere. In the loop's thread.
 */
#ifndef MIGRD_FACTS_QUERY_H
#define MIGRD_FACTS_QUERY_H

#include "migrd/control.pb-c.h"
#include "migrd/migrd.h"

#define FACTS_ASKS_MAX 16 /* of other hosts, at once */

struct migration;

/* Called once, in the loop; `f` is the caller's and lives during the call, NULL with a failure. */
typedef void facts_done(void *arg, const Migrd__HostFacts *f, const struct err *e);

/* -1: refused at once, `done` is not called. Without a host: this one. */
int facts_of(
    struct migrd *m, const Migrd__GetFacts *rq, facts_done *done, void *arg, struct err *e);
/* A session asks what this host is. */
void facts_seen(struct migration *session, const Migrd__FactsSeen *q);
/* The daemon stops: questions under way fail. */
void facts_stop_all(struct migrd *m);

#endif
