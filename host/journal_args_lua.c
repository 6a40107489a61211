/* journal_args_lua.c: what the functions of the module `journal` share: their arguments,
 * which pass the masker, and their results. It knows no function of the journal's own. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "journal_args_lua.h"
#include "mask.h"
#include "secret.h"

struct journal *
args_journal(lua_State *L)
{
	struct args_box *b = luaL_checkudata(L, 1, ARGS_JOURNAL);

	if (b->j == NULL)
		luaL_error(L, "the journal is closed");
	return b->j;
}

int
args_fail(lua_State *L, struct journal *j, const char *op)
{
	const struct journal_error *e = journal_error(j);

	return lb_fail(L, ARGS_MODULE, op, e->code, "%s", e->message);
}

int
args_done(lua_State *L, struct journal *j, bool ok, const char *op)
{
	if (!ok)
		return args_fail(L, j, op);
	lua_pushboolean(L, 1);
	return 1;
}

/* Arguments */

struct sink {
	struct lb_buf *buf;
	bool ok;
};

static void
collect(void *arg, const char *data, size_t len)
{
	struct sink *s = arg;

	s->ok = s->ok && lb_buf_add(s->buf, data, len);
}

/* The string at idx as it may be stored; where the masker changes it, the masked one
 * takes its place on the stack. */
struct journal_text
args_masked(lua_State *L, int idx)
{
	struct args_box *b = lua_touserdata(L, 1);
	struct sink sink = { &b->masked, true };
	struct journal_text t;

	t.p = lua_tolstring(L, idx, &t.n);
	if (t.n == 0)
		return t;
	lb_buf_drop(&b->masked, b->masked.len);
	if (!mask_text(secret_masker(L), t.p, t.n, collect, &sink) || !sink.ok)
		luaL_error(L, "not enough memory");
	if (b->masked.len == t.n && memcmp(b->masked.data, t.p, t.n) == 0)
		return t;
	lua_pushlstring(L, b->masked.data, b->masked.len);
	lua_replace(L, idx);
	t.p = lua_tolstring(L, idx, &t.n);
	return t;
}

/* A name: not empty, no zero byte. */
const char *
args_name(lua_State *L, int idx)
{
	struct journal_text t;

	luaL_checktype(L, idx, LUA_TSTRING);
	t = args_masked(L, idx);
	luaL_argcheck(L, t.n != 0, idx, "must not be empty");
	luaL_argcheck(L, strlen(t.p) == t.n, idx, "holds a zero byte");
	return t.p;
}

const char *
args_opt_name(lua_State *L, int idx)
{
	return lua_isnoneornil(L, idx) ? NULL : args_name(L, idx);
}

struct journal_text
args_opt_text(lua_State *L, int idx)
{
	if (lua_isnoneornil(L, idx))
		return (struct journal_text){ NULL, 0 };
	luaL_checktype(L, idx, LUA_TSTRING);
	return args_masked(L, idx);
}

/* Pushes field `key` of the options at idx, masked, and leaves it on the stack so that it
 * lives as long as the call. */
struct journal_text
args_field(lua_State *L, int idx, const char *key)
{
	if (lua_isnoneornil(L, idx))
		return (struct journal_text){ NULL, 0 };
	luaL_checkstack(L, 4, "too many options");
	lua_pushstring(L, key);
	lua_rawget(L, idx);
	if (lua_isnil(L, -1))
		return (struct journal_text){ NULL, 0 };
	if (lua_type(L, -1) != LUA_TSTRING)
		luaL_argerror(L, idx,
		    lua_pushfstring(
			L, "'%s' must be a string, not a %s", key, luaL_typename(L, -1)));
	return args_masked(L, lua_gettop(L));
}

const char *
args_field_name(lua_State *L, int idx, const char *key)
{
	struct journal_text t = args_field(L, idx, key);

	if (t.p != NULL && strlen(t.p) != t.n)
		luaL_argerror(L, idx, lua_pushfstring(L, "'%s' holds a zero byte", key));
	return t.p;
}

const char *
args_need_name(lua_State *L, int idx, const char *key)
{
	const char *s = args_field_name(L, idx, key);

	if (s == NULL || *s == '\0')
		luaL_argerror(L, idx, lua_pushfstring(L, "'%s' is missing", key));
	return s;
}

long long
args_field_integer(lua_State *L, int idx, const char *key)
{
	lua_Integer v = lb_opt_integer(L, idx, key, LLONG_MIN, LLONG_MIN + 1, LLONG_MAX);

	return v == LLONG_MIN ? JOURNAL_NONE : v;
}

long long
args_need_integer(lua_State *L, int idx, const char *key)
{
	long long v = args_field_integer(L, idx, key);

	if (v == JOURNAL_NONE)
		luaL_argerror(L, idx, lua_pushfstring(L, "'%s' is missing", key));
	return v;
}

void
args_owner(lua_State *L, int idx, struct journal_owner *o)
{
	luaL_checktype(L, idx, LUA_TTABLE);
	o->pid = args_need_integer(L, idx, "pid");
	o->start_time = args_need_integer(L, idx, "start_time");
	o->boot_id = args_need_name(L, idx, "boot_id");
	o->host = args_need_name(L, idx, "host");
}

/* Results */

static void
push_row(lua_State *L, struct journal *j)
{
	struct journal_value v;
	int n = journal_columns(j);

	lua_createtable(L, 0, n);
	for (int i = 0; i < n; i++) {
		journal_value(j, i, &v);
		switch (v.type) {
		case JOURNAL_NULL:
			continue;
		case JOURNAL_BOOL:
			lua_pushboolean(L, v.i != 0);
			break;
		case JOURNAL_INT:
			lua_pushinteger(L, v.i);
			break;
		case JOURNAL_REAL:
			lua_pushnumber(L, v.r);
			break;
		case JOURNAL_TEXT:
			lua_pushlstring(L, v.text.p, v.text.n);
			break;
		}
		lua_setfield(L, -2, v.name);
	}
}

int
args_rows(lua_State *L, struct journal *j, bool ok, const char *op)
{
	int rc = -1;

	if (ok) {
		lua_newtable(L);
		for (lua_Integer i = 1; (rc = journal_next(j)) == 1; i++) {
			push_row(L, j);
			lua_rawseti(L, -2, i);
		}
	}
	return rc == 0 ? 1 : args_fail(L, j, op);
}

/* One row as a table, or nil alone when there is none. */
int
args_one_row(lua_State *L, struct journal *j, bool ok, const char *op)
{
	int rc = ok ? journal_next(j) : -1;

	if (rc < 0)
		return args_fail(L, j, op);
	if (rc == 0)
		lua_pushnil(L);
	else
		push_row(L, j);
	journal_done(j);
	return 1;
}

/* The texts of one row, or nil alone when there is none. */
int
args_texts(lua_State *L, struct journal *j, bool ok, const char *op)
{
	int rc = ok ? journal_next(j) : -1, n = rc == 1 ? journal_columns(j) : 1;
	struct journal_value v;

	if (rc < 0)
		return args_fail(L, j, op);
	for (int i = 0; i < n; i++) {
		v.text.p = NULL;
		if (rc == 1)
			journal_value(j, i, &v);
		if (v.text.p != NULL)
			lua_pushlstring(L, v.text.p, v.text.n);
		else
			lua_pushnil(L);
	}
	journal_done(j);
	return n;
}
