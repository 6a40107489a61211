/* mask_lua.h: a masked text in pieces, for Lua. */
#ifndef MASK_LUA_H
#define MASK_LUA_H

#include <lua.h>

/* The function host.mask_stream. */
int mask_lua_stream(lua_State *L);

#endif
