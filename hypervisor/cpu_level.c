/* SPDX-License-Identifier: ISC */
/*
 * A level is two masks over the feature words: `keep`, what may be seen, and `need`, what
 * the host must have. For a level of the psABI, `need` is its list of instructions and `keep`
 * adds what is no instruction and what each 64-bit CPU under KVM has (paging, APIC, timers,
 * KVM's own features of old); such a bit is not needed, and does not differ between hosts in
 * practice. For a level of one's own both are its words.
 *
 * Some bits are set for each guest, whatever the level: "ht" by the number of its vCPUs, "osxsave"
 * by its kernel. They count nowhere.
 *
 * A feature without another one that it is built on is never shown (AVX2 without AVX, say):
 * guests ask for the one they use. `built_on` is that list, and it is applied after each mask. XCR0
 * and the size of XSAVE's area follow from what is left.
 */
#include "hypervisor/cpu_level.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"

#define WORDS HV_FEATURE_WORDS
#define PSABI_LEVELS 4
#define NAME_MAX_LEN 40
#define BIT(n) (UINT32_C(1) << (n))

#define WORD_1_ECX 0u
#define WORD_1_EDX 1u
#define WORD_XCR0 8u /* "d.0.eax" */

static const char *const psabi_names[PSABI_LEVELS] = { "x86-64-v1", "x86-64-v2", "x86-64-v3",
    "x86-64-v4" };

/* What each level adds to the one before it (x86-64 psABI, table 3.1). */
static const char *const psabi_features[PSABI_LEVELS] = {
    "fpu cx8 cmov mmx fxsr sse sse2 syscall nx lm pae msr tsc",
    "pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm",
    "xsave avx avx2 bmi1 bmi2 f16c fma abm movbe",
    "avx512f avx512bw avx512cd avx512dq avx512vl",
};

static const char always_kept[] =
    "vme de pse mce apic sep mtrr pge mca pat pse36 clflush x2apic tsc_deadline_timer hypervisor "
    "tsc_adjust arat kvm_clock kvm_nop_io kvm_clock_new kvm_steal_time kvm_eoi kvm_unhalt "
    "kvm_clock_stable";

static const struct {
    const char *base, *features;
} built_on[] = {
    { "pni", "ssse3" },
    { "ssse3", "sse4_1" },
    { "sse4_1", "sse4_2" },
    { "sse4_2", "avx" },
    { "xsave", "avx pku xsaveopt xsavec xgetbv1 xsaves" },
    { "avx",
        "avx2 fma f16c vaes vpclmulqdq avx_vnni avx_vnni_int8 avx_ne_convert avx_ifma xop fma4" },
    { "avx2", "avx512f" },
    { "avx512f",
        "avx512dq avx512ifma avx512pf avx512er avx512cd avx512bw avx512vl avx512vbmi "
        "avx512_vbmi2 avx512_vnni avx512_bitalg avx512_vpopcntdq avx512_4vnniw avx512_4fmaps "
        "avx512_vp2intersect avx512_bf16 avx512_fp16" },
};
#define N_BUILT_ON (sizeof built_on / sizeof built_on[0])

/* State components of XCR0 and the feature that uses them; the bytes of XSAVE's area up to their
 * end on CPUs that keep to the order of Intel's. */
static const struct {
    const char *feature;
    uint32_t components, area;
} xsave_users[] = {
    { "avx", 0x04, 832 },
    { "avx512f", 0xe0, 2688 },
    { "pku", 0x200, 2696 },
};

#define N_XSAVE_USERS (sizeof xsave_users / sizeof xsave_users[0])

struct level {
    char vendor[13]; /* "" any */
    uint32_t keep[WORDS], need[WORDS];
};

/* ---- features by name ---- */

static bool per_guest(unsigned word, unsigned bit)
{
    return (word == WORD_1_EDX && bit == 28) || (word == WORD_1_ECX && bit == 27);
}

