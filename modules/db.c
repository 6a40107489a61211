/* db.c: SQLite files for Lua: handles and transactions.
 * Statements are in db_statement.c, backups in db_backup.c. It runs no statement for
 * longer than the handle's timeout. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include "db.h"

#define GUARD "lb.db.transaction"
#define TIMEOUT 5.0
#define BUSY 5.0
#define OPS 1000 /* between two looks at the clock */

enum { OWNER = 1 }; /* user value: the task in a transaction */

/* Of one transaction: it rolls back whatever ends the call before the commit. */
struct guard {
	struct lb_wait wait;
	bool open, committing;
	int tries;
	double busy_until;
};

double
db_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

const char *
db_code(int rc, int errnum)
{
	switch (rc & 0xff) {
	case SQLITE_CONSTRAINT:
	case SQLITE_MISMATCH:
		return "constraint";
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return "busy";
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return "corrupt";
	case SQLITE_FULL:
		return "full";
	case SQLITE_READONLY:
		return "readonly";
	case SQLITE_INTERRUPT:
		return "timeout";
	case SQLITE_TOOBIG:
		return "too_large";
	case SQLITE_ERROR:
		return "syntax";
	default:
		break;
	}
	if (errnum == ENOENT || errnum == ENOTDIR)
		return "not_found";
	if (errnum == EACCES || errnum == EPERM || errnum == EROFS || errnum == EISDIR)
		return "denied";
	if (errnum == ENOSPC || errnum == EDQUOT)
		return "full";
	return "io";
}

/* nil and the error of what SQLite said last. */
int
db_fail(lua_State *L, struct db *d, const char *op, int rc)
{
	int errnum = sqlite3_system_errno(d->db);

	if ((rc & 0xff) == SQLITE_NOMEM)
		return luaL_error(L, "not enough memory");
	if ((rc & 0xff) == SQLITE_INTERRUPT && d->late)
		return lb_fail(
		    L, MODULE, op, "timeout", "the statement ran for longer than it may");
	return lb_fail(L, MODULE, op, db_code(rc, errnum), "%s", sqlite3_errmsg(d->db));
}

int
db_fail_taken(lua_State *L, const char *op)
{
	return lb_fail(
	    L, MODULE, op, "busy", "another task has a transaction open on this handle");
}

/* What SQLite calls. None of it touches Lua. */

static int
on_progress(void *arg)
{
	struct db *d = arg;

	if (db_now() < d->until)
		return 0;
	d->late = true;
	return 1;
}

/* A transaction that a statement's text began would be shared by all tasks that use the
 * handle meanwhile. */
static int
on_authorize(
    void *arg, int action, const char *a, const char *b, const char *c, const char *e)
{
	struct db *d = arg;

	(void)a;
	(void)b;
	(void)c;
	(void)e;
	if (d->own || (action != SQLITE_TRANSACTION && action != SQLITE_SAVEPOINT))
		return SQLITE_OK;
	d->refused = true;
	return SQLITE_DENY;
}

void
db_begin_slice(struct db *d, double seconds)
{
	d->late = false;
	d->until = db_now() + seconds;
}

static int
run_own(struct db *d, const char *sql)
{
	int rc;

	db_begin_slice(d, TIMEOUT_MAX);
	d->own = true;
	rc = sqlite3_exec(d->db, sql, NULL, NULL, NULL);
	d->own = false;
	return rc;
}

static bool
is_busy(int rc)
{
	return (rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_LOCKED;
}

/* A lock is asked for again after 1 ms and then ever longer, while there is time left. */
bool
db_may_wait(int rc, double *until, int *tries, double busy)
{
	if (!is_busy(rc))
		return false;
	if (*tries == 0)
		*until = db_now() + busy;
	return db_now() < *until;
}

double
db_pause(int *tries)
{
	int n = (*tries)++;

	return n < 6 ? 0.001 * (1 << n) : 0.05;
}

/* Handles */

struct db *
db_check(lua_State *L)
{
	struct db *d = luaL_checkudata(L, 1, HANDLE);

	if (d->db == NULL)
		luaL_error(L, "the database is closed");
	return d;
}

bool
db_in_transaction(lua_State *L)
{
	bool open = lua_getiuservalue(L, 1, OWNER) != LUA_TNIL;

	lua_pop(L, 1);
	return open;
}

bool
db_is_owner(lua_State *L)
{
	bool same;

	lua_getiuservalue(L, 1, OWNER);
	lua_pushthread(L);
	same = lua_rawequal(L, -1, -2);
	lua_pop(L, 2);
	return same;
}

static void
set_owner(lua_State *L, int idx, bool set)
{
	if (set)
		lua_pushthread(L);
	else
		lua_pushnil(L);
	lua_setiuservalue(L, idx, OWNER);
}

/* Does another task have a transaction open on this handle? */
bool
db_is_taken(lua_State *L)
{
	return db_in_transaction(L) && !db_is_owner(L);
}

/* db:close()
 *  +-> nothing   (again and again; an open transaction is rolled back)                 */
static int
db_close(lua_State *L)
{
	struct db *d = luaL_checkudata(L, 1, HANDLE);
	sqlite3 *db = d->db;

	if (db == NULL)
		return 0;
	if (!sqlite3_get_autocommit(db))
		run_own(d, "ROLLBACK");
	d->db = NULL;
	sqlite3_progress_handler(db, 0, NULL, NULL);
	sqlite3_set_authorizer(db, NULL, NULL);
	sqlite3_close_v2(db); /* a call that waits still has its statement */
	return 0;
}

static int
handle_tostring(lua_State *L)
{
	struct db *d = luaL_checkudata(L, 1, HANDLE);

	if (d->db == NULL)
		lua_pushliteral(L, "database (closed)");
	else
		lua_pushfstring(L, "database (%s)", sqlite3_db_filename(d->db, "main"));
	return 1;
}

static mode_t
check_mode(lua_State *L, int idx)
{
	const char *text = lb_opt_string(L, idx, "mode", "0600");
	char *end;
	long mode = strtol(text, &end, 8);

	if (text[0] != '0' || *end != '\0' || mode < 0 || mode > 0777)
		luaL_argerror(L, idx, "option 'mode' must be octal, like \"0600\"");
	return (mode_t)mode;
}

/* Makes the file if it is not there. Returns 0 or an errno. */
static int
create_file(const char *path, mode_t mode)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	int error;

	if (fd < 0)
		return errno == EEXIST ? 0 : errno;
	error = fchmod(fd, mode) == 0 ? 0 : errno;
	close(fd);
	return error;
}

