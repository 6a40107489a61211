/* crypto_text.c: the text forms of bytes: base64, Bech32 (BIP 173) of 32-byte keys, and
 * the ASCII armor of age files. No cryptography, no Lua. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "crypto.h"

#define COLUMNS 64

static const char armor_begin[] = "-----BEGIN AGE ENCRYPTED FILE-----";
static const char armor_end[] = "-----END AGE ENCRYPTED FILE-----";

/* Base64 */

static const char base64_std[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base64_url[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

size_t
text_encode(const void *bytes, size_t len, bool url, bool pad, char *out)
{
	const char *alphabet = url ? base64_url : base64_std;
	const unsigned char *in = bytes;
	size_t n = 0;

	for (size_t i = 0; i < len; i += 3) {
		size_t left = len - i < 3 ? len - i : 3;
		unsigned v = (unsigned)in[i] << 16;

		if (left > 1)
			v |= (unsigned)in[i + 1] << 8;
		if (left > 2)
			v |= in[i + 2];
		for (size_t k = 0; k <= left; k++)
			out[n++] = alphabet[v >> (18 - 6 * k) & 63];
		for (size_t k = left; pad && k < 3; k++)
			out[n++] = '=';
	}
	return n;
}

long
text_decode(const char *in, size_t len, bool url, void *out, size_t room)
{
	const char *alphabet = url ? base64_url : base64_std;
	unsigned char *to = out;
	unsigned v = 0, bits = 0;
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		const char *at = in[i] != '\0' ? strchr(alphabet, in[i]) : NULL;

		if (at == NULL)
			return -1;
		v = (v << 6 | (unsigned)(at - alphabet)) & 0xffffff;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			if (n == room)
				return -1;
			to[n++] = (unsigned char)(v >> bits);
		}
	}
	return bits == 6 || (v & ((1U << bits) - 1)) != 0 ? -1 : (long)n;
}

/* Bech32 */

static const char bech32[] = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

static uint32_t
bech32_step(uint32_t sum, unsigned value)
{
	static const uint32_t generator[] = { 0x3b6a57b2, 0x26508e6d, 0x1ea119fa,
		0x3d4233dd, 0x2a1462b3 };
	uint32_t top = sum >> 25;

	sum = (sum & 0x1ffffff) << 5 ^ value;
	for (int i = 0; i < 5; i++) {
		if ((top >> i & 1) != 0)
			sum ^= generator[i];
	}
	return sum;
}

static uint32_t
bech32_prefix(const char *prefix)
{
	uint32_t sum = 1;

	for (const char *p = prefix; *p != '\0'; p++)
		sum = bech32_step(sum, (unsigned char)*p >> 5);
	sum = bech32_step(sum, 0);
	for (const char *p = prefix; *p != '\0'; p++)
		sum = bech32_step(sum, *p & 31);
	return sum;
}

/* PREFIX 1 DATA CHECKSUM for 32 bytes, in lower case: room for 128. */
void
text_bech32(const char *prefix, const unsigned char *key, char out[128])
{
	uint32_t sum = bech32_prefix(prefix);
	size_t n = (size_t)sprintf(out, "%s1", prefix);
	unsigned v = 0, bits = 0;

	for (int i = 0; i < KEY; i++) {
		v = (v << 8 | key[i]) & 0xfff;
		for (bits += 8; bits >= 5; sum = bech32_step(sum, v >> bits & 31)) {
			bits -= 5;
			out[n++] = bech32[v >> bits & 31];
		}
	}
	sum = bech32_step(sum, v << (5 - bits) & 31);
	out[n++] = bech32[v << (5 - bits) & 31];
	for (int i = 0; i < 6; i++)
		sum = bech32_step(sum, 0);
	sum ^= 1;
	for (int i = 0; i < 6; i++)
		out[n++] = bech32[sum >> (25 - 5 * i) & 31];
	out[n] = '\0';
}

