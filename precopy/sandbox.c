/* SPDX-License-Identifier: ISC */
/*
 * Capabilities and the bounding set are a thread's own: the thread that reads from
 * migrd drops them when it starts, the coordinator drops them here, and the channel
 * threads, which are started later, inherit that. The system call filter is put on all
 * threads at once. A call that is not on the list fails with EPERM and does no harm;
 * it does not kill the worker, because a paused guest may depend on it.
 */
#define _GNU_SOURCE
#include "precopy/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define FILES_MAX 256

static const int allowed[] = {
    /* bytes in and out of descriptors that are open, logging among them */
    SCMP_SYS(read),
    SCMP_SYS(readv),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(recvmsg),
    SCMP_SYS(recvfrom),
    SCMP_SYS(sendmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(shutdown),
    SCMP_SYS(close),
    SCMP_SYS(fcntl),
    SCMP_SYS(dup),
    SCMP_SYS(lseek),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(eventfd2),
    SCMP_SYS(pselect6),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_ctl),
    /* bytes unsent (SIOCOUTQ), and a hypervisor's control device */
    SCMP_SYS(ioctl),
    /* memory: the guest's, with holes, and our own */
    SCMP_SYS(memfd_create), /* the xvm driver passes states in one */
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(mprotect),
    SCMP_SYS(madvise),
    SCMP_SYS(mincore),
    SCMP_SYS(brk),
    SCMP_SYS(fallocate),
    /* threads */
    SCMP_SYS(futex),
    SCMP_SYS(clone),
    SCMP_SYS(clone3),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(membarrier),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(tgkill),
    SCMP_SYS(kill),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
    /* time and chance */
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(getrandom),
    SCMP_SYS(getrusage),
    SCMP_SYS(sysinfo),
    SCMP_SYS(uname),
};

int sandbox_drop_thread(struct err *e)
{
    capng_clear(CAPNG_SELECT_BOTH);
    if (capng_apply(CAPNG_SELECT_BOTH) != 0)
        return err_set(e, ERR_SYSTEM, "cannot drop capabilities");
    return 0;
}

static int limit_files(struct err *e)
{
    struct rlimit files = { FILES_MAX, FILES_MAX };
    struct rlimit core = { 0, 0 };

    if (setrlimit(RLIMIT_NOFILE, &files) < 0 || setrlimit(RLIMIT_CORE, &core) < 0)
        return err_sys(e, "cannot limit descriptors and core files");
    return 0;
}

static int fill_filter(scmp_filter_ctx ctx)
{
    int r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);

    for (size_t i = 0; r == 0 && i < sizeof allowed / sizeof allowed[0]; i++)
        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
    return r == 0 ? seccomp_load(ctx) : r;
}

static int filter_calls(struct err *e)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int r = ctx == NULL ? -ENOMEM : fill_filter(ctx);

    if (ctx != NULL)
        seccomp_release(ctx);
    if (r < 0)
        return err_set(e, ERR_SYSTEM, "cannot filter system calls: %s", strerror(-r));
    return 0;
}

int sandbox_enter(struct err *e)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_sys(e, "cannot give up the right to gain privileges");
    if (limit_files(e) < 0 || (geteuid() == 0 && sandbox_drop_thread(e) < 0))
        return -1;
    return filter_calls(e);
}
