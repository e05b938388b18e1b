/* SPDX-License-Identifier: ISC */
/*
 * record: the flight record of a decision core, a file with all that it was given, so that what it
 * decided can be looked at again with `ha-sim --replay FILE`. The writer never makes the daemon
 * fail, nor wait: the disk is a thread's; a file that can't be written ends the recording and is
 * said once. It owns its file; nothing that it is given is kept. The reader takes bytes that may be
 * damaged.
 *
 * The file: "MIGRDHA1", then frames: length and XXH32 of the payload as 32-bit little-endian
 * numbers, and an HaFlightFrame (record.proto): a start, its saved records, events. When the
 * file has reached its limit it becomes FILE.1 and a new one begins with the records of that
 * moment.
 */
#ifndef CLUSTER_RECORD_H
#define CLUSTER_RECORD_H

#include "cluster/core.h"

#define FLIGHT_FRAME_MAX (8u << 20)
#define FLIGHT_SAVED_MAX (1u << 20) /* saved records of a core */

struct flight;

/* `limit`: bytes of the file before it is turned over. NULL: it can't be made. */
struct flight *flight_open(const char *path, size_t limit, const struct ha_config *config,
    const struct ha_record *saved, size_t n, uint64_t now, struct err *e);
/* Before the step. True: the limit is reached; flight_turn() with what the disk has is due. */
bool flight_event(struct flight *f, const struct ha_event *event, uint64_t now);
void flight_turn(struct flight *f, const struct ha_record *saved, size_t n, uint64_t now);
/* Gets on the disk soon: before a fence, or after an alarm. */
void flight_sync(struct flight *f);
void flight_close(struct flight **f);

struct flight_reader;

/* The bytes stay the caller's, and must outlive the reader. NULL: not a flight record. */
struct flight_reader *flight_read(const void *bytes, size_t len, struct err *e);
/* What the core began with; the reader's, until it is freed. */
const struct ha_config *flight_config(const struct flight_reader *r);
const struct ha_record *flight_saved(const struct flight_reader *r, size_t *n, uint64_t *now);
bool flight_continued(const struct flight_reader *r);
/* 1: *event, good until the next call; 0: the end; -1: damaged there. A last frame that is cut off
 * is the end. */
int flight_next(struct flight_reader *r, struct ha_event *event, uint64_t *now, struct err *e);
void flight_read_free(struct flight_reader **r);

#endif
