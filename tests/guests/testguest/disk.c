/* SPDX-License-Identifier: ISC */
/*
 * disk: verified work on the disk, several requests in flight. The blocks of 4 KiB:
 *
 *   0                     header: layout, run, and, once the work was stopped, how far it came
 *   1 .. log              ring of the log: sequence s lies in block 1 + (s - 1) % log
 *   log + 1 .. end        random writes: write r goes to a block that r and the run decide
 *
 * Every block of a run says which it is, where it lies and what was acknowledged when it was
 * written, and has a checksum: see struct record. Before a block is written again it is read, and
 * must hold exactly what was written there last; between, blocks are picked and read. So a write
 * that was lost, came late or landed elsewhere is seen here, or at the end by
 * tests/integration/disk_reader.py, which knows the rules above and reads the image without this
 * guest.
 *
 * A job is done by one request slot: read what is there (LOG and RANDOM, if something is), write;
 * or read (CHECK); or flush. Two jobs never touch one block at once, so the order of writes to a
 * block is certain. A request that fails is counted and made again after 100 ms, for ever: nothing
 * is acknowledged before.
 */
#include "guest.h"

#define SECTORS (PAGE / 512)
#define RECORD_MAGIC UINT64_C(0x31306b7369646d67)      /* "gmdisk01" */
#define DISK_HEADER_MAGIC UINT64_C(0x3130647268646d67) /* "gmdhrd01" */
#define PAYLOAD_WORDS 499
#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)
#define RETRY_NS 100000000u
#define DEBT_NS 50000000u
#define REPORTS_MAX 16

enum kind { KIND_LOG = 1, KIND_RANDOM = 2 };

struct record {
    uint64_t magic, kind, seed, run;
    uint64_t number;       /* sequence, or r */
    uint64_t block;        /* where it lies */
    uint64_t acked;        /* sequences up to this one were acknowledged */
    uint64_t acked_random; /* the same of r */
    uint64_t flushed;      /* sequences up to this one had been acknowledged before a flush */
    uint64_t flushed_random;
    uint64_t clock_ns;
    uint64_t writer; /* low half: the epoch; high half: the host; as the hypervisor says */
    uint64_t payload[PAYLOAD_WORDS];
    uint64_t crc; /* of all before, CRC-32 as zlib's */
};
_Static_assert(sizeof(struct record) == PAGE, "a record fills a block");

struct disk_header {
    uint64_t magic, seed, run, blocks, log_blocks, depth;
    uint64_t stopped; /* 1: nothing was in flight, and the two below are all there is */
    uint64_t sequences, randoms;
    uint64_t pad[(PAGE - 80) / 8];
    uint64_t crc;
};
_Static_assert(sizeof(struct disk_header) == PAGE, "the header fills a block");

enum job { JOB_NONE, JOB_HEADER, JOB_LOG, JOB_RANDOM, JOB_CHECK, JOB_FLUSH };

struct slot {
    enum job job;
    bool writing, waiting;  /* second request of the job; failed, until retry_ns */
    uint64_t block, number; /* FLUSH: number and block are what it covers */
    uint64_t old;           /* what must be there before */
    uint64_t began_ns, retry_ns;
};

enum state { OFF, STARTING, RUNNING, DRAINING, CLOSING, FLUSHING, STOPPED };

static enum state state;
static struct slot slots[BLK_DEPTH];
static uint8_t *buffers;
static uint32_t *last_random; /* of each block of the random part, r that was written last */
static uint32_t crc_table[256];
static uint64_t run, blocks, log_blocks, random_blocks;
static uint64_t sequence, randoms, picks; /* begun */
static uint64_t flushed, flushed_random, unflushed;
static uint64_t rate, paced_ns, pace_fraction, owed;
static uint64_t last_done_ns, busy_since_ns;
static unsigned in_flight, reports;
static struct {
    bool running;
    uint64_t cursor, blocks;
} sweep;
static struct {
    uint64_t writes, reads, flushes, errors, bad, gap_ns, slowest_ns;
} count;

