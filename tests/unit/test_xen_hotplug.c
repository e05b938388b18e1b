/* SPDX-License-Identifier: ISC */
/* xen-hotplug's cases on a store in memory, in a network namespace of the test's own. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef XEN_RELEASE

#include "hypervisor/xen/hotplug.h"

#define VBDS "/local/domain/0/backend/vbd"
#define VBD VBDS "/3/51712"
#define VIF "/local/domain/0/backend/vif/3/0"
#define NODES 16

/* --- the store --- */

static struct {
    char path[128], value[128];
} nodes[NODES];
static const char *read_only; /* writes of a node with this name fail */

static int find(const char *path)
{
    for (int i = 0; i < NODES; i++)
        if (strcmp(nodes[i].path, path) == 0)
            return i;
    return -1;
}

static char *fake_read(void *of, const char *path)
{
    int i = find(path);

    (void)of;
    errno = ENOENT;
    return i >= 0 ? strdup(nodes[i].value) : NULL;
}

static int fake_write(void *of, const char *path, const char *value)
{
    int i = find(path);

    (void)of;
    if (read_only != NULL && strstr(path, read_only) != NULL) {
        errno = EROFS;
        return -1;
    }
    if (i < 0)
        i = find("");
    assert_true(i >= 0);
    snprintf(nodes[i].path, sizeof nodes[i].path, "%s", path);
    snprintf(nodes[i].value, sizeof nodes[i].value, "%s", value);
    return 0;
}

/* Two domains with the disk 51712 each. */
static char **fake_list(void *of, const char *path, unsigned *n)
{
    static char domains[2][2] = { "3", "4" }, device[] = "51712";
    char **out = calloc(2, sizeof *out);

    (void)of;
    assert_non_null(out);
    *n = strcmp(path, VBDS) == 0 ? 2 : 1;
    out[0] = *n == 2 ? domains[0] : device;
    out[1] = domains[1];
    return out;
}

static const struct hotplug_store store = { NULL, fake_read, fake_write, fake_list };

static void put(const char *path, const char *name, const char *value)
{
    char whole[128];

    snprintf(whole, sizeof whole, "%s/%s", path, name);
    fake_write(NULL, whole, value);
}

static const char *got(const char *path, const char *name)
{
    char whole[128];
    int i;

    snprintf(whole, sizeof whole, "%s/%s", path, name);
    i = find(whole);
    return i >= 0 ? nodes[i].value : "";
}

/* --- set-up --- */

struct fixture {
    char dir[32], locks[64], image[64];
    struct hotplug h;
    struct err e;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    int fd;

