# shellcheck shell=bash disable=SC2016,SC2034
# SPDX-License-Identifier: ISC
#
# lab: several hosts on one machine, for integration tests. A host is a set of namespaces (network, mount,
# uts) held by one sleeping process; a further network namespace, "net", is the switch between them:
#
#      host1: eth0 10.99.0.1 --+             +-- eth0 10.99.0.2 :host2       lan: the hosts' own network
#                              +--- lan -----+
#      host1: br0 10.99.1.201 -+             +-- br0 10.99.1.202 :host2      guests: taps go on br0; a guest
#                              +--- guests --+                               keeps its network when it moves
#                       10.99.1.254 in "net" (a client of the guests)
#
# Everything is inside namespaces, so labs never collide, and nothing is left when the holders are gone.
# Names: host1.lab and so on by /etc/hosts of each host's own, both ways, IPv6 as host1v6.lab (fd99::1).
# No DNS. Each host has its own /sys (network devices), and a root folder with a short path.
#
#   lab_start [N]               N hosts, default 2; sets LAB_DIR, traps EXIT INT TERM HUP for lab_stop. A test that has
#                               a trap of its own calls lab_stop in it
#   lab_join NAME NUMBER        a further host on the lan only: NAME.lab, 10.99.0.NUMBER; for servers, which
#                               lab_stop kills without asking them first
#   lab_stop                    ends every process in the lab, removes LAB_DIR
#   lab_exec HOST CMD...        runs CMD there ("net" is a HOST too), same working directory
#   lab_bg HOST NAME CMD...     the same in the background: LAB_PID is its process, the log is lab_log HOST NAME
#   lab_kill PID [SIGNAL]       ends a process of lab_bg and waits for it; returns its exit status
#   lab_wait SECONDS CMD...     tries CMD every 0.1 s until it succeeds; 1 if it never did
#   lab_root HOST, lab_addr HOST, lab_log HOST NAME      paths and address
#   lab_cut HOST [lan|guests]   drops all frames silently, the link stays up; lab_heal undoes it
#   lab_unplug HOST [lan|guests]  takes the carrier away; lab_plug undoes it
#   lab_delay HOST MS           delays frames to and from HOST on the lan; 0 undoes it; returns 77 without netem
#   lab_rate HOST MBIT          limits them; 0 undoes it; returns 77 without tbf
#   lab_crash HOST              SIGKILL to every process of HOST at once: power loss. Its network stays
#   lab_skip REASON             ends the test as a skip
#   lab_fail REASON             ends the test as a failure

LAB_DIR=''
LAB_PID=''
declare -gA LAB_HOLDER=() # HOST -> process that holds its namespaces
declare -gA LAB_NUMBER=() # hosts of lab_join: HOST -> last byte of its address

lab_skip() {
    echo "skip: $*"
    exit 77
}

lab_fail() {
    echo "FAILED: $*" >&2
    exit 1
}

lab_wait() {
    local until=$((SECONDS + $1 + 1))
    shift
    until "$@"; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.1
    done
}

lab_root() {
    echo "$LAB_DIR/h${1#host}"
}

lab_addr() {
    echo "10.99.0.${LAB_NUMBER[$1]:-${1#host}}"
}

lab_log() {
    echo "$LAB_DIR/$1-$2.log"
}

# Replaces the calling process, which must be a subshell.
_lab_enter() {
    local holder=${LAB_HOLDER[$1]:-}
    [ -n "$holder" ] || lab_fail "no host $1 in the lab"
    shift
    exec nsenter -t "$holder" -m -u -n --wdns="$PWD" -- "$@"
}

lab_exec() {
    (_lab_enter "$@")
}

lab_bg() {
    local host=$1 name=$2
    shift 2
    (_lab_enter "$host" setpriv --pdeathsig KILL "$@") </dev/null >>"$(lab_log "$host" "$name")" 2>&1 &
    LAB_PID=$!
}

