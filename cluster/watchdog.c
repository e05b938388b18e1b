/* SPDX-License-Identifier: ISC */
/*
 * A timer pets the device each fifth of its time, as long as the clock is before the deadline that
 * the core has given. The core gives a new one with each step in which nothing speaks against it,
 * so a loop that turns without the core being well does not pet.
 *
 * Closing: the driver takes a 'V' written just before the close as the wish to be switched off
 * (Linux: magic close); a driver that was loaded with nowayout ignores that, and the host is reset
 * when its time is over: the log says so.
 */
#define _GNU_SOURCE
#include "cluster/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"

#define PETS 5u /* within the device's time */
#define TIME_MIN_MS 1000u
#define TIME_MAX_MS 600000u

struct watchdog {
    uv_timer_t timer;
    int fd;
    bool device; /* it knows ioctls */
    bool failed; /* the last write was not taken: said once */
    unsigned time_ms;
    uint64_t deadline_ms, petted_ms;
    char path[256];
};

static void pet(struct watchdog *w)
{
    uint64_t now = clock_boot_ms();
    bool ok;

    if (now >= w->deadline_ms)
        return;
    ok = write(w->fd, "\n", 1) == 1;
    if (ok)
        w->petted_ms = now;
    if (!ok && !w->failed)
        log_error("watchdog", "%s: cannot be petted: %s; it resets this host in %u ms", w->path,
            strerror(errno), w->time_ms);
    w->failed = !ok;
}

static void on_timer(uv_timer_t *t)
{
    pet(t->data);
}

static int set_time(struct watchdog *w, struct err *e)
{
    int s = (int)((w->time_ms + 999) / 1000), got = s;

    if (ioctl(w->fd, WDIOC_SETTIMEOUT, &got) < 0)
        return err_sys(e, "%s: a time of %d s", w->path, s);
    if (got < s)
        return err_set(e, ERR_UNSUPPORTED,
            "%s: has %d s at most, watchdog-timeout is %u ms: set that to no more", w->path, got,
            w->time_ms);
    w->time_ms = (unsigned)got * 1000;
    return 0;
}

/* Armed from here on. */
static int open_device(struct watchdog *w, struct err *e)
{
    struct watchdog_info info;
    struct stat st;

    w->fd = open(w->path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (w->fd < 0)
        return err_set(e, errno == EBUSY ? ERR_EXISTS : ERR_SYSTEM, "%s: %s%s", w->path,
            strerror(errno),
            errno == EBUSY ? "; another program has it: end that one, or leave out watchdog-device"
                           : "");
    if (fstat(w->fd, &st) < 0)
        return err_sys(e, "%s", w->path);
    w->device = S_ISCHR(st.st_mode);
    if (!w->device)
        return 0;
    if (ioctl(w->fd, WDIOC_GETSUPPORT, &info) < 0)
        return err_set(e, ERR_INVALID, "%s: is no watchdog: %s", w->path, strerror(errno));
    log_info("watchdog", "%s: %.32s", w->path, (const char *)info.identity);
    if ((info.options & WDIOF_MAGICCLOSE) == 0)
        log_warn("watchdog",
            "%s: cannot be switched off again: this host is reset when migrd has ended", w->path);
    return set_time(w, e);
}

static void disarm(struct watchdog *w)
{
    if (w->fd >= 0 && write(w->fd, "V", 1) != 1)
        log_error("watchdog", "%s: cannot be switched off: %s; it resets this host in %u ms",
            w->path, strerror(errno), w->time_ms);
}

int watchdog_open(
    uv_loop_t *loop, const char *path, unsigned timeout_ms, struct watchdog **out, struct err *e)
{
    struct watchdog *w;

    *out = NULL;
    if (timeout_ms < TIME_MIN_MS || timeout_ms > TIME_MAX_MS || strlen(path) >= sizeof w->path)
        return err_set(e, ERR_INVALID, "watchdog %.200s: a time of %u ms; %u to %u", path,
            timeout_ms, TIME_MIN_MS, TIME_MAX_MS);
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    snprintf(w->path, sizeof w->path, "%s", path);
    w->time_ms = timeout_ms;
    if (open_device(w, e) < 0) {
        disarm(w);
        io_close(&w->fd);
        free(w);
        return -1;
    }
    uv_update_time(loop);
    uv_timer_init(loop, &w->timer);
    w->timer.data = w;
    watchdog_allow(w, clock_boot_ms() + w->time_ms);
    uv_timer_start(&w->timer, on_timer, w->time_ms / PETS, w->time_ms / PETS);
    log_info("watchdog", "%s: resets this host if it is not petted for %u ms", w->path, w->time_ms);
    *out = w;
    return 0;
}

void watchdog_allow(struct watchdog *w, uint64_t deadline_ms)
{
    bool first = w->petted_ms == 0;

    w->deadline_ms = deadline_ms;
    if (first || clock_boot_ms() - w->petted_ms >= w->time_ms / PETS)
        pet(w);
}

bool watchdog_fed(const struct watchdog *w)
{
    return w->petted_ms != 0 && clock_boot_ms() - w->petted_ms < w->time_ms;
}

unsigned watchdog_time_ms(const struct watchdog *w)
{
    return w->time_ms;
}

static void on_closed(uv_handle_t *h)
{
    free(h->data);
}

void watchdog_close(struct watchdog **wp, bool off)
{
    struct watchdog *w = *wp;

    if (w == NULL)
        return;
    *wp = NULL;
    if (off)
        disarm(w);
    else
        log_warn("watchdog", "%s: is left armed: this host is reset in %u ms", w->path, w->time_ms);
    io_close(&w->fd);
    uv_close((uv_handle_t *)&w->timer, on_closed);
}
