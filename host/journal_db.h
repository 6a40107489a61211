/* journal_db.h: the journal's file as a database, private to the journal_*.c files.
 * It names no SQL library: sqlite3 is known to journal_db.c alone. */
#ifndef JOURNAL_DB_H
#define JOURNAL_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "journal_read.h"

struct sqlite3;
struct sqlite3_stmt;

enum { JOURNAL_STATEMENTS = 128 };

struct journal {
	struct sqlite3 *db;
	char *path;
	bool readonly, in_tx;
	enum { FREE, HELD, SPOILT } held; /* SPOILT: a change failed, none is kept */
	struct journal_error err;
	struct sqlite3_stmt *cursor; /* the one statement that may be between rows */
	struct {
		const char *sql; /* by address: every statement is one literal */
		struct sqlite3_stmt *stmt;
	} cache[JOURNAL_STATEMENTS];
	size_t ncache;
	unsigned char *scratch; /* what is being hashed */
	size_t nscratch, cap;
};

/* Remember a failure; always false. `fmt` is the host's own literal. */
bool journal_fail(struct journal *j, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Run the SQL literal with bound values, and end whatever ran before. `types` has a
 * letter a value: s const char * (NULL binds NULL), t struct journal_text, i long long
 * (JOURNAL_NONE binds NULL), r double. 1 a row stands, 0 the end, -1 failure. */
int journal_sql(struct journal *j, const char *sql, const char *types, ...);
bool journal_do(struct journal *j, const char *sql, const char *types, ...); /* no rows */
/* Bind only: the rows are taken by journal_next. */
bool journal_rows(struct journal *j, const char *sql, const char *types, ...);
long long journal_int(struct journal *j, int column);
/* "" when NULL; lives until the next call */
const char *journal_str(struct journal *j, int column);
long long journal_changes(struct journal *j);
long long journal_rowid(struct journal *j);

/* A write transaction, begun at once so that it never fails half-way for a lock.
 * journal_end commits when ok, else rolls back, and says whether it is on disk. */
bool journal_begin(struct journal *j);
bool journal_end(struct journal *j, bool ok);
/* One snapshot for many reads. */
bool journal_look(struct journal *j);
void journal_looked(struct journal *j);

/* What is hashed, gathered in the scratch buffer: length-prefixed, so that no two
 * different lists of fields give the same bytes. */
bool journal_put(struct journal *j, const void *data, size_t len);
bool journal_put_int(struct journal *j, long long v);
/* names and values of the current row's columns that are not NULL, from `first` on */
bool journal_put_row(struct journal *j, int first, int end);
bool journal_digest(struct journal *j, char hex[65]); /* and empties the buffer */

long long journal_clock(void); /* microseconds of wall time */

/* journal.c: whether that process of this machine has ended. Of another machine's it is
 * never known. */
bool journal_owner_gone(const struct journal_owner *o, const struct journal_owner *me);

/* journal_chain.c: append the event of a change inside a transaction. `table` and `n`
 * name the state row that was changed (NULL: none). */
bool journal_append(struct journal *j, const char *run, const char *type,
    struct journal_text data, const char *table, long long n);

#endif
