/* SPDX-License-Identifier: ISC */
/*
 * allow: which files, devices and URLs a guest of another host may name (the key
 * relocation-storage-allow). A place is the beginning of a path or URL, up to a whole part of it;
 * places are separated by blanks, none at all: everything is allowed. Owns nothing.
 */
#ifndef STORAGE_CHECK_ALLOW_H
#define STORAGE_CHECK_ALLOW_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Each one an absolute path or a URL with a host, without "..". */
int storage_places_check(const char *places, struct err *e);
/* A path is followed through symbolic links first (it may block); one that does not exist is judged
 * by its name. */
bool storage_allowed(const char *places, const char *source);

#endif
