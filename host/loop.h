/* loop.h: the event loop and its tasks, for the host. Native modules use lb.h instead.
 * It runs coroutines and knows nothing of runbooks, journal or terminal. */
#ifndef LOOP_H
#define LOOP_H

#include <stdbool.h>

#include <lua.h>

struct lb_loop;
struct uv_handle_s;
struct uv_loop_s;

/* One loop for a Lua state, to be made before any coroutine. It ignores SIGPIPE.
 * Order at the end: lua_close(L), then loop_free. NULL: out of memory. */
struct lb_loop *loop_new(lua_State *L);
void loop_free(struct lb_loop *loop);

/* Runs the function and its nargs arguments on top of the stack as the main task, until
 * it ends. All other tasks are then cancelled and closed. Returns LUA_OK with the results
 * in place of the function, or an error status with the error value there. */
int loop_run_task(lua_State *L, int nargs);

/* Functions for Lua: host.task(fn, ...) and host.sleep(seconds). */
int loop_task(lua_State *L);
int loop_sleep(lua_State *L);

/* SIGINT and SIGTERM: each is counted, `cb` (may be NULL) is told on the loop's thread,
 * and then the wait that each task is in ends as interrupted, once; a task that is not in
 * a wait just then finds its next wait interrupted. */
bool loop_watch_signals(struct lb_loop *loop,
    void (*cb)(void *arg, int signum, int count), void *arg);
/* How many signals have come; *signum (may be NULL) is the last one. */
int loop_signals(const struct lb_loop *loop, int *signum);

/* begin is called before a task goes on and end after it waits again or has ended, both
 * with its coroutine, outside of Lua. They must not raise. */
void loop_set_slice_hook(struct lb_loop *loop, void (*begin)(void *arg, lua_State *co),
    void (*end)(void *arg, lua_State *co), void *arg);

struct lb_loop *loop_of(lua_State *L); /* NULL: this state has none */

/* For files that use libuv themselves: the data of every handle on the loop points to an
 * object that begins with a loop_owner, whose dispose closes that handle at loop_free. */
struct loop_owner {
	void (*dispose)(struct uv_handle_s *handle);
};
struct uv_loop_s *loop_uv(struct lb_loop *loop);

#endif
