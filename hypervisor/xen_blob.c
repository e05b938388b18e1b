/* SPDX-License-Identifier: ISC */
/*
 * Sections, each of version 1; integers little-endian as in the container:
 *
 *   vcpus    u32
 *   cpuid    u32 count; count x u32 leaf, subleaf, eax, ebx, ecx, edx
 *   msrs     u32 count; count x u32 index, u32 flags, u64 value
 *   tsc      u32 mode, u32 kHz, u32 incarnation, u64 ns
 *   params   u32 count; count x u64 index, u64 value; no index twice
 *   context  u32 length; the HVM context: entries of u16 type, u16 instance, u32 length, body;
 *            the first is the header (type 1), the last the end (type 0) without a body
 */
#include "hypervisor/xen_blob.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/xvm/state.h"

#define VERSION 1
#define DESCRIPTOR 8u

/* Of Xen's public headers (arch-x86/hvm/save.h), which are not everywhere. */
enum { TYPE_END = 0, TYPE_HEADER = 1, TYPE_MAX = 64 };
#define HEADER_LEN 24u
#define HEADER_MAGIC 0x54381286u
#define HEADER_VERSION 1u

/* --- writing --- */

static void put_cpu(struct state_writer *w, const struct xen_blob *b)
{
    state_section_begin(w, "cpuid", VERSION);
    state_put_u32(w, b->n_leaves);
    for (uint32_t i = 0; i < b->n_leaves; i++) {
        const struct xen_blob_leaf *l = &b->leaf[i];
        const uint32_t v[] = { l->leaf, l->subleaf, l->a, l->b, l->c, l->d };

        for (size_t k = 0; k < sizeof v / sizeof v[0]; k++)
            state_put_u32(w, v[k]);
    }
    state_section_end(w);
    state_section_begin(w, "msrs", VERSION);
    state_put_u32(w, b->n_msrs);
    for (uint32_t i = 0; i < b->n_msrs; i++) {
        state_put_u32(w, b->msr[i].index);
        state_put_u32(w, b->msr[i].flags);
        state_put_u64(w, b->msr[i].value);
    }
    state_section_end(w);
}

static void put_rest(struct state_writer *w, const struct xen_blob *b)
{
    state_section_begin(w, "tsc", VERSION);
    state_put_u32(w, b->tsc.mode);
    state_put_u32(w, b->tsc.khz);
    state_put_u32(w, b->tsc.incarnation);
    state_put_u64(w, b->tsc.ns);
    state_section_end(w);
    state_section_begin(w, "params", VERSION);
    state_put_u32(w, b->n_params);
    for (uint32_t i = 0; i < b->n_params; i++) {
        state_put_u64(w, b->param[i].index);
        state_put_u64(w, b->param[i].value);
    }
    state_section_end(w);
    state_section_begin(w, "context", VERSION);
    state_put_u32(w, b->context_len);
    state_put(w, b->context, b->context_len);
    state_section_end(w);
}

int xen_blob_pack(const struct xen_blob *b, uint8_t **out, size_t *len, struct err *e)
{
    struct state_writer w;

    state_writer_init(&w);
    state_section_begin(&w, "vcpus", VERSION);
    state_put_u32(&w, b->vcpus);
    state_section_end(&w);
    put_cpu(&w, b);
    put_rest(&w, b);
    return state_finish(&w, out, len, e);
}

/* --- reading --- */

static int open_section(
    struct state_blob *s, const char *name, struct state_reader *r, struct err *e)
{
    if (state_open(s, name, r, e) < 0)
        return -1;
    if (r->version != VERSION)
        return err_set(e, ERR_UNSUPPORTED,
            "domain state: section %s is of version %u, this host knows %d; update it", name,
            (unsigned)r->version, VERSION);
    return 0;
}

static int get_count(struct state_reader *r, uint32_t most, uint32_t *n, struct err *e)
{
    if (state_get_u32(r, n, e) < 0)
        return -1;
    if (*n > most)
        return err_set(e, ERR_PROTOCOL, "domain state: section %s has %u entries, at most %u",
            r->name, (unsigned)*n, (unsigned)most);
    return 0;
}

static int get_vcpus(struct state_blob *s, struct xen_blob *b, struct err *e)
{
    struct state_reader r;

    return open_section(s, "vcpus", &r, e) < 0 || state_get_u32(&r, &b->vcpus, e) < 0 ||
                   state_end(&r, e) < 0
               ? -1
               : 0;
}

static int get_leaves(struct state_blob *s, struct xen_blob *b, struct err *e)
{
    struct state_reader r;

    if (open_section(s, "cpuid", &r, e) < 0 ||
        get_count(&r, XEN_BLOB_LEAVES_MAX, &b->n_leaves, e) < 0)
        return -1;
    for (uint32_t i = 0; i < b->n_leaves; i++) {
        struct xen_blob_leaf *l = &b->leaf[i];
        uint32_t *const v[] = { &l->leaf, &l->subleaf, &l->a, &l->b, &l->c, &l->d };

        for (size_t k = 0; k < sizeof v / sizeof v[0]; k++)
            if (state_get_u32(&r, v[k], e) < 0)
                return -1;
    }
    return state_end(&r, e);
}

static int get_msrs(struct state_blob *s, struct xen_blob *b, struct err *e)
{
    struct state_reader r;

    if (open_section(s, "msrs", &r, e) < 0 || get_count(&r, XEN_BLOB_MSRS_MAX, &b->n_msrs, e) < 0)
        return -1;
    for (uint32_t i = 0; i < b->n_msrs; i++)
        if (state_get_u32(&r, &b->msr[i].index, e) < 0 ||
            state_get_u32(&r, &b->msr[i].flags, e) < 0 ||
            state_get_u64(&r, &b->msr[i].value, e) < 0)
            return -1;
    return state_end(&r, e);
}

