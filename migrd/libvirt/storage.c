/* SPDX-License-Identifier: ISC */
/*
 * As much of storage as virt-install and virt-manager ask for before they use a disk image that is
 * there: whoever may change domains may ask for a volume by the path of a regular file or block
 * device, and is told size and type. Pools are not made and none is listed; volumes say that they
 * are of one called "files", whose folder is /.
 *
 * Files are looked at in the pool of threads: a file system may not answer. LOOKS_MAX at a time, so
 * that one that is silent for ever leaves threads for the domains.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#include <linux/fs.h>

#include "base/io.h"
#include "migrd/define/xml_out.h"
#include "migrd/job.h"
#include "migrd/libvirt/internal.h"

#define POOL "files"
#define POOL_RUNNING 2
#define VOL_FILE 0
#define VOL_BLOCK 1
#define SECTOR 512
#define LOOKS_MAX 4

struct look {
    struct job job; /* first */
    struct lv_call *k;
    char path[LV_NAME_MAX];
    bool block;
    uint64_t size, allocated;
    int (*answer)(struct look *l, void *ret, struct err *e);
};

/* --- looking --- */

static int block_size(const char *path, uint64_t *size, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), r;

    if (fd < 0)
        return err_sys(e, "%s", path);
    r = ioctl(fd, BLKGETSIZE64, size);
    close(fd);
    return r < 0 ? err_sys(e, "%s: its size", path) : 0;
}

static int look(struct look *l, struct err *e)
{
    struct stat st;

    if (stat(l->path, &st) < 0)
        return err_sys(e, "%s", l->path);
    l->block = S_ISBLK(st.st_mode);
    if (!l->block && !S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%s is neither a regular file nor a block device", l->path);
    l->size = (uint64_t)st.st_size;
    l->allocated = (uint64_t)st.st_blocks * SECTOR;
    if (!l->block)
        return 0;
    if (block_size(l->path, &l->size, e) < 0)
        return -1;
    l->allocated = l->size;
    return 0;
}

static void look_work(struct job *j)
{
    j->result = look((struct look *)j, &j->err);
}

static void look_done(struct job *j)
{
    struct look *l = (struct look *)j;
    struct lv_call *k = l->k;
    const struct lv_entry *entry = k->entry;
    void *ret = calloc(1, entry->out_size);
    struct err e = j->err;
    int r = j->result;

    k->m->libvirt->looks--;
    if (r < 0)
        k->code = LV_E_NO_VOLUME;
    else if (ret == NULL)
        r = err_set(&e, ERR_MEMORY, "migrd is out of memory");
    else
        r = l->answer(l, ret, &e);
    lv_call_finish(k, r, ret, &e);
    if (ret != NULL)
        xdr_free(entry->out, ret);
    free(ret);
    free(l);
}

static int begin(struct lv_call *k, const char *path,
    int (*answer)(struct look *l, void *ret, struct err *e), struct err *e)
{
    struct look *l;

    if (path[0] != '/' || strlen(path) >= sizeof l->path)
        return lv_fail(k, e, LV_E_NO_VOLUME, "no storage volume '%.200s'", path);
    if (k->m->libvirt->looks >= LOOKS_MAX)
        return lv_fail(k, e, LV_E_BUSY,
            "%.200s: the storage of %d other files has not answered yet; try again later", path,
            LOOKS_MAX);
    l = calloc(1, sizeof *l);
    if (l == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    l->job.work = look_work;
    l->job.done = look_done;
    l->k = k;
    l->answer = answer;
    snprintf(l->path, sizeof l->path, "%s", path);
    k->m->libvirt->looks++;
    job_run(k->m->loop, &l->job);
    return LV_LATER;
}

/* --- volumes --- */

static const char *name_of(const char *path)
{
    return strrchr(path, '/') + 1;
}

static int give_volume(struct look *l, void *ret, struct err *e)
{
    lv_vol *v = ret;

    v->pool = lv_copy(POOL);
    v->name = lv_copy(name_of(l->path));
    v->key = lv_copy(l->path);
    if (v->pool == NULL || v->name == NULL || v->key == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    return 0;
}

int lv_vol_by_path(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return begin(k, ((const lv_word *)args)->value, give_volume, e);
}

static int give_info(struct look *l, void *ret, struct err *e)
{
    lv_vol_info *i = ret;

    (void)e;
    i->type = l->block ? VOL_BLOCK : VOL_FILE;
    i->capacity = l->size;
    i->allocation = l->allocated;
    return 0;
}

int lv_vol_get_info(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return begin(k, ((const lv_vol *)args)->key, give_info, e);
}

static void put_bytes(struct xml_out *x, const char *name, uint64_t bytes)
{
    char text[32];

    snprintf(text, sizeof text, "%llu", (unsigned long long)bytes);
    xml_begin(x, name);
    xml_attr(x, "unit", "bytes");
    x->failed |= xmlTextWriterWriteString(x->w, (const xmlChar *)text) < 0;
    xml_end(x);
}

static int give_xml(struct look *l, void *ret, struct err *e)
{
    lv_string *out = ret;
    struct xml_out x;

    xml_start(&x);
    if (!x.failed) {
        xml_begin(&x, "volume");
        xml_attr(&x, "type", l->block ? "block" : "file");
        xml_text(&x, "name", name_of(l->path));
        xml_text(&x, "key", l->path);
        put_bytes(&x, "capacity", l->size);
        put_bytes(&x, "allocation", l->allocated);
        xml_begin(&x, "target");
        xml_text(&x, "path", l->path);
        xml_begin(&x, "format");
        xml_attr(&x, "type", "raw");
        xml_end(&x);
        xml_end(&x);
        xml_end(&x);
    }
    out->value = xml_finish(&x);
    return out->value != NULL ? 0 : err_set(e, ERR_MEMORY, "migrd is out of memory");
}

int lv_vol_get_xml(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_vol_flags *a = args;

    (void)ret;
    return lv_check_flags(k, a->flags, 0, e) < 0 ? -1 : begin(k, a->vol.key, give_xml, e);
}

int lv_vol_get_path(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_vol *v = args;

    (void)k;
    ((lv_word *)ret)->value = lv_copy(v->key);
    return ((lv_word *)ret)->value != NULL ? 0 : err_set(e, ERR_MEMORY, "migrd is out of memory");
}

/* --- the pool that they are of --- */

int lv_pool_list(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)k;
    (void)args;
    (void)ret; /* none */
    (void)e;
    return 0;
}

int lv_pool_by_vol(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    lv_pool *p = ret;

    (void)k;
    (void)args;
    p->name = lv_copy(POOL);
    memset(p->uuid, 0xff, sizeof p->uuid);
    return p->name != NULL ? 0 : err_set(e, ERR_MEMORY, "migrd is out of memory");
}

int lv_pool_get_info(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)k;
    (void)args;
    (void)e;
    ((lv_pool_info *)ret)->state = POOL_RUNNING;
    return 0;
}

int lv_pool_get_xml(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)k;
    (void)args;
    ((lv_string *)ret)->value = lv_copy("<pool type='dir'><name>" POOL "</name>"
                                        "<uuid>ffffffff-ffff-ffff-ffff-ffffffffffff</uuid>"
                                        "<target><path>/</path></target></pool>\n");
    return ((lv_string *)ret)->value != NULL ? 0 : err_set(e, ERR_MEMORY, "migrd is out of memory");
}
