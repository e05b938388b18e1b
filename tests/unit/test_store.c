/* SPDX-License-Identifier: ISC */
/* The disk of a node: what was told as written is there, in order; torn and damaged files; a disk
 * that refuses; many records by one sync. */
#include <setjmp.h>
#include <stdarg.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "cluster/store.h"

static char dir[64], path[128], faults[128];
static uv_loop_t loop;
static struct store *store;
static uint64_t done;
static unsigned calls, troubles, recoveries;
static char said[500];

static void on_persisted(void *arg, uint64_t id)
{
    (void)arg;
    assert_true(id > done);
    done = id;
    calls++;
}

static void on_trouble(void *arg, const char *text)
{
    (void)arg;
    if (text == NULL) {
        recoveries++;
        return;
    }
    troubles++;
    snprintf(said, sizeof said, "%s", text);
}

/* Arms a point; only the first writer of a serial is taken notice of. */
static void arm(const char *what)
{
    static unsigned serial;
    char text[FAULT_TEXT] = "";
    int fd = open(faults, O_WRONLY);

    snprintf(text, sizeof text, "%u %s\n", ++serial, what);
    assert_int_equal(pwrite(fd, text, sizeof text, 0), sizeof text);
    close(fd);
}

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/test_store.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/log", dir);
    return 0;
}

static int remove_dir(void **state)
{
    char cmd[128];

    (void)state;
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd);
}

static int try_open(struct err *e)
{
    static const struct store_callbacks cb = { on_persisted, on_trouble };

    done = 0;
    calls = troubles = recoveries = 0;
    assert_int_equal(uv_loop_init(&loop), 0);
    return store_open(&loop, path, &cb, NULL, &store, e);
}

static void open_it(void)
{
    struct err e;

    if (try_open(&e) < 0)
        fail_msg("%s", e.text);
}

