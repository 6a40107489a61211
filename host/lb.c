/* lb.c: errors, options and buffers of the module kit.
 * Waits and loop handles are in loop.c, secrets in secret.c. */
#include "lb.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ERROR "lb.error"

/* Errors */

/* "module: op: message" of an error table; what one that Lua made lacks is left out. */
static int
error_tostring(lua_State *L)
{
	static const char *const parts[] = { "module", "op" };
	luaL_Buffer b;
	int i;

	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_buffinit(L, &b);
	for (i = 0; i < 2; i++) {
		if (lua_getfield(L, 1, parts[i]) == LUA_TSTRING) {
			luaL_addvalue(&b);
			luaL_addstring(&b, ": ");
		} else {
			lua_pop(L, 1);
		}
	}
	if (lua_getfield(L, 1, "message") != LUA_TSTRING) {
		lua_pop(L, 1);
		lua_pushliteral(L, "failed");
	}
	luaL_addvalue(&b);
	luaL_pushresult(&b);
	return 1;
}

/* Leaves nil and the error table; the message is on top of the stack. */
static int
fail_message(lua_State *L, const char *module, const char *op, const char *code)
{
	lua_createtable(L, 0, 4);
	lua_insert(L, -2);
	lua_setfield(L, -2, "message");
	lua_pushstring(L, code);
	lua_setfield(L, -2, "code");
	lua_pushstring(L, module);
	lua_setfield(L, -2, "module");
	lua_pushstring(L, op);
	lua_setfield(L, -2, "op");
	if (luaL_newmetatable(L, ERROR)) {
		lua_pushcfunction(L, error_tostring);
		lua_setfield(L, -2, "__tostring");
	}
	lua_setmetatable(L, -2);
	lua_pushnil(L);
	lua_insert(L, -2);
	return 2;
}

int
lb_fail(lua_State *L, const char *module, const char *op, const char *code,
    const char *fmt, ...)
{
	va_list args;
	luaL_Buffer b;
	char *text;
	int len;

	va_start(args, fmt);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (len < 0)
		len = 0;
	luaL_checkstack(L, 8, NULL);
	text = luaL_buffinitsize(L, &b, (size_t)len + 1);
	va_start(args, fmt);
	vsnprintf(text, (size_t)len + 1, fmt, args);
	va_end(args);
	luaL_pushresultsize(&b, (size_t)len);
	return fail_message(L, module, op, code);
}

static const char *
errno_code(int errnum)
{
	switch (errnum) {
	case ENOENT:
	case ENOTDIR:
	case ESRCH:
		return "not_found";
	case EACCES:
	case EPERM:
	case EROFS:
		return "denied";
	case EEXIST:
	case ENOTEMPTY:
		return "exists";
	case EISDIR:
		return "is_directory";
	case ENOSPC:
	case EDQUOT:
		return "no_space";
	case E2BIG:
	case EFBIG:
	case ENAMETOOLONG:
		return "too_large";
	case ENOMEM:
	case EMFILE:
	case ENFILE:
	case EAGAIN:
		return "exhausted";
	case EBUSY:
	case ETXTBSY:
		return "busy";
	case EINTR:
		return "interrupted";
	case ETIMEDOUT:
		return "timeout";
	case EPIPE:
	case ECONNRESET:
	case ENOTCONN:
		return "closed";
	case ECONNREFUSED:
	case EHOSTUNREACH:
	case ENETUNREACH:
		return "connect";
	case ENOEXEC:
	case EINVAL:
		return "invalid";
	default:
		return "io";
	}
}

int
lb_fail_errno(lua_State *L, const char *module, const char *op, int errnum)
{
	char text[256];

	return lb_fail(L, module, op, errno_code(errnum), "%s",
	    strerror_r(errnum, text, sizeof text));
}

/* Options */

static bool
has_options(lua_State *L, int idx)
{
	if (lua_isnoneornil(L, idx))
		return false;
	luaL_checktype(L, idx, LUA_TTABLE);
	return true;
}

static bool
known(const char *name, const char *const names[])
{
	for (; *names != NULL; names++)
		if (strcmp(*names, name) == 0)
			return true;
	return false;
}

void
lb_opts(lua_State *L, int idx, const char *const names[])
{
	if (!has_options(L, idx))
		return;
	idx = lua_absindex(L, idx);
	lua_pushnil(L);
	while (lua_next(L, idx) != 0) {
		lua_pop(L, 1);
		if (lua_type(L, -1) != LUA_TSTRING)
			luaL_argerror(L, idx, lua_pushfstring(L,
			    "options have names, this one is a %s",
			    luaL_typename(L, -1)));
		if (!known(lua_tostring(L, -1), names))
			luaL_argerror(L, idx, lua_pushfstring(L, "unknown option '%s'",
			    lua_tostring(L, -1)));
	}
}

