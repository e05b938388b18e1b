/* SPDX-License-Identifier: ISC */
/*
 * Names: a tap without a given name is vif<pid>.<n>. Should that be taken (by a process
 * of the same number in another pid namespace), random numbers are tried.
 *
 * The kernel gives a bridge the lowest address of its ports; so that it does not jump
 * with guests that come and go, a tap has the guest's address with 0xfe in front.
 */
#define _GNU_SOURCE
#include "hypervisor/xvm/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"

#define TUN_PATH "/dev/net/tun"
#define VNET_HDR_LEN 12
#define NAME_TRIES 8
#define MTU_DEFAULT 1500u
#define DRAIN_MAX 5000u /* a tap keeps 1000 unless told otherwise */

static int name_check(const char *what, const char *name, struct err *e)
{
    size_t n = strlen(name);

    if (n == 0 || n >= IFNAMSIZ || strchr(name, '/') != NULL || strchr(name, '%') != NULL)
        return err_set(e, ERR_INVALID, "%s %s: not a name of an interface (1 to %d characters)",
            what, name, IFNAMSIZ - 1);
    return 0;
}

/* TUNSETIFF with that name; errno tells why not. */
static int claim(struct tap *t, const char *name)
{
    struct ifreq r = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };

    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    if (ioctl(t->fd, TUNSETIFF, &r) < 0)
        return -1;
    snprintf(t->name, sizeof t->name, "%s", r.ifr_name);
    return 0;
}

static int claim_made_up(struct tap *t, unsigned index, struct err *e)
{
    char name[TAP_NAME_LEN];
    unsigned number = (unsigned)getpid();

    for (int i = 0; i < NAME_TRIES; i++) {
        snprintf(name, sizeof name, "vif%u.%u", number % 10000000u, index % 1000u);
        if (if_nametoindex(name) == 0 && claim(t, name) == 0)
            return 0;
        if (if_nametoindex(name) == 0)
            return err_sys(e, "tap %s", name);
        if (getrandom(&number, sizeof number, 0) < 0)
            break;
    }
    return err_set(e, ERR_EXISTS, "tap vif%d.%u: the name is taken; give the vif an ifname",
        (int)getpid(), index);
}

static int claim_given(struct tap *t, const char *name, struct err *e)
{
    if (name_check("tap", name, e) < 0)
        return -1;
    if (claim(t, name) == 0)
        return 0;
    if (errno == EBUSY)
        return err_set(e, ERR_EXISTS, "tap %s: in use by another process", name);
    if (errno == EINVAL)
        return err_set(e, ERR_INVALID,
            "tap %s: there is an interface of that name, and it is no "
            "tap (or one of several queues)",
            name);
    return err_sys(e, "tap %s", name);
}

