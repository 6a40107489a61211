/* netcup_snapshot.c: snapshots and the rescue system of a server.
 * What of them is allowed, the interface decides; its refusals are passed on. */
#include <string.h>

#include <cjson/cJSON.h>

#include "netcup.h"
#include "netcup_json.h"
#include "netcup_server.h"

#define NAME_MAX_LENGTH 255

static struct call *
snapshot_call(lua_State *L, const char *op, const char *method, const char *what)
{
	lua_Integer id;
	const char *name;
	struct call *k;

	netcup_check(L);
	id = netcup_id(L, 2);
	name = netcup_text(L, 3, NAME_MAX_LENGTH);
	k = netcup_call(L, op, method);
	netcup_path(L, k, "/servers/%d/snapshots/%s", id, name);
	netcup_path(L, k, what);
	return k;
}

static struct call *
server_call(lua_State *L, const char *op, const char *method, const char *what)
{
	lua_Integer id;
	struct call *k;

	netcup_check(L);
	id = netcup_id(L, 2);
	k = netcup_call(L, op, method);
	netcup_path(L, k, "/servers/%d", id);
	netcup_path(L, k, what);
	return k;
}

/* client:snapshots(id)
 *  +-> { { name, uuid, description, creationTime, state, online, disks, exported }, ... }
 *  +-> nil, err   (not_found, maintenance)                                             */
static int
client_snapshots(lua_State *L)
{
	struct call *k = server_call(L, "snapshots", "GET", "/snapshots");

	return netcup_run(L, k, netcup_finish_list);
}

/* client:snapshot(id, name)
 *  After an export downloadInfos has presignedUrl, a secret: whoever knows it can read
 *  the disk.
 *  +-> { name, ..., downloadInfos }
 *  +-> nil, err   (not_found, maintenance)                                             */
static int
client_snapshot(lua_State *L)
{
	struct call *k = snapshot_call(L, "snapshot", "GET", "");

	return netcup_run(L, k, netcup_finish_value);
}

/* The body's part that creation and its dry run share, from the options at idx. */
static void
put_how(lua_State *L, cJSON *body, int idx)
{
	const char *disk = lb_opt_string(L, idx, "disk", NULL);
	bool online = lb_opt_boolean(L, idx, "online", false);

	if (online && disk != NULL)
		luaL_argerror(
		    L, idx, "an online snapshot is of all disks: no option 'disk'");
	if (!online && disk == NULL)
		luaL_argerror(L, idx, "option 'disk' is needed (or online = true)");
	netcup_put_bool(L, body, "onlineSnapshot", online);
	if (disk != NULL)
		netcup_put(L, body, "diskName", disk);
}

static int
finish_check(lua_State *L, struct call *k)
{
	const cJSON *first = k->root != NULL ? k->root->child : NULL;
	const char *message = netcup_string(first, "message");
	int n = netcup_expect(L, k, true);

	if (n != 0)
		return n;
	if (first == NULL) {
		lua_pushboolean(L, 1);
		return 1;
	}
	lb_fail(L, MODULE, k->op, "refused", "%s", message != NULL ? message : "refused");
	lua_pushstring(L, netcup_string(first, "code"));
	lua_setfield(L, -2, "reason");
	lua_pushinteger(L, k->status);
	lua_setfield(L, -2, "status");
	netcup_push(L, k->root);
	lua_setfield(L, -2, "reasons");
	return 2;
}

/* client:snapshot_check(id, { online = true } or { disk = "vda" })
 *  Would it be created?
 *  +-> true
 *  +-> nil, err   (refused, with err.reason and all err.reasons; not_found)            */
static int
client_snapshot_check(lua_State *L)
{
	static const char *const names[] = { "online", "disk", NULL };
	struct call *k;

	netcup_check(L);
	luaL_checktype(L, 3, LUA_TTABLE);
	lb_opts(L, 3, names);
	k = server_call(L, "snapshot_check", "POST", "/snapshots:dryrun");
	put_how(L, netcup_object(L, k), 3);
	return netcup_run(L, k, finish_check);
}

