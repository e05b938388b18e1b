/* SPDX-License-Identifier: ISC */
/*
 * A small certificate authority: P-256 keys, ECDSA with SHA-256, X.509 v3.
 *
 *   DIR/ca.key   0600   the CA's key; keep it on one host only
 *   DIR/ca.crt   0644   the CA's certificate; every host gets a copy
 *   OUT/host.key 0600   OUT/host.crt 0644   OUT/ca.crt 0644   of one host
 *
 * Validity starts BACKDATE_S early, because the clocks of two hosts differ. Files are
 * replaced whole; the certificate is written after its key, so a reader never sees a
 * certificate without one.
 */
#include "transport/pki.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "transport/internal.h"

#define BACKDATE_S 3600
#define DAY_S 86400L
#define HOST_USE "serverAuth,clientAuth"
#define HOST_DAYS 825
#define CA_DAYS 3650
#define DAYS_MAX 36500
#define ALT_NAMES_MAX 64
#define PATH_LEN 1024

static int ossl(struct err *e, const char *what)
{
    char why[200];

    return err_set(e, ERR_INTERNAL, "%s: OpenSSL: %s", what, tls_queue_text(why, sizeof why));
}

static int path_in(char out[PATH_LEN], const char *dir, const char *file, struct err *e)
{
    if (snprintf(out, PATH_LEN, "%s/%s", dir, file) >= PATH_LEN)
        return err_set(e, ERR_INVALID, "%.64s...: path is too long", dir);
    return 0;
}

/* --- files --- */

static int write_bio(const char *path, BIO *b, mode_t mode, struct err *e)
{
    char *data;
    long len = BIO_get_mem_data(b, &data);
    mode_t old = umask(mode == 0600 ? 0077 : 0022);
    int r = io_replace_file(path, data, (size_t)len, mode, e);

    umask(old);
    return r;
}

static int write_key(const char *dir, const char *file, EVP_PKEY *key, struct err *e)
{
    char path[PATH_LEN];
    BIO *b = BIO_new(BIO_s_secmem());
    int r = -1;

    if (path_in(path, dir, file, e) == 0) {
        if (b == NULL || PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL) != 1)
            ossl(e, path);
        else
            r = write_bio(path, b, 0600, e);
    }
    BIO_free(b);
    return r;
}

static int write_cert(const char *dir, const char *file, X509 *cert, struct err *e)
{
    char path[PATH_LEN];
    BIO *b = BIO_new(BIO_s_mem());
    int r = -1;

    if (path_in(path, dir, file, e) == 0) {
        if (b == NULL || PEM_write_bio_X509(b, cert) != 1)
            ossl(e, path);
        else
            r = write_bio(path, b, 0644, e);
    }
    BIO_free(b);
    return r;
}

static X509 *read_cert(const char *dir, const char *file, struct err *e)
{
    char path[PATH_LEN];

    return path_in(path, dir, file, e) < 0 ? NULL : cert_load(path, e);
}

static EVP_PKEY *read_key(const char *dir, const char *file, struct err *e)
{
    char path[PATH_LEN], why[200];
    EVP_PKEY *key;
    FILE *f;

    if (path_in(path, dir, file, e) < 0)
        return NULL;
    f = fopen(path, "re");
    if (f == NULL) {
        err_sys(e, "key %s", path);
        return NULL;
    }
    key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    fclose(f);
    if (key == NULL)
        err_set(e, ERR_INVALID, "key %s: not a key in PEM form (%s)", path,
            tls_queue_text(why, sizeof why));
    return key;
}

/* Refuses where one of these exists already: a lost CA key cannot be made again. */
static int must_not_exist(
    const char *dir, const char *const files[], const char *cure, struct err *e)
{
    for (; *files != NULL; files++) {
        char path[PATH_LEN];

        if (path_in(path, dir, *files, e) < 0)
            return -1;
        if (access(path, F_OK) == 0 || errno != ENOENT)
            return err_set(e, ERR_EXISTS, "%s exists already; %s", path, cure);
    }
    return 0;
}

/* --- building certificates --- */

static int set_serial(X509 *cert)
{
    unsigned char raw[16];
    BIGNUM *n;
    int ok;

    if (RAND_bytes(raw, sizeof raw) != 1)
        return -1;
    raw[0] = (raw[0] & 0x7f) | 0x40; /* positive, of constant length */
    n = BN_bin2bn(raw, sizeof raw, NULL);
    ok = n != NULL && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert)) != NULL;
    BN_free(n);
    return ok ? 0 : -1;
}

