/* SPDX-License-Identifier: ISC */
/*
 * The serial console, driven as a guest does it: registers, interrupts, pty both ways,
 * log with rotation, a pty that nobody reads, and the move to another machine.
 */
#define _GNU_SOURCE
#include "tests/unit/fake_machine.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };

static uint8_t in(struct machine *m, unsigned reg)
{
    uint8_t v;

    m->dev[0]->ops->io_read(m->dev[0], reg, &v, 1);
    return v;
}

static void out(struct machine *m, unsigned reg, uint8_t v)
{
    m->dev[0]->ops->io_write(m->dev[0], reg, &v, 1);
}

static void print(struct machine *m, const char *text)
{
    while (*text != '\0')
        out(m, DATA, (uint8_t)*text++);
}

static struct machine *boot(bool start)
{
    struct machine *m = fake_new();
    struct err e;

    assert_int_equal(serial_create(m, &e), 0);
    assert_int_equal(m->dev[0]->base, 0x3f8);
    assert_int_equal(m->dev[0]->irq, 4);
    if (start)
        m->dev[0]->ops->start(m->dev[0]);
    return m;
}

static int open_console(const struct machine *m)
{
    char link[128];
    int fd;

    snprintf(link, sizeof link, "%s/console", m->dir);
    fd = open(link, O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static bool wait_for_input(struct machine *m)
{
    for (int i = 0; i < 2000; i++) {
        if ((in(m, LSR) & 1) != 0)
            return true;
        usleep(1000);
    }
    return false;
}

static void read_text(int fd, const char *want)
{
    char buf[256];
    size_t n = 0, len = strlen(want);

    while (n < len) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        ssize_t got;

        assert_int_equal(poll(&p, 1, 2000), 1);
        got = read(fd, buf + n, len - n);
        assert_true(got > 0);
        n += (size_t)got;
    }
    assert_memory_equal(buf, want, len);
}

static off_t log_size(const struct machine *m, const char *suffix)
{
    char path[128];
    struct stat st;

    snprintf(path, sizeof path, "%s/console-guest.log%s", m->dir, suffix);
    return stat(path, &st) < 0 ? -1 : st.st_size;
}

/* What the guest wrote here last, before it moved away in the middle of a line. */
static void test_log_begins_a_line(void **state)
{
    static const char *const before[] = { "", "half", "whole\n" };
    static const char *const after[] = { "tick\n", "half\ntick\n", "whole\ntick\n" };

    (void)state;
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        struct machine *m = fake_new();
        char path[128], text[64] = "";
        struct err e;
        int fd;

        snprintf(path, sizeof path, "%s/console-guest.log", m->dir);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(write(fd, before[i], strlen(before[i])), strlen(before[i]));
        assert_int_equal(serial_create(m, &e), 0);
        m->dev[0]->ops->start(m->dev[0]);
        print(m, "tick\n");
        m->dev[0]->ops->quiesce(m->dev[0]);
        assert_true(pread(fd, text, sizeof text - 1, 0) > 0);
        assert_string_equal(text, after[i]);
        close(fd);
        fake_free(&m);
    }
}

static void test_registers(void **state)
{
    struct machine *m = boot(true);

    (void)state;
    out(m, SCR, 0x5a);
    assert_int_equal(in(m, SCR), 0x5a);
    assert_int_equal(in(m, LSR), 0x60);
    assert_int_equal(in(m, MSR) & 0xf0, 0xb0);
    assert_int_equal(in(m, IIR), 0x01);
    out(m, LCR, 0x83);
    out(m, DATA, 0x01);
    out(m, IER, 0x02);
    assert_int_equal(in(m, DATA), 0x01);
    assert_int_equal(in(m, IER), 0x02);
    out(m, LCR, 0x03);
    assert_int_equal(in(m, IER), 0x00);
    out(m, IIR, 0x07); /* FIFO on */
    assert_int_equal(in(m, IIR), 0xc1);
    out(m, MCR, 0x1a); /* as Linux finds out whether there is a UART */
    assert_int_equal(in(m, MSR) & 0xf0, 0x90);
    out(m, DATA, 'x');
    assert_int_equal(in(m, DATA), 'x');
    out(m, MCR, 0x0b);
    assert_int_equal(in(m, LSR), 0x60);
    fake_free(&m);
}

/* The line goes up with a cause and down when it is gone; reading IIR takes THR-empty away, as
 * Linux's test for it wants. */
static void test_interrupts(void **state)
{
    struct machine *m = boot(true);

    (void)state;
    out(m, IER, 0x02);
    assert_true(fake_level(m, 4));
    assert_int_equal(in(m, IIR), 0x02);
    assert_false(fake_level(m, 4));
    assert_int_equal(in(m, IIR), 0x01);
    out(m, DATA, 'a');
    assert_true(fake_level(m, 4));
    out(m, IER, 0x00);
    assert_false(fake_level(m, 4));
    out(m, IER, 0x02);
    assert_true(fake_level(m, 4));
    out(m, IER, 0x01);
    assert_false(fake_level(m, 4));
    assert_int_equal(fake_edges(m, 4), 3);
    fake_free(&m);
}

static void test_output(void **state)
{
    struct machine *m = boot(true);
    int fd = open_console(m);

    (void)state;
    assert_string_not_equal(serial_pty(m), "");
    print(m, "hello\r\n");
    read_text(fd, "hello\r\n");
    m->dev[0]->ops->quiesce(m->dev[0]);
    assert_int_equal(log_size(m, ""), 7);
    close(fd);
    fake_free(&m);
}

