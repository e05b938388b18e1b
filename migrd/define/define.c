/* SPDX-License-Identifier: ISC */
/*
 * Entry, defaults and rules. Order: the text, the overrides, what is missing (uuid, MAC
 * addresses, max memory, vCPUs), then the rules. The rules hold for every definition in
 * the project, also for one that a peer offers: nothing behind them has to expect a path
 * with a newline or a second disk of the same name.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include <libxml/parser.h>
#include <uuid.h>

#include "base/pbjson.h"
#include "hypervisor/cpu_level.h"
#include "migrd/define/internal.h"
#include "storage-check/url.h"

#define PINNED_CPU_MAX 4095
#define DEVICES_READ_MAX 64 /* of a kind; define_check says how many are useful */

static const char *default_hypervisor = "xvm";

void define_default_hypervisor(const char *name)
{
    default_hypervisor = name;
}

/* ---- building ---- */

int define_fault(struct reader *r, unsigned line, enum err_code code, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (line == 0)
        return err_set(r->e, code, "%.90s: %s", r->file, text);
    return err_set(r->e, code, "%.90s:%u: %s", r->file, line, text);
}

void define_note(struct reader *r, unsigned line, const char *fmt, ...)
{
    char text[300], where[100];
    size_t at;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(where, sizeof where, line == 0 ? "%.80s" : "%.80s:%u", r->file, line);
    if (r->notes == NULL)
        return;
    at = strlen(r->notes->text);
    if (at + strlen(where) + strlen(text) + 4 < sizeof r->notes->text)
        snprintf(r->notes->text + at, sizeof r->notes->text - at, "%s: %s\n", where, text);
}

int define_no_memory(struct reader *r)
{
    return err_set(r->e, ERR_MEMORY, "%.90s: no memory to read the definition", r->file);
}

static void drop_text(char **field)
{
    if (*field != protobuf_c_empty_string)
        free(*field);
    *field = (char *)protobuf_c_empty_string;
}

static int put_text(char **field, const char *value)
{
    char *copy = value[0] == '\0' ? (char *)protobuf_c_empty_string : strdup(value);

    if (copy == NULL)
        return -1;
    drop_text(field);
    *field = copy;
    return 0;
}

int define_text(struct reader *r, char **field, const char *value)
{
    return put_text(field, value) < 0 ? define_no_memory(r) : 0;
}

int define_set_note(char **field, const char *text, struct err *e)
{
    if (put_text(field, text != NULL ? text : "") < 0)
        return err_set(e, ERR_MEMORY, "out of memory");
    return 0;
}

/* Makes room for one more pointer. */
static void *grow(void *list, size_t n)
{
    return realloc(list, (n + 1) * sizeof(void *));
}

Migrd__Disk *define_add_disk(struct reader *r)
{
    Migrd__Disk **list, *disk;

    if (r->d->n_disks == DEVICES_READ_MAX) {
        define_fault(r, 0, ERR_INVALID, "too many disks");
        return NULL;
    }
    list = grow(r->d->disks, r->d->n_disks);
    if (list != NULL)
        r->d->disks = list;
    disk = list == NULL ? NULL : malloc(sizeof *disk);
    if (disk == NULL) {
        define_no_memory(r);
        return NULL;
    }
    migrd__disk__init(disk);
    list[r->d->n_disks++] = disk;
    return disk;
}

Migrd__Vif *define_add_vif(struct reader *r)
{
    Migrd__Vif **list, *vif;

    if (r->d->n_vifs == DEVICES_READ_MAX) {
        define_fault(r, 0, ERR_INVALID, "too many vifs");
        return NULL;
    }
    list = grow(r->d->vifs, r->d->n_vifs);
    if (list != NULL)
        r->d->vifs = list;
    vif = list == NULL ? NULL : malloc(sizeof *vif);
    if (vif == NULL) {
        define_no_memory(r);
        return NULL;
    }
    migrd__vif__init(vif);
    list[r->d->n_vifs++] = vif;
    return vif;
}

void define_clear_disks(Migrd__Domain *d)
{
    for (size_t i = 0; i < d->n_disks; i++)
        migrd__disk__free_unpacked(d->disks[i], NULL);
    free(d->disks);
    d->disks = NULL;
    d->n_disks = 0;
}

