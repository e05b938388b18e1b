/* SPDX-License-Identifier: ISC */
/*
 * identity: what a disk is, on this host; and whether two hosts mean the same one. Looking
 * is done by the program migrd-storage, one process per question, because servers hang and
 * libraries with them: storage_ask starts it, waits for it, and kills it when its time is
 * over. Comparing is pure. Replies are the caller's.
 */
#ifndef STORAGE_CHECK_IDENTITY_H
#define STORAGE_CHECK_IDENTITY_H

#include "base/checks.h"
#include "storage-check/storage.pb-c.h"

#define STORAGE_ASK_MS 20000

/* Blocks for at most timeout_ms (0: STORAGE_ASK_MS). A disk that could not be looked at is no
 * failure of the call: its identity says so. Free with migrd__storage_reply__free_unpacked. */
int storage_ask(
    const Migrd__StorageRequest *rq, unsigned timeout_ms, Migrd__StorageReply **out, struct err *e);

/* In migrd-storage itself: opens, asks, closes; may hang. Fills `out` (malloc'ed members). */
void storage_serve(const Migrd__StorageRequest *rq, Migrd__StorageReply *out);

/*
 * Is it the same disk, and safe to share? Adds a line for each thing that was compared. `disk` is
 * the definition; `answer` what the target read back of the source's challenge ("" and
 * `answer_error`: why not).
 */
void storage_compare(struct checks *c, const Migrd__Disk *disk, const Migrd__DiskIdentity *source,
    const Migrd__DiskIdentity *target, const char *answer, const char *answer_error);

#endif
