/* analysis.h: tells clang-tidy which functions of Lua do not return, which Lua's own
 * headers do not say. Included by lint.sh before every source; in no build. */
#include <lauxlib.h>
#include <lua.h>

__attribute__((analyzer_noreturn)) int luaL_error(lua_State *L, const char *fmt, ...);
__attribute__((analyzer_noreturn)) int luaL_argerror(lua_State *L, int arg, const char *msg);
__attribute__((analyzer_noreturn)) int luaL_typeerror(lua_State *L, int arg, const char *name);
__attribute__((analyzer_noreturn)) int lua_error(lua_State *L);
