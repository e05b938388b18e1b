/* SPDX-License-Identifier: ISC */
/*
 * vpd: names of a SCSI disk out of its answers: INQUIRY's vital product data, persistent
 * reservations, MODE SENSE. The bytes come from a foreign device and are believed in
 * nothing; lengths are those that really arrived. Pure; texts are the caller's buffers.
 */
#ifndef STORAGE_CHECK_VPD_H
#define STORAGE_CHECK_VPD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VPD_NAMES_MAX 16u
#define VPD_NAME_LEN 260u
#define VPD_KEYS_MAX 64u

struct vpd_name {
    const char *kind; /* "naa", "eui64", "t10", "scsi-name" */
    char value[VPD_NAME_LEN];
};

/* Names of the logical unit itself (not of the port or the target) on page 0x83; how many. */
size_t vpd_names(const uint8_t *page, size_t len, struct vpd_name out[VPD_NAMES_MAX]);
/* Page 0x80, blanks at both ends cut off; "" where there is none. */
void vpd_serial(const uint8_t *page, size_t len, char out[VPD_NAME_LEN]);

/* READ CAPACITY(16): false where the answer is too short or says nonsense. */
bool vpd_capacity(const uint8_t *data, size_t len, uint64_t *bytes, uint32_t *block_size);
/* The write protect bit of MODE SENSE(6). */
bool vpd_write_protected(const uint8_t *data, size_t len);
/* PERSISTENT RESERVE IN, READ KEYS: how many, of which at most VPD_KEYS_MAX are in `keys`. */
size_t vpd_keys(const uint8_t *data, size_t len, uint64_t keys[VPD_KEYS_MAX]);
/* READ RESERVATION: false if there is none. */
bool vpd_holder(const uint8_t *data, size_t len, uint64_t *key, unsigned *type);
/* REPORT CAPABILITIES: can it do "write exclusive, registrants only"? True also for a device that
 * does not say which types it has. */
bool vpd_can_reserve(const uint8_t *data, size_t len);

#endif
