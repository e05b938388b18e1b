/* SPDX-License-Identifier: ISC */
/* What a target cannot do is found out by trying: disk_iscsi_io against answers of the test's own.
 * The calls of libiscsi and of the loop are replaced. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "storage-check/disk_iscsi.h"

#define PARTS 4u
#define AGAIN (-2)

static struct scsi_disk *s;
static struct net_part part[PARTS];
static struct disk_io io[PARTS];
static int result[PARTS];

/* The last command, and what it carries. */
static struct scsi_task last;
static iscsi_command_cb answered_by;
static uint64_t data_len;

/* ---- libiscsi ---- */

static struct scsi_task *sent(int opcode, uint64_t len, iscsi_command_cb cb)
{
    memset(&last, 0, sizeof last);
    last.cdb[0] = (unsigned char)opcode;
    answered_by = cb;
    data_len = len;
    return &last;
}

struct scsi_task *iscsi_synchronizecache16_task(struct iscsi_context *c, int lun, uint64_t lba,
    uint32_t blocks, int syncnv, int immed, iscsi_command_cb cb, void *priv)
{
    (void)c, (void)lun, (void)lba, (void)blocks, (void)syncnv, (void)immed, (void)priv;
    return sent(SCSI_OPCODE_SYNCHRONIZECACHE16, 0, cb);
}

struct scsi_task *iscsi_synchronizecache10_task(struct iscsi_context *c, int lun, int lba,
    int blocks, int syncnv, int immed, iscsi_command_cb cb, void *priv)
{
    (void)c, (void)lun, (void)lba, (void)blocks, (void)syncnv, (void)immed, (void)priv;
    return sent(SCSI_OPCODE_SYNCHRONIZECACHE10, 0, cb);
}

struct scsi_task *iscsi_unmap_task(struct iscsi_context *c, int lun, int anchor, int group,
    struct unmap_list *list, int n, iscsi_command_cb cb, void *priv)
{
    (void)c, (void)lun, (void)anchor, (void)group, (void)list, (void)n, (void)priv;
    return sent(SCSI_OPCODE_UNMAP, 0, cb);
}

struct scsi_task *iscsi_writesame16_task(struct iscsi_context *c, int lun, uint64_t lba,
    unsigned char *data, uint32_t len, uint32_t blocks, int anchor, int unmap, int protect,
    int group, iscsi_command_cb cb, void *priv)
{
    (void)c, (void)lun, (void)lba, (void)blocks, (void)anchor, (void)unmap, (void)protect;
    (void)group, (void)priv;
    for (uint32_t i = 0; i < len; i++)
        assert_int_equal(data[i], 0);
    return sent(SCSI_OPCODE_WRITE_SAME16, len, cb);
}

struct scsi_task *iscsi_write16_iov_task(struct iscsi_context *c, int lun, uint64_t lba,
    unsigned char *data, uint32_t len, int block, int protect, int dpo, int fua, int fua_nv,
    int group, iscsi_command_cb cb, void *priv, struct scsi_iovec *iov, int n)
{
    uint64_t there = 0;

    (void)c, (void)lun, (void)lba, (void)data, (void)block, (void)protect, (void)dpo, (void)fua;
    (void)fua_nv, (void)group, (void)priv;
    for (int i = 0; i < n; i++) {
        assert_int_equal(((uint8_t *)iov[i].iov_base)[iov[i].iov_len - 1], 0);
        there += iov[i].iov_len;
    }
    assert_int_equal(there, len);
    return sent(SCSI_OPCODE_WRITE16, len, cb);
}

void scsi_free_scsi_task(struct scsi_task *t)
{
    (void)t;
}

/* ---- the loop ---- */

void net_lost(struct net_disk *n, enum err_code code, const char *fmt, ...)
{
    (void)code, (void)fmt;
    n->broken = true;
}

void net_heard(struct net_disk *n)
{
    (void)n;
}

void net_wake(struct net_disk *n)
{
    (void)n;
}

void net_part_done(struct net_part *p, int error)
{
    result[p - part] = error;
    free(p->cut);
    p->cut = NULL;
}

void net_part_again(struct net_part *p, unsigned delay_ms)
{
    (void)delay_ms;
    result[p - part] = AGAIN;
}

/* ---- help ---- */

static int setup(void **state)
{
    (void)state;
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return -1;
    s->look.block_size = 512;
    s->look.provisioned = true;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(s);
    return 0;
}

/* Sends part i; the command that went out, or 0. */
static int order(unsigned i, enum disk_op op, uint64_t len)
{
    last.cdb[0] = 0;
    if (result[i] != AGAIN) {
        io[i] = (struct disk_io){ .op = op, .len = len };
        part[i] = (struct net_part){ .net = &s->n, .io = &io[i], .len = len };
    }
    result[i] = -1;
    assert_int_equal(scsi_start(&s->n, &part[i]), 0);
    return last.cdb[0];
}

