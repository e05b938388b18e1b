/* SPDX-License-Identifier: ISC */
/*
 * The file is read anew each time a password is needed, so that a change is in force at the next
 * login, and what was read is wiped. The owner, the mode and the size are those of the open file,
 * not of its name. Errors name the file and the line, never what stands in it.
 */
#define _GNU_SOURCE
#include "storage-check/secrets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"

#define FILE_MAX (64u * 1024)
#define BLANKS " \t"

/* How well a line fits: the smaller the better. */
enum fit { FIT_TARGET, FIT_PORTAL, FIT_NONE };

struct line {
    const char *key, *user, *password;
    size_t key_len, user_len, password_len;
};

/* ---- lines ---- */

static const char *word(const char **p, const char *end, size_t *len)
{
    const char *from;

    while (*p < end && strchr(BLANKS, **p) != NULL)
        (*p)++;
    from = *p;
    while (*p < end && strchr(BLANKS, **p) == NULL)
        (*p)++;
    *len = (size_t)(*p - from);
    return from;
}

/* False if something is missing. */
static bool cut(const char *p, const char *end, struct line *l)
{
    l->key = word(&p, end, &l->key_len);
    l->user = word(&p, end, &l->user_len);
    while (p < end && strchr(BLANKS, *p) != NULL)
        p++;
    while (end > p && strchr(BLANKS "\r", end[-1]) != NULL)
        end--;
    l->password = p;
    l->password_len = (size_t)(end - p);
    return l->password_len > 0;
}

static bool same(const char *s, size_t len, const char *word_)
{
    return strlen(word_) == len && strncasecmp(s, word_, len) == 0;
}

static enum fit fits(const struct line *l, const struct storage_url *u)
{
    char portal[STORAGE_HOST_MAX + 16];

    if (u->user[0] != '\0' &&
        (strlen(u->user) != l->user_len || memcmp(u->user, l->user, l->user_len) != 0))
        return FIT_NONE;
    if (same(l->key, l->key_len, u->target))
        return FIT_TARGET;
    storage_url_portal(u, portal, sizeof portal);
    if (same(l->key, l->key_len, u->host) || same(l->key, l->key_len, portal))
        return FIT_PORTAL;
    return FIT_NONE;
}

static int take(
    const struct line *l, const char *path, unsigned number, struct secret *out, struct err *e)
{
    if (l->user_len > STORAGE_USER_MAX || l->password_len > SECRET_PASSWORD_MAX)
        return err_set(e, ERR_INVALID, "%s:%u: the user or the password is longer than %d bytes",
            path, number, SECRET_PASSWORD_MAX);
    memcpy(out->user, l->user, l->user_len);
    out->user[l->user_len] = '\0';
    memcpy(out->password, l->password, l->password_len);
    out->password[l->password_len] = '\0';
    return 1;
}

int secret_search(const char *text, size_t len, const char *path, const struct storage_url *u,
    struct secret *out, struct err *e)
{
    const char *end = text + len, *next;
    enum fit best = FIT_NONE;
    unsigned number = 0;

    if (memchr(text, '\0', len) != NULL)
        return err_set(e, ERR_INVALID, "%s: has a NUL byte: this is no text", path);
    for (const char *p = text; p < end; p = next + 1) {
        struct line l;
        enum fit fit;

        number++;
        next = memchr(p, '\n', (size_t)(end - p));
        if (next == NULL)
            next = end;
        if (p + strspn(p, BLANKS "\r") >= next || p[strspn(p, BLANKS)] == '#')
            continue;
        if (!cut(p, next, &l))
            return err_set(e, ERR_INVALID,
                "%s:%u: the line must be of the form 'TARGET-or-PORTAL USER PASSWORD'", path,
                number);
        fit = fits(&l, u);
        if (fit < best) {
            best = fit;
            if (take(&l, path, number, out, e) < 0)
                return -1;
        }
    }
    return best == FIT_NONE ? 0 : 1;
}

/* ---- the file ---- */

static int check_file(int fd, const char *path, size_t *size, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_sys(e, "%s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%s: this is no regular file", path);
    if (st.st_uid != 0)
        return err_set(e, ERR_REFUSED,
            "%s: it belongs to user %u, who could change passwords; chown root it", path,
            (unsigned)st.st_uid);
    if ((st.st_mode & 077) != 0)
        return err_set(e, ERR_REFUSED, "%s: others than root may use it (mode %04o); chmod 0600 it",
            path, (unsigned)st.st_mode & 07777);
    if (st.st_size > (off_t)FILE_MAX)
        return err_set(e, ERR_INVALID, "%s: larger than %u bytes", path, FILE_MAX);
    *size = (size_t)st.st_size;
    return 0;
}

/* 1, 0 (no such file), -1; *text is malloc'ed and ends in NUL. */
static int read_file(const char *path, char **text, size_t *len, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), rc = -1;

    *text = NULL;
    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, "%s", path);
    if (check_file(fd, path, len, e) == 0) {
        *text = calloc(1, *len + 1);
        if (*text == NULL)
            err_set(e, ERR_MEMORY, "%s: out of memory", path);
        else if (io_read_full(fd, *text, *len, IO_FOREVER, e) == 0)
            rc = 1;
    }
    close(fd);
    return rc;
}

static int not_found(const char *path, const struct storage_url *u, struct err *e)
{
    if (u->user[0] == '\0')
        return 0;
    return err_set(e, ERR_NOT_FOUND,
        "target %.120s: there is no password of user %.60s; put the line '%.120s %.60s PASSWORD' "
        "into %s (storage-secrets)",
        u->target, u->user, u->target, u->user, path);
}

int secret_find(const char *path, const struct storage_url *u, struct secret *out, struct err *e)
{
    size_t len = 0;
    char *text;
    int rc;

    memset(out, 0, sizeof *out);
    if (path == NULL || path[0] == '\0')
        return not_found("the secrets file", u, e);
    rc = read_file(path, &text, &len, e);
    if (rc > 0)
        rc = secret_search(text, len, path, u, out, e);
    if (text != NULL)
        explicit_bzero(text, len);
    free(text);
    return rc == 0 ? not_found(path, u, e) : rc;
}

void secret_wipe(struct secret *s)
{
    explicit_bzero(s, sizeof *s);
}
