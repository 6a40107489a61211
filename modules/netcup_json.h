/* netcup_json.h: what netcup_json.c offers: answers as Lua values, and bodies.
 * It names no third-party library. */
#ifndef NETCUP_JSON_H
#define NETCUP_JSON_H

#include "netcup.h"

struct cJSON *netcup_parse(const struct lb_buf *text);
void netcup_json_free(struct cJSON *root);
bool netcup_json_print(const struct cJSON *root, struct lb_buf *to);
const char *netcup_string(const struct cJSON *object, const char *name);
void netcup_push(lua_State *L, const struct cJSON *value);
double netcup_time(const char *text); /* RFC 3339; -1: it is none */
struct cJSON *netcup_object(lua_State *L, struct call *k);
void netcup_put(lua_State *L, struct cJSON *object, const char *name, const char *value);
void netcup_put_null(lua_State *L, struct cJSON *object, const char *name);
void netcup_put_bool(lua_State *L, struct cJSON *object, const char *name, bool value);
void
netcup_put_int(lua_State *L, struct cJSON *object, const char *name, lua_Integer value);
void netcup_put_bytes(lua_State *L, struct cJSON *object, const char *name, int idx);

#endif
