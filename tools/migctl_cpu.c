/* SPDX-License-Identifier: ISC */
/*
 * migctl cpu: what CPUs hosts can give to guests, what they share, and what one lacks. This
 * host is asked by its control socket, others through it: migrd opens a session to their
 * relocation port. What baseline prints can be put into a domain's file as it is.
 */
#define _GNU_SOURCE
#include "tools/migctl.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/cpu_level.h"
#include "tools/format.h"

#define HOSTS_MAX 64
#define NAMES_MAX 8192
#define LINE_WIDTH 96

enum { OPT_PORT = 256, OPT_TLS, OPT_JSON };

struct cpu_words {
    uint32_t port;
    const char *tls;
    bool json;
};

/* A host that has answered. */
struct host_cpu {
    const char *asked; /* as it was named; "" this host */
    Migrd__Reply *reply;
    struct hv_caps caps;
};

static const char *name_of(const struct host_cpu *h)
{
    return h->reply->facts->host[0] != '\0' ? h->reply->facts->host : h->asked;
}

static void take_caps(struct host_cpu *h)
{
    const Migrd__HostFacts *f = h->reply->facts;
    struct hv_caps *c = &h->caps;

    memset(c, 0, sizeof *c);
    snprintf(c->cpu_vendor, sizeof c->cpu_vendor, "%s", f->cpu->vendor);
    snprintf(c->cpu_model, sizeof c->cpu_model, "%s", f->cpu->model);
    for (size_t i = 0; i < f->cpu->n_features && i < HV_FEATURE_WORDS; i++)
        c->features[i] = f->cpu->features[i];
    c->xsave_size = f->cpu->xsave_size;
    c->xcr0 = f->cpu->xcr0;
    c->tsc_khz = f->cpu->tsc_khz;
    c->tsc_scaling = f->tsc_scaling;
}

/* False after having said why. */
static bool ask(struct tool *t, const struct cpu_words *w, const char *host, struct host_cpu *h)
{
    Migrd__GetFacts get = MIGRD__GET_FACTS__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;

    get.host = (char *)(uintptr_t)host;
    get.port = w->port;
    get.tls = (char *)(uintptr_t)w->tls;
    CLIENT_BODY(rq, GET_FACTS, get_facts, &get);
    h->asked = host;
    h->reply = tool_call(t, &rq, TOOL_LONG_MS);
    if (h->reply == NULL)
        return false;
    if (h->reply->facts == NULL || h->reply->facts->cpu == NULL) {
        tool_error("host %s does not say what CPU it has", host[0] != '\0' ? host : "(this one)");
        tool_free(&h->reply);
        return false;
    }
    take_caps(h);
    return true;
}

static void drop(struct host_cpu *h, size_t n)
{
    for (size_t i = 0; i < n; i++)
        tool_free(&h[i].reply);
}

static int missing(const struct host_cpu *guest, const struct hv_caps *host, char names[NAMES_MAX])
{
    return (int)cpu_level_missing(
        guest->caps.features, HV_FEATURE_WORDS, host->features, names, NAMES_MAX);
}

/* --- JSON --- */

static json_t *name_list(const char *names)
{
    json_t *list = json_array();

    for (const char *p = names; *p != '\0';) {
        size_t n = strcspn(p, " ");

        json_array_append_new(list, json_stringn(p, n));
        p += n + strspn(p + n, " ");
    }
    return list;
}

/* All features of a host by name. */
static void all_names(const struct host_cpu *h, char names[NAMES_MAX])
{
    static const struct hv_caps nothing;

    missing(h, &nothing, names);
}

static json_t *host_json(const struct host_cpu *h)
{
    char names[NAMES_MAX], own[CPU_LEVEL_MAX] = "";

    all_names(h, names);
    cpu_level_common(&h->caps, 1, own, NULL);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:I, s:I, s:I, s:b}", "host", name_of(h),
        "vendor", h->caps.cpu_vendor, "model", h->caps.cpu_model, "level",
        cpu_level_of(h->caps.features, HV_FEATURE_WORDS), "cpu_level", own, "features",
        name_list(names), "xsave_size", (json_int_t)h->caps.xsave_size, "xcr0",
        (json_int_t)h->caps.xcr0, "tsc_khz", (json_int_t)h->caps.tsc_khz, "tsc_scaling",
        (int)h->caps.tsc_scaling);
}

/* --- show --- */

/* Words in lines, each after `indent`; the first one's is there already. */
static void print_wrapped(const char *words, const char *indent)
{
    size_t at = strlen(indent);

    for (const char *p = words; *p != '\0';) {
        size_t n = strcspn(p, " ");

        if (at + n > LINE_WIDTH) {
            printf("\n%s", indent);
            at = strlen(indent);
        } else if (p != words) {
            putchar(' ');
        }
        printf("%.*s", (int)n, p);
        at += n + 1;
        p += n + strspn(p + n, " ");
    }
    putchar('\n');
}

