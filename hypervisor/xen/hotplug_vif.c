/* SPDX-License-Identifier: ISC */
/*
 * An interface's backend as a port of a Linux bridge: the plain part of Xen's vif-bridge.
 *
 * online: down, the address that no bridge takes for its own, its name, the MTU, into the bridge,
 * up; then hotplug-status = connected. offline: down, out of the bridge; it may be gone by then.
 * Left to the script: an `ip` (its rules are iptables'), a bridge whose packets
 * iptables sees, hooks of the host's, a bridge without a name or that is none.
 */
#include <errno.h>
#include <glob.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "hypervisor/xen/hotplug.h"

#define MTU_MAX 65535

/* The largest address that is none of a group's: a bridge takes the smallest of its ports'. */
static const unsigned char PORT_MAC[ETH_ALEN] = { 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff };

struct vif {
    int sock;
    char dev[IFNAMSIZ], name[IFNAMSIZ], bridge[IFNAMSIZ];
    const char *is; /* dev, or name once it has it */
};

/* --- the kernel's interfaces --- */

static int on_link(int sock, const char *name, unsigned long request, struct ifreq *r)
{
    snprintf(r->ifr_name, sizeof r->ifr_name, "%s", name);
    return ioctl(sock, request, r);
}

static int set_up(const struct vif *v, bool up)
{
    struct ifreq r = { 0 };

    if (on_link(v->sock, v->is, SIOCGIFFLAGS, &r) < 0)
        return -1;
    r.ifr_flags = (short)(up ? r.ifr_flags | IFF_UP : r.ifr_flags & ~IFF_UP);
    return on_link(v->sock, v->is, SIOCSIFFLAGS, &r);
}

/* Some drivers refuse it while they run; the bridge then has a port whose address it may take. */
static void set_mac(const struct vif *v)
{
    struct ifreq r = { .ifr_hwaddr = { .sa_family = ARPHRD_ETHER } };

    memcpy(r.ifr_hwaddr.sa_data, PORT_MAC, ETH_ALEN);
    on_link(v->sock, v->is, SIOCSIFHWADDR, &r);
}

static int rename_link(struct vif *v)
{
    struct ifreq r = { 0 };

    if (v->name[0] == '\0')
        return 0;
    snprintf(r.ifr_newname, sizeof r.ifr_newname, "%s", v->name);
    if (on_link(v->sock, v->dev, SIOCSIFNAME, &r) < 0)
        return -1;
    v->is = v->name;
    return 0;
}

static int port(const struct vif *v, unsigned long request)
{
    struct ifreq r = { .ifr_ifindex = (int)if_nametoindex(v->is) };

    return on_link(v->sock, v->bridge, request, &r);
}

static bool is_bridge(const struct vif *v)
{
    struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };
    struct ifreq r = { .ifr_data = (char *)&info };

    return on_link(v->sock, v->bridge, SIOCETHTOOL, &r) == 0 && strcmp(info.driver, "bridge") == 0;
}

static bool has_address(const struct vif *v)
{
    struct ifreq r = { 0 };

    return on_link(v->sock, v->dev, SIOCGIFADDR, &r) == 0;
}

/* --- what is left to the script --- */

static bool says_no(const char *path)
{
    size_t len;
    char *text = io_read_file(path, 16, &len, NULL);
    bool no = text == NULL || text[0] == '0';

    free(text);
    return no;
}

static bool iptables_sees(const struct vif *v)
{
    char path[64 + IFNAMSIZ];

    snprintf(path, sizeof path, "/sys/class/net/%s/bridge/nf_call_iptables", v->bridge);
    return !says_no("/proc/sys/net/bridge/bridge-nf-call-iptables") || !says_no(path);
}

static bool has_hooks(const struct hotplug *h)
{
    char pattern[HOTPLUG_LEN];
    bool any = false;
    glob_t found;

    snprintf(pattern, sizeof pattern, "%s/vif-post.d/*.hook", h->scripts);
    if (glob(pattern, 0, NULL, &found) != 0)
        return false;
    for (size_t i = 0; i < found.gl_pathc; i++)
        any = any || access(found.gl_pathv[i], X_OK) == 0;
    globfree(&found);
    return any;
}

/* Why this is not for us; NULL: it is. */
static const char *not_ours(const struct hotplug *h, struct vif *v)
{
    char ip[2];

    if (h->dev == NULL || strlen(h->dev) >= sizeof v->dev || h->dev[0] == '\0')
        return "the interface has no usable name";
    snprintf(v->dev, sizeof v->dev, "%s", h->dev);
    if (hotplug_read(h, "bridge", v->bridge, sizeof v->bridge) != 0 || v->bridge[0] == '\0')
        return "no bridge is named";
    if (hotplug_read(h, "vifname", v->name, sizeof v->name) > 0)
        return "its name is too long";
    if (hotplug_read(h, "ip", ip, sizeof ip) >= 0)
        return "it has an ip, whose rules are the script's";
    if (has_hooks(h))
        return "the host has hooks for interfaces";
    return iptables_sees(v) ? "iptables sees what the bridge forwards" : NULL;
}

