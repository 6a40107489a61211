/* crypto_key.c: Ed25519, ChaCha20-Poly1305 and OpenSSH's key formats.
 * It reads no private key files: what makes keys here hands them out once, as secrets. */
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "crypto.h"

#define SEED 32
#define SIGNATURE 64
#define LINE_MAX_SSH 16384
#define BLOB_MAX (3 * LINE_MAX_SSH / 4 + 3)
#define RSA_BITS_MIN 2048

/* Bytes being read or written, in the SSH wire format. */
struct wire {
	unsigned char *data;
	size_t len, cap, pos;
	bool bad;
};

struct public_key {
	char type[64];
	const unsigned char *blob;
	size_t bloblen;
	int bits;
	const char *code, *why;
};

/* Wire format */

static void
put_bytes(struct wire *w, const void *data, size_t len)
{
	if (len > w->cap - w->len) {
		w->bad = true;
		return;
	}
	memcpy(w->data + w->len, data, len);
	w->len += len;
}

static void
put_u32(struct wire *w, uint32_t n)
{
	const unsigned char raw[] = { (unsigned char)(n >> 24), (unsigned char)(n >> 16),
		(unsigned char)(n >> 8), (unsigned char)n };

	put_bytes(w, raw, sizeof(raw));
}

static void
put_string(struct wire *w, const void *data, size_t len)
{
	put_u32(w, (uint32_t)len);
	put_bytes(w, data, len);
}

static const unsigned char *
take_string(struct wire *w, size_t *len)
{
	const unsigned char *p = w->data + w->pos;
	uint32_t n;

	*len = 0;
	if (w->bad || w->len - w->pos < 4) {
		w->bad = true;
		return NULL;
	}
	n = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
	if (n > w->len - w->pos - 4) {
		w->bad = true;
		return NULL;
	}
	w->pos += 4 + (size_t)n;
	*len = n;
	return p + 4;
}

static bool
take_is(struct wire *w, const char *text)
{
	size_t len;
	const unsigned char *s = take_string(w, &len);

	return s != NULL && len == strlen(text) && memcmp(s, text, len) == 0;
}

/* Padded base64, as ssh writes it. -1: it is none. */
static long
decode(const char *in, size_t len, unsigned char *out, size_t room)
{
	if (len == 0 || len % 4 != 0)
		return -1;
	for (int i = 0; i < 2 && in[len - 1] == '='; i++)
		len--;
	return text_decode(in, len, false, out, room);
}

static void
push_fingerprint(lua_State *L, const unsigned char *blob, size_t len)
{
	unsigned char hash[32];
	char out[64];
	size_t n;

	if (EVP_Digest(blob, len, hash, NULL, EVP_sha256(), NULL) != 1)
		luaL_error(L, "SHA-256 failed");
	n = text_encode(hash, sizeof(hash), false, false, out);
	lua_pushliteral(L, "SHA256:");
	lua_pushlstring(L, out, n);
	lua_concat(L, 2);
}

/* Ed25519 */

static bool
public_of(const unsigned char *seed, unsigned char *public)
{
	EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, SEED);
	size_t len = SEED;
	bool ok = key != NULL && EVP_PKEY_get_raw_public_key(key, public, &len) == 1;

	EVP_PKEY_free(key);
	return ok;
}

static const unsigned char *
check_raw(lua_State *L, int idx, size_t want, const char *what)
{
	size_t len;
	const char *s = lb_bytes(L, idx, &len);

	luaL_argcheck(L, len == want, idx, what);
	return (const unsigned char *)s;
}

/* crypto.ed25519_public(seed)
 *  +-> the 32 bytes of the public key                                                 */
static int
key_ed25519_public(lua_State *L)
{
	const unsigned char *seed = check_raw(L, 1, SEED, "a seed of 32 bytes expected");
	unsigned char public[SEED];

	if (!public_of(seed, public))
		return luaL_error(L, "Ed25519 failed");
	lua_pushlstring(L, (const char *)public, sizeof(public));
	return 1;
}