void define_clear_vifs(Migrd__Domain *d)
{
    for (size_t i = 0; i < d->n_vifs; i++)
        migrd__vif__free_unpacked(d->vifs[i], NULL);
    free(d->vifs);
    d->vifs = NULL;
    d->n_vifs = 0;
}

static const struct {
    const char *word;
    Migrd__OnEvent on;
} event_words[] = {
    { "destroy", MIGRD__ON_EVENT__ON_DESTROY },
    { "restart", MIGRD__ON_EVENT__ON_RESTART },
    { "preserve", MIGRD__ON_EVENT__ON_PRESERVE },
};

int define_on_event(
    struct reader *r, unsigned line, const char *key, const char *word, Migrd__OnEvent *out)
{
    for (size_t i = 0; i < sizeof event_words / sizeof event_words[0]; i++)
        if (strcmp(event_words[i].word, word) == 0) {
            *out = event_words[i].on;
            return 0;
        }
    if (strcmp(word, "rename-restart") == 0 || strcmp(word, "coredump-destroy") == 0 ||
        strcmp(word, "coredump-restart") == 0)
        return define_fault(r, line, ERR_UNSUPPORTED,
            "%s: %s is not supported; use destroy, restart or preserve", key, word);
    return define_fault(
        r, line, ERR_INVALID, "%s: %.40s must be destroy, restart or preserve", key, word);
}

const char *define_on_event_word(Migrd__OnEvent on)
{
    for (size_t i = 0; i < sizeof event_words / sizeof event_words[0]; i++)
        if (event_words[i].on == on)
            return event_words[i].word;
    return NULL;
}

/* ---- what is missing ---- */

static void lower(char *s)
{
    for (; *s != '\0'; s++)
        *s = (char)tolower((unsigned char)*s);
}

static void trim(char *s)
{
    size_t n = strlen(s), lead = strspn(s, " \t\r\n");

    while (n > lead && strchr(" \t\r\n", s[n - 1]) != NULL)
        n--;
    memmove(s, s + lead, n - lead);
    s[n - lead] = '\0';
}

static bool mac_is_taken(const Migrd__Domain *d, const char *mac)
{
    for (size_t i = 0; i < d->n_vifs; i++)
        if (strcasecmp(d->vifs[i]->mac, mac) == 0)
            return true;
    return false;
}

static int make_mac(struct reader *r, Migrd__Vif *vif)
{
    unsigned char b[3];
    char mac[18];

    do {
        if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
            return err_sys(r->e, "%s: random MAC address", r->file);
        snprintf(mac, sizeof mac, "00:16:3e:%02x:%02x:%02x", b[0] & 0x7f, b[1], b[2]);
    } while (mac_is_taken(r->d, mac));
    return define_text(r, &vif->mac, mac);
}

static int make_uuid(struct reader *r)
{
    char text[37];
    uuid_t u;

    uuid_generate_random(u);
    uuid_unparse_lower(u, text);
    return define_text(r, &r->d->uuid, text);
}

int define_fill_hypervisor(struct reader *r)
{
    return r->d->hypervisor[0] != '\0' ? 0 : define_text(r, &r->d->hypervisor, default_hypervisor);
}

int define_fill(struct reader *r)
{
    Migrd__Domain *d = r->d;

    if (d->uuid[0] == '\0' && make_uuid(r) < 0)
        return -1;
    lower(d->uuid);
    if (define_fill_hypervisor(r) < 0)
        return -1;
    if (d->max_memory_kib == 0)
        d->max_memory_kib = d->memory_kib;
    if (d->vcpus == 0)
        d->vcpus = 1;
    define_set_vcpus(d, d->vcpus, define_max_vcpus(d));
    if (!r->balloon_set)
        d->balloon = true;
    if (d->cmdline[0] != '\0')
        trim(d->cmdline);
    if (d->title[0] != '\0')
        trim(d->title);
    if (d->description[0] != '\0')
        trim(d->description);
    for (size_t i = 0; i < d->n_disks; i++) {
        lower(d->disks[i]->wwn);
        lower(d->disks[i]->npiv);
    }
    for (size_t i = 0; i < d->n_vifs; i++) {
        if (d->vifs[i]->mac[0] == '\0' && make_mac(r, d->vifs[i]) < 0)
            return -1;
        lower(d->vifs[i]->mac);
    }
    return define_fill_xen(r);
}

/* ---- entry ---- */

