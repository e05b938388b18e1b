/* SPDX-License-Identifier: ISC */
/*
 * virtio_internal: between virtio.c, the transport, and virtio_ring.c, its queues.
 */
#ifndef XVM_VIRTIO_INTERNAL_H
#define XVM_VIRTIO_INTERNAL_H

#include "hypervisor/xvm/virtio.h"

/* Bits of InterruptStatus (virtio 1.1, 4.2.2). */
#define VIRTIO_ISR_USED 0x01u
#define VIRTIO_ISR_CONFIG 0x02u

/* Tells the guest; any lock may be held. */
void virtio_interrupt(struct virtio *v, uint32_t cause);

/* Finds the rings of a queue that is made ready. False: an address or size is wrong. */
bool virtio_ring_map(struct virtio *v, struct virtio_queue *q);

#endif