static int show(struct tool *t, const struct cpu_words *w, const char *host)
{
    char names[NAMES_MAX], own[CPU_LEVEL_MAX] = "";
    struct host_cpu h;
    const char *level;

    if (!ask(t, w, host, &h))
        return TOOL_FAILED;
    if (w->json) {
        int rc = tool_print_json(host_json(&h));

        drop(&h, 1);
        return rc;
    }
    level = cpu_level_of(h.caps.features, HV_FEATURE_WORDS);
    all_names(&h, names);
    cpu_level_common(&h.caps, 1, own, NULL);
    printf("Host:       %s\n", name_of(&h));
    printf("CPU:        %s (%s)\n", h.caps.cpu_model, h.caps.cpu_vendor);
    printf("Level:      %s\n", level[0] != '\0' ? level : "below x86-64-v1");
    printf(
        "XSAVE:      %u bytes, XCR0 0x%llx\n", h.caps.xsave_size, (unsigned long long)h.caps.xcr0);
    printf("TSC:        %.3f MHz, a guest %s be given another frequency\n",
        (double)h.caps.tsc_khz / 1000, h.caps.tsc_scaling ? "can" : "cannot");
    printf("Features:   ");
    print_wrapped(names, "            ");
    printf("cpu_level = '%s'\n", own);
    drop(&h, 1);
    return TOOL_OK;
}

/* --- baseline --- */

/* This host first, then those named; a name that leads to a host that answered is left out. */
static int ask_all(struct tool *t, const struct cpu_words *w, char **hosts, int n,
    struct host_cpu h[HOSTS_MAX], size_t *asked)
{
    *asked = 0;
    for (int i = -1; i < n; i++) {
        bool again = false;

        if (!ask(t, w, i < 0 ? "" : hosts[i], &h[*asked])) {
            drop(h, *asked);
            return TOOL_FAILED;
        }
        for (size_t k = 0; k < *asked; k++)
            again = again || strcmp(name_of(&h[k]), name_of(&h[*asked])) == 0;
        if (again)
            tool_free(&h[*asked].reply);
        else
            ++*asked;
    }
    return TOOL_OK;
}

static int baseline_json(
    const struct host_cpu *h, size_t n, const char *text, const struct hv_caps *common)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++) {
        char names[NAMES_MAX];
        json_t *host = host_json(&h[i]);

        missing(&h[i], common, names);
        json_object_set_new(host, "loses", name_list(names));
        json_array_append_new(list, host);
    }
    return tool_print_json(json_pack("{s:s, s:s, s:o}", "cpu_level", text, "level",
        cpu_level_of(common->features, HV_FEATURE_WORDS), "hosts", list));
}

static void baseline_text(
    const struct host_cpu *h, size_t n, const char *text, const struct hv_caps *common)
{
    const char *level = cpu_level_of(common->features, HV_FEATURE_WORDS);

    printf("# what %zu host%s share%s%s%s\n", n, n == 1 ? "" : "s", n == 1 ? "s" : "",
        level[0] != '\0' ? "; all have at least " : "", level);
    printf("cpu_level = '%s'\n", text);
    for (size_t i = 0; i < n; i++) {
        char names[NAMES_MAX];
        int lost = missing(&h[i], common, names);

        if (lost == 0) {
            printf("# %s loses nothing\n", name_of(&h[i]));
            continue;
        }
        printf("# %s loses %d: ", name_of(&h[i]), lost);
        print_wrapped(names, "#     ");
    }
}

static int baseline(struct tool *t, const struct cpu_words *w, char **hosts, int n)
{
    struct host_cpu h[HOSTS_MAX];
    struct hv_caps caps[HOSTS_MAX], common;
    char text[CPU_LEVEL_MAX];
    struct err e;
    size_t asked;
    int rc;

    if (n >= HOSTS_MAX)
        return tool_error("%d hosts: at most %d can be asked at once", n, HOSTS_MAX - 1);
    if (ask_all(t, w, hosts, n, h, &asked) != TOOL_OK)
        return TOOL_FAILED;
    for (size_t i = 0; i < asked; i++)
        caps[i] = h[i].caps;
    common = caps[0];
    if (cpu_level_common(caps, asked, text, &e) < 0 || cpu_level_apply(text, &common, &e) < 0) {
        drop(h, asked);
        return tool_fail(&e);
    }
    rc = TOOL_OK;
    if (w->json)
        rc = baseline_json(h, asked, text, &common);
    else
        baseline_text(h, asked, text, &common);
    drop(h, asked);
    return rc;
}

