/* SPDX-License-Identifier: ISC */
/*
 * The other host's identities and our own program's reply. Byte 0 says how many disks were asked
 * for; the first disk of an accepted reply is compared with the last, as a target does
 * with an offer's, and its challenge's name is judged.
 */
#include <stdlib.h>
#include <string.h>

#include "storage-check/identity_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    Migrd__Disk disk = MIGRD__DISK__INIT;
    Migrd__StorageReply *r;
    struct checks c = { 0 };
    struct err e;

    if (len == 0)
        return 0;
    r = storage_reply_parse(data + 1, len - 1, data[0], &e);
    if (r == NULL)
        return 0;
    if (r->n_disks != data[0] || r->n_answers != data[0] || r->n_answer_errors != data[0])
        abort();
    if (r->n_disks > 0) {
        const Migrd__DiskIdentity *s = r->disks[0], *t = r->disks[r->n_disks - 1];

        disk.device = s->device;
        disk.npiv = s->source;
        storage_compare(&c, &disk, s, t, r->answers[0], r->answer_errors[0]);
        if (c.n == 0)
            abort();
        if (s->challenge != NULL && challenge_name_ok(s->challenge->name) &&
            (strchr(s->challenge->name, '/') != NULL ||
                strlen(s->challenge->name) >= CHALLENGE_NAME))
            abort();
        checks_free(&c);
    }
    migrd__storage_reply__free_unpacked(r, NULL);
    return 0;
}