/* Where a feature of that name is: AMD repeats some of 1.edx in 80000001.edx. `from` is the place
 * to begin at, word * 32 + bit; WORDS * 32 none. */
static unsigned find_feature(const char *name, unsigned from)
{
    for (unsigned at = from; at < WORDS * 32; at++) {
        const char *is = hv_feature_name(at / 32, at % 32);

        if (is != NULL && strcmp(is, name) == 0)
            return at;
    }
    return WORDS * 32;
}

static void set_all(uint32_t *words, const char *name, bool on)
{
    for (unsigned at = 0; (at = find_feature(name, at)) < WORDS * 32; at++)
        words[at / 32] = on ? words[at / 32] | BIT(at % 32) : words[at / 32] & ~BIT(at % 32);
}

static bool has(const uint32_t *words, const char *name)
{
    unsigned at = find_feature(name, 0);

    return at < WORDS * 32 && (words[at / 32] >> (at % 32) & 1) != 0;
}

/* The next word of a list of names; false at its end. */
static bool next_name(const char **list, char out[NAME_MAX_LEN])
{
    size_t n;

    *list += strspn(*list, " ");
    n = strcspn(*list, " ");
    if (n == 0 || n >= NAME_MAX_LEN)
        return false;
    memcpy(out, *list, n);
    out[n] = '\0';
    *list += n;
    return true;
}

static void keep_names(struct level *l, const char *list, bool needed)
{
    char name[NAME_MAX_LEN];

    while (next_name(&list, name)) {
        unsigned at = find_feature(name, 0);

        set_all(l->keep, name, true);
        if (needed && at < WORDS * 32)
            l->need[at / 32] |= BIT(at % 32);
    }
}

/* Unless it does not fit any more. */
static void append_name(char *out, size_t len, size_t *n, unsigned word, unsigned bit)
{
    const char *name = hv_feature_name(word, bit), *of = hv_feature_word_name(word);
    char text[NAME_MAX_LEN];

    if (name != NULL)
        snprintf(text, sizeof text, "%s", name);
    else
        snprintf(text, sizeof text, "%s[%u]", of != NULL ? of : "?", bit);
    if (out == NULL || *n + strlen(text) + 2 > len)
        return;
    *n += (size_t)snprintf(out + *n, len - *n, "%s%s", *n > 0 ? " " : "", text);
}

static bool lacks(const uint32_t *guest, const uint32_t *host, unsigned word, unsigned bit)
{
    return ((guest[word] & ~host[word]) >> bit & 1) != 0;
}

/* Its name was told already, of an earlier word. */
static bool repeats(const uint32_t *guest, const uint32_t *host, unsigned word, unsigned bit)
{
    const char *name = hv_feature_name(word, bit);
    unsigned first = name != NULL ? find_feature(name, 0) : word * 32 + bit;

    return first < word * 32 + bit && lacks(guest, host, first / 32, first % 32);
}

/* What XSAVE's leaf says means nothing where the guest has no XSAVE. */
static bool unused(const uint32_t *guest, unsigned word)
{
    return (word == WORD_XCR0 || word == WORD_XCR0 + 1) && !has(guest, "xsave");
}

unsigned cpu_level_missing(
    const uint32_t *guest, size_t n, const uint32_t *host, char *out, size_t len)
{
    unsigned count = 0;
    size_t at = 0;

    if (out != NULL && len > 0)
        out[0] = '\0';
    for (unsigned w = 0; w < WORDS && w < n; w++)
        for (unsigned b = 0; b < 32 && !unused(guest, w); b++) {
            if (!lacks(guest, host, w, b) || per_guest(w, b) || repeats(guest, host, w, b))
                continue;
            count++;
            append_name(out, len, &at, w, b);
        }
    return count;
}

/* ---- reading ---- */

static int malformed(const char *level, struct err *e)
{
    return err_set(e, ERR_INVALID,
        "cpu_level %.60s is not known; x86-64-v1 to x86-64-v4, or what migctl cpu baseline prints",
        level);
}