/* crypto.ed25519_sign(seed, message)
 *  +-> the 64 bytes of the signature                                                  */
static int
key_ed25519_sign(lua_State *L)
{
	const unsigned char *seed = check_raw(L, 1, SEED, "a seed of 32 bytes expected");
	unsigned char signature[SIGNATURE];
	size_t len, n = sizeof(signature);
	const char *s = lb_bytes(L, 2, &len);
	EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, SEED);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = key != NULL && ctx != NULL &&
	    EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1 &&
	    EVP_DigestSign(ctx, signature, &n, (const unsigned char *)s, len) == 1;

	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
	if (!ok)
		return luaL_error(L, "Ed25519 failed");
	lua_pushlstring(L, (const char *)signature, n);
	return 1;
}

/* crypto.ed25519_verify(public, message, signature)
 *  +-> true | false                                                                   */
static int
key_ed25519_verify(lua_State *L)
{
	const unsigned char *public = check_raw(L, 1, SEED, "32 bytes expected");
	size_t len, siglen;
	const char *s = lb_bytes(L, 2, &len), *signature = lb_bytes(L, 3, &siglen);
	EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public, SEED);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = key != NULL && ctx != NULL && siglen == SIGNATURE &&
	    EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
	    EVP_DigestVerify(ctx, (const unsigned char *)signature, siglen,
	    (const unsigned char *)s, len) == 1;

	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
	lua_pushboolean(L, ok);
	return 1;
}

/* OpenSSH key pairs */

/* A comment is one line of printable text. */
static bool
is_comment(const char *s)
{
	for (; *s != '\0'; s++) {
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			return false;
	}
	return true;
}

/* The private key as `openssh-key-v1` without a passphrase, before its base64. */
static void
put_private(struct wire *w, const unsigned char *seed, const unsigned char *public,
    const struct wire *blob, const char *comment)
{
	unsigned char inner_data[1024], pair[2 * SEED];
	struct wire inner = { .data = inner_data, .cap = sizeof(inner_data) };
	unsigned char check[4];

	if (RAND_bytes(check, sizeof(check)) != 1)
		inner.bad = true;
	memcpy(pair, seed, SEED);
	memcpy(pair + SEED, public, SEED);
	put_bytes(&inner, check, sizeof(check));
	put_bytes(&inner, check, sizeof(check));
	put_string(&inner, "ssh-ed25519", 11);
	put_string(&inner, public, SEED);
	put_string(&inner, pair, sizeof(pair));
	put_string(&inner, comment, strlen(comment));
	for (unsigned char i = 1; inner.len % 8 != 0; i++)
		put_bytes(&inner, &i, 1);
	put_bytes(w, "openssh-key-v1", 15);
	put_string(w, "none", 4);
	put_string(w, "none", 4);
	put_string(w, "", 0);
	put_u32(w, 1);
	put_string(w, blob->data, blob->len);
	put_string(w, inner.data, inner.len);
	w->bad = w->bad || inner.bad;
	lb_wipe(inner_data, sizeof(inner_data));
	lb_wipe(pair, sizeof(pair));
}

/* Pushes the private key's file as a secret. */
static void
push_private(lua_State *L, const char *name, const struct wire *w)
{
	char base64[4 * 2048 / 3 + 8], file[4096];
	size_t len = text_encode(w->data, w->len, false, true, base64), n;

	n = (size_t)snprintf(file, sizeof(file), "-----BEGIN OPENSSH PRIVATE KEY-----\n");
	for (size_t i = 0; i < len; i += 70)
		n += (size_t)snprintf(file + n, sizeof(file) - n, "%.*s\n",
		    (int)(len - i < 70 ? len - i : 70), base64 + i);
	n += (size_t)snprintf(file + n, sizeof(file) - n,
	    "-----END OPENSSH PRIVATE KEY-----\n");
	lb_secret_push(L, name, file, n);
	lb_wipe(base64, sizeof(base64));
	lb_wipe(file, sizeof(file));
}

