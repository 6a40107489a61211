/* hostlib.c: the module `host` of the prelude: this process, this machine, secrets, and
 * the doors to the loop and the sandbox. It knows neither journal nor runbook. */
#include "hostlib.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "lb.h"
#include "loop.h"
#include "mask.h"
#include "mask_lua.h"
#include "sandbox.h"
#include "secret.h"
#include "version.h"

/* Time */

static double
seconds_of(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* host.now()
 *  +-> seconds since the epoch */
static int
host_now(lua_State *L)
{
	lua_pushnumber(L, seconds_of(CLOCK_REALTIME));
	return 1;
}

/* host.monotonic()
 *  +-> seconds of a clock that nobody sets; only differences mean something */
static int
host_monotonic(lua_State *L)
{
	lua_pushnumber(L, seconds_of(CLOCK_MONOTONIC));
	return 1;
}

/* host.date(format, time, utc)
 *  +-> text as strftime formats it; time is now unless given, utc a boolean */
static int
host_date(lua_State *L)
{
	const char *format = luaL_checkstring(L, 1);
	double at = luaL_optnumber(L, 2, seconds_of(CLOCK_REALTIME));
	time_t t;
	struct tm tm;
	char text[256];

	luaL_argcheck(L, at > -1e11 && at < 1e12, 2, "not a time");
	luaL_argcheck(L, strlen(format) < 64, 1, "format is too long");
	t = (time_t)at;
	if ((lua_toboolean(L, 3) ? gmtime_r(&t, &tm) : localtime_r(&t, &tm)) == NULL)
		return luaL_argerror(L, 2, "not a time");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* the prelude's own formats */
	lua_pushlstring(L, text, strftime(text, sizeof text, format, &tm));
#pragma GCC diagnostic pop
	return 1;
}

/* This process and this machine */

static void
push_or_nil(lua_State *L, const char *s)
{
	if (s != NULL)
		lua_pushstring(L, s);
	else
		lua_pushnil(L);
}

/* host.getenv(name)
 *  +-> string or nil */
static int
host_getenv(lua_State *L)
{
	push_or_nil(L, getenv(luaL_checkstring(L, 1)));
	return 1;
}

/* host.uid()
 *  +-> effective user id */
static int
host_uid(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)geteuid());
	return 1;
}

/* host.pid()
 *  +-> process id */
static int
host_pid(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)getpid());
	return 1;
}

/* Reads a small file of /proc; false: it is not there. */
static bool
read_proc(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, buf, size - 1);
	close(fd);
	if (n <= 0)
		return false;
	buf[n] = '\0';
	return true;
}

/* Clock ticks after boot at which a process began, 0 when there is none. A process that
 * has ended and is not collected yet counts as none. */
static unsigned long long
start_time_of(lua_Integer pid)
{
	char path[64], stat[1024], *p, state;
	unsigned long long start;

	snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
	if (!read_proc(path, stat, sizeof stat))
		return 0;
	/* The name in parentheses may hold anything, ')' too. */
	p = strrchr(stat, ')');
	if (p == NULL ||
	    sscanf(p + 1,
		" %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u "
		"%*d %*d %*d %*d %*d %*d %llu",
		&state, &start) != 2)
		return 0;
	return state == 'Z' || state == 'X' ? 0 : start;
}

/* host.start_time()
 *  +-> clock ticks after boot at which this process began */
static int
host_start_time(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)start_time_of(getpid()));
	return 1;
}

static bool
boot_id(char *buf, size_t size)
{
	if (!read_proc("/proc/sys/kernel/random/boot_id", buf, size))
		return false;
	buf[strcspn(buf, "\n")] = '\0';
	return true;
}

/* host.boot_id()
 *  +-> id of this boot of the machine, "" when the kernel does not tell */
static int
host_boot_id(lua_State *L)
{
	char id[64];

	lua_pushstring(L, boot_id(id, sizeof id) ? id : "");
	return 1;
}

/* host.process_alive(pid, start_time, boot_id)
 *  +-> boolean: whether exactly that process still runs on this machine */
static int
host_process_alive(lua_State *L)
{
	lua_Integer pid = luaL_checkinteger(L, 1), start = luaL_checkinteger(L, 2);
	const char *boot = luaL_checkstring(L, 3);
	char id[64];

	lua_pushboolean(L,
	    pid > 0 && start > 0 && boot_id(id, sizeof id) && strcmp(id, boot) == 0 &&
		start_time_of(pid) == (unsigned long long)start);
	return 1;
}

/* host.hostname()
 *  +-> name of this machine */
static int
host_hostname(lua_State *L)
{
	char name[256];

	if (gethostname(name, sizeof name) != 0)
		snprintf(name, sizeof name, "localhost");
	name[sizeof name - 1] = '\0';
	lua_pushstring(L, name);
	return 1;
}

