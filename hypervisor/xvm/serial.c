/* SPDX-License-Identifier: ISC */
/*
 * serial: the 16550A UART of a domain (registers as in National Semiconductor's
 * PC16550D data sheet) at port 0x3f8, GSI 4, its pty and its log.
 *
 * Output: a vCPU puts bytes into `out`; the serial thread writes them to the log and,
 * if somebody has the pty open, to the pty. Nobody waits for the pty: what it does not
 * take is dropped. A vCPU that finds `out` full writes it to the log itself, so nothing
 * is lost there. The log is rotated to NAME.log.1 once it has LOG_LIMIT bytes. A guest that moves
 * away in the middle of a line ends that line in the other host's log; whoever writes here next
 * begins a new one.
 *
 * Input: the thread moves bytes from the pty into `rx` while there is room; the pty
 * keeps (and its writer waits for) the rest. `rx` is the receive FIFO and the wire
 * before it, so there is never an overrun. The pty is watched edge-triggered: while no
 * one has it open, it reports a hang-up all the time. Nothing is read while quiesced.
 *
 * Interrupt line: level of "some enabled cause is pending", given to the machine on
 * each change. Transmission takes no time, so THR-empty comes back after each write.
 *
 * State section "serial0" version 1: u8 ier fcr lcr mcr scr dll dlm thre_pending
 * msr_delta, u32 n, n bytes of unread input.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xvm/machine.h"
#include "hypervisor/xvm/state.h"

#define SERIAL_PORT 0x3f8
#define SERIAL_PORTS 8
#define SERIAL_GSI 4
#define SERIAL_STATE_VERSION 1
#define RX_MAX 4096u
#define FIFO_LEN 16u
#define OUT_MAX 16384u
#define LOG_LIMIT (1u << 20)
#define PATH_MAX_LEN 512

enum reg { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_RX 0x01
#define IER_THRE 0x02
#define IER_MSR 0x08
#define IIR_NONE 0x01
#define IIR_MSR 0x00
#define IIR_THRE 0x02
#define IIR_RX 0x04
#define IIR_FIFO 0xc0
#define FCR_ENABLE 0x01
#define FCR_CLEAR_RX 0x02
#define LCR_DLAB 0x80
#define MCR_LOOP 0x10
#define LSR_DATA 0x01
#define LSR_TX_EMPTY 0x60 /* holding register and transmitter */
#define MSR_DELTA 0x0f
#define MSR_READY 0xb0 /* carrier, data set ready, clear to send */

struct serial {
    struct device d;
    struct serial *next;

    pthread_mutex_t lock; /* protects the registers, rx, out, quiesced */
    uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
    uint8_t msr_delta;
    bool thre_pending, line, quiesced, loaded;
    uint8_t rx[RX_MAX];
    unsigned rx_at, rx_n;
    bool pty_may_have_more; /* the last pull stopped because rx was full */
    uint8_t out[OUT_MAX];
    unsigned out_n;

    pthread_mutex_t out_lock; /* taken before `lock`; protects the log */
    uint8_t spill[OUT_MAX];
    int log_fd;
    uint64_t log_bytes;
    bool log_failed;

    /* Set by serial_create, then read only. */
    int pty, epoll, wake;
    bool thread_runs;
    pthread_t thread;
    bool stop; /* atomic */
    char pty_path[64], link_path[PATH_MAX_LEN], log_path[PATH_MAX_LEN];
};

/* All of this process: one, but a test may hold two machines. Changed only by create and free. */
static struct serial *all_serials;

/* ---- log and pty ---- */

