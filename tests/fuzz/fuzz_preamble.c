/* SPDX-License-Identifier: ISC */
/* Lines of the relocation port, both ways: what a client sends, and what a server answers. */
#include <stdlib.h>
#include <string.h>

#include "transport/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_be_text(const char *text)
{
    for (; *text != '\0'; text++)
        if (*text < ' ' || *text > '~')
            abort();
}

static void client_reads(const char *line)
{
    struct err e = { .code = ERR_NONE };

    if (greeting_check(line, "host2", &e) < 0)
        must_be_text(e.text);
    err_clear(&e);
    if (answer_check(line, "host2", &e) < 0)
        must_be_text(e.text);
}

static void server_answers(const char *line)
{
    char out[TR_LINE_MAX];

    if (tr_refusal(out, line) >= TR_LINE_MAX || tr_bad_request(out, line) >= TR_LINE_MAX ||
        tr_greeting(out, line) >= TR_LINE_MAX)
        abort();
    if (strcspn(out, "\r\n") + 2 != strlen(out))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = { .code = ERR_NONE };
    struct tr_preamble p;
    char *line;

    if (tr_preamble_parse((const char *)data, size, &p, &e) < 0)
        must_be_text(e.text);
    else if (p.request == TR_REQ_CHANNEL && (p.channel == 0 || p.channel > TR_CHANNELS_MAX))
        abort();
    line = calloc(1, size + 1);
    if (line == NULL)
        return 0;
    memcpy(line, data, size);
    client_reads(line);
    server_answers(line);
    free(line);
    return 0;
}
