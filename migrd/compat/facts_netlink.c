/* SPDX-License-Identifier: ISC */
/*
 * VLANs of a bridge's port, by netlink: one link asked for by its number, once as itself (is it
 * a VLAN device, and of which tag?), and once as a bridge's port with RTEXT_FILTER_BRVLAN (what the
 * bridge's filter lets out of it with a tag). What leaves without a tag is left out.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <string.h>

#include "migrd/compat/facts_internal.h"

struct asked {
    int ifindex;
    struct vlan_set *out;
};

static void add(struct vlan_set *s, unsigned vlan)
{
    if (vlan > 0 && vlan < FACTS_VLANS_MAX - 1)
        s->bit[vlan / 64] |= UINT64_C(1) << (vlan % 64);
}

/* IFLA_LINKINFO { IFLA_INFO_KIND "vlan", IFLA_INFO_DATA { IFLA_VLAN_ID } } */
static void read_own_tag(struct nlattr *info, struct vlan_set *out)
{
    struct nlattr *in[IFLA_INFO_MAX + 1], *data[IFLA_VLAN_MAX + 1];

    if (nla_parse_nested(in, IFLA_INFO_MAX, info, NULL) < 0 || in[IFLA_INFO_KIND] == NULL ||
        in[IFLA_INFO_DATA] == NULL || nla_strcmp(in[IFLA_INFO_KIND], "vlan") != 0)
        return;
    if (nla_parse_nested(data, IFLA_VLAN_MAX, in[IFLA_INFO_DATA], NULL) == 0 &&
        data[IFLA_VLAN_ID] != NULL && nla_len(data[IFLA_VLAN_ID]) >= (int)sizeof(uint16_t))
        add(out, nla_get_u16(data[IFLA_VLAN_ID]));
}

/* IFLA_AF_SPEC { IFLA_BRIDGE_VLAN_INFO ... } */
static void read_filter(struct nlattr *spec, struct vlan_set *out)
{
    struct nlattr *a;
    int left;

    nla_for_each_nested(a, spec, left)
    {
        struct bridge_vlan_info v;

        if (nla_type(a) != IFLA_BRIDGE_VLAN_INFO || nla_len(a) < (int)sizeof v)
            continue;
        memcpy(&v, nla_data(a), sizeof v);
        if ((v.flags & BRIDGE_VLAN_INFO_UNTAGGED) == 0)
            add(out, v.vid);
    }
}

void facts_read_link(struct nlmsghdr *h, int ifindex, struct vlan_set *out)
{
    struct nlattr *a[IFLA_MAX + 1];
    const struct ifinfomsg *i;

    if (h->nlmsg_type != RTM_NEWLINK || !nlmsg_valid_hdr(h, (int)sizeof *i))
        return;
    i = nlmsg_data(h);
    if (i->ifi_index != ifindex || nlmsg_parse(h, (int)sizeof *i, a, IFLA_MAX, NULL) < 0)
        return;
    if (i->ifi_family == AF_BRIDGE && a[IFLA_AF_SPEC] != NULL)
        read_filter(a[IFLA_AF_SPEC], out);
    if (i->ifi_family != AF_BRIDGE && a[IFLA_LINKINFO] != NULL)
        read_own_tag(a[IFLA_LINKINFO], out);
}

static int got_link(struct nl_msg *m, void *arg)
{
    const struct asked *q = arg;

    facts_read_link(nlmsg_hdr(m), q->ifindex, q->out);
    return NL_OK;
}

/* A bridge's ports can only be had all at once. */
static int ask(struct nl_sock *sk, int family, const struct asked *q)
{
    const bool bridge = family == AF_BRIDGE;
    struct ifinfomsg i = { .ifi_family = (unsigned char)family,
        .ifi_index = bridge ? 0 : q->ifindex };
    struct nl_msg *m = nlmsg_alloc_simple(RTM_GETLINK, bridge ? NLM_F_DUMP : 0);
    int r = -NLE_NOMEM;

    if (m == NULL)
        return r;
    if (nlmsg_append(m, &i, sizeof i, NLMSG_ALIGNTO) == 0 &&
        (!bridge || nla_put_u32(m, IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN) == 0)) {
        nl_socket_modify_cb(sk, NL_CB_VALID, NL_CB_CUSTOM, got_link, (void *)(uintptr_t)q);
        r = nl_send_auto(sk, m);
        if (r >= 0)
            r = nl_recvmsgs_default(sk);
    }
    nlmsg_free(m);
    return r;
}

int facts_port_vlans(const char *port, bool filtering, struct vlan_set *out, struct err *e)
{
    const struct asked q = { (int)if_nametoindex(port), out };
    struct nl_sock *sk;
    int r;

    if (q.ifindex == 0)
        return 0; /* has just gone */
    sk = nl_socket_alloc();
    if (sk == NULL)
        return err_set(e, ERR_MEMORY, "netlink: out of memory");
    nl_socket_disable_auto_ack(sk);
    nl_socket_enable_msg_peek(sk);
    r = nl_connect(sk, NETLINK_ROUTE);
    if (r >= 0)
        r = ask(sk, AF_UNSPEC, &q);
    if (r >= 0 && filtering)
        r = ask(sk, AF_BRIDGE, &q);
    nl_socket_free(sk);
    return r < 0 ? err_set(e, ERR_SYSTEM, "VLANs of port %s: %s", port, nl_geterror(r)) : 0;
}
