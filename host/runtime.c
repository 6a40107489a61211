/* runtime.c: puts state, masker, sandbox, loop and output together, runs one function in
 * them, and takes them apart again. It knows no command. */
#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <lauxlib.h>

#include "hostlib.h"
#include "loop.h"
#include "mask.h"
#include "sandbox.h"
#include "secret.h"
#include "state.h"

enum { EXIT_INTERNAL = 1, EXIT_PIPE = 141 };
#define MEMORY_CEILING ((size_t)512 << 20)

struct runtime {
	struct masker *masker;
	struct sandbox *sandbox;
	struct lb_loop *loop;
	int (*push)(lua_State *L, void *arg);
	void *arg;
	int status;
};

/* The third signal does not wait for Lua. */
static void
on_signal(void *arg, int signum, int count)
{
	(void)arg;
	if (count >= 3)
		_exit(128 + signum);
}

static void
slice_begin(void *arg, lua_State *co)
{
	sandbox_enter(arg, co);
}

static void
slice_end(void *arg, lua_State *co)
{
	sandbox_leave(arg, co);
}

/* (error value, traceback): an error value may be anything, also one whose __tostring
 * raises, so that this runs protected. */
static int
report(lua_State *L)
{
	const char *text;
	size_t len;

	lua_settop(L, 2);
	luaL_tolstring(L, 1, NULL);
	lua_pushfstring(L, "lbrun: internal: %s\n%s\n", lua_tostring(L, -1),
	    luaL_optstring(L, 2, ""));
	text = lua_tolstring(L, -1, &len);
	while (len > 1 && text[len - 2] == '\n')
		len--;
	hostlib_write(L, STDERR_FILENO, text, len);
	return 0;
}

static void
report_protected(lua_State *L, struct runtime *r)
{
	static const char plain[] = "lbrun: internal: an error that cannot be shown\n";
	int status;

	lua_pushcfunction(L, report);
	lua_insert(L, -3);
	sandbox_enter(r->sandbox, L);
	status = lua_pcall(L, 2, 0, 0);
	sandbox_leave(r->sandbox, L);
	if (status != LUA_OK)
		hostlib_write(L, STDERR_FILENO, plain, sizeof plain - 1);
}

static int
body(lua_State *L)
{
	struct runtime *r = lua_touserdata(L, 1);
	lua_Integer status;
	int nargs, isint;

	lua_settop(L, 0);
	secret_set_masker(L, r->masker);
	r->loop = loop_new(L);
	if (r->loop == NULL)
		return luaL_error(L, "not enough memory");
	hostlib_open(L);
	sandbox_install(L, r->sandbox);
	loop_set_slice_hook(r->loop, slice_begin, slice_end, r->sandbox);
	if (!loop_watch_signals(r->loop, on_signal, r))
		return luaL_error(L, "cannot watch signals");
	lua_pushcfunction(L, sandbox_call); /* for the traceback */
	nargs = r->push(L, r->arg);
	if (loop_run_task(L, nargs + 1) != LUA_OK) {
		luaL_traceback(L, L, NULL, 0);
		report_protected(L, r);
		return 0;
	}
	if (!lua_toboolean(L, 1)) {
		lua_settop(L, 3);
		report_protected(L, r);
		return 0;
	}
	status = lua_tointegerx(L, 2, &isint);
	if (!isint || status < 0 || status > 255)
		return luaL_error(L, "no exit status came back");
	r->status = (int)status;
	return 0;
}

/* What went wrong outside of the main task; there may be no masked output yet. */
static void
report_start(lua_State *L)
{
	char line[1024];
	const char *why = lua_tostring(L, -1);

	snprintf(
	    line, sizeof line, "lbrun: internal: %s\n", why != NULL ? why : "no reason");
	if (hostlib_write(L, STDERR_FILENO, line, strlen(line)) == EBADF)
		fputs(line, stderr);
}

/* A reader of standard output that went away is told by the status alone. */
static void
finish_output(lua_State *L, struct runtime *r)
{
	char line[128], why[64];
	int errnum;

	/* Ctrl-C must end a final write that nobody takes. */
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	errnum = hostlib_finish(L, STDOUT_FILENO);
	if (errnum == EPIPE) {
		if (r->status == EXIT_SUCCESS)
			r->status = EXIT_PIPE;
	} else if (errnum != 0) {
		snprintf(line, sizeof line,
		    "lbrun: cannot write to standard output: %s\n",
		    strerror_r(errnum, why, sizeof why));
		hostlib_write(L, STDERR_FILENO, line, strlen(line));
		if (r->status == EXIT_SUCCESS)
			r->status = EXIT_INTERNAL;
	}
	hostlib_finish(L, STDERR_FILENO);
}

void
runtime_prepare(void)
{
	/* A core file would hold every secret. */
	const struct rlimit no_core = { 0, 0 };
	int fd;

	/* The first thing that opens a file must not get a standard descriptor. */
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
	signal(SIGPIPE, SIG_IGN);
	setrlimit(RLIMIT_CORE, &no_core);
}

int
runtime_run(bool searching, int (*push)(lua_State *L, void *arg), void *arg)
{
	struct runtime r = { .push = push, .arg = arg, .status = EXIT_INTERNAL };
	lua_State *L = NULL;

	r.masker = mask_new();
	r.sandbox = sandbox_open();
	if (r.masker != NULL && r.sandbox != NULL)
		L = state_open(MEMORY_CEILING, searching);
	if (L == NULL) {
		fputs("lbrun: internal: not enough memory to start\n", stderr);
	} else {
		lua_pushcfunction(L, body);
		lua_pushlightuserdata(L, &r);
		if (lua_pcall(L, 1, 0, 0) != LUA_OK)
			report_start(L);
		finish_output(L, &r);
	}
	state_close(L);
	loop_free(r.loop);
	sandbox_close(r.sandbox);
	mask_free(r.masker);
	return r.status;
}
