/* SPDX-License-Identifier: ISC */
/* migrd.conf: whatever is accepted is printed and read again as the same configuration. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_internal.h"
#include "base/log.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return log_open("fuzz", "/dev/null", NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *text = malloc(len + 1);
    struct config c, back;
    struct err e;

    memcpy(text, data, len);
    text[len] = '\0';
    if (config_read(&c, text, len, "f", &e) == 0) {
        free(text);
        text = config_print(&c);
        if (config_read(&back, text, strlen(text), "f", &e) != 0 ||
            memcmp(&c, &back, sizeof c) != 0)
            abort();
    }
    free(text);
    return 0;
}
