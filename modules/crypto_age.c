/* crypto_age.c: files of the age format, version 1 (C2SP), for X25519 recipients: keys,
 * and the header that carries the file key. The payload is crypto_stream.c's.
 * It knows no passphrases, no plugins and no ssh recipients. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "crypto.h"

#define BOX "lb.crypto.age"
#define RECIPIENT "age"
#define IDENTITY "age-secret-key-"
#define FILE_KEY 16
#define PEOPLE_MAX 64 /* recipients or identities */
#define HEADER_MAX (256 << 10)
#define HKDF_MAX (255 * 32)
#define COLUMNS 64
#define KEY_TEXT 64 /* more than a key in base64 */

static const char version_line[] = "age-encryption.org/v1\n";

/* A header being read or written. */
struct header {
	unsigned char people[PEOPLE_MAX][KEY]; /* recipients, or identities */
	int count;
	struct lb_buf text;
	const char *in; /* what is read */
	size_t inlen, pos;
	unsigned char file_key[FILE_KEY];
	unsigned char payload_key[KEY];
	const char *code, *why;
};

/* Primitives */

static OSSL_PARAM
bytes_param(const char *name, const void *data, size_t len)
{
	return OSSL_PARAM_construct_octet_string(name, (void *)(uintptr_t)data, len);
}

static bool
hkdf(const void *key, size_t keylen, const void *salt, size_t saltlen, const void *info,
    size_t infolen, unsigned char *out, size_t outlen)
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *ctx = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
	OSSL_PARAM params[5], *p = params;
	char digest[] = "SHA256";
	bool ok;

	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
	*p++ = bytes_param(OSSL_KDF_PARAM_KEY, key, keylen);
	*p++ = bytes_param(OSSL_KDF_PARAM_INFO, info, infolen);
	if (saltlen > 0)
		*p++ = bytes_param(OSSL_KDF_PARAM_SALT, salt, saltlen);
	*p = OSSL_PARAM_construct_end();
	ok = ctx != NULL && EVP_KDF_derive(ctx, out, outlen, params) == 1;
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return ok;
}

/* A shared secret of zeros is refused: the peer's point has a small order. */
static bool
x25519(const unsigned char *scalar, const unsigned char *point, unsigned char *out)
{
	static const unsigned char zero[KEY];
	EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, scalar, KEY);
	EVP_PKEY *peer = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, point, KEY);
	EVP_PKEY_CTX *ctx = key != NULL ? EVP_PKEY_CTX_new(key, NULL) : NULL;
	size_t len = KEY;
	bool ok = ctx != NULL && peer != NULL && EVP_PKEY_derive_init(ctx) == 1 &&
	    EVP_PKEY_derive_set_peer(ctx, peer) == 1 &&
	    EVP_PKEY_derive(ctx, out, &len) == 1 && CRYPTO_memcmp(out, zero, KEY) != 0;

	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(peer);
	EVP_PKEY_free(key);
	return ok;
}

static bool
x25519_base(const unsigned char *scalar, unsigned char *out)
{
	static const unsigned char base[KEY] = { 9 };

	return x25519(scalar, base, out);
}

/* Header */

static bool
fail(struct header *j, const char *code, const char *why)
{
	j->code = code;
	j->why = why;
	return false;
}

static bool
wrap_key(const unsigned char *shared, const unsigned char *share,
    const unsigned char *recipient, unsigned char *key)
{
	static const char info[] = "age-encryption.org/v1/X25519";
	unsigned char salt[2 * KEY];

	memcpy(salt, share, KEY);
	memcpy(salt + KEY, recipient, KEY);
	return hkdf(shared, KEY, salt, sizeof(salt), info, sizeof(info) - 1, key, KEY);
}

static bool
header_mac(const unsigned char *file_key, const char *header, size_t len,
    unsigned char *mac)
{
	unsigned char key[KEY];
	bool ok = hkdf(file_key, FILE_KEY, NULL, 0, "header", 6, key, sizeof(key)) &&
	    HMAC(EVP_sha256(), key, sizeof(key), (const unsigned char *)header, len, mac,
	    NULL) != NULL;

	lb_wipe(key, sizeof(key));
	return ok;
}

