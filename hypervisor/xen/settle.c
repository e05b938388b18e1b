/* SPDX-License-Identifier: ISC */
/* A target waits until interfaces and disks of its domain are attached (attach.c), or learns why
 * they are not. In the worker's sandbox: the file is open already, and its lock is asked for by
 * fcntl. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "hypervisor/xen/folder.h"
#include "hypervisor/xen/mig_internal.h"

#define POLL_US 20000

/* Its writer is at work. */
static bool is_locked(int fd)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static int read_end(const struct hv_mig *m, struct err *e)
{
    char text[FOLDER_ATTACH_MAX], *last;
    ssize_t n = pread(m->attach_fd, text, sizeof text - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    if (n > 0 && text[n - 1] == '\n')
        text[n - 1] = '\0';
    last = strrchr(text, '\n');
    last = last != NULL ? last + 1 : text;
    if (strcmp(last, FOLDER_ATTACH_WHOLE) == 0)
        return 0;
    if (strncmp(last, FOLDER_ATTACH_FAILED, strlen(FOLDER_ATTACH_FAILED)) == 0)
        return err_set(e, ERR_SYSTEM, "domain %s: attaching its devices: %s", m->uuid,
            last + strlen(FOLDER_ATTACH_FAILED));
    return err_set(e, ERR_SYSTEM,
        "domain %s: attaching its devices was cut short: did xen-domain die?", m->uuid);
}

/* libxl builds a PV guest until the last byte of its stream: its devices come behind that. */
int xen_mig_settle(struct hv_mig *m, uint64_t deadline_ns, struct err *e)
{
    if (m->layout.stream)
        return 0;
    while (is_locked(m->attach_fd)) {
        if (clock_ns() >= deadline_ns)
            return err_set(e, ERR_TIMEOUT,
                "domain %s: attaching its interfaces and disks takes too long; see what Xen's "
                "scripts wrote to /var/log/xen/xen-hotplug.log",
                m->uuid);
        usleep(POLL_US);
    }
    return read_end(m, e);
}
