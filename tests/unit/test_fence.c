/* SPDX-License-Identifier: ISC */
/* fence.conf, and power-off with agents of a few lines of shell: good, slow, hanging, lying ones.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "cluster/fence.h"
#include "cluster/fence_conf.h"

/* Each keeps what it was told in LOG, "on" or "off" in STATE. The action decides. */
#define HEAD                                                                                       \
    "#!/bin/sh\n"                                                                                  \
    "while read -r l; do echo \"$l\" >>\"$0.log\"; case $l in action=*) a=${l#action=} ;; "        \
    "plug=*) p=${l#plug=} ;; esac; done\n"

struct lab {
    char dir[64], conf[100];
    uv_loop_t loop;
    struct fence *f;
    unsigned calls;
    bool ok;
    char text[2000];
};

static int setup(void **state)
{
    struct lab *l = calloc(1, sizeof *l);

    assert_non_null(l);
    signal(SIGPIPE, SIG_IGN);
    snprintf(l->dir, sizeof l->dir, "/tmp/migrd-test-XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    snprintf(l->conf, sizeof l->conf, "%s/fence.conf", l->dir);
    uv_loop_init(&l->loop);
    *state = l;
    return 0;
}

static int teardown(void **state)
{
    struct lab *l = *state;
    struct dirent *x;
    DIR *d;

    if (l->f != NULL)
        fence_stop(l->f);
    uv_run(&l->loop, UV_RUN_DEFAULT);
    fence_close(&l->f);
    assert_int_equal(uv_loop_close(&l->loop), 0);
    d = opendir(l->dir);
    while ((x = readdir(d)) != NULL)
        if (x->d_name[0] != '.')
            unlinkat(dirfd(d), x->d_name, 0);
    closedir(d);
    rmdir(l->dir);
    free(l);
    return 0;
}

static void put(struct lab *l, const char *name, mode_t mode, const char *text)
{
    char path[200];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", l->dir, name);
    f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, mode), 0);
}

static void agent(struct lab *l, const char *name, const char *body)
{
    char text[2000];

    snprintf(text, sizeof text, HEAD "%s", body);
    put(l, name, 0755, text);
}

/* A device for each agent; `nodes` as it stands. */
static void configure(struct lab *l, const char *const *names, const char *nodes)
{
    char text[4000] = "";
    struct err e;

    for (; *names != NULL; names++)
        snprintf(text + strlen(text), sizeof text - strlen(text),
            "[device %s]\nagent = %s/%s\noption.ip = 10.0.0.1\ntimeout = 1\nconfirm = 1\n", *names,
            l->dir, *names);
    strcat(text, nodes);
    put(l, "fence.conf", 0600, text);
    assert_int_equal(fence_open(&l->loop, l->conf, &l->f, &e), 0);
}

static void on_done(void *arg, bool ok, const char *text)
{
    struct lab *l = arg;

    l->calls++;
    l->ok = ok;
    snprintf(l->text, sizeof l->text, "%s", text);
}

static void off(struct lab *l, const char *node)
{
    struct err e;

    assert_int_equal(fence_node(l->f, node, on_done, l, &e), 0);
    assert_int_equal(fence_node(l->f, node, on_done, l, &e), -1);
    assert_int_equal(e.code, ERR_STATE);
    uv_run(&l->loop, UV_RUN_DEFAULT);
    assert_int_equal(l->calls, 1);
    l->calls = 0;
}

