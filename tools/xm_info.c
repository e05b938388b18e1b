/* SPDX-License-Identifier: ISC */
/*
 * The host: xm info's "key : value" lines as far as they are true of this host, and
 * migrd's log. Keys that only a Xen hypervisor has (xen_caps, cc_compiler) are there on Xen, out
 * of /sys/hypervisor; what the kernel says of CPUs is Domain-0's there, and left out.
 */
#define _GNU_SOURCE
#include "tools/xm.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/io.h"
#include "tools/format.h"

#define LOG_TAIL_MAX (1u << 20)

uint64_t xm_host_cpu_ns(void)
{
    unsigned long long user, nice, system, idle, iowait, irq, softirq, steal, guest, gnice;
    char *text = io_read_file("/proc/stat", 1 << 20, NULL, NULL);
    uint64_t ticks = 0;

    if (text != NULL &&
        sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system,
            &idle, &iowait, &irq, &softirq, &steal, &guest, &gnice) == 10) {
        ticks = user + nice + system + irq + softirq;
        ticks -= guest + gnice < ticks ? guest + gnice : 0; /* the guests' rows have that */
    }
    free(text);
    return ticks * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
}

static void line(const char *key, const char *value)
{
    printf("%-23s: %s\n", key, value);
}

static void number(const char *key, unsigned long long value)
{
    printf("%-23s: %llu\n", key, value);
}

/* Bits of a mask file ("00000003,ffffffff"). */
static unsigned bits_of_file(const char *path)
{
    char *text = io_read_file(path, 4096, NULL, NULL);
    unsigned n = 0;

    for (const char *p = text; p != NULL && *p != '\0'; p++)
        if (*p != ',' && *p != '\n')
            n += (unsigned)__builtin_popcount((unsigned)strtoul((char[]){ *p, '\0' }, NULL, 16));
    free(text);
    return n > 0 ? n : 1;
}

static unsigned count_nodes(void)
{
    DIR *d = opendir("/sys/devices/system/node");
    struct dirent *e;
    unsigned n = 0, id;

    if (d == NULL)
        return 1;
    while ((e = readdir(d)) != NULL)
        n += sscanf(e->d_name, "node%u", &id) == 1;
    closedir(d);
    return n > 0 ? n : 1;
}

static double cpu_mhz(void)
{
    char *text = io_read_file("/proc/cpuinfo", 4 << 20, NULL, NULL);
    const char *at = text != NULL ? strstr(text, "cpu MHz") : NULL;
    const char *colon = at != NULL ? strchr(at, ':') : NULL;
    double mhz = colon != NULL ? strtod(colon + 1, NULL) : 0;

    free(text);
    return mhz;
}

static void print_mhz(const Migrd__HostInfo *h, bool xen)
{
    printf("%-23s: %.0f\n", "cpu_mhz", xen ? (double)h->cpu_mhz : cpu_mhz());
    line("cpu_vendor", h->cpu_vendor);
    line("cpu_model", h->cpu_model);
}

static void print_cpus(const Migrd__HostInfo *h)
{
    unsigned threads = bits_of_file("/sys/devices/system/cpu/cpu0/topology/thread_siblings");
    unsigned socket = bits_of_file("/sys/devices/system/cpu/cpu0/topology/core_siblings");

    number("nr_cpus", h->cpus);
    number("nr_nodes", count_nodes());
    number("cores_per_socket", socket / threads > 0 ? socket / threads : 1);
    number("threads_per_core", threads);
    print_mhz(h, false);
}

/* A file of /sys/hypervisor; nothing is printed where it is missing. */
static void sys_line(const char *key, const char *file)
{
    char path[96], *text;

    snprintf(path, sizeof path, "/sys/hypervisor/%s", file);
    text = io_read_file(path, 4096, NULL, NULL);
    if (text == NULL)
        return;
    text[strcspn(text, "\n")] = '\0';
    line(key, text);
    free(text);
}

static void print_xen(void)
{
    sys_line("xen_major", "version/major");
    sys_line("xen_minor", "version/minor");
    sys_line("xen_extra", "version/extra");
    sys_line("xen_caps", "properties/capabilities");
    number("xen_pagesize", (unsigned long long)sysconf(_SC_PAGESIZE));
    sys_line("xen_changeset", "properties/changeset");
    sys_line("cc_compiler", "compilation/compiler");
    sys_line("cc_compile_by", "compilation/compiled_by");
    sys_line("cc_compile_date", "compilation/compile_date");
}

static void print_migrd(const Migrd__HostInfo *h)
{
    char start[FORMAT_LEN];

    printf("%-23s: %s %s\n", "hypervisor", h->hypervisor, h->hypervisor_release);
    line("migrd_version", h->version);
    line("migrd_started", format_wall(start, h->start_wall_ns));
    line("relocation", h->relocation);
    printf("%-23s: %u running, %u defined, %u moving\n", "domains", h->running, h->defined,
        h->migrations);
    for (size_t i = 0; i < h->n_warnings; i++)
        line("warning", h->warnings[i]);
}

