/* SPDX-License-Identifier: ISC */
/*
 * hypervisor: the contract between migrd and whatever runs the domains (xvm, Xen,
 * libvirtd's domains). A driver is one `struct hv_ops`; every member is mandatory, a
 * driver that cannot do a thing returns ERR_UNSUPPORTED with the reason.
 *
 * Calls block, for at most HV_CALL_TIMEOUT_MS unless they say otherwise: an event
 * loop runs them in its thread pool. A `struct hv` may be used by several threads at
 * once; a `struct hv_mig` as its own comment says. Domains are named by uuid, a
 * number (domid) is for people. Every action that changes who may run carries the
 * epoch of the domain's (owner, epoch) record, and a driver refuses an epoch older
 * than the newest it has seen for that domain (ERR_EPOCH).
 */
#ifndef HYPERVISOR_H
#define HYPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "hypervisor/domain.pb-c.h"

#define HV_PAGE_SIZE 4096u
#define HV_PAGE_SHIFT 12
#define HV_CALL_TIMEOUT_MS 10000
#define HV_UUID_LEN 37 /* text with its NUL */
#define HV_NAME_LEN 64
#define HV_MAX_REGIONS 16
#define HV_BATCH_PAGES 1024      /* most pages of one map call: 4 MiB */
#define HV_STATE_MAX (64u << 20) /* bytes of a vCPU and device state blob */
#define HV_FEATURE_WORDS 24
#define HV_CPUS_MAX 1024   /* of a host */
#define HV_VCPUS_MAX 64    /* of a domain */
#define HV_STAT_DEVICES 32 /* disks, and vifs, of which figures are given */
#define HV_WEIGHT 256      /* of a domain that says nothing else */
#define HV_WEIGHT_MAX 65535
#define HV_CAP_MAX 65535

struct hv;     /* an open connection to a hypervisor */
struct hv_mig; /* one side of one migration of one domain */

enum hv_state {
    HV_RUNNING,
    HV_BLOCKED, /* idle: no vCPU wants to run */
    HV_PAUSED,
    HV_SHUTDOWN, /* the guest powered off, the domain is still there */
    HV_CRASHED,  /* panic, triple fault, or emulation failure; still there */
    HV_INCOMING, /* being filled by a migration or restore; has never run */
    HV_STATE_MAX_
};

struct hv_info {
    char uuid[HV_UUID_LEN];
    char name[HV_NAME_LEN];
    int domid; /* changes at each boot; -1 unknown */
    enum hv_state state;
    uint64_t epoch;
    uint64_t memory_kib; /* now, balloon included */
    uint64_t max_memory_kib;
    unsigned vcpus;
    uint64_t cpu_ns;   /* used by its vCPUs since boot */
    int pid;           /* of the process that runs it; -1 none */
    char console[108]; /* pty, or "" */
    /* HV_PAUSED though nobody paused it (its disk, its lease, its fuse): why. It goes on by itself
     * or by `resume`. "" else. */
    char reason[160];
    bool reset; /* HV_SHUTDOWN: it asked for a reset */
    bool fused; /* its process obeys `fuse` */
    bool blown; /* HV_PAUSED by its fuse: see `fuse` for when it goes on */
};

enum hv_event_type {
    HV_EV_STARTED,
    HV_EV_PAUSED,
    HV_EV_RESUMED,
    HV_EV_SHUTDOWN, /* the guest powered off */
    HV_EV_REBOOT,   /* the guest asked for a reset; the domain stopped and waits to be destroyed and
                       started anew */
    HV_EV_CRASHED,
    HV_EV_GONE, /* destroyed, or its process died */
    HV_EV_MAX
};

struct hv_event {
    enum hv_event_type type;
    char uuid[HV_UUID_LEN];
    char detail[200]; /* for people: "triple fault at rip 0x..." */
};

/* CPUID-like feature words of the host as a guest may see them, and what fits. */
struct hv_caps {
    char hypervisor[32]; /* "xvm" */
    char release[32];    /* of the hypervisor: "1", "4.17" */
    char cpu_vendor[13]; /* "AuthenticAMD" */
    char cpu_model[49];
    uint32_t cpu_family, cpu_model_no, cpu_stepping;
    uint32_t features[HV_FEATURE_WORDS]; /* order fixed by hv_feature_word_name() */
    uint32_t xsave_size;                 /* bytes for all XCR0 bits on offer */
    uint64_t xcr0;
    uint64_t tsc_khz;
    bool tsc_scaling; /* a guest can be given another TSC frequency */
    unsigned host_cpus;
    uint64_t memory_total_kib, memory_free_kib;
    unsigned max_vcpus;
    /* Of the total, what the host itself has, and its vCPUs, where it is a domain too (Xen's
     * Domain-0); 0: it has what guests have not. */
    uint64_t host_kib;
    unsigned host_vcpus;
    unsigned guest_types; /* bit 1 << GUEST_PVH, ...: what can be built here; 0: not told */
};