static int set_dates(X509 *cert, long offset_s, unsigned days)
{
    time_t now = time(NULL) + offset_s;

    return ASN1_TIME_set(X509_getm_notBefore(cert), now - BACKDATE_S) != NULL &&
                   ASN1_TIME_set(X509_getm_notAfter(cert), now + (long)days * DAY_S) != NULL
               ? 0
               : -1;
}

static int add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *x;
    int ok;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    x = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    ok = x != NULL && X509_add_ext(cert, x, -1) == 1;
    X509_EXTENSION_free(x);
    return ok ? 0 : -1;
}

static X509 *new_cert(EVP_PKEY *key, long offset_s, unsigned days)
{
    X509 *cert = X509_new();

    if (cert != NULL && X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) == 0 &&
        set_dates(cert, offset_s, days) == 0 && X509_set_pubkey(cert, key) == 1)
        return cert;
    X509_free(cert);
    return NULL;
}

static int set_common_name(X509 *cert, const char *name)
{
    return X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_UTF8,
               (const unsigned char *)name, -1, -1, 0) == 1
               ? 0
               : -1;
}

static int add_name(GENERAL_NAMES *names, const char *text)
{
    GENERAL_NAME *g = GENERAL_NAME_new();
    unsigned char address[16];
    int len = inet_pton(AF_INET, text, address) == 1    ? 4
              : inet_pton(AF_INET6, text, address) == 1 ? 16
                                                        : 0;
    ASN1_STRING *s = g == NULL ? NULL : len > 0 ? ASN1_OCTET_STRING_new() : ASN1_IA5STRING_new();

    if (s == NULL || ASN1_STRING_set(s, len > 0 ? (const void *)address : text,
                         len > 0 ? len : (int)strlen(text)) != 1) {
        ASN1_STRING_free(s);
        GENERAL_NAME_free(g);
        return -1;
    }
    GENERAL_NAME_set0_value(g, len > 0 ? GEN_IPADD : GEN_DNS, s);
    if (sk_GENERAL_NAME_push(names, g) > 0)
        return 0;
    GENERAL_NAME_free(g);
    return -1;
}

static int add_alt_names(X509 *cert, const struct pki_request *rq)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    int r = names == NULL ? -1 : add_name(names, rq->name);

    for (const char *const *p = rq->alt_names; r == 0 && p != NULL && *p != NULL; p++)
        if (strcmp(*p, rq->name) != 0)
            r = add_name(names, *p);
    if (r == 0 && X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0) != 1)
        r = -1;
    GENERAL_NAMES_free(names);
    return r;
}

/*
 * Extensions but for the names, and the CA's signature. `use`: serverAuth, clientAuth. There is no
 * keyUsage: libvirt's clients refuse one without keyEncipherment, of the server too, and elliptic
 * keys must not have that (RFC 8813).
 */
static int finish(X509 *cert, X509 *ca, EVP_PKEY *ca_key, const char *use)
{
    return X509_set_issuer_name(cert, X509_get_subject_name(ca)) == 1 &&
                   add_extension(cert, ca, NID_basic_constraints, "critical,CA:FALSE") == 0 &&
                   add_extension(cert, ca, NID_ext_key_usage, use) == 0 &&
                   add_extension(cert, ca, NID_subject_key_identifier, "hash") == 0 &&
                   add_extension(cert, ca, NID_authority_key_identifier, "keyid:always") == 0 &&
                   X509_sign(cert, ca_key, EVP_sha256()) > 0
               ? 0
               : -1;
}

static X509 *make_ca(EVP_PKEY *key, const struct pki_request *rq)
{
    X509 *cert = new_cert(key, rq->start_offset_s, rq->days != 0 ? rq->days : CA_DAYS);

    if (cert != NULL && set_common_name(cert, rq->name) == 0 &&
        X509_set_issuer_name(cert, X509_get_subject_name(cert)) == 1 &&
        add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") == 0 &&
        add_extension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") == 0 &&
        add_extension(cert, cert, NID_subject_key_identifier, "hash") == 0 &&
        X509_sign(cert, key, EVP_sha256()) > 0)
        return cert;
    X509_free(cert);
    return NULL;
}

/* --- requests --- */

