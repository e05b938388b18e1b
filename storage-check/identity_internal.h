/* SPDX-License-Identifier: ISC */
/*
 * identity, inside: one look at one disk, which a child of migrd-storage takes. A look
 * fills `out`; each kind of disk has a file of its own. `root` stands before /sys, /dev and
 * /proc, so that a test can show a machine of its own making. Everything belongs to
 * the caller of look_at.
 */
#ifndef STORAGE_CHECK_IDENTITY_INTERNAL_H
#define STORAGE_CHECK_IDENTITY_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "storage-check/identity.h"

#define LOOK_STEP 200u
#define NONCE_LEN 32u                 /* hex digits */
#define CHALLENGE_NAME 256u           /* with the NUL: what a file system takes */
#define CHALLENGE_STALE_S (24 * 3600) /* older ones were left by a migration that died */
#define CHALLENGE_SCAN_MAX 10000u     /* names of a folder that are looked at for stale ones */
#define QEMU_LOCK_BASE 100            /* bytes that QEMU locks of an image: 100.. and 200.. */
#define QEMU_LOCK_END 300

struct look {
    Migrd__StorageRequest__What what;
    const Migrd__StorageRequest *rq;
    const Migrd__Disk *disk;
    const Migrd__DiskIdentity *theirs; /* ANSWER, CLEAN; or NULL */
    unsigned timeout_ms;
    const char *root;         /* "" */
    char *step;               /* what is being done, LOOK_STEP bytes that the parent can read */
    Migrd__DiskIdentity *out; /* with malloc'ed members */
    char answer[NONCE_LEN + 1];
    char answer_error[400];
};

/* A reply of migrd-storage, whole and with as many disks as were asked for; NULL with *e. */
#define STORAGE_REPLY_MAX (4u << 20)
Migrd__StorageReply *storage_reply_parse(
    const void *buf, size_t len, size_t n_disks, struct err *e);

/* storage_ask with another program than migrd-storage. */
int storage_ask_program(const char *program, const Migrd__StorageRequest *rq, unsigned timeout_ms,
    Migrd__StorageReply **out, struct err *e);

/* Looks at one disk, or removes its challenge. What goes wrong stands in `out`. */
void look_at(struct look *l);

/* --- for the kinds --- */

void look_step(struct look *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The disk cannot be used: class and text; the first one stays. */
void look_fail(struct look *l, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool look_failed(const struct look *l);
/* No challenge could be left, or answered, for that reason. */
void look_no_challenge(struct look *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool look_wants_challenge(const struct look *l);
void id_text(char **field, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void id_add(Migrd__DiskIdentity *id, const char *kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void id_add_backing(Migrd__DiskIdentity *id, const char *path);
const char *id_kind_words(Migrd__StorageKind k);
/* Its first value of that kind, or "". */
const char *id_value(const Migrd__DiskIdentity *id, const char *kind);
bool id_has(const Migrd__DiskIdentity *id, const char *kind, const char *value);
/* The beginning of an image: fails the look when it is not a raw one. */
void look_head(struct look *l, const uint8_t *head, size_t len);

/* ".FILE.migrd-check-RANDOM", and 32 hex digits. */
int challenge_make(struct look *l, const char *file, char nonce[NONCE_LEN + 1]);
/* Is it the name of a challenge? Names come from the other host. */
bool challenge_name_ok(const char *name);
/* The challenge of `theirs` by its name; NULL: there is none, or it must not be read. */
const char *challenge_theirs(struct look *l);
/* What was read of it: the answer, or why it is none. */
void challenge_take(struct look *l, const char *text, size_t len);

void look_file(struct look *l);
void look_block(struct look *l, dev_t dev, bool there);
void look_nfs(struct look *l);
void look_iscsi(struct look *l);

/* Does anything accept connections there? Fails the look if not; `what`: "NFS". */
bool look_reach(struct look *l, const char *host, unsigned port, const char *what);

/* One file of at most `limit` bytes below `root`, without a newline at the end; false: none. */
bool look_read(const struct look *l, char *out, size_t size, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* uuid of the file system on that device, by /dev/disk/by-uuid; "" not known. */
void look_fs_uuid(const struct look *l, dev_t dev, char *out, size_t size);

/* Are these 16 or 32 hex digits, perhaps behind "0x" or "naa."? `out` gets them in small letters.
 */
bool wwn_normal(const char *text, char out[33]);

#endif
