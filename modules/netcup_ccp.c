/* netcup_ccp.c: DNS by the interface of netcup's customer control panel, which answers
 * HTTP 200 to everything and says in the body what it means. A record's place is its
 * zone; what is not sent is left alone. It cannot list zones: nobody's account can. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cjson/cJSON.h>

#include "netcup.h"
#include "netcup_json.h"
#include "netcup_server.h"
#include "netcup_token.h"

enum { SUCCESS = 2000, SESSION = 4001, REFUSED = 4013, EMPTY = 5029 };

static void
add_buffer(lua_State *L, cJSON *param, const char *name, const struct lb_buf *b)
{
	char *text = strndup(b->len > 0 ? b->data : "", b->len);
	cJSON *value = text != NULL ? cJSON_CreateString(text) : NULL;

	if (text != NULL)
		lb_wipe(text, b->len);
	free(text);
	if (value == NULL || !cJSON_AddItemToObject(param, name, value)) {
		cJSON_Delete(value);
		netcup_no_memory(L);
	}
}

/* Makes the body: that of a login when there is no session, else k->json's. */
int
netcup_ccp_body(lua_State *L, struct call *k)
{
	struct client *c = k->client;
	cJSON *root = cJSON_CreateObject(), *param;
	const char *action = c->session.len > 0 ? k->text : "login";
	bool ok;

	netcup_json_free(k->root);
	k->root = root; /* released also when this raises */
	k->status = 0;
	lb_buf_free(&k->body);
	if (root == NULL || cJSON_AddStringToObject(root, "action", action) == NULL ||
	    (param = cJSON_AddObjectToObject(root, "param")) == NULL)
		return netcup_no_memory(L);
	netcup_put(L, param, "customernumber", c->ccp_customer);
	add_buffer(L, param, "apikey", &c->key);
	if (c->session.len == 0) {
		add_buffer(L, param, "apipassword", &c->password);
	} else {
		add_buffer(L, param, "apisessionid", &c->session);
		for (const cJSON *i = k->json != NULL ? k->json->child : NULL; i != NULL;
		     i = i->next) {
			cJSON *copy = cJSON_Duplicate(i, true);

			if (copy == NULL ||
			    !cJSON_AddItemToObject(param, i->string, copy)) {
				cJSON_Delete(copy);
				return netcup_no_memory(L);
			}
		}
	}
	ok = netcup_json_print(root, &k->body);
	return ok ? 0 : netcup_no_memory(L);
}

static int
fail_ccp(lua_State *L, struct call *k, const char *code, int number)
{
	const char *brief = netcup_string(k->root, "shortmessage");
	const char *text = netcup_string(k->root, "longmessage");

	lb_fail(L, MODULE, k->op, code, "%s %s (DNS interface, code %d)",
	    brief != NULL ? brief : "refused:", text != NULL ? text : "", number);
	lua_pushinteger(L, number);
	lua_setfield(L, -2, "reason");
	return 2;
}

static int
logged_in(lua_State *L, struct call *k)
{
	const char *id = netcup_string(
	    cJSON_GetObjectItemCaseSensitive(k->root, "responsedata"), "apisessionid");
	struct client *c = k->client;

	if (id == NULL || strlen(id) < 8)
		return lb_fail(
		    L, MODULE, k->op, "protocol", "a DNS login without a session");
	lb_buf_free(&c->session);
	if (!lb_buf_add(&c->session, id, strlen(id)))
		return netcup_no_memory(L);
	netcup_keep_secret(L, "session", "netcup DNS session", &c->session);
	return netcup_send_again(L, k, -1);
}

/* Two of its refusals say only in words that it is asked too much. */
static bool
says(const struct call *k, const char *words)
{
	const char *text = netcup_string(k->root, "longmessage");

	return text != NULL && strcasestr(text, words) != NULL;
}