static void *buffer_of(const struct slot *s)
{
    return buffers + (uint64_t)(s - slots) * PAGE;
}

/* ---- what is on the disk ---- */

static void make_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (unsigned bit = 0; bit < 8; bit++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        crc_table[i] = c;
    }
}

static uint64_t crc_of(const void *p)
{
    const uint8_t *b = p;
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < PAGE - 8; i++)
        c = crc_table[(c ^ b[i]) & 0xff] ^ (c >> 8);
    return c ^ 0xffffffffu;
}

static uint64_t block_of_random(uint64_t r)
{
    return 1 + log_blocks + mix64(run + r * GOLDEN) % random_blocks;
}

static uint64_t payload_word(enum kind kind, uint64_t number, unsigned i)
{
    return mix64(run ^ (number * 2 + kind) * GOLDEN) * (i + 1);
}

/* The highest number below which nothing is in flight. */
static uint64_t acked(enum job job, uint64_t begun)
{
    uint64_t floor = begun;
    for (unsigned i = 0; i < opt.disk_depth; i++)
        if (slots[i].job == job && slots[i].number <= floor)
            floor = slots[i].number - 1;
    return floor;
}

static enum kind kind_of(const struct slot *s)
{
    return s->block > log_blocks ? KIND_RANDOM : KIND_LOG;
}

/* Both of one host, though the guest may move between two reads. */
static uint64_t writer_now(void)
{
    uint32_t host, epoch;
    do {
        host = in32(PORT_OWNER_HOST);
        epoch = in32(PORT_OWNER);
    } while (in32(PORT_OWNER_HOST) != host);
    return (uint64_t)host << 32 | epoch;
}

/* Of this run, yet not of the host or an earlier one that ran it: a second copy is writing. */
static bool is_of_another(uint64_t writer)
{
    uint64_t now = writer_now();
    uint32_t epoch = (uint32_t)writer;
    return epoch > (uint32_t)now || (epoch == (uint32_t)now && writer != now);
}

static void fill_record(struct slot *s, uint64_t now)
{
    struct record *r = buffer_of(s);
    r->magic = RECORD_MAGIC;
    r->kind = kind_of(s);
    r->seed = opt.seed;
    r->run = run;
    r->number = s->number;
    r->block = s->block;
    r->acked = acked(JOB_LOG, sequence);
    r->acked_random = acked(JOB_RANDOM, randoms);
    r->flushed = flushed;
    r->flushed_random = flushed_random;
    r->clock_ns = now;
    r->writer = writer_now();
    for (unsigned i = 0; i < PAYLOAD_WORDS; i++)
        r->payload[i] = payload_word(kind_of(s), s->number, i);
    r->crc = crc_of(r);
}

static void fill_header(struct slot *s)
{
    struct disk_header *h = buffer_of(s);
    memset(h, 0, sizeof(*h));
    h->magic = DISK_HEADER_MAGIC;
    h->seed = opt.seed;
    h->run = run;
    h->blocks = blocks;
    h->log_blocks = log_blocks;
    h->depth = opt.disk_depth;
    h->stopped = state == CLOSING;
    h->sequences = sequence;
    h->randoms = randoms;
    h->crc = crc_of(h);
}

static void report(const struct slot *s, const char *what, uint64_t is, uint64_t expected)
{
    count.bad++;
    if (reports++ >= REPORTS_MAX)
        return;
    put("CORRUPT disk ");
    put(what);
    put_kv("block", s->block, "");
    put_kv("number", s->old, "");
    put(" is=");
    put_hex(is);
    put(" expected=");
    put_hex(expected);
    put("\n");
}

