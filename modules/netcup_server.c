/* netcup_server.c: servers, their power, metrics and reverse DNS, and the tasks that
 * changes are. Nothing here orders or cancels a server: the interface cannot. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "netcup.h"
#include "netcup_json.h"
#include "netcup_server.h"

#define PAGE 100
#define PAGES_MAX 200
#define MERGE "application/merge-patch+json"

lua_Integer
netcup_id(lua_State *L, int idx)
{
	lua_Integer id;

	luaL_checktype(L, idx, LUA_TNUMBER);
	id = luaL_checkinteger(L, idx);
	luaL_argcheck(L, id >= 1 && id <= 2147483647, idx, "not an id");
	return id;
}

/* A string of 1 to max bytes without control characters. */
const char *
netcup_text(lua_State *L, int idx, size_t max)
{
	size_t len;
	const char *s;

	luaL_checktype(L, idx, LUA_TSTRING);
	s = lua_tolstring(L, idx, &len);
	luaL_argcheck(L, len > 0, idx, "is empty");
	luaL_argcheck(L, len <= max, idx, "is too long");
	for (size_t i = 0; i < len; i++)
		luaL_argcheck(L, (unsigned char)s[i] >= ' ' && s[i] != 0x7f, idx,
		    "holds a control character");
	return s;
}

/* Lists that come in pages */

static int next_page(lua_State *L, struct call *k, double after);

static int
finish_page(lua_State *L, struct call *k)
{
	lua_Integer had;
	int n;

	if ((n = netcup_expect(L, k, true)) != 0)
		return n;
	lua_settop(L, 3);
	if (lua_isnil(L, 3)) {
		lua_newtable(L);
		luaL_setmetatable(L, "netcup.list");
		lua_replace(L, 3);
	}
	had = luaL_len(L, 3);
	for (const cJSON *c = k->root->child; c != NULL; c = c->next) {
		netcup_push(L, c);
		lua_rawseti(L, 3, ++had);
	}
	n = cJSON_GetArraySize(k->root);
	k->number += n;
	if (n < PAGE)
		return 1;
	if (k->number >= (lua_Integer)PAGE * PAGES_MAX)
		return lb_fail(L, MODULE, k->op, "protocol", "a list without an end");
	return next_page(L, k, -1);
}

static int
next_page(lua_State *L, struct call *k, double after)
{
	char number[24];

	k->path.len = k->mark;
	snprintf(number, sizeof number, "%lld", (long long)k->number);
	netcup_query(L, k, "offset", number);
	return netcup_send_again(L, k, after);
}

int
netcup_run_list(lua_State *L, struct call *k)
{
	netcup_query(L, k, "limit", "100");
	k->mark = k->path.len;
	netcup_query(L, k, "offset", "0");
	return netcup_run(L, k, finish_page);
}

/* A list that comes whole. */
int
netcup_finish_list(lua_State *L, struct call *k)
{
	int n = netcup_expect(L, k, true);

	if (n != 0)
		return n;
	netcup_push(L, k->root);
	return 1;
}

static int
finish_object(lua_State *L, struct call *k)
{
	int n = netcup_expect(L, k, false);

	if (n != 0)
		return n;
	netcup_push(L, k->root);
	return 1;
}

/* Tasks */

/* What a change gives: the task, or what says that there is none to wait for. */
int
netcup_finish_task(lua_State *L, struct call *k)
{
	if (netcup_string(k->root, "uuid") != NULL) {
		netcup_push(L, k->root);
		return 1;
	}
	lua_newtable(L);
	lua_pushstring(L, k->status == 202 ? "ACCEPTED" : "FINISHED");
	lua_setfield(L, -2, "state");
	return 1;
}

