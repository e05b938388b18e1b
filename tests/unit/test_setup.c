/* SPDX-License-Identifier: ISC */
/* The texts for corosync: written, read back, refused; and that corosync itself takes them. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/io.h"
#include "cluster/setup.h"

static struct err e;

static void make(struct setup *s, unsigned token, const char *const *nodes)
{
    memset(s, 0, sizeof *s);
    snprintf(s->name, sizeof s->name, "office");
    s->token = token;
    for (; *nodes != NULL; nodes++)
        assert_int_equal(setup_add_node(s, *nodes, &e), 0);
}
#define MAKE(s, token, ...) make(s, token, (const char *const[]){ __VA_ARGS__, NULL })

static void nodes_are_words(void **state)
{
    struct setup s;

    (void)state;
    MAKE(&s, 1000, "xen1=10.0.0.1", "7:xen2=10.0.0.2,10.1.0.2", "xen3=fe80::3");
    assert_int_equal(s.node[0].id, 1);
    assert_int_equal(s.node[1].id, 7);
    assert_string_equal(s.node[1].name, "xen2");
    assert_string_equal(s.node[1].address[1], "10.1.0.2");
    assert_int_equal(s.node[2].id, 2);
    assert_string_equal(s.node[2].address[0], "fe80::3");
    assert_int_equal(setup_add_node(&s, "xen4", &e), -1);
    assert_int_equal(setup_add_node(&s, "=10.0.0.4", &e), -1);
    assert_int_equal(setup_add_node(&s, "xen4=", &e), -1);
    assert_int_equal(setup_add_node(&s, "xen4=10.0.0.4,", &e), -1);
    assert_int_equal(setup_add_node(&s, "x:xen4=10.0.0.4", &e), -1);
    assert_int_equal(setup_add_node(&s, "0:xen4=10.0.0.4", &e), -1);
    assert_int_equal(s.n, 3);
}

static void refused(unsigned token, const char *why, const char *const *nodes)
{
    struct setup s;

    make(&s, token, nodes);
    assert_int_equal(setup_check(&s, &e), -1);
    if (strstr(e.text, why) == NULL)
        fail_msg("\"%s\" is not in: %s", why, e.text);
}
#define REFUSED(token, why, ...) refused(token, why, (const char *const[]){ __VA_ARGS__, NULL })

static void wrong_ones_are_refused(void **state)
{
    struct setup s;

    (void)state;
    REFUSED(1000, "both have id 3", "3:a=10.0.0.1", "3:b=10.0.0.2");
    REFUSED(1000, "two nodes are called a", "a=10.0.0.1", "a=10.0.0.2");
    REFUSED(1000, "both have address 10.0.0.1", "a=10.0.0.1", "b=10.0.0.1");
    REFUSED(1000, "both have address 10.0.0.1", "a=10.0.0.1,10.1.0.1", "b=10.0.0.2,10.0.0.1");
    REFUSED(1000, "no address on link 1", "a=10.0.0.1,10.1.0.1", "b=10.0.0.2");
    REFUSED(1000, "a has none", "a=10.0.0.1", "b=10.0.0.2,10.1.0.2");
    REFUSED(1000, "neither an address", "a=10.0.0.1}", "b=10.0.0.2");
    REFUSED(1000, "letters, digits", "a b=10.0.0.1", "b=10.0.0.2");
    REFUSED(1000, "letters, digits", "a\n}=10.0.0.1", "b=10.0.0.2");
    REFUSED(100, "token 100 ms", "a=10.0.0.1");
    MAKE(&s, 1000, "a=10.0.0.1");
    snprintf(s.name, sizeof s.name, "x\ny");
    assert_int_equal(setup_check(&s, &e), -1);
    s.name[0] = '\0';
    assert_int_equal(setup_check(&s, &e), -1);
}

static void what_is_written_is_read(void **state)
{
    struct setup s, back;
    char *text;

    (void)state;
    MAKE(&s, 500, "xen1=10.0.0.1,10.1.0.1", "9:xen2=10.0.0.2,10.1.0.2", "xen3=h3.example,h3b");
    text = setup_conf(&s, NULL);
    assert_non_null(text);
    assert_null(strstr(text, "knet_ping"));
    assert_non_null(strstr(text, "crypto_cipher: aes256\n"));
    assert_non_null(strstr(text, "token_coefficient: 0\n"));
    assert_int_equal(setup_read_conf(&back, text, strlen(text), &e), 0);
    assert_memory_equal(&back, &s, sizeof s);
    free(text);
    MAKE(&s, 300, "xen1=10.0.0.1,10.1.0.1", "xen2=10.0.0.2,10.1.0.2");
    text = setup_conf(&s, "/x/authkey");
    assert_non_null(strstr(text, "knet_ping_timeout: 600\n"));
    assert_non_null(strstr(text, "linknumber: 1\n"));
    assert_non_null(strstr(text, "keyfile: /x/authkey\n"));
    free(text);
}

static void a_bundle_travels(void **state)
{
    struct setup s, back;
    char *text;

    (void)state;
    MAKE(&s, 1000, "xen1=10.0.0.1", "xen2=10.0.0.2", "xen3=10.0.0.3");
    assert_int_equal(setup_make_key(&s, &e), 0);
    text = setup_bundle(&s);
    assert_non_null(text);
    assert_int_equal(setup_read_bundle(&back, text, strlen(text), &e), 0);
    assert_memory_equal(&back, &s, sizeof s);
    strstr(text, "10.0.0.3")[0] = '}';
    assert_int_equal(setup_read_bundle(&back, text, strlen(text), &e), -1);
    assert_int_equal(setup_read_bundle(&back, text, strlen(text) / 2, &e), -1);
    free(text);
    text = strdup("{\"migrd-cluster\": 2}");
    assert_int_equal(setup_read_bundle(&back, text, strlen(text), &e), -1);
    assert_non_null(strstr(e.text, "version 2"));
    free(text);
}

static void conf_of_people_is_read(void **state)
{
    static const char text[] =
        "# by hand\ntotem {\n\tversion: 2\n\tcluster_name:  lab\n interface {\n"
        "ringnumber: 0\n token: 5\n }\n}\nnodelist{\n node {\n nodeid: 4\n"
        " ring0_addr: a\n }\n}\nquorum {\n device {\n model: net\n }\n}\n";
    struct setup s;

    (void)state;
    assert_int_equal(setup_read_conf(&s, text, sizeof text - 1, &e), 0);
    assert_string_equal(s.name, "lab");
    assert_int_equal(s.token, 0);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.node[0].id, 4);
    assert_int_equal(setup_read_conf(&s, "totem {\n", 8, &e), -1);
    assert_int_equal(setup_read_conf(&s, "}\n", 2, &e), -1);
    assert_int_equal(setup_read_conf(&s, "what\n", 5, &e), -1);
}

/* --- files --- */

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test-setup.XXXXXX");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int drop_folder(void **state)
{
    char cmd[100];

    (void)state;
    snprintf(cmd, sizeof cmd, "rm -rf %s", folder);
    return system(cmd) != 0 ? -1 : 0;
}

