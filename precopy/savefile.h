/* SPDX-License-Identifier: ISC */
/*
 * savefile: a domain in a file, for `xm save` and `xm restore`: the messages and frames
 * of a migration with nobody at the other end. Little-endian:
 *
 *   "MGRDSAVE"  u32 version (1)  u32 zero
 *   block: Offer          (migration empty, one channel)
 *   frames of channel 1, round 0, ending with FRAME_ROUND_END and FRAME_END
 *   block: FinalState
 *
 * A block is u32 length, u32 zero, u64 XXH3-64 of the bytes, and the packed message.
 * What is read is checked exactly as what a peer sends.
 */
#ifndef SAVEFILE_H
#define SAVEFILE_H

#include <stdint.h>

#include "base/err.h"
#include "precopy/pages.h"
#include "transport/session.pb-c.h"

#define SAVEFILE_MAGIC "MGRDSAVE"
#define SAVEFILE_VERSION 1

int savefile_write_head(int fd, const Migrd__Offer *o, struct err *e);
int savefile_write_final(int fd, const Migrd__FinalState *f, struct err *e);

/* Free with migrd__offer__free_unpacked, migrd__final_state__free_unpacked. NULL on failure. */
Migrd__Offer *savefile_read_head(int fd, struct err *e);
Migrd__FinalState *savefile_read_final(int fd, struct err *e);

/* The stream of frames in between. */
struct pages_port savefile_port(int *fd);

#endif
