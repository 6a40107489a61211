/* netcup_server.h: what the files of operations share: their arguments, lists and tasks.
 * It names no third-party library. */
#ifndef NETCUP_SERVER_H
#define NETCUP_SERVER_H

#include "netcup.h"

lua_Integer netcup_id(lua_State *L, int idx);
const char *netcup_text(lua_State *L, int idx, size_t max);
int netcup_run_list(lua_State *L, struct call *k);
int netcup_finish_list(lua_State *L, struct call *k);
int netcup_finish_task(lua_State *L, struct call *k);

#endif