static void log_open_file(struct serial *s)
{
    struct stat st = { .st_size = 0 };
    char last;

    s->log_bytes = 0;
    s->log_fd = open(s->log_path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (s->log_fd < 0 || fstat(s->log_fd, &st) < 0 || st.st_size == 0)
        return;
    s->log_bytes = (uint64_t)st.st_size;
    if (pread(s->log_fd, &last, 1, st.st_size - 1) == 1 && last != '\n' &&
        write(s->log_fd, "\n", 1) == 1)
        s->log_bytes++;
}

/* One old file is kept; where it cannot be renamed (a read-only folder), the log starts over. */
static void log_rotate(struct serial *s)
{
    char old[PATH_MAX_LEN + 2];

    snprintf(old, sizeof old, "%s.1", s->log_path);
    if (rename(s->log_path, old) < 0) {
        if (ftruncate(s->log_fd, 0) == 0)
            s->log_bytes = 0;
        return;
    }
    io_close(&s->log_fd);
    log_open_file(s);
}

static void log_write(struct serial *s, const uint8_t *p, size_t n)
{
    if (s->log_fd >= 0 && s->log_bytes + n > LOG_LIMIT && s->log_bytes > 0)
        log_rotate(s);
    while (s->log_fd >= 0 && n > 0) {
        ssize_t w = write(s->log_fd, p, n);

        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            break;
        p += w;
        n -= (size_t)w;
        s->log_bytes += (uint64_t)w;
    }
    if (n > 0 && !s->log_failed)
        log_warn("xvm", "console log %s: %s; output is lost until it can be written", s->log_path,
            strerror(errno));
    s->log_failed = n > 0;
}

static void pty_write(const struct serial *s, const uint8_t *p, size_t n)
{
    struct pollfd pfd = { .fd = s->pty, .events = POLLOUT };

    if (poll(&pfd, 1, 0) != 1 || (pfd.revents & POLLHUP) != 0)
        return;
    while (n > 0) {
        ssize_t w = write(s->pty, p, n);

        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return;
        p += w;
        n -= (size_t)w;
    }
}

/* Takes everything out of `out` and writes it. Called without `lock`. */
static void flush_out(struct serial *s)
{
    unsigned n;

    pthread_mutex_lock(&s->out_lock);
    pthread_mutex_lock(&s->lock);
    n = s->out_n;
    memcpy(s->spill, s->out, n);
    s->out_n = 0;
    pthread_mutex_unlock(&s->lock);
    if (n > 0) {
        log_write(s, s->spill, n);
        pty_write(s, s->spill, n);
    }
    pthread_mutex_unlock(&s->out_lock);
}

/* ---- registers; all below are called with `lock` held ---- */

static uint8_t pending_cause(const struct serial *s)
{
    if ((s->ier & IER_RX) != 0 && s->rx_n > 0)
        return IIR_RX;
    if ((s->ier & IER_THRE) != 0 && s->thre_pending)
        return IIR_THRE;
    if ((s->ier & IER_MSR) != 0 && s->msr_delta != 0)
        return IIR_MSR;
    return IIR_NONE;
}

static void update_line(struct serial *s)
{
    bool on = pending_cause(s) != IIR_NONE;

    if (on == s->line)
        return;
    s->line = on;
    machine_irq(s->d.m, s->d.irq, on);
}

static void rx_push(struct serial *s, uint8_t byte)
{
    if (s->rx_n == RX_MAX)
        return;
    s->rx[(s->rx_at + s->rx_n) % RX_MAX] = byte;
    s->rx_n++;
}

static uint8_t rx_pop(struct serial *s)
{
    uint8_t byte;

    if (s->rx_n == 0)
        return 0;
    byte = s->rx[s->rx_at];
    s->rx_at = (s->rx_at + 1) % RX_MAX;
    s->rx_n--;
    return byte;
}

/* Reads what the pty has and rx can hold. */
static void pull_input(struct serial *s)
{
    uint8_t buf[256];

    s->pty_may_have_more = s->quiesced;
    while (!s->quiesced) {
        size_t room = RX_MAX - s->rx_n;
        ssize_t n;

        if (room == 0) {
            s->pty_may_have_more = true;
            break;
        }
        n = read(s->pty, buf, room < sizeof buf ? room : sizeof buf);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* EAGAIN, or EIO: nobody has the other end open */
        for (ssize_t i = 0; i < n; i++)
            rx_push(s, buf[i]);
    }
    update_line(s);
}

static uint8_t msr_now(const struct serial *s)
{
    if ((s->mcr & MCR_LOOP) == 0)
        return MSR_READY;
    /* Loop-back: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD. */
    return (uint8_t)((s->mcr & 0x02) << 3 | (s->mcr & 0x01) << 5 | (s->mcr & 0x04) << 4 |
                     (s->mcr & 0x08) << 4);
}

static uint8_t reg_read(struct serial *s, unsigned reg)
{
    uint8_t v;

    switch ((enum reg)reg) {
    case REG_DATA:
        if ((s->lcr & LCR_DLAB) != 0)
            return s->dll;
        v = rx_pop(s);
        if (s->pty_may_have_more)
            pull_input(s);
        return v;
    case REG_IER:
        return (s->lcr & LCR_DLAB) != 0 ? s->dlm : s->ier;
    case REG_IIR_FCR:
        v = pending_cause(s);
        if (v == IIR_THRE)
            s->thre_pending = false;
        return (uint8_t)(v | ((s->fcr & FCR_ENABLE) != 0 ? IIR_FIFO : 0));
    case REG_LCR:
        return s->lcr;
    case REG_MCR:
        return s->mcr;
    case REG_LSR:
        return (uint8_t)(LSR_TX_EMPTY | (s->rx_n > 0 ? LSR_DATA : 0));
    case REG_MSR:
        v = (uint8_t)(msr_now(s) | s->msr_delta);
        s->msr_delta = 0;
        return v;
    case REG_SCR:
        return s->scr;
    }
    return 0xff;
}

/* One byte of the guest's output; serial_io_write made room for it. */
static void transmit(struct serial *s, uint8_t byte)
{
    uint64_t one = 1;

    s->thre_pending = true;
    if ((s->mcr & MCR_LOOP) != 0) {
        rx_push(s, byte);
        return;
    }
    s->out[s->out_n++] = byte;
    if (s->out_n == 1 && write(s->wake, &one, sizeof one) < 0)
        log_debug("xvm", "serial0: cannot wake its thread: %s", strerror(errno));
}

static void mcr_write(struct serial *s, uint8_t v)
{
    uint8_t before = msr_now(s), after;

    s->mcr = v & 0x1f;
    after = msr_now(s);
    /* Delta bits of CTS, DSR, DCD on any change; of RI on its end. */
    s->msr_delta |= (uint8_t)((before ^ after) >> 4 & 0x0b);
    s->msr_delta |= (uint8_t)((before & ~after) >> 4 & 0x04);
}

static void clear_fifo(struct serial *s)
{
    for (unsigned i = 0; i < FIFO_LEN; i++)
        rx_pop(s);
    if (s->pty_may_have_more)
        pull_input(s);
}

static void reg_write(struct serial *s, unsigned reg, uint8_t v)
{
    switch ((enum reg)reg) {
    case REG_DATA:
        if ((s->lcr & LCR_DLAB) == 0)
            transmit(s, v);
        else
            s->dll = v;
        break;
    case REG_IER:
        if ((s->lcr & LCR_DLAB) != 0) {
            s->dlm = v;
            break;
        }
        if ((v & ~s->ier & IER_THRE) != 0)
            s->thre_pending = true; /* the holding register is empty at all times */
        s->ier = v & 0x0f;
        break;
    case REG_IIR_FCR:
        if (((v ^ s->fcr) & FCR_ENABLE) != 0 || (v & FCR_CLEAR_RX) != 0)
            clear_fifo(s);
        s->fcr = v & 0xc9;
        break;
    case REG_LCR:
        s->lcr = v;
        break;
    case REG_MCR:
        mcr_write(s, v);
        break;
    case REG_LSR:
    case REG_MSR:
        break; /* read only */
    case REG_SCR:
        s->scr = v;
        break;
    }
}

/* ---- device ---- */

static struct serial *serial_of(struct device *d)
{
    return (struct serial *)d;
}

static void serial_io_read(struct device *d, uint64_t offset, void *data, unsigned len)
{
    struct serial *s = serial_of(d);
    uint8_t *p = data;

    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; i < len; i++)
        p[i] = offset + i < SERIAL_PORTS ? reg_read(s, (unsigned)offset + i) : 0xff;
    update_line(s);
    pthread_mutex_unlock(&s->lock);
}