/* --- compare --- */

static void say_way(const struct host_cpu *from, const struct host_cpu *to)
{
    char names[NAMES_MAX];
    int n = missing(from, &to->caps, names);

    if (n == 0) {
        printf("%s -> %s: a guest finds all that it may use\n", name_of(from), name_of(to));
        return;
    }
    printf("%s -> %s: %d missing there: ", name_of(from), name_of(to), n);
    print_wrapped(names, "    ");
}

static bool same_vendor(const struct host_cpu *a, const struct host_cpu *b)
{
    return strcmp(a->caps.cpu_vendor, b->caps.cpu_vendor) == 0;
}

static void compare_text(const struct host_cpu *a, const struct host_cpu *b)
{
    printf("%s: %s (%s), %.3f MHz\n", name_of(a), a->caps.cpu_model, a->caps.cpu_vendor,
        (double)a->caps.tsc_khz / 1000);
    printf("%s: %s (%s), %.3f MHz\n", name_of(b), b->caps.cpu_model, b->caps.cpu_vendor,
        (double)b->caps.tsc_khz / 1000);
    if (!same_vendor(a, b)) {
        printf("CPUs of different vendors: no guest can move between them\n");
        return;
    }
    say_way(a, b);
    say_way(b, a);
}

static int compare_json(const struct host_cpu *a, const struct host_cpu *b)
{
    char there[NAMES_MAX], here[NAMES_MAX];

    missing(a, &b->caps, there);
    missing(b, &a->caps, here);
    return tool_print_json(json_pack("{s:o, s:o, s:b, s:o, s:o}", "here", host_json(a), "there",
        host_json(b), "same_vendor", (int)same_vendor(a, b), "missing_there", name_list(there),
        "missing_here", name_list(here)));
}

/* Can guests that were booted here with all it has go there? */
static int compare(struct tool *t, const struct cpu_words *w, const char *host)
{
    struct host_cpu h[2];
    int rc = TOOL_OK, lacks;

    if (!ask(t, w, "", &h[0]))
        return TOOL_FAILED;
    if (!ask(t, w, host, &h[1])) {
        drop(h, 1);
        return TOOL_FAILED;
    }
    if (w->json)
        rc = compare_json(&h[0], &h[1]);
    else
        compare_text(&h[0], &h[1]);
    lacks =
        (int)cpu_level_missing(h[0].caps.features, HV_FEATURE_WORDS, h[1].caps.features, NULL, 0);
    if (rc == TOOL_OK && (lacks > 0 || !same_vendor(&h[0], &h[1])))
        rc = TOOL_WOULD_NOT;
    drop(h, 2);
    return rc;
}

/* --- words --- */

static int read_words(struct tool *t, int argc, char **argv, struct cpu_words *w)
{
    static const struct option options[] = {
        { "port", required_argument, NULL, OPT_PORT },
        { "tls", required_argument, NULL, OPT_TLS },
        { "json", no_argument, NULL, OPT_JSON },
        { NULL, 0, NULL, 0 },
    };
    struct err e;
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == '?')
            return tool_usage(t, NULL);
        if (o == OPT_JSON)
            w->json = true;
        if (o == OPT_TLS)
            w->tls = optarg;
        if (o == OPT_TLS && strcmp(optarg, "yes") != 0 && strcmp(optarg, "no") != 0)
            return tool_usage(t, "tls '%s': give yes or no", optarg);
        if (o == OPT_PORT && parse_number(optarg, "port", 1, 65535, &w->port, &e) < 0)
            return tool_usage(t, "%s", e.text);
    }
    return TOOL_OK;
}

int migctl_cpu(struct tool *t, int argc, char **argv)
{
    struct cpu_words w = { .tls = "" };
    int rc = read_words(t, argc, argv, &w), n = argc - optind - 1;
    char **words = argv + optind + 1;
    const char *verb;

    if (rc != TOOL_OK)
        return rc;
    if (n < 0)
        return tool_usage(t, "give show, baseline or compare");
    verb = argv[optind];
    if (strcmp(verb, "show") == 0)
        return n > 1 ? tool_usage(t, "show: give one host, or none")
                     : show(t, &w, n ? words[0] : "");
    if (strcmp(verb, "baseline") == 0)
        return baseline(t, &w, words, n);
    if (strcmp(verb, "compare") == 0)
        return n == 1 ? compare(t, &w, words[0]) : tool_usage(t, "compare: give one host");
    return tool_usage(t, "'%s': give show, baseline or compare", verb);
}
