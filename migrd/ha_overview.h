/* SPDX-License-Identifier: ISC */
/*
 * ha_overview: what operators are told of the cluster, for the control socket, the status socket
 * and /metrics; and the news of its log as events. In the loop's thread.
 */
#ifndef HA_OVERVIEW_H
#define HA_OVERVIEW_H

#include "migrd/control.pb-c.h"
#include "migrd/migrd.h"

/* All that is known, without definitions; NULL: no memory, or not a cluster. The caller frees with
 * migrd__ha_overview__free_unpacked. */
Migrd__HaOverview *ha_overview(struct migrd *m);

/* Why nothing is decided here now, with the names of the nodes that are away and what to do;
 * false: it is. */
bool ha_undecided(struct migrd *m, char *text, size_t size);

/* Of `struct cluster_host`: the log has changed. Publishes events, keeps what ha_overview tells of
 * failovers. */
void ha_overview_changed(struct migrd *m);
/* An alarm for people, as an event. */
void ha_overview_alarm(struct migrd *m, const char *text);
void ha_overview_close(struct migrd *m);

#endif
