/* SPDX-License-Identifier: ISC */
/*
 * What is compared, in this order; the first refusal is what a migration fails with:
 *
 *   domain     name and uuid are free on the target; what it needs to boot there again
 *   release    kind and release of the hypervisor, migrd's release
 *   cpu        vendor, features, XSAVE, TSC; vCPUs and their pinning     compat_cpu.c
 *   memory     free and promised memory, huge pages                      compat_memory.c
 *   network    bridges and taps by name, MTU, VLANs, subnets, MACs       compat_net.c
 *   storage    identities of the disks, by storage_compare               compat_disks.c
 *
 * Releases are numbers with dots between: "0.1", "4.17", "1". The first two count, what
 * follows is a repair that changes no format. Release N works with N-1: the second numbers differ
 * by at most one where the first agree, or the first differ by one and the newer release's second
 * is 0; of a release of one number that one differs by at most one. What is no such number can only
 * be equal or unknown.
 *
 * Xen reads state of older releases only, so a guest moves to an equal or newer Xen.
 *
 * A source of the release before sends no facts (`told` is false): what it does not tell is
 * not compared, and one warning says so.
 */
#include "migrd/compat/compat_internal.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RELEASE_DIGITS 6

struct check *compat_line(struct compare *c, enum check_result r, const char *area,
    const char *object, const char *source, const char *target, const char *fmt, ...)
{
    char text[CHECKS_TEXT];
    struct check *k;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    k = checks_add(c->out, r, area, object, "%s", text);
    checks_values(k, source, target);
    return k;
}

/* --- releases --- */

/* "4.17.2" -> 4, 17; "1" -> 1 and n = 1. How many numbers were read; 0: it is no release. */
static int parse_release(const char *text, unsigned v[2])
{
    int n = 0;

    v[0] = v[1] = 0;
    for (const char *p = text; n < 2; p++) {
        size_t digits = strspn(p, "0123456789");

        if (digits == 0 || digits > RELEASE_DIGITS)
            return 0;
        v[n++] = (unsigned)strtoul(p, NULL, 10);
        p += digits;
        if (*p != '.')
            return *p == '\0' || n == 2 ? n : 0;
    }
    return n;
}

enum release_step compat_release_step(const char *source, const char *target)
{
    unsigned s[2], t[2];
    int ns = parse_release(source, s), nt = parse_release(target, t);
    bool newer;

    if (strcmp(source, target) == 0)
        return REL_SAME;
    if (ns == 0 || nt != ns)
        return REL_UNKNOWN;
    if (s[0] == t[0] && s[1] == t[1])
        return REL_SAME;
    newer = t[0] > s[0] || (t[0] == s[0] && t[1] > s[1]);
    if (s[0] == t[0])
        return s[1] + 1 == t[1]   ? REL_TARGET_NEWER
               : t[1] + 1 == s[1] ? REL_TARGET_OLDER
                                  : REL_TOO_FAR;
    if ((newer ? t[0] - s[0] : s[0] - t[0]) != 1 || (newer ? t[1] : s[1]) != 0)
        return REL_TOO_FAR;
    return newer ? REL_TARGET_NEWER : REL_TARGET_OLDER;
}

bool compat_is_xen(const struct compare *c)
{
    return strcmp(c->def->hypervisor, "xen") == 0;
}

/* Xen reads the state of an older release, and refuses that of a newer one. */
static void older_xen(struct compare *c, const char *source, const char *target)
{
    checks_remedy(compat_line(c, CHECK_REFUSED, "release", "xen", source, target,
                      "host %s has Xen %s, host %s has %s: a guest cannot move to an older Xen",
                      c->src, source, c->dst, target),
        "update Xen on host %s, or shut the guest down and start it there", c->dst);
}

/* `what`: "xvm", "migrd". */
static void one_release(struct compare *c, const char *what, const char *source, const char *target)
{
    struct check *k;

    if (source[0] == '\0' || target[0] == '\0')
        return; /* the warning about what is not told covers it */
    switch (compat_release_step(source, target)) {
    case REL_SAME:
    case REL_TARGET_NEWER:
        compat_line(
            c, CHECK_OK, "release", what, source, target, "the releases of %s work together", what);
        break;
    case REL_TARGET_OLDER:
        if (strcmp(what, "xen") == 0) {
            older_xen(c, source, target);
            break;
        }
        k = compat_line(c, CHECK_WARN, "release", what, source, target,
            "host %s has an older %s, %s, than host %s, %s: what is new in the guest's state may "
            "be "
            "refused at the end, and the guest then goes on where it is",
            c->dst, what, target, c->src, source);
        checks_remedy(k, "update %s on host %s", what, c->dst);
        break;
    case REL_TOO_FAR:
        k = compat_line(c, CHECK_REFUSED, "release", what, source, target,
            "host %s has %s %s, host %s has %s: a release works with the one before it and with "
            "no other",
            c->src, what, source, c->dst, target);
        checks_remedy(k, "update the older host, one release at a time");
        break;
    case REL_UNKNOWN:
        k = compat_line(c, CHECK_WARN, "release", what, source, target,
            "host %s has %s %s, host %s has %s: which is the newer is not known", c->src, what,
            source, c->dst, target);
        checks_remedy(k, "use the same release on both hosts");
        break;
    }
}