static int make(struct tap *t, const struct tap_config *cfg, struct err *e)
{
    int len = VNET_HDR_LEN;

    t->fd = open(TUN_PATH, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (t->fd < 0)
        return err_sys(e, "tap: %s (is the kernel's tun module loaded?)", TUN_PATH);
    if ((cfg->ifname[0] != '\0' ? claim_given(t, cfg->ifname, e)
                                : claim_made_up(t, cfg->index, e)) < 0)
        return -1;
    if (ioctl(t->fd, TUNSETVNETHDRSZ, &len) < 0)
        return err_sys(e, "tap %s: header size", t->name);
    return tap_offload(t, 0, e);
}

static void set_name(struct ifreq *r, const char *name)
{
    memset(r, 0, sizeof *r);
    memcpy(r->ifr_name, name, strnlen(name, IFNAMSIZ - 1));
}

static int set_address(const struct tap *t, int sock, const uint8_t *mac, struct err *e)
{
    struct ifreq r;

    set_name(&r, t->name);
    r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(r.ifr_hwaddr.sa_data, mac, 6);
    r.ifr_hwaddr.sa_data[0] = (char)0xfe;
    if (ioctl(sock, SIOCSIFHWADDR, &r) < 0)
        return err_sys(e, "tap %s: its address", t->name);
    return 0;
}

static int set_mtu(struct tap *t, int sock, const struct tap_config *cfg, struct err *e)
{
    struct ifreq r;

    t->mtu = cfg->mtu;
    if (t->mtu == 0 && cfg->bridge[0] != '\0') {
        set_name(&r, cfg->bridge);
        if (ioctl(sock, SIOCGIFMTU, &r) < 0)
            return err_sys(e, "tap %s: bridge %s: its MTU", t->name, cfg->bridge);
        t->mtu = (uint32_t)r.ifr_mtu;
    }
    if (t->mtu == 0)
        t->mtu = MTU_DEFAULT;
    if (t->mtu > TAP_MTU_MAX)
        t->mtu = TAP_MTU_MAX;
    set_name(&r, t->name);
    r.ifr_mtu = (int)t->mtu;
    if (ioctl(sock, SIOCSIFMTU, &r) < 0)
        return err_sys(e, "tap %s: MTU %u", t->name, t->mtu);
    return 0;
}

/* Puts it on the bridge. A tap of the administrator's may be there already. */
static int set_bridge(const struct tap *t, int sock, const char *bridge, struct err *e)
{
    char port[64];
    struct ifreq r;

    if (bridge[0] == '\0')
        return 0;
    if (name_check("bridge", bridge, e) < 0)
        return -1;
    if (if_nametoindex(bridge) == 0)
        return err_set(e, ERR_NOT_FOUND,
            "bridge %s: no such interface on this host; create it or correct vif= in the "
            "definition",
            bridge);
    set_name(&r, bridge);
    r.ifr_ifindex = (int)if_nametoindex(t->name);
    if (ioctl(sock, SIOCBRADDIF, &r) == 0)
        return 0;
    snprintf(port, sizeof port, "/sys/class/net/%s/brif/%s", bridge, t->name);
    if (errno == EBUSY && access(port, F_OK) == 0)
        return 0;
    if (errno == EOPNOTSUPP || errno == EINVAL)
        return err_set(e, ERR_INVALID, "bridge %s: the interface is not a bridge", bridge);
    return err_sys(e, "bridge %s: adding tap %s", bridge, t->name);
}

static int set_up(const struct tap *t, int sock, struct err *e)
{
    struct ifreq r;

    set_name(&r, t->name);
    if (ioctl(sock, SIOCGIFFLAGS, &r) < 0)
        return err_sys(e, "tap %s: flags", t->name);
    r.ifr_flags |= IFF_UP;
    if (ioctl(sock, SIOCSIFFLAGS, &r) < 0)
        return err_sys(e, "tap %s: bringing it up", t->name);
    return 0;
}

/* The host itself has nothing to say on a guest's cable. Advice: a kernel without IPv6 has no such
 * file, and a failure does no harm. */
static void silence_ipv6(const struct tap *t)
{
    char path[96];
    int fd;

    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", t->name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "1", 1) != 1)
        log_debug("xvm", "%s: %s", path, strerror(errno));
    close(fd);
}

int tap_open(struct tap *t, const struct tap_config *cfg, struct err *e)
{
    int sock = -1;

    *t = (struct tap){ .fd = -1 };
    if (make(t, cfg, e) < 0)
        goto fail;
    sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0) {
        err_sys(e, "tap %s: socket", t->name);
        goto fail;
    }
    silence_ipv6(t);
    if (set_bridge(t, sock, cfg->bridge, e) < 0 || set_mtu(t, sock, cfg, e) < 0 ||
        set_address(t, sock, cfg->mac, e) < 0 || set_up(t, sock, e) < 0)
        goto fail;
    close(sock);
    return 0;

fail:
    io_close(&sock);
    tap_close(t);
    return -1;
}

void tap_close(struct tap *t)
{
    io_close(&t->fd);
}

void tap_drain(const struct tap *t)
{
    uint8_t head[64]; /* each read takes one packet and cuts what does not fit */

    for (unsigned i = 0; i < DRAIN_MAX && read(t->fd, head, sizeof head) >= 0; i++)
        continue;
}

int tap_offload(const struct tap *t, unsigned flags, struct err *e)
{
    if (ioctl(t->fd, TUNSETOFFLOAD, flags) < 0)
        return err_sys(e, "tap %s: offload", t->name);
    return 0;
}
