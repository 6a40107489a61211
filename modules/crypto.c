/* crypto.c: INTERIM by the lead so that the tree runs. Owner (json/template/crypto engineer): replace it whole, but keep
 * crypto.token(nbytes) -> plain hex string (nonces, not secret), crypto.sha256(bytes|secret) -> hex, crypto.hmac_sha256(key, msg) -> hex: the prelude uses them. */
#include "lb.h"
#include "digest.h"
#include <stdio.h>
int luaopen_crypto(lua_State *L);
static void hex(lua_State*L,const unsigned char*d,size_t n){ char b[512]; for(size_t i=0;i<n;i++) sprintf(b+2*i,"%02x",d[i]); lua_pushlstring(L,b,2*n);} 
static int token(lua_State *L){ unsigned char d[64]; size_t n=luaL_checkinteger(L,1); lb_random(d,n); hex(L,d,n); return 1; }
static int sha(lua_State *L){ unsigned char d[32]; size_t n; const char*s=lb_bytes(L,1,&n); lb_sha256(s,n,d); hex(L,d,32); return 1; }
static int hm(lua_State *L){ unsigned char d[32]; size_t n,m; const char*k=lb_bytes(L,1,&m); const char*s=lb_bytes(L,2,&n); lb_hmac_sha256(k,m,s,n,d); hex(L,d,32); return 1; }
int
luaopen_crypto(lua_State *L)
{ lua_newtable(L); lua_pushcfunction(L,token); lua_setfield(L,-2,"token"); lua_pushcfunction(L,sha); lua_setfield(L,-2,"sha256"); lua_pushcfunction(L,hm); lua_setfield(L,-2,"hmac_sha256"); return 1; }
