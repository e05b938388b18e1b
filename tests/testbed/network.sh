# SPDX-License-Identifier: ISC
# shellcheck shell=bash
# The network of a virtual host, read by stage2.sh: names, eth0 for the hosts, a bridge for guests. One
# "ip -batch", since each program costs a tenth of a second in there.
network_up() {
    local bridge=$1 number=$2
    cp /run/testbed/hosts /etc/hosts
    : >/etc/resolv.conf
    ip -batch - <<END
link set eth0 mtu 60000 up
addr add 10.99.0.$number/24 dev eth0
addr add fd99::$number/64 dev eth0 nodad
link add $bridge address 02:99:01:00:00:$(printf %02x "$number") type bridge
link set eth1 master $bridge up
addr add 10.99.1.$((200 + number))/24 dev $bridge
link set $bridge up
END
}
