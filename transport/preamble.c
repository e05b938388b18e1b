/* SPDX-License-Identifier: ISC */
/*
 * The lines before TLS. Server first, so that `telnet host 8002` is a test:
 *
 *   S: 220 host2 migrd relocation 1        530 <who> is not allowed by ... (and close)
 *   C: RELOCATE 1                          CHANNEL 0123456789abcdef0123456789abcdef 1
 *   S: 220 go ahead                        421 / 500 <why> (and close)
 *
 * Lines end in CR LF (a bare LF is taken), hold printable ASCII only and have at most
 * TR_LINE_MAX bytes. Words are separated by exactly one blank. Nothing here does I/O.
 */
#include "transport/transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/internal.h"

#define SHOW_LEN 64 /* of a bad line, in the answer */

void text_clean(char *out, size_t size, const char *in, size_t len)
{
    size_t n = len < size ? len : size - 1;

    for (size_t i = 0; i < n; i++)
        out[i] = in[i] >= ' ' && in[i] <= '~' ? in[i] : '?';
    out[n] = '\0';
}

/* Decimal without sign or leading zero, at most `max`; the whole of [p, end). */
static int parse_number(const char *p, const char *end, unsigned max, unsigned *out)
{
    unsigned v = 0;

    if (p == end || (*p == '0' && end - p > 1))
        return -1;
    for (; p < end; p++) {
        if (*p < '0' || *p > '9')
            return -1;
        v = v * 10 + (unsigned)(*p - '0');
        if (v > max)
            return -1;
    }
    *out = v;
    return 0;
}

static bool starts_with(const char *line, size_t len, const char *word)
{
    return len >= strlen(word) && memcmp(line, word, strlen(word)) == 0;
}

static int parse_relocate(const char *p, const char *end, struct tr_preamble *out, struct err *e)
{
    if (parse_number(p, end, 9999, &out->version) < 0)
        return err_set(
            e, ERR_PROTOCOL, "RELOCATE wants a protocol version: RELOCATE %u", TR_VERSION);
    if (out->version < TR_VERSION_OLDEST || out->version > TR_VERSION)
        return err_set(e, ERR_UNSUPPORTED, "protocol %u is not spoken here, only %u to %u",
            out->version, TR_VERSION_OLDEST, TR_VERSION);
    out->request = TR_REQ_RELOCATE;
    return 0;
}

static int parse_channel(const char *p, const char *end, struct tr_preamble *out, struct err *e)
{
    size_t n = 0;

    while (p + n < end && ((p[n] >= '0' && p[n] <= '9') || (p[n] >= 'a' && p[n] <= 'f')))
        n++;
    if (n != TR_SESSION_LEN - 1 || p + n == end || p[n] != ' ')
        return err_set(e, ERR_PROTOCOL, "CHANNEL wants a session of %d hex digits and a number",
            TR_SESSION_LEN - 1);
    memcpy(out->session, p, n);
    out->session[n] = '\0';
    if (parse_number(p + n + 1, end, TR_CHANNELS_MAX, &out->channel) < 0 || out->channel == 0)
        return err_set(e, ERR_PROTOCOL, "CHANNEL's number is 1 to %d", TR_CHANNELS_MAX);
    out->request = TR_REQ_CHANNEL;
    return 0;
}

/* Other programs that may come to this port by mistake get a hint instead of a riddle. */
static int unknown_request(const char *line, size_t len, struct err *e)
{
    char shown[SHOW_LEN];

    if (starts_with(line, len, "receive") || starts_with(line, len, "sslreceive"))
        return err_set(e, ERR_PROTOCOL,
            "xend's relocation protocol is not spoken here; use migrd on both hosts");
    if (len > 0 && line[0] == 0x16)
        return err_set(e, ERR_PROTOCOL, "TLS begins after the line RELOCATE or CHANNEL");
    text_clean(shown, sizeof shown, line, len);
    return err_set(e, ERR_PROTOCOL, "expected RELOCATE or CHANNEL, not '%s'", shown);
}

int tr_preamble_parse(const char *line, size_t len, struct tr_preamble *out, struct err *e)
{
    memset(out, 0, sizeof *out);
    if (len > TR_LINE_MAX - 2)
        return err_set(e, ERR_PROTOCOL, "line is longer than %d bytes", TR_LINE_MAX);
    if (starts_with(line, len, "RELOCATE "))
        return parse_relocate(line + strlen("RELOCATE "), line + len, out, e);
    if (starts_with(line, len, "CHANNEL "))
        return parse_channel(line + strlen("CHANNEL "), line + len, out, e);
    return unknown_request(line, len, e);
}

/* Fills a line of the server; text from outside is cleaned and cut so that CR LF always fits. */
static size_t make_line(char *out, const char *before, const char *text, const char *after)
{
    char clean[TR_LINE_MAX];
    size_t room = TR_LINE_MAX - 3 - strlen(before) - strlen(after);

    text_clean(clean, room < sizeof clean ? room + 1 : sizeof clean, text, strlen(text));
    return (size_t)snprintf(out, TR_LINE_MAX, "%s%s%s\r\n", before, clean, after);
}

#define STR_(x) #x
#define STR(x) STR_(x)

size_t tr_greeting(char *out, const char *host)
{
    return make_line(out, "220 ", host, " migrd relocation " STR(TR_VERSION));
}

size_t tr_refusal(char *out, const char *who)
{
    return make_line(out, "530 ", who, " is not allowed by xend-relocation-hosts-allow");
}

size_t tr_go_ahead(char *out)
{
    return make_line(out, "220 ", "go ahead", "");
}

size_t tr_bad_request(char *out, const char *why)
{
    return make_line(out, "500 ", why, "");
}

size_t tr_busy(char *out, const char *why)
{
    return make_line(out, "421 ", why, "");
}

/* The three digits of an answer, or 0. */
static unsigned answer_code(const char *line)
{
    unsigned code;

    if (strlen(line) < 4 || line[3] != ' ' || parse_number(line, line + 3, 999, &code) < 0)
        return 0;
    return code;
}

int answer_check(const char *line, const char *who, struct err *e)
{
    char clean[300];

    text_clean(clean, sizeof clean, line, strlen(line));
    switch (answer_code(line)) {
    case 220:
        return 0;
    case 421:
        return err_set(e, ERR_RESOURCE, "%s cannot take this now: %s", who, clean + 4);
    case 500:
        return err_set(e, ERR_PROTOCOL, "%s does not understand: %s", who, clean + 4);
    case 530:
        return err_set(e, ERR_REFUSED, "%s refuses: %s", who, clean + 4);
    }
    return err_set(
        e, ERR_PROTOCOL, "%s: not a relocation port of migrd: it says '%.80s'", who, clean);
}

int greeting_check(const char *line, const char *who, struct err *e)
{
    static const char mark[] = " migrd relocation ";
    const char *at;
    unsigned version;

    if (answer_check(line, who, e) < 0)
        return -1;
    at = strstr(line, mark);
    if (at == NULL || parse_number(at + sizeof mark - 1, line + strlen(line), 9999, &version) < 0)
        return err_set(
            e, ERR_PROTOCOL, "%s: port is not migrd's: the greeting is another one", who);
    if (version < TR_VERSION_OLDEST)
        return err_set(e, ERR_UNSUPPORTED,
            "%s speaks relocation protocol %u, this host %u to %u: update it first", who, version,
            TR_VERSION_OLDEST, TR_VERSION);
    return 0;
}
