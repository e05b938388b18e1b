/* SPDX-License-Identifier: ISC */
/*
 * A source is read from the left, piece by piece; what is left over at the end is an error. It may
 * come from a peer's offer, hence: at most STORAGE_SOURCE_MAX bytes, no control characters, neither
 * as they are nor as %XX, host names and targets of the characters that such names have, no "." or
 * ".." in paths of a server, each option once.
 *
 * A password has no place in a source: sources stand in definitions, offers, logs and reports. One
 * that is there anyway is refused, and `shown`, which all messages use, leaves it out.
 *
 * NFS version 4 may be asked for, since its locks are of use beside a disk, but it carries no disk:
 * libnfs 4.0 fails to write more than 3944 bytes with it, and never reconnects.
 */
#include "storage-check/url.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_MAX 161
#define NFS_PORT_V4 2049u

struct reader {
    const char *shown;
    struct storage_url *u;
    struct err *e;
};

__attribute__((format(printf, 3, 4))) static int fault(
    struct reader *r, enum err_code code, const char *fmt, ...)
{
    char text[320];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(r->e, code, "disk %s: %s", r->shown, text);
}

/* ---- pieces ---- */

/* Length of the "scheme://" that s begins with, 0 without one. */
static size_t scheme_len(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789+.-");

    return n > 0 && strncmp(s + n, "://", 3) == 0 ? n + 3 : 0;
}

/* Appends at most `n` bytes of s. */
static void append(char out[SHOWN_MAX], const char *s, size_t n)
{
    size_t have = strlen(out), room = SHOWN_MAX - 1 - have;

    n = strnlen(s, n < room ? n : room);
    memcpy(out + have, s, n);
    out[have + n] = '\0';
}

