/* process.c: module "process", local commands as streams (libuv).
 * It does not quote, mask or time commands, and knows no targets. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uv.h>

#include "lb.h"
#include "loop.h"

#define STREAM "process.stream"
#define UNREAD (1024 * 1024) /* of each pipe; beyond that the command has to wait */
#define CHUNK (64 * 1024)

enum { IN, OUT, ERR, PIPES };

/* Lives until its userdata lets go, its handles are closed and the child was reaped. */
struct child {
	struct loop_owner owner;
	uv_process_t process;
	uv_pipe_t pipe[PIPES];
	int holders;         /* the userdata, and the handles that are not closed yet */
	struct stream *box;  /* NULL once released */
	struct lb_buf unread[PIPES];
	bool eof[PIPES], paused[PIPES];
	int read_error, write_error; /* errno, told once */
	size_t writing;      /* requests under way */
	bool shut, exited, kill_on_close;
	int pid, status, signum;
	char chunk[CHUNK];
};

struct stream {
	struct child *child; /* NULL: closed */
	struct lb_wait reader, writer, waiter;
	int turn;
};

struct write {
	uv_write_t req;
	size_t len;
	char data[];
};

/* What libuv calls. None of it touches Lua. */

static void
child_unref(struct child *c)
{
	if (--c->holders > 0)
		return;
	lb_buf_free(&c->unread[OUT]);
	lb_buf_free(&c->unread[ERR]);
	lb_wipe(c->chunk, sizeof c->chunk);
	free(c);
}

static void
handle_closed(uv_handle_t *handle)
{
	child_unref(handle->data);
}

static void
handle_close(uv_handle_t *handle)
{
	if (!uv_is_closing(handle))
		uv_close(handle, handle_closed);
}

static void
wake(struct child *c, size_t waiter)
{
	if (c->box != NULL)
		lb_wake((struct lb_wait *)(void *)((char *)c->box + waiter));
}

static void
exit_cb(uv_process_t *process, int64_t status, int signum)
{
	struct child *c = process->data;

	c->exited = true;
	c->status = (int)status;
	c->signum = signum;
	handle_close((uv_handle_t *)process);
	wake(c, offsetof(struct stream, waiter));
}

static void
alloc_cb(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct child *c = handle->data;

	(void)suggested;
	*buf = uv_buf_init(c->chunk, sizeof c->chunk);
}

static void
read_cb(uv_stream_t *pipe, ssize_t nread, const uv_buf_t *buf)
{
	struct child *c = pipe->data;
	int i = pipe == (uv_stream_t *)&c->pipe[OUT] ? OUT : ERR;

	if (nread == 0)
		return;
	if (nread < 0 || !lb_buf_add(&c->unread[i], buf->base, (size_t)nread)) {
		if (nread != UV_EOF)
			c->read_error = nread < 0 ? (int)-nread : ENOMEM;
		c->eof[i] = true;
		handle_close((uv_handle_t *)pipe);
	} else if (c->unread[i].len >= UNREAD) {
		c->paused[i] = true;
		uv_read_stop(pipe);
	}
	wake(c, offsetof(struct stream, reader));
}

static void
write_cb(uv_write_t *req, int status)
{
	struct write *w = req->data;
	struct child *c = req->handle->data;

	c->writing--;
	if (status < 0 && status != UV_ECANCELED)
		c->write_error = -status;
	if (c->writing == 0 && c->shut)
		handle_close((uv_handle_t *)&c->pipe[IN]);
	lb_wipe(w->data, w->len);
	free(w);
	wake(c, offsetof(struct stream, writer));
}

/* Starting */

/* Opens the child's stdin, stdout and stderr: ours become pipes of the loop, theirs[] are
 * left to the caller. Real pipes, since a command may open /dev/stdout, which a socket
 * (what libuv would make) refuses. Returns 0 or an errno. */
static int
open_pipes(struct child *c, int theirs[PIPES])
{
	int fds[2], i, ours, error;

	for (i = 0; i < PIPES; i++)
		theirs[i] = -1;
	for (i = 0; i < PIPES; i++) {
		if (pipe2(fds, O_CLOEXEC) != 0)
			return errno;
		ours = fds[i == IN];
		theirs[i] = fds[i != IN];
		if ((error = uv_pipe_open(&c->pipe[i], ours)) != 0) {
			close(ours);
			return -error;
		}
	}
	return 0;
}