int
netcup_ccp_answer(lua_State *L, struct call *k)
{
	const cJSON *code = cJSON_GetObjectItemCaseSensitive(k->root, "statuscode");
	const char *action = netcup_string(k->root, "action");
	int number = cJSON_IsNumber(code) ? (int)code->valuedouble : 0;
	bool login = action != NULL && strcmp(action, "login") == 0;
	double pause;

	if (number == 0)
		return lb_fail(L, MODULE, k->op, "protocol",
		    "the DNS interface gives an answer without a status");
	if (number == SUCCESS)
		return login ? logged_in(L, k) : k->finish(L, k);
	if (number == SESSION && strcmp(k->text, "logout") == 0)
		return k->finish(L, k); /* it has ended by itself */
	if (number == SESSION && !login && !k->again) {
		k->again = true;
		lb_buf_free(&k->client->session);
		return netcup_send_again(L, k, -1);
	}
	if (number == EMPTY)
		return k->missing_ok ? k->finish(L, k) :
				       fail_ccp(L, k, "not_found", number);
	if (says(k, "requests per minute")) {
		pause = netcup_pause(k);
		if (pause >= 0)
			return netcup_send_again(L, k, pause);
		return fail_ccp(L, k, "rate_limited", number);
	}
	if (says(k, "too many error"))
		return fail_ccp(L, k, "rate_limited", number);
	if (login || number == SESSION)
		return fail_ccp(L, k, "auth_failed", number);
	return fail_ccp(L, k, number == REFUSED ? "invalid" : "refused", number);
}

/* Calls */

static struct call *
zone_call(lua_State *L, const char *op, const char *action)
{
	struct client *c = netcup_check(L);
	const char *zone = netcup_text(L, 2, 253);
	struct call *k;

	luaL_argcheck(L, strpbrk(zone, "/ @") == NULL && strchr(zone, '.') != NULL, 2,
	    "not the name of a zone");
	if (c->ccp_customer == NULL)
		luaL_error(L,
		    "this client was opened without customer, api_key and "
		    "api_password, which the DNS interface needs");
	k = netcup_call(L, op, "POST");
	k->target = CCP;
	k->text = action;
	netcup_put(L, netcup_object(L, k), "domainname", zone);
	return k;
}

static const cJSON *
data_of(const struct call *k)
{
	return cJSON_GetObjectItemCaseSensitive(k->root, "responsedata");
}

static int
finish_records(lua_State *L, struct call *k)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(data_of(k), "dnsrecords");

	if (cJSON_IsArray(list)) {
		netcup_push(L, list);
		return 1;
	}
	/* an empty zone is an error with "" for data */
	lua_newtable(L);
	luaL_setmetatable(L, "netcup.list");
	return 1;
}

static int
finish_zone(lua_State *L, struct call *k)
{
	static const char *const numbers[] = { "ttl", "serial", "refresh", "retry",
		"expire", NULL };

	if (!cJSON_IsObject(data_of(k)))
		return lb_fail(L, MODULE, k->op, "protocol", "a zone without data");
	netcup_push(L, data_of(k));
	for (int i = 0; numbers[i] != NULL; i++) {
		if (lua_getfield(L, -1, numbers[i]) == LUA_TSTRING &&
		    lua_stringtonumber(L, lua_tostring(L, -1)) != 0) {
			lua_setfield(L, -3, numbers[i]);
			lua_pop(L, 1);
		} else {
			lua_pop(L, 1);
		}
	}
	return 1;
}

/* client:zone(name)
 *  +-> { name, ttl, serial, refresh, retry, expire, dnssecstatus }
 *  +-> nil, err   (auth_failed: customer number, key or password; not_found, invalid,
 *                 refused, with netcup's number as err.reason; rate_limited; connect,
 *                 resolve, tls, timeout, aborted, protocol)                            */
static int
client_zone(lua_State *L)
{
	return netcup_run(L, zone_call(L, "zone", "infoDnsZone"), finish_zone);
}

/* client:set_zone_ttl(name, seconds)
 *  A time to live is the zone's, for all its records.
 *  +-> zone
 *  +-> nil, err   (as client:zone)                                                     */
static int
client_set_zone_ttl(lua_State *L)
{
	lua_Integer seconds;
	char number[24];
	struct call *k;
	cJSON *zone;

	luaL_checktype(L, 3, LUA_TNUMBER);
	seconds = luaL_checkinteger(L, 3);
	luaL_argcheck(L, seconds >= 60 && seconds <= 604800, 3, "not from 60 to 604800");
	k = zone_call(L, "set_zone_ttl", "updateDnsZone");
	if ((zone = cJSON_AddObjectToObject(k->json, "dnszone")) == NULL)
		return netcup_no_memory(L);
	snprintf(number, sizeof number, "%lld", (long long)seconds);
	netcup_put(L, zone, "ttl", number);
	return netcup_run(L, k, finish_zone);
}

