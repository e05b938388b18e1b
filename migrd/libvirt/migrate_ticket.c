/* SPDX-License-Identifier: ISC */
/*
 * Cookies: a packed Ticket. They come back from virsh, which may be anybody that may use
 * the socket, or from a host that is no migrd: everything in them is checked for form here,
 * and for truth where it is used.
 */
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "migrd/libvirt/migrate.h"

#define MAGIC "migrd ticket 1"
#define TICKET_MAX 2048
#define HOST_MAX 256

int lv_ticket_put(const Migrd__Ticket *t, char **out, u_int *len, struct err *e)
{
    Migrd__Ticket copy = *t;
    size_t n;

    copy.magic = (char *)(uintptr_t)MAGIC;
    n = migrd__ticket__get_packed_size(&copy);
    *out = n <= TICKET_MAX ? malloc(n) : NULL;
    if (*out == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory for a cookie");
    *len = (u_int)migrd__ticket__pack(&copy, (uint8_t *)*out);
    return 0;
}

static bool uuid_or_none(const char *text)
{
    uuid_t u;

    return text[0] == '\0' || (strlen(text) == HV_UUID_LEN - 1 && uuid_parse(text, u) == 0);
}

Migrd__Ticket *lv_ticket_parse(const char *data, size_t len)
{
    Migrd__Ticket *t;

    if (len == 0 || len > TICKET_MAX)
        return NULL;
    t = migrd__ticket__unpack(NULL, len, (const uint8_t *)data);
    if (t == NULL)
        return NULL;
    if (strcmp(t->magic, MAGIC) == 0 && t->uuid[0] != '\0' && uuid_or_none(t->uuid) &&
        uuid_or_none(t->migration) && strlen(t->source) < HOST_MAX && strlen(t->target) < HOST_MAX)
        return t;
    migrd__ticket__free_unpacked(t, NULL);
    return NULL;
}

Migrd__Ticket *lv_ticket_take(struct lv_call *k, const char *data, u_int len,
    Migrd__TicketStep step, const char *uuid, struct err *e)
{
    static const char *const made_by[] = { [MIGRD__TICKET_STEP__TICKET_BEGUN] = "Begin",
        [MIGRD__TICKET_STEP__TICKET_PREPARED] = "Prepare",
        [MIGRD__TICKET_STEP__TICKET_PERFORMED] = "Perform",
        [MIGRD__TICKET_STEP__TICKET_FINISHED] = "Finish" };
    Migrd__Ticket *t = lv_ticket_parse(data, len);

    if (t == NULL) {
        lv_fail(k, e, LV_E_INVALID_ARG,
            "the cookie is not that of a migrd's %s: are both hosts run by migrd?", made_by[step]);
        return NULL;
    }
    if (t->step == step && (uuid == NULL || strcmp(t->uuid, uuid) == 0))
        return t;
    lv_fail(k, e, LV_E_INVALID_ARG, "the cookie is not that of this domain's %s", made_by[step]);
    migrd__ticket__free_unpacked(t, NULL);
    return NULL;
}