static int
start(struct child *c, uv_loop_t *uv, char **argv, char **env, const char *cwd)
{
	uv_stdio_container_t stdio[PIPES];
	uv_process_options_t options = { 0 };
	int theirs[PIPES], i, error;

	if ((error = open_pipes(c, theirs)) == 0) {
		for (i = 0; i < PIPES; i++) {
			stdio[i].flags = UV_INHERIT_FD;
			stdio[i].data.fd = theirs[i];
		}
		options.exit_cb = exit_cb;
		options.file = argv[0];
		options.args = argv;
		options.env = env;
		options.cwd = cwd;
		options.flags = UV_PROCESS_DETACHED; /* a session and group of its own */
		options.stdio_count = PIPES;
		options.stdio = stdio;
		c->holders++;
		/* what the host inherited or a library opened is not the command's */
		close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
		error = -uv_spawn(uv, &c->process, &options);
		if (error != 0)
			handle_close((uv_handle_t *)&c->process);
		else
			c->pid = c->process.pid;
	}
	for (i = 0; i < PIPES; i++)
		if (theirs[i] >= 0)
			close(theirs[i]);
	for (i = OUT; i <= ERR && error == 0; i++)
		error = -uv_read_start((uv_stream_t *)&c->pipe[i], alloc_cb, read_cb);
	if (error != 0)
		c->kill_on_close = true; /* nobody will read what it says */
	return error;
}

static struct child *
child_new(uv_loop_t *uv)
{
	struct child *c = calloc(1, sizeof *c);
	int i;

	if (c == NULL)
		return NULL;
	c->owner.dispose = handle_close;
	for (i = 0; i < PIPES; i++) {
		uv_pipe_init(uv, &c->pipe[i], 0);
		c->pipe[i].data = c;
	}
	c->process.data = c;
	c->holders = 1 + PIPES;
	return c;
}

/* Lets go of the child: its pipes close, it goes on unless told otherwise. */
static void
child_release(struct child *c)
{
	int i;

	c->box = NULL;
	if (c->kill_on_close && c->pid > 0 && !c->exited)
		kill(-c->pid, SIGKILL);
	for (i = 0; i < PIPES; i++)
		handle_close((uv_handle_t *)&c->pipe[i]);
	if (c->pid > 0 && !c->exited)
		uv_unref((uv_handle_t *)&c->process); /* it is still reaped */
	child_unref(c);
}

static const char *
check_item(lua_State *L, int arg, const char *what)
{
	size_t len;
	const char *s;

	if (lua_type(L, -1) != LUA_TSTRING)
		luaL_argerror(L, arg, lua_pushfstring(L, "%s must be a string, not a %s",
		    what, luaL_typename(L, -1)));
	s = lua_tolstring(L, -1, &len);
	if (strlen(s) != len)
		luaL_argerror(L, arg, lua_pushfstring(L, "%s holds a zero byte", what));
	return s;
}

/* Pushes a userdata that holds the vector. The strings are those of the table. */
static char **
push_argv(lua_State *L, int idx)
{
	lua_Integer n, i;
	char **argv;

	luaL_checktype(L, idx, LUA_TTABLE);
	n = (lua_Integer)lua_rawlen(L, idx);
	if (n == 0) {
		luaL_argerror(L, idx, "a command is needed");
		return NULL;
	}
	argv = lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *argv, 0);
	for (i = 0; i < n; i++) {
		lua_rawgeti(L, idx, i + 1);
		argv[i] = (char *)check_item(L, idx, "an item of argv");
		lua_pop(L, 1);
	}
	argv[n] = NULL;
	luaL_argcheck(L, argv[0][0] != '\0', idx, "a command is needed");
	return argv;
}

