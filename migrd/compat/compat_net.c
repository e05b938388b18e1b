/* SPDX-License-Identifier: ISC */
/*
 * Networks. A guest takes its addresses, its MTU and its tags along, so the bridge of the same
 * name on the target must lead to the same network. Told from outside: MTU, VLANs that leave
 * the host through it, subnets of the host's own addresses on it. What only one host tells is a
 * warning; what neither tells is not compared. Frames of guests carry their MAC wherever they
 * are: another guest with the same one on the target's bridge is a clash.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "migrd/compat/compat_internal.h"

/* Of what another host tells no more is looked at. */
#define VLANS 4096u
#define SUBNETS 32u
#define NETS 256u

static const Migrd__NetFacts *net_of(const Migrd__HostFacts *f, const char *name)
{
    for (size_t i = 0; i < f->n_nets && i < NETS; i++)
        if (strcmp(f->nets[i]->name, name) == 0)
            return f->nets[i];
    return NULL;
}

/* --- lists --- */

/* One bit a tag. */
struct tags {
    bool has[VLANS];
    unsigned n;
};

static void read_tags(const Migrd__NetFacts *n, struct tags *out)
{
    *out = (struct tags){ .n = 0 };
    for (size_t i = 0; i < n->n_vlans; i++) {
        uint32_t v = n->vlans[i];

        if (v < VLANS && !out->has[v]) {
            out->has[v] = true;
            out->n++;
        }
    }
}

static void take_away(struct tags *from, const struct tags *what)
{
    for (unsigned v = 0; v < VLANS; v++)
        if (from->has[v] && what->has[v]) {
            from->has[v] = false;
            from->n--;
        }
}

/* "1-9 100"; cut where it gets too long. */
static void tag_list(const struct tags *t, char *out, size_t len)
{
    size_t at = 0;

    snprintf(out, len, "untagged");
    for (unsigned first = 0; first < VLANS && at + 32 < len; first++) {
        unsigned last = first;

        if (!t->has[first])
            continue;
        while (last + 1 < VLANS && t->has[last + 1])
            last++;
        at += (size_t)snprintf(
            out + at, len - at, last > first ? "%s%u-%u" : "%s%u", at > 0 ? " " : "", first, last);
        first = last;
    }
}

static size_t subnets_of(const Migrd__NetFacts *n)
{
    return n->n_subnets < SUBNETS ? n->n_subnets : SUBNETS;
}

static void subnet_list(const Migrd__NetFacts *n, char *out, size_t len)
{
    size_t at = 0;

    snprintf(out, len, "no address");
    for (size_t i = 0; i < subnets_of(n) && at + 52 < len; i++)
        at += (size_t)snprintf(out + at, len - at, "%s%.50s", at > 0 ? " " : "", n->subnets[i]);
}

static bool is_v6(const char *subnet)
{
    return strchr(subnet, ':') != NULL;
}

/* -1: no family that both have addresses of; else whether there is a common one. */
static int subnets_agree(const Migrd__NetFacts *a, const Migrd__NetFacts *b)
{
    int r = -1;

    for (size_t i = 0; i < subnets_of(a); i++)
        for (size_t k = 0; k < subnets_of(b); k++) {
            if (strcmp(a->subnets[i], b->subnets[k]) == 0)
                return 1;
            if (is_v6(a->subnets[i]) == is_v6(b->subnets[k]))
                r = 0;
        }
    return r;
}

/* --- the bridge --- */

struct port {
    struct compare *c;
    const Migrd__Vif *vif;
    const Migrd__NetFacts *s, *t; /* its bridge; s NULL: the source does not tell */
    char object[64];
};

static void mtu(const struct port *p)
{
    const char *bridge = p->vif->bridge;
    uint32_t guest = p->vif->mtu != 0 ? p->vif->mtu : p->s != NULL ? p->s->mtu : 0;
    char s[32] = "", t[32];

    if (guest == 0 || p->t->mtu == 0)
        return;
    snprintf(s, sizeof s, "MTU %u", guest);
    snprintf(t, sizeof t, "MTU %u", p->t->mtu);
    if (p->t->mtu == guest)
        compat_line(p->c, CHECK_OK, "network", p->object, s, t, "%s has the same MTU", bridge);
    else if (p->t->mtu < guest)
        checks_remedy(compat_line(p->c, CHECK_REFUSED, "network", p->object, s, t,
                          "bridge %s of host %s has MTU %u, the guest sends packets of up to %u "
                          "bytes: longer ones would be lost",
                          bridge, p->c->dst, p->t->mtu, guest),
            "on host %s: ip link set %s mtu %u, and the same for its uplink", p->c->dst, bridge,
            guest);
    else
        checks_remedy(compat_line(p->c, CHECK_WARN, "network", p->object, s, t,
                          "bridge %s of host %s has MTU %u, the guest takes packets of up to %u "
                          "bytes: longer ones from there are lost",
                          bridge, p->c->dst, p->t->mtu, guest),
            "give the bridges the same MTU");
}

