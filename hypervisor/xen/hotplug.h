/* SPDX-License-Identifier: ISC */
/*
 * hotplug: what Xen's scripts vif-bridge and block do to a backend's device, for the plain cases,
 * without a shell. libxl runs the program xen-hotplug, which calls one of these and leaves
 * to Xen's script what they do not take on. Nothing here stays in memory; `struct hotplug`
 * and all it names are the caller's.
 */
#ifndef XEN_HOTPLUG_H
#define XEN_HOTPLUG_H

#include <stddef.h>

#include "base/err.h"

#define HOTPLUG_LEN 1024

/* xenstore, or what a test puts in its place. */
struct hotplug_store {
    void *of;
    /* The caller frees; NULL and errno ENOENT: there is no such node. */
    char *(*read)(void *of, const char *path);
    int (*write)(void *of, const char *path, const char *value); /* 0, or -1 and errno */
    /* The names below; the caller frees, at one go. NULL: none. */
    char **(*list)(void *of, const char *path, unsigned *n);
};

struct hotplug {
    const struct hotplug_store *store;
    const char *path;    /* of the backend's device: /local/domain/0/backend/vif/DOMID/DEVID */
    const char *dev;     /* of a vif: the interface that the kernel made */
    const char *scripts; /* Xen's folder of scripts */
    const char *locks;   /* the folder of the scripts' locks */
};

enum hotplug_result {
    HOTPLUG_DONE,
    HOTPLUG_SCRIPT, /* nothing was changed, Xen's script shall do it: *e tells why */
    HOTPLUG_FAILED  /* *e tells why */
};

#define HOTPLUG_SCRIPTS "/etc/xen/scripts"
#define HOTPLUG_LOCKS "/var/run/xen-hotplug" /* LOCK_BASEDIR of Xen's locking.sh */

/* verb: "online", "offline". */
enum hotplug_result hotplug_vif(const struct hotplug *h, const char *verb, struct err *e);
/* verb: "add", "remove". */
enum hotplug_result hotplug_block(const struct hotplug *h, const char *verb, struct err *e);
/* Tells libxl, and who looks into the store, that it failed. */
void hotplug_tell_error(const struct hotplug *h, const char *text);

/* --- hotplug.c: what both use --- */

/* A node of the device; 0, or -1 if there is none, *out is "" then. One too long, or that cannot be
 * read, is none that one could work with: 1. */
int hotplug_read(const struct hotplug *h, const char *name, char *out, size_t size);
int hotplug_write(const struct hotplug *h, const char *name, const char *value, struct err *e);
/* HOTPLUG_SCRIPT; e becomes "what: why". */
enum hotplug_result hotplug_leave(struct err *e, const char *what, const char *why);
/* Waits for the lock that the scripts take as well; a descriptor, or -1. */
int hotplug_lock(const struct hotplug *h, const char *name, struct err *e);
void hotplug_unlock(const struct hotplug *h, const char *name, int fd);

#endif
