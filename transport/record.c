/* SPDX-License-Identifier: ISC */
/*
 * A protected record, RFC 8446 section 5.2:
 *
 *   23, 3, 3, length (2 bytes)     the header, authenticated but not encrypted
 *   content                        0 to 16384 bytes         \
 *   type                           21, 22 or 23              > encrypted
 *   zeroes                         padding, often none      /
 *   tag                            16 bytes
 *
 * With the type and the padding the plaintext is 16385 bytes at most. The nonce is the IV
 * with the number of the record under this key. Keys and IVs come from the traffic secret
 * by HKDF-Expand-Label (section 7.3), as "key", "iv" and, for the next secret, "traffic upd".
 */
#include <string.h>

#include "transport/record.h"

#define BODY_MAX (RECORD_PLAIN + 1 + RECORD_TAG)
#define KEY_MAX 32

struct record_suite {
    unsigned id;
    const char *cipher, *digest;
    size_t key_len, secret_len;
};

static const struct record_suite suites[] = {
    { 0x1301, "AES-128-GCM", "SHA256", 16, 32 },
    { 0x1302, "AES-256-GCM", "SHA384", 32, 48 },
    { 0x1303, "ChaCha20-Poly1305", "SHA256", 32, 32 },
};

/* --- keys --- */

static int expand_label(
    const struct record_key *k, const char *label, uint8_t *out, size_t len, struct err *e)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "TLS13-KDF", NULL);
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY, ok = 0;

    if (ctx != NULL) {
        OSSL_PARAM p[] = {
            OSSL_PARAM_int(OSSL_KDF_PARAM_MODE, &mode),
            OSSL_PARAM_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)k->suite->digest, 0),
            OSSL_PARAM_octet_string(OSSL_KDF_PARAM_KEY, (void *)k->secret, k->suite->secret_len),
            OSSL_PARAM_octet_string(OSSL_KDF_PARAM_PREFIX, (char *)"tls13 ", 6),
            OSSL_PARAM_octet_string(OSSL_KDF_PARAM_LABEL, (char *)label, strlen(label)),
            OSSL_PARAM_END,
        };

        ok = EVP_KDF_derive(ctx, out, len, p) == 1;
    }
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return ok ? 0 : err_set(e, ERR_INTERNAL, "TLS: OpenSSL cannot derive '%s'", label);
}

/* The key and IV of the secret go into use. */
static int load(struct record_key *k, struct err *e)
{
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, k->suite->cipher, NULL);
    uint8_t key[KEY_MAX];
    int r = -1;

    if (expand_label(k, "key", key, k->suite->key_len, e) == 0 &&
        expand_label(k, "iv", k->iv, sizeof k->iv, e) == 0) {
        if (EVP_CipherInit_ex2(k->ctx, cipher, key, k->iv, k->seals, NULL) == 1)
            r = 0;
        else
            err_set(e, ERR_INTERNAL, "TLS: OpenSSL cannot use %s", k->suite->cipher);
    }
    OPENSSL_cleanse(key, sizeof key);
    EVP_CIPHER_free(cipher);
    k->seq = 0;
    return r;
}

int record_key_init(struct record_key *k, unsigned suite, const uint8_t *secret, size_t len,
    bool seals, struct err *e)
{
    *k = (struct record_key){ .seals = seals };
    for (size_t i = 0; i < sizeof suites / sizeof suites[0]; i++)
        if (suites[i].id == suite)
            k->suite = &suites[i];
    if (k->suite == NULL || len != k->suite->secret_len)
        return err_set(e, ERR_INTERNAL, "TLS: no keys for cipher suite %04x", suite);
    memcpy(k->secret, secret, len);
    k->ctx = EVP_CIPHER_CTX_new();
    if (k->ctx == NULL)
        return err_set(e, ERR_MEMORY, "TLS: out of memory");
    return load(k, e);
}

int record_key_next(struct record_key *k, struct err *e)
{
    uint8_t next[RECORD_SECRET_MAX];
    int r = expand_label(k, "traffic upd", next, k->suite->secret_len, e);

    if (r == 0) {
        memcpy(k->secret, next, k->suite->secret_len);
        r = load(k, e);
    }
    OPENSSL_cleanse(next, sizeof next);
    return r;
}

void record_key_wipe(struct record_key *k)
{
    EVP_CIPHER_CTX_free(k->ctx); /* which wipes the key's schedule */
    OPENSSL_cleanse(k, sizeof *k);
}

