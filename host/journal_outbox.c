/* journal_outbox.c: the outbox: what the Hub is to be told, entered before it is sent and
 * settled by its answer. Two processes never send one entry at the same time. It speaks
 * to no Hub and decides nothing about an answer. */
#include <string.h>

#include "journal_db.h"
#include "journal_outbox.h"

#define ROW "SELECT o.id, o.run, o.step, o.call, o.method, o.url, o.path, o.body, " \
	"o.token, o.fingerprint, o.status, o.attempts, o.answered, o.answer, o.error, " \
	"o.created, o.updated, o.n, r.subject FROM outbox o JOIN runs r ON r.id = o.run "

#define MATCH "o.id = ?1 OR (substr(o.id, 1, length(?1)) = ?1 AND ?1 <> '' AND " \
	"NOT EXISTS (SELECT 1 FROM outbox WHERE id = ?1))"

static double
now(void)
{
	return (double)journal_clock() / 1e6;
}

/* The row n of the outbox was changed: the event says what is in it now. */
static bool
record(struct journal *j, long long n, const char *type)
{
	struct journal_text data;
	char run[128], json[8192];

	if (journal_sql(j,
		"SELECT run, json_object('id', id, 'step', step, 'call', call, "
		"'status', status, 'attempts', attempts, 'answered', answered, "
		"'error', substr(error, 1, 500)) FROM outbox WHERE n = ?",
		"i", n) != 1)
		return false;
	strncpy(run, journal_str(j, 0), sizeof run - 1);
	run[sizeof run - 1] = '\0';
	data.n = strlen(journal_str(j, 1));
	if (data.n >= sizeof json)
		return journal_fail(j, "io", "an entry of the outbox is too long");
	memcpy(json, journal_str(j, 1), data.n + 1);
	data.p = json;
	journal_done(j);
	return journal_append(j, run, type, data, "outbox", n);
}

/* Begin a change of an entry, which must exist. Gives its n and whether it is open. */
static bool
begin(struct journal *j, const char *id, long long *n, bool *open)
{
	int rc;

	*n = 0;
	*open = false;
	if (!journal_begin(j))
		return false;
	rc =
	    journal_sql(j, "SELECT n, status = 'open' FROM outbox WHERE id = ?", "s", id);
	if (rc == 1) {
		*n = journal_int(j, 0);
		*open = journal_int(j, 1) != 0;
	} else if (rc == 0)
		journal_fail(j, "not_found", "%s has no report %s", j->path, id);
	journal_done(j);
	return rc == 1 ? true : journal_end(j, false);
}

bool
journal_outbox_add(struct journal *j, const struct journal_report *r, bool *existing)
{
	double t = now();
	bool ok;
	int rc;

	*existing = false;
	if (!journal_begin(j))
		return false;
	rc = journal_sql(j, "SELECT 1 FROM outbox WHERE id = ?", "s", r->id);
	journal_done(j);
	if (rc != 0) {
		*existing = rc == 1;
		journal_end(j, false);
		return rc == 1;
	}
	ok = journal_do(j, "INSERT INTO outbox(id, run, step, call, method, url, path, "
	    "body, token, fingerprint, status, attempts, created, updated) "
	    "VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open', 0, ?, ?)", "ssssssstssrr",
	    r->id, r->run, r->step, r->call, r->method, r->url, r->path, r->body,
	    r->token, r->fingerprint, t, t);
	return journal_end(j, ok && record(j, journal_rowid(j), "outbox.add"));
}

/* 1: somebody has it, or it must wait for an older one; 0: it may be claimed; -1 failure.
 */
