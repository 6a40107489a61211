/* digest.c: SHA-256, HMAC-SHA-256 and random bytes, by OpenSSL's EVP.
 * The journal stands below the modules and so cannot ask modules/crypto.c: this is the
 * one host file on OpenSSL. It knows no keys, no formats, no Lua. */
#include <limits.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "digest.h"

bool
lb_sha256(const void *data, size_t len, unsigned char out[LB_SHA256])
{
	unsigned int n = 0;

	if (EVP_Digest(data, len, out, &n, EVP_sha256(), NULL) == 1 && n == LB_SHA256)
		return true;
	memset(out, 0, LB_SHA256);
	return false;
}

bool
lb_hmac_sha256(const void *key, size_t keylen, const void *data, size_t len,
    unsigned char out[LB_SHA256])
{
	unsigned int n = 0;

	if (keylen <= INT_MAX &&
	    HMAC(EVP_sha256(), key, (int)keylen, data, len, out, &n) != NULL &&
	    n == LB_SHA256)
		return true;
	memset(out, 0, LB_SHA256);
	return false;
}

bool
lb_random(void *out, size_t len)
{
	if (len <= INT_MAX && RAND_bytes(out, (int)len) == 1)
		return true;
	memset(out, 0, len);
	return false;
}

void
lb_hex(const void *data, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = digits[p[i] >> 4];
		out[2 * i + 1] = digits[p[i] & 15];
	}
	out[2 * len] = '\0';
}

static int
nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool
lb_unhex(const char *hex, size_t len, unsigned char *out)
{
	if (strlen(hex) != 2 * len)
		return false;
	for (size_t i = 0; i < len; i++) {
		int hi = nibble(hex[2 * i]), lo = nibble(hex[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return false;
		out[i] = (unsigned char)(hi << 4 | lo);
	}
	return true;
}