static void test_input(void **state)
{
    struct machine *m = boot(true);
    int fd = open_console(m);

    (void)state;
    out(m, IER, 0x01);
    assert_int_equal(write(fd, "ls\n", 3), 3);
    assert_true(wait_for_input(m));
    assert_true(fake_level(m, 4));
    assert_int_equal(in(m, IIR) & 0x0f, 0x04);
    assert_int_equal(in(m, DATA), 'l');
    assert_int_equal(in(m, DATA), 's');
    assert_int_equal(in(m, DATA), '\n'); /* raw: no translation, no echo */
    assert_false(fake_level(m, 4));
    close(fd);

    fd = open_console(m); /* and again after a hang-up */
    assert_int_equal(write(fd, "x", 1), 1);
    assert_true(wait_for_input(m));
    assert_int_equal(in(m, DATA), 'x');
    close(fd);
    fake_free(&m);
}

/* More input than the card keeps stays in the pty, and all of it arrives in order. */
static void test_much_input(void **state)
{
    struct machine *m = boot(true);
    int fd = open_console(m);
    enum { TOTAL = 20000 };
    unsigned written = 0, got = 0;

    (void)state;
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    while (got < TOTAL) {
        while (written < TOTAL) {
            uint8_t byte = (uint8_t)(written % 251);

            if (write(fd, &byte, 1) != 1)
                break;
            written++;
        }
        if (!wait_for_input(m))
            fail_msg("no input after %u bytes of %u", got, written);
        assert_int_equal(in(m, DATA), got % 251);
        got++;
    }
    close(fd);
    fake_free(&m);
}

/* Somebody has the console open and does not read: the guest goes on, the log has it all. */
static void test_reader_that_sleeps(void **state)
{
    struct machine *m = boot(true);
    int fd = open_console(m);
    uint64_t begin = clock_ns();
    enum { TOTAL = 200000 };

    (void)state;
    for (int i = 0; i < TOTAL; i++)
        out(m, DATA, 'z');
    m->dev[0]->ops->quiesce(m->dev[0]);
    assert_true(clock_ns() - begin < 5 * NS_PER_S);
    assert_int_equal(log_size(m, ""), TOTAL);
    close(fd);
    fake_free(&m);
}

static void test_rotation(void **state)
{
    struct machine *m = boot(true);
    enum { TOTAL = (1 << 20) + 70000 };

    (void)state;
    for (int i = 0; i < TOTAL; i++)
        out(m, DATA, 'r');
    m->dev[0]->ops->quiesce(m->dev[0]);
    assert_true(log_size(m, ".1") > 0 && log_size(m, ".1") <= 1 << 20);
    assert_int_equal(log_size(m, "") + log_size(m, ".1"), TOTAL);
    fake_free(&m);
}

static void test_move(void **state)
{
    struct machine *a = boot(true), *b = boot(false);
    int fd = open_console(a), fd_b = open_console(b);
    struct err e;

    (void)state;
    out(a, LCR, 0x03);
    out(a, IER, 0x01);
    out(a, SCR, 0x77);
    assert_int_equal(write(fd, "typed", 5), 5);
    assert_true(wait_for_input(a));
    usleep(20000);
    assert_int_equal(in(a, DATA), 't');
    assert_int_equal(write(fd_b, "early", 5), 5); /* nothing is read before the start */
    assert_int_equal(fake_move(a, b, &e), 0);
    assert_int_equal(fake_edges(b, 4), 0);
    b->dev[0]->ops->start(b->dev[0]);
    assert_int_equal(fake_edges(b, 4), 1);
    for (const char *p = "ypedearly"; *p != '\0'; p++) {
        assert_true(wait_for_input(b));
        assert_int_equal(in(b, DATA), *p);
    }
    assert_int_equal(in(b, SCR), 0x77);
    assert_int_equal(in(b, IER), 0x01);
    close(fd);
    close(fd_b);
    fake_free(&a);
    fake_free(&b);
}

static void test_bad_state(void **state)
{
    struct machine *m = boot(false);
    struct state_writer w;
    struct state_blob *b;
    struct state_reader r;
    uint8_t regs[9] = { 0 }, *blob;
    size_t len;
    struct err e;

    (void)state;
    state_writer_init(&w);
    state_section_begin(&w, "serial0", 1);
    state_put(&w, regs, sizeof regs);
    state_put_u32(&w, 5000);
    state_section_end(&w);
    assert_int_equal(state_finish(&w, &blob, &len, &e), 0);
    assert_int_equal(state_parse(blob, len, &b, &e), 0);
    assert_int_equal(state_open(b, "serial0", &r, &e), 0);
    assert_int_equal(m->dev[0]->ops->load(m->dev[0], &r, &e), -1);
    assert_non_null(strstr(e.text, "serial0"));
    state_blob_free(&b);
    free(blob);
    fake_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registers),
        cmocka_unit_test(test_interrupts),
        cmocka_unit_test(test_output),
        cmocka_unit_test(test_log_begins_a_line),
        cmocka_unit_test(test_input),
        cmocka_unit_test(test_much_input),
        cmocka_unit_test(test_reader_that_sleeps),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_bad_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
