/* SPDX-License-Identifier: ISC */
/*
 * OpenSSL's headers, for transport/, cluster/ and their tests. OpenSSL has a type named ERR_STATE,
 * which we never use and which is an error code of base/err.h here: it is renamed while
 * its headers are read. Include this, never <openssl/...>.
 */
#ifndef TRANSPORT_OPENSSL_H
#define TRANSPORT_OPENSSL_H

#define ERR_STATE OPENSSL_ERR_STATE
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#undef ERR_STATE

#endif
