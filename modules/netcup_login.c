/* netcup_login.c: the device flow of RFC 8628, logout, and who is logged in.
 * The person who logs in does so in a browser: no password is seen here. */
#include <errno.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "netcup.h"
#include "netcup_json.h"
#include "netcup_token.h"

#define FORM "application/x-www-form-urlencoded"
#define SLOWER 5.0
#define INTERVAL 5.0

static void
add(lua_State *L, struct call *k, const char *text)
{
	if (!lb_buf_add(&k->body, text, strlen(text)))
		netcup_no_memory(L);
}

static struct call *
form_call(lua_State *L, const char *op, enum target target, const char *begin)
{
	struct call *k = netcup_call(L, op, "POST");

	k->target = target;
	k->type = FORM;
	add(L, k, begin);
	add(L, k, "client_id=");
	add(L, k, k->client->client_id);
	return k;
}

static int
oauth_failure(lua_State *L, struct call *k)
{
	const char *error = netcup_string(k->root, "error");
	const char *why = netcup_string(k->root, "error_description");

	if (k->status >= 500 || k->status == 429)
		return netcup_fail_status(L, k);
	lb_fail(L, MODULE, k->op, "auth_failed", "%s%s%s",
	    error != NULL ? error : "refused", why != NULL ? ": " : "",
	    why != NULL ? why : "");
	lua_pushstring(L, error);
	lua_setfield(L, -2, "reason");
	lua_pushinteger(L, k->status);
	lua_setfield(L, -2, "status");
	return 2;
}

static int
finish_device(lua_State *L, struct call *k)
{
	static const char *const names[] = { "user_code", "verification_uri",
		"verification_uri_complete", NULL };
	const char *code = netcup_string(k->root, "device_code");
	const cJSON *n;

	if (k->status != 200)
		return oauth_failure(L, k);
	if (code == NULL || strlen(code) < 8 || strpbrk(code, "&=\r\n ") != NULL ||
	    netcup_string(k->root, "user_code") == NULL ||
	    netcup_string(k->root, "verification_uri") == NULL)
		return lb_fail(L, MODULE, k->op, "protocol",
		    "an answer without device_code, user_code or verification_uri");
	lua_newtable(L);
	for (int i = 0; names[i] != NULL; i++) {
		lua_pushstring(L, netcup_string(k->root, names[i]));
		lua_setfield(L, -2, names[i]);
	}
	lb_secret_push(L, "netcup device code", code, strlen(code));
	lua_setfield(L, -2, "device_code");
	n = cJSON_GetObjectItemCaseSensitive(k->root, "interval");
	lua_pushnumber(
	    L, cJSON_IsNumber(n) && n->valuedouble > 0 ? n->valuedouble : INTERVAL);
	lua_setfield(L, -2, "interval");
	n = cJSON_GetObjectItemCaseSensitive(k->root, "expires_in");
	lua_pushnumber(L, cJSON_IsNumber(n) && n->valuedouble > 0 ? n->valuedouble : 600);
	lua_setfield(L, -2, "expires_in");
	return 1;
}

/* client:device()
 *  Begins a login. The person opens verification_uri_complete (or verification_uri, and
 *  types user_code); client:login waits for that.
 *  +-> { device_code = secret, user_code, verification_uri, verification_uri_complete,
 *        interval, expires_in }
 *  +-> nil, err   (auth_failed; connect, resolve, tls, timeout, aborted, protocol,
 *                 maintenance, rate_limited, server)                                   */
static int
client_device(lua_State *L)
{
	struct call *k;

	netcup_check(L);
	k = form_call(L, "device", DEVICE, "scope=offline_access%20openid&");
	return netcup_run(L, k, finish_device);
}

static int
save_login(lua_State *L, struct call *k)
{
	struct client *c = k->client;
	struct failure f = { 0 };
	bool ok = netcup_token_take(c, k->root, &f) && netcup_store_save(c, &f);

	netcup_store_unlock(c);
	netcup_token_mask(L, c);
	if (!ok)
		return netcup_fail(L, k, &f);
	lua_pushboolean(L, 1);
	return 1;
}

static int
stop_login(lua_State *L, struct call *k, const char *code, const char *message)
{
	lb_fail(L, MODULE, k->op, code, "%s", message);
	lua_pushinteger(L, k->status);
	lua_setfield(L, -2, "status");
	return 2;
}

static int
finish_poll(lua_State *L, struct call *k)
{
	const char *error = netcup_string(k->root, "error");

	if (k->status == 200) {
		if (netcup_string(k->root, "refresh_token") == NULL)
			return stop_login(L, k, "auth_failed",
			    "no offline access was granted: log in again and grant it");
		return netcup_hold_lock(L, k, save_login);
	}
	if (error == NULL)
		return netcup_fail_status(L, k);
	if (strcmp(error, "access_denied") == 0)
		return stop_login(
		    L, k, "access_denied", "the login was refused in the browser");
	if (strcmp(error, "expired_token") == 0)
		return stop_login(
		    L, k, "expired_token", "the code has expired: lbrun netcup login");
	if (strcmp(error, "slow_down") == 0)
		k->interval += SLOWER;
	else if (strcmp(error, "authorization_pending") != 0)
		return oauth_failure(L, k);
	if (netcup_now() + k->interval > k->until)
		return stop_login(L, k, "expired_token",
		    "nobody has logged in before the code expired: lbrun netcup login");
	return netcup_send_again(L, k, k->interval);
}

