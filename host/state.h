/* state.h: the Lua state of the trusted side: memory ceiling, standard libraries, and
 * `require` of what is linked into the binary. Runs no code. */
#ifndef STATE_H
#define STATE_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

/* A state with everything in package.preload: the prelude as lb.NAME and the native
 * modules. NULL: out of memory. `searching` also lets require look for files, which only
 * the specs want. `ceiling` bounds what Lua may allocate, in bytes. */
lua_State *state_open(size_t ceiling, bool searching);
void state_close(lua_State *L); /* NULL is fine */

#endif
