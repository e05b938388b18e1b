/* SPDX-License-Identifier: ISC */
/* Pages through the whole codec: every encoding there and back, and what must not get through. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <unistd.h>

#include "pages_fake.h"

#define ONLY(e) (1u << FRAME_##e)

struct two {
    struct hv_mig from, to;
    struct pf_pipe pipe;
    struct pages_writer *w;
    struct pages_reader *r;
    uint32_t round;
    uint64_t all[HV_BITMAP_WORDS(PF_PAGES - 1)];
};

static uint64_t rng = 99;

static uint64_t chance(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static void noise(uint8_t *page)
{
    for (unsigned i = 0; i < HV_PAGE_SIZE; i += 8) {
        uint64_t v = chance();

        memcpy(page + i, &v, 8);
    }
}

static void text(uint8_t *page)
{
    for (unsigned i = 0; i < HV_PAGE_SIZE; i++)
        page[i] = (uint8_t)("the quick brown fox "[i % 20] + (i % 300 == 0 ? chance() % 9 : 0));
}

/* A mixture: zeroes, noise, text, alone and in long runs. */
static void fill(struct two *t)
{
    for (uint64_t g = 0; g < PF_PAGES; g++) {
        unsigned kind = (unsigned)(g < 600 ? g / 50 % 3 : chance() % 3);
        uint8_t *page = pf_page(&t->from, g);

        if (kind == 0)
            memset(page, 0, HV_PAGE_SIZE);
        else if (kind == 1)
            noise(page);
        else
            text(page);
    }
}

static void begin(struct two *t, struct pages_encode how, bool apart)
{
    struct err e;

    memset(t, 0, sizeof *t);
    pf_guest(&t->from, false);
    pf_guest(&t->to, apart);
    t->w = pf_writer(&t->from, &t->pipe);
    t->r = pf_reader(&t->to, &t->pipe, FRAME_EVERY);
    memset(t->all, 0xff, sizeof t->all);
    assert_int_equal(pages_writer_encode(t->w, &how, &e), 0);
    fill(t);
}

static void end(struct two *t)
{
    pages_writer_free(t->w);
    pages_reader_free(t->r);
    free(t->w);
    free(t->r);
    free(t->from.mem);
    free(t->to.mem);
    free(t->pipe.data);
}

static void send(struct two *t, const uint64_t *bitmap, bool live)
{
    struct pages_round r = { .number = t->round, .live = live, .bitmap = bitmap };
    struct err e = { 0 };

    t->pipe.len = t->pipe.at = 0;
    assert_int_equal(pages_write_round(t->w, &r, &e), 0);
    assert_int_equal(pages_write_mark(t->w, FRAME_ROUND_END, t->round++, &e), 0);
}

static int receive(struct two *t, struct err *e)
{
    enum frame_type type = FRAME_PAGES;
    uint32_t round;

    while (type == FRAME_PAGES)
        if (pages_read_frame(t->r, &type, &round, e) < 0)
            return -1;
    return 0;
}

static void must_be_equal(const struct two *t)
{
    for (uint64_t g = 0; g < PF_PAGES; g++)
        if (memcmp(pf_page(&t->from, g), pf_page(&t->to, g), HV_PAGE_SIZE) != 0)
            fail_msg("page %llu differs", (unsigned long long)g);
    assert_int_equal(t->w->fold, t->r->fold);
    assert_int_equal(t->pipe.at, t->pipe.len);
}

static void there(struct two *t, const uint64_t *bitmap, bool live)
{
    struct err e = { 0 };

    send(t, bitmap, live);
    if (receive(t, &e) < 0)
        fail_msg("%s", e.text);
    must_be_equal(t);
}

static void change(struct two *t, uint64_t *bitmap)
{
    memset(bitmap, 0, sizeof t->all);
    for (uint64_t g = 0; g < PF_PAGES; g++) {
        uint8_t *page = pf_page(&t->from, g);
        unsigned kind = (unsigned)(chance() % 8);

        if (kind < 3)
            continue;
        bitmap_set(bitmap, g);
        if (kind == 3)
            memset(page, 0, HV_PAGE_SIZE);
        else if (kind == 4)
            noise(page);
        else
            page[chance() % HV_PAGE_SIZE] ^= 1;
    }
}

