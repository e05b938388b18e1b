/* SPDX-License-Identifier: ISC */
/* Identities for people: one line for what it is, then indented lines for what is known. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pbjson.h"
#include "storage-check/identity_internal.h"

static void line(FILE *to, const char *what, const char *value)
{
    if (value[0] != '\0')
        fprintf(to, "  %-16s %s\n", what, value);
}

static void show_one(const Migrd__DiskIdentity *id, FILE *to)
{
    fprintf(to, "%s\n", id->source);
    if (id->code[0] != '\0')
        line(to, "error", id->error);
    if (id->kind != MIGRD__STORAGE_KIND__STORAGE_UNKNOWN)
        fprintf(to, "  %-16s %s%s%s%s\n", "is", id_kind_words(id->kind),
            id->path_kind[0] != '\0' ? " on " : "", id->path_kind,
            id->read_only ? ", read only" : "");
    if (id->size != 0)
        fprintf(to, "  %-16s %llu bytes\n", "size", (unsigned long long)id->size);
    if (id->block_size != 0)
        fprintf(to, "  %-16s %u bytes\n", "blocks", id->block_size);
    for (size_t i = 0; i < id->n_designators; i++)
        line(to, id->designators[i]->kind, id->designators[i]->value);
    for (size_t i = 0; i < id->n_backing; i++)
        line(to, "needs", id->backing[i]);
    line(to, "in use by", id->used_by);
    if (id->kind != MIGRD__STORAGE_KIND__STORAGE_UNKNOWN)
        line(to, "shared", id->shared ? "other hosts may reach it" : "this host alone");
    if (id->shared && id->code[0] == '\0')
        line(to, "fence", id->fence[0] != '\0' ? id->fence : "none");
    line(to, "fence-note", id->fence_note);
    if (id->code[0] == '\0')
        line(to, "no-challenge", id->error);
    if (id->lease_owner[0] != '\0')
        fprintf(to, "  %-16s %s, epoch %llu\n", "lease", id->lease_owner,
            (unsigned long long)id->lease_epoch);
}

static void show_json(const Migrd__StorageReply *r, FILE *to)
{
    json_t *all = pbjson(&r->base);

    json_dumpf(json_object_get(all, "disks"), to, JSON_INDENT(2));
    fputc('\n', to);
    json_decref(all);
}

bool storage_show(const Migrd__StorageReply *r, bool json, FILE *to)
{
    bool fine = true;

    if (json)
        show_json(r, to);
    for (size_t i = 0; i < r->n_disks; i++) {
        if (!json)
            show_one(r->disks[i], to);
        fine = fine && r->disks[i]->code[0] == '\0';
    }
    return fine;
}

Migrd__Disk **storage_disks(const Migrd__Disk *like, char *const *sources, size_t n)
{
    Migrd__Disk **list = malloc(n * (sizeof *list + sizeof **list));
    Migrd__Disk *disks = (Migrd__Disk *)(void *)(list + n);

    for (size_t i = 0; list != NULL && i < n; i++) {
        disks[i] = *like;
        disks[i].source = sources[i];
        list[i] = &disks[i];
    }
    return list;
}
