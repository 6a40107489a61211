/* journal.c: what a run records (row, closure, steps, effects, pins, leases) and how it
 * is read back. Each change is one durable commit together with its event. It decides
 * nothing about a run, and texts come masked. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "digest.h"
#include "journal_db.h"

#define RUN_ROW "SELECT id, name, runbook, section, subject, target, params, " \
	"params_digest, options, request_id, parent, parent_step, interface, " \
	"steps_digest, closure, status, exit, summary, created, " \
	"(SELECT ts FROM events WHERE run = r.id ORDER BY seq DESC LIMIT 1) / 1e6 " \
	"AS updated FROM runs r "

/* A whole id is itself even where it begins another. */
#define RUN_MATCH "id = ?1 OR (substr(id, 1, length(?1)) = ?1 AND ?1 <> '' AND " \
	"NOT EXISTS (SELECT 1 FROM runs WHERE id = ?1))"

static double
now(void)
{
	return (double)journal_clock() / 1e6;
}

/* Begin a change that belongs to a run, which must exist. */
static bool
begin(struct journal *j, const char *run)
{
	int rc;

	if (!journal_begin(j))
		return false;
	rc = journal_sql(j, "SELECT 1 FROM runs WHERE id = ?", "s", run);
	journal_done(j);
	if (rc == 0)
		journal_fail(j, "not_found", "%s has no run %s", j->path, run);
	return rc == 1 ? true : journal_end(j, false);
}

/* Append an event whose data SQLite writes as JSON, so that each text is quoted right. */
static bool
append_json(struct journal *j, const char *run, const char *type, const char *json,
    const char *table, long long n)
{
	char *copy = strdup(json); /* the row it came from ends with the next call */
	bool ok;

	journal_done(j);
	if (copy == NULL)
		return journal_fail(j, "memory", "%s: out of memory", j->path);
	ok = journal_append(j, run, type, (struct journal_text){ copy, strlen(copy) },
	    table, n);
	free(copy);
	return ok;
}

/* The number of the state row that a statement changed or found; 0 with an error when
 * there is none. A constraint may still speak when the statement ends. */
static long long
row_number(struct journal *j, int rc, const char *what, const char *name)
{
	long long n = rc == 1 ? journal_int(j, 0) : 0;

	if (rc == 1 && journal_next(j) < 0)
		n = 0;
	journal_done(j);
	if (rc == 0)
		journal_fail(j, "not_found", "%s has no %s %s", j->path, what, name);
	return n;
}

/* Runs */

static int
by_path(const void *a, const void *b)
{
	const struct journal_source *const *x = a, *const *y = b;

	return strcmp((*x)->path, (*y)->path);
}

/* Name every source by its digest, in the order of paths, and give their common digest:
 * the same bytes as journal_put_row makes of (path, sha256). */
static bool
closure(struct journal *j, const struct journal_run *r, char (*sums)[65], char hex[65])
{
	const struct journal_source **order = calloc(r->nsources + 1, sizeof *order);
	unsigned char sum[LB_SHA256];
	bool ok = order != NULL;

	if (!ok)
		journal_fail(j, "memory", "%s: out of memory", j->path);
	for (size_t i = 0; ok && i < r->nsources; i++) {
		order[i] = &r->sources[i];
		ok = lb_sha256(order[i]->body.p, order[i]->body.n, sum) ||
		    journal_fail(j, "memory", "SHA-256 is not available");
		lb_hex(sum, sizeof sum, sums[i]);
	}
	j->nscratch = 0;
	if (ok)
		qsort(order, r->nsources, sizeof *order, by_path);
	for (size_t i = 0; ok && i < r->nsources; i++) {
		const char *path = order[i]->path, *name = sums[order[i] - r->sources];

		ok = journal_put(j, "path", 4) && journal_put(j, path, strlen(path)) &&
		    journal_put(j, "sha256", 6) && journal_put(j, name, strlen(name));
	}
	free(order);
	return ok && journal_digest(j, hex);
}