/* A set of the host's CPUs: CPU c is bit (c & 63) of word (c >> 6), as in a cpu_set_t. */
struct hv_cpus {
    uint64_t word[HV_CPUS_MAX / 64];
};

enum hv_vcpu_state { HV_VCPU_OFFLINE, HV_VCPU_RUNNING, HV_VCPU_BLOCKED };

struct hv_vcpu {
    enum hv_vcpu_state state;
    uint64_t cpu_ns;        /* used since boot */
    int cpu;                /* that it runs on, or ran on last; -1 not known */
    struct hv_cpus allowed; /* may run on these */
};

/* As Xen's credit scheduler has it: the share of the CPUs in relation to other domains, and the
 * most that it gets, in percent of one CPU (200: two CPUs), 0 for no limit. */
struct hv_sched {
    unsigned weight; /* 1 to HV_WEIGHT_MAX; twice the weight, twice the time */
    unsigned cap;    /* 0 to HV_CAP_MAX */
    char how[16];    /* what sees to it: "credit", "cgroup2", "cgroup1", "nice"; "" not known */
};

struct hv_disk_stats {
    char device[32], source[1024];
    uint64_t rd_ops, rd_bytes, wr_ops, wr_bytes, flush_ops, errors; /* since it was built */
};

/* As the guest sees it: rx is what came to it. */
struct hv_vif_stats {
    char ifname[16], mac[18];
    uint64_t rx_bytes, rx_packets, rx_errors, rx_drops;
    uint64_t tx_bytes, tx_packets, tx_errors, tx_drops;
};

#define HV_UNKNOWN UINT64_MAX

struct hv_stats {
    uint64_t actual_kib; /* what the guest has, the balloon's part not counted */
    uint64_t rss_kib;    /* of the host's memory that it takes up */
    uint64_t unused_kib; /* free in the guest; HV_UNKNOWN: it does not tell */
    unsigned n_disks, n_vifs;
    struct hv_disk_stats disk[HV_STAT_DEVICES];
    struct hv_vif_stats vif[HV_STAT_DEVICES];
};

struct hv_config {
    const char *run_dir; /* xvm: paths.xvm */
    const char *log_dir; /* console and process logs */
    const char *host;    /* own name, as the owner in leases */
    const char *secrets; /* file with the passwords of network disks; "" none */
    const char *initiator; /* iSCSI name; "" made of the host's */
    bool leases;           /* storage-leases */
    unsigned lease_ms;     /* storage-lease-time */
    unsigned nfs_uid_base; /* storage-nfs-uid-base */
    unsigned io_timeout_ms; /* storage-timeout */
    const char *cpu_level; /* host-cpu-level: guests see no more than that; NULL or "" all */
};

/* That whoever holds the leases of a domain's disks does not run it. */
enum hv_proof {
    HV_PROOF_NONE,    /* nobody says so: the storage is watched until it shows */
    HV_PROOF_WORD,    /* an operator's: the storage is watched once whether it shows the contrary */
    HV_PROOF_CLUSTER, /* the cluster's log: the lease is over by a majority's votes, the power is off,
                         or the owner itself has said so; leases are taken at once */
    HV_PROOF_MAX
};

struct hv_start {
    uint64_t epoch;
    int domid;     /* the number to give it, where the hypervisor lets us choose */
    bool incoming; /* no boot: memory is allocated and waits for a migration's state */
    bool paused;   /* boot, but do not run yet; ignored with incoming */
    bool blown;    /* begins with a blown fuse: no instruction before the first `fuse` */
    enum hv_proof proven;
};

/* A run of guest memory. Frame numbers (gfn) are guest-physical >> HV_PAGE_SHIFT. */
struct hv_region {
    uint64_t gfn;
    uint64_t pages;
};

struct hv_layout {
    unsigned n;
    struct hv_region region[HV_MAX_REGIONS]; /* ascending, not overlapping */
    uint64_t max_gfn;                        /* bitmaps have max_gfn + 1 bits */
    /*
     * The guest's memory leaves and comes as one stream of bytes, of which these are the pages
     * (Xen's PV guests). Only a paused guest has it, and it passes once: pages are mapped by one
     * thread, ascending, all of the region, and cannot be looked at again, neither before nor
     * after. At a target, the pages of one call may leave out some that mig_zero brings next.
     * state_save comes after the last page.
     */
    bool stream;
};

