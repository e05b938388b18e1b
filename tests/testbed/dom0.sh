# SPDX-License-Identifier: ISC
# shellcheck shell=bash
# Makes a dom0 of a virtual host that Xen has booted, read by stage2.sh: what Debian's init script xen
# does, without an init system.
dom0_up() {
    mount -t xenfs xenfs /proc/xen || return
    grep -q control_d /proc/xen/capabilities || { echo "this is no dom0" && return 1; }
    mkdir -p /run/xen /run/xenstored /var/lib/xen /var/log/xen
    oxenstored --pid-file /run/xen/oxenstored.pid || return
    for ((i = 0; i < 100; i++)); do
        [ -S /run/xenstored/socket ] && break
        sleep 0.1
    done
    xen-init-dom0 || return
    xenconsoled --pid-file=/run/xen/xenconsoled.pid --log=all --log-dir=/var/log/xen
}
