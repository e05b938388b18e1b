/* SPDX-License-Identifier: ISC */
/*
 * A LUN of an iSCSI target, through libiscsi. One connection:
 *   log in (CHAP, header digest if the target wants one) and wait until the unit is ready;
 *   ask what it is: the steps below, each again while the unit has attentions to tell
 *
 * It is the same disk if its designators and serial number, its size and its block size are what
 * they were when it was opened.
 *
 * All logins of a disk have one ISID: the target takes a new one for the old session's return and
 * ends what the old one had in flight (RFC 7143, 6.3.5), so a request that is done again on the new
 * session cannot be overtaken by its former self.
 *
 * The password is looked up at each login; where the secrets file cannot be read any more (a
 * process that has shut itself in), the one of the last login is used.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "storage-check/disk_iscsi.h"
#include "storage-check/vpd.h"

#define ATTENTIONS_MAX 20u
#define ANSWER_MAX 255

/* ---- what it is ---- */

static void add_name(struct scsi_look *l, const char *kind, const char *value)
{
    size_t n = strlen(l->names);

    snprintf(l->names + n, sizeof l->names - n, "%s%s=%s", n > 0 ? " " : "", kind, value);
}

static bool take_names(struct scsi_look *l, const struct scsi_task *t)
{
    struct vpd_name names[VPD_NAMES_MAX];
    size_t n = vpd_names(t->datain.data, (size_t)t->datain.size, names);

    for (size_t i = 0; i < n; i++)
        add_name(l, names[i].kind, names[i].value);
    return true;
}

static bool take_serial(struct scsi_look *l, const struct scsi_task *t)
{
    char serial[VPD_NAME_LEN];

    vpd_serial(t->datain.data, (size_t)t->datain.size, serial);
    if (serial[0] != '\0')
        add_name(l, "serial", serial);
    return true;
}

static bool take_capacity(struct scsi_look *l, const struct scsi_task *t)
{
    l->provisioned = t->datain.size > 14 && (t->datain.data[14] & 0x80) != 0;
    return vpd_capacity(t->datain.data, (size_t)t->datain.size, &l->size, &l->block_size);
}

static bool take_protection(struct scsi_look *l, const struct scsi_task *t)
{
    l->write_protected = vpd_write_protected(t->datain.data, (size_t)t->datain.size);
    return true;
}

static uint32_t big32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Page 0xb0, block limits (SBC-3, 6.6.4). */
static bool take_limits(struct scsi_look *l, const struct scsi_task *t)
{
    const uint8_t *p = t->datain.data;

    if (t->datain.size >= 12)
        l->max_transfer = big32(p + 8);
    if (t->datain.size >= 24)
        l->max_unmap = big32(p + 20);
    if (t->datain.size >= 44)
        l->max_same = (uint64_t)big32(p + 36) << 32 | big32(p + 40);
    return true;
}

static struct scsi_task *ask_page(struct scsi_disk *s, int page, iscsi_command_cb cb)
{
    return iscsi_inquiry_task(s->ctx, (int)s->n.d.url.lun, 1, page, ANSWER_MAX, cb, s);
}

static struct scsi_task *ask_names(struct scsi_disk *s, iscsi_command_cb cb)
{
    return ask_page(s, SCSI_INQUIRY_PAGECODE_DEVICE_IDENTIFICATION, cb);
}

static struct scsi_task *ask_serial(struct scsi_disk *s, iscsi_command_cb cb)
{
    return ask_page(s, SCSI_INQUIRY_PAGECODE_UNIT_SERIAL_NUMBER, cb);
}

static struct scsi_task *ask_limits(struct scsi_disk *s, iscsi_command_cb cb)
{
    return ask_page(s, SCSI_INQUIRY_PAGECODE_BLOCK_LIMITS, cb);
}

static struct scsi_task *ask_capacity(struct scsi_disk *s, iscsi_command_cb cb)
{
    return iscsi_readcapacity16_task(s->ctx, (int)s->n.d.url.lun, cb, s);
}

static struct scsi_task *ask_protection(struct scsi_disk *s, iscsi_command_cb cb)
{
    return iscsi_modesense6_task(s->ctx, (int)s->n.d.url.lun, 1, SCSI_MODESENSE_PC_CURRENT,
        SCSI_MODEPAGE_RETURN_ALL_PAGES, 0, ANSWER_MAX, cb, s);
}

static const struct look_step {
    const char *what;
    struct scsi_task *(*ask)(struct scsi_disk *s, iscsi_command_cb cb);
    bool (*take)(struct scsi_look *l, const struct scsi_task *t); /* false: nonsense */
    bool needed;
} steps[] = {
    { "its size", ask_capacity, take_capacity, true },
    { "its designators", ask_names, take_names, false },
    { "its serial number", ask_serial, take_serial, false },
    { "its write protection", ask_protection, take_protection, false },
    { "its limits", ask_limits, take_limits, false },
};

#define STEPS (sizeof steps / sizeof steps[0])

static void ask_next(struct scsi_disk *s);