static void rounds(struct pages_encode how, bool apart)
{
    struct two t;
    uint64_t dirty[HV_BITMAP_WORDS(PF_PAGES - 1)];

    begin(&t, how, apart);
    there(&t, t.all, true);
    for (unsigned i = 0; i < 12; i++) {
        change(&t, dirty);
        there(&t, dirty, i < 11);
    }
    for (unsigned i = 0; i < FRAME_ENCODINGS; i++) {
        assert_int_equal(t.w->count.pages[i], t.r->count.pages[i]);
        assert_int_equal(t.w->count.data[i], t.r->count.data[i]);
    }
    assert_true(t.w->count.pages[FRAME_ZERO] > 0 && t.w->count.pages[FRAME_RAW] > 0);
    assert_int_equal(t.w->count.pages[FRAME_DELTA] > 0, how.cache_bytes > 0);
    assert_int_equal(t.w->count.pages[FRAME_LZ4] > 0, (how.compress & ONLY(LZ4)) != 0);
    assert_int_equal(t.w->count.pages[FRAME_ZSTD] > 0, (how.compress & ONLY(ZSTD)) != 0);
    end(&t);
}

static void every_encoding_comes_back(void **state)
{
    (void)state;
    for (int apart = 0; apart < 2; apart++) {
        rounds((struct pages_encode){ 0, 0, false }, apart);
        rounds((struct pages_encode){ ONLY(LZ4), 0, false }, apart);
        rounds((struct pages_encode){ ONLY(ZSTD), 0, false }, apart);
        rounds((struct pages_encode){ ONLY(RAW), 2 << 20, false }, apart);
        rounds((struct pages_encode){ ONLY(LZ4), 64 << 20, false }, apart);
        rounds((struct pages_encode){ ONLY(ZSTD), 1 << 20, false }, apart);
        rounds((struct pages_encode){ ONLY(RAW) | ONLY(LZ4) | ONLY(ZSTD), 0, false }, apart);
        rounds((struct pages_encode){ ONLY(RAW) | ONLY(LZ4) | ONLY(ZSTD), 4 << 20, false }, apart);
    }
}

/* Several channels: pages keep to their channel's cache. */
static void deltas_of_one_channel_of_two(void **state)
{
    struct two t;
    struct err e = { 0 };

    (void)state;
    begin(&t, (struct pages_encode){ 0, 0, false }, false);
    t.w->channel = t.r->channel = 2;
    t.w->channels = t.r->channels = 2;
    assert_int_equal(
        pages_writer_encode(t.w, &(struct pages_encode){ ONLY(RAW), 8 << 20, false }, &e), 0);
    for (int i = 0; i < 3; i++) {
        send(&t, t.all, true);
        assert_int_equal(receive(&t, &e), 0);
    }
    for (uint64_t g = 0; g < PF_PAGES; g++)
        if (g / 512 % 2 == 1)
            assert_memory_equal(pf_page(&t.from, g), pf_page(&t.to, g), HV_PAGE_SIZE);
    assert_true(t.w->count.pages[FRAME_DELTA] > 300);
    end(&t);
}

static void unchanged_pages_cost_ten_bytes(void **state)
{
    struct two t;
    uint64_t raw;

    (void)state;
    begin(&t, (struct pages_encode){ ONLY(RAW), 64 << 20, false }, false);
    there(&t, t.all, true);
    there(&t, t.all, true); /* fills the cache */
    raw = t.w->count.pages[FRAME_RAW];
    there(&t, t.all, true);
    assert_int_equal(t.w->count.pages[FRAME_RAW], raw);
    assert_int_equal(t.w->count.data[FRAME_DELTA], 10 * t.w->count.pages[FRAME_DELTA]);
    end(&t);
}

