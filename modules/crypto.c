/* crypto.c: digests, random values and SSH public keys for Lua, on OpenSSL.
 * It stores nothing, and knows no file format but the OpenSSH public key line. */
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "lb.h"

int luaopen_crypto(lua_State *L);

static int
fail(lua_State *L, const char *op, const char *code, const char *text)
{
	return lb_fail(L, "crypto", op, code, "%s", text);
}

static void
push_hex(lua_State *L, const unsigned char *data, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	luaL_Buffer b;
	char *out = luaL_buffinitsize(L, &b, 2 * len);

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = digits[data[i] >> 4];
		out[2 * i + 1] = digits[data[i] & 15];
	}
	luaL_pushresultsize(&b, 2 * len);
}

/* crypto.token(bytes)  a random hexadecimal string, for names and nonces: no secret
 *  +-> string
 *  +-> nil, err   (random)                                                             */
static int
crypto_token(lua_State *L)
{
	unsigned char data[256];
	lua_Integer n = luaL_checkinteger(L, 1);

	luaL_argcheck(L, n >= 1 && n <= (lua_Integer)sizeof data, 1, "1 to 256 bytes");
	if (RAND_bytes(data, (int)n) != 1)
		return fail(L, "token", "random", "the system has no random bytes");
	push_hex(L, data, (size_t)n);
	return 1;
}

/* crypto.sha256(bytes or secret) -> 64 hexadecimal digits                              */
static int
crypto_sha256(lua_State *L)
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned int n;
	size_t len;
	const char *data = lb_bytes(L, 1, &len);

	if (EVP_Digest(data, len, hash, &n, EVP_sha256(), NULL) != 1)
		return luaL_error(L, "SHA-256 failed: out of memory?");
	push_hex(L, hash, n);
	return 1;
}

/* crypto.hmac_sha256(key, bytes) -> 64 hexadecimal digits (RFC 2104)                   */
static int
crypto_hmac_sha256(lua_State *L)
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned int n;
	size_t keylen, len;
	const char *key = lb_bytes(L, 1, &keylen);
	const char *data = lb_bytes(L, 2, &len);

	luaL_argcheck(L, keylen <= 1 << 20, 1, "the key is too long");
	if (HMAC(EVP_sha256(), key, (int)keylen, (const unsigned char *)data, len, hash,
	        &n) == NULL)
		return luaL_error(L, "HMAC failed: out of memory?");
	push_hex(L, hash, n);
	return 1;
}

/* crypto.equal(a, b) -> boolean, in a time that depends on the lengths alone           */
static int
crypto_equal(lua_State *L)
{
	size_t alen, blen;
	const char *a = lb_bytes(L, 1, &alen);
	const char *b = lb_bytes(L, 2, &blen);

	lua_pushboolean(L, alen == blen && CRYPTO_memcmp(a, b, alen) == 0);
	return 1;
}

/* crypto.base64(bytes) -> string (RFC 4648, section 4)                                 */
static int
crypto_base64(lua_State *L)
{
	size_t len;
	const char *data = luaL_checklstring(L, 1, &len);
	luaL_Buffer b;
	char *out;
	int n;

	luaL_argcheck(L, len <= 1 << 28, 1, "too long");
	out = luaL_buffinitsize(L, &b, (len + 2) / 3 * 4 + 1);
	n = EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)data, (int)len);
	luaL_pushresultsize(&b, (size_t)n);
	return 1;
}

/* Strict base64 of one block: no white space, the right padding. -1: it is none. */
static long
unbase64(unsigned char *out, const char *text, size_t len)
{
	size_t pad = 0;
	int n;

	if (len == 0 || len % 4 != 0 || len > 1 << 28)
		return -1;
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '=' && i >= len - 2)
			pad++;
		else if (pad > 0 || memchr(" \t\r\n-=", text[i], 6) != NULL)
			return -1;
	}
	n = EVP_DecodeBlock(out, (const unsigned char *)text, (int)len);
	return n < 0 ? -1 : (long)n - (long)pad;
}

/* crypto.unbase64(text)
 *  +-> string
 *  +-> nil, err   (syntax)                                                             */
static int
crypto_unbase64(lua_State *L)
{
	size_t len;
	const char *text = luaL_checklstring(L, 1, &len);
	luaL_Buffer b;
	long n;

	if (len == 0) {
		lua_pushliteral(L, "");
		return 1;
	}
	n = unbase64((unsigned char *)luaL_buffinitsize(L, &b, len), text, len);
	luaL_pushresultsize(&b, n < 0 ? 0 : (size_t)n);
	if (n < 0)
		return fail(L, "unbase64", "syntax", "this is not base64");
	return 1;
}

