#!/bin/busybox sh
# SPDX-License-Identifier: ISC
# shellcheck shell=dash
# First program of a virtual host, in its initramfs: inserts the modules, puts a tmpfs over the real
# machine's file system (9p, read-only), mounts the rest, and goes on with stage2.sh from the control share.
# All of that here, by one busybox in memory: over 9p each program would take a tenth of a second.
busybox=/bin/busybox
fail() {
    echo "testbed init: $1"
    $busybox poweroff -f
}

$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mount -t devtmpfs dev /dev
for module in /modules/*; do
    case $module in
    *-kvm-amd.ko) $busybox grep -q -w svm /proc/cpuinfo || continue ;;
    *-kvm-intel.ko) $busybox grep -q -w vmx /proc/cpuinfo || continue ;;
    esac
    $busybox insmod "$module" || fail "insmod $module failed"
done

opts=trans=virtio,version=9p2000.L,msize=262144
$busybox mkdir -p /lower /upper /newroot
$busybox mount -t 9p -o $opts,cache=loose,ro root /lower || fail "no root share"
$busybox mount -t tmpfs -o size=75% upper /upper
$busybox mkdir /upper/files /upper/work
$busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work \
    root /newroot || fail "no overlay"

# What belongs to this host alone hides what the real machine has there.
for name in tmp run; do
    $busybox mount -t tmpfs -o mode=1777 $name /newroot/$name || fail "no /$name"
done
$busybox mkdir -p /newroot/run/testbed /newroot/run/lock /dev/pts /dev/shm
$busybox mount -t 9p -o $opts,cache=none,ro control /newroot/run/testbed || fail "no control share"
# A checkout below /tmp, say, is seen all the same.
if read -r checkout 2>/dev/null </newroot/run/testbed/checkout; then
    $busybox mkdir -p "/newroot$checkout"
    $busybox mount --bind "/lower$checkout" "/newroot$checkout" || fail "no $checkout"
fi
if [ -e /newroot/run/testbed/share ]; then
    $busybox mkdir /newroot/run/share
    $busybox mount -t 9p -o $opts,cache=none share /newroot/run/share || fail "no share"
fi
$busybox mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
$busybox mount -t tmpfs -o mode=1777 shm /dev/shm
$busybox mount -t cgroup2 cgroup /sys/fs/cgroup
$busybox ln -s /proc/self/fd /dev/fd
$busybox ln -s /proc/self/fd/0 /dev/stdin
$busybox ln -s /proc/self/fd/1 /dev/stdout
$busybox ln -s /proc/self/fd/2 /dev/stderr
for name in proc sys dev; do
    $busybox mount --move /$name /newroot/$name || fail "no /$name"
done
read -r name </newroot/run/testbed/hostname
$busybox hostname "$name"
$busybox ip link set lo up
ulimit -n 65536
exec $busybox switch_root /newroot /bin/bash /run/testbed/stage2.sh
