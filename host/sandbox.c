/* sandbox.c: the allow-listed environment of runbooks, the deadline that pcall cannot
 * swallow, and the watchdog for what no hook can reach. Opens no file and no module. */
#include "sandbox.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <lualib.h>

#include "lb.h"

#define HOOK_EVERY 10000 /* instructions: some 50 microseconds */
#define NS 1000000000ULL
#define OWN_METATABLES "lb.sandbox.metatables"

struct sandbox {
	uint64_t limit; /* ns of CPU time a slice may take */
	uint64_t end;   /* of the current slice; 0 outside one */
	bool expired;   /* until the boundary (host.call, the task's end) is reached */

	/* Shared with the watchdog. */
	pthread_t thread;
	clockid_t clock; /* of the thread that runs Lua */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stop;
	_Atomic uint64_t hard_end; /* 0: not in a slice */
	_Atomic uint64_t period;
	char name[80];
};

static const char registry_key;

static struct sandbox *
sandbox_of(lua_State *L)
{
	struct sandbox *sb;

	lua_rawgetp(L, LUA_REGISTRYINDEX, &registry_key);
	sb = lua_touserdata(L, -1);
	lua_pop(L, 1);
	return sb;
}

static uint64_t
cpu_now(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) != 0)
		return 0;
	return (uint64_t)ts.tv_sec * NS + (uint64_t)ts.tv_nsec;
}

/* Deadline */

/* Once a slice has expired the hook runs at every instruction and always raises: what a
 * pcall, an xpcall handler or a __close caught is raised again at its next instruction.
 */
static void
on_count(lua_State *L, lua_Debug *ar)
{
	struct sandbox *sb = sandbox_of(L);

	(void)ar;
	if (!sb->expired) {
		if (sb->end == 0 || cpu_now(CLOCK_THREAD_CPUTIME_ID) < sb->end)
			return;
		sb->expired = true;
	}
	lua_sethook(L, on_count, LUA_MASKCOUNT, 1);
	lb_fail(L, "lua", "deadline", "deadline",
	    "no wait and no end within %.3g s of Lua time", (double)sb->limit / NS);
	lua_error(L);
}

static void
slice_begin(struct sandbox *sb)
{
	uint64_t now = cpu_now(CLOCK_THREAD_CPUTIME_ID);

	sb->end = now + sb->limit;
	atomic_store_explicit(&sb->hard_end, now + 2 * sb->limit, memory_order_relaxed);
}

static void
recover(struct sandbox *sb, lua_State *L)
{
	sb->expired = false;
	lua_sethook(L, on_count, LUA_MASKCOUNT, HOOK_EVERY);
}

void
sandbox_enter(struct sandbox *sb, lua_State *co)
{
	(void)co;
	slice_begin(sb);
}

void
sandbox_leave(struct sandbox *sb, lua_State *co)
{
	atomic_store_explicit(&sb->hard_end, 0, memory_order_relaxed);
	sb->end = 0;
	if (sb->expired)
		recover(sb, co);
}

/* host.deadline(seconds [, name])
 *  +-> seconds before
 * The Lua time from here to the next wait, and between any two waits after it; nil leaves
 * it as it is. The watchdog names `name`. Raises for less than 0.01 or more than 3600. */
int
sandbox_deadline(lua_State *L)
{
	struct sandbox *sb = sandbox_of(L);
	double before = (double)sb->limit / NS, seconds = luaL_optnumber(L, 1, before);
	const char *name = luaL_optstring(L, 2, NULL);
	uint64_t period;

	luaL_argcheck(L, seconds >= 0.01 && seconds <= 3600, 1, "0.01 to 3600 seconds");
	pthread_mutex_lock(&sb->lock);
	sb->limit = (uint64_t)(seconds * NS);
	if (name != NULL) {
		snprintf(sb->name, sizeof sb->name, "%s", name);
		for (char *p = sb->name; *p != '\0'; p++)
			if ((unsigned char)*p < 0x20 || *p == 0x7f)
				*p = '?';
	}
	period = sb->limit / 4;
	sb->period = period < NS ? period : NS;
	pthread_cond_signal(&sb->changed);
	pthread_mutex_unlock(&sb->lock);
	if (sb->end != 0)
		slice_begin(sb);
	lua_pushnumber(L, before);
	return 1;
}

