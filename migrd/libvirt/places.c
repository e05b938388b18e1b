/* SPDX-License-Identifier: ISC */
/*
 * Links to the two sockets at the places where a stock virsh looks, for each server that
 * libvirt-sockets names: /run/libvirt/NAME-sock and NAME-sock-ro. They are links, not
 * sockets: when migrd is gone they lead nowhere, and virsh looks on.
 *
 * A place is looked at once a second:
 *
 *   nothing there           a link is made
 *   our link                well
 *   a socket that answers   another server's, as libvirtd's: it keeps it, said once. Asked anew
 * only when it is another socket, or after a reload one that refuses        asked again a second
 * later, for a server between bind and listen; if it still refuses its server is dead, and a link
 * replaces it anything else           left alone, said once
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "migrd/libvirt/internal.h"

#define FOLDER "/run/libvirt"

/* --- one place --- */

static void settle(
    struct lv_place *p, enum lv_place_state state, const char *path, const char *text)
{
    if (p->state == state)
        return;
    p->state = state;
    if (state == LV_PLACE_OURS)
        log_info("libvirt", "virsh finds migrd at %s", path);
    else if (state != LV_PLACE_SILENT)
        log_warn("libvirt", "%s: %s; it is left alone (libvirt-sockets)", path, text);
}

static bool leads_to(const char *path, const char *target)
{
    char to[PATHS_LEN + 64];
    ssize_t n = readlink(path, to, sizeof to);

    return n > 0 && (size_t)n == strlen(target) && memcmp(to, target, (size_t)n) == 0;
}

/* The errno of a connect; 0: somebody answers. */
static int knock(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd, r, why;

    if (strlen(path) >= sizeof sa.sun_path)
        return ENAMETOOLONG;
    memcpy(sa.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    r = connect(fd, (struct sockaddr *)&sa, sizeof sa);
    why = r < 0 ? errno : 0;
    close(fd);
    return why == EAGAIN ? 0 : why;
}

static void make_link(struct lv_place *p, const char *path, const char *target)
{
    if (symlink(target, path) == 0)
        settle(p, LV_PLACE_OURS, path, "");
    else if (errno != EEXIST)
        settle(p, LV_PLACE_FAILED, path, strerror(errno));
}

static void look_at_socket(
    struct lv_place *p, const char *path, const char *target, const struct stat *st)
{
    bool known = p->inode == st->st_ino;
    int why;

    if (known && p->state == LV_PLACE_OTHERS)
        return;
    p->inode = st->st_ino;
    why = knock(path);
    if (why == 0)
        settle(p, LV_PLACE_OTHERS, path, "another server answers there");
    else if (why != ECONNREFUSED)
        settle(p, LV_PLACE_FAILED, path, strerror(why));
    else if (!known || p->state != LV_PLACE_SILENT)
        settle(p, LV_PLACE_SILENT, path, "");
    else if (unlink(path) == 0)
        make_link(p, path, target);
}

static void look(struct lv_place *p, const char *path, const char *target)
{
    struct stat st;

    if (lstat(path, &st) < 0) {
        if (errno == ENOENT)
            make_link(p, path, target);
        else
            settle(p, LV_PLACE_FAILED, path, strerror(errno));
    } else if (S_ISSOCK(st.st_mode)) {
        look_at_socket(p, path, target, &st);
    } else if (S_ISLNK(st.st_mode) && leads_to(path, target)) {
        settle(p, LV_PLACE_OURS, path, "");
    } else {
        settle(p, LV_PLACE_FAILED, path, "not a socket, nor a link of this migrd");
    }
}

/* --- all of them --- */

typedef void place_fn(struct lv_place *p, const char *path, const char *target);

static void drop(struct lv_place *p, const char *path, const char *target)
{
    if (leads_to(path, target))
        unlink(path);
    *p = (struct lv_place){ 0 };
}

/* The servers of the list one after the other, read-write and read-only. */
static void for_each(struct migrd *m, const char *list, place_fn *fn)
{
    char path[PATHS_LEN + 64], target[PATHS_LEN + 32];
    size_t n, i = 0;

    for (const char *w = list; i < LV_PLACES_MAX; w += n) {
        w += strspn(w, " ");
        n = strcspn(w, " ");
        if (n == 0)
            return;
        for (int ro = 0; ro < 2 && i < LV_PLACES_MAX; ro++, i++) {
            snprintf(path, sizeof path, "%s" FOLDER "/%.*s-sock%s", m->paths.root, (int)n, w,
                ro ? "-ro" : "");
            lv_socket_path(m, ro, target);
            fn(&m->libvirt->places[i], path, target);
        }
    }
}

static void make_folder(const struct migrd *m)
{
    char path[PATHS_LEN + 32];
    struct stat st;
    struct err e;

    snprintf(path, sizeof path, "%s" FOLDER, m->paths.root);
    if (stat(path, &st) == 0)
        return;
    if (io_make_dirs(path, 0755, &e) < 0)
        log_warn("libvirt", "%s (libvirt-sockets)", e.text);
    else if (chmod(path, 0755) < 0) /* whatever the umask */
        log_warn("libvirt", "%s: %s", path, strerror(errno));
}

void lv_places_look(struct migrd *m)
{
    for_each(m, m->config.libvirt_sockets, look);
}

void lv_places_start(struct migrd *m)
{
    if (m->config.libvirt_sockets[0] != '\0')
        make_folder(m);
    lv_places_look(m);
}

void lv_places_stop(struct migrd *m, const char *list)
{
    for_each(m, list, drop);
}
