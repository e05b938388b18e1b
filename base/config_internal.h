/* SPDX-License-Identifier: ISC */
/*
 * config_internal: what config.c (the table of keys), config_file.c (the reader) and
 * config_sxp.c (the import) share. Nobody else includes this.
 */
#ifndef BASE_CONFIG_INTERNAL_H
#define BASE_CONFIG_INTERNAL_H

#include <stddef.h>

#include "base/config.h"

#define CONFIG_KEYS_MAX 64
#define CONFIG_FILE_MAX (256u * 1024)

/* Number of a key, -1 with the nearest known one named in e. */
int config_find(const char *key, struct err *e);

/* Rules between keys; to be called when all are set. */
int config_check(const struct config *c, struct err *e);

/* The reader: as config_load, of a text that may be written to; text[len] must be NUL. `name` is for
 * errors. */
int config_read(struct config *c, char *text, size_t len, const char *name, struct err *e);

#endif