/* What the target has is not what the source takes it for: never silently. */
static void a_lost_page_is_noticed(void **state)
{
    struct err e = { 0 };
    struct two t;

    (void)state;
    begin(&t, (struct pages_encode){ ONLY(RAW), 64 << 20, false }, false);
    there(&t, t.all, true);
    there(&t, t.all, true);
    pf_page(&t.to, 60)[77] ^= 1;
    send(&t, t.all, true);
    assert_int_equal(receive(&t, &e), -1);
    assert_int_equal(e.code, ERR_INTEGRITY);
    assert_non_null(strstr(e.text, "page 0x3c"));
    end(&t);
}

static void what_was_not_agreed_on_is_refused(void **state)
{
    static const unsigned mask[] = { ONLY(LZ4), ONLY(ZSTD) };
    struct err e = { 0 };
    struct two t;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        begin(&t, (struct pages_encode){ mask[i], 0, false }, false);
        t.r->encodings = FRAME_EVERY & ~mask[i];
        send(&t, t.all, true);
        assert_int_equal(receive(&t, &e), -1);
        assert_int_equal(e.code, ERR_PROTOCOL);
        end(&t);
    }
}

/* Damaged in every byte of one frame: refused, or noticed, or harmless; never a crash. */
static void damaged_frames_do_no_harm(void **state)
{
    static const struct pages_encode how[] = { { ONLY(LZ4), 64 << 20, false },
        { ONLY(ZSTD), 64 << 20, false } };
    struct err e = { 0 };
    struct two t;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t seq, few[HV_BITMAP_WORDS(PF_PAGES - 1)] = { 0 };
        uint8_t *clean;

        begin(&t, how[i], false);
        there(&t, t.all, true);
        there(&t, t.all, true);
        for (uint64_t g = 90; g < 160; g++)
            bitmap_set(few, g);
        for (uint64_t g = 90; g < 110; g++)
            pf_page(&t.from, g)[5]++;
        for (uint64_t g = 110; g < 160; g++)
            text(pf_page(&t.from, g));
        send(&t, few, true);
        seq = t.r->seq;
        clean = malloc(HV_PAGE_SIZE * (size_t)PF_PAGES);
        memcpy(clean, t.to.mem, HV_PAGE_SIZE * (size_t)PF_PAGES);
        for (size_t at = 0; at < t.pipe.len; at++) {
            t.pipe.data[at] ^= (uint8_t)(1u << (at % 8));
            t.pipe.at = 0;
            t.r->seq = seq;
            receive(&t, &e);
            t.pipe.data[at] ^= (uint8_t)(1u << (at % 8));
            if (at % 64 == 0)
                memcpy(t.to.mem, clean, HV_PAGE_SIZE * (size_t)PF_PAGES);
        }
        free(clean);
        end(&t);
    }
}

static void malformed_packed_runs_are_refused(void **state)
{
    static const uint8_t one[1] = { 0x10 };
    uint8_t *page = malloc(HV_PAGE_SIZE), *packed = malloc(HV_PAGE_SIZE), *to = malloc(65536);
    struct codec *c = codec_new();
    struct err e;

    (void)state;
    text(page);
    for (int k = FRAME_LZ4; k <= FRAME_ZSTD; k++) {
        enum frame_encoding how = (enum frame_encoding)k;
        size_t n = codec_pack(c, how, page, HV_PAGE_SIZE, packed, HV_PAGE_SIZE);

        assert_in_range(n, 20, 2000);
        assert_int_equal(codec_pack(c, how, page, HV_PAGE_SIZE, packed, 10), 0);
        n = codec_pack(c, how, page, HV_PAGE_SIZE, packed, HV_PAGE_SIZE);
        assert_int_equal(codec_unpack(c, how, packed, n, to, HV_PAGE_SIZE, &e), 0);
        assert_memory_equal(to, page, HV_PAGE_SIZE);
        assert_int_equal(codec_unpack(c, how, packed, n, to, 2 * HV_PAGE_SIZE, &e), -1);
        assert_int_equal(codec_unpack(c, how, packed, n, to, HV_PAGE_SIZE - 1, &e), -1);
        assert_int_equal(codec_unpack(c, how, packed, n + 1, to, HV_PAGE_SIZE, &e), -1);
        for (size_t i = 1; i < n; i++)
            assert_int_equal(codec_unpack(c, how, packed, i, to, HV_PAGE_SIZE, &e), -1);
        assert_int_equal(codec_unpack(c, how, one, 1, to, HV_PAGE_SIZE, &e), -1);
        assert_int_equal(e.code, ERR_PROTOCOL);
    }
    free(page);
    free(packed);
    free(to);
    codec_free(&c);
}