/* client:dns_records(zone)
 *  +-> { { id, hostname, type, priority, destination, state }, ... }   ({}: none)
 *  +-> nil, err   (as client:zone)                                                     */
static int
client_dns_records(lua_State *L)
{
	struct call *k = zone_call(L, "dns_records", "infoDnsRecords");

	k->missing_ok = true;
	return netcup_run(L, k, finish_records);
}

static void
put_field(lua_State *L, cJSON *record, const char *name, bool needed)
{
	char number[24];
	int type;

	lua_pushstring(L, name);
	type = lua_rawget(L, -2);
	if (type == LUA_TNIL && !needed) {
		lua_pop(L, 1);
		return;
	}
	if (type == LUA_TNUMBER && lua_isinteger(L, -1)) {
		snprintf(number, sizeof number, "%lld", (long long)lua_tointeger(L, -1));
		netcup_put(L, record, name, number);
		lua_pop(L, 1);
		return;
	}
	if (type != LUA_TSTRING)
		luaL_error(L, "a record's %s must be a string, not a %s", name,
		    luaL_typename(L, -1));
	netcup_put(L, record, name, lua_tostring(L, -1));
	lua_pop(L, 1);
}

/* The record on top of the stack. */
static void
put_record(lua_State *L, cJSON *list)
{
	static const char *const names[] = { "id", "hostname", "type", "priority",
		"destination", "state", "delete", "deleterecord", NULL };
	cJSON *record = cJSON_CreateObject();
	bool delete;

	if (record == NULL || !cJSON_AddItemToArray(list, record)) {
		cJSON_Delete(record);
		netcup_no_memory(L);
	}
	lb_opts(L, -1, names);
	delete = lb_opt_boolean(L, -1, "delete", false);
	put_field(L, record, "id", delete);
	put_field(L, record, "hostname", true);
	put_field(L, record, "type", true);
	put_field(L, record, "priority", false);
	put_field(L, record, "destination", true);
	netcup_put_bool(L, record, "deleterecord", delete);
}

/* client:dns_update(zone, records)
 *  Each record is added (without id), changed (with its id) or, with delete = true,
 *  removed (whole, with its id); all others stay as they are. Ids may change: look
 *  records up before.
 *  +-> all records of the zone afterwards
 *  +-> nil, err   (as client:zone)                                                     */
static int
client_dns_update(lua_State *L)
{
	struct call *k;
	cJSON *set, *list;
	lua_Integer n;

	netcup_check(L);
	luaL_checktype(L, 3, LUA_TTABLE);
	lua_settop(L, 3);
	n = luaL_len(L, 3);
	luaL_argcheck(L, n > 0, 3, "a list of records is needed");
	k = zone_call(L, "dns_update", "updateDnsRecords");
	set = cJSON_AddObjectToObject(k->json, "dnsrecordset");
	if (set == NULL || (list = cJSON_AddArrayToObject(set, "dnsrecords")) == NULL)
		return netcup_no_memory(L);
	for (lua_Integer i = 1; i <= n; i++) {
		luaL_argcheck(
		    L, lua_geti(L, 3, i) == LUA_TTABLE, 3, "not a list of records");
		put_record(L, list);
		lua_pop(L, 1);
	}
	return netcup_run(L, k, finish_records);
}

static int
finish_logout(lua_State *L, struct call *k)
{
	lb_buf_free(&k->client->session);
	return netcup_finish_true(L, k);
}

/* client:dns_logout()
 *  Ends the session of the DNS interface, which the other calls began.
 *  +-> true       (also when there was none)
 *  +-> nil, err   (as client:zone)                                                     */
static int
client_dns_logout(lua_State *L)
{
	struct client *c = netcup_check(L);
	struct call *k;

	if (c->session.len == 0) {
		lua_pushboolean(L, 1);
		return 1;
	}
	k = netcup_call(L, "dns_logout", "POST");
	k->target = CCP;
	k->text = "logout";
	return netcup_run(L, k, finish_logout);
}

void
netcup_ccp_methods(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{ "zone", client_zone },
		{ "set_zone_ttl", client_set_zone_ttl },
		{ "dns_records", client_dns_records },
		{ "dns_update", client_dns_update },
		{ "dns_logout", client_dns_logout },
		{ NULL, NULL },
	};

	luaL_setfuncs(L, methods, 0);
}