static bool
store_sources(struct journal *j, const struct journal_run *r, char (*sums)[65])
{
	bool ok = true;

	for (size_t i = 0; ok && i < r->nsources; i++) {
		const struct journal_source *s = &r->sources[i];

		ok = journal_do(j, "INSERT INTO sources VALUES(?, ?, ?) "
		    "ON CONFLICT DO NOTHING", "sib", sums[i], (long long)s->body.n,
		    s->body) &&
		    journal_do(j, "INSERT INTO run_sources(run, path, sha256) "
		    "VALUES(?, ?, ?)", "sss", r->id, s->path, sums[i]);
	}
	return ok;
}

/* 1: a run with this request id and these parameters is there already. */
static int
requested(struct journal *j, const struct journal_run *r)
{
	int rc;

	if (r->request_id == NULL)
		return 0;
	rc = journal_sql(j, "SELECT id, params_digest IS ?2 FROM runs "
	    "WHERE request_id = ?1", "ss", r->request_id, r->params_digest);
	if (rc == 1 && journal_int(j, 1) == 0) {
		journal_fail(j, "conflict", "request %s is run %s, which was given other "
		    "parameters", r->request_id, journal_str(j, 0));
		rc = -1;
	}
	journal_done(j);
	return rc;
}

static bool
insert_run(struct journal *j, const struct journal_run *r, char (*sums)[65],
    const char *digest)
{
	long long n;
	int rc;

	rc = journal_sql(j, "SELECT n FROM runs WHERE id = ?", "s", r->id);
	if (rc == 1)
		journal_fail(j, "conflict", "%s has a run %s already", j->path, r->id);
	journal_done(j);
	if (rc != 0)
		return false;
	if (r->parent != NULL) {
		rc = journal_sql(j, "SELECT n FROM runs WHERE id = ?", "s", r->parent);
		if (row_number(j, rc, "run", r->parent) == 0)
			return false;
	}
	if (!journal_do(j, "INSERT INTO runs(id, name, runbook, section, subject, "
	    "target, params, params_digest, options, request_id, parent, parent_step, "
	    "interface, steps_digest, closure, status, created) "
	    "VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,'open',?)", "sssssststsssissr",
	    r->id, r->name, r->runbook, r->section, r->subject, r->target, r->params,
	    r->params_digest, r->options, r->request_id, r->parent, r->parent_step,
	    r->interface, r->steps_digest, digest, now()))
		return false;
	n = journal_rowid(j);
	if (!store_sources(j, r, sums) ||
	    journal_sql(j, "SELECT json_object('name', ?, 'runbook', ?, 'target', ?, "
	    "'params_digest', ?, 'closure', ?, 'parent', ?)", "ssssss", r->name,
	    r->runbook, r->target, r->params_digest, digest, r->parent) != 1)
		return false;
	return append_json(j, r->id, "run.create", journal_str(j, 0), "runs", n);
}

bool
journal_run_create(struct journal *j, const struct journal_run *r, bool *existing)
{
	char (*sums)[65] = calloc(r->nsources + 1, sizeof *sums);
	char digest[65];
	bool ok = false;

	*existing = false;
	if (sums == NULL)
		return journal_fail(j, "memory", "%s: out of memory", j->path);
	if (closure(j, r, sums, digest) && journal_begin(j)) {
		int rc = requested(j, r);

		*existing = rc == 1;
		ok = rc == 0 && insert_run(j, r, sums, digest);
		ok = journal_end(j, ok || *existing);
	}
	free(sums);
	return ok;
}

bool
journal_run_set(struct journal *j, const char *id, const char *status, long long code,
    struct journal_text summary, const char *steps_digest, const char *type,
    struct journal_text data)
{
	long long n;
	bool ok;

