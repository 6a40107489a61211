/* journal_db.c: open the journal's file safely, run bound statements on it, translate
 * SQLite's failures. The only host file that names sqlite3. It knows no run and no step:
 * those are journal.c; the event chain is journal_chain.c. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include "digest.h"
#include "journal_db.h"

enum {
	APPLICATION = 0x6c62726e, /* "lbrn" */
	BUSY_MS = 5000,
	QUICK_CHECK_MAX = 1 << 20, /* bytes; larger files are checked by verify */
};

/* migration[n] leads from version n to n + 1. A released one is never edited. */
static const char *const migrations[] = {
	"CREATE TABLE meta(one INTEGER PRIMARY KEY CHECK(one = 1),"
	" seq INTEGER NOT NULL, head TEXT NOT NULL) STRICT;"
	"INSERT INTO meta VALUES(1, 0, '');"

	/* `state` is the digest of the row of `subject` ("table:n") after the event. */
	"CREATE TABLE events(seq INTEGER PRIMARY KEY, ts INTEGER NOT NULL,"
	" run TEXT NOT NULL, type TEXT NOT NULL, data TEXT NOT NULL,"
	" subject TEXT NOT NULL, state TEXT NOT NULL, hash TEXT NOT NULL) STRICT;"
	"CREATE INDEX events_run ON events(run, seq);"
	"CREATE INDEX events_subject ON events(subject, seq);"
	"CREATE TRIGGER events_update BEFORE UPDATE ON events BEGIN"
	" SELECT raise(ABORT, 'events are append-only'); END;"
	"CREATE TRIGGER events_delete BEFORE DELETE ON events BEGIN"
	" SELECT raise(ABORT, 'events are append-only'); END;"
	/* REPLACE deletes without asking the trigger above. */
	"CREATE TRIGGER events_insert BEFORE INSERT ON events"
	" WHEN NEW.seq <= (SELECT seq FROM meta) BEGIN"
	" SELECT raise(ABORT, 'events are append-only'); END;"

	"CREATE TABLE runs(n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT,"
	" runbook TEXT, section TEXT, subject TEXT, target TEXT, params TEXT,"
	" params_digest TEXT, options TEXT, request_id TEXT UNIQUE,"
	" parent TEXT REFERENCES runs(id), parent_step TEXT, interface INTEGER,"
	" steps_digest TEXT, closure TEXT NOT NULL, status TEXT NOT NULL,"
	" exit INTEGER, summary TEXT, created REAL NOT NULL);"
	"CREATE INDEX runs_parent ON runs(parent);"
	"CREATE INDEX runs_status ON runs(status);"

	"CREATE TABLE sources(sha256 TEXT PRIMARY KEY, size INTEGER NOT NULL,"
	" body BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE run_sources(n INTEGER PRIMARY KEY, run TEXT NOT NULL"
	" REFERENCES runs(id), path TEXT NOT NULL, sha256 TEXT NOT NULL"
	" REFERENCES sources(sha256), UNIQUE(run, path));"

	"CREATE TABLE steps(n INTEGER PRIMARY KEY, run TEXT NOT NULL REFERENCES runs(id),"
	" step TEXT NOT NULL, idx INTEGER NOT NULL, title TEXT, status TEXT NOT NULL,"
	" class TEXT, attempt INTEGER, message TEXT, started REAL NOT NULL,"
	" updated REAL NOT NULL, UNIQUE(run, step));"

	/* A row an attempt: what an attempt found and meant is never overwritten. */
	"CREATE TABLE effects(n INTEGER PRIMARY KEY, run TEXT NOT NULL"
	" REFERENCES runs(id), step TEXT NOT NULL, effect TEXT NOT NULL,"
	" attempt INTEGER NOT NULL, idx INTEGER, resource TEXT, status TEXT NOT NULL,"
	" intent TEXT, before TEXT, undoable BOOLEAN NOT NULL, output TEXT,"
	" message TEXT, started REAL NOT NULL, ended REAL,"
	" UNIQUE(run, step, effect, attempt));"

	"CREATE TABLE pins(n INTEGER PRIMARY KEY, run TEXT NOT NULL REFERENCES runs(id),"
	" target TEXT NOT NULL, json TEXT NOT NULL, UNIQUE(run, target));"
	"CREATE TABLE paths(n INTEGER PRIMARY KEY, target TEXT NOT NULL UNIQUE,"
	" url TEXT NOT NULL, json TEXT, proven REAL NOT NULL);"
	"CREATE TABLE fingerprints(n INTEGER PRIMARY KEY, run TEXT NOT NULL"
	" REFERENCES runs(id), name TEXT NOT NULL, hex TEXT NOT NULL, UNIQUE(run, name));"
	"CREATE TABLE leases(target TEXT PRIMARY KEY, run TEXT NOT NULL"
	" REFERENCES runs(id), pid INTEGER NOT NULL, start_time INTEGER NOT NULL,"
	" boot_id TEXT NOT NULL, host TEXT NOT NULL, ttl REAL NOT NULL,"
	" taken REAL NOT NULL, heartbeat REAL NOT NULL) WITHOUT ROWID;",

	"CREATE TABLE outbox(n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
	" run TEXT NOT NULL REFERENCES runs(id), step TEXT, call TEXT NOT NULL,"
	" method TEXT NOT NULL, url TEXT NOT NULL, path TEXT NOT NULL, body TEXT,"
	" token TEXT NOT NULL, fingerprint TEXT NOT NULL, status TEXT NOT NULL,"
	" attempts INTEGER NOT NULL, answered INTEGER, answer TEXT, error TEXT,"
	" created REAL NOT NULL, updated REAL NOT NULL);"
	"CREATE INDEX outbox_status ON outbox(status, n);"
	"CREATE INDEX outbox_run ON outbox(run);"
	/* Who is sending one now; like a heart's beat this is no part of the chain. */
	"CREATE TABLE outbox_claims(n INTEGER PRIMARY KEY REFERENCES outbox(n),"
	" boot_id TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,"
	" start_time INTEGER NOT NULL, until REAL NOT NULL);",
};
enum { VERSION = sizeof migrations / sizeof migrations[0] };

