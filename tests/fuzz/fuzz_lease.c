/* SPDX-License-Identifier: ISC */
/* Records and names of leases, as another host or a person with an editor may leave them. */
#include <stdlib.h>
#include <string.h>

#include "storage-check/lease_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_record(const uint8_t *data, size_t size)
{
    uint8_t again[LEASE_RECORD_SIZE];
    struct lease_note n;
    struct err e;

    if (lease_decode(data, size, &n, &e) < 0)
        return;
    if (!lease_note_ok(&n))
        abort();
    lease_encode(&n, again);
    if (memcmp(again, data, sizeof again) != 0)
        abort();
}

/* With the checksum mended, so that what lies behind it is reached. */
static void check_mended(const uint8_t *data, size_t size)
{
    uint8_t record[LEASE_RECORD_SIZE];

    memset(record, ' ', sizeof record);
    memcpy(record, data, size < sizeof record ? size : sizeof record);
    lease_mend(record);
    check_record(record, sizeof record);
}

static void check_name(const uint8_t *data, size_t size)
{
    char name[2 * LEASE_ENTRY_LEN], again[LEASE_ENTRY_LEN], uuid[37];
    size_t len = size < sizeof name - 1 ? size : sizeof name - 1;
    uint64_t epoch;

    memcpy(name, data, len);
    name[len] = '\0';
    if (!lease_entry_parse(name, &epoch, uuid))
        return;
    lease_entry_name(epoch, uuid, again);
    if (epoch == 0 || strcmp(again, name) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_record(data, size);
    check_mended(data, size);
    check_name(data, size);
    return 0;
}
