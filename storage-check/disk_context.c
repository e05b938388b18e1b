/* SPDX-License-Identifier: ISC */
/*
 * Contexts of libnfs and libiscsi, set up the same way for disks, leases and those who only look:
 * neither connects again by itself (libnfs would spin and hide the loss; libiscsi would lose the
 * reservation in silence), neither reads ahead, and no password comes from a URL or the
 * environment.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <nfsc/libnfs.h>

#include "storage-check/disk_internal.h"
#include "storage-check/secrets.h"

#define INITIATOR_PREFIX "iqn.2026-01.migrd:"

void disk_drop_unsent(int fd)
{
    const struct linger reset = { .l_onoff = 1, .l_linger = 0 };

    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

/* ---- NFS ---- */

/* libnfs takes ports from URLs only; the server and the path of this one are never used. */
static int set_ports(struct nfs_context *c, const struct storage_url *u, struct err *e)
{
    char text[160];
    int n = snprintf(
        text, sizeof text, "nfs://server/path?version=%u&auto-traverse-mounts=0", u->version);
    struct nfs_url *parsed;

    if (u->port != 0)
        n += snprintf(text + n, sizeof text - (size_t)n, "&nfsport=%u", (unsigned)u->port);
    if (u->mount_port != 0)
        snprintf(text + n, sizeof text - (size_t)n, "&mountport=%u", (unsigned)u->mount_port);
    parsed = nfs_parse_url_dir(c, text);
    if (parsed == NULL)
        return err_set(e, ERR_INTERNAL, "libnfs does not take %s: %.200s", text, nfs_get_error(c));
    nfs_destroy_url(parsed);
    return 0;
}

struct nfs_context *disk_nfs_context(
    const struct storage_url *u, const struct disk_options *o, struct err *e)
{
    struct nfs_context *c = nfs_init_context();

    if (c == NULL) {
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    if (set_ports(c, u, e) < 0) {
        nfs_destroy_context(c);
        return NULL;
    }
    nfs_set_autoreconnect(c, 0);
    nfs_set_uid(c, (int)(u->has_uid ? u->uid : o->uid));
    nfs_set_gid(c, (int)(u->has_gid ? u->gid : o->gid));
    return c;
}

/* ---- iSCSI ---- */

void disk_initiator_name(const struct disk_options *o, char *out, size_t size)
{
    const char *host = o->host != NULL && o->host[0] != '\0' ? o->host : "localhost";

    if (o->initiator != NULL && o->initiator[0] != '\0')
        snprintf(out, size, "%s", o->initiator);
    else
        snprintf(out, size, INITIATOR_PREFIX "%.150s", host);
}

struct iscsi_context *disk_iscsi_context_with(const struct storage_url *u,
    const struct disk_options *o, uint32_t isid, const struct secret *secret, struct err *e)
{
    char name[STORAGE_TARGET_MAX + 1];
    struct iscsi_context *c;

    disk_initiator_name(o, name, sizeof name);
    if (isid == 0 && getrandom(&isid, sizeof isid, 0) != (ssize_t)sizeof isid) {
        err_sys(e, "random session id");
        return NULL;
    }
    c = iscsi_create_context(name);
    if (c == NULL) {
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    iscsi_set_noautoreconnect(c, 1);
    if (iscsi_set_isid_random(c, isid & 0xffffff, isid >> 24) != 0 ||
        iscsi_set_targetname(c, u->target) != 0 ||
        iscsi_set_session_type(c, ISCSI_SESSION_NORMAL) != 0 ||
        iscsi_set_header_digest(c, ISCSI_HEADER_DIGEST_NONE_CRC32C) != 0 ||
        (secret != NULL &&
            iscsi_set_initiator_username_pwd(c, secret->user, secret->password) != 0)) {
        err_set(e, ERR_INTERNAL, "libiscsi: %.200s", iscsi_get_error(c));
        iscsi_destroy_context(c);
        return NULL;
    }
    return c;
}

struct iscsi_context *disk_iscsi_context(
    const struct storage_url *u, const struct disk_options *o, uint32_t isid, struct err *e)
{
    struct iscsi_context *c = NULL;
    struct secret s;
    int rc = secret_find(o->secrets, u, &s, e);

    if (rc >= 0)
        c = disk_iscsi_context_with(u, o, isid, rc > 0 ? &s : NULL, e);
    secret_wipe(&s);
    return c;
}
