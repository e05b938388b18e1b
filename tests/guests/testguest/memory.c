/* SPDX-License-Identifier: ISC */
/*
 * memory: the guest's RAM as a row of pages, working set first, then the static part, the rest
 * never touched. Every byte of both can be made again from (seed, page, generation), so a pass
 * compares memory with what it must be and names the first wrong word.
 *
 * A page is zero, compressible (about 4:1) or random, drawn by the seed at the asked mix. A page
 * of the working set begins with a stamp (generation, page, seed, check); `touch` bytes from its
 * start change with each write. Writes go round in order: pages before `position` have generation
 * `generation`, the others one less. So a page that lost one write on its way to another host is
 * seen, at the latest when its turn comes again, because the old stamp is checked before
 * a new one is written.
 *
 * A pass (static part, then working set) is done in slices. It starts every verify_s seconds by
 * itself, or on request; then at once, from the beginning and with bigger slices.
 */
#include "guest.h"

#define WORDS (PAGE / 8)
#define STAMP_WORDS 4
#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)
#define BATCH 64 /* pages dirtied in a step */
#define SLICE 8  /* pages verified in a step of a background pass */
#define SLICE_REQUESTED 64
#define DEBT_NS 50000000u /* what was missed longer ago (a pause) is not made up for */
#define REPORTS_MAX 16

enum kind { KIND_ZERO, KIND_COMP, KIND_RAND };

struct verdict verdict;
uint64_t dirtied_pages;

static uint64_t total_pages, ws_pages, static_pages;
static uint64_t position, generation = 1;
static uint64_t rate_mib, paced_ns, pace_fraction, owed;
static unsigned reports;

static struct {
    bool running, requested, report;
    uint64_t cursor, sum, started_ns, next_ns;
} pass;

static uint64_t *page_at(uint64_t page)
{
    for (unsigned r = 0; r < boot.ranges; r++) {
        uint64_t pages = (boot.ram[r].end - boot.ram[r].start) / PAGE;
        if (page < pages)
            return (uint64_t *)(boot.ram[r].start + page * PAGE);
        page -= pages;
    }
    panic("page number beyond RAM");
}

static enum kind kind_of(uint64_t page)
{
    uint64_t d = mix64(opt.seed * GOLDEN + page) % 100;
    if (d < opt.mix.zero)
        return KIND_ZERO;
    return d < opt.mix.zero + opt.mix.comp ? KIND_COMP : KIND_RAND;
}

static uint64_t salt_of(uint64_t page, uint64_t gen)
{
    return mix64(opt.seed ^ page * GOLDEN ^ gen << 40);
}

static inline uint64_t word_of(enum kind k, uint64_t salt, unsigned i)
{
    switch (k) {
    case KIND_ZERO:
        return 0;
    case KIND_COMP: /* lines of 64 bytes: 10 bytes random, the rest alike in the whole page */
        if ((i & 7) == 0)
            return mix64(salt + i);
        return (i & 7) == 1 ? mix64(salt + i) & 0xffff : (salt >> 48) * 0x10001u + (i & 7);
    case KIND_RAND:
        return mix64(salt + i * GOLDEN);
    }
    return 0;
}

static uint64_t stamp_word(unsigned i, uint64_t page, uint64_t gen)
{
    switch (i) {
    case 0:
        return gen;
    case 1:
        return page;
    case 2:
        return ~opt.seed;
    default:
        return mix64(gen * GOLDEN ^ page ^ opt.seed << 32);
    }
}

static void write_words(uint64_t *p, unsigned from, unsigned to, enum kind k, uint64_t salt)
{
    for (unsigned i = from; i < to; i++)
        p[i] = word_of(k, salt, i);
}

static void write_touched(uint64_t *p, uint64_t page, uint64_t gen)
{
    unsigned touched = (unsigned)(opt.touch / 8);
    for (unsigned i = 0; i < STAMP_WORDS; i++)
        p[i] = stamp_word(i, page, gen);
    if (touched > STAMP_WORDS)
        write_words(p, STAMP_WORDS, touched, kind_of(page), salt_of(page, gen));
}

/* Index of the first word that is wrong, or `to`; adds to the page's sum. */
static unsigned compare_words(
    const uint64_t *p, unsigned from, unsigned to, enum kind k, uint64_t salt, uint64_t *sum)
{
    for (unsigned i = from; i < to; i++) {
        if (p[i] != word_of(k, salt, i))
            return i;
        *sum += p[i] * (2 * i + 1);
    }
    return to;
}

static void report(
    const char *part, uint64_t page, const uint64_t *p, unsigned i, uint64_t expected)
{
    if (reports++ >= REPORTS_MAX)
        return;
    put("CORRUPT ");
    put(part);
    put_kv("page", page, "");
    put(" gpa=");
    put_hex((uint64_t)p);
    put_kv("word", i, "");
    put(" is=");
    put_hex(p[i]);
    put(" expected=");
    put_hex(expected);
    put("\n");
}

static void check_static(uint64_t page)
{
    const uint64_t *p = page_at(page);
    enum kind k = kind_of(page);
    uint64_t salt = salt_of(page, 0), sum = page;
    unsigned i = compare_words(p, 0, WORDS, k, salt, &sum);
    if (i < WORDS) {
        verdict.bad_static++;
        report("static", page, p, i, word_of(k, salt, i));
    }
    pass.sum = (pass.sum << 5 | pass.sum >> 59) ^ mix64(sum);
}