/* A host name, or an address; 253 characters of letters, digits, '-', '.', '_', ':'. */
static int check_name(const char *name, size_t max, struct err *e)
{
    size_t n = strlen(name);

    if (n == 0 || n > max)
        return err_set(e, ERR_INVALID, "name '%.80s': 1 to %zu characters are allowed", name, max);
    for (const char *p = name; *p != '\0'; p++)
        if (!isascii((unsigned char)*p) ||
            (!isalnum((unsigned char)*p) && strchr("-._:", *p) == NULL))
            return err_set(e, ERR_INVALID,
                "name '%.80s': not a host name or address (letters, digits, - . _ :)", name);
    return 0;
}

static int check_days(unsigned days, struct err *e)
{
    if (days > DAYS_MAX)
        return err_set(e, ERR_INVALID, "validity of %u days; at most %d", days, DAYS_MAX);
    return 0;
}

/* The common name may have 64 characters (X.520); longer names go to alt_names. */
static int check_host_request(const struct pki_request *rq, struct err *e)
{
    unsigned n = 0;

    if (check_name(rq->name, 64, e) < 0 || check_days(rq->days, e) < 0)
        return -1;
    for (const char *const *p = rq->alt_names; p != NULL && *p != NULL; p++) {
        if (++n > ALT_NAMES_MAX)
            return err_set(e, ERR_INVALID, "more than %d names for one certificate", ALT_NAMES_MAX);
        if (check_name(*p, 253, e) < 0)
            return -1;
    }
    return 0;
}

static int check_ca_request(const struct pki_request *rq, struct err *e)
{
    size_t n = strlen(rq->name);

    if (n == 0 || n > 64)
        return err_set(e, ERR_INVALID, "name of a CA has 1 to 64 characters");
    for (const char *p = rq->name; *p != '\0'; p++)
        if (*p < ' ' || *p > '~')
            return err_set(e, ERR_INVALID, "name of a CA has printable ASCII characters only");
    return check_days(rq->days, e);
}

/* --- commands --- */

int pki_init(const char *dir, const struct pki_request *rq, struct err *e)
{
    static const char *const files[] = { "ca.key", "ca.crt", NULL };
    EVP_PKEY *key = NULL;
    X509 *cert = NULL;
    int r;

    if (check_ca_request(rq, e) < 0 || io_make_dirs(dir, 0755, e) < 0 ||
        must_not_exist(dir, files, "it is the cluster's CA; remove it yourself to start anew", e) <
            0)
        return -1;
    key = EVP_EC_gen("P-256");
    if (key != NULL)
        cert = make_ca(key, rq);
    if (cert == NULL)
        r = ossl(e, "CA certificate");
    else if (write_key(dir, "ca.key", key, e) < 0 || write_cert(dir, "ca.crt", cert, e) < 0)
        r = -1;
    else
        r = 0;
    X509_free(cert);
    EVP_PKEY_free(key);
    return r;
}

struct authority {
    X509 *cert;
    EVP_PKEY *key;
};

static void close_authority(struct authority *a)
{
    X509_free(a->cert);
    EVP_PKEY_free(a->key);
}

static int open_authority(const char *dir, struct authority *a, struct err *e)
{
    a->key = NULL;
    a->cert = read_cert(dir, "ca.crt", e);
    if (a->cert != NULL)
        a->key = read_key(dir, "ca.key", e);
    if (a->key != NULL && X509_check_private_key(a->cert, a->key) != 1) {
        ERR_clear_error();
        err_set(e, ERR_INVALID, "%s: ca.key does not belong to ca.crt", dir);
    } else if (a->key != NULL && X509_cmp_current_time(X509_get0_notAfter(a->cert)) < 0) {
        char date[32];

        cert_date(cert_time(X509_get0_notAfter(a->cert)), date);
        err_set(
            e, ERR_REFUSED, "%s/ca.crt expired on %s; make a new CA: migctl pki init", dir, date);
    } else if (a->key != NULL) {
        return 0;
    }
    close_authority(a);
    return -1;
}

static X509 *make_cert(
    const struct authority *a, EVP_PKEY *key, const struct pki_request *rq, const char *use)
{
    X509 *cert = new_cert(key, rq->start_offset_s, rq->days != 0 ? rq->days : HOST_DAYS);

    if (cert != NULL && set_common_name(cert, rq->name) == 0 && add_alt_names(cert, rq) == 0 &&
        finish(cert, a->cert, a->key, use) == 0)
        return cert;
    X509_free(cert);
    return NULL;
}