/* One length-prefixed string of RFC 4251, section 5. false: the blob is cut short. */
static bool
take(const unsigned char **p, size_t *left, const unsigned char **data, size_t *len)
{
	size_t n;

	if (*left < 4)
		return false;
	n = (size_t)(*p)[0] << 24 | (size_t)(*p)[1] << 16 | (size_t)(*p)[2] << 8 | (*p)[3];
	if (n > *left - 4)
		return false;
	*data = *p + 4;
	*len = n;
	*p += 4 + n;
	*left -= 4 + n;
	return true;
}

/* What is wrong with the key's body, or NULL (RFC 4253 6.6, RFC 5656 3.1, RFC 8709 4). */
static const char *
key_problem(const char *type, const unsigned char *blob, size_t len)
{
	const unsigned char *data;
	size_t n;

	if (!take(&blob, &len, &data, &n) || n != strlen(type) || memcmp(data, type, n) != 0)
		return "its body is not of the type that it names";
	if (strcmp(type, "ssh-ed25519") == 0) {
		if (!take(&blob, &len, &data, &n) || n != 32 || len != 0)
			return "its body is damaged";
	} else if (strcmp(type, "ssh-rsa") == 0) {
		if (!take(&blob, &len, &data, &n) || !take(&blob, &len, &data, &n) || len != 0)
			return "its body is damaged";
		if (n < 257)
			return "an RSA key of fewer than 2048 bits is too weak";
	} else if (!take(&blob, &len, &data, &n) || !take(&blob, &len, &data, &n) || n < 65) {
		return "its body is damaged";
	}
	return NULL;
}

/* crypto.ssh_public_key(line)  one line of OpenSSH's public key format
 *  +-> { type, comment, fingerprint = "SHA256:..." }
 *  +-> nil, err   (syntax, weak)                                                       */
static int
crypto_ssh_public_key(lua_State *L)
{
	static const char *const types[] = { "ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256",
		"ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "sk-ssh-ed25519@openssh.com",
		"sk-ecdsa-sha2-nistp256@openssh.com", NULL };
	size_t len, typelen, bodylen;
	const char *line = luaL_checklstring(L, 1, &len), *body, *rest, *why;
	unsigned char hash[32], *blob;
	char print[48];
	unsigned int n;
	long bloblen;
	int i;

	if (strlen(line) != len || strpbrk(line, "\r\n") != NULL)
		return fail(L, "ssh_public_key", "syntax", "a public key is one line");
	if (strstr(line, "PRIVATE KEY") != NULL)
		return fail(L, "ssh_public_key", "syntax",
		    "this is a private key; give the line of its .pub file");
	typelen = strcspn(line, " ");
	for (i = 0; types[i] != NULL; i++)
		if (strlen(types[i]) == typelen && memcmp(types[i], line, typelen) == 0)
			break;
	if (types[i] == NULL && typelen == 7 && memcmp(line, "ssh-dss", 7) == 0)
		return fail(L, "ssh_public_key", "weak", "DSA keys are refused by every sshd");
	if (types[i] == NULL)
		return fail(L, "ssh_public_key", "syntax", "it does not begin with a key type");
	body = line + typelen + strspn(line + typelen, " ");
	bodylen = strcspn(body, " ");
	rest = body + bodylen + strspn(body + bodylen, " ");
	blob = lua_newuserdatauv(L, bodylen + 4, 0);
	if ((bloblen = unbase64(blob, body, bodylen)) < 0)
		return fail(L, "ssh_public_key", "syntax", "its body is not base64");
	if ((why = key_problem(types[i], blob, (size_t)bloblen)) != NULL)
		return fail(L, "ssh_public_key", strstr(why, "weak") ? "weak" : "syntax", why);
	if (EVP_Digest(blob, (size_t)bloblen, hash, &n, EVP_sha256(), NULL) != 1)
		return luaL_error(L, "SHA-256 failed: out of memory?");
	EVP_EncodeBlock((unsigned char *)print, hash, 32);
	print[43] = '\0'; /* OpenSSH leaves the padding out */
	lua_createtable(L, 0, 3);
	lua_pushstring(L, types[i]);
	lua_setfield(L, -2, "type");
	lua_pushstring(L, rest);
	lua_setfield(L, -2, "comment");
	lua_pushfstring(L, "SHA256:%s", print);
	lua_setfield(L, -2, "fingerprint");
	return 1;
}

int
luaopen_crypto(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "base64", crypto_base64 },
		{ "equal", crypto_equal },
		{ "hmac_sha256", crypto_hmac_sha256 },
		{ "sha256", crypto_sha256 },
		{ "ssh_public_key", crypto_ssh_public_key },
		{ "token", crypto_token },
		{ "unbase64", crypto_unbase64 },
		{ NULL, NULL },
	};

	luaL_newlib(L, functions);
	return 1;
}
