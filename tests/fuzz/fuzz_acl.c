/* SPDX-License-Identifier: ISC */
/* The allow-list: input is LIST '\n' NAME '\n' ADDRESS. Checks end, and verdicts are consistent. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "relocation-acl/relocation-acl.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return log_open("fuzz", "/dev/null", NULL);
}

static void ignore(void *arg, const char *text)
{
    (void)arg;
    if (strlen(text) == 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *text = malloc(len + 1), *name, *address;
    struct acl_verdict v;
    struct acl *a;
    struct err e;

    memcpy(text, data, len);
    text[len] = '\0';
    name = strchr(text, '\n');
    address = name == NULL ? NULL : strchr(name + 1, '\n');
    if (address != NULL) {
        *name++ = '\0';
        *address++ = '\0';
        if (acl_compile(text, true, ignore, NULL, &a, &e) == 0) {
            acl_check(a, name, address, &v);
            if (v.allowed != (v.expression >= 0) && text[0] != '\0')
                abort();
            if (acl_admits_address(a, address) && !v.allowed)
                abort();
            acl_free(&a);
        }
    }
    free(text);
    return 0;
}