static bool
payload_key(const unsigned char *file_key, const unsigned char *nonce, unsigned char *key)
{
	return hkdf(file_key, FILE_KEY, nonce, FILE_KEY, "payload", 7, key, KEY);
}

static bool
add_stanza(struct header *j, const unsigned char *recipient, struct lb_buf *header)
{
	static const unsigned char nonce[NONCE];
	unsigned char secret[KEY], share[KEY], shared[KEY], key[KEY];
	unsigned char body[FILE_KEY + TAG];
	char share64[KEY_TEXT], body64[KEY_TEXT];
	bool ok;

	ok = RAND_priv_bytes(secret, sizeof(secret)) == 1 && x25519_base(secret, share) &&
	    x25519(secret, recipient, shared) &&
	    wrap_key(shared, share, recipient, key) &&
	    aead_seal(key, nonce, NULL, 0, j->file_key, FILE_KEY, body);
	lb_wipe(secret, sizeof(secret));
	lb_wipe(shared, sizeof(shared));
	lb_wipe(key, sizeof(key));
	if (!ok)
		return fail(j, "recipient", "nothing can be encrypted to this recipient");
	return (lb_buf_add(header, "-> X25519 ", 10) &&
	    lb_buf_add(header, share64, text_encode(share, KEY, false, false, share64)) &&
	    lb_buf_add(header, "\n", 1) && lb_buf_add(header, body64,
	    text_encode(body, sizeof(body), false, false, body64)) &&
	    lb_buf_add(header, "\n", 1)) || fail(j, "memory", "out of memory");
}

static bool
write_header(struct header *j, struct lb_buf *header)
{
	unsigned char mac[KEY];
	char mac64[KEY_TEXT];

	if (RAND_priv_bytes(j->file_key, FILE_KEY) != 1)
		return fail(j, "random", "the system gives no random bytes");
	if (!lb_buf_add(header, version_line, sizeof(version_line) - 1))
		return fail(j, "memory", "out of memory");
	for (int i = 0; i < j->count; i++) {
		if (!add_stanza(j, j->people[i], header))
			return false;
	}
	if (!lb_buf_add(header, "---", 3) ||
	    !header_mac(j->file_key, header->data, header->len, mac))
		return fail(j, "memory", "out of memory");
	return (lb_buf_add(header, " ", 1) && lb_buf_add(header, mac64,
	    text_encode(mac, sizeof(mac), false, false, mac64)) &&
	    lb_buf_add(header, "\n", 1)) || fail(j, "memory", "out of memory");
}

/* The next line of the header, without its line feed. */
static const char *
read_line(struct header *j, size_t *len)
{
	const char *s = j->in + j->pos;
	size_t left = j->inlen - j->pos;
	const char *eol = left > 0 ? memchr(s, '\n', left) : NULL;

	if (eol == NULL || j->pos > HEADER_MAX) {
		fail(j, "format", "the header has no end");
		return NULL;
	}
	*len = (size_t)(eol - s);
	j->pos += *len + 1;
	return s;
}

/* The arguments of a stanza: words of printable ASCII with one space between. */
static bool
check_arguments(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (s[i] < ' ' || s[i] > '~' ||
		    (s[i] == ' ' && (i == 0 || i + 1 == len || s[i + 1] == ' ')))
			return false;
	}
	return len > 0;
}

/* Tries the identities on an X25519 stanza; 1 found, 0 not for us, -1 malformed. */
static int
open_stanza(struct header *j, const char *args, size_t len, const unsigned char *body,
    size_t bodylen)
{
	static const unsigned char nonce[NONCE];
	unsigned char share[KEY], recipient[KEY], shared[KEY], key[KEY];
	int found = 0;

	if (len < 6 || memcmp(args, "X25519", 6) != 0 || (len > 6 && args[6] != ' '))
		return 0;
	if (len < 7 || memchr(args + 7, ' ', len - 7) != NULL ||
	    text_decode(args + 7, len - 7, false, share, sizeof(share)) != KEY ||
	    bodylen != FILE_KEY + TAG)
		return -1;
	for (int i = 0; found == 0 && i < j->count; i++) {
		if (!x25519_base(j->people[i], recipient) ||
		    !x25519(j->people[i], share, shared)) {
			found = -1;
		} else if (wrap_key(shared, share, recipient, key) &&
		    aead_open(key, nonce, NULL, 0, body, bodylen, j->file_key)) {
			found = 1;
		}
	}
	lb_wipe(shared, sizeof(shared));
	lb_wipe(key, sizeof(key));
	return found;
}

