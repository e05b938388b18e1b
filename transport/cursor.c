/* SPDX-License-Identifier: ISC */
/* Steps through vectors; empty ones are stepped over without a trace. */
#include "transport/cursor.h"

void cursor_skip(struct cursor *cur, size_t bytes)
{
    while (cur->n > 0 && bytes >= cur->iov->iov_len - cur->off) {
        bytes -= cur->iov->iov_len - cur->off;
        cur->iov++;
        cur->n--;
        cur->off = 0;
    }
    cur->off += bytes;
}

uint8_t *cursor_take(struct cursor *cur, size_t limit, size_t *len)
{
    uint8_t *p;

    cursor_skip(cur, 0);
    p = (uint8_t *)cur->iov->iov_base + cur->off;
    *len = cur->iov->iov_len - cur->off;
    if (*len > limit)
        *len = limit;
    cur->off += *len;
    return p;
}

int cursor_peek(const struct cursor *cur, struct iovec *out, int max, size_t limit, size_t *bytes)
{
    size_t off = cur->off, sum = 0;
    int n = 0;

    for (int i = 0; i < cur->n && n < max && sum < limit; i++, off = 0) {
        size_t len = cur->iov[i].iov_len - off;

        if (len > limit - sum)
            len = limit - sum;
        if (len == 0)
            continue;
        out[n++] = (struct iovec){ (char *)cur->iov[i].iov_base + off, len };
        sum += len;
    }
    *bytes = sum;
    return n;
}