static int psabi_number(const char *text, size_t len)
{
    for (int i = 0; i < PSABI_LEVELS; i++)
        if (strlen(psabi_names[i]) == len && memcmp(psabi_names[i], text, len) == 0)
            return i;
    return -1;
}

static void set_psabi(struct level *l, int number)
{
    for (int i = 0; i <= number; i++)
        keep_names(l, psabi_features[i], true);
    keep_names(l, always_kept, false);
    l->keep[WORD_XCR0] = UINT32_MAX; /* follows from the features */
}

static void without(uint32_t *words)
{
    for (size_t i = 0; i < N_BUILT_ON; i++) {
        const char *list = built_on[i].features;
        char name[NAME_MAX_LEN];

        while (!has(words, built_on[i].base) && next_name(&list, name))
            set_all(words, name, false);
    }
}

static int unknown_feature(const char *name, struct err *e)
{
    const char *names[WORDS * 32], *near;
    size_t n = 0;

    for (unsigned at = 0; at < WORDS * 32; at++)
        if (hv_feature_name(at / 32, at % 32) != NULL)
            names[n++] = hv_feature_name(at / 32, at % 32);
    near = nearest_word(name, names, n);
    if (near != NULL)
        return err_set(
            e, ERR_INVALID, "cpu_level: there is no CPU feature %s; did you mean %s?", name, near);
    return err_set(e, ERR_INVALID,
        "cpu_level: there is no CPU feature %s; migctl cpu show lists those of a host", name);
}

/* One "-avx" or "+aes". */
static int modify(struct level *l, const char *text, size_t len, uint32_t *wanted, struct err *e)
{
    char name[NAME_MAX_LEN];
    unsigned at;

    if (len < 2 || len - 1 >= sizeof name || (text[0] != '-' && text[0] != '+'))
        return err_set(e, ERR_INVALID,
            "cpu_level: %.*s: a feature is taken away by -NAME, added by +NAME",
            (int)(len < 40 ? len : 40), text);
    memcpy(name, text + 1, len - 1);
    name[len - 1] = '\0';
    at = find_feature(name, 0);
    if (at == WORDS * 32)
        return unknown_feature(name, e);
    if (at / 32 == WORD_XCR0 || per_guest(at / 32, at % 32))
        return err_set(
            e, ERR_INVALID, "cpu_level: %s follows from other features: it cannot be chosen", name);
    set_all(l->keep, name, text[0] == '+');
    if (text[0] == '+') {
        l->need[at / 32] |= BIT(at % 32);
        wanted[at / 32] |= BIT(at % 32);
    } else {
        set_all(l->need, name, false);
    }
    return 0;
}

/* ",-avx,+aes" to the end of the text. */
static int parse_modifiers(struct level *l, const char *p, struct err *e)
{
    uint32_t wanted[WORDS] = { 0 };
    char names[200];

    while (*p == ',') {
        size_t n = strcspn(p + 1, ",");

        if (modify(l, p + 1, n, wanted, e) < 0)
            return -1;
        p += 1 + n;
    }
    without(l->keep);
    for (unsigned w = 0; w < WORDS; w++)
        l->need[w] &= l->keep[w];
    if (cpu_level_missing(wanted, WORDS, l->keep, names, sizeof names) > 0)
        return err_set(e, ERR_INVALID,
            "cpu_level: %s: what it is built on is taken away or not in the level; add that too",
            names);
    return 0;
}

static int word_by_name(const char *name, size_t len)
{
    for (unsigned w = 0; hv_feature_word_name(w) != NULL; w++)
        if (strlen(hv_feature_word_name(w)) == len &&
            memcmp(hv_feature_word_name(w), name, len) == 0)
            return (int)w;
    return -1;
}

/* 1 to 8 digits, lower case, no zero in front. */
static int parse_hex(const char *p, size_t len, uint32_t *out)
{
    static const char digits[] = "0123456789abcdef";

    *out = 0;
    if (len == 0 || len > 8 || p[0] == '0')
        return -1;
    for (size_t i = 0; i < len; i++) {
        const char *d = memchr(digits, p[i], sizeof digits - 1);

        if (d == NULL)
            return -1;
        *out = *out << 4 | (uint32_t)(d - digits);
    }
    return 0;
}

