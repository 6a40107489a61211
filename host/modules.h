/* modules.h: the native modules that are linked in; modules.c is made by the Makefile. */
#ifndef MODULES_H
#define MODULES_H

#include <lauxlib.h>

extern const luaL_Reg native_modules[]; /* ends with a NULL name */

#endif
