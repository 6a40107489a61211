/* journal_chain.c: the event chain of the journal. Every event's hash covers the event
 * before it and the digest of the state row it changed, so that neither the log nor the
 * state can be edited unnoticed. It decides nothing about runs. That the end was cut off
 * and the head set back shows only against a head that was printed before. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "digest.h"
#include "journal_db.h"

/* The state tables an event may name as "table:n", each row followed by the digest that
 * its last event recorded. */
static const struct {
	const char *name, *row, *all;
} state[] = {
#define STATE(t) { #t, "SELECT * FROM " #t " WHERE n = ?", \
	"SELECT s.*, (SELECT state FROM events WHERE subject = '" #t ":' || s.n" \
	" ORDER BY seq DESC LIMIT 1) FROM " #t " s ORDER BY n" }
	STATE(runs),
	STATE(steps),
	STATE(effects),
	STATE(pins),
	STATE(paths),
	STATE(fingerprints),
	STATE(outbox),
#undef STATE
};
enum { STATES = sizeof state / sizeof state[0] };

static struct journal_text
text(const char *s)
{
	return (struct journal_text){ s, strlen(s) };
}

static bool
hash_event(struct journal *j, const char *prev, long long seq, long long ts,
    const struct journal_text field[5], char hex[65])
{
	bool ok;

	j->nscratch = 0;
	ok = journal_put(j, prev, strlen(prev)) && journal_put_int(j, seq) &&
	    journal_put_int(j, ts);
	for (int i = 0; i < 5 && ok; i++)
		ok = journal_put(j, field[i].p, field[i].n);
	return ok && journal_digest(j, hex);
}

static bool
hash_state(struct journal *j, const char *table, long long n, char hex[65])
{
	for (size_t i = 0; i < STATES; i++) {
		if (strcmp(state[i].name, table) != 0)
			continue;
		if (journal_sql(j, state[i].row, "i", n) != 1)
			return false;
		j->nscratch = 0;
		return journal_put_row(j, 0, journal_columns(j)) &&
		    journal_digest(j, hex);
	}
	return journal_fail(j, "io", "no state table %s", table);
}

bool
journal_head(struct journal *j, char hex[65], long long *seq)
{
	int rc = journal_sql(j, "SELECT seq, head FROM meta", "");

	if (rc == 1) {
		*seq = journal_int(j, 0);
		snprintf(hex, 65, "%s", journal_str(j, 1));
	} else if (rc == 0)
		journal_fail(j, "chain", "%s has lost the head of its chain", j->path);
	journal_done(j);
	return rc == 1;
}

bool
journal_append(struct journal *j, const char *run, const char *type,
    struct journal_text data, const char *table, long long n)
{
	char prev[65], hex[65], digest[65] = "", subject[48] = "";
	long long seq, ts = journal_clock();
	struct journal_text field[5];

	if (table != NULL) {
		snprintf(subject, sizeof subject, "%s:%lld", table, n);
		if (!hash_state(j, table, n, digest))
			return false;
	}
	if (!journal_head(j, prev, &seq))
		return false;
	seq++;
	if (data.p == NULL)
		data = text("{}");
	field[0] = text(run);
	field[1] = text(type);
	field[2] = data;
	field[3] = text(subject);
	field[4] = text(digest);
	return hash_event(j, prev, seq, ts, field, hex) &&
	    journal_do(j, "INSERT INTO events VALUES(?, ?, ?, ?, ?, ?, ?, ?)", "iisstsss",
	    seq, ts, run, type, data, subject, digest, hex) &&
	    journal_do(j, "UPDATE meta SET seq = ?, head = ?", "is", seq, hex);
}

static bool
verify_events(struct journal *j, const char *wanted, char prev[65], long long *count)
{
	bool found = wanted == NULL;
	struct journal_text field[5];
	struct journal_value v;
	char hex[65];
	int rc;

	*count = 0;
	prev[0] = '\0';
	rc = journal_sql(j, "SELECT seq, ts, run, type, data, subject, state, hash "
	    "FROM events ORDER BY seq", "");
	for (; rc == 1; rc = journal_next(j)) {
		long long seq = journal_int(j, 0);

		if (seq != *count + 1)
			return journal_fail(j, "chain", "%s: event %lld is missing",
			    j->path, *count + 1);
		for (int i = 0; i < 5; i++) {
			journal_value(j, 2 + i, &v);
			field[i] = v.text;
		}
		if (!hash_event(j, prev, seq, journal_int(j, 1), field, hex))
			return false;
		if (strcmp(hex, journal_str(j, 7)) != 0)
			return journal_fail(j, "chain", "%s: event %lld was changed",
			    j->path, seq);
		memcpy(prev, hex, sizeof hex);
		found = found || strcasecmp(hex, wanted) == 0;
		*count = seq;
	}
	if (rc == 0 && !found)
		return journal_fail(j, "chain", "%s: no event has the hash %.64s: the "
		    "end of the chain was cut off, or the hash is of another journal",
		    j->path,
		    wanted);
	return rc == 0;
}

