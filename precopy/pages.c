/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "precopy/pages_internal.h"

#include <sys/mman.h>

uint64_t bitmap_count(const uint64_t *b, size_t words)
{
    uint64_t n = 0;

    for (size_t i = 0; i < words; i++)
        n += (unsigned)__builtin_popcountll(b[i]);
    return n;
}

void bitmap_or(uint64_t *to, const uint64_t *from, size_t words)
{
    for (size_t i = 0; i < words; i++)
        to[i] |= from[i];
}

void pages_total_add(struct pages_total *t, const struct pages_count *c)
{
    t->skipped += atomic_load_explicit(&c->skipped, memory_order_relaxed);
    t->bytes += atomic_load_explicit(&c->bytes, memory_order_relaxed);
    t->frames += atomic_load_explicit(&c->frames, memory_order_relaxed);
    for (unsigned i = 0; i < FRAME_ENCODINGS; i++) {
        uint64_t n = atomic_load_explicit(&c->pages[i], memory_order_relaxed);

        t->pages[i] += n;
        t->data[i] += atomic_load_explicit(&c->data[i], memory_order_relaxed);
        *(i == FRAME_ZERO ? &t->zero : &t->sent) += n;
    }
}

void pages_count_frame(struct pages_count *c, const struct pages_frame *f)
{
    uint64_t pages[FRAME_ENCODINGS] = { 0 }, data[FRAME_ENCODINGS] = { 0 };

    for (uint32_t i = 0; i < f->head.runs; i++) {
        pages[f->run[i].encoding] += f->run[i].pages;
        data[f->run[i].encoding] += f->run[i].length;
    }
    for (unsigned i = 0; i < FRAME_ENCODINGS; i++) {
        if (pages[i] == 0)
            continue;
        pages_count_add(&c->pages[i], pages[i]);
        pages_count_add(&c->data[i], data[i]);
    }
    pages_count_add(&c->frames, 1);
    pages_count_add(&c->bytes, sizeof f->head + pages_runs_bytes(&f->head) + f->head.payload);
}

/* iov[0] is made to cover the run entries alone for the time of the digest. */
uint64_t pages_digest(struct pages_frame *f, struct iovec *iov, int n)
{
    struct iovec head = iov[0];
    uint64_t digest;

    iov[0] = (struct iovec){ f->run, pages_runs_bytes(&f->head) };
    digest = frame_digest(iov, (f->head.flags & FRAME_F_LIVE) != 0 ? 1 : n);
    iov[0] = head;
    return digest;
}

int pages_add_iov(struct iovec *iov, int n, uint8_t *at, size_t len)
{
    /* iov[0] is the header's: it must not be merged with. */
    if (n > 1 && (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == at) {
        iov[n - 1].iov_len += len;
        return n;
    }
    iov[n] = (struct iovec){ at, len };
    return n + 1;
}

uint8_t *pages_buffer(void)
{
    void *p = mmap(NULL, FRAME_PAYLOAD_MAX, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void pages_buffer_free(uint8_t **b)
{
    if (*b != NULL)
        munmap(*b, FRAME_PAYLOAD_MAX);
    *b = NULL;
}
