/* crypto_stream.c: ChaCha20-Poly1305, and with it the payload of age files: chunks of
 * 64 KiB (STREAM), in memory or from file to file, on a worker thread unless it is short.
 * It knows no header and no recipient: crypto_age.c hands it the payload's key. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "crypto.h"

#define CHUNK (64U << 10)
#define AT_ONCE (1U << 20) /* what is longer goes to a worker thread */

/* The tag stands behind the text. */
bool
aead_seal(const unsigned char *key, const unsigned char *nonce, const void *data,
    size_t datalen, const void *in, size_t len, unsigned char *out)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n = 0, rest = 0;
	bool ok = ctx != NULL &&
	    EVP_EncryptInit_ex(ctx, EVP_chacha20_poly1305(), NULL, key, nonce) == 1 &&
	    (datalen == 0 || EVP_EncryptUpdate(ctx, NULL, &n, data, (int)datalen) == 1) &&
	    EVP_EncryptUpdate(ctx, out, &n, in, (int)len) == 1 &&
	    EVP_EncryptFinal_ex(ctx, out + n, &rest) == 1 &&
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, out + len) == 1;

	EVP_CIPHER_CTX_free(ctx);
	return ok;
}

bool
aead_open(const unsigned char *key, const unsigned char *nonce, const void *data,
    size_t datalen, const unsigned char *in, size_t len, unsigned char *out)
{
	EVP_CIPHER_CTX *ctx = len >= TAG ? EVP_CIPHER_CTX_new() : NULL;
	int n = 0, rest = 0;
	bool ok = ctx != NULL &&
	    EVP_DecryptInit_ex(ctx, EVP_chacha20_poly1305(), NULL, key, nonce) == 1 &&
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG,
	    (void *)(uintptr_t)(in + len - TAG)) == 1 &&
	    (datalen == 0 || EVP_DecryptUpdate(ctx, NULL, &n, data, (int)datalen) == 1) &&
	    EVP_DecryptUpdate(ctx, out, &n, in, (int)(len - TAG)) == 1 &&
	    EVP_DecryptFinal_ex(ctx, out + n, &rest) == 1;

	EVP_CIPHER_CTX_free(ctx);
	return ok;
}

/* Input and output */

static bool
fail(struct stream *j, const char *code, const char *why)
{
	j->code = code;
	j->why = why;
	return false;
}

static bool
fail_errno(struct stream *j, const char *why)
{
	j->error = errno != 0 ? errno : EIO;
	return fail(j, "io", why);
}

/* Up to len bytes; fewer only at the end. -1: failed. */
static ssize_t
take(struct stream *j, unsigned char *to, size_t len)
{
	size_t n = 0;
	ssize_t got;

	if (j->job.cancelled) {
		fail(j, "interrupted", "interrupted");
		return -1;
	}
	if (j->source == NULL) {
		n = len < j->in.len - j->pos ? len : j->in.len - j->pos;
		if (n > 0)
			memcpy(to, j->in.data + j->pos, n);
		j->pos += n;
		return (ssize_t)n;
	}
	while (n < len) {
		got = read(j->from, to + n, len - n);
		if (got == 0)
			break;
		if (got < 0 && errno != EINTR) {
			fail_errno(j, "cannot read");
			return -1;
		}
		n += got > 0 ? (size_t)got : 0;
	}
	return (ssize_t)n;
}

