/* hostlib_terminal.c: masked output, standard input and questions at the terminal.
 * How a run looks is the prelude's. */
#include "hostlib.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "lb.h"
#include "mask.h"
#include "secret.h"

/* Output */

#define PIECE 4096 /* what a pipe takes at once when poll says that it takes some */
#define KEPT_MAX ((size_t)4 << 20)
#define RETRY 0.02
#define IDLE 0.03

struct out {
	int fd;
	int error;    /* errno of the write that failed; all that follows is dropped */
	bool regular; /* a file takes any amount and knows no waiting */
	struct mask_stream *stream;
	struct lb_timer *timer;
	struct lb_buf kept;
	size_t written; /* of kept */
};

struct outs {
	struct out of[2]; /* standard output, standard error */
};

static const char outs_key;

static struct out *
out_of(lua_State *L, int fd)
{
	struct outs *o;

	lua_rawgetp(L, LUA_REGISTRYINDEX, &outs_key);
	o = lua_touserdata(L, -1);
	lua_pop(L, 1);
	return o != NULL ? &o->of[fd - STDOUT_FILENO] : NULL;
}

static void
keep(void *arg, const char *data, size_t len)
{
	struct out *o = arg;

	if (o->error == 0 && !lb_buf_add(&o->kept, data, len))
		o->error = ENOMEM;
}

/* Writes what the reader takes without blocking, or everything. true: nothing is left. */
static bool
drain(struct out *o, bool all)
{
	while (o->error == 0 && o->written < o->kept.len) {
		struct pollfd p = { .fd = o->fd, .events = POLLOUT };
		size_t len = o->kept.len - o->written;
		ssize_t n;

		if (!o->regular) {
			n = poll(&p, 1, all || len > KEPT_MAX ? -1 : 0);
			if (n == 0)
				return false;
			if (n < 0 && errno != EINTR)
				o->error = errno;
			if (n < 0)
				continue;
			len = len < PIECE ? len : PIECE;
		}
		n = write(o->fd, o->kept.data + o->written, len);
		if (n >= 0)
			o->written += (size_t)n;
		else if (errno == EAGAIN && !all)
			return false;
		else if (errno != EINTR && errno != EAGAIN)
			o->error = errno;
	}
	lb_buf_free(&o->kept);
	o->written = 0;
	return true;
}

static void
on_timer(void *arg)
{
	struct out *o = arg;

	if (o->error == 0 && !mask_stream_idle(o->stream, keep, o))
		o->error = ENOMEM;
	if (!drain(o, false))
		lb_timer_set(o->timer, RETRY);
}

static int
outs_gc(lua_State *L)
{
	struct outs *o = lua_touserdata(L, 1);

	for (int i = 0; i < 2; i++) {
		lb_timer_free(o->of[i].timer);
		mask_stream_free(o->of[i].stream);
		lb_buf_free(&o->of[i].kept);
		o->of[i].timer = NULL;
		o->of[i].stream = NULL;
	}
	lua_pushnil(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &outs_key);
	return 0;
}

void
hostlib_open(lua_State *L)
{
	struct outs *o = lua_newuserdatauv(L, sizeof *o, 0);
	struct stat st;

	memset(o, 0, sizeof *o);
	lua_createtable(L, 0, 1);
	lua_pushcfunction(L, outs_gc);
	lua_setfield(L, -2, "__gc");
	lua_setmetatable(L, -2);
	for (int i = 0; i < 2; i++) {
		struct out *out = &o->of[i];

		out->fd = STDOUT_FILENO + i;
		out->regular = fstat(out->fd, &st) == 0 && S_ISREG(st.st_mode);
		out->stream = mask_stream_new(secret_masker(L));
		out->timer = lb_timer_new(L, on_timer, out);
		if (out->stream == NULL || out->timer == NULL)
			luaL_error(L, "not enough memory");
	}
	lua_rawsetp(L, LUA_REGISTRYINDEX, &outs_key);
}

int
hostlib_write(lua_State *L, int fd, const char *data, size_t len)
{
	struct out *o = out_of(L, fd);

	if (o == NULL)
		return EBADF;
	if (o->error == 0 && !mask_stream_feed(o->stream, data, len, keep, o))
		o->error = ENOMEM;
	lb_timer_set(o->timer, drain(o, false) ? IDLE : RETRY);
	return o->error;
}

int
hostlib_flush_mask(lua_State *L, int fd)
{
	struct out *o = out_of(L, fd);

	if (o == NULL)
		return EBADF;
	if (o->error == 0 && !mask_stream_flush(o->stream, keep, o))
		o->error = ENOMEM;
	if (!drain(o, false))
		lb_timer_set(o->timer, RETRY);
	return o->error;
}

int
hostlib_finish(lua_State *L, int fd)
{
	struct out *o = out_of(L, fd);

	hostlib_flush_mask(L, fd);
	if (o == NULL)
		return EBADF;
	drain(o, true);
	lb_timer_set(o->timer, -1);
	return o->error;
}

