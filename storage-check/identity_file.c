/* SPDX-License-Identifier: ISC */
/*
 * A disk that is a file of this host. What it is: the file system's uuid, by the device's
 * link in /dev/disk/by-uuid, else by statfs; the inode; for a network file system what
 * is mounted ("server:/export"). Names are those of the real file, behind symbolic links.
 *
 * Who else has it: QEMU locks bytes 100 to 299 of its images with OFD locks, others lock it
 * whole, or with flock(2), which only /proc/locks shows. migrd's own lease is in another file.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "storage-check/identity_internal.h"
#include "storage-check/image.h"

#define PROC_MAX (4u << 20) /* bytes of /proc/self/mountinfo or /proc/locks */
#define MOUNT_TEXT 256u

/* The file, behind symbolic links: its folder, open, and its name there. */
struct place {
    char real[PATH_MAX];
    const char *name;
    int folder;
};

/* --- what is mounted there --- */

struct mount {
    char type[64];
    char source[MOUNT_TEXT];
};

/* One line: "ID PARENT MAJ:MIN ROOT POINT OPTIONS [FIELDS...] - TYPE SOURCE OPTIONS". */
static bool mount_line(const char *line, const char *end, uint64_t id, struct mount *m)
{
    const char *rest = memmem(line, (size_t)(end - line), " - ", 3);
    char format[40];

    if (strtoull(line, NULL, 10) != id || rest == NULL)
        return false;
    snprintf(format, sizeof format, " - %%%zus %%%us", sizeof m->type - 1, MOUNT_TEXT - 1);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    return sscanf(rest, format, m->type, m->source) == 2;
#pragma GCC diagnostic pop
}

static void find_mount(const struct look *l, const char *path, struct mount *m)
{
    struct statx sx;
    char file[PATH_MAX];
    char *text;

    memset(m, 0, sizeof *m);
    snprintf(file, sizeof file, "%s/proc/self/mountinfo", l->root);
    if (statx(AT_FDCWD, path, 0, STATX_MNT_ID, &sx) < 0 || (sx.stx_mask & STATX_MNT_ID) == 0)
        return;
    text = io_read_file(file, PROC_MAX, NULL, NULL);
    for (const char *p = text; p != NULL && *p != '\0';) {
        const char *end = strchrnul(p, '\n');

        if (mount_line(p, end, sx.stx_mnt_id, m))
            break;
        p = *end != '\0' ? end + 1 : NULL;
    }
    free(text);
}

/* File systems that several hosts have mounted at once. */
static bool is_shared_type(const char *type)
{
    static const char *const types[] = { "nfs", "nfs4", "cifs", "smb3", "smb2", "gfs2", "ocfs2",
        "ceph", "lustre", "gpfs", "beegfs", "afs", "9p", "virtiofs", "orangefs", "pvfs2",
        "fuse.glusterfs", "fuse.sshfs", "fuse.ceph", "fuse.mfs", "fuse.juicefs" };

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(type, types[i]) == 0)
            return true;
    return false;
}

void look_fs_uuid(const struct look *l, dev_t dev, char *out, size_t size)
{
    char folder[PATH_MAX];
    struct dirent *de;
    struct stat st;
    DIR *d;

    out[0] = '\0';
    snprintf(folder, sizeof folder, "%s/dev/disk/by-uuid", l->root);
    d = opendir(folder);
    while (d != NULL && out[0] == '\0' && (de = readdir(d)) != NULL)
        if (fstatat(dirfd(d), de->d_name, &st, 0) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == dev)
            snprintf(out, size, "%s", de->d_name);
    if (d != NULL)
        closedir(d);
}

static void look_file_system(struct look *l, const char *path, const struct stat *st)
{
    struct statfs fs;
    struct statvfs v;
    struct mount m;
    char uuid[64];

    find_mount(l, path, &m);
    id_text(&l->out->path_kind, "%s", m.type);
    l->out->shared = is_shared_type(m.type);
    if (l->out->shared && m.source[0] != '\0')
        id_add(l->out, "mount-source", "%s", m.source);
    look_fs_uuid(l, st->st_dev, uuid, sizeof uuid);
    if (uuid[0] != '\0')
        id_add(l->out, "fs-uuid", "%s", uuid);
    if (statfs(path, &fs) == 0 && (fs.f_fsid.__val[0] != 0 || fs.f_fsid.__val[1] != 0))
        id_add(l->out, "fs-id", "%08x%08x", (unsigned)fs.f_fsid.__val[0],
            (unsigned)fs.f_fsid.__val[1]);
    l->out->read_only = statvfs(path, &v) == 0 && (v.f_flag & ST_RDONLY) != 0;
    id_add(l->out, "inode", "%ju", (uintmax_t)st->st_ino);
}

