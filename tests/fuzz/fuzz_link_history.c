/* SPDX-License-Identifier: ISC */
/* The file of what migrations cost: what is taken reads again as the same text. */
#include <stdlib.h>
#include <string.h>

#include "migrd/link_history.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct link_history *h;
    char *text, *again;
    struct err e;

    if (h == NULL && (h = link_history_open("/nonexistent/link-history.json")) == NULL)
        abort();
    if (link_history_parse(h, (const char *)data, size, &e) < 0)
        return 0;
    text = link_history_text(h);
    if (text == NULL || link_history_parse(h, text, strlen(text), &e) < 0)
        abort();
    again = link_history_text(h);
    if (again == NULL || strcmp(text, again) != 0)
        abort();
    free(text);
    free(again);
    return 0;
}
