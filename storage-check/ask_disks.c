/* SPDX-License-Identifier: ISC */
#include "storage-check/ask_disks.h"

#include <stdlib.h>
#include <string.h>

#include "storage-check/identity.h"

/* protobuf-c's empty string is static: its free knows. */
static char *text(const char *s)
{
    return s[0] != '\0' ? strdup(s) : (char *)(uintptr_t)protobuf_c_empty_string;
}

static Migrd__DiskIdentity *failed(const Migrd__Disk *d, const struct err *e)
{
    Migrd__DiskIdentity *id = malloc(sizeof *id);

    if (id == NULL)
        return NULL;
    migrd__disk_identity__init(id);
    id->device = text(d->device);
    id->source = text(d->source);
    id->code = text(err_code_name(e->code));
    id->error = text(e->text);
    return id;
}

static bool add_disks(Migrd__StorageReply *r, const Migrd__StorageRequest *rq, const struct err *e)
{
    r->disks = calloc(rq->n_disks, sizeof(Migrd__DiskIdentity *));
    for (size_t i = 0; r->disks != NULL && i < rq->n_disks; i++) {
        r->disks[i] = failed(rq->disks[i], e);
        if (r->disks[i] == NULL)
            return false;
        r->n_disks++;
    }
    return r->disks != NULL;
}

/* As many as there are disks. Freeing a list frees each text: no static ones here. */
static bool fill_texts(char ***list, size_t *n, size_t want)
{
    char **more = *n < want ? realloc(*list, want * sizeof *more) : *list;

    if (more == NULL)
        return false;
    *list = more;
    while (*n < want && (more[*n] = strdup("")) != NULL)
        ++*n;
    return *n == want;
}

static Migrd__StorageReply *all_failed(const Migrd__StorageRequest *rq, const struct err *e)
{
    Migrd__StorageReply *r = malloc(sizeof *r);

    if (r == NULL)
        return NULL;
    migrd__storage_reply__init(r);
    if (rq->n_disks == 0 || add_disks(r, rq, e))
        return r;
    migrd__storage_reply__free_unpacked(r, NULL);
    return NULL;
}

Migrd__StorageReply *storage_ask_disks(const Migrd__StorageRequest *rq, unsigned timeout_ms)
{
    Migrd__StorageReply *r = NULL;
    struct err e = { 0 };

    if (rq->n_disks > 0 && storage_ask(rq, timeout_ms, &r, &e) == 0 && r->n_disks != rq->n_disks) {
        err_set(
            &e, ERR_PROTOCOL, "migrd-storage looked at %zu of %zu disks", r->n_disks, rq->n_disks);
        migrd__storage_reply__free_unpacked(r, NULL);
        r = NULL;
    }
    if (r == NULL)
        r = all_failed(rq, &e);
    if (r == NULL || (fill_texts(&r->answers, &r->n_answers, rq->n_disks) &&
                         fill_texts(&r->answer_errors, &r->n_answer_errors, rq->n_disks)))
        return r;
    migrd__storage_reply__free_unpacked(r, NULL);
    return NULL;
}