static enum define_format guess(const char *text, size_t len)
{
    size_t i = 0;

    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        i = 3;
    while (i < len && isspace((unsigned char)text[i]))
        i++;
    return i < len && text[i] == '<' ? DEFINE_XML : DEFINE_XM;
}

static int read_text(struct reader *r, const char *text, size_t len, enum define_format format,
    const char *const *overrides, size_t n_overrides)
{
    if (len > DEFINE_TEXT_MAX)
        return define_fault(r, 0, ERR_INVALID, "larger than %u bytes", DEFINE_TEXT_MAX);
    if (memchr(text, '\0', len) != NULL)
        return define_fault(r, 0, ERR_INVALID, "has a NUL byte: this is no text");
    if (format == DEFINE_AUTO)
        format = guess(text, len);
    if (format == DEFINE_XM)
        return define_read_xm(r, text, len, overrides, n_overrides);
    if (define_read_xml(r, text, len) < 0)
        return -1;
    return define_override(r, overrides, n_overrides);
}

Migrd__Domain *define_parse(const char *text, size_t len, enum define_format format,
    const char *file, const char *const *overrides, size_t n_overrides, struct err *e)
{
    return define_parse_noted(text, len, format, file, overrides, n_overrides, NULL, e);
}

Migrd__Domain *define_parse_noted(const char *text, size_t len, enum define_format format,
    const char *file, const char *const *overrides, size_t n_overrides, struct define_notes *notes,
    struct err *e)
{
    struct reader r = { .file = file != NULL ? file : "definition", .notes = notes, .e = e };

    if (notes != NULL)
        notes->text[0] = '\0';
    r.d = malloc(sizeof *r.d);
    if (r.d == NULL) {
        define_no_memory(&r);
        return NULL;
    }
    migrd__domain__init(r.d);
    if (read_text(&r, text, len, format, overrides, n_overrides) == 0 && define_fill(&r) == 0) {
        if (define_check(r.d, e) == 0)
            return r.d;
        err_prefix(e, "%.90s", r.file);
    }
    migrd__domain__free_unpacked(r.d, NULL);
    return NULL;
}

Migrd__Domain *define_copy(const Migrd__Domain *d)
{
    return pb_copy(&d->base);
}

/* ---- rules ---- */

static bool only_of(const char *s, const char *extra)
{
    for (; *s != '\0'; s++)
        if (!isascii((unsigned char)*s) ||
            (!isalnum((unsigned char)*s) && strchr(extra, *s) == NULL))
            return false;
    return true;
}

static int check_name(const char *name, struct err *e)
{
    size_t n = strlen(name);

    if (n == 0)
        return err_set(e, ERR_INVALID, "the domain has no name; set name");
    if (n > 63 || !only_of(name, "._+-"))
        return err_set(e, ERR_INVALID,
            "name %.70s: a name has 1 to 63 characters of A-Z, a-z, 0-9, '.', '_', '+', '-'", name);
    if (strspn(name, "0123456789") == n)
        return err_set(
            e, ERR_INVALID, "name %s: a number is not a name, it would be taken for an id", name);
    if (name[0] == '-' || name[0] == '.')
        return err_set(e, ERR_INVALID, "name %s: a name does not begin with '%c'", name, name[0]);
    if (strcmp(name, "Domain-0") == 0)
        return err_set(e, ERR_INVALID, "name Domain-0 is the host's own");
    return 0;
}

static int check_uuid(const char *text, struct err *e)
{
    char back[37];
    uuid_t u;

    if (uuid_parse(text, u) < 0)
        return err_set(e, ERR_INVALID,
            "uuid %.40s is not of the form 01234567-89ab-cdef-0123-456789abcdef", text);
    uuid_unparse_lower(u, back);
    if (strcmp(back, text) != 0)
        return err_set(e, ERR_INVALID, "uuid %s must be in lower case", text);
    if (uuid_is_null(u))
        return err_set(e, ERR_INVALID, "uuid %s is the host's own", text);
    return 0;
}