/* Pages mapped by mig_map: page[i] is valid for HV_PAGE_SIZE bytes until mig_unmap. Pages that are
 * neighbours in guest memory need not be neighbours here, but xvm's are. */
struct hv_mapping {
    size_t n;
    uint8_t *page[HV_BATCH_PAGES];
    void *driver; /* the driver's own */
};

/* HV_VIEWER only looks: at memory and registers, of whatever exists here, a crashed domain too. */
enum hv_side { HV_SOURCE, HV_TARGET, HV_VIEWER };

/*
 * Dirty bitmaps are arrays of uint64_t words, gfn g being bit (g & 63) of word
 * (g >> 6), HV_BITMAP_WORDS(max_gfn) words, owned by the caller.
 */
#define HV_BITMAP_WORDS(max_gfn) (((max_gfn) >> 6) + 1)

/* flags: of the descriptor, as in its second word (type from bit 8 on, present 15, long 21). */
struct hv_segment {
    uint32_t selector, limit, flags;
    uint64_t base;
};

enum hv_gpr { /* order of the instruction set's numbers */
    HV_RAX, HV_RCX, HV_RDX, HV_RBX, HV_RSP, HV_RBP, HV_RSI, HV_RDI,
    HV_R8, HV_R9, HV_R10, HV_R11, HV_R12, HV_R13, HV_R14, HV_R15,
    HV_GPR_MAX
};

/* One vCPU, as a debugger wants it. */
struct hv_registers {
    uint64_t gpr[HV_GPR_MAX], rip, rflags;
    struct hv_segment cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt;
    uint64_t cr[5]; /* there is no CR1 */
    uint64_t kernel_gs_base;
};

struct hv_ops {
    const char *name;

    /* ERR_UNSUPPORTED with the reason (no /dev/kvm, no privcmd) where this host cannot. */
    int (*open)(const struct hv_config *cfg, struct hv **out, struct err *e);
    void (*close)(struct hv **hv);
    int (*capabilities)(struct hv *hv, struct hv_caps *out, struct err *e);

    /* All domains that exist now. *list is malloc'ed, the caller frees it. */
    int (*enumerate)(struct hv *hv, struct hv_info **list, size_t *n, struct err *e);
    int (*info)(struct hv *hv, const char *uuid, struct hv_info *out, struct err *e);

    /* The definition a domain that exists was started with; free with
     * migrd__domain__free_unpacked. NULL on failure. */
    Migrd__Domain *(*definition)(struct hv *hv, const char *uuid, struct err *e);

    /* What the guest was booted with, or is being given: its own CPU level, not the host's. */
    int (*guest_cpu)(struct hv *hv, const char *uuid, struct hv_caps *out, struct err *e);

    /* Builds the domain and, unless paused or incoming, runs it. ERR_EXISTS, ERR_MEMORY, ...
     * On failure nothing of it is left. May take HV_CALL_TIMEOUT_MS x 3 (memory, disks), and
     * 3 x lease_ms for each disk whose lease's holder is gone. */
    int (*start)(
        struct hv *hv, const Migrd__Domain *def, const struct hv_start *how, struct err *e);

    int (*pause)(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e);
    /* An incoming, fully loaded domain: what its resume may have to wait for, or be refused, is done
     * now (its disks become this host's), and nothing runs; a paused one may be claimed, too.
     * `decided`: nobody gave it to us, an operator says that its owner does not run: refused if the
     * disks tell that it is alive and does not yield; may take 2 x lease_ms for each disk to
     * find out. NULL: there is no such thing. */
    int (*claim)(
        struct hv *hv, const char *uuid, uint64_t epoch, bool decided, struct err *e);
    /* A paused domain that may run elsewhere under a newer epoch, nobody knows: its disks say that
     * an operator may decide so. Its next resume takes that back, or fails. NULL: no such thing. */
    int (*yield)(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e);
    /* Also the moment at which an incoming, fully loaded domain begins to run: from then on it
     * is owned under `epoch`. */
    int (*resume)(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e);
    /*
     * The fuse of the copy with that very epoch: it may run until deadline_ms of clock_boot_ms().
     * 0: it stops at once; UINT64_MAX: no limit. A store to memory that the domain's process
     * reads: never blocks, works when that process does not answer, and is kept for a copy that
     * is just being made. An epoch older than the copy's newest is refused (ERR_EPOCH).
     *
     * A domain that was not started `blown` has no limit until its first `fuse`; one that was has
     * none left. When its fuse blows, a copy stands still within 50 ms, writes nothing more, and
     * is HV_PAUSED with hv_info.blown. If it has not run under its epoch yet (started or resumed
     * blown), it goes on by itself at the first `fuse`; else by `resume`, which is refused
     * (ERR_STATE) while the fuse is blown. A copy that somebody paused stays paused; its `resume`
     * under a blown fuse only ends that pause. NULL: nothing here stops a domain by itself.
     */
    int (*fuse)(struct hv *hv, const char *uuid, uint64_t epoch, uint64_t deadline_ms,
        struct err *e);
    /* Asks the guest; returns once asked. `reboot` false: power off. */
    int (*shutdown)(struct hv *hv, const char *uuid, bool reboot, struct err *e);
    /* Ends it now. Returns when its memory, disks and taps are released; the memory of a domain
     * whose state was saved may follow within seconds. ERR_NOT_FOUND if gone. */
    int (*destroy)(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e);
    int (*set_memory)(struct hv *hv, const char *uuid, uint64_t memory_kib, struct err *e);

