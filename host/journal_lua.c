/* journal_lua.c: the module `journal` of the prelude. Every text it stores or looks up
 * passes the masker first, as the last line of defence; the bodies of sources alone are
 * kept as they are. It knows no SQL and decides nothing. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "journal_args_lua.h"

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
	struct args_box *b;

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
	luaL_setmetatable(L, ARGS_JOURNAL);
	if (path == NULL && (path = usual = journal_default_path()) == NULL)
		return lb_fail(L, ARGS_MODULE, "open", "not_found",
		    "there is no home folder for a journal: use --journal FILE");
	b->j = journal_open(path, flags, &err);
	free(usual);
	if (b->j == NULL)
		return lb_fail(L, ARGS_MODULE, "open", err.code, "%s", err.message);
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
		return lb_fail(L, ARGS_MODULE, "default_path", "not_found",
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
	struct args_box *b = luaL_checkudata(L, 1, ARGS_JOURNAL);

	if (b->j != NULL && journal_held(b->j))
		return luaL_error(L, "close: in a together");
	journal_close(b->j);
	b->j = NULL;
	lb_buf_free(&b->masked);
	memset(&b->masked, 0, sizeof b->masked);
	return 0;
}

static int
l_tostring(lua_State *L)
{
	struct args_box *b = luaL_checkudata(L, 1, ARGS_JOURNAL);

	lua_pushfstring(L, "journal (%s)", b->j != NULL ? journal_path(b->j) : "closed");
	return 1;
}

/* j:head()
 *  +-> hex ("" while there is no event), seq
 *  +-> nil, err   (busy, io, corrupt, chain)                                           */
static int
l_head(lua_State *L)
{
	struct journal *j = args_journal(L);
	long long seq = 0;
	char hex[65];

	if (!journal_head(j, hex, &seq))
		return args_fail(L, j, "head");
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
	struct journal *j = args_journal(L);
	const char *head = args_opt_name(L, 2);
	long long count = 0;

	if (!journal_verify(j, head, &count))
		return args_fail(L, j, "verify");
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
	struct journal *j = args_journal(L);
	unsigned char key[32];

	if (!journal_key(j, key))
		return args_fail(L, j, "key");
	lb_secret_push(L, "journal.key", key, sizeof key);
	lb_wipe(key, sizeof key);
	return 1;
}

/* j:together(f)
 *  What f writes to this journal is one commit, or nothing when one of its calls failed
 *  or it raised. It must not wait: other processes are held up.
 *  +-> true
 *  +-> nil, err   (as the call that failed; full, busy, io)                            */