/* client:snapshot_create(id, { name, description, online = true } or { ..., disk = "vda"
 * }) A server with UEFI takes none online: switch it off first.
 *  +-> task
 *  +-> nil, err   (refused: err.reason says why; not_found, maintenance)               */
static int
client_snapshot_create(lua_State *L)
{
	static const char *const names[] = { "name", "description", "online", "disk",
		NULL };
	const char *description;
	struct call *k;
	cJSON *body;

	netcup_check(L);
	luaL_checktype(L, 3, LUA_TTABLE);
	lb_opts(L, 3, names);
	description = lb_opt_string(L, 3, "description", NULL);
	luaL_argcheck(
	    L, lb_opt_string(L, 3, "name", NULL) != NULL, 3, "option 'name' is needed");
	lua_settop(L, 3);
	lua_getfield(L, 3, "name");
	netcup_text(L, 4, NAME_MAX_LENGTH);
	k = server_call(L, "snapshot_create", "POST", "/snapshots");
	body = netcup_object(L, k);
	netcup_put(L, body, "name", lua_tostring(L, 4));
	if (description != NULL)
		netcup_put(L, body, "description", description);
	put_how(L, body, 3);
	return netcup_run(L, k, netcup_finish_task);
}

/* client:snapshot_revert(id, name)
 *  The server is switched off, its disks go back, and it starts.
 *  +-> task
 *  +-> nil, err   (not_found, maintenance)                                             */
static int
client_snapshot_revert(lua_State *L)
{
	struct call *k = snapshot_call(L, "snapshot_revert", "POST", "/revert");

	return netcup_run(L, k, netcup_finish_task);
}

/* client:snapshot_delete(id, name)
 *  +-> task
 *  +-> nil, err   (not_found, maintenance)                                             */
static int
client_snapshot_delete(lua_State *L)
{
	struct call *k = snapshot_call(L, "snapshot_delete", "DELETE", "");

	return netcup_run(L, k, netcup_finish_task);
}

/* client:snapshot_export(id, name)
 *  Only one that was taken while the server was off; afterwards client:snapshot has its
 *  downloadInfos.
 *  +-> task
 *  +-> nil, err   (refused, not_found, maintenance)                                    */
static int
client_snapshot_export(lua_State *L)
{
	struct call *k = snapshot_call(L, "snapshot_export", "POST", "/export");

	return netcup_run(L, k, netcup_finish_task);
}

/* client:rescue(id)
 *  +-> { active, password = secret }
 *  +-> nil, err   (not_found)                                                          */
static int
client_rescue(lua_State *L)
{
	struct call *k = server_call(L, "rescue", "GET", "/rescuesystem");

	return netcup_run(L, k, netcup_finish_value);
}

/* client:rescue_on(id)
 *  Starts the server in the rescue system; client:rescue then has its password. Switch
 *  the server off before.
 *  +-> task
 *  +-> nil, err   (refused: it is active; not_found)                                   */
static int
client_rescue_on(lua_State *L)
{
	struct call *k = server_call(L, "rescue_on", "POST", "/rescuesystem");

	return netcup_run(L, k, netcup_finish_task);
}

/* client:rescue_off(id)
 *  +-> task
 *  +-> nil, err   (refused: it is not active; not_found)                               */
static int
client_rescue_off(lua_State *L)
{
	struct call *k = server_call(L, "rescue_off", "DELETE", "/rescuesystem");

	return netcup_run(L, k, netcup_finish_task);
}

void
netcup_snapshot_methods(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{ "snapshots", client_snapshots },
		{ "snapshot", client_snapshot },
		{ "snapshot_check", client_snapshot_check },
		{ "snapshot_create", client_snapshot_create },
		{ "snapshot_revert", client_snapshot_revert },
		{ "snapshot_delete", client_snapshot_delete },
		{ "snapshot_export", client_snapshot_export },
		{ "rescue", client_rescue },
		{ "rescue_on", client_rescue_on },
		{ "rescue_off", client_rescue_off },
		{ NULL, NULL },
	};

	luaL_setfuncs(L, methods, 0);
}
