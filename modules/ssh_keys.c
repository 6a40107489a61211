/* ssh_keys.c: key files and the agent's protocol.
 * It decrypts nothing: the public half of an OpenSSH key file is in the clear, and
 * libssh2 takes the file as it is. The agent calls block: they are for worker threads. */
#include "ssh_keys.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define KEY_FILE_MAX 65536
#define AGENT_REPLY_MAX 262144

void
key_free(struct ssh_key *key)
{
	if (key == NULL)
		return;
	if (key->text != NULL)
		lb_wipe(key->text, key->textlen);
	if (key->passphrase != NULL)
		lb_wipe(key->passphrase, strlen(key->passphrase));
	free(key->path);
	free(key->text);
	free(key->blob);
	free(key->passphrase);
	free(key);
}

void
key_free_all(struct ssh_key *key)
{
	struct ssh_key *next;

	for (; key != NULL; key = next) {
		next = key->next;
		key_free(key);
	}
}

/* Wire format of RFC 4251: numbers and strings with their length before them. */

bool
wire_u32(struct wire *w, uint32_t *out)
{
	if (w->left < 4)
		return false;
	*out = (uint32_t)w->p[0] << 24 | (uint32_t)w->p[1] << 16 |
	    (uint32_t)w->p[2] << 8 | w->p[3];
	w->p += 4;
	w->left -= 4;
	return true;
}

bool
wire_string(struct wire *w, struct wire *out)
{
	uint32_t len;

	if (!wire_u32(w, &len) || len > w->left)
		return false;
	out->p = w->p;
	out->left = len;
	w->p += len;
	w->left -= len;
	return true;
}

bool
wire_is(const struct wire *w, const char *text)
{
	return w->left == strlen(text) && memcmp(w->p, text, w->left) == 0;
}

static bool
wire_put(struct lb_buf *b, const void *data, size_t len)
{
	unsigned char head[4] = { (unsigned char)(len >> 24), (unsigned char)(len >> 16),
		(unsigned char)(len >> 8), (unsigned char)len };

	return len <= UINT32_MAX && lb_buf_add(b, head, 4) && lb_buf_add(b, data, len);
}

/* Base64, as keys are written. */

static const char b64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Returns malloc'd text, or NULL. */
char *
b64_encode(const unsigned char *data, size_t len, bool pad)
{
	char *out = malloc(len / 3 * 4 + 5), *o = out;
	size_t i;

	if (out == NULL)
		return NULL;
	for (i = 0; i < len; i += 3) {
		uint32_t v = (uint32_t)data[i] << 16;

		v |= i + 1 < len ? (uint32_t)data[i + 1] << 8 : 0;
		v |= i + 2 < len ? data[i + 2] : 0;
		*o++ = b64_digits[v >> 18];
		*o++ = b64_digits[v >> 12 & 63];
		if (i + 1 < len)
			*o++ = b64_digits[v >> 6 & 63];
		else if (pad)
			*o++ = '=';
		if (i + 2 < len)
			*o++ = b64_digits[v & 63];
		else if (pad)
			*o++ = '=';
	}
	*o = '\0';
	return out;
}

/* Takes base64 up to the first byte that is neither a digit nor white space. Returns
 * malloc'd bytes, to be wiped by the caller where they are secret, or NULL. */
unsigned char *
b64_decode(const char *text, size_t len, size_t *outlen)
{
	unsigned char *out = malloc(len / 4 * 3 + 4);
	uint32_t v = 0;
	int bits = 0;
	size_t i, n = 0;

	if (out == NULL)
		return NULL;
	for (i = 0; i < len; i++) {
		const char *digit = text[i] != '\0' ? strchr(b64_digits, text[i]) : NULL;

		if (digit == NULL) {
			if (text[i] == '\n' || text[i] == '\r')
				continue;
			break;
		}
		v = v << 6 | (uint32_t)(digit - b64_digits);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[n++] = (unsigned char)(v >> bits);
		}
	}
	*outlen = n;
	return out;
}

/* Public keys */

/* Takes over nothing; the type is the first string of the blob. */
bool
key_set_blob(struct ssh_key *key, const unsigned char *blob, size_t len)
{
	struct wire w = { blob, len }, type;

	if (len == 0 || !wire_string(&w, &type) || type.left == 0 ||
	    type.left >= sizeof key->type || memchr(type.p, '\0', type.left) != NULL)
		return false;
	if ((key->blob = malloc(len)) == NULL)
		return false;
	memcpy(key->blob, blob, len);
	key->bloblen = len;
	memcpy(key->type, type.p, type.left);
	key->type[type.left] = '\0';
	return true;
}