static bool
verify_state(struct journal *j, size_t i)
{
	long long events, rows = 0;
	char hex[65];
	int rc;

	for (rc = journal_sql(j, state[i].all, ""); rc == 1; rc = journal_next(j)) {
		int last = journal_columns(j) - 1;

		rows++;
		j->nscratch = 0;
		if (!journal_put_row(j, 0, last) || !journal_digest(j, hex))
			return false;
		if (strcmp(hex, journal_str(j, last)) != 0)
			return journal_fail(j, "chain",
			    "%s: row %lld of %s is not what its last event recorded",
			    j->path, journal_int(j, 0), state[i].name);
	}
	if (rc != 0 || journal_sql(j, "SELECT count(DISTINCT subject) FROM events WHERE "
	    "subject > ?1 || ':' AND subject < ?1 || ';'", "s", state[i].name) != 1)
		return false;
	events = journal_int(j, 0);
	journal_done(j);
	if (events != rows)
		return journal_fail(j, "chain",
		    "%s: %s has %lld rows where the events recorded %lld", j->path,
		    state[i].name, rows, events);
	return true;
}

/* The closure of a run is named by a digest in its row: every path with its source. */
static bool
verify_closures(struct journal *j)
{
	char id[128] = "", closure[65] = "", hex[65];
	long long n = 0; /* of the run whose sources are being gathered */
	bool ok = true;
	int rc;

	j->nscratch = 0;
	rc = journal_sql(j, "SELECT r.n, r.id, r.closure, s.path, b.sha256 FROM runs r "
	    "LEFT JOIN run_sources s ON s.run = r.id "
	    "LEFT JOIN sources b ON b.sha256 = s.sha256 ORDER BY r.n, s.path", "");
	do {
		bool more = rc == 1;

		if (n != 0 && (!more || journal_int(j, 0) != n)) {
			if (!journal_digest(j, hex))
				return false;
			if (strcmp(hex, closure) != 0)
				return journal_fail(j, "chain",
				    "%s: the stored sources of run %s were changed",
				    j->path, id);
		}
		if (!more)
			break;
		n = journal_int(j, 0);
		snprintf(id, sizeof id, "%s", journal_str(j, 1));
		snprintf(closure, sizeof closure, "%s", journal_str(j, 2));
		ok = journal_put_row(j, 3, 5);
		rc = journal_next(j);
	} while (ok);
	return ok && rc == 0;
}

static bool
verify_sources(struct journal *j)
{
	struct journal_value v;
	char hex[65];
	int rc;

	rc = journal_sql(j, "SELECT sha256, size, body FROM sources", "");
	for (; rc == 1; rc = journal_next(j)) {
		unsigned char sum[LB_SHA256];

		journal_value(j, 2, &v);
		if (!lb_sha256(v.text.p, v.text.n, sum))
			return journal_fail(j, "memory", "SHA-256 is not available");
		lb_hex(sum, sizeof sum, hex);
		if (strcmp(hex, journal_str(j, 0)) != 0 ||
		    (long long)v.text.n != journal_int(j, 1))
			return journal_fail(j, "chain", "%s: the stored source %s was "
			    "changed", j->path, journal_str(j, 0));
	}
	return rc == 0;
}

static bool
verify(struct journal *j, const char *wanted, long long *count)
{
	char head[65], recorded[65];
	long long seq;

	if (journal_sql(j, "PRAGMA quick_check(1)", "") != 1)
		return false;
	if (strcmp(journal_str(j, 0), "ok") != 0)
		return journal_fail(j, "corrupt",
		    "%s is damaged (%s): keep the file and use another with "
		    "--journal FILE", j->path, journal_str(j, 0));
	if (!verify_events(j, wanted, head, count) || !journal_head(j, recorded, &seq))
		return false;
	if (seq != *count || strcmp(head, recorded) != 0)
		return journal_fail(j, "chain",
		    "%s: the chain ends at event %lld, its head was event %lld", j->path,
		    *count, seq);
	for (size_t i = 0; i < STATES; i++)
		if (!verify_state(j, i))
			return false;
	return verify_closures(j) && verify_sources(j);
}

bool
journal_verify(struct journal *j, const char *head, long long *count)
{
	bool ok;

	if (!journal_look(j))
		return false;
	ok = verify(j, head, count);
	journal_looked(j);
	j->nscratch = 0;
	return ok;
}
