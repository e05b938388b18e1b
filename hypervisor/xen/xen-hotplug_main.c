/* SPDX-License-Identifier: ISC */
/*
 * xen-hotplug: libxl calls it in place of Xen's vif-bridge and block, as the `script` of a device
 * that migrd made. It does the plain cases by itself, which takes a few milliseconds where the
 * shell takes seconds of a busy dom0, and becomes Xen's script for all others.
 *
 * Called as the script is: XENBUS_PATH and XENBUS_TYPE in the environment, a verb
 * (add, remove, online, offline) as the first argument.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xenstore.h>

#include "base/config.h"
#include "base/log.h"
#include "base/paths.h"
#include "hypervisor/xen/hotplug.h"

static const char usage[] =
    "usage: xen-hotplug add|remove|online|offline\n"
    "Connects a disk or an interface of a domain of Xen's to this host; called by libxl with\n"
    "XENBUS_PATH and XENBUS_TYPE in the environment, see xen-hotplug(8).\n";

/* --- the store --- */

static char *store_read(void *of, const char *path)
{
    unsigned len;

    return xs_read(of, XBT_NULL, path, &len);
}

static int store_write(void *of, const char *path, const char *value)
{
    return xs_write(of, XBT_NULL, path, value, (unsigned)strlen(value)) ? 0 : -1;
}

static char **store_list(void *of, const char *path, unsigned *n)
{
    return xs_directory(of, XBT_NULL, path, n);
}

/* --- what is done --- */

static bool is_wanted(struct err *e)
{
    struct config c;
    struct paths p;

    config_defaults(&c);
    if (paths_init(&p, NULL, e) < 0)
        return false;
    if (access(p.config, F_OK) == 0 && config_load(&c, p.config, e) < 0)
        return false;
    if (!c.xen_hotplug)
        err_set(e, ERR_UNSUPPORTED, "%s has xen-hotplug = no", p.config);
    return c.xen_hotplug;
}

static enum hotplug_result act(const char *path, bool disk, const char *verb, struct err *e)
{
    struct xs_handle *xs = xs_open(0);
    struct hotplug_store store = { xs, store_read, store_write, store_list };
    struct hotplug h = { .store = &store,
        .path = path,
        .dev = getenv("vif"),
        .scripts = HOTPLUG_SCRIPTS,
        .locks = HOTPLUG_LOCKS };
    enum hotplug_result r;

    if (xs == NULL)
        return hotplug_leave(e, "xenstore", strerror(errno));
    r = disk ? hotplug_block(&h, verb, e) : hotplug_vif(&h, verb, e);
    if (r == HOTPLUG_FAILED)
        hotplug_tell_error(&h, e->text);
    xs_close(xs);
    return r;
}

static int become_script(bool disk, char **argv, const char *why)
{
    const char *script = disk ? HOTPLUG_SCRIPTS "/block" : HOTPLUG_SCRIPTS "/vif-bridge";

    log_debug("hotplug", "left to %s: %s", script, why);
    execv(script, argv);
    log_error("hotplug", "%s: %s; %s does not do this case by itself", script, strerror(errno),
        "xen-hotplug");
    return 1;
}

/* An emulated interface ("tap") is not ours; libxl says which by type_if=, as the script has it. */
static bool is_tap(int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "type_if=tap") == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    const char *path = getenv("XENBUS_PATH"), *type = getenv("XENBUS_TYPE");
    enum hotplug_result r = HOTPLUG_SCRIPT;
    struct err e = { 0 };
    bool disk;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    if (argc < 2 || path == NULL || type == NULL) {
        fputs(usage, stderr);
        return 2;
    }
    log_open("xen-hotplug", NULL, NULL);
    disk = strcmp(type, "vif") != 0;
    if (is_tap(argc, argv) || (disk && strcmp(type, "vbd") != 0))
        err_set(&e, ERR_UNSUPPORTED, "%s: of a kind that is the script's", path);
    else if (is_wanted(&e))
        r = act(path, disk, argv[1], &e);
    if (r == HOTPLUG_SCRIPT)
        return become_script(disk, argv, e.text);
    if (r == HOTPLUG_FAILED)
        log_error("hotplug", "%s: %s", path, e.text);
    return r == HOTPLUG_FAILED;
}