static void
key_set_comment(struct ssh_key *key, const void *text, size_t len)
{
	size_t i;

	if (len >= sizeof key->comment)
		len = sizeof key->comment - 1;
	memcpy(key->comment, text, len);
	key->comment[len] = '\0';
	for (i = 0; i < len; i++)
		if ((unsigned char)key->comment[i] < ' ' || key->comment[i] == 127)
			key->comment[i] = '?';
}

/* "ssh-ed25519 AAAA... comment"; what stands before the type (options) is not taken. */
bool
key_parse_line(struct ssh_key *key, const char *line)
{
	size_t typelen, n, bloblen;
	unsigned char *blob;
	bool ok;

	line += strspn(line, " \t");
	typelen = strcspn(line, " \t\r\n");
	if (line[typelen] != ' ' && line[typelen] != '\t')
		return false;
	n = typelen + strspn(line + typelen, " \t");
	if ((blob = b64_decode(line + n, strcspn(line + n, " \t\r\n"), &bloblen)) == NULL)
		return false;
	ok = key_set_blob(key, blob, bloblen) && strlen(key->type) == typelen &&
	    memcmp(key->type, line, typelen) == 0;
	free(blob);
	if (!ok)
		return false;
	n += strcspn(line + n, " \t\r\n");
	n += strspn(line + n, " \t");
	key_set_comment(key, line + n, strcspn(line + n, "\r\n"));
	return true;
}

/* "ssh-ed25519 AAAA... comment", malloc'd, or NULL. */
char *
key_line(const struct ssh_key *key)
{
	char *b64 = b64_encode(key->blob, key->bloblen, true), *line = NULL;

	if (b64 != NULL &&
	    asprintf(&line, "%s %s%s%s", key->type, b64,
		key->comment[0] != '\0' ? " " : "", key->comment) < 0)
		line = NULL;
	free(b64);
	return line;
}

void
key_fingerprint(const unsigned char *blob, size_t len, char out[64])
{
	unsigned char hash[32];
	char *b64 = NULL;

	if (lb_sha256(blob, len, hash))
		b64 = b64_encode(hash, sizeof hash, false);
	snprintf(out, 64, "SHA256:%s", b64 != NULL ? b64 : "?");
	free(b64);
}

bool
key_set_passphrase(struct ssh_key *key, const char *text, size_t len)
{
	if ((key->passphrase = malloc(len + 1)) == NULL)
		return false;
	memcpy(key->passphrase, text, len);
	key->passphrase[len] = '\0';
	return strlen(key->passphrase) == len;
}

bool
key_same(const struct ssh_key *a, const struct ssh_key *b)
{
	return a->blob != NULL && b->blob != NULL && a->bloblen == b->bloblen &&
	    memcmp(a->blob, b->blob, a->bloblen) == 0;
}

/* Key files */

const char *
home_path(const char *path, char *buf, size_t size)
{
	const char *home = getenv("HOME");
	struct passwd *pw;

	if (path[0] != '~' || path[1] != '/')
		return path;
	if (home == NULL && (pw = getpwuid(getuid())) != NULL)
		home = pw->pw_dir;
	if (home == NULL || snprintf(buf, size, "%s%s", home, path + 1) >= (int)size)
		return path;
	return buf;
}

