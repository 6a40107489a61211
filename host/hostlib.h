/* hostlib.h: the module `host` of the prelude. Its parts meet here and nowhere else. */
#ifndef HOSTLIB_H
#define HOSTLIB_H

#include <stddef.h>

#include <lauxlib.h>
#include <lua.h>

int luaopen_host(lua_State *L);

/* Output. hostlib_open needs the loop and the masker of the state; it may raise. All text
 * passes the masker. hostlib_write never raises and never blocks for long: what the
 * reader does not take yet is kept. It returns 0 or the errno with which the descriptor
 * failed for good. hostlib_finish writes all that is left, however long that takes. */
void hostlib_open(lua_State *L);
int hostlib_write(lua_State *L, int fd, const char *data, size_t len);
int hostlib_flush_mask(lua_State *L, int fd);
int hostlib_finish(lua_State *L, int fd);

/* The path at idx; raises for what is no path. */
const char *hostlib_path(lua_State *L, int idx);

/* Read fd to its end, or one line of it, in a wait. Closes fd unless it is 0. The last
 * thing a Lua function does: return hostlib_read_fd(...).
 *  +-> string
 *  +-> nil, err   (too_large, interrupted, io) */
int hostlib_read_fd(lua_State *L, int fd, size_t max, const char *op);

extern const luaL_Reg hostlib_fs[];       /* files */
extern const luaL_Reg hostlib_terminal[]; /* output, questions, standard input */

#endif
