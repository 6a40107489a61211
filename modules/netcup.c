/* netcup.c: the module netcup: a client of netcup's server control panel and of its DNS
 * interface. Servers are neither ordered nor cancelled: no interface of netcup does. */
#include <stdlib.h>
#include <string.h>

#include "netcup.h"
#include "netcup_token.h"

#define ISSUER "https://www.servercontrolpanel.de/realms/scp"
#define CLIENT_ID "scp"
#define API_BASE "https://www.servercontrolpanel.de/scp-core/api/v1"
#define CCP_BASE "https://ccp.netcup.net/run/webservice/servers/endpoint.php?JSON"

static void
release(struct client *c)
{
	char **const texts[] = { &c->issuer, &c->client_id, &c->api, &c->ccp, &c->ca_file,
		&c->store, &c->device_url, &c->token_url, &c->revoke_url,
		&c->userinfo_url, &c->customer, &c->ccp_customer };

	lb_request_free(c->refreshing);
	c->refreshing = NULL;
	netcup_store_unlock(c);
	lb_buf_free(&c->access);
	lb_buf_free(&c->refresh);
	lb_buf_free(&c->session);
	lb_buf_free(&c->key);
	lb_buf_free(&c->password);
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		free(*texts[i]);
		*texts[i] = NULL;
	}
}

static int
client_gc(lua_State *L)
{
	release(luaL_checkudata(L, 1, CLIENT));
	return 0;
}

static int
client_tostring(lua_State *L)
{
	lua_pushfstring(L, "netcup client of %s", netcup_check(L)->issuer);
	return 1;
}

static void
keep(lua_State *L, char **to, const char *text)
{
	if ((*to = strdup(text)) == NULL)
		netcup_no_memory(L);
}

/* The URL of an option, without a slash at its end. */
static void
keep_url(lua_State *L, char **to, const char *option, const char *def)
{
	const char *url = lb_opt_string(L, 1, option, def);
	const char *problem = lb_request_url_problem(url);
	size_t len;

	if (problem != NULL)
		luaL_argerror(
		    L, 1, lua_pushfstring(L, "option '%s': %s", option, problem));
	keep(L, to, url);
	for (len = strlen(*to); len > 0 && (*to)[len - 1] == '/'; len--)
		(*to)[len - 1] = '\0';
}

static void
keep_bytes(lua_State *L, struct lb_buf *to, const char *option)
{
	const char *bytes;
	size_t len;

	lua_getfield(L, 1, option);
	if (!lb_is_secret(L, -1))
		luaL_argerror(
		    L, 1, lua_pushfstring(L, "option '%s' must be a secret", option));
	bytes = lb_bytes(L, -1, &len);
	if (!lb_buf_add(to, bytes, len))
		netcup_no_memory(L);
	lua_getiuservalue(L, 2, 1);
	lua_insert(L, -2);
	lua_setfield(L, -2, option);
	lua_pop(L, 1);
}

/* netcup.open{ store = PATH, issuer, client_id, api, ccp, ca_file, customer,
 *     api_key = secret, api_password = secret, timeout = 30, patience = 120, backoff = 1
 * } store is the file of the login's tokens, in a folder that is there. Where nothing is
 *  given the addresses are netcup's own. customer, api_key and api_password are those of
 *  the DNS interface. What fails in passing (429, 503, no connection) is tried again,
 *  after backoff seconds, then twice that, or what the server asks for, until patience
 *  seconds are over; a change only when it was surely not made.
 *  +-> client                                                                          */
static int
netcup_open(lua_State *L)
{
	static const char *const names[] = { "store", "issuer", "client_id", "api", "ccp",
		"ca_file", "customer", "api_key", "api_password", "timeout", "patience",
		"backoff", NULL };
	const char *store, *ca_file, *customer;
	struct client *c;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	lb_opts(L, 1, names);
	store = lb_opt_string(L, 1, "store", NULL);
	luaL_argcheck(
	    L, store != NULL && *store != '\0', 1, "option 'store' is needed, a path");
	ca_file = lb_opt_string(L, 1, "ca_file", NULL);
	customer = lb_opt_string(L, 1, "customer", NULL);
	c = lua_newuserdatauv(L, sizeof *c, 1);
	memset(c, 0, sizeof *c);
	c->lock = -1;
	luaL_setmetatable(L, CLIENT);
	lua_newtable(L);
	lua_setiuservalue(L, 2, 1);
	c->timeout = lb_opt_seconds(L, 1, "timeout", 30);
	c->patience = lb_opt_seconds(L, 1, "patience", 120);
	c->backoff = lb_opt_seconds(L, 1, "backoff", 1);
	keep(L, &c->store, store);
	keep_url(L, &c->issuer, "issuer", ISSUER);
	keep_url(L, &c->api, "api", API_BASE);
	keep_url(L, &c->ccp, "ccp", CCP_BASE);
	keep(L, &c->client_id, lb_opt_string(L, 1, "client_id", CLIENT_ID));
	luaL_argcheck(L, strpbrk(c->client_id, "&=% \r\n") == NULL, 1,
	    "option 'client_id' is not an id");
	if (ca_file != NULL)
		keep(L, &c->ca_file, ca_file);
	if (customer != NULL) {
		keep_bytes(L, &c->key, "api_key");
		keep_bytes(L, &c->password, "api_password");
		keep(L, &c->ccp_customer, customer);
	}
	return 1;
}

int luaopen_netcup(lua_State *L);

int
luaopen_netcup(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "open", netcup_open },
		{ NULL, NULL },
	};

	if (luaL_newmetatable(L, CLIENT)) {
		lua_pushcfunction(L, client_gc);
		lua_setfield(L, -2, "__gc");
		lua_pushcfunction(L, client_tostring);
		lua_setfield(L, -2, "__tostring");
		lua_newtable(L);
		netcup_login_methods(L);
		netcup_server_methods(L);
		netcup_snapshot_methods(L);
		netcup_image_methods(L);
		netcup_ccp_methods(L);
		lua_setfield(L, -2, "__index");
	}
	/* marks what is a list, also when it is empty */
	if (luaL_newmetatable(L, "netcup.list")) {
		lua_pushliteral(L, "netcup.list");
		lua_setfield(L, -2, "__metatable");
	}
	lua_pop(L, 2);
	luaL_newlib(L, functions);
	return 1;
}