/* Reads a whole small file. 0 or an errno; the caller wipes and frees. */
int
file_read(const char *path, size_t max, char **data, size_t *len, struct stat *st)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err = 0;
	size_t n = 0;
	ssize_t got;
	char *buf = NULL;

	*data = NULL;
	*len = 0;
	if (fd < 0)
		return errno;
	if (fstat(fd, st) != 0)
		err = errno;
	else if (!S_ISREG(st->st_mode))
		err = S_ISDIR(st->st_mode) ? EISDIR : EINVAL;
	else if (st->st_size < 0 || (size_t)st->st_size > max)
		err = EFBIG;
	else if ((buf = malloc((size_t)st->st_size + 1)) == NULL)
		err = ENOMEM;
	while (err == 0 && n < (size_t)st->st_size) {
		got = read(fd, buf + n, (size_t)st->st_size - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			err = errno;
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	close(fd);
	if (err != 0 || buf == NULL) {
		if (buf != NULL)
			lb_wipe(buf, n);
		free(buf);
		return err;
	}
	buf[n] = '\0';
	*data = buf;
	*len = n;
	return 0;
}

/* The comment is the last string of the private section, after the fields of the type. */
static void
key_private_comment(struct ssh_key *key, struct wire w)
{
	struct wire s;
	uint32_t check[2];
	int fields;

	if (!wire_u32(&w, &check[0]) || !wire_u32(&w, &check[1]) ||
	    check[0] != check[1] || !wire_string(&w, &s))
		return;
	if (wire_is(&s, "ssh-ed25519"))
		fields = 2;
	else if (s.left > 6 && memcmp(s.p, "ecdsa-", 6) == 0)
		fields = 3;
	else if (wire_is(&s, "ssh-rsa"))
		fields = 6;
	else
		return;
	while (fields-- >= 0)
		if (!wire_string(&w, &s))
			return;
	key_set_comment(key, s.p, s.left);
}

/* A file that begins with "-----BEGIN OPENSSH PRIVATE KEY-----". */
static bool
key_parse_openssh(struct ssh_key *key, const char *body)
{
	static const char magic[] = "openssh-key-v1";
	struct wire w, cipher, s, blob;
	unsigned char *bin;
	uint32_t count;
	size_t len;
	bool ok;

	if ((bin = b64_decode(body, strlen(body), &len)) == NULL)
		return false;
	w.p = bin;
	w.left = len;
	ok = len > sizeof magic && memcmp(bin, magic, sizeof magic) == 0;
	if (ok) {
		w.p += sizeof magic;
		w.left -= sizeof magic;
		ok = wire_string(&w, &cipher) && wire_string(&w, &s) &&
		    wire_string(&w, &s) && wire_u32(&w, &count) && count == 1 &&
		    wire_string(&w, &blob) && wire_string(&w, &s) &&
		    key_set_blob(key, blob.p, blob.left);
	}
	if (ok) {
		key->encrypted = !wire_is(&cipher, "none");
		if (!key->encrypted)
			key_private_comment(key, s);
	}
	lb_wipe(bin, len);
	free(bin);
	return ok;
}

/* The file beside a key, which may hold the comment, or all that is known of a PEM key.
 */
static void
key_read_pub(struct ssh_key *key)
{
	struct ssh_key pub = { 0 };
	char path[4096], *text;
	struct stat st;
	size_t len;

	if (snprintf(path, sizeof path, "%s.pub", key->path) >= (int)sizeof path ||
	    file_read(path, KEY_FILE_MAX, &text, &len, &st) != 0)
		return;
	if (key_parse_line(&pub, text) && (key->blob == NULL || key_same(key, &pub))) {
		if (key->blob == NULL)
			key_set_blob(key, pub.blob, pub.bloblen);
		if (key->comment[0] == '\0')
			memcpy(key->comment, pub.comment, sizeof key->comment);
	}
	free(pub.blob);
	free(text);
}

/* Reads a private key file, or a public one. NULL: `why` says in words what is wrong. */
struct ssh_key *
key_read(const char *path, char *why, size_t whylen)
{
	static const char openssh[] = "-----BEGIN OPENSSH PRIVATE KEY-----";
	struct ssh_key *key = calloc(1, sizeof *key);
	struct stat st;
	const char *pem;
	char text[128];
	int err;

	if (key == NULL || (key->path = strdup(path)) == NULL) {
		key_free(key);
		snprintf(why, whylen, "%s: out of memory", path);
		return NULL;
	}
	if ((err = file_read(path, KEY_FILE_MAX, &key->text, &key->textlen, &st)) != 0) {
		snprintf(why, whylen, "%s: %s", path, strerror_r(err, text, sizeof text));
		key_free(key);
		return NULL;
	}
	if (strstr(key->text, "PRIVATE KEY-----") == NULL) {
		if (key_parse_line(key, key->text))
			return key;
		snprintf(why, whylen,
		    strncmp(key->text, "PuTTY", 5) == 0 ?
			"%s: a PuTTY key: convert it with puttygen -O private-openssh" :
			"%s: not a private key",
		    path);
		key_free(key);
		return NULL;
	}
	if (st.st_uid == geteuid() && (st.st_mode & 077) != 0) {
		snprintf(why, whylen,
		    "%s: others can read or write it (mode %04o): "
		    "chmod 600 %s",
		    path, (unsigned)(st.st_mode & 07777), path);
		key_free(key);
		return NULL;
	}
	if ((pem = strstr(key->text, openssh)) != NULL) {
		if (!key_parse_openssh(key, pem + sizeof openssh - 1)) {
			snprintf(why, whylen, "%s: damaged, or not an OpenSSH key", path);
			key_free(key);
			return NULL;
		}
	} else {
		key->encrypted = strstr(key->text, "ENCRYPTED") != NULL;
		if (strstr(key->text, "BEGIN RSA ") != NULL)
			strcpy(key->type, "ssh-rsa");
		else if (strstr(key->text, "BEGIN DSA ") != NULL)
			strcpy(key->type, "ssh-dss");
	}
	if (key->blob == NULL || key->comment[0] == '\0')
		key_read_pub(key);
	return key;
}

bool
key_is_private(const struct ssh_key *key)
{
	return key->text != NULL && strstr(key->text, "PRIVATE KEY-----") != NULL;
}

/* The agent: draft-miller-ssh-agent. Every call blocks, for `seconds` at the most. */

enum {
	AGENT_REQUEST_IDENTITIES = 11,
	AGENT_IDENTITIES = 12,
	AGENT_SIGN_REQUEST = 13,
	AGENT_SIGNATURE = 14
};

static bool
agent_io(int fd, char *data, size_t len, bool sending)
{
	while (len > 0) {
		ssize_t n =
		    sending ? send(fd, data, len, MSG_NOSIGNAL) : recv(fd, data, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

/* Sends one message and receives its answer; false: no agent, or it did not answer. */
static bool
agent_call(const char *path, struct lb_buf *request, struct lb_buf *reply, int seconds)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = seconds };
	struct lb_buf framed = { 0 };
	unsigned char head[4];
	uint32_t len;
	char chunk[4096];
	struct wire w = { head, 4 };
	bool ok = false;
	int fd;

	if (strlen(path) >= sizeof un.sun_path)
		return false;
	memcpy(un.sun_path, path, strlen(path) + 1);
	if ((fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
		return false;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	if (connect(fd, (struct sockaddr *)&un, sizeof un) != 0 ||
	    !wire_put(&framed, request->data, request->len) ||
	    !agent_io(fd, framed.data, framed.len, true) ||
	    !agent_io(fd, (char *)head, sizeof head, false))
		goto out;
	wire_u32(&w, &len);
	if (len == 0 || len > AGENT_REPLY_MAX)
		goto out;
	while (len > 0) {
		size_t n = len < sizeof chunk ? len : sizeof chunk;

		if (!agent_io(fd, chunk, n, false) || !lb_buf_add(reply, chunk, n))
			goto out;
		len -= (uint32_t)n;
	}
	ok = true;
out:
	close(fd);
	lb_buf_free(&framed);
	return ok;
}

/* false: no agent answers at that path. An agent without keys gives an empty list. */
bool
agent_list(const char *path, struct ssh_key **list)
{
	static const char ask = AGENT_REQUEST_IDENTITIES;
	struct lb_buf request = { 0 }, reply = { 0 };
	struct ssh_key **tail = list;
	struct wire w, blob, comment;
	uint32_t count;
	bool ok;

	*list = NULL;
	ok = lb_buf_add(&request, &ask, 1) && agent_call(path, &request, &reply, 10) &&
	    reply.data[0] == AGENT_IDENTITIES;
	if (ok) {
		w.p = (unsigned char *)reply.data + 1;
		w.left = reply.len - 1;
		ok = wire_u32(&w, &count);
	}
	while (ok && count-- > 0 && wire_string(&w, &blob) && wire_string(&w, &comment)) {
		struct ssh_key *key = calloc(1, sizeof *key);

		if (key == NULL)
			break;
		if (!key_set_blob(key, blob.p, blob.left)) {
			key_free(key);
			continue;
		}
		key->agent = true;
		key_set_comment(key, comment.p, comment.left);
		*tail = key;
		tail = &key->next;
	}
	lb_buf_free(&request);
	lb_buf_free(&reply);
	return ok;
}

/* Appends the signature itself, without the name of its algorithm. */
bool
agent_sign(const char *path, const struct ssh_key *key, const void *data, size_t len,
    int flags, struct lb_buf *sig)
{
	static const char ask = AGENT_SIGN_REQUEST;
	const char flagbytes[4] = { 0, 0, 0, (char)flags };
	struct lb_buf request = { 0 }, reply = { 0 };
	struct wire w, outer, name, raw;
	bool ok;

	ok = lb_buf_add(&request, &ask, 1) &&
	    wire_put(&request, key->blob, key->bloblen) &&
	    wire_put(&request, data, len) && lb_buf_add(&request, flagbytes, 4) &&
	    agent_call(path, &request, &reply, 60) && reply.data[0] == AGENT_SIGNATURE;
	if (ok) {
		w.p = (unsigned char *)reply.data + 1;
		w.left = reply.len - 1;
		ok = wire_string(&w, &outer) && wire_string(&outer, &name) &&
		    wire_string(&outer, &raw) && lb_buf_add(sig, raw.p, raw.left);
	}
	lb_buf_free(&request);
	lb_buf_free(&reply);
	return ok;
}
