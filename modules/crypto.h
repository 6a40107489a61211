/* crypto.h: what the parts of the module share. It is no part of what Lua sees. */
#ifndef CRYPTO_H
#define CRYPTO_H

#include <stdatomic.h>

#include "lb.h"

#define MODULE "crypto"

/* Each adds its functions to the table on top of the stack. */
void key_functions(lua_State *L);
void cert_functions(lua_State *L);
void age_functions(lua_State *L);

/* A job for a worker thread (crypto_job.c): the first member of a struct of its own. The
 * worker and Lua's box own it together. `release` frees what it holds, not itself. */
struct job {
	bool boxed, running;
	struct lb_wait *waiter;
	atomic_bool cancelled;
	void (*work)(struct job *j);
	void (*release)(struct job *j);
};
void job_metatable(lua_State *L);
void *job_new(lua_State *L, size_t size, void (*work)(struct job *j),
    void (*release)(struct job *j)); /* zeroed; pushes its box */
int job_run(lua_State *L, const char *op, lua_KFunction k); /* the box is on top */
void *job_result(lua_State *L, lua_KContext ctx, const char *op); /* NULL: see there */

/* Text forms (crypto_text.c). The encoders write no NUL; room for 4 * ceil(len / 3). The
 * decoder takes canonical text without padding; -1: it is none, or does not fit. */
size_t text_encode(const void *in, size_t len, bool url, bool pad, char *out);
long text_decode(const char *in, size_t len, bool url, void *out, size_t room);
enum { KEY = 32 };
void text_bech32(const char *prefix, const unsigned char *key, char out[128]);
bool text_unbech32(const char *prefix, const char *text, size_t len, unsigned char *key);
bool text_armor(const char *bytes, size_t len, struct lb_buf *out);
bool text_is_armor(const char *text, size_t len);
const char *text_unarmor(const char *text, size_t len, struct lb_buf *out); /* why not */

/* The payload of age files (crypto_stream.c). Input and output are memory, or files when
 * their names are set; `out` begins with what goes before the payload. */
struct stream {
	struct job job;
	bool decrypt;
	unsigned char key[KEY];
	struct lb_buf in, out;
	size_t pos; /* where the payload begins in the input */
	char *source, *target, *temporary;
	int from, to;
	long long size; /* of the plain text */
	int error;      /* errno */
	const char *code, *why;
};
struct stream *stream_new(lua_State *L); /* pushes its box */
int stream_start(lua_State *L, struct stream *s, lua_KFunction k, const char *op);
enum { TAG = 16, NONCE = 12 };
bool aead_seal(const unsigned char *key, const unsigned char *nonce, const void *data,
    size_t datalen, const void *in, size_t len, unsigned char *out);
bool aead_open(const unsigned char *key, const unsigned char *nonce, const void *data,
    size_t datalen, const unsigned char *in, size_t len, unsigned char *out);

#endif