static int
check_fd(lua_State *L, int idx)
{
	static const char *const names[] = { "in", "out", "err", NULL };

	return luaL_checkoption(L, idx, NULL, names);
}

static int
check_out(lua_State *L, int idx)
{
	int fd = check_fd(L, idx);

	luaL_argcheck(L, fd != STDIN_FILENO, idx, "\"out\" or \"err\"");
	return fd;
}

static int
written(lua_State *L, const char *op, int error)
{
	if (error != 0)
		return lb_fail_errno(L, "host", op, error);
	lua_pushboolean(L, 1);
	return 1;
}

/* host.write(which, text)
 *  +-> true
 *  +-> nil, err   (closed, no_space, io; all later text for it is dropped)
 * `which` is "out" or "err". Secrets are masked, also across calls. */
static int
host_write(lua_State *L)
{
	size_t len;
	int fd = check_out(L, 1);
	const char *text = luaL_checklstring(L, 2, &len);

	return written(L, "write", hostlib_write(L, fd, text, len));
}

/* host.flush_mask(which)
 *  +-> true
 *  +-> nil, err   (closed, no_space, io)
 * The text for it is complete: nothing is held back as the beginning of a secret. */
static int
host_flush_mask(lua_State *L)
{
	return written(L, "flush_mask", hostlib_flush_mask(L, check_out(L, 1)));
}

/* host.isatty(which)
 *  +-> boolean   (which is "in", "out" or "err") */
static int
host_isatty(lua_State *L)
{
	lua_pushboolean(L, isatty(check_fd(L, 1)));
	return 1;
}

/* host.width()
 *  +-> columns of the terminal; $COLUMNS or 80 without one */
static int
host_width(lua_State *L)
{
	struct winsize w;
	const char *columns = getenv("COLUMNS");
	long n = columns != NULL ? strtol(columns, NULL, 10) : 0;

	for (int fd = STDERR_FILENO; fd >= STDOUT_FILENO; fd--) {
		if (ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 0) {
			lua_pushinteger(L, w.ws_col);
			return 1;
		}
	}
	lua_pushinteger(L, n >= 20 && n <= 1000 ? n : 80);
	return 1;
}

/* Input */

#define READER "lb.reader"
#define LOOK 0.05 /* how often a terminal or pipe is looked at */

struct reader {
	struct lb_wait wait;
	int fd;
	bool line, tty; /* up to a newline; `saved` is to be put back */
	size_t max;
	const char *op;
	lua_KFunction
	    done; /* called at the end of the input; ctx is the reader's index */
	struct termios saved;
	struct lb_buf buf;
};

static void
reader_release(struct reader *r)
{
	if (r->tty)
		tcsetattr(r->fd, TCSANOW, &r->saved);
	r->tty = false;
	if (r->fd > STDERR_FILENO)
		close(r->fd);
	r->fd = -1;
	lb_wait_drop(&r->wait);
	lb_buf_free(&r->buf);
}

static int
reader_gc(lua_State *L)
{
	reader_release(luaL_checkudata(L, 1, READER));
	return 0;
}

static struct reader *
reader_push(lua_State *L, const char *op, size_t max, lua_KFunction done)
{
	struct reader *r = lua_newuserdatauv(L, sizeof *r, 0);

	memset(r, 0, sizeof *r);
	r->fd = -1;
	r->max = max;
	r->op = op;
	r->done = done;
	if (luaL_newmetatable(L, READER)) {
		lua_pushcfunction(L, reader_gc);
		lua_setfield(L, -2, "__gc");
	}
	lua_setmetatable(L, -2);
	return r;
}

enum got { GOT_ALL, GOT_LATER, GOT_TOO_MUCH, GOT_ERROR };

/* All that is there now. poll instead of O_NONBLOCK, which is not ours alone to set on a
 * descriptor that other processes share. */
static enum got
reader_take(struct reader *r)
{
	for (;;) {
		struct pollfd p = { .fd = r->fd, .events = POLLIN };
		char piece[PIECE];
		ssize_t n;

		if (poll(&p, 1, 0) == 0)
			return GOT_LATER;
		n = read(r->fd, piece, sizeof piece);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			return GOT_LATER;
		if (n < 0)
			return GOT_ERROR;
		if (n == 0)
			return GOT_ALL;
		if (!lb_buf_add(&r->buf, piece, (size_t)n)) {
			errno = ENOMEM;
			return GOT_ERROR;
		}
		lb_wipe(piece, (size_t)n);
		if (r->buf.len > r->max)
			return GOT_TOO_MUCH;
		if (r->line && memchr(r->buf.data, '\n', r->buf.len) != NULL)
			return GOT_ALL;
	}
}

static int
reader_step(lua_State *L, int status, lua_KContext ctx)
{
	struct reader *r = lua_touserdata(L, (int)ctx);
	int errnum;

	if (status == LUA_YIELD && r->wait.why == LB_INTERRUPTED) {
		reader_release(r);
		return lb_fail_why(L, "host", r->op, LB_INTERRUPTED);
	}
	switch (reader_take(r)) {
	case GOT_LATER:
		return lb_wait(L, &r->wait, LOOK, ctx, reader_step);
	case GOT_TOO_MUCH:
		reader_release(r);
		return lb_fail(
		    L, "host", r->op, "too_large", "more than %zu bytes", r->max);
	case GOT_ERROR:
		errnum = errno;
		reader_release(r);
		return lb_fail_errno(L, "host", r->op, errnum);
	case GOT_ALL:
		break;
	}
	return r->done(L, LUA_OK, ctx);
}

