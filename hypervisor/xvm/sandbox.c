/* SPDX-License-Identifier: ISC */
#include "hypervisor/xvm/sandbox.h"

#include <errno.h>
#include <seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

/* One line per purpose; what is not here fails with EPERM. */
static const char *const allowed[] = {
    /* memory, threads, time */
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "mincore",
    "clone",
    "clone3",
    "futex",
    "set_robust_list",
    "rseq",
    "exit",
    "exit_group",
    "clock_gettime",
    "clock_nanosleep",
    "nanosleep",
    "gettimeofday",
    "sched_yield",
    "sched_setaffinity",
    "sched_getaffinity",
    "getpid",
    "gettid",
    "prctl",
    "getrandom",
    "membarrier",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "tgkill",
    "tkill",
    "restart_syscall",
    "times",
    "getrusage",
    "arch_prctl",
    /* descriptors: KVM, disks, taps, pty, logs, control sockets */
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "preadv",
    "pwritev",
    "preadv2",
    "pwritev2",
    "lseek",
    "close",
    "fcntl",
    "ioctl",
    "fstat",
    "newfstatat",
    "statx",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "fadvise64",
    "fallocate",
    "ftruncate",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "eventfd2",
    "timerfd_create",
    "timerfd_settime",
    "memfd_create",
    "dup",
    "dup2",
    "dup3",
    "pipe2",
    "accept4",
    "sendmsg",
    "recvmsg",
    "sendto",
    "recvfrom",
    "shutdown",
    "getsockopt",
    "setsockopt",
    "getsockname",
    "socketpair",
    "io_uring_enter",
    /* files of its own: epoch, log rotation, end of its run folder */
    "open",
    "openat",
    "unlink",
    "unlinkat",
    "rmdir",
    "rename",
    "renameat",
    "renameat2",
    "readlink",
    "readlinkat",
    "getdents64",
    "access",
    "faccessat",
    "faccessat2",
    "umask",
    "chmod",
    "fchmod",
    "flock",
};

/* Besides, for disks on the network: connecting anew, looking up names, who we are for AUTH_SYS. */
static const char *const for_network[] = { "connect", "bind", "getpeername", "sendmmsg", "uname",
    "getuid", "geteuid", "getgid", "getegid", "getgroups", "sysinfo" };

/* AF_UNIX is for a name service of the host's. */
static const int families[] = { AF_INET, AF_INET6, AF_UNIX };

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

static int allow(scmp_filter_ctx ctx, const char *const names[], size_t n)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++) {
        int nr = seccomp_syscall_resolve_name(names[i]);

        if (nr != __NR_SCMP_ERROR)
            r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
    }
    return r;
}

static int allow_network(scmp_filter_ctx ctx)
{
    int r = allow(ctx, for_network, sizeof for_network / sizeof for_network[0]);

    for (size_t i = 0; r == 0 && i < sizeof families / sizeof families[0]; i++)
        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
            SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i], 0));
    return r;
}

int xvm_sandbox_enter(bool network, struct err *e)
{
    scmp_filter_ctx ctx;
    int r;

#ifdef __SANITIZE_ADDRESS__
    /* Its leak check at the end traces this process's threads, and waits for ever if it may not. */
    return err_set(e, ERR_UNSUPPORTED, "built with the address sanitizer");
#endif
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_sys(e, "no_new_privs");
    ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (ctx == NULL)
        return err_set(e, ERR_MEMORY, "seccomp: out of memory");
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    r = allow(ctx, allowed, sizeof allowed / sizeof allowed[0]);
    if (r == 0 && network)
        r = allow_network(ctx);
    if (r == 0)
        r = seccomp_load(ctx);
    seccomp_release(ctx);
    return r < 0 ? err_set(e, ERR_SYSTEM, "seccomp: %s", strerror(-r)) : 0;
}
