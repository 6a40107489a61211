/* crypto.c: random values, digests, base64 and password hashes, on OpenSSL, crypt(3) and
 * libargon2; keys, certificates and age files are in the other parts. What takes long by
 * purpose runs on a worker thread. It invents no primitive and keeps no state. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <argon2.h>
#include <crypt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "crypto.h"

#define SHA256 32
#define RANDOM_MAX (1 << 20)
#define PASSWORD_MAX 1024
#define BCRYPT_MAX 72 /* bytes that bcrypt looks at */
#define BCRYPT_COST 12
#define ARGON_MEMORY (64 << 10) /* KiB: as the second choice of RFC 9106 */
#define ARGON_TIME 3
#define ARGON_LANES 4

static const char alnum[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/* A hash in the making, of a password or of a file. */
struct hash {
	struct job job;
	struct lb_buf text; /* a password, or a path */
	char setting[CRYPT_OUTPUT_SIZE];
	char out[CRYPT_OUTPUT_SIZE];
	argon2_context argon;
	unsigned char salt[64], tag[64];
	struct lb_buf key, data; /* argon2's secret and associated data */
	long long size;
	int error; /* errno, or argon2's own when negative */
	bool ok;
};

static void
release(struct job *job)
{
	struct hash *j = (struct hash *)job;

	lb_buf_free(&j->text);
	lb_buf_free(&j->key);
	lb_buf_free(&j->data);
}

static void
copy_bytes(lua_State *L, struct lb_buf *to, int idx)
{
	size_t len;
	const char *s = lb_bytes(L, idx, &len);

	/* A NUL behind it, for crypt(3) and open(2). */
	if (!lb_buf_add(to, s, len) || !lb_buf_add(to, "", 1))
		luaL_error(L, "out of memory");
}

/* Random values */

static void
random_fill(lua_State *L, void *out, size_t len)
{
	if (RAND_priv_bytes(out, (int)len) != 1)
		luaL_error(L, "the system gives no random bytes");
}

static void
to_hex(const unsigned char *in, size_t len, char *out)
{
	for (size_t i = 0; i < len; i++)
		snprintf(out + 2 * i, 3, "%02x", in[i]);
}

/* crypto.random_bytes(n)
 *  +-> bytes   (not a secret: 1 to 1048576 of them)                                   */
static int
crypto_random_bytes(lua_State *L)
{
	lua_Integer n = luaL_checkinteger(L, 1);
	luaL_Buffer b;

	luaL_argcheck(L, n >= 1 && n <= RANDOM_MAX, 1, "1 to 1048576 expected");
	random_fill(L, luaL_buffinitsize(L, &b, (size_t)n), (size_t)n);
	luaL_pushresultsize(&b, (size_t)n);
	return 1;
}

/* crypto.token(n)
 *  +-> hex of n random bytes   (for nonces and names: not a secret; n is 1 to 256)    */
static int
crypto_token(lua_State *L)
{
	lua_Integer n = luaL_checkinteger(L, 1);
	unsigned char raw[256];
	char hex[2 * sizeof(raw) + 1];

	luaL_argcheck(L, n >= 1 && n <= (lua_Integer)sizeof(raw), 1, "1 to 256 expected");
	random_fill(L, raw, (size_t)n);
	to_hex(raw, (size_t)n, hex);
	lua_pushlstring(L, hex, 2 * (size_t)n);
	return 1;
}

/* Unbiased: a byte beyond the last whole round of the alphabet is thrown away. */
static bool
random_letters(char *out, size_t len, const char *alphabet, size_t count)
{
	unsigned char raw[64];
	size_t n = 0;

	while (n < len) {
		if (RAND_priv_bytes(raw, sizeof(raw)) != 1)
			return false;
		for (size_t i = 0; i < sizeof(raw) && n < len; i++) {
			if (raw[i] < 256 / count * count)
				out[n++] = alphabet[raw[i] % count];
		}
	}
	lb_wipe(raw, sizeof(raw));
	return true;
}

static const char *
check_alphabet(lua_State *L, const char *alphabet)
{
	size_t n = strlen(alphabet);

	luaL_argcheck(L, n >= 10 && n <= 94, 1, "alphabet: 10 to 94 characters expected");
	for (size_t i = 0; i < n; i++) {
		luaL_argcheck(L, alphabet[i] > ' ' && alphabet[i] <= '~', 1,
		    "alphabet: printable ASCII expected");
		luaL_argcheck(L, strchr(alphabet + i + 1, alphabet[i]) == NULL, 1,
		    "alphabet: a character stands twice");
	}
	return alphabet;
}

/* crypto.password({ name, bytes = 32, encoding = "base64", length = 32, alphabet })
 *  encoding is base64, base64url (without =), hex: `bytes` random bytes, as
 *  `openssl rand -base64 32`; or alnum: `length` letters and digits. `alphabet` gives
 *  the characters instead.
 *  +-> secret                                                                         */
static int
crypto_password(lua_State *L)
{
	static const char *const names[] = { "name", "bytes", "encoding", "length",
		"alphabet", NULL };
	const char *name, *encoding, *alphabet;
	char out[4 * PASSWORD_MAX / 3 + 8];
	unsigned char raw[PASSWORD_MAX];
	size_t bytes, len;

	luaL_checktype(L, 1, LUA_TTABLE);
	lb_opts(L, 1, names);
	name = lb_opt_string(L, 1, "name", NULL);
	luaL_argcheck(L, name != NULL, 1, "name expected");
	bytes = (size_t)lb_opt_integer(L, 1, "bytes", 32, 16, PASSWORD_MAX / 2);
	len = (size_t)lb_opt_integer(L, 1, "length", 32, 12, PASSWORD_MAX);
	alphabet = lb_opt_string(L, 1, "alphabet", NULL);
	encoding = lb_opt_string(L, 1, "encoding", alphabet != NULL ? "alnum" : "base64");
	if (alphabet != NULL)
		check_alphabet(L, alphabet);
	if (strcmp(encoding, "alnum") == 0) {
		if (alphabet == NULL)
			alphabet = alnum;
		if (!random_letters(out, len, alphabet, strlen(alphabet)))
			return luaL_error(L, "the system gives no random bytes");
		lb_secret_push(L, name, out, len);
		lb_wipe(out, sizeof(out));
		return 1;
	}
	luaL_argcheck(L, alphabet == NULL, 1, "alphabet goes with the encoding alnum");
	random_fill(L, raw, bytes);
	len = 2 * bytes;
	if (strcmp(encoding, "hex") == 0)
		to_hex(raw, bytes, out);
	else if (strcmp(encoding, "base64") == 0)
		len = text_encode(raw, bytes, false, true, out);
	else if (strcmp(encoding, "base64url") == 0)
		len = text_encode(raw, bytes, true, false, out);
	else
		return luaL_argerror(L, 1,
		    "encoding: base64, base64url, hex or alnum expected");
	lb_secret_push(L, name, out, len);
	lb_wipe(out, sizeof(out));
	lb_wipe(raw, sizeof(raw));
	return 1;
}

/* Digests */

static int
push_hex(lua_State *L, const unsigned char *raw, size_t len)
{
	char hex[2 * EVP_MAX_MD_SIZE + 1];

	to_hex(raw, len, hex);
	lua_pushlstring(L, hex, 2 * len);
	return 1;
}

/* crypto.sha256(bytes)
 *  +-> hex                                                                            */
static int
crypto_sha256(lua_State *L)
{
	unsigned char raw[SHA256];
	size_t len;
	const char *s = lb_bytes(L, 1, &len);

	if (EVP_Digest(s, len, raw, NULL, EVP_sha256(), NULL) != 1)
		return luaL_error(L, "SHA-256 failed");
	return push_hex(L, raw, SHA256);
}

/* crypto.hmac_sha256(key, message)
 *  +-> hex                                                                            */
static int
crypto_hmac_sha256(lua_State *L)
{
	unsigned char raw[SHA256];
	size_t keylen, len;
	const char *key = lb_bytes(L, 1, &keylen), *s = lb_bytes(L, 2, &len);
	const unsigned char *text = (const unsigned char *)s;

	luaL_argcheck(L, keylen <= RANDOM_MAX, 1, "the key is too long");
	if (HMAC(EVP_sha256(), key, (int)keylen, text, len, raw, NULL) == NULL)
		return luaL_error(L, "HMAC failed");
	return push_hex(L, raw, SHA256);
}

static void
work_file(struct job *job)
{
	struct hash *j = (struct hash *)job;
	static const size_t step = 256 << 10;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	unsigned char *piece = malloc(step);
	int fd = open(j->text.data, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	ssize_t n = -1;

	if (fd < 0 || fstat(fd, &st) != 0)
		j->error = errno;
	else if (!S_ISREG(st.st_mode))
		j->error = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
	else if (piece == NULL || ctx == NULL ||
	    EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1)
		j->error = ENOMEM;
	while (j->error == 0 && !j->job.cancelled && (n = read(fd, piece, step)) != 0) {
		if (n < 0 && errno != EINTR)
			j->error = errno;
		if (n < 0)
			continue;
		j->size += n;
		if (EVP_DigestUpdate(ctx, piece, (size_t)n) != 1)
			j->error = ENOMEM;
	}
	j->ok = j->error == 0 && n == 0 && EVP_DigestFinal_ex(ctx, j->tag, NULL) == 1;
	if (fd >= 0)
		close(fd);
	EVP_MD_CTX_free(ctx);
	free(piece);
}

static int
sha256_file_done(lua_State *L, int status, lua_KContext ctx)
{
	struct hash *j = job_result(L, ctx, "sha256_file");

	(void)status;
	if (j == NULL)
		return 2;
	if (!j->ok)
		return lb_fail_errno(L, MODULE, "sha256_file",
		    j->error != 0 ? j->error : EIO);
	push_hex(L, j->tag, SHA256);
	lua_pushinteger(L, j->size);
	return 2;
}

/* crypto.sha256_file(path)
 *  On a worker thread.
 *  +-> hex, size
 *  +-> nil, err   (not_found, denied, is_directory, io, interrupted)                  */
static int
crypto_sha256_file(lua_State *L)
{
	size_t len;
	struct hash *j;

	luaL_checktype(L, 1, LUA_TSTRING);
	luaL_argcheck(L, strlen(lua_tolstring(L, 1, &len)) == len, 1,
	    "a NUL byte in a path");
	lua_settop(L, 1);
	j = job_new(L, sizeof(*j), work_file, release);
	copy_bytes(L, &j->text, 1);
	return job_run(L, "sha256_file", sha256_file_done);
}

/* crypto.equal(a, b)
 *  In a time that depends on their lengths only.
 *  +-> true | false                                                                   */
static int
crypto_equal(lua_State *L)
{
	size_t alen, blen;
	const char *a = lb_bytes(L, 1, &alen), *b = lb_bytes(L, 2, &blen);

	lua_pushboolean(L, alen == blen && CRYPTO_memcmp(a, b, alen) == 0);
	return 1;
}

/* Base64 */

/* Pushes what is in the buffer: a secret of the name of the one at idx, or a string. */
static void
push_like(lua_State *L, int idx, const char *data, size_t len)
{
	if (!lb_is_secret(L, idx)) {
		lua_pushlstring(L, data, len);
		return;
	}
	lua_getfield(L, idx, "name");
	lua_pushvalue(L, idx);
	lua_call(L, 1, 1);
	lb_secret_push(L, lua_tostring(L, -1), data, len);
}

/* A scratch buffer that Lua collects; it is not wiped, so wipe what is secret. */
static char *
scratch(lua_State *L, size_t len)
{
	return lua_newuserdatauv(L, len + 1, 0);
}

/* crypto.base64(bytes, { url = false, pad = true })
 *  +-> text   (a secret of a secret)                                                  */
static int
crypto_base64(lua_State *L)
{
	static const char *const names[] = { "url", "pad", NULL };
	size_t len, n;
	const char *s = lb_bytes(L, 1, &len);
	bool url, pad;
	char *out;

	lb_opts(L, 2, names);
	url = lb_opt_boolean(L, 2, "url", false);
	pad = lb_opt_boolean(L, 2, "pad", !url);
	luaL_argcheck(L, len <= SIZE_MAX / 4, 1, "too long");
	out = scratch(L, (len + 2) / 3 * 4);
	n = text_encode(s, len, url, pad, out);
	push_like(L, 1, out, n);
	lb_wipe(out, n);
	return 1;
}

/* crypto.unbase64(text, { url = false })
 *  Strict: no white space, the padding right or left out, no stray bits at the end.
 *  +-> bytes   (a secret of a secret)
 *  +-> nil, err   (syntax)                                                            */
static int
crypto_unbase64(lua_State *L)
{
	static const char *const names[] = { "url", NULL };
	size_t len;
	const char *s = lb_bytes(L, 1, &len);
	bool url;
	char *out;
	long n;

	lb_opts(L, 2, names);
	url = lb_opt_boolean(L, 2, "url", false);
	if (len % 4 == 0 && len > 0 && s[len - 1] == '=')
		len -= s[len - 2] == '=' ? 2 : 1;
	out = scratch(L, len);
	n = text_decode(s, len, url, out, len);
	if (n >= 0)
		push_like(L, 1, out, (size_t)n);
	lb_wipe(out, len);
	if (n >= 0)
		return 1;
	return lb_fail(L, MODULE, "unbase64", "syntax", "this is not base64");
}

/* Password hashes */

static void
work_bcrypt(struct job *job)
{
	struct hash *j = (struct hash *)job;
	struct crypt_data *data = calloc(1, sizeof(*data));
	const char *hash;

	if (data == NULL) {
		j->error = ENOMEM;
		return;
	}
	hash = crypt_r(j->text.data, j->setting, data);
	j->ok = hash != NULL && *hash != '*';
	if (j->ok)
		snprintf(j->out, sizeof(j->out), "%s", hash);
	lb_wipe(data, sizeof(*data));
	free(data);
}

static int
bcrypt_done(lua_State *L, int status, lua_KContext ctx)
{
	struct hash *j = job_result(L, ctx, "bcrypt");

	(void)status;
	if (j == NULL)
		return 2;
	if (!j->ok)
		return lb_fail(L, MODULE, "bcrypt", "failed",
		    "crypt(3) cannot make such a hash");
	lua_pushstring(L, j->out);
	return 1;
}

/* The password at 1, which bcrypt would otherwise cut without a word. */
static bool
fits_bcrypt(lua_State *L)
{
	size_t len;
	const char *s = lb_bytes(L, 1, &len);

	return len <= BCRYPT_MAX && memchr(s, '\0', len) == NULL;
}

/* crypto.bcrypt(password, cost)
 *  On a worker thread. cost is 4 to 16, else 12.
 *  +-> hash   ("$2y$...")
 *  +-> nil, err   (too_long: bcrypt ignores what follows 72 bytes, or a NUL; failed,
 *                  interrupted)                                                       */
static int
crypto_bcrypt(lua_State *L)
{
	bool fits = fits_bcrypt(L);
	lua_Integer cost = luaL_optinteger(L, 2, BCRYPT_COST);
	struct hash *j;
	char raw[16];

	luaL_argcheck(L, cost >= 4 && cost <= 16, 2, "4 to 16 expected");
	if (!fits)
		return lb_fail(L, MODULE, "bcrypt", "too_long",
		    "bcrypt would ignore what follows 72 bytes or a NUL");
	lua_settop(L, 1);
	j = job_new(L, sizeof(*j), work_bcrypt, release);
	copy_bytes(L, &j->text, 1);
	random_fill(L, raw, sizeof(raw));
	if (crypt_gensalt_rn("$2y$", (unsigned long)cost, raw, sizeof(raw), j->setting,
	    sizeof(j->setting)) == NULL)
		return lb_fail(L, MODULE, "bcrypt", "failed", "crypt(3) has no bcrypt");
	return job_run(L, "bcrypt", bcrypt_done);
}

static void
work_argon(struct job *job)
{
	struct hash *j = (struct hash *)job;

	j->error = argon2_ctx(&j->argon, Argon2_id);
	j->ok = j->error == ARGON2_OK;
}

static int
argon_done(lua_State *L, int status, lua_KContext ctx)
{
	struct hash *j = job_result(L, ctx, "argon2id");
	char salt[96], tag[96];
	size_t n;

	(void)status;
	if (j == NULL)
		return 2;
	if (!j->ok)
		return lb_fail(L, MODULE, "argon2id", "failed", "%s",
		    argon2_error_message(j->error));
	n = text_encode(j->salt, j->argon.saltlen, false, false, salt);
	salt[n] = '\0';
	n = text_encode(j->tag, j->argon.outlen, false, false, tag);
	tag[n] = '\0';
	lua_pushfstring(L, "$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", (int)j->argon.m_cost,
	    (int)j->argon.t_cost, (int)j->argon.lanes, salt, tag);
	return 1;
}

/* Copies the bytes of an option into the job; without it the buffer stays empty. */
static void
option_bytes(lua_State *L, const char *name, struct lb_buf *to)
{
	if (!lua_isnoneornil(L, 2) && lua_getfield(L, 2, name) != LUA_TNIL)
		copy_bytes(L, to, lua_gettop(L));
}

static void
argon_salt(lua_State *L, struct hash *j)
{
	const char *salt = NULL;
	size_t len = 16;

	if (!lua_isnoneornil(L, 2) && lua_getfield(L, 2, "salt") != LUA_TNIL) {
		luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, 2,
		    "salt: bytes expected");
		salt = lua_tolstring(L, -1, &len);
		luaL_argcheck(L, len >= 8 && len <= sizeof(j->salt), 2,
		    "salt: 8 to 64 bytes expected");
		memcpy(j->salt, salt, len);
	} else {
		random_fill(L, j->salt, len);
	}
	j->argon.salt = j->salt;
	j->argon.saltlen = (uint32_t)len;
}

/* crypto.argon2id(password, { memory = 65536, time = 3, lanes = 4, length = 32, salt,
 *     key, data })
 *  On a worker thread. memory is in KiB; key and data are RFC 9106's secret value and
 *  associated data.
 *  +-> hash   ("$argon2id$v=19$m=...")
 *  +-> nil, err   (failed, interrupted)                                               */
static int
crypto_argon2id(lua_State *L)
{
	static const char *const names[] = { "memory", "time", "lanes", "length", "salt",
		"key", "data", NULL };
	struct hash *j;
	int box;

	lb_bytes(L, 1, NULL);
	lua_settop(L, 2);
	lb_opts(L, 2, names);
	j = job_new(L, sizeof(*j), work_argon, release);
	box = lua_gettop(L);
	copy_bytes(L, &j->text, 1);
	option_bytes(L, "key", &j->key);
	option_bytes(L, "data", &j->data);
	argon_salt(L, j);
	j->argon.lanes = (uint32_t)lb_opt_integer(L, 2, "lanes", ARGON_LANES, 1, 16);
	j->argon.threads = j->argon.lanes;
	j->argon.m_cost = (uint32_t)lb_opt_integer(L, 2, "memory", ARGON_MEMORY,
	    8 * (lua_Integer)j->argon.lanes, 1 << 20);
	j->argon.t_cost = (uint32_t)lb_opt_integer(L, 2, "time", ARGON_TIME, 1, 64);
	j->argon.outlen = (uint32_t)lb_opt_integer(L, 2, "length", 32, 16,
	    sizeof(j->tag));
	j->argon.out = j->tag;
	j->argon.pwd = (uint8_t *)j->text.data;
	j->argon.pwdlen = (uint32_t)j->text.len - 1;
	if (j->key.len > 0) {
		j->argon.secret = (uint8_t *)j->key.data;
		j->argon.secretlen = (uint32_t)j->key.len - 1;
	}
	if (j->data.len > 0) {
		j->argon.ad = (uint8_t *)j->data.data;
		j->argon.adlen = (uint32_t)j->data.len - 1;
	}
	j->argon.version = ARGON2_VERSION_13;
	lua_settop(L, box);
	return job_run(L, "argon2id", argon_done);
}

static void
work_verify(struct job *job)
{
	struct hash *j = (struct hash *)job;

	if (strncmp(j->setting, "$argon2id$", 10) == 0) {
		j->error = argon2id_verify(j->setting, j->text.data, j->text.len - 1);
		j->ok = j->error == ARGON2_OK;
		if (j->error == ARGON2_VERIFY_MISMATCH)
			j->error = 0;
		return;
	}
	work_bcrypt(job);
	if (!j->ok)
		j->error = EINVAL;
	j->ok = j->ok && strlen(j->out) == strlen(j->setting) &&
	    CRYPTO_memcmp(j->out, j->setting, strlen(j->out)) == 0;
}

static int
verify_done(lua_State *L, int status, lua_KContext ctx)
{
	struct hash *j = job_result(L, ctx, "verify");

	(void)status;
	if (j == NULL)
		return 2;
	if (j->error != 0)
		return lb_fail(L, MODULE, "verify", "format", "this hash cannot be read");
	lua_pushboolean(L, j->ok);
	return 1;
}

/* crypto.verify(password, hash)
 *  Is it the password of this bcrypt or argon2id hash? On a worker thread.
 *  +-> true | false
 *  +-> nil, err   (format, interrupted)                                               */
static int
crypto_verify(lua_State *L)
{
	size_t len;
	const char *hash;
	bool bcrypt, fits;
	struct hash *j;

	fits = fits_bcrypt(L);
	luaL_checktype(L, 2, LUA_TSTRING);
	hash = lua_tolstring(L, 2, &len);
	bcrypt = len == 60 && strncmp(hash, "$2", 2) == 0;
	if (strlen(hash) != len || len >= sizeof(j->setting) ||
	    (!bcrypt && strncmp(hash, "$argon2id$", 10) != 0))
		return lb_fail(L, MODULE, "verify", "format",
		    "neither bcrypt nor argon2id");
	if (bcrypt && !fits) {
		lua_pushboolean(L, false);
		return 1;
	}
	lua_settop(L, 2);
	j = job_new(L, sizeof(*j), work_verify, release);
	copy_bytes(L, &j->text, 1);
	memcpy(j->setting, hash, len + 1);
	return job_run(L, "verify", verify_done);
}

int luaopen_crypto(lua_State *L);

int
luaopen_crypto(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "random_bytes", crypto_random_bytes },
		{ "token", crypto_token },
		{ "password", crypto_password },
		{ "sha256", crypto_sha256 },
		{ "hmac_sha256", crypto_hmac_sha256 },
		{ "sha256_file", crypto_sha256_file },
		{ "equal", crypto_equal },
		{ "base64", crypto_base64 },
		{ "unbase64", crypto_unbase64 },
		{ "bcrypt", crypto_bcrypt },
		{ "argon2id", crypto_argon2id },
		{ "verify", crypto_verify },
		{ NULL, NULL },
	};

	job_metatable(L);
	luaL_newlib(L, functions);
	key_functions(L);
	cert_functions(L);
	age_functions(L);
	return 1;
}
