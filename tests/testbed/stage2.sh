#!/bin/bash
# SPDX-License-Identifier: ISC
# Process 1 of a virtual host, in its final root: runs the job from the control share, sends its output
# and its exit status through two virtio ports, switches the host off.
control=/run/testbed
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb

# Device of the virtio port named $1.
port() {
    local name
    for name in /sys/class/virtio-ports/*/name; do
        [ "$(<"$name")" = "$1" ] && name=${name%/name} && echo "/dev/${name##*/}" && return
    done
}

# The pipe lets programs open /dev/stdout anew, which a port allows only once.
mkfifo /run/output
cat /run/output >"$(port testbed.output)" &
pump=$!
/bin/bash $control/job </dev/null >/run/output 2>&1
status=$?

# A process that the job left behind holds the pipe open: wait a second, no longer.
for ((i = 0; i < 20; i++)); do
    kill -0 $pump 2>/dev/null || break
    sleep 0.05
done
echo $status >"$(port testbed.status)"
sync
exec /bin/busybox poweroff -f
