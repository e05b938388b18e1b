/* SPDX-License-Identifier: ISC */
/*
 * disk: an open disk image: a file, a block device, nfs://server/path/file or
 * iscsi://portal/iqn/lun. Network disks have a thread of their own that runs the
 * protocol's event loop, with several requests in flight; requests on files are done in
 * the thread that submits them. A `struct disk` belongs to who opened it; an io belongs
 * to who submitted it again from its `done` on.
 */
#ifndef STORAGE_CHECK_DISK_H
#define STORAGE_CHECK_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "storage-check/storage.pb-c.h"

#define DISK_SECTOR 512u
#define DISK_TIMEOUT_MS 10000 /* of opening; of a request before `io_slow` is told */
#define DISK_IOV_MAX 256u

#define DISK_MARK_LEN 8u

struct disk;

/*
 * What this process still owes a disk: writes that it was told are done, and that no flush has made
 * durable. Who goes on with the disk in another process hands it over, see disk_expect. NFS only;
 * elsewhere nothing is owed.
 */
struct disk_mark {
    bool owed; /* until the next flush; `server` tells if the server forgot it */
    bool lost; /* some of it is gone already, and no flush has said so */
    uint8_t server[DISK_MARK_LEN]; /* which of its lives has the writes: NFSv3's write verifier */
};

/* Of a flush: some of what was written before is gone. Told once: another flush would look like
 * success.
 */
#define DISK_WRITES_LOST ENOTRECOVERABLE

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_ZEROES, DISK_OP_MAX };

struct disk_io {
    enum disk_op op;
    bool unmap;           /* DISK_ZEROES: may make holes */
    uint64_t offset, len; /* bytes, of whole sectors */
    struct iovec
        *iov; /* READ, WRITE: together len bytes; the caller's until done; may be changed */
    unsigned n_iov;
    /* Once; error 0 or an errno: EIO, ENOSPC, EACCES (storage refuses: fenced), ECANCELED
     * (disk_abort), ESTALE (not the disk it was), DISK_WRITES_LOST. From the disk's thread, or
     * from within disk_submit. Must not call back into the disk but disk_submit. */
    void (*done)(struct disk_io *io, int error);
    void *arg; /* caller's */
    /* the disk's own */
    struct disk *disk;
    struct disk_io *next, *prev;
    uint64_t began_ns, moved;
    unsigned parts;
    int result;
};

enum disk_event {
    DISK_LOST, /* the server does not answer: requests wait, reconnecting with back-off */
    DISK_BACK, /* it does again, and it is the same disk */
};

struct disk_options {
    bool read_only;
    const char *host;      /* own name */
    const char *initiator; /* iSCSI name; NULL or "": made of the host's name */
    const char *secrets;   /* file with CHAP passwords; NULL: none */
    unsigned timeout_ms;   /* 0: DISK_TIMEOUT_MS */
    unsigned uid, gid;     /* NFS credentials; 0 root */
    /* From the disk's thread; NULL: nobody wants to know. */
    void (*event)(void *arg, enum disk_event ev, const char *text);
    void *event_arg;
    /* Network disks: asked in the disk's thread, again and again, before anything is sent. False:
     * what is in flight ends as at disk_abort, and nothing goes out. It may call disk_poke; NULL:
     * always true. */
    bool (*may_send)(void *arg); /* with event_arg */
};

/* Blocks for at most timeout_ms. Errors name the disk, the reason and the way out. */
int disk_open(const char *source, const struct disk_options *o, struct disk **out, struct err *e);
uint64_t disk_size(const struct disk *d);       /* bytes, when it was opened */
uint32_t disk_block_size(const struct disk *d); /* of the medium; 512 for files */
bool disk_is_network(const struct disk *d);
enum _Migrd__StorageKind disk_kind(const struct disk *d);

/* Any thread. */
void disk_submit(struct disk *d, struct disk_io *io);

/*
 * Network disks only: `feed` is called in the disk's thread, before it sends, whenever it has woken
 * up, and soon after each disk_poke. It may call disk_submit, and must not block. NULL: no more,
 * and none is going on when this returns. Both from any thread, disk_set_feed not from the disk's
 * own, nor with a lock held that `feed` takes.
 */
void disk_set_feed(struct disk *d, void (*feed)(void *arg), void *arg);
void disk_poke(struct disk *d);
/* An eventfd: a write pokes, too. The disk's own, until disk_close. */
int disk_poke_fd(const struct disk *d);

/* Everything in flight is done with ECANCELED when this returns, and nothing of it can reach the
 * storage any more: connections are destroyed with their unsent bytes. The next request connects
 * anew. */
void disk_abort(struct disk *d);

/* Any thread, with nothing in flight. */
void disk_mark(struct disk *d, struct disk_mark *out);
/* Before the first request: what another process owed. A server that has restarted since then has
 * forgotten it, and the first flush is told so: DISK_WRITES_LOST. */
void disk_expect(struct disk *d, const struct disk_mark *m);

/* NFS: from now on requests go out under these ids. */
int disk_set_owner(struct disk *d, unsigned uid, unsigned gid, struct err *e);

/* Nothing may be in flight (or disk_abort was called). */
void disk_close(struct disk **d);

#endif