lab_kill() {
    kill -"${2:-TERM}" "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

# --- start

_lab_is_asleep() {
    local name=''
    { read -r name <"/proc/$1/comm"; } 2>/dev/null
    [ "$name" = sleep ]
}

# Namespaces for HOST. The holder dies with this shell; once it sleeps, its mounts are private.
_lab_hold() {
    setpriv --pdeathsig KILL unshare -m -u -n sleep infinity </dev/null >/dev/null 2>&1 &
    LAB_HOLDER[$1]=$!
}

# _lab_cable_commands HOST SWITCH
_lab_cable_commands() {
    echo "link add $1-$2 type veth peer name uplink-$2 netns ${LAB_HOLDER[$1]}"
    echo "link set $1-$2 master $2 up"
}

# The switch and all cables, as input of one "ip -batch": in the testbed each program costs 0.1 s.
_lab_net_commands() {
    local switch
    for switch in lan guests; do
        echo "link add $switch type bridge"
        echo "link set $switch up"
    done
    for ((i = 1; i <= $1; i++)); do
        for switch in lan guests; do
            _lab_cable_commands "host$i" $switch
        done
    done
    echo "link set lo up"
    echo "addr add 10.99.0.254/24 dev lan"
    echo "addr add 10.99.1.254/24 dev guests"
}

# _lab_host_commands NUMBER, on the lan; _lab_guests_commands NUMBER, the bridge for guests.
_lab_host_commands() {
    echo "link set lo up"
    echo "link set uplink-lan name eth0"
    echo "addr add 10.99.0.$1/24 dev eth0"
    [ ! -e /proc/net/if_inet6 ] || echo "addr add fd99::$1/64 dev eth0 nodad"
    echo "link set eth0 up"
}

_lab_guests_commands() {
    echo "link add br0 address 02:99:01:00:00:$(printf %02x "$1") type bridge"
    echo "link set uplink-guests master br0 up"
    echo "addr add 10.99.1.$((200 + $1))/24 dev br0"
    echo "link set br0 up"
}

# _lab_host HOST, by the commands in LAB_DIR/HOST.ip
_lab_host() {
    mkdir -p "$(lab_root "$1")" || return
    lab_exec "$1" bash -e -c '
        mount --bind "$2/hosts" /etc/hosts
        mount --bind "$2/resolv.conf" /etc/resolv.conf
        mount -t sysfs sysfs /sys
        mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null || true
        hostname "$1"
        ip -batch "$2/$1.ip"' lab "$1" "$LAB_DIR"
}

_lab_hosts_file() {
    echo "127.0.0.1 localhost"
    echo "::1 ip6-localhost"
    for ((i = 1; i <= $1; i++)); do
        echo "10.99.0.$i host$i.lab host$i"
        echo "fd99::$i host$i""v6.lab"
    done
}

lab_start() {
    local count=${1:-2} number host pids=()
    [ "$(id -u)" = 0 ] || lab_skip "a lab needs root"
    for program in ip bridge nsenter unshare setpriv; do
        command -v $program >/dev/null || lab_skip "a lab needs the program $program"
    done
    trap lab_stop EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    LAB_DIR=$(mktemp -d /tmp/mig.XXXXXX) || lab_fail "no folder for the lab"
    _lab_hosts_file "$count" >"$LAB_DIR/hosts"
    : >"$LAB_DIR/resolv.conf"

    for host in net $(seq -f host%g "$count"); do
        _lab_hold "$host"
    done
    for host in "${!LAB_HOLDER[@]}"; do
        lab_wait 10 _lab_is_asleep "${LAB_HOLDER[$host]}" ||
            lab_skip "no namespaces here: they need root and a kernel with them"
    done
    _lab_net_commands "$count" >"$LAB_DIR/net.ip"
    lab_exec net ip -batch "$LAB_DIR/net.ip" ||
        lab_skip "no bridges or cables here: the kernel needs the modules bridge and veth"
    for ((number = 1; number <= count; number++)); do
        { _lab_host_commands $number && _lab_guests_commands $number; } >"$LAB_DIR/host$number.ip"
        _lab_host host$number &
        pids[number]=$!
    done
    for ((number = 1; number <= count; number++)); do
        wait "${pids[number]}" || lab_fail "host$number could not be set up"
    done
}

lab_join() {
    local host=$1 number=$2
    LAB_NUMBER[$host]=$number
    _lab_hold "$host"
    lab_wait 10 _lab_is_asleep "${LAB_HOLDER[$host]}" || lab_fail "no namespaces for $host"
    echo "10.99.0.$number $host.lab $host" >>"$LAB_DIR/hosts"
    _lab_cable_commands "$host" lan >"$LAB_DIR/$host.net.ip"
    lab_exec net ip -batch "$LAB_DIR/$host.net.ip" || lab_fail "no cable for $host"
    _lab_host_commands "$number" >"$LAB_DIR/$host.ip"
    _lab_host "$host" || lab_fail "$host could not be set up"
}

# --- stop

# Processes in HOST's network namespace, its holder apart: also daemons that left their parent.
_lab_processes() {
    local holder=${LAB_HOLDER[$1]} entry
    for entry in /proc/[0-9]*; do
        if [ "${entry#/proc/}" != "$holder" ] && [ "$entry/ns/net" -ef "/proc/$holder/ns/net" ]; then
            echo "${entry#/proc/}"
        fi
    done
}

_lab_signal() {
    local pids
    pids=$(_lab_processes "$2")
    # shellcheck disable=SC2086 # a list
    [ -z "$pids" ] || kill -"$1" $pids 2>/dev/null
}

_lab_is_empty() {
    [ -z "$(_lab_processes "$1")" ]
}

# Stopped first, so that none sees another one's end; twice, for those that were just being made.
lab_crash() {
    _lab_signal STOP "$1"
    _lab_signal STOP "$1"
    _lab_signal KILL "$1"
    lab_wait 5 _lab_is_empty "$1"
}

# The shell says nothing of children that it waits for.
_lab_end_servers() {
    local pids
    pids=$(_lab_processes "$1")
    # shellcheck disable=SC2086 # a list
    [ -z "$pids" ] || { kill -KILL $pids && wait $pids; } 2>/dev/null
}

lab_stop() {
    local status=$? host
    trap '' INT TERM HUP
    for host in "${!LAB_HOLDER[@]}"; do
        if [ -n "${LAB_NUMBER[$host]:-}" ]; then
            _lab_end_servers "$host"
        else
            _lab_signal TERM "$host"
        fi
    done
    for host in "${!LAB_HOLDER[@]}"; do
        lab_wait 3 _lab_is_empty "$host" || lab_crash "$host" || echo "lab: processes of $host are left" >&2
        lab_kill "${LAB_HOLDER[$host]}" KILL
    done
    LAB_HOLDER=() LAB_NUMBER=()
    [ -z "$LAB_DIR" ] || rm -rf "$LAB_DIR"
    LAB_DIR=''
    trap - EXIT INT TERM HUP
    return $status
}

# --- faults

lab_cut() {
    lab_exec net bridge link set dev "$1-${2:-lan}" state 0
}

lab_heal() {
    lab_exec net bridge link set dev "$1-${2:-lan}" state 3
}

lab_unplug() {
    lab_exec net ip link set "$1-${2:-lan}" down
}

lab_plug() {
    lab_exec net ip link set "$1-${2:-lan}" up
}

# _lab_shape HOST VALUE QDISC...: on both ends of HOST's cable; 0 removes.
_lab_shape() {
    local host=$1 value=$2
    shift 2
    if [ "$value" = 0 ]; then
        lab_exec net tc qdisc del dev "$host-lan" root 2>/dev/null
        lab_exec "$host" tc qdisc del dev eth0 root 2>/dev/null
        return 0
    fi
    lab_exec net tc qdisc replace dev "$host-lan" root "$@" 2>/dev/null || return 77
    lab_exec "$host" tc qdisc replace dev eth0 root "$@" 2>/dev/null || return 77
}

lab_delay() {
    _lab_shape "$1" "$2" netem delay "$2ms" limit 100000
}

lab_rate() {
    _lab_shape "$1" "$2" tbf rate "$2mbit" burst 256k latency 50ms
}
