#!/bin/busybox sh
# SPDX-License-Identifier: ISC
# shellcheck shell=dash
# /init of the Linux test guest: inserts the modules, sets the network up as the kernel's command line
# says (guest.ip=ADDRESS/LEN guest.gw=ADDRESS) and becomes lifeline with the other guest.KEY=VALUE
# words as its options. tests/guests/README.md lists them.
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mount -t devtmpfs dev /dev
xen=$($busybox cat /sys/hypervisor/type 2>/dev/null)
for module in /modules/*; do
    case $xen-$module in
    -*/*-xen-*) continue ;;
    esac
    $busybox insmod "$module" || echo "init: $module was not inserted"
done

# What Xen's toolstack asks for by xenstore, the kernel passes on by running these.
$busybox mkdir -p /sbin
for word in poweroff:USR2 reboot:TERM; do
    printf '#!/bin/busybox sh\nkill -%s 1\n' "${word#*:}" >"/sbin/${word%:*}"
    $busybox chmod 755 "/sbin/${word%:*}"
done

address='' gateway='' options=''
for word in $($busybox cat /proc/cmdline); do
    case $word in
    guest.ip=*) address=${word#*=} ;;
    guest.gw=*) gateway=${word#*=} ;;
    guest.*=*) options="$options ${word#guest.}" ;;
    esac
done
$busybox ip link set lo up
if [ -n "$address" ]; then
    $busybox ip addr add "$address" dev eth0 && $busybox ip link set eth0 up ||
        echo "init: eth0 was not set up with $address"
    [ -z "$gateway" ] || $busybox ip route add default via "$gateway"
fi
# shellcheck disable=SC2086 # words on purpose
exec /bin/lifeline run $options
