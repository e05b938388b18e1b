/* SPDX-License-Identifier: ISC */
/*
 * url: where a disk is, taken apart:
 *   /absolute/path                                       a file or block device of this host
 *   nfs://SERVER[:PORT]/EXPORT/PATH/FILE[?OPTIONS]       version, nfsport, mountport, uid, gid
 *   iscsi://[USER@]PORTAL[:PORT]/TARGET/LUN
 * SERVER and PORTAL are names, IPv4 addresses or [IPv6 addresses]; %XX stands for a byte.
 * Plain data, nothing to free. Sources may come from a peer; url.c tells the limits.
 */
#ifndef STORAGE_CHECK_URL_H
#define STORAGE_CHECK_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "storage-check/storage.pb-c.h"

#define STORAGE_SOURCE_MAX 1023 /* bytes of a source */
#define STORAGE_HOST_MAX 253
#define STORAGE_TARGET_MAX 223 /* of an iSCSI name */
#define STORAGE_USER_MAX 255
#define STORAGE_LUN_MAX 16383 /* of the flat form that a SCSI address can carry */
#define ISCSI_PORT 3260u

struct storage_url {
    Migrd__StorageKind kind;         /* FILE for every path: whether it is a device shows later */
    char host[STORAGE_HOST_MAX + 1]; /* server or portal, without brackets */
    bool ipv6;                       /* the host is an IPv6 address */
    uint16_t port;                   /* iSCSI: never 0; NFS: 0 asks the portmapper */

    /* file: path; NFS: directory that is mounted, and the name in it ("/file") */
    char path[STORAGE_SOURCE_MAX + 1];
    char file[STORAGE_SOURCE_MAX + 1];
    uint16_t mount_port; /* 0 asks the portmapper */
    unsigned version;    /* 3 or 4 */
    bool has_uid, has_gid;
    uint32_t uid, gid;

    char user[STORAGE_USER_MAX + 1]; /* CHAP; "" none */
    char target[STORAGE_TARGET_MAX + 1];
    unsigned lun;
};

/* Errors begin with "disk SOURCE:" and never show a password. */
int storage_url_parse(const char *source, struct storage_url *out, struct err *e);

/* As above, and it is fit to be a domain's disk: NFS version 4 is not. */
int storage_url_check_disk(const char *source, struct storage_url *out, struct err *e);

/* "host:port" as libraries want it, an IPv6 address in brackets. */
void storage_url_portal(const struct storage_url *u, char *out, size_t size);

bool storage_url_is_network(const char *source);

#endif
