/* netcup_image.c: which images a server can get, reinstalling it with one, and the SSH
 * keys of the account. Ids of images change as netcup rebuilds them, so they are looked
 * up by name each time. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <cjson/cJSON.h>

#include "netcup.h"
#include "netcup_json.h"
#include "netcup_server.h"

/* client:image_flavours(id)
 *  All of them, of both firmwares, whatever the server has.
 *  +-> { { id, name, alias, text, image = { id, name } }, ... }
 *  +-> nil, err   (not_found)                                                          */
static int
client_image_flavours(lua_State *L)
{
	lua_Integer id;
	struct call *k;

	netcup_check(L);
	id = netcup_id(L, 2);
	k = netcup_call(L, "image_flavours", "GET");
	netcup_path(L, k, "/servers/%d/imageflavours", id);
	return netcup_run(L, k, netcup_finish_list);
}

static const char *
image_name(const cJSON *flavour)
{
	return netcup_string(cJSON_GetObjectItemCaseSensitive(flavour, "image"), "name");
}

/* Does an image's name say: `want`, perhaps a more exact version, `firmware`, `arch`? */
static bool
matches(const char *name, const char *want, const char *firmware, const char *arch)
{
	size_t n = strlen(want), len;
	bool has_firmware = false, has_arch = false;

	if (strncasecmp(name, want, n) != 0 || (name[n] != ' ' && name[n] != '.'))
		return false;
	for (name += n; *name != '\0'; name += len) {
		name += strspn(name, " ");
		len = strcspn(name, " ");
		if (len == strlen(firmware) && strncasecmp(name, firmware, len) == 0)
			has_firmware = true;
		else if (len == strlen(arch) && strncasecmp(name, arch, len) == 0)
			has_arch = true;
		else if (len > 0 && *name != '.' && !isdigit((unsigned char)*name))
			return false; /* another kind of image, or firmware */
	}
	return has_firmware && has_arch;
}

static bool
is_flavour(const cJSON *flavour, const char *want)
{
	const char *name = netcup_string(flavour, "name");

	return name != NULL && strcasecmp(name, want) == 0;
}

static int
finish_find(lua_State *L, struct call *k)
{
	const char *want = lua_tostring(L, 3), *firmware = lua_tostring(L, 4);
	const char *arch = lua_tostring(L, 5), *flavour = lua_tostring(L, 6);
	const cJSON *c, *found = NULL;
	int n = netcup_expect(L, k, true);

	if (n != 0)
		return n;
	cJSON_ArrayForEach(c, k->root)
	{
		if (image_name(c) == NULL || !is_flavour(c, flavour) ||
		    !matches(image_name(c), want, firmware, arch))
			continue;
		if (found != NULL)
			return lb_fail(L, MODULE, k->op, "ambiguous",
			    "'%s' may be '%s' or '%s'; be more exact", want,
			    image_name(found), image_name(c));
		found = c;
	}
	if (found == NULL)
		return lb_fail(L, MODULE, k->op, "not_found",
		    "no image '%s' for %s %s, flavour %s, among the %d of this server",
		    want, firmware, arch, flavour, cJSON_GetArraySize(k->root));
	netcup_push(L, found);
	return 1;
}

/* client:find_image(id, { name = "Debian 13", uefi = true, arch = "amd64",
 *     flavour = "minimal" })
 *  The one image of that distribution and version for that firmware; uefi is what the
 *  server's serverLiveInfo says.
 *  +-> { id, name, image = { id, name }, ... }
 *  +-> nil, err   (not_found; ambiguous: several match)                                */
static int
client_find_image(lua_State *L)
{
	static const char *const names[] = { "name", "uefi", "arch", "flavour", NULL };
	const char *name;
	lua_Integer id;
	struct call *k;

	netcup_check(L);
	id = netcup_id(L, 2);
	luaL_checktype(L, 3, LUA_TTABLE);
	lb_opts(L, 3, names);
	name = lb_opt_string(L, 3, "name", NULL);
	luaL_argcheck(L, name != NULL && *name != '\0', 3, "option 'name' is needed");
	lua_getfield(L, 3, "uefi");
	luaL_argcheck(L, lua_isboolean(L, -1), 3, "option 'uefi' is needed, a boolean");
	lua_settop(L, 3);
	lua_pushstring(L, lb_opt_boolean(L, 3, "uefi", false) ? "UEFI" : "BIOS");
	lua_pushstring(L, lb_opt_string(L, 3, "arch", "amd64"));
	lua_pushstring(L, lb_opt_string(L, 3, "flavour", "minimal"));
	lua_pushstring(L, name);
	lua_replace(L, 3);
	k = netcup_call(L, "find_image", "GET");
	netcup_path(L, k, "/servers/%d/imageflavours", id);
	return netcup_run_keeping(L, k, finish_find, 6);
}

static void
put_text(lua_State *L, cJSON *body, const char *option, const char *name)
{
	const char *value = lb_opt_string(L, 3, option, NULL);

	if (value != NULL)
		netcup_put(L, body, name, value);
}

static void
put_flag(lua_State *L, cJSON *body, const char *option, const char *name)
{
	if (lua_getfield(L, 3, option) != LUA_TNIL)
		netcup_put_bool(L, body, name, lb_opt_boolean(L, 3, option, false));
	lua_pop(L, 1);
}