static void vlans(const struct port *p)
{
    char s[COMPAT_LIST_LEN], t[COMPAT_LIST_LEN], lack[COMPAT_LIST_LEN];
    const char *bridge = p->vif->bridge;
    struct tags source, target, missing;

    if (p->s == NULL || (p->s->n_vlans == 0 && p->t->n_vlans == 0))
        return;
    read_tags(p->s, &source);
    read_tags(p->t, &target);
    missing = source;
    take_away(&missing, &target);
    tag_list(&source, s, sizeof s);
    tag_list(&target, t, sizeof t);
    tag_list(&missing, lack, sizeof lack);
    if (missing.n > 0)
        checks_remedy(compat_line(p->c, CHECK_REFUSED, "network", p->object, s, t,
                          "bridge %s leads to VLAN %s on host %s, and not on host %s", bridge, lack,
                          p->c->src, p->c->dst),
            "let the uplink of %s on host %s carry VLAN %s", bridge, p->c->dst, lack);
    else if (source.n == 0)
        checks_remedy(compat_line(p->c, CHECK_WARN, "network", p->object, s, t,
                          "bridge %s leads to VLAN %s on host %s, and is untagged on host %s: "
                          "whether that is the same network is not known",
                          bridge, t, p->c->dst, p->c->src),
            "give the bridges' uplinks the same tags");
    else
        compat_line(
            p->c, CHECK_OK, "network", p->object, s, t, "%s leads to the same VLANs", bridge);
}

static void subnets(const struct port *p)
{
    char s[COMPAT_LIST_LEN], t[COMPAT_LIST_LEN];
    const char *bridge = p->vif->bridge;
    int agree;

    if (p->s == NULL || (p->s->n_subnets == 0 && p->t->n_subnets == 0))
        return;
    subnet_list(p->s, s, sizeof s);
    subnet_list(p->t, t, sizeof t);
    agree = subnets_agree(p->s, p->t);
    if (agree == 0)
        checks_remedy(compat_line(p->c, CHECK_REFUSED, "network", p->object, s, t,
                          "bridge %s is in subnet %s on host %s and in %s on host %s: the guest "
                          "would keep its address in the wrong network",
                          bridge, s, p->c->src, t, p->c->dst),
            "connect %s of host %s to the network of host %s", bridge, p->c->dst, p->c->src);
    else if (agree < 0)
        checks_remedy(
            compat_line(p->c, CHECK_WARN, "network", p->object, s, t,
                "the hosts have no addresses on bridge %s that could be compared: whether "
                "it is the same network is not known",
                bridge),
            "none is needed if it is; an address of each host on %s lets it be compared", bridge);
    else
        compat_line(p->c, CHECK_OK, "network", p->object, s, t, "%s is in the same subnet", bridge);
}

static void missing_bridge(const struct port *p, const char *has)
{
    bool none = has[0] == '\0';

    checks_remedy(compat_line(p->c, CHECK_REFUSED, "network", p->object, p->vif->bridge,
                      none ? "missing" : has,
                      none ? "domain %s needs bridge %s, which host %s does not have"
                           : "domain %s needs bridge %s, which is no bridge on host %s",
                      p->c->def->name, p->vif->bridge, p->c->dst),
        "create it there, with the same uplink as on host %s, or give the guest another bridge",
        p->c->src);
}