/* The body of a stanza: full lines, then one that is shorter. What is longer than an
 * X25519 stanza's is only counted. */
static bool
read_body(struct header *j, unsigned char *body, size_t *bodylen)
{
	size_t len;

	*bodylen = 0;
	do {
		const char *s = read_line(j, &len);
		unsigned char piece[COLUMNS];
		long n;

		if (s == NULL)
			return false;
		n = len > COLUMNS ? -1 : text_decode(s, len, false, piece, sizeof(piece));
		if (n < 0)
			return fail(j, "format", "a recipient's body is malformed");
		if (*bodylen + (size_t)n <= COLUMNS)
			memcpy(body + *bodylen, piece, (size_t)n);
		*bodylen += (size_t)n;
	} while (len == COLUMNS);
	return true;
}

static bool
read_stanza(struct header *j, const char *s, size_t len, bool *found)
{
	unsigned char body[COLUMNS];
	size_t bodylen;
	int r = 0;

	if (len < 4 || memcmp(s, "-> ", 3) != 0 || !check_arguments(s + 3, len - 3))
		return fail(j, "format", "the header is malformed");
	if (!read_body(j, body, &bodylen))
		return false;
	if (len > 10 && memcmp(s + 3, "scrypt ", 7) == 0)
		return fail(j, "passphrase", "the file is encrypted with a passphrase");
	if (!*found)
		r = open_stanza(j, s + 3, len - 3, body, bodylen);
	if (r < 0)
		return fail(j, "format", "a recipient in the header is malformed");
	*found = *found || r > 0;
	return true;
}

static bool
read_header(struct header *j)
{
	unsigned char mac[KEY], want[KEY];
	const char *s;
	size_t len, stanzas = 0;
	bool found = false;

	if (j->inlen < sizeof(version_line) - 1 ||
	    memcmp(j->in, version_line, sizeof(version_line) - 1) != 0)
		return fail(j, "format", "this is no age file of version 1");
	j->pos = sizeof(version_line) - 1;
	while ((s = read_line(j, &len)) != NULL &&
	    (len < 3 || memcmp(s, "---", 3) != 0)) {
		if (!read_stanza(j, s, len, &found))
			return false;
		stanzas++;
	}
	if (s == NULL)
		return false;
	if (stanzas == 0 || len < 4 || s[3] != ' ' ||
	    text_decode(s + 4, len - 4, false, mac, sizeof(mac)) != KEY)
		return fail(j, "format", "the end of the header is malformed");
	if (!found)
		return fail(j, "no_identity", "none of the identities can open the file");
	if (!header_mac(j->file_key, j->in, (size_t)(s - j->in) + 3, want) ||
	    CRYPTO_memcmp(mac, want, KEY) != 0)
		return fail(j, "corrupt", "the header was changed");
	s = j->in + j->pos;
	if (j->inlen - j->pos < FILE_KEY)
		return fail(j, "corrupt", "the file is cut short");
	if (!payload_key(j->file_key, (const unsigned char *)s, j->payload_key))
		return fail(j, "memory", "out of memory");
	j->pos += FILE_KEY;
	return true;
}

/* The header, the nonce behind it, and the payload's key. */
static bool
new_header(struct header *j)
{
	unsigned char nonce[FILE_KEY];

	if (!write_header(j, &j->text))
		return false;
	if (RAND_bytes(nonce, sizeof(nonce)) != 1 ||
	    !payload_key(j->file_key, nonce, j->payload_key) ||
	    !lb_buf_add(&j->text, nonce, sizeof(nonce)))
		return fail(j, "memory", "out of memory");
	return true;
}

/* What Lua sees */

