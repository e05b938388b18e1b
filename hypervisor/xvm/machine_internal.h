/* SPDX-License-Identifier: ISC */
/*
 * machine_internal: the insides of a machine, for the files that make it up (memory,
 * bus, kvm, dirty, vcpu, state, boot, acpi, platform) and for control.c, which drives
 * it. Devices include machine.h only.
 *
 * Threads: the control thread calls everything that says so and is the only one that
 * changes `life`. vCPU and device threads call the bus, RAM, dirty and irq functions
 * and machine_guest_stopped. What is set up before the first vCPU runs is read without
 * a lock afterwards.
 */
#ifndef XVM_MACHINE_INTERNAL_H
#define XVM_MACHINE_INTERNAL_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "hypervisor/cpu_level.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/xvm/fuse.h"
#include "hypervisor/xvm/machine.h"
#include "hypervisor/xvm/state.h"

#define RAM_LOW_MAX (UINT64_C(3) << 30)
#define RAM_HIGH_BASE (UINT64_C(4) << 30)
#define RAM_REGIONS 2
#define XVM_MAX_VCPUS ((unsigned)HV_VCPUS_MAX)
#define CPUID_MAX 128u
#define MSR_MAX 512u

/* Ports of the platform; tests/guests/README.md speaks of the same. */
#define PORT_I8042 0x60
#define PORT_PANIC 0x505
#define PORT_NAP 0x506
#define PORT_OWNER 0x508
#define PORT_PM1_EVENT 0x600
#define PORT_PM1_CONTROL 0x604
#define PORT_RESET 0xcf9
#define GSI_SCI 3

struct ram_region {
    uint64_t gpa, len, offset; /* offset in the memfd */
};

/* What may happen to a machine, and when: the table is in machine.c. */
enum life {
    LIFE_INCOMING, /* waits for a state */
    LIFE_LOADED,   /* has one, never ran */
    LIFE_BROKEN,   /* refused one: can only be destroyed */
    LIFE_PAUSED,
    LIFE_RUNNING,
    LIFE_SUSPENDED, /* would run, but a device has a machine_hold */
    LIFE_STOPPED, /* ended itself: `stop` says how */
    LIFE_MAX
};

/* struct kvm_cpuid2 with room for entries. */
struct cpuid_table {
    uint32_t nent, padding;
    struct kvm_cpuid_entry2 entry[CPUID_MAX];
};

struct vcpu {
    struct machine *m;
    unsigned id;
    int fd;
    struct kvm_run *run;
    size_t run_len;
    pthread_t thread;
    bool has_thread;
    bool parked;              /* under run_lock */
    struct cpuid_table cpuid; /* as it booted, before KVM's own changes */
    uint64_t kvmclock_msr;    /* of a loaded state, set by its first run */
    int stat_fd;              /* its /proc/.../stat, for "sleeps or runs" */
    int tid;                  /* of its thread */
};

struct machine {
    /* Set up by machine_build, read only afterwards. */
    Migrd__Domain *def;
    int domid;
    char run_dir[256], log_dir[256];
    struct machine_storage storage;
    char host_cpu_level[CPU_LEVEL_MAX]; /* what this host shows at most */
    int kvm_fd, vm_fd;
    int ram_fd;
    uint8_t *ram;
    uint64_t ram_len;
    unsigned n_regions;
    struct ram_region region[RAM_REGIONS];
    uint64_t max_gfn;
    uint64_t *filled; /* huge pages: a bit for each that a migration's client wrote; or NULL */
    struct device *devices;
    struct vcpu *vcpu;
    unsigned n_vcpus;
    struct cpuid_table offered; /* what this host can give a guest */
    bool has_tsc_offset;
    int host_tsc_khz; /* of a vCPU whose TSC is not scaled; 0 or less unknown */
    uint32_t xsave_len;

    /* Dirty log: `device_dirty` by anybody, atomically; the rest by the control thread. */
    atomic_bool logging;
    _Atomic uint64_t *device_dirty;
    uint64_t *kvm_dirty; /* scratch for one KVM_GET_DIRTY_LOG */
    int shared_fd;       /* memfd of the bitmap shared with the migration's client */
    uint64_t *shared;