/* The source as messages show it: short, without what follows the name of a user. */
static void show(const char *source, char out[SHOWN_MAX])
{
    size_t scheme = scheme_len(source), at = scheme + strcspn(source + scheme, "/"), name;

    out[0] = '\0';
    append(out, source, scheme);
    while (scheme > 0 && at > scheme && source[at - 1] != '@')
        at--;
    if (scheme > 0 && at > scheme) {
        name = strcspn(source + scheme, ":%@");
        append(out, source + scheme, name > 60 ? 60 : name);
        append(out, "@", 1);
        append(out, source + at, SHOWN_MAX);
    } else {
        append(out, source + scheme, SHOWN_MAX);
    }
    for (char *p = out; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
}

/* "65535" as a number of at most `most`; -1 if it is none. */
static int64_t number(const char *s, uint64_t most)
{
    uint64_t n = 0;

    if (*s == '\0')
        return -1;
    for (; *s != '\0'; s++) {
        if (!isdigit((unsigned char)*s))
            return -1;
        n = n * 10 + (uint64_t)(*s - '0');
        if (n > most)
            return -1;
    }
    return (int64_t)n;
}

static int hex(char c)
{
    return isdigit((unsigned char)c)    ? c - '0'
           : isxdigit((unsigned char)c) ? (c | 0x20) - 'a' + 10
                                        : -1;
}

/* Replaces %XX by the bytes they stand for, in place. */
static int decode(struct reader *r, char *s)
{
    char *out = s;

    for (; *s != '\0'; s++) {
        int c = (unsigned char)*s;

        if (c == '%') {
            if (hex(s[1]) < 0 || hex(s[2]) < 0)
                return fault(r, ERR_INVALID,
                    "'%%' must be followed by two hex digits; write %%25 for itself");
            c = hex(s[1]) * 16 + hex(s[2]);
            s += 2;
        }
        if (c < ' ' || c == 0x7f)
            return fault(r, ERR_INVALID, "it has a control character (0x%02x)", (unsigned)c);
        *out++ = (char)c;
    }
    *out = '\0';
    return 0;
}

static int set_port(struct reader *r, const char *what, const char *text, uint16_t *port)
{
    int64_t n = number(text, UINT16_MAX);

    if (n < 1)
        return fault(r, ERR_INVALID, "%s '%.20s' must be from 1 to 65535", what, text);
    *port = (uint16_t)n;
    return 0;
}

static bool is_ipv6(const char *s)
{
    struct in6_addr a;

    return inet_pton(AF_INET6, s, &a) == 1;
}

/* "HOST[:PORT]" or "[IPV6][:PORT]"; cuts the text. */
static int set_host(struct reader *r, char *text)
{
    struct storage_url *u = r->u;
    char *port = strchr(text, ':'), *close;

    if (text[0] == '[') {
        close = strchr(text, ']');
        if (close == NULL || (close[1] != '\0' && close[1] != ':'))
            return fault(r, ERR_INVALID, "the ']' behind the IPv6 address is missing");
        *close = '\0';
        text++;
        if (!is_ipv6(text))
            return fault(r, ERR_INVALID, "'%.50s' is no IPv6 address", text);
        port = close[1] == ':' ? close + 1 : NULL;
        u->ipv6 = true;
    } else if (is_ipv6(text)) {
        return fault(r, ERR_INVALID, "an IPv6 address is put into brackets: [%.50s]", text);
    }
    if (port != NULL)
        *port++ = '\0';
    if (text[0] == '\0')
        return fault(r, ERR_INVALID, "the server's name is missing");
    if (strlen(text) > STORAGE_HOST_MAX)
        return fault(
            r, ERR_INVALID, "the server's name is longer than %d characters", STORAGE_HOST_MAX);
    for (const char *p = text; *p != '\0' && !u->ipv6; p++)
        if (!isalnum((unsigned char)*p) && strchr("._-", *p) == NULL)
            return fault(r, ERR_INVALID, "'%.60s' is no name of a server", text);
    strcpy(u->host, text);
    return port == NULL ? 0 : set_port(r, "port", port, &u->port);
}

/* Copies the part before the path into `out`, without the scheme; the path's begin, or NULL. */
static const char *cut_authority(
    struct reader *r, const char *source, char out[STORAGE_SOURCE_MAX + 1])
{
    const char *from = source + scheme_len(source), *slash = strchr(from, '/');

    if (slash == NULL) {
        fault(r, ERR_INVALID, "there is nothing behind the server's name");
        return NULL;
    }
    snprintf(out, STORAGE_SOURCE_MAX + 1, "%.*s", (int)(slash - from), from);
    return slash;
}

/* ---- NFS ---- */

static int set_id(struct reader *r, const char *key, const char *value, uint32_t *id, bool *has)
{
    int64_t n = number(value, UINT32_MAX - 1);

    if (n < 0)
        return fault(r, ERR_INVALID, "%s=%.20s must be from 0 to 4294967294", key, value);
    *id = (uint32_t)n;
    *has = true;
    return 0;
}

static int set_nfs_port(struct reader *r, const char *value)
{
    uint16_t before = r->u->port;

    if (set_port(r, "nfsport", value, &r->u->port) < 0)
        return -1;
    if (before != 0 && before != r->u->port)
        return fault(r, ERR_INVALID, "port %u and nfsport=%u do not agree; leave one out",
            (unsigned)before, (unsigned)r->u->port);
    return 0;
}

static int set_option(struct reader *r, const char *key, const char *value)
{
    struct storage_url *u = r->u;

    if (strcmp(key, "version") == 0) {
        if (strcmp(value, "3") != 0 && strcmp(value, "4") != 0)
            return fault(r, ERR_INVALID, "version=%.20s must be 3 or 4", value);
        u->version = (unsigned)(value[0] - '0');
        return 0;
    }
    if (strcmp(key, "nfsport") == 0)
        return set_nfs_port(r, value);
    if (strcmp(key, "mountport") == 0)
        return set_port(r, key, value, &u->mount_port);
    if (strcmp(key, "uid") == 0)
        return set_id(r, key, value, &u->uid, &u->has_uid);
    if (strcmp(key, "gid") == 0)
        return set_id(r, key, value, &u->gid, &u->has_gid);
    return fault(r, ERR_INVALID,
        "option %.40s is not known; version, nfsport, mountport, uid and gid are", key);
}

static int set_options(struct reader *r, char *text)
{
    static const char *const keys[] = { "version", "nfsport", "mountport", "uid", "gid" };
    bool seen[sizeof keys / sizeof keys[0]] = { false };
    char *next, *value;

    for (; text != NULL && *text != '\0'; text = next) {
        next = strchr(text, '&');
        if (next != NULL)
            *next++ = '\0';
        value = strchr(text, '=');
        if (value == NULL)
            return fault(r, ERR_INVALID, "option '%.40s' is not of the form key=value", text);
        *value++ = '\0';
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
            if (strcmp(keys[i], text) == 0) {
                if (seen[i])
                    return fault(r, ERR_INVALID, "option %s is there twice", text);
                seen[i] = true;
            }
        if (set_option(r, text, value) < 0)
            return -1;
    }
    return 0;
}

static bool has_dots(const char *path)
{
    for (const char *p = path; (p = strchr(p, '/')) != NULL;) {
        size_t n = strcspn(++p, "/");

        if ((n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return true;
    }
    return false;
}

/* "/export/path/file": the last part is the file, the rest is what is mounted. */
static int set_nfs_path(struct reader *r, char *path)
{
    struct storage_url *u = r->u;
    char *slash;

    if (decode(r, path) < 0)
        return -1;
    slash = strrchr(path, '/');
    if (slash[1] == '\0')
        return fault(r, ERR_INVALID, "it names a folder; the name of the image file is missing");
    if (has_dots(path))
        return fault(r, ERR_INVALID, "'.' and '..' are not allowed in the path");
    strcpy(u->file, slash);
    *slash = '\0';
    strcpy(u->path, path[0] == '\0' ? "/" : path);
    return 0;
}

static int read_nfs(struct reader *r, const char *source)
{
    char host[STORAGE_SOURCE_MAX + 1], path[STORAGE_SOURCE_MAX + 1], *options;
    const char *from = cut_authority(r, source, host);

    if (from == NULL)
        return -1;
    r->u->kind = MIGRD__STORAGE_KIND__STORAGE_NFS;
    r->u->version = 3;
    if (strchr(host, '@') != NULL)
        return fault(r, ERR_INVALID, "NFS knows no names of users; use ?uid=NUMBER&gid=NUMBER");
    if (set_host(r, host) < 0)
        return -1;
    strcpy(path, from);
    options = strchr(path, '?');
    if (options != NULL)
        *options++ = '\0';
    if (set_nfs_path(r, path) < 0 || set_options(r, options) < 0)
        return -1;
    if (r->u->version == 4 && r->u->port == 0)
        r->u->port = NFS_PORT_V4;
    return 0;
}

/* ---- iSCSI ---- */

static int set_user(struct reader *r, const char *user)
{
    if (strpbrk(user, ":%") != NULL)
        return fault(r, ERR_INVALID,
            "a password must not stand in a definition, where others read it; put the line "
            "'TARGET USER PASSWORD' into /etc/migrd/storage-secrets (storage-secrets) and leave "
            "USER@ here");
    if (user[0] == '\0')
        return fault(r, ERR_INVALID, "there is no user before the '@'");
    if (strlen(user) > STORAGE_USER_MAX)
        return fault(
            r, ERR_INVALID, "the user's name is longer than %d characters", STORAGE_USER_MAX);
    if (strchr(user, ' ') != NULL)
        return fault(r, ERR_INVALID, "there is a blank in the user's name");
    strcpy(r->u->user, user);
    return 0;
}

static int set_target(struct reader *r, const char *target)
{
    if (strncmp(target, "iqn.", 4) != 0 && strncmp(target, "eui.", 4) != 0 &&
        strncmp(target, "naa.", 4) != 0)
        return fault(r, ERR_INVALID, "target '%.60s' must begin with iqn., eui. or naa.", target);
    if (strlen(target) > STORAGE_TARGET_MAX)
        return fault(
            r, ERR_INVALID, "the target's name is longer than %d characters", STORAGE_TARGET_MAX);
    for (const char *p = target; *p != '\0'; p++)
        if (!isalnum((unsigned char)*p) && strchr(".:-_", *p) == NULL)
            return fault(r, ERR_INVALID, "target '%.60s' has '%c' in it", target, *p);
    strcpy(r->u->target, target);
    return 0;
}

static int set_iscsi_path(struct reader *r, char *path)
{
    char *lun = strchr(path, '/');
    int64_t n;

    if (lun == NULL)
        return fault(r, ERR_INVALID, "the number of the LUN is missing behind the target's name");
    *lun++ = '\0';
    if (decode(r, path) < 0 || set_target(r, path) < 0)
        return -1;
    n = number(lun, STORAGE_LUN_MAX);
    if (n < 0)
        return fault(
            r, ERR_INVALID, "LUN '%.20s' must be a number from 0 to %d", lun, STORAGE_LUN_MAX);
    r->u->lun = (unsigned)n;
    return 0;
}

static int read_iscsi(struct reader *r, const char *source)
{
    char host[STORAGE_SOURCE_MAX + 1], path[STORAGE_SOURCE_MAX + 1], *at, *portal = host;
    const char *from = cut_authority(r, source, host);

    if (from == NULL)
        return -1;
    r->u->kind = MIGRD__STORAGE_KIND__STORAGE_ISCSI;
    r->u->port = ISCSI_PORT;
    at = strrchr(host, '@');
    if (at != NULL) {
        *at = '\0';
        portal = at + 1;
        if (set_user(r, host) < 0)
            return -1;
    }
    if (set_host(r, portal) < 0)
        return -1;
    strcpy(path, from + 1);
    return set_iscsi_path(r, path);
}

/* ---- all ---- */

static int read_path(struct reader *r, const char *source)
{
    if (source[0] != '/')
        return fault(r, ERR_INVALID, "this must be an absolute path, nfs://... or iscsi://...");
    r->u->kind = MIGRD__STORAGE_KIND__STORAGE_FILE;
    strcpy(r->u->path, source);
    return 0;
}

int storage_url_parse(const char *source, struct storage_url *out, struct err *e)
{
    char shown[SHOWN_MAX];
    struct reader r = { .shown = shown, .u = out, .e = e };

    memset(out, 0, sizeof *out);
    show(source, shown);
    if (strlen(source) > STORAGE_SOURCE_MAX)
        return fault(&r, ERR_INVALID, "it is longer than %d bytes", STORAGE_SOURCE_MAX);
    for (const char *p = source; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return fault(&r, ERR_INVALID, "it has a control character (0x%02x)", (unsigned char)*p);
    if (strncmp(source, "nfs://", 6) == 0)
        return read_nfs(&r, source);
    if (strncmp(source, "iscsi://", 8) == 0)
        return read_iscsi(&r, source);
    if (scheme_len(source) > 0)
        return fault(&r, ERR_UNSUPPORTED, "only nfs://, iscsi:// and paths are supported");
    return read_path(&r, source);
}

int storage_url_check_disk(const char *source, struct storage_url *out, struct err *e)
{
    char shown[SHOWN_MAX];

    if (storage_url_parse(source, out, e) < 0)
        return -1;
    if (out->kind != MIGRD__STORAGE_KIND__STORAGE_NFS || out->version == 3)
        return 0;
    show(source, shown);
    return err_set(e, ERR_UNSUPPORTED,
        "disk %s: NFS version 4 cannot carry a disk (libnfs writes at most 3944 bytes with it and "
        "does not reconnect); leave version=4 out, the server must offer version 3",
        shown);
}

void storage_url_portal(const struct storage_url *u, char *out, size_t size)
{
    snprintf(out, size, u->ipv6 ? "[%s]:%u" : "%s:%u", u->host, (unsigned)u->port);
}

bool storage_url_is_network(const char *source)
{
    return strncmp(source, "nfs://", 6) == 0 || strncmp(source, "iscsi://", 8) == 0;
}
