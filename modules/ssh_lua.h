/* ssh_lua.h: what the parts of the module that Lua sees share. */
#ifndef SSH_LUA_H
#define SSH_LUA_H

#include "ssh_session.h"

#define MODULE "ssh"
#define TIMEOUT 60.0

/* The userdata of a session. */
struct box {
	struct session *session;
	struct slot slot;
};

/* An operation that Lua waits for; stays on the stack of the call. */
struct opbox {
	struct op *op;
	struct slot slot;
};

/* Begins a call that may wait in the slot; raises when another task waits there. */
void slot_enter(lua_State *L, struct slot *slot, double seconds);
int slot_wait(lua_State *L, struct slot *slot, lua_KContext ctx, lua_KFunction k);
int fail_slot(lua_State *L, const struct slot *slot, const char *op, const char *doing);
int fail_session(lua_State *L, const struct session *s, const char *op);
struct session *check_session(lua_State *L, int idx);
void metatable(lua_State *L, const char *name, const luaL_Reg *methods);

/* Each adds its methods to the session's metatable, on top of the stack. */
void connect_methods(lua_State *L);
void stream_methods(lua_State *L);
void files_methods(lua_State *L);
void forward_methods(lua_State *L);

int l_connect(lua_State *L);

#endif
