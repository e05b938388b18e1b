/* SPDX-License-Identifier: ISC */
/*
 * A blob, all little-endian:
 *   "XVMSTATE"  u32 version = STATE_VERSION
 *   sections:   u16 n, n bytes of name, u32 section version, u32 len, len bytes
 * Limits, checked by writer and reader alike: HV_STATE_MAX bytes, STATE_SECTIONS sections,
 * names of 1 to STATE_NAME characters of [a-z0-9_.-], each name once. The parser keeps
 * pointers into the caller's bytes and allocates one table whose size does not depend on them.
 */
#include "hypervisor/xvm/state.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/hypervisor.h"

#define STATE_VERSION 1u
#define STATE_HEAD 12u
#define STATE_NAME 31u
#define STATE_SECTIONS 320u /* 256 vCPUs and some devices */

static const char magic[8] = { 'X', 'V', 'M', 'S', 'T', 'A', 'T', 'E' };

struct section {
    char name[STATE_NAME + 1];
    uint32_t version;
    const uint8_t *body;
    uint32_t len;
    bool taken;
};

struct state_blob {
    unsigned n;
    struct section s[STATE_SECTIONS];
};

static void put_le(uint8_t *p, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_le(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static bool name_ok(const char *name, size_t n)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789_.-";

    if (n == 0 || n > STATE_NAME)
        return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] == '\0' || strchr(allowed, name[i]) == NULL)
            return false;
    return true;
}

void state_writer_init(struct state_writer *w)
{
    uint8_t version[4];

    memset(w, 0, sizeof *w);
    put_le(version, STATE_VERSION, 4);
    state_put(w, magic, sizeof magic);
    state_put(w, version, sizeof version);
}

void state_put(struct state_writer *w, const void *data, size_t len)
{
    if (w->failed || len > HV_STATE_MAX - w->len) {
        w->failed = true;
        return;
    }
    if (len > w->cap - w->len) {
        size_t cap = (w->len + len) * 2 + 4096;
        uint8_t *p = realloc(w->data, cap);

        if (p == NULL) {
            w->failed = true;
            return;
        }
        w->data = p;
        w->cap = cap;
    }
    if (len != 0)
        memcpy(w->data + w->len, data, len);
    w->len += len;
}

void state_put_u32(struct state_writer *w, uint32_t v)
{
    uint8_t b[4];

    put_le(b, v, 4);
    state_put(w, b, 4);
}

void state_put_u64(struct state_writer *w, uint64_t v)
{
    uint8_t b[8];

    put_le(b, v, 8);
    state_put(w, b, 8);
}

void state_section_begin(struct state_writer *w, const char *name, uint32_t version)
{
    size_t n = strlen(name);
    uint8_t head[2];

    if (w->section_at != 0 || !name_ok(name, n)) {
        w->failed = true;
        return;
    }
    put_le(head, n, 2);
    state_put(w, head, 2);
    state_put(w, name, n);
    state_put_u32(w, version);
    w->section_at = w->len;
    state_put_u32(w, 0);
}

void state_section_end(struct state_writer *w)
{
    if (w->section_at == 0)
        w->failed = true;
    if (!w->failed)
        put_le(w->data + w->section_at, w->len - w->section_at - 4, 4);
    w->section_at = 0;
}

int state_finish(struct state_writer *w, uint8_t **blob, size_t *len, struct err *e)
{
    bool failed = w->failed || w->section_at != 0;

    *blob = NULL;
    *len = 0;
    if (!failed) {
        *blob = w->data;
        *len = w->len;
        w->data = NULL;
    }
    state_writer_dispose(w);
    return failed ? err_set(e, ERR_RESOURCE,
                        "domain state: no memory for it, or more than %u bytes", HV_STATE_MAX)
                  : 0;
}

void state_writer_dispose(struct state_writer *w)
{
    free(w->data);
    memset(w, 0, sizeof *w);
}

static int bad(struct err *e, const char *what, size_t at)
{
    return err_set(e, ERR_PROTOCOL, "domain state: %s at byte %zu", what, at);
}

/* One section from blob[*at]; moves *at behind it. */
static int parse_section(
    struct state_blob *b, const uint8_t *blob, size_t len, size_t *at, struct err *e)
{
    struct section *s = &b->s[b->n];
    size_t p = *at, n;