static bool
give(struct stream *j, const void *data, size_t len)
{
	const char *p = data;
	ssize_t n;

	if (j->target == NULL)
		return lb_buf_add(&j->out, data, len) ||
		    fail(j, "memory", "out of memory");
	while (len > 0) {
		n = write(j->to, p, len);
		if (n < 0 && errno != EINTR)
			return fail_errno(j, "cannot write");
		p += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return true;
}

/* Payload: chunks of 64 KiB, numbered in their nonces; the last one is marked. */

static void
chunk_nonce(unsigned char *nonce, uint64_t number, bool last)
{
	memset(nonce, 0, NONCE);
	for (int i = 0; i < 8; i++)
		nonce[10 - i] = (unsigned char)(number >> (8 * i));
	nonce[11] = last;
}

/* One chunk. It is the last one when nothing follows it. */
static bool
put_chunk(struct stream *j, uint64_t number, bool last, const unsigned char *in,
    size_t len, unsigned char *out)
{
	unsigned char nonce[NONCE];
	size_t n = j->decrypt ? len - TAG : len + TAG;

	chunk_nonce(nonce, number, last);
	if (!j->decrypt) {
		j->size += (long long)len;
		if (!aead_seal(j->key, nonce, NULL, 0, in, len, out))
			return fail(j, "memory", "out of memory");
		return give(j, out, n);
	}
	if (len < TAG || (len == TAG && number > 0))
		return fail(j, "corrupt", "the file is cut short");
	if (!aead_open(j->key, nonce, NULL, 0, in, len, out))
		return fail(j, "corrupt", "the file was changed or cut short");
	j->size += (long long)n;
	return give(j, out, n);
}

static bool
payload(struct stream *j)
{
	size_t step = j->decrypt ? CHUNK + TAG : CHUNK;
	unsigned char *buf = malloc((size_t)3 * (CHUNK + TAG)), *now, *next, *out, *swap;
	ssize_t have, more = 0;
	bool ok = true;

	if (buf == NULL)
		return fail(j, "memory", "out of memory");
	now = buf;
	next = buf + CHUNK + TAG;
	out = next + CHUNK + TAG;
	have = take(j, now, step);
	for (uint64_t i = 0; ok; i++) {
		more = have == (ssize_t)step ? take(j, next, step) : 0;
		if (have < 0 || more < 0 ||
		    !put_chunk(j, i, more == 0, now, (size_t)have, out))
			ok = false;
		if (more == 0)
			break;
		swap = now;
		now = next;
		next = swap;
		have = more;
	}
	lb_wipe(buf, (size_t)3 * (CHUNK + TAG));
	free(buf);
	return ok;
}

/* Files */

static bool
open_source(struct stream *j)
{
	struct stat st;

	j->from = open(j->source, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (j->from < 0 || fstat(j->from, &st) != 0)
		return fail_errno(j, "cannot open the file");
	errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
	if (!S_ISREG(st.st_mode))
		return fail_errno(j, "this is no regular file");
	return lseek(j->from, (off_t)j->pos, SEEK_SET) >= 0 ||
	    fail_errno(j, "cannot read");
}

/* The file appears under its name when it is whole and on disk. */
static bool
open_target(struct stream *j)
{
	if (asprintf(&j->temporary, "%s.XXXXXX", j->target) < 0) {
		j->temporary = NULL;
		return fail(j, "memory", "out of memory");
	}
	j->to = mkostemp(j->temporary, O_CLOEXEC);
	if (j->to >= 0)
		return true;
	fail_errno(j, "cannot make the file");
	free(j->temporary);
	j->temporary = NULL;
	return false;
}

static bool
sync_directory(struct stream *j)
{
	char *slash = strrchr(j->target, '/'), keep;
	int fd;
	bool ok;

	if (slash == NULL) {
		fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	} else {
		keep = slash[1];
		slash[1] = '\0';
		fd = open(j->target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		slash[1] = keep;
	}
	ok = fd >= 0 && fsync(fd) == 0;
	if (!ok)
		fail_errno(j, "cannot write");
	if (fd >= 0)
		close(fd);
	return ok;
}

static bool
finish_target(struct stream *j)
{
	int fd = j->to;

	j->to = -1;
	if (fsync(fd) != 0) {
		fail_errno(j, "cannot write");
		close(fd);
		return false;
	}
	if (close(fd) != 0 || rename(j->temporary, j->target) != 0)
		return fail_errno(j, "cannot write");
	free(j->temporary);
	j->temporary = NULL;
	return sync_directory(j);
}

static void
abandon(struct stream *j)
{
	if (j->from >= 0)
		close(j->from);
	if (j->to >= 0)
		close(j->to);
	if (j->temporary != NULL)
		unlink(j->temporary);
	free(j->temporary);
	j->temporary = NULL;
	j->from = j->to = -1;
}

/* What stands in `out` at the start, the header, goes first. */
static void
run(struct job *job)
{
	struct stream *j = (struct stream *)job;
	struct lb_buf header = j->out;
	bool ok = (j->source == NULL || open_source(j)) &&
	    (j->target == NULL || open_target(j));

	j->out = (struct lb_buf) { 0 };
	ok = ok && give(j, header.data, header.len) && payload(j) &&
	    (j->target == NULL || finish_target(j));
	lb_buf_free(&header);
	if (!ok && j->code == NULL)
		fail(j, "memory", "out of memory");
	abandon(j);
}

/* Jobs */

static void
release(struct job *job)
{
	struct stream *j = (struct stream *)job;

	lb_buf_free(&j->in);
	lb_buf_free(&j->out);
	free(j->source);
	free(j->target);
	lb_wipe(j->key, sizeof(j->key));
}

struct stream *
stream_new(lua_State *L)
{
	struct stream *j = job_new(L, sizeof(*j), run, release);

	j->from = j->to = -1;
	return j;
}

/* Runs it; its box is on top of the stack. `k` is called at once when it is short. */
int
stream_start(lua_State *L, struct stream *j, lua_KFunction k, const char *op)
{
	if (j->source != NULL || j->target != NULL || j->in.len > AT_ONCE)
		return job_run(L, op, k);
	run(&j->job);
	return k(L, LUA_OK, lua_gettop(L));
}
