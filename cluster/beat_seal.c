/* SPDX-License-Identifier: ISC */
/*
 * A beat, numbers big-endian:
 *
 *   0   4  "MGB1"
 *   4   4  tag of the key that signs
 *   8   4  tag of the newest key that the sender has
 *   12  4  from: node id         16  4  to: node id
 *   20  8  stream                28  8  number
 *   36     1 to HA_BEAT_MAX bytes of the core's
 *   then   32 bytes HMAC-SHA256 of all before
 *
 * Key and tag are HKDF-SHA256 of corosync's authkey under labels of their own: who has the one
 * learns nothing of the other, nor of what corosync does with the file.
 *
 * A new key comes to the nodes one after the other. Each sends with its newest, or with the one
 * before while a peer says that this is the newest it has; so no beat is lost on the way.
 */
#include "cluster/beat_seal.h"

#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "transport/openssl.h"

#define SECRET_MIN 32
#define SECRET_MAX 65536

static const uint8_t magic[4] = { 'M', 'G', 'B', '1' };

/* --- keys --- */

static bool derive(
    const uint8_t *secret, size_t len, const char *label, uint8_t *out, size_t out_len)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, OSSL_KDF_NAME_HKDF, NULL);
    EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    char hash[] = "SHA256";
    OSSL_PARAM p[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, hash, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)secret, len),
        OSSL_PARAM_construct_octet_string(
            OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)label, strlen(label)),
        OSSL_PARAM_construct_end(),
    };
    bool ok = ctx && EVP_KDF_derive(ctx, out, out_len, p) == 1;

    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return ok;
}

static void put32(uint8_t *p, uint32_t x)
{
    for (int i = 3; i >= 0; i--, x >>= 8)
        p[i] = (uint8_t)x;
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put64(uint8_t *p, uint64_t x)
{
    put32(p, (uint32_t)(x >> 32));
    put32(p + 4, (uint32_t)x);
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

int beat_keys_make(struct beat_keys *k, const uint8_t *secret, size_t len, struct err *e)
{
    struct beat_key new;
    uint8_t tag[4];

    if (!derive(secret, len, "migrd beat 1 mac", new.mac, sizeof new.mac) ||
        !derive(secret, len, "migrd beat 1 tag", tag, sizeof tag))
        return err_set(e, ERR_SYSTEM, "the key of the beats: OpenSSL has no HKDF with SHA256");
    new.tag = get32(tag) ? get32(tag) : 1;
    if (k->now.tag != 0 && k->now.tag != new.tag)
        k->before = k->now;
    k->now = new;
    OPENSSL_cleanse(&new, sizeof new);
    return 0;
}

int beat_keys_read(struct beat_keys *k, const char *path, struct err *e)
{
    size_t len;
    char *secret = io_read_file(path, SECRET_MAX, &len, e);
    int r;

    if (secret == NULL)
        return err_prefix(e,
            "the cluster needs a key that all its nodes have; make one on one node with "
            "\"migctl cluster init\" or corosync-keygen, and copy it to the others");
    if (len < SECRET_MIN)
        r = err_set(e, ERR_INVALID,
            "%s has %zu bytes, a key has %d at least: make one with corosync-keygen, and copy it "
            "to all nodes",
            path, len, SECRET_MIN);
    else
        r = beat_keys_make(k, (const uint8_t *)secret, len, e);
    OPENSSL_cleanse(secret, len);
    free(secret);
    return r;
}

void beat_keys_clear(struct beat_keys *k)
{
    OPENSSL_cleanse(k, sizeof *k);
}

static const struct beat_key *key_of(const struct beat_keys *k, uint32_t tag)
{
    if (tag == 0)
        return NULL;
    return tag == k->now.tag ? &k->now : tag == k->before.tag ? &k->before : NULL;
}

/* --- the format --- */

static bool sum(const struct beat_key *key, const uint8_t *bytes, size_t len, uint8_t mac[BEAT_MAC])
{
    unsigned n = BEAT_MAC;

    return HMAC(EVP_sha256(), key->mac, sizeof key->mac, bytes, len, mac, &n) != NULL;
}

size_t beat_seal(const struct beat_keys *k, const struct beat_head *head, const uint8_t *bytes,
    size_t len, uint8_t out[BEAT_DATAGRAM_MAX])
{
    const struct beat_key *key = key_of(k, head->signer);

    if (key == NULL || len == 0 || len > HA_BEAT_MAX)
        return 0;
    memcpy(out, magic, sizeof magic);
    put32(out + 4, head->signer);
    put32(out + 8, head->newest);
    put32(out + 12, head->from);
    put32(out + 16, head->to);
    put64(out + 20, head->stream);
    put64(out + 28, head->number);
    memcpy(out + BEAT_HEAD, bytes, len);
    return sum(key, out, BEAT_HEAD + len, out + BEAT_HEAD + len) ? BEAT_HEAD + len + BEAT_MAC : 0;
}

enum beat_verdict beat_unseal(const struct beat_keys *k, const uint8_t *datagram, size_t n,
    struct beat_head *head, const uint8_t **bytes, size_t *len)
{
    const struct beat_key *key;
    uint8_t mac[BEAT_MAC];

    if (n <= BEAT_HEAD + BEAT_MAC || n > BEAT_DATAGRAM_MAX ||
        memcmp(datagram, magic, sizeof magic) != 0)
        return BEAT_MALFORMED;
    *head = (struct beat_head){ get32(datagram + 4), get32(datagram + 8), get32(datagram + 12),
        get32(datagram + 16), get64(datagram + 20), get64(datagram + 28) };
    *bytes = datagram + BEAT_HEAD;
    *len = n - BEAT_HEAD - BEAT_MAC;
    key = key_of(k, head->signer);
    if (key == NULL)
        return BEAT_UNKNOWN_KEY;
    if (!sum(key, datagram, n - BEAT_MAC, mac) ||
        CRYPTO_memcmp(mac, datagram + n - BEAT_MAC, BEAT_MAC) != 0)
        return BEAT_FORGED;
    return BEAT_GOOD;
}

/* --- what was seen --- */

static bool take(struct beat_seen *s, uint64_t number)
{
    uint64_t back;

    if (number > s->highest) {
        back = number - s->highest;
        s->bits = back < 64 ? s->bits << back : 0;
        s->bits |= 1;
        s->highest = number;
        return true;
    }
    back = s->highest - number;
    if (back >= 64 || s->bits & UINT64_C(1) << back)
        return false;
    s->bits |= UINT64_C(1) << back;
    return true;
}

bool beat_window_take(struct beat_window *w, uint64_t stream, uint64_t number)
{
    if (number == 0)
        return false;
    for (unsigned i = 0; i < BEAT_STREAMS; i++)
        if (w->seen[i].highest != 0 && w->seen[i].stream == stream)
            return take(&w->seen[i], number);
    memmove(&w->seen[1], &w->seen[0], (BEAT_STREAMS - 1) * sizeof w->seen[0]);
    w->seen[0] = (struct beat_seen){ stream, number, 1 };
    return true;
}
