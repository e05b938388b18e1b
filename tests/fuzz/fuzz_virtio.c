/* SPDX-License-Identifier: ISC */
/*
 * A hostile guest: writes to the registers and rings of a disk, a random number generator and a
 * balloon, and to the console's registers. Devices may say "broken" and must not touch anything but
 * the guest's memory; what they write must be marked dirty, and they save and load afterwards.
 *
 * The first byte chooses the device. Then commands of 6 bytes: u8 what, u8 a, u32 b:
 *
 *   0 write b to register a*4          3 descriptor a of the ring: the next 16 bytes
 *   1 set up queue a with the driver's usual steps, features b
 *   2 u16 b at offset a*2 of the available ring's page; u8 a: index of it: the next ring entry
 *   4 notify queue a and let it work   5 read register a*4       6 b bytes of memory at page a
 *   7 start or quiesce
 */
#define _GNU_SOURCE
#include "tests/unit/fake_machine.h"

#include <fcntl.h>

#include "base/log.h"
#include "hypervisor/xvm/virtio.h"

#define QUEUE_STEP UINT64_C(0x10000)
#define DESC UINT64_C(0x10000)
#define AVAIL UINT64_C(0x14000)
#define USED UINT64_C(0x18000)
#define QUEUE_SIZE 16u
#define DEVICES 4
#define COMMAND 6
#define COMMANDS_MAX 64

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct machine *machine;

static void end(void)
{
    fake_free(&machine);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    Migrd__Disk disk = MIGRD__DISK__INIT;
    char path[128];
    struct err e;
    int fd;

    (void)argc;
    (void)argv;
    if (log_open("fuzz", "/dev/null", NULL) < 0)
        return -1;
    machine = fake_new();
    snprintf(path, sizeof path, "%s/disk", machine->dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 1 << 20) < 0)
        abort();
    close(fd);
    disk.source = path;
    disk.device = (char *)(uintptr_t) "vda";
    if (virtio_blk_create(machine, 0, &disk, false, &e) < 0 ||
        virtio_rng_create(machine, 1, &e) < 0 || virtio_balloon_create(machine, 2, &e) < 0 ||
        serial_create(machine, &e) < 0)
        abort();
    atexit(end);
    return 0;
}

static void out32(struct device *d, uint64_t reg, uint32_t v)
{
    d->ops->io_write(d, reg, &v, 4);
}

static void put16(uint64_t gpa, uint16_t v)
{
    __atomic_store_n((uint16_t *)(void *)(machine->ram + gpa), v, __ATOMIC_SEQ_CST);
}

static void set_up(struct device *d, unsigned q, uint32_t features)
{
    uint64_t step = q * QUEUE_STEP;

    out32(d, 0x70, 3);
    out32(d, 0x24, 0);
    out32(d, 0x20, features);
    out32(d, 0x24, 1);
    out32(d, 0x20, 1);
    out32(d, 0x70, 11);
    out32(d, 0x30, q);
    out32(d, 0x38, QUEUE_SIZE);
    out32(d, 0x80, (uint32_t)(DESC + step));
    out32(d, 0x90, (uint32_t)(AVAIL + step));
    out32(d, 0xa0, (uint32_t)(USED + step));
    out32(d, 0x44, 1);
    out32(d, 0x70, 15);
}

static bool is_virtio(const struct device *d)
{
    return strncmp(d->ops->name, "virtio", 6) == 0;
}

static bool at_rest(struct virtio *v, unsigned q)
{
    bool rest;

    pthread_mutex_lock(&v->lock);
    rest = v->busy == 0 &&
           (!v->queue[q].kicked || !v->queue[q].ready || v->hold > 0 || (v->status & 0x44) != 4);
    pthread_mutex_unlock(&v->lock);
    return rest;
}

static void let_work(struct device *d, unsigned q)
{
    struct virtio *v = (struct virtio *)d;

    if (!is_virtio(d))
        return;
    out32(d, 0x50, q);
    while (q < v->ops->queues && !at_rest(v, q))
        sched_yield();
}

/* One command; returns how many bytes of `data` it took beyond itself. */
static size_t obey(struct device *d, const uint8_t *command, const uint8_t *data, size_t len)
{
    uint8_t a = command[1], bytes[4];
    unsigned q = a & 1;
    uint32_t b;

    memcpy(&b, command + 2, sizeof b);
    switch (command[0] % 8) {
    case 0:
        memcpy(bytes, &b, sizeof bytes);
        d->ops->io_write(d, is_virtio(d) ? a * 4u : a % 8u, bytes, is_virtio(d) ? 4 : 1);
        return 0;
    case 1:
        if (is_virtio(d))
            set_up(d, q, b);
        return 0;
    case 2:
        put16(AVAIL + q * QUEUE_STEP + (a & 0xfeu), (uint16_t)b);
        return 0;
    case 3:
        if (len < 16)
            return 0;
        memcpy(machine->ram + DESC + q * QUEUE_STEP + (a >> 1) * 16u, data, 16);
        return 16;
    case 4:
        let_work(d, q);
        return 0;
    case 5:
        d->ops->io_read(d, is_virtio(d) ? a * 4u : a % 8u, bytes, is_virtio(d) ? 4 : 1);
        return 0;
    case 6:
        b = b < len ? b : (uint32_t)len;
        b = b < 256 ? b : 256;
        memcpy(machine->ram + ((uint64_t)a << 12), data, b);
        return b;
    default:
        if (b & 1)
            d->ops->start(d);
        else
            d->ops->quiesce(d);
        return 0;
    }
}

static void save_and_load(struct device *d)
{
    struct state_writer w;
    struct state_blob *b;
    struct state_reader r;
    struct err e;
    uint8_t *blob;
    size_t len;

    state_writer_init(&w);
    if (d->ops->save(d, &w, &e) < 0 || state_finish(&w, &blob, &len, &e) < 0)
        abort();
    if (state_parse(blob, len, &b, &e) < 0 || state_open(b, d->ops->name, &r, &e) < 0)
        abort();
    d->ops->reset(d);
    /* A state that a guest can bring about loads, or is refused with a reason. */
    if (d->ops->load(d, &r, &e) < 0 && e.text[0] == '\0')
        abort();
    d->ops->reset(d);
    state_blob_free(&b);
    free(blob);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct device *d;
    size_t at = 1;

    if (len < 1 + COMMAND)
        return 0;
    d = machine->dev[data[0] % DEVICES];
    memset(machine->ram, 0, 256u << 12);
    d->ops->start(d);
    for (unsigned n = 0; n < COMMANDS_MAX && len - at >= COMMAND; n++) {
        const uint8_t *command = data + at;

        at += COMMAND;
        at += obey(d, command, data + at, len - at);
    }
    d->ops->quiesce(d);
    save_and_load(d);
    return 0;
}
