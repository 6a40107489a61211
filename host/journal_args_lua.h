/* journal_args_lua.h: arguments and results of the module `journal`, for its files.
 * Every text is masked before it is stored or looked up. */
#ifndef JOURNAL_ARGS_LUA_H
#define JOURNAL_ARGS_LUA_H

#include "journal_read.h"
#include "lb.h"

#define ARGS_MODULE "journal"
#define ARGS_JOURNAL "lb.journal"

struct args_box {
	struct journal *j; /* NULL once closed */
	struct lb_buf masked;
};

/* The open journal at 1, or an error is raised. */
struct journal *args_journal(lua_State *L);

/* Arguments: a name is not empty and has no zero byte; where the masker changes a text,
 * the masked one takes its place on the stack. */
struct journal_text args_masked(lua_State *L, int idx);
const char *args_name(lua_State *L, int idx);
const char *args_opt_name(lua_State *L, int idx);
struct journal_text args_opt_text(lua_State *L, int idx);

/* Fields of the options at idx: pushed, so that they live as long as the call. */
struct journal_text args_field(lua_State *L, int idx, const char *key);
const char *args_field_name(lua_State *L, int idx, const char *key);
const char *args_need_name(lua_State *L, int idx, const char *key);
long long args_field_integer(lua_State *L, int idx, const char *key);
long long args_need_integer(lua_State *L, int idx, const char *key);
void args_owner(lua_State *L, int idx, struct journal_owner *o);

/* Results: each pushes what the function returns, and gives its count. */
int args_fail(lua_State *L, struct journal *j, const char *op);
int args_done(lua_State *L, struct journal *j, bool ok, const char *op);
int args_rows(lua_State *L, struct journal *j, bool ok, const char *op);
int args_one_row(lua_State *L, struct journal *j, bool ok, const char *op);
int args_texts(lua_State *L, struct journal *j, bool ok, const char *op);

/* journal_outbox_lua.c: the methods of the outbox, put into the table on top. */
void args_outbox_methods(lua_State *L);

#endif
