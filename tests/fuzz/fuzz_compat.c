/* SPDX-License-Identifier: ISC */
/* An offer as it came, compared with a host; what is found goes into a report that fits a message.
 * The other side reads it back within its limits. */
#include <stdlib.h>
#include <string.h>

#include "migrd/compat/compat.h"
#include "precopy/worker_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fill(Migrd__HostFacts *f, Migrd__CpuReport *cpu, Migrd__NetFacts *net, uint32_t *words)
{
    migrd__host_facts__init(f);
    migrd__cpu_report__init(cpu);
    migrd__net_facts__init(net);
    f->host = (char *)"host2";
    f->hypervisor = (char *)"xvm";
    f->hypervisor_release = (char *)"1";
    f->release = (char *)"0.1";
    f->cpus = 4;
    f->max_vcpus = 64;
    f->memory_total_kib = f->memory_free_kib = 16u << 20;
    f->cpu = cpu;
    cpu->vendor = (char *)"AuthenticAMD";
    cpu->features = words;
    cpu->n_features = HV_FEATURE_WORDS;
    cpu->tsc_khz = 2000000;
    net->name = (char *)"br0";
    net->kind = (char *)"bridge";
    net->mtu = 1500;
}

static void compare(const Migrd__Offer *o)
{
    uint32_t words[HV_FEATURE_WORDS] = { UINT32_C(1) << 26 };
    Migrd__HostFacts facts;
    Migrd__CpuReport cpu;
    Migrd__NetFacts net, *nets[] = { &net };
    const Migrd__Domain *others[] = { o->domain };
    const struct compat in = { .offer = o,
        .target = &facts,
        .disks = o->disks,
        .n_disks = o->n_disks,
        .others = others,
        .n_others = 1,
        .no_kernel = true };
    struct checks c = { 0 };
    struct err e;
    Migrd__CheckReport *r;

    fill(&facts, &cpu, &net, words);
    facts.nets = nets;
    facts.n_nets = 1;
    compat_check(&in, &c);
    r = compat_report(&c);
    if (r == NULL || r->n_checks != c.n ||
        migrd__check_report__get_packed_size(r) > TR_MESSAGE_SMALL / 2 ||
        (checks_verdict(&c, &e) < 0) != (c.refused > 0))
        abort();
    report_limit(r);
    migrd__check_report__free_unpacked(r, NULL);
    checks_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Migrd__Offer *o = migrd__offer__unpack(NULL, size, data);

    if (o == NULL)
        return 0;
    if (o->domain != NULL)
        compare(o);
    migrd__offer__free_unpacked(o, NULL);
    return 0;
}
