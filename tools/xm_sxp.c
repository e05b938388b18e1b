/* SPDX-License-Identifier: ISC */
/*
 * `xm list -l`: the record of a domain as the s-expression that xend printed: scripts
 * look for (domid N), (uuid ...), (name ...), (memory MIB), (vcpus N), (state r-----).
 */
#define _GNU_SOURCE
#include "tools/xm.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

/* What the daemon calls a state, and xm's six letters: running, blocked, paused, shutdown, crashed,
 * dying. A domain that is being moved still runs; one whose fate is in doubt is kept paused. */
static const struct {
    const char *name;
    const char *letters;
} states[] = {
    { "running", "r-----" },
    { "migrating", "r-----" },
    { "blocked", "-b----" },
    { "paused", "--p---" },
    { "incoming", "--p---" },
    { "in doubt", "--p---" },
    { "shutdown", "---s--" },
    { "crashed", "----c-" },
    { "dying", "-----d" },
};

const char *xm_state(const Migrd__DomainInfo *d)
{
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
        if (strcmp(d->state, states[i].name) == 0)
            return states[i].letters;
    return d->domid < 0 ? "" : "------";
}

static const char *on_event(Migrd__OnEvent v, const char *otherwise)
{
    switch (v) {
    case MIGRD__ON_EVENT__ON_DESTROY:
        return "destroy";
    case MIGRD__ON_EVENT__ON_RESTART:
        return "restart";
    case MIGRD__ON_EVENT__ON_PRESERVE:
        return "preserve";
    case MIGRD__ON_EVENT__ON_DEFAULT:
    case _MIGRD__ON_EVENT_IS_INT_SIZE:
        break;
    }
    return otherwise;
}

/* Quotes what an s-expression reader would split or misread. */
static void print_atom(const char *s)
{
    if (s[0] != '\0' && s[strcspn(s, " \t\n()'\"\\")] == '\0') {
        fputs(s, stdout);
        return;
    }
    putchar('\'');
    for (; *s != '\0'; s++) {
        if (*s == '\'' || *s == '\\')
            putchar('\\');
        putchar(*s == '\n' ? ' ' : *s);
    }
    putchar('\'');
}

static void text(const char *indent, const char *key, const char *value)
{
    if (value[0] == '\0')
        return;
    printf("%s(%s ", indent, key);
    print_atom(value);
    puts(")");
}

/* xm's words: a pv guest of Xen is "linux", as is what xvm boots. */
static const char *image_of(const Migrd__Domain *d)
{
    if (d->type == MIGRD__GUEST_TYPE__GUEST_HVM)
        return "hvm";
    return d->type == MIGRD__GUEST_TYPE__GUEST_PVH ? "pvh" : "linux";
}

static void print_image(const Migrd__Domain *d)
{
    text("    ", "bootloader", d->bootloader);
    puts("    (image");
    printf("        (%s\n", image_of(d));
    text("            ", "kernel", d->kernel);
    text("            ", "ramdisk", d->initrd);
    text("            ", "args", d->cmdline);
    puts("        )");
    puts("    )");
}

static void print_disk(const Migrd__Disk *k)
{
    char uname[4200];

    snprintf(uname, sizeof uname, "%s%s",
        strncmp(k->source, "/dev/", 5) == 0 ? "phy:" : "file:", k->source);
    puts("    (device");
    puts("        (vbd");
    text("            ", "uname", strstr(k->source, "://") != NULL ? k->source : uname);
    text("            ", "dev", k->device);
    text("            ", "mode", k->read_only ? "r" : "w");
    text("            ", "serial", k->serial);
    puts("        )");
    puts("    )");
}

static void print_vif(const Migrd__Vif *v)
{
    puts("    (device");
    puts("        (vif");
    text("            ", "mac", v->mac);
    text("            ", "bridge", v->bridge);
    text("            ", "script", v->script);
    text("            ", "vifname", v->ifname);
    puts("        )");
    puts("    )");
}

static void print_run(const Migrd__DomainInfo *d)
{
    text("    ", "state", xm_state(d));
    text("    ", "paused_because", d->reason);
    if (d->domid >= 0) {
        printf("    (cpu_time %.3f)\n", (double)d->cpu_ns / 1e9);
        printf("    (start_time %.2f)\n", (double)d->start_wall_ns / 1e9);
    }
    printf("    (online_vcpus %u)\n", d->domid >= 0 ? d->domain->vcpus : 0);
    text("    ", "console", d->console);
    text("    ", "owner", d->owner);
    printf("    (epoch %llu)\n", (unsigned long long)d->epoch);
    printf("    (status %d)\n", d->domid >= 0 ? 2 : 0);
}

void xm_print_sxp(const Migrd__DomainInfo *d)
{
    const Migrd__Domain *def = d->domain;
    uint64_t now_kib = d->memory_kib != 0 ? d->memory_kib : def->memory_kib;
    uint64_t max_kib = def->max_memory_kib != 0 ? def->max_memory_kib : def->memory_kib;

    puts("(domain");
    if (d->domid >= 0)
        printf("    (domid %d)\n", d->domid);
    text("    ", "uuid", def->uuid);
    text("    ", "name", def->name);
    printf("    (memory %llu)\n", (unsigned long long)(now_kib / 1024));
    printf("    (maxmem %llu)\n", (unsigned long long)(max_kib / 1024));
    printf("    (vcpus %u)\n", def->vcpus);
    text("    ", "cpus", def->vcpu_pinning);
    text("    ", "on_poweroff", on_event(def->on_poweroff, "destroy"));
    text("    ", "on_reboot", on_event(def->on_reboot, "restart"));
    text("    ", "on_crash", on_event(def->on_crash, "restart"));
    print_image(def);
    for (size_t i = 0; i < def->n_disks; i++)
        print_disk(def->disks[i]);
    for (size_t i = 0; i < def->n_vifs; i++)
        print_vif(def->vifs[i]);
    print_run(d);
    puts(")");
}