/* Pushes opts.env or an empty table, a table with the new strings, and the vector. */
static char **
push_env(lua_State *L, int idx, bool clear)
{
	size_t n = 0, old = 0;
	char **envp, **inherited = clear ? NULL : environ;
	int given, strings;
	const char *name, *equals;

	if (!lua_isnoneornil(L, idx) && lua_getfield(L, idx, "env") != LUA_TNIL)
		luaL_argcheck(L, lua_istable(L, -1), idx, "option 'env' must be a table");
	else
		lua_newtable(L);
	given = lua_gettop(L);
	lua_newtable(L);
	strings = lua_gettop(L);
	lua_pushnil(L);
	while (lua_next(L, given) != 0) {
		check_item(L, idx, "a value of 'env'");
		lua_pushvalue(L, -2);
		name = check_item(L, idx, "a name of 'env'");
		if (name[0] == '\0' || strchr(name, '=') != NULL)
			luaL_argerror(L, idx, "a name of 'env' is empty or holds '='");
		lua_pushfstring(L, "%s=%s", name, lua_tostring(L, -2));
		lua_rawseti(L, strings, (lua_Integer)++n);
		lua_pop(L, 2);
	}
	while (inherited != NULL && inherited[old] != NULL)
		old++;
	envp = lua_newuserdatauv(L, (n + old + 1) * sizeof *envp, 0);
	n = 0;
	for (; inherited != NULL && *inherited != NULL && old > 0; inherited++, old--) {
		if ((equals = strchr(*inherited, '=')) == NULL)
			continue;
		lua_pushlstring(L, *inherited, (size_t)(equals - *inherited));
		if (lua_rawget(L, given) == LUA_TNIL)
			envp[n++] = *inherited;
		lua_pop(L, 1);
	}
	for (old = 1; lua_rawgeti(L, strings, (lua_Integer)old) != LUA_TNIL; old++) {
		envp[n++] = (char *)lua_tostring(L, -1);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	envp[n] = NULL;
	return envp;
}

/* process.spawn(argv, opts)
 *  +-> stream
 *  +-> nil, err   (not_found, denied, exhausted, ...)
 * opts: env (table of strings, added to the environment), clear_env, cwd,
 * kill_on_close (closing the stream kills the process group)                           */
static int
process_spawn(lua_State *L)
{
	static const char *const names[] = { "env", "clear_env", "cwd", "kill_on_close",
		NULL };
	struct lb_loop *loop = loop_of(L);
	struct stream *s;
	struct child *c;
	char **argv, **env;
	const char *cwd;
	int error;

	lua_settop(L, 2);
	argv = push_argv(L, 1);
	lb_opts(L, 2, names);
	cwd = lb_opt_string(L, 2, "cwd", NULL);
	env = push_env(L, 2, lb_opt_boolean(L, 2, "clear_env", false));
	if (loop == NULL)
		return luaL_error(L, "this state has no event loop");
	s = lua_newuserdatauv(L, sizeof *s, 0);
	memset(s, 0, sizeof *s);
	luaL_setmetatable(L, STREAM);
	if ((c = child_new(loop_uv(loop))) == NULL)
		return luaL_error(L, "not enough memory");
	c->box = s;
	s->child = c;
	c->kill_on_close = lb_opt_boolean(L, 2, "kill_on_close", false);
	if (cwd != NULL && access(cwd, X_OK) != 0) {
		error = errno;
		lua_pushfstring(L, "cannot enter %s", cwd);
	} else {
		error = start(c, loop_uv(loop), argv, env, cwd);
		lua_pushfstring(L, "cannot start %s", argv[0]);
	}
	if (error == 0) {
		lua_pop(L, 1);
		return 1;
	}
	s->child = NULL;
	child_release(c);
	lb_fail_errno(L, "process", "spawn", error);
	lua_getfield(L, -1, "message");
	lua_pushfstring(L, "%s: %s", lua_tostring(L, -4), lua_tostring(L, -1));
	lua_setfield(L, -3, "message");
	lua_pop(L, 1);
	return 2;
}

/* Methods */

static struct stream *
check_stream(lua_State *L)
{
	struct stream *s = luaL_checkudata(L, 1, STREAM);

	if (s->child == NULL)
		luaL_error(L, "the stream is closed");
	return s;
}

static int
closed_meanwhile(lua_State *L, const char *op)
{
	return lb_fail(L, "process", op, "closed", "the stream was closed");
}

static int
read_k(lua_State *L, int status, lua_KContext ctx)
{
	static const char *const names[PIPES] = { "in", "out", "err" };
	struct stream *s = luaL_checkudata(L, 1, STREAM);
	struct child *c = s->child;
	int i, n, error;

	(void)ctx;
	if (c == NULL)
		return closed_meanwhile(L, "read");
	for (n = 0; n < 2; n++) {
		/* in turn, so that a flood in one pipe cannot hide the other */
		i = OUT + (s->turn + n) % 2;
		if (c->unread[i].len == 0)
			continue;
		s->turn = i == OUT ? 1 : 0;
		lua_pushstring(L, names[i]);
		lua_pushlstring(L, c->unread[i].data, c->unread[i].len);
		lb_buf_drop(&c->unread[i], c->unread[i].len);
		if (c->paused[i]) {
			c->paused[i] = false;
			uv_read_start((uv_stream_t *)&c->pipe[i], alloc_cb, read_cb);
		}
		return 2;
	}
	if ((error = c->read_error) != 0) {
		c->read_error = 0;
		return lb_fail_errno(L, "process", "read", error);
	}
	if (c->eof[OUT] && c->eof[ERR]) {
		lua_pushliteral(L, "eof");
		return 1;
	}
	if (status == LUA_YIELD && s->reader.why != LB_WOKEN)
		return lb_fail_why(L, "process", "read", s->reader.why);
	return lb_wait(L, &s->reader, lb_seconds(L, 2, -1), 0, read_k);
}

/* stream:read(timeout)
 *  +-> "out" | "err", data
 *  +-> "eof"      (both have ended)
 *  +-> nil, err   (timeout, interrupted, closed, io)                                   */
static int
stream_read(lua_State *L)
{
	check_stream(L);
	lb_seconds(L, 2, -1);
	return read_k(L, LUA_OK, 0);
}

static int
write_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *s = luaL_checkudata(L, 1, STREAM);
	struct child *c = s->child;
	int error;

	(void)ctx;
	if (c == NULL)
		return closed_meanwhile(L, "write");
	if ((error = c->write_error) != 0) {
		c->write_error = 0;
		return lb_fail_errno(L, "process", "write", error);
	}
	if (c->writing == 0) {
		lua_pushboolean(L, true);
		return 1;
	}
	if (status == LUA_YIELD && s->writer.why != LB_WOKEN)
		return lb_fail_why(L, "process", "write", s->writer.why);
	return lb_wait(L, &s->writer, lb_seconds(L, 3, -1), 0, write_k);
}

