/* state.c: makes and ends the Lua state of the trusted side. Which modules exist is the
 * Makefile's list (modules.c); it opens none of them itself and runs no code. */
#include "state.h"

#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "modules.h"
#include "prelude.h"

struct memory {
	size_t used, ceiling;
};

/* A runaway script gets "not enough memory" before the machine does. Shrinking always
 * works: Lua relies on that. */
static void *
allocate(void *arg, void *ptr, size_t before, size_t after)
{
	struct memory *m = arg;
	void *moved;

	if (ptr == NULL)
		before = 0;
	if (after == 0) {
		free(ptr);
		m->used -= before;
		return NULL;
	}
	if (after > before && after - before > m->ceiling - m->used)
		return NULL;
	moved = realloc(ptr, after);
	if (moved == NULL && after > before)
		return NULL;
	m->used = m->used - before + after;
	return moved != NULL ? moved : ptr;
}

static int
open_prelude(lua_State *L)
{
	const struct prelude_file *f = lua_touserdata(L, lua_upvalueindex(1));
	char name[64];

	lua_pushfstring(L, "=lb/%s.lua", f->name);
	strncpy(name, lua_tostring(L, -1), sizeof name - 1);
	name[sizeof name - 1] = '\0';
	if (luaL_loadbufferx(L, (const char *)f->data, f->len, name, "t") != LUA_OK)
		return lua_error(L);
	lua_pushvalue(L, 1);
	lua_call(L, 1, 1);
	return 1;
}

/* package.searchers = { the one that looks in package.preload } */
static void
preload_only(lua_State *L)
{
	lua_getglobal(L, "package");
	lua_createtable(L, 1, 0);
	lua_getfield(L, -2, "searchers");
	lua_rawgeti(L, -1, 1);
	lua_rawseti(L, -3, 1);
	lua_pop(L, 1);
	lua_setfield(L, -2, "searchers");
	lua_pushliteral(L, "");
	lua_setfield(L, -2, "path");
	lua_pushliteral(L, "");
	lua_setfield(L, -2, "cpath");
	lua_pushnil(L);
	lua_setfield(L, -2, "loadlib");
	lua_pop(L, 1);
}

static int
fill(lua_State *L)
{
	bool searching = lua_toboolean(L, 1);

	luaL_openlibs(L);
	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
	for (const luaL_Reg *m = native_modules; m->name != NULL; m++) {
		lua_pushcfunction(L, m->func);
		lua_setfield(L, -2, m->name);
	}
	for (const struct prelude_file *f = prelude_files; f->name != NULL; f++) {
		lua_pushfstring(L, "lb.%s", f->name);
		lua_pushlightuserdata(L, (void *)f);
		lua_pushcclosure(L, open_prelude, 1);
		lua_rawset(L, -3);
	}
	if (!searching)
		preload_only(L);
	return 0;
}

lua_State *
state_open(size_t ceiling, bool searching)
{
	struct memory *m = calloc(1, sizeof *m);
	lua_State *L;

	if (m == NULL)
		return NULL;
	m->ceiling = ceiling;
	L = lua_newstate(allocate, m);
	if (L == NULL) {
		free(m);
		return NULL;
	}
	lua_pushcfunction(L, fill);
	lua_pushboolean(L, searching);
	if (lua_pcall(L, 1, 0, 0) == LUA_OK)
		return L;
	state_close(L);
	return NULL;
}

void
state_close(lua_State *L)
{
	void *m;

	if (L == NULL)
		return;
	lua_getallocf(L, &m);
	lua_close(L);
	free(m);
}
