/* SPDX-License-Identifier: ISC */
/*
 * virtio: what the polled drivers of ring 3 share (virtio 1.1, 2.6 and 4.2): finding a device among
 * the virtio-mmio slots, agreeing on features, split queues without interrupts. Addresses are
 * identity-mapped: a pointer is what the device wants. Loads and stores of the registers are one
 * plain MOV each, because that is what every KVM can emulate.
 */
#ifndef VIRTIO_H
#define VIRTIO_H

#include "guest.h"

#define VIRTQ_SIZE 128u
#define VIRTQ_DESC_NEXT 1u
#define VIRTQ_DESC_WRITE 2u /* by the device */

enum virtio_kind { VIRTIO_NET = 1, VIRTIO_BLK = 2 };

struct virtq_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
struct virtq_avail {
    uint16_t flags, idx, ring[VIRTQ_SIZE], used_event;
};
struct virtq_used {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[VIRTQ_SIZE];
    uint16_t avail_event;
};

/* One queue; zeroed, and on a page of its own, as the rings must be aligned. */
struct virtq {
    struct virtq_desc desc[VIRTQ_SIZE] __attribute__((aligned(PAGE)));
    struct virtq_avail avail __attribute__((aligned(PAGE)));
    struct virtq_used used __attribute__((aligned(PAGE)));
    uint64_t device;
    uint16_t number, avail_next, used_next;
    bool kick;
};

/* Address of the registers of the first device of that kind, 0: there is none. */
uint64_t virtio_find(enum virtio_kind kind);
/* Resets the device and agrees on those of `wanted` that it has, and on version 1. */
bool virtio_agree(uint64_t device, uint64_t wanted, uint64_t *agreed);
bool virtq_start(struct virtq *q, uint64_t device, uint16_t number);
void virtio_driver_ok(uint64_t device);
uint32_t virtio_config(uint64_t device, unsigned at); /* 4 bytes of the config space */

/* Makes a chain that begins at descriptor `head` available; virtq_kick tells the device of all. */
void virtq_put(struct virtq *q, uint16_t head);
void virtq_kick(struct virtq *q);
/* A chain that the device has done with: its head, and how many bytes were written. */
bool virtq_take(struct virtq *q, uint32_t *head, uint32_t *len);

#endif