static int
header_gc(lua_State *L)
{
	struct header *j = luaL_checkudata(L, 1, BOX);

	lb_buf_free(&j->text);
	lb_wipe(j, sizeof(*j));
	return 0;
}

static struct header *
header_push(lua_State *L)
{
	struct header *j = lua_newuserdatauv(L, sizeof(*j), 0);

	memset(j, 0, sizeof(*j));
	luaL_setmetatable(L, BOX);
	return j;
}

static int
failed(lua_State *L, const struct header *j, const char *op)
{
	return lb_fail(L, MODULE, op, j->code, "%s", j->why);
}

/* One line: nothing, a comment, or a key. Identities are in upper case, others not. */
static bool
add_line(struct header *j, const char *s, size_t len, const char *prefix)
{
	bool identity = strcmp(prefix, IDENTITY) == 0;

	while (len > 0 && (s[len - 1] == '\r' || s[len - 1] == ' '))
		len--;
	if (len == 0 || *s == '#')
		return true;
	if (j->count == PEOPLE_MAX)
		return fail(j, "too_many", "more than 64 recipients or identities");
	if ((*s == 'A') == identity &&
	    text_unbech32(prefix, s, len, j->people[j->count])) {
		j->count++;
		return true;
	}
	return identity ? fail(j, "identity", "no age identity (AGE-SECRET-KEY-1...)") :
	    fail(j, "recipient", "no age recipient (age1...)");
}

/* The keys of one text, or of a list of texts, at idx. */
static bool
add_people(lua_State *L, struct header *j, int idx, const char *prefix)
{
	size_t len;
	const char *s, *end, *eol;

	if (lua_istable(L, idx)) {
		for (lua_Integer i = 1; lua_rawgeti(L, idx, i) != LUA_TNIL; i++) {
			luaL_argcheck(L, !lua_istable(L, -1), idx,
			    "a list of texts expected");
			if (!add_people(L, j, lua_gettop(L), prefix))
				return false;
			lua_pop(L, 1);
		}
		lua_pop(L, 1);
		return true;
	}
	s = lb_bytes(L, idx, &len);
	for (end = s + len; s < end; s = eol + 1) {
		eol = memchr(s, '\n', (size_t)(end - s));
		if (eol == NULL)
			eol = end;
		if (!add_line(j, s, (size_t)(eol - s), prefix))
			return false;
	}
	return true;
}

static bool
people(lua_State *L, struct header *j, int idx, const char *prefix)
{
	if (!add_people(L, j, idx, prefix))
		return false;
	if (j->count > 0)
		return true;
	if (strcmp(prefix, IDENTITY) == 0)
		return fail(j, "identity", "no identity was given");
	return fail(j, "recipient", "no recipient was given");
}

/* Pushes the box of a stream with the header's key; what was written goes before it. */
static struct stream *
push_stream(lua_State *L, const struct header *j)
{
	struct stream *s = stream_new(L);

	memcpy(s->key, j->payload_key, KEY);
	if (!lb_buf_add(&s->out, j->text.data, j->text.len))
		luaL_error(L, "not enough memory");
	return s;
}

/* What went wrong in a stream, or 0. */
static int
stream_failed(lua_State *L, const struct stream *s, const char *op)
{
	if (s->error != 0)
		return lb_fail_errno(L, MODULE, op, s->error);
	if (s->code != NULL)
		return lb_fail(L, MODULE, op, s->code, "%s", s->why);
	return 0;
}

static int
encrypted(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *s = job_result(L, ctx, "age_encrypt");
	struct lb_buf armor = { 0 };
	int n;

	(void)status;
	if (s == NULL)
		return 2;
	n = stream_failed(L, s, "age_encrypt");
	if (n != 0)
		return n;
	if (lb_opt_boolean(L, 3, "armor", false)) {
		if (!text_armor(s->out.data, s->out.len, &armor)) {
			lb_buf_free(&armor);
			return luaL_error(L, "not enough memory");
		}
		lb_buf_free(&s->out);
		s->out = armor;
	}
	lua_pushlstring(L, s->out.data, s->out.len);
	return 1;
}

