/* SPDX-License-Identifier: ISC */
/*
 * A disk on iSCSI. One session of its own: log in, INQUIRY with VPD pages 0x83 and 0x80, READ
 * CAPACITY(16), MODE SENSE, PERSISTENT RESERVE IN; nothing is written, and
 * nothing registered. The session's ISID is random, so that it does not push a running
 * domain's session of the same initiator out. A new session's first commands may get UNIT
 * ATTENTION: they are tried again.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "storage-check/disk_internal.h"
#include "storage-check/identity_internal.h"
#include "storage-check/image.h"
#include "storage-check/vpd.h"

#define TRIES 4
#define INQUIRY_LEN 255
#define PR_LEN 1024
#define MODE_LEN 252
#define MODE_PAGE_ALL 0x3f

struct iscsi_look {
    struct look *l;
    struct storage_url u;
    struct iscsi_context *c;
    char portal[STORAGE_HOST_MAX + 16];
    const char *what;
};

static bool says(const char *text, const char *word)
{
    return strcasestr(text, word) != NULL;
}

/* --- the session --- */

/* Why there is no session; libiscsi tells it in words and the login's status numbers. */
static void login_failed(struct iscsi_look *n)
{
    const char *why = iscsi_get_error(n->c);

    if (says(why, "(513)") || says(why, "Authentication"))
        look_fail(n->l, ERR_REFUSED,
            "%s: CHAP: %s does not accept %s%s; correct the user in the URL and the password in "
            "the secrets file%s%s",
            n->what, n->u.target,
            n->u.user[0] != '\0' ? "the password of " : "a login without user", n->u.user,
            n->l->rq->secrets[0] != '\0' ? " " : "", n->l->rq->secrets);
    else if (says(why, "(514)") || says(why, "Authorization"))
        look_fail(n->l, ERR_REFUSED,
            "%s: %s does not admit this host; add its initiator name to the target's list", n->what,
            n->u.target);
    else if (says(why, "(515)") || says(why, "not found"))
        look_fail(n->l, ERR_NOT_FOUND,
            "%s: %s has no target %s for this host; correct the URL, or admit this host's "
            "initiator "
            "name or address there",
            n->what, n->portal, n->u.target);
    else if (says(why, "LOGICAL_UNIT_NOT_SUPPORTED") || says(why, "LOGICAL UNIT NOT SUPPORTED"))
        look_fail(n->l, ERR_NOT_FOUND, "%s: %s has no LUN %u; correct the URL, or map the LUN",
            n->what, n->u.target, n->u.lun);
    else if (says(why, "timed out") || says(why, "timeout"))
        look_fail(n->l, ERR_TIMEOUT,
            "%s: %s does not answer; check that it is up and reachable from this host, or raise "
            "storage-timeout",
            n->what, n->portal);
    else
        look_fail(n->l, ERR_SYSTEM, "%s: no login at %s: %s", n->what, n->portal, why);
}

static bool log_in(struct iscsi_look *n)
{
    struct disk_options o = { .read_only = n->l->disk->read_only,
        .host = n->l->rq->host,
        .initiator = n->l->rq->initiator,
        .secrets = n->l->rq->secrets,
        .timeout_ms = n->l->timeout_ms };
    unsigned s = (n->l->timeout_ms - n->l->timeout_ms / 5) / 1000;
    struct err e;

    if (!look_reach(n->l, n->u.host, n->u.port, "iSCSI"))
        return false;
    n->c = disk_iscsi_context(&n->u, &o, 0, &e);
    if (n->c == NULL) {
        look_fail(n->l, e.code, "%s", e.text);
        return false;
    }
    storage_url_portal(&n->u, n->portal, sizeof n->portal);
    iscsi_set_timeout(n->c, s > 0 ? (int)s : 1);
    look_step(n->l, "logging in to the iSCSI target %s at %s", n->u.target, n->portal);
    if (iscsi_full_connect_sync(n->c, n->portal, (int)n->u.lun) == 0)
        return true;
    login_failed(n);
    return false;
}

/* --- commands --- */

struct command {
    enum { INQUIRY, CAPACITY, MODE, RESERVE_IN, READ } what;
    int arg; /* VPD page, or -1; service action */
};

static struct scsi_task *send(struct iscsi_look *n, const struct command *k, uint32_t block)
{
    int lun = (int)n->u.lun;

