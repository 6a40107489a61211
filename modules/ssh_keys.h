/* ssh_keys.h: key files, known only by their public half, and the agent's protocol.
 * The agent calls block, so they belong on a worker thread. No Lua, no libssh2. */
#ifndef SSH_KEYS_H
#define SSH_KEYS_H

#include <stdint.h>
#include <sys/stat.h>

#include "lb.h"

struct ssh_key {
	struct ssh_key *next;
	char *path; /* NULL: known from the agent alone */
	char *text; /* of the file, NUL at the end */
	size_t textlen;
	unsigned char *blob; /* the public key; NULL: not known */
	size_t bloblen;
	char type[64]; /* "ssh-ed25519"; empty: not known */
	char comment[128];
	char *passphrase;
	bool encrypted;
	bool agent; /* the agent signs with it */
};

void key_free(struct ssh_key *key);
void key_free_all(struct ssh_key *key);
bool key_set_blob(struct ssh_key *key, const unsigned char *blob, size_t len);
bool key_set_passphrase(struct ssh_key *key, const char *text, size_t len);
/* "ssh-ed25519 AAAA... comment" */
bool key_parse_line(struct ssh_key *key, const char *line);
char *key_line(const struct ssh_key *key);
void key_fingerprint(const unsigned char *blob, size_t len, char out[64]);
bool key_same(const struct ssh_key *a, const struct ssh_key *b);
/* Reads a private key file, or a public one. NULL: `why` says what is wrong with it. */
struct ssh_key *key_read(const char *path, char *why, size_t whylen);
bool key_is_private(const struct ssh_key *key);

/* 0 or an errno; the caller wipes and frees what is in *data. */
int file_read(const char *path, size_t max, char **data, size_t *len, struct stat *st);
/* "~/x" in the home folder; anything else as it is. */
const char *home_path(const char *path, char *buf, size_t size);

/* malloc'd, or NULL. Decoding ends at the first byte that is neither a digit nor a line
 * break. */
char *b64_encode(const unsigned char *data, size_t len, bool pad);
unsigned char *b64_decode(const char *text, size_t len, size_t *outlen);

/* Wire format of RFC 4251: numbers, and strings with their length before them. */
struct wire {
	const unsigned char *p;
	size_t left;
};
bool wire_u32(struct wire *w, uint32_t *out);
bool wire_string(struct wire *w, struct wire *out);
bool wire_is(const struct wire *w, const char *text);

enum { AGENT_RSA_SHA2_256 = 2, AGENT_RSA_SHA2_512 = 4 };
/* false: no agent answers at that path. An agent without keys gives an empty list. */
bool agent_list(const char *path, struct ssh_key **list);
/* Appends the signature itself, without the name of its algorithm. */
bool agent_sign(const char *path, const struct ssh_key *key, const void *data, size_t len,
    int flags, struct lb_buf *sig);

#endif