static void refuse(unsigned i, int opcode, int ascq)
{
    struct scsi_task t = { .cdb = { (unsigned char)opcode },
        .sense = { .key = SCSI_SENSE_ILLEGAL_REQUEST, .ascq = ascq } };

    answered_by(NULL, SCSI_STATUS_CHECK_CONDITION, &t, &part[i]);
}

static void grant(unsigned i)
{
    struct scsi_task t = { .cdb = { last.cdb[0] } };

    answered_by(NULL, SCSI_STATUS_GOOD, &t, &part[i]);
}

/* ---- tests ---- */

static void flushes(void **state)
{
    (void)state;
    assert_int_equal(order(0, DISK_FLUSH, 0), SCSI_OPCODE_SYNCHRONIZECACHE16);
    assert_int_equal(order(1, DISK_FLUSH, 0), SCSI_OPCODE_SYNCHRONIZECACHE16);
    refuse(0, SCSI_OPCODE_SYNCHRONIZECACHE16, SCSI_SENSE_ASCQ_INVALID_OPERATION_CODE);
    refuse(1, SCSI_OPCODE_SYNCHRONIZECACHE16, SCSI_SENSE_ASCQ_INVALID_OPERATION_CODE);
    assert_int_equal(result[0], AGAIN);
    assert_int_equal(result[1], AGAIN);
    assert_int_equal(order(0, DISK_FLUSH, 0), SCSI_OPCODE_SYNCHRONIZECACHE10);
    grant(0);
    assert_int_equal(result[0], 0);
    assert_int_equal(order(1, DISK_FLUSH, 0), SCSI_OPCODE_SYNCHRONIZECACHE10);
    refuse(1, SCSI_OPCODE_SYNCHRONIZECACHE10, SCSI_SENSE_ASCQ_INVALID_FIELD_IN_CDB);
    assert_int_equal(result[1], EIO); /* it knows the command: there is a cache */
    assert_int_equal(order(1, DISK_FLUSH, 0), SCSI_OPCODE_SYNCHRONIZECACHE10);
    refuse(1, SCSI_OPCODE_SYNCHRONIZECACHE10, SCSI_SENSE_ASCQ_INVALID_OPERATION_CODE);
    assert_int_equal(result[1], AGAIN);
    assert_int_equal(order(1, DISK_FLUSH, 0), 0);
    assert_int_equal(result[1], 0);
}

/* Several are on their way when the first one is refused. */
static void refused_at_once(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(order(i, DISK_DISCARD, 4096), SCSI_OPCODE_UNMAP);
    for (unsigned i = 2; i < 4; i++)
        assert_int_equal(order(i, DISK_ZEROES, 4096), SCSI_OPCODE_WRITE_SAME16);
    for (unsigned i = 2; i < 4; i++)
        refuse(i, SCSI_OPCODE_WRITE_SAME16, SCSI_SENSE_ASCQ_INVALID_OPERATION_CODE);
    for (unsigned i = 0; i < 2; i++)
        refuse(i, SCSI_OPCODE_UNMAP, SCSI_SENSE_ASCQ_INVALID_OPERATION_CODE);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(result[i], AGAIN);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(order(i, DISK_DISCARD, 4096), 0);
        assert_int_equal(result[i], 0);
    }
    for (unsigned i = 2; i < 4; i++) {
        assert_int_equal(order(i, DISK_ZEROES, 4096), SCSI_OPCODE_WRITE16);
        grant(i);
        assert_int_equal(result[i], 0);
    }
}

/* A part of before, that is longer than one command writes. */
static void zeroes_in_steps(void **state)
{
    const uint64_t len = NET_PART_MAX + 4096;

    (void)state;
    assert_int_equal(order(0, DISK_ZEROES, len), SCSI_OPCODE_WRITE_SAME16);
    refuse(0, SCSI_OPCODE_WRITE_SAME16, SCSI_SENSE_ASCQ_INVALID_FIELD_IN_CDB);
    assert_int_equal(order(0, DISK_ZEROES, len), SCSI_OPCODE_WRITE16);
    assert_int_equal(data_len, NET_PART_MAX);
    grant(0);
    assert_int_equal(data_len, 4096);
    grant(0);
    assert_int_equal(result[0], 0);
}

/* WRITE SAME would send one block, and that many zeroes are not there. */
static void large_blocks(void **state)
{
    (void)state;
    s->look.block_size = 1u << 20;
    assert_int_equal(scsi_part_max(&s->n, DISK_ZEROES), NET_PART_MAX);
    assert_int_equal(order(0, DISK_ZEROES, NET_PART_MAX), SCSI_OPCODE_WRITE16);
    assert_int_equal(data_len, NET_PART_MAX);
    grant(0);
    assert_int_equal(result[0], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(flushes, setup, teardown),
        cmocka_unit_test_setup_teardown(refused_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(zeroes_in_steps, setup, teardown),
        cmocka_unit_test_setup_teardown(large_blocks, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
