/* SPDX-License-Identifier: ISC */
/*
 * A bridge or device, by /sys/class/net. A port with tun_flags is a tap, that is a guest's;
 * every other one is an uplink. The bridge's forwarding table (brforward: entries of
 * linux/if_bridge.h) says which addresses came in by which port: those of taps are guests'.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <ifaddrs.h>
#include <linux/if_bridge.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "migrd/compat/facts_internal.h"

#define PATH_LEN 512
#define TABLE_MAX (1u << 20) /* bytes of the forwarding table that are read */
#define PORTS_MAX 1024       /* of a bridge */

static bool exists(const char *sys, const char *name, const char *file)
{
    char path[PATH_LEN];

    snprintf(path, sizeof path, "%s/class/net/%s%s%s", sys, name, file[0] != '\0' ? "/" : "", file);
    return access(path, F_OK) == 0;
}

static uint64_t number(const char *sys, const char *name, const char *file)
{
    char path[PATH_LEN];

    snprintf(path, sizeof path, "class/net/%s/%s", name, file);
    return facts_number(sys, path);
}

static const char *kind_of(const char *sys, const char *name)
{
    if (!exists(sys, name, ""))
        return "";
    if (exists(sys, name, "bridge"))
        return "bridge";
    if (!exists(sys, name, "tun_flags"))
        return "device";
    return number(sys, name, "carrier") == 1 ? "tap in use" : "tap"; /* a process holds it */
}

/* --- addresses --- */

static bool subnet_text(
    const struct sockaddr *a, const struct sockaddr *mask, char *out, size_t len)
{
    uint8_t net[16], bits[16];
    char text[INET6_ADDRSTRLEN];
    size_t n = a->sa_family == AF_INET ? 4 : 16;
    unsigned prefix = 0;

    if (n == 4) {
        memcpy(net, &((const struct sockaddr_in *)(const void *)a)->sin_addr, n);
        memcpy(bits, &((const struct sockaddr_in *)(const void *)mask)->sin_addr, n);
    } else {
        memcpy(net, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, n);
        memcpy(bits, &((const struct sockaddr_in6 *)(const void *)mask)->sin6_addr, n);
        if (net[0] == 0xfe && (net[1] & 0xc0) == 0x80)
            return false; /* link-local: the same everywhere */
    }
    for (size_t i = 0; i < n; i++) {
        net[i] &= bits[i];
        prefix += (unsigned)__builtin_popcount(bits[i]);
    }
    if (inet_ntop(a->sa_family, net, text, sizeof text) == NULL)
        return false;
    snprintf(out, len, "%s/%u", text, prefix);
    return true;
}

static bool has_subnet(const Migrd__NetFacts *n, const char *text)
{
    for (size_t i = 0; i < n->n_subnets; i++)
        if (strcmp(n->subnets[i], text) == 0)
            return true;
    return false;
}

static void add_subnets(Migrd__NetFacts *n)
{
    struct ifaddrs *all = NULL;
    char text[INET6_ADDRSTRLEN + 8];

    if (getifaddrs(&all) < 0)
        return;
    n->subnets = calloc(FACTS_SUBNETS_MAX, sizeof *n->subnets);
    for (struct ifaddrs *a = all; n->subnets != NULL && a != NULL; a = a->ifa_next) {
        if (n->n_subnets == FACTS_SUBNETS_MAX || strcmp(a->ifa_name, n->name) != 0 ||
            a->ifa_addr == NULL || a->ifa_netmask == NULL ||
            (a->ifa_addr->sa_family != AF_INET && a->ifa_addr->sa_family != AF_INET6))
            continue;
        if (subnet_text(a->ifa_addr, a->ifa_netmask, text, sizeof text) && !has_subnet(n, text) &&
            (n->subnets[n->n_subnets] = strdup(text)) != NULL)
            n->n_subnets++;
    }
    freeifaddrs(all);
}

/* --- a bridge's ports --- */

struct ports {
    size_t n;
    struct {
        char name[IFNAMSIZ];
        unsigned number; /* in the forwarding table */
        bool tap;
    } port[PORTS_MAX];
};