/* db.open(path, { readonly = false, create = false, mode = "0600", timeout = 5,
 *     busy_timeout = 5 })
 *  A path of ":memory:" is a database of its own without a file. timeout: seconds that a
 *  statement may run (at most 8); busy_timeout: seconds that a call waits for a lock, in
 *  which other tasks go on.
 *  +-> db
 *  +-> nil, err   (not_found, denied, corrupt, is_directory, readonly, full, io)       */
static int
db_open(lua_State *L)
{
	static const char *const names[] = { "readonly", "create", "mode", "timeout",
		"busy_timeout", NULL };
	struct stat st;
	struct db *d;
	const char *path;
	size_t len;
	mode_t mode;
	double timeout, busy;
	bool readonly, create, memory;
	int rc, error;

	lua_settop(L, 2);
	luaL_checktype(L, 1, LUA_TSTRING);
	path = lua_tolstring(L, 1, &len);
	luaL_argcheck(L, len > 0 && strlen(path) == len, 1, "not a path");
	lb_opts(L, 2, names);
	readonly = lb_opt_boolean(L, 2, "readonly", false);
	create = lb_opt_boolean(L, 2, "create", false);
	mode = check_mode(L, 2);
	timeout = lb_opt_seconds(L, 2, "timeout", TIMEOUT);
	busy = lb_opt_seconds(L, 2, "busy_timeout", BUSY);
	luaL_argcheck(
	    L, timeout <= TIMEOUT_MAX, 2, "option 'timeout' is at most 8 seconds");
	luaL_argcheck(L, !(readonly && create), 2, "what is created is not readonly");
	memory = strcmp(path, ":memory:") == 0;
	d = lua_newuserdatauv(L, sizeof *d, 1);
	*d = (struct db){ .timeout = timeout, .busy = busy, .readonly = readonly };
	luaL_setmetatable(L, HANDLE);
	if (!memory) {
		/* never opened here when it exists: closing it would drop SQLite's locks
		 */
		if (create && (error = create_file(path, mode)) != 0)
			return lb_fail_errno(L, MODULE, "open", error);
		if (stat(path, &st) != 0)
			return lb_fail_errno(L, MODULE, "open", errno);
		if (S_ISDIR(st.st_mode))
			return lb_fail_errno(L, MODULE, "open", EISDIR);
		if (!S_ISREG(st.st_mode))
			return lb_fail(L, MODULE, "open", "io", "%s is not a file", path);
		if (path[0] != '/')
			path = lua_pushfstring(L, "./%s", path); /* and never a URI */
	}
	rc = sqlite3_open_v2(path, &d->db,
	    (readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) |
		(memory ? SQLITE_OPEN_MEMORY : 0) | SQLITE_OPEN_EXRESCODE,
	    NULL);
	if (d->db == NULL)
		return luaL_error(L, "not enough memory");
	if (rc == SQLITE_OK) {
		sqlite3_db_config(d->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
		sqlite3_db_config(d->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
		sqlite3_progress_handler(d->db, OPS, on_progress, d);
		rc = sqlite3_set_authorizer(d->db, on_authorize, d);
	}
	if (rc == SQLITE_OK)
		rc = run_own(d, "SELECT 1 FROM sqlite_schema LIMIT 1");
	/* a locked database is there, and its lock is the first statement's business */
	if (rc != SQLITE_OK && (rc & 0xff) != SQLITE_BUSY) {
		db_fail(L, d, "open", rc);
		sqlite3_close_v2(d->db);
		d->db = NULL;
		return 2;
	}
	lua_settop(L, 3);
	return 1;
}

/* Transactions. The guard rolls back whatever ends the call: an error, a cancelled task.
 */

static int
guard_release(lua_State *L)
{
	struct guard *g = luaL_checkudata(L, 1, GUARD);
	struct db *d;

	lb_wait_drop(&g->wait);
	if (!g->open)
		return 0;
	g->open = false;
	lua_getiuservalue(L, 1, 1);
	d = lua_touserdata(L, -1);
	set_owner(L, lua_gettop(L), false);
	if (d->db != NULL && !sqlite3_get_autocommit(d->db))
		run_own(d, "ROLLBACK");
	return 0;
}

static int
transaction_k(lua_State *L, int status, lua_KContext called)
{
	struct db *d = luaL_checkudata(L, 1, HANDLE);
	struct guard *g = lua_touserdata(L, 3);
	bool taken;
	int rc;

	if (called && !g->committing) {
		if (lua_gettop(L) == 3)
			lua_pushboolean(L, true);
		if (!lua_toboolean(L, 4) && !lua_isnoneornil(L, 5))
			return lua_gettop(L) - 3;
		g->committing = true;
		g->tries = 0;
	} else if (status == LUA_YIELD && g->wait.why == LB_INTERRUPTED) {
		return lb_fail_why(L, MODULE, "transaction", g->wait.why);
	}
	if (d->db == NULL)
		return lb_fail(
		    L, MODULE, "transaction", "closed", "the database was closed");
	if (called && sqlite3_get_autocommit(d->db))
		return lb_fail(L, MODULE, "transaction", "aborted",
		    "the transaction was rolled back by an earlier failure");
	taken = !called && db_is_taken(L);
	rc = taken ? SQLITE_BUSY :
		     run_own(d,
			 called          ? "COMMIT" :
			     d->readonly ? "BEGIN" :
					   "BEGIN IMMEDIATE");
	if (rc == SQLITE_OK && called) {
		g->open = false;
		set_owner(L, 1, false);
		return lua_gettop(L) - 3;
	}
	if (rc == SQLITE_OK) {
		g->open = true;
		set_owner(L, 1, true);
		lua_pushvalue(L, 2);
		lua_pushvalue(L, 1);
		lua_callk(L, 1, LUA_MULTRET, 1, transaction_k);
		return transaction_k(L, LUA_OK, 1);
	}
	if (!db_may_wait(rc, &g->busy_until, &g->tries, d->busy))
		return taken ? db_fail_taken(L, "transaction") :
			       db_fail(L, d, "transaction", rc);
	return lb_wait(L, &g->wait, db_pause(&g->tries), called, transaction_k);
}

/* db:transaction(fn)
 *  Calls fn(db) in a transaction, which may write from the start. Committed when fn
 *  returns; rolled back when it raises, returns nil, err, or its task is cancelled. fn
 * may wait; other tasks that use this handle meanwhile wait for its end.
 *  +-> results of fn, or true
 *  +-> nil, err   (as exec)                                                            */
static int
db_transaction(lua_State *L)
{
	struct guard *g;

	db_check(L);
	luaL_checktype(L, 2, LUA_TFUNCTION);
	lua_settop(L, 2);
	if (db_is_owner(L))
		return luaL_error(L, "a transaction is open already");
	g = lua_newuserdatauv(L, sizeof *g, 1);
	*g = (struct guard){ .open = false };
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, 3, 1);
	luaL_setmetatable(L, GUARD);
	lua_toclose(L, 3);
	return transaction_k(L, LUA_OK, 0);
}

/* The module */

void
db_metatable(lua_State *L, const char *name, lua_CFunction release)
{
	if (luaL_newmetatable(L, name)) {
		lua_pushcfunction(L, release);
		lua_setfield(L, -2, "__gc");
		lua_pushcfunction(L, release);
		lua_setfield(L, -2, "__close");
		lua_pushboolean(L, 0);
		lua_setfield(L, -2, "__metatable");
	}
	lua_pop(L, 1);
}

int luaopen_db(lua_State *L);

int
luaopen_db(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "open", db_open },
		{ "blob", db_blob },
		{ NULL, NULL },
	};
	static const luaL_Reg methods[] = {
		{ "exec", db_exec },
		{ "rows", db_rows },
		{ "one", db_one },
		{ "transaction", db_transaction },
		{ "backup", db_backup },
		{ "close", db_close },
		{ "__gc", db_close },
		{ "__close", db_close },
		{ "__tostring", handle_tostring },
		{ NULL, NULL },
	};

	db_metatable(L, GUARD, guard_release);
	db_backup_open(L);
	luaL_newlib(L, functions);
	db_push_null(L);
	lua_pushvalue(L, -1);
	lua_setfield(L, -3, "null");
	if (luaL_newmetatable(L, HANDLE)) {
		lua_pushvalue(L, -2);
		luaL_setfuncs(L, methods, 1);
		lua_pushvalue(L, -1);
		lua_setfield(L, -2, "__index");
		lua_pushliteral(L, "database");
		lua_setfield(L, -2, "__metatable");
	}
	lua_pop(L, 2);
	return 1;
}
