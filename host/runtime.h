/* runtime.h: one Lua state with its masker, sandbox, loop and output, from its beginning
 * to its end. What runs in it is the caller's choice. */
#ifndef RUNTIME_H
#define RUNTIME_H

#include <stdbool.h>

#include <lua.h>

/* What every program of the host does first: standard descriptors are open, no core file,
 * a reader that goes away is an error and no signal. */
void runtime_prepare(void);

/* `push` leaves a function and its arguments on the stack and returns how many arguments;
 * it may raise. That function runs as the main task, and the integer it returns is the
 * exit status; when it fails that is 1, with the masked error on standard error.
 * `searching`: require also finds files (for the specs). */
int runtime_run(bool searching, int (*push)(lua_State *L, void *arg), void *arg);

#endif
