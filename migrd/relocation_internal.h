/* SPDX-License-Identifier: ISC */
/* relocation_internal: what relocation.c (peers) and relocation_listen.c (sockets, reload) share.
 */
#ifndef RELOCATION_INTERNAL_H
#define RELOCATION_INTERNAL_H

#include "migrd/relocation.h"
#include "relocation-acl/relocation-acl.h"
#include "transport/transport.h"

struct lookup;

struct peer {
    struct peer *prev, *next; /* oldest first */
    struct relocation *r;
    int fd;
    char address[64], name[ACL_NAME_LEN];
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned open_handles;
    bool poll_open, closing;
    char line[TR_LINE_MAX];
    size_t len;
};

struct listener {
    struct listener *next;
    struct relocation *r;
    int fd;
    uv_poll_t poll;
};

struct relocation {
    struct migrd *m;
    struct acl *acl;
    struct lookup *lookup;
    struct listener *listeners;
    struct peer *peers, *last_peer;
    unsigned n_peers;
    uv_timer_t retry;
    uv_timer_t rest; /* nothing is accepted until then: no descriptors */
    unsigned tries;
    bool stopped;
    char text[400];
    char warnings[2000];
};

void relocation_watch(struct listener *l);
void relocation_close_peers(struct relocation *r);

#endif
