/* journal_read.h: rows of the journal. It knows no Lua and changes nothing. */
#ifndef JOURNAL_READ_H
#define JOURNAL_READ_H

#include "journal.h"

/* One cell of the current row; name is the column's. */
struct journal_value {
	enum { JOURNAL_NULL, JOURNAL_BOOL, JOURNAL_INT, JOURNAL_REAL, JOURNAL_TEXT } type;
	const char *name;
	long long i;
	double r;
	struct journal_text text;
};

/* Queries: each opens the one cursor of the journal. journal_next: 1 a row, 0 the end,
 * -1 failure; texts live until the next call. journal_done gives the snapshot back. */
enum journal_query {
	JOURNAL_STEPS, /* run */
	JOURNAL_EFFECTS, /* run, step or NULL */
	JOURNAL_SOURCES, /* run */
	JOURNAL_SOURCE, /* run, path */
	JOURNAL_PIN, /* run, target */
	JOURNAL_FINGERPRINT, /* run, name */
	JOURNAL_PROVEN, /* target, NULL */
	JOURNAL_LEASE, /* target, NULL */
	JOURNAL_REQUEST, /* request id, NULL */
};
bool journal_query(struct journal *j, enum journal_query q, const char *a, const char *b);
bool journal_runs(struct journal *j, const char *status, const char *target,
    const char *parent, long long limit);
bool journal_run(struct journal *j, const char *id_or_prefix);
bool journal_events(struct journal *j, const char *run, long long after, long long limit);
int journal_next(struct journal *j);
int journal_columns(struct journal *j);
void journal_value(struct journal *j, int column, struct journal_value *v);
void journal_done(struct journal *j);

#endif
