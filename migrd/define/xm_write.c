/* SPDX-License-Identifier: ISC */
/*
 * A definition as xm's domain file. What xm cannot say (memory that is no whole number
 * of MiB, a path with a comma) is refused, never rounded. Reading the result gives the
 * same definition again.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrd/define/internal.h"

/* As Python's repr(): in single quotes. Of control characters only notes have some, these two. */
static void put_quoted(FILE *f, const char *s)
{
    fputc('\'', f);
    for (; *s != '\0'; s++) {
        if (*s == '\'' || *s == '\\' || *s == '\n' || *s == '\t')
            fputc('\\', f);
        fputc(*s == '\n' ? 'n' : *s == '\t' ? 't' : *s, f);
    }
    fputc('\'', f);
}

static void put_text(FILE *f, const char *key, const char *value)
{
    if (value[0] == '\0')
        return;
    fprintf(f, "%s = ", key);
    put_quoted(f, value);
    fputc('\n', f);
}

static void put_event(FILE *f, const char *key, Migrd__OnEvent on)
{
    const char *word = define_on_event_word(on);

    if (word != NULL)
        put_text(f, key, word);
}

/* ",key=value" at the end of a disk's text, or nothing. */
static void add_part(char *text, size_t size, const char *key, const char *value)
{
    size_t n = strlen(text);

    if (value != NULL && value[0] != '\0')
        snprintf(text + n, size - n, ",%s=%s", key, value);
}

static void put_disk(FILE *f, const Migrd__Disk *k)
{
    char text[DEFINE_PATH_MAX + 512];

    snprintf(text, sizeof text, "%s%s,%s%s,%s", k->source[0] == '/' ? "file:" : "", k->source,
        k->device, k->cdrom ? ":cdrom" : "", k->read_only ? "r" : "w");
    add_part(text, sizeof text, "serial", k->serial);
    add_part(text, sizeof text, "on_io_error", define_io_error_word(k->on_io_error));
    add_part(text, sizeof text, "cache", k->cache);
    add_part(text, sizeof text, "wwn", k->wwn);
    add_part(text, sizeof text, "npiv", k->npiv);
    add_part(text, sizeof text, "format", k->format);
    add_part(text, sizeof text, "backendtype", k->backend);
    add_part(text, sizeof text, "script", k->script);
    put_quoted(f, text);
}

/* Each address on its own. */
static void add_addresses(char *text, size_t size, const char *ip)
{
    char one[200];

    for (size_t n; *ip != '\0'; ip += n + (ip[n] == ' ')) {
        n = strcspn(ip, " ");
        snprintf(one, sizeof one, "%.*s", (int)n, ip);
        add_part(text, size, "ip", one);
    }
}

static void put_vif(FILE *f, const Migrd__Vif *v)
{
    char text[1024], number[32] = "";

    snprintf(text, sizeof text, "mac=%s", v->mac);
    add_part(text, sizeof text, "bridge", v->bridge);
    add_part(text, sizeof text, "vifname", v->ifname);
    if (v->mtu != 0)
        snprintf(number, sizeof number, "%u", v->mtu);
    add_part(text, sizeof text, "mtu", number);
    add_part(text, sizeof text, "script", v->script);
    add_part(text, sizeof text, "model", v->model);
    add_addresses(text, sizeof text, v->ip);
    if (v->rate_kib != 0) {
        snprintf(number, sizeof number, "%" PRIu64 "B/s", (uint64_t)v->rate_kib * 1024);
        add_part(text, sizeof text, "rate", number);
    }
    put_quoted(f, text);
}

static void put_devices(FILE *f, const Migrd__Domain *d)
{
    if (d->n_disks > 0)
        fputs("disk = [ ", f);
    for (size_t i = 0; i < d->n_disks; i++) {
        put_disk(f, d->disks[i]);
        fputs(i + 1 < d->n_disks ? ",\n         " : " ]\n", f);
    }
    if (d->n_vifs > 0)
        fputs("vif = [ ", f);
    for (size_t i = 0; i < d->n_vifs; i++) {
        put_vif(f, d->vifs[i]);
        fputs(i + 1 < d->n_vifs ? ",\n        " : " ]\n", f);
    }
}

