/* ssh_connect.c: ssh.connect and the session that it gives: addresses, login, its end.
 * Names, the agent and the login itself are on a worker thread, connecting and the
 * handshake in the loop. What is trusted and offered is ssh_login.c's. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libssh2.h>

#include "ssh_login.h"
#include "ssh_lua.h"
#include "ssh_pump.h"

#define SESSION "lb.ssh.session"

struct session *
check_session(lua_State *L, int idx)
{
	struct box *box = luaL_checkudata(L, idx, SESSION);

	if (box->session == NULL)
		luaL_error(L, "the session is closed");
	return box->session;
}

static void
session_destroy(struct session *s)
{
	struct chan *ch;

	die(s, "closed", "the session was collected");
	for (ch = s->chans; ch != NULL; ch = ch->next) {
		if (ch->stream != NULL)
			ch->stream->chan = NULL;
		ch->stream = NULL;
	}
	chans_reap(s);
	files_forget(s);
	login_free(s);
	free(s->hostkey);
	free(s->identity);
	free(s);
}

/* For __gc, close and every failure: nothing is sent. A worker thread that still has the
 * session is made to end, and the session with it. */
static void
session_release(struct box *box)
{
	struct session *s = box->session;

	if (s == NULL)
		return;
	box->session = NULL;
	s->box = NULL;
	lb_wait_drop(&box->slot.wait);
	if (!s->working) {
		session_destroy(s);
		return;
	}
	s->released = true;
	atomic_store(&s->login->cancelled, true);
	lb_poll_free(s->poll);
	lb_timer_free(s->again);
	lb_timer_free(s->beat);
	s->poll = NULL;
	s->again = s->beat = NULL;
	if (s->fd >= 0)
		shutdown(s->fd, SHUT_RDWR);
}

static int
l_session_gc(lua_State *L)
{
	session_release(luaL_checkudata(L, 1, SESSION));
	return 0;
}

static void
on_work_done(void *arg)
{
	struct session *s = arg;

	s->working = false;
	if (s->released)
		session_destroy(s);
	else
		lb_wake(&s->box->slot.wait);
}

static void
on_poll(void *arg, int events)
{
	struct session *s = arg;

	/* both may mean an error, and then the loop has stopped watching */
	if (events == (LB_READ | LB_WRITE))
		s->polled = -1;
	if (s->phase == CONNECTING) {
		s->polled = 0;
		lb_poll_set(s->poll, 0);
		lb_wake(&s->box->slot.wait);
	} else {
		pump(s);
	}
}

/* Connecting. The Lua stack: 1 host, 2 options, 3 the session. */

static int connect_k(lua_State *L, int status, lua_KContext ctx);

static int __attribute__((format(printf, 4, 5)))
connect_fail(lua_State *L, struct box *box, const char *code, const char *fmt, ...)
{
	char text[1024], kept[16];
	va_list args;

	snprintf(kept, sizeof kept, "%s", code);
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	session_release(box);
	return lb_fail(L, MODULE, "connect", kept, "%s", text);
}

