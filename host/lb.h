/* lb.h: the module kit, all that a native module may use of the host.
 * It names no third-party library but Lua, and knows neither journal nor runbook. */
#ifndef LB_H
#define LB_H

#include <stdbool.h>
#include <stddef.h>

#include <lauxlib.h>
#include <lua.h>

#include "curl.h" /* struct lb_request */

/* Expected failures: push nil and an error table { code, module, op, message } whose
 * __tostring is "module: op: message", and return 2. `fmt` is the host's own literal:
 * foreign text is always an argument of it. Read errno before any lua_* call. */
int lb_fail(lua_State *L, const char *module, const char *op, const char *code,
    const char *fmt, ...) __attribute__((format(printf, 5, 6)));
int lb_fail_errno(lua_State *L, const char *module, const char *op, int errnum);

/* Options live in one trailing table at idx (or nil, or none). A key that is not in
 * `names` (NULL ends it) raises, and so does a value of the wrong type or range. */
void lb_opts(lua_State *L, int idx, const char *const names[]);
const char *lb_opt_string(lua_State *L, int idx, const char *name, const char *def);
bool lb_opt_boolean(lua_State *L, int idx, const char *name, bool def);
lua_Integer lb_opt_integer(lua_State *L, int idx, const char *name, lua_Integer def,
    lua_Integer min, lua_Integer max);
double lb_opt_seconds(lua_State *L, int idx, const char *name, double def);
double lb_seconds(lua_State *L, int idx, double def); /* the same for a plain argument */

/* A growing byte buffer for callbacks, which never touch Lua. false: out of memory,
 * nothing was added. lb_buf_free wipes what it frees. */
struct lb_buf {
	char *data;
	size_t len, cap;
};
bool lb_buf_add(struct lb_buf *b, const void *data, size_t len);
void lb_buf_drop(struct lb_buf *b, size_t len); /* take len bytes off the front */
void lb_buf_free(struct lb_buf *b);

bool lb_sha256(const void *data, size_t len, unsigned char out[32]); /* in digest.c */

/* Secrets: a userdata that prints as [secret NAME], known to the masker while it lives,
 * wiped on release. lb_secret_push raises for fewer than 8 bytes. lb_bytes accepts a
 * string or a secret and raises for anything else. */
void lb_secret_push(lua_State *L, const char *name, const void *data, size_t len);
bool lb_is_secret(lua_State *L, int idx);
const char *lb_bytes(lua_State *L, int idx, size_t *len);
void lb_wipe(void *data, size_t len);

/* Waiting. A task is a coroutine that the loop runs; a native call that must wait embeds
 * a zeroed lb_wait in its userdata (which stays on the caller's stack) and says
 *	return lb_wait(L, &op->wait, seconds, ctx, continuation);
 * lb_wake may be called from any loop callback, is idempotent, and never runs Lua itself:
 * the task goes on in the next turn of the loop. seconds < 0: no deadline. The
 * continuation reads why it was called from wait->why; lb_fail_why turns a why that is
 * not LB_WOKEN into nil, err (timeout, interrupted). A wait where Lua cannot yield
 * raises, and so does a second task that waits for the same thing. lb_wait_drop forgets
 * a waiter, which then goes on as interrupted; call it on release. */
enum lb_why { LB_WOKEN, LB_TIMEOUT, LB_INTERRUPTED };
struct lb_task;
struct lb_wait {
	struct lb_task *task;
	enum lb_why why;
};
int lb_wait(lua_State *L, struct lb_wait *w, double seconds, lua_KContext ctx,
    lua_KFunction k);
int lb_fail_why(lua_State *L, const char *module, const char *op, enum lb_why why);
void lb_wake(struct lb_wait *w);
void lb_wait_drop(struct lb_wait *w);

/* Loop handles. `cb` runs on the loop's thread, never inside Lua. NULL: out of memory. */
enum { LB_READ = 1, LB_WRITE = 2 };
struct lb_poll *lb_poll_new(lua_State *L, int fd, void (*cb)(void *arg, int events),
    void *arg);
/* Another one on the loop of `p`, for what a callback accepts. */
struct lb_poll *lb_poll_like(struct lb_poll *p, int fd, void (*cb)(void *arg, int events),
    void *arg);
bool lb_poll_set(struct lb_poll *p, int events); /* 0 stops; false: the fd is unusable */
void lb_poll_free(struct lb_poll *p); /* does not close the fd; NULL is fine */

struct lb_timer *lb_timer_new(lua_State *L, void (*cb)(void *arg), void *arg);
void lb_timer_set(struct lb_timer *t, double seconds); /* < 0 stops */
void lb_timer_free(struct lb_timer *t);
/* A poll on the loop of `t`, for callbacks. */
struct lb_poll *lb_timer_poll(struct lb_timer *t, int fd,
    void (*cb)(void *arg, int events), void *arg);

/* Run `work` on a worker thread, then `done` on the loop's thread. `done` is called in
 * every case once lb_work returned true, also when the loop is closing, when Lua is gone:
 * so `arg` is memory of its own, never a userdata. */
bool lb_work(lua_State *L, void (*work)(void *arg), void (*done)(void *arg), void *arg);

#endif
