/* secret.c: the userdata lb.secret, which the masker knows while it lives.
 * It does not reveal its bytes to Lua; lb_bytes hands them to C. */
#include "secret.h"

#include <string.h>

#include "lb.h"
#include "mask.h"

#define SECRET "lb.secret"
#define SHORTEST 8

/* name (with its zero byte), then the bytes */
struct secret {
	struct masker *masker;
	unsigned id; /* 0 once released */
	size_t name_len, len;
	char data[];
};

static const char masker_key;

void
secret_set_masker(lua_State *L, struct masker *m)
{
	lua_pushlightuserdata(L, m);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &masker_key);
}

struct masker *
secret_masker(lua_State *L)
{
	struct masker *m;

	lua_rawgetp(L, LUA_REGISTRYINDEX, &masker_key);
	m = lua_touserdata(L, -1);
	lua_pop(L, 1);
	if (m == NULL)
		luaL_error(L, "this state has no masker");
	return m;
}

static struct secret *
check_secret(lua_State *L, int idx)
{
	return luaL_checkudata(L, idx, SECRET);
}

static int
secret_release(lua_State *L)
{
	struct secret *s = check_secret(L, 1);

	if (s->id == 0)
		return 0;
	mask_remove(s->masker, s->id);
	s->id = 0;
	lb_wipe(s->data + s->name_len + 1, s->len);
	return 0;
}

static int
secret_tostring(lua_State *L)
{
	lua_pushfstring(L, "[secret %s]", check_secret(L, 1)->data);
	return 1;
}

/* secret:name()
 *  +-> name                                                                            */
static int
secret_name(lua_State *L)
{
	lua_pushstring(L, check_secret(L, 1)->data);
	return 1;
}

static int
secret_index(lua_State *L)
{
	const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";

	if (strcmp(key, "name") != 0)
		return luaL_error(L, "[secret %s] cannot be indexed",
		    check_secret(L, 1)->data);
	lua_pushcfunction(L, secret_name);
	return 1;
}

static int
secret_newindex(lua_State *L)
{
	return luaL_error(L, "[secret %s] cannot be changed", check_secret(L, 1)->data);
}

static int
secret_concat(lua_State *L)
{
	int idx = luaL_testudata(L, 1, SECRET) != NULL ? 1 : 2;

	return luaL_error(L, "[secret %s] cannot become part of a string; hand it over "
	    "as it is, for instance as stdin", check_secret(L, idx)->data);
}

static int
secret_len(lua_State *L)
{
	return luaL_error(L, "[secret %s] does not tell its length",
	    check_secret(L, 1)->data);
}

static void
push_metatable(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{ "__gc", secret_release },
		{ "__close", secret_release },
		{ "__tostring", secret_tostring },
		{ "__index", secret_index },
		{ "__newindex", secret_newindex },
		{ "__concat", secret_concat },
		{ "__len", secret_len },
		{ NULL, NULL },
	};

	if (!luaL_newmetatable(L, SECRET))
		return;
	luaL_setfuncs(L, methods, 0);
	lua_pushliteral(L, "secret");
	lua_setfield(L, -2, "__metatable");
}

/* The newline at the end of a file with a secret is not what makes it long enough. */
static size_t
length_that_counts(const char *data, size_t len)
{
	while (len > 0 && (data[len - 1] == '\n' || data[len - 1] == '\r'))
		len--;
	return len;
}

void
lb_secret_push(lua_State *L, const char *name, const void *data, size_t len)
{
	size_t name_len = strlen(name), i;
	struct masker *masker = secret_masker(L);
	struct secret *s;

	if (name_len == 0)
		luaL_error(L, "a secret needs a name");
	for (i = 0; i < name_len; i++)
		if ((unsigned char)name[i] < ' ' || name[i] == 0x7f)
			luaL_error(L, "the name of a secret holds a control character");
	if (length_that_counts(data, len) < SHORTEST)
		luaL_error(L,
		    "secret %s is too short: fewer than %d bytes cannot be masked", name,
		    SHORTEST);
	s = lua_newuserdatauv(L, sizeof *s + name_len + 1 + len, 0);
	s->id = 0;
	s->masker = masker;
	s->name_len = name_len;
	s->len = len;
	memcpy(s->data, name, name_len + 1);
	push_metatable(L);
	lua_setmetatable(L, -2);
	if ((s->id = mask_add(masker, name, data, len)) == 0)
		luaL_error(L, "not enough memory");
	memcpy(s->data + name_len + 1, data, len);
}

bool
lb_is_secret(lua_State *L, int idx)
{
	return luaL_testudata(L, idx, SECRET) != NULL;
}

const char *
lb_bytes(lua_State *L, int idx, size_t *len)
{
	struct secret *s = luaL_testudata(L, idx, SECRET);

	if (s == NULL) {
		if (lua_type(L, idx) != LUA_TSTRING)
			luaL_typeerror(L, idx, "string or secret");
		return lua_tolstring(L, idx, len);
	}
	if (s->id == 0)
		luaL_error(L, "[secret %s] was released", s->data);
	if (len != NULL)
		*len = s->len;
	return s->data + s->name_len + 1;
}