/* --- who else has it --- */

static void name_of_process(const struct look *l, long pid, char *out, size_t size)
{
    char comm[64];

    if (pid > 0 && look_read(l, comm, sizeof comm, "/proc/%ld/comm", pid))
        snprintf(out, size, "process %ld (%s)", pid, comm);
    else if (pid > 0)
        snprintf(out, size, "process %ld", pid);
    else
        snprintf(out, size, "another program");
}

static void look_locks(struct look *l, int fd)
{
    struct flock k = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    char who[128];

    if (fcntl(fd, F_OFD_GETLK, &k) < 0 || k.l_type == F_UNLCK)
        return;
    name_of_process(l, k.l_pid, who, sizeof who);
    if (k.l_start >= QEMU_LOCK_BASE && k.l_start < QEMU_LOCK_END && k.l_len == 1)
        id_text(&l->out->used_by, "%s that locks images as QEMU does", who);
    else
        id_text(&l->out->used_by, "%s with a lock on it", who);
}

/* "1: FLOCK  ADVISORY  WRITE 123 00:2d:4567 0 EOF" */
static void look_flocks(struct look *l, const struct stat *st)
{
    char file[PATH_MAX], want[64], who[128];
    char *text, *p;
    long pid = 0;

    snprintf(file, sizeof file, "%s/proc/locks", l->root);
    snprintf(want, sizeof want, " %02x:%02x:%ju ", major(st->st_dev), minor(st->st_dev),
        (uintmax_t)st->st_ino);
    text = io_read_file(file, PROC_MAX, NULL, NULL);
    for (p = text; p != NULL && (p = strstr(p, want)) != NULL; p++) {
        char *begin = p;

        while (begin > text && begin[-1] != '\n')
            begin--;
        if (sscanf(begin, "%*[0-9]: FLOCK %*s %*s %ld", &pid) == 1)
            break;
        pid = 0;
    }
    free(text);
    if (pid == 0 || l->out->used_by[0] != '\0')
        return;
    name_of_process(l, pid, who, sizeof who);
    id_text(&l->out->used_by, "%s with flock(2)", who);
}

/* --- the challenge --- */

static void leave_challenge(struct look *l, const struct place *at)
{
    char text[NONCE_LEN + 2];
    int fd;

    if (challenge_make(l, at->name, text) < 0)
        return;
    fd = openat(at->folder, l->out->challenge->name,
        O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    text[NONCE_LEN] = '\n';
    if (fd < 0 || write(fd, text, NONCE_LEN + 1) != NONCE_LEN + 1 || fsync(fd) < 0) {
        look_no_challenge(l, "no file can be left beside it: %s", strerror(errno));
        if (fd >= 0)
            unlinkat(at->folder, l->out->challenge->name, 0);
        migrd__challenge__free_unpacked(l->out->challenge, NULL);
        l->out->challenge = NULL;
    }
    if (fd >= 0)
        close(fd);
}

static void answer_challenge(struct look *l, const struct place *at)
{
    const char *name = challenge_theirs(l);
    char text[NONCE_LEN + 2] = "";
    struct stat st;
    ssize_t n = 0;
    int fd;

    if (name == NULL)
        return;
    fd = openat(at->folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT)
            look_no_challenge(l, "there is no %s beside %s", name, at->real);
        else
            look_no_challenge(l, "%s: %s", name, strerror(errno));
        return;
    }
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        n = read(fd, text, sizeof text - 1);
    close(fd);
    challenge_take(l, text, n > 0 ? (size_t)n : 0);
}