/* Watchdog */

static void
give_up(struct sandbox *sb)
{
	char line[256];
	int n;

	n = snprintf(line, sizeof line,
	    "lbrun: internal: a Lua call did not return within %.3g s (runbook %s); "
	    "the journal is intact, see lbrun explain\n",
	    2 * (double)sb->limit / NS, sb->name[0] != '\0' ? sb->name : "unknown");
	if (n < 0 || write(STDERR_FILENO, line, (size_t)n) < 0)
		_exit(1);
	_exit(1);
}

static void *
watch(void *arg)
{
	struct sandbox *sb = arg;
	struct timespec until;

	pthread_mutex_lock(&sb->lock);
	while (!sb->stop) {
		uint64_t hard_end, at;

		clock_gettime(CLOCK_MONOTONIC, &until);
		at = (uint64_t)until.tv_sec * NS + (uint64_t)until.tv_nsec + sb->period;
		until.tv_sec = (time_t)(at / NS);
		until.tv_nsec = (long)(at % NS);
		pthread_cond_timedwait(&sb->changed, &sb->lock, &until);
		hard_end = atomic_load_explicit(&sb->hard_end, memory_order_relaxed);
		if (hard_end != 0 && cpu_now(sb->clock) > hard_end)
			give_up(sb);
	}
	pthread_mutex_unlock(&sb->lock);
	return NULL;
}

static bool
watchdog_start(struct sandbox *sb)
{
	pthread_condattr_t attr;
	sigset_t all, old;
	int r;

	if (pthread_getcpuclockid(pthread_self(), &sb->clock) != 0)
		return false;
	pthread_mutex_init(&sb->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&sb->changed, &attr);
	pthread_condattr_destroy(&attr);
	/* Signals belong to the loop's thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&sb->thread, NULL, watch, sb);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r == 0)
		return true;
	pthread_cond_destroy(&sb->changed);
	pthread_mutex_destroy(&sb->lock);
	return false;
}

/* The boundary between trusted and sandboxed code */

/* The message handler of host.call: an error and the traceback that goes with it travel
 * in one box, for a handler returns one value. */
static int
box_error(lua_State *L)
{
	lua_createtable(L, 2, 0);
	lua_pushvalue(L, 1);
	lua_rawseti(L, -2, 1);
	luaL_traceback(L, L, NULL, 1);
	lua_rawseti(L, -2, 2);
	lua_pushlightuserdata(L, (void *)(uintptr_t)&registry_key);
	lua_rawseti(L, -2, 3);
	return 1;
}

static int
call_end(lua_State *L, int status, lua_KContext ctx)
{
	struct sandbox *sb = sandbox_of(L);
	bool boxed = false;

	(void)ctx;
	if (status == LUA_OK || status == LUA_YIELD)
		return lua_gettop(L) - 1; /* all but the handler */
	if (sb->expired) {
		recover(sb, L);
		slice_begin(sb);
	}
	if (lua_type(L, -1) == LUA_TTABLE) {
		boxed = lua_rawgeti(L, -1, 3) == LUA_TLIGHTUSERDATA &&
		    lua_touserdata(L, -1) == (const void *)&registry_key;
		lua_pop(L, 1);
	}
	lua_pushboolean(L, 0);
	if (!boxed) {
		lua_pushvalue(L, -2);
		lua_pushliteral(L, "");
		return 3;
	}
	lua_rawgeti(L, -2, 1);
	lua_rawgeti(L, -3, 2);
	return 3;
}

/* host.call(fn, ...)
 *  +-> true, results...
 *  +-> false, error value, traceback
 * The trusted side's pcall: the one place where an expired deadline ends. */
int
sandbox_call(lua_State *L)
{
	luaL_checkany(L, 1);
	lua_pushcfunction(L, box_error);
	lua_insert(L, 1);
	lua_pushboolean(L, 1);
	lua_insert(L, 2); /* handler, true, fn, args... */
	return call_end(
	    L, lua_pcallk(L, lua_gettop(L) - 3, LUA_MULTRET, 1, 0, call_end), 0);
}

/* Whether this function was called by embedded code that was itself called by nothing but
 * embedded code. */
static bool
all_trusted(lua_State *L)
{
	lua_Debug ar;

	for (int level = 1; lua_getstack(L, level, &ar) != 0; level++) {
		lua_getinfo(L, "S", &ar);
		if (*ar.what != 'C' && strncmp(ar.source, "=lb/", 4) != 0)
			return false;
	}
	return true;
}

static int
pcall_end(lua_State *L, int status, lua_KContext recovers)
{
	struct sandbox *sb = sandbox_of(L);

	if (status == LUA_OK || status == LUA_YIELD)
		return lua_gettop(L);
	if (recovers && sb->expired && all_trusted(L)) {
		recover(sb, L);
		slice_begin(sb);
	}
	lua_pushboolean(L, 0);
	lua_pushvalue(L, -2);
	return 2;
}

static int
do_pcall(lua_State *L, lua_KContext recovers)
{
	luaL_checkany(L, 1);
	lua_pushboolean(L, 1);
	lua_insert(L, 1);
	return pcall_end(L,
	    lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, recovers, pcall_end),
	    recovers);
}

