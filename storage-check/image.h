/* SPDX-License-Identifier: ISC */
/*
 * image: is this a raw image, or one of another program's formats? Reads the beginning of
 * a disk, which the guest may have written: nothing in it is followed, only named. Pure.
 */
#ifndef STORAGE_CHECK_IMAGE_H
#define STORAGE_CHECK_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define IMAGE_HEAD 4096u /* bytes that are looked at */
#define IMAGE_NAME 1024u /* longest name of a backing file: qcow2's limit is 1023 */

/* "qcow2", "qcow", "qed", "vmdk", "vdi", "vhdx", "vhd", "parallels"; NULL: none that is known.
 * `backing` gets the name of the file below it, "" where there is none. */
const char *image_format(const uint8_t *head, size_t len, char backing[IMAGE_NAME]);

#endif
