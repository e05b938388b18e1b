/* SPDX-License-Identifier: ISC */
/*
 * pki: a small certificate authority for one cluster, for people without one:
 * `migctl pki init` makes ca.key and ca.crt, `issue` a host's key and certificate
 * (names and addresses as subjectAltName, serverAuth and clientAuth), `renew` the same
 * key with new dates, `show` prints what is there. P-256 keys, files written
 * atomically, keys 0600. Any other CA works as well: only the three PEM files count.
 */
#ifndef PKI_H
#define PKI_H

#include <stddef.h>
#include <time.h>

#include "base/err.h"

struct pki_request {
    const char *name;             /* host name: CN and first subjectAltName */
    const char *const *alt_names; /* further names and addresses, NULL-terminated; may be NULL */
    unsigned days;                /* validity; 0: 825 for hosts, 3650 for the CA */
    long start_offset_s;          /* added to now for notBefore/notAfter; tests make expired ones */
};

/* Files are in folder `dir`: ca.key, ca.crt. Refuses to overwrite (ERR_EXISTS). */
int pki_init(const char *dir, const struct pki_request *rq, struct err *e);
/* Signs with dir's CA and writes OUT/host.key, OUT/host.crt and a copy OUT/ca.crt. */
int pki_issue(const char *dir, const char *out, const struct pki_request *rq, struct err *e);
/* The same for a user of virsh, as libvirt's clients want it: OUT/clientkey.pem, clientcert.pem and
 * cacert.pem. */
int pki_client(const char *dir, const char *out, const struct pki_request *rq, struct err *e);
int pki_renew(const char *dir, const char *out, unsigned days, struct err *e);

struct pki_info {
    char subject[256], issuer[256], names[512], fingerprint[96];
    time_t not_before, not_after;
    bool is_ca;
};
int pki_show(const char *cert_file, struct pki_info *out, struct err *e);

#endif
