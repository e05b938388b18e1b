/* SPDX-License-Identifier: ISC */
/* CPU levels: any text is taken or refused; what is taken only takes features away, and what is
 * left is a level again that gives the same. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/cpu_level.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void every_feature(struct hv_caps *c, const char *vendor)
{
    memset(c, 0, sizeof *c);
    for (unsigned w = 0; hv_feature_word_name(w) != NULL; w++)
        c->features[w] = UINT32_MAX;
    strcpy(c->cpu_vendor, vendor);
    c->features[8] = 0x2e7;
    c->xcr0 = 0x2e7;
    c->xsave_size = 2696;
}

static void check(const char *text, const char *vendor)
{
    struct hv_caps all, some, again;
    char back[CPU_LEVEL_MAX];
    struct err e;

    every_feature(&all, vendor);
    some = all;
    if (cpu_level_apply(text, &some, &e) < 0)
        return;
    if (cpu_level_missing(some.features, HV_FEATURE_WORDS, all.features, NULL, 0) != 0 ||
        (some.xcr0 & ~all.xcr0) != 0 || some.xsave_size > all.xsave_size)
        abort();
    if (cpu_level_common(&some, 1, back, &e) < 0)
        return; /* too long a text */
    again = all;
    if (cpu_level_apply(back, &again, &e) < 0 || again.xcr0 != some.xcr0)
        abort();
    if (cpu_level_missing(some.features, HV_FEATURE_WORDS, again.features, NULL, 0) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char text[512];
    struct err e;
    int ok;

    if (len >= sizeof text || memchr(data, '\0', len) != NULL)
        return 0;
    memcpy(text, data, len);
    text[len] = '\0';
    ok = cpu_level_check(text, &e);
    if (ok == 0 && strlen(text) >= CPU_LEVEL_MAX)
        abort();
    if (ok < 0 && e.text[0] == '\0')
        abort();
    check(text, "GenuineIntel");
    check(text, "AuthenticAMD");
    return 0;
}