/* pcall of the embedded code: it may go on after a runbook that it called has expired.
 * Not so when a runbook called the embedded code: that runbook would go on, too. */
static int
trusted_pcall(lua_State *L)
{
	return do_pcall(L, 1);
}

static int
plain_pcall(lua_State *L)
{
	return do_pcall(L, 0);
}

static int
body_end(lua_State *L, int status, lua_KContext ctx)
{
	(void)ctx;
	if (status != LUA_OK && status != LUA_YIELD)
		return lua_error(L);
	return lua_gettop(L);
}

/* An error that the hook has raised leaves hooks off until a pcall catches it, and what a
 * task has still to close would run without a deadline: so every task begins with one. */
static int
task_body(lua_State *L)
{
	return body_end(
	    L, lua_pcallk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, 0, body_end), 0);
}

void
sandbox_push_body(lua_State *L)
{
	lua_pushcfunction(L, task_body);
}

/* The environment */

/* Handlers of xpcall run where the error was raised. In the hook's case hooks are off
 * there, so that a handler that loops would never be stopped: it is not called. */
static int
guarded_handler(lua_State *L)
{
	if (sandbox_of(L)->expired)
		return 1;
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, 1);
	return 1;
}

static int
xpcall_end(lua_State *L, int status, lua_KContext ctx)
{
	(void)ctx;
	if (status == LUA_OK || status == LUA_YIELD)
		return lua_gettop(L) - 1;
	lua_pushboolean(L, 0);
	lua_pushvalue(L, -2);
	return 2;
}

static int
safe_xpcall(lua_State *L)
{
	int n = lua_gettop(L);

	luaL_checktype(L, 2, LUA_TFUNCTION);
	lua_pushvalue(L, 2);
	lua_pushcclosure(L, guarded_handler, 1);
	lua_replace(L, 2); /* f, handler, args... */
	lua_pushvalue(L, 1);
	lua_pushboolean(L, 1);
	lua_copy(L, 2, 1);   /* handler, handler, args..., f, true */
	lua_rotate(L, 3, 2); /* handler, handler, f, true, args... */
	lua_copy(L, 4, 2);
	lua_remove(L, 4); /* handler, true, f, args... */
	return xpcall_end(L, lua_pcallk(L, n - 2, LUA_MULTRET, 1, 0, xpcall_end), 0);
}

/* The metatables that sandboxed code has set: it sees and replaces no others, so that
 * none of the host's can be turned against the host. */
static bool
is_own(lua_State *L, int mt)
{
	bool own;

	mt = lua_absindex(L, mt);
	luaL_getsubtable(L, LUA_REGISTRYINDEX, OWN_METATABLES);
	lua_pushvalue(L, mt);
	own = lua_rawget(L, -2) != LUA_TNIL;
	lua_pop(L, 2);
	return own;
}