    /* CPUs of a domain that exists. What is set is also in what `definition` answers then. */
    /* *list is malloc'ed, the caller frees it. */
    int (*vcpus)(
        struct hv *hv, const char *uuid, struct hv_vcpu **list, unsigned *n, struct err *e);
    /* All bits set: any CPU. ERR_INVALID: no such vCPU, or this host has none of the CPUs. */
    int (*pin)(
        struct hv *hv, const char *uuid, unsigned vcpu, const struct hv_cpus *cpus, struct err *e);
    /* Another number of vCPUs while it runs. */
    int (*set_vcpus)(struct hv *hv, const char *uuid, unsigned n, struct err *e);
    int (*sched_get)(struct hv *hv, const char *uuid, struct hv_sched *out, struct err *e);
    /* `how` is not looked at. */
    int (*sched_set)(struct hv *hv, const char *uuid, const struct hv_sched *sched, struct err *e);
    int (*stats)(struct hv *hv, const char *uuid, struct hv_stats *out, struct err *e);

    /* The last of what the hypervisor itself has to say, as text; `clear`: and it forgets it.
     * *text is malloc'ed, the caller frees it. NULL: it has no log of its own. */
    int (*dmesg)(struct hv *hv, bool clear, char **text, struct err *e);

    /* A descriptor that polls readable when next_event has something; owned by the driver. */
    int (*event_fd)(struct hv *hv);
    /* 1 and *out, 0 nothing more now, -1 failed. Never blocks. */
    int (*next_event)(struct hv *hv, struct hv_event *out, struct err *e);

    /* Can this domain move, live or (`live` false) paused? Looks and changes nothing.
     * ERR_UNSUPPORTED with the reason, which names neither the domain nor a way out: who asks
     * knows what else there is. NULL: every domain can, either way. */
    int (*mig_check)(struct hv *hv, const char *uuid, bool live, struct err *e);

    /*
     * Migration. mig_open on the source needs a domain that is running or paused, on the target
     * one that was started with `incoming`; a viewer, any. One per domain at a time (ERR_STATE).
     * Its holder may die at any moment: the driver then drops the dirty log and the throttle, and
     * leaves the domain as it is (running, paused, incoming) for migrd to decide. Threads: mig_map,
     * mig_unmap and mig_peek may be called by several at once, everything else by one.
     */
    int (*mig_open)(
        struct hv *hv, const char *uuid, enum hv_side side, struct hv_mig **out, struct err *e);
    void (*mig_close)(struct hv_mig **m);
    int (*mig_layout)(struct hv_mig *m, struct hv_layout *out, struct err *e);

    /* Sets the bits of frames that may hold something else than zeroes; clears the others. While
     * the guest runs, call it after dirty_start: a frame that gets its first content in between is
     * in the log then. */
    int (*mig_populated)(struct hv_mig *m, uint64_t *bitmap, struct err *e);

    /* Maps n <= HV_BATCH_PAGES frames, in any order, for reading or (target) also writing. A
     * driver maps what it must and keeps what it can; `map` must be unmapped in any case of
     * success. */
    int (*mig_map)(struct hv_mig *m, const uint64_t *gfn, size_t n, bool write,
        struct hv_mapping *map, struct err *e);
    void (*mig_unmap)(struct hv_mig *m, struct hv_mapping *map);

    /* Target: the frames [gfn, gfn+n) hold zeroes; keeps them unpopulated if they were. */
    int (*mig_zero)(struct hv_mig *m, uint64_t gfn, uint64_t n, struct err *e);