/* A host may lack what a kind of guest needs: the CPU's help, or a part of its hypervisor. */
static void guest_type(struct compare *c)
{
    const Migrd__GuestType t = hv_guest_type(c->def);
    const char *type = hv_guest_type_name(t);

    if (c->target->guest_types == 0 || !compat_is_xen(c))
        return;
    if ((c->target->guest_types >> (unsigned)t & 1) != 0) {
        compat_line(
            c, CHECK_OK, "release", "guest type", type, type, "host %s runs such guests", c->dst);
        return;
    }
    checks_remedy(compat_line(c, CHECK_REFUSED, "release", "guest type", type, "not there",
                      "domain %s is a %s guest, which Xen on host %s cannot run", c->def->name,
                      type, c->dst),
        t == MIGRD__GUEST_TYPE__GUEST_PV
            ? "boot a Xen on host %s that was built with PV, or make it a pvh guest (type=)"
            : "switch on VT-x or AMD-V in the firmware of host %s",
        c->dst);
}

void compat_release(struct compare *c)
{
    const char *needs = c->def->hypervisor, *has = c->target->hypervisor;
    const char *release = c->offer->hypervisor_release;
    struct check *k;

    if (strcmp(needs, has) != 0) {
        k = compat_line(c, CHECK_REFUSED, "release", "hypervisor", needs, has,
            "domain %s needs hypervisor %s, host %s has %s", c->def->name, needs, c->dst, has);
        checks_remedy(k, "move it to a host with %s", needs);
    } else {
        one_release(c, needs, release, c->target->hypervisor_release);
        guest_type(c);
    }
    one_release(c, "migrd", c->source->release, c->target->release);
    if (!c->told)
        checks_remedy(compat_line(c, CHECK_WARN, "release", "migrd", "", c->target->release,
                          "host %s has a migrd that does not tell what its host has: networks and "
                          "disks are not compared, only looked for on host %s",
                          c->src, c->dst),
            "update migrd on host %s", c->src);
}

/* --- the domain --- */

static void boot_file(struct compare *c, const char *object, const char *path, bool missing)
{
    if (path[0] == '\0')
        return;
    if (!missing) {
        compat_line(c, CHECK_OK, "domain", object, path, path, "it is there on host %s", c->dst);
        return;
    }
    checks_remedy(compat_line(c, CHECK_WARN, "domain", object, path, "missing",
                      "host %s has no %s: domain %s runs there, but cannot boot there again",
                      c->dst, path, c->def->name),
        "copy it to host %s before the guest reboots", c->dst);
}

void compat_domain(struct compare *c)
{
    const struct err *taken = c->in->taken;

    if (taken != NULL && taken->code != ERR_NONE)
        compat_line(c, CHECK_REFUSED, "domain", c->def->name, "", "", "%s", taken->text);
    else
        compat_line(c, CHECK_OK, "domain", c->def->name, "", "",
            "name and uuid are free on host %s", c->dst);
    boot_file(c, "kernel", c->def->kernel, c->in->no_kernel);
    boot_file(c, "initrd", c->def->initrd, c->in->no_initrd);
}

/* --- all of it --- */

void compat_check(const struct compat *in, struct checks *out)
{
    static const Migrd__HostFacts nothing = MIGRD__HOST_FACTS__INIT;
    struct compare c = { .in = in,
        .offer = in->offer,
        .def = in->offer->domain,
        .source = in->offer->source != NULL ? in->offer->source : &nothing,
        .target = in->target,
        .told = in->offer->source != NULL,
        .src = in->offer->source_host[0] != '\0' ? in->offer->source_host : "the source",
        .dst = in->target->host,
        .out = out };

    compat_domain(&c);
    compat_release(&c);
    compat_cpu(&c);
    compat_memory(&c);
    compat_net(&c);
    compat_disks(&c);
}

/* --- as a message --- */

/* Bytes of the UTF-8 character at p, 0 if there is none. Overlong forms and surrogates are none. */
static size_t utf8_len(const unsigned char *p)
{
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : 4;

    if (p[0] > 0xf4 || (p[0] >= 0x80 && p[0] < 0xc2))
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90))
        return 0;
    return n;
}

/* protobuf-c's empty string is static: its free knows. */
static char *text_of(const char *s)
{
    char *copy;

    if (s[0] == '\0')
        return (char *)(uintptr_t)protobuf_c_empty_string;
    copy = strdup(s);
    for (unsigned char *p = (unsigned char *)copy; p != NULL && *p != '\0';) {
        size_t n = utf8_len(p);

        if (n == 0 || iscntrl(*p))
            *p = '?';
        p += n == 0 ? 1 : n;
    }
    return copy;
}

static Migrd__Check *check_of(const struct check *k)
{
    Migrd__Check *m = malloc(sizeof *m);

    if (m == NULL)
        return NULL;
    migrd__check__init(m);
    m->result = text_of(check_result_name(k->result));
    m->area = text_of(k->area);
    m->object = text_of(k->object);
    m->source = text_of(k->source);
    m->target = text_of(k->target);
    m->text = text_of(k->text);
    m->remedy = text_of(k->remedy);
    return m;
}

Migrd__CheckReport *compat_report(const struct checks *c)
{
    Migrd__CheckReport *r = malloc(sizeof *r);

    if (r == NULL)
        return NULL;
    migrd__check_report__init(r);
    r->checks = c->n > 0 ? calloc(c->n, sizeof(Migrd__Check *)) : NULL;
    for (size_t i = 0; r->checks != NULL && i < c->n; i++) {
        Migrd__Check *m = check_of(&c->check[i]);

        if (m == NULL)
            break;
        r->checks[r->n_checks++] = m;
    }
    return r;
}