static void first_look(struct scsi_disk *s)
{
    struct disk *d = &s->n.d;

    if (s->look.write_protected && !d->options.read_only) {
        net_lost(&s->n, ERR_REFUSED,
            "the target has it write-protected; make it writable there, or define the disk as "
            "read-only");
        return;
    }
    if (s->look.block_size < DISK_SECTOR) {
        net_lost(&s->n, ERR_UNSUPPORTED, "its blocks of %u bytes are smaller than a sector",
            s->look.block_size);
        return;
    }
    s->first = s->look;
    d->size = s->look.size;
    d->block_size = s->look.block_size;
    net_connected(&s->n);
}

static void look_over(struct scsi_disk *s)
{
    if (!s->n.opened)
        first_look(s);
    else if (strcmp(s->look.names, s->first.names) != 0)
        net_foreign(&s->n, "another disk is there now: %.150s; it was %.150s", s->look.names,
            s->first.names);
    else if (s->look.size != s->first.size || s->look.block_size != s->first.block_size)
        net_foreign(&s->n, "its size is %llu bytes now; it was %llu",
            (unsigned long long)s->look.size, (unsigned long long)s->first.size);
    else
        net_connected(&s->n);
}

static bool is_attention(int status, const struct scsi_task *t)
{
    return status == SCSI_STATUS_BUSY || status == SCSI_STATUS_TASK_SET_FULL ||
           (status == SCSI_STATUS_CHECK_CONDITION && t->sense.key == SCSI_SENSE_UNIT_ATTENTION);
}

static void answered(struct iscsi_context *c, int status, void *data, void *priv)
{
    struct scsi_disk *s = priv;
    struct scsi_task *t = data;
    const struct look_step *step = &steps[s->step];
    char text[160];

    (void)c;
    if (s->n.dying || status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR ||
        status == SCSI_STATUS_TIMEOUT) {
        net_lost(&s->n, ERR_PEER, "the connection to %.100s broke", s->n.d.url.host);
    } else if (is_attention(status, t) && ++s->tries < ATTENTIONS_MAX) {
        ask_next(s);
    } else if (status == SCSI_STATUS_GOOD ? !step->take(&s->look, t)
                                          : step->needed || is_attention(status, t)) {
        scsi_task_text(status, t, text, sizeof text);
        net_lost(&s->n, ERR_PEER, "the target does not tell %s: %s", step->what, text);
    } else if (++s->step < STEPS) {
        ask_next(s);
    } else {
        look_over(s);
    }
    if (t != NULL)
        scsi_free_scsi_task(t);
}

static void ask_next(struct scsi_disk *s)
{
    if (steps[s->step].ask(s, answered) == NULL)
        net_lost(
            &s->n, ERR_PEER, "asking for %s: %.150s", steps[s->step].what, iscsi_get_error(s->ctx));
}

/* ---- connecting ---- */

static void login_failed(struct scsi_disk *s)
{
    const struct storage_url *u = &s->n.d.url;
    const char *text = iscsi_get_error(s->ctx);
    const char *secrets = s->n.d.options.secrets != NULL ? s->n.d.options.secrets : "the file";
    char name[STORAGE_TARGET_MAX + 1];

    disk_initiator_name(&s->n.d.options, name, sizeof name);
    if (strstr(text, "(513)") != NULL && !s->has_secret)
        net_lost(&s->n, ERR_REFUSED,
            "the target wants a password; write iscsi://USER@... and put the line '%.100s USER "
            "PASSWORD' into %.200s (storage-secrets)",
            u->target, secrets);
    else if (strstr(text, "(513)") != NULL)
        net_lost(&s->n, ERR_REFUSED,
            "the target refuses the password of user %.60s; correct it in %.200s (storage-secrets)",
            s->secret.user, secrets);
    else if (strstr(text, "(514)") != NULL)
        net_lost(&s->n, ERR_REFUSED,
            "the target does not let the initiator %.220s in; allow that name there", name);
    else if (strstr(text, "(515)") != NULL)
        net_lost(&s->n, ERR_NOT_FOUND,
            "%.80s has no target %.150s, or does not show it to this host", u->host, u->target);
    else if (strstr(text, "(0x2500)") != NULL)
        net_lost(&s->n, ERR_NOT_FOUND, "the target has no LUN %u, or does not show it to this host",
            u->lun);
    else if (strstr(text, "Connection refused") != NULL)
        net_lost(&s->n, ERR_PEER,
            "nothing serves iSCSI at %.100s port %u (connection refused); start the server there, "
            "or correct the URL",
            u->host, u->port);
    else
        net_lost(&s->n, ERR_PEER, "logging in to %.100s: %.200s", u->host, text);
}

