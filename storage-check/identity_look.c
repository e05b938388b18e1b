/* SPDX-License-Identifier: ISC */
/*
 * What all looks share: texts of an identity, its first failure, and challenges. Depends on no
 * kind of storage.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/io.h"
#include "storage-check/identity_internal.h"
#include "storage-check/image.h"

#define DESIGNATORS_MAX 64u
#define CHALLENGE_TAG ".migrd-check-"
#define CHALLENGE_DIGITS 16u

/* --- texts of an identity --- */

static void put_text(char **field, char *text)
{
    if (*field != (const char *)protobuf_c_empty_string)
        free(*field);
    *field = text != NULL ? text : (char *)(uintptr_t)protobuf_c_empty_string;
}

static char *format_text(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));

static char *format_text(const char *fmt, va_list ap)
{
    char *text;

    return vasprintf(&text, fmt, ap) < 0 ? NULL : text;
}

void id_text(char **field, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    put_text(field, format_text(fmt, ap));
    va_end(ap);
}

void id_add(Migrd__DiskIdentity *id, const char *kind, const char *fmt, ...)
{
    Migrd__Designator **more, *d;
    va_list ap;

    if (id->n_designators >= DESIGNATORS_MAX)
        return;
    more = realloc(id->designators, (id->n_designators + 1) * sizeof(Migrd__Designator *));
    if (more == NULL)
        return;
    id->designators = more;
    d = malloc(sizeof *d);
    if (d == NULL)
        return;
    migrd__designator__init(d);
    id_text(&d->kind, "%s", kind);
    va_start(ap, fmt);
    put_text(&d->value, format_text(fmt, ap));
    va_end(ap);
    id->designators[id->n_designators++] = d;
}

void id_add_backing(Migrd__DiskIdentity *id, const char *path)
{
    char **more = realloc(id->backing, (id->n_backing + 1) * sizeof(char *));

    if (more == NULL)
        return;
    id->backing = more;
    more[id->n_backing] = strdup(path);
    id->n_backing += more[id->n_backing] != NULL;
}

const char *id_kind_words(Migrd__StorageKind k)
{
    switch (k) {
    case MIGRD__STORAGE_KIND__STORAGE_FILE:
        return "file";
    case MIGRD__STORAGE_KIND__STORAGE_BLOCK:
        return "block device";
    case MIGRD__STORAGE_KIND__STORAGE_NFS:
        return "file on NFS";
    case MIGRD__STORAGE_KIND__STORAGE_ISCSI:
        return "iSCSI LUN";
    default:
        return "disk of an unknown kind";
    }
}

const char *id_value(const Migrd__DiskIdentity *id, const char *kind)
{
    for (size_t i = 0; i < id->n_designators; i++)
        if (strcmp(id->designators[i]->kind, kind) == 0)
            return id->designators[i]->value;
    return "";
}

bool id_has(const Migrd__DiskIdentity *id, const char *kind, const char *value)
{
    for (size_t i = 0; i < id->n_designators; i++)
        if (strcmp(id->designators[i]->kind, kind) == 0 &&
            strcmp(id->designators[i]->value, value) == 0)
            return true;
    return false;
}

/* --- of a look --- */

void look_step(struct look *l, const char *fmt, ...)
{
    char text[LOOK_STEP] = "";
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(l->step, text, sizeof text);
}

bool look_failed(const struct look *l)
{
    return l->out->code[0] != '\0';
}

void look_fail(struct look *l, enum err_code code, const char *fmt, ...)
{
    va_list ap;

    if (look_failed(l))
        return;
    id_text(&l->out->code, "%s", err_code_name(code));
    va_start(ap, fmt);
    put_text(&l->out->error, format_text(fmt, ap));
    va_end(ap);
}

void look_no_challenge(struct look *l, const char *fmt, ...)
{
    char text[sizeof l->answer_error];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (l->what == MIGRD__STORAGE_REQUEST__WHAT__ANSWER)
        snprintf(l->answer_error, sizeof l->answer_error, "%s", text);
    else if (!look_failed(l))
        id_text(&l->out->error, "%s", text);
}

