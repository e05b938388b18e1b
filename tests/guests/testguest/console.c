/* SPDX-License-Identifier: ISC */
/*
 * console: a polled 8250. Output goes to a queue; console_step sends a FIFO's worth when the
 * line is ready, because each byte is an exit to the hypervisor and a line sent in one go would
 * show up as a gap between heartbeats. Input is looked for every 2 ms.
 */
#include "guest.h"

#define LSR 5
#define LSR_DATA 0x01
#define LSR_THRE 0x20
#define POLL_NS 2000000u
#define BURST 8

static char queue[16384];
static uint32_t head, tail; /* head is written next, tail sent next; modulo by index */
static char line[128];
static size_t line_len;
static bool line_ready;
static uint64_t next_poll_ns;

static uint32_t at(uint32_t i)
{
    return i % sizeof(queue);
}

static bool send_some(void)
{
    if (!(in8(PORT_CONSOLE + LSR) & LSR_THRE))
        return head != tail;
    for (unsigned i = 0; i < BURST && tail != head; i++)
        out8(PORT_CONSOLE, (uint8_t)queue[at(tail++)]);
    return head != tail;
}

/* A host that reads nothing must not stop the guest: the oldest line is lost instead. */
static void put_char(char c)
{
    for (unsigned tries = 0; head - tail == sizeof(queue) && tries < 1000; tries++)
        send_some();
    if (head - tail == sizeof(queue))
        tail++;
    queue[at(head++)] = c;
}

void put(const char *s)
{
    for (; *s; s++) {
        if (*s == '\n')
            put_char('\r');
        put_char(*s);
    }
}

void put_u64(uint64_t v)
{
    char digits[21];
    unsigned i = sizeof(digits) - 1;
    digits[i] = 0;
    do
        digits[--i] = (char)('0' + v % 10);
    while (v /= 10);
    put(digits + i);
}

void put_hex(uint64_t v)
{
    char digits[19] = "0x";
    for (unsigned i = 0; i < 16; i++)
        digits[2 + i] = "0123456789abcdef"[v >> (60 - 4 * i) & 15];
    digits[18] = 0;
    put(digits);
}

void put_kv(const char *key, uint64_t v, const char *unit)
{
    put(" ");
    put(key);
    put("=");
    put_u64(v);
    put(unit);
}

static void take_char(char c)
{
    if (c == '\n' || c == '\r') {
        line[line_len] = 0;
        line_ready = line_len > 0;
        line_len = 0;
    } else if (line_len < sizeof(line) - 1) {
        line[line_len++] = c;
    }
}

bool console_step(uint64_t now_ns)
{
    line_ready = false;
    if (now_ns >= next_poll_ns) {
        next_poll_ns = now_ns + POLL_NS;
        for (unsigned i = 0; i < sizeof(line) && !line_ready; i++) {
            uint8_t lsr = in8(PORT_CONSOLE + LSR);
            if (lsr == 0xff || !(lsr & LSR_DATA))
                break;
            take_char((char)in8(PORT_CONSOLE));
        }
    }
    return head != tail ? send_some() : false;
}

const char *console_line(void)
{
    return line_ready ? line : NULL;
}

void console_flush(void)
{
    for (unsigned tries = 0; head != tail && tries < 1000000; tries++)
        send_some();
}
