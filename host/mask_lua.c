/* mask_lua.c: host.mask_stream, streams of mask.c for Lua.
 * It registers no secrets; secret.c does. */
#include "mask_lua.h"

#include <lauxlib.h>

#include "lb.h"
#include "mask.h"
#include "secret.h"

#define STREAM "host.mask_stream"
#define RESULT "host.mask_result"

/* A buffer that Lua frees, since the string that is made of it may raise. */
static struct lb_buf *
push_buf(lua_State *L)
{
	struct lb_buf *b = lua_newuserdatauv(L, sizeof *b, 0);

	*b = (struct lb_buf){ 0 };
	luaL_setmetatable(L, RESULT);
	return b;
}

static int
buf_gc(lua_State *L)
{
	lb_buf_free(luaL_checkudata(L, 1, RESULT));
	return 0;
}

struct sink {
	struct lb_buf *buf;
	bool full;
};

static void
sink_add(void *arg, const char *data, size_t len)
{
	struct sink *s = arg;

	if (!lb_buf_add(s->buf, data, len))
		s->full = true;
}

static int
finish(lua_State *L, struct sink *s, bool ok)
{
	if (!ok || s->full)
		return luaL_error(L, "not enough memory");
	lua_pushlstring(L, s->buf->len > 0 ? s->buf->data : "", s->buf->len);
	lb_buf_free(s->buf);
	return 1;
}

static struct mask_stream *
check_stream(lua_State *L)
{
	return *(struct mask_stream **)luaL_checkudata(L, 1, STREAM);
}

/* stream:feed(text)
 *  +-> text   (masked; what may be the beginning of a secret is held back)             */
static int
stream_feed(lua_State *L)
{
	struct mask_stream *stream = check_stream(L);
	struct sink s = { NULL, false };
	const char *text;
	size_t len;

	luaL_checktype(L, 2, LUA_TSTRING);
	text = lua_tolstring(L, 2, &len);
	s.buf = push_buf(L);
	return finish(L, &s, mask_stream_feed(stream, text, len, sink_add, &s));
}

/* stream:idle()
 *  +-> text   (what need not be held back while nothing comes)                         */
static int
stream_idle(lua_State *L)
{
	struct mask_stream *stream = check_stream(L);
	struct sink s = { NULL, false };

	s.buf = push_buf(L);
	return finish(L, &s, mask_stream_idle(stream, sink_add, &s));
}

/* stream:flush()
 *  +-> text   (the rest; the stream begins anew)                                       */
static int
stream_flush(lua_State *L)
{
	struct mask_stream *stream = check_stream(L);
	struct sink s = { NULL, false };

	s.buf = push_buf(L);
	return finish(L, &s, mask_stream_flush(stream, sink_add, &s));
}

static int
stream_gc(lua_State *L)
{
	struct mask_stream **box = luaL_checkudata(L, 1, STREAM);

	mask_stream_free(*box);
	*box = NULL;
	return 0;
}

static void
make_metatables(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{ "feed", stream_feed },
		{ "idle", stream_idle },
		{ "flush", stream_flush },
		{ NULL, NULL },
	};

	if (luaL_newmetatable(L, RESULT)) {
		lua_pushcfunction(L, buf_gc);
		lua_setfield(L, -2, "__gc");
	}
	if (luaL_newmetatable(L, STREAM)) {
		lua_pushcfunction(L, stream_gc);
		lua_setfield(L, -2, "__gc");
		lua_pushliteral(L, "mask_stream");
		lua_setfield(L, -2, "__metatable");
		luaL_newlib(L, methods);
		lua_setfield(L, -2, "__index");
	}
	lua_pop(L, 2);
}

/* host.mask_stream()
 *  +-> stream                                                                          */
int
mask_lua_stream(lua_State *L)
{
	struct masker *m = secret_masker(L);
	struct mask_stream **box;

	make_metatables(L);
	box = lua_newuserdatauv(L, sizeof *box, 0);
	*box = NULL;
	luaL_setmetatable(L, STREAM);
	if ((*box = mask_stream_new(m)) == NULL)
		return luaL_error(L, "not enough memory");
	return 1;
}