/* Pushes the option; false, and nothing pushed, when it is not given. */
static bool
push_option(lua_State *L, int idx, const char *name)
{
	if (!has_options(L, idx))
		return false;
	idx = lua_absindex(L, idx);
	lua_pushstring(L, name);
	lua_rawget(L, idx);
	if (!lua_isnil(L, -1))
		return true;
	lua_pop(L, 1);
	return false;
}

static int
bad_option(lua_State *L, int idx, const char *name, const char *expected)
{
	return luaL_argerror(L, idx, lua_pushfstring(L,
	    "option '%s' must be %s, not a %s", name, expected, luaL_typename(L, -1)));
}

const char *
lb_opt_string(lua_State *L, int idx, const char *name, const char *def)
{
	const char *s;
	size_t len;

	if (!push_option(L, idx, name))
		return def;
	if (lua_type(L, -1) != LUA_TSTRING)
		bad_option(L, idx, name, "a string");
	s = lua_tolstring(L, -1, &len);
	if (strlen(s) != len)
		luaL_argerror(L, idx, lua_pushfstring(L, "option '%s' holds a zero byte",
		    name));
	lua_pop(L, 1); /* the table keeps it */
	return s;
}

bool
lb_opt_boolean(lua_State *L, int idx, const char *name, bool def)
{
	bool value;

	if (!push_option(L, idx, name))
		return def;
	if (!lua_isboolean(L, -1))
		bad_option(L, idx, name, "a boolean");
	value = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return value;
}

lua_Integer
lb_opt_integer(lua_State *L, int idx, const char *name, lua_Integer def, lua_Integer min,
    lua_Integer max)
{
	lua_Integer value;
	int isint = 0;

	if (!push_option(L, idx, name))
		return def;
	if (lua_type(L, -1) != LUA_TNUMBER)
		bad_option(L, idx, name, "an integer");
	value = lua_tointegerx(L, -1, &isint);
	if (!isint)
		bad_option(L, idx, name, "an integer");
	if (value < min || value > max)
		luaL_argerror(L, idx, lua_pushfstring(L,
		    "option '%s' must be from %I to %I, not %I", name, (LUAI_UACINT)min,
		    (LUAI_UACINT)max, (LUAI_UACINT)value));
	lua_pop(L, 1);
	return value;
}

double
lb_opt_seconds(lua_State *L, int idx, const char *name, double def)
{
	double value;

	if (!push_option(L, idx, name))
		return def;
	if (lua_type(L, -1) != LUA_TNUMBER)
		bad_option(L, idx, name, "a number of seconds");
	value = lua_tonumber(L, -1);
	if (!(value >= 0))
		luaL_argerror(L, idx, lua_pushfstring(L,
		    "option '%s' must be a number of seconds from 0 up", name));
	lua_pop(L, 1);
	return value;
}

double
lb_seconds(lua_State *L, int idx, double def)
{
	double value;

	if (lua_isnoneornil(L, idx))
		return def;
	luaL_checktype(L, idx, LUA_TNUMBER);
	value = lua_tonumber(L, idx);
	luaL_argcheck(L, value >= 0, idx, "must be a number of seconds from 0 up");
	return value;
}

/* Buffers */

bool
lb_buf_add(struct lb_buf *b, const void *data, size_t len)
{
	char *grown;
	size_t cap = b->cap;

	if (len == 0)
		return true;
	if (len > SIZE_MAX / 4 || b->len > SIZE_MAX / 4)
		return false;
	if (b->len + len > cap) {
		while (cap < b->len + len)
			cap = cap < 256 ? 256 : cap * 2;
		/* not realloc, which would leave a copy behind unwiped */
		if ((grown = malloc(cap)) == NULL)
			return false;
		if (b->len > 0)
			memcpy(grown, b->data, b->len);
		if (b->data != NULL)
			lb_wipe(b->data, b->cap);
		free(b->data);
		b->data = grown;
		b->cap = cap;
	}
	memcpy(b->data + b->len, data, len);
	b->len += len;
	return true;
}

void
lb_buf_drop(struct lb_buf *b, size_t len)
{
	if (len > b->len)
		len = b->len;
	if (len == 0)
		return;
	memmove(b->data, b->data + len, b->len - len);
	lb_wipe(b->data + b->len - len, len);
	b->len -= len;
}

void
lb_buf_free(struct lb_buf *b)
{
	if (b->data != NULL)
		lb_wipe(b->data, b->cap);
	free(b->data);
	memset(b, 0, sizeof *b);
}

void
lb_wipe(void *data, size_t len)
{
	if (len > 0)
		explicit_bzero(data, len);
}
