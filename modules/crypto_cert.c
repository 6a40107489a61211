/* crypto_cert.c: X.509 certificates, RSA key pairs and PKCS#12 files.
 * It issues nothing but self-signed certificates and checks no chain. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include "crypto.h"

#define BOX "lb.crypto.cert"
#define PEM_MAX (1 << 20)
#define CHAIN_MAX 16
#define NAMES_MAX 200

/* OpenSSL's objects in one box, so that a Lua error leaks none. */
struct cert {
	X509 *x509;
	EVP_PKEY *key;
	STACK_OF(X509) *chain;
	PKCS12 *p12;
	BIO *bio;
	GENERAL_NAMES *names;
	struct lb_buf password; /* with a NUL behind it */
};

/* An RSA key in the making. */
struct rsa {
	struct job job;
	int bits;
	EVP_PKEY *key;
};

static int
cert_gc(lua_State *L)
{
	struct cert *c = luaL_checkudata(L, 1, BOX);

	X509_free(c->x509);
	EVP_PKEY_free(c->key);
	sk_X509_pop_free(c->chain, X509_free);
	PKCS12_free(c->p12);
	BIO_free(c->bio);
	GENERAL_NAMES_free(c->names);
	lb_buf_free(&c->password);
	*c = (struct cert) { .x509 = NULL };
	return 0;
}

static struct cert *
cert_new(lua_State *L)
{
	struct cert *c = lua_newuserdatauv(L, sizeof(*c), 0);

	*c = (struct cert) { .x509 = NULL };
	luaL_setmetatable(L, BOX);
	return c;
}

/* The string or secret at idx as a C string. */
static const char *
copy_password(lua_State *L, struct cert *c, int idx)
{
	size_t len;
	const char *s = lb_bytes(L, idx, &len);

	luaL_argcheck(L, memchr(s, '\0', len) == NULL, idx, "a NUL byte in a password");
	if (!lb_buf_add(&c->password, s, len) || !lb_buf_add(&c->password, "", 1))
		luaL_error(L, "not enough memory");
	return c->password.data;
}

/* OpenSSL's last reason, for messages; its queue is emptied. */
static const char *
reason(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_last_error());

	ERR_clear_error();
	return text != NULL ? text : "no reason given";
}

static int
fail(lua_State *L, const char *op, const char *code, const char *what)
{
	if (ERR_peek_last_error() == 0)
		return lb_fail(L, MODULE, op, code, "%s", what);
	return lb_fail(L, MODULE, op, code, "%s (%s)", what, reason());
}

/* Where a passphrase is asked for there is none: never ask the terminal. */
static int
no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf, (void)size, (void)rwflag, (void)arg;
	return 0;
}

static BIO *
memory(struct cert *c, const char *data, size_t len)
{
	BIO_free(c->bio);
	c->bio = len <= PEM_MAX ? BIO_new_mem_buf(data, (int)len) : NULL;
	return c->bio;
}

static bool
read_cert(struct cert *c, const char *pem, size_t len)
{
	if (memory(c, pem, len) == NULL)
		return false;
	c->x509 = PEM_read_bio_X509(c->bio, NULL, no_passphrase, NULL);
	return c->x509 != NULL;
}

static bool
read_key(struct cert *c, const char *pem, size_t len)
{
	if (memory(c, pem, len) == NULL)
		return false;
	c->key = PEM_read_bio_PrivateKey(c->bio, NULL, no_passphrase, NULL);
	return c->key != NULL;
}

/* The certificates of a PEM text, behind the first `skip`. */
static bool
read_chain(struct cert *c, const char *pem, size_t len, int skip)
{
	X509 *x;

	c->chain = sk_X509_new_null();
	if (memory(c, pem, len) == NULL || c->chain == NULL)
		return false;
	while ((x = PEM_read_bio_X509(c->bio, NULL, no_passphrase, NULL)) != NULL) {
		if (skip-- > 0) {
			X509_free(x);
		} else if (sk_X509_num(c->chain) >= CHAIN_MAX ||
		    sk_X509_push(c->chain, x) <= 0) {
			X509_free(x);
			return false;
		}
	}
	ERR_clear_error();
	return true;
}

