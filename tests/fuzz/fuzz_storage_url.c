/* SPDX-License-Identifier: ISC */
/* Sources of disks and the file of CHAP passwords: what is accepted keeps the rules, and no message
 * shows what follows a user's name. */
#include <stdlib.h>
#include <string.h>

#include "storage-check/secrets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_be_clean(const char *s, size_t most)
{
    if (strlen(s) > most)
        abort();
    for (; *s != '\0'; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7f)
            abort();
}

static void check(const struct storage_url *u)
{
    char portal[STORAGE_HOST_MAX + 16];

    must_be_clean(u->host, STORAGE_HOST_MAX);
    must_be_clean(u->user, STORAGE_USER_MAX);
    must_be_clean(u->target, STORAGE_TARGET_MAX);
    must_be_clean(u->path, STORAGE_SOURCE_MAX);
    must_be_clean(u->file, STORAGE_SOURCE_MAX);
    if (strpbrk(u->host, "/@?% []") != NULL || strpbrk(u->user, ":%/ ") != NULL)
        abort();
    if (u->kind == MIGRD__STORAGE_KIND__STORAGE_NFS &&
        (u->path[0] != '/' || u->file[0] != '/' || u->file[1] == '\0' ||
            strchr(u->file + 1, '/') != NULL || strcmp(u->file, "/..") == 0 ||
            (u->version != 3 && u->version != 4)))
        abort();
    if (u->kind == MIGRD__STORAGE_KIND__STORAGE_ISCSI &&
        (u->port == 0 || u->lun > STORAGE_LUN_MAX || u->target[0] == '\0'))
        abort();
    storage_url_portal(u, portal, sizeof portal);
    if (u->port != 0 && strchr(portal, ':') == NULL)
        abort();
}

static void sources(const char *text)
{
    struct err e = { .code = ERR_NONE };
    struct storage_url u;

    if (storage_url_parse(text, &u, &e) == 0)
        check(&u);
    else
        must_be_clean(e.text, sizeof e.text);
    if (storage_url_check_disk(text, &u, &e) == 0 && u.kind == MIGRD__STORAGE_KIND__STORAGE_NFS &&
        u.version == 4)
        abort();
}

static void passwords(const char *text, size_t size)
{
    struct storage_url u;
    struct secret s;
    struct err e;
    int rc;

    if (storage_url_parse("iscsi://joe@st/iqn.x:y/1", &u, &e) < 0)
        abort();
    memset(&s, 0, sizeof s);
    rc = secret_search(text, size, "secrets", &u, &s, &e);
    if (rc > 0 && (strcmp(s.user, "joe") != 0 || s.password[0] == '\0' ||
                      strlen(s.password) > SECRET_PASSWORD_MAX))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    sources(text);
    passwords(text, size);
    free(text);
    return 0;
}
