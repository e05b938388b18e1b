/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "tools/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <termios.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"

#define ESCAPE 0x1d /* ^] */
#define LINGER_NS NS_PER_S
#define LINGER_MOST_NS (5 * NS_PER_S) /* for a guest that never stops talking */

static struct termios saved;
static volatile sig_atomic_t ended;

static void on_signal(int sig)
{
    (void)sig;
    ended = 1;
}

/* The terminal must come back in any case: a signal ends the loop, not the process. */
static int make_raw(void)
{
    struct sigaction sa = { .sa_handler = on_signal };
    struct termios raw;

    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &saved) < 0)
        return 0;
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
    raw = saved;
    cfmakeraw(&raw);
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    return 1;
}

/* Input to the console: 1 go on, 0 the user leaves, -1 failed. *open is cleared at its end. */
static int send_input(int pty, int tty, bool *open, struct err *e)
{
    char buf[1024];
    ssize_t n = read(STDIN_FILENO, buf, sizeof buf);
    char *escape;

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 1;
    if (n <= 0) {
        *open = false;
        return tty ? 0 : 1;
    }
    escape = tty ? memchr(buf, ESCAPE, (size_t)n) : NULL;
    if (escape != NULL)
        n = escape - buf;
    if (io_write_full(pty, buf, (size_t)n, clock_ns() + 10 * NS_PER_S, e) < 0)
        return err_prefix(e, "console");
    return escape == NULL;
}

/* Output of the console: 1 go on, 0 it has closed, -1 failed. */
static int show_output(int pty, struct err *e)
{
    char buf[4096];
    ssize_t n = read(pty, buf, sizeof buf);

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 1;
    if (n <= 0)
        return 0; /* EIO: the domain's end of the pty is gone */
    if (io_write_full(STDOUT_FILENO, buf, (size_t)n, IO_FOREVER, e) < 0)
        return -1;
    return 1;
}

static int poll_ms(uint64_t until)
{
    uint64_t now = clock_ns();

    if (until == IO_FOREVER)
        return 1000;
    if (now >= until)
        return 0;
    return until - now > NS_PER_S ? 1000 : (int)((until - now) / NS_PER_MS) + 1;
}

static int join(int pty, int tty, uint64_t until, struct err *e)
{
    bool open = true, limited = until != IO_FOREVER;
    uint64_t closed_ns = 0; /* end of input */
    int go = 1;

    while (go == 1 && !ended && clock_ns() < until) {
        struct pollfd p[2] = { { .fd = pty, .events = POLLIN },
            { .fd = open ? STDIN_FILENO : -1, .events = POLLIN } };

        if (poll(p, 2, poll_ms(until)) < 0 && errno != EINTR)
            return err_sys(e, "poll");
        if (p[0].revents != 0)
            go = show_output(pty, e);
        if (go == 1 && p[1].revents != 0)
            go = send_input(pty, tty, &open, e);
        if (open || limited)
            continue;
        if (closed_ns == 0)
            closed_ns = clock_ns();
        if (until == IO_FOREVER || p[0].revents != 0) /* each answer earns another second */
            until = clock_ns() + LINGER_NS;
        if (until > closed_ns + LINGER_MOST_NS)
            until = closed_ns + LINGER_MOST_NS;
    }
    return go < 0 ? -1 : 0;
}

int console_attach(const char *pty, unsigned limit_s, struct err *e)
{
    uint64_t until = limit_s == 0 ? IO_FOREVER : clock_ns() + limit_s * NS_PER_S;
    int fd = open(pty, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), tty, rc;

    if (fd < 0)
        return err_sys(e, "console %s", pty);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
        close(fd);
        return err_set(e, ERR_EXISTS,
            "console %s is in use by xm console, migctl console or virsh console: leave it there "
            "with ^] first",
            pty);
    }
    ended = 0;
    if (isatty(STDIN_FILENO))
        fprintf(stderr, "Connected to the console; ^] leaves it.\n");
    tty = make_raw();
    rc = join(fd, tty, until, e);
    if (tty) {
        tcsetattr(STDIN_FILENO, TCSANOW, &saved);
        fprintf(stderr, "\n");
    }
    close(fd);
    return rc;
}