static int files_like(const char *pattern)
{
    char cmd[160];

    snprintf(cmd, sizeof cmd, "[ $(ls %s | grep -c '%s') = 1 ]", folder, pattern);
    return system(cmd) == 0;
}

static void nothing_is_overwritten(void **state)
{
    struct stat st;
    struct setup s;
    char path[100];

    (void)state;
    MAKE(&s, 1000, "xen1=10.0.0.1", "xen2=10.0.0.2", "xen3=10.0.0.3");
    assert_int_equal(setup_make_key(&s, &e), 0);
    assert_int_equal(setup_write(&s, folder, true, false, &e), 0);
    snprintf(path, sizeof path, "%s/authkey", folder);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0400);
    assert_int_equal(st.st_size, SETUP_KEY_LEN);
    assert_int_equal(setup_write(&s, folder, true, false, &e), 0); /* the same again */
    s.token = 500;
    assert_int_equal(setup_write(&s, folder, true, false, &e), -1);
    assert_int_equal(e.code, ERR_EXISTS);
    assert_int_equal(setup_write(&s, folder, true, true, &e), 0);
    assert_true(files_like("^corosync.conf.old-"));
    assert_int_equal(setup_take_away(folder, &e), 0);
    assert_true(files_like("^authkey.old-"));
    assert_int_equal(setup_take_away(folder, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
}

static void the_packages_example_is_replaced(void **state)
{
    static const char example[] = "totem {\n\tversion: 2\n\tcluster_name: debian\n}\n"
                                  "nodelist {\n\tnode {\n\t\tname: node1\n\t\tnodeid: 1\n"
                                  "\t\tring0_addr: 127.0.0.1\n\t}\n}\n";
    struct setup s;
    char path[100];

    (void)state;
    MAKE(&s, 1000, "xen1=10.0.0.1", "xen2=10.0.0.2", "xen3=10.0.0.3");
    assert_int_equal(setup_make_key(&s, &e), 0);
    snprintf(path, sizeof path, "%s/corosync.conf", folder);
    assert_int_equal(io_replace_file(path, example, strlen(example), 0644, &e), 0);
    assert_int_equal(setup_write(&s, folder, true, false, &e), 0);
    assert_true(files_like("^corosync.conf.old-"));
    assert_int_equal(setup_take_away(folder, &e), 0);
}

/* Exit code of `corosync -t`; -1: there is none. */
static int corosync_says(void)
{
    char cmd[200];
    int rc;

    if (access("/usr/sbin/corosync", X_OK) != 0)
        return -1;
    snprintf(
        cmd, sizeof cmd, "/usr/sbin/corosync -t -c %s/corosync.conf >%s/out 2>&1", folder, folder);
    rc = system(cmd);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : 128;
}

static void corosync_takes_it(void **state)
{
    static const unsigned tokens[] = { 300, 1000, 30000 };
    struct setup s;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        int rc;

        MAKE(&s, tokens[i], "xen1=127.0.0.1,127.0.1.1", "5:xen2=127.0.0.2,127.0.1.2",
            "xen3=127.0.0.3,127.0.1.3");
        assert_int_equal(setup_make_key(&s, &e), 0);
        assert_int_equal(setup_write(&s, folder, true, true, &e), 0);
        rc = corosync_says();
        if (rc == -1)
            skip();
        assert_int_equal(rc, 0);
    }
}

static void own_node_is_found(void **state)
{
    struct setup s;

    (void)state;
    MAKE(&s, 1000, "a=192.0.2.1", "b=127.0.0.1");
    assert_int_equal(setup_own(&s), 1);
    MAKE(&s, 1000, "a=192.0.2.1", "b=host.example");
    assert_int_equal(setup_own(&s), -1);
    assert_non_null(strstr(setup_advice(2), "witness"));
    assert_string_equal(setup_advice(3), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_are_words),
        cmocka_unit_test(wrong_ones_are_refused),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_bundle_travels),
        cmocka_unit_test(conf_of_people_is_read),
        cmocka_unit_test_setup_teardown(nothing_is_overwritten, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(the_packages_example_is_replaced, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(corosync_takes_it, make_folder, drop_folder),
        cmocka_unit_test(own_node_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