static int
safe_getmetatable(lua_State *L)
{
	luaL_checkany(L, 1);
	if (lua_type(L, 1) != LUA_TTABLE || !lua_getmetatable(L, 1) || !is_own(L, -1)) {
		lua_pushnil(L);
		return 1;
	}
	luaL_getmetafield(L, 1, "__metatable");
	return 1;
}

/* Finalizers run with hooks off, where no deadline reaches them. A table is marked for
 * one when it gets a metatable that has __gc, so refusing that here is enough. */
static int
safe_setmetatable(lua_State *L)
{
	int t = lua_type(L, 2);

	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_argexpected(L, t == LUA_TNIL || t == LUA_TTABLE, 2, "nil or table");
	if (lua_getmetatable(L, 1) &&
	    (!is_own(L, -1) || luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL))
		return luaL_error(L, "cannot change a protected metatable");
	if (t == LUA_TTABLE) {
		lua_pushliteral(L, "__gc");
		if (lua_rawget(L, 2) != LUA_TNIL)
			return luaL_error(L, "a runbook's metatable cannot have __gc");
		luaL_getsubtable(L, LUA_REGISTRYINDEX, OWN_METATABLES);
		lua_pushvalue(L, 2);
		lua_pushboolean(L, 1);
		lua_rawset(L, -3);
	}
	lua_settop(L, 2);
	lua_setmetatable(L, 1);
	return 1;
}

static int
safe_collectgarbage(lua_State *L)
{
	const char *what = luaL_optstring(L, 1, "collect");

	if (strcmp(what, "count") != 0)
		return luaL_error(
		    L, "a runbook can only ask collectgarbage for \"count\"");
	lua_pushnumber(L, lua_gc(L, LUA_GCCOUNT) + lua_gc(L, LUA_GCCOUNTB) / 1024.0);
	return 1;
}

/* pairs in the order of the keys: numbers, then strings, then the rest. Lua's own order
 * changes from one process to the next, and a resumed run has to compute the same steps
 * and the same files as the one before. */
struct key {
	int type;
	bool integer;
	lua_Integer i;
	lua_Number n;
	const char *s;
	size_t len;
	lua_Integer at;
};

static int
key_rank(const struct key *k)
{
	return k->type == LUA_TNUMBER ? 0 : k->type == LUA_TSTRING ? 1 : 2;
}

static int
key_compare(const void *pa, const void *pb)
{
	const struct key *a = pa, *b = pb;
	int ra = key_rank(a), rb = key_rank(b), c;

	if (ra != rb)
		return ra - rb;
	if (ra == 0 && a->integer && b->integer)
		return a->i < b->i ? -1 : a->i > b->i;
	if (ra == 0) {
		double x = a->integer ? (double)a->i : a->n,
		       y = b->integer ? (double)b->i : b->n;
		return x < y ? -1 : x > y;
	}
	if (ra == 1) {
		c = memcmp(a->s, b->s, a->len < b->len ? a->len : b->len);
		return c != 0 ? c : a->len < b->len ? -1 : a->len > b->len;
	}
	return a->at < b->at ? -1 : a->at > b->at;
}

static int
next_sorted(lua_State *L)
{
	lua_Integer i = lua_tointeger(L, lua_upvalueindex(2));

	lua_settop(L, 0);
	for (;;) {
		lua_rawgeti(L, lua_upvalueindex(1), ++i);
		if (lua_isnil(L, -1))
			return 1;
		lua_pushvalue(L, -1);
		/* Keys that the loop's body has cleared meanwhile are left out. */
		if (lua_rawget(L, lua_upvalueindex(3)) != LUA_TNIL)
			break;
		lua_settop(L, 0);
	}
	lua_pushinteger(L, i);
	lua_replace(L, lua_upvalueindex(2));
	return 2;
}

static int
pairs_end(lua_State *L, int status, lua_KContext ctx)
{
	(void)L, (void)status, (void)ctx;
	return 3;
}

