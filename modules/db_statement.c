/* db_statement.c: statements of SQLite for Lua, their parameters and rows.
 * It begins and ends no transaction. */
#include <math.h>
#include <string.h>

#include <sqlite3.h>

#include "db.h"

#define CALL "lb.db.call"
#define BLOB "lb.db.blob"
#define NULL_VALUE "db.null"

enum { SELF = 1, SQL, PARAMS, OPTS, BOX, RESULT };
enum kind { EXEC, ROWS, ONE };

/* One call that runs statements; it may wait for a lock in between. */
struct call {
	sqlite3_stmt *stmt;
	struct lb_wait wait;
	enum kind kind;
	size_t at; /* in the text: the next statement */
	int tries;
	double timeout, busy_until;
	sqlite3_int64 changes;
};

static const char *const ops[] = { "exec", "rows", "one" };

/* Values */

/* db.blob(bytes)
 *  +-> blob   (as a parameter it is stored as bytes; a string is stored as text)       */
int
db_blob(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TSTRING);
	lua_settop(L, 1);
	lua_newuserdatauv(L, 0, 1);
	lua_insert(L, 1);
	lua_setiuservalue(L, 1, 1);
	luaL_setmetatable(L, BLOB);
	return 1;
}

/* Binds the value on top of the stack to parameter i, and pops it. */
static int
bind_value(lua_State *L, sqlite3_stmt *stmt, int i, const char *name)
{
	const char *data;
	size_t len;
	int rc;

	switch (lua_type(L, -1)) {
	case LUA_TSTRING:
		data = lua_tolstring(L, -1, &len);
		rc = sqlite3_bind_text64(
		    stmt, i, data, len, SQLITE_TRANSIENT, SQLITE_UTF8);
		break;
	case LUA_TBOOLEAN:
		rc = sqlite3_bind_int(stmt, i, lua_toboolean(L, -1));
		break;
	case LUA_TNUMBER:
		if (lua_isinteger(L, -1)) {
			rc = sqlite3_bind_int64(stmt, i, lua_tointeger(L, -1));
			break;
		}
		if (isnan(lua_tonumber(L, -1)))
			return luaL_error(L,
			    "parameter %s is not a number (NaN), which "
			    "SQLite would store as null",
			    name);
		rc = sqlite3_bind_double(stmt, i, lua_tonumber(L, -1));
		break;
	default:
		if (luaL_testudata(L, -1, NULL_VALUE) != NULL) {
			rc = sqlite3_bind_null(stmt, i);
			break;
		}
		if (lua_isnil(L, -1))
			return luaL_error(
			    L, "parameter %s has no value (null is db.null)", name);
		if (luaL_testudata(L, -1, BLOB) == NULL)
			return luaL_error(L,
			    "parameter %s must be a string, a number, a boolean, "
			    "db.blob() or db.null, not a %s",
			    name, luaL_typename(L, -1));
		lua_getiuservalue(L, -1, 1);
		data = lua_tolstring(L, -1, &len);
		rc = len == 0 ? sqlite3_bind_zeroblob(stmt, i, 0) :
				sqlite3_bind_blob64(stmt, i, data, len, SQLITE_TRANSIENT);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return rc;
}

static bool
is_positional(const char *name)
{
	return name == NULL || name[0] == '?';
}

/* Raises for a key of the parameters at PARAMS that the statement does not name. */
static void
check_params(lua_State *L, sqlite3_stmt *stmt)
{
	int n = sqlite3_bind_parameter_count(stmt);
	lua_Integer k;
	const char *key;
	bool known;

	lua_pushnil(L);
	while (lua_next(L, PARAMS) != 0) {
		lua_pop(L, 1);
		known = false;
		if (lua_isinteger(L, -1)) {
			k = lua_tointeger(L, -1);
			known = k >= 1 && k <= n &&
			    is_positional(sqlite3_bind_parameter_name(stmt, (int)k));
		} else if (lua_type(L, -1) == LUA_TSTRING) {
			key = lua_tostring(L, -1);
			for (int i = 1; i <= n && !known; i++) {
				const char *name = sqlite3_bind_parameter_name(stmt, i);

				known =
				    !is_positional(name) && strcmp(name + 1, key) == 0;
			}
		}
		if (!known)
			luaL_error(L, "the statement has no parameter %s",
			    luaL_tolstring(L, -1, NULL));
	}
}

static void
push_named(lua_State *L, const char *name)
{
	lua_pushstring(L, name);
	lua_rawget(L, PARAMS);
}

static int
bind_all(lua_State *L, sqlite3_stmt *stmt)
{
	int n = sqlite3_bind_parameter_count(stmt), rc;
	const char *name, *shown;

	if (!lua_isnoneornil(L, PARAMS))
		check_params(L, stmt);
	for (int i = 1; i <= n; i++) {
		name = sqlite3_bind_parameter_name(stmt, i);
		shown = is_positional(name) ? lua_pushfstring(L, "%d", i) :
					      lua_pushstring(L, name);
		if (lua_isnoneornil(L, PARAMS))
			lua_pushnil(L);
		else if (is_positional(name))
			lua_rawgeti(L, PARAMS, i);
		else
			push_named(L, name + 1);
		if ((rc = bind_value(L, stmt, i, shown)) != SQLITE_OK)
			return rc;
		lua_pop(L, 1);
	}
	return SQLITE_OK;
}

static void
push_column(lua_State *L, sqlite3_stmt *stmt, int i)
{
	const void *data;

	switch (sqlite3_column_type(stmt, i)) {
	case SQLITE_INTEGER:
		lua_pushinteger(L, sqlite3_column_int64(stmt, i));
		break;
	case SQLITE_FLOAT:
		lua_pushnumber(L, sqlite3_column_double(stmt, i));
		break;
	case SQLITE_NULL:
		lua_pushvalue(L, lua_upvalueindex(1));
		break;
	case SQLITE_TEXT:
		if ((data = sqlite3_column_text(stmt, i)) == NULL)
			luaL_error(L, "not enough memory");
		lua_pushlstring(L, data, (size_t)sqlite3_column_bytes(stmt, i));
		break;
	default:
		data = sqlite3_column_blob(stmt, i);
		lua_pushlstring(
		    L, data == NULL ? "" : data, (size_t)sqlite3_column_bytes(stmt, i));
	}
}

static void
push_row(lua_State *L, sqlite3_stmt *stmt)
{
	int n = sqlite3_column_count(stmt);

	luaL_checkstack(L, 6, NULL);
	lua_createtable(L, 0, n);
	for (int i = 0; i < n; i++) {
		lua_pushstring(L, sqlite3_column_name(stmt, i));
		lua_pushvalue(L, -1);
		if (lua_rawget(L, -3) != LUA_TNIL)
			luaL_error(L, "two columns of the result are named %s",
			    lua_tostring(L, -2));
		lua_pop(L, 1);
		push_column(L, stmt, i);
		lua_rawset(L, -3);
	}
}

/* Statements */

static int
call_release(lua_State *L)
{
	struct call *c = luaL_checkudata(L, 1, CALL);

	lb_wait_drop(&c->wait);
	sqlite3_finalize(c->stmt);
	c->stmt = NULL;
	return 0;
}

/* One of a call with parameters or rows is alone. */
static void
check_alone(lua_State *L, struct db *d, const char *rest)
{
	sqlite3_stmt *more = NULL;
	int rc = sqlite3_prepare_v2(d->db, rest, -1, &more, NULL);

	sqlite3_finalize(more);
	if (rc != SQLITE_OK || more != NULL)
		luaL_error(
		    L, "one statement only: with parameters, and where rows are read");
}

/* Prepares the next statement and binds it. c->stmt stays NULL at the end of the text. */
static int
prepare(lua_State *L, struct db *d, struct call *c)
{
	const char *sql = lua_tostring(L, SQL), *tail;
	int rc;

	while (c->stmt == NULL && sql[c->at] != '\0') {
		d->refused = false;
		db_begin_slice(d, c->timeout);
		rc = sqlite3_prepare_v2(d->db, sql + c->at, -1, &c->stmt, &tail);
		if (d->refused)
			return luaL_error(L,
			    "transactions are begun and ended by "
			    "db:transaction(), not by a statement");
		if (rc != SQLITE_OK)
			return rc;
		c->at = (size_t)(tail - sql);
	}
	if (c->stmt == NULL)
		return SQLITE_OK;
	if (c->kind != EXEC || lua_istable(L, PARAMS))
		check_alone(L, d, sql + c->at);
	return bind_all(L, c->stmt);
}

/* Runs the statement to its end, or to the first row where one is wanted. */
static int
step(lua_State *L, struct db *d, struct call *c)
{
	sqlite3_int64 before = sqlite3_total_changes64(d->db);
	lua_Integer n = 0;
	int rc;

	db_begin_slice(d, c->timeout);
	if (c->kind == ROWS) {
		lua_settop(L, RESULT - 1);
		lua_newtable(L);
	}
	while ((rc = sqlite3_step(c->stmt)) == SQLITE_ROW) {
		if (c->kind == EXEC)
			continue;
		push_row(L, c->stmt);
		if (c->kind == ONE)
			break;
		lua_rawseti(L, RESULT, ++n);
	}
	c->changes += sqlite3_total_changes64(d->db) - before;
	return rc;
}

static int
finish(lua_State *L, struct db *d, struct call *c)
{
	switch (c->kind) {
	case EXEC:
		lua_pushinteger(L, c->changes);
		lua_pushinteger(L, sqlite3_last_insert_rowid(d->db));
		return 2;
	case ROWS:
		return 1;
	default:
		if (lua_gettop(L) < RESULT)
			lua_pushnil(L);
		return 1;
	}
}

static int
query_k(lua_State *L, int status, lua_KContext ctx)
{
	struct db *d = luaL_checkudata(L, SELF, HANDLE);
	struct call *c = lua_touserdata(L, BOX);
	const char *op = ops[c->kind];
	bool taken;
	int rc;

	(void)ctx;
	if (d->db == NULL)
		return lb_fail(L, MODULE, op, "closed", "the database was closed");
	if (status == LUA_YIELD && c->wait.why == LB_INTERRUPTED)
		return lb_fail_why(L, MODULE, op, c->wait.why);
	taken = db_is_taken(L);
	for (;;) {
		if (db_is_owner(L) && sqlite3_get_autocommit(d->db))
			return lb_fail(L, MODULE, op, "aborted",
			    "the transaction was rolled back by an earlier failure");
		rc = taken ? SQLITE_BUSY : c->stmt == NULL ? prepare(L, d, c) : SQLITE_OK;
		if (rc == SQLITE_OK && c->stmt == NULL) {
			if (c->kind == EXEC)
				return finish(L, d, c);
			return luaL_error(L, "there is no statement in the text");
		}
		if (rc == SQLITE_OK)
			rc = step(L, d, c);
		if (rc == SQLITE_DONE || rc == SQLITE_ROW) {
			sqlite3_finalize(c->stmt);
			c->stmt = NULL;
			c->tries = 0;
			if (c->kind != EXEC)
				return finish(L, d, c);
			continue;
		}
		if (!db_may_wait(rc, &c->busy_until, &c->tries, d->busy))
			return taken ? db_fail_taken(L, op) : db_fail(L, d, op, rc);
		if (c->stmt != NULL)
			sqlite3_reset(c->stmt);
		return lb_wait(L, &c->wait, db_pause(&c->tries), 0, query_k);
	}
}

static int
query(lua_State *L, enum kind kind)
{
	static const char *const names[] = { "timeout", NULL };
	struct db *d = db_check(L);
	struct call *c;
	size_t len;

	lua_settop(L, OPTS);
	luaL_checktype(L, SQL, LUA_TSTRING);
	lua_tolstring(L, SQL, &len);
	luaL_argcheck(L, strlen(lua_tostring(L, SQL)) == len, SQL, "holds a zero byte");
	if (!lua_isnil(L, PARAMS))
		luaL_checktype(L, PARAMS, LUA_TTABLE);
	lb_opts(L, OPTS, names);
	c = lua_newuserdatauv(L, sizeof *c, 0);
	*c = (struct call){ .kind = kind };
	luaL_setmetatable(L, CALL);
	lua_toclose(L, BOX);
	c->timeout = lb_opt_seconds(L, OPTS, "timeout", d->timeout);
	luaL_argcheck(
	    L, c->timeout <= TIMEOUT_MAX, OPTS, "option 'timeout' is at most 8 seconds");
	return query_k(L, LUA_OK, 0);
}

/* db:exec(sql, params, { timeout = seconds })
 *  params: a list for `?`, names for `:name`. Strings are text, db.blob() bytes, db.null
 *  null, booleans 1 and 0. Without params the text may hold many statements, which are
 *  one transaction only inside db:transaction().
 *  +-> changes, last_id   (rows changed, by triggers too; the last row id inserted)
 *  +-> nil, err   (constraint, busy, corrupt, full, readonly, syntax, timeout, aborted,
 *                 closed, interrupted, too_large, io)                                  */
int
db_exec(lua_State *L)
{
	return query(L, EXEC);
}

/* db:rows(sql, params, { timeout = seconds })
 *  +-> list   (of tables by column name: integers, floats, strings, db.null)
 *  +-> nil, err   (as exec)                                                            */
int
db_rows(lua_State *L)
{
	return query(L, ROWS);
}

/* db:one(sql, params, { timeout = seconds })
 *  +-> row        (the first one)
 *  +-> nil        (there is none)
 *  +-> nil, err   (as exec)                                                            */
int
db_one(lua_State *L)
{
	return query(L, ONE);
}

static int
null_tostring(lua_State *L)
{
	lua_pushliteral(L, "null");
	return 1;
}

/* Leaves db.null, and makes the metatables of this file. */
void
db_push_null(lua_State *L)
{
	db_metatable(L, CALL, call_release);
	lua_newuserdatauv(L, 0, 0);
	if (luaL_newmetatable(L, NULL_VALUE)) {
		lua_pushcfunction(L, null_tostring);
		lua_setfield(L, -2, "__tostring");
		lua_pushboolean(L, 0);
		lua_setfield(L, -2, "__metatable");
	}
	lua_setmetatable(L, -2);
	if (luaL_newmetatable(L, BLOB)) {
		lua_pushboolean(L, 0);
		lua_setfield(L, -2, "__metatable");
	}
	lua_pop(L, 1);
}
