/* SPDX-License-Identifier: ISC */
/*
 * A save file's two blocks. The first byte says whether magic, version and digests are put right
 * (the fuzzer's bytes are then the two messages, half and half) or taken as they are. What is read
 * can be written and read again; an offer that passes the checks has regions inside their limits.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "precopy/savefile.h"
#include "precopy/worker_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct block {
    uint32_t length, reserved;
    uint64_t digest;
};

static int memory_file(void)
{
    int fd = memfd_create("savefile", MFD_CLOEXEC);

    if (fd < 0)
        abort();
    return fd;
}

static void put(int fd, const void *data, size_t len)
{
    if (write(fd, data, len) != (ssize_t)len)
        abort();
}

static void put_block(int fd, const uint8_t *data, size_t len)
{
    struct block b = { (uint32_t)len, 0, XXH3_64bits(data, len) };

    put(fd, &b, sizeof b);
    put(fd, data, len);
}

static void write_file(int fd, const uint8_t *data, size_t len)
{
    static const struct {
        char magic[8];
        uint32_t version, reserved;
    } head = { SAVEFILE_MAGIC, SAVEFILE_VERSION, 0 };

    if (data[0] & 1) {
        put(fd, &head, sizeof head);
        put_block(fd, data + 1, (len - 1) / 2);
        put_block(fd, data + 1 + (len - 1) / 2, len - 1 - (len - 1) / 2);
    } else {
        put(fd, data + 1, len - 1);
    }
}

static void check_offer(const Migrd__Offer *o)
{
    int fd = memory_file();
    Migrd__Offer *back;
    uint64_t next = 0;
    struct err e;

    if (savefile_write_head(fd, o, &e) == 0 && lseek(fd, 0, SEEK_SET) == 0) {
        back = savefile_read_head(fd, &e);
        if (back != NULL)
            migrd__offer__free_unpacked(back, NULL);
    }
    close(fd);
    if (offer_check(o, false, &e) < 0)
        return;
    for (size_t i = 0; i < o->n_regions; i++) {
        if (o->regions[i]->gfn < next || o->regions[i]->pages == 0)
            abort();
        next = o->regions[i]->gfn + o->regions[i]->pages;
    }
    if (o->n_regions > HV_MAX_REGIONS || strlen(o->domain->uuid) >= HV_UUID_LEN ||
        strlen(o->domain->name) >= HV_NAME_LEN)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    Migrd__FinalState *f;
    Migrd__Offer *o;
    struct err e;
    int fd;

    if (len == 0)
        return 0;
    fd = memory_file();
    write_file(fd, data, len);
    if (lseek(fd, 0, SEEK_SET) != 0)
        abort();
    o = savefile_read_head(fd, &e);
    if (o != NULL) {
        check_offer(o);
        migrd__offer__free_unpacked(o, NULL);
        f = savefile_read_final(fd, &e);
        if (f != NULL)
            migrd__final_state__free_unpacked(f, NULL);
    }
    close(fd);
    return 0;
}
