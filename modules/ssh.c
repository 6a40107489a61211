/* ssh.c: SSH for Lua, on libssh2: what asks no server, and the module itself.
 * Its parts: ssh_connect.c (sessions), ssh_stream.c (commands), ssh_files.c (sftp),
 * ssh_forward.c (services of the server as Unix sockets); below them ssh_pump.c and
 * ssh_chan.c (what drives a session), ssh_login.c (trust and identities), ssh_keys.c.
 * It reads no ~/.ssh/config (lb.ssh_config does), and writes no known_hosts. */
#include <stdlib.h>
#include <string.h>

#include <libssh2.h>

#include "ssh_keys.h"
#include "ssh_login.h"
#include "ssh_lua.h"
#include "ssh_pump.h"

/* Waiting */

void
slot_enter(lua_State *L, struct slot *slot, double seconds)
{
	if (slot->wait.task != NULL)
		luaL_error(L, "another task already waits for this");
	slot->wait.why = LB_WOKEN;
	slot->until = now() + seconds;
}

int
slot_wait(lua_State *L, struct slot *slot, lua_KContext ctx, lua_KFunction k)
{
	double left = slot->until - now();

	return lb_wait(L, &slot->wait, left > 0 ? left : 0, ctx, k);
}

int
fail_slot(lua_State *L, const struct slot *slot, const char *op, const char *doing)
{
	if (slot->wait.why == LB_INTERRUPTED)
		return lb_fail_why(L, MODULE, op, LB_INTERRUPTED);
	return lb_fail(L, MODULE, op, "timeout", "timed out %s", doing);
}

int
fail_session(lua_State *L, const struct session *s, const char *op)
{
	return lb_fail(L, MODULE, op, s->code, "%s", s->why);
}

/* The module */

/* ssh.library_version()
 *  +-> "1.10.0"   (of libssh2) */
static int
l_library_version(lua_State *L)
{
	lua_pushstring(L, libssh2_version(0));
	return 1;
}

/* ssh.algorithms()
 *  +-> { kex, ciphers, macs, hostkeys }   (lists, best first: what it would agree to) */
static int
l_algorithms(lua_State *L)
{
	const struct method *m;
	const char *const *name;

	lua_createtable(L, 0, 4);
	for (m = methods_wanted; m->name != NULL; m++) {
		const char **have = NULL;
		LIBSSH2_SESSION *lib = libssh2_session_init();
		int n = lib != NULL ?
		    libssh2_session_supported_algs(lib, m->type[0], &have) :
		    0;
		lua_Integer i = 0;

		lua_newtable(L);
		for (name = m->names; n > 0 && *name != NULL; name++) {
			if (!listed(have, n, *name) || method_is_sign(*name))
				continue;
			lua_pushstring(L, *name);
			lua_rawseti(L, -2, ++i);
		}
		if (n > 0)
			libssh2_free(lib, have);
		libssh2_session_free(lib);
		lua_setfield(L, -2, m->name);
	}
	return 1;
}

/* ssh.public_key(path, passphrase)
 *  +-> "ssh-ed25519 AAAA... comment"   (of a private or a public key file; the passphrase
 *                                       is not needed: the public half is in the clear)
 *  +-> nil, err   (identity) */
static int
l_public_key(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	struct ssh_key *key;
	char why[512], expanded[4096], *line;

	if (!lua_isnoneornil(L, 2)) {
		size_t len;

		lb_bytes(L, 2, &len);
	}
	key = key_read(home_path(path, expanded, sizeof expanded), why, sizeof why);
	if (key == NULL)
		return lb_fail(L, MODULE, "public_key", "identity", "%s", why);
	line = key->blob != NULL ? key_line(key) : NULL;
	key_free(key);
	if (line == NULL)
		return lb_fail(L, MODULE, "public_key", "identity",
		    "%s: a PEM key, and no %s.pub beside it", path, path);
	lua_pushstring(L, line);
	free(line);
	return 1;
}

struct listing {
	char *path;
	struct ssh_key *keys;
	struct listbox *box; /* NULL: nobody waits any more */
	bool ok, done;
};

struct listbox {
	struct listing *listing;
	struct slot slot;
};

#define LISTBOX "lb.ssh.listing"

static void
listing_free(struct listing *list)
{
	free(list->path);
	key_free_all(list->keys);
	free(list);
}

static void
listing_work(void *arg)
{
	struct listing *list = arg;

	list->ok = agent_list(list->path, &list->keys);
}

