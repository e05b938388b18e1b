/* SPDX-License-Identifier: ISC */
/*
 * options: the guest's command line. Words are key=value, split at blanks, commas and colons,
 * so that "fill=512:zero=50,comp=25,rand=25" and "fill=512 zero=50 comp=25 rand=25" are the
 * same. Words with a dot are a Linux driver's and pass unseen; other unknown ones are named.
 */
#include "guest.h"

struct options opt = {
    .mode = MODE_RUN,
    .mix = { 50, 25, 25 },
    .touch = 64,
    .seed = 1,
    .tick_ms = 1000,
    .verify_s = 5,
    .nap_ms = 1,
    .disk_rate = 300,
    .disk_depth = 8,
    .disk_flush = 32,
};

static size_t length(const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}

bool word_is(const char *s, size_t len, const char *word)
{
    if (length(word) != len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (s[i] != word[i])
            return false;
    return true;
}

bool parse_u64(const char *s, size_t len, uint64_t *v)
{
    uint64_t n = 0;
    if (len == 0 || len > 18)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(s[i] - '0');
    }
    *v = n;
    return true;
}

unsigned split_words(const char *s, const char **word, size_t *len, unsigned max)
{
    unsigned n = 0;
    while (*s) {
        size_t l = 0;
        while (s[l] && s[l] != ' ')
            l++;
        if (l && n < max) {
            word[n] = s;
            len[n] = l;
        }
        n += l > 0;
        s += l + (s[l] != 0);
    }
    return n;
}

static void complain(const char *s, size_t len)
{
    char c[2] = { 0, 0 };
    put("option not understood: ");
    for (size_t i = 0; i < len; i++) {
        c[0] = s[i];
        put(c);
    }
    put("\n");
}

/* 10/99/1/10: a dot would be a driver's word. */
static bool set_ip(const char *s, size_t len)
{
    for (unsigned i = 0; i < 4; i++) {
        size_t n = 0;
        uint64_t v;
        while (n < len && s[n] != '/')
            n++;
        if (!parse_u64(s, n, &v) || v > 255 || (i < 3) != (n < len))
            return false;
        opt.ip[i] = (uint8_t)v;
        s += n + (n < len);
        len -= n + (n < len);
    }
    return true;
}

/* Words with names as values. */
static bool set_named(const char *key, size_t klen, const char *val, size_t vlen)
{
    bool named = true;
    if (word_is(key, klen, "mode") && word_is(val, vlen, "run"))
        opt.mode = MODE_RUN;
    else if (word_is(key, klen, "mode") && word_is(val, vlen, "selftest"))
        opt.mode = MODE_SELFTEST;
    else if (word_is(key, klen, "rate") && word_is(val, vlen, "max"))
        opt.rate_mib = RATE_MAX;
    else if (word_is(key, klen, "disk_rate") && word_is(val, vlen, "max"))
        opt.disk_rate = RATE_MAX;
    else if (word_is(key, klen, "ip") && set_ip(val, vlen))
        named = true;
    else if (word_is(key, klen, "fill") && word_is(val, vlen, "max"))
        opt.fill_mib = UINT64_MAX;
    else if (word_is(key, klen, "idle") &&
             (word_is(val, vlen, "spin") || word_is(val, vlen, "sleep")))
        opt.spin = word_is(val, vlen, "spin");
    else if (word_is(key, klen, "clock") &&
             (word_is(val, vlen, "tsc") || word_is(val, vlen, "kvm")))
        opt.clock_tsc = word_is(val, vlen, "tsc");
    else
        named = false;
    return named;
}

static bool set_number(const char *key, size_t klen, uint64_t v)
{
    static const struct {
        const char *name;
        uint64_t *where;
    } numbers[] = {
        { "fill", &opt.fill_mib },
        { "ws", &opt.ws_mib },
        { "rate", &opt.rate_mib },
        { "touch", &opt.touch },
        { "seed", &opt.seed },
        { "tick_ms", &opt.tick_ms },
        { "verify_s", &opt.verify_s },
        { "exit_ms", &opt.exit_ms },
        { "tsc_khz", &opt.tsc_khz },
        { "nap_ms", &opt.nap_ms },
        { "disk", &opt.disk_mib },
        { "disk_rate", &opt.disk_rate },
        { "disk_depth", &opt.disk_depth },
        { "disk_flush", &opt.disk_flush },
        { "bench", &opt.bench_mib },
    };
    static const struct {
        const char *name;
        uint32_t *where;
    } percents[] = { { "zero", &opt.mix.zero }, { "comp", &opt.mix.comp },
        { "rand", &opt.mix.rand } };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (word_is(key, klen, numbers[i].name)) {
            *numbers[i].where = v;
            return true;
        }
    for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++)
        if (word_is(key, klen, percents[i].name) && v <= 100) {
            *percents[i].where = (uint32_t)v;
            return true;
        }
    return false;
}

static void set_word(const char *s, size_t len)
{
    size_t eq = 0;
    uint64_t v;
    for (size_t i = 0; i < len; i++)
        if (s[i] == '.')
            return;
    while (eq < len && s[eq] != '=')
        eq++;
    if (eq == len)
        complain(s, len);
    else if (set_named(s, eq, s + eq + 1, len - eq - 1))
        return;
    else if (!parse_u64(s + eq + 1, len - eq - 1, &v) || !set_number(s, eq, v))
        complain(s, len);
}

static bool separator(char c)
{
    return c == ' ' || c == ',' || c == ':' || c == '\t' || c == '\n';
}

void options_parse(const char *cmdline)
{
    while (*cmdline) {
        size_t len = 0;
        while (cmdline[len] && !separator(cmdline[len]))
            len++;
        if (len)
            set_word(cmdline, len);
        cmdline += len + (cmdline[len] != 0);
    }
    if (opt.mix.zero + opt.mix.comp + opt.mix.rand != 100)
        panic("zero, comp and rand must be 100 together");
    if (opt.touch < 32 || opt.touch > PAGE || opt.touch % 8)
        panic("touch must be 32..4096 and a multiple of 8");
    if (opt.nap_ms < 1 || opt.nap_ms > 1000)
        panic("nap_ms must be 1..1000");
    if (opt.disk_depth < 1 || opt.disk_depth > BLK_DEPTH)
        panic("disk_depth must be 1..32");
}
