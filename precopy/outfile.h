/* SPDX-License-Identifier: ISC */
/*
 * outfile: a file that a job of the worker fills: a saved domain, a core. It is written under
 * PATH.tmp and gets its name when it is whole and on the disk, so that no half of it is ever
 * taken for one; two jobs never fill the same PATH.tmp. While it is filled migrd hears how far it
 * is, and a cancel takes effect between two writes. Everything that fails names the path.
 */
#ifndef OUTFILE_H
#define OUTFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "precopy/ctl.h"
#include "precopy/pages.h"

#define OUTFILE_PATH 4096

struct outfile {
    int fd;
    const char *path;       /* the caller's */
    char tmp[OUTFILE_PATH]; /* "": there is none, or it has its name already */
    bool drop_cache;        /* when it is done, it need not stay in the host's memory */

    struct ctl *ctl; /* whom progress goes to */
    uint64_t began_ns, next_ns;
    uint64_t pages; /* in all; 0: not known yet */
    const struct pages_count *count;
};

/* `fd` < 0: makes PATH.tmp, and refuses a PATH that is something else than a regular file. Else a
 * descriptor that stays the caller's, without a name. */
int outfile_open(struct outfile *f, int fd, struct err *e);
/* Between two writes: -1 once the job was cancelled. */
int outfile_step(struct outfile *f, struct err *e);
/* For pages_writer; `f` as its context. Calls outfile_step. */
struct pages_port outfile_port(struct outfile *f);
int outfile_write(struct outfile *f, const void *data, size_t len, uint64_t at, struct err *e);
/* On the disk, under its name. */
int outfile_finish(struct outfile *f, struct err *e);
/* After a failure: nothing of it is left. Also after success; once. */
void outfile_close(struct outfile *f);

#endif