static int get_tsc(struct state_blob *s, struct xen_blob *b, struct err *e)
{
    struct state_reader r;

    return open_section(s, "tsc", &r, e) < 0 || state_get_u32(&r, &b->tsc.mode, e) < 0 ||
                   state_get_u32(&r, &b->tsc.khz, e) < 0 ||
                   state_get_u32(&r, &b->tsc.incarnation, e) < 0 ||
                   state_get_u64(&r, &b->tsc.ns, e) < 0 || state_end(&r, e) < 0
               ? -1
               : 0;
}

static int get_params(struct state_blob *s, struct xen_blob *b, struct err *e)
{
    struct state_reader r;

    if (open_section(s, "params", &r, e) < 0 ||
        get_count(&r, XEN_BLOB_PARAMS_MAX, &b->n_params, e) < 0)
        return -1;
    for (uint32_t i = 0; i < b->n_params; i++) {
        if (state_get_u64(&r, &b->param[i].index, e) < 0 ||
            state_get_u64(&r, &b->param[i].value, e) < 0)
            return -1;
        for (uint32_t k = 0; k < i; k++)
            if (b->param[k].index == b->param[i].index)
                return err_set(e, ERR_PROTOCOL, "domain state: section params has one twice");
    }
    return state_end(&r, e);
}

static int get_context(struct state_blob *s, struct xen_blob *b, struct err *e)
{
    struct state_reader r;

    if (open_section(s, "context", &r, e) < 0 ||
        get_count(&r, XEN_BLOB_CONTEXT_MAX, &b->context_len, e) < 0)
        return -1;
    if (b->context_len > (size_t)(r.end - r.p))
        return err_set(e, ERR_PROTOCOL, "domain state: section context is cut short");
    b->context = malloc((size_t)b->context_len + 1);
    if (b->context == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the state of a domain");
    return state_get(&r, b->context, b->context_len, e) < 0 || state_end(&r, e) < 0 ? -1 : 0;
}

static int get_all(struct state_blob *s, struct xen_blob *b, struct err *e)
{
    if (get_vcpus(s, b, e) < 0 || get_leaves(s, b, e) < 0 || get_msrs(s, b, e) < 0 ||
        get_tsc(s, b, e) < 0 || get_params(s, b, e) < 0 || get_context(s, b, e) < 0 ||
        state_all_taken(s, e) < 0)
        return -1;
    return xen_context_check(b->context, b->context_len, b->vcpus, e);
}

int xen_blob_parse(const uint8_t *data, size_t len, struct xen_blob **out, struct err *e)
{
    struct xen_blob *b = calloc(1, sizeof *b);
    struct state_blob *s;
    int rc;

    *out = NULL;
    if (b == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the state of a domain");
    if (state_parse(data, len, &s, e) < 0) {
        free(b);
        return -1;
    }
    rc = get_all(s, b, e);
    state_blob_free(&s);
    if (rc < 0)
        xen_blob_free(&b);
    *out = b;
    return rc;
}

void xen_blob_free(struct xen_blob **b)
{
    if (*b == NULL)
        return;
    free((*b)->context);
    free(*b);
    *b = NULL;
}

/* --- the HVM context --- */

static int malformed(struct err *e, const char *what)
{
    return err_set(e, ERR_PROTOCOL, "domain state: section context %s", what);
}

int xen_context_next(
    const uint8_t *context, size_t len, size_t *at, struct xen_context_entry *out, struct err *e)
{
    const uint8_t *p = context + *at;

    if (len - *at < DESCRIPTOR)
        return malformed(e, "has no end");
    memcpy(&out->type, p, sizeof out->type);
    memcpy(&out->instance, p + 2, sizeof out->instance);
    memcpy(&out->len, p + 4, sizeof out->len);
    out->body = p + DESCRIPTOR;
    if (out->len > len - *at - DESCRIPTOR)
        return malformed(e, "is cut short");
    *at += DESCRIPTOR + out->len;
    return out->type == TYPE_END ? 0 : 1;
}

static int check_header(const struct xen_context_entry *h, struct err *e)
{
    uint32_t magic, version;

    if (h->type != TYPE_HEADER || h->len < HEADER_LEN)
        return malformed(e, "does not begin with its header");
    memcpy(&magic, h->body, sizeof magic);
    memcpy(&version, h->body + 4, sizeof version);
    if (magic != HEADER_MAGIC || version != HEADER_VERSION)
        return err_set(e, ERR_UNSUPPORTED,
            "domain state: section context is of a kind that this host does not know (%u)",
            (unsigned)version);
    return 0;
}

int xen_context_check(const uint8_t *context, size_t len, uint32_t vcpus, struct err *e)
{
    struct xen_context_entry entry = { 0 };
    bool first = true;
    size_t at = 0;
    int r;

    while ((r = xen_context_next(context, len, &at, &entry, e)) == 1) {
        if (first ? check_header(&entry, e) < 0 : entry.type == TYPE_HEADER)
            return first ? -1 : malformed(e, "has two headers");
        if (entry.type >= TYPE_MAX)
            return malformed(e, "has an entry of a kind that Xen does not know");
        if (entry.instance >= vcpus && entry.instance > 1) /* there are two interrupt controllers */
            return malformed(e, "tells of a vCPU that the domain has not");
        first = false;
    }
    if (r < 0)
        return -1;
    if (first || entry.len != 0 || at != len)
        return malformed(e, "does not end where it should");
    return 0;
}
