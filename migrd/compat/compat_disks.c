/* SPDX-License-Identifier: ISC */
/*
 * Disks. Both hosts have looked at each disk of the definition; whether they mean the same one is
 * storage_compare's. Here: that there is one identity for each disk, and what can be said of the
 * target's alone where the source sends none.
 */
#include <stdio.h>
#include <string.h>

#include "migrd/compat/compat_internal.h"
#include "storage-check/identity.h"

static void count(struct compare *c, size_t have, const char *who)
{
    char s[32], t[32];

    snprintf(s, sizeof s, "%zu", c->def->n_disks);
    snprintf(t, sizeof t, "%zu", have);
    checks_remedy(compat_line(c, CHECK_REFUSED, "storage", "disks", s, t,
                      "domain %s has %zu disk%s, host %s has looked at %zu", c->def->name,
                      c->def->n_disks, c->def->n_disks == 1 ? "" : "s", who, have),
        "see the log of host %s", who);
}

/* The source told nothing of its disks. */
static void target_alone(
    struct compare *c, const Migrd__Disk *disk, const Migrd__DiskIdentity *there)
{
    if (there->error[0] != '\0' && there->code[0] != '\0')
        checks_remedy(compat_line(c, CHECK_REFUSED, "storage", disk->device, disk->source, "error",
                          "disk %s of domain %s on host %s: %s", disk->device, c->def->name, c->dst,
                          there->error),
            "make %s reachable from host %s", disk->source, c->dst);
    else if (there->read_only && !disk->read_only)
        checks_remedy(
            compat_line(c, CHECK_REFUSED, "storage", disk->device, disk->source, "read only",
                "disk %s of domain %s is read only on host %s", disk->device, c->def->name, c->dst),
            "let host %s write it", c->dst);
    else if (there->used_by[0] != '\0' && !disk->read_only)
        checks_remedy(compat_line(c, CHECK_REFUSED, "storage", disk->device, disk->source,
                          there->used_by, "disk %s of domain %s is in use on host %s by %s",
                          disk->device, c->def->name, c->dst, there->used_by),
            "end that there first");
    else
        compat_line(c, CHECK_OK, "storage", disk->device, disk->source, disk->source,
            "it is there on host %s; whether it is the same one is not known", c->dst);
}

static bool names_agree(struct compare *c, size_t i)
{
    const char *want = c->def->disks[i]->device;
    const char *theirs = c->offer->disks[i]->device, *ours = c->in->disks[i]->device;

    if (strcmp(theirs, want) == 0 && strcmp(ours, want) == 0)
        return true;
    checks_remedy(compat_line(c, CHECK_REFUSED, "storage", want, theirs, ours,
                      "disk %zu of domain %s is %s; host %s looked at %.32s and host %s at %.32s",
                      i + 1, c->def->name, want, c->src, theirs, c->dst, ours),
        "use the same release of migrd on both hosts");
    return false;
}

void compat_disks(struct compare *c)
{
    const struct compat *in = c->in;

    if (in->n_disks != c->def->n_disks) {
        count(c, in->n_disks, c->dst);
        return;
    }
    if (c->offer->identified && c->offer->n_disks != c->def->n_disks) {
        count(c, c->offer->n_disks, c->src);
        return;
    }
    for (size_t i = 0; i < c->def->n_disks; i++) {
        if (!c->offer->identified)
            target_alone(c, c->def->disks[i], in->disks[i]);
        else if (names_agree(c, i))
            storage_compare(c->out, c->def->disks[i], c->offer->disks[i], in->disks[i],
                in->answers != NULL ? in->answers[i] : "",
                in->answer_errors != NULL ? in->answer_errors[i] : "");
    }
}