/* crypto.age_encrypt(bytes, recipients, { armor = false })
 *  recipients: "age1..." or a list of them, 64 at most. More than 1 MiB is encrypted on a
 *  worker thread.
 *  +-> bytes
 *  +-> nil, err   (recipient, too_many, exhausted, interrupted)                       */
static int
age_encrypt(lua_State *L)
{
	static const char *const names[] = { "armor", NULL };
	size_t len;
	const char *bytes = lb_bytes(L, 1, &len);
	struct header *j;
	struct stream *s;

	lua_settop(L, 3);
	lb_opts(L, 3, names);
	lb_opt_boolean(L, 3, "armor", false);
	j = header_push(L);
	if (!people(L, j, 2, RECIPIENT) || !new_header(j))
		return failed(L, j, "age_encrypt");
	s = push_stream(L, j);
	if (!lb_buf_add(&s->in, bytes, len))
		return luaL_error(L, "not enough memory");
	return stream_start(L, s, encrypted, "age_encrypt");
}

static int
decrypted(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *s = job_result(L, ctx, "age_decrypt");
	const char *name;
	int n;

	(void)status;
	if (s == NULL)
		return 2;
	n = stream_failed(L, s, "age_decrypt");
	if (n != 0)
		return n;
	name = lb_opt_string(L, 3, "name", NULL);
	if (name == NULL)
		lua_pushlstring(L, s->out.len > 0 ? s->out.data : "", s->out.len);
	else if (s->out.len < 8)
		return lb_fail(L, MODULE, "age_decrypt", "short",
		    "what it holds is too short for a secret");
	else
		lb_secret_push(L, name, s->out.data, s->out.len);
	return 1;
}

/* crypto.age_decrypt(bytes, identities, { name })
 *  identities: the text of an identity file (string or secret), or a list of them. With a
 *  name what was decrypted is a secret. Armored text is read too.
 *  +-> bytes | secret
 *  +-> nil, err   (format, identity, no_identity, passphrase, corrupt, short, too_many,
 *                  exhausted, interrupted)                                            */
static int
age_decrypt(lua_State *L)
{
	static const char *const names[] = { "name", NULL };
	struct header *j;
	struct stream *s;
	const char *bytes, *why;
	size_t len;

	luaL_checktype(L, 1, LUA_TSTRING);
	lua_settop(L, 3);
	lb_opts(L, 3, names);
	lb_opt_string(L, 3, "name", NULL);
	bytes = lua_tolstring(L, 1, &len);
	j = header_push(L);
	s = stream_new(L);
	why = text_is_armor(bytes, len) ? text_unarmor(bytes, len, &s->in) : NULL;
	if (why != NULL)
		return lb_fail(L, MODULE, "age_decrypt", "format", "%s", why);
	if (!text_is_armor(bytes, len) && !lb_buf_add(&s->in, bytes, len))
		return luaL_error(L, "not enough memory");
	j->in = s->in.data;
	j->inlen = s->in.len;
	if (!people(L, j, 2, IDENTITY) || !read_header(j))
		return failed(L, j, "age_decrypt");
	memcpy(s->key, j->payload_key, KEY);
	s->decrypt = true;
	s->pos = j->pos;
	lua_settop(L, 5);
	return stream_start(L, s, decrypted, "age_decrypt");
}

static char *
copy_path(lua_State *L, int idx)
{
	char *copy = strdup(lua_tostring(L, idx));

	if (copy == NULL)
		luaL_error(L, "not enough memory");
	return copy;
}

static void
check_path(lua_State *L, int idx)
{
	size_t len;

	luaL_checktype(L, idx, LUA_TSTRING);
	luaL_argcheck(L, strlen(lua_tolstring(L, idx, &len)) == len && len > 0, idx,
	    "a path expected");
}

static int
file_done(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *s = job_result(L, ctx, "age_file");
	int n;

	(void)status;
	if (s == NULL)
		return 2;
	n = stream_failed(L, s, s->decrypt ? "age_decrypt_file" : "age_encrypt_file");
	if (n != 0)
		return n;
	lua_pushboolean(L, 1);
	lua_pushinteger(L, s->size);
	return 2;
}