/* "WORD=HEX", of `len` characters. */
static int parse_word(struct level *l, const char *p, size_t len, struct err *e)
{
    const char *equals = memchr(p, '=', len);
    size_t n = equals == NULL ? len : (size_t)(equals - p);
    int word = word_by_name(p, n);
    uint32_t value;

    if (word < 0)
        return err_set(e, ERR_INVALID,
            "cpu_level: this release knows no CPUID word \"%.*s\"; make the level anew with migctl "
            "cpu baseline",
            (int)(n < 20 ? n : 20), p);
    if (equals == NULL || parse_hex(equals + 1, len - n - 1, &value) < 0 || l->keep[word] != 0)
        return err_set(e, ERR_INVALID, "cpu_level: %.*s: this must be %s=HEX, once", (int)len, p,
            hv_feature_word_name((unsigned)word));
    l->keep[word] = l->need[word] = value;
    return 0;
}

static bool vendor_fits(const char *p, size_t len)
{
    if (len == 0 || len > 12)
        return false;
    for (size_t i = 0; i < len; i++)
        if (p[i] < ' ' || p[i] > '~' || strchr("'\"\\<>&,=", p[i]) != NULL)
            return false;
    return true;
}

static int parse_own(struct level *l, const char *text, const char *slash, struct err *e)
{
    const char *p = slash + 1;

    if (!vendor_fits(text, (size_t)(slash - text)))
        return malformed(text, e);
    memcpy(l->vendor, text, (size_t)(slash - text));
    for (;;) {
        size_t n = strcspn(p, ",");

        if (parse_word(l, p, n, e) < 0)
            return -1;
        if (p[n] == '\0')
            break;
        p += n + 1;
    }
    without(l->keep);
    for (unsigned w = 0; w < WORDS; w++)
        l->need[w] &= l->keep[w];
    return 0;
}

/* A guest needs these to boot, whatever else it has. */
static int check_base(const struct level *l, const char *text, struct err *e)
{
    const char *list = psabi_features[0];
    char name[NAME_MAX_LEN];

    while (next_name(&list, name))
        if (!has(l->keep, name))
            return err_set(e, ERR_INVALID,
                "cpu_level %.60s lacks %s, which every 64-bit guest needs", text, name);
    return 0;
}

static int parse(const char *text, struct level *l, struct err *e)
{
    const char *slash = strchr(text, '/');
    size_t n = strcspn(text, ",");
    int number = psabi_number(text, n), r;

    memset(l, 0, sizeof *l);
    if (strlen(text) >= CPU_LEVEL_MAX)
        return err_set(e, ERR_INVALID, "cpu_level is longer than %d characters", CPU_LEVEL_MAX - 1);
    if (slash != NULL) {
        r = parse_own(l, text, slash, e);
    } else if (number >= 0) {
        set_psabi(l, number);
        r = parse_modifiers(l, text + n, e);
    } else if (n == strlen("host") && memcmp(text, "host", n) == 0) {
        memset(l->keep, 0xff, sizeof l->keep);
        r = parse_modifiers(l, text + n, e);
    } else {
        return malformed(text, e);
    }
    return r < 0 ? -1 : check_base(l, text, e);
}

int cpu_level_check(const char *level, struct err *e)
{
    struct level l;

    return level[0] == '\0' ? 0 : parse(level, &l, e);
}

/* ---- use ---- */

