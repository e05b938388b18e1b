/* SPDX-License-Identifier: ISC */
/* Keys of corosync's cmap become a list of nodes, or a text that says what is wrong with them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/nodelist_parse.h"

static void number(struct nodelist_raw *raw, const char *key, uint64_t n)
{
    nodelist_key(raw, key, &n, NULL);
}

static void text(struct nodelist_raw *raw, const char *key, const char *t)
{
    nodelist_key(raw, key, NULL, t);
}

/* Nodes 3, 2, 1 at the positions 0, 1, 2; this one is node 2. */
static struct nodelist_raw *three(void)
{
    struct nodelist_raw *raw = calloc(1, sizeof *raw);
    char key[64], value[64];

    assert_non_null(raw);
    for (unsigned i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "nodelist.node.%u.nodeid", i);
        number(raw, key, 3 - i);
        snprintf(key, sizeof key, "nodelist.node.%u.name", i);
        snprintf(value, sizeof value, "host%u", 3 - i);
        text(raw, key, value);
        snprintf(key, sizeof key, "nodelist.node.%u.ring0_addr", i);
        snprintf(value, sizeof value, "10.0.0.%u", 3 - i);
        text(raw, key, value);
    }
    raw->token = 1000;
    raw->has_own = true;
    raw->own_position = 1;
    snprintf(raw->cluster, sizeof raw->cluster, "lab");
    return raw;
}

static void test_list(void **state)
{
    struct nodelist_raw *raw = three();
    struct node_list *list = calloc(1, sizeof *list);

    (void)state;
    assert_int_equal(nodelist_make(raw, list, NULL), 0);
    assert_int_equal(list->n, 3);
    assert_int_equal(list->own, 2);
    assert_int_equal(list->token, 1000);
    assert_string_equal(list->cluster, "lab");
    for (unsigned i = 0; i < 3; i++) {
        char want[64];

        assert_int_equal(list->node[i].id, i + 1);
        snprintf(want, sizeof want, "host%u", i + 1);
        assert_string_equal(list->node[i].name, want);
        snprintf(want, sizeof want, "10.0.0.%u", i + 1);
        assert_string_equal(list->node[i].address, want);
        assert_int_equal(list->node[i].socket_len, 0);
    }
    assert_ptr_equal(node_list_find(list, 3), &list->node[2]);
    assert_null(node_list_find(list, 4));
    assert_null(node_list_find(NULL, 1));
    free(list);
    free(raw);
}

/* The first link is the one with the lowest number, in whatever order the keys come. */
static void test_links(void **state)
{
    struct nodelist_raw *raw = three();
    struct node_list *list = calloc(1, sizeof *list);

    (void)state;
    text(raw, "nodelist.node.0.ring1_addr", "10.1.0.3");
    raw->entry[1].link = -1;
    text(raw, "nodelist.node.1.ring7_addr", "10.7.0.2");
    text(raw, "nodelist.node.1.ring3_addr", "10.3.0.2");
    text(raw, "nodelist.node.1.ring4_addr", "10.4.0.2");
    assert_int_equal(nodelist_make(raw, list, NULL), 0);
    assert_string_equal(list->node[2].address, "10.0.0.3");
    assert_string_equal(list->node[1].address, "10.3.0.2");
    free(list);
    free(raw);
}

static void test_other_keys(void **state)
{
    static const char *const keys[] = {
        "", "nodelist.node.", "nodelist.node.1", "nodelist.node.1.", "nodelist.node.x.nodeid",
        "nodelist.node.-1.nodeid", "nodelist.node.99999999999.nodeid",
        "nodelist.node.1000001.nodeid", "nodelist.local_node_pos", "totem.token",
        "nodelist.node.1.ring8_addr", "nodelist.node.1.ring_addr", "nodelist.node.1.ring0_addrx",
        "nodelist.node.1.quorum_votes", "nodelist.node.1.nodeid.more",
        "nodelist.node.0000000000000000000000000000000000000000000000000000000000000000001.nodeid"
    };
    struct nodelist_raw *raw = three(), *before = three();

    (void)state;
    for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++) {
        number(raw, keys[i], 77);
        text(raw, keys[i], "77");
        nodelist_key(raw, keys[i], NULL, NULL);
    }
    number(raw, "nodelist.node.1.nodeid", UINT64_C(1) << 32);
    text(raw, "nodelist.node.1.nodeid", "5");
    number(raw, "nodelist.node.1.name", 5);
    assert_memory_equal(raw, before, sizeof *raw);
    free(raw);
    free(before);
}