static void serial_io_write(struct device *d, uint64_t offset, const void *data, unsigned len)
{
    struct serial *s = serial_of(d);
    const uint8_t *p = data;

    pthread_mutex_lock(&s->lock);
    while (OUT_MAX - s->out_n < SERIAL_PORTS) {
        pthread_mutex_unlock(&s->lock);
        flush_out(s);
        pthread_mutex_lock(&s->lock);
    }
    for (unsigned i = 0; i < len && offset + i < SERIAL_PORTS; i++)
        reg_write(s, (unsigned)offset + i, p[i]);
    update_line(s);
    pthread_mutex_unlock(&s->lock);
}

static void serial_quiesce(struct device *d)
{
    struct serial *s = serial_of(d);

    pthread_mutex_lock(&s->lock);
    if (!s->quiesced)
        pull_input(s); /* what was typed so far goes with the domain */
    s->quiesced = true;
    pthread_mutex_unlock(&s->lock);
    flush_out(s);
}

static void serial_start(struct device *d)
{
    struct serial *s = serial_of(d);

    pthread_mutex_lock(&s->lock);
    s->quiesced = false;
    if (s->loaded) { /* down first: a cause that is pending makes a new edge */
        s->loaded = s->line = false;
        machine_irq(d->m, d->irq, false);
    }
    pull_input(s);
    pthread_mutex_unlock(&s->lock);
}