/* XCR0 and XSAVE's size follow the features; features without their state go. */
static void fit_xsave(struct hv_caps *c)
{
    uint64_t allowed = c->xcr0 & (c->features[WORD_XCR0] | ~(uint64_t)UINT32_MAX), xcr0 = 0;
    uint32_t area = 576;

    for (size_t i = 0; i < N_XSAVE_USERS; i++)
        if ((allowed & xsave_users[i].components) != xsave_users[i].components)
            set_all(c->features, xsave_users[i].feature, false);
    without(c->features);
    if (has(c->features, "xsave"))
        xcr0 = allowed & 3;
    for (size_t i = 0; i < N_XSAVE_USERS; i++)
        if (has(c->features, xsave_users[i].feature)) {
            xcr0 |= xsave_users[i].components;
            area = xsave_users[i].area;
        }
    if (xcr0 == 0)
        c->xsave_size = 0;
    else if (xcr0 != c->xcr0 && area < c->xsave_size)
        c->xsave_size = area;
    c->xcr0 = xcr0;
    c->features[WORD_XCR0] = (uint32_t)xcr0;
}

int cpu_level_apply(const char *level, struct hv_caps *caps, struct err *e)
{
    struct level l;
    char names[240];

    if (level[0] == '\0')
        return 0;
    if (parse(level, &l, e) < 0)
        return -1;
    if (l.vendor[0] != '\0' && strcmp(l.vendor, caps->cpu_vendor) != 0)
        return err_set(e, ERR_REFUSED,
            "the CPU level was made for CPUs by %s, this host has one by %s", l.vendor,
            caps->cpu_vendor);
    if (cpu_level_missing(l.need, WORDS, caps->features, names, sizeof names) > 0)
        return err_set(e, ERR_REFUSED,
            "this host's CPU lacks %s, which CPU level %.30s has; use a lower one, see migctl cpu "
            "baseline",
            names, level);
    for (unsigned w = 0; w < WORDS; w++)
        caps->features[w] &= l.keep[w];
    fit_xsave(caps);
    return 0;
}

static int print_words(const struct hv_caps *c, char out[CPU_LEVEL_MAX], struct err *e)
{
    int n = snprintf(out, CPU_LEVEL_MAX, "%s", c->cpu_vendor);

    for (unsigned w = 0, first = 1; hv_feature_word_name(w) != NULL && n < CPU_LEVEL_MAX; w++) {
        if (c->features[w] == 0)
            continue;
        n += snprintf(out + n, (size_t)(CPU_LEVEL_MAX - n), "%c%s=%x", first ? '/' : ',',
            hv_feature_word_name(w), c->features[w]);
        first = 0;
    }
    if (n >= CPU_LEVEL_MAX)
        return err_set(e, ERR_RESOURCE, "the CPU level has more than %d characters", CPU_LEVEL_MAX);
    return cpu_level_check(out, e);
}

int cpu_level_common(const struct hv_caps *caps, size_t n, char out[CPU_LEVEL_MAX], struct err *e)
{
    struct hv_caps all;

    if (n == 0)
        return err_set(e, ERR_INVALID, "of which hosts?");
    all = caps[0];
    for (size_t i = 1; i < n; i++) {
        if (strcmp(caps[i].cpu_vendor, all.cpu_vendor) != 0)
            return err_set(e, ERR_REFUSED,
                "CPUs by %s and by %s have no level in common: a guest cannot move between them",
                all.cpu_vendor, caps[i].cpu_vendor);
        for (unsigned w = 0; w < WORDS; w++)
            all.features[w] &= caps[i].features[w];
        all.xcr0 &= caps[i].xcr0;
    }
    all.features[WORD_1_EDX] &= ~BIT(28);
    all.features[WORD_1_ECX] &= ~BIT(27);
    fit_xsave(&all);
    return print_words(&all, out, e);
}

const char *cpu_level_of(const uint32_t *features, size_t n)
{
    uint32_t words[WORDS] = { 0 };
    const char *level = "";

    memcpy(words, features, (n < WORDS ? n : WORDS) * sizeof words[0]);
    for (int i = 0; i < PSABI_LEVELS; i++) {
        const char *list = psabi_features[i];
        char name[NAME_MAX_LEN];

        while (next_name(&list, name))
            if (!has(words, name))
                return level;
        level = psabi_names[i];
    }
    return level;
}