	if (!begin(j, id))
		return false;
	n = row_number(j, journal_sql(j, "UPDATE runs SET status = coalesce(?, status), "
	    "exit = coalesce(?, exit), summary = coalesce(?, summary), "
	    "steps_digest = coalesce(?, steps_digest) WHERE id = ? RETURNING n", "sitss",
	    status, code, summary, steps_digest, id), "run", id);
	ok = n != 0 && journal_append(j, id, type, data, "runs", n);
	return journal_end(j, ok);
}

bool
journal_event(struct journal *j, const char *run, const char *type,
    struct journal_text data)
{
	return begin(j, run) &&
	    journal_end(j, journal_append(j, run, type, data, NULL, 0));
}

/* Steps and effects */

static bool
step_set(struct journal *j, const char *run, const char *step,
    const struct journal_step *s, const char *type, struct journal_text data)
{
	double t = now();
	long long n;

	n = row_number(j, journal_sql(j, "INSERT INTO steps(run, step, idx, title, "
	    "status, class, attempt, message, started, updated) "
	    "VALUES(?1, ?2, coalesce(?3, 0), ?4, coalesce(?5, 'pending'), ?6, ?7, ?8, "
	    "?9, ?9) ON CONFLICT(run, step) DO UPDATE SET "
	    "idx = coalesce(?3, idx), title = coalesce(?4, title), "
	    "status = coalesce(?5, status), class = coalesce(?6, class), "
	    "attempt = coalesce(?7, attempt), message = coalesce(?8, message), "
	    "updated = ?9 RETURNING n", "ssisssitr", run, step, s->idx, s->title,
	    s->status, s->class, s->attempt, s->message, t), "step", step);
	return n != 0 && journal_append(j, run, type, data, "steps", n);
}

bool
journal_effect_begin(struct journal *j, const char *run, const char *step,
    const char *effect, long long idx, const char *resource, struct journal_text intent,
    struct journal_text before, bool undoable, long long *attempt)
{
	long long n;
	bool ok;

	if (!begin(j, run))
		return false;
	n = row_number(j, journal_sql(j, "INSERT INTO effects(run, step, effect, "
	    "attempt, idx, resource, status, intent, before, undoable, started) "
	    "VALUES(?1, ?2, ?3, 1 + coalesce((SELECT max(attempt) FROM effects "
	    "WHERE run = ?1 AND step = ?2 AND effect = ?3), 0), ?4, ?5, 'open', "
	    "?6, ?7, ?8, ?9) RETURNING n",
	    "sssisttir", run, step, effect, idx, resource, intent, before,
	    (long long)undoable, now()), "effect", effect);
	ok = n != 0 && journal_sql(j, "SELECT json_object('step', step, 'effect', "
	    "effect, 'resource', resource, 'attempt', attempt), attempt FROM effects "
	    "WHERE n = ?", "i", n) == 1;
	if (ok) {
		*attempt = journal_int(j, 1);
		ok = append_json(j, run, "effect.begin", journal_str(j, 0), "effects", n);
	}
	return journal_end(j, ok);
}

static bool
effect_end(struct journal *j, const char *run, const char *step,
    const char *effect, const char *status, struct journal_text output,
    struct journal_text message)
{
	long long n;

	n = row_number(j, journal_sql(j, "UPDATE effects SET status = ?4, "
	    "output = coalesce(?5, output), message = coalesce(?6, message), ended = ?7 "
	    "WHERE n = (SELECT n FROM effects WHERE run = ?1 AND step = ?2 AND "
	    "effect = ?3 ORDER BY attempt DESC LIMIT 1) RETURNING n", "ssssttr", run,
	    step, effect, status, output, message, now()), "begun effect", effect);
	return n != 0 && journal_sql(j, "SELECT json_object('step', step, 'effect', "
	    "effect, 'attempt', attempt, 'status', status, 'message', message) "
	    "FROM effects WHERE n = ?", "i", n) == 1 &&
	    append_json(j, run, "effect.end", journal_str(j, 0), "effects", n);
}

bool
journal_effect_end(struct journal *j, const char *run, const char *step,
    const char *effect, const char *status, struct journal_text output,
    struct journal_text message)
{
	return begin(j, run) &&
	    journal_end(j, effect_end(j, run, step, effect, status, output, message));
}