static void list_ports(const char *sys, const char *bridge, struct ports *p)
{
    char path[PATH_LEN];
    struct dirent *x;
    DIR *d;

    snprintf(path, sizeof path, "%s/class/net/%s/brif", sys, bridge);
    d = opendir(path);
    while (d != NULL && p->n < PORTS_MAX && (x = readdir(d)) != NULL) {
        char *end, *text;

        if (x->d_name[0] == '.' || strlen(x->d_name) >= IFNAMSIZ)
            continue;
        strcpy(p->port[p->n].name, x->d_name);
        snprintf(path, sizeof path, "%s/class/net/%s/brport/port_no", sys, x->d_name);
        text = io_read_file(path, 64, NULL, NULL);
        p->port[p->n].number = text != NULL ? (unsigned)strtoul(text, &end, 0) : 0;
        free(text);
        p->port[p->n].tap = exists(sys, x->d_name, "tun_flags");
        p->n++;
    }
    if (d != NULL)
        closedir(d);
}

static bool is_tap(const struct ports *p, unsigned number_)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->port[i].number == number_)
            return p->port[i].tap;
    return false;
}

/* The table without its locks, in one go; what comes meanwhile is missed. */
static void add_macs(const char *sys, const struct ports *p, Migrd__NetFacts *n)
{
    char path[PATH_LEN], text[18];
    size_t len = 0;
    char *table;

    snprintf(path, sizeof path, "%s/class/net/%s/brforward", sys, n->name);
    table = io_read_file(path, TABLE_MAX, &len, NULL);
    n->macs = table != NULL ? calloc(FACTS_MACS_MAX, sizeof *n->macs) : NULL;
    for (size_t at = 0; n->macs != NULL && at + sizeof(struct __fdb_entry) <= len;
         at += sizeof(struct __fdb_entry)) {
        struct __fdb_entry f;

        memcpy(&f, table + at, sizeof f);
        if (f.is_local || n->n_macs == FACTS_MACS_MAX ||
            !is_tap(p, f.port_no | (unsigned)f.port_hi << 8))
            continue;
        snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", f.mac_addr[0], f.mac_addr[1],
            f.mac_addr[2], f.mac_addr[3], f.mac_addr[4], f.mac_addr[5]);
        if ((n->macs[n->n_macs] = strdup(text)) != NULL)
            n->n_macs++;
    }
    free(table);
}

static void put_vlans(const struct vlan_set *set, Migrd__NetFacts *n)
{
    size_t count = 0;

    for (size_t i = 0; i < FACTS_VLANS_MAX / 64; i++)
        count += (size_t)__builtin_popcountll(set->bit[i]);
    if (count == 0 || (n->vlans = calloc(count, sizeof *n->vlans)) == NULL)
        return;
    for (uint32_t v = 0; v < FACTS_VLANS_MAX; v++)
        if ((set->bit[v / 64] >> (v % 64) & 1) != 0)
            n->vlans[n->n_vlans++] = v;
}

static void add_vlans(const char *sys, const struct ports *p, Migrd__NetFacts *n)
{
    bool filtering = number(sys, n->name, "bridge/vlan_filtering") == 1;
    struct vlan_set set = { { 0 } };
    struct err e;

    for (size_t i = 0; i < p->n; i++)
        if (!p->port[i].tap && facts_port_vlans(p->port[i].name, filtering, &set, &e) < 0) {
            n->error = facts_text(e.text);
            return;
        }
    put_vlans(&set, n);
}

static void look_at_bridge(const char *sys, Migrd__NetFacts *n)
{
    struct ports *p = calloc(1, sizeof *p);

    if (p == NULL)
        return;
    list_ports(sys, n->name, p);
    add_macs(sys, p, n);
    add_vlans(sys, p, n);
    free(p);
}

/* --- all of it --- */

/* Of an interface: no other may reach a path. */
static bool good_name(const char *name)
{
    size_t n = strlen(name);

    return n > 0 && n < IFNAMSIZ && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

Migrd__NetFacts *facts_net_at(const char *sys, const char *name)
{
    Migrd__NetFacts *n = malloc(sizeof *n);
    const char *kind = good_name(name) ? kind_of(sys, name) : "";

    if (n == NULL)
        return NULL;
    migrd__net_facts__init(n);
    n->name = facts_text(name);
    n->kind = facts_text(kind);
    if (kind[0] == '\0')
        return n;
    n->mtu = (uint32_t)number(sys, name, "mtu");
    add_subnets(n);
    if (strcmp(kind, "bridge") == 0)
        look_at_bridge(sys, n);
    return n;
}

Migrd__NetFacts *facts_net(const char *name)
{
    return facts_net_at(FACTS_SYS, name);
}