static bool
start_memory(struct cert *c)
{
	BIO_free(c->bio);
	c->bio = BIO_new(BIO_s_secmem());
	return c->bio != NULL;
}

static void
push_memory(lua_State *L, struct cert *c)
{
	char *data;
	long len = BIO_get_mem_data(c->bio, &data);

	lua_pushlstring(L, len > 0 ? data : "", len > 0 ? (size_t)len : 0);
}

static void
push_memory_secret(lua_State *L, struct cert *c, const char *name)
{
	char *data;
	long len = BIO_get_mem_data(c->bio, &data);

	lb_secret_push(L, name, data, len > 0 ? (size_t)len : 0);
}

static bool
write_key(struct cert *c)
{
	return start_memory(c) &&
	    PEM_write_bio_PKCS8PrivateKey(c->bio, c->key, NULL, NULL, 0, NULL, NULL) == 1;
}

/* Reading certificates */

static bool
epoch(const ASN1_TIME *t, lua_Integer *seconds)
{
	struct tm tm;

	if (ASN1_TIME_to_tm(t, &tm) != 1)
		return false;
	*seconds = (lua_Integer)timegm(&tm);
	return true;
}

static void
push_name(lua_State *L, struct cert *c, const X509_NAME *name)
{
	static const unsigned long form = XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB;

	if (!start_memory(c) || X509_NAME_print_ex(c->bio, name, 0, form) < 0)
		luaL_error(L, "out of memory");
	push_memory(L, c);
}

static void
push_address(lua_State *L, const ASN1_STRING *ip)
{
	char text[INET6_ADDRSTRLEN] = "";
	int len = ASN1_STRING_length(ip);

	inet_ntop(len == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(ip), text,
	    sizeof(text));
	lua_pushstring(L, text);
}