static int serial_save(struct device *d, struct state_writer *w, struct err *e)
{
    struct serial *s = serial_of(d);

    (void)e;
    pthread_mutex_lock(&s->lock);
    uint8_t regs[9] = { s->ier, s->fcr, s->lcr, s->mcr, s->scr, s->dll, s->dlm, s->thre_pending,
        s->msr_delta };

    state_section_begin(w, d->ops->name, SERIAL_STATE_VERSION);
    state_put(w, regs, sizeof regs);
    state_put_u32(w, s->rx_n);
    for (unsigned i = 0; i < s->rx_n; i++)
        state_put(w, &s->rx[(s->rx_at + i) % RX_MAX], 1);
    state_section_end(w);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int serial_load(struct device *d, struct state_reader *r, struct err *e)
{
    struct serial *s = serial_of(d);
    uint8_t regs[9], rx[RX_MAX];
    uint32_t n;

    if (r->version != SERIAL_STATE_VERSION)
        return err_set(e, ERR_UNSUPPORTED, "%s: state version %u, this release reads %u",
            d->ops->name, r->version, SERIAL_STATE_VERSION);
    if (state_get(r, regs, sizeof regs, e) < 0 || state_get_u32(r, &n, e) < 0)
        return -1;
    if (n > RX_MAX)
        return err_set(
            e, ERR_INVALID, "%s: %u bytes of input, at most %u", d->ops->name, n, RX_MAX);
    if (state_get(r, rx, n, e) < 0 || state_end(r, e) < 0)
        return -1;
    pthread_mutex_lock(&s->lock);
    s->ier = regs[0] & 0x0f;
    s->fcr = regs[1] & 0xc9;
    s->lcr = regs[2];
    s->mcr = regs[3] & 0x1f;
    s->scr = regs[4];
    s->dll = regs[5];
    s->dlm = regs[6];
    s->thre_pending = regs[7] != 0;
    s->msr_delta = regs[8] & MSR_DELTA;
    memcpy(s->rx, rx, n);
    s->rx_at = 0;
    s->rx_n = n;
    s->loaded = true;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

/* Registers as after power-on; what was typed and not read yet stays. Called with `lock`. */
static void power_on(struct serial *s)
{
    s->ier = s->fcr = s->lcr = s->mcr = s->scr = s->dlm = s->msr_delta = 0;
    s->dll = 12; /* 9600 */
    s->thre_pending = false;
    update_line(s);
}

static void serial_reset(struct device *d)
{
    struct serial *s = serial_of(d);

    pthread_mutex_lock(&s->lock);
    power_on(s);
    pthread_mutex_unlock(&s->lock);
}

static void *serial_thread(void *arg)
{
    struct serial *s = arg;

    while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
        struct epoll_event ev[2];
        int n = epoll_wait(s->epoll, ev, 2, -1);

        for (int i = 0; i < n; i++) {
            uint64_t count;

            if (ev[i].data.fd == s->wake && read(s->wake, &count, sizeof count) > 0)
                flush_out(s);
            if (ev[i].data.fd == s->pty) {
                pthread_mutex_lock(&s->lock);
                pull_input(s);
                pthread_mutex_unlock(&s->lock);
            }
        }
    }
    flush_out(s);
    return NULL;
}

static void serial_free(struct device *d)
{
    struct serial *s = serial_of(d);
    uint64_t one = 1;

    if (s->thread_runs) {
        __atomic_store_n(&s->stop, true, __ATOMIC_RELEASE);
        if (write(s->wake, &one, sizeof one) < 0)
            log_error("xvm", "serial0: cannot wake its thread: %s", strerror(errno));
        pthread_join(s->thread, NULL);
    }
    for (struct serial **p = &all_serials; *p != NULL; p = &(*p)->next)
        if (*p == s) {
            *p = s->next;
            break;
        }
    if (s->link_path[0] != '\0')
        unlink(s->link_path);
    io_close(&s->epoll);
    io_close(&s->wake);
    io_close(&s->pty);
    io_close(&s->log_fd);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->out_lock);
    free(s);
}