    switch (k->what) {
    case INQUIRY:
        return iscsi_inquiry_sync(n->c, lun, k->arg >= 0, k->arg >= 0 ? k->arg : 0, INQUIRY_LEN);
    case CAPACITY:
        return iscsi_readcapacity16_sync(n->c, lun);
    case MODE:
        return iscsi_modesense6_sync(n->c, lun, 1, 0, MODE_PAGE_ALL, 0, MODE_LEN);
    case RESERVE_IN:
        return iscsi_persistent_reserve_in_sync(n->c, lun, k->arg, PR_LEN);
    case READ:
        return iscsi_read16_sync(
            n->c, lun, 0, block > IMAGE_HEAD ? block : IMAGE_HEAD, (int)block, 0, 0, 0, 0, 0);
    }
    return NULL;
}

/* The answer, NULL if the device refuses the command (`refused`) or is gone. Free the task. */
static struct scsi_task *run(
    struct iscsi_look *n, const struct command *k, uint32_t block, bool *refused)
{
    struct scsi_task *t = NULL;

    *refused = false;
    for (int i = 0; i < TRIES; i++) {
        t = send(n, k, block);
        if (t == NULL || t->status == SCSI_STATUS_GOOD)
            return t;
        *refused =
            t->status == SCSI_STATUS_CHECK_CONDITION && t->sense.key != SCSI_SENSE_UNIT_ATTENTION;
        if (*refused || t->status != SCSI_STATUS_CHECK_CONDITION)
            break;
        scsi_free_scsi_task(t);
        t = NULL;
    }
    if (t != NULL)
        scsi_free_scsi_task(t);
    return NULL;
}

static size_t length(const struct scsi_task *t)
{
    return t->datain.size > 0 && t->datain.data != NULL ? (size_t)t->datain.size : 0;
}

/* --- what it is --- */

/* Peripheral qualifier 0 and type 0: a disk that is there. */
static bool look_inquiry(struct iscsi_look *n)
{
    struct command k = { INQUIRY, -1 };
    struct scsi_task *t;
    bool refused, fine;

    look_step(n->l, "asking LUN %u of %s what it is", n->u.lun, n->u.target);
    t = run(n, &k, 0, &refused);
    if (t == NULL) {
        look_fail(n->l, ERR_SYSTEM, "%s: INQUIRY: %s", n->what, iscsi_get_error(n->c));
        return false;
    }
    fine = length(t) > 0 && t->datain.data[0] == 0;
    if (!fine && length(t) > 0 && t->datain.data[0] >> 5 != 0)
        look_fail(n->l, ERR_NOT_FOUND, "%s: %s has no LUN %u; correct the URL, or map the LUN",
            n->what, n->u.target, n->u.lun);
    else if (!fine)
        look_fail(n->l, ERR_INVALID, "%s: LUN %u of %s is no disk", n->what, n->u.lun, n->u.target);
    scsi_free_scsi_task(t);
    return fine;
}

static void look_names(struct iscsi_look *n)
{
    static const struct command names_page = { INQUIRY, 0x83 }, serial_page = { INQUIRY, 0x80 };
    struct vpd_name *names = calloc(VPD_NAMES_MAX, sizeof *names);
    char serial[VPD_NAME_LEN] = "";
    struct scsi_task *t;
    bool refused;

    t = run(n, &names_page, 0, &refused);
    if (t != NULL && names != NULL) {
        size_t count = vpd_names(t->datain.data, length(t), names);

        for (size_t i = 0; i < count; i++)
            id_add(n->l->out, names[i].kind, "%s", names[i].value);
    }
    if (t != NULL)
        scsi_free_scsi_task(t);
    free(names);
    t = run(n, &serial_page, 0, &refused);
    if (t != NULL) {
        vpd_serial(t->datain.data, length(t), serial);
        scsi_free_scsi_task(t);
    }
    if (serial[0] != '\0')
        id_add(n->l->out, "serial", "%s", serial);
    id_add(n->l->out, "iscsi-target", "%s", n->u.target);
    id_add(n->l->out, "iscsi-portal", "%s", n->portal);
    id_add(n->l->out, "iscsi-lun", "%u", n->u.lun);
}

