/* SPDX-License-Identifier: ISC */
/*
 * The record, 512 bytes of text, so that an administrator can look at it with cat:
 *
 *   migrd-lease 1
 *   state held                 claimed: being taken; held; yielded: its guest stands still and may
 *                              run elsewhere; released: given up in good order
 *   owner HOST                 1 to 127 printable characters without blanks
 *   uuid UUID                  of the domain
 *   epoch 12                   1..
 *   beat 3481                  another one after each renewal
 *   nonce 0123456789abcdef     of the process that took it
 *   machine 0123456789abcdef   hash of its machine id; 0: not known
 *   boot 0123456789abcdef      hash of its boot id; 0: not known
 *   process 4711 8837 4026531836   its id, start, and the namespace of the id (0: not known)
 *   valid-ms 5000              not renewed for that long: its holder does not write any more
 *   was 0 0 0644               user id, group id, mode of the disk before leases changed
 *                              them; "-": they did not
 *   (blanks, then a newline)
 *   sum 0123456789abcdef       XXH3-64 of the 491 bytes before, the last 21 bytes
 *
 * There is one way to write a record: a reader makes the text again from what it read and
 * compares, so blanks, leading zeroes and other liberties are refused.
 *
 * How a record stands against our bid. "Ours": the name and the machine are this host's. "Gone":
 * ours, and of a boot before this one, or of a process that has ended (lease_who_gone).
 *
 *   it is of        its epoch  its state  claim        verdict
 *   this process    any        any        any          take
 *   another domain  any        released   any          take
 *   another domain  any        else       any          watch: epochs of two domains say nothing
 *                                                      about each other
 *   this domain     newer      any        any          older
 *   this domain     the same   any        any          gone: take; ours: watch; else older
 *   this domain     older      released   any          take
 *   this domain     older      yielded    all but FREE take
 *   this domain     older      else       HANDOVER,    take
 *                                         CLUSTER
 *   this domain     older      else       FREE,        gone: take; else watch
 *                                         PROVEN
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>
#include <xxhash.h>

#include "storage-check/lease_internal.h"

#define SUM_LINE 21u /* "sum " + 16 + newline */
#define SUMMED (LEASE_RECORD_SIZE - SUM_LINE)

static bool owner_ok(const char *s)
{
    size_t n = strnlen(s, LEASE_OWNER_MAX);

    if (n == 0 || n == LEASE_OWNER_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] <= ' ' || s[i] > '~')
            return false;
    return true;
}

/* In the one way in which it is written: small letters. */
static bool uuid_ok(const char *s)
{
    char again[37];
    uuid_t u;

    if (strnlen(s, sizeof again) != sizeof again - 1 || uuid_parse(s, u) != 0)
        return false;
    uuid_unparse_lower(u, again);
    return strcmp(s, again) == 0;
}

bool lease_note_ok(const struct lease_note *n)
{
    return owner_ok(n->r.owner) && uuid_ok(n->r.uuid) && n->r.epoch != 0 && n->nonce != 0 &&
           n->valid_ms >= LEASE_VALID_MIN_MS && n->valid_ms <= LEASE_VALID_MAX_MS &&
           n->was_mode <= 07777 && n->r.released + n->r.yielded + n->claimed <= 1;
}

static const char *state_word(const struct lease_note *n)
{
    return n->r.released ? "released" : n->r.yielded ? "yielded" : n->claimed ? "claimed" : "held";
}

void lease_mend(uint8_t record[LEASE_RECORD_SIZE])
{
    char line[SUM_LINE + 1];

    snprintf(line, sizeof line, "sum %016" PRIx64 "\n", (uint64_t)XXH3_64bits(record, SUMMED));
    memcpy(record + SUMMED, line, SUM_LINE);
}

void lease_encode(const struct lease_note *n, uint8_t out[LEASE_RECORD_SIZE])
{
    char text[LEASE_RECORD_SIZE + 1], was[48] = "-";
    int used;

    memset(out, 0, LEASE_RECORD_SIZE);
    if (!lease_note_ok(n))
        return;
    if (n->has_was)
        snprintf(was, sizeof was, "%" PRIu32 " %" PRIu32 " %04" PRIo32, n->was_uid, n->was_gid,
            n->was_mode);
    used = snprintf(text, sizeof text,
        "migrd-lease 1\nstate %s\nowner %s\nuuid %s\nepoch %" PRIu64 "\nbeat %" PRIu64
        "\nnonce %016" PRIx64 "\nmachine %016" PRIx64 "\nboot %016" PRIx64 "\nprocess %" PRIu32
        " %" PRIu64 " %" PRIu64 "\nvalid-ms %" PRIu32 "\nwas %s\n",
        state_word(n), n->r.owner, n->r.uuid, n->r.epoch, n->r.beat, n->nonce, n->who.machine,
        n->who.boot, n->who.pid, n->who.started, n->who.pids, n->valid_ms, was);
    memset(text + used, ' ', SUMMED - (size_t)used);
    text[SUMMED - 1] = '\n';
    memcpy(out, text, SUMMED);
    lease_mend(out);
}