bool
journal_fail(struct journal *j, const char *code, const char *fmt, ...)
{
	va_list ap;

	snprintf(j->err.code, sizeof j->err.code, "%s", code);
	va_start(ap, fmt);
	vsnprintf(j->err.message, sizeof j->err.message, fmt, ap);
	va_end(ap);
	return false;
}

static bool
fail_errno(struct journal *j, const char *what, const char *path, int err)
{
	const char *code = "io";

	if (err == ENOENT || err == ENOTDIR)
		code = "not_found";
	else if (err == EACCES || err == EPERM || err == EISDIR || err == ELOOP ||
	    err == EROFS)
		code = "unreadable";
	else if (err == ENOSPC || err == EDQUOT)
		code = "full";
	return journal_fail(j, code, "cannot %s %s: %s", what, path, strerror(err));
}

/* Say what SQLite's last failure means to the user. */
static bool
fail_db(struct journal *j)
{
	int rc = sqlite3_errcode(j->db) & 0xff, err = sqlite3_system_errno(j->db);
	int extended = sqlite3_extended_errcode(j->db);
	const char *text = sqlite3_errmsg(j->db);

	if ((rc == SQLITE_IOERR || rc == SQLITE_CANTOPEN) &&
	    (err == ENOSPC || err == EDQUOT))
		rc = SQLITE_FULL;
	switch (rc) {
	case SQLITE_FULL:
		return journal_fail(j, "full",
		    "no space left for %s: nothing of this step was recorded; free some "
		    "space on its disk and go on with `lbrun resume`", j->path);
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return journal_fail(j, "corrupt",
		    "%s is damaged or not a journal (%s): keep the file, it was not "
		    "changed, and use another with --journal FILE", j->path, text);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return journal_fail(j, "busy",
		    "%s is in use by another process for more than %d s", j->path,
		    BUSY_MS / 1000);
	case SQLITE_READONLY:
		return journal_fail(j, j->readonly ? "readonly" : "unreadable",
		    "%s cannot be written (%s)", j->path, text);
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return journal_fail(j, "unreadable", "%s cannot be opened: %s", j->path,
		    err != 0 ? strerror(err) : text);
	case SQLITE_CONSTRAINT:
		if (extended == SQLITE_CONSTRAINT_FOREIGNKEY)
			return journal_fail(j, "not_found",
			    "%s: no such run", j->path);
		return journal_fail(j, "conflict", "%s: %s", j->path, text);
	case SQLITE_NOMEM:
		return journal_fail(j, "memory", "%s: out of memory", j->path);
	case SQLITE_TOOBIG:
		return journal_fail(j, "io", "%s: a text is too large", j->path);
	default:
		return journal_fail(j, "io", "%s: %s%s%s (%d)", j->path, text,
		    err != 0 ? ": " : "", err != 0 ? strerror(err) : "", extended);
	}
}