static void look_size(struct iscsi_look *n)
{
    static const struct command k = { CAPACITY, 0 };
    Migrd__DiskIdentity *id = n->l->out;
    struct scsi_task *t;
    bool refused;

    t = run(n, &k, 0, &refused);
    if (t == NULL || !vpd_capacity(t->datain.data, length(t), &id->size, &id->block_size))
        look_fail(n->l, ERR_SYSTEM, "%s: READ CAPACITY(16): %s", n->what,
            t != NULL ? "its answer makes no sense" : iscsi_get_error(n->c));
    if (t != NULL)
        scsi_free_scsi_task(t);
}

static void look_protection(struct iscsi_look *n)
{
    static const struct command k = { MODE, 0 };
    struct scsi_task *t;
    bool refused;

    t = run(n, &k, 0, &refused);
    if (t == NULL)
        return; /* optional for a device; a write tells */
    n->l->out->read_only = vpd_write_protected(t->datain.data, length(t));
    scsi_free_scsi_task(t);
}

static void look_contents(struct iscsi_look *n)
{
    static const struct command k = { READ, 0 };
    struct scsi_task *t;
    bool refused;

    if (look_failed(n->l))
        return;
    look_step(n->l, "reading the beginning of LUN %u of %s", n->u.lun, n->u.target);
    t = run(n, &k, n->l->out->block_size, &refused);
    if (t == NULL) {
        look_fail(n->l, ERR_SYSTEM, "%s: it cannot be read: %s", n->what, iscsi_get_error(n->c));
        return;
    }
    look_head(n->l, t->datain.data, length(t));
    scsi_free_scsi_task(t);
}

/* --- reservations --- */

static bool add_keys(struct iscsi_look *n)
{
    static const struct command k = { RESERVE_IN, SCSI_PERSISTENT_RESERVE_READ_KEYS };
    uint64_t keys[VPD_KEYS_MAX];
    struct scsi_task *t;
    bool refused;
    size_t count;

    t = run(n, &k, 0, &refused);
    if (t == NULL)
        return false;
    count = vpd_keys(t->datain.data, length(t), keys);
    for (size_t i = 0; i < count; i++)
        id_add(n->l->out, "pr-key", "%016llx", (unsigned long long)keys[i]);
    scsi_free_scsi_task(t);
    return true;
}

static void add_holder(struct iscsi_look *n)
{
    static const struct command k = { RESERVE_IN, SCSI_PERSISTENT_RESERVE_READ_RESERVATION };
    struct scsi_task *t;
    uint64_t key;
    unsigned type;
    bool refused;

    t = run(n, &k, 0, &refused);
    if (t == NULL)
        return;
    if (vpd_holder(t->datain.data, length(t), &key, &type))
        id_add(n->l->out, "pr-holder", "%016llx type %u", (unsigned long long)key, type);
    scsi_free_scsi_task(t);
}

static void look_reservations(struct iscsi_look *n)
{
    static const struct command k = { RESERVE_IN, SCSI_PERSISTENT_RESERVE_REPORT_CAPABILITIES };
    struct scsi_task *t;
    bool refused, can;

    look_step(n->l, "asking LUN %u of %s for its reservations", n->u.lun, n->u.target);
    if (!add_keys(n)) {
        id_text(&n->l->out->fence_note, "the LUN has no persistent reservations");
        return;
    }
    add_holder(n);
    t = run(n, &k, 0, &refused);
    /* A device may have reservations and not know this question. */
    can = t == NULL ? refused : vpd_can_reserve(t->datain.data, length(t));
    if (t != NULL)
        scsi_free_scsi_task(t);
    if (can)
        id_text(&n->l->out->fence, "reservation");
    else
        id_text(&n->l->out->fence_note,
            "the LUN cannot reserve as 'write exclusive, registrants only'");
}

/* --- the look --- */

void look_iscsi(struct look *l)
{
    struct iscsi_look *n;

    n = l->what != MIGRD__STORAGE_REQUEST__WHAT__CLEAN ? calloc(1, sizeof *n) : NULL;
    if (n == NULL)
        return;
    signal(SIGPIPE, SIG_IGN); /* libiscsi writes to sockets that are gone */
    n->l = l;
    n->what = l->disk->source;
    if (storage_url_parse(l->disk->source, &n->u, NULL) == 0 && log_in(n) && look_inquiry(n)) {
        look_names(n);
        look_size(n);
        look_protection(n);
        look_contents(n);
        look_reservations(n);
        look_step(n->l, "logging out of %s", n->u.target);
        iscsi_logout_sync(n->c);
    }
    if (n->c != NULL)
        iscsi_destroy_context(n->c);
    free(n);
}