bool look_wants_challenge(const struct look *l)
{
    return l->what == MIGRD__STORAGE_REQUEST__WHAT__IDENTIFY && l->rq->challenge && !look_failed(l);
}

bool look_read(const struct look *l, char *out, size_t size, const char *fmt, ...)
{
    char path[PATH_MAX], rest[PATH_MAX];
    va_list ap;
    size_t n;
    char *text;

    out[0] = '\0';
    va_start(ap, fmt);
    vsnprintf(rest, sizeof rest, fmt, ap);
    va_end(ap);
    if ((size_t)snprintf(path, sizeof path, "%s%s", l->root, rest) >= sizeof path)
        return false;
    text = io_read_file(path, size - 1, &n, NULL);
    if (text == NULL)
        return false;
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        text[--n] = '\0';
    snprintf(out, size, "%s", text);
    free(text);
    return true;
}

void look_head(struct look *l, const uint8_t *head, size_t len)
{
    char backing[IMAGE_NAME];
    const char *format = image_format(head, len, backing);

    if (format == NULL)
        return;
    if (backing[0] != '\0')
        id_add_backing(l->out, backing);
    look_fail(l, ERR_UNSUPPORTED,
        "%s is a %s image%s%s%s, and only raw ones can be used; make one of it: "
        "qemu-img convert -O raw",
        l->disk->source, format, backing[0] != '\0' ? " on top of " : "", backing,
        backing[0] != '\0' ? " (a snapshot)" : "");
}

/* --- challenges --- */

static void random_hex(char *out, size_t digits)
{
    uint8_t bytes[NONCE_LEN / 2];

    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        abort(); /* a kernel without random numbers: nothing is sound any more */
    for (size_t i = 0; i < digits / 2; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static Migrd__Challenge *new_challenge(void)
{
    Migrd__Challenge *c = malloc(sizeof *c);

    if (c != NULL)
        migrd__challenge__init(c);
    return c;
}

int challenge_make(struct look *l, const char *file, char nonce[NONCE_LEN + 1])
{
    char digits[CHALLENGE_DIGITS + 1];
    Migrd__Challenge *c = new_challenge();

    if (c == NULL)
        return -1;
    random_hex(digits, CHALLENGE_DIGITS);
    random_hex(nonce, NONCE_LEN);
    id_text(&c->name, ".%.200s%s%s", file, CHALLENGE_TAG, digits);
    id_text(&c->nonce, "%s", nonce);
    if (l->out->challenge != NULL)
        migrd__challenge__free_unpacked(l->out->challenge, NULL);
    l->out->challenge = c;
    return 0;
}

bool challenge_name_ok(const char *name)
{
    size_t n = strlen(name), tail = sizeof CHALLENGE_TAG - 1 + CHALLENGE_DIGITS;
    const char *digits = name + n - CHALLENGE_DIGITS;

    return n > tail + 1 && n < CHALLENGE_NAME && name[0] == '.' && strchr(name, '/') == NULL &&
           strncmp(name + n - tail, CHALLENGE_TAG, sizeof CHALLENGE_TAG - 1) == 0 &&
           strspn(digits, "0123456789abcdef") == CHALLENGE_DIGITS;
}

const char *challenge_theirs(struct look *l)
{
    const Migrd__Challenge *c = l->theirs != NULL ? l->theirs->challenge : NULL;

    if (c == NULL || l->what == MIGRD__STORAGE_REQUEST__WHAT__IDENTIFY)
        return NULL;
    if (challenge_name_ok(c->name))
        return c->name;
    look_no_challenge(l, "its name is not that of a challenge");
    return NULL;
}

void challenge_take(struct look *l, const char *text, size_t len)
{
    if (len >= NONCE_LEN && strspn(text, "0123456789abcdef") >= NONCE_LEN) {
        memcpy(l->answer, text, NONCE_LEN);
        l->answer[NONCE_LEN] = '\0';
    } else {
        look_no_challenge(l, "the file %s holds something else", l->theirs->challenge->name);
    }
}