static void bridge(struct port *p)
{
    struct compare *c = p->c;

    p->s = c->told ? net_of(c->source, p->vif->bridge) : NULL;
    p->t = net_of(c->target, p->vif->bridge);
    if (p->t == NULL || p->t->kind[0] == '\0' || strcmp(p->t->kind, "bridge") != 0) {
        missing_bridge(p, p->t != NULL ? p->t->kind : "");
        return;
    }
    if (p->t->error[0] != '\0')
        compat_line(c, CHECK_WARN, "network", p->object, "", "", "host %s: bridge %s: %s", c->dst,
            p->vif->bridge, p->t->error);
    compat_line(c, CHECK_OK, "network", p->object, p->vif->bridge, p->vif->bridge,
        "bridge %s is there", p->vif->bridge);
    mtu(p);
    vlans(p);
    subnets(p);
}

/* --- clashes --- */

/* Who there has the MAC: its name, or NULL. */
static const char *mac_owner(const struct compare *c, const char *mac)
{
    for (size_t i = 0; i < c->in->n_others; i++) {
        const Migrd__Domain *d = c->in->others[i];

        for (size_t k = 0; k < d->n_vifs; k++)
            if (strcasecmp(d->vifs[k]->mac, mac) == 0)
                return d->name;
    }
    return NULL;
}

static bool mac_seen(const struct port *p)
{
    for (size_t i = 0; p->t != NULL && i < p->t->n_macs; i++)
        if (strcasecmp(p->t->macs[i], p->vif->mac) == 0)
            return true;
    return false;
}

static void mac(const struct port *p)
{
    const char *owner = mac_owner(p->c, p->vif->mac);

    if (owner != NULL)
        checks_remedy(compat_line(p->c, CHECK_REFUSED, "network", p->object, p->vif->mac, owner,
                          "MAC %s is that of domain %s on host %s", p->vif->mac, owner, p->c->dst),
            "give one of the two another MAC");
    else if (mac_seen(p))
        checks_remedy(compat_line(p->c, CHECK_REFUSED, "network", p->object, p->vif->mac, "in use",
                          "MAC %s is used by a guest on bridge %s of host %s", p->vif->mac,
                          p->vif->bridge, p->c->dst),
            "`bridge fdb show br %s` there tells on which port; give one of the two another MAC",
            p->vif->bridge);
    else
        compat_line(p->c, CHECK_OK, "network", p->object, p->vif->mac, "",
            "no guest of host %s has this MAC", p->c->dst);
}

/* Xen makes the interface itself, so the name must be free. */
static void netback(const struct port *p, const Migrd__NetFacts *n)
{
    const char *name = p->vif->ifname;

    if (n == NULL || n->kind[0] == '\0')
        compat_line(p->c, CHECK_OK, "network", p->object, name, "free",
            "interface %s can be made on host %s", name, p->c->dst);
    else
        checks_remedy(compat_line(p->c, CHECK_REFUSED, "network", p->object, name, n->kind,
                          "host %s has an interface %s already", p->c->dst, name),
            "leave vifname= out so that a name is made up");
}

static void ifname(const struct port *p)
{
    const char *name = p->vif->ifname;
    const Migrd__NetFacts *n = name[0] != '\0' ? net_of(p->c->target, name) : NULL;
    const bool tap = n != NULL && strcmp(n->kind, "tap") == 0;

    if (name[0] == '\0')
        return;
    if (compat_is_xen(p->c)) {
        netback(p, n);
        return;
    }
    if (n == NULL || n->kind[0] == '\0' || tap)
        compat_line(p->c, CHECK_OK, "network", p->object, name, tap ? "tap" : "free",
            "tap %s can be had on host %s", name, p->c->dst);
    else if (strcmp(n->kind, "tap in use") == 0)
        checks_remedy(compat_line(p->c, CHECK_REFUSED, "network", p->object, name, n->kind,
                          "tap %s is used by another process on host %s", name, p->c->dst),
            "end it, or leave vifname= out so that a name is made up");
    else
        checks_remedy(compat_line(p->c, CHECK_REFUSED, "network", p->object, name, n->kind,
                          "host %s has an interface %s, and it is no tap", p->c->dst, name),
            "leave vifname= out so that a name is made up");
}

void compat_net(struct compare *c)
{
    for (size_t i = 0; i < c->def->n_vifs; i++) {
        struct port p = { .c = c, .vif = c->def->vifs[i] };

        snprintf(p.object, sizeof p.object, "vif %.20s", p.vif->mac);
        if (p.vif->bridge[0] != '\0')
            bridge(&p);
        mac(&p);
        ifname(&p);
    }
}