static void
push_passwd(lua_State *L, bool home)
{
	struct passwd pw, *found = NULL;
	char buf[4096];

	if (getpwuid_r(geteuid(), &pw, buf, sizeof buf, &found) != 0)
		found = NULL;
	push_or_nil(L, found == NULL ? NULL : home ? found->pw_dir : found->pw_name);
}

/* host.user()
 *  +-> name of the effective user, nil when it has none */
static int
host_user(lua_State *L)
{
	push_passwd(L, false);
	return 1;
}

/* host.home()
 *  +-> $HOME, or the user's folder in the password file, or nil */
static int
host_home(lua_State *L)
{
	const char *home = getenv("HOME");

	if (home != NULL && *home == '/')
		lua_pushstring(L, home);
	else
		push_passwd(L, true);
	return 1;
}

/* Pushes the absolute path of a folder that holds modules/lua. */
static bool
push_root(lua_State *L, const char *path)
{
	char probe[PATH_MAX + 32], full[PATH_MAX];

	snprintf(probe, sizeof probe, "%s/modules/lua", path);
	if (access(probe, F_OK) != 0 || realpath(path, full) == NULL)
		return false;
	lua_pushstring(L, full);
	return true;
}

/* The checkout that holds build/MODE/lbrun, or PREFIX of PREFIX/bin/lbrun. */
static bool
push_beside_executable(lua_State *L)
{
	static const char *const places[] = { "../..", "../share/lbrun" };
	char exe[PATH_MAX], path[PATH_MAX + 32], *slash;
	ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);

	if (n <= 0)
		return false;
	exe[n] = '\0';
	slash = strrchr(exe, '/');
	if (slash == NULL)
		return false;
	*slash = '\0';
	for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
		snprintf(path, sizeof path, "%s/%s", exe, places[i]);
		if (push_root(L, path))
			return true;
	}
	return false;
}

/* host.data_dirs()
 *  +-> { root =, lua =, runbooks =, templates = }
 * $LBRUN_DATA when it is set, else the checkout or PREFIX that holds the executable, else
 * where lbrun was configured to be installed. */
static int
host_data_dirs(lua_State *L)
{
	static const char *const names[][2] = { { "lua", "modules/lua" },
		{ "runbooks", "runbooks" }, { "templates", "templates" } };
	const char *set = getenv("LBRUN_DATA");

	if (set != NULL && *set != '\0') {
		if (!push_root(L, set))
			lua_pushstring(L, set);
	} else if (!push_beside_executable(L)) {
		lua_pushliteral(L, LBRUN_PREFIX "/share/lbrun");
	}
	lua_createtable(L, 0, 4);
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		lua_pushfstring(L, "%s/%s", lua_tostring(L, -2), names[i][1]);
		lua_setfield(L, -2, names[i][0]);
	}
	lua_pushvalue(L, -2);
	lua_setfield(L, -2, "root");
	return 1;
}

/* host.interface()
 *  +-> number of the contract between host and runbooks */
static int
host_interface(lua_State *L)
{
	lua_pushinteger(L, LBRUN_INTERFACE);
	return 1;
}

/* host.version()
 *  +-> "0.1.0" */
static int
host_version(lua_State *L)
{
	lua_pushstring(L, LBRUN_VERSION);
	return 1;
}

/* host.interrupted()
 *  +-> 0
 *  +-> count, "INT"|"TERM"   (how many signals came, and the last) */
static int
host_interrupted(lua_State *L)
{
	struct lb_loop *loop = loop_of(L);
	int signum = 0, count = loop != NULL ? loop_signals(loop, &signum) : 0;

	lua_pushinteger(L, count);
	if (count == 0)
		return 1;
	lua_pushstring(L, signum == SIGINT ? "INT" : "TERM");
	return 2;
}

/* host.nearest(word, list)
 *  +-> the word of the list that was probably meant, or nil */
static int
host_nearest(lua_State *L)
{
	const char *word = luaL_checkstring(L, 1), **words;
	lua_Unsigned n;

	luaL_checktype(L, 2, LUA_TTABLE);
	n = lua_rawlen(L, 2);
	words = lua_newuserdatauv(L, (n + 1) * sizeof *words, 0);
	for (lua_Unsigned i = 0; i < n; i++) {
		lua_rawgeti(L, 2, (lua_Integer)i + 1);
		luaL_argexpected(L, lua_type(L, -1) == LUA_TSTRING, 2, "list of strings");
		words[i] = lua_tostring(L, -1); /* the list keeps it */
		lua_pop(L, 1);
	}
	words[n] = NULL;
	push_or_nil(L, cli_nearest(word, words));
	return 1;
}

/* Secrets */

/* host.secret(name, bytes)
 *  +-> secret   (raises for fewer than 8 bytes, which could not be masked) */
static int
host_secret(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	size_t len;
	const char *data;

	luaL_checktype(L, 2, LUA_TSTRING);
	data = lua_tolstring(L, 2, &len);
	lb_secret_push(L, name, data, len);
	return 1;
}

