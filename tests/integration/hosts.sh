# SPDX-License-Identifier: ISC
# shellcheck shell=bash disable=SC2016,SC2034
#
# hosts: two hosts with a migrd each, for the tests and the demo. Sourced. On top of lab.sh,
# which makes network namespaces with names, addresses and a bridge for guests; this adds
# certificates, configuration, the daemons, and guests to move about.
#
#   hosts_up ["key = value" ...]   both hosts, with these lines added to migrd.conf
#   xm 1 list, migctl 2 status     the tools on host 1, 2
#   guest_make 1 NAME MIB WORDS    the test guest, started on host 1
#   guest_ask 1 NAME stat          a command to its console, and its answer
#   linux_boots 1 NAME START END   the Linux guest, with more than one attempt
#   daemon_start 1, daemon_stop 1, daemon_kill 1
#   fault_arm 1 POINT=ACTION       on host 1, see base/fault.h; with HOSTS_FAULTS=1 before hosts_up
#   fault_wait 1 SECONDS           until that point is hit: FAULT_PID is the process that hit it
#
# Everything is removed at exit (lab_stop). Needs BUILD, the folder of the built programs.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
BUILD=${BUILD:-$TOP/build}
HOSTS=2
HOSTS_FAULTS=${HOSTS_FAULTS:-}
declare -A DAEMON_PID FAULT_SERIAL
FAULT_PID=''

say() { printf '%s\n' "$*"; }
die() {
    printf 'FAILED: %s\n' "$*" >&2
    hosts_show_logs >&2
    exit "${DIE_STATUS:-1}"
}
skip() {
    printf 'skipped: %s\n' "$*"
    exit 77
}

# Succeeds if /dev/kvm makes a virtual machine; prints why not. NO_KVM=1 plays a machine without.
kvm_works() {
    [ -z "${NO_KVM:-}" ] || { echo "NO_KVM is set"; return 1; }
    /usr/bin/python3 -c '
import fcntl, os, sys
KVM_GET_API_VERSION, KVM_CREATE_VM = 0xAE00, 0xAE01
try:
    kvm = os.open("/dev/kvm", os.O_RDWR)
    if fcntl.ioctl(kvm, KVM_GET_API_VERSION) != 12:
        sys.exit("/dev/kvm has another interface version")
    os.close(fcntl.ioctl(kvm, KVM_CREATE_VM, 0))
except OSError as why:
    sys.exit(f"/dev/kvm: {why.strerror}")' 2>&1
}

need_kvm() {
    local why
    [ "$(id -u)" = 0 ] || skip "needs root for network namespaces"
    why=$(kvm_works) || skip "no usable KVM on this machine: $why"
}

# Runs the calling script again inside a virtual host when this machine has no usable KVM.
need_kvm_or_testbed() {
    local why
    [ "$(id -u)" = 0 ] || skip "needs root for network namespaces"
    why=$(kvm_works) && return 0
    [ -z "${IN_TESTBED:-}" ] || skip "the virtual host has no KVM either: $why"
    say "no usable KVM on this machine ($why)"
    say "running inside a virtual host in software emulation instead, which is slow"
    exec "$TOP/tests/testbed/testbed" run --kind kvm --cpus 1 --memory 4096 --timeout 600 \
        --env IN_TESTBED=1 --env BUILD="$BUILD" "$(readlink -f "$0")" "$@"
}

# shellcheck source=tests/integration/lab.sh
. "$HERE/lab.sh"

root_of() { lab_root "host$1"; }
host_name() { printf 'host%s.lab' "$1"; }
log_of() { printf '%s/migrd.log' "$(root_of "$1")"; }

on() {
    local h=$1
    shift
    lab_exec "host$h" "$@"
}
xm() {
    local h=$1
    shift
    on "$h" "$BUILD/xm" --root "$(root_of "$h")" "$@"
}
migctl() {
    local h=$1
    shift
    on "$h" "$BUILD/migctl" --root "$(root_of "$h")" "$@"
}

pki_for() {
    local h=$1 r
    r=$(root_of "$h")
    "$BUILD/migctl" pki issue "$(host_name "$h")" --dir "$LAB_DIR/ca" --out "$r/etc/migrd/pki" \
        --alt "$(lab_addr "host$h")" >/dev/null || die "certificate of host $h"
}

