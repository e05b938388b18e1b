/* SPDX-License-Identifier: ISC */
/*
 * identity: what a disk is, on this host; and whether two hosts mean the same one. Looking
 * is done by the program migrd-storage, one process per question, because servers hang and
 * libraries with them: storage_ask starts it, waits for it, and kills it when its time is
 * over. Comparing is pure. Replies are the caller's.
 */
#ifndef STORAGE_CHECK_IDENTITY_H
#define STORAGE_CHECK_IDENTITY_H

#include <stdbool.h>
#include <stdio.h>

#include "base/checks.h"
#include "storage-check/storage.pb-c.h"

#define STORAGE_ASK_MS 20000

/* Blocks for at most timeout_ms (0: STORAGE_ASK_MS, or what the request's own time-out needs). A
 * disk that could not be looked at is no failure of the call: its identity says so. Free with
 * migrd__storage_reply__free_unpacked. */
int storage_ask(
    const Migrd__StorageRequest *rq, unsigned timeout_ms, Migrd__StorageReply **out, struct err *e);

/* In migrd-storage itself: looks at all disks at once, a child each; disks that did not answer
 * within rq->timeout_ms say so. Fills `out` (malloc'ed members). */
void storage_serve(const Migrd__StorageRequest *rq, Migrd__StorageReply *out);

/*
 * Is it the same disk, and safe to share? Adds a line for each thing that was compared. `disk` is
 * the definition; `answer` what the target read back of the source's challenge ("" and
 * `answer_error`: why not).
 */
void storage_compare(struct checks *c, const Migrd__Disk *disk, const Migrd__DiskIdentity *source,
    const Migrd__DiskIdentity *target, const char *answer, const char *answer_error);

/* What to open for a disk on this host: its source, but for a block device with a WWN another
 * path if the device at that one has another name today. */
int storage_path(const Migrd__Disk *disk, char *out, size_t size, struct err *e);

/* --- for the tools that people use: migrd-storage identify, migctl storage check */

/* `n` disks that are `like` but for their source; one piece of memory, free it. */
Migrd__Disk **storage_disks(const Migrd__Disk *like, char *const *sources, size_t n);
/* All of a reply as text or as JSON; true if every disk can be used. */
bool storage_show(const Migrd__StorageReply *r, bool json, FILE *to);

#endif