    /* This lock protects what lets vCPUs run. */
    pthread_mutex_t run_lock;
    pthread_cond_t run_cond, parked_cond;
    bool run, quit;
    unsigned n_parked;
    uint64_t throttle_until_ns;
    unsigned throttle_percent;
    pthread_t throttle_thread;
    bool has_throttle_thread;
    uint64_t cap_until_ns; /* the cap is used up until then; cap.c */
    unsigned cap_percent;  /* of one CPU; 0 none */
    pthread_t cap_thread;
    bool has_cap_thread;
    bool stop_seen; /* machine_guest_stopped was called; why and detail are set */
    enum machine_stop stop_why;
    char stop_detail[160];
    struct machine_hold *holds;

    struct fuse fuse; /* locks itself */

    /* Control thread only. */
    enum life life;
    atomic_bool goes; /* RUNNING or SUSPENDED; for all threads */
    _Atomic uint64_t epoch; /* written by the control thread */
    bool incoming;     /* came here by migration; cleared by its first resume */
    bool reboot_asked; /* the power-off that follows is a reboot */
    int stop_event;    /* eventfd: machine_guest_stopped was called, or the holds changed */
    uint64_t drain_until_ns; /* a pause waits for requests in flight until then; 0: for ever */
    const char *undrained;   /* the device that had some after that, or NULL */
    const char *unflushed;   /* the device whose writes are not durable, or NULL */
    unsigned msr_refused;
};

/* machine.c; all by the control thread. */
struct machine *machine_new(const char *run_dir, const char *log_dir);
void machine_free(struct machine **m);
struct machine_how {
    int domid;
    uint64_t epoch;
    bool incoming, blown; /* as in hv_start */
};
/* Takes def over in any case. */
int machine_build(
    struct machine *m, Migrd__Domain *def, const struct machine_how *how, struct err *e);
/* ERR_TIMEOUT, and the guest goes on, when a device has requests in flight for longer than that. */
int machine_pause(struct machine *m, unsigned drain_ms, struct err *e);
int machine_resume(struct machine *m, struct err *e);
/* The part of an incoming machine's resume that may fail; it may be called again. */
int machine_claim(struct machine *m, uint64_t epoch, bool decided, struct err *e);
/* hv_ops.yield: a paused one only. */
int machine_yield(struct machine *m, struct err *e);
int machine_save(struct machine *m, uint8_t **blob, size_t *len, struct err *e);
int machine_load(struct machine *m, const uint8_t *blob, size_t len, struct err *e);
/* After stop_event: parks everything; true once, when the machine has just become LIFE_STOPPED. */
bool machine_take_stop(struct machine *m);
/* After stop_event: the guest stops or goes on as the devices' holds say. The event that this is
 * (HV_EV_PAUSED, HV_EV_RESUMED), or HV_EV_MAX. */
enum hv_event_type machine_take_holds(struct machine *m);
/* The gravest hold's text of a guest that would run otherwise; "" if none. */
void machine_reason(struct machine *m, char *text, size_t len);
int machine_press_power(struct machine *m, bool reboot, struct err *e);
enum hv_state machine_state(const struct machine *m);
const char *life_name(enum life l);

/* suspend.c; control thread. */
/* Refuses, with the reason, what may never run here again. */
int machine_check_lost(struct machine *m, const char *action, struct err *e);

/* memory.c */
int ram_create(struct machine *m, struct err *e);
void ram_free(struct machine *m);
uint64_t ram_populated_kib(const struct machine *m);
/* Leaves the memory to the end of the process: giving back small pages takes 0.2 s per GiB. */
void ram_leave(struct machine *m);
/* Huge pages: sets the bits of all frames that may hold something, and no others. */
void ram_populated(const struct machine *m, uint64_t *bitmap);
/* Huge pages: these frames were written through another process's mapping. */
int ram_take_filled(struct machine *m, const uint64_t *bitmap, struct err *e);

/* bus.c: both return false when nobody answers there. */
bool bus_read(struct machine *m, bool pio, uint64_t addr, void *data, unsigned len);
bool bus_write(struct machine *m, bool pio, uint64_t addr, const void *data, unsigned len);

