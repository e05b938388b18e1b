/* SPDX-License-Identifier: ISC */
/*
 * folder: RUN_DIR/<uuid>/, what is kept of a domain beside Xen and xenstore. `lock` in it is
 * held (flock) by who builds, claims or destroys the domain, and by who removes the folder;
 * a holder that dies lets go of it. Marks are small files: a name, and perhaps a line.
 */
#ifndef XEN_FOLDER_H
#define XEN_FOLDER_H

#include <stdbool.h>

#include "base/err.h"
#include "hypervisor/domain.pb-c.h"
#include "hypervisor/rundir.h"

/* A build that has not ended: what Xen has of it never ran. */
#define FOLDER_BUILDING "building"
/* It came by a migration and has not run here; its content is FOLDER_LOADED once it may. */
#define FOLDER_INCOMING "incoming"
#define FOLDER_LOADED "loaded"
/* What of an incoming one is attached, see attach.c; last lines of it. */
#define FOLDER_ATTACH "attach"
#define FOLDER_ATTACH_WHOLE "whole"
#define FOLDER_ATTACH_FAILED "failed "
#define FOLDER_ATTACH_MAX 8192 /* bytes of it that are read */
/* Of an incoming one: its interfaces and disks are attached. */
#define FOLDER_CLAIMED "claimed"
/* Of an incoming PV guest: the socket that its memory comes by, see pv.h. */
#define FOLDER_STREAM "stream"
/* Somebody migrates it, see mig.c. */
#define FOLDER_MIGRATION "migration"

/* Locks it for up to wait_ms, `make`: makes it first. A descriptor to be closed; -1: ERR_NOT_FOUND
 * (no such folder), ERR_TIMEOUT (somebody else has it). */
int folder_lock(const char *dir, bool make, unsigned wait_ms, struct err *e);

bool folder_has(const char *dir, const char *mark);
int folder_mark(const char *dir, const char *mark, const char *line, struct err *e);
void folder_unmark(const char *dir, const char *mark);
/* Is the mark there with just that line? */
bool folder_says(const char *dir, const char *mark, const char *line);

/* xen-domain's own log of that domain: LOG_DIR/xen-UUID.log. */
void folder_log_path(const char *log_dir, const char *uuid, char out[RUNDIR_LEN]);
/* Its domain has ended: the log goes if nothing is in it. */
void folder_drop_log(const char *log_dir, const char *uuid);

int folder_put_definition(const char *dir, const Migrd__Domain *def, struct err *e);
/* NULL: ERR_NOT_FOUND if there is none, or it cannot be read. */
Migrd__Domain *folder_definition(const char *dir, struct err *e);

#endif