/* The longest text: SUMMED must hold it with the newline behind the blanks. */
_Static_assert(14 + 15 + 6 + LEASE_OWNER_MAX + 5 + 37 + 6 + 21 + 5 + 21 + 6 + 17 + 8 + 17 + 5 + 17 +
                       8 + 53 + 9 + 11 + 4 + 28 <
                   SUMMED,
    "a record holds the longest texts");

/* Lines "KEY VALUE" in their order; values are checked by the comparison afterwards. */
static bool take_line(char **at, const char *key, char *value, size_t size)
{
    size_t k = strlen(key), len = strcspn(*at, "\n");

    if (strncmp(*at, key, k) != 0 || (*at)[k] != ' ' || (*at)[len] != '\n' || len - k > size)
        return false;
    memcpy(value, *at + k + 1, len - k - 1);
    value[len - k - 1] = '\0';
    *at += len + 1;
    return true;
}

static bool take_number(char **at, const char *key, int base, uint64_t *out)
{
    char value[24], *end;

    if (!take_line(at, key, value, sizeof value) || value[0] == '\0')
        return false;
    *out = strtoull(value, &end, base);
    return *end == '\0';
}

static bool take_state(char **at, struct lease_note *n)
{
    char value[16];

    if (!take_line(at, "state", value, sizeof value))
        return false;
    n->r.released = strcmp(value, "released") == 0;
    n->r.yielded = strcmp(value, "yielded") == 0;
    n->claimed = strcmp(value, "claimed") == 0;
    return true;
}

static bool take_who(char **at, struct lease_who *w)
{
    char value[64];

    return take_number(at, "machine", 16, &w->machine) && take_number(at, "boot", 16, &w->boot) &&
           take_line(at, "process", value, sizeof value) &&
           sscanf(value, "%" SCNu32 " %" SCNu64 " %" SCNu64, &w->pid, &w->started, &w->pids) == 3;
}

static bool take_was(char **at, struct lease_note *n)
{
    char value[48];

    if (!take_line(at, "was", value, sizeof value))
        return false;
    n->has_was = sscanf(value, "%" SCNu32 " %" SCNu32 " %" SCNo32, &n->was_uid, &n->was_gid,
                     &n->was_mode) == 3;
    if (!n->has_was)
        n->was_uid = n->was_gid = n->was_mode = 0;
    return true;
}

int lease_decode(const uint8_t *data, size_t len, struct lease_note *out, struct err *e)
{
    char text[LEASE_RECORD_SIZE + 1], version[8], *at = text;
    uint8_t again[LEASE_RECORD_SIZE];
    uint64_t valid = 0;

    memset(out, 0, sizeof *out);
    if (len != LEASE_RECORD_SIZE)
        return err_set(
            e, ERR_INTEGRITY, "lease record of %zu bytes instead of %u", len, LEASE_RECORD_SIZE);
    memcpy(text, data, len);
    text[len] = '\0';
    if (take_line(&at, "migrd-lease", version, sizeof version) && take_state(&at, out) &&
        take_line(&at, "owner", out->r.owner, sizeof out->r.owner) &&
        take_line(&at, "uuid", out->r.uuid, sizeof out->r.uuid) &&
        take_number(&at, "epoch", 10, &out->r.epoch) &&
        take_number(&at, "beat", 10, &out->r.beat) && take_number(&at, "nonce", 16, &out->nonce) &&
        take_who(&at, &out->who) && take_number(&at, "valid-ms", 10, &valid) &&
        take_was(&at, out)) {
        out->valid_ms = valid > UINT32_MAX ? 0 : (uint32_t)valid;
        lease_encode(out, again);
        if (memcmp(again, data, len) == 0)
            return 0;
    }
    memset(out, 0, sizeof *out);
    return err_set(e, ERR_INTEGRITY, "damaged lease record");
}

void lease_entry_name(uint64_t epoch, const char *uuid, char out[LEASE_ENTRY_LEN])
{
    snprintf(out, LEASE_ENTRY_LEN, "%" PRIu64 ".%.36s", epoch, uuid);
}

bool lease_entry_parse(const char *name, uint64_t *epoch, char uuid[37])
{
    char again[LEASE_ENTRY_LEN], *end;

    if (strnlen(name, LEASE_ENTRY_LEN) == LEASE_ENTRY_LEN)
        return false;
    *epoch = strtoull(name, &end, 10);
    if (*epoch == 0 || *end != '.' || !uuid_ok(end + 1))
        return false;
    memcpy(uuid, end + 1, 37);
    lease_entry_name(*epoch, uuid, again);
    return strcmp(again, name) == 0;
}

enum kin { STRANGER, OURS, GONE };

static bool same_name(const struct lease_note *found, const struct lease_bid *b)
{
    return strcmp(found->r.owner, b->owner) == 0;
}