/* All upper or all lower case; false: not 32 bytes under this prefix. */
bool
text_unbech32(const char *prefix, const char *text, size_t len, unsigned char *key)
{
	size_t head = strlen(prefix) + 1, n = 0;
	uint32_t sum = bech32_prefix(prefix);
	unsigned v = 0, bits = 0;
	bool upper = false, lower = false;

	if (len != head + (KEY * 8 + 4) / 5 + 6)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		const char *at;

		upper = upper || (c >= 'A' && c <= 'Z');
		lower = lower || (c >= 'a' && c <= 'z');
		if (c >= 'A' && c <= 'Z')
			c |= 0x20;
		if (i < head) {
			if (c != (i + 1 < head ? prefix[i] : '1'))
				return false;
			continue;
		}
		at = c != '\0' ? strchr(bech32, c) : NULL;
		if (at == NULL)
			return false;
		sum = bech32_step(sum, (unsigned)(at - bech32));
		if (i >= len - 6)
			continue;
		v = (v << 5 | (unsigned)(at - bech32)) & 0xfff;
		bits += 5;
		if (bits >= 8) {
			bits -= 8;
			key[n++] = (unsigned char)(v >> bits);
		}
	}
	return sum == 1 && !(upper && lower) && n == KEY && (v & ((1U << bits) - 1)) == 0;
}

/* Armor */

bool
text_armor(const char *bytes, size_t len, struct lb_buf *out)
{
	static const size_t step = COLUMNS / 4 * 3;
	char line[COLUMNS + 1];
	bool ok = lb_buf_add(out, armor_begin, sizeof(armor_begin) - 1) &&
	    lb_buf_add(out, "\n", 1);

	for (size_t i = 0; ok && i < len; i += step) {
		size_t left = len - i < step ? len - i : step;
		size_t n = text_encode(bytes + i, left, false, true, line);

		line[n++] = '\n';
		ok = lb_buf_add(out, line, n);
	}
	return ok && lb_buf_add(out, armor_end, sizeof(armor_end) - 1) &&
	    lb_buf_add(out, "\n", 1);
}

bool
text_is_armor(const char *text, size_t len)
{
	return len >= sizeof(armor_begin) - 1 &&
	    memcmp(text, armor_begin, sizeof(armor_begin) - 1) == 0;
}

/* One line of the data. A line that is not full must be the last one. */
static const char *
armor_line(const char *s, size_t len, bool *last, struct lb_buf *out)
{
	unsigned char raw[COLUMNS];
	size_t bare = len;
	long n;

	while (bare > 0 && len - bare < 2 && s[bare - 1] == '=')
		bare--;
	n = len > COLUMNS || len % 4 != 0 ? -1 :
	    text_decode(s, bare, false, raw, sizeof(raw));
	if (n <= 0 || *last)
		return "the armor is malformed";
	*last = len < COLUMNS || bare < len;
	return lb_buf_add(out, raw, (size_t)n) ? NULL : "out of memory";
}

/* The length of the line at s without its end; *next is behind it. */
static size_t
line_at(const char *s, const char *end, const char **next)
{
	const char *eol = memchr(s, '\n', (size_t)(end - s));
	size_t len = (size_t)((eol != NULL ? eol : end) - s);

	*next = eol != NULL ? eol + 1 : end;
	return len > 0 && s[len - 1] == '\r' ? len - 1 : len;
}

const char *
text_unarmor(const char *s, size_t total, struct lb_buf *out)
{
	const char *end = s + total, *next, *why = NULL;
	bool last = false;
	size_t len = line_at(s, end, &next);

	if (len != sizeof(armor_begin) - 1 || memcmp(s, armor_begin, len) != 0)
		return "the armor has no beginning";
	for (s = next; s < end && why == NULL; s = next) {
		len = line_at(s, end, &next);
		if (len == sizeof(armor_end) - 1 && memcmp(s, armor_end, len) == 0) {
			for (s = next; s < end; s++) {
				if (*s != ' ' && *s != '\t' && *s != '\r' && *s != '\n')
					return "something follows the armor";
			}
			return NULL;
		}
		why = armor_line(s, len, &last, out);
	}
	return why != NULL ? why : "the armor has no end";
}