/* kvm.c */
int kvm_create_vm(struct machine *m, struct err *e);
void kvm_free_vm(struct machine *m);
int vm_save(struct machine *m, struct state_writer *w, struct err *e);
int vm_load(struct machine *m, struct state_blob *b, struct err *e);

/* cpuid.c: what guests get; also for capabilities, so on /dev/kvm's descriptor. */
void cpuid_mask(struct cpuid_table *t); /* takes away what is not for guests */
int cpuid_offered(int kvm_fd, struct cpuid_table *out, struct err *e);
/* Takes away what the level has not; refuses by name what is not there. */
int cpuid_limit(struct cpuid_table *t, const char *level, struct err *e);
void cpuid_for_vcpu(struct cpuid_table *t, unsigned id, unsigned n_vcpus);
int cpuid_set(struct vcpu *v, const struct cpuid_table *t, struct err *e);
void cpuid_caps(const struct cpuid_table *t, struct hv_caps *out);
/* What the guest was booted with, here or where it came from, or will be. */
int machine_cpu(const struct machine *m, struct hv_caps *out, struct err *e);
/* Refuses, by name, a table that has features which `host` lacks. */
int cpuid_fits(const struct cpuid_table *guest, const struct cpuid_table *host, struct err *e);

/* dirty.c; control thread, except machine_dirty. */
int dirty_start(struct machine *m, struct err *e);
int dirty_stop(struct machine *m, struct err *e);
int dirty_fetch(struct machine *m, bool forget, struct err *e); /* ORs into m->shared */
void dirty_give_back(struct machine *m);                        /* takes from m->shared */
int dirty_open_shared(struct machine *m, struct err *e);
void dirty_free(struct machine *m);

/* vcpu.c */
int vcpus_create(struct machine *m, struct err *e);
int vcpus_start_threads(struct machine *m, struct err *e);
void vcpus_free(struct machine *m);
void vcpus_run(struct machine *m);
void vcpus_ask_to_park(struct machine *m); /* from any thread, does not wait */
void vcpus_park(struct machine *m);        /* returns when none runs */
int vcpus_throttle(struct machine *m, unsigned percent, struct err *e);
uint64_t vcpus_cpu_ns(const struct machine *m);
bool vcpus_sleep(const struct machine *m);     /* none of them wants to run */
/* Control thread. */
void vcpu_look(const struct vcpu *v, struct hv_vcpu *out);
int vcpu_pin(struct machine *m, unsigned vcpu, const char *list, struct err *e);
void vcpus_kick(struct machine *m); /* under run_lock: out of the guest, to wait_to_run */

/* cap.c: all vCPUs together get at most that much of one CPU's time; 0 ends it. Control thread. */
int cap_set(struct machine *m, unsigned percent, struct err *e);
void vcpu_nap(struct machine *m, unsigned ms); /* by a vCPU thread; a pause ends it */

/* vcpu_state.c */
struct clock_state {
    uint64_t guest_ns;   /* kvmclock */
    uint64_t wall_ns;    /* CLOCK_REALTIME when guest_ns was read */
    uint64_t host_tsc;   /* reference for the TSC values saved with it; this host's */
    uint64_t elapsed_ns; /* load: real time since wall_ns */
};
int vcpu_save(
    struct vcpu *v, struct state_writer *w, const struct clock_state *clock, struct err *e);
int vcpu_load(struct vcpu *v, struct state_blob *b, const struct cpuid_table *host,
    const struct clock_state *clock, struct err *e);

/* registers.c; of a vCPU that does not run */
int vcpu_registers(const struct vcpu *v, struct hv_registers *out, struct err *e);

/* Before the first run of a loaded state: what makes KVM write into guest memory. */
int vcpu_finish_load(struct vcpu *v, struct err *e);

/* boot.c and friends: fills memory and vCPU 0's registers. */
int boot_kernel(struct machine *m, struct err *e);

/* acpi.c: writes the tables; the RSDP is at ACPI_RSDP. */
#define ACPI_RSDP 0xe0000u
int acpi_write(struct machine *m, struct err *e);

/* platform.c: reset, power button, panic and nap ports. */
int platform_create(struct machine *m, struct err *e);
void platform_power_button(struct machine *m);

#endif