static enum kin kin_of(const struct lease_note *found, const struct lease_bid *b)
{
    if (!same_name(found, b) || b->who->machine == 0 || found->who.machine != b->who->machine)
        return STRANGER;
    return lease_who_gone(&found->who, b->who) ? GONE : OURS;
}

enum lease_verdict lease_judge(const struct lease_note *found, const struct lease_bid *b)
{
    enum kin kin = kin_of(found, b);

    if (found->nonce == b->nonce)
        return LEASE_TAKE;
    if (strcmp(found->r.uuid, b->uuid) != 0)
        return found->r.released ? LEASE_TAKE : LEASE_WATCH;
    if (found->r.epoch > b->epoch)
        return LEASE_OLDER;
    if (found->r.epoch == b->epoch)
        return kin == GONE ? LEASE_TAKE : kin == OURS ? LEASE_WATCH : LEASE_OLDER;
    if (found->r.released || kin == GONE || b->claim == LEASE_HANDOVER ||
        b->claim == LEASE_CLUSTER || (b->claim == LEASE_PROVEN && found->r.yielded))
        return LEASE_TAKE;
    return LEASE_WATCH;
}

uint64_t lease_watch_ns(uint32_t its_valid_ms, uint32_t our_valid_ms)
{
    uint64_t ms = its_valid_ms > our_valid_ms ? its_valid_ms : our_valid_ms;

    return (ms + ms / 5 + 100) * NS_PER_MS;
}

static bool namesake(const struct lease_note *found, const struct lease_bid *b)
{
    return same_name(found, b) && b->who->machine != 0 && found->who.machine != 0 &&
           found->who.machine != b->who->machine;
}

/* What is to be done about a living holder. */
static const char *way_out(const struct lease_note *found, const struct lease_bid *b)
{
    if (namesake(found, b))
        return "it is another machine than this one: two hosts have one name; give each its own "
               "(host-name)";
    if (same_name(found, b))
        return "another process of this host has it; end that one";
    return "end the domain there (xm destroy; if it is in doubt there: migctl resolve DOMAIN "
           "--discard --force, with migrd running), or switch that host off";
}

int lease_refuse(struct err *e, enum lease_verdict v, const struct lease_note *found,
    const struct lease_bid *b, const char *source)
{
    const char *who = found->r.owner[0] != '\0' ? found->r.owner : "another host";
    bool hashed = strncmp(found->r.uuid, LEASE_HASHED, strlen(LEASE_HASHED)) == 0;

    if (v == LEASE_OLDER && found->r.released)
        return err_set(e, ERR_EPOCH,
            "disk %s: the domain ran on host %s under epoch %" PRIu64 ", ours is %" PRIu64
            "; start it there, or, if that host is out of use: migctl storage forget %s",
            source, who, found->r.epoch, b->epoch, source);
    if (v == LEASE_OLDER)
        return err_set(e, ERR_EPOCH,
            "disk %s: its lease knows epoch %" PRIu64 " of host %s%s, ours is %" PRIu64
            "; the domain ran elsewhere since, or is being started there",
            source, found->r.epoch, who,
            namesake(found, b) ? " (another machine of this name)" : "", b->epoch);
    if (found->r.uuid[0] != '\0' && strcmp(found->r.uuid, b->uuid) != 0)
        return err_set(e, ERR_REFUSED,
            "disk %s: %s%s on host %s writes to it; give this domain a disk of its own, or end "
            "that one",
            source, hashed ? "another domain" : "domain ", hashed ? "" : found->r.uuid, who);
    return err_set(e, ERR_REFUSED,
        "disk %s: host %s is alive and renews its lease (epoch %" PRIu64 "); %s", source, who,
        found->r.epoch, way_out(found, b));
}

/*
 * Keys of reservations, from the highest bit: 'm' (8 bits), hash of the domain's uuid (12), hash of
 * the host's name and machine id (20), epoch modulo 2^24 (24).
 */
#define KEY_MAGIC UINT64_C(0x6d)

static uint64_t hash_of(const char *s, unsigned bits)
{
    return (uint64_t)XXH3_64bits(s, strlen(s)) & ((UINT64_C(1) << bits) - 1);
}

uint64_t lease_key(const char *host, uint64_t machine, const char *uuid, uint64_t epoch)
{
    char of[LEASE_OWNER_MAX + 20];

    snprintf(of, sizeof of, "%s %016" PRIx64, host, machine);
    return KEY_MAGIC << 56 | hash_of(uuid, 12) << 44 | hash_of(of, 20) << 24 | (epoch & 0xffffff);
}

bool lease_key_ours(uint64_t key)
{
    return key >> 56 == KEY_MAGIC;
}

uint64_t lease_key_epoch(uint64_t key)
{
    return key & 0xffffff;
}

uint32_t lease_key_host(uint64_t key)
{
    return (uint32_t)(key >> 24 & 0xfffff);
}

uint32_t lease_key_domain(uint64_t key)
{
    return (uint32_t)(key >> 44 & 0xfff);
}
