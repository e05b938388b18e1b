/* SPDX-License-Identifier: ISC */
/*
 * internal: what the three parts of relocation-acl share: relocation-acl.c (compile and
 * check), lint.c (warnings), resolve.c (names). Nobody else includes this.
 */
#ifndef RELOCATION_ACL_INTERNAL_H
#define RELOCATION_ACL_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define ACL_KEY "xend-relocation-hosts-allow"
#define ACL_EXPRESSION_LEN 1024 /* bytes of one expression with its NUL */
#define ACL_TEXT_MAX 65536      /* bytes of a list */

enum acl_match { ACL_NO, ACL_YES, ACL_LIMIT };

/* Matches with the limits; ACL_LIMIT when one was hit, to be treated as no. */
enum acl_match acl_match(const pcre2_code *code, const char *subject);

/* True if every way through the expression ends at the end of the name: '$', \z or \Z. */
bool acl_end_anchored(const char *expression);

/* Says what a compiled expression admits that its author may not have meant; "" if nothing. */
void acl_lint(const char *expression, const pcre2_code *code, char *out, size_t len);

/* Only letters, digits, '.', '-', '_'; not empty, not an address, shorter than ACL_NAME_LEN. */
bool acl_name_usable(const char *name);

/* Canonical text of an address text; -1 if it is none. */
int acl_address_canonical(const char *text, char *out, size_t len);

/* Appends an expression that matches `text` and nothing else. */
void acl_quote(const char *text, char *out, size_t len);

#endif