bool
journal_step_set(struct journal *j, const char *run, const char *step,
    const char *effect, struct journal_text output, const struct journal_step *s,
    const char *type, struct journal_text data)
{
	struct journal_text none = { 0 };

	return begin(j, run) && journal_end(j, (effect == NULL ||
	    effect_end(j, run, step, effect, "done", output, none)) &&
	    step_set(j, run, step, s, type, data));
}

/* Pins, paths, fingerprints */

bool
journal_pin_set(struct journal *j, const char *run, const char *target,
    struct journal_text json)
{
	long long n;
	bool ok;

	if (!begin(j, run))
		return false;
	n = row_number(j, journal_sql(j, "INSERT INTO pins(run, target, json) "
	    "VALUES(?, ?, ?) ON CONFLICT(run, target) DO UPDATE SET json = excluded.json "
	    "RETURNING n", "sst", run, target, json), "pin", target);
	ok = n != 0 && journal_sql(j, "SELECT json_object('target', ?)", "s",
	    target) == 1 && append_json(j, run, "pin", journal_str(j, 0), "pins", n);
	return journal_end(j, ok);
}

bool
journal_path_set(struct journal *j, const char *target, const char *url,
    struct journal_text json)
{
	long long n;
	bool ok;

	if (!journal_begin(j))
		return false;
	n = row_number(j, journal_sql(j, "INSERT INTO paths(target, url, json, proven) "
	    "VALUES(?, ?, ?, ?) ON CONFLICT(target) DO UPDATE SET url = excluded.url, "
	    "json = excluded.json, proven = excluded.proven RETURNING n", "sstr", target,
	    url, json, now()), "path", target);
	ok = n != 0 && journal_sql(j, "SELECT json_object('target', ?, 'url', ?)", "ss",
	    target, url) == 1 &&
	    append_json(j, "", "path", journal_str(j, 0), "paths", n);
	return journal_end(j, ok);
}

bool
journal_fingerprint_set(struct journal *j, const char *run, const char *name,
    const char *hex)
{
	long long n;
	bool ok;

	if (!begin(j, run))
		return false;
	n = row_number(j, journal_sql(j, "INSERT INTO fingerprints(run, name, hex) "
	    "VALUES(?, ?, ?) ON CONFLICT(run, name) DO UPDATE SET hex = excluded.hex "
	    "RETURNING n", "sss", run, name, hex), "fingerprint", name);
	ok = n != 0 && journal_sql(j, "SELECT json_object('name', ?)", "s", name) == 1 &&
	    append_json(j, run, "fingerprint", journal_str(j, 0), "fingerprints", n);
	return journal_end(j, ok);
}

/* Leases */

