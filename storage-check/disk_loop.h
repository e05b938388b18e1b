/* SPDX-License-Identifier: ISC */
/*
 * disk_loop: what disks on the network have in common: a thread with the loop of one connection,
 * the queue of requests, cutting them into parts that the server takes, connecting and
 * connecting again, time limits, the gate. A protocol (net_ops) only knows how to reach a
 * server and how to send one part. Everything of a protocol runs in the disk's thread.
 * Internal to storage-check.
 */
#ifndef STORAGE_CHECK_DISK_LOOP_H
#define STORAGE_CHECK_DISK_LOOP_H

#include <netdb.h>
#include <pthread.h>

#include "storage-check/disk_internal.h"

#define NET_PARTS 64u           /* in flight at once */
#define NET_ADDRESS_MAX 64      /* "[address]" as text */
#define NET_PART_MAX (1u << 20) /* bytes of data of a part, whatever the server takes */

struct net_disk;

/* A piece of a request on its way. */
struct net_part {
    struct net_part *next, *prev;
    struct net_disk *net;
    struct disk_io *io;
    uint64_t at, len;  /* within the request, bytes */
    struct iovec *iov; /* READ, WRITE: just this part */
    unsigned n_iov;
    struct iovec *cut; /* malloc'ed, if iov is not the request's own */
    uint64_t due_ns;   /* of a part that is tried again later; 0: it is on its way */
    unsigned tries;
    /* the protocol's own */
    uint64_t done;
    void *own;
};

/* What a protocol does. All in the disk's thread; no member is NULL. */
struct net_ops {
    /* Begins to connect to a numeric address; then net_connected, net_lost or net_foreign. */
    int (*connect)(struct net_disk *n, const char *address, struct err *e);
    /* The gate is open: whatever has to be done before requests; then net_ready. */
    void (*prepare)(struct net_disk *n);
    /* Closes the connection with what was not sent yet. Parts are forgotten: no net_part_*. */
    void (*disconnect)(struct net_disk *n);
    int (*fd)(struct net_disk *n); /* -1: there is none */
    short (*events)(struct net_disk *n);
    int (*service)(struct net_disk *n, short revents); /* may call net_lost */
    uint64_t (*part_max)(struct net_disk *n, enum disk_op op);
    /* Sends a part: 0; or an errno; or -1: not yet, nothing else should be sent either until a part
     * is done. */
    int (*start)(struct net_disk *n, struct net_part *p);
    /* Asks the server for a sign of life; then net_heard. */
    void (*probe)(struct net_disk *n);
    void (*owner)(struct net_disk *n); /* uid and gid have changed; maybe no connection */
    void (*mark)(struct net_disk *n, struct disk_mark *m, bool expect); /* as disk_ops.mark */
    void (*turn)(struct net_disk *n); /* once in each turn of the loop */
    void (*dispose)(struct net_disk *n);
};

enum net_state {
    NET_IDLE,       /* no connection and no need of one */
    NET_RESOLVING,  /* the server's name */
    NET_CONNECTING, /* up to the certainty that it is the same disk */
    NET_GATED,      /* until disk_admit */
    NET_PREPARING,
    NET_UP,
    NET_WAITING, /* to try again */
    NET_STATE_MAX
};

struct io_list {
    struct disk_io *first, *last;
};

struct net_lookup;

struct net_disk {
    struct disk d; /* first */
    const struct net_ops *ops;
    pthread_t thread;
    int wake; /* eventfd */

    pthread_mutex_t lock; /* the next ones; also what other threads read */
    pthread_cond_t cond;
    struct io_list submitted;
    bool awake;     /* the thread looks at all this before it sleeps */
    bool end;       /* disk_close */
    bool open_done; /* the first connection was made, or failed */
    struct err open_error;
    unsigned aborts_wanted, aborts_done;
    bool owner_changed;
    struct disk_mark *mark; /* of who waits for it; NULL: nobody */
    bool mark_expected;
    unsigned uid, gid;
    bool called; /* the protocol has orders of its own */
    void (*feed)(void *arg);
    void *feed_arg;
    bool feeding; /* it is being called */
    bool poked;   /* it is to be called */
    void (*gate)(void *arg, unsigned connection);
    void *gate_arg;
    unsigned connections; /* so far */
    bool admitted;        /* disk_admit was called since the thread last looked */
    int admit_verdict;