/* Statements */

void
journal_done(struct journal *j)
{
	if (j->cursor == NULL)
		return;
	sqlite3_reset(j->cursor);
	sqlite3_clear_bindings(j->cursor);
	j->cursor = NULL;
}

static sqlite3_stmt *
prepared(struct journal *j, const char *sql)
{
	sqlite3_stmt *stmt;

	for (size_t i = 0; i < j->ncache; i++)
		if (j->cache[i].sql == sql)
			return j->cache[i].stmt;
	if (j->ncache == JOURNAL_STATEMENTS) {
		journal_fail(j, "io", "too many statements");
		return NULL;
	}
	if (sqlite3_prepare_v3(j->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL) !=
	    SQLITE_OK) {
		fail_db(j);
		return NULL;
	}
	j->cache[j->ncache].sql = sql;
	j->cache[j->ncache++].stmt = stmt;
	return stmt;
}

static bool
bind(struct journal *j, sqlite3_stmt *stmt, const char *types, va_list ap)
{
	int rc = SQLITE_OK;

	for (int i = 1; *types != '\0' && rc == SQLITE_OK; i++, types++) {
		struct journal_text t;
		long long v;

		switch (*types) {
		case 's':
			t.p = va_arg(ap, const char *);
			rc = sqlite3_bind_text(stmt, i, t.p, -1, SQLITE_STATIC);
			break;
		case 't':
		case 'b':
			t = va_arg(ap, struct journal_text);
			if (*types == 't')
				rc = sqlite3_bind_text64(stmt, i, t.p, t.n, SQLITE_STATIC,
				    SQLITE_UTF8);
			else
				rc = sqlite3_bind_blob64(stmt, i, t.n != 0 ? t.p : "",
				    t.n, SQLITE_STATIC);
			break;
		case 'i':
			v = va_arg(ap, long long);
			rc = v == JOURNAL_NONE ? sqlite3_bind_null(stmt, i) :
			    sqlite3_bind_int64(stmt, i, v);
			break;
		default:
			rc = sqlite3_bind_double(stmt, i, va_arg(ap, double));
			break;
		}
	}
	return rc == SQLITE_OK ? true : fail_db(j);
}

int
journal_next(struct journal *j)
{
	int rc;

	if (j->cursor == NULL)
		return 0;
	rc = sqlite3_step(j->cursor);
	if (rc == SQLITE_ROW)
		return 1;
	if (rc != SQLITE_DONE)
		fail_db(j);
	journal_done(j);
	return rc == SQLITE_DONE ? 0 : -1;
}

static int
start(struct journal *j, const char *sql, const char *types, va_list ap)
{
	sqlite3_stmt *stmt;

	journal_done(j);
	stmt = prepared(j, sql);
	if (stmt == NULL)
		return -1;
	j->cursor = stmt;
	if (!bind(j, stmt, types, ap)) {
		journal_done(j);
		return -1;
	}
	return 0;
}

int
journal_sql(struct journal *j, const char *sql, const char *types, ...)
{
	va_list ap;
	int rc;

	va_start(ap, types);
	rc = start(j, sql, types, ap);
	va_end(ap);
	return rc == 0 ? journal_next(j) : rc;
}

bool
journal_do(struct journal *j, const char *sql, const char *types, ...)
{
	va_list ap;
	int rc;

	va_start(ap, types);
	rc = start(j, sql, types, ap);
	va_end(ap);
	if (rc == 0)
		rc = journal_next(j);
	journal_done(j);
	return rc >= 0;
}

bool
journal_rows(struct journal *j, const char *sql, const char *types, ...)
{
	va_list ap;
	int rc;

	va_start(ap, types);
	rc = start(j, sql, types, ap);
	va_end(ap);
	return rc == 0;
}

long long
journal_int(struct journal *j, int column)
{
	return j->cursor != NULL ? sqlite3_column_int64(j->cursor, column) : 0;
}

const char *
journal_str(struct journal *j, int column)
{
	const unsigned char *p =
	    j->cursor != NULL ? sqlite3_column_text(j->cursor, column) : NULL;

	return p != NULL ? (const char *)p : "";
}

int
journal_columns(struct journal *j)
{
	return j->cursor != NULL ? sqlite3_column_count(j->cursor) : 0;
}