/* What is written, and for what use. */
struct kind {
    const char *files[4]; /* key, certificate, that of the CA, NULL */
    const char *use, *cure;
};

static int issue(const struct kind *k, const char *dir, const char *out,
    const struct pki_request *rq, struct err *e)
{
    const char *const own[] = { k->files[0], k->files[1], NULL };
    struct authority a;
    EVP_PKEY *key;
    X509 *cert = NULL;
    int r = -1;

    if (check_host_request(rq, e) < 0 || io_make_dirs(out, 0755, e) < 0 ||
        must_not_exist(out, own, k->cure, e) < 0 || open_authority(dir, &a, e) < 0)
        return -1;
    key = EVP_EC_gen("P-256");
    if (key != NULL)
        cert = make_cert(&a, key, rq, k->use);
    if (cert == NULL)
        ossl(e, "certificate");
    else if (write_key(out, k->files[0], key, e) == 0 &&
             write_cert(out, k->files[2], a.cert, e) == 0)
        r = write_cert(out, k->files[1], cert, e);
    X509_free(cert);
    EVP_PKEY_free(key);
    close_authority(&a);
    return r;
}

int pki_issue(const char *dir, const char *out, const struct pki_request *rq, struct err *e)
{
    static const struct kind host = { { "host.key", "host.crt", "ca.crt", NULL }, HOST_USE,
        "renew it with migctl pki renew, or remove it first" };

    return issue(&host, dir, out, rq, e);
}

int pki_client(const char *dir, const char *out, const struct pki_request *rq, struct err *e)
{
    static const struct kind client = { { "clientkey.pem", "clientcert.pem", "cacert.pem", NULL },
        "clientAuth", "remove it first" };

    return issue(&client, dir, out, rq, e);
}

/* The same subject, names and key, with new dates. */
static X509 *make_renewed(const struct authority *a, const X509 *old, unsigned days)
{
    X509 *cert = new_cert(X509_get0_pubkey(old), 0, days != 0 ? days : HOST_DAYS);
    int at = X509_get_ext_by_NID(old, NID_subject_alt_name, -1);

    if (cert != NULL && X509_set_subject_name(cert, X509_get_subject_name(old)) == 1 &&
        (at < 0 || X509_add_ext(cert, X509_get_ext(old, at), -1) == 1) &&
        finish(cert, a->cert, a->key, HOST_USE) == 0)
        return cert;
    X509_free(cert);
    return NULL;
}

int pki_renew(const char *dir, const char *out, unsigned days, struct err *e)
{
    struct authority a;
    X509 *old, *cert;
    int r = -1;

    if (check_days(days, e) < 0 || open_authority(dir, &a, e) < 0)
        return -1;
    old = read_cert(out, "host.crt", e);
    if (old != NULL) {
        cert = make_renewed(&a, old, days);
        if (cert == NULL)
            ossl(e, "host certificate");
        else if (write_cert(out, "ca.crt", a.cert, e) == 0)
            r = write_cert(out, "host.crt", cert, e);
        X509_free(cert);
    }
    X509_free(old);
    close_authority(&a);
    return r;
}

static void print_fingerprint(X509 *cert, char *out, size_t size)
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    size_t at = 0;

    out[0] = '\0';
    if (X509_digest(cert, EVP_sha256(), md, &n) != 1)
        return;
    for (unsigned i = 0; i < n && at + 4 <= size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%02X", i > 0 ? ":" : "", md[i]);
}

int pki_show(const char *cert_file, struct pki_info *out, struct err *e)
{
    X509 *cert = cert_load(cert_file, e);

    if (cert == NULL)
        return -1;
    cert_name_text(X509_get_subject_name(cert), out->subject, sizeof out->subject);
    cert_name_text(X509_get_issuer_name(cert), out->issuer, sizeof out->issuer);
    cert_alt_names(cert, out->names, sizeof out->names);
    print_fingerprint(cert, out->fingerprint, sizeof out->fingerprint);
    out->not_before = cert_time(X509_get0_notBefore(cert));
    out->not_after = cert_time(X509_get0_notAfter(cert));
    out->is_ca = X509_check_ca(cert) == 1;
    X509_free(cert);
    return 0;
}