    /* the thread's */
    enum net_state state;
    struct io_list pending;                /* not sent, in order */
    struct io_list active;                 /* some part of it is sent */
    struct disk_io *flush;                 /* that is sent; one of `active` */
    struct io_list flush_with, flush_next; /* which it does for; which came later */
    struct net_part parts[NET_PARTS], *free_parts;
    struct net_part *flying; /* on their way, or waiting for due_ns */
    unsigned n_sent;         /* on their way */
    unsigned n_own;          /* questions of the protocol's own that are to be answered */
    struct net_lookup *lookup;
    char address[NET_ADDRESS_MAX]; /* the last one that was found */
    uint64_t deadline_ns;          /* of RESOLVING and CONNECTING; WAITING: the next attempt */
    uint64_t heard_ns, busy_ns;    /* the server's last sign of life; since when it owes one */
    bool probing;
    unsigned failures; /* attempts in a row */
    bool opened;       /* was connected once */
    bool wanted;       /* IDLE: the protocol needs a connection */
    bool lost_told;    /* DISK_LOST was the last event */
    bool broken;       /* net_lost was called: the loop disconnects */
    bool foreign;      /* net_foreign was */
    struct err why;    /* the reason of the last loss */
    int verdict;       /* what requests get without being sent; 0: they are sent */
    bool dying;        /* disconnect is under way: callbacks are to be ignored */
};

/* Fills the head, starts the thread and waits until the disk is open; on failure all is gone. */
int net_open(struct net_disk *n, struct err *e);

/* Head only: strings, lock; false without memory or descriptors, then free n. */
bool net_init(struct net_disk *n, const struct net_ops *ops, Migrd__StorageKind kind,
    const struct disk_options *o, const struct storage_url *u, const char *source);

extern const struct disk_ops net_disk_ops;

static inline struct net_disk *net_of(struct disk *d)
{
    return (struct net_disk *)d;
}

/* ---- what a protocol tells ---- */

/* It is connected, and the disk is the same one. */
void net_connected(struct net_disk *n);
/* Requests may go. */
void net_ready(struct net_disk *n);
/* The connection is of no use any more: noted, done by the loop. First reason counts. */
void net_lost(struct net_disk *n, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* As net_lost: it is another disk, requests get ESTALE. */
void net_foreign(struct net_disk *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The server said something. */
void net_heard(struct net_disk *n);

/* A part is over: 0 or an errno. */
void net_part_done(struct net_part *p, int error);
/* It is to be sent again after a while; EIO to the request when it was tried too often. */
void net_part_again(struct net_part *p, unsigned delay_ms);

/* Puts an order under the lock into force; any thread. */
void net_wake(struct net_disk *n);

/* ---- the connection: disk_connect.c, for disk_loop.c ---- */

/* Moves on what is due; before requests are sent. */
void connect_turn(struct net_disk *n, uint64_t now);
/* Disconnects after net_lost, and plans the next attempt. All parts are gone, all requests pending.
 */
void connect_broken(struct net_disk *n, uint64_t now);
/* Disconnects for good, or until the next request. */
void connect_drop(struct net_disk *n);
/* disk_admit's verdict has come. */
void connect_admit(struct net_disk *n, int verdict);
/* When connect_turn has to be called; UINT64_MAX never. */
uint64_t connect_due(const struct net_disk *n);
/* All parts are forgotten, their requests go to the front of those that wait. */
void net_requeue(struct net_disk *n);

/* ---- vectors ---- */

/* Copies `len` bytes from `skip` on. */
void net_iov_to(const struct iovec *iov, unsigned n, uint64_t skip, const void *from, uint64_t len);
void net_iov_from(const struct iovec *iov, unsigned n, uint64_t skip, void *to, uint64_t len);

#endif
