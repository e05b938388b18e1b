/* SPDX-License-Identifier: ISC */
/*
 * Names and addresses of peers. The reverse lookup is the word of whoever runs the
 * peer's address block, so it is believed only if the forward lookup of the name gives
 * the address back. Where a lookup gives several names (/etc/hosts: "10.0.0.5 host5
 * host5.lab"), the first with a dot in it is preferred, as in xend (Python's getfqdn):
 * the expressions are written for full names.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relocation-acl/internal.h"
#include "relocation-acl/relocation-acl.h"

#define LOOKUP_BYTES_MAX 65536
#define CANDIDATES_MAX 16

/* An address without its family's clothes; v4-mapped is v4. */
struct plain {
    int family;
    unsigned char bytes[16];
    socklen_t len;
    uint32_t scope;
};

static int plain_of(const struct sockaddr *sa, struct plain *p)
{
    const struct sockaddr_in6 *six = (const void *)sa;
    const struct sockaddr_in *four = (const void *)sa;

    memset(p, 0, sizeof *p);
    if (sa->sa_family == AF_INET) {
        p->family = AF_INET;
        p->len = 4;
        memcpy(p->bytes, &four->sin_addr, 4);
        return 0;
    }
    if (sa->sa_family != AF_INET6)
        return -1;
    if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
        p->family = AF_INET;
        p->len = 4;
        memcpy(p->bytes, six->sin6_addr.s6_addr + 12, 4);
        return 0;
    }
    p->family = AF_INET6;
    p->len = 16;
    p->scope = six->sin6_scope_id;
    memcpy(p->bytes, &six->sin6_addr, 16);
    return 0;
}

int acl_address_text(const struct sockaddr *sa, char *out, size_t len)
{
    char name[IF_NAMESIZE];
    struct plain p;
    size_t n;

    if (plain_of(sa, &p) < 0 || inet_ntop(p.family, p.bytes, out, (socklen_t)len) == NULL)
        return -1;
    if (p.scope == 0)
        return 0;
    n = strlen(out);
    if (if_indextoname(p.scope, name) != NULL)
        snprintf(out + n, len - n, "%%%s", name);
    else
        snprintf(out + n, len - n, "%%%u", (unsigned)p.scope);
    return 0;
}

static bool scope_usable(const char *s)
{
    size_t n = strlen(s);

    return n > 0 && n < IF_NAMESIZE &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                     "0123456789.-_") == n;
}

int acl_address_canonical(const char *text, char *out, size_t len)
{
    char copy[128], *scope;
    struct in6_addr six;
    struct in_addr four;
    size_t n;

    if (strlen(text) >= sizeof copy)
        return -1;
    strcpy(copy, text);
    if (inet_pton(AF_INET, copy, &four) == 1)
        return inet_ntop(AF_INET, &four, out, (socklen_t)len) == NULL ? -1 : 0;
    scope = strchr(copy, '%');
    if (scope != NULL) {
        *scope++ = '\0';
        if (!scope_usable(scope))
            return -1;
    }
    if (inet_pton(AF_INET6, copy, &six) != 1)
        return -1;
    if (IN6_IS_ADDR_V4MAPPED(&six))
        return inet_ntop(AF_INET, six.s6_addr + 12, out, (socklen_t)len) == NULL ? -1 : 0;
    if (inet_ntop(AF_INET6, &six, out, (socklen_t)len) == NULL)
        return -1;
    n = strlen(out);
    if (scope != NULL)
        snprintf(out + n, len - n, "%%%s", scope);
    return 0;
}

/* True if the forward lookup of `name` has the address. */
static bool confirms(const char *name, const struct plain *want)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *list;
    struct plain p;
    bool found = false;

    if (getaddrinfo(name, NULL, &hints, &list) != 0)
        return false;
    for (const struct addrinfo *ai = list; ai != NULL && !found; ai = ai->ai_next)
        found = plain_of(ai->ai_addr, &p) == 0 && p.family == want->family &&
                memcmp(p.bytes, want->bytes, 16) == 0 &&
                (p.scope == 0 || want->scope == 0 || p.scope == want->scope);
    freeaddrinfo(list);
    return found;
}

/* The reverse lookup into `buf`, which is grown as needed; NULL without a name. */
static const struct hostent *reverse(
    const struct plain *p, struct hostent *space, char **buf, int *error)
{
    struct hostent *found = NULL;

    *error = HOST_NOT_FOUND;
    for (size_t size = 4096; size <= LOOKUP_BYTES_MAX; size *= 2) {
        char *bigger = realloc(*buf, size);
        int rc;

        if (bigger == NULL)
            return NULL;
        *buf = bigger;
        rc = gethostbyaddr_r(p->bytes, p->len, p->family, space, *buf, size, &found, error);
        if (rc == 0)
            return found;
        if (rc != ERANGE)
            return NULL;
    }
    return NULL;
}

/* Usable names, those with a dot first, in the lookup's order otherwise. */
static size_t candidates(const struct hostent *h, const char *out[CANDIDATES_MAX])
{
    size_t n = 0;

    for (int dotted = 1; dotted >= 0; dotted--) {
        if (n < CANDIDATES_MAX && h->h_name != NULL && acl_name_usable(h->h_name) &&
            (strchr(h->h_name, '.') != NULL) == (dotted == 1))
            out[n++] = h->h_name;
        for (char **a = h->h_aliases; a != NULL && *a != NULL && n < CANDIDATES_MAX; a++)
            if (acl_name_usable(*a) && (strchr(*a, '.') != NULL) == (dotted == 1))
                out[n++] = *a;
    }
    return n;
}

static void pick(const struct hostent *h, const struct plain *p, const char *address,
    char name[ACL_NAME_LEN], char *why, size_t why_len)
{
    const char *names[CANDIDATES_MAX];
    size_t n = candidates(h, names);

    for (size_t i = 0; i < n; i++)
        if (confirms(names[i], p)) {
            snprintf(name, ACL_NAME_LEN, "%s", names[i]);
            return;
        }
    if (n == 0)
        snprintf(why, why_len, "the name that the lookup of %s gives is not a host name", address);
    else
        snprintf(why, why_len, "%s says it is %.200s, but that name does not lead back to it",
            address, names[0]);
}

int acl_resolve(
    const struct sockaddr *sa, socklen_t len, char name[ACL_NAME_LEN], char *why, size_t why_len)
{
    char address[128] = "?", *buf = NULL;
    const struct hostent *h;
    struct hostent space;
    struct plain p;
    int error;

    name[0] = '\0';
    if (why_len > 0)
        why[0] = '\0';
    if (len < (socklen_t)sizeof(sa_family_t) || plain_of(sa, &p) < 0 ||
        len < (socklen_t)(sa->sa_family == AF_INET ? sizeof(struct sockaddr_in)
                                                   : sizeof(struct sockaddr_in6))) {
        snprintf(why, why_len, "not an internet address");
        return 0;
    }
    acl_address_text(sa, address, sizeof address);
    h = reverse(&p, &space, &buf, &error);
    if (h != NULL)
        pick(h, &p, address, name, why, why_len);
    else if (error == TRY_AGAIN)
        snprintf(why, why_len, "the name service did not answer about %s", address);
    else
        snprintf(why, why_len, "%s has no name", address);
    free(buf);
    return 0;
}