/* The DNS names and addresses it is for; without any, the common name. */
static void
push_names(lua_State *L, struct cert *c)
{
	X509_NAME *subject = X509_get_subject_name(c->x509);
	char common[256];
	lua_Integer n = 0;

	lua_newtable(L);
	c->names = X509_get_ext_d2i(c->x509, NID_subject_alt_name, NULL, NULL);
	for (int i = 0; i < sk_GENERAL_NAME_num(c->names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(c->names, i);

		const ASN1_STRING *s = g->d.ia5;
		int len = g->type == GEN_DNS || g->type == GEN_IPADD ?
		    ASN1_STRING_length(s) : 0;

		if (g->type == GEN_DNS)
			lua_pushlstring(L, (const char *)ASN1_STRING_get0_data(s),
			    (size_t)len);
		else if (len == 4 || len == 16)
			push_address(L, s);
		else
			continue;
		lua_rawseti(L, -2, ++n);
	}
	if (c->names == NULL && X509_NAME_get_text_by_NID(subject, NID_commonName, common,
	    sizeof(common)) > 0) {
		lua_pushstring(L, common);
		lua_rawseti(L, -2, 1);
	}
}

static void
push_digest(lua_State *L, const X509 *x)
{
	unsigned char raw[EVP_MAX_MD_SIZE];
	char hex[2 * EVP_MAX_MD_SIZE + 1];
	unsigned len = 0;

	if (X509_digest(x, EVP_sha256(), raw, &len) != 1)
		luaL_error(L, "SHA-256 failed");
	for (unsigned i = 0; i < len; i++)
		snprintf(hex + (size_t)2 * i, 3, "%02x", raw[i]);
	lua_pushlstring(L, hex, (size_t)2 * len);
}

static void
push_serial(lua_State *L, const X509 *x)
{
	BIGNUM *n = ASN1_INTEGER_to_BN(X509_get0_serialNumber(x), NULL);
	char *hex = n != NULL ? BN_bn2hex(n) : NULL, copy[128];

	/* Freed before Lua is asked for memory, which may jump. */
	snprintf(copy, sizeof(copy), "%s", hex != NULL ? hex : "");
	OPENSSL_free(hex);
	BN_free(n);
	lua_pushstring(L, copy);
}

/* crypto.certificate(pem)
 *  The first certificate of the text. Times are seconds since 1970.
 *  +-> { subject, issuer, names = { DNS names and addresses }, not_before, not_after,
 *        self_signed, serial, sha256, key = "RSA" | "EC" | "ED25519", bits, count }
 *  +-> nil, err   (format)                                                            */
static int
cert_certificate(lua_State *L)
{
	size_t len;
	const char *pem;
	struct cert *c;
	lua_Integer from, to;
	EVP_PKEY *key;

	luaL_checktype(L, 1, LUA_TSTRING);
	lua_settop(L, 1);
	pem = lua_tolstring(L, 1, &len);
	c = cert_new(L);
	if (!read_cert(c, pem, len))
		return fail(L, "certificate", "format",
		    "this is no certificate in PEM form");
	if (!epoch(X509_get0_notBefore(c->x509), &from) ||
	    !epoch(X509_get0_notAfter(c->x509), &to))
		return fail(L, "certificate", "format", "its dates are malformed");
	key = X509_get0_pubkey(c->x509);
	if (key == NULL || !read_chain(c, pem, len, 0))
		return fail(L, "certificate", "format", "its key or chain is malformed");
	lua_createtable(L, 0, 11);
	lua_pushinteger(L, from);
	lua_setfield(L, -2, "not_before");
	lua_pushinteger(L, to);
	lua_setfield(L, -2, "not_after");
	push_name(L, c, X509_get_subject_name(c->x509));
	lua_setfield(L, -2, "subject");
	push_name(L, c, X509_get_issuer_name(c->x509));
	lua_setfield(L, -2, "issuer");
	push_names(L, c);
	lua_setfield(L, -2, "names");
	lua_pushboolean(L, X509_verify(c->x509, key) == 1);
	ERR_clear_error();
	lua_setfield(L, -2, "self_signed");
	push_serial(L, c->x509);
	lua_setfield(L, -2, "serial");
	push_digest(L, c->x509);
	lua_setfield(L, -2, "sha256");
	lua_pushstring(L, EVP_PKEY_get0_type_name(key));
	lua_setfield(L, -2, "key");
	lua_pushinteger(L, EVP_PKEY_get_bits(key));
	lua_setfield(L, -2, "bits");
	lua_pushinteger(L, sk_X509_num(c->chain));
	lua_setfield(L, -2, "count");
	return 1;
}

/* crypto.certificate_matches(pem, key)
 *  Is this the private key (PEM) of the certificate?
 *  +-> true | false
 *  +-> nil, err   (format)                                                            */
static int
cert_matches(lua_State *L)
{
	size_t len, keylen;
	const char *pem, *key;
	struct cert *c;

	luaL_checktype(L, 1, LUA_TSTRING);
	pem = lua_tolstring(L, 1, &len);
	key = lb_bytes(L, 2, &keylen);
	c = cert_new(L);
	if (!read_cert(c, pem, len))
		return fail(L, "certificate_matches", "format",
		    "this is no certificate in PEM form");
	if (!read_key(c, key, keylen))
		return fail(L, "certificate_matches", "format",
		    "this is no private key in PEM form without a passphrase");
	lua_pushboolean(L, X509_check_private_key(c->x509, c->key) == 1);
	ERR_clear_error();
	return 1;
}

/* Making certificates */

static bool
add_name(struct cert *c, const char *name)
{
	GENERAL_NAME *g = GENERAL_NAME_new();
	ASN1_OCTET_STRING *address = a2i_IPADDRESS(name);
	ASN1_IA5STRING *dns = NULL;

	ERR_clear_error();
	if (g != NULL && address != NULL) {
		GENERAL_NAME_set0_value(g, GEN_IPADD, address);
	} else if (g != NULL) {
		dns = ASN1_IA5STRING_new();
		if (dns == NULL || ASN1_STRING_set(dns, name, -1) != 1) {
			ASN1_IA5STRING_free(dns);
			GENERAL_NAME_free(g);
			return false;
		}
		GENERAL_NAME_set0_value(g, GEN_DNS, dns);
	}
	if (g == NULL)
		ASN1_OCTET_STRING_free(address);
	if (g != NULL && sk_GENERAL_NAME_push(c->names, g) > 0)
		return true;
	GENERAL_NAME_free(g);
	return false;
}

/* Host names and addresses; the text goes into no configuration file of OpenSSL's. */
static bool
is_host(const char *s)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "0123456789.-_:*");

	return n > 0 && n <= 253 && s[n] == '\0';
}

