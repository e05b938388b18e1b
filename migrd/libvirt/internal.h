/* SPDX-License-Identifier: ISC */
/*
 * internal: what the parts of libvirt/ share: wire.c (bytes), server.c (sockets, clients,
 * timers), tls.c (of other machines), places.c (where virsh looks), conn.c (one client: reading, sending, keepalive),
 * call.c (one call: table of procedures, answers, errors), event.c; the rest are procedures.
 *
 * A call lives from its frame to its answer. Its client stays as long as calls of it are
 * under way, even if the socket has closed; answers then go nowhere.
 */
#ifndef LIBVIRT_INTERNAL_H
#define LIBVIRT_INTERNAL_H

#include <sys/types.h>

#include "migrd/control.pb-c.h"
#include "migrd/libvirt/libvirt.h"
#include "migrd/libvirt/remote.h"
#include "migrd/peer.h"
#include "migrd/registry.h"
#include "transport/tls_server.h"

/* --- bytes --- */

#define LV_HEADER_BYTES 28
#define LV_FRAME_MAX (512u << 10) /* of a frame that a client sends */
#define LV_ANSWER_MAX (32u << 20) /* the client takes no more */

#define LV_PROGRAM 0x20008086u
#define LV_PROGRAM_KEEPALIVE 0x6b656570u
#define LV_VERSION 1

enum lv_type { LV_CALL, LV_REPLY, LV_MESSAGE, LV_STREAM };
enum lv_status { LV_OK, LV_ERROR, LV_CONTINUE };
enum lv_keepalive { LV_PING = 1, LV_PONG = 2 };

struct lv_header {
    uint32_t len; /* of the frame, header included */
    uint32_t prog, vers;
    int32_t proc, type;
    uint32_t serial;
    int32_t status;
};

/* 1 a whole frame begins at p, 0 more bytes are needed, -1 this is no frame. */
int lv_header_read(const uint8_t *p, size_t n, struct lv_header *h, struct err *e);
/* A whole frame; malloc'ed, h->len is its length. `proc` NULL: no payload. */
uint8_t *lv_pack(struct lv_header *h, xdrproc_t proc, void *data, struct err *e);
/* Takes the first word out of a packed frame's payload. */
void lv_drop_word(struct lv_header *h, uint8_t *frame);
/* The same with `n` bytes as they are; NULL: no memory. */
uint8_t *lv_pack_raw(struct lv_header *h, const void *data, size_t n);
/* Decodes all of the payload into zeroed `out`. On failure nothing of it is left. */
int lv_unpack(xdrproc_t proc, const uint8_t *p, size_t n, void *out, struct err *e);
/* malloc'ed; never NULL but without memory. */
char *lv_copy(const char *text);

/* --- errors --- */

/* libvirt's own numbers. */
enum lv_code {
    LV_E_INTERNAL = 1,
    LV_E_NO_SUPPORT = 3,
    LV_E_NO_CONNECT = 5,
    LV_E_INVALID_ARG = 8,
    LV_E_FAILED = 9,
    LV_E_XML = 27,
    LV_E_EXISTS = 28,
    LV_E_DENIED = 29,
    LV_E_SYSTEM = 38,
    LV_E_RPC = 39,
    LV_E_NO_DOMAIN = 42,
    LV_E_NO_VOLUME = 50,
    LV_E_INVALID = 55,
    LV_E_CONFIG_UNSUPPORTED = 67,
    LV_E_TIMEOUT = 68,
    LV_E_ARGUMENT_UNSUPPORTED = 74,
    LV_E_ABORTED = 78,
    LV_E_NO_METADATA = 80,
    LV_E_UNSUPPORTED = 84,
    LV_E_BUSY = 87,
    LV_E_NO_DEVICE = 99,
    LV_E_FINISH_OK = 93 /* an error by which the client knows that all is well */
};

/* The libvirt number of a failure, unless somebody knows better. */
enum lv_code lv_code_of(const struct err *e);
/* Words that libvirt puts before the text of such a failure; "" none. */
const char *lv_code_words(enum lv_code code);

/* --- clients --- */

struct lv_callback {
    struct lv_callback *next;
    int number;
    int event;
    bool old;               /* its client knows no numbers of callbacks */
    char uuid[HV_UUID_LEN]; /* of the only domain that matters; "" all */
};