static int
l_together(lua_State *L)
{
	struct journal *j = args_journal(L);
	int rc;

	luaL_checktype(L, 2, LUA_TFUNCTION);
	lua_settop(L, 2);
	if (journal_held(j))
		return luaL_error(L, "together: in another together already");
	if (!journal_hold(j))
		return args_fail(L, j, "together");
	rc = lua_pcall(L, 0, 0, 0);
	if (rc != LUA_OK) {
		journal_release(j, false);
		return lua_error(L);
	}
	return args_done(L, j, journal_release(j, true), "together");
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
		list[i].path = args_name(L, lua_gettop(L));
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
	struct journal *j = args_journal(L);
	struct journal_run r = { 0 };
	bool existing;
	int n;

	luaL_checktype(L, 2, LUA_TTABLE);
	lua_settop(L, 2);
	lb_opts(L, 2, names);
	luaL_checkstack(L, 40, "too many options");
	r.id = args_need_name(L, 2, "id");
	r.name = args_field_name(L, 2, "name");
	r.runbook = args_field_name(L, 2, "runbook");
	r.section = args_field_name(L, 2, "section");
	r.subject = args_field_name(L, 2, "subject");
	r.target = args_field_name(L, 2, "target");
	r.params = args_field(L, 2, "params");
	r.params_digest = args_field_name(L, 2, "params_digest");
	r.options = args_field(L, 2, "options");
	r.request_id = args_field_name(L, 2, "request_id");
	r.parent = args_field_name(L, 2, "parent");
	r.parent_step = args_field_name(L, 2, "parent_step");
	r.interface = args_field_integer(L, 2, "interface");
	r.steps_digest = args_field_name(L, 2, "steps_digest");
	lua_pushliteral(L, "sources");
	lua_rawget(L, 2);
	r.sources = sources(L, lua_gettop(L), &r.nsources);
	if (!journal_run_create(j, &r, &existing))
		return args_fail(L, j, "run_create");
	n = args_one_row(L, j, existing ?
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
	struct journal *j = args_journal(L);

	return args_one_row(L, j, journal_run(j, args_name(L, 2)), "run");
}

/* j:runs{ status, target, parent, limit }
 *  +-> rows, newest first
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_runs(lua_State *L)
{
	static const char *const names[] = { "status", "target", "parent", "limit",
		NULL };
	struct journal *j = args_journal(L);
	const char *status, *target, *parent;
	long long limit;

	lua_settop(L, 2);
	lb_opts(L, 2, names);
	limit = lb_opt_integer(L, 2, "limit", -1, 1, INT_MAX);
	status = args_field_name(L, 2, "status");
	target = args_field_name(L, 2, "target");
	parent = args_field_name(L, 2, "parent");
	return args_rows(L, j, journal_runs(j, status, target, parent, limit), "runs");
}

/* j:children(run)
 *  +-> rows, newest first
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_children(lua_State *L)
{
	struct journal *j = args_journal(L);

	return args_rows(
	    L, j, journal_runs(j, NULL, NULL, args_name(L, 2), -1), "children");
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
	struct journal *j = args_journal(L);
	const char *id = args_name(L, 2), *type = args_name(L, 4), *status, *digest;
	struct journal_text data = args_opt_text(L, 5), summary;

	lb_opts(L, 3, names);
	status = args_field_name(L, 3, "status");
	summary = args_field(L, 3, "summary");
	digest = args_field_name(L, 3, "steps_digest");
	return args_done(L, j,
	    journal_run_set(j, id, status, args_field_integer(L, 3, "exit"), summary,
		digest, type, data),
	    "run_set");
}

/* Steps and effects */

/* j:step_set(run, step, { idx, status, class, attempt, message, title, effect, output },
 *     event_type, event_json)
 *  makes the step, or changes what is named; the same commit settles `effect` as done
 *  +-> true
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_step_set(lua_State *L)
{
	static const char *const names[] = { "idx", "status", "class", "attempt",
		"message", "title", "effect", "output", NULL };
	struct journal *j = args_journal(L);
	const char *run = args_name(L, 2), *step = args_name(L, 3),
		   *type = args_name(L, 5);
	struct journal_text data = args_opt_text(L, 6);
	struct journal_step s;

	lb_opts(L, 4, names);
	s.idx = args_field_integer(L, 4, "idx");
	s.attempt = args_field_integer(L, 4, "attempt");
	s.status = args_field_name(L, 4, "status");
	s.class = args_field_name(L, 4, "class");
	s.title = args_field_name(L, 4, "title");
	s.message = args_field(L, 4, "message");
	return args_done(L, j, journal_step_set(j, run, step,
	    args_field_name(L, 4, "effect"), args_field(L, 4, "output"), &s, type,
	    data), "step_set");
}

/* j:steps(run)
 *  +-> rows by idx
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_steps(lua_State *L)
{
	struct journal *j = args_journal(L);

	return args_rows(
	    L, j, journal_query(j, JOURNAL_STEPS, args_name(L, 2), NULL), "steps");
}

/* j:effect_begin(run, step, effect, { idx, resource, intent, before, undoable })
 *  each call begins an attempt; the first `before` that was given is what undo gets
 *  +-> attempt
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_effect_begin(lua_State *L)
{
	static const char *const names[] = { "idx", "resource", "intent", "before",
		"undoable", NULL };
	struct journal *j = args_journal(L);
	const char *run = args_name(L, 2), *step = args_name(L, 3),
		   *effect = args_name(L, 4), *resource;
	struct journal_text intent, before;
	long long idx, attempt;
	bool undoable;

	lua_settop(L, 5);
	lb_opts(L, 5, names);
	idx = args_field_integer(L, 5, "idx");
	undoable = lb_opt_boolean(L, 5, "undoable", false);
	resource = args_field_name(L, 5, "resource");
	intent = args_field(L, 5, "intent");
	before = args_field(L, 5, "before");
	if (!journal_effect_begin(j, run, step, effect, idx, resource, intent, before,
	    undoable, &attempt))
		return args_fail(L, j, "effect_begin");
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
	struct journal *j = args_journal(L);
	const char *run = args_name(L, 2), *step = args_name(L, 3),
		   *effect = args_name(L, 4);
	const char *status = statuses[luaL_checkoption(L, 5, NULL, statuses)];
	struct journal_text output, message;

	lua_settop(L, 6);
	lb_opts(L, 6, names);
	output = args_field(L, 6, "output");
	message = args_field(L, 6, "message");
	return args_done(L, j, journal_effect_end(j, run, step, effect, status, output,
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
	struct journal *j = args_journal(L);

	return args_rows(L, j,
	    journal_query(j, JOURNAL_EFFECTS, args_name(L, 2), args_opt_name(L, 3)),
	    "effects");
}

/* Events and sources */

/* j:event(run, type, json)
 *  +-> true
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_event(lua_State *L)
{
	struct journal *j = args_journal(L);
	const char *run = args_name(L, 2), *type = args_name(L, 3);

	return args_done(L, j, journal_event(j, run, type, args_opt_text(L, 4)), "event");
}

/* j:events(run, { after, limit })
 *  run nil: of all runs
 *  +-> rows { seq, ts, run, type, data, hash } in order
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_events(lua_State *L)
{
	static const char *const names[] = { "after", "limit", NULL };
	struct journal *j = args_journal(L);
	long long after, limit;

	lb_opts(L, 3, names);
	after = lb_opt_integer(L, 3, "after", 0, 0, LLONG_MAX);
	limit = lb_opt_integer(L, 3, "limit", -1, 1, INT_MAX);
	return args_rows(
	    L, j, journal_events(j, args_opt_name(L, 2), after, limit), "events");
}

/* j:source(run, path)
 *  +-> body
 *  +-> nil, err   (not_found, busy, io, corrupt)                                       */
static int
l_source(lua_State *L)
{
	struct journal *j = args_journal(L);
	const char *run = args_name(L, 2), *path = args_name(L, 3);
	int n = args_texts(L, j, journal_query(j, JOURNAL_SOURCE, run, path), "source");

	if (n == 1 && lua_isnil(L, -1))
		return lb_fail(L, ARGS_MODULE, "source", "not_found",
		    "run %s has no source %s", run, path);
	return n;
}

/* j:sources(run)
 *  +-> rows { path, sha256, size } by path
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_sources(lua_State *L)
{
	struct journal *j = args_journal(L);

	return args_rows(
	    L, j, journal_query(j, JOURNAL_SOURCES, args_name(L, 2), NULL), "sources");
}

/* Pins, paths, fingerprints */

/* j:pin(run, target)
 *  +-> json, or nil when none is pinned
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_pin(lua_State *L)
{
	struct journal *j = args_journal(L);

	return args_texts(
	    L, j, journal_query(j, JOURNAL_PIN, args_name(L, 2), args_name(L, 3)), "pin");
}

/* j:pin_set(run, target, json)
 *  +-> true
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_pin_set(lua_State *L)
{
	struct journal *j = args_journal(L);
	const char *run = args_name(L, 2), *target = args_name(L, 3);

	luaL_checktype(L, 4, LUA_TSTRING);
	return args_done(
	    L, j, journal_pin_set(j, run, target, args_masked(L, 4)), "pin_set");
}

/* j:path(target)
 *  without target: the journal's own path
 *  +-> url, json; nil when no path to it was ever proven
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_path(lua_State *L)
{
	struct journal *j = args_journal(L);

	if (lua_isnone(L, 2)) {
		lua_pushstring(L, journal_path(j));
		return 1;
	}
	return args_texts(
	    L, j, journal_query(j, JOURNAL_PROVEN, args_name(L, 2), NULL), "path");
}

/* j:path_set(target, url, json)
 *  +-> true
 *  +-> nil, err   (full, busy, io)                                                     */
static int
l_path_set(lua_State *L)
{
	struct journal *j = args_journal(L);
	const char *target = args_name(L, 2), *url = args_name(L, 3);

	return args_done(
	    L, j, journal_path_set(j, target, url, args_opt_text(L, 4)), "path_set");
}

/* j:fingerprint(run, name, hex)
 *  without hex: what is kept
 *  +-> hex, or nil when there is none; true when hex was given
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_fingerprint(lua_State *L)
{
	struct journal *j = args_journal(L);
	const char *run = args_name(L, 2), *what = args_name(L, 3);

	if (lua_isnoneornil(L, 4))
		return args_texts(L, j, journal_query(j, JOURNAL_FINGERPRINT, run, what),
		    "fingerprint");
	return args_done(L, j, journal_fingerprint_set(j, run, what, args_name(L, 4)),
	    "fingerprint");
}

/* Leases */

/* A refusal names the holder. */
static int
leased(lua_State *L, struct journal *j, bool ok, const char *target, const char *op)
{
	bool holder = !ok && strcmp(journal_error(j)->code, "locked") == 0;
	int n = args_done(L, j, ok, op);

	if (holder &&
	    args_one_row(L, j, journal_query(j, JOURNAL_LEASE, target, NULL), op) == 1)
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
	struct journal *j = args_journal(L);
	const char *target = args_name(L, 2), *run = args_name(L, 3);
	struct journal_owner o;
	double ttl;

	luaL_checktype(L, 5, LUA_TNUMBER);
	ttl = lua_tonumber(L, 5);
	luaL_argcheck(L, ttl > 0, 5, "must be a number of seconds");
	args_owner(L, 4, &o);
	return leased(L, j, journal_lease_take(j, target, run, &o, ttl), target,
	    "lease_take");
}

/* j:lease_beat(target, run)
 *  +-> true
 *  +-> nil, err   (locked with err.holder, not_found, full, busy, io)                  */
static int
l_lease_beat(lua_State *L)
{
	struct journal *j = args_journal(L);
	const char *target = args_name(L, 2);

	return leased(L, j, journal_lease_beat(j, target, args_name(L, 3)), target,
	    "lease_beat");
}

/* j:lease_drop(target, run)
 *  true also when nobody holds it
 *  +-> true
 *  +-> nil, err   (locked with err.holder, full, busy, io)                             */
static int
l_lease_drop(lua_State *L)
{
	struct journal *j = args_journal(L);
	const char *target = args_name(L, 2);

	return leased(L, j, journal_lease_drop(j, target, args_name(L, 3)), target,
	    "lease_drop");
}

/* j:lease(target)
 *  +-> row { target, run, runbook, pid, start_time, boot_id, host, ttl, taken,
 *      heartbeat }, or nil
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_lease(lua_State *L)
{
	struct journal *j = args_journal(L);

	return args_one_row(
	    L, j, journal_query(j, JOURNAL_LEASE, args_name(L, 2), NULL), "lease");
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
		{ "together", l_together },
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

	if (luaL_newmetatable(L, ARGS_JOURNAL)) {
		luaL_setfuncs(L, meta, 0);
		luaL_newlib(L, methods);
		args_outbox_methods(L);
		lua_setfield(L, -2, "__index");
		lua_pushliteral(L, ARGS_MODULE);
		lua_setfield(L, -2, "__metatable");
	}
	lua_pop(L, 1);
	luaL_newlib(L, functions);
	return 1;
}
