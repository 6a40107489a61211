/* digest.h: SHA-256, HMAC-SHA-256 and random bytes for host files that know no Lua. */
#ifndef DIGEST_H
#define DIGEST_H

#include <stdbool.h>
#include <stddef.h>

enum { LB_SHA256 = 32 };

/* false: the library could not do it (out of memory, no entropy); `out` is zeroed. */
bool lb_sha256(const void *data, size_t len, unsigned char out[LB_SHA256]);
bool lb_hmac_sha256(const void *key, size_t keylen, const void *data, size_t len,
    unsigned char out[LB_SHA256]);
bool lb_random(void *out, size_t len);

/* Lower-case hex with a NUL; `out` has room for 2 * len + 1. lb_unhex takes exactly
 * 2 * len digits of either case and nothing after them. */
void lb_hex(const void *data, size_t len, char *out);
bool lb_unhex(const char *hex, size_t len, unsigned char *out);

#endif