/* crypto.age_encrypt_file(from, to, recipients)
 *  On a worker thread. `to` (0600) appears under its name when it is whole.
 *  +-> true, size of the plain text
 *  +-> nil, err   (recipient, too_many, not_found, denied, is_directory, no_space, io,
 *                  exhausted, interrupted)                                            */
static int
age_encrypt_file(lua_State *L)
{
	struct header *j;
	struct stream *s;

	check_path(L, 1);
	check_path(L, 2);
	lua_settop(L, 3);
	j = header_push(L);
	if (!people(L, j, 3, RECIPIENT) || !new_header(j))
		return failed(L, j, "age_encrypt_file");
	s = push_stream(L, j);
	s->source = copy_path(L, 1);
	s->target = copy_path(L, 2);
	return stream_start(L, s, file_done, "age_encrypt_file");
}

/* Reads the beginning of a file, where its header is. An errno, or 0. */
static int
read_beginning(struct lb_buf *to, const char *path)
{
	char piece[16384];
	struct stat st;
	ssize_t n = 1;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), error = 0;

	if (fd < 0 || fstat(fd, &st) != 0)
		error = errno;
	else if (!S_ISREG(st.st_mode))
		error = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
	while (error == 0 && n != 0 && to->len <= HEADER_MAX) {
		n = read(fd, piece, sizeof(piece));
		if (n < 0 && errno != EINTR)
			error = errno;
		if (n > 0 && !lb_buf_add(to, piece, (size_t)n))
			error = ENOMEM;
	}
	if (fd >= 0)
		close(fd);
	return error;
}

/* crypto.age_decrypt_file(from, to, identities)
 *  On a worker thread; not for armored files. `to` (0600) appears when all of it was
 *  found to be unchanged.
 *  +-> true, size
 *  +-> nil, err   (format, identity, no_identity, passphrase, corrupt, not_found, denied,
 *                  is_directory, no_space, io, exhausted, interrupted)                */
static int
age_decrypt_file(lua_State *L)
{
	struct header *j;
	struct stream *s;
	int error;

	check_path(L, 1);
	check_path(L, 2);
	lua_settop(L, 3);
	j = header_push(L);
	if (!people(L, j, 3, IDENTITY))
		return failed(L, j, "age_decrypt_file");
	error = read_beginning(&j->text, lua_tostring(L, 1));
	if (error != 0)
		return lb_fail_errno(L, MODULE, "age_decrypt_file", error);
	if (text_is_armor(j->text.data, j->text.len))
		return lb_fail(L, MODULE, "age_decrypt_file", "format",
		    "the file is armored: read it and use age_decrypt");
	j->in = j->text.data;
	j->inlen = j->text.len;
	if (!read_header(j))
		return failed(L, j, "age_decrypt_file");
	lb_buf_free(&j->text);
	s = push_stream(L, j);
	s->decrypt = true;
	s->pos = j->pos;
	s->source = copy_path(L, 1);
	s->target = copy_path(L, 2);
	return stream_start(L, s, file_done, "age_decrypt_file");
}

static void
push_recipient(lua_State *L, const unsigned char *identity)
{
	unsigned char public[KEY];
	char text[128];

	if (!x25519_base(identity, public))
		luaL_error(L, "X25519 failed");
	text_bech32(RECIPIENT, public, text);
	lua_pushstring(L, text);
}

/* crypto.age_identity({ name = "age.identity" })
 *  +-> { identity = secret "AGE-SECRET-KEY-1...", recipient = "age1..." }             */
static int
age_identity(lua_State *L)
{
	static const char *const names[] = { "name", NULL };
	struct header *j;
	const char *name;
	char text[128];

	lua_settop(L, 1);
	lb_opts(L, 1, names);
	name = lb_opt_string(L, 1, "name", "age.identity");
	j = header_push(L);
	if (RAND_priv_bytes(j->people[0], KEY) != 1)
		return luaL_error(L, "the system gives no random bytes");
	lua_createtable(L, 0, 2);
	push_recipient(L, j->people[0]);
	lua_setfield(L, -2, "recipient");
	text_bech32(IDENTITY, j->people[0], text);
	for (char *p = text; *p != '\0'; p++)
		*p = *p >= 'a' && *p <= 'z' ? (char)(*p & ~0x20) : *p;
	lb_secret_push(L, name, text, strlen(text));
	lb_wipe(text, sizeof(text));
	lua_setfield(L, -2, "identity");
	return 1;
}