static const char *not_ours_online(const struct vif *v)
{
    if (!is_bridge(v))
        return "the bridge it shall be a port of is none of Linux's";
    if (if_nametoindex(v->dev) == 0)
        return "there is no such interface";
    if (v->name[0] != '\0' && if_nametoindex(v->name) != 0)
        return "the name it shall have is taken";
    return has_address(v) ? "it has an address already" : NULL;
}

/* --- online --- */

/* For the frontend: its folder is /local/domain/DOMID/device/vif/DEVID. */
static void tell_mtu(const struct hotplug *h, int mtu)
{
    const char *tail = strstr(h->path, "/backend/vif/");
    unsigned domid, devid;
    char path[80], value[16];

    if (tail == NULL || sscanf(tail, "/backend/vif/%u/%u", &domid, &devid) != 2)
        return;
    snprintf(path, sizeof path, "/local/domain/%u/device/vif/%u/mtu", domid, devid);
    snprintf(value, sizeof value, "%d", mtu);
    h->store->write(h->store->of, path, value);
}

static int mtu_of(const struct hotplug *h, const struct vif *v)
{
    struct ifreq r = { 0 };
    char text[16];
    long n;

    if (hotplug_read(h, "mtu", text, sizeof text) == 0) {
        n = strtol(text, NULL, 10);
        return n > 0 && n <= MTU_MAX ? (int)n : 0;
    }
    return on_link(v->sock, v->bridge, SIOCGIFMTU, &r) == 0 ? r.ifr_mtu : 0;
}

/* A backend that cannot have it stays as it is; the script does so, too. */
static void set_mtu(const struct hotplug *h, const struct vif *v)
{
    int mtu = mtu_of(h, v);
    struct ifreq r = { .ifr_mtu = mtu };

    if (mtu == 0)
        return;
    on_link(v->sock, v->is, SIOCSIFMTU, &r);
    tell_mtu(h, mtu);
}

/* EBUSY: it is a port already, which is fine of this bridge. */
static int join(const struct vif *v, struct err *e)
{
    if (port(v, SIOCBRADDIF) == 0)
        return 0;
    if (errno == EBUSY && port(v, SIOCBRDELIF) == 0 && port(v, SIOCBRADDIF) == 0)
        return 0;
    return err_sys(e, "%s cannot become a port of bridge %s", v->is, v->bridge);
}

static int online(const struct hotplug *h, struct vif *v, struct err *e)
{
    if (set_up(v, false) < 0)
        return err_sys(e, "%s cannot be configured", v->is);
    set_mac(v);
    if (rename_link(v) < 0)
        return err_sys(e, "%s cannot be renamed to %s", v->dev, v->name);
    set_mtu(h, v);
    if (join(v, e) < 0)
        return -1;
    if (set_up(v, true) < 0)
        return err_sys(e, "%s cannot be brought up", v->is);
    return hotplug_write(h, "hotplug-status", "connected", e);
}

/* --- offline --- */

static void offline(struct vif *v)
{
    v->is = v->name[0] != '\0' ? v->name : v->dev;
    set_up(v, false);
    port(v, SIOCBRDELIF);
}

static enum hotplug_result change(
    const struct hotplug *h, struct vif *v, const char *verb, struct err *e)
{
    const char *why = not_ours(h, v);

    if (why != NULL)
        return hotplug_leave(e, h->path, why);
    v->is = v->dev;
    if (strcmp(verb, "offline") == 0) {
        offline(v);
        return HOTPLUG_DONE;
    }
    why = not_ours_online(v);
    if (why != NULL)
        return hotplug_leave(e, v->dev, why);
    return online(h, v, e) < 0 ? HOTPLUG_FAILED : HOTPLUG_DONE;
}

enum hotplug_result hotplug_vif(const struct hotplug *h, const char *verb, struct err *e)
{
    struct vif v = { .sock = -1 };
    enum hotplug_result r;

    if (strcmp(verb, "online") != 0 && strcmp(verb, "offline") != 0)
        return hotplug_leave(e, verb, "done by the script alone");
    v.sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (v.sock < 0)
        return hotplug_leave(e, verb, "no socket to ask for interfaces");
    r = change(h, &v, verb, e);
    close(v.sock);
    return r;
}