static void
put_keys(lua_State *L, cJSON *body)
{
	cJSON *list, *number;
	lua_Integer n;

	if (lua_getfield(L, 3, "ssh_keys") == LUA_TNIL) {
		lua_pop(L, 1);
		return;
	}
	luaL_argcheck(
	    L, lua_istable(L, -1), 3, "option 'ssh_keys' must be a list of ids");
	if ((list = cJSON_AddArrayToObject(body, "sshKeyIds")) == NULL)
		netcup_no_memory(L);
	n = luaL_len(L, -1);
	for (lua_Integer i = 1; i <= n; i++) {
		lua_geti(L, -1, i);
		luaL_argcheck(L, lua_isinteger(L, -1) && lua_tointeger(L, -1) > 0, 3,
		    "option 'ssh_keys' must be a list of ids");
		number = cJSON_CreateNumber((double)lua_tointeger(L, -1));
		if (number == NULL || !cJSON_AddItemToArray(list, number)) {
			cJSON_Delete(number);
			netcup_no_memory(L);
		}
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

/* client:reinstall(id, { image = ID, hostname, disk, full_disk = boolean, locale,
 *     timezone, user, user_password = secret, ssh_keys = { ID, ... },
 *     ssh_passwords = boolean, script, email = boolean })
 *  Wipes the disk. script is a string or a secret; it runs when the installation is done.
 *  +-> task       (its result.rootPassword is a secret)
 *  +-> nil, err   (invalid: err.message names the fields; not_found)                   */
static int
client_reinstall(lua_State *L)
{
	static const char *const names[] = { "image", "hostname", "disk", "full_disk",
		"locale", "timezone", "user", "user_password", "ssh_keys",
		"ssh_passwords", "script", "email", NULL };
	lua_Integer id, image;
	struct call *k;
	cJSON *body;

	netcup_check(L);
	id = netcup_id(L, 2);
	luaL_checktype(L, 3, LUA_TTABLE);
	lb_opts(L, 3, names);
	lua_settop(L, 3);
	image = lb_opt_integer(L, 3, "image", 0, 1, 2147483647);
	luaL_argcheck(L, image != 0, 3, "option 'image' is needed");
	k = netcup_call(L, "reinstall", "POST");
	netcup_path(L, k, "/servers/%d/image", id);
	body = netcup_object(L, k);
	netcup_put_int(L, body, "imageFlavourId", image);
	put_text(L, body, "hostname", "hostname");
	put_text(L, body, "disk", "diskName");
	put_flag(L, body, "full_disk", "rootPartitionFullDiskSize");
	put_text(L, body, "locale", "locale");
	put_text(L, body, "timezone", "timezone");
	put_text(L, body, "user", "additionalUserUsername");
	put_keys(L, body);
	put_flag(L, body, "ssh_passwords", "sshPasswordAuthentication");
	put_flag(L, body, "email", "emailToExecutingUser");
	if (lua_getfield(L, 3, "user_password") != LUA_TNIL) {
		luaL_argcheck(
		    L, lb_is_secret(L, -1), 3, "option 'user_password' must be a secret");
		netcup_put_bytes(L, body, "additionalUserPassword", -1);
	}
	if (lua_getfield(L, 3, "script") != LUA_TNIL) {
		luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING || lb_is_secret(L, -1), 3,
		    "option 'script' must be a string or a secret");
		netcup_put_bytes(L, body, "customScript", -1);
	}
	lua_pop(L, 2);
	return netcup_run(L, k, netcup_finish_task);
}

/* SSH keys of the account */

static struct call *
key_call(lua_State *L, const char *op, const char *method)
{
	struct call *k = netcup_call(L, op, method);

	k->target = USERS;
	netcup_path(L, k, "/ssh-keys");
	return k;
}

/* client:ssh_keys()
 *  +-> { { id, name, key, createdAt }, ... }
 *  +-> nil, err                                                                        */
static int
client_ssh_keys(lua_State *L)
{
	netcup_check(L);
	return netcup_run(L, key_call(L, "ssh_keys", "GET"), netcup_finish_list);
}

/* client:add_ssh_key(name, key)
 *  The same key may be added twice: look into client:ssh_keys before.
 *  +-> { id, name, key, createdAt }
 *  +-> nil, err   (invalid)                                                            */
static int
client_add_ssh_key(lua_State *L)
{
	const char *name, *key;
	struct call *k;
	cJSON *body;

	netcup_check(L);
	name = netcup_text(L, 2, 255);
	key = netcup_text(L, 3, 4096);
	k = key_call(L, "add_ssh_key", "POST");
	body = netcup_object(L, k);
	netcup_put(L, body, "name", name);
	netcup_put(L, body, "key", key);
	return netcup_run(L, k, netcup_finish_value);
}

/* client:delete_ssh_key(id)
 *  +-> true       (also when it was not there)
 *  +-> nil, err   (denied: somebody else's)                                            */
static int
client_delete_ssh_key(lua_State *L)
{
	lua_Integer id;
	struct call *k;

	netcup_check(L);
	id = netcup_id(L, 2);
	k = key_call(L, "delete_ssh_key", "DELETE");
	k->missing_ok = true;
	netcup_path(L, k, "/%d", id);
	return netcup_run(L, k, netcup_finish_true);
}

void
netcup_image_methods(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{ "image_flavours", client_image_flavours },
		{ "find_image", client_find_image },
		{ "reinstall", client_reinstall },
		{ "ssh_keys", client_ssh_keys },
		{ "add_ssh_key", client_add_ssh_key },
		{ "delete_ssh_key", client_delete_ssh_key },
		{ NULL, NULL },
	};

	luaL_setfuncs(L, methods, 0);
}