/* client:tasks{ server = ID, state = "RUNNING", query = TEXT }
 *  Newest first. state: PENDING, RUNNING, FINISHED, ERROR, WAITING_FOR_CANCEL, CANCELED.
 *  +-> { task, ... }   (as the interface gives them: uuid, name, state, startedAt, ...)
 *  +-> nil, err   (auth_failed, denied, maintenance, rate_limited, server, protocol,
 *                 connect, resolve, tls, timeout, aborted, store, interrupted: these may
 *                 be of any call)                                                      */
static int
client_tasks(lua_State *L)
{
	static const char *const names[] = { "server", "state", "query", NULL };
	const char *query, *state;
	lua_Integer server;
	char number[24];
	struct call *k;

	netcup_check(L);
	lb_opts(L, 2, names);
	server = lb_opt_integer(L, 2, "server", 0, 1, 2147483647);
	state = lb_opt_string(L, 2, "state", NULL);
	query = lb_opt_string(L, 2, "query", NULL);
	k = netcup_call(L, "tasks", "GET");
	netcup_path(L, k, "/tasks");
	if (server != 0) {
		snprintf(number, sizeof number, "%lld", (long long)server);
		netcup_query(L, k, "serverId", number);
	}
	if (state != NULL)
		netcup_query(L, k, "state", state);
	if (query != NULL)
		netcup_query(L, k, "q", query);
	return netcup_run_list(L, k);
}

static const char *
check_uuid(lua_State *L, int idx)
{
	const char *s = netcup_text(L, idx, 64);

	luaL_argcheck(L,
	    strspn(s, "0123456789abcdefABCDEF-") == strlen(s) && strlen(s) >= 8, idx,
	    "not the id of a task");
	return s;
}

/* client:task(uuid)
 *  +-> task       (also taskProgress, steps, result, responseError)
 *  +-> nil, err   (not_found)                                                          */
static int
client_task(lua_State *L)
{
	const char *uuid;
	struct call *k;

	netcup_check(L);
	uuid = check_uuid(L, 2);
	k = netcup_call(L, "task", "GET");
	netcup_path(L, k, "/tasks/%s", uuid);
	return netcup_run(L, k, finish_object);
}

/* client:cancel_task(uuid)
 *  +-> task       (state "FINISHED" alone: it had ended already)
 *  +-> nil, err   (not_found)                                                          */
static int
client_cancel_task(lua_State *L)
{
	const char *uuid;
	struct call *k;

	netcup_check(L);
	uuid = check_uuid(L, 2);
	k = netcup_call(L, "cancel_task", "PUT");
	netcup_path(L, k, "/tasks/%s:cancel", uuid);
	return netcup_run(L, k, netcup_finish_task);
}

static double
progress_of(const struct call *k)
{
	const cJSON *progress = cJSON_GetObjectItemCaseSensitive(k->root, "taskProgress");
	const cJSON *n = cJSON_GetObjectItemCaseSensitive(progress, "progressInPercent");

	return cJSON_IsNumber(n) ? n->valuedouble : 0;
}

static int
fail_task(lua_State *L, struct call *k, const char *code, const char *state,
    const char *message, const char *reason)
{
	const char *name = netcup_string(k->root, "name");
	const char *uuid = netcup_string(k->root, "uuid");

	lb_fail(L, MODULE, k->op, code, "%s %s: %s%s%s", name != NULL ? name : "task",
	    uuid != NULL ? uuid : "", state, message != NULL ? ": " : "",
	    message != NULL ? message : "");
	lua_pushstring(L, state);
	lua_setfield(L, -2, "state");
	lua_pushstring(L, uuid);
	lua_setfield(L, -2, "task");
	lua_pushstring(L, reason);
	lua_setfield(L, -2, "reason");
	return 2;
}