static const char *
add_names(lua_State *L, struct cert *c)
{
	const char *first = NULL;
	lua_Integer n;

	c->names = GENERAL_NAMES_new();
	luaL_argcheck(L, lua_getfield(L, 1, "names") == LUA_TTABLE, 1,
	    "names: a list expected");
	n = (lua_Integer)lua_rawlen(L, -1);
	luaL_argcheck(L, n >= 1 && n <= NAMES_MAX, 1, "names: 1 to 200 expected");
	for (lua_Integer i = 1; i <= n; i++) {
		luaL_argcheck(L, lua_rawgeti(L, -1, i) == LUA_TSTRING &&
		    is_host(lua_tostring(L, -1)), 1,
		    "names: host names or addresses expected");
		if (c->names == NULL || !add_name(c, lua_tostring(L, -1)))
			luaL_error(L, "out of memory");
		if (i == 1)
			first = lua_tostring(L, -1);
		lua_pop(L, 1);
	}
	return first;
}

static bool
add_extension(struct cert *c, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;
	bool ok;

	X509V3_set_ctx(&ctx, c->x509, c->x509, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = e != NULL && X509_add_ext(c->x509, e, -1) == 1;
	X509_EXTENSION_free(e);
	return ok;
}

static bool
set_serial(X509 *x)
{
	unsigned char raw[16];
	BIGNUM *n;
	bool ok;

	if (RAND_bytes(raw, sizeof(raw)) != 1)
		return false;
	raw[0] = (unsigned char)((raw[0] & 0x7f) | 0x40);
	n = BN_bin2bn(raw, sizeof(raw), NULL);
	ok = n != NULL && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x)) != NULL;
	BN_free(n);
	return ok;
}

/* A common name holds 64 characters; longer names stand in the extension alone. */
static bool
set_subject(X509 *x, const char *name)
{
	X509_NAME *subject = X509_get_subject_name(x);

	if (strlen(name) <= 64 && X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
	    (const unsigned char *)name, -1, -1, 0) != 1)
		return false;
	return X509_set_issuer_name(x, subject) == 1;
}

static bool
sign(struct cert *c, const char *first, long days)
{
	/* An hour earlier, for clocks that are slow. */
	return (c->x509 = X509_new()) != NULL && X509_set_version(c->x509, 2) == 1 &&
	    set_serial(c->x509) && set_subject(c->x509, first) &&
	    X509_gmtime_adj(X509_getm_notBefore(c->x509), -3600) != NULL &&
	    X509_time_adj_ex(X509_getm_notAfter(c->x509), (int)days, 0, NULL) != NULL &&
	    X509_set_pubkey(c->x509, c->key) == 1 &&
	    X509_add1_ext_i2d(c->x509, NID_subject_alt_name, c->names, 0, 0) == 1 &&
	    add_extension(c, NID_basic_constraints, "critical,CA:FALSE") &&
	    add_extension(c, NID_key_usage, "critical,digitalSignature") &&
	    add_extension(c, NID_ext_key_usage, "serverAuth") &&
	    add_extension(c, NID_subject_key_identifier, "hash") &&
	    X509_sign(c->x509, c->key, EVP_sha256()) > 0;
}

/* crypto.self_signed({ names = { "example.com", "*.example.com", "192.0.2.1" },
 *     days = 365, name = "tls.key" })
 *  With an ECDSA key on P-256. `name` names the secret.
 *  +-> { cert = PEM, key = secret PEM }                                               */