void
journal_value(struct journal *j, int column, struct journal_value *v)
{
	sqlite3_stmt *s = j->cursor;
	const char *declared;

	memset(v, 0, sizeof *v);
	v->name = sqlite3_column_name(s, column);
	switch (sqlite3_column_type(s, column)) {
	case SQLITE_INTEGER:
		declared = sqlite3_column_decltype(s, column);
		v->type = declared != NULL && strcmp(declared, "BOOLEAN") == 0 ?
		    JOURNAL_BOOL : JOURNAL_INT;
		v->i = sqlite3_column_int64(s, column);
		return;
	case SQLITE_FLOAT:
		v->type = JOURNAL_REAL;
		v->r = sqlite3_column_double(s, column);
		return;
	case SQLITE_NULL:
		v->type = JOURNAL_NULL;
		return;
	default:
		v->type = JOURNAL_TEXT;
		v->text.p = sqlite3_column_blob(s, column);
		v->text.n = (size_t)sqlite3_column_bytes(s, column);
		if (v->text.p == NULL)
			v->text.p = "";
		return;
	}
}

long long
journal_changes(struct journal *j)
{
	return sqlite3_changes64(j->db);
}

long long
journal_rowid(struct journal *j)
{
	return sqlite3_last_insert_rowid(j->db);
}

/* Transactions */

bool
journal_begin(struct journal *j)
{
	if (j->readonly)
		return journal_fail(j, "readonly", "%s was opened to look only", j->path);
	/* After a failure nothing more is written: SQLite may have rolled back already,
	 * and a statement would be a commit of its own. Its error stands. */
	j->in_tx = j->held == HELD ||
	    (j->held == FREE && journal_do(j, "BEGIN IMMEDIATE", ""));
	return j->in_tx;
}

bool
journal_end(struct journal *j, bool ok)
{
	if (!j->in_tx)
		return false;
	j->in_tx = false;
	journal_done(j);
	if (j->held != FREE) {
		j->held = ok ? HELD : SPOILT;
		return ok;
	}
	if (ok && journal_do(j, "COMMIT", ""))
		return true;
	/* The failure to report is the one that led here; SQLite may have rolled back by
	 * itself already. */
	if (sqlite3_get_autocommit(j->db) == 0)
		sqlite3_exec(j->db, "ROLLBACK", NULL, NULL, NULL);
	return false;
}

bool
journal_hold(struct journal *j)
{
	if (!journal_begin(j))
		return false;
	j->in_tx = false;
	j->held = HELD;
	return true;
}

bool
journal_release(struct journal *j, bool ok)
{
	ok = ok && j->held == HELD;
	j->held = FREE;
	j->in_tx = true;
	return journal_end(j, ok);
}

bool
journal_held(const struct journal *j)
{
	return j->held != FREE;
}

bool
journal_look(struct journal *j)
{
	return j->held != FREE || journal_do(j, "BEGIN", "");
}

void
journal_looked(struct journal *j)
{
	journal_done(j);
	if (j->held == FREE)
		sqlite3_exec(j->db, "COMMIT", NULL, NULL, NULL);
}

/* What is hashed */

static bool
put_raw(struct journal *j, const void *data, size_t len)
{
	if (len > j->cap - j->nscratch) {
		size_t cap = j->cap != 0 ? j->cap : 4096;
		unsigned char *p;

		while (cap - j->nscratch < len)
			cap *= 2;
		p = realloc(j->scratch, cap);
		if (p == NULL)
			return journal_fail(j, "memory", "%s: out of memory", j->path);
		j->scratch = p;
		j->cap = cap;
	}
	if (len != 0)
		memcpy(j->scratch + j->nscratch, data, len);
	j->nscratch += len;
	return true;
}

bool
journal_put_int(struct journal *j, long long v)
{
	unsigned char b[8];

	for (int i = 0; i < 8; i++)
		b[i] = (unsigned char)((unsigned long long)v >> (56 - 8 * i));
	return put_raw(j, b, sizeof b);
}

bool
journal_put(struct journal *j, const void *data, size_t len)
{
	return journal_put_int(j, (long long)len) && put_raw(j, data, len);
}