static void
listing_done(void *arg)
{
	struct listing *list = arg;

	list->done = true;
	if (list->box == NULL)
		listing_free(list);
	else
		lb_wake(&list->box->slot.wait);
}

static int
l_listbox_gc(lua_State *L)
{
	struct listbox *box = luaL_checkudata(L, 1, LISTBOX);
	struct listing *list = box->listing;

	box->listing = NULL;
	lb_wait_drop(&box->slot.wait);
	if (list == NULL)
		return 0;
	list->box = NULL;
	if (list->done)
		listing_free(list);
	return 0;
}

static int
agent_keys_k(lua_State *L, int status, lua_KContext ctx)
{
	struct listbox *box = lua_touserdata(L, 2);
	const struct ssh_key *key;
	lua_Integer i = 0;
	char *line;

	(void)status;
	(void)ctx;
	if (!box->listing->done)
		return fail_slot(L, &box->slot, "agent_keys", "asking the agent");
	if (!box->listing->ok)
		return lb_fail(L, MODULE, "agent_keys", "no_agent",
		    "no agent answers at %s", box->listing->path);
	lua_newtable(L);
	for (key = box->listing->keys; key != NULL; key = key->next) {
		if ((line = key_line(key)) == NULL)
			return luaL_error(L, "out of memory");
		lua_pushstring(L, line);
		free(line);
		lua_rawseti(L, -2, ++i);
	}
	return 1;
}

/* ssh.agent_keys(path)   (of its socket; else $SSH_AUTH_SOCK)
 *  +-> { "ssh-ed25519 AAAA... comment", ... }
 *  +-> nil, err   (no_agent, timeout, interrupted) */
static int
l_agent_keys(lua_State *L)
{
	const char *path = luaL_optstring(L, 1, getenv("SSH_AUTH_SOCK"));
	struct listbox *box;
	struct listing *list;

	lua_settop(L, 1);
	if (path == NULL || path[0] == '\0')
		return lb_fail(
		    L, MODULE, "agent_keys", "no_agent", "SSH_AUTH_SOCK is not set");
	box = lua_newuserdatauv(L, sizeof *box, 0);
	memset(box, 0, sizeof *box);
	luaL_setmetatable(L, LISTBOX);
	if ((list = calloc(1, sizeof *list)) == NULL)
		return luaL_error(L, "out of memory");
	list->box = box;
	box->listing = list;
	list->done = true; /* until a worker has it */
	if ((list->path = strdup(path)) == NULL)
		return luaL_error(L, "out of memory");
	list->done = false;
	if (!lb_work(L, listing_work, listing_done, list)) {
		list->done = true;
		return luaL_error(L, "no worker thread");
	}
	slot_enter(L, &box->slot, TIMEOUT);
	return slot_wait(L, &box->slot, 0, agent_keys_k);
}

static int
l_library_gc(lua_State *L)
{
	(void)L;
	libssh2_exit();
	return 0;
}

void
metatable(lua_State *L, const char *name, const luaL_Reg *methods)
{
	luaL_newmetatable(L, name);
	luaL_setfuncs(L, methods, 0);
	lua_pushvalue(L, -1);
	lua_setfield(L, -2, "__index");
	lua_pushstring(L, name);
	lua_setfield(L, -2, "__metatable");
}

int luaopen_ssh(lua_State *L);

int
luaopen_ssh(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "connect", l_connect },
		{ "library_version", l_library_version },
		{ "algorithms", l_algorithms },
		{ "public_key", l_public_key },
		{ "agent_keys", l_agent_keys },
		{ NULL, NULL },
	};
	static const luaL_Reg listing[] = {
		{ "__gc", l_listbox_gc },
		{ NULL, NULL },
	};

	if (libssh2_init(0) != 0)
		return luaL_error(L, "libssh2 cannot start");
	/* made first, so collected last when the state closes: after every session */
	lua_newuserdatauv(L, 0, 0);
	lua_createtable(L, 0, 1);
	lua_pushcfunction(L, l_library_gc);
	lua_setfield(L, -2, "__gc");
	lua_setmetatable(L, -2);
	lua_setfield(L, LUA_REGISTRYINDEX, "lb.ssh.library");
	metatable(L, LISTBOX, listing);
	connect_methods(L);
	stream_methods(L);
	files_methods(L);
	forward_methods(L);
	luaL_newlib(L, functions);
	return 1;
}
