/* SPDX-License-Identifier: ISC */
/*
 * migrate: what the files of virsh's migrations share: migrate.c (the five steps),
 * migrate_old.c (the same for clients without typed parameters), order.c (options),
 * ticket.c (cookies), move.c (what belongs to a client until it goes), offline.c.
 */
#ifndef LIBVIRT_MIGRATE_H
#define LIBVIRT_MIGRATE_H

#include "migrd/libvirt/internal.h"
#include "migrd/libvirt/ticket.pb-c.h"
#include "migrd/migration.h"

/* --- options --- */

#define LV_M_LIVE 0x1u
#define LV_M_PEER2PEER 0x2u
#define LV_M_PERSIST_DEST 0x8u
#define LV_M_UNDEFINE_SOURCE 0x10u
#define LV_M_PAUSED 0x20u
#define LV_M_CHANGE_PROTECTION 0x100u
#define LV_M_OFFLINE 0x400u
#define LV_M_COMPRESSED 0x800u
#define LV_M_ABORT_ON_ERROR 0x1000u /* that is so anyway */
#define LV_M_AUTO_CONVERGE 0x2000u  /* migration-throttle-max says how much */
#define LV_M_TLS 0x10000u
#define LV_M_PARALLEL 0x20000u

/* A step's arguments, in the words of the newest protocol; pointers are the call's. */
struct lv_step {
    const lv_dom *dom; /* NULL: the step has none */
    const char *dconnuri;
    const lv_param *params;
    u_int n_params;
    const char *cookie;
    u_int cookie_len;
    unsigned flags;
    bool cancelled;
};

struct lv_order {
    char host[256]; /* of the migrate URI, "" none */
    unsigned port;
    const char *xml;  /* the definition, NULL none; the step's */
    const char *name; /* on the target, NULL none; the step's */
    Migrd__PrecopyParams params;
};

/* What cannot be honoured is refused by the name of its option. */
int lv_order_take(struct lv_call *k, const struct lv_step *s, struct lv_order *o, struct err *e);
/* "SCHEME://HOST[:PORT]/...", an IPv6 address in brackets. */
int lv_order_host(
    struct lv_call *k, struct lv_order *o, const char *uri, bool with_port, struct err *e);

/* --- cookies --- */

/* The texts are the caller's; a copy of it in bytes is malloc'ed. */
int lv_ticket_put(const Migrd__Ticket *t, char **out, u_int *len, struct err *e);
/* Of that step and, unless NULL, that domain; free with migrd__ticket__free_unpacked. */
Migrd__Ticket *lv_ticket_take(struct lv_call *k, const char *data, u_int len,
    Migrd__TicketStep step, const char *uuid, struct err *e);
Migrd__Ticket *lv_ticket_parse(const char *data, size_t len);

/* --- what belongs to a client --- */

enum lv_move_kind {
    LV_MOVE_HELD,     /* source: between Begin and Perform nobody else acts on the domain */
    LV_MOVE_RUNS,     /* source: Perform; the client's end cancels it */
    LV_MOVE_GIVEN,    /* source, Confirm of a definition alone: its new owner is written down */
    LV_MOVE_EXPECTED, /* target: a definition that is to come without its guest */
    LV_MOVE_KIND_MAX
};

struct lv_move {
    struct lv_move *next;
    enum lv_move_kind kind;
    const struct lv_conn *c; /* NULL: it needs no client */
    char uuid[HV_UUID_LEN];
    uint64_t since_ns;
    uint64_t epoch;      /* LV_MOVE_EXPECTED */
    bool managed;        /* LV_MOVE_RUNS: virsh goes on to Finish */
    struct lv_call *k;   /* LV_MOVE_RUNS, LV_MOVE_GIVEN: to be answered */
    struct migration *g; /* LV_MOVE_RUNS */
};

/* NULL only without memory, or when the client has too many. */
struct lv_move *lv_move_new(struct lv_call *k, enum lv_move_kind kind, const char *uuid);
struct lv_move *lv_move_find(const struct lv_call *k, enum lv_move_kind kind, const char *uuid);
/* Ends what it stands for, but not a migration. Sets *mv to NULL. */
void lv_move_end(struct migrd *m, struct lv_move **mv);
/* The reason that others are given while a domain is held. */
int lv_move_hold(struct lv_call *k, struct domain *d, struct err *e);

/* --- steps --- */

int lv_step_begin(struct lv_call *k, const struct lv_step *s, lv_begun *ret, struct err *e);
int lv_step_prepare(struct lv_call *k, const struct lv_step *s, lv_prepared *ret, struct err *e);
int lv_step_perform(struct lv_call *k, const struct lv_step *s, struct err *e);
int lv_step_finish(struct lv_call *k, const struct lv_step *s, lv_finished *ret, struct err *e);
int lv_step_confirm(struct lv_call *k, const struct lv_step *s, struct err *e);

/* `uuid` (may be NULL) must be the definition's. */
Migrd__Domain *lv_order_definition(
    struct lv_call *k, const struct lv_order *o, const char *uuid, struct err *e);
void lv_dom_uuid(const lv_dom *dom, char out[HV_UUID_LEN]);

/* --offline: the definition moves, and with it who may start the domain. */
int lv_offline_begin(struct lv_call *k, struct domain *d, unsigned flags, struct err *e);
int lv_offline_prepare(struct lv_call *k, const Migrd__Domain *def, uint64_t epoch, struct err *e);
int lv_offline_finish(struct lv_call *k, const struct lv_order *o, struct err *e);
int lv_offline_confirm(struct lv_call *k, const struct lv_step *s, struct err *e);

#endif
