/* SPDX-License-Identifier: ISC */
/*
 * libvirt's protocol. The first byte: bit 0, the connection is open; bit 1, the rest is a list of
 * frames in short form, else bytes as they are. A short frame: what it is, a procedure of the
 * table, a serial number, the length of its payload, the payload.
 *
 * Arguments of every procedure of the table are decoded; what can be decoded encodes to the very
 * same bytes. Procedures that only look are run as well, and those of streams, on a console whose
 * guest reads now and then. Whatever comes back is whole frames of the right program.
 */
#include "tests/unit/libvirt_host.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

#include "base/clock.h"
#include "base/log.h"

#define PROCS_MAX 512
#define PAYLOAD_UNIT 4

static struct host host;
static struct domain *guest;
static int procs[PROCS_MAX], n_procs;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int open_pty(void)
{
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    struct termios t;

    if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || tcgetattr(fd, &t) < 0)
        abort();
    cfmakeraw(&t);
    if (tcsetattr(fd, TCSANOW, &t) < 0)
        abort();
    return fd;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    host_up(&host);
    guest = registry_by_uuid(host.m.registry, HOST_UUID);
    for (int p = 1; p < PROCS_MAX; p++)
        if (lv_entry_of(p) != NULL)
            procs[n_procs++] = p;
    return log_open("fuzz", "/dev/null", NULL);
}

static void check_answers(void)
{
    static uint8_t in[4 << 20];
    ssize_t n = client_read(&host, in, sizeof in);
    struct lv_header h;
    size_t used = 0;

    while (n > 0 && lv_header_read(in + used, (size_t)n - used, &h, NULL) == 1) {
        if ((h.prog != LV_PROGRAM && h.prog != LV_PROGRAM_KEEPALIVE && h.type != LV_REPLY) ||
            h.status < LV_OK || h.status > (h.type == LV_STREAM ? LV_CONTINUE : LV_ERROR))
            abort();
        used += h.len;
    }
}

/* XDR is canonical but for what pads it and for booleans of rpcgen. */
static void check_arguments(int proc, const uint8_t *p, size_t n)
{
    const struct lv_entry *entry = lv_entry_of(proc);
    struct lv_header h = { .prog = LV_PROGRAM, .proc = proc };
    uint8_t *again, *thrice;
    struct err e;
    void *args;

    if (entry->in == NULL || (args = calloc(1, entry->in_size)) == NULL)
        return;
    if (lv_unpack(entry->in, p, n, args, &e) == 0) {
        again = lv_pack(&h, entry->in, args, &e);
        xdr_free(entry->in, args);
        memset(args, 0, entry->in_size);
        if (again == NULL || h.len != n + LV_HEADER_BYTES ||
            lv_unpack(entry->in, again + LV_HEADER_BYTES, n, args, &e) < 0)
            abort();
        thrice = lv_pack(&h, entry->in, args, &e);
        if (thrice == NULL || memcmp(again, thrice, h.len) != 0)
            abort();
        xdr_free(entry->in, args);
        free(thrice);
        free(again);
    }
    free(args);
}

static bool may_run(int proc)
{
    return (lv_entry_of(proc)->flags & LV_CHANGES) == 0 || proc == LV_DOMAIN_OPEN_CONSOLE;
}

static void send_frame(struct lv_header *h, const uint8_t *payload, size_t n)
{
    uint8_t *frame = lv_pack_raw(h, payload, n);

    if (frame == NULL)
        abort();
    guest->live = h->type == LV_CALL && h->proc == LV_DOMAIN_OPEN_CONSOLE;
    client_write(&host, frame, h->len);
    guest->live = false;
    free(frame);
    check_answers();
}

/* The guest reads, writes, hangs up; time passes. */
static void guest_acts(int *pty, uint8_t what)
{
    char bin[4096];

    if (what < 64) {
        if (read(*pty, bin, sizeof bin) < 0) {
        } /* nothing to read */
    } else if (what < 128) {
        if (write(*pty, "tick 1\r\n", 8) < 0) {
        } /* nobody reads */
    } else if (what < 160) {
        close(*pty);
        *pty = open_pty();
    } else if (host.lv.conns != NULL) {
        lv_conn_tick(host.lv.conns, clock_ns() + what % 16 * NS_PER_S);
    }
    host_turn(&host);
}

static void run_frames(const uint8_t *p, size_t left)
{
    static const int types[8] = { LV_CALL, LV_CALL, LV_CALL, LV_STREAM, LV_STREAM, LV_STREAM,
        LV_REPLY, LV_MESSAGE };
    static const int statuses[8] = { LV_OK, LV_OK, LV_OK, LV_CONTINUE, LV_OK, LV_ERROR, LV_OK,
        LV_OK };
    int pty = open_pty();

    snprintf(guest->info.console, sizeof guest->info.console, "%s", ptsname(pty));
    while (left >= 4 && host.lv.conns != NULL) {
        unsigned what = p[0];
        int proc = procs[p[1] % n_procs];
        struct lv_header h = { .prog = LV_PROGRAM,
            .vers = LV_VERSION,
            .proc = (what & 8) != 0 ? LV_DOMAIN_OPEN_CONSOLE : proc,
            .type = types[what & 7],
            .status = statuses[what & 7],
            .serial = p[2] & 3 };
        size_t n = (size_t)p[3] * PAYLOAD_UNIT;

        p += 4;
        left -= 4;
        if (n > left)
            n = left;
        if (what >= 128)
            guest_acts(&pty, (uint8_t)(what * 2));
        check_arguments(h.proc, p, n);
        if (h.type != LV_CALL || may_run(h.proc))
            send_frame(&h, p, n);
        p += n;
        left -= n;
    }
    close(pty);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    bool frames = len > 0 && (data[0] & 2) != 0;

    client_open(&host, !frames);
    host.lv.conns->opened = len > 0 && (data[0] & 1) != 0;
    if (frames)
        run_frames(data + 1, len - 1);
    else if (len > 0)
        client_write(&host, data + 1, len - 1);
    if (host.lv.conns != NULL)
        check_answers();
    client_close(&host);
    return 0;
}