config_for() {
    local h=$1 r
    shift
    r=$(root_of "$h")
    {
        printf 'xend-relocation-address = ""\n'
        printf 'xend-relocation-hosts-allow = "^host[0-9]+\\.lab$"\n'
        printf 'log-file = %s\n' "$(log_of "$h")"
        printf '%s\n' "$@"
    } >"$r/etc/migrd/migrd.conf"
}

hosts_up() {
    local h
    lab_start "$HOSTS"
    "$BUILD/migctl" pki init --dir "$LAB_DIR/ca" >/dev/null || die "certificate authority"
    for h in $(seq "$HOSTS"); do
        mkdir -p "$(root_of "$h")/etc/migrd/pki"
        pki_for "$h"
        config_for "$h" "$@"
        [ -z "$HOSTS_FAULTS" ] || : >"$(fault_file "$h")"
        daemon_start "$h"
    done
}

daemon_start() {
    local h=$1
    lab_bg "host$h" migrd env ${HOSTS_FAULTS:+"MIGRD_FAULT_FILE=$(fault_file "$h")"} \
        "$BUILD/migrd" --root "$(root_of "$h")"
    DAEMON_PID[$h]=$LAB_PID
    wait_for 10 "migrd of host $h answers" migctl "$h" status
}

daemon_end() {
    lab_kill "${DAEMON_PID[$1]}" "$2"
    unset "DAEMON_PID[$1]"
}
daemon_stop() { daemon_end "$1" TERM; }
daemon_kill() { daemon_end "$1" KILL; }

fault_file() { printf '%s/faults' "$(root_of "$1")"; }

fault_arm() {
    FAULT_SERIAL[$1]=$((${FAULT_SERIAL[$1]:-0} + 1))
    /usr/bin/python3 -c '
import os, sys
f = os.open(sys.argv[1], os.O_WRONLY)
os.write(f, sys.argv[2].encode().ljust(512, b"\0"))' "$(fault_file "$1")" "${FAULT_SERIAL[$1]} $2
"
}

fault_hit() { fault_pid "$1" | grep -q .; }
fault_pid() { tail -c +513 "$(fault_file "$1")" | awk -v n="${FAULT_SERIAL[$1]}" '$1 == n {print $2; exit}'; }

