/* SPDX-License-Identifier: ISC */
/*
 * peer: who may use a unix socket of the daemon: root, the daemon's own user, and the
 * members of control-group. The kernel says who is at the other end (SO_PEERCRED,
 * SO_PEERGROUPS).
 */
#ifndef PEER_H
#define PEER_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

struct ucred;

struct peer_rule {
    gid_t group;
    bool has_group;
};

/* Gives the socket at `path` to the group `name`; without such a group only root is admitted. */
void peer_rule_for(struct peer_rule *r, const char *path, const char *name);
/* Also false if the kernel does not tell. */
bool peer_admitted(const struct peer_rule *r, int fd, struct ucred *who);

#endif
