/* netcup_json.c: what Netcup's interfaces say as Lua values, and what is sent to them.
 * null is left out, as interfaces send it for what is absent. It makes no requests. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cjson/cJSON.h>

#include "netcup.h"
#include "netcup_json.h"

#define DEPTH_MAX 64
#define INTEGER_MAX 9007199254740992.0
#define SHORTEST_SECRET 8

cJSON *
netcup_parse(const struct lb_buf *text)
{
	return text->len == 0 ? NULL : cJSON_ParseWithLength(text->data, text->len);
}

/* Tokens stand in these trees. */
static void
wipe(cJSON *item, int depth)
{
	for (; item != NULL; item = item->next) {
		if (item->valuestring != NULL)
			lb_wipe(item->valuestring, strlen(item->valuestring));
		if (depth < DEPTH_MAX)
			wipe(item->child, depth + 1);
	}
}

void
netcup_json_free(cJSON *root)
{
	wipe(root, 0);
	cJSON_Delete(root);
}

bool
netcup_json_print(const cJSON *root, struct lb_buf *to)
{
	char *text = cJSON_PrintUnformatted(root);
	bool ok;

	if (text == NULL)
		return false;
	ok = lb_buf_add(to, text, strlen(text));
	lb_wipe(text, strlen(text));
	cJSON_free(text);
	return ok;
}

/* NULL unless it is a string. */
const char *
netcup_string(const cJSON *object, const char *name)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static bool
is_secret_name(const char *name)
{
	static const char *const names[] = { "password", "rootPassword", "presignedUrl",
		"cloudInitResultBase64Encoded", NULL };

	for (int i = 0; name != NULL && names[i] != NULL; i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

static void push_at(lua_State *L, const cJSON *value, int depth);

static void
push_string(lua_State *L, const cJSON *value)
{
	char name[64];

	if (!is_secret_name(value->string)) {
		lua_pushstring(L, value->valuestring);
		return;
	}
	/* What cannot be masked is not shown. */
	if (strlen(value->valuestring) < SHORTEST_SECRET) {
		lua_pushnil(L);
		return;
	}
	snprintf(name, sizeof name, "netcup %s", value->string);
	lb_secret_push(L, name, value->valuestring, strlen(value->valuestring));
}

static void
push_table(lua_State *L, const cJSON *value, int depth)
{
	bool array = cJSON_IsArray(value);
	lua_Integer n = 0;

	lua_newtable(L);
	if (array)
		luaL_setmetatable(L, "netcup.list");
	for (const cJSON *c = value->child; c != NULL && depth < DEPTH_MAX; c = c->next) {
		push_at(L, c, depth + 1);
		if (array && lua_isnil(L, -1))
			lua_pop(L, 1);
		else if (array)
			lua_rawseti(L, -2, ++n);
		else
			lua_setfield(L, -2, c->string);
	}
}

static void
push_at(lua_State *L, const cJSON *value, int depth)
{
	double d;

	luaL_checkstack(L, 8, "netcup");
	if (cJSON_IsArray(value) || cJSON_IsObject(value)) {
		push_table(L, value, depth);
	} else if (cJSON_IsString(value)) {
		push_string(L, value);
	} else if (cJSON_IsBool(value)) {
		lua_pushboolean(L, cJSON_IsTrue(value));
	} else if (cJSON_IsNumber(value)) {
		d = value->valuedouble;
		if (d == floor(d) && fabs(d) <= INTEGER_MAX)
			lua_pushinteger(L, (lua_Integer)d);
		else
			lua_pushnumber(L, d);
	} else {
		lua_pushnil(L);
	}
}

void
netcup_push(lua_State *L, const cJSON *value)
{
	push_at(L, value, 0);
}

double
netcup_time(const char *text)
{
	struct tm tm = { 0 };
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (end == NULL)
		return -1;
	if (*end == '.')
		end += 1 + strspn(end + 1, "0123456789");
	return strcmp(end, "Z") == 0 ? (double)timegm(&tm) : -1;
}

/* What is sent */

cJSON *
netcup_object(lua_State *L, struct call *k)
{
	if ((k->json = cJSON_CreateObject()) == NULL)
		netcup_no_memory(L);
	return k->json;
}

static void
put(lua_State *L, cJSON *object, const char *name, cJSON *value)
{
	if (value != NULL && cJSON_AddItemToObject(object, name, value))
		return;
	cJSON_Delete(value);
	netcup_no_memory(L);
}

void
netcup_put(lua_State *L, cJSON *object, const char *name, const char *value)
{
	put(L, object, name, cJSON_CreateString(value));
}

void
netcup_put_null(lua_State *L, cJSON *object, const char *name)
{
	put(L, object, name, cJSON_CreateNull());
}

void
netcup_put_bool(lua_State *L, cJSON *object, const char *name, bool value)
{
	put(L, object, name, cJSON_CreateBool(value));
}

void
netcup_put_int(lua_State *L, cJSON *object, const char *name, lua_Integer value)
{
	put(L, object, name, cJSON_CreateNumber((double)value));
}

/* The string or the secret at idx. */
void
netcup_put_bytes(lua_State *L, cJSON *object, const char *name, int idx)
{
	size_t len;
	const char *bytes = lb_bytes(L, idx, &len);
	char *text = strndup(bytes, len);
	cJSON *value = text != NULL ? cJSON_CreateString(text) : NULL;

	if (text != NULL)
		lb_wipe(text, strlen(text));
	free(text);
	put(L, object, name, value);
}
