/* SPDX-License-Identifier: ISC */
/* Huge pages: what is free and not yet promised to a mapping counts as free. */
#include "migrd/compat/facts_internal.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"

#define NUMBER_MAX 64 /* bytes of a file with a number */
#define PATH_MAX_ 512
#define HUGE_SIZES_MAX 8
#define NETS_MAX 128 /* bridges and taps of one domain */

/* protobuf-c's empty string is static: its free knows. */
char *facts_text(const char *s)
{
    return s[0] != '\0' ? strdup(s) : (char *)(uintptr_t)protobuf_c_empty_string;
}

uint64_t facts_number(const char *sys, const char *path)
{
    char full[PATH_MAX_];
    char *text;
    uint64_t n;

    snprintf(full, sizeof full, "%s/%s", sys, path);
    text = io_read_file(full, NUMBER_MAX, NULL, NULL);
    n = text != NULL ? strtoull(text, NULL, 10) : 0;
    free(text);
    return n;
}

/* --- huge pages --- */

static uint64_t huge_number(const char *sys, unsigned kib, const char *what)
{
    char path[128];

    snprintf(path, sizeof path, "kernel/mm/hugepages/hugepages-%ukB/%s", kib, what);
    return facts_number(sys, path);
}

static void add_size(const char *sys, Migrd__HostFacts *f, unsigned kib)
{
    Migrd__HugePages *h = malloc(sizeof *h);
    uint64_t promised;

    if (h == NULL)
        return;
    migrd__huge_pages__init(h);
    h->size_kib = kib;
    h->total = huge_number(sys, kib, "nr_hugepages");
    h->free = huge_number(sys, kib, "free_hugepages");
    promised = huge_number(sys, kib, "resv_hugepages");
    h->free = h->free > promised ? h->free - promised : 0;
    f->huge_pages[f->n_huge_pages++] = h;
}

void facts_huge_pages(const char *sys, Migrd__HostFacts *f)
{
    char path[PATH_MAX_];
    struct dirent *x;
    DIR *d;

    snprintf(path, sizeof path, "%s/kernel/mm/hugepages", sys);
    d = opendir(path);
    f->huge_pages = d != NULL ? calloc(HUGE_SIZES_MAX, sizeof *f->huge_pages) : NULL;
    while (f->huge_pages != NULL && f->n_huge_pages < HUGE_SIZES_MAX && (x = readdir(d)) != NULL) {
        unsigned kib;

        if (sscanf(x->d_name, "hugepages-%ukB", &kib) == 1 && kib > 0)
            add_size(sys, f, kib);
    }
    if (d != NULL)
        closedir(d);
}

/* --- CPU --- */

Migrd__CpuReport *facts_cpu(const struct hv_caps *caps)
{
    Migrd__CpuReport *r = malloc(sizeof *r);

    if (r == NULL)
        return NULL;
    migrd__cpu_report__init(r);
    r->vendor = facts_text(caps->cpu_vendor);
    r->model = facts_text(caps->cpu_model);
    r->features = malloc(sizeof caps->features);
    if (r->features != NULL) {
        memcpy(r->features, caps->features, sizeof caps->features);
        r->n_features = HV_FEATURE_WORDS;
    }
    r->xsave_size = caps->xsave_size;
    r->xcr0 = caps->xcr0;
    r->tsc_khz = caps->tsc_khz;
    return r;
}

/* --- all of it --- */

static void add_net(Migrd__HostFacts *f, const char *name)
{
    if (name[0] == '\0' || f->n_nets == NETS_MAX)
        return;
    for (size_t i = 0; i < f->n_nets; i++)
        if (strcmp(f->nets[i]->name, name) == 0)
            return;
    f->nets[f->n_nets] = facts_net(name);
    f->n_nets += f->nets[f->n_nets] != NULL;
}

static void add_nets(Migrd__HostFacts *f, const Migrd__Domain *def)
{
    if (def->n_vifs == 0)
        return;
    f->nets = calloc(NETS_MAX, sizeof *f->nets);
    for (size_t i = 0; f->nets != NULL && i < def->n_vifs; i++) {
        add_net(f, def->vifs[i]->bridge);
        add_net(f, def->vifs[i]->ifname);
    }
}

Migrd__HostFacts *facts_gather(
    const char *host, const char *hypervisor, const struct hv_caps *caps, const Migrd__Domain *def)
{
    Migrd__HostFacts *f = malloc(sizeof *f);

    if (f == NULL)
        return NULL;
    migrd__host_facts__init(f);
    f->host = facts_text(host);
    f->hypervisor = facts_text(hypervisor);
    f->hypervisor_release = facts_text(caps->release);
    f->release = facts_text(MIGRD_VERSION);
    f->cpu = facts_cpu(caps);
    f->cpus = caps->host_cpus;
    f->max_vcpus = caps->max_vcpus;
    f->tsc_scaling = caps->tsc_scaling;
    f->guest_types = caps->guest_types;
    f->memory_total_kib = caps->memory_total_kib - caps->host_kib;
    f->memory_free_kib = caps->memory_free_kib;
    facts_huge_pages(FACTS_SYS, f);
    if (def != NULL)
        add_nets(f, def);
    return f;
}
