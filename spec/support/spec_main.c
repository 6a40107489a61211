/* spec_main.c: lbrun-spec, the host with busted inside: the specs see the modules that
 * ship, in a task as runbooks do. spec/support/runner.lua does the rest. */
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "cli.h"
#include "runtime.h"

/* cli.parse{ word, ... }
 *  +-> the table that lb.main gets
 *  +-> nil, result, message, hint   (result: "help", "version", "usage") */
static int
parse(lua_State *L)
{
	static const char *const results[] = { "ok", "help", "version", "usage",
		"memory" };
	lua_Integer n = luaL_len(L, 1);
	char **argv = lua_newuserdatauv(L, (size_t)(n + 2) * sizeof *argv, 0);
	struct cli cli;
	enum cli_result r;

	argv[0] = (char *)"lbrun";
	for (lua_Integer i = 1; i <= n; i++) {
		lua_rawgeti(L, 1, i);
		argv[i] = (char *)luaL_checkstring(L, -1);
		lua_pop(L, 1);
	}
	argv[n + 1] = NULL;
	r = cli_parse(&cli, (int)n + 1, argv);
	if (r == CLI_OK) {
		cli_push(L, &cli);
		cli_free(&cli);
		return 1;
	}
	lua_pushnil(L);
	lua_pushstring(L, results[r]);
	lua_pushstring(
	    L, r == CLI_HELP && cli.command != NULL ? cli.command : cli.message);
	lua_pushstring(L, cli.hint);
	cli_free(&cli);
	return 4;
}

static int
open_cli(lua_State *L)
{
	lua_newtable(L);
	lua_pushcfunction(L, parse);
	lua_setfield(L, -2, "parse");
	return 1;
}

static int
push_runner(lua_State *L, void *arg)
{
	char **argv = arg;
	int i;

	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
	lua_pushcfunction(L, open_cli);
	lua_setfield(L, -2, "spec.cli");
	lua_pop(L, 1);
	lua_getglobal(L, "package");
	lua_pushliteral(L, "./spec/?.lua;./?.lua;");
	lua_getfield(L, -2, "path");
	lua_concat(L, 2);
	lua_setfield(L, -2, "path");
	lua_pop(L, 1);
	lua_getglobal(L, "require");
	lua_pushliteral(L, "support.runner");
	lua_call(L, 1, 1);
	lua_newtable(L);
	for (i = 0; argv[i] != NULL; i++) {
		lua_pushstring(L, argv[i]);
		lua_rawseti(L, -2, i);
	}
	return 1;
}

int
main(int argc, char **argv)
{
	(void)argc;
	runtime_prepare();
	return runtime_run(true, push_runner, argv);
}