static int
taken(struct journal *j, const char *id, long long n, const struct journal_owner *o)
{
	struct journal_owner other;
	int rc;

	rc = journal_sql(j, "SELECT 1 FROM outbox a JOIN outbox b ON b.n < a.n AND "
	    "b.status = 'open' AND b.url = a.url AND b.path = a.path AND "
	    "b.fingerprint = a.fingerprint WHERE a.n = ? LIMIT 1", "i", n);
	journal_done(j);
	if (rc == 1)
		journal_fail(j, "locked", "an older report for the same address waits");
	if (rc != 0)
		return rc;
	rc = journal_sql(j, "SELECT boot_id, host, pid, start_time FROM outbox_claims "
	    "WHERE n = ? AND until > ?", "ir", n, now());
	if (rc == 1) {
		other = (struct journal_owner){ journal_str(j, 0), journal_str(j, 1),
			journal_int(j, 2), journal_int(j, 3) };
		if (journal_owner_gone(&other, o))
			rc = 0;
		else
			journal_fail(j, "locked", "report %s is being sent by process "
			    "%lld of %s", id, other.pid, other.host);
	}
	journal_done(j);
	return rc;
}

bool
journal_outbox_claim(struct journal *j, const char *id, const struct journal_owner *o,
    double ttl)
{
	long long n;
	bool open, ok;

	if (!begin(j, id, &n, &open))
		return false;
	if (!open)
		journal_fail(j, "conflict", "report %s does not wait any more", id);
	ok = open && taken(j, id, n, o) == 0;
	ok = ok && journal_do(j, "INSERT OR REPLACE INTO outbox_claims(n, boot_id, host, "
	    "pid, start_time, until) VALUES(?, ?, ?, ?, ?, ?)", "issiir", n, o->boot_id,
	    o->host, o->pid, o->start_time, now() + ttl) &&
	    journal_do(j, "UPDATE outbox SET attempts = attempts + 1, updated = ? "
	    "WHERE n = ?", "ri", now(), n) && record(j, n, "outbox.send");
	return journal_end(j, ok);
}

bool
journal_outbox_end(struct journal *j, const char *id, const struct journal_owner *o,
    const char *status, long long answered, struct journal_text answer,
    struct journal_text error)
{
	long long n;
	bool open, ok;

	if (!begin(j, id, &n, &open))
		return false;
	ok = journal_do(j, "DELETE FROM outbox_claims WHERE n = ? AND boot_id = ? AND "
	    "pid = ? AND start_time = ?", "isii", n, o->boot_id, o->pid, o->start_time);
	if (ok && open)
		ok = journal_do(j, "UPDATE outbox SET status = ?, answered = ?, "
		    "answer = ?, error = ?, updated = ? WHERE n = ?", "sittri", status,
		    answered, answer, error, now(), n) && record(j, n, "outbox.end");
	return journal_end(j, ok);
}

bool
journal_outbox_drop(struct journal *j, const char *id, struct journal_text reason)
{
	long long n;
	bool open, ok;

	if (!begin(j, id, &n, &open))
		return false;
	if (!open)
		journal_fail(j, "conflict", "report %s does not wait any more", id);
	ok = open && journal_do(j, "UPDATE outbox SET status = 'dropped', "
	    "error = coalesce(?, error), updated = ? WHERE n = ?", "tri", reason, now(),
	    n) && record(j, n, "outbox.drop");
	return journal_end(j, ok);
}

bool
journal_outbox(struct journal *j, const char *status, const char *run,
    const char *fingerprint)
{
	return journal_rows(j, ROW "WHERE (?1 IS NULL OR o.status = ?1) AND "
	    "(?2 IS NULL OR o.run = ?2) AND (?3 IS NULL OR o.fingerprint = ?3) "
	    "ORDER BY o.n", "sss", status, run, fingerprint);
}

bool
journal_outbox_one(struct journal *j, const char *id)
{
	int rc = journal_sql(j, "SELECT count(*) FROM outbox o WHERE " MATCH, "s", id);
	long long n = rc == 1 ? journal_int(j, 0) : 0;

	journal_done(j);
	if (n == 1)
		return journal_rows(j, ROW "WHERE " MATCH, "s", id);
	if (rc != 1)
		return false;
	return n == 0 ? journal_fail(j, "not_found", "%s has no report %s", j->path, id) :
			journal_fail(j, "ambiguous",
			    "%lld reports begin with %s: give more of the id", n, id);
}