/* crypto.ed25519_keypair({ name = "ssh.key", comment = "" })
 *  +-> { public = "ssh-ed25519 AAAA... COMMENT", private = secret (an OpenSSH file),
 *        fingerprint = "SHA256:..." }                                                 */
static int
key_ed25519_keypair(lua_State *L)
{
	static const char *const names[] = { "name", "comment", NULL };
	unsigned char seed[SEED], public[SEED], blob_data[64], file_data[2048];
	struct wire blob = { .data = blob_data, .cap = sizeof(blob_data) };
	struct wire file = { .data = file_data, .cap = sizeof(file_data) };
	const char *name, *comment;
	char line[128];

	lua_settop(L, 1);
	lb_opts(L, 1, names);
	name = lb_opt_string(L, 1, "name", "ssh.key");
	comment = lb_opt_string(L, 1, "comment", "");
	luaL_argcheck(L, strlen(comment) <= 200 && is_comment(comment), 1,
	    "comment: one line of at most 200 bytes expected");
	if (RAND_priv_bytes(seed, sizeof(seed)) != 1 || !public_of(seed, public))
		return luaL_error(L, "no key could be made");
	put_string(&blob, "ssh-ed25519", 11);
	put_string(&blob, public, sizeof(public));
	put_private(&file, seed, public, &blob, comment);
	lb_wipe(seed, sizeof(seed));
	if (blob.bad || file.bad)
		return luaL_error(L, "no key could be made");
	lua_createtable(L, 0, 3);
	push_private(L, name, &file);
	lb_wipe(file_data, sizeof(file_data));
	lua_setfield(L, -2, "private");
	lua_pushliteral(L, "ssh-ed25519 ");
	lua_pushlstring(L, line, text_encode(blob.data, blob.len, false, true, line));
	lua_pushfstring(L, "%s%s", *comment != '\0' ? " " : "", comment);
	lua_concat(L, 3);
	lua_setfield(L, -2, "public");
	push_fingerprint(L, blob.data, blob.len);
	lua_setfield(L, -2, "fingerprint");
	return 1;
}

/* OpenSSH public keys */

static bool
refuse(struct public_key *k, const char *code, const char *why)
{
	k->code = code;
	k->why = why;
	return false;
}

static bool
check_rsa(struct public_key *k, struct wire *w)
{
	size_t elen, nlen;
	const unsigned char *e = take_string(w, &elen), *n = take_string(w, &nlen);
	unsigned top;

	if (w->bad || elen == 0 || nlen < 2 || (e[0] & 0x80) != 0 || (n[0] & 0x80) != 0 ||
	    (n[0] == 0 && (n[1] & 0x80) == 0))
		return refuse(k, "syntax", "the RSA numbers in it are malformed");
	if (n[0] == 0) {
		n++;
		nlen--;
	}
	k->bits = (int)nlen * 8;
	for (top = n[0]; (top & 0x80) == 0; top <<= 1)
		k->bits--;
	if (k->bits < RSA_BITS_MIN)
		return refuse(k, "weak", "an RSA key of fewer than 2048 bits");
	if (elen == 1 && (e[0] == 1 || (e[0] & 1) == 0))
		return refuse(k, "weak", "an RSA key with a useless exponent");
	return true;
}

static bool
check_ecdsa(struct public_key *k, struct wire *w)
{
	static const struct {
		const char *curve;
		size_t point;
		int bits;
	} curves[] = { { "nistp256", 65, 256 }, { "nistp384", 97, 384 },
		{ "nistp521", 133, 521 } };
	size_t len, n;
	const unsigned char *curve = take_string(w, &n), *point = take_string(w, &len);

	for (size_t i = 0; !w->bad && i < sizeof(curves) / sizeof(curves[0]); i++) {
		if (strlen(curves[i].curve) != n ||
		    memcmp(curve, curves[i].curve, n) != 0 ||
		    strstr(k->type, curves[i].curve) == NULL)
			continue;
		k->bits = curves[i].bits;
		if (len == curves[i].point && point[0] == 4)
			return true;
	}
	return refuse(k, "syntax", "the curve or the point in it is malformed");
}

