/* SPDX-License-Identifier: ISC */
#include <stdlib.h>
#include <string.h>

#include "storage-check/allow.h"

#define BLANKS " \t\n"

/* Where the host of a URL of n bytes begins; NULL: a path, as is all that begins with a slash. */
static const char *url_host(const char *s, size_t n)
{
    const char *p = s[0] == '/' ? NULL : strstr(s, "://");

    return p != NULL && (size_t)(p - s) + 3 <= n ? p + 3 : NULL;
}

/* ".." as a part of a path; in a URL also written with its escapes. */
static bool climbs(const char *s, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        if ((i == 0 || s[i - 1] == '/') && s[i] == '.' && s[i + 1] == '.' &&
            (i + 2 == n || s[i + 2] == '/' || s[i + 2] == '?'))
            return true;
    return url_host(s, n) != NULL && memchr(s, '%', n) != NULL;
}

static bool well_formed(const char *s, size_t n)
{
    const char *host;

    if (climbs(s, n))
        return false;
    if (s[0] == '/')
        return true;
    host = url_host(s, n);
    return host != NULL && host > s + 3 && host < s + n && *host != '/';
}

int storage_places_check(const char *places, struct err *e)
{
    const char *p = places + strspn(places, BLANKS);

    while (*p != '\0') {
        size_t n = strcspn(p, BLANKS);

        if (!well_formed(p, n))
            return err_set(e, ERR_INVALID,
                "'%.*s' is no place of disks: say an absolute path or scheme://host/..., without "
                "..",
                (int)(n < 100 ? n : 100), p);
        p += n;
        p += strspn(p, BLANKS);
    }
    return 0;
}

/* A place that ends inside a name ("/srv/im") does not cover "/srv/images". */
static bool covers(const char *place, size_t n, const char *source)
{
    if (strncmp(place, source, n) != 0)
        return false;
    return place[n - 1] == '/' || source[n] == '\0' || source[n] == '/' || source[n] == '?';
}

static bool listed(const char *places, const char *source)
{
    const char *p = places + strspn(places, BLANKS);

    while (*p != '\0') {
        size_t n = strcspn(p, BLANKS);

        if (covers(p, n, source))
            return true;
        p += n;
        p += strspn(p, BLANKS);
    }
    return false;
}

/* The user in front of the host (CHAP) is not a part of the place. */
static char *without_user(const char *url)
{
    char *copy = strdup(url), *host, *at, *end;

    if (copy == NULL)
        return NULL;
    host = copy + (url_host(url, strlen(url)) - url);
    end = host + strcspn(host, "/?");
    at = memchr(host, '@', (size_t)(end - host));
    if (at != NULL)
        memmove(host, at + 1, strlen(at + 1) + 1);
    return copy;
}

bool storage_allowed(const char *places, const char *source)
{
    char *real;
    bool ok;

    if (places[strspn(places, BLANKS)] == '\0')
        return true;
    if (climbs(source, strlen(source)))
        return false;
    if (url_host(source, strlen(source)) != NULL)
        real = without_user(source);
    else if ((real = realpath(source, NULL)) == NULL)
        real = strdup(source);
    ok = real != NULL && listed(places, real);
    free(real);
    return ok;
}