static void check_record(const struct slot *s)
{
    const struct record *r = buffer_of(s);
    const struct {
        const char *what;
        uint64_t is, expected;
    } fields[] = { { "magic", r->magic, RECORD_MAGIC }, { "kind", r->kind, kind_of(s) },
        { "seed", r->seed, opt.seed }, { "run", r->run, run }, { "number", r->number, s->old },
        { "block", r->block, s->block } };
    for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i].is != fields[i].expected) {
            report(s, fields[i].what, fields[i].is, fields[i].expected);
            return;
        }
    if (is_of_another(r->writer)) {
        report(s, "writer", r->writer, writer_now());
        return;
    }
    for (unsigned i = 0; i < PAYLOAD_WORDS; i++)
        if (r->payload[i] != payload_word(kind_of(s), s->old, i)) {
            report(s, "payload", r->payload[i], payload_word(kind_of(s), s->old, i));
            return;
        }
    if (r->crc != crc_of(r))
        report(s, "checksum", r->crc, crc_of(r));
}

/* The number that was last begun for a block; 0: none in this run. */
static uint64_t newest_of(uint64_t block)
{
    if (block > log_blocks)
        return last_random[block - log_blocks - 1];
    if (sequence < block)
        return 0;
    return sequence - (sequence - block) % log_blocks;
}

/* ---- requests ---- */

static void submit(struct slot *s, uint64_t now)
{
    enum blk_op op = s->job == JOB_FLUSH ? BLK_FLUSH : s->writing ? BLK_WRITE : BLK_READ;
    s->waiting = false;
    s->began_ns = now;
    if (!in_flight++)
        busy_since_ns = now;
    blk_submit(
        (unsigned)(s - slots), op, op == BLK_FLUSH ? 0 : s->block * SECTORS, buffer_of(s), PAGE);
}

static void begin(struct slot *s, enum job job, uint64_t block, uint64_t number, uint64_t now)
{
    *s = (struct slot){ .job = job, .block = block, .number = number };
    if (job == JOB_LOG || job == JOB_RANDOM || job == JOB_CHECK)
        s->old = newest_of(block);
    if (job == JOB_LOG && number > log_blocks)
        s->old = number - log_blocks;
    s->writing = job == JOB_HEADER || ((job == JOB_LOG || job == JOB_RANDOM) && !s->old);
    if (job == JOB_HEADER)
        fill_header(s);
    else if (s->writing)
        fill_record(s, now);
    submit(s, now);
}

static void write_done(struct slot *s)
{
    count.writes++;
    unflushed += s->job != JOB_HEADER;
    s->job = JOB_NONE;
}

static void job_goes_on(struct slot *s, uint64_t now)
{
    switch (s->job) {
    case JOB_HEADER:
        write_done(s);
        break;
    case JOB_LOG:
    case JOB_RANDOM:
        if (s->writing) {
            write_done(s);
            break;
        }
        count.reads++;
        check_record(s);
        s->writing = true;
        fill_record(s, now);
        submit(s, now);
        break;
    case JOB_CHECK:
        count.reads++;
        check_record(s);
        s->job = JOB_NONE;
        break;
    case JOB_FLUSH:
        count.flushes++;
        flushed = s->number;
        flushed_random = s->block;
        s->job = JOB_NONE;
        break;
    case JOB_NONE:
        panic("the disk answered a request twice");
    }
}

static void request_failed(struct slot *s, uint64_t now)
{
    s->waiting = true;
    s->retry_ns = now + RETRY_NS;
    if (count.errors++ >= REPORTS_MAX)
        return;
    put("io-error");
    put(s->job == JOB_FLUSH ? " flush" : s->writing ? " write" : " read");
    put_kv("block", s->job == JOB_FLUSH ? 0 : s->block, "");
    put("\n");
}

static void note_times(const struct slot *s, uint64_t now)
{
    uint64_t since = last_done_ns > busy_since_ns ? last_done_ns : busy_since_ns;
    if (now - since > count.gap_ns)
        count.gap_ns = now - since;
    if (now - s->began_ns > count.slowest_ns)
        count.slowest_ns = now - s->began_ns;
    last_done_ns = now;
}

static bool take_answers(uint64_t now)
{
    bool any = false, ok;
    for (unsigned n; blk_poll(&n, &ok); any = true) {
        in_flight--;
        note_times(&slots[n], now);
        if (ok)
            job_goes_on(&slots[n], now);
        else
            request_failed(&slots[n], now);
    }
    return any;
}