/* A column that a later schema adds is NULL in old rows, and so leaves their digest. */
bool
journal_put_row(struct journal *j, int first, int end)
{
	struct journal_value v;
	bool ok = true;

	for (int i = first; i < end && ok; i++) {
		journal_value(j, i, &v);
		if (v.type == JOURNAL_NULL)
			continue;
		ok = journal_put(j, v.name, strlen(v.name));
		if (ok && v.type == JOURNAL_TEXT)
			ok = journal_put(j, v.text.p, v.text.n);
		else if (ok && v.type == JOURNAL_REAL)
			ok = journal_put(j, &v.r, sizeof v.r);
		else if (ok)
			ok = journal_put_int(j, v.i);
	}
	return ok;
}

bool
journal_digest(struct journal *j, char hex[65])
{
	unsigned char sum[LB_SHA256];
	bool ok = lb_sha256(j->scratch, j->nscratch, sum);

	j->nscratch = 0;
	lb_hex(sum, sizeof sum, hex);
	return ok ? true : journal_fail(j, "memory", "SHA-256 is not available");
}

long long
journal_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (long long)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* Opening */

char *
journal_default_path(void)
{
	const char *base = getenv("XDG_STATE_HOME"), *sub = "";
	char *path;

	if (base == NULL || base[0] != '/') {
		base = getenv("HOME");
		sub = "/.local/state";
	}
	if (base == NULL || base[0] != '/') {
		const struct passwd *pw = getpwuid(getuid());

		base = pw != NULL ? pw->pw_dir : NULL;
	}
	if (base == NULL ||
	    asprintf(&path, "%s%s/lbrun/journal.db", base, sub) < 0)
		return NULL;
	return path;
}

/* The default folder and what it stands in, each 0700. */
static bool
make_folder(struct journal *j)
{
	char *usual = journal_default_path();
	bool ok = true;

	if (usual == NULL || strcmp(usual, j->path) != 0) {
		free(usual);
		return true;
	}
	for (char *p = strchr(usual + 1, '/'); p != NULL && ok; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdir(usual, 0700) != 0 && errno != EEXIST)
			ok = fail_errno(j, "make folder", usual, errno);
		*p = '/';
	}
	free(usual);
	return ok;
}

/* The file exists with mode 0600 before SQLite sees it; SQLite gives -wal and -shm the
 * same mode. An existing file is looked at by stat alone: to open and close it here would
 * drop the locks of another handle of this process. */
static bool
claim(struct journal *j, unsigned flags)
{
	struct stat st;

	if ((flags & JOURNAL_CREATE) != 0 && !j->readonly) {
		int fd;

		if (!make_folder(j))
			return false;
		fd = open(j->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
		    0600);
		if (fd < 0 && errno != EEXIST)
			return fail_errno(j, "make the journal", j->path, errno);
		if (fd >= 0) {
			fchmod(fd, 0600); /* whatever the umask */
			close(fd);
		}
	}
	if (stat(j->path, &st) != 0)
		return fail_errno(j, "open the journal", j->path, errno);
	if (!S_ISREG(st.st_mode))
		return journal_fail(j, "unreadable", "the journal %s is not a plain file",
		    j->path);
	if (st.st_uid != geteuid())
		return journal_fail(j, "not_private",
		    "the journal %s belongs to user %lu: run as that user, or use "
		    "another with --journal FILE", j->path, (unsigned long)st.st_uid);
	if ((st.st_mode & 077) != 0)
		return journal_fail(j, "not_private",
		    "the journal %s can be read by others: chmod 600 %s", j->path,
		    j->path);
	return true;
}

static bool
pragma(struct journal *j, const char *sql, long long *v)
{
	int rc = journal_sql(j, sql, "");

	*v = rc == 1 ? journal_int(j, 0) : 0;
	journal_done(j);
	return rc >= 0;
}

/* Asked before the first write: a file that is not ours stays as it is. */
static bool
ours(struct journal *j, long long *version)
{
	long long app, tables;

	if (!pragma(j, "PRAGMA application_id", &app) ||
	    !pragma(j, "PRAGMA user_version", version) ||
	    !pragma(j, "SELECT count(*) FROM sqlite_schema", &tables))
		return false;
	if (app != APPLICATION && (app != 0 || *version != 0 || tables != 0))
		return journal_fail(j, "corrupt",
		    "%s is a database of another program: keep the file, it was not "
		    "changed, and use another with --journal FILE", j->path);
	if (*version > VERSION)
		return journal_fail(j, "newer",
		    "%s was written by a newer lbrun (format %lld, this one knows %d): "
		    "use that lbrun, or another file with --journal FILE", j->path,
		    *version,
		    (int)VERSION);
	if (j->readonly && *version == 0)
		return journal_fail(j, "not_found", "the journal %s is empty", j->path);
	if (j->readonly && *version < VERSION)
		return journal_fail(j, "readonly", "%s has the older format %lld: any "
		    "command that writes brings it forward", j->path, *version);
	return true;
}

