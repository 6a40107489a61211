/* db_backup.c: online backup of a database that others write to meanwhile.
 * A worker thread copies a few pages at a time over connections of its own, so neither
 * the loop nor the handle is held up. It keeps no older copies. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "db.h"

#define BOX "lb.db.backup"
#define RESTARTS 3 /* by writers, before they have to wait for the copy */

enum phase { START, COPY, CHECK, DONE };

/* Freed by whoever lets go last: its box, or the worker. */
struct job {
	sqlite3 *from, *to;
	sqlite3_backup *backup;
	char *source, *target, *partial;
	bool readonly, held, made; /* made: `partial` is a file */
	int pages, copied, total, left, restarts;
	enum phase phase;
	bool busy; /* the last turn found the source locked */
	bool boxed, running;
	atomic_bool cancelled;
	struct lb_wait *waiter;
	char code[16], message[256]; /* of the failure; "" while there is none */
};

struct box {
	struct lb_wait wait;
	struct job *job;
	double busy_until;
	bool waiting; /* for the lock, not for the worker */
};

/* What the worker does */

static bool
failed(struct job *j, const char *code, const char *message)
{
	snprintf(j->code, sizeof j->code, "%s", code);
	snprintf(j->message, sizeof j->message, "%s", message);
	return false;
}

static bool
failed_errno(struct job *j, int errnum)
{
	char text[128];

	return failed(
	    j, db_code(SQLITE_IOERR, errnum), strerror_r(errnum, text, sizeof text));
}

static bool
failed_db(struct job *j, sqlite3 *db, int rc)
{
	int errnum = sqlite3_system_errno(db);

	return failed(j, db_code(rc, errnum), sqlite3_errmsg(db));
}

static int
on_progress(void *arg)
{
	struct job *j = arg;

	return atomic_load(&j->cancelled);
}

/* Keeps what the source holds now until the end of the copy. In WAL mode writers go on.
 */
static int
hold(struct job *j)
{
	int rc = sqlite3_exec(
	    j->from, "BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1", NULL, NULL, NULL);

	if (rc == SQLITE_OK)
		j->held = true;
	else if (!sqlite3_get_autocommit(j->from))
		sqlite3_exec(j->from, "ROLLBACK", NULL, NULL, NULL);
	return rc;
}

static int
on_journal_mode(void *arg, int n, char **values, char **names)
{
	bool *wal = arg;

	(void)names;
	*wal = n == 1 && values[0] != NULL && strcmp(values[0], "wal") == 0;
	return 0;
}

static int
open_source(struct job *j)
{
	int flags = j->readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE, rc;
	bool wal = false;

	if (j->from == NULL) {
		rc = sqlite3_open_v2(
		    j->source, &j->from, flags | SQLITE_OPEN_EXRESCODE, NULL);
		if (rc != SQLITE_OK)
			return rc;
	}
	rc = sqlite3_exec(j->from, "PRAGMA journal_mode", on_journal_mode, &wal, NULL);
	if (rc == SQLITE_OK && wal)
		rc = hold(j);
	return rc;
}