    assert_non_null(f);
    memset(nodes, 0, sizeof nodes);
    read_only = NULL;
    strcpy(f->dir, "/tmp/hotplug.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->locks, sizeof f->locks, "%s/locks", f->dir);
    snprintf(f->image, sizeof f->image, "%s/image", f->dir);
    fd = open(f->image, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
    close(fd);
    f->h = (struct hotplug){
        .store = &store, .path = VBD, .dev = "vif3.0", .scripts = f->dir, .locks = f->locks
    };
    put(VBD, "params", f->image);
    put(VBD, "mode", "w");
    put(VBD, "state", "2");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    unlink(f->image);
    rmdir(f->locks);
    assert_int_equal(rmdir(f->dir), 0); /* no lock stays */
    free(f);
    return 0;
}

static void run(const char *command)
{
    if (system(command) != 0)
        fail_msg("%s", command);
}

/* --- disks --- */

static bool has_loops(void)
{
    return access("/dev/loop-control", R_OK | W_OK) == 0;
}

static bool bound(const char *node)
{
    char path[64];

    snprintf(path, sizeof path, "/sys/block/%s/loop", node + strlen("/dev/"));
    return access(path, F_OK) == 0;
}

static void test_file(void **state)
{
    struct fixture *f = *state;
    char number[32], node[32];
    struct stat st;

    if (!has_loops())
        skip();
    if (hotplug_block(&f->h, "add", &f->e) != HOTPLUG_DONE)
        fail_msg("%s", f->e.text);
    snprintf(node, sizeof node, "%s", got(VBD, "node"));
    assert_int_equal(stat(node, &st), 0);
    snprintf(number, sizeof number, "7:%x", (unsigned)st.st_rdev & 0xff);
    assert_string_equal(got(VBD, "physical-device"), number);
    assert_string_equal(got(VBD, "physical-device-path"), node);
    assert_string_equal(got(VBD, "hotplug-status"), "connected");
    assert_int_equal(hotplug_block(&f->h, "add", &f->e), HOTPLUG_DONE); /* again: nothing */
    assert_string_equal(got(VBD, "node"), node);

    nodes[find(VBD "/physical-device")].path[0] = '\0'; /* another device on that file */
    assert_int_equal(hotplug_block(&f->h, "add", &f->e), HOTPLUG_SCRIPT);
    assert_non_null(strstr(f->e.text, "serves it already"));
    assert_true(bound(node));
    assert_int_equal(hotplug_block(&f->h, "remove", &f->e), HOTPLUG_DONE);
    assert_false(bound(node));
    assert_int_equal(hotplug_block(&f->h, "remove", &f->e), HOTPLUG_DONE); /* again */
}

/* A loop device that serves somebody else's file by now is not ours to clear. */
static void test_remove_of_another(void **state)
{
    struct fixture *f = *state;
    char node[32];

    if (!has_loops())
        skip();
    assert_int_equal(hotplug_block(&f->h, "add", &f->e), HOTPLUG_DONE);
    snprintf(node, sizeof node, "%s", got(VBD, "node"));
    put(VBD, "params", "/dev/null");
    assert_int_equal(hotplug_block(&f->h, "remove", &f->e), HOTPLUG_DONE);
    assert_true(bound(node));
    put(VBD, "params", f->image);
    unlink(f->image); /* gone: its name is what is left */
    assert_int_equal(hotplug_block(&f->h, "remove", &f->e), HOTPLUG_DONE);
}

static void test_store_fails(void **state)
{
    struct fixture *f = *state;

    if (!has_loops())
        skip();
    read_only = "physical-device-path";
    assert_int_equal(hotplug_block(&f->h, "add", &f->e), HOTPLUG_FAILED);
    assert_false(bound(got(VBD, "node")));
    hotplug_tell_error(&f->h, f->e.text);
    assert_string_equal(got(VBD, "hotplug-status"), "error");
    assert_non_null(strstr(got(VBD, "hotplug-error"), "physical-device-path"));
}

static enum hotplug_result add_of(struct fixture *f, const char *node, const char *value)
{
    put(VBD, node, value);
    return hotplug_block(&f->h, "add", &f->e);
}

static void test_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(add_of(f, "state", "6"), HOTPLUG_FAILED);
    assert_non_null(strstr(f->e.text, "given up"));
    put(VBD, "state", "2");
    assert_int_equal(add_of(f, "params", "/nowhere/image"), HOTPLUG_FAILED);
    assert_non_null(strstr(f->e.text, "/nowhere/image"));
    put(VBD, "params", f->image);
    assert_int_equal(chmod(f->image, 0444), 0);
    assert_int_equal(hotplug_block(&f->h, "add", &f->e), HOTPLUG_FAILED);
    assert_non_null(strstr(f->e.text, "chmod u+w"));
    assert_string_equal(got(VBD, "hotplug-status"), "");
}

static void test_left_to_block(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(add_of(f, "mode", "w!"), HOTPLUG_SCRIPT);
    put(VBD, "mode", "w");
    assert_int_equal(add_of(f, "params", "tcp:10.0.0.1"), HOTPLUG_SCRIPT);
    assert_int_equal(add_of(f, "params", "/dev/null"), HOTPLUG_SCRIPT);
    assert_int_equal(add_of(f, "params", "/dev"), HOTPLUG_SCRIPT);
    assert_int_equal(hotplug_block(&f->h, "online", &f->e), HOTPLUG_SCRIPT);
    put(VBD, "node", "/dev/nbd0");
    assert_int_equal(hotplug_block(&f->h, "remove", &f->e), HOTPLUG_SCRIPT);
    assert_string_equal(got(VBD, "hotplug-status"), "");
}

/* A block device of our own, by way of a loop device. */
static void test_block_device(void **state)
{
    struct fixture *f = *state;
    char node[32], number[32];

    if (!has_loops())
        skip();
    assert_int_equal(hotplug_block(&f->h, "add", &f->e), HOTPLUG_DONE);
    snprintf(node, sizeof node, "%s", got(VBD, "node"));
    snprintf(number, sizeof number, "%s", got(VBD, "physical-device"));
    memset(nodes, 0, sizeof nodes);
    put(VBD, "params", node);
    put(VBD, "mode", "r");
    put(VBDS "/4/51712", "physical-device", number);
    assert_int_equal(hotplug_block(&f->h, "add", &f->e), HOTPLUG_SCRIPT);
    assert_non_null(strstr(f->e.text, "another disk is on it"));
    put(VBDS "/4/51712", "physical-device", "7:fff");
    assert_int_equal(hotplug_block(&f->h, "add", &f->e), HOTPLUG_DONE);
    assert_string_equal(got(VBD, "physical-device"), number);
    assert_string_equal(got(VBD, "hotplug-status"), "connected");
    assert_int_equal(hotplug_block(&f->h, "remove", &f->e), HOTPLUG_DONE);
    assert_true(bound(node)); /* it was there before */
    put(VBD, "params", f->image);
    put(VBD, "node", node);
    assert_int_equal(hotplug_block(&f->h, "remove", &f->e), HOTPLUG_DONE);
    assert_false(bound(node));
}

/* --- interfaces --- */

static int setup_net(void **state)
{
    struct fixture *f;

    if (setup(state) < 0)
        return -1;
    f = *state;
    f->h.path = VIF;
    put(VIF, "bridge", "br0");
    put(VIF, "mtu", "1400");
    if (unshare(CLONE_NEWNET) < 0)
        return 0; /* without the right to: the cases skip */
    run("ip link add br0 type bridge && ip link set br0 up && "
        "ip link add vif3.0 type veth peer name peer");
    run("f=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $f ] || echo 0 > $f");
    return 0;
}

/* What `ip -o link show DEV` tells contains `what`. */
static bool shows(const char *dev, const char *what)
{
    char line[1024] = "", command[64];
    FILE *p;

    snprintf(command, sizeof command, "ip -o link show %s 2>/dev/null", dev);
    p = popen(command, "r");
    assert_non_null(p);
    if (fgets(line, sizeof line, p) == NULL)
        line[0] = '\0';
    pclose(p);
    return strstr(line, what) != NULL;
}

static void test_online(void **state)
{
    struct fixture *f = *state;

    if (geteuid() != 0)
        skip();
    if (hotplug_vif(&f->h, "online", &f->e) != HOTPLUG_DONE)
        fail_msg("%s", f->e.text);
    assert_true(shows("vif3.0", "master br0") && shows("vif3.0", "mtu 1400"));
    assert_true(shows("vif3.0", "fe:ff:ff:ff:ff:ff") && shows("vif3.0", ",UP"));
    assert_string_equal(got(VIF, "hotplug-status"), "connected");
    assert_string_equal(got("/local/domain/3/device/vif/0", "mtu"), "1400");
    assert_int_equal(hotplug_vif(&f->h, "online", &f->e), HOTPLUG_DONE); /* again */
    assert_int_equal(hotplug_vif(&f->h, "offline", &f->e), HOTPLUG_DONE);
    assert_false(shows("vif3.0", "master") || shows("vif3.0", ",UP"));
    run("ip link del vif3.0");
    assert_int_equal(hotplug_vif(&f->h, "offline", &f->e), HOTPLUG_DONE);
}

static void test_name(void **state)
{
    struct fixture *f = *state;

    if (geteuid() != 0)
        skip();
    put(VIF, "vifname", "web1");
    assert_int_equal(hotplug_vif(&f->h, "online", &f->e), HOTPLUG_DONE);
    assert_true(shows("web1", "master br0"));
    run("ip link add vif3.0 type veth peer name peer2");
    assert_int_equal(hotplug_vif(&f->h, "online", &f->e), HOTPLUG_SCRIPT);
    assert_non_null(strstr(f->e.text, "taken"));
    assert_int_equal(hotplug_vif(&f->h, "offline", &f->e), HOTPLUG_DONE);
    assert_false(shows("web1", "master"));
}

static void test_left_to_vif_bridge(void **state)
{
    struct fixture *f = *state;

    if (geteuid() != 0)
        skip();
    put(VIF, "bridge", "vif3.0");
    assert_int_equal(hotplug_vif(&f->h, "online", &f->e), HOTPLUG_SCRIPT);
    put(VIF, "bridge", "");
    assert_int_equal(hotplug_vif(&f->h, "online", &f->e), HOTPLUG_SCRIPT);
    put(VIF, "bridge", "br0");
    put(VIF, "vifname", "a-name-that-is-too-long");
    assert_int_equal(hotplug_vif(&f->h, "online", &f->e), HOTPLUG_SCRIPT);
    put(VIF, "vifname", "");
    f->h.dev = "vif9.0";
    assert_int_equal(hotplug_vif(&f->h, "online", &f->e), HOTPLUG_SCRIPT);
    f->h.dev = NULL;
    assert_int_equal(hotplug_vif(&f->h, "online", &f->e), HOTPLUG_SCRIPT);
    f->h.dev = "vif3.0";
    put(VIF, "ip", "10.0.0.1");
    assert_int_equal(hotplug_vif(&f->h, "online", &f->e), HOTPLUG_SCRIPT);
    assert_false(shows("vif3.0", "master"));
    assert_string_equal(got(VIF, "hotplug-status"), "");
}

static void test_hooks(void **state)
{
    struct fixture *f = *state;
    char command[160];

    if (geteuid() != 0)
        skip();
    snprintf(command, sizeof command, "mkdir %s/vif-post.d && touch %s/vif-post.d/a.hook", f->dir,
        f->dir);
    run(command);
    assert_int_equal(hotplug_vif(&f->h, "online", &f->e), HOTPLUG_DONE); /* it cannot be run */
    snprintf(command, sizeof command, "chmod +x %s/vif-post.d/a.hook", f->dir);
    run(command);
    assert_int_equal(hotplug_vif(&f->h, "online", &f->e), HOTPLUG_SCRIPT);
    assert_non_null(strstr(f->e.text, "hooks"));
    snprintf(command, sizeof command, "rm -r %s/vif-post.d", f->dir);
    run(command);
}

int main(void)
{
#define DISK(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define NET(name) cmocka_unit_test_setup_teardown(name, setup_net, teardown)
    const struct CMUnitTest tests[] = { DISK(test_file), DISK(test_remove_of_another),
        DISK(test_store_fails), DISK(test_refused), DISK(test_left_to_block),
        DISK(test_block_device), NET(test_online), NET(test_name), NET(test_left_to_vif_bridge),
        NET(test_hooks) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    puts("skip: Xen's driver is not part of this build");
    return 77;
}

#endif
