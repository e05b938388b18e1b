/* SPDX-License-Identifier: ISC */
/* Reading certificates: names, dates, and which host one is valid for. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "transport/internal.h"

static void append(char *out, size_t size, const char *text)
{
    size_t n = strlen(out);

    snprintf(out + n, size - n, "%s%s", n > 0 ? ", " : "", text);
}

/* Any ASN.1 string as printable ASCII; an embedded NUL becomes '?', so it cannot cut a name. */
static void asn1_text(const ASN1_STRING *s, char *out, size_t size)
{
    text_clean(out, size, (const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

void cert_common_name(const X509 *cert, char *out, size_t size)
{
    const X509_NAME *name = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);

    out[0] = '\0';
    if (at >= 0)
        asn1_text(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)), out, size);
}

void cert_name_text(const X509_NAME *name, char *out, size_t size)
{
    BIO *b = BIO_new(BIO_s_mem());
    char *text;
    long n;

    out[0] = '\0';
    if (b == NULL)
        return;
    if (X509_NAME_print_ex(b, name, 0, XN_FLAG_RFC2253) >= 0) {
        n = BIO_get_mem_data(b, &text);
        if (n > 0)
            text_clean(out, size, text, (size_t)n);
    }
    BIO_free(b);
}

/* "" if it is neither a host name nor an address. */
static void general_name_text(const GENERAL_NAME *g, char *out, size_t size)
{
    out[0] = '\0';
    if (g->type == GEN_DNS)
        asn1_text(g->d.dNSName, out, size);
    else if (g->type == GEN_IPADD && g->d.iPAddress->length == 4)
        inet_ntop(AF_INET, g->d.iPAddress->data, out, (socklen_t)size);
    else if (g->type == GEN_IPADD && g->d.iPAddress->length == 16)
        inet_ntop(AF_INET6, g->d.iPAddress->data, out, (socklen_t)size);
}

void cert_alt_names(const X509 *cert, char *out, size_t size)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    char text[TR_NAME_LEN];

    out[0] = '\0';
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        general_name_text(sk_GENERAL_NAME_value(names, i), text, sizeof text);
        if (text[0] != '\0')
            append(out, size, text);
    }
    GENERAL_NAMES_free(names);
}

bool cert_alt_name(const X509 *cert, unsigned number, char *out, size_t size)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    bool has = names != NULL && number < (unsigned)sk_GENERAL_NAME_num(names);

    if (has)
        general_name_text(sk_GENERAL_NAME_value(names, (int)number), out, size);
    GENERAL_NAMES_free(names);
    return has;
}

/* The host part as certificates have it: no brackets, no %scope, no final dot. */
static void plain_host(const char *name, char out[TR_NAME_LEN])
{
    size_t n;

    if (name[0] == '[')
        name++;
    snprintf(out, TR_NAME_LEN, "%s", name);
    out[strcspn(out, "]%")] = '\0';
    n = strlen(out);
    if (n > 1 && out[n - 1] == '.')
        out[n - 1] = '\0';
}

bool cert_has_name(X509 *cert, const char *name)
{
    char host[TR_NAME_LEN];
    unsigned char address[16];
    char *dot;

    plain_host(name, host);
    if (host[0] == '\0')
        return false;
    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
        return X509_check_ip_asc(cert, host, 0) == 1;
    if (X509_check_host(cert, host, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1)
        return true;
    dot = strchr(host, '.');
    if (dot == NULL || dot == host)
        return false;
    *dot = '\0';
    return X509_check_host(cert, host, 0, X509_CHECK_FLAG_NO_WILDCARDS, NULL) == 1;
}

time_t cert_time(const ASN1_TIME *t)
{
    struct tm tm;

    if (ASN1_TIME_to_tm(t, &tm) != 1)
        return 0;
    return timegm(&tm);
}

void cert_date(time_t t, char out[32])
{
    struct tm tm;

    gmtime_r(&t, &tm);
    strftime(out, 32, "%Y-%m-%d %H:%M:%S UTC", &tm);
}

X509 *cert_load(const char *path, struct err *e)
{
    FILE *f = fopen(path, "re");
    X509 *cert;
    char why[200];

    if (f == NULL) {
        err_sys(e, "certificate %s", path);
        return NULL;
    }
    cert = PEM_read_X509(f, NULL, NULL, NULL);
    fclose(f);
    if (cert == NULL)
        err_set(e, ERR_INVALID, "certificate %s: not a certificate in PEM form (%s)", path,
            tls_queue_text(why, sizeof why));
    return cert;
}