static bool
start(struct job *j)
{
	int rc = open_source(j), fd;

	if ((rc & 0xff) == SQLITE_BUSY) {
		j->busy = true;
		return true;
	}
	if (rc != SQLITE_OK)
		return failed_db(j, j->from, rc);
	if ((fd = mkostemp(j->partial, O_CLOEXEC)) < 0)
		return failed_errno(j, errno);
	j->made = true;
	close(fd);
	rc = sqlite3_open_v2(
	    j->partial, &j->to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_EXRESCODE, NULL);
	/* nobody reads it before it is whole and synced */
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(j->to,
		    "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return failed_db(j, j->to, rc);
	sqlite3_progress_handler(j->to, 1000, on_progress, j);
	if ((j->backup = sqlite3_backup_init(j->to, "main", j->from, "main")) == NULL)
		return failed_db(j, j->to, sqlite3_errcode(j->to));
	j->phase = COPY;
	return true;
}

static bool
copy(struct job *j)
{
	int rc = sqlite3_backup_step(j->backup, j->pages), left;

	if ((rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_LOCKED) {
		j->busy = true;
		return true;
	}
	if (rc != SQLITE_OK && rc != SQLITE_DONE) {
		sqlite3_backup_finish(j->backup); /* moves the error to the connection */
		j->backup = NULL;
		return failed_db(j, j->to, rc);
	}
	left = sqlite3_backup_remaining(j->backup);
	j->total = sqlite3_backup_pagecount(j->backup);
	j->copied = j->total - left;
	/* what was copied is no longer all of one moment: SQLite began again */
	if (j->left > 0 && left > j->left - j->pages && left > 0 &&
	    ++j->restarts >= RESTARTS && !j->held)
		hold(j);
	j->left = left;
	if (rc == SQLITE_DONE)
		j->phase = CHECK;
	return true;
}

static int
on_check(void *arg, int n, char **values, char **names)
{
	struct job *j = arg;

	(void)names;
	if (n == 1 && values[0] != NULL && strcmp(values[0], "ok") != 0 && !j->code[0])
		failed(j, "corrupt", values[0]);
	return 0;
}

/* The folder of the target is synced too, or the new name could be lost. */
static bool
sync_and_rename(struct job *j)
{
	char *slash = strrchr(j->target, '/');
	int fd, error = 0;

	if ((fd = open(j->partial, O_RDONLY | O_CLOEXEC)) < 0)
		return failed_errno(j, errno);
	if (fsync(fd) != 0)
		error = errno;
	close(fd);
	if (atomic_load(&j->cancelled))
		return failed(j, "interrupted", "interrupted");
	if (error == 0 && rename(j->partial, j->target) != 0)
		error = errno;
	if (error != 0)
		return failed_errno(j, error);
	j->made = false;
	if (slash != NULL)
		slash[slash == j->target] = '\0';
	fd = open(slash != NULL ? j->target : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0)
		error = errno;
	if (fd >= 0)
		close(fd);
	return error == 0 ? true : failed_errno(j, error);
}

static bool
check(struct job *j)
{
	int rc = sqlite3_backup_finish(j->backup);

	j->backup = NULL;
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(j->to, "PRAGMA integrity_check(1)", on_check, j, NULL);
	if (rc != SQLITE_OK && !j->code[0])
		failed_db(j, j->to, rc);
	if (j->code[0])
		return false;
	if ((rc = sqlite3_close(j->to)) != SQLITE_OK)
		return failed_db(j, j->to, rc);
	j->to = NULL;
	if (!sync_and_rename(j))
		return false;
	j->phase = DONE;
	return true;
}

static void
work(void *arg)
{
	struct job *j = arg;

	j->busy = false;
	if (j->phase == START && !start(j))
		return;
	if (j->phase == COPY && copy(j) && j->phase == CHECK)
		check(j);
}

/* Its end */

static void
drop(struct job *j)
{
	static const char *const suffixes[] = { "", "-journal", "-wal", "-shm" };
	char path[4096 + 16];

	if (j->boxed || j->running)
		return;
	if (j->backup != NULL)
		sqlite3_backup_finish(j->backup);
	sqlite3_close_v2(j->to);
	sqlite3_close_v2(j->from);
	for (size_t i = 0; i < 4 && j->made; i++) {
		snprintf(path, sizeof path, "%s%s", j->partial, suffixes[i]);
		unlink(path);
	}
	free(j->source);
	free(j->target);
	free(j->partial);
	free(j);
}

static void
done(void *arg)
{
	struct job *j = arg;

	j->running = false;
	if (j->waiter != NULL)
		lb_wake(j->waiter);
	drop(j);
}

static int
box_release(lua_State *L)
{
	struct box *b = luaL_checkudata(L, 1, BOX);
	struct job *j = b->job;

	lb_wait_drop(&b->wait);
	b->job = NULL;
	if (j == NULL)
		return 0;
	j->waiter = NULL;
	atomic_store(&j->cancelled, true);
	j->boxed = false;
	drop(j);
	return 0;
}

void
db_backup_open(lua_State *L)
{
	if (luaL_newmetatable(L, BOX)) {
		lua_pushcfunction(L, box_release);
		lua_setfield(L, -2, "__gc");
		lua_pushcfunction(L, box_release);
		lua_setfield(L, -2, "__close");
	}
	lua_pop(L, 1);
}

/* 1 the handle, 2 the path, 3 options, 4 the box, 5 the function for progress or nil */
static int
turn(lua_State *L, struct box *b, lua_KFunction k)
{
	if (!lb_work(L, work, done, b->job))
		return lb_fail(L, MODULE, "backup", "exhausted", "no worker thread");
	b->job->running = true;
	b->job->waiter = &b->wait;
	return lb_wait(L, &b->wait, -1, 0, k);
}

static int
backup_k(lua_State *L, int status, lua_KContext called)
{
	struct db *d = luaL_checkudata(L, 1, HANDLE);
	struct box *b = lua_touserdata(L, 4);
	struct job *j = b->job;

	lua_settop(L, 5);
	if (status == LUA_YIELD && !called && b->wait.why == LB_INTERRUPTED)
		return lb_fail_why(L, MODULE, "backup", LB_INTERRUPTED);
	if (b->waiting || called) {
		b->waiting = false;
		return turn(L, b, backup_k);
	}
	if (j->code[0] != '\0')
		return lb_fail(L, MODULE, "backup", j->code, "%s", j->message);
	if (j->busy) {
		if (b->busy_until == 0)
			b->busy_until = db_now() + d->busy;
		if (db_now() >= b->busy_until)
			return lb_fail(
			    L, MODULE, "backup", "busy", "the database is locked");
		b->waiting = true;
		return lb_wait(L, &b->wait, 0.02, 0, backup_k);
	}
	b->busy_until = 0;
	if (j->phase == DONE && lua_isnil(L, 5)) {
		lua_pushinteger(L, j->total);
		return 1;
	}
	if (lua_isnil(L, 5))
		return turn(L, b, backup_k);
	lua_pushvalue(L, 5);
	lua_pushinteger(L, j->copied);
	lua_pushinteger(L, j->total);
	if (j->phase == DONE) {
		lua_pushnil(L);
		lua_replace(L, 5);
	}
	lua_callk(L, 2, 0, j->phase != DONE, backup_k);
	return backup_k(L, LUA_OK, j->phase != DONE);
}

static char *
copy_of(lua_State *L, const char *text, const char *suffix)
{
	char *s = malloc(strlen(text) + strlen(suffix) + 1);

	if (s == NULL)
		luaL_error(L, "not enough memory");
	else
		strcat(strcpy(s, text), suffix);
	return s;
}

/* db:backup(path, { pages = 256, progress = fn(done, total) })
 *  Copies what is committed, `pages` at a time, while others write; every page is of one
 *  moment. The copy is checked, 0600, and takes the place of path at once when it is
 *  whole. Progress counts pages, and begins again when a writer makes the copy begin
 *  again (not in WAL mode; after three times writers have to wait).
 *  +-> pages
 *  +-> nil, err   (busy, corrupt, full, denied, not_found, interrupted, io)            */
int
db_backup(lua_State *L)
{
	static const char *const names[] = { "pages", "progress", NULL };
	struct db *d = db_check(L);
	struct box *b;
	struct job *j;
	const char *source = sqlite3_db_filename(d->db, "main");
	size_t len;
	int pages;

	lua_settop(L, 3);
	luaL_checktype(L, 2, LUA_TSTRING);
	lua_tolstring(L, 2, &len);
	luaL_argcheck(L, len > 0 && len < 4000 && strlen(lua_tostring(L, 2)) == len, 2,
	    "not a path");
	lb_opts(L, 3, names);
	pages = (int)lb_opt_integer(L, 3, "pages", 256, 1, 1 << 20);
	if (source == NULL || source[0] == '\0')
		return luaL_error(L, "a database in memory has no backup");
	if (db_in_transaction(L))
		return luaL_error(L, "a backup inside a transaction would not hold it");
	b = lua_newuserdatauv(L, sizeof *b, 0);
	*b = (struct box){ .job = NULL };
	luaL_setmetatable(L, BOX);
	lua_toclose(L, 4);
	if (lua_isnil(L, 3) || lua_getfield(L, 3, "progress") == LUA_TNIL)
		lua_settop(L, 4);
	else
		luaL_argcheck(
		    L, lua_isfunction(L, 5), 3, "option 'progress' must be a function");
	lua_settop(L, 5);
	if ((j = calloc(1, sizeof *j)) == NULL)
		return luaL_error(L, "not enough memory");
	b->job = j;
	j->boxed = true;
	j->pages = pages;
	j->readonly = d->readonly;
	j->source = copy_of(L, source, "");
	j->target = copy_of(L, lua_tostring(L, 2), "");
	j->partial = copy_of(L, lua_tostring(L, 2), ".XXXXXX");
	return turn(L, b, backup_k);
}
