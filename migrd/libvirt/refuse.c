/* SPDX-License-Identifier: ISC */
/*
 * What migrd does not do, in words: virsh shows its user the text and nothing of the
 * procedure that it called. Numbers are libvirt's.
 */
#include <stddef.h>

#include "migrd/libvirt/internal.h"

#define NETWORKS "virtual networks; a guest's network card is on a bridge of the host"
#define POOLS "storage pools; a disk is a file, a block device, nfs://... or iscsi://..."
#define DEVICES "devices of the host"
#define INTERFACES "network interfaces of the host"
#define SECRETS "secrets; storage-secrets in migrd.conf names the file of passwords"
#define FILTERS "network filters"
#define SNAPSHOTS "snapshots; save and restore keep a domain's state in a file"
#define BLOCK_JOBS "block jobs; images are raw and have no backing chain"
#define AGENT "agents in the guest"
#define LABELS "security labels; each domain is confined by its own process"
#define KEPT "managed save; virsh save FILE and restore FILE keep a domain's state"
#define TUNNEL "--tunnelled; data channels are encrypted with --tls"

static const struct {
    int from, to;
    const char *what;
} refused[] = {
    { 36, 36, NETWORKS },
    { 38, 50, NETWORKS },
    { 52, 52, NETWORKS },
    { 71, 85, POOLS },
    { 89, 96, POOLS },
    { 103, 104, "looking into a guest's disks or memory; virsh dump writes a core file" },
    { 111, 120, DEVICES },
    { 121, 122, LABELS },
    { 123, 124, DEVICES },
    { 125, 125, POOLS },
    { 126, 134, INTERFACES },
    { 137, 138, INTERFACES },
    { 139, 147, SECRETS },
    { 148, 148, TUNNEL },
    { 152, 153, NETWORKS },
    { 154, 155, POOLS },
    { 156, 156, INTERFACES },
    { 158, 158, "comparing CPUs; migctl cpu compare HOST does" },
    { 162, 162, "baselines of CPUs; migctl cpu baseline computes one" },
    { 165, 165, POOLS },
    { 175, 181, FILTERS },
    { 182, 182, KEPT },
    { 184, 184, KEPT },
    { 185, 193, SNAPSHOTS },
    { 194, 194, "sizes of disks" },
    { 197, 198, "limits on a domain's memory on the host" },
    { 203, 203, "the host's system information (SMBIOS)" },
    { 205, 206, "block I/O weights" },
    { 208, 209, POOLS },
    { 210, 210, "injecting an NMI" },
    { 211, 211, "screenshots; a guest has a console only" },
    { 215, 215, TUNNEL },
    { 220, 222, INTERFACES },
    { 226, 226, "sending keys; a guest has a console only" },
    { 227, 228, "statistics of the host; they are in /proc/stat and /proc/meminfo" },
    { 235, 236, "changing a saved state's definition" },
    { 237, 240, BLOCK_JOBS },
    { 244, 244, SNAPSHOTS },
    { 245, 245, "a reset; virsh destroy and start, or reboot" },
    { 246, 247, SNAPSHOTS },
    { 249, 249, "graphics; a guest has a console only" },
    { 250, 250, "suspending the host" },
    { 251, 251, "resizing a disk that is in use" },
    { 252, 253, "limits on a disk's throughput" },
    { 254, 255, "NUMA placement; virsh vcpupin chooses CPUs" },
    { 256, 257, "limits on a network card's throughput" },
    { 259, 260, POOLS },
    { 261, 261, AGENT },
    { 263, 263, "errors of single disks; virsh domstate --reason and the log of migrd have them" },
    { 266, 266, BLOCK_JOBS },
    { 267, 267, "waking up a suspended guest" },
    { 271, 272, SNAPSHOTS },
    { 274, 275, SNAPSHOTS },
    { 277, 277, AGENT },
    { 278, 278, LABELS },
    { 279, 280, "pinning of anything but vCPUs" },
    { 282, 282, POOLS },
    { 283, 283, NETWORKS },
    { 284, 284, INTERFACES },
    { 285, 285, DEVICES },
    { 286, 286, FILTERS },
    { 287, 287, SECRETS },
    { 288, 289, "the host's memory parameters" },
    { 290, 290, BLOCK_JOBS },
    { 291, 291, NETWORKS },
    { 294, 294, AGENT },
    { 295, 295, "signals to processes of a guest" },
    { 296, 296, "channels; a guest has a console only" },
    { 297, 297, DEVICES },
    { 299, 300, "a size of the compression cache; it is chosen by itself" },
    { 301, 301, DEVICES },
    { 304, 304, TUNNEL },
    { 308, 308, "a period of memory statistics" },
    { 309, 310, "files handed to a guest" },
    { 312, 312, "models of CPUs; migctl cpu show has what guests can be given" },
    { 313, 315, NETWORKS },
    { 335, 336, AGENT },
    { 337, 338, "a guest's clock; it follows the host's, also over a migration" },
    { 340, 340, "counts of free huge pages" },
    { 341, 341, NETWORKS },
    { 343, 343, "graphics; a guest has a console only" },
    { 345, 345, BLOCK_JOBS },
    { 347, 347, "allocating huge pages" },
    { 349, 349, AGENT },
    { 351, 352, "I/O threads" },
    { 353, 353, AGENT },
    { 355, 356, "I/O threads" },
    { 357, 357, AGENT },
    { 358, 358, "renaming; virsh dumpxml, undefine and define do it" },
    { 365, 366, "performance events" },
    { 368, 370, POOLS },
    { 371, 372, AGENT },
    { 373, 373, POOLS },
    { 374, 377, DEVICES },
    { 378, 378, POOLS },
    { 380, 383, SECRETS },
    { 384, 384, "single vCPUs; virsh setvcpus says how many" },
    { 386, 386, "thresholds of disks" },
    { 388, 389, KEPT },
    { 390, 390, "single actions; on_poweroff, on_reboot and on_crash are in the definition" },
    { 391, 391, POOLS },
    { 392, 392, "aliases of devices; virsh detach-device takes the device's XML" },
    { 393, 393, "comparing CPUs; migctl cpu compare HOST does" },
    { 394, 394, "baselines of CPUs; migctl cpu baseline computes one" },
    { 395, 396, "launch security" },
    { 397, 401, FILTERS },
    { 402, 402, "I/O threads" },
    { 403, 403, POOLS },
    { 404, 409, NETWORKS },
    { 411, 417, "checkpoints; images are raw" },
    { 418, 418, AGENT },
    { 420, 420, AGENT },
    { 421, 422, "backups of disks; take them from the storage" },
    { 424, 425, AGENT },
    { 427, 427, "a rate of its own; migctl migrate --dry-run tells how fast a guest writes" },
    { 428, 437, DEVICES },
    { 438, 439, "launch security" },
};

const char *lv_refused_words(int proc)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (proc >= refused[i].from && proc <= refused[i].to)
            return refused[i].what;
    return NULL;
}