/* Printable UTF-8 that XML can carry; `most` bytes. */
static int check_printable(const char *what, const char *s, size_t most, struct err *e)
{
    if (strlen(s) > most)
        return err_set(
            e, ERR_INVALID, "%s has %zu characters, at most %zu fit", what, strlen(s), most);
    for (const char *p = s; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return err_set(
                e, ERR_INVALID, "%s has a control character (0x%02x)", what, (unsigned char)*p);
    if (!xmlCheckUTF8((const unsigned char *)s) || strstr(s, "\xef\xbf\xbe") != NULL ||
        strstr(s, "\xef\xbf\xbf") != NULL)
        return err_set(e, ERR_INVALID, "%s is not valid UTF-8", what);
    return 0;
}

static bool has_blanks_around(const char *s)
{
    return s[0] != '\0' &&
           (isspace((unsigned char)s[0]) || isspace((unsigned char)s[strlen(s) - 1]));
}

/* A description may have several lines. */
static int check_notes(const Migrd__Domain *d, struct err *e)
{
    char *line = strdup(d->description);
    int rc;

    if (line == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    for (char *p = line; *p != '\0'; p++)
        if (*p == '\n' || *p == '\t')
            *p = ' ';
    rc = check_printable("description", line, DEFINE_DESCRIPTION_MAX, e);
    free(line);
    if (rc < 0 || check_printable("title", d->title, DEFINE_TITLE_MAX, e) < 0)
        return -1;
    if (has_blanks_around(d->title) || has_blanks_around(d->description))
        return err_set(e, ERR_INVALID, "title, description: remove the blanks around them");
    return define_metadata_check(d->metadata, e);
}

static int check_path(const char *what, const char *path, struct err *e)
{
    if (path[0] != '/')
        return err_set(e, ERR_INVALID, "%s %.100s: this must be an absolute path", what, path);
    if (path[strlen(path) - 1] == ' ')
        return err_set(e, ERR_INVALID, "%s '%.100s' ends in a blank; rename the file", what, path);
    return check_printable(what, path, DEFINE_PATH_MAX, e);
}

static int check_memory(const Migrd__Domain *d, struct err *e)
{
    if (d->memory_kib == 0)
        return err_set(e, ERR_INVALID, "the domain has no memory; set memory");
    if (d->memory_kib < 1024 || d->max_memory_kib > DEFINE_MEMORY_MAX_KIB)
        return err_set(e, ERR_INVALID, "memory must be from 1 MiB to 16 TiB");
    if (d->memory_kib > d->max_memory_kib)
        return err_set(e, ERR_INVALID,
            "memory (%llu KiB) is more than max memory (%llu KiB); raise maxmem",
            (unsigned long long)d->memory_kib, (unsigned long long)d->max_memory_kib);
    if (d->memory_kib % 4 != 0 || d->max_memory_kib % 4 != 0)
        return err_set(e, ERR_INVALID, "memory must be a multiple of 4 KiB, a page");
    return 0;
}

/* One number of a CPU list at *p. */
static int list_number(const char **p, unsigned *out)
{
    unsigned n = 0;
    int digits = 0;

    for (; isdigit((unsigned char)**p) && digits < 5; (*p)++, digits++)
        n = n * 10 + (unsigned)(**p - '0');
    *out = n;
    return digits > 0 && n <= PINNED_CPU_MAX ? 0 : -1;
}

static int check_pinning(const char *list, struct err *e)
{
    const char *p = list;
    unsigned from, to;

    if (strlen(list) > 255)
        return err_set(e, ERR_INVALID, "cpus: the list is longer than 255 characters");
    while (*p != '\0') {
        bool without = *p == '^';

        p += without;
        if (list_number(&p, &from) < 0)
            goto bad;
        to = from;
        if (*p == '-' && !without) {
            p++;
            if (list_number(&p, &to) < 0)
                goto bad;
        }
        if (to < from || (*p != '\0' && *p != ',') || (*p == ',' && p[1] == '\0'))
            goto bad;
        p += *p == ',';
    }
    return 0;
bad:
    return err_set(
        e, ERR_INVALID, "cpus %.60s: this must be a list of CPUs such as 0-3,^2,7", list);
}

static int check_disk(const Migrd__Disk *k, struct err *e)
{
    size_t n = strlen(k->device);

    if (n < 2 || n > 15 || !isalpha((unsigned char)k->device[0]) || !only_of(k->device, ""))
        return err_set(e, ERR_INVALID,
            "disk %.60s: device %.20s: this must be a name such as xvda or vda", k->source,
            k->device);
    if (!storage_url_is_network(k->source) && check_path("disk", k->source, e) < 0)
        return -1;
    if (check_printable("disk", k->source, DEFINE_PATH_MAX, e) < 0)
        return -1;
    if (strlen(k->serial) > DEFINE_SERIAL_MAX || !only_of(k->serial, "._+-"))
        return err_set(e, ERR_INVALID,
            "disk %s: serial %.30s: at most %d characters of A-Z, a-z, 0-9, '.', '_', '+', '-'",
            k->device, k->serial, DEFINE_SERIAL_MAX);
    return define_check_storage(k, e);
}

static int check_disks(const Migrd__Domain *d, struct err *e)
{
    for (size_t i = 0; i < d->n_disks; i++) {
        const Migrd__Disk *k = d->disks[i];

        if (check_disk(k, e) < 0)
            return -1;
        for (size_t j = 0; j < i; j++) {
            if (strcmp(d->disks[j]->device, k->device) == 0)
                return err_set(e, ERR_INVALID, "disk %.60s: device %s is taken by %.60s", k->source,
                    k->device, d->disks[j]->source);
            if (strcmp(d->disks[j]->source, k->source) == 0 &&
                !(k->read_only && d->disks[j]->read_only))
                return err_set(e, ERR_INVALID,
                    "disk %.100s is there twice, as %s and %s; writing through both would "
                    "destroy it",
                    k->source, d->disks[j]->device, k->device);
        }
    }
    return 0;
}

static int check_mac(const char *mac, struct err *e)
{
    bool good = strlen(mac) == 17;

    for (int i = 0; good && i < 17; i++)
        good = i % 3 == 2 ? mac[i] == ':'
                          : isxdigit((unsigned char)mac[i]) && !isupper((unsigned char)mac[i]);
    if (!good)
        return err_set(
            e, ERR_INVALID, "mac %.30s: this must be of the form 00:16:3e:01:02:03", mac);
    if (strtoul(mac, NULL, 16) & 1)
        return err_set(
            e, ERR_INVALID, "mac %s is a group address; clear the lowest bit of %.2s", mac, mac);
    if (strcmp(mac, "00:00:00:00:00:00") == 0)
        return err_set(e, ERR_INVALID, "mac %s is no address", mac);
    return 0;
}

static int check_ifname(const char *what, const char *name, struct err *e)
{
    if (strlen(name) > 15 || !only_of(name, "._-@+") || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0)
        return err_set(e, ERR_INVALID,
            "vif: %s %.40s is no name of an interface (at most 15 letters, digits, '.', '_', '-')",
            what, name);
    return 0;
}

static int check_vifs(const Migrd__Domain *d, struct err *e)
{
    for (size_t i = 0; i < d->n_vifs; i++) {
        const Migrd__Vif *v = d->vifs[i];

        if (check_mac(v->mac, e) < 0 || check_ifname("bridge", v->bridge, e) < 0 ||
            check_ifname("vifname", v->ifname, e) < 0)
            return -1;
        if (v->mtu != 0 && (v->mtu < 68 || v->mtu > 65535))
            return err_set(e, ERR_INVALID, "vif: mtu %u must be from 68 to 65535", v->mtu);
        for (size_t j = 0; j < i; j++) {
            if (strcmp(d->vifs[j]->mac, v->mac) == 0)
                return err_set(e, ERR_INVALID, "vif: mac %s is there twice", v->mac);
            if (v->ifname[0] != '\0' && strcmp(d->vifs[j]->ifname, v->ifname) == 0)
                return err_set(e, ERR_INVALID, "vif: vifname %s is there twice", v->ifname);
        }
    }
    return 0;
}

static int check_devices(const Migrd__Domain *d, struct err *e)
{
    size_t n = d->n_disks + d->n_vifs + d->rng + d->balloon;

    if (n > DEFINE_DEVICES_MAX && !define_is_xen(d))
        return err_set(e, ERR_INVALID,
            "%zu devices (disks, vifs, rng, balloon): at most %d fit into a domain", n,
            DEFINE_DEVICES_MAX);
    if (check_disks(d, e) < 0)
        return -1;
    return check_vifs(d, e);
}

static int check_boot(const Migrd__Domain *d, struct err *e)
{
    bool other_start = d->type == MIGRD__GUEST_TYPE__GUEST_HVM || d->bootloader[0] != '\0';

    if (d->kernel[0] == '\0' && !other_start)
        return err_set(
            e, ERR_INVALID, "the domain has no kernel; set kernel to the path of a Linux kernel");
    if (d->kernel[0] != '\0' && check_path("kernel", d->kernel, e) < 0)
        return -1;
    if (d->initrd[0] != '\0' && check_path("ramdisk", d->initrd, e) < 0)
        return -1;
    if (d->cmdline[0] == ' ' ||
        (d->cmdline[0] != '\0' && d->cmdline[strlen(d->cmdline) - 1] == ' '))
        return err_set(e, ERR_INVALID, "kernel command line: remove the blanks around it");
    return check_printable("kernel command line", d->cmdline, DEFINE_CMDLINE_MAX, e);
}

static int check_vcpus(const Migrd__Domain *d, struct err *e)
{
    unsigned max = define_max_vcpus(d);

    if (d->vcpus < 1 || d->vcpus > DEFINE_VCPUS_MAX)
        return err_set(
            e, ERR_INVALID, "vcpus = %u must be from 1 to %d", d->vcpus, DEFINE_VCPUS_MAX);
    if (max < d->vcpus || max > DEFINE_VCPUS_MAX)
        return err_set(e, ERR_INVALID, "maxvcpus = %u must be from vcpus, %u, to %d", max, d->vcpus,
            DEFINE_VCPUS_MAX);
    if (d->n_vcpu_pins > max)
        return err_set(e, ERR_INVALID, "vcpu %zu is pinned; the domain has at most %u vCPUs",
            d->n_vcpu_pins - 1, max);
    if (d->cpu_weight > HV_WEIGHT_MAX || d->cpu_cap > HV_CAP_MAX)
        return err_set(e, ERR_INVALID, "cpu_weight = %u, cpu_cap = %u must be up to %d",
            d->cpu_weight, d->cpu_cap, HV_WEIGHT_MAX);
    if (check_pinning(d->vcpu_pinning, e) < 0)
        return -1;
    for (size_t i = 0; i < d->n_vcpu_pins; i++)
        if (check_pinning(d->vcpu_pins[i], e) < 0)
            return -1;
    return 0;
}

static int check_cpu_level(const Migrd__Domain *d, struct err *e)
{
    if (d->cpu_level[0] != '\0' && strcmp(d->hypervisor, "xvm") != 0)
        return err_set(e, ERR_UNSUPPORTED,
            "cpu_level is not supported by hypervisor %s; remove it or use xvm", d->hypervisor);
    return cpu_level_check(d->cpu_level, e);
}

static bool on_event_known(Migrd__OnEvent on)
{
    return on == MIGRD__ON_EVENT__ON_DEFAULT || define_on_event_word(on) != NULL;
}

int define_check(const Migrd__Domain *d, struct err *e)
{
    if (check_name(d->name, e) < 0 || check_uuid(d->uuid, e) < 0 || check_notes(d, e) < 0)
        return -1;
    if (strcmp(d->hypervisor, "xvm") != 0 && strcmp(d->hypervisor, "xen") != 0)
        return err_set(e, ERR_INVALID, "hypervisor %.20s must be xvm or xen", d->hypervisor);
    if (check_memory(d, e) < 0)
        return -1;
    if (check_vcpus(d, e) < 0 || check_cpu_level(d, e) < 0 || check_boot(d, e) < 0 ||
        check_devices(d, e) < 0 || define_check_xen(d, e) < 0)
        return -1;
    if (!on_event_known(d->on_poweroff) || !on_event_known(d->on_reboot) ||
        !on_event_known(d->on_crash) || !on_event_known(d->on_watchdog))
        return err_set(
            e, ERR_INVALID, "on_poweroff, on_reboot, on_crash or on_watchdog is out of range");
    return 0;
}

unsigned define_max_vcpus(const Migrd__Domain *d)
{
    return d->max_vcpus != 0 ? d->max_vcpus : d->vcpus;
}

void define_set_vcpus(Migrd__Domain *d, unsigned vcpus, unsigned max)
{
    d->vcpus = vcpus;
    d->max_vcpus = max == vcpus ? 0 : max;
}

void define_set_sched(Migrd__Domain *d, unsigned weight, unsigned cap)
{
    d->cpu_weight = weight == HV_WEIGHT ? 0 : weight;
    d->cpu_cap = cap;
}
