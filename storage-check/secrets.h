/* SPDX-License-Identifier: ISC */
/*
 * secrets: the file with the CHAP passwords of iSCSI targets. It must be a regular file of
 * root's that nobody else may read (mode 0600 or 0400). Lines:
 *   TARGET-IQN-or-PORTAL USER PASSWORD
 * separated by blanks; PORTAL is the host of the URL, with or without :PORT; the password is
 * the rest of the line; # begins a comment line. The first line that fits counts, one that
 * names the target before one that names the portal.
 */
#ifndef STORAGE_CHECK_SECRETS_H
#define STORAGE_CHECK_SECRETS_H

#include "storage-check/url.h"

#define SECRET_PASSWORD_MAX 255

struct secret {
    char user[STORAGE_USER_MAX + 1];
    char password[SECRET_PASSWORD_MAX + 1];
};

/* 1 and *out; 0: the disk needs none (no user in its URL, no line for it); -1. `path` NULL or ""
 * is no file. Call secret_wipe behind it. */
int secret_find(const char *path, const struct storage_url *u, struct secret *out, struct err *e);

void secret_wipe(struct secret *s);

/* The parser by itself, of `len` bytes; `path` for errors. As secret_find. */
int secret_search(const char *text, size_t len, const char *path, const struct storage_url *u,
    struct secret *out, struct err *e);

#endif