fault_wait() {
    wait_for "$2" "the fault point on host $1 is hit" fault_hit "$1"
    FAULT_PID=$(fault_pid "$1")
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds. Status 75: tests/run tries once more.
wait_for() {
    local limit=$1 what=$2 end
    shift 2
    end=$((SECONDS + limit))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || DIE_STATUS=75 die "waited $limit s in vain: $what"
        sleep 0.1
    done
}

# expect WHAT PATTERN COMMAND...: the command fails and says so.
expect_refusal() {
    local what=$1 pattern=$2 out
    shift 2
    if out=$("$@" 2>&1); then
        die "$what: was not refused: $out"
    fi
    grep -qE -- "$pattern" <<<"$out" || die "$what: expected /$pattern/, got: $out"
    say "  $what: $(grep -E -- "$pattern" <<<"$out" | head -1)"
}

guest_file() { printf '%s/%s.cfg' "$LAB_DIR" "$1"; }

# guest_make HOST NAME MIB WORDS...: MIB of memory; WORDS are the guest's (fill=, ws=, rate=).
# GUEST_HUGE=1: its memory is of 2 MiB pages. GUEST_DISK='nfs://...,vda,w': it has this disk.
guest_make() {
    local h=$1 name=$2 mib=$3
    shift 3
    cat >"$(guest_file "$name")" <<EOF
name = "$name"
memory = $mib
vcpus = 1
kernel = "$BUILD/guests/testguest"
hugepages = ${GUEST_HUGE:-0}
extra = "$*"
${GUEST_DISK:+disk = ['$GUEST_DISK']}
EOF
    xm "$h" create "$(guest_file "$name")" || die "xm create $name on host $h"
    wait_for 60 "$name ticks on its console" guest_ticks "$h" "$name"
}

# linux_boots HOST NAME START END: makes the Linux guest by the command START until it ticks. The emulated
# processor has been seen to crash such a guest in its first seconds, and to hang it: END, and once more.
linux_ticks_or_crashed() {
    guest_ticks "$1" "$2" || xm "$1" list "$2" | awk 'NR == 2 && $5 ~ /c/ {found = 1} END {exit !found}'
}
linux_boots() {
    local attempt why
    for attempt in 1 2 3; do
        "$3" || die "$2 cannot be started"
        why="crashed while it booted"
        lab_wait 150 linux_ticks_or_crashed "$1" "$2" >/dev/null 2>&1 || why="neither ticks nor crashes within 150 s"
        ! guest_ticks "$1" "$2" || return 0
        say "attempt $attempt: the guest $why; the end of its console:"
        tail -n 15 "$(console_log "$1" "$2")" | sed 's/^/  | /'
        "$4" || die "$2 cannot be destroyed"
    done
    die "the guest does not boot"
}

console_log() { printf '%s/var/log/migrd/console-%s.log' "$(root_of "$1")" "$2"; }
guest_ticks() { grep -q '^tick ' "$(console_log "$1" "$2")"; }

guest_pty() {
    migctl "$1" list --json | /usr/bin/python3 -c '
import json, sys
for d in json.load(sys.stdin)["domains"]:
    if d["domain"]["name"] == sys.argv[1]:
        print(d.get("console", ""))' "$2"
}

# What the guest's console has written since its log had $3 bytes.
console_since() {
    local log
    log=$(console_log "$1" "$2")
    if [ "$(stat -c %s "$log")" -lt "$3" ]; then # it was rotated
        tail -c "+$(($3 + 1))" "$log.1"
        cat "$log"
    else
        tail -c "+$(($3 + 1))" "$log"
    fi
}

# guest_ask HOST NAME COMMAND: prints the line that answers it.
guest_ask() {
    local h=$1 name=$2 pty answer from line end
    shift 2
    case $1 in
    reset-gap) answer='gap reset' ;;
    rate) answer='rate set' ;;
    *) answer=$1 ;;
    esac
    pty=$(guest_pty "$h" "$name")
    [ -n "$pty" ] || die "$name has no console on host $h"
    from=$(stat -c %s "$(console_log "$h" "$name")")
    printf '%s\n' "$*" >"$pty"
    end=$((SECONDS + ${GUEST_ASK_S:-30}))
    while [ "$SECONDS" -lt "$end" ]; do
        # A whole line, with its end.
        line=$(console_since "$h" "$name" "$from" | sed -n "/^$answer.*\r\$/{p;q}")
        if [ -n "$line" ]; then
            printf '%s\n' "${line%$'\r'}"
            return
        fi
        sleep 0.05
    done
    DIE_STATUS=75 die "waited ${GUEST_ASK_S:-30} s in vain: $name on host $h does not answer '$*' on $pty (its console now: $(guest_pty "$h" "$name"))"
}

# The value of key in a line of key=value words.
value_of() { sed -n "s/.*[ ]$1=\([^ ]*\).*/\1/p"; }

guest_verify() {
    local line
    line=$(guest_ask "$1" "$2" verify)
    grep -q 'static=ok ws=ok fpu=ok regs=ok' <<<"$line" || die "$2 on host $1: memory or registers differ: $line"
}

# runs_on HOST NAME: it exists there and is not paused.
is_running() { awk 'NR == 2 && $5 ~ /^(r-|-b)-/ {found = 1} END {exit !found}'; }
runs_on() { xm "$1" list "$2" 2>/dev/null | is_running; }

# Exactly one running copy among all hosts, and it is on HOST.
one_copy_on() {
    local h n=0 seen said=""
    for h in $(seq "$HOSTS"); do
        seen=$(xm "$h" list "$2" 2>&1)
        said="$said; host $h: $seen"
        if is_running <<<"$seen"; then
            n=$((n + 1))
            [ "$h" = "$1" ] || die "$2 runs on host $h"
        fi
    done
    [ "$n" = 1 ] || die "$2 runs $n times$said"
}

hosts_show_logs() {
    local h
    [ -n "${LAB_DIR:-}" ] || return 0
    for h in $(seq "$HOSTS"); do
        printf -- '--- host %s, end of its log\n' "$h"
        tail -n 25 "$(log_of "$h")" 2>/dev/null
        tail -n 10 "$(lab_log "host$h" migrd)" 2>/dev/null
        tail -n 4 "$(root_of "$h")"/var/log/migrd/*.log 2>/dev/null
        grep -hv "^tick" "$(root_of "$h")"/var/log/migrd/console-*.log 2>/dev/null | tail -n 12
    done
}