static int
sorted_pairs(lua_State *L)
{
	lua_Integer count = 0, i = 0;
	struct key *keys;

	luaL_checkany(L, 1);
	if (luaL_getmetafield(L, 1, "__pairs") != LUA_TNIL) {
		lua_pushvalue(L, 1);
		lua_callk(L, 1, 3, 0, pairs_end);
		return 3;
	}
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	for (lua_pushnil(L); lua_next(L, 1) != 0; lua_pop(L, 1))
		count++;
	keys = lua_newuserdatauv(L, (size_t)(count + 1) * sizeof *keys, 0);
	lua_createtable(L, (int)count, 0);
	for (lua_pushnil(L); i < count && lua_next(L, 1) != 0; lua_pop(L, 1)) {
		struct key *k = &keys[i];

		k->type = lua_type(L, -2);
		k->at = ++i;
		k->s = NULL;
		k->integer = lua_isinteger(L, -2) != 0;
		k->i = k->integer ? lua_tointeger(L, -2) : 0;
		k->n = k->type == LUA_TNUMBER ? lua_tonumber(L, -2) : 0;
		if (k->type == LUA_TSTRING)
			k->s = lua_tolstring(L, -2, &k->len);
		lua_pushvalue(L, -2);
		lua_rawseti(L, 3, i);
	}
	lua_settop(L, 3);
	qsort(keys, (size_t)i, sizeof *keys, key_compare);
	lua_createtable(L, (int)i, 0);
	for (lua_Integer n = 0; n < i; n++) {
		lua_rawgeti(L, 3, keys[n].at);
		lua_rawseti(L, 4, n + 1);
	}
	lua_pushinteger(L, 0);
	lua_pushvalue(L, 1);
	lua_pushcclosure(L, next_sorted, 3);
	lua_pushvalue(L, 1);
	lua_pushnil(L);
	return 3;
}

static void
copy_library(lua_State *L, const char *name, const char *const without[])
{
	int from;

	lua_getglobal(L, name);
	from = lua_gettop(L);
	lua_newtable(L);
	for (lua_pushnil(L); lua_next(L, from) != 0; lua_pop(L, 1)) {
		lua_pushvalue(L, -2);
		lua_pushvalue(L, -2);
		lua_rawset(L, -5);
	}
	for (; *without != NULL; without++) {
		lua_pushnil(L);
		lua_setfield(L, -2, *without);
	}
	lua_remove(L, from);
}

void
sandbox_push_env(lua_State *L)
{
	static const char *const plain[] = { "assert", "error", "ipairs", "next",
		"select", "tonumber", "tostring", "type", "rawequal", "rawlen", "rawget",
		"rawset", "_VERSION", NULL };
	static const luaL_Reg guarded[] = { { "pcall", plain_pcall },
		{ "xpcall", safe_xpcall }, { "getmetatable", safe_getmetatable },
		{ "setmetatable", safe_setmetatable },
		{ "collectgarbage", safe_collectgarbage }, { "pairs", sorted_pairs },
		{ NULL, NULL } };
	static const char *const nothing[] = { NULL };
	static const char *const no_dump[] = { "dump", NULL };
	/* A list of steps must come out the same when it is computed again. */
	static const char *const no_chance[] = { "random", "randomseed", NULL };

	luaL_checkstack(L, 8, "sandbox");
	lua_newtable(L);
	lua_pushvalue(L, -1);
	lua_setfield(L, -2, "_G");
	for (const char *const *name = plain; *name != NULL; name++) {
		lua_getglobal(L, *name);
		lua_setfield(L, -2, *name);
	}
	luaL_setfuncs(L, guarded, 0);
	copy_library(L, "string", no_dump);
	lua_setfield(L, -2, "string");
	copy_library(L, "table", nothing);
	lua_setfield(L, -2, "table");
	copy_library(L, "math", no_chance);
	lua_setfield(L, -2, "math");
	copy_library(L, "utf8", nothing);
	lua_setfield(L, -2, "utf8");
}

/* Loading */

struct source {
	const char *data;
	size_t len;
};

