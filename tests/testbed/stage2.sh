#!/bin/bash
# SPDX-License-Identifier: ISC
# Process 1 of a virtual host, in its final root: sets up what its kind needs beside the agent that
# starts meanwhile, and waits. When the agent ends, the host is switched off.
control=/run/testbed
set -a
# shellcheck disable=SC1091
. $control/environment
set +a

# Device of the virtio port named $1.
port() {
    local name
    for name in /sys/class/virtio-ports/*/name; do
        [ "$(<"$name")" = "$1" ] && name=${name%/name} && echo "/dev/${name##*/}" && return
    done
}

# Disks by their WWN, as udev names them: which is sda and which sdb differs from boot to boot.
disks_up() {
    local i wwid name
    for ((i = 0; i < 100; i++)); do
        set -- /sys/block/sd*/device/wwid
        [ -e "$1" ] && [ $# -ge "$TESTBED_DISKS" ] && break
        sleep 0.1
    done
    mkdir -p /dev/disk/by-id
    for wwid in /sys/block/sd*/device/wwid; do
        name=${wwid#/sys/block/}
        ln -s "/dev/${name%%/*}" "/dev/disk/by-id/wwn-0x$(sed 's/^naa\.//' "$wwid")" || return
    done
}

set_up() {
    if [ "$TESTBED_DISKS" -gt 0 ]; then
        disks_up || return
    fi
    if [ -e $control/hosts ]; then
        # shellcheck source=tests/testbed/network.sh
        . $control/network.sh
        network_up "$TESTBED_BRIDGE" "$TESTBED_HOST" || return
    fi
    if [ "$TESTBED" = xen ]; then
        # shellcheck source=tests/testbed/dom0.sh
        . $control/dom0.sh
        dom0_up
    fi
}

mkfifo /run/set_up
/usr/bin/python3 -EsSB $control/agent.py "$(port testbed.agent)" </run/set_up &
agent=$!
exec 3>/run/set_up
set_up >/run/set_up.log 2>&1 </dev/null 3>&-
echo "$? $(tail -n 1 /run/set_up.log)" >&3
exec 3>&-
wait $agent
exec /bin/busybox poweroff -f
