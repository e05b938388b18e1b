/* SPDX-License-Identifier: ISC */
/*
 * relocation-acl: who may relocate to this host: xend-relocation-hosts-allow.
 * Expressions are separated by blanks and matched (PCRE2, anchored at the start as
 * xend's re.match) against the peer's fully qualified name and its address. Pure but
 * for acl_resolve: no socket is opened here. A compiled acl is immutable and may be
 * shared by threads; free it when no check is under way.
 */
#ifndef RELOCATION_ACL_H
#define RELOCATION_ACL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "base/err.h"

#define ACL_EXPRESSIONS_MAX 256
#define ACL_NAME_LEN 256

struct acl;

/* `set` false: the key is absent, nobody but loopback (xend's default list) is admitted. An empty
 * list admits everybody, as xend's did, with a warning. Each warning ("host1 has no $: it would
 * admit host10.example too") is reported through `warn`, which may be NULL. */
int acl_compile(const char *hosts_allow, bool set, void (*warn)(void *arg, const char *text),
    void *arg, struct acl **out, struct err *e);
void acl_free(struct acl **a);

struct acl_verdict {
    bool allowed;
    int expression;        /* index of the one that matched, -1 none */
    char pattern[256];     /* its text */
    char subject[ACL_NAME_LEN]; /* what it matched: the name or the address */
    char why[512];         /* for the log and the 530 line */
};

/* `name` is the confirmed fully qualified name, "" if there is none; `address` its text form
 * (IPv6 in canonical form, v4-mapped as v4). */
void acl_check(const struct acl *a, const char *name, const char *address, struct acl_verdict *v);

/* True if the address alone is admitted: then no lookup is needed. */
bool acl_admits_address(const struct acl *a, const char *address);

/* Text of a socket address, v4-mapped as v4; -1 for other families. */
int acl_address_text(const struct sockaddr *sa, char *out, size_t len);

/*
 * The peer's name, confirmed: reverse lookup, then forward lookup of that name, which must give
 * the address back. Blocks (resolver): run it in a thread. 0 and "" with `why` filled when there
 * is no name or it does not confirm.
 */
int acl_resolve(const struct sockaddr *sa, socklen_t len, char name[ACL_NAME_LEN], char *why,
    size_t why_len);

#endif
