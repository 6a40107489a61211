/* analysis.h: tells clang-tidy which functions of Lua do not return, which Lua's own
 * headers do not say. Included by lint.sh before every source; in no build. */
#include <lauxlib.h>
#include <lua.h>

#define ENDS __attribute__((analyzer_noreturn))
ENDS int luaL_error(lua_State *L, const char *fmt, ...);
ENDS int luaL_argerror(lua_State *L, int arg, const char *msg);
ENDS int luaL_typeerror(lua_State *L, int arg, const char *name);
ENDS int lua_error(lua_State *L);
#undef ENDS
