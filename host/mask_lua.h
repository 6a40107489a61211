/* mask_lua.h: the masker for Lua. */
#ifndef MASK_LUA_H
#define MASK_LUA_H

#include <lua.h>

/* Pushes a table { mask, mask_stream } for the module `host`. */
int mask_lua_open(lua_State *L);

#endif
