/* secret.h: what the host needs of secrets beyond lb.h. It reveals nothing by itself. */
#ifndef SECRET_H
#define SECRET_H

#include <lua.h>

struct masker;

/* The masker that learns every secret of this state. It must outlive the state, since
 * secrets leave it when they are collected. */
void secret_set_masker(lua_State *L, struct masker *m);
struct masker *secret_masker(lua_State *L);

#endif