static void remove_stale(const struct place *at)
{
    int fd = openat(at->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct stat st;
    struct dirent *de;

    for (unsigned n = 0; d != NULL && n < CHALLENGE_SCAN_MAX && (de = readdir(d)) != NULL; n++)
        if (challenge_name_ok(de->d_name) &&
            fstatat(at->folder, de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
            st.st_mtime < time(NULL) - CHALLENGE_STALE_S)
            unlinkat(at->folder, de->d_name, 0);
    if (d != NULL)
        closedir(d);
    else if (fd >= 0)
        close(fd);
}

/* --- the look --- */

static void look_contents(struct look *l, const struct place *at, const struct stat *st)
{
    int fd = openat(at->folder, at->name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    uint8_t head[IMAGE_HEAD];
    ssize_t n;

    if (fd < 0) {
        look_fail(l, ERR_REFUSED, "%s: %s; migrd must be able to read it", l->disk->source,
            strerror(errno));
        return;
    }
    look_step(l, "reading the beginning of the file");
    n = pread(fd, head, sizeof head, 0);
    if (n < 0)
        look_fail(l, ERR_SYSTEM, "%s: %s", l->disk->source, strerror(errno));
    else
        look_head(l, head, (size_t)n);
    look_step(l, "asking for locks on the file");
    look_locks(l, fd);
    close(fd);
    look_flocks(l, st);
}

/* May it be written? Opens it for that, and writes nothing. */
static void look_writable(struct look *l, const struct place *at)
{
    int fd;

    if (l->disk->read_only || l->out->read_only || look_failed(l))
        return;
    look_step(l, "opening the file for writing");
    fd = openat(at->folder, at->name, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    else if (errno == EROFS)
        l->out->read_only = true;
    else if (errno != ETXTBSY)
        look_fail(l, ERR_REFUSED,
            "%s: it may not be written here: %s%s; see its owner and mode, or make the disk "
            "read only",
            l->disk->source, strerror(errno),
            l->out->shared ? " (does the server map root to another user, root squash?)" : "");
}

static void look_regular(struct look *l, const struct place *at, const struct stat *st)
{
    l->out->kind = MIGRD__STORAGE_KIND__STORAGE_FILE;
    l->out->size = (uint64_t)st->st_size;
    if (l->disk->wwn[0] != '\0')
        look_fail(l, ERR_INVALID,
            "%s is a file and has no WWN; correct its name, or take wwn= out of the definition",
            l->disk->source);
    look_step(l, "looking at the file system");
    look_file_system(l, at->real, st);
    look_contents(l, at, st);
    look_writable(l, at);
    look_step(l, "leaving or reading the challenge beside the file");
    answer_challenge(l, at);
    if (look_wants_challenge(l)) {
        leave_challenge(l, at);
        remove_stale(at);
    }
}

static void clean(struct look *l, const struct place *at)
{
    const char *name = challenge_theirs(l);

    if (name != NULL && unlinkat(at->folder, name, 0) < 0 && errno != ENOENT)
        look_fail(l, ERR_SYSTEM, "%s beside %s: %s", name, at->real, strerror(errno));
}

static int find_place(struct look *l, struct place *at)
{
    char folder[PATH_MAX];
    char *slash;

    if (realpath(l->disk->source, at->real) == NULL) {
        bool missing = errno == ENOENT || errno == ENOTDIR;

        look_fail(l, missing ? ERR_NOT_FOUND : ERR_SYSTEM, "%s: %s%s", l->disk->source,
            strerror(errno), missing ? "; mount what it lies on, or correct its name" : "");
        return -1;
    }
    slash = strrchr(at->real, '/');
    at->name = slash + 1;
    snprintf(
        folder, sizeof folder, "%.*s", slash == at->real ? 1 : (int)(slash - at->real), at->real);
    at->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (at->folder < 0)
        look_fail(l, ERR_SYSTEM, "%s: %s", folder, strerror(errno));
    return at->folder;
}

void look_file(struct look *l)
{
    struct place at;
    struct stat st;

    look_step(l, "looking for the file");
    if (l->what == MIGRD__STORAGE_REQUEST__WHAT__CLEAN && challenge_theirs(l) == NULL)
        return;
    if (l->disk->wwn[0] != '\0' && stat(l->disk->source, &st) < 0 && errno == ENOENT) {
        look_block(l, 0, false);
        return;
    }
    if (find_place(l, &at) < 0)
        return;
    if (fstatat(at.folder, at.name, &st, 0) < 0)
        look_fail(l, ERR_SYSTEM, "%s: %s", at.real, strerror(errno));
    else if (l->what == MIGRD__STORAGE_REQUEST__WHAT__CLEAN)
        clean(l, &at);
    else if (S_ISBLK(st.st_mode))
        look_block(l, st.st_rdev, true);
    else if (S_ISREG(st.st_mode))
        look_regular(l, &at, &st);
    else
        look_fail(l, ERR_INVALID, "%s is neither a file nor a block device", l->disk->source);
    close(at.folder);
}