enum wrong {
    NO_NODES,
    NO_ID,
    ADDRESS_MISSING,
    TWICE,
    LONG_NAME,
    LONG_TEXT,
    BAD_TEXT,
    MANY,
    VERY_MANY,
    NO_TOKEN,
    NO_OWN,
    OWN_ELSEWHERE,
    WRONG_MAX
};

static void spoil(struct nodelist_raw *raw, enum wrong w)
{
    char key[64], big[NODE_ADDRESS_LEN + 1];

    memset(big, 'a', sizeof big);
    switch (w) {
    case NO_NODES:
        raw->n = 0;
        break;
    case NO_ID:
        raw->entry[1].id = 0;
        break;
    case ADDRESS_MISSING:
        raw->entry[1].link = -1;
        break;
    case TWICE:
        raw->entry[1].id = raw->entry[0].id;
        break;
    case LONG_NAME:
        big[HA_NAME_LEN] = '\0';
        text(raw, "nodelist.node.1.name", big);
        break;
    case LONG_TEXT:
        big[NODE_ADDRESS_LEN] = '\0';
        text(raw, "nodelist.node.1.name", big);
        break;
    case BAD_TEXT:
        text(raw, "nodelist.node.1.name", "a\nb");
        break;
    case MANY:
    case VERY_MANY:
        for (unsigned i = 3; i <= (w == MANY ? HA_NODES_MAX : NODELIST_ENTRIES_MAX); i++) {
            snprintf(key, sizeof key, "nodelist.node.%u.nodeid", i);
            number(raw, key, i + 1);
        }
        break;
    case NO_TOKEN:
        raw->token = 0;
        break;
    case NO_OWN:
        raw->has_own = false;
        break;
    case OWN_ELSEWHERE:
        raw->own_position = 9;
        break;
    case WRONG_MAX:
        break;
    }
}

static void test_wrong(void **state)
{
    static const char *const want[WRONG_MAX] = { "no nodelist", "no nodeid", "no ring0_addr",
        "two nodes", "longer than", "longer than", "can't be shown", "more than 32", "more than 32",
        "token", "none of the addresses", "none of the addresses" };
    struct node_list *list = calloc(1, sizeof *list);

    (void)state;
    for (unsigned w = 0; w < WRONG_MAX; w++) {
        struct nodelist_raw *raw = three();
        struct err e;

        spoil(raw, (enum wrong)w);
        assert_int_equal(nodelist_make(raw, list, &e), -1);
        if (strstr(e.text, want[w]) == NULL)
            fail_msg("%u: %s", w, e.text);
        free(raw);
    }
    free(list);
}

static void test_addresses(void **state)
{
    struct node_entry n = { .address = "127.0.0.7" };
    char back[INET_ADDRSTRLEN];

    (void)state;
    assert_true(nodelist_look_up(&n, ""));
    assert_int_equal(n.socket.ss_family, AF_INET);
    inet_ntop(AF_INET, &((struct sockaddr_in *)&n.socket)->sin_addr, back, sizeof back);
    assert_string_equal(back, "127.0.0.7");
    assert_true(nodelist_look_up(&n, "ipv6-4"));
    assert_false(nodelist_look_up(&n, "ipv6"));
    assert_int_equal(n.socket_len, 0);
    strcpy(n.address, "::1");
    assert_true(nodelist_look_up(&n, "ipv4-6"));
    assert_int_equal(n.socket.ss_family, AF_INET6);
    assert_false(nodelist_look_up(&n, "ipv4"));
    strcpy(n.address, "no such name");
    assert_false(nodelist_look_up(&n, ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_other_keys),
        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
