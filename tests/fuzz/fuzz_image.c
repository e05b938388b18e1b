/* SPDX-License-Identifier: ISC */
/* The beginning of a disk, which a guest may have written: the backing file's name ends and can be
 * shown. */
#include <stdlib.h>
#include <string.h>

#include "storage-check/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char backing[IMAGE_NAME];
    const char *format;

    memset(backing, 'x', sizeof backing);
    format = image_format(data, len, backing);
    if (memchr(backing, '\0', sizeof backing) == NULL || (format == NULL && backing[0] != '\0'))
        abort();
    for (const char *p = backing; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            abort();
    return 0;
}
