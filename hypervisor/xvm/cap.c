/* SPDX-License-Identifier: ISC */
/*
 * The cap of a domain where no control group sees to it. A thread adds up what all vCPUs
 * have used, every CAP_TICK. Time brings credit, at most a tick's; use takes it away. Who is in
 * debt naps, all vCPUs at once (vcpu.c), until time has paid it: so use is the cap's share on
 * average, whatever a tick was too late to see.
 */
#include <string.h>
#include <sys/prctl.h>

#include "base/clock.h"
#include "hypervisor/xvm/machine_internal.h"

#define CAP_TICK_NS (10 * NS_PER_MS)

/* Under run_lock; CPU time that is left, in nanoseconds. */
static int64_t account(struct machine *m, int64_t left, uint64_t elapsed_ns, uint64_t used_ns)
{
    int64_t most = (int64_t)(CAP_TICK_NS * m->cap_percent / 100);

    left += (int64_t)(elapsed_ns * m->cap_percent / 100) - (int64_t)used_ns;
    return left < most ? left : most;
}

/* Under run_lock, which it gives up meanwhile. */
static void wait_until(struct machine *m, uint64_t until_ns)
{
    struct timespec ts = { (time_t)(until_ns / NS_PER_S), (long)(until_ns % NS_PER_S) };
    unsigned percent = m->cap_percent;

    while (!m->quit && m->cap_percent == percent && clock_ns() < until_ns)
        pthread_cond_timedwait(&m->run_cond, &m->run_lock, &ts);
}

static void *cap_main(void *arg)
{
    struct machine *m = arg;
    uint64_t last = clock_ns(), used = vcpus_cpu_ns(m);
    int64_t left = 0;

    prctl(PR_SET_NAME, "cap");
    pthread_mutex_lock(&m->run_lock);
    while (!m->quit && m->cap_percent != 0) {
        uint64_t now = clock_ns(), cpu = vcpus_cpu_ns(m), next = now + CAP_TICK_NS;

        left = account(m, left, now - last, cpu - used);
        last = now;
        used = cpu;
        if (left < 0) {
            m->cap_until_ns = now + (uint64_t)-left * 100 / m->cap_percent;
            if (m->run)
                vcpus_kick(m);
            next = m->cap_until_ns > next ? m->cap_until_ns : next;
        }
        wait_until(m, next);
    }
    m->cap_until_ns = 0;
    pthread_cond_broadcast(&m->run_cond);
    pthread_mutex_unlock(&m->run_lock);
    return NULL;
}

static void note(struct machine *m, unsigned percent)
{
    pthread_mutex_lock(&m->run_lock);
    m->cap_percent = percent;
    m->cap_until_ns = 0;
    pthread_cond_broadcast(&m->run_cond);
    pthread_mutex_unlock(&m->run_lock);
}

int cap_set(struct machine *m, unsigned percent, struct err *e)
{
    int r;

    note(m, percent);
    if (percent == 0 && m->has_cap_thread) {
        pthread_join(m->cap_thread, NULL);
        m->has_cap_thread = false;
    }
    if (percent == 0 || m->has_cap_thread)
        return 0;
    r = pthread_create(&m->cap_thread, NULL, cap_main, m);
    if (r != 0) {
        note(m, 0);
        return err_set(
            e, ERR_SYSTEM, "domain %s: thread of its cap: %s", m->def->name, strerror(r));
    }
    m->has_cap_thread = true;
    return 0;
}