static int
judge_task(lua_State *L, struct call *k)
{
	static const char *const failed[] = { "ERROR", "CANCELED", "ROLLBACK", NULL };
	const cJSON *error = cJSON_GetObjectItemCaseSensitive(k->root, "responseError");
	const char *state = netcup_string(k->root, "state");
	const char *message = netcup_string(error, "message");
	char still[64];

	if (state == NULL)
		return lb_fail(L, MODULE, k->op, "protocol", "a task without a state");
	if (strcmp(state, "FINISHED") == 0) {
		netcup_push(L, k->root);
		return 1;
	}
	if (message == NULL)
		message = netcup_string(k->root, "message");
	for (int i = 0; failed[i] != NULL; i++)
		if (strcmp(failed[i], state) == 0)
			return fail_task(L, k, "task_failed", state, message,
			    netcup_string(error, "code"));
	if (netcup_now() + k->interval > k->until) {
		snprintf(
		    still, sizeof still, "still %.20s at %.0f %%", state, progress_of(k));
		return fail_task(L, k, "timeout", still, NULL, NULL);
	}
	return netcup_send_again(L, k, k->interval);
}

static int
progress_k(lua_State *L, int status, lua_KContext ctx)
{
	(void)status;
	(void)ctx;
	return judge_task(L, lua_touserdata(L, 2));
}

static int
finish_wait(lua_State *L, struct call *k)
{
	int n = netcup_expect(L, k, false);

	if (n != 0)
		return n;
	lua_settop(L, 3);
	if (!lua_isfunction(L, 3))
		return judge_task(L, k);
	lua_pushvalue(L, 3);
	netcup_push(L, k->root);
	lua_pushnumber(L, progress_of(k));
	lua_callk(L, 2, 0, 0, progress_k);
	return judge_task(L, k);
}

/* client:wait(task, { timeout = 1800, interval = 2, progress = function(task, percent) })
 *  Waits for the end of a task, given as what a change returned or as its uuid. Tokens
 *  are refreshed and maintenance is waited for in between; progress is called after each
 *  look.
 *  +-> task       (FINISHED)
 *  +-> nil, err   (task_failed: ERROR, CANCELED or ROLLBACK, with err.state, err.task and
 *                 err.reason; timeout: it still runs; untracked: netcup accepted a change
 *                 and named no task)                                                   */
static int
client_wait(lua_State *L)
{
	static const char *const names[] = { "timeout", "interval", "progress", NULL };
	const char *uuid, *state;
	double timeout, interval;
	struct call *k;
	int type;

	netcup_check(L);
	lua_settop(L, 3);
	lb_opts(L, 3, names);
	timeout = lb_opt_seconds(L, 3, "timeout", 1800);
	interval = lb_opt_seconds(L, 3, "interval", 2);
	lua_pushnil(L);
	if (lua_istable(L, 3)) {
		type = lua_getfield(L, 3, "progress");
		if (type != LUA_TNIL && type != LUA_TFUNCTION)
			return luaL_argerror(
			    L, 3, "option 'progress' must be a function");
		lua_replace(L, 4);
	}
	if (lua_istable(L, 2)) {
		lua_getfield(L, 2, "state");
		state = lua_tostring(L, -1);
		if (lua_getfield(L, 2, "uuid") == LUA_TNIL) {
			luaL_argcheck(L, state != NULL, 2, "not a task");
			if (strcmp(state, "FINISHED") == 0) {
				lua_pushvalue(L, 2);
				return 1;
			}
			return lb_fail(L, MODULE, "wait", "untracked",
			    "netcup accepted the change and named no task; look at the "
			    "server itself");
		}
		lua_replace(L, 2);
		lua_settop(L, 4);
	}
	uuid = check_uuid(L, 2);
	k = netcup_call(L, "wait", "GET");
	netcup_path(L, k, "/tasks/%s", uuid);
	k->interval = interval;
	k->until = netcup_now() + timeout;
	lua_copy(L, 4, 3);
	return netcup_run_keeping(L, k, finish_wait, 3);
}

/* Servers */

/* client:servers{ query = TEXT, name = TEXT, ip = ADDRESS }
 *  Without addresses and state, which client:server has. query looks into names,
 *  nicknames and IPv4 addresses.
 *  +-> { { id, name, hostname, nickname, disabled, template = { id, name } }, ... }
 *  +-> nil, err                                                                        */