static int
cert_self_signed(lua_State *L)
{
	static const char *const names[] = { "names", "days", "name", NULL };
	const char *first, *name;
	struct cert *c;
	long days;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	lb_opts(L, 1, names);
	name = lb_opt_string(L, 1, "name", "tls.key");
	days = (long)lb_opt_integer(L, 1, "days", 365, 1, 3650);
	c = cert_new(L);
	first = add_names(L, c);
	c->key = EVP_EC_gen("P-256");
	if (c->key == NULL || !sign(c, first, days))
		return luaL_error(L, "no certificate could be made (%s)", reason());
	lua_createtable(L, 0, 2);
	if (!write_key(c))
		return luaL_error(L, "no certificate could be made (%s)", reason());
	push_memory_secret(L, c, name);
	lua_setfield(L, -2, "key");
	if (!start_memory(c) || PEM_write_bio_X509(c->bio, c->x509) != 1)
		return luaL_error(L, "no certificate could be made (%s)", reason());
	push_memory(L, c);
	lua_setfield(L, -2, "cert");
	return 1;
}

/* PKCS#12 */

/* crypto.pkcs12({ cert = PEM, key = PEM or secret, password = secret, chain = PEM,
 *     friendly_name, name = "pkcs12" })
 *  What follows the first certificate in `cert`, and `chain`, goes along.
 *  +-> secret   (the bytes of the file)
 *  +-> nil, err   (format, mismatch)                                                  */
static int
cert_pkcs12(lua_State *L)
{
	static const char *const names[] = { "cert", "key", "password", "chain",
		"friendly_name", "name", NULL };
	size_t len, keylen;
	const char *pem, *key, *password, *chain, *friendly;
	struct cert *c;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	lb_opts(L, 1, names);
	friendly = lb_opt_string(L, 1, "friendly_name", NULL);
	chain = lb_opt_string(L, 1, "chain", NULL);
	c = cert_new(L);
	lua_getfield(L, 1, "cert");
	luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, 1, "cert: PEM text expected");
	pem = lua_tolstring(L, -1, &len);
	lua_getfield(L, 1, "key");
	key = lb_bytes(L, lua_gettop(L), &keylen);
	lua_getfield(L, 1, "password");
	password = copy_password(L, c, lua_gettop(L));
	if (!read_cert(c, pem, len))
		return fail(L, "pkcs12", "format", "cert is no certificate in PEM form");
	if (!read_key(c, key, keylen))
		return fail(L, "pkcs12", "format", "key is no private key in PEM form");
	if (X509_check_private_key(c->x509, c->key) != 1)
		return fail(L, "pkcs12", "mismatch", "the key is not the certificate's");
	if (!(chain != NULL ? read_chain(c, chain, strlen(chain), 0) :
	    read_chain(c, pem, len, 1)))
		return fail(L, "pkcs12", "format",
		    "the chain is no list of certificates");
	c->p12 = PKCS12_create(password, friendly, c->key, c->x509, c->chain, 0, 0, 0, 0,
	    0);
	if (c->p12 == NULL || !start_memory(c) || i2d_PKCS12_bio(c->bio, c->p12) != 1)
		return luaL_error(L, "no PKCS#12 file could be made (%s)", reason());
	push_memory_secret(L, c, lb_opt_string(L, 1, "name", "pkcs12"));
	return 1;
}

/* crypto.pkcs12_open(bytes, password, { name = "pkcs12.key" })
 *  +-> { cert = PEM, key = secret PEM, chain = PEM }
 *  +-> nil, err   (format, password)                                                  */