/* --- one record --- */

static void put_header(uint8_t *out, size_t body_len)
{
    out[0] = RECORD_DATA;
    out[1] = 3;
    out[2] = 3;
    out[3] = (uint8_t)(body_len >> 8);
    out[4] = (uint8_t)body_len;
}

/* The cipher is ready for the next record, and knows its header. */
static bool begin(struct record_key *k, const uint8_t *head)
{
    uint8_t nonce[12];
    int n;

    memcpy(nonce, k->iv, sizeof nonce);
    for (unsigned i = 0; i < 8; i++)
        nonce[11 - i] ^= (uint8_t)(k->seq >> (8 * i));
    k->seq++;
    return EVP_CipherInit_ex2(k->ctx, NULL, NULL, nonce, k->seals, NULL) == 1 &&
           EVP_CipherUpdate(k->ctx, NULL, &n, head, RECORD_HEADER) == 1;
}

size_t record_seal(
    struct record_key *k, uint8_t type, struct cursor *from, size_t len, uint8_t *out)
{
    uint8_t *p = out + RECORD_HEADER;
    int n;

    put_header(out, len + 1 + RECORD_TAG);
    if (!begin(k, out))
        return 0;
    for (size_t left = len, part; left > 0; left -= part, p += part) {
        const uint8_t *piece = cursor_take(from, left, &part);

        if (EVP_CipherUpdate(k->ctx, p, &n, piece, (int)part) != 1)
            return 0;
    }
    if (EVP_CipherUpdate(k->ctx, p, &n, &type, 1) != 1 ||
        EVP_CipherFinal_ex(k->ctx, p + 1, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(k->ctx, EVP_CTRL_AEAD_GET_TAG, RECORD_TAG, p + 1) != 1)
        return 0;
    return len + RECORD_EXTRA;
}

static int fault(struct record_fault *f, int alert, const char *why)
{
    f->alert = alert;
    f->why = why;
    return -1;
}

int record_body_len(const uint8_t head[RECORD_HEADER], struct record_fault *f)
{
    int len = head[3] << 8 | head[4];

    if (head[0] != RECORD_DATA)
        return fault(f, SSL_AD_UNEXPECTED_MESSAGE, "sent a record without protection");
    if (len > (int)BODY_MAX)
        return fault(f, SSL_AD_RECORD_OVERFLOW, "sent a record that is too long");
    if (len < (int)RECORD_TAG + 1)
        return fault(f, SSL_AD_DECODE_ERROR, "sent a record that is too short");
    return len;
}

size_t record_room(size_t body_len)
{
    return body_len - RECORD_TAG - 1;
}

/* Padded: the type is the last byte that is not zero. */
static ssize_t find_type(struct cursor to, size_t len, uint8_t *type)
{
    ssize_t at = -1;

    for (size_t done = 0, part; done < len; done += part) {
        const uint8_t *piece = cursor_take(&to, len - done, &part);

        for (size_t i = part; i > 0; i--)
            if (piece[i - 1] != 0) {
                at = (ssize_t)(done + i - 1);
                *type = piece[i - 1];
                break;
            }
    }
    return at;
}

ssize_t record_open(struct record_key *k, const uint8_t *rec, size_t body_len, struct cursor to,
    uint8_t *type, struct record_fault *f)
{
    const uint8_t *p = rec + RECORD_HEADER;
    size_t room = record_room(body_len);
    struct cursor start = to;
    ssize_t len = (ssize_t)room;
    bool ok = begin(k, rec);
    uint8_t none[1];
    int n;

    for (size_t left = room, part; left > 0 && ok; left -= part, p += part) {
        uint8_t *piece = cursor_take(&to, left, &part);

        ok = EVP_CipherUpdate(k->ctx, piece, &n, p, (int)part) == 1;
    }
    if (!ok || EVP_CipherUpdate(k->ctx, type, &n, p, 1) != 1 ||
        EVP_CIPHER_CTX_ctrl(k->ctx, EVP_CTRL_AEAD_SET_TAG, RECORD_TAG, (void *)(p + 1)) != 1 ||
        EVP_CipherFinal_ex(k->ctx, none, &n) != 1)
        return fault(f, SSL_AD_BAD_RECORD_MAC, "sent a record that is damaged or forged");
    if (*type == 0)
        len = find_type(start, room, type);
    if (len < 0)
        return fault(f, SSL_AD_UNEXPECTED_MESSAGE, "sent a record of nothing but padding");
    return len;
}
