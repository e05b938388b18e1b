/* SPDX-License-Identifier: ISC */
/*
 * state: the bytes of a domain's vCPU and device state. A blob is a header (magic
 * "XVMSTATE", u32 version) and sections: u16 name length, name, u32 section version,
 * u32 body length, body; all little-endian. A reader knows each section's bounds and
 * refuses to leave them. Loading takes sections by name, in any order; an unknown
 * section is an error that names it, a missing one too.
 */
#ifndef XVM_STATE_H
#define XVM_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct state_writer {
    uint8_t *data;
    size_t len, cap;
    size_t section_at; /* offset of the open section's length word, 0 none */
    bool failed;       /* out of memory or too long: seen by state_finish */
};

void state_writer_init(struct state_writer *w); /* writes the header */
void state_section_begin(struct state_writer *w, const char *name, uint32_t version);
void state_section_end(struct state_writer *w);
void state_put(struct state_writer *w, const void *data, size_t len);
void state_put_u32(struct state_writer *w, uint32_t v);
void state_put_u64(struct state_writer *w, uint64_t v);
/* Hands the bytes over (free) or fails; the writer is empty afterwards. */
int state_finish(struct state_writer *w, uint8_t **blob, size_t *len, struct err *e);
void state_writer_dispose(struct state_writer *w);

/* A view of one section; the blob stays the caller's. */
struct state_reader {
    const char *name;
    uint32_t version;
    const uint8_t *p, *end;
};

struct state_blob; /* parsed table of sections */
int state_parse(const uint8_t *blob, size_t len, struct state_blob **out, struct err *e);
void state_blob_free(struct state_blob **b);
/* Marks it as taken; ERR_NOT_FOUND names it. */
int state_open(struct state_blob *b, const char *name, struct state_reader *r, struct err *e);
/* After loading: a section that nobody took is an error. */
int state_all_taken(const struct state_blob *b, struct err *e);

int state_get(struct state_reader *r, void *data, size_t len, struct err *e);
int state_get_u32(struct state_reader *r, uint32_t *v, struct err *e);
int state_get_u64(struct state_reader *r, uint64_t *v, struct err *e);
/* The section must be used up. */
int state_end(const struct state_reader *r, struct err *e);

#endif