static void retry(uint64_t now)
{
    for (unsigned i = 0; i < opt.disk_depth; i++)
        if (slots[i].waiting && now >= slots[i].retry_ns)
            submit(&slots[i], now);
}

/* ---- which job is next ---- */

static struct slot *free_slot(void)
{
    for (unsigned i = 0; i < opt.disk_depth; i++)
        if (slots[i].job == JOB_NONE)
            return &slots[i];
    return NULL;
}

static bool is_idle(void)
{
    for (unsigned i = 0; i < opt.disk_depth; i++)
        if (slots[i].job != JOB_NONE)
            return false;
    return true;
}

static bool is_taken(uint64_t block)
{
    for (unsigned i = 0; i < opt.disk_depth; i++)
        if (slots[i].job != JOB_NONE && slots[i].job != JOB_FLUSH && slots[i].block == block)
            return true;
    return false;
}

static bool flushing(void)
{
    for (unsigned i = 0; i < opt.disk_depth; i++)
        if (slots[i].job == JOB_FLUSH)
            return true;
    return false;
}

static bool begin_flush(struct slot *s, uint64_t now)
{
    uint64_t number = acked(JOB_LOG, sequence), random = acked(JOB_RANDOM, randoms);
    unflushed = 0;
    begin(s, JOB_FLUSH, random, number, now);
    return true;
}

static bool begin_log(struct slot *s, uint64_t now)
{
    uint64_t block = 1 + sequence % log_blocks;
    if (is_taken(block))
        return false;
    begin(s, JOB_LOG, block, sequence + 1, now);
    sequence++;
    return true;
}

static bool begin_random(struct slot *s, uint64_t now)
{
    uint64_t block = block_of_random(randoms + 1);
    if (is_taken(block))
        return false;
    begin(s, JOB_RANDOM, block, randoms + 1, now);
    last_random[block - log_blocks - 1] = (uint32_t)++randoms;
    return true;
}

static bool begin_check(struct slot *s, uint64_t block, uint64_t now)
{
    if (newest_of(block) && !is_taken(block))
        begin(s, JOB_CHECK, block, 0, now);
    return true;
}

/* By turns: log, random, a look at some block; a flush after so many writes. False: must wait. */
static bool begin_next(struct slot *s, uint64_t now)
{
    bool begun;
    if (opt.disk_flush && unflushed >= opt.disk_flush && blk_can_flush() && !flushing())
        return begin_flush(s, now);
    switch (picks % 3) {
    case 0:
        begun = begin_log(s, now);
        break;
    case 1:
        begun = begin_random(s, now);
        break;
    default:
        begun = begin_check(s, 1 + mix64(picks) % (blocks - 1), now);
    }
    picks += begun;
    return begun;
}

static uint64_t jobs_due(uint64_t now)
{
    uint64_t elapsed = now - paced_ns;
    if (rate == RATE_MAX)
        return opt.disk_depth;
    if (elapsed > DEBT_NS)
        elapsed = DEBT_NS;
    paced_ns = now;
    pace_fraction += elapsed * rate;
    owed += pace_fraction / 1000000000u;
    pace_fraction %= 1000000000u;
    return owed < opt.disk_depth ? owed : opt.disk_depth;
}

static void begin_jobs(uint64_t now)
{
    struct slot *s;
    for (uint64_t due = jobs_due(now); due && (s = free_slot()) && begin_next(s, now); due--)
        owed -= rate != RATE_MAX;
    if (owed > opt.disk_depth)
        owed = opt.disk_depth;
}

static void put_stopped(void);

/* Reads all blocks; nothing else begins meanwhile. */
static void sweep_on(uint64_t now)
{
    struct slot *s;
    while (sweep.cursor < blocks && (s = free_slot()) && !is_taken(sweep.cursor)) {
        sweep.blocks += newest_of(sweep.cursor) != 0;
        begin_check(s, sweep.cursor++, now);
    }
    if (sweep.cursor < blocks || !is_idle())
        return;
    sweep.running = false;
    put("disk verified");
    put_kv("blocks", sweep.blocks, "");
    put_kv("bad", count.bad, "\n");
}