/* Called again when an established connection breaks. */
static void logged_in(struct iscsi_context *c, int status, void *data, void *priv)
{
    struct scsi_disk *s = priv;

    (void)c;
    (void)data;
    if (s->n.dying)
        return;
    if (status != SCSI_STATUS_GOOD) {
        if (s->n.state == NET_CONNECTING)
            login_failed(s);
        else
            net_lost(&s->n, ERR_PEER, "the connection to %.100s broke", s->n.d.url.host);
        return;
    }
    memset(&s->look, 0, sizeof s->look);
    s->step = 0;
    s->tries = 0;
    ask_next(s);
}

static int find_secret(struct scsi_disk *s, struct err *e)
{
    struct secret now;
    int rc = secret_find(s->n.d.options.secrets, &s->n.d.url, &now, e);

    if (rc >= 0) {
        s->has_secret = rc > 0;
        s->secret = now;
    }
    secret_wipe(&now);
    return rc < 0 && !s->n.opened ? -1 : 0;
}

static int scsi_connect(struct net_disk *n, const char *address, struct err *e)
{
    struct scsi_disk *s = scsi_of(n);
    char portal[NET_ADDRESS_MAX + 16];

    if (find_secret(s, e) < 0)
        return -1;
    s->ctx = disk_iscsi_context_with(
        &n->d.url, &n->d.options, s->isid, s->has_secret ? &s->secret : NULL, e);
    if (s->ctx == NULL)
        return -1;
    snprintf(portal, sizeof portal, strchr(address, ':') != NULL ? "[%s]:%u" : "%s:%u", address,
        (unsigned)n->d.url.port);
    if (iscsi_full_connect_async(s->ctx, portal, (int)n->d.url.lun, logged_in, s) != 0)
        return err_set(e, ERR_PEER, "the portal %.100s cannot be reached: %.200s", n->d.url.host,
            iscsi_get_error(s->ctx));
    return 0;
}

static void scsi_disconnect(struct net_disk *n)
{
    struct scsi_disk *s = scsi_of(n);

    if (s->ctx != NULL)
        iscsi_destroy_context(s->ctx);
    s->ctx = NULL;
    scsi_forget(s);
}

static void scsi_prepare(struct net_disk *n)
{
    net_ready(n);
}

/* ---- the loop's ---- */

static int scsi_fd(struct net_disk *n)
{
    return scsi_of(n)->ctx != NULL ? iscsi_get_fd(scsi_of(n)->ctx) : -1;
}

static short scsi_events(struct net_disk *n)
{
    return (short)iscsi_which_events(scsi_of(n)->ctx);
}

static int scsi_serve(struct net_disk *n, short revents)
{
    struct scsi_disk *s = scsi_of(n);

    if (iscsi_service(s->ctx, revents) == 0)
        return 0;
    /* libiscsi speaks of its own reconnecting, which is switched off */
    if (n->state == NET_CONNECTING)
        login_failed(s);
    else
        net_lost(n, ERR_PEER, "the connection to %.100s broke", n->d.url.host);
    return -1;
}

static void sign_of_life(struct iscsi_context *c, int status, void *data, void *priv)
{
    struct scsi_disk *s = priv;

    (void)c;
    (void)data;
    if (!s->n.dying && status == SCSI_STATUS_GOOD)
        net_heard(&s->n);
}

static void scsi_probe(struct net_disk *n)
{
    struct scsi_disk *s = scsi_of(n);

    if (iscsi_nop_out_async(s->ctx, sign_of_life, NULL, 0, s) != 0)
        net_lost(n, ERR_MEMORY, "no memory to ask the target for a sign of life");
    else
        scsi_serve(n, POLLOUT);
}

static void scsi_owner(struct net_disk *n)
{
    (void)n;
}

static void scsi_dispose(struct net_disk *n)
{
    secret_wipe(&scsi_of(n)->secret);
}

/* A target that loses its cache is not noticed by those who are logged in either. */
static void scsi_mark(struct net_disk *n, struct disk_mark *m, bool expect)
{
    (void)n;
    (void)m;
    (void)expect;
}

static const struct net_ops scsi_ops = {
    .connect = scsi_connect,
    .prepare = scsi_prepare,
    .disconnect = scsi_disconnect,
    .fd = scsi_fd,
    .events = scsi_events,
    .service = scsi_serve,
    .part_max = scsi_part_max,
    .start = scsi_start,
    .probe = scsi_probe,
    .owner = scsi_owner,
    .mark = scsi_mark,
    .turn = scsi_turn,
    .dispose = scsi_dispose,
};

int disk_iscsi_open(const struct disk_options *o, const struct storage_url *u, const char *source,
    struct disk **out, struct err *e)
{
    struct scsi_disk *s = calloc(1, sizeof *s);

    if (s == NULL || getrandom(&s->isid, sizeof s->isid, 0) != (ssize_t)sizeof s->isid ||
        !net_init(&s->n, &scsi_ops, MIGRD__STORAGE_KIND__STORAGE_ISCSI, o, u, source)) {
        free(s);
        return err_set(e, ERR_MEMORY, "disk %.300s: out of memory", source);
    }
    s->isid |= 1; /* 0 would be another one at each login */
    if (net_open(&s->n, e) < 0)
        return -1;
    *out = &s->n.d;
    return 0;
}