static void
tcp_close(struct session *s)
{
	lb_poll_free(s->poll);
	s->poll = NULL;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

/* Begins to connect to the next address that can be tried at all. */
static bool
tcp_next(lua_State *L, struct session *s)
{
	struct login *l = s->login;
	const struct addrinfo *a;
	int left = 0;

	for (a = l->addr; a != NULL; a = a->ai_next)
		left++;
	for (; l->addr != NULL; l->addr = l->addr->ai_next, left--) {
		a = l->addr;
		s->fd =
		    socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (s->fd < 0) {
			l->tcp_error = errno;
			continue;
		}
		if (connect(s->fd, a->ai_addr, a->ai_addrlen) != 0 &&
		    errno != EINPROGRESS) {
			l->tcp_error = errno;
			tcp_close(s);
			continue;
		}
		s->poll = lb_poll_new(L, s->fd, on_poll, s);
		if (s->poll == NULL || !lb_poll_set(s->poll, LB_WRITE)) {
			l->tcp_error = ENOMEM;
			tcp_close(s);
			continue;
		}
		l->addr = a->ai_next;
		/* an address that does not answer leaves time for those after it */
		s->box->slot.until = now() + (l->until - now()) / left;
		return true;
	}
	return false;
}

static int
tcp_failed(lua_State *L, struct box *box)
{
	struct session *s = box->session;
	char text[128];
	int err = s->login->tcp_error;

	if (err == ETIMEDOUT && now() >= s->login->until)
		return connect_fail(L, box, "timeout", "%s: no answer in %.0f seconds",
		    s->name, s->login->timeout);
	return connect_fail(
	    L, box, "connect", "%s: %s", s->name, strerror_r(err, text, sizeof text));
}

static int
connect_timeout(lua_State *L, struct box *box)
{
	static const char *const doing[] = { "looking up the name", "connecting",
		"in the handshake (does it speak SSH?)", "logging in", "" };
	struct session *s = box->session;

	return connect_fail(L, box, "timeout", "%s: no answer in %.0f seconds, %s",
	    s->name, s->login->timeout, doing[s->phase]);
}

static int
start_work(lua_State *L, struct box *box, void (*work)(void *arg))
{
	struct session *s = box->session;

	s->working = true;
	if (!lb_work(L, work, on_work_done, s)) {
		s->working = false;
		return connect_fail(L, box, "connect", "no worker thread");
	}
	box->slot.until = s->login->until;
	return slot_wait(L, &box->slot, 0, connect_k);
}

static int
start_tcp(lua_State *L, struct box *box)
{
	box->session->phase = CONNECTING;
	if (!tcp_next(L, box->session))
		return tcp_failed(L, box);
	return slot_wait(L, &box->slot, 0, connect_k);
}

static int
start_handshake(lua_State *L, struct box *box)
{
	struct session *s = box->session;
	int on = 1;

	setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	s->phase = HANDSHAKING;
	s->last_in = now();
	s->again = lb_timer_new(L, pump_again, s);
	s->beat = lb_timer_new(L, pump_beat, s);
	if (s->again == NULL || s->beat == NULL)
		return connect_fail(L, box, "connect", "out of memory");
	box->slot.until = s->login->until;
	pump(s);
	if (s->dead)
		return connect_fail(L, box, s->code, "%s", s->why);
	return slot_wait(L, &box->slot, 0, connect_k);
}

/* The fingerprint given may be that of a host key of another type: so a new connection
 * that asks for the others. */
static int
start_again(lua_State *L, struct box *box)
{
	struct session *s = box->session;

	lb_timer_free(s->again);
	lb_timer_free(s->beat);
	s->again = s->beat = NULL;
	tcp_close(s);
	s->dead = true; /* so that nothing is sent */
	pump_close(s);
	s->dead = s->eof = s->mute = s->shaken = false;
	s->bye[0] = '\0';
	s->received = s->sent = 0;
	s->error = s->polled = 0;
	lb_buf_free(&s->out);
	free(s->hostkey);
	s->hostkey = NULL;
	s->login->addr = s->login->addrs;
	if (!pump_open(s))
		return connect_fail(L, box, "connect", "out of memory");
	algorithms_prefer(s);
	return start_tcp(L, box);
}

/* A function given as passphrase is asked now, before anything is connected. */
static int
passphrase_k(lua_State *L, int status, lua_KContext ctx)
{
	struct box *box = lua_touserdata(L, 3);
	struct session *s = box->session;
	struct ssh_key *key = s->login->chosen[ctx];
	const char *text;
	size_t len;

	if (status == LUA_YIELD || status == LUA_OK) {
		if (lua_isnil(L, -1))
			return connect_fail(L, box, "identity",
			    "%s is encrypted and no passphrase was given", key->path);
		text = lb_bytes(L, -1, &len);
		if (!key_set_passphrase(key, text, len))
			return connect_fail(L, box, "identity", "out of memory");
		lua_pop(L, 1);
		ctx++;
	}
	for (; ctx < s->login->chosen_count; ctx++) {
		key = s->login->chosen[ctx];
		if (!key->encrypted || key->agent || key->passphrase != NULL)
			continue;
		lua_getfield(L, 2, "passphrase");
		lua_pushstring(L, key->path);
		lua_callk(L, 1, 1, ctx, passphrase_k);
		return passphrase_k(L, LUA_OK, ctx);
	}
	/* typing it took its time */
	s->login->until = now() + s->login->timeout;
	return start_tcp(L, box);
}

static int
connect_done(lua_State *L, struct box *box)
{
	struct session *s = box->session;

	if (s->login->failed[0] != '\0')
		return connect_fail(L, box, s->login->failed, "%s", s->login->why);
	s->phase = READY;
	login_free(s);
	s->polled = -1;
	if (s->keepalive > 0)
		lb_timer_set(s->beat, s->keepalive);
	pump(s);
	if (s->dead)
		return connect_fail(L, box, "connect", "%s", s->why);
	lua_settop(L, 3);
	return 1;
}

static int
connect_k(lua_State *L, int status, lua_KContext ctx)
{
	struct box *box = lua_touserdata(L, 3);
	struct session *s = box->session;
	socklen_t len = sizeof(int);
	char text[1024];
	int err = 0;

	(void)status;
	(void)ctx;
	if (box->slot.wait.why == LB_INTERRUPTED)
		return connect_fail(L, box, "interrupted", "interrupted");
	if (box->slot.wait.why == LB_TIMEOUT && s->phase != CONNECTING)
		return connect_timeout(L, box);
	switch (s->phase) {
	case RESOLVING:
		if (s->login->failed[0] != '\0')
			return connect_done(L, box);
		if (s->login->agent_path != NULL && !login_choose(s, text, sizeof text))
			return connect_fail(L, box, "identity", "%s", text);
		return passphrase_k(L, -1, 0);
	case CONNECTING:
		if (box->slot.wait.why == LB_TIMEOUT)
			err = ETIMEDOUT;
		else if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
			err = errno;
		if (err == 0)
			return start_handshake(L, box);
		s->login->tcp_error = err;
		tcp_close(s);
		if (s->login->addr == NULL || now() >= s->login->until)
			return tcp_failed(L, box);
		return start_tcp(L, box);
	case HANDSHAKING:
		if (s->dead && s->login->types_shown != 0)
			return connect_fail(L, box, "hostkey", "%s", s->login->why);
		if (s->dead)
			return connect_fail(L, box, s->code, "%s", s->why);
		if (!hostkey_verify(s, text, sizeof text)) {
			if (!hostkey_another(s, text))
				return connect_fail(L, box, "hostkey", "%s", text);
			return start_again(L, box);
		}
		s->phase = AUTHENTICATING;
		s->polled = 0;
		lb_poll_set(s->poll, 0);
		return start_work(L, box, auth_work);
	case AUTHENTICATING:
	case READY:
		break;
	}
	return connect_done(L, box);
}

/* Calls f with each string of an option that is a list. */
static void
each_string(
    lua_State *L, const char *name, void *arg, const char *(*f)(void *, const char *))
{
	lua_Integer i, n;
	const char *bad;

	if (lua_isnoneornil(L, 2) || lua_getfield(L, 2, name) == LUA_TNIL) {
		lua_settop(L, 3);
		return;
	}
	if (!lua_istable(L, -1))
		luaL_argerror(
		    L, 2, lua_pushfstring(L, "option '%s' must be a list", name));
	n = luaL_len(L, -1);
	for (i = 1; i <= n; i++) {
		if (lua_geti(L, -1, i) != LUA_TSTRING)
			luaL_argerror(L, 2,
			    lua_pushfstring(
				L, "option '%s' must be a list of strings", name));
		if ((bad = f(arg, lua_tostring(L, -1))) != NULL)
			luaL_argerror(
			    L, 2, lua_pushfstring(L, "option '%s': %s", name, bad));
		lua_pop(L, 1);
	}
	lua_settop(L, 3);
}

static void
read_passphrase(lua_State *L, struct login *l)
{
	const char *text;
	size_t len;
	int type;

	if (lua_isnoneornil(L, 2))
		return;
	type = lua_getfield(L, 2, "passphrase");
	if (type == LUA_TFUNCTION) {
		l->asks = true;
	} else if (type != LUA_TNIL) {
		if (type != LUA_TSTRING && !lb_is_secret(L, -1))
			luaL_argerror(L, 2,
			    "option 'passphrase' must be a string, a secret "
			    "or a function");
		text = lb_bytes(L, -1, &len);
		if (memchr(text, '\0', len) != NULL)
			luaL_argerror(L, 2, "option 'passphrase' holds a zero byte");
		if ((l->passphrase = strndup(text, len)) == NULL)
			luaL_error(L, "out of memory");
	}
	lua_settop(L, 3);
}

static const char *
add_identity(void *arg, const char *path)
{
	login_add_file(arg, path, false);
	return NULL;
}

static const char *
add_pin(void *arg, const char *line)
{
	struct session *s = arg;
	struct ssh_key *key = calloc(1, sizeof *key);

	if (key == NULL || !key_parse_line(key, line)) {
		key_free(key);
		return "must hold keys like \"ssh-ed25519 AAAA...\"";
	}
	key->next = s->login->pins;
	s->login->pins = key;
	return NULL;
}

static const char *
add_known_hosts(void *arg, const char *path)
{
	hosts_load(arg, path);
	return NULL;
}

static void
read_known_hosts(lua_State *L, struct session *s)
{
	int type = LUA_TNIL;

	if (!lua_isnoneornil(L, 2))
		type = lua_getfield(L, 2, "known_hosts");
	if (type == LUA_TNIL) {
		hosts_load(s, "~/.ssh/known_hosts");
		hosts_load(s, "/etc/ssh/ssh_known_hosts");
	} else if (type == LUA_TSTRING) {
		hosts_load(s, lua_tostring(L, -1));
	} else if (type == LUA_TTABLE) {
		each_string(L, "known_hosts", s, add_known_hosts);
	} else if (type != LUA_TBOOLEAN || lua_toboolean(L, -1)) {
		luaL_argerror(
		    L, 2, "option 'known_hosts' must be a path, a list or false");
	}
	lua_settop(L, 3);
}

static void
read_agent(lua_State *L, struct login *l)
{
	const char *path = getenv("SSH_AUTH_SOCK");
	int type = LUA_TNIL;

	if (!lua_isnoneornil(L, 2))
		type = lua_getfield(L, 2, "agent");
	if (type == LUA_TSTRING)
		path = lua_tostring(L, -1);
	else if (type != LUA_TNIL && type != LUA_TBOOLEAN)
		luaL_argerror(
		    L, 2, "option 'agent' must be a boolean or the path of a socket");
	if (type == LUA_TBOOLEAN && !lua_toboolean(L, -1))
		path = NULL;
	if (path != NULL && path[0] != '\0' && (l->agent_path = strdup(path)) == NULL)
		luaL_error(L, "out of memory");
	lua_settop(L, 3);
}

/* ssh.connect(host, opts)
 *  +-> session
 *  +-> nil, err   (resolve, connect, hostkey, auth_failed, timeout, identity,
 * interrupted)
 *
 * opts: port (22), user, timeout (30 seconds for all of it), identities (private key
 * files; else ~/.ssh/id_ed25519 and id_ecdsa), passphrase (secret, string, or a function
 * of the path), agent (true: $SSH_AUTH_SOCK; or a path), identities_only (no other keys
 * of the agent), host_keys (pinned: "ssh-ed25519 AAAA..."), fingerprint ("SHA256:..."),
 * known_hosts (a path, a list, or false), host_key_alias, accept_new (of a host that
 * nothing is known of), keepalive (15 seconds; 0: none). At most two keys are offered. */
int
l_connect(lua_State *L)
{
	static const char *const names[] = { "port", "user", "timeout", "identities",
		"passphrase", "agent", "identities_only", "host_keys", "fingerprint",
		"known_hosts", "host_key_alias", "accept_new", "keepalive", NULL };
	const char *host = luaL_checkstring(L, 1), *fingerprint;
	struct session *s;
	struct login *l;
	struct box *box;

	luaL_argcheck(L,
	    host[0] != '\0' && strlen(host) == lua_rawlen(L, 1) && strlen(host) < 256, 1,
	    "not a host name");
	lua_settop(L, 2);
	lb_opts(L, 2, names);
	box = lua_newuserdatauv(L, sizeof *box, 0);
	memset(box, 0, sizeof *box);
	luaL_setmetatable(L, SESSION);
	if ((s = calloc(1, sizeof *s)) == NULL)
		return luaL_error(L, "out of memory");
	s->box = box;
	s->fd = -1;
	box->session = s;
	s->login = l = calloc(1, sizeof *l);
	if (l == NULL || !pump_open(s))
		return luaL_error(L, "out of memory");
	l->port = (int)lb_opt_integer(L, 2, "port", 22, 1, 65535);
	l->timeout = lb_opt_seconds(L, 2, "timeout", 30);
	l->until = now() + l->timeout;
	s->keepalive = lb_opt_seconds(L, 2, "keepalive", 15);
	if (strlen(lb_opt_string(L, 2, "user", "")) > 255)
		luaL_argerror(L, 2, "option 'user' is too long");
	if (!login_names(l, host, lb_opt_string(L, 2, "user", NULL),
		lb_opt_string(L, 2, "host_key_alias", NULL)))
		return luaL_error(L, "out of memory");
	snprintf(s->name, sizeof s->name, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host,
	    l->port);
	l->accept_new = lb_opt_boolean(L, 2, "accept_new", false);
	fingerprint = lb_opt_string(L, 2, "fingerprint", "");
	if (strlen(fingerprint) >= sizeof l->fingerprint ||
	    (fingerprint[0] != '\0' && strncmp(fingerprint, "SHA256:", 7) != 0))
		luaL_argerror(L, 2, "option 'fingerprint' must be like \"SHA256:...\"");
	strcpy(l->fingerprint, fingerprint);
	l->fingerprint[strcspn(l->fingerprint, "=")] = '\0';
	each_string(L, "host_keys", s, add_pin);
	read_passphrase(L, l);
	read_known_hosts(L, s);
	l->identities_only = lb_opt_boolean(L, 2, "identities_only", false);
	each_string(L, "identities", l, add_identity);
	if (l->keys == NULL && l->reasons.len == 0)
		login_add_default_files(l);
	read_agent(L, l);
	if (l->agent_path == NULL && !login_choose(s, l->why, sizeof l->why))
		return connect_fail(L, box, "identity", "%s", l->why);
	algorithms_prefer(s);
	return start_work(L, box, resolve_work);
}

/* session:close()
 *  +-> true   (says goodbye if that needs no waiting; what is pending ends as closed) */
static int
l_session_close(lua_State *L)
{
	struct box *box = luaL_checkudata(L, 1, SESSION);
	struct session *s = box->session;

	if (s != NULL && !s->dead) {
		if (s->phase == READY && s->out.len == s->sent) {
			libssh2_session_disconnect(s->lib, "done");
			flush(s);
		}
		die(s, "closed", "the session was closed here");
	}
	lua_pushboolean(L, true);
	return 1;
}

/* session:alive()
 *  +-> boolean   (false: every call of it fails from now on) */
static int
l_session_alive(lua_State *L)
{
	struct box *box = luaL_checkudata(L, 1, SESSION);

	lua_pushboolean(L, box->session != NULL && !box->session->dead);
	return 1;
}

/* session:hostkey()
 *  +-> { type, key = "ssh-ed25519 AAAA...", fingerprint = "SHA256:...",
 *        trusted = "pinned"|"fingerprint"|"known_hosts"|"new" } */
static int
l_session_hostkey(lua_State *L)
{
	struct session *s = check_session(L, 1);

	lua_createtable(L, 0, 4);
	lua_pushstring(L, s->hostkey_type);
	lua_setfield(L, -2, "type");
	lua_pushstring(L, s->hostkey);
	lua_setfield(L, -2, "key");
	lua_pushstring(L, s->fingerprint);
	lua_setfield(L, -2, "fingerprint");
	lua_pushstring(L, s->trusted);
	lua_setfield(L, -2, "trusted");
	return 1;
}

/* session:auth()
 *  +-> { method = "publickey"|"agent", identity = path or the comment in the agent } */
static int
l_session_auth(lua_State *L)
{
	struct session *s = check_session(L, 1);

	lua_createtable(L, 0, 2);
	lua_pushstring(L, s->method);
	lua_setfield(L, -2, "method");
	lua_pushstring(L, s->identity);
	lua_setfield(L, -2, "identity");
	return 1;
}

static void
push_address(lua_State *L, const char *name, const char *port_name,
    int (*get)(int, struct sockaddr *, socklen_t *), int fd)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof ss;
	char text[INET6_ADDRSTRLEN + 20], port[16];

	if (get(fd, (struct sockaddr *)&ss, &len) != 0 ||
	    getnameinfo((struct sockaddr *)&ss, len, text, sizeof text, port, sizeof port,
		NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return;
	lua_pushstring(L, text);
	lua_setfield(L, -2, name);
	lua_pushinteger(L, atoi(port));
	lua_setfield(L, -2, port_name);
}

/* session:address()
 *  +-> { own, own_port, peer, peer_port }   (numeric, of this end's socket)
 *  +-> nil, err   (closed) */
static int
l_session_address(lua_State *L)
{
	struct session *s = check_session(L, 1);

	if (s->dead)
		return fail_session(L, s, "address");
	lua_createtable(L, 0, 4);
	push_address(L, "own", "own_port", getsockname, s->fd);
	push_address(L, "peer", "peer_port", getpeername, s->fd);
	return 1;
}

/* session:methods()
 *  +-> { kex, hostkey, cipher, mac }   (what was agreed on)
 *  +-> nil, err   (closed) */
static int
l_session_methods(lua_State *L)
{
	static const struct {
		const char *name;
		int type;
	} methods[] = {
		{ "kex", LIBSSH2_METHOD_KEX },
		{ "hostkey", LIBSSH2_METHOD_HOSTKEY },
		{ "cipher", LIBSSH2_METHOD_CRYPT_CS },
		{ "mac", LIBSSH2_METHOD_MAC_CS },
	};
	struct session *s = check_session(L, 1);
	size_t i;

	if (s->dead)
		return fail_session(L, s, "methods");
	lua_createtable(L, 0, 4);
	for (i = 0; i < sizeof methods / sizeof *methods; i++) {
		lua_pushstring(L, libssh2_session_methods(s->lib, methods[i].type));
		lua_setfield(L, -2, methods[i].name);
	}
	return 1;
}

void
connect_methods(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{ "hostkey", l_session_hostkey },
		{ "auth", l_session_auth },
		{ "address", l_session_address },
		{ "methods", l_session_methods },
		{ "alive", l_session_alive },
		{ "close", l_session_close },
		{ "__close", l_session_close },
		{ "__gc", l_session_gc },
		{ NULL, NULL },
	};

	metatable(L, SESSION, methods);
}
