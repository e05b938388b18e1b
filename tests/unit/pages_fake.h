/* SPDX-License-Identifier: ISC */
/*
 * pages_fake: two small guests and the bytes between them, for tests of the page codec
 * without sockets, threads or processes. Pages of the target may lie apart in memory, as
 * a hypervisor that maps foreign memory has them.
 */
#ifndef PAGES_FAKE_H
#define PAGES_FAKE_H

#include <stdlib.h>
#include <string.h>

#include "precopy/pages.h"

#define PF_PAGES 2048u
#define PF_REGION 700u /* the second region begins here */

struct pf_pipe {
    uint8_t *data;
    size_t len, at, room;
};

struct hv_mig { /* one guest */
    uint8_t *mem;
    bool apart; /* pages in reverse order */
};

static const struct hv_layout pf_layout = { .n = 2,
    .region = { { 0, PF_REGION }, { PF_REGION, PF_PAGES - PF_REGION } },
    .max_gfn = PF_PAGES - 1 };

static inline uint8_t *pf_page(const struct hv_mig *m, uint64_t gfn)
{
    return m->mem + (m->apart ? PF_PAGES - 1 - gfn : gfn) * HV_PAGE_SIZE;
}

static inline int pf_map(struct hv_mig *m, const uint64_t *gfn, size_t n, bool write,
    struct hv_mapping *map, struct err *e)
{
    (void)write;
    (void)e;
    for (size_t i = 0; i < n; i++)
        map->page[i] = pf_page(m, gfn[i]);
    map->n = n;
    return 0;
}

static inline void pf_unmap(struct hv_mig *m, struct hv_mapping *map)
{
    (void)m;
    map->n = 0;
}

static inline int pf_zero(struct hv_mig *m, uint64_t gfn, uint64_t n, struct err *e)
{
    (void)e;
    for (uint64_t i = 0; i < n; i++)
        memset(pf_page(m, gfn + i), 0, HV_PAGE_SIZE);
    return 0;
}

static const struct hv_ops pf_ops = {
    .mig_map = pf_map, .mig_unmap = pf_unmap, .mig_zero = pf_zero
};

static inline int pf_writev(void *ctx, const struct iovec *iov, int n, struct err *e)
{
    struct pf_pipe *p = ctx;

    (void)e;
    for (int i = 0; i < n; i++) {
        if (p->len + iov[i].iov_len > p->room) {
            p->room = (p->len + iov[i].iov_len) * 2;
            p->data = realloc(p->data, p->room);
        }
        memcpy(p->data + p->len, iov[i].iov_base, iov[i].iov_len);
        p->len += iov[i].iov_len;
    }
    return 0;
}

static inline int pf_readv(void *ctx, const struct iovec *iov, int n, struct err *e)
{
    struct pf_pipe *p = ctx;

    for (int i = 0; i < n; i++) {
        if (p->len - p->at < iov[i].iov_len)
            return err_set(e, ERR_PEER, "the bytes end here");
        memcpy(iov[i].iov_base, p->data + p->at, iov[i].iov_len);
        p->at += iov[i].iov_len;
    }
    return 0;
}

static inline void pf_guest(struct hv_mig *m, bool apart)
{
    m->mem = aligned_alloc(HV_PAGE_SIZE, (size_t)PF_PAGES * HV_PAGE_SIZE);
    m->apart = apart;
    memset(m->mem, 0, (size_t)PF_PAGES * HV_PAGE_SIZE);
}

static inline struct pages_writer *pf_writer(struct hv_mig *m, struct pf_pipe *p)
{
    struct pages_writer *w = calloc(1, sizeof *w);

    w->ops = &pf_ops;
    w->mig = m;
    w->layout = &pf_layout;
    w->port = (struct pages_port){ pf_writev, pf_readv, p };
    w->channel = w->channels = 1;
    return w;
}

static inline struct pages_reader *pf_reader(
    struct hv_mig *m, struct pf_pipe *p, unsigned encodings)
{
    struct pages_reader *r = calloc(1, sizeof *r);

    r->ops = &pf_ops;
    r->mig = m;
    r->layout = &pf_layout;
    r->port = (struct pages_port){ pf_writev, pf_readv, p };
    r->channel = r->channels = 1;
    r->encodings = encodings;
    return r;
}

#endif