static const struct device_ops serial_ops = {
    .name = "serial0",
    .io_read = serial_io_read,
    .io_write = serial_io_write,
    .quiesce = serial_quiesce,
    .start = serial_start,
    .save = serial_save,
    .load = serial_load,
    .reset = serial_reset,
    .free = serial_free,
};

/* ---- creation ---- */

/* A raw, non-blocking pty. The slave is opened once to set its mode; as long as the master is open
 * the mode stays, whoever opens and closes the slave. */
static int open_pty(struct serial *s, struct err *e)
{
    struct termios t;
    int slave;

    s->pty = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (s->pty < 0)
        return err_sys(e, "console: no pseudo terminal (is /dev/pts mounted?)");
    if (grantpt(s->pty) < 0 || unlockpt(s->pty) < 0 ||
        ptsname_r(s->pty, s->pty_path, sizeof s->pty_path) != 0)
        return err_sys(e, "console: pseudo terminal");
    slave = open(s->pty_path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return err_sys(e, "console: %s", s->pty_path);
    if (tcgetattr(slave, &t) < 0) {
        close(slave);
        return err_sys(e, "console: %s", s->pty_path);
    }
    cfmakeraw(&t);
    tcsetattr(slave, TCSANOW, &t);
    close(slave);
    return 0;
}

static int set_paths(struct serial *s, struct err *e)
{
    const char *name = machine_def(s->d.m)->name;
    const char *run = machine_run_dir(s->d.m), *logs = machine_log_dir(s->d.m);

    if (strchr(name, '/') != NULL)
        return err_set(e, ERR_INVALID, "domain name %s contains a slash", name);
    if (snprintf(s->log_path, sizeof s->log_path, "%s/console-%s.log", logs, name) >= PATH_MAX_LEN)
        return err_set(e, ERR_INVALID, "console log of %s: the path is too long", name);
    if (snprintf(s->link_path, sizeof s->link_path, "%s/console", run) >= PATH_MAX_LEN) {
        s->link_path[0] = '\0';
        return err_set(e, ERR_INVALID, "console of %s: the path is too long", name);
    }
    return 0;
}

static int watch(struct serial *s, int fd, uint32_t events, struct err *e)
{
    struct epoll_event ev = { .events = events, .data.fd = fd };

    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
        return err_sys(e, "console: epoll");
    return 0;
}

static int open_all(struct serial *s, struct err *e)
{
    if (set_paths(s, e) < 0 || open_pty(s, e) < 0)
        return -1;
    unlink(s->link_path);
    if (symlink(s->pty_path, s->link_path) < 0)
        return err_sys(e, "console link %s", s->link_path);
    log_open_file(s);
    if (s->log_fd < 0)
        return err_sys(e, "console log %s", s->log_path);
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->epoll < 0 || s->wake < 0)
        return err_sys(e, "console: epoll");
    if (watch(s, s->pty, EPOLLIN | EPOLLET, e) < 0 || watch(s, s->wake, EPOLLIN, e) < 0)
        return -1;
    return 0;
}

int serial_create(struct machine *m, struct err *e)
{
    struct serial *s = calloc(1, sizeof *s);

    if (s == NULL)
        return err_set(e, ERR_MEMORY, "serial0: out of memory");
    s->d = (struct device){ .ops = &serial_ops,
        .m = m,
        .pio = true,
        .base = SERIAL_PORT,
        .len = SERIAL_PORTS,
        .irq = SERIAL_GSI };
    s->log_fd = s->pty = s->epoll = s->wake = -1;
    s->quiesced = true;
    s->dll = 12;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->out_lock, NULL);
    if (open_all(s, e) < 0)
        goto fail;
    if (pthread_create(&s->thread, NULL, serial_thread, s) != 0) {
        err_set(e, ERR_RESOURCE, "serial0: no thread");
        goto fail;
    }
    s->thread_runs = true;
    if (machine_add_device(m, &s->d, e) < 0)
        goto fail;
    s->next = all_serials;
    all_serials = s;
    return 0;

fail:
    serial_free(&s->d);
    return -1;
}

const char *serial_pty(const struct machine *m)
{
    for (const struct serial *s = all_serials; s != NULL; s = s->next)
        if (s->d.m == m)
            return s->pty_path;
    return "";
}
