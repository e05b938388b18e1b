/* SPDX-License-Identifier: ISC */
/* Answers of a foreign SCSI device: each parser gets the same bytes; texts end, counts stay in
 * limits. */
#include <stdlib.h>
#include <string.h>

#include "storage-check/vpd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_text(const char *text)
{
    if (strlen(text) >= VPD_NAME_LEN)
        abort();
    for (const char *p = text; *p != '\0'; p++)
        if (*p < 0x20 || *p > 0x7e)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct vpd_name names[VPD_NAMES_MAX];
    char serial[VPD_NAME_LEN];
    uint64_t bytes, keys[VPD_KEYS_MAX];
    uint32_t block;
    unsigned type;
    size_t n = vpd_names(data, len, names);

    if (n > VPD_NAMES_MAX)
        abort();
    for (size_t i = 0; i < n; i++)
        check_text(names[i].value);
    vpd_serial(data, len, serial);
    check_text(serial);
    if (vpd_capacity(data, len, &bytes, &block) && (bytes == 0 || bytes % block != 0))
        abort();
    if (vpd_keys(data, len, keys) > VPD_KEYS_MAX)
        abort();
    vpd_holder(data, len, keys, &type);
    vpd_write_protected(data, len);
    vpd_can_reserve(data, len);
    return 0;
}