/* A list of lists has at least two, or it is one for all. */
static void put_cpus(FILE *f, const Migrd__Domain *d)
{
    unsigned n = d->vcpu_pinning[0] != '\0' ? define_max_vcpus(d) : (unsigned)d->n_vcpu_pins;

    if (d->n_vcpu_pins == 0) {
        put_text(f, "cpus", d->vcpu_pinning);
        return;
    }
    fputs("cpus = [ ", f);
    for (unsigned i = 0; i < (n < 2 ? 2 : n); i++) {
        const char *list = i < define_max_vcpus(d) ? hv_vcpu_pinning(d, i) : "";

        fputs(i > 0 ? ", " : "", f);
        put_quoted(f, list[0] != '\0' ? list : "all");
    }
    fputs(" ]\n", f);
}

static void put_xen(FILE *f, const Migrd__Domain *d)
{
    put_text(f, "type", define_is_xen(d) ? hv_guest_type_name(hv_guest_type(d)) : "");
    put_text(f, "bootloader", d->bootloader);
    for (size_t i = 0; i < d->n_bootloader_args; i++) {
        fputs(i == 0 ? "bootloader_args = [ " : ", ", f);
        put_quoted(f, d->bootloader_args[i]);
    }
    fputs(d->n_bootloader_args > 0 ? " ]\n" : "", f);
    put_text(f, "boot", d->boot);
    put_text(f, "firmware", d->firmware);
    put_text(f, "tsc_mode", d->tsc_mode);
}

static void put_domain(FILE *f, const Migrd__Domain *d)
{
    put_text(f, "name", d->name);
    put_text(f, "uuid", d->uuid);
    put_text(f, "hypervisor", d->hypervisor);
    put_xen(f, d);
    fprintf(f, "memory = %" PRIu64 "\nmaxmem = %" PRIu64 "\nvcpus = %u\n", d->memory_kib / 1024,
        d->max_memory_kib / 1024, d->vcpus);
    if (define_max_vcpus(d) != d->vcpus)
        fprintf(f, "maxvcpus = %u\n", define_max_vcpus(d));
    put_cpus(f, d);
    if (d->cpu_weight != 0)
        fprintf(f, "cpu_weight = %u\n", d->cpu_weight);
    if (d->cpu_cap != 0)
        fprintf(f, "cpu_cap = %u\n", d->cpu_cap);
    put_text(f, "cpu_level", d->cpu_level);
    put_text(f, "title", d->title);
    put_text(f, "description", d->description);
    put_text(f, "metadata", d->metadata);
    put_text(f, "kernel", d->kernel);
    put_text(f, "ramdisk", d->initrd);
    put_text(f, "extra", d->cmdline);
    put_devices(f, d);
    put_event(f, "on_poweroff", d->on_poweroff);
    put_event(f, "on_reboot", d->on_reboot);
    put_event(f, "on_crash", d->on_crash);
    put_event(f, "on_watchdog", d->on_watchdog);
    fprintf(f, "hugepages = %d\nrng = %d\nballoon = %d\n", d->huge_pages, d->rng, d->balloon);
}

static int sayable(const Migrd__Domain *d, struct err *e)
{
    if (d->memory_kib % 1024 != 0 || d->max_memory_kib % 1024 != 0)
        return err_set(e, ERR_UNSUPPORTED,
            "domain %s: its memory is no whole number of MiB, which xm's file cannot say; use XML",
            d->name);
    for (size_t i = 0; i < d->n_disks; i++)
        if (strchr(d->disks[i]->source, ',') != NULL || strstr(d->disks[i]->source, "vdev=") ||
            strstr(d->disks[i]->source, "target=") ||
            d->disks[i]->source[strlen(d->disks[i]->source) - 1] == ' ')
            return err_set(e, ERR_UNSUPPORTED,
                "domain %s: the path of disk %s has a comma, a blank at its end, vdev= or "
                "target= in it, which xm's file cannot say; use XML",
                d->name, d->disks[i]->device);
    return 0;
}

char *define_xm(const Migrd__Domain *d, struct err *e)
{
    char *text = NULL;
    bool failed;
    size_t len;
    FILE *f;

    if (define_check(d, e) < 0 || sayable(d, e) < 0)
        return NULL;
    f = open_memstream(&text, &len);
    if (f == NULL) {
        err_set(e, ERR_MEMORY, "domain %s: no memory to write its definition", d->name);
        return NULL;
    }
    put_domain(f, d);
    failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed) {
        free(text);
        err_set(e, ERR_MEMORY, "domain %s: no memory to write its definition", d->name);
        return NULL;
    }
    return text;
}
