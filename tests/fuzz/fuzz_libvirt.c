/* SPDX-License-Identifier: ISC */
/* libvirt's protocol: the bytes of a read-only client of a host with one domain. Whatever comes
 * back is whole frames of the right program. */
#include "tests/unit/libvirt_host.h"

#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

static struct host host;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    host_up(&host);
    return log_open("fuzz", "/dev/null", NULL);
}

static void check_answers(void)
{
    static uint8_t in[4 << 20];
    ssize_t n = client_read(&host, in, sizeof in);
    struct lv_header h;
    size_t used = 0;

    while (n > 0 && lv_header_read(in + used, (size_t)n - used, &h, NULL) == 1) {
        if ((h.prog != LV_PROGRAM && h.prog != LV_PROGRAM_KEEPALIVE && h.type != LV_REPLY) ||
            h.status < LV_OK || h.status > LV_ERROR)
            abort();
        used += h.len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    client_open(&host, true);
    host.lv.conns->opened = len > 0 && (data[0] & 1) != 0;
    if (len > 0)
        client_write(&host, data + 1, len - 1);
    if (host.lv.conns != NULL)
        check_answers();
    client_close(&host);
    return 0;
}