static int
cert_pkcs12_open(lua_State *L)
{
	static const char *const names[] = { "name", NULL };
	size_t len;
	const char *bytes = lb_bytes(L, 1, &len), *password;
	struct cert *c;

	lb_bytes(L, 2, NULL);
	lua_settop(L, 3);
	lb_opts(L, 3, names);
	c = cert_new(L);
	password = copy_password(L, c, 2);
	if (memory(c, bytes, len) != NULL)
		c->p12 = d2i_PKCS12_bio(c->bio, NULL);
	if (c->p12 == NULL)
		return fail(L, "pkcs12_open", "format", "this is no PKCS#12 file");
	if (PKCS12_verify_mac(c->p12, password, -1) != 1)
		return fail(L, "pkcs12_open", "password", "the password is wrong");
	if (PKCS12_parse(c->p12, password, &c->key, &c->x509, &c->chain) != 1 ||
	    c->key == NULL || c->x509 == NULL)
		return fail(L, "pkcs12_open", "format",
		    "it does not hold a key and its certificate");
	lua_createtable(L, 0, 3);
	if (!write_key(c))
		return luaL_error(L, "the key cannot be written (%s)", reason());
	push_memory_secret(L, c, lb_opt_string(L, 3, "name", "pkcs12.key"));
	lua_setfield(L, -2, "key");
	if (!start_memory(c) || PEM_write_bio_X509(c->bio, c->x509) != 1)
		return luaL_error(L, "the certificate cannot be written (%s)", reason());
	push_memory(L, c);
	lua_setfield(L, -2, "cert");
	if (!start_memory(c))
		return luaL_error(L, "out of memory");
	for (int i = 0; i < sk_X509_num(c->chain); i++) {
		if (PEM_write_bio_X509(c->bio, sk_X509_value(c->chain, i)) != 1)
			return luaL_error(L, "the chain cannot be written (%s)",
			    reason());
	}
	push_memory(L, c);
	lua_setfield(L, -2, "chain");
	return 1;
}

/* RSA key pairs */

static void
rsa_work(struct job *job)
{
	struct rsa *r = (struct rsa *)job;

	r->key = EVP_RSA_gen((unsigned)r->bits);
}

static void
rsa_release(struct job *job)
{
	EVP_PKEY_free(((struct rsa *)job)->key);
}

static int
rsa_done(lua_State *L, int status, lua_KContext ctx)
{
	struct rsa *r = job_result(L, ctx, "rsa_keypair");
	struct cert *c;

	(void)status;
	if (r == NULL)
		return 2;
	c = cert_new(L);
	c->key = r->key;
	r->key = NULL;
	if (c->key == NULL || !write_key(c))
		return luaL_error(L, "no key could be made");
	lua_createtable(L, 0, 2);
	push_memory_secret(L, c, lb_opt_string(L, 1, "name", "rsa.key"));
	lua_setfield(L, -2, "private");
	if (!start_memory(c) || PEM_write_bio_PUBKEY(c->bio, c->key) != 1)
		return luaL_error(L, "no key could be made");
	push_memory(L, c);
	lua_setfield(L, -2, "public");
	return 1;
}

/* crypto.rsa_keypair({ bits = 2048, name = "rsa.key" })
 *  On a worker thread; 2048, 3072 or 4096 bits.
 *  +-> { public = PEM, private = secret PEM (PKCS#8) }
 *  +-> nil, err   (exhausted, interrupted)                                            */
static int
cert_rsa_keypair(lua_State *L)
{
	static const char *const names[] = { "bits", "name", NULL };
	struct rsa *r;
	int bits;

	lua_settop(L, 1);
	lb_opts(L, 1, names);
	bits = (int)lb_opt_integer(L, 1, "bits", 2048, 2048, 4096);
	luaL_argcheck(L, bits % 1024 == 0, 1, "bits: 2048, 3072 or 4096 expected");
	lb_opt_string(L, 1, "name", NULL);
	r = job_new(L, sizeof(*r), rsa_work, rsa_release);
	r->bits = bits;
	return job_run(L, "rsa_keypair", rsa_done);
}

void
cert_functions(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "certificate", cert_certificate },
		{ "certificate_matches", cert_matches },
		{ "self_signed", cert_self_signed },
		{ "pkcs12", cert_pkcs12 },
		{ "pkcs12_open", cert_pkcs12_open },
		{ "rsa_keypair", cert_rsa_keypair },
		{ NULL, NULL },
	};

	if (luaL_newmetatable(L, BOX)) {
		lua_pushcfunction(L, cert_gc);
		lua_setfield(L, -2, "__gc");
	}
	lua_pop(L, 1);
	luaL_setfuncs(L, functions, 0);
}