static void close_it(void)
{
    if (store != NULL)
        store_stop(store);
    uv_run(&loop, UV_RUN_DEFAULT);
    store_close(&store);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void put(uint64_t id, const char *text, bool whole)
{
    struct err e;

    if (store_put(store, id, (const uint8_t *)text, strlen(text), whole, &e) < 0)
        fail_msg("%s", e.text);
}

static void wait_for(uint64_t id)
{
    while (done < id)
        uv_run(&loop, UV_RUN_ONCE);
}

static void put_now(uint64_t id, const char *text, bool whole)
{
    put(id, text, whole);
    wait_for(id);
}

/* All records, with a blank behind each. */
static void has(const char *want)
{
    char got[4000] = "";
    size_t n;
    const struct ha_record *r = store_records(store, &n);

    assert_non_null(r);
    for (size_t i = 0; i < n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%.*s ", (int)r[i].len, r[i].bytes);
    assert_string_equal(got, want);
}

static uint8_t *file_bytes(size_t *len)
{
    struct err e;
    char *bytes = io_read_file(path, 1 << 24, len, &e);

    assert_non_null(bytes);
    return (uint8_t *)bytes;
}

static void write_file(const uint8_t *bytes, size_t len)
{
    struct err e;

    assert_int_equal(io_replace_file(path, bytes, len, 0600, &e), 0);
}

static size_t file_len(void)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return (size_t)st.st_size;
}

static void test_survives(void **state)
{
    (void)state;
    open_it();
    has("");
    put_now(1, "one", false);
    put_now(2, "two", false);
    put_now(3, "", false);
    has("one two  ");
    assert_true(store_idle(store));
    close_it();
    open_it();
    has("one two  ");
    put_now(1, "three", false); /* ids begin anew */
    close_it();
    open_it();
    has("one two  three ");
    close_it();
}

static void test_whole(void **state)
{
    size_t before;

    (void)state;
    open_it();
    for (uint64_t i = 1; i <= 100; i++)
        put_now(i, "a record that is replaced", false);
    before = file_len();
    put(101, "lost", false);
    put(102, "all", true);
    put(103, "more", false);
    has("all more ");
    wait_for(103);
    has("all more ");
    assert_true(file_len() < before / 10);
    put_now(104, "and more", false);
    close_it();
    open_it();
    has("all more and more ");
    close_it();
}

/* While the disk is at work the others wait, and are written by one sync. */
static void test_together(void **state)
{
    (void)state;
    open_it();
    put_now(1, "first", false);
    arm("ha-store-sync=sleep:200");
    for (uint64_t i = 2; i <= 101; i++) {
        put(i, "x", false);
        usleep(i == 2 ? 50000 : 0);
    }
    assert_false(store_idle(store));
    wait_for(101);
    assert_true(calls <= 4);
    close_it();
}

static void refused(const char *point, const char *text)
{
    open_it();
    put_now(1, "one", false);
    arm(point);
    put(2, "two", false);
    put(3, "three", false);
    while (troubles == 0)
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(done, 1);
    assert_non_null(strstr(said, text));
    put(4, "four", false);
    wait_for(4);
    assert_int_equal(recoveries, 1);
    assert_int_equal(troubles, 1);
    has("one two three four ");
    put_now(5, "five", false);
    close_it();
    open_it();
    has("one two three four five ");
    close_it();
    unlink(path);
}

static void test_disk_refuses(void **state)
{
    (void)state;
    refused("ha-store-write=error", "no space left");
    refused("ha-store-sync=error", "fsync of");
}

/* A file at every length: what is told is whole frames, and the next start goes on from there. */
static void test_torn(void **state)
{
    uint8_t *bytes;
    size_t len, first;

    (void)state;
    open_it();
    put_now(1, "one", false);
    first = file_len();
    put_now(2, "two", false);
    close_it();
    bytes = file_bytes(&len);
    for (size_t cut = first; cut < len; cut++) {
        write_file(bytes, cut);
        open_it();
        has("one ");
        put_now(1, "again", false);
        close_it();
        open_it();
        has("one again ");
        close_it();
    }
    free(bytes);
}

/* The size of a file may grow before what is in it. */
static void test_zeroes_at_the_end(void **state)
{
    uint8_t *bytes;
    size_t len;

    (void)state;
    open_it();
    put_now(1, "one", false);
    put_now(2, "two", false);
    close_it();
    bytes = file_bytes(&len);
    bytes = realloc(bytes, len + 5000);
    memset(bytes + len - 10, 0, 5010);
    write_file(bytes, len + 5000);
    open_it();
    has("one ");
    close_it();
    free(bytes);
}

static void is_damaged(const uint8_t *bytes, size_t len, const char *text)
{
    struct err e;

    write_file(bytes, len);
    assert_int_equal(try_open(&e), -1);
    assert_int_equal(e.code, ERR_INTEGRITY);
    if (strstr(e.text, text) == NULL || strstr(e.text, "move the file away") == NULL)
        fail_msg("%s", e.text);
    close_it();
}

static void test_damaged(void **state)
{
    uint8_t *bytes;
    size_t len, first;

    (void)state;
    open_it();
    put_now(1, "one", false);
    first = file_len();
    put_now(2, "two", false);
    put_now(3, "three", false);
    close_it();
    bytes = file_bytes(&len);
    for (size_t at = 8; at < first; at++) {
        bytes[at] ^= 0x40;
        is_damaged(bytes, len, "it is damaged at byte 16");
        bytes[at] ^= 0x40;
    }
    bytes[0] = 'X';
    is_damaged(bytes, len, "does not begin with");
    is_damaged(bytes, 0, "does not begin with");
    bytes[0] = 'M';
    is_damaged(bytes, 16, "it has no frame");
    is_damaged(bytes, first - 1, "it is damaged at byte 16");
    free(bytes);
}

/* A frame in the middle that is missing altogether. */
static void test_gap(void **state)
{
    uint8_t *bytes;
    size_t len, first, second;

    (void)state;
    open_it();
    put_now(1, "one", false);
    first = file_len();
    put_now(2, "two", false);
    second = file_len();
    put_now(3, "three", false);
    close_it();
    bytes = file_bytes(&len);
    memmove(bytes + first, bytes + second, len - second);
    is_damaged(bytes, len - (second - first), "it is damaged");
    free(bytes);
}

static void test_stop_writes_what_waits(void **state)
{
    (void)state;
    open_it();
    put(1, "one", false);
    put(2, "two", false);
    close_it();
    open_it();
    has("one two ");
    close_it();
}

static void test_limits(void **state)
{
    static const uint8_t byte;
    struct err e;

    (void)state;
    open_it();
    assert_int_equal(store_put(store, 1, &byte, STORE_RECORD_MAX + 1, false, &e), -1);
    assert_int_equal(e.code, ERR_RESOURCE);
    close_it();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_survives, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_whole, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_together, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_disk_refuses, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_torn, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_zeroes_at_the_end, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_damaged, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_gap, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_stop_writes_what_waits, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_limits, make_dir, remove_dir),
    };
    static const uint8_t zeroes[4096];
    struct err e;
    int failed;

    snprintf(faults, sizeof faults, "/tmp/test_store.faults.%d", (int)getpid());
    if (io_replace_file(faults, zeroes, sizeof zeroes, 0600, &e) < 0)
        return 1;
    setenv("MIGRD_FAULT_FILE", faults, 1);
    log_open("test_store", "/dev/null", &e);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(faults);
    return failed;
}