/* host.is_secret(value)
 *  +-> boolean */
static int
host_is_secret(lua_State *L)
{
	luaL_checkany(L, 1);
	lua_pushboolean(L, lb_is_secret(L, 1));
	return 1;
}

/* host.reveal(secret)
 *  +-> its bytes as a string, which no longer masks itself when it is written elsewhere
 */
static int
host_reveal(lua_State *L)
{
	size_t len;
	const char *data;

	luaL_argexpected(L, lb_is_secret(L, 1), 1, "secret");
	data = lb_bytes(L, 1, &len);
	lua_pushlstring(L, data, len);
	return 1;
}

/* host.secret_eq(a, b)
 *  +-> boolean, in a time that tells nothing but the lengths
 * Each is a secret or a string. */
static int
host_secret_eq(lua_State *L)
{
	size_t la, lb;
	const char *a = lb_bytes(L, 1, &la), *b = lb_bytes(L, 2, &lb);
	volatile unsigned char different = la != lb;

	for (size_t i = 0; i < la && i < lb; i++)
		different |= (unsigned char)(a[i] ^ b[i]);
	lua_pushboolean(L, different == 0);
	return 1;
}

struct masked {
	struct lb_buf buf;
	bool failed;
};

static void
add_masked(void *arg, const char *data, size_t len)
{
	struct masked *m = arg;

	if (!lb_buf_add(&m->buf, data, len))
		m->failed = true;
}

/* host.mask(text)
 *  +-> the text with [secret NAME] for every live secret in it, in all its forms */
static int
host_mask(lua_State *L)
{
	struct masked m = { .failed = false };
	size_t len;
	const char *text;

	luaL_checktype(L, 1, LUA_TSTRING);
	text = lua_tolstring(L, 1, &len);
	if (!mask_text(secret_masker(L), text, len, add_masked, &m) || m.failed) {
		lb_buf_free(&m.buf);
		return luaL_error(L, "not enough memory");
	}
	lua_pushlstring(L, m.buf.data != NULL ? m.buf.data : "", m.buf.len);
	lb_buf_free(&m.buf);
	return 1;
}

/* Sandbox */

/* print(...) of the sandbox: to standard error, masked. */
static int
sandbox_print(lua_State *L)
{
	int n = lua_gettop(L);
	const char *text;
	size_t len;
	luaL_Buffer b;

	luaL_checkstack(L, n + 4, "print");
	for (int i = 1; i <= n; i++) {
		luaL_tolstring(L, i, NULL);
		lua_replace(L, i);
	}
	luaL_buffinit(L, &b);
	for (int i = 1; i <= n; i++) {
		if (i > 1)
			luaL_addchar(&b, '\t');
		lua_pushvalue(L, i);
		luaL_addvalue(&b);
	}
	luaL_addchar(&b, '\n');
	luaL_pushresult(&b);
	text = lua_tolstring(L, -1, &len);
	hostlib_write(L, STDERR_FILENO, text, len);
	return 0;
}

/* host.sandbox_env()
 *  +-> a fresh allow-listed environment */
static int
host_sandbox_env(lua_State *L)
{
	sandbox_push_env(L);
	lua_pushcfunction(L, sandbox_print);
	lua_setfield(L, -2, "print");
	return 1;
}

/* host.task(fn, ...)
 *  +-> task   (see loop.c for its methods join and cancel) */
static int
host_task(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TFUNCTION);
	sandbox_push_body(L);
	lua_insert(L, 1);
	return loop_task(L);
}

int
luaopen_host(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "now", host_now },
		{ "monotonic", host_monotonic },
		{ "date", host_date },
		{ "getenv", host_getenv },
		{ "uid", host_uid },
		{ "pid", host_pid },
		{ "start_time", host_start_time },
		{ "boot_id", host_boot_id },
		{ "process_alive", host_process_alive },
		{ "hostname", host_hostname },
		{ "user", host_user },
		{ "home", host_home },
		{ "data_dirs", host_data_dirs },
		{ "interface", host_interface },
		{ "version", host_version },
		{ "interrupted", host_interrupted },
		{ "nearest", host_nearest },
		{ "secret", host_secret },
		{ "is_secret", host_is_secret },
		{ "reveal", host_reveal },
		{ "secret_eq", host_secret_eq },
		{ "mask", host_mask },
		{ "mask_stream", mask_lua_stream },
		{ "sandbox_env", host_sandbox_env },
		{ "load", sandbox_load },
		{ "call", sandbox_call },
		{ "deadline", sandbox_deadline },
		{ "task", host_task },
		{ "sleep", loop_sleep },
		{ NULL, NULL },
	};

	luaL_newlib(L, functions);
	luaL_setfuncs(L, hostlib_fs, 0);
	luaL_setfuncs(L, hostlib_terminal, 0);
	return 1;
}
