/* ssh_stream.c: commands on a session, as streams.
 * What a stream gives and takes is in its channel's buffers (ssh_chan.c). It has no
 * terminal and sends no signals. */
#include <stdlib.h>
#include <string.h>

#include "ssh_lua.h"
#include "ssh_pump.h"

#define STREAM "lb.ssh.stream"

enum { COMMAND_MAX = 32000 }; /* it is sent in one packet */

static struct stream *
check_stream(lua_State *L)
{
	struct stream *st = luaL_checkudata(L, 1, STREAM);

	if (st->closed)
		luaL_error(L, "the stream is closed");
	return st;
}

static void
stream_release(struct stream *st)
{
	struct chan *ch = st->chan;

	st->closed = true;
	st->chan = NULL;
	lb_wait_drop(&st->reader.wait);
	lb_wait_drop(&st->writer.wait);
	lb_wait_drop(&st->other.wait);
	if (ch == NULL)
		return;
	ch->stream = NULL;
	ch->dropped = true;
	if (ch->session->dead)
		chans_reap(ch->session);
	else
		lb_timer_set(ch->session->again, 0);
}

static int
l_stream_gc(lua_State *L)
{
	stream_release(luaL_checkudata(L, 1, STREAM));
	return 0;
}

/* Closed by another task while this one waited, or by the server. */
static int
fail_stream(lua_State *L, const struct stream *st, const char *op)
{
	if (st->closed || st->chan == NULL)
		return lb_fail(L, MODULE, op, "closed", "the stream was closed here");
	if (st->chan->session->dead)
		return fail_session(L, st->chan->session, op);
	return lb_fail(L, MODULE, op, "closed", "the server closed the channel");
}

static int
exec_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *st = lua_touserdata(L, -1);
	struct chan *ch = st->chan;
	struct session *s = ch->session;
	bool opening;
	int held, all;

	(void)status;
	(void)ctx;
	if (ch->opened && !ch->failed && !s->dead)
		return 1;
	if (s->dead || ch->failed) {
		int n = s->dead ?
		    fail_session(L, s, "exec") :
		    lb_fail(L, MODULE, "exec", ch->code, "%s: %s", s->name, ch->why);

		stream_release(st);
		return n;
	}
	if (st->other.wait.why == LB_WOKEN)
		return slot_wait(L, &st->other, 0, exec_k);
	sessions_count(s, &held, &all);
	opening = ch->lib != NULL;
	stream_release(st);
	if (st->other.wait.why == LB_TIMEOUT && !opening && held >= CHANNELS_MAX)
		return lb_fail(L, MODULE, "exec", "timeout",
		    "timed out: all %d channels are in use", held);
	if (st->other.wait.why == LB_TIMEOUT && !opening && s->refused_until > 0)
		return lb_fail(L, MODULE, "exec", "timeout",
		    "timed out: %s opens no more than %d sessions (MaxSessions)", s->name,
		    all);
	return fail_slot(L, &st->other, "exec", "starting the command");
}

/* session:exec(command, { timeout })
 *  +-> stream
 *  +-> nil, err   (refused, too_large, timeout, interrupted, closed)
 *
 * At most four channels are open at once, or as few as the server allows: one more waits
 * until another is closed. */
static int
l_session_exec(lua_State *L)
{
	static const char *const names[] = { "timeout", NULL };
	struct session *s = check_session(L, 1);
	size_t len;
	const char *command = luaL_checklstring(L, 2, &len);
	struct stream *st;
	struct op *op;
	double timeout;

	luaL_argcheck(L, strlen(command) == len, 2, "the command holds a zero byte");
	lua_settop(L, 3);
	lb_opts(L, 3, names);
	timeout = lb_opt_seconds(L, 3, "timeout", 30);
	if (s->dead)
		return fail_session(L, s, "exec");
	if (len > COMMAND_MAX)
		return lb_fail(L, MODULE, "exec", "too_large",
		    "the command has %zu bytes, more than %d: give it as input of sh",
		    len, COMMAND_MAX);
	st = lua_newuserdatauv(L, sizeof *st, 1);
	memset(st, 0, sizeof *st);
	luaL_setmetatable(L, STREAM);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	if ((op = calloc(1, sizeof *op)) == NULL ||
	    (op->path = strdup(command)) == NULL || (st->chan = chan_new(s)) == NULL) {
		if (op != NULL)
			op_free(op);
		return luaL_error(L, "out of memory");
	}
	st->chan->stream = st;
	op->len = len;
	op->chan = st->chan;
	op->session_channel = true;
	op->step = chan_exec_step;
	op_queue(s, op, false);
	slot_enter(L, &st->other, timeout);
	pump(s);
	return exec_k(L, LUA_OK, 0);
}

/* Streams */

static int
read_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *st = lua_touserdata(L, 1);
	struct chan *ch = st->chan;
	struct lb_buf *b;
	bool stuffed;
	int i;

	(void)status;
	(void)ctx;
	if (ch == NULL)
		return fail_stream(L, st, "read");
	if (ch->in[0].len + ch->in[1].len > 0) {
		i = ch->in[ch->first].len > 0 ? ch->first : !ch->first;
		b = &ch->in[i];
		stuffed = chan_stuffed(ch);
		lua_pushstring(L, i == 0 ? "out" : "err");
		lua_pushlstring(L, b->data, b->len);
		lb_buf_free(b);
		if (stuffed)
			pump(ch->session);
		return 2;
	}
	if (ch->eof) {
		lua_pushliteral(L, "eof");
		return 1;
	}
	if (ch->closed || ch->session->dead)
		return fail_stream(L, st, "read");
	if (st->reader.wait.why != LB_WOKEN)
		return fail_slot(L, &st->reader, "read", "waiting for output");
	return slot_wait(L, &st->reader, 0, read_k);
}