/* Queues a copy, which is wiped when it is written. Returns 0 or an errno. */
static int
write_later(struct child *c, const char *data, size_t len)
{
	struct write *w = malloc(sizeof *w + len);
	uv_buf_t buf;
	int error;

	if (w == NULL)
		return ENOMEM;
	w->req.data = w;
	w->len = len;
	memcpy(w->data, data, len);
	buf = uv_buf_init(w->data, (unsigned)len);
	error = uv_write(&w->req, (uv_stream_t *)&c->pipe[IN], &buf, 1, write_cb);
	if (error != 0) {
		lb_wipe(w->data, len);
		free(w);
		return -error;
	}
	c->writing++;
	return 0;
}

/* stream:write(bytes | secret, timeout)
 *  +-> true       (all is handed to the kernel)
 *  +-> nil, err   (closed, timeout, interrupted, exhausted, io); what is not written by
 *                 then is still written as the command reads                           */
static int
stream_write(lua_State *L)
{
	struct stream *s = check_stream(L);
	struct child *c = s->child;
	size_t len, n, done = 0;
	const char *data = lb_bytes(L, 2, &len);
	uv_buf_t buf;
	int error;

	lb_seconds(L, 3, -1);
	if (s->writer.task != NULL)
		return luaL_error(L, "another task already writes to this stream");
	if (c->shut)
		return lb_fail(L, "process", "write", "closed", "the stream was shut");
	while (done < len && c->writing == 0) {
		n = len - done < 0x40000000 ? len - done : 0x40000000;
		buf = uv_buf_init((char *)data + done, (unsigned)n);
		error = uv_try_write((uv_stream_t *)&c->pipe[IN], &buf, 1);
		if (error == UV_EAGAIN)
			break;
		if (error < 0)
			return lb_fail_errno(L, "process", "write", -error);
		done += (size_t)error;
	}
	for (; done < len; done += n) {
		n = len - done < 0x40000000 ? len - done : 0x40000000;
		if ((error = write_later(c, data + done, n)) != 0)
			return lb_fail_errno(L, "process", "write", error);
	}
	return write_k(L, LUA_OK, 0);
}

/* stream:shut()
 *  +-> true   (the command sees the end of its input once all is written)              */
static int
stream_shut(lua_State *L)
{
	struct child *c = check_stream(L)->child;

	c->shut = true;
	if (c->writing == 0)
		handle_close((uv_handle_t *)&c->pipe[IN]);
	lua_pushboolean(L, true);
	return 1;
}

