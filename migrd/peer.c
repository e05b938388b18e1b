/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "migrd/peer.h"

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#define GROUPS_MAX 256

static bool in_group(int fd, const struct ucred *who, gid_t group)
{
    gid_t list[GROUPS_MAX];
    socklen_t len = sizeof list;

    if (who->gid == group)
        return true;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, list, &len) < 0)
        return false;
    for (size_t i = 0; i < len / sizeof list[0]; i++)
        if (list[i] == group)
            return true;
    return false;
}

bool peer_admitted(const struct peer_rule *r, int fd, struct ucred *who)
{
    socklen_t len = sizeof *who;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, who, &len) < 0)
        return false;
    if (who->uid == 0 || who->uid == geteuid())
        return true;
    return r->has_group && in_group(fd, who, r->group);
}

void peer_rule_for(struct peer_rule *r, const char *path, const char *name)
{
    const struct group *g = name[0] != '\0' ? getgrnam(name) : NULL;

    *r = (struct peer_rule){ .has_group = g != NULL };
    if (g == NULL) {
        log_info("control", "group %s does not exist: only root may use %s", name, path);
        return;
    }
    r->group = g->gr_gid;
    if (chown(path, (uid_t)-1, g->gr_gid) < 0)
        log_warn("control", "%s cannot be given to group %s: %s", path, name, strerror(errno));
}