    if (b->n == STATE_SECTIONS)
        return bad(e, "too many sections", p);
    if (len - p < 2)
        return bad(e, "cut short", p);
    n = (size_t)get_le(blob + p, 2);
    p += 2;
    if (len - p < n + 8)
        return bad(e, "section head cut short", p);
    if (!name_ok((const char *)blob + p, n))
        return bad(e, "malformed section name", p);
    memcpy(s->name, blob + p, n);
    s->name[n] = '\0';
    p += n;
    s->version = (uint32_t)get_le(blob + p, 4);
    s->len = (uint32_t)get_le(blob + p + 4, 4);
    p += 8;
    if (len - p < s->len)
        return err_set(e, ERR_PROTOCOL, "domain state: section %s is cut short", s->name);
    for (unsigned i = 0; i < b->n; i++)
        if (strcmp(b->s[i].name, s->name) == 0)
            return err_set(e, ERR_PROTOCOL, "domain state: section %s comes twice", s->name);
    s->body = blob + p;
    b->n++;
    *at = p + s->len;
    return 0;
}

int state_parse(const uint8_t *blob, size_t len, struct state_blob **out, struct err *e)
{
    struct state_blob *b;
    size_t at = STATE_HEAD;

    *out = NULL;
    if (len > HV_STATE_MAX)
        return err_set(e, ERR_PROTOCOL, "domain state: %zu bytes, at most %u", len, HV_STATE_MAX);
    if (len < STATE_HEAD || memcmp(blob, magic, sizeof magic) != 0)
        return err_set(e, ERR_PROTOCOL, "domain state: this is not xvm's state");
    if (get_le(blob + 8, 4) != STATE_VERSION)
        return err_set(e, ERR_UNSUPPORTED, "domain state: version %u, this xvm reads %u",
            (unsigned)get_le(blob + 8, 4), STATE_VERSION);
    b = calloc(1, sizeof *b);
    if (b == NULL)
        return err_set(e, ERR_MEMORY, "domain state: out of memory");
    while (at < len) {
        if (parse_section(b, blob, len, &at, e) < 0) {
            free(b);
            return -1;
        }
    }
    *out = b;
    return 0;
}

void state_blob_free(struct state_blob **b)
{
    free(*b);
    *b = NULL;
}

int state_open(struct state_blob *b, const char *name, struct state_reader *r, struct err *e)
{
    for (unsigned i = 0; i < b->n; i++) {
        struct section *s = &b->s[i];

        if (strcmp(s->name, name) != 0)
            continue;
        s->taken = true;
        *r = (struct state_reader){ s->name, s->version, s->body, s->body + s->len };
        return 0;
    }
    return err_set(e, ERR_NOT_FOUND, "domain state: section %s is missing", name);
}

int state_all_taken(const struct state_blob *b, struct err *e)
{
    for (unsigned i = 0; i < b->n; i++)
        if (!b->s[i].taken)
            return err_set(e, ERR_UNSUPPORTED,
                "domain state: section %s is of no device that this domain has", b->s[i].name);
    return 0;
}

int state_get(struct state_reader *r, void *data, size_t len, struct err *e)
{
    if ((size_t)(r->end - r->p) < len)
        return err_set(e, ERR_PROTOCOL, "domain state: section %s is too short", r->name);
    if (len != 0)
        memcpy(data, r->p, len);
    r->p += len;
    return 0;
}

int state_get_u32(struct state_reader *r, uint32_t *v, struct err *e)
{
    uint8_t b[4];

    if (state_get(r, b, 4, e) < 0)
        return -1;
    *v = (uint32_t)get_le(b, 4);
    return 0;
}

int state_get_u64(struct state_reader *r, uint64_t *v, struct err *e)
{
    uint8_t b[8];

    if (state_get(r, b, 8, e) < 0)
        return -1;
    *v = get_le(b, 8);
    return 0;
}

int state_end(const struct state_reader *r, struct err *e)
{
    if (r->p != r->end)
        return err_set(e, ERR_PROTOCOL, "domain state: section %s has %zu bytes too many", r->name,
            (size_t)(r->end - r->p));
    return 0;
}