    /* Target: waits until the devices that the incoming domain needs here are there; asked while the
     * guest runs at its source, since what fails then costs no pause. ERR_TIMEOUT: not by
     * deadline_ns of clock_ns(), ask again. NULL: an incoming domain has all it needs. */
    int (*mig_settle)(struct hv_mig *m, uint64_t deadline_ns, struct err *e);

    /* Dirty log, source only. start: from now on every write of vCPUs and devices is logged. */
    int (*dirty_start)(struct hv_mig *m, struct err *e);
    /* ORs what was written since the last collect into bitmap and forgets it. */
    int (*dirty_collect)(struct hv_mig *m, uint64_t *bitmap, struct err *e);
    /* ORs what was written since the last collect into bitmap without forgetting. A driver may
     * answer from what it knows already: a set bit is true, a clear one may be late. */
    int (*dirty_peek)(struct hv_mig *m, uint64_t *bitmap, struct err *e);
    /* Puts harvested bits back: the next collect reports them again. */
    int (*dirty_give_back)(struct hv_mig *m, const uint64_t *bitmap, struct err *e);
    /* Idempotent; also after a failure. */
    int (*dirty_stop)(struct hv_mig *m, struct err *e);

    /* As pause and resume, on the migration's own connection: no queue behind others. After
     * mig_pause returns, no vCPU runs, no device has a request in flight and all their writes are
     * in the dirty log. */
    int (*mig_pause)(struct hv_mig *m, uint64_t epoch, struct err *e);
    int (*mig_resume)(struct hv_mig *m, uint64_t epoch, struct err *e);

    /* Registers of all vCPUs, in their order, of a domain that stands still. *list is malloc'ed,
     * the caller frees. */
    int (*mig_registers)(struct hv_mig *m, struct hv_registers **list, unsigned *n, struct err *e);

    /* State of vCPUs and devices of a paused domain, as bytes that only this driver understands
     * (its own versions N and N-1). *blob is malloc'ed, the caller frees. */
    int (*state_save)(struct hv_mig *m, uint8_t **blob, size_t *len, struct err *e);
    /* Target. A blob that does not fit is refused with the section's name; the domain can then
     * only be destroyed. After success it is ready for resume. */
    int (*state_load)(struct hv_mig *m, const uint8_t *blob, size_t len, struct err *e);

    /* Takes that share of the vCPUs' time away, 0 to 99 percent; 0 ends it. */
    int (*throttle)(struct hv_mig *m, unsigned percent, struct err *e);
};

/* The drivers of this build, NULL-terminated. */
extern const struct hv_ops *const hv_drivers[];

/* NULL when this build has no such driver. */
const struct hv_ops *hv_driver(const char *name);

/* Somebody paused it: it does not go on by itself. */
bool hv_is_paused(const struct hv_info *i);

/* "running", "blocked", ...; never NULL. */
const char *hv_state_name(enum hv_state s);
const char *hv_event_name(enum hv_event_type t);

/* Fills vendor, model, family, feature words and xsave size of the CPU this runs on (CPUID, as
 * masked by nothing). Drivers mask it with what they offer. */
void hv_host_cpu(struct hv_caps *out);

bool hv_cpus_has(const struct hv_cpus *c, unsigned cpu);
/* As a list of CPUs; of all that there can be: "". malloc'ed, NULL without memory. */
char *hv_cpus_list(const struct hv_cpus *c);

/* KiB of the host's memory that a domain takes up at most: with its balloon empty, and with what
 * the hypervisor needs for it. */
uint64_t hv_memory_need(const Migrd__Domain *def);

/* GUEST_PVH for GUEST_DEFAULT. */
Migrd__GuestType hv_guest_type(const Migrd__Domain *def);
/* "pvh", "pv", "hvm"; never NULL. */
const char *hv_guest_type_name(Migrd__GuestType t);

/* The list of host CPUs that this vCPU is pinned to; "" all. */
const char *hv_vcpu_pinning(const Migrd__Domain *def, unsigned vcpu);
/* Pins one vCPU in a definition; "" as all others. */
int hv_set_vcpu_pinning(Migrd__Domain *def, unsigned vcpu, const char *list, struct err *e);
/* Weight and cap of a definition. */
struct hv_sched hv_sched_of(const Migrd__Domain *def);

/* "7.0.ebx" style name of word i, NULL beyond the last; the name of one feature bit ("avx2"), or
 * NULL where it has none. */
const char *hv_feature_word_name(unsigned word);
const char *hv_feature_name(unsigned word, unsigned bit);

#endif