static int
client_servers(lua_State *L)
{
	static const char *const names[] = { "query", "name", "ip", NULL };
	const char *query, *name, *ip;
	struct call *k;

	netcup_check(L);
	lb_opts(L, 2, names);
	query = lb_opt_string(L, 2, "query", NULL);
	name = lb_opt_string(L, 2, "name", NULL);
	ip = lb_opt_string(L, 2, "ip", NULL);
	k = netcup_call(L, "servers", "GET");
	netcup_path(L, k, "/servers");
	if (query != NULL)
		netcup_query(L, k, "q", query);
	if (name != NULL)
		netcup_query(L, k, "name", name);
	if (ip != NULL)
		netcup_query(L, k, "ip", ip);
	return netcup_run_list(L, k);
}

/* client:server(id, { live = true })
 *  +-> { id, name, hostname, nickname, ipv4Addresses, ipv6Addresses, site, template,
 *        architecture, rescueSystemActive, snapshotCount, snapshotAllowed,
 *        serverLiveInfo = { state, uefi, cpuCount, disks, interfaces, ... }, ... }
 *  +-> nil, err   (not_found: also one that is not yours)                              */
static int
client_server(lua_State *L)
{
	static const char *const names[] = { "live", NULL };
	lua_Integer id;
	struct call *k;
	bool live;

	netcup_check(L);
	id = netcup_id(L, 2);
	lb_opts(L, 3, names);
	live = lb_opt_boolean(L, 3, "live", true);
	k = netcup_call(L, "server", "GET");
	netcup_path(L, k, "/servers/%d", id);
	netcup_query(L, k, "loadServerLiveInfo", live ? "true" : "false");
	return netcup_run(L, k, finish_object);
}

static struct call *
patch(lua_State *L, const char *op, lua_Integer id)
{
	struct call *k = netcup_call(L, op, "PATCH");

	netcup_path(L, k, "/servers/%d", id);
	k->type = MERGE;
	return k;
}

/* client:power(id, what)
 *  what: on; off (asks the system to shut down), poweroff (at once); powercycle (shut
 *  down, then on), reset; suspend.
 *  +-> task       (for client:wait)
 *  +-> nil, err   (not_found, maintenance)                                             */
static int
client_power(lua_State *L)
{
	static const char *const what[] = { "on", "off", "poweroff", "powercycle",
		"reset", "suspend", NULL };
	static const char *const state[] = { "ON", "OFF", "OFF", "ON", "ON",
		"SUSPENDED" };
	static const char *const option[] = { NULL, NULL, "POWEROFF", "POWERCYCLE",
		"RESET", NULL };
	lua_Integer id;
	struct call *k;
	int i;

	netcup_check(L);
	id = netcup_id(L, 2);
	luaL_checktype(L, 3, LUA_TSTRING);
	i = luaL_checkoption(L, 3, NULL, what);
	k = patch(L, "power", id);
	if (option[i] != NULL)
		netcup_query(L, k, "stateOption", option[i]);
	netcup_put(L, netcup_object(L, k), "state", state[i]);
	return netcup_run(L, k, netcup_finish_task);
}

static bool
is_host_name(const char *s)
{
	size_t label = 0;

	if (strlen(s) > 253)
		return false;
	for (const char *p = s;; p++) {
		if (*p == '.' || *p == '\0') {
			if (label == 0 || label > 63 || p[-1] == '-')
				return false;
			label = 0;
			if (*p == '\0')
				return true;
			continue;
		}
		if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			(*p >= '0' && *p <= '9') || (*p == '-' && label > 0)))
			return false;
		label++;
	}
}

/* client:set_nickname(id, nickname)
 *  "" takes it away.
 *  +-> task
 *  +-> nil, err   (not_found, maintenance)                                             */