/* Steps of starting and stopping, each once nothing is in flight. */
static void change_state(uint64_t now)
{
    switch (state) {
    case STARTING:
        state = RUNNING;
        paced_ns = now;
        break;
    case DRAINING:
        state = CLOSING;
        begin(&slots[0], JOB_HEADER, 0, 0, now);
        break;
    case CLOSING:
        state = FLUSHING;
        if (blk_can_flush())
            begin_flush(&slots[0], now);
        break;
    case FLUSHING:
        state = STOPPED;
        put_stopped();
        break;
    case OFF:
    case RUNNING:
    case STOPPED:
        break;
    }
}

bool disk_step(uint64_t now)
{
    if (state == OFF)
        return false;
    bool answered = take_answers(now);
    retry(now);
    if (sweep.running)
        sweep_on(now);
    else if (state == RUNNING)
        begin_jobs(now);
    if (!sweep.running && is_idle())
        change_state(now);
    blk_kick();
    return answered || (in_flight && rate == RATE_MAX);
}

/* ---- what is asked of it ---- */

/* Memory that neither the working set nor the static part gets. */
static void *take_memory(uint64_t bytes)
{
    struct ram_range *r = &boot.ram[boot.ranges - 1];
    bytes = (bytes + PAGE - 1) & ~(uint64_t)(PAGE - 1);
    if (!boot.ranges || r->end - r->start < bytes)
        panic("no memory for the buffers of the disk");
    r->end -= bytes;
    memset((void *)r->end, 0, bytes);
    return (void *)r->end;
}

void disk_init(void)
{
    if (!opt.disk_mib)
        return;
    if (!blk_init())
        panic("disk= is given, but there is no virtio-blk device");
    blocks = opt.disk_mib * PAGES_PER_MIB;
    if (blocks * SECTORS > blk_sectors)
        panic("the disk is smaller than disk= says");
    log_blocks = blocks / 2;
    random_blocks = blocks - 1 - log_blocks;
    run = mix64(tsc_now() ^ opt.seed);
    rate = opt.disk_rate;
    make_crc_table();
    buffers = take_memory((uint64_t)opt.disk_depth * PAGE);
    last_random = take_memory(random_blocks * sizeof(*last_random));
    if (opt.bench_mib)
        bench_init(take_memory(opt.bench_mib << 20), opt.bench_mib << 20, blocks * SECTORS);
    state = STOPPED;
    disk_start(clock_ns());
}

void disk_start(uint64_t now)
{
    if (state != STOPPED)
        return;
    state = STARTING;
    begin(&slots[0], JOB_HEADER, 0, 0, now);
    blk_kick();
}

bool disk_is_stopped(void)
{
    return state == STOPPED;
}

void disk_stop(void)
{
    if (state == RUNNING || state == STARTING)
        state = DRAINING;
    else if (state == STOPPED)
        put_stopped();
}

void disk_verify(void)
{
    sweep.running = true;
    sweep.cursor = 1;
    sweep.blocks = 0;
}

void disk_set_rate(uint64_t per_second)
{
    rate = per_second;
    owed = pace_fraction = 0;
}

void disk_reset_gap(void)
{
    count.gap_ns = count.slowest_ns = 0;
}

bool disk_is_used(void)
{
    return state != OFF;
}

void disk_put_verdict(void)
{
    if (count.bad)
        put_kv("disk", count.bad, "-bad");
    else
        put(" disk=ok");
}

void disk_put_counts(void)
{
    put_kv("writes", count.writes, "");
    put_kv("reads", count.reads, "");
    put_kv("flushes", count.flushes, "");
    put_kv("io_errors", count.errors, "");
    put_kv("io_gap_us", count.gap_ns / 1000, "");
    put_kv("io_slowest_us", count.slowest_ns / 1000, "");
    put_kv("in_flight", in_flight, "");
}

static void put_stopped(void)
{
    put("disk stopped");
    put_kv("sequences", sequence, "");
    put_kv("randoms", randoms, "");
    disk_put_verdict();
    disk_put_counts();
    put("\n");
}