struct lv_conn {
    struct lv_conn *next;
    struct migrd *m;
    int fd;
    uv_poll_t poll;
    bool gone; /* socket closed; the struct waits for its calls and its handle */
    bool handle_open;
    bool read_only;
    bool opened;    /* CONNECT_OPEN has passed */
    bool keepalive; /* the client answers pings */
    bool ending;    /* closes when all is sent */
    bool in_use;    /* its frames are being run */
    struct tls_link *tls; /* NULL: of a unix socket */
    bool shaking;         /* TLS has not come about */
    char address[64];     /* of TLS */
    char who[400];        /* for the log */
    unsigned under_way;
    size_t held; /* bytes of calls under way */
    uint8_t *in;
    size_t in_len, in_cap;
    uint8_t *out;
    size_t out_len, out_sent, out_cap;
    uint64_t born_ns;
    uint64_t heard_ns; /* anything came */
    uint64_t sent_ns;  /* something went, or there was nothing to send */
    uint64_t frame_ns; /* when the frame that is not whole began */
    unsigned pings;    /* without any answer */
    bool tell_close;   /* it wants to hear when migrd ends */
    struct lv_stream *streams;
    unsigned n_streams;
    struct lv_callback *callbacks;
    unsigned n_callbacks;
    int last_callback;
};

enum lv_place_state {
    LV_PLACE_NEW,
    LV_PLACE_OURS,
    LV_PLACE_OTHERS,
    LV_PLACE_SILENT, /* a socket that refuses */
    LV_PLACE_FAILED
};

struct lv_place {
    enum lv_place_state state;
    ino_t inode; /* of another server's socket */
};

#define LV_PLACES_MAX 16

struct libvirt {
    struct peer_rule rule;
    int fd[2]; /* read-write, read-only */
    uv_poll_t poll[2];
    uv_timer_t tick;
    bool stopping;
    struct lv_conn *conns;
    unsigned n_conns;
    struct tls_server *tls; /* of tls.c, down to tls_failed */
    struct lv_listener *listeners;
    uint64_t tried_ns;
    unsigned refusals; /* in this second */
    unsigned looks;    /* of storage.c, under way */
    bool tls_failed;
    int subscription; /* of the host's events */
    struct lv_move *moves;
    struct lv_place places[LV_PLACES_MAX];
};

void lv_socket_path(const struct migrd *m, bool read_only, char out[PATHS_LEN + 32]);
/* The links of libvirt-sockets: makes them, keeps them, removes those of `list`. */
void lv_places_start(struct migrd *m);
void lv_places_look(struct migrd *m);
void lv_places_stop(struct migrd *m, const char *list);

#define LV_ACCEPTS 64 /* of one socket in one turn of the loop */