static bool
check_ed25519(struct public_key *k, struct wire *w)
{
	size_t len;

	take_string(w, &len);
	k->bits = 256;
	return len == SEED || refuse(k, "syntax", "it does not hold 32 bytes of key");
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The blob against the type that stands before it. */
static bool
check_blob(struct public_key *k, unsigned char *blob, size_t len)
{
	struct wire w = { .data = blob, .len = len };
	bool security_key = strncmp(k->type, "sk-", 3) == 0, ok;

	k->blob = blob;
	k->bloblen = len;
	if (!take_is(&w, k->type))
		return refuse(k, "syntax",
		    "the type before the key is not the type in it");
	if (strcmp(k->type, "ssh-ed25519") == 0 ||
	    strcmp(k->type, "sk-ssh-ed25519@openssh.com") == 0)
		ok = check_ed25519(k, &w);
	else if (strcmp(k->type, "ssh-rsa") == 0)
		ok = check_rsa(k, &w);
	else
		ok = check_ecdsa(k, &w);
	if (ok && security_key)
		take_string(&w, &len);
	if (ok && (w.bad || w.pos != w.len))
		return refuse(k, "syntax",
		    "it is cut short, or something follows the key in it");
	return ok;
}

static bool
check_type(struct public_key *k, const char *s, size_t len)
{
	static const char *const types[] = { "ssh-ed25519", "ecdsa-sha2-nistp256",
		"ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
		"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
		NULL };

	snprintf(k->type, sizeof(k->type), "%.*s", (int)len, s);
	if (strcmp(k->type, "ssh-dss") == 0)
		return refuse(k, "weak", "ssh-dss keys are no longer accepted by sshd");
	for (const char *const *t = types; *t != NULL; t++) {
		if (len < sizeof(k->type) && strcmp(k->type, *t) == 0)
			return true;
	}
	if (strncmp(k->type, "-----", 5) == 0)
		return refuse(k, "syntax", "this is the file of a key, perhaps the "
		    "private one; the line of the .pub file is wanted");
	return refuse(k, "syntax",
	    "it does not begin with a key type such as ssh-ed25519");
}

/* crypto.ssh_public_key(text)
 *  Checks one line "TYPE BASE64 [COMMENT]": type, lengths and encoding; options before
 *  the type, ssh-dss, RSA below 2048 bits and certificates are refused.
 *  +-> { type, bits, comment, fingerprint = "SHA256:...", line = "TYPE BASE64" }
 *  +-> nil, err   (syntax, weak)                                                      */
static int
key_ssh_public_key(lua_State *L)
{
	unsigned char blob[BLOB_MAX];
	struct public_key k = { .code = NULL };
	size_t len, typelen;
	const char *s, *key, *end, *comment;
	long n;

	luaL_checktype(L, 1, LUA_TSTRING);
	s = lua_tolstring(L, 1, &len);
	while (len > 0 && is_blank(s[len - 1]))
		len--;
	for (; len > 0 && is_blank(*s); len--)
		s++;
	end = s + len;
	if (len > LINE_MAX_SSH)
		return lb_fail(L, MODULE, "ssh_public_key", "syntax", "it is too long");
	for (typelen = 0; typelen < len && !is_blank(s[typelen]); typelen++)
		continue;
	if (!check_type(&k, s, typelen))
		return lb_fail(L, MODULE, "ssh_public_key", k.code, "%s", k.why);
	for (const char *p = s; p < end; p++) {
		if (((unsigned char)*p < ' ' && *p != '\t') || *p == 0x7f)
			return lb_fail(L, MODULE, "ssh_public_key", "syntax",
			    "it must be one line of printable text");
	}
	for (key = s + typelen; key < end && is_blank(*key); key++)
		continue;
	for (comment = key; comment < end && !is_blank(*comment); comment++)
		continue;
	n = decode(key, (size_t)(comment - key), blob, sizeof(blob));
	if (n < 0)
		return lb_fail(L, MODULE, "ssh_public_key", "syntax",
		    "the key after the type is not base64, or cut");
	if (!check_blob(&k, blob, (size_t)n))
		return lb_fail(L, MODULE, "ssh_public_key", k.code, "%s", k.why);
	lua_createtable(L, 0, 5);
	lua_pushstring(L, k.type);
	lua_setfield(L, -2, "type");
	lua_pushinteger(L, k.bits);
	lua_setfield(L, -2, "bits");
	lua_pushfstring(L, "%s ", k.type);
	lua_pushlstring(L, key, (size_t)(comment - key));
	lua_concat(L, 2);
	lua_setfield(L, -2, "line");
	while (comment < end && is_blank(*comment))
		comment++;
	lua_pushlstring(L, comment, (size_t)(end - comment));
	lua_setfield(L, -2, "comment");
	push_fingerprint(L, k.blob, k.bloblen);
	lua_setfield(L, -2, "fingerprint");
	return 1;
}

/* The arguments of seal and unseal: key, nonce, additional data, text. */
static void
check_aead(lua_State *L, const char *args[4], size_t len[4])
{
	for (int i = 0; i < 4; i++)
		args[i] = lb_bytes(L, i + 1, &len[i]);
	luaL_argcheck(L, len[0] == KEY, 1, "32 bytes expected");
	luaL_argcheck(L, len[1] == NONCE, 2, "12 bytes expected");
	luaL_argcheck(L, len[2] <= INT_MAX, 3, "too long");
	luaL_argcheck(L, len[3] <= INT_MAX / 2, 4, "too long");
}

/* crypto.seal(key, nonce, data, text)
 *  ChaCha20-Poly1305 of RFC 8439. A nonce must serve once only under its key.
 *  +-> bytes   (the tag at their end)                                                 */
static int
key_seal(lua_State *L)
{
	const char *args[4];
	size_t len[4];
	unsigned char *out;

	check_aead(L, args, len);
	out = lua_newuserdatauv(L, len[3] + TAG, 0);
	if (!aead_seal((const unsigned char *)args[0], (const unsigned char *)args[1],
	    args[2], len[2], args[3], len[3], out))
		return luaL_error(L, "ChaCha20-Poly1305 failed");
	lua_pushlstring(L, (const char *)out, len[3] + TAG);
	return 1;
}

/* crypto.unseal(key, nonce, data, bytes)
 *  +-> text
 *  +-> nil, err   (corrupt)                                                           */
static int
key_unseal(lua_State *L)
{
	const char *args[4];
	size_t len[4];
	unsigned char *out;
	bool ok;

	check_aead(L, args, len);
	out = lua_newuserdatauv(L, len[3] + 1, 0);
	ok = aead_open((const unsigned char *)args[0], (const unsigned char *)args[1],
	    args[2], len[2], (const unsigned char *)args[3], len[3], out);
	if (ok)
		lua_pushlstring(L, (const char *)out, len[3] - TAG);
	lb_wipe(out, len[3]);
	return ok ? 1 : lb_fail(L, MODULE, "unseal", "corrupt", "the bytes were changed");
}

void
key_functions(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "ed25519_public", key_ed25519_public },
		{ "ed25519_sign", key_ed25519_sign },
		{ "ed25519_verify", key_ed25519_verify },
		{ "ed25519_keypair", key_ed25519_keypair },
		{ "ssh_public_key", key_ssh_public_key },
		{ "seal", key_seal },
		{ "unseal", key_unseal },
		{ NULL, NULL },
	};

	luaL_setfuncs(L, functions, 0);
}
