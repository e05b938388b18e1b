/* SPDX-License-Identifier: ISC */
/*
 * ask_disks: storage_ask for those who go on whatever comes of it: a question that could not
 * be asked at all is an error of each disk. The reply has an identity, an answer and an
 * answer's error for each disk of the request.
 */
#ifndef STORAGE_CHECK_ASK_DISKS_H
#define STORAGE_CHECK_ASK_DISKS_H

#include "storage-check/storage.pb-c.h"

/* Blocks like storage_ask. NULL only without memory. Free with
 * migrd__storage_reply__free_unpacked. */
Migrd__StorageReply *storage_ask_disks(const Migrd__StorageRequest *rq, unsigned timeout_ms);

#endif