static int
read_done(lua_State *L, int status, lua_KContext ctx)
{
	struct reader *r = lua_touserdata(L, (int)ctx);

	(void)status;
	lua_pushlstring(L, r->buf.data != NULL ? r->buf.data : "", r->buf.len);
	reader_release(r);
	return 1;
}

int
hostlib_read_fd(lua_State *L, int fd, size_t max, const char *op)
{
	struct reader *r = reader_push(L, op, max, read_done);

	r->fd = fd;
	return reader_step(L, LUA_OK, lua_gettop(L));
}

/* host.read_stdin(opts)
 *  +-> string
 *  +-> nil, err   (too_large, interrupted, io)
 * opts: max, in bytes (16 MiB). */
static int
host_read_stdin(lua_State *L)
{
	static const char *const names[] = { "max", NULL };
	lua_Integer max;

	lb_opts(L, 1, names);
	max = lb_opt_integer(L, 1, "max", 16 << 20, 1, 1 << 30);
	return hostlib_read_fd(L, STDIN_FILENO, (size_t)max, "read_stdin");
}

static void
tty_write(void *arg, const char *data, size_t len)
{
	const int *fd = arg;

	while (len > 0) {
		ssize_t n = write(*fd, data, len);
		if (n < 0 && errno != EINTR)
			return;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
}

static int
ask_done(lua_State *L, int status, lua_KContext ctx)
{
	struct reader *r = lua_touserdata(L, (int)ctx);
	const char *name = lua_tostring(L, (int)ctx + 1), *end;
	size_t len;

	(void)status;
	end = r->buf.len > 0 ? memchr(r->buf.data, '\n', r->buf.len) : NULL;
	if (end == NULL) {
		reader_release(r);
		return lb_fail(L, "host", "ask", "closed", "no answer");
	}
	len = (size_t)(end - r->buf.data);
	if (name == NULL) {
		lua_pushlstring(L, r->buf.data, len);
	} else if (len < 8) {
		reader_release(r);
		return lb_fail(L, "host", "ask", "too_short",
		    "%s has fewer than 8 characters", name);
	} else {
		lb_secret_push(L, name, r->buf.data, len);
	}
	reader_release(r);
	return 1;
}

/* No echo but that of the newline; and no stop by Ctrl-Z, which would leave the shell
 * with a terminal that does not echo. */
static bool
tty_prepare(struct reader *r, bool secret)
{
	struct termios t;

	if (tcgetattr(r->fd, &r->saved) != 0)
		return false;
	t = r->saved;
	t.c_lflag |= ICANON | ISIG | ECHO;
	if (secret) {
		t.c_lflag &= ~(tcflag_t)ECHO;
		t.c_lflag |= ECHONL;
		t.c_cc[VSUSP] = _POSIX_VDISABLE;
	}
	/* What was typed before the question is no answer to it. */
	if (tcsetattr(r->fd, TCSAFLUSH, &t) != 0)
		return false;
	r->tty = true;
	return true;
}

/* host.ask(prompt, opts)
 *  +-> string, or a secret
 *  +-> nil, err   (no_terminal, interrupted, closed, too_short)
 * Asks at /dev/tty, whatever the standard streams are. opts: secret = true (not echoed),
 * name (of the secret). */
static int
host_ask(lua_State *L)
{
	static const char *const names[] = { "secret", "name", NULL };
	size_t len;
	const char *prompt = luaL_checklstring(L, 1, &len), *name;
	struct reader *r;
	bool secret;

	lb_opts(L, 2, names);
	secret = lb_opt_boolean(L, 2, "secret", false);
	name = lb_opt_string(L, 2, "name", "answer");
	lua_settop(L, 2);
	r = reader_push(L, "ask", PIECE, ask_done);
	r->line = true;
	r->fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (r->fd < 0 || tcgetpgrp(r->fd) != getpgrp() || !tty_prepare(r, secret)) {
		reader_release(r);
		return lb_fail(L, "host", "ask", "no_terminal", "there is nobody to ask");
	}
	hostlib_finish(L, STDOUT_FILENO);
	hostlib_finish(L, STDERR_FILENO);
	mask_text(secret_masker(L), prompt, len, tty_write, &r->fd);
	if (secret)
		lua_pushstring(L, name);
	else
		lua_pushnil(L);
	return reader_step(L, LUA_OK, 3);
}

const luaL_Reg hostlib_terminal[] = {
	{ "write", host_write },
	{ "flush_mask", host_flush_mask },
	{ "isatty", host_isatty },
	{ "width", host_width },
	{ "read_stdin", host_read_stdin },
	{ "ask", host_ask },
	{ NULL, NULL },
};