/* Nothing more to accept; without descriptors the socket rests until the next tick. */
void lv_accept_failed(uv_poll_t *h);
/* Logs that a client was refused, but no more often than is good for the log. */
void lv_refused(struct migrd *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void lv_tls_start(struct migrd *m);
void lv_tls_reload(struct migrd *m, const struct config *before);
void lv_tls_tick(struct migrd *m, uint64_t now);
void lv_tls_stop(struct migrd *m);
/* Its certificate has a name of libvirt-tls-allow. Fills c->who. */
bool lv_tls_admitted(struct lv_conn *c);

void lv_conn_add(struct migrd *m, int fd, const struct ucred *who, bool read_only);
/* `link` NULL: there was no memory for it. */
void lv_conn_add_tls(struct migrd *m, int fd, struct tls_link *link, const char *address);
void lv_conn_close(struct lv_conn *c);
/* Cuts off who is silent, slow or half-way in a frame for too long. */
void lv_conn_tick(struct lv_conn *c, uint64_t now);
/* Sends a frame that lv_pack made, and frees it. */
void lv_conn_send(struct lv_conn *c, uint8_t *frame, size_t len);
/* Waits for what the client may send, and what it may be sent, now. */
void lv_conn_listen(struct lv_conn *c);
/* A call of it has ended. */
void lv_conn_release(struct lv_conn *c, size_t bytes);

/* --- streams --- */

void lv_stream_frame(struct lv_conn *c, const struct lv_header *h, const uint8_t *payload);
/* So much waits for a guest that the client must wait. */
bool lv_streams_full(const struct lv_conn *c);
/* Something was sent to the client: there may be room for more. */
void lv_streams_resume(struct lv_conn *c);
void lv_streams_tick(struct lv_conn *c, uint64_t now);
void lv_streams_forget(struct lv_conn *c);
/* As an answer to h, or as the end of a stream, as h->type says. */
void lv_send_error(struct lv_conn *c, const struct lv_header *h, int code, const char *text);

/* --- calls --- */

struct lv_call;

enum { LV_LATER = 1 }; /* somebody will call lv_call_end */

/* 0: `ret` is the answer, -1: *e is, LV_LATER. */
typedef int lv_fn(struct lv_call *k, const void *args, void *ret, struct err *e);

enum lv_flags {
    LV_EARLY = 1,       /* before CONNECT_OPEN as well */
    LV_CHANGES = 2,     /* not for read-only clients */
    LV_GIVES_DOMAIN = 4 /* lv_call_end answers with the domain of that uuid */
};

struct lv_entry {
    lv_fn *fn;
    unsigned flags;
    xdrproc_t in, out;
    size_t in_size, out_size;
};

struct lv_call {
    struct lv_conn *c;
    struct migrd *m;
    const struct lv_entry *entry;
    struct lv_header h;
    void *args;
    int code;           /* libvirt's number of the failure, 0: that of the err */
    Migrd__Domain *def; /* what an operation is to do next, owned; see action.c */
};

/* The table's line of a procedure; NULL: it is not served. */
const struct lv_entry *lv_entry_of(int proc);
void lv_call_run(struct lv_conn *c, const struct lv_header *h, const uint8_t *payload);
/* Ends a call that was left for later; a registry_done. */
void lv_call_end(void *call, const char *uuid, const struct err *e);
/* The same with an answer of its own. `ret` stays the caller's. */
void lv_call_finish(struct lv_call *k, int result, void *ret, const struct err *e);
/* Sets *e and libvirt's number; -1. */
int lv_fail(struct lv_call *k, struct err *e, enum lv_code code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* What such a procedure would do, of those that migrd does not serve and virsh calls; else NULL. */
const char *lv_refused_words(int proc);
/* Refuses flags that are not in `known`, by number. */
int lv_check_flags(struct lv_call *k, unsigned flags, unsigned known, struct err *e);
void lv_audit(const struct lv_call *k, const char *what, const char *on);

/* --- domains --- */

/* NULL: no such domain here, *e and libvirt's number are set. */
struct domain *lv_domain(struct lv_call *k, const lv_dom *dom, struct err *e);
int lv_domain_put(const struct domain *d, lv_dom *out, struct err *e);
void lv_uuid_bytes(const char *text, char out[LV_UUID_BYTES]);
/* libvirt's number of a domain's state, and why. */
int lv_domain_state(const struct domain *d, int *reason);
/* libvirt's number for XML that is refused; 0: that of the err. */
int lv_define_code(const struct err *e);
/* Is it among those that the flags of virConnectListAllDomains ask for? */
#define LV_LIST_ALL 0xffffu
bool lv_is_listed(const struct domain *d, unsigned flags);
/* malloc'ed. */
char *lv_capabilities(const struct migrd *m, struct err *e);
/* The word that <os><type> has for such guests on this host, and that virsh dominfo shows. */
const char *lv_os_word(const struct migrd *m, Migrd__GuestType t);

/* --- typed parameters --- */

struct lv_params {
    lv_param *val;
    unsigned len, max;
};

int lv_params_start(struct lv_params *l, unsigned max, struct err *e);
void lv_params_free(struct lv_params *l);
void lv_put_ullong(struct lv_params *l, const char *field, uint64_t v);
void lv_put_llong(struct lv_params *l, const char *field, uint64_t v);
void lv_put_uint(struct lv_params *l, const char *field, unsigned v);
void lv_put_int(struct lv_params *l, const char *field, int v);
void lv_put_bool(struct lv_params *l, const char *field, bool v);
void lv_put_text(struct lv_params *l, const char *field, const char *text);
/* A name with a number in it: lv_field(&f, "vcpu.%u.time", i). */
struct lv_field {
    char name[80];
};
const char *lv_field(struct lv_field *f, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* --- jobs --- */

/* Statistics of a migration, save or restore; of one that has ended its report's. 0, and the
 * list is the caller's. */
int lv_job_params(const Migrd__MigrationInfo *i, struct lv_params *out, struct err *e);
/* The call is answered when the job has ended. LV_LATER, or -1. */
int lv_follow(struct lv_call *k, struct migration *g, struct err *e);

/* --- events --- */

int lv_events_start(struct migrd *m, struct err *e);
void lv_events_stop(struct migrd *m);
void lv_events_forget(struct lv_conn *c);
/* To who asked to hear of it: migrd ends. */
void lv_tell_close(struct lv_conn *c);
/* A device of a running domain came or went. */
void lv_event_device(struct migrd *m, const struct domain *d, bool added, const char *alias);
/* A running domain's tuning: libvirt's names, such as "cputune.vcpupin0". The list stays the
 * caller's. */
void lv_event_tunable(struct migrd *m, const struct domain *d, const struct lv_params *params);
/* That, of its pins, weight and cap as they are. */
void lv_event_cpus(struct migrd *m, const struct domain *d);

/* --- migrations by virsh; migrate.h --- */

/* Of a domain that leaves: the rest of its migration is not live. Ends the call when it stands. */
int lv_suspend_moving(struct lv_call *k, struct domain *d, struct err *e);
void lv_moves_forget(struct lv_conn *c);
void lv_moves_tick(struct migrd *m, uint64_t now);

/* --- procedures --- */

lv_fn lv_open_connection, lv_close_connection, lv_auth_list, lv_supports, lv_type, lv_version,
    lv_lib_version, lv_hostname, lv_uri, lv_node_info, lv_free_memory, lv_get_capabilities,
    lv_get_domain_capabilities;
lv_fn lv_list_all, lv_by_id, lv_by_name, lv_by_uuid, lv_get_state, lv_get_info, lv_xml,
    lv_autostart, lv_max_vcpus, lv_os_type, lv_is_active, lv_is_persistent, lv_managed_save,
    lv_metadata;
lv_fn lv_define, lv_define_flags, lv_undefine, lv_undefine_flags, lv_create, lv_create_flags,
    lv_create_xml, lv_suspend, lv_resume, lv_shutdown, lv_shutdown_flags, lv_reboot, lv_destroy,
    lv_destroy_flags, lv_set_memory;
lv_fn lv_vol_by_path, lv_vol_get_info, lv_vol_get_xml, lv_vol_get_path, lv_pool_by_vol,
    lv_pool_get_info, lv_pool_get_xml, lv_pool_list;
lv_fn lv_set_metadata, lv_set_autostart, lv_attach, lv_attach_flags, lv_detach, lv_detach_flags, lv_update_device;
lv_fn lv_save, lv_save_flags, lv_restore, lv_restore_flags, lv_core_dump, lv_core_dump_format;
lv_fn lv_host_max_vcpus, lv_get_cpu_map, lv_get_vcpus, lv_pin_vcpu, lv_pin_vcpu_flags, lv_get_pins,
    lv_set_vcpus, lv_set_vcpus_flags, lv_get_vcpus_flags, lv_get_max_memory, lv_set_memory_old,
    lv_set_max_memory_old, lv_get_sched_type, lv_get_sched, lv_get_sched_flags, lv_set_sched,
    lv_set_sched_flags;
lv_fn lv_get_disk_stats, lv_get_disk_stats_flags, lv_get_vif_stats, lv_get_memory_stats;
lv_fn lv_get_job_info, lv_get_job_stats, lv_abort_job;
lv_fn lv_begin3, lv_prepare3, lv_perform3, lv_finish3, lv_confirm3, lv_begin3_old, lv_prepare3_old,
    lv_perform3_old, lv_finish3_old, lv_confirm3_old;
lv_fn lv_set_speed, lv_get_speed, lv_set_downtime, lv_get_downtime, lv_start_postcopy;
lv_fn lv_active_count, lv_active_ids, lv_defined_count, lv_defined_names, lv_is_updated;
lv_fn lv_is_secure, lv_domain_stats, lv_cpu_stats, lv_control_info, lv_from_native, lv_to_native;
lv_fn lv_open_console, lv_close_register, lv_close_deregister;
lv_fn lv_event_register, lv_event_deregister, lv_event_register_old, lv_event_deregister_old,
    lv_lifecycle_register_old, lv_lifecycle_deregister_old;

#endif
