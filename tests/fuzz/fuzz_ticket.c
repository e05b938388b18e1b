/* SPDX-License-Identifier: ISC */
/* Cookies of virsh's migrations: what is taken is of the form that its users rely on. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "migrd/libvirt/migrate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    Migrd__Ticket *t = lv_ticket_parse((const char *)data, len), *again;
    char *out;
    u_int n;

    if (t == NULL)
        return 0;
    if (strlen(t->uuid) != HV_UUID_LEN - 1 || strlen(t->source) > 255 || strlen(t->target) > 255)
        abort();
    if (lv_ticket_put(t, &out, &n, NULL) == 0) {
        again = lv_ticket_parse(out, n);
        if (again == NULL || strcmp(again->uuid, t->uuid) != 0 || again->epoch != t->epoch)
            abort();
        migrd__ticket__free_unpacked(again, NULL);
        free(out);
    }
    migrd__ticket__free_unpacked(t, NULL);
    return 0;
}