/* crypto.age_recipient(identity)
 *  The recipient of the first identity in the text.
 *  +-> "age1..."
 *  +-> nil, err   (identity)                                                          */
static int
age_recipient(lua_State *L)
{
	struct header *j;

	lb_bytes(L, 1, NULL);
	lua_settop(L, 1);
	j = header_push(L);
	if (!people(L, j, 1, IDENTITY))
		return failed(L, j, "age_recipient");
	push_recipient(L, j->people[0]);
	return 1;
}

/* crypto.age_check(recipients)
 *  Is it a recipient, or a list of them, to which something can be encrypted?
 *  +-> how many
 *  +-> nil, err   (recipient, too_many)                                               */
static int
age_check(lua_State *L)
{
	unsigned char scalar[KEY] = { 1 }, shared[KEY];
	struct header *j;

	luaL_checkany(L, 1);
	lua_settop(L, 1);
	j = header_push(L);
	if (!people(L, j, 1, RECIPIENT))
		return failed(L, j, "age_check");
	for (int i = 0; i < j->count; i++) {
		if (!x25519(scalar, j->people[i], shared))
			return lb_fail(L, MODULE, "age_check", "recipient",
			    "nothing can be encrypted to recipient %d", i + 1);
	}
	lua_pushinteger(L, j->count);
	return 1;
}

/* crypto.x25519(scalar, point)
 *  RFC 7748; 32 bytes each. Without a point: the public key of the scalar.
 *  +-> 32 bytes
 *  +-> nil, err   (point: the result is zero)                                         */
static int
age_x25519(lua_State *L)
{
	unsigned char base[KEY] = { 9 }, out[KEY];
	size_t len, pointlen = KEY;
	const char *scalar = lb_bytes(L, 1, &len);
	const char *point = (const char *)base;

	if (!lua_isnoneornil(L, 2))
		point = lb_bytes(L, 2, &pointlen);
	luaL_argcheck(L, len == KEY, 1, "32 bytes expected");
	luaL_argcheck(L, pointlen == KEY, 2, "32 bytes expected");
	if (!x25519((const unsigned char *)scalar, (const unsigned char *)point, out))
		return lb_fail(L, MODULE, "x25519", "point", "a point of a small order");
	lua_pushlstring(L, (const char *)out, sizeof(out));
	return 1;
}

/* crypto.hkdf_sha256(key, salt, info, length)
 *  RFC 5869.
 *  +-> bytes                                                                          */
static int
age_hkdf_sha256(lua_State *L)
{
	size_t keylen, saltlen, infolen;
	const char *key = lb_bytes(L, 1, &keylen), *salt = lb_bytes(L, 2, &saltlen);
	const char *info = lb_bytes(L, 3, &infolen);
	lua_Integer n = luaL_checkinteger(L, 4);
	unsigned char out[HKDF_MAX];

	luaL_argcheck(L, n >= 1 && n <= HKDF_MAX, 4, "1 to 8160 expected");
	if (!hkdf(key, keylen, salt, saltlen, info, infolen, out, (size_t)n))
		return luaL_error(L, "HKDF failed");
	lua_pushlstring(L, (const char *)out, (size_t)n);
	lb_wipe(out, sizeof(out));
	return 1;
}

void
age_functions(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "age_encrypt", age_encrypt },
		{ "age_decrypt", age_decrypt },
		{ "age_encrypt_file", age_encrypt_file },
		{ "age_decrypt_file", age_decrypt_file },
		{ "age_identity", age_identity },
		{ "age_recipient", age_recipient },
		{ "age_check", age_check },
		{ "x25519", age_x25519 },
		{ "hkdf_sha256", age_hkdf_sha256 },
		{ NULL, NULL },
	};

	if (luaL_newmetatable(L, BOX)) {
		lua_pushcfunction(L, header_gc);
		lua_setfield(L, -2, "__gc");
	}
	lua_pop(L, 1);
	luaL_setfuncs(L, functions, 0);
}
