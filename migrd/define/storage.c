/* SPDX-License-Identifier: ISC */
/*
 * What a definition says of a disk's storage, for both readers and both writers: the words of its
 * error policy and cache mode, the rules, and the way between a URL and the pieces that libvirt's
 * <source protocol=...> has. The pieces are cut out of the URL as they stand (%XX stays %XX), so
 * that putting them together gives the same URL again.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrd/define/internal.h"
#include "storage-check/url.h"

/* ---- words ---- */

static const struct {
    const char *word;
    Migrd__OnIoError on;
} io_words[] = {
    { "report", MIGRD__ON_IO_ERROR__IO_REPORT },
    { "stop", MIGRD__ON_IO_ERROR__IO_STOP },
    { "ignore", MIGRD__ON_IO_ERROR__IO_IGNORE },
};

static const char *const cache_words[] = { "none", "writethrough", "writeback", "unsafe" };

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

int define_io_error(
    struct reader *r, unsigned line, const char *key, const char *word, Migrd__OnIoError *out)
{
    for (size_t i = 0; i < COUNT(io_words); i++)
        if (strcmp(io_words[i].word, word) == 0) {
            *out = io_words[i].on;
            return 0;
        }
    if (strcmp(word, "enospace") == 0)
        return define_fault(r, line, ERR_UNSUPPORTED,
            "disk: %s enospace is not supported; use report, stop or ignore", key);
    return define_fault(
        r, line, ERR_INVALID, "disk: %s %.40s must be report, stop or ignore", key, word);
}

const char *define_io_error_word(Migrd__OnIoError on)
{
    for (size_t i = 0; i < COUNT(io_words); i++)
        if (io_words[i].on == on)
            return io_words[i].word;
    return NULL;
}

static bool cache_known(const char *word)
{
    for (size_t i = 0; i < COUNT(cache_words); i++)
        if (strcmp(cache_words[i], word) == 0)
            return true;
    return false;
}

int define_cache(struct reader *r, unsigned line, const char *word, char **field)
{
    if (strcmp(word, "default") == 0)
        return define_text(r, field, "");
    if (strcmp(word, "directsync") == 0)
        return define_fault(r, line, ERR_UNSUPPORTED,
            "disk: cache directsync is not supported; use none or writethrough");
    if (!cache_known(word))
        return define_fault(r, line, ERR_INVALID,
            "disk: cache %.40s must be none, writethrough, writeback or unsafe", word);
    return define_text(r, field, word);
}

/* ---- rules ---- */

/* Exactly `n` hex digits in lower case. */
static bool is_hex(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isxdigit((unsigned char)s[i]) || isupper((unsigned char)s[i]))
            return false;
    return true;
}

static int check_names(const Migrd__Disk *k, struct err *e)
{
    size_t n = strlen(k->wwn);

    if (n != 0 && ((n != 16 && n != 32) || !is_hex(k->wwn, n)))
        return err_set(e, ERR_INVALID,
            "disk %s: wwn %.40s: this must be 16 or 32 hex digits in lower case", k->device,
            k->wwn);
    if (k->npiv[0] != '\0' && (strlen(k->npiv) != 33 || k->npiv[16] != ':' ||
                                  !is_hex(k->npiv, 16) || !is_hex(k->npiv + 17, 16)))
        return err_set(e, ERR_INVALID,
            "disk %s: npiv %.40s: this must be WWPN:WWNN, of 16 hex digits each in lower case",
            k->device, k->npiv);
    if ((n != 0 || k->npiv[0] != '\0') && storage_url_is_network(k->source))
        return err_set(e, ERR_INVALID,
            "disk %s: wwn and npiv are for disks of this host, not for %.100s", k->device,
            k->source);
    return 0;
}

int define_check_storage(const Migrd__Disk *k, struct err *e)
{
    struct storage_url u;

    if (k->on_io_error != MIGRD__ON_IO_ERROR__IO_DEFAULT &&
        define_io_error_word(k->on_io_error) == NULL)
        return err_set(e, ERR_INVALID, "disk %s: on_io_error is out of range", k->device);
    if (k->cache[0] != '\0' && !cache_known(k->cache))
        return err_set(e, ERR_INVALID,
            "disk %s: cache %.40s must be none, writethrough, writeback or unsafe", k->device,
            k->cache);
    if (check_names(k, e) < 0)
        return -1;
    return storage_url_check_disk(k->source, &u, e);
}

/* ---- URL and pieces ---- */

static void cut(char *out, size_t size, const char *from, size_t n)
{
    snprintf(out, size, "%.*s", (int)n, from);
}

/* "[::1]:2049" or "host:2049". */
static void split_host(const char *from, size_t n, struct define_source *s)
{
    const char *end = from + n, *close = memchr(from, ']', n), *colon;

    if (n > 0 && from[0] == '[' && close != NULL) {
        cut(s->host, sizeof s->host, from + 1, (size_t)(close - from - 1));
        from = close + 1;
        colon = from < end ? from : NULL;
    } else {
        colon = memchr(from, ':', n);
        cut(s->host, sizeof s->host, from, colon == NULL ? n : (size_t)(colon - from));
    }
    if (colon != NULL)
        cut(s->port, sizeof s->port, colon + 1, (size_t)(end - colon - 1));
}

bool define_source_split(const char *source, struct define_source *s)
{
    bool nfs = strncmp(source, "nfs://", 6) == 0;
    const char *host, *path, *at, *query;

    memset(s, 0, sizeof *s);
    if (!storage_url_is_network(source))
        return false;
    s->protocol = nfs ? "nfs" : "iscsi";
    host = strchr(source, '/') + 2;
    path = host + strcspn(host, "/");
    for (at = path; at > host && at[-1] != '@';)
        at--;
    if (at > host)
        cut(s->user, sizeof s->user, host, (size_t)(at - 1 - host));
    split_host(at, (size_t)(path - at), s);
    query = nfs ? strchr(path, '?') : NULL;
    if (query != NULL)
        cut(s->query, sizeof s->query, query + 1, strlen(query + 1));
    /* libvirt's name of an NFS file begins with the slash, that of a target does not */
    path += !nfs && path[0] == '/';
    cut(s->name, sizeof s->name, path, query == NULL ? strlen(path) : (size_t)(query - path));
    return true;
}

int define_source_join(struct reader *r, unsigned line, const struct define_source *s, char **field)
{
    bool ipv6 = strchr(s->host, ':') != NULL, nfs = strcmp(s->protocol, "nfs") == 0;
    char source[STORAGE_SOURCE_MAX + 1];
    int n;

    n = snprintf(source, sizeof source, "%s://%s%s%s%s%s%s%s%s%s%s%s", s->protocol, s->user,
        s->user[0] != '\0' ? "@" : "", ipv6 ? "[" : "", s->host, ipv6 ? "]" : "",
        s->port[0] != '\0' ? ":" : "", s->port, nfs ? "" : "/", s->name,
        s->query[0] != '\0' ? "?" : "", s->query);
    if (n < 0 || (size_t)n >= sizeof source)
        return define_fault(
            r, line, ERR_INVALID, "the disk's source is longer than %d bytes", STORAGE_SOURCE_MAX);
    return define_text(r, field, source);
}