/* stream:read(timeout)
 *  +-> "out"|"err", data
 *  +-> "eof"        (of both)
 *  +-> nil, err     (timeout, interrupted, closed) */
static int
l_stream_read(lua_State *L)
{
	struct stream *st = check_stream(L);

	slot_enter(L, &st->reader, lb_seconds(L, 2, TIMEOUT));
	return read_k(L, LUA_OK, 0);
}

static int
write_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *st = lua_touserdata(L, 1);
	struct chan *ch = st->chan;
	size_t len, n, done = (size_t)ctx;
	const char *data = lb_bytes(L, 2, &len);

	(void)status;
	for (;;) {
		if (ch == NULL || ch->cut || ch->closed || ch->session->dead)
			return fail_stream(L, st, "write");
		if (ch->out.len < WRITE_AHEAD / 2 && done < len) {
			n = len - done < WRITE_AHEAD ? len - done : WRITE_AHEAD;
			if (!lb_buf_add(&ch->out, data + done, n))
				return luaL_error(L, "out of memory");
			done += n;
			pump(ch->session);
			ch = st->chan;
			continue;
		}
		if (done == len && ch->out.len == 0) {
			lua_pushboolean(L, true);
			return 1;
		}
		break;
	}
	if (st->writer.wait.why != LB_WOKEN) {
		ch->cut =
		    true; /* what follows would not be what the caller thinks it is */
		return fail_slot(
		    L, &st->writer, "write", "writing: the command reads no more");
	}
	return slot_wait(L, &st->writer, (lua_KContext)done, write_k);
}

/* stream:write(bytes_or_secret, timeout)
 *  +-> true         (all is in the server's window)
 *  +-> nil, err     (timeout, interrupted, closed: nothing more can be written) */
static int
l_stream_write(lua_State *L)
{
	struct stream *st = check_stream(L);
	size_t len;

	lb_bytes(L, 2, &len);
	if (st->chan != NULL && st->chan->shut)
		return luaL_error(L, "the stream was shut for writing");
	slot_enter(L, &st->writer, lb_seconds(L, 3, TIMEOUT));
	return write_k(L, LUA_OK, 0);
}

static int
shut_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *st = lua_touserdata(L, 1);
	struct chan *ch = st->chan;

	(void)status;
	(void)ctx;
	if (ch == NULL || (ch->session->dead && !ch->shut_sent && !ch->closed))
		return fail_stream(L, st, "shut");
	if (ch->shut_sent || ch->closed) {
		lua_pushboolean(L, true);
		return 1;
	}
	if (st->writer.wait.why != LB_WOKEN)
		return fail_slot(
		    L, &st->writer, "shut", "writing: the command reads no more");
	return slot_wait(L, &st->writer, 0, shut_k);
}

/* stream:shut()
 *  +-> true         (the command sees the end of its input)
 *  +-> nil, err     (timeout, interrupted, closed) */
static int
l_stream_shut(lua_State *L)
{
	struct stream *st = check_stream(L);

	slot_enter(L, &st->writer, TIMEOUT);
	if (st->chan != NULL && !st->chan->session->dead) {
		st->chan->shut = true;
		pump(st->chan->session);
	}
	return shut_k(L, LUA_OK, 0);
}

static int
wait_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *st = lua_touserdata(L, 1);
	struct chan *ch = st->chan;

	(void)status;
	(void)ctx;
	if (ch != NULL && ch->status_known) {
		lua_createtable(L, 0, 1);
		if (ch->signal[0] != '\0')
			lua_pushstring(L, ch->signal);
		else
			lua_pushinteger(L, ch->status);
		lua_setfield(L, -2, ch->signal[0] != '\0' ? "signal" : "status");
		return 1;
	}
	if (ch == NULL || ch->session->dead)
		return fail_stream(L, st, "wait");
	if (ch->closed)
		return lb_fail(L, MODULE, "wait", "closed",
		    "the server closed the channel without an exit status");
	if (st->other.wait.why != LB_WOKEN)
		return fail_slot(L, &st->other, "wait", "waiting for the command to end");
	return slot_wait(L, &st->other, 0, wait_k);
}

/* stream:wait(timeout)
 *  +-> { status = N }
 *  +-> { signal = "KILL" }
 *  +-> nil, err     (timeout, interrupted, closed: it is not known how it ended) */
static int
l_stream_wait(lua_State *L)
{
	struct stream *st = check_stream(L);

	slot_enter(L, &st->other, lb_seconds(L, 2, TIMEOUT));
	return wait_k(L, LUA_OK, 0);
}

/* stream:close()
 *  +-> true         (the channel is closed in the background) */
static int
l_stream_close(lua_State *L)
{
	stream_release(luaL_checkudata(L, 1, STREAM));
	lua_pushboolean(L, true);
	return 1;
}

void
stream_methods(lua_State *L)
{
	static const luaL_Reg session[] = {
		{ "exec", l_session_exec },
		{ NULL, NULL },
	};
	static const luaL_Reg methods[] = {
		{ "read", l_stream_read },
		{ "write", l_stream_write },
		{ "shut", l_stream_shut },
		{ "wait", l_stream_wait },
		{ "close", l_stream_close },
		{ "__close", l_stream_close },
		{ "__gc", l_stream_gc },
		{ NULL, NULL },
	};

	luaL_setfuncs(L, session, 0);
	metatable(L, STREAM, methods);
	lua_pop(L, 1);
}
