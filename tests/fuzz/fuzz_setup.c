/* SPDX-License-Identifier: ISC */
/*
 * A corosync.conf or a bundle of any bytes; what is taken for good must be written and read again
 * as the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/setup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void and_back(const struct setup *s, char *text,
    int (*read)(struct setup *s, const char *text, size_t len, struct err *e), bool whole)
{
    static struct setup back;
    struct err e;

    if (text == NULL)
        abort();
    if (read(&back, text, strlen(text), &e) < 0 || back.n != s->n || back.token != s->token ||
        memcmp(back.node, s->node, sizeof s->node) != 0 ||
        (whole && memcmp(back.key, s->key, sizeof s->key) != 0))
        abort();
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct setup s;
    struct err e;

    if (size == 0)
        return 0;
    if (data[0] == '{') {
        if (setup_read_bundle(&s, (const char *)data, size, &e) == 0)
            and_back(&s, setup_bundle(&s), setup_read_bundle, true);
    } else if (setup_read_conf(&s, (const char *)data, size, &e) == 0 && setup_check(&s, &e) == 0) {
        and_back(&s, setup_conf(&s, NULL), setup_read_conf, false);
    }
    return 0;
}