static int
client_set_nickname(lua_State *L)
{
	const char *nickname;
	lua_Integer id;
	struct call *k;

	netcup_check(L);
	id = netcup_id(L, 2);
	luaL_checktype(L, 3, LUA_TSTRING);
	nickname = lua_rawlen(L, 3) > 0 ? netcup_text(L, 3, 255) : "";
	k = patch(L, "set_nickname", id);
	netcup_put(L, netcup_object(L, k), "nickname", nickname);
	return netcup_run(L, k, netcup_finish_task);
}

/* client:set_hostname(id, hostname)
 *  +-> task
 *  +-> nil, err   (not_found, maintenance)                                             */
static int
client_set_hostname(lua_State *L)
{
	const char *hostname;
	lua_Integer id;
	struct call *k;

	netcup_check(L);
	id = netcup_id(L, 2);
	hostname = netcup_text(L, 3, 253);
	luaL_argcheck(L, is_host_name(hostname), 3, "not a host name");
	k = patch(L, "set_hostname", id);
	netcup_put(L, netcup_object(L, k), "hostname", hostname);
	return netcup_run(L, k, netcup_finish_task);
}

/* Metrics */

struct sample {
	double at;
	const cJSON *values;
};

static int
by_time(const void *a, const void *b)
{
	double x = ((const struct sample *)a)->at, y = ((const struct sample *)b)->at;

	return x < y ? -1 : x > y;
}

static void
push_sample(lua_State *L, const struct sample *s, double scale)
{
	const cJSON *v;

	lua_createtable(L, 0, 2);
	lua_pushinteger(L, (lua_Integer)s->at);
	lua_setfield(L, -2, "at");
	lua_newtable(L);
	cJSON_ArrayForEach(v, s->values)
	{
		if (!cJSON_IsNumber(v))
			continue;
		lua_pushnumber(L, v->valuedouble / scale);
		lua_setfield(L, -2, v->string);
	}
	lua_setfield(L, -2, "values");
}

static int
finish_metrics(lua_State *L, struct call *k)
{
	double scale = strcmp(k->text, "percent") == 0 ? 1e7 : 1;
	int n = netcup_expect(L, k, false), count = 0;
	struct sample *samples;
	const cJSON *item;

	if (n != 0)
		return n;
	n = cJSON_GetArraySize(k->root);
	samples = lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *samples, 0);
	cJSON_ArrayForEach(item, k->root)
	{
		double at = netcup_time(item->string);

		if (at < 0 || !cJSON_IsObject(item))
			return lb_fail(L, MODULE, k->op, "protocol",
			    "'%s' is not the time of a sample", item->string);
		samples[count++] = (struct sample){ at, item };
	}
	qsort(samples, (size_t)count, sizeof *samples, by_time);
	lua_createtable(L, 0, 2);
	lua_pushstring(L, k->text);
	lua_setfield(L, -2, "unit");
	lua_createtable(L, count, 0);
	luaL_setmetatable(L, "netcup.list");
	for (int i = 0; i < count; i++) {
		push_sample(L, &samples[i], scale);
		lua_rawseti(L, -2, i + 1);
	}
	lua_setfield(L, -2, "samples");
	return 1;
}

/* client:metrics(id, what, { hours = 1 })
 *  what, with its unit: cpu (percent of one core, a series for each), disk (operations
 *  per second), network (bytes per second), packets (packets per second). One sample a
 *  minute, at most 1440 hours.
 *  +-> { unit = "percent", samples = { { at = epoch, values = { CPU0 = 1.8 } }, ... } }
 *  +-> nil, err   (not_found)                                                          */
