/* SPDX-License-Identifier: ISC */
#include "cluster/ring_error.h"

#include <corosync/corotypes.h>

int ring_error(struct err *e, int cs, const char *what)
{
    switch (cs) {
    case CS_ERR_LIBRARY:
    case CS_ERR_BAD_HANDLE:
        return err_set(e, ERR_STATE,
            "corosync is not running (%s, error %d): systemctl start corosync", what, cs);
    case CS_ERR_TRY_AGAIN:
        return err_set(
            e, ERR_STATE, "corosync is starting, or its members are changing (%s)", what);
    case CS_ERR_ACCESS:
        return err_set(e, ERR_REFUSED,
            "corosync lets this user not in (%s, error %d): run as root, or put \"uidgid { uid: "
            "USER }\" into a file in /etc/corosync/uidgid.d, then corosync-cfgtool -R",
            what, cs);
    case CS_ERR_NOT_EXIST:
        return err_set(e, ERR_NOT_FOUND,
            "corosync does not offer %s here (error %d): it must run in the same network and see "
            "the same /dev/shm as this daemon",
            what, cs);
    case CS_ERR_EXIST:
        return err_set(e, ERR_EXISTS,
            "a process with this number is in the group already (%s, error %d): another migrd of "
            "this host, in a namespace of its own? Stop one of them",
            what, cs);
    case CS_ERR_NO_SPACE:
    case CS_ERR_NO_MEMORY:
    case CS_ERR_NO_RESOURCES:
        return err_set(e, ERR_RESOURCE,
            "corosync or this host has no room (%s, error %d): look at /dev/shm and at memory",
            what, cs);
    default:
        return err_set(
            e, ERR_SYSTEM, "corosync: %s: %s (error %d)", what, cs_strerror((cs_error_t)cs), cs);
    }
}