int xm_info(struct tool *t, int argc, char **argv)
{
    Migrd__GetHost get = MIGRD__GET_HOST__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    struct utsname u;
    Migrd__Reply *r;
    bool xen;

    (void)argv;
    optind = 1;
    if (tool_words(t, argc, 0, 0) != 0)
        return TOOL_USAGE;
    CLIENT_BODY(rq, HOST, host, &get);
    r = tool_call(t, &rq, TOOL_SHORT_MS);
    if (r == NULL || r->host == NULL) {
        tool_free(&r);
        return TOOL_FAILED;
    }
    uname(&u);
    line("host", r->host->host);
    line("release", u.release);
    line("version", u.version);
    line("machine", u.machine);
    xen = strcmp(r->host->hypervisor, "xen") == 0;
    if (!xen) {
        print_cpus(r->host);
    } else {
        number("nr_cpus", r->host->cpus);
        print_mhz(r->host, true);
    }
    number("total_memory", r->host->memory_total_kib / 1024);
    number("free_memory", r->host->memory_free_kib / 1024);
    number("reserved_memory", r->host->memory_reserved_kib / 1024);
    if (xen)
        print_xen();
    number("xend_config_format", 4);
    print_migrd(r->host);
    tool_free(&r);
    return TOOL_OK;
}

/* --- dmesg --- */

int xm_dmesg(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "clear", no_argument, NULL, 'c' },
        { NULL, 0, NULL, 0 },
    };
    Migrd__ReadDmesg dmesg = MIGRD__READ_DMESG__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r;
    int o;

    while ((o = getopt_long(argc, argv, "c", options, NULL)) != -1) {
        if (o != 'c')
            return tool_usage(t, NULL);
        dmesg.clear = true;
    }
    if (tool_words(t, argc, 0, 0) != 0)
        return TOOL_USAGE;
    CLIENT_BODY(rq, DMESG, dmesg, &dmesg);
    r = tool_call(t, &rq, TOOL_SHORT_MS);
    if (r == NULL)
        return TOOL_FAILED;
    fputs(r->text, stdout);
    tool_free(&r);
    return TOOL_OK;
}

/* --- log --- */

/* The last `lines` lines of a file; its end only, so a large log does no harm. */
static int print_tail(const char *path, unsigned lines, struct err *e)
{
    FILE *f = fopen(path, "re");
    char *buf;
    size_t n, at;

    if (f == NULL)
        return err_sys(e, "%s", path);
    buf = malloc(LOG_TAIL_MAX);
    if (buf == NULL || (fseek(f, -(long)LOG_TAIL_MAX, SEEK_END) < 0 && fseek(f, 0, SEEK_SET) < 0)) {
        err_sys(e, "%s", path);
        fclose(f);
        free(buf);
        return -1;
    }
    n = at = fread(buf, 1, LOG_TAIL_MAX, f);
    fclose(f);
    while (at > 0 && lines > 0)
        if (--at > 0 && buf[at - 1] == '\n')
            lines--;
    fwrite(buf + at, 1, n - at, stdout);
    free(buf);
    return 0;
}

/* Without the daemon: the file that migrd.conf names, or the usual one. */
static int log_from_file(struct tool *t, unsigned lines, const struct err *why)
{
    struct config *c = calloc(1, sizeof *c);
    char path[PATHS_LEN * 2];
    struct err e;
    int rc = 0;

    if (c == NULL)
        return tool_error("out of memory");
    config_defaults(c);
    config_load(c, t->paths.config, &e);
    if (c->log_file[0] != '\0')
        snprintf(path, sizeof path, "%s", c->log_file);
    else
        snprintf(path, sizeof path, "%s/migrd.log", t->paths.log);
    free(c);
    if (access(path, R_OK) < 0)
        return tool_fail(why);
    fprintf(stderr, "%s\nReading %s instead.\n", why->text, path);
    if (print_tail(path, lines, &e) < 0)
        rc = tool_fail(&e);
    return rc;
}

int xm_log(struct tool *t, int argc, char **argv)
{
    Migrd__ReadLog log = MIGRD__READ_LOG__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r = NULL;
    struct err e;
    int o;

    log.last = 1000;
    while ((o = getopt(argc, argv, "n:")) != -1) {
        if (o != 'n')
            return tool_usage(t, NULL);
        if (parse_number(optarg, "lines", 1, 1000000, &log.last, &e) < 0)
            return tool_usage(t, "%s", e.text);
    }
    if (tool_words(t, argc, 0, 0) != 0)
        return TOOL_USAGE;
    CLIENT_BODY(rq, LOG, log, &log);
    if (client_open(&t->paths, &t->client, &e) == 0)
        r = client_call(t->client, &rq, TOOL_SHORT_MS, &e);
    if (r == NULL)
        return log_from_file(t, log.last, &e);
    for (size_t i = 0; i < r->n_lines; i++)
        puts(r->lines[i]->text);
    tool_free(&r);
    return TOOL_OK;
}