static int
wait_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *s = luaL_checkudata(L, 1, STREAM);
	struct child *c = s->child;
	const char *name;

	(void)ctx;
	if (c == NULL)
		return closed_meanwhile(L, "wait");
	if (c->exited) {
		lua_createtable(L, 0, 1);
		if (c->signum == 0) {
			lua_pushinteger(L, c->status);
			lua_setfield(L, -2, "status");
			return 1;
		}
		name = sigabbrev_np(c->signum);
		if (name != NULL)
			lua_pushstring(L, name);
		else
			lua_pushfstring(L, "%d", c->signum);
		lua_setfield(L, -2, "signal");
		return 1;
	}
	if (status == LUA_YIELD && s->waiter.why != LB_WOKEN)
		return lb_fail_why(L, "process", "wait", s->waiter.why);
	return lb_wait(L, &s->waiter, lb_seconds(L, 2, -1), 0, wait_k);
}

/* stream:wait(timeout)
 *  +-> { status = number } | { signal = "KILL" }
 *  +-> nil, err   (timeout, interrupted, closed)                                       */
static int
stream_wait(lua_State *L)
{
	check_stream(L);
	lb_seconds(L, 2, -1);
	return wait_k(L, LUA_OK, 0);
}

/* stream:pid()
 *  +-> number                                                                          */
static int
stream_pid(lua_State *L)
{
	lua_pushinteger(L, check_stream(L)->child->pid);
	return 1;
}

static int
check_signal(lua_State *L, int arg)
{
	const char *name, *known;
	int i;

	luaL_checktype(L, arg, LUA_TSTRING);
	name = lua_tostring(L, arg);
	for (i = 1; i < NSIG; i++)
		if ((known = sigabbrev_np(i)) != NULL && strcmp(known, name) == 0)
			return i;
	return luaL_argerror(L, arg, lua_pushfstring(L, "unknown signal '%s'", name));
}

/* stream:kill(signal)   signal is "TERM", "KILL", ...; it goes to the whole group
 *  +-> true
 *  +-> nil, err   (not_found: all of it has ended, denied)                             */
static int
stream_kill(lua_State *L)
{
	struct child *c = check_stream(L)->child;
	int signum = check_signal(L, 2), error;

	/* Once it was reaped the number may belong to others, unless somebody of the
	 * group is left to hold the pipes. */
	if (c->exited && c->eof[OUT] && c->eof[ERR])
		return lb_fail_errno(L, "process", "kill", ESRCH);
	if (kill(-c->pid, signum) != 0) {
		error = errno;
		return lb_fail_errno(L, "process", "kill", error);
	}
	lua_pushboolean(L, true);
	return 1;
}

/* stream:close()
 *  +-> nothing   (the command goes on, without its pipes, unless it was spawned with
 *                kill_on_close)                                                        */
static int
stream_close(lua_State *L)
{
	struct stream *s = luaL_checkudata(L, 1, STREAM);
	struct child *c = s->child;

	if (c == NULL)
		return 0;
	s->child = NULL;
	child_release(c);
	lb_wake(&s->reader);
	lb_wake(&s->writer);
	lb_wake(&s->waiter);
	return 0;
}

static int
stream_gc(lua_State *L)
{
	struct stream *s = luaL_checkudata(L, 1, STREAM);

	stream_close(L);
	lb_wait_drop(&s->reader);
	lb_wait_drop(&s->writer);
	lb_wait_drop(&s->waiter);
	return 0;
}

static int
stream_tostring(lua_State *L)
{
	struct stream *s = luaL_checkudata(L, 1, STREAM);

	if (s->child == NULL)
		lua_pushliteral(L, "process (closed)");
	else
		lua_pushfstring(L, "process %d", s->child->pid);
	return 1;
}

int luaopen_process(lua_State *L);

int
luaopen_process(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "spawn", process_spawn },
		{ NULL, NULL },
	};
	static const luaL_Reg methods[] = {
		{ "read", stream_read },
		{ "write", stream_write },
		{ "shut", stream_shut },
		{ "wait", stream_wait },
		{ "pid", stream_pid },
		{ "kill", stream_kill },
		{ "close", stream_close },
		{ "__close", stream_close },
		{ "__gc", stream_gc },
		{ "__tostring", stream_tostring },
		{ NULL, NULL },
	};

	if (luaL_newmetatable(L, STREAM)) {
		luaL_setfuncs(L, methods, 0);
		lua_pushvalue(L, -1);
		lua_setfield(L, -2, "__index");
		lua_pushliteral(L, "process");
		lua_setfield(L, -2, "__metatable");
	}
	lua_pop(L, 1);
	luaL_newlib(L, functions);
	return 1;
}