static void has(const struct lab *l, const char *text)
{
    if (strstr(l->text, text) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", text, l->text);
}

#define GOOD                                                                                       \
    "case $a in off) touch \"$0.off\" ;; status) [ -e \"$0.off\" ] && exit 2; exit 0 ;; esac\n"

static void test_off(void **state)
{
    static const char *const names[] = { "good", NULL };
    struct lab *l = *state;
    char path[200], *log;

    agent(l, "good", "echo \"Success: plug $p\"\n" GOOD);
    configure(l, names, "[node a]\nlevel1 = good:7\n");
    assert_true(fence_knows(l->f, "a"));
    assert_false(fence_knows(l->f, "b"));
    off(l, "a");
    assert_true(l->ok);
    has(l, "node a is off, confirmed");
    has(l, "level 1, good: off, and says so");
    snprintf(path, sizeof path, "%s/good.log", l->dir);
    log = io_read_file(path, 4096, NULL, NULL);
    assert_string_equal(
        log, "action=off\nip=10.0.0.1\nplug=7\naction=status\nip=10.0.0.1\nplug=7\n");
    free(log);
}

/* Two devices of a level at once; the second level if one of them fails. */
static void test_levels(void **state)
{
    static const char *const names[] = { "left", "right", "bad", NULL };
    struct lab *l = *state;
    uint64_t began;

    agent(l, "left", "sleep 0.3\n" GOOD);
    agent(l, "right", "sleep 0.3\n" GOOD);
    agent(l, "bad", "echo 'Failed: Unable to connect/login to fencing device' >&2; exit 1\n");
    configure(l, names,
        "[node a]\nlevel1 = left right\n[node b]\nlevel1 = left bad\nlevel3 = right\n"
        "[node c]\nlevel1 = bad\n");
    began = clock_ns();
    off(l, "a");
    assert_true(l->ok);
    assert_true(clock_ns() - began < 5 * NS_PER_S);
    off(l, "b");
    assert_true(l->ok);
    has(l, "level 1, bad: off: exit status 1: Failed: Unable to connect/login");
    has(l, "level 3, right: off, and says so");
    off(l, "c");
    assert_false(l->ok);
    has(l, "is not known to be off");
    assert_int_equal(fence_longest_ms(l->f, "c"), 8000);
    assert_int_equal(fence_longest_ms(l->f, "x"), 0);
}

/* Says that it has done it, and that the node is on. Another does not say anything of use. */
static void test_liars(void **state)
{
    static const char *const names[] = { "liar", "mute", NULL };
    struct lab *l = *state;

    agent(l, "liar", "exit 0\n");
    agent(l, "mute", "[ $a = off ] && exit 0; exit 1\n");
    configure(l, names, "[node a]\nlevel1 = liar\nlevel2 = mute\n");
    off(l, "a");
    assert_false(l->ok);
    has(l, "liar: off was done, but after 1 s it still says that it is on");
    has(l, "mute: off was done, but it does not say so: status: exit status 1");
}

/* A slow device says "off" later. */
static void test_confirmed_late(void **state)
{
    static const char *const names[] = { "late", NULL };
    struct lab *l = *state;

    agent(l, "late",
        "[ $a = off ] && exit 0\n[ -e \"$0.once\" ] && exit 2\ntouch \"$0.once\"\nexit 0\n");
    configure(l, names, "[node a]\nlevel1 = late\n");
    off(l, "a");
    assert_true(l->ok);
}

static bool lives(struct lab *l, const char *name)
{
    char path[200], *text;
    int pid;

    snprintf(path, sizeof path, "%s/%s", l->dir, name);
    text = io_read_file(path, 100, NULL, NULL);
    assert_non_null(text);
    pid = atoi(text);
    free(text);
    for (int i = 0; i < 200 && kill(pid, 0) == 0; i++)
        usleep(10000); /* killed, to be waited for by init */
    return kill(pid, 0) == 0;
}

/* The whole group goes, with whom the agent has started; TERM does not help them. */
static void test_hangs(void **state)
{
    static const char *const names[] = { "hangs", "left", NULL };
    struct lab *l = *state;

    agent(l, "hangs", "trap '' TERM\nsleep 100 &\necho $! >\"$0.pid\"\nwait\n");
    /* it ends, and leaves somebody behind who holds its output */
    agent(l, "left", "[ $a = status ] && exit 2\nsleep 100 &\necho $! >\"$0.pid\"\nexit 0\n");
    configure(l, names, "[node a]\nlevel1 = hangs\n[node b]\nlevel1 = left\n");
    off(l, "a");
    assert_false(l->ok);
    has(l, "no answer within 1 s, killed");
    assert_false(lives(l, "hangs.pid"));
    off(l, "b");
    assert_true(l->ok);
    assert_false(lives(l, "left.pid"));
}

static void test_chatty(void **state)
{
    static const char *const names[] = { "chatty", "deaf", NULL };
    struct lab *l = *state;

    agent(l, "chatty", "head -c 300000 /dev/zero | tr '\\0' x\n" GOOD);
    put(l, "deaf", 0755, "#!/bin/sh\nexec 0<&-\nprintf 'a\\001b\\n\\n'\nexit 7\n");
    configure(l, names, "[node a]\nlevel1 = chatty\n[node b]\nlevel1 = deaf\n");
    off(l, "a");
    assert_true(l->ok);
    off(l, "b");
    assert_false(l->ok);
    has(l, "exit status 7: a b");
}

static void test_check(void **state)
{
    static const char *const names[] = { "good", "bad", NULL };
    struct lab *l = *state;
    struct err e;

    agent(l, "good", GOOD);
    agent(l, "bad", "echo no such host; exit 1\n");
    configure(l, names,
        "[node a]\nlevel1 = good\n[node b]\nlevel1 = good\nlevel2 = bad\n"
        "[device gone]\nagent = /nonexistent/agent\n[node c]\nlevel1 = gone\n");
    assert_int_equal(fence_check(l->f, "a", on_done, l, &e), 0);
    uv_run(&l->loop, UV_RUN_DEFAULT);
    assert_true(l->ok);
    has(l, "good: says that it is on");
    assert_int_equal(fence_check(l->f, "b", on_done, l, &e), 0);
    uv_run(&l->loop, UV_RUN_DEFAULT);
    assert_false(l->ok);
    has(l, "bad: does not answer: exit status 1: no such host");
    assert_int_equal(fence_check(l->f, "c", on_done, l, &e), 0);
    uv_run(&l->loop, UV_RUN_DEFAULT);
    assert_false(l->ok);
    has(l, "no such file");
    assert_int_equal(fence_check(l->f, "d", on_done, l, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(l->calls, 3);
}

/* A stock agent; its state is a file. */
static void test_stock_agent(void **state)
{
    struct lab *l = *state;
    char text[400];
    struct err e;

    if (access("/usr/sbin/fence_dummy", X_OK) < 0) {
        print_message("skipped: no fence_dummy; install fence-agents\n");
        skip();
    }
    snprintf(text, sizeof text,
        "[device dummy]\nagent = fence_dummy\noption.status_file = %s/state\ntimeout = 30\n"
        "[node a]\nlevel1 = dummy\n",
        l->dir);
    put(l, "fence.conf", 0600, text);
    put(l, "state", 0600, "on");
    assert_int_equal(fence_open(&l->loop, l->conf, &l->f, &e), 0);
    assert_int_equal(fence_check(l->f, "a", on_done, l, &e), 0);
    uv_run(&l->loop, UV_RUN_DEFAULT);
    has(l, "dummy: says that it is on");
    l->calls = 0;
    off(l, "a");
    assert_true(l->ok);
}

/* The daemon ends while an agent runs: no word any more, nobody left behind. */
static void test_stop(void **state)
{
    static const char *const names[] = { "hangs", NULL };
    struct lab *l = *state;
    char path[200];
    struct err e;

    agent(l, "hangs", "echo $$ >\"$0.pid\"\nsleep 100\n");
    configure(l, names, "[node a]\nlevel1 = hangs hangs\n");
    assert_int_equal(fence_node(l->f, "a", on_done, l, &e), 0);
    snprintf(path, sizeof path, "%s/hangs.pid", l->dir);
    for (int i = 0; i < 500 && access(path, F_OK) < 0; i++) {
        uv_run(&l->loop, UV_RUN_NOWAIT);
        usleep(2000);
    }
    fence_stop(l->f);
    uv_run(&l->loop, UV_RUN_DEFAULT);
    assert_int_equal(l->calls, 0);
}

/* ---- the file ---- */

static void refused(const char *text, const char *why)
{
    struct err e = { .text = "" };

    assert_null(fence_conf_parse(text, strlen(text), "fence.conf", false, &e));
    if (strstr(e.text, why) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", why, e.text);
}

static void test_file(void **state)
{
    char text[400], longer[300];
    struct fence_conf *c;
    struct err e;

    (void)state;
    snprintf(text, sizeof text,
        "# power\n[node a]\nlevel1 = x:1 y\nlevel2 = y\n[device x]\nagent = fence_apc\n"
        "option.username = root\ntimeout = 40\n[device y]\nagent = /opt/agent\n");
    c = fence_conf_parse(text, strlen(text), "fence.conf", true, &e);
    assert_non_null(c);
    assert_int_equal(c->n_devices, 2);
    assert_string_equal(c->device[0].agent, "/usr/sbin/fence_apc");
    assert_string_equal(c->device[0].input, "username=root\n");
    assert_int_equal(c->device[0].timeout_s, 40);
    assert_int_equal(c->target[0].level[0].n, 2);
    assert_string_equal(c->target[0].level[0].use[0].plug, "1");
    assert_int_equal(c->target[0].level[1].use[0].device, 1);
    free(c);
    refused("[node a]\nlevel1 = x\n", "no [device x]");
    refused("[node a]\n[device x]\nagent = y\nlevels = 1\n", "fence.conf:4: device x: levels");
    refused("[node a]\nlevel9 = x\n", "level1 to level8");
    refused("[device x]\ntimeout = 0\n", "1 to 300");
    refused("[device x]\ntimeout = 5\n", "has no agent");
    refused("[device x]\nagent = y\noption.action = on\n", "migrd gives that itself");
    refused("[device x]\nagent = y/z\n", "a name, or an absolute path");
    refused("[device x y]\nagent = y\n", "names have");
    refused("[node a]\nlevel1 =\n", "has no device");
    refused("[fence]\na = b\n", "[fence]: not known");
    refused("level1 = x\n", "not known");
    refused("no equals sign\n", "fence.conf:1: neither");
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    snprintf(text, sizeof text, "[device x]\nagent = %s\n", longer);
    refused(text, "fence.conf:2: longer than");
    snprintf(text, sizeof text, "[device %.45s]\nagent = y\n", longer);
    refused(text, "names have");
}

static void test_passwords(void **state)
{
    struct lab *l = *state;
    char text[400];
    struct err e;

    put(l, "secret", 0600, "top secret=1\n");
    snprintf(text, sizeof text, "[device x]\nagent = y\npassword-file = %s/secret\n", l->dir);
    put(l, "fence.conf", 0600, text);
    assert_int_equal(fence_open(&l->loop, l->conf, &l->f, &e), 0);
    fence_close(&l->f);
    put(l, "secret", 0644, "top secret=1\n");
    assert_int_equal(fence_open(&l->loop, l->conf, &l->f, &e), -1);
    assert_non_null(strstr(e.text, "fence.conf:3: password-file"));
    assert_non_null(strstr(e.text, "mode 0600"));
    assert_null(strstr(e.text, "top secret"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test_setup_teardown(test_passwords, setup, teardown),
        cmocka_unit_test_setup_teardown(test_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_levels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_liars, setup, teardown),
        cmocka_unit_test_setup_teardown(test_confirmed_late, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hangs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chatty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_check, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stock_agent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