/* Whether the process of this boot still runs: its pid may have been given to another. */
static bool
runs_here(long long pid, long long start_time)
{
	char path[64], line[1024];
	const char *p;
	long long started = -1;
	FILE *f;
	size_t n;

	if (pid <= 0)
		return false;
	snprintf(path, sizeof path, "/proc/%lld/stat", pid);
	f = fopen(path, "re");
	if (f == NULL)
		return kill((pid_t)pid, 0) == 0 || errno == EPERM;
	n = fread(line, 1, sizeof line - 1, f);
	fclose(f);
	line[n] = '\0';
	/* The name in parentheses may hold anything; the 20th field after it counts. */
	p = strrchr(line, ')');
	if (p == NULL || strncmp(p, ") Z", 3) == 0)
		return false;
	for (int field = 2; p != NULL && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (p != NULL)
		started = strtoll(p + 1, NULL, 10);
	return started == start_time;
}

bool
journal_owner_gone(const struct journal_owner *o, const struct journal_owner *me)
{
	if (strcmp(o->host, me->host) != 0)
		return false;
	return strcmp(o->boot_id, me->boot_id) != 0 || !runs_here(o->pid, o->start_time);
}

/* The lease row stands: may this run's process `o` have it? A name with '@' is no target
 * but a turn that is over when its process is. */
static bool
may_take(struct journal *j, const char *target, const char *run,
    const struct journal_owner *o)
{
	long long pid = journal_int(j, 1), start_time = journal_int(j, 2);
	const char *boot_id = journal_str(j, 3), *host = journal_str(j, 4);

	if (strcmp(journal_str(j, 0), run) != 0)
		return *target == '@' && strcmp(host, o->host) == 0 &&
		    (strcmp(boot_id, o->boot_id) != 0 || !runs_here(pid, start_time));
	if (strcmp(host, o->host) != 0)
		return journal_int(j, 5) == 0; /* its heart has stopped */
	if (strcmp(boot_id, o->boot_id) != 0)
		return true;
	return (pid == o->pid && start_time == o->start_time) ||
	    !runs_here(pid, start_time);
}

static bool
locked(struct journal *j, const char *target, const char *run)
{
	return journal_fail(j, "locked", "%s is locked by %srun %s", target,
	    strcmp(run, journal_str(j, 0)) == 0 ? "a living process of " : "",
	    journal_str(j, 0));
}

static bool
lease_event(struct journal *j, const char *run, const char *type, const char *target,
    long long pid, const char *host)
{
	return journal_sql(j, "SELECT json_object('target', ?, 'pid', ?, 'host', ?)",
	    "sis", target, pid, host) == 1 &&
	    append_json(j, run, type, journal_str(j, 0), NULL, 0);
}

bool
journal_lease_take(struct journal *j, const char *target, const char *run,
    const struct journal_owner *o, double ttl)
{
	double t = now();
	bool ok;
	int rc;

	if (!begin(j, run))
		return false;
	rc = journal_sql(j, "SELECT run, pid, start_time, boot_id, host, "
	    "heartbeat + ttl > ?2 FROM leases WHERE target = ?1", "sr", target, t);
	ok = rc == 0 || (rc == 1 && may_take(j, target, run, o));
	if (!ok && rc == 1)
		locked(j, target, run);
	ok = ok && journal_do(j, "INSERT OR REPLACE INTO leases VALUES(?1, ?2, ?3, ?4, "
	    "?5, ?6, ?7, ?8, ?8)", "ssiissrr", target, run, o->pid, o->start_time,
	    o->boot_id,
	    o->host, ttl, t) &&
	    lease_event(j, run, "lease.take", target, o->pid, o->host);
	return journal_end(j, ok);
}

/* The lease on target is held by run. 1 yes, 0 there is none, -1 no. */
static int
holds(struct journal *j, const char *target, const char *run)
{
	int rc = journal_sql(j, "SELECT run FROM leases WHERE target = ?", "s", target);

	if (rc == 1 && strcmp(journal_str(j, 0), run) != 0) {
		locked(j, target, run);
		rc = -1;
	}
	journal_done(j);
	return rc;
}

/* No event: a heart that beats every few seconds would drown the log. */
bool
journal_lease_beat(struct journal *j, const char *target, const char *run)
{
	int rc;

	if (!journal_begin(j))
		return false;
	rc = holds(j, target, run);
	if (rc == 0)
		journal_fail(j, "not_found", "%s is not locked", target);
	return journal_end(j, rc == 1 && journal_do(j, "UPDATE leases SET heartbeat = ? "
	    "WHERE target = ?", "rs", now(), target));
}

/* To drop what is not held is no failure: a release may be said twice. */
bool
journal_lease_drop(struct journal *j, const char *target, const char *run)
{
	int rc;

	if (!journal_begin(j))
		return false;
	rc = holds(j, target, run);
	if (rc == 0) {
		journal_end(j, false);
		return true;
	}
	return journal_end(j, rc == 1 &&
	    journal_do(j, "DELETE FROM leases WHERE target = ?", "s", target) &&
	    lease_event(j, run, "lease.drop", target, JOURNAL_NONE, NULL));
}

/* Queries */

bool
journal_query(struct journal *j, enum journal_query q, const char *a, const char *b)
{
	static const char *const sql[] = {
		[JOURNAL_STEPS] = "SELECT step, idx, title, status, class, attempt, "
		    "message, started, updated FROM steps WHERE run = ? ORDER BY idx, n",
		/* A row an effect: the newest attempt, with the first `before`: the one
		 * of an attempt that was in doubt before it began is none. */
		[JOURNAL_EFFECTS] = "SELECT e.step, e.effect, "
		    "coalesce(e.idx, f.idx) AS idx, "
		    "coalesce(e.resource, f.resource) AS resource, e.status, "
		    "e.attempt, e.intent, (SELECT before FROM effects WHERE "
		    "run = f.run AND step = f.step AND effect = f.effect AND "
		    "before IS NOT NULL ORDER BY attempt LIMIT 1) AS before, "
		    "e.undoable, e.output, e.message, "
		    "e.started, e.ended FROM effects f JOIN effects e ON e.n = (SELECT n "
		    "FROM effects WHERE run = f.run AND step = f.step AND "
		    "effect = f.effect ORDER BY attempt DESC LIMIT 1) WHERE f.run = ?1 "
		    "AND f.attempt = 1 AND (?2 IS NULL OR f.step = ?2) ORDER BY f.n",
		[JOURNAL_SOURCES] = "SELECT path, sha256, size FROM run_sources JOIN "
		    "sources USING(sha256) WHERE run = ? ORDER BY path",
		[JOURNAL_SOURCE] = "SELECT body FROM run_sources JOIN sources "
		    "USING(sha256) WHERE run = ? AND path = ?",
		[JOURNAL_PIN] = "SELECT json FROM pins WHERE run = ? AND target = ?",
		[JOURNAL_FINGERPRINT] =
		    "SELECT hex FROM fingerprints WHERE run = ? AND name = ?",
		[JOURNAL_PROVEN] = "SELECT url, json FROM paths WHERE target = ?",
		[JOURNAL_LEASE] = "SELECT target, run, (SELECT name FROM runs "
		    "WHERE id = run) AS runbook, pid, start_time, boot_id, host, ttl, "
		    "taken, heartbeat FROM leases WHERE target = ?",
		[JOURNAL_REQUEST] = RUN_ROW "WHERE request_id = ?",
	};

	return b != NULL || q == JOURNAL_EFFECTS ? journal_rows(j, sql[q], "ss", a, b) :
	    journal_rows(j, sql[q], "s", a);
}

bool
journal_runs(struct journal *j, const char *status, const char *target,
    const char *parent, long long limit)
{
	return journal_rows(j, RUN_ROW "WHERE (?1 IS NULL OR status = ?1) AND "
	    "(?2 IS NULL OR target = ?2) AND (?3 IS NULL OR parent = ?3) "
	    "ORDER BY n DESC LIMIT coalesce(?4, -1)", "sssi", status, target, parent,
	    limit);
}

bool
journal_run(struct journal *j, const char *id)
{
	int rc = journal_sql(j, "SELECT count(*) FROM runs r WHERE " RUN_MATCH, "s", id);
	long long n = rc == 1 ? journal_int(j, 0) : 0;

	journal_done(j);
	if (n == 1)
		return journal_rows(j, RUN_ROW "WHERE " RUN_MATCH, "s", id);
	if (rc != 1)
		return false;
	return n == 0 ? journal_fail(j, "not_found", "%s has no run %s", j->path, id) :
	    journal_fail(j, "ambiguous", "%lld runs begin with %s: give more of the id",
	    n, id);
}

bool
journal_events(struct journal *j, const char *run, long long after, long long limit)
{
	return journal_rows(j, "SELECT seq, ts / 1e6 AS ts, run, type, data, hash "
	    "FROM events WHERE (?1 IS NULL OR run = ?1) AND seq > coalesce(?2, 0) "
	    "ORDER BY seq LIMIT coalesce(?3, -1)", "sii", run, after, limit);
}