/* --- the second reader, in Python --- */

static void write_file(const char *path, const void *data, size_t len)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
}

/* All the frames of three rounds, and the memory that they must make. */
static int read_elsewhere(const struct two *t, const struct pf_pipe *stream)
{
    char dir[] = "/tmp/codec-XXXXXX", path[64], run[640];
    int r;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/stream", dir);
    write_file(path, stream->data, stream->len);
    snprintf(path, sizeof path, "%s/memory", dir);
    write_file(path, t->from.mem, (size_t)PF_PAGES * HV_PAGE_SIZE);
    snprintf(run, sizeof run,
        "/usr/bin/python3 -c 'import sys; sys.path.insert(0, \"tests/integration\")\n"
        "import wire_reader as w\n"
        "m = w.Memory([{\"gfn\": 0, \"pages\": %u}, {\"gfn\": %u, \"pages\": %u}])\n"
        "w.Channel(w.Bytes(open(\"%s/stream\", \"rb\").read(), \"stream\"), 1, 1, m, "
        "31).read_all()\n"
        "p = b\"\".join(bytes(m.page.get(g, bytes(4096))) for g in range(%u))\n"
        "sys.exit(0 if p == open(\"%s/memory\", \"rb\").read() else 1)'",
        PF_REGION, PF_REGION, PF_PAGES - PF_REGION, dir, PF_PAGES, dir);
    r = system(run);
    snprintf(run, sizeof run, "rm -rf %s", dir);
    assert_int_equal(system(run), 0);
    return r;
}

static void the_other_reader_decodes_it(void **state)
{
    static const struct pages_encode how[] = { { ONLY(LZ4), 64 << 20, false },
        { ONLY(ZSTD), 64 << 20, false } };

    (void)state;
    if (system("/usr/bin/python3 -c 'import lz4.block, xxhash, zstandard' 2>/dev/null") != 0 ||
        access("tests/integration/wire_reader.py", R_OK) != 0)
        skip();
    for (unsigned i = 0; i < 2; i++) {
        uint64_t dirty[HV_BITMAP_WORDS(PF_PAGES - 1)];
        struct pf_pipe stream = { 0 };
        struct err e;
        struct two t;

        begin(&t, how[i], false);
        for (int k = 0; k < 4; k++) {
            struct iovec v;

            send(&t, k == 0 ? t.all : dirty, k < 3);
            v = (struct iovec){ t.pipe.data, t.pipe.len };
            pf_writev(&stream, &v, 1, &e);
            if (k < 3)
                change(&t, dirty);
        }
        assert_true(t.w->count.pages[FRAME_DELTA] > 0);
        assert_int_equal(read_elsewhere(&t, &stream), 0);
        free(stream.data);
        end(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_encoding_comes_back),
        cmocka_unit_test(deltas_of_one_channel_of_two),
        cmocka_unit_test(unchanged_pages_cost_ten_bytes),
        cmocka_unit_test(a_lost_page_is_noticed),
        cmocka_unit_test(what_was_not_agreed_on_is_refused),
        cmocka_unit_test(damaged_frames_do_no_harm),
        cmocka_unit_test(malformed_packed_runs_are_refused),
        cmocka_unit_test(the_other_reader_decodes_it),
    };

    return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