static int
client_metrics(lua_State *L)
{
	static const char *const what[] = { "cpu", "disk", "network", "packets", NULL };
	static const char *const path[] = { "cpu", "disk", "network", "network/packet" };
	static const char *const unit[] = { "percent", "operations/s", "bytes/s",
		"packets/s" };
	static const char *const names[] = { "hours", NULL };
	lua_Integer id, hours;
	char number[24];
	struct call *k;
	int i;

	netcup_check(L);
	id = netcup_id(L, 2);
	luaL_checktype(L, 3, LUA_TSTRING);
	i = luaL_checkoption(L, 3, NULL, what);
	lb_opts(L, 4, names);
	hours = lb_opt_integer(L, 4, "hours", 1, 1, 1440);
	k = netcup_call(L, "metrics", "GET");
	netcup_path(L, k, "/servers/%d/metrics/", id);
	netcup_path(L, k, path[i]);
	snprintf(number, sizeof number, "%lld", (long long)hours);
	netcup_query(L, k, "hours", number);
	k->text = unit[i];
	return netcup_run(L, k, finish_metrics);
}

/* Reverse DNS */

static struct call *
rdns_call(lua_State *L, const char *op, const char *method, bool in_path)
{
	const char *ip = netcup_text(L, 2, 45);
	unsigned char address[16];
	bool six = strchr(ip, ':') != NULL;
	struct call *k;

	luaL_argcheck(L, inet_pton(six ? AF_INET6 : AF_INET, ip, address) == 1, 2,
	    "not an IP address");
	k = netcup_call(L, op, method);
	netcup_path(L, k, six ? "/rdns/ipv6" : "/rdns/ipv4");
	if (in_path)
		netcup_path(L, k, "/%s", ip);
	return k;
}

static int
finish_rdns(lua_State *L, struct call *k)
{
	const char *name = netcup_string(k->root, "rdns");

	lua_newtable(L);
	if (k->status == 200 && name != NULL) {
		lua_pushstring(L, name);
		lua_setfield(L, -2, "name");
	}
	return 1;
}

/* client:rdns(address)
 *  +-> { name }   (without name: it has none)
 *  +-> nil, err                                                                        */
static int
client_rdns(lua_State *L)
{
	struct call *k;

	netcup_check(L);
	k = rdns_call(L, "rdns", "GET", true);
	k->missing_ok = true;
	return netcup_run(L, k, finish_rdns);
}

/* Two labels or more, the last one letters alone: what netcup takes. */
static bool
is_rdns_name(const char *s)
{
	const char *dot = strrchr(s, '.');

	return is_host_name(s) && dot != NULL && strlen(dot + 1) >= 2 &&
	    strspn(dot + 1, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") ==
	    strlen(dot + 1);
}

/* client:set_rdns(address, name)
 *  +-> true
 *  +-> nil, err   (invalid: not an address of yours)                                   */
static int
client_set_rdns(lua_State *L)
{
	const char *name;
	struct call *k;
	cJSON *body;

	netcup_check(L);
	name = netcup_text(L, 3, 253);
	luaL_argcheck(L, is_rdns_name(name), 3, "not a full host name");
	k = rdns_call(L, "set_rdns", "POST", false);
	body = netcup_object(L, k);
	netcup_put(L, body, "ip", lua_tostring(L, 2));
	netcup_put(L, body, "rdns", name);
	return netcup_run(L, k, netcup_finish_true);
}

/* client:delete_rdns(address)
 *  +-> true       (also when it had none)
 *  +-> nil, err                                                                        */
static int
client_delete_rdns(lua_State *L)
{
	struct call *k;

	netcup_check(L);
	k = rdns_call(L, "delete_rdns", "DELETE", true);
	k->missing_ok = true;
	return netcup_run(L, k, netcup_finish_true);
}

void
netcup_server_methods(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{ "servers", client_servers },
		{ "server", client_server },
		{ "power", client_power },
		{ "set_nickname", client_set_nickname },
		{ "set_hostname", client_set_hostname },
		{ "metrics", client_metrics },
		{ "tasks", client_tasks },
		{ "task", client_task },
		{ "cancel_task", client_cancel_task },
		{ "wait", client_wait },
		{ "rdns", client_rdns },
		{ "set_rdns", client_set_rdns },
		{ "delete_rdns", client_delete_rdns },
		{ NULL, NULL },
	};

	luaL_setfuncs(L, methods, 0);
}