static bool
migrate(struct journal *j, long long version)
{
	char sql[96];
	bool ok;

	if (version == VERSION)
		return true;
	if (!journal_begin(j))
		return false;
	/* Another process may have been quicker. */
	ok = pragma(j, "PRAGMA user_version", &version) && version <= VERSION;
	for (; ok && version < VERSION; version++) {
		snprintf(sql, sizeof sql, "PRAGMA application_id=%d; PRAGMA "
		    "user_version=%d", APPLICATION, (int)version + 1);
		if (sqlite3_exec(j->db, migrations[version], NULL, NULL, NULL) !=
		    SQLITE_OK || sqlite3_exec(j->db, sql, NULL, NULL, NULL) != SQLITE_OK)
			ok = fail_db(j);
	}
	return journal_end(j, ok);
}

static bool
checked(struct journal *j)
{
	struct stat st;
	bool ok = true;

	if (stat(j->path, &st) != 0 || st.st_size > QUICK_CHECK_MAX)
		return true;
	if (journal_sql(j, "PRAGMA quick_check(1)", "") != 1)
		return false;
	if (strcmp(journal_str(j, 0), "ok") != 0)
		ok = journal_fail(j, "corrupt",
		    "%s is damaged (%s): keep the file, it was not changed, and use "
		    "another with --journal FILE", j->path, journal_str(j, 0));
	journal_done(j);
	return ok;
}

/* Turning WAL on wants the file alone and does not wait by itself: another process that
 * makes the same journal now is given time. */
static bool
use_wal(struct journal *j)
{
	const struct timespec pause = { 0, 10000000 };
	int rc = SQLITE_BUSY;

	for (int i = 0; i < BUSY_MS / 10 && rc == SQLITE_BUSY; i++) {
		if (i != 0)
			nanosleep(&pause, NULL);
		rc = sqlite3_exec(j->db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);
	}
	return rc == SQLITE_OK ? true : fail_db(j);
}

static bool
opened(struct journal *j, unsigned flags)
{
	int mode = j->readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
	long long version;

	if (!claim(j, flags))
		return false;
	if (sqlite3_open_v2(j->path, &j->db, mode | SQLITE_OPEN_NOMUTEX |
	    SQLITE_OPEN_EXRESCODE, NULL) != SQLITE_OK)
		return j->db != NULL ? fail_db(j) :
		    journal_fail(j, "memory", "out of memory");
	sqlite3_busy_timeout(j->db, BUSY_MS);
	sqlite3_db_config(j->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(j->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	/* Until it is known to be a sound journal, closing it must not move its WAL. */
	sqlite3_db_config(j->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	if (!ours(j, &version) || (!j->readonly && !use_wal(j)))
		return false;
	if (sqlite3_exec(j->db, "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; "
	    "PRAGMA cell_size_check=ON", NULL, NULL, NULL) != SQLITE_OK)
		return fail_db(j);
	if (!migrate(j, version) || !checked(j))
		return false;
	sqlite3_db_config(j->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
	return true;
}

struct journal *
journal_open(const char *path, unsigned flags, struct journal_error *err)
{
	struct journal *j = calloc(1, sizeof *j);

	if (j != NULL)
		j->path = strdup(path);
	if (j == NULL || j->path == NULL) {
		free(j);
		snprintf(err->code, sizeof err->code, "memory");
		snprintf(err->message, sizeof err->message, "out of memory");
		return NULL;
	}
	j->readonly = (flags & JOURNAL_READONLY) != 0;
	if (opened(j, flags))
		return j;
	*err = j->err;
	journal_close(j);
	return NULL;
}

void
journal_close(struct journal *j)
{
	if (j == NULL)
		return;
	for (size_t i = 0; i < j->ncache; i++)
		sqlite3_finalize(j->cache[i].stmt);
	sqlite3_close(j->db);
	free(j->scratch);
	free(j->path);
	free(j);
}

const char *
journal_path(const struct journal *j)
{
	return j->path;
}

const struct journal_error *
journal_error(const struct journal *j)
{
	return &j->err;
}
