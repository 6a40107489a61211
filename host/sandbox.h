/* sandbox.h: what holds when a runbook misbehaves: its environment, the deadline on its
 * Lua time, and the watchdog behind it. Knows no journal, no target, no file. */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <stdbool.h>

#include <lua.h>

struct sandbox;

/* sandbox_open starts the watchdog for the calling thread; NULL: no memory or no thread.
 * sandbox_install puts the deadline's hook on the main state, before any coroutine exists
 * (they inherit it), and protects the methods of strings; it may raise. The state is
 * closed before the sandbox. */
struct sandbox *sandbox_open(void);
void sandbox_install(lua_State *L, struct sandbox *sb);
void sandbox_close(struct sandbox *sb);

/* A slice is the Lua time of one task between two waits, in its thread's CPU time. */
void sandbox_enter(struct sandbox *sb, lua_State *co);
void sandbox_leave(struct sandbox *sb, lua_State *co);

/* Push a function that calls its first argument with the others: what a task begins with,
 * so that the deadline reaches all of it. */
void sandbox_push_body(lua_State *L);

/* Push a fresh allow-listed environment; the caller adds `print`. */
void sandbox_push_env(lua_State *L);

/* Lua functions: host.call, host.deadline, host.load. */
int sandbox_call(lua_State *L);
int sandbox_deadline(lua_State *L);
int sandbox_load(lua_State *L);

#endif