static double
number_of(lua_State *L, int idx, const char *name)
{
	double n;

	luaL_argcheck(L, lua_getfield(L, idx, name) == LUA_TNUMBER, idx,
	    "not what client:device gave");
	n = lua_tonumber(L, -1);
	luaL_argcheck(L, n > 0, idx, "not what client:device gave");
	lua_pop(L, 1);
	return n;
}

/* client:login(device)
 *  Waits until the person has logged in, asking no more often than the server wants, and
 *  keeps the tokens in the store.
 *  +-> true
 *  +-> nil, err   (access_denied: refused in the browser; expired_token: too late;
 *                 auth_failed: the code is not valid, or without offline access; store,
 *                 locked, interrupted; as client:device)                               */
static int
client_login(lua_State *L)
{
	double interval, life;
	const char *code;
	struct call *k;
	size_t len;

	netcup_check(L);
	luaL_checktype(L, 2, LUA_TTABLE);
	lua_settop(L, 2);
	interval = number_of(L, 2, "interval");
	life = number_of(L, 2, "expires_in");
	lua_getfield(L, 2, "device_code");
	luaL_argcheck(L, lb_is_secret(L, -1), 2, "not what client:device gave");
	code = lb_bytes(L, -1, &len);
	k = form_call(L, "login", TOKEN,
	    "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&");
	add(L, k, "&device_code=");
	if (!lb_buf_add(&k->body, code, len))
		return netcup_no_memory(L);
	k->interval = interval;
	k->until = netcup_now() + life;
	/* the code stays masked while it is in use */
	lua_getiuservalue(L, 1, 1);
	lua_pushvalue(L, -3);
	lua_setfield(L, -2, "device");
	lua_pop(L, 1);
	return netcup_run(L, k, finish_poll);
}

static int
remove_store(lua_State *L, struct call *k)
{
	char text[128];
	int error = netcup_store_remove(k->client);

	netcup_store_unlock(k->client);
	if (error != 0)
		return lb_fail(L, MODULE, k->op, "store", "%s: %s", k->client->store,
		    strerror_r(error, text, sizeof text));
	lua_pushboolean(L, 1);
	return 1;
}

static int
finish_revoke(lua_State *L, struct call *k)
{
	if (k->status / 100 != 2)
		return oauth_failure(L, k);
	return netcup_hold_lock(L, k, remove_store);
}

/* client:logout{ revoke = false }
 *  Forgets the tokens. With revoke they are made invalid at the issuer first, and with
 *  them perhaps those of the account's other programs; when that fails nothing is
 *  forgotten.
 *  +-> true       (also when nobody was logged in)
 *  +-> nil, err   (store, locked; with revoke also as client:device)                   */
static int
client_logout(lua_State *L)
{
	static const char *const names[] = { "revoke", NULL };
	struct client *c = netcup_check(L);
	struct failure f = { 0 };
	struct call *k;

	lb_opts(L, 2, names);
	if (!lb_opt_boolean(L, 2, "revoke", false)) {
		k = netcup_call(L, "logout", "POST");
		lua_copy(L, -1, 2);
		lua_settop(L, 2);
		lua_toclose(L, 2);
		return netcup_hold_lock(L, k, remove_store);
	}
	k = form_call(L, "logout", REVOKE, "token_type_hint=refresh_token&");
	if (!netcup_store_load(c, &f))
		return netcup_fail(L, k, &f);
	netcup_token_mask(L, c);
	if (c->refresh.len == 0) {
		lua_pushboolean(L, 1);
		return 1;
	}
	add(L, k, "&token=");
	if (!lb_buf_add(&k->body, c->refresh.data, c->refresh.len))
		return netcup_no_memory(L);
	return netcup_run(L, k, finish_revoke);
}

static int
finish_whoami(lua_State *L, struct call *k)
{
	struct client *c = k->client;
	const char *name = netcup_string(k->root, "preferred_username");

	lua_newtable(L);
	if (c->user == 0 && netcup_string(k->root, "id") != NULL) {
		lua_pushstring(L, netcup_string(k->root, "id"));
		c->user = lua_tointeger(L, -1);
		lua_pop(L, 1);
	}
	if (c->user != 0) {
		lua_pushinteger(L, c->user);
		lua_setfield(L, -2, "user_id");
	}
	lua_pushstring(L, name != NULL ? name : c->customer);
	lua_setfield(L, -2, "customer");
	lua_pushstring(L, netcup_string(k->root, "email"));
	lua_setfield(L, -2, "email");
	lua_pushstring(L, c->issuer);
	lua_setfield(L, -2, "issuer");
	return 1;
}

/* client:whoami()
 *  Asks the issuer, so the answer also says that the login is still valid.
 *  +-> { user_id, customer, email, issuer }
 *  +-> nil, err   (auth_failed: not logged in, or no longer valid; as client:device)   */
static int
client_whoami(lua_State *L)
{
	struct call *k;

	netcup_check(L);
	k = netcup_call(L, "whoami", "GET");
	k->target = USERINFO;
	return netcup_run(L, k, finish_whoami);
}

void
netcup_login_methods(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{ "device", client_device },
		{ "login", client_login },
		{ "logout", client_logout },
		{ "whoami", client_whoami },
		{ NULL, NULL },
	};

	luaL_setfuncs(L, methods, 0);
}