static const char *
read_source(lua_State *L, void *arg, size_t *len)
{
	struct source *s = arg;

	(void)L;
	*len = s->len;
	s->len = 0;
	return *len > 0 ? s->data : NULL;
}

/* "name:LINE: text" has the name as Lua shortens it; a caller wants the three apart. */
static int
syntax_error(lua_State *L, const char *chunkname, const char *message)
{
	const char *file = chunkname + 1, *text = message;
	lua_Debug ar;
	lua_Integer line = 0;
	size_t n;

	if (luaL_loadbufferx(L, "", 0, chunkname, "t") == LUA_OK) {
		lua_getinfo(L, ">S", &ar);
		n = strlen(ar.short_src);
		if (strncmp(message, ar.short_src, n) == 0 && message[n] == ':') {
			char *end;
			line = strtoll(message + n + 1, &end, 10);
			text = strncmp(end, ": ", 2) == 0 ? end + 2 : message;
		}
	} else {
		lua_pop(L, 1);
	}
	lb_fail(L, "lua", "load", "syntax", "%s", text);
	lua_pushstring(L, file);
	lua_setfield(L, -2, "file");
	lua_pushinteger(L, line);
	lua_setfield(L, -2, "line");
	return 2;
}

/* host.load(source, chunkname, env)
 *  +-> function
 *  +-> nil, err   (syntax; err.message without err.file and err.line)
 * Text only, never bytecode. A first line that begins with # is left out. */
int
sandbox_load(lua_State *L)
{
	struct source s;
	const char *name = luaL_checkstring(L, 2);
	int status;

	s.data = luaL_checklstring(L, 1, &s.len);
	luaL_checktype(L, 3, LUA_TTABLE);
	/* "=lb/..." is how the trusted side knows its own. */
	luaL_argcheck(L, *name == '@', 2, "not @FILE");
	if (s.len > 0 && *s.data == '#') {
		const char *end = memchr(s.data, '\n', s.len);
		s.len = end != NULL ? s.len - (size_t)(end - s.data) : 0;
		s.data = end;
	}
	status = lua_load(L, read_source, &s, name, "t");
	if (status == LUA_ERRSYNTAX)
		return syntax_error(L, name, lua_tostring(L, -1));
	if (status != LUA_OK)
		return lua_error(L);
	lua_pushvalue(L, 3);
	if (lua_setupvalue(L, -2, 1) == NULL)
		lua_pop(L, 1);
	return 1;
}

/* Life */

/* Methods of strings come from a table of their own that no runbook can reach, and that
 * has no string.dump. */
static void
protect_strings(lua_State *L)
{
	static const char *const no_dump[] = { "dump", NULL };

	lua_pushliteral(L, "");
	lua_getmetatable(L, -1);
	copy_library(L, "string", no_dump);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 2);
}

struct sandbox *
sandbox_open(void)
{
	struct sandbox *sb = calloc(1, sizeof *sb);

	if (sb == NULL)
		return NULL;
	sb->limit = 10 * NS;
	sb->period = NS;
	if (!watchdog_start(sb)) {
		free(sb);
		return NULL;
	}
	return sb;
}

void
sandbox_install(lua_State *L, struct sandbox *sb)
{
	lua_pushlightuserdata(L, sb);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &registry_key);
	protect_strings(L);
	luaL_getsubtable(L, LUA_REGISTRYINDEX, OWN_METATABLES);
	lua_createtable(L, 0, 1);
	lua_pushliteral(L, "k");
	lua_setfield(L, -2, "__mode");
	lua_setmetatable(L, -2);
	lua_pop(L, 1);
	lua_register(L, "pcall", trusted_pcall);
	lua_sethook(L, on_count, LUA_MASKCOUNT, HOOK_EVERY);
}

void
sandbox_close(struct sandbox *sb)
{
	if (sb == NULL)
		return;
	pthread_mutex_lock(&sb->lock);
	sb->stop = true;
	pthread_cond_signal(&sb->changed);
	pthread_mutex_unlock(&sb->lock);
	pthread_join(sb->thread, NULL);
	pthread_cond_destroy(&sb->changed);
	pthread_mutex_destroy(&sb->lock);
	free(sb);
}
