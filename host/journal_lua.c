/* journal_lua.c: the module `journal` of the prelude. Every text it stores or looks up
 * passes the masker first, as the last line of defence; the bodies of sources alone are
 * kept as they are. It knows no SQL and decides nothing. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "journal_read.h"
#include "lb.h"
#include "mask.h"
#include "secret.h"

#define MODULE "journal"
#define JOURNAL "lb.journal"

struct box {
	struct journal *j; /* NULL once closed */
	struct lb_buf masked;
};

static struct journal *
check(lua_State *L)
{
	struct box *b = luaL_checkudata(L, 1, JOURNAL);

	if (b->j == NULL)
		luaL_error(L, "the journal is closed");
	return b->j;
}

static int
fail(lua_State *L, struct journal *j, const char *op)
{
	const struct journal_error *e = journal_error(j);

	return lb_fail(L, MODULE, op, e->code, "%s", e->message);
}

static int
done(lua_State *L, struct journal *j, bool ok, const char *op)
{
	if (!ok)
		return fail(L, j, op);
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
static struct journal_text
masked(lua_State *L, int idx)
{
	struct box *b = lua_touserdata(L, 1);
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
static const char *
name(lua_State *L, int idx)
{
	struct journal_text t;

	luaL_checktype(L, idx, LUA_TSTRING);
	t = masked(L, idx);
	luaL_argcheck(L, t.n != 0, idx, "must not be empty");
	luaL_argcheck(L, strlen(t.p) == t.n, idx, "holds a zero byte");
	return t.p;
}

static const char *
opt_name(lua_State *L, int idx)
{
	return lua_isnoneornil(L, idx) ? NULL : name(L, idx);
}

static struct journal_text
opt_text(lua_State *L, int idx)
{
	if (lua_isnoneornil(L, idx))
		return (struct journal_text){ NULL, 0 };
	luaL_checktype(L, idx, LUA_TSTRING);
	return masked(L, idx);
}

/* Pushes field `key` of the options at idx, masked, and leaves it on the stack so that it
 * lives as long as the call. */
static struct journal_text
field(lua_State *L, int idx, const char *key)
{
	if (lua_isnoneornil(L, idx))
		return (struct journal_text){ NULL, 0 };
	luaL_checkstack(L, 4, "too many options");
	lua_pushstring(L, key);
	lua_rawget(L, idx);
	if (lua_isnil(L, -1))
		return (struct journal_text){ NULL, 0 };
	if (lua_type(L, -1) != LUA_TSTRING)
		luaL_argerror(L, idx, lua_pushfstring(L,
		    "'%s' must be a string, not a %s", key, luaL_typename(L, -1)));
	return masked(L, lua_gettop(L));
}

static const char *
field_name(lua_State *L, int idx, const char *key)
{
	struct journal_text t = field(L, idx, key);

	if (t.p != NULL && strlen(t.p) != t.n)
		luaL_argerror(L, idx, lua_pushfstring(L, "'%s' holds a zero byte", key));
	return t.p;
}

static const char *
need_name(lua_State *L, int idx, const char *key)
{
	const char *s = field_name(L, idx, key);

	if (s == NULL || *s == '\0')
		luaL_argerror(L, idx, lua_pushfstring(L, "'%s' is missing", key));
	return s;
}

static long long
field_integer(lua_State *L, int idx, const char *key)
{
	lua_Integer v = lb_opt_integer(L, idx, key, LLONG_MIN, LLONG_MIN + 1, LLONG_MAX);

	return v == LLONG_MIN ? JOURNAL_NONE : v;
}

static long long
need_integer(lua_State *L, int idx, const char *key)
{
	long long v = field_integer(L, idx, key);

	if (v == JOURNAL_NONE)
		luaL_argerror(L, idx, lua_pushfstring(L, "'%s' is missing", key));
	return v;
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

static int
rows(lua_State *L, struct journal *j, bool ok, const char *op)
{
	int rc = -1;

	if (ok) {
		lua_newtable(L);
		for (lua_Integer i = 1; (rc = journal_next(j)) == 1; i++) {
			push_row(L, j);
			lua_rawseti(L, -2, i);
		}
	}
	return rc == 0 ? 1 : fail(L, j, op);
}

/* One row as a table, or nil alone when there is none. */
static int
one_row(lua_State *L, struct journal *j, bool ok, const char *op)
{
	int rc = ok ? journal_next(j) : -1;

	if (rc < 0)
		return fail(L, j, op);
	if (rc == 0)
		lua_pushnil(L);
	else
		push_row(L, j);
	journal_done(j);
	return 1;
}

/* The texts of one row, or nil alone when there is none. */
static int
texts(lua_State *L, struct journal *j, bool ok, const char *op)
{
	int rc = ok ? journal_next(j) : -1, n = rc == 1 ? journal_columns(j) : 1;
	struct journal_value v;

	if (rc < 0)
		return fail(L, j, op);
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

/* Opening */

/* journal.open(path, { readonly, create })
 *  path nil: the default path, whose folder is made; create: true unless readonly
 *  +-> j
 *  +-> nil, err   (not_found, unreadable, not_private, corrupt, newer, full, busy, io) */
static int
l_open(lua_State *L)
{
	static const char *const names[] = { "readonly", "create", NULL };
	const char *path = NULL;
	char *usual = NULL;
	struct journal_error err;
	unsigned flags;
	struct box *b;

	if (!lua_isnoneornil(L, 1)) {
		luaL_checktype(L, 1, LUA_TSTRING);
		path = luaL_checkstring(L, 1);
		luaL_argcheck(L, *path != '\0' && strlen(path) == lua_rawlen(L, 1), 1,
		    "not a path");
	}
	lb_opts(L, 2, names);
	flags = lb_opt_boolean(L, 2, "readonly", false) ? JOURNAL_READONLY : 0;
	if (lb_opt_boolean(L, 2, "create", flags == 0))
		flags |= JOURNAL_CREATE;
	b = lua_newuserdatauv(L, sizeof *b, 0);
	memset(b, 0, sizeof *b);
	luaL_setmetatable(L, JOURNAL);
	if (path == NULL && (path = usual = journal_default_path()) == NULL)
		return lb_fail(L, MODULE, "open", "not_found",
		    "there is no home folder for a journal: use --journal FILE");
	b->j = journal_open(path, flags, &err);
	free(usual);
	if (b->j == NULL)
		return lb_fail(L, MODULE, "open", err.code, "%s", err.message);
	return 1;
}

/* journal.default_path()
 *  +-> path
 *  +-> nil, err   (not_found)                                                          */
static int
l_default_path(lua_State *L)
{
	char *path = journal_default_path();

	if (path == NULL)
		return lb_fail(L, MODULE, "default_path", "not_found",
		    "there is no home folder for the journal");
	lua_pushstring(L, path);
	free(path);
	return 1;
}

/* j:close()
 *  +-> nothing; a second time does nothing                                             */
static int
l_close(lua_State *L)
{
	struct box *b = luaL_checkudata(L, 1, JOURNAL);

	journal_close(b->j);
	b->j = NULL;
	lb_buf_free(&b->masked);
	memset(&b->masked, 0, sizeof b->masked);
	return 0;
}

static int
l_tostring(lua_State *L)
{
	struct box *b = luaL_checkudata(L, 1, JOURNAL);

	lua_pushfstring(L, "journal (%s)", b->j != NULL ? journal_path(b->j) : "closed");
	return 1;
}

/* j:head()
 *  +-> hex ("" while there is no event), seq
 *  +-> nil, err   (busy, io, corrupt, chain)                                           */
static int
l_head(lua_State *L)
{
	struct journal *j = check(L);
	long long seq = 0;
	char hex[65];

	if (!journal_head(j, hex, &seq))
		return fail(L, j, "head");
	lua_pushstring(L, hex);
	lua_pushinteger(L, seq);
	return 2;
}

/* j:verify(head)
 *  head: a hash that a summary printed once and that must still be there, or nil;
 *  recomputes the chain, and whether runs, steps, effects and sources are what it says
 *  +-> true, count
 *  +-> nil, err   (chain, corrupt, busy, io)                                           */
static int
l_verify(lua_State *L)
{
	struct journal *j = check(L);
	const char *head = opt_name(L, 2);
	long long count = 0;

	if (!journal_verify(j, head, &count))
		return fail(L, j, "verify");
	lua_pushboolean(L, 1);
	lua_pushinteger(L, count);
	return 2;
}

/* j:key()
 *  +-> secret of 32 bytes, from FILE.key beside the journal, made at the first call
 *  +-> nil, err   (not_found, not_private, corrupt, unreadable, full, io)              */
static int
l_key(lua_State *L)
{
	struct journal *j = check(L);
	unsigned char key[32];

	if (!journal_key(j, key))
		return fail(L, j, "key");
	lb_secret_push(L, "journal.key", key, sizeof key);
	lb_wipe(key, sizeof key);
	return 1;
}

/* Runs */

static struct journal_source *
sources(lua_State *L, int idx, size_t *n)
{
	struct journal_source *list;

	*n = 0;
	if (lua_isnil(L, idx))
		return NULL;
	if (!lua_istable(L, idx))
		luaL_argerror(L, 2, "'sources' must be a list");
	*n = lua_rawlen(L, idx);
	list = lua_newuserdatauv(L, (*n + 1) * sizeof *list, 0);
	/* What the list points to lives in a table beside it. */
	lua_createtable(L, (int)*n * 2, 0);
	for (size_t i = 0; i < *n; i++) {
		lua_rawgeti(L, idx, (lua_Integer)i + 1);
		if (!lua_istable(L, -1))
			luaL_argerror(L, 2, "'sources' must be a list of { path, body }");
		lua_getfield(L, -1, "body");
		lua_getfield(L, -2, "path");
		if (lua_type(L, -1) != LUA_TSTRING || lua_type(L, -2) != LUA_TSTRING)
			luaL_argerror(L, 2, "a source needs a path and a body");
		list[i].path = name(L, lua_gettop(L));
		lua_rawseti(L, -4, (lua_Integer)i * 2 + 1);
		list[i].body.p = lua_tolstring(L, -1, &list[i].body.n);
		lua_rawseti(L, -3, (lua_Integer)i * 2 + 2);
		lua_pop(L, 1);
	}
	return list;
}

/* j:run_create{ id, name, runbook, section, subject, target, params, params_digest,
 *     options, request_id, parent, parent_step, interface, steps_digest,
 *     sources = { { path =, body = }, ... } }
 *  the same request_id with the same params_digest gives the run that is there
 *  +-> row, existing
 *  +-> nil, err   (conflict, not_found, full, busy, io)                                */
static int
l_run_create(lua_State *L)
{
	static const char *const names[] = { "id", "name", "runbook", "section",
		"subject", "target", "params", "params_digest", "options",
		"request_id", "parent",
		"parent_step", "interface", "steps_digest", "sources", NULL };
	struct journal *j = check(L);
	struct journal_run r = { 0 };
	bool existing;
	int n;

	luaL_checktype(L, 2, LUA_TTABLE);
	lua_settop(L, 2);
	lb_opts(L, 2, names);
	luaL_checkstack(L, 40, "too many options");
	r.id = need_name(L, 2, "id");
	r.name = field_name(L, 2, "name");
	r.runbook = field_name(L, 2, "runbook");
	r.section = field_name(L, 2, "section");
	r.subject = field_name(L, 2, "subject");
	r.target = field_name(L, 2, "target");
	r.params = field(L, 2, "params");
	r.params_digest = field_name(L, 2, "params_digest");
	r.options = field(L, 2, "options");
	r.request_id = field_name(L, 2, "request_id");
	r.parent = field_name(L, 2, "parent");
	r.parent_step = field_name(L, 2, "parent_step");
	r.interface = field_integer(L, 2, "interface");
	r.steps_digest = field_name(L, 2, "steps_digest");
	lua_pushliteral(L, "sources");
	lua_rawget(L, 2);
	r.sources = sources(L, lua_gettop(L), &r.nsources);
	if (!journal_run_create(j, &r, &existing))
		return fail(L, j, "run_create");
	n = one_row(L, j, existing ?
	    journal_query(j, JOURNAL_REQUEST, r.request_id, NULL) :
	    journal_run(j, r.id), "run_create");
	if (n != 1)
		return n;
	lua_pushboolean(L, existing);
	return 2;
}

/* j:run(id_or_unique_prefix)
 *  +-> row
 *  +-> nil, err   (not_found, ambiguous, busy, io)                                     */
static int
l_run(lua_State *L)
{
	struct journal *j = check(L);

	return one_row(L, j, journal_run(j, name(L, 2)), "run");
}

/* j:runs{ status, target, parent, limit }
 *  +-> rows, newest first
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_runs(lua_State *L)
{
	static const char *const names[] = { "status", "target", "parent", "limit",
		NULL };
	struct journal *j = check(L);
	const char *status, *target, *parent;
	long long limit;

	lua_settop(L, 2);
	lb_opts(L, 2, names);
	limit = lb_opt_integer(L, 2, "limit", -1, 1, INT_MAX);
	status = field_name(L, 2, "status");
	target = field_name(L, 2, "target");
	parent = field_name(L, 2, "parent");
	return rows(L, j, journal_runs(j, status, target, parent, limit), "runs");
}

/* j:children(run)
 *  +-> rows, newest first
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_children(lua_State *L)
{
	struct journal *j = check(L);

	return rows(L, j, journal_runs(j, NULL, NULL, name(L, 2), -1), "children");
}

/* j:run_set(id, { status, exit, summary, steps_digest }, event_type, event_json)
 *  what is not named stays
 *  +-> true
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_run_set(lua_State *L)
{
	static const char *const names[] = { "status", "exit", "summary", "steps_digest",
		NULL };
	struct journal *j = check(L);
	const char *id = name(L, 2), *type = name(L, 4), *status, *digest;
	struct journal_text data = opt_text(L, 5), summary;

	lb_opts(L, 3, names);
	status = field_name(L, 3, "status");
	summary = field(L, 3, "summary");
	digest = field_name(L, 3, "steps_digest");
	return done(L, j, journal_run_set(j, id, status, field_integer(L, 3, "exit"),
	    summary, digest, type, data), "run_set");
}

/* Steps and effects */

/* j:step_set(run, step, { idx, status, class, attempt, message, title }, event_type,
 *     event_json)
 *  makes the step, or changes what is named
 *  +-> true
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_step_set(lua_State *L)
{
	static const char *const names[] = { "idx", "status", "class", "attempt",
		"message", "title", NULL };
	struct journal *j = check(L);
	const char *run = name(L, 2), *step = name(L, 3), *type = name(L, 5);
	struct journal_text data = opt_text(L, 6);
	struct journal_step s;

	lb_opts(L, 4, names);
	s.idx = field_integer(L, 4, "idx");
	s.attempt = field_integer(L, 4, "attempt");
	s.status = field_name(L, 4, "status");
	s.class = field_name(L, 4, "class");
	s.title = field_name(L, 4, "title");
	s.message = field(L, 4, "message");
	return done(L, j, journal_step_set(j, run, step, &s, type, data), "step_set");
}

/* j:steps(run)
 *  +-> rows by idx
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_steps(lua_State *L)
{
	struct journal *j = check(L);

	return rows(L, j, journal_query(j, JOURNAL_STEPS, name(L, 2), NULL), "steps");
}

/* j:effect_begin(run, step, effect, { idx, resource, intent, before, undoable })
 *  each call begins an attempt; the `before` of the first one is what undo is given
 *  +-> attempt
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_effect_begin(lua_State *L)
{
	static const char *const names[] = { "idx", "resource", "intent", "before",
		"undoable", NULL };
	struct journal *j = check(L);
	const char *run = name(L, 2), *step = name(L, 3), *effect = name(L, 4), *resource;
	struct journal_text intent, before;
	long long idx, attempt;
	bool undoable;

	lua_settop(L, 5);
	lb_opts(L, 5, names);
	idx = field_integer(L, 5, "idx");
	undoable = lb_opt_boolean(L, 5, "undoable", false);
	resource = field_name(L, 5, "resource");
	intent = field(L, 5, "intent");
	before = field(L, 5, "before");
	if (!journal_effect_begin(j, run, step, effect, idx, resource, intent, before,
	    undoable, &attempt))
		return fail(L, j, "effect_begin");
	lua_pushinteger(L, attempt);
	return 1;
}

/* j:effect_end(run, step, effect, status, { output, message })
 *  settles the newest attempt; status: done, failed, doubt, undone, kept
 *  +-> true
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_effect_end(lua_State *L)
{
	static const char *const names[] = { "output", "message", NULL };
	static const char *const statuses[] = { "done", "failed", "doubt", "undone",
		"kept", NULL };
	struct journal *j = check(L);
	const char *run = name(L, 2), *step = name(L, 3), *effect = name(L, 4);
	const char *status = statuses[luaL_checkoption(L, 5, NULL, statuses)];
	struct journal_text output, message;

	lua_settop(L, 6);
	lb_opts(L, 6, names);
	output = field(L, 6, "output");
	message = field(L, 6, "message");
	return done(L, j, journal_effect_end(j, run, step, effect, status, output,
	    message), "effect_end");
}

/* j:effects(run, step)
 *  step nil: of all steps
 *  +-> rows in the order of first intent, each with its newest attempt; status "open"
 *      until settled
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_effects(lua_State *L)
{
	struct journal *j = check(L);

	return rows(L, j, journal_query(j, JOURNAL_EFFECTS, name(L, 2), opt_name(L, 3)),
	    "effects");
}

/* Events and sources */

/* j:event(run, type, json)
 *  +-> true
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_event(lua_State *L)
{
	struct journal *j = check(L);
	const char *run = name(L, 2), *type = name(L, 3);

	return done(L, j, journal_event(j, run, type, opt_text(L, 4)), "event");
}

/* j:events(run, { after, limit })
 *  run nil: of all runs
 *  +-> rows { seq, ts, run, type, data, hash } in order
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_events(lua_State *L)
{
	static const char *const names[] = { "after", "limit", NULL };
	struct journal *j = check(L);
	long long after, limit;

	lb_opts(L, 3, names);
	after = lb_opt_integer(L, 3, "after", 0, 0, LLONG_MAX);
	limit = lb_opt_integer(L, 3, "limit", -1, 1, INT_MAX);
	return rows(L, j, journal_events(j, opt_name(L, 2), after, limit), "events");
}

/* j:source(run, path)
 *  +-> body
 *  +-> nil, err   (not_found, busy, io, corrupt)                                       */
static int
l_source(lua_State *L)
{
	struct journal *j = check(L);
	const char *run = name(L, 2), *path = name(L, 3);
	int n = texts(L, j, journal_query(j, JOURNAL_SOURCE, run, path), "source");

	if (n == 1 && lua_isnil(L, -1))
		return lb_fail(L, MODULE, "source", "not_found",
		    "run %s has no source %s", run, path);
	return n;
}

/* j:sources(run)
 *  +-> rows { path, sha256, size } by path
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_sources(lua_State *L)
{
	struct journal *j = check(L);

	return rows(L, j, journal_query(j, JOURNAL_SOURCES, name(L, 2), NULL), "sources");
}

/* Pins, paths, fingerprints */

/* j:pin(run, target)
 *  +-> json, or nil when none is pinned
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_pin(lua_State *L)
{
	struct journal *j = check(L);

	return texts(L, j, journal_query(j, JOURNAL_PIN, name(L, 2), name(L, 3)), "pin");
}

/* j:pin_set(run, target, json)
 *  +-> true
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_pin_set(lua_State *L)
{
	struct journal *j = check(L);
	const char *run = name(L, 2), *target = name(L, 3);

	luaL_checktype(L, 4, LUA_TSTRING);
	return done(L, j, journal_pin_set(j, run, target, masked(L, 4)), "pin_set");
}

/* j:path(target)
 *  without target: the journal's own path
 *  +-> url, json; nil when no path to it was ever proven
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_path(lua_State *L)
{
	struct journal *j = check(L);

	if (lua_isnone(L, 2)) {
		lua_pushstring(L, journal_path(j));
		return 1;
	}
	return texts(L, j, journal_query(j, JOURNAL_PROVEN, name(L, 2), NULL), "path");
}

/* j:path_set(target, url, json)
 *  +-> true
 *  +-> nil, err   (full, busy, io)                                                     */
static int
l_path_set(lua_State *L)
{
	struct journal *j = check(L);
	const char *target = name(L, 2), *url = name(L, 3);

	return done(L, j, journal_path_set(j, target, url, opt_text(L, 4)), "path_set");
}

/* j:fingerprint(run, name, hex)
 *  without hex: what is kept
 *  +-> hex, or nil when there is none; true when hex was given
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_fingerprint(lua_State *L)
{
	struct journal *j = check(L);
	const char *run = name(L, 2), *what = name(L, 3);

	if (lua_isnoneornil(L, 4))
		return texts(L, j, journal_query(j, JOURNAL_FINGERPRINT, run, what),
		    "fingerprint");
	return done(L, j, journal_fingerprint_set(j, run, what, name(L, 4)),
	    "fingerprint");
}

/* Leases */

/* A refusal names the holder. */
static int
leased(lua_State *L, struct journal *j, bool ok, const char *target, const char *op)
{
	bool holder = !ok && strcmp(journal_error(j)->code, "locked") == 0;
	int n = done(L, j, ok, op);

	if (holder &&
	    one_row(L, j, journal_query(j, JOURNAL_LEASE, target, NULL), op) == 1)
		lua_setfield(L, -2, "holder");
	return n;
}

/* j:lease_take(target, run, { pid, start_time, boot_id, host, ... }, ttl)
 *  taken when it is free, or held by the same run and its process is gone
 *  +-> true
 *  +-> nil, err   (locked with err.holder, not_found, full, busy, io)                  */
static int
l_lease_take(lua_State *L)
{
	struct journal *j = check(L);
	const char *target = name(L, 2), *run = name(L, 3);
	struct journal_owner o;
	double ttl;

	luaL_checktype(L, 5, LUA_TNUMBER);
	ttl = lua_tonumber(L, 5);
	luaL_argcheck(L, ttl > 0, 5, "must be a number of seconds");
	luaL_checktype(L, 4, LUA_TTABLE);
	o.pid = need_integer(L, 4, "pid");
	o.start_time = need_integer(L, 4, "start_time");
	o.boot_id = need_name(L, 4, "boot_id");
	o.host = need_name(L, 4, "host");
	return leased(L, j, journal_lease_take(j, target, run, &o, ttl), target,
	    "lease_take");
}

/* j:lease_beat(target, run)
 *  +-> true
 *  +-> nil, err   (locked with err.holder, not_found, full, busy, io)                  */
static int
l_lease_beat(lua_State *L)
{
	struct journal *j = check(L);
	const char *target = name(L, 2);

	return leased(L, j, journal_lease_beat(j, target, name(L, 3)), target,
	    "lease_beat");
}

/* j:lease_drop(target, run)
 *  true also when nobody holds it
 *  +-> true
 *  +-> nil, err   (locked with err.holder, full, busy, io)                             */
static int
l_lease_drop(lua_State *L)
{
	struct journal *j = check(L);
	const char *target = name(L, 2);

	return leased(L, j, journal_lease_drop(j, target, name(L, 3)), target,
	    "lease_drop");
}

/* j:lease(target)
 *  +-> row { target, run, runbook, pid, start_time, boot_id, host, ttl, taken,
 *      heartbeat }, or nil
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_lease(lua_State *L)
{
	struct journal *j = check(L);

	return one_row(L, j, journal_query(j, JOURNAL_LEASE, name(L, 2), NULL), "lease");
}

int luaopen_journal(lua_State *L);

int
luaopen_journal(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "open", l_open },
		{ "default_path", l_default_path },
		{ NULL, NULL },
	};
	static const luaL_Reg meta[] = {
		{ "__gc", l_close },
		{ "__close", l_close },
		{ "__tostring", l_tostring },
		{ NULL, NULL },
	};
	static const luaL_Reg methods[] = {
		{ "close", l_close },
		{ "head", l_head },
		{ "verify", l_verify },
		{ "key", l_key },
		{ "run_create", l_run_create },
		{ "run", l_run },
		{ "runs", l_runs },
		{ "children", l_children },
		{ "run_set", l_run_set },
		{ "step_set", l_step_set },
		{ "steps", l_steps },
		{ "effect_begin", l_effect_begin },
		{ "effect_end", l_effect_end },
		{ "effects", l_effects },
		{ "event", l_event },
		{ "events", l_events },
		{ "source", l_source },
		{ "sources", l_sources },
		{ "pin", l_pin },
		{ "pin_set", l_pin_set },
		{ "path", l_path },
		{ "path_set", l_path_set },
		{ "fingerprint", l_fingerprint },
		{ "lease_take", l_lease_take },
		{ "lease_beat", l_lease_beat },
		{ "lease_drop", l_lease_drop },
		{ "lease", l_lease },
		{ NULL, NULL },
	};

	if (luaL_newmetatable(L, JOURNAL)) {
		luaL_setfuncs(L, meta, 0);
		luaL_newlib(L, methods);
		lua_setfield(L, -2, "__index");
		lua_pushliteral(L, MODULE);
		lua_setfield(L, -2, "__metatable");
	}
	lua_pop(L, 1);
	luaL_newlib(L, functions);
	return 1;
}