static uint64_t expected_generation(uint64_t page)
{
    return page < position ? generation : generation - 1;
}

static bool check_stamp(const uint64_t *p, uint64_t page, uint64_t gen)
{
    for (unsigned i = 0; i < STAMP_WORDS; i++)
        if (p[i] != stamp_word(i, page, gen)) {
            verdict.bad_ws++;
            report("ws", page, p, i, stamp_word(i, page, gen));
            return false;
        }
    return true;
}

static void check_ws(uint64_t page)
{
    const uint64_t *p = page_at(page);
    enum kind k = kind_of(page);
    uint64_t gen = expected_generation(page), salt = salt_of(page, gen), sum = 0;
    unsigned touched = (unsigned)(opt.touch / 8);

    if (!check_stamp(p, page, gen))
        return;
    unsigned i = compare_words(p, STAMP_WORDS, touched, k, salt, &sum);
    if (i == touched) {
        salt = salt_of(page, 0);
        i = compare_words(p, touched, WORDS, k, salt, &sum);
    }
    if (i < WORDS) {
        verdict.bad_ws++;
        report("ws", page, p, i, word_of(k, salt, i));
    }
}

void memory_init(void)
{
    for (unsigned r = 0; r < boot.ranges; r++)
        total_pages += (boot.ram[r].end - boot.ram[r].start) / PAGE;
    ws_pages = opt.ws_mib * PAGES_PER_MIB;
    if (ws_pages > total_pages)
        panic("the working set (ws=) does not fit into memory");
    static_pages =
        opt.fill_mib == UINT64_MAX ? total_pages - ws_pages : opt.fill_mib * PAGES_PER_MIB;
    if (static_pages > total_pages - ws_pages)
        panic("the static part (fill=) does not fit into memory beside the working set");

    for (uint64_t page = 0; page < ws_pages + static_pages; page++) {
        uint64_t *p = page_at(page);
        write_words(p, 0, WORDS, kind_of(page), salt_of(page, 0));
        if (page < ws_pages)
            write_touched(p, page, 0);
    }
}

void memory_set_rate(uint64_t mib, uint64_t now_ns)
{
    rate_mib = mib;
    paced_ns = now_ns;
    pace_fraction = owed = 0;
}

/* Pages that the asked rate allows by now. */
static uint64_t pages_due(uint64_t now_ns)
{
    uint64_t elapsed = now_ns - paced_ns;
    uint64_t most = rate_mib * PAGES_PER_MIB * (DEBT_NS / 1000000u) / 1000 + 1;
    if (elapsed > DEBT_NS)
        elapsed = DEBT_NS;
    pace_fraction += elapsed * rate_mib * PAGES_PER_MIB;
    owed += pace_fraction / 1000000000u;
    pace_fraction %= 1000000000u;
    paced_ns = now_ns;
    if (owed > most)
        owed = most;
    return owed < BATCH ? owed : BATCH;
}

bool dirty_step(uint64_t now_ns)
{
    if (!rate_mib || !ws_pages)
        return false;
    uint64_t due = rate_mib == RATE_MAX ? BATCH : pages_due(now_ns);
    for (uint64_t i = 0; i < due; i++) {
        uint64_t *p = page_at(position);
        check_stamp(p, position, generation - 1);
        write_touched(p, position, generation);
        if (++position == ws_pages) {
            position = 0;
            generation++;
        }
    }
    if (rate_mib != RATE_MAX)
        owed -= due;
    dirtied_pages += due;
    return due > 0;
}

static void pass_begin(uint64_t now_ns)
{
    pass.running = true;
    pass.cursor = 0;
    pass.sum = 0;
    pass.started_ns = now_ns;
}

static void pass_end(uint64_t now_ns)
{
    pass.running = false;
    pass.next_ns = now_ns + opt.verify_s * 1000000000u;
    pass.report = pass.requested;
    pass.requested = false;
    verdict.passes++;
    verdict.sum = pass.sum;
    verdict.last_ms = (now_ns - pass.started_ns) / 1000000;
}

void verify_start(uint64_t now_ns)
{
    pass_begin(now_ns);
    pass.requested = true;
}

bool verify_step(uint64_t now_ns)
{
    if (!pass.running) {
        if (!opt.verify_s || now_ns < pass.next_ns)
            return false;
        pass_begin(now_ns);
    }
    uint64_t all = static_pages + ws_pages;
    for (unsigned i = 0; i < (pass.requested ? SLICE_REQUESTED : SLICE) && pass.cursor < all; i++) {
        uint64_t c = pass.cursor++;
        if (c < static_pages)
            check_static(ws_pages + c);
        else
            check_ws(c - static_pages);
    }
    if (pass.cursor == all)
        pass_end(now_ns);
    return pass.running;
}

bool verify_request_done(void)
{
    bool done = pass.report;
    pass.report = false;
    return done;
}

uint64_t memory_static_pages(void)
{
    return static_pages;
}

uint64_t memory_ws_pages(void)
{
    return ws_pages;
}

uint64_t memory_generation(void)
{
    return generation;
}

uint64_t memory_free_mib(void)
{
    return (total_pages - ws_pages - static_pages) / PAGES_PER_MIB;
}
