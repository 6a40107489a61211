/* ssh.c: SSH sessions for Lua on libssh2: login, commands, files, forwarded services.
 * Everything waits in the one loop; what blocks (names, the agent, keys) is on a worker
 * thread. It reads no ~/.ssh/config (lb.ssh_config does) and writes no known_hosts.
 * Its parts: ssh_keys.h (key files, agent), ssh_pump.h (a session and what drives it),
 * ssh_login.h (host keys, authentication), ssh_files.h (sftp, forwarding). */
#include <math.h>

#include "lb.h"

#define MODULE "ssh"
#define SESSION "lb.ssh.session"
#define STREAM "lb.ssh.stream"
#define TIMEOUT 60.0

#include "ssh_keys.h"
#include "ssh_pump.h"
#include "ssh_login.h"
#include "ssh_files.h"

/* Waiting in Lua */

/* Begins a call that may wait in the slot. */
static void
slot_enter(lua_State *L, struct slot *slot, double seconds)
{
	if (slot->wait.task != NULL)
		luaL_error(L, "another task already waits for this");
	slot->wait.why = LB_WOKEN;
	slot->until = now() + seconds;
}

static int
slot_wait(lua_State *L, struct slot *slot, lua_KContext ctx, lua_KFunction k)
{
	double left = slot->until - now();

	return lb_wait(L, &slot->wait, left > 0 ? left : 0, ctx, k);
}

static int
fail_slot(lua_State *L, const struct slot *slot, const char *op, const char *doing)
{
	if (slot->wait.why == LB_INTERRUPTED)
		return lb_fail_why(L, MODULE, op, LB_INTERRUPTED);
	return lb_fail(L, MODULE, op, "timeout", "timed out %s", doing);
}

static int
fail_session(lua_State *L, const struct session *s, const char *op)
{
	return lb_fail(L, MODULE, op, s->code, "%s", s->why);
}

/* Sessions */

static struct session *
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

	(void)events;
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
		s->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (s->fd < 0) {
			l->tcp_error = errno;
			continue;
		}
		if (connect(s->fd, a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS) {
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
		return connect_fail(L, box, "timeout", "%s: no answer in %.0f seconds", s->name,
		    s->login->timeout);
	return connect_fail(L, box, "connect", "%s: %s", s->name,
	    strerror_r(err, text, sizeof text));
}

static int
connect_timeout(lua_State *L, struct box *box)
{
	static const char *const doing[] = {
		"looking up the name", "connecting",
		"in the handshake (does it speak SSH?)", "logging in", ""
	};
	struct session *s = box->session;

	return connect_fail(L, box, "timeout", "%s: no answer in %.0f seconds, %s", s->name,
	    s->login->timeout, doing[s->phase]);
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
	s->again = lb_timer_new(L, on_again, s);
	s->beat = lb_timer_new(L, on_beat, s);
	if (s->again == NULL || s->beat == NULL)
		return connect_fail(L, box, "connect", "out of memory");
	box->slot.until = s->login->until;
	pump(s);
	if (s->dead)
		return connect_fail(L, box, s->code, "%s", s->why);
	return slot_wait(L, &box->slot, 0, connect_k);
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
		if (!login_choose(s, text, sizeof text))
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
		if (s->dead)
			return connect_fail(L, box, s->code, "%s", s->why);
		if (!hostkey_verify(s, text, sizeof text))
			return connect_fail(L, box, "hostkey", "%s", text);
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
each_string(lua_State *L, const char *name, void *arg, const char *(*f)(void *, const char *))
{
	lua_Integer i, n;
	const char *bad;

	if (lua_isnoneornil(L, 2) || lua_getfield(L, 2, name) == LUA_TNIL) {
		lua_settop(L, 3);
		return;
	}
	if (!lua_istable(L, -1))
		luaL_argerror(L, 2, lua_pushfstring(L, "option '%s' must be a list", name));
	n = luaL_len(L, -1);
	for (i = 1; i <= n; i++) {
		if (lua_geti(L, -1, i) != LUA_TSTRING)
			luaL_argerror(L, 2, lua_pushfstring(L,
			    "option '%s' must be a list of strings", name));
		if ((bad = f(arg, lua_tostring(L, -1))) != NULL)
			luaL_argerror(L, 2, lua_pushfstring(L, "option '%s': %s", name, bad));
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
			luaL_argerror(L, 2, "option 'passphrase' must be a string, a secret "
			    "or a function");
		text = lb_bytes(L, -1, &len);
		if (strlen(text) != len || (l->passphrase = strdup(text)) == NULL)
			luaL_argerror(L, 2, "option 'passphrase' holds a zero byte");
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
	} else if (type != LUA_TBOOLEAN || lua_toboolean(L, -1)) {
		luaL_argerror(L, 2, "option 'known_hosts' must be a path or false");
	}
	lua_settop(L, 3);
}

/* libssh2 takes functions as void *, which C does not convert. */
static void
set_callback(LIBSSH2_SESSION *lib, int type, void (*f)(void))
{
	void *p;

	memcpy(&p, &f, sizeof p);
	libssh2_session_callback_set(lib, type, p);
}

/* ssh.connect(host, opts)
 *  +-> session
 *  +-> nil, err   (resolve, connect, hostkey, auth_failed, timeout, identity, interrupted)
 *
 * opts: port (22), user, timeout (30 seconds for all of it), identities (private key
 * files; else ~/.ssh/id_ed25519 and id_ecdsa), passphrase (secret, string, or a function
 * of the path), agent (true: $SSH_AUTH_SOCK), identities_only (no other keys of the
 * agent), host_keys (pinned: "ssh-ed25519 AAAA..."), fingerprint ("SHA256:..."),
 * known_hosts (a path, or false), host_key_alias, accept_new (of a host that nothing is
 * known of), keepalive (15 seconds; 0: none). At most two keys are offered.             */
static int
l_connect(lua_State *L)
{
	static const char *const names[] = { "port", "user", "timeout", "identities",
		"passphrase", "agent", "identities_only", "host_keys", "fingerprint",
		"known_hosts", "host_key_alias", "accept_new", "keepalive", NULL };
	const char *host = luaL_checkstring(L, 1), *fingerprint;
	struct session *s;
	struct login *l;
	struct box *box;

	luaL_argcheck(L, host[0] != '\0' && strlen(host) == lua_rawlen(L, 1) &&
	    strlen(host) < 256, 1, "not a host name");
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
	s->sessions_max = SESSIONS_MAX;
	s->lib = libssh2_session_init_ex(mem_alloc, mem_free, mem_realloc, s);
	s->login = l = calloc(1, sizeof *l);
	if (s->lib == NULL || l == NULL)
		return luaL_error(L, "out of memory");
	libssh2_session_set_blocking(s->lib, 0);
	set_callback(s->lib, LIBSSH2_CALLBACK_SEND, (void (*)(void))io_send);
	set_callback(s->lib, LIBSSH2_CALLBACK_RECV, (void (*)(void))io_recv);
	set_callback(s->lib, LIBSSH2_CALLBACK_DISCONNECT, (void (*)(void))io_bye);
	l->port = (int)lb_opt_integer(L, 2, "port", 22, 1, 65535);
	l->timeout = lb_opt_seconds(L, 2, "timeout", 30);
	l->until = now() + l->timeout;
	s->keepalive = lb_opt_seconds(L, 2, "keepalive", 15);
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
	if (lb_opt_boolean(L, 2, "agent", true) && getenv("SSH_AUTH_SOCK") != NULL)
		l->agent_path = strdup(getenv("SSH_AUTH_SOCK"));
	if (l->agent_path == NULL && !login_choose(s, l->why, sizeof l->why))
		return connect_fail(L, box, "identity", "%s", l->why);
	algorithms_prefer(s);
	return start_work(L, box, resolve_work);
}

/* session:close()
 *  +-> true   (says goodbye if that needs no waiting; what is pending ends as closed)   */
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
 *  +-> boolean   (false: every call of it fails from now on)                            */
static int
l_session_alive(lua_State *L)
{
	struct box *box = luaL_checkudata(L, 1, SESSION);

	lua_pushboolean(L, box->session != NULL && !box->session->dead);
	return 1;
}

/* session:hostkey()
 *  +-> { type, key = "ssh-ed25519 AAAA...", fingerprint = "SHA256:...",
 *        trusted = "pinned"|"fingerprint"|"known_hosts"|"new" }                         */
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
 *  +-> { method = "publickey"|"agent", identity = path or the comment in the agent }    */
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

	if (get(fd, (struct sockaddr *)&ss, &len) != 0 || getnameinfo((struct sockaddr *)&ss,
	    len, text, sizeof text, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return;
	lua_pushstring(L, text);
	lua_setfield(L, -2, name);
	lua_pushinteger(L, atoi(port));
	lua_setfield(L, -2, port_name);
}

/* session:address()
 *  +-> { own, own_port, peer, peer_port }   (numeric, of this end's socket)
 *  +-> nil, err   (closed)                                                              */
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
 *  +-> nil, err   (closed)                                                              */
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

/* Commands */

static struct chan *
chan_new(struct session *s)
{
	struct chan *ch = calloc(1, sizeof *ch);

	if (ch == NULL)
		return NULL;
	ch->session = s;
	ch->next = s->chans;
	s->chans = ch;
	return ch;
}

static bool
chan_wanted(const struct chan *ch)
{
	return !ch->dropped && (ch->stream != NULL || ch->pipe != NULL);
}

static bool
exec_step(struct session *s, struct op *op)
{
	struct chan *ch = op->chan;
	char *msg = NULL;
	int rc;

	if (op->state == 0) {
		if (!chan_wanted(ch)) {
			ch->failed = true;
			return true;
		}
		ch->lib = libssh2_channel_open_ex(s->lib, "session", 7,
		    LIBSSH2_CHANNEL_WINDOW_DEFAULT, CHUNK, NULL, 0);
		if (ch->lib == NULL) {
			rc = libssh2_session_last_error(s->lib, &msg, NULL, 0);
			if (rc == LIBSSH2_ERROR_EAGAIN)
				return false;
			if (!op_of_channel(rc))
				die_lib(s, rc);
			else if (op_wait_for_session(s))
				return false;
			else
				chan_fail(ch, "refused", msg);
			return true;
		}
		ch->id = s->opened_id;
		op->state = 1;
	}
	rc = libssh2_channel_process_startup(ch->lib, "exec", 4, op->path,
	    (unsigned int)op->len);
	if (rc == LIBSSH2_ERROR_EAGAIN)
		return false;
	if (rc != 0 && !op_of_channel(rc)) {
		die_lib(s, rc);
		return true;
	}
	ch->opened = true;
	if (rc != 0) {
		ch->dropped = true;
		chan_fail(ch, "refused", "the server does not run commands for this user");
	}
	stream_wake(ch->stream);
	return true;
}

static struct stream *
check_stream(lua_State *L)
{
	struct stream *st = luaL_checkudata(L, 1, STREAM);

	if (st->closed)
		luaL_error(L, "the stream is closed");
	return st;
}

static void
stream_release(struct stream *st)
{
	struct chan *ch = st->chan;

	st->closed = true;
	st->chan = NULL;
	lb_wait_drop(&st->reader.wait);
	lb_wait_drop(&st->writer.wait);
	lb_wait_drop(&st->other.wait);
	if (ch == NULL)
		return;
	ch->stream = NULL;
	ch->dropped = true;
	if (ch->session->dead)
		chans_reap(ch->session);
	else
		lb_timer_set(ch->session->again, 0);
}

static int
l_stream_gc(lua_State *L)
{
	stream_release(luaL_checkudata(L, 1, STREAM));
	return 0;
}

/* Closed by another task while this one waited, or by the server. */
static int
fail_stream(lua_State *L, const struct stream *st, const char *op)
{
	if (st->closed || st->chan == NULL)
		return lb_fail(L, MODULE, op, "closed", "the stream was closed here");
	if (st->chan->session->dead)
		return fail_session(L, st->chan->session, op);
	return lb_fail(L, MODULE, op, "closed", "the server closed the channel");
}

static int
exec_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *st = lua_touserdata(L, -1);
	struct chan *ch = st->chan;
	struct session *s = ch->session;
	int held, all;

	(void)status;
	(void)ctx;
	if (ch->opened && !ch->failed && !s->dead)
		return 1;
	if (s->dead || ch->failed) {
		int n = s->dead ? fail_session(L, s, "exec") :
		    lb_fail(L, MODULE, "exec", ch->code, "%s: %s", s->name, ch->why);

		stream_release(st);
		return n;
	}
	if (st->other.wait.why == LB_WOKEN)
		return slot_wait(L, &st->other, 0, exec_k);
	sessions_count(s, &held, &all);
	if (ch->lib != NULL)
		all = 0;
	stream_release(st);
	if (st->other.wait.why == LB_TIMEOUT && all > 0)
		return lb_fail(L, MODULE, "exec", "timeout",
		    "timed out waiting for a channel: %d of at most %d are in use", all,
		    s->sessions_max < CHANNELS_MAX ? s->sessions_max : CHANNELS_MAX);
	return fail_slot(L, &st->other, "exec", "starting the command");
}

/* session:exec(command, { timeout })
 *  +-> stream
 *  +-> nil, err   (refused, timeout, interrupted, closed)
 *
 * At most four channels are open at once, or as few as the server allows: one more waits
 * until another is closed.                                                              */
static int
l_session_exec(lua_State *L)
{
	static const char *const names[] = { "timeout", NULL };
	struct session *s = check_session(L, 1);
	size_t len;
	const char *command = luaL_checklstring(L, 2, &len);
	struct stream *st;
	struct op *op;
	double timeout;

	luaL_argcheck(L, strlen(command) == len, 2, "the command holds a zero byte");
	lua_settop(L, 3);
	lb_opts(L, 3, names);
	timeout = lb_opt_seconds(L, 3, "timeout", 30);
	if (s->dead)
		return fail_session(L, s, "exec");
	st = lua_newuserdatauv(L, sizeof *st, 1);
	memset(st, 0, sizeof *st);
	luaL_setmetatable(L, STREAM);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	if ((op = calloc(1, sizeof *op)) == NULL || (op->path = strdup(command)) == NULL ||
	    (st->chan = chan_new(s)) == NULL) {
		if (op != NULL)
			op_free(op);
		return luaL_error(L, "out of memory");
	}
	st->chan->stream = st;
	op->len = len;
	op->chan = st->chan;
	op->session_channel = true;
	op->step = exec_step;
	op_queue(s, op);
	slot_enter(L, &st->other, timeout);
	pump(s);
	return exec_k(L, LUA_OK, 0);
}

/* Streams */

static int
read_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *st = lua_touserdata(L, 1);
	struct chan *ch = st->chan;
	struct lb_buf *b;
	bool stuffed;
	int i;

	(void)status;
	(void)ctx;
	if (ch == NULL)
		return fail_stream(L, st, "read");
	if (ch->in[0].len + ch->in[1].len > 0) {
		i = ch->in[ch->first].len > 0 ? ch->first : !ch->first;
		b = &ch->in[i];
		stuffed = chan_stuffed(ch);
		lua_pushstring(L, i == 0 ? "out" : "err");
		lua_pushlstring(L, b->data, b->len);
		lb_buf_free(b);
		if (stuffed)
			pump(ch->session);
		return 2;
	}
	if (ch->eof) {
		lua_pushliteral(L, "eof");
		return 1;
	}
	if (ch->closed || ch->session->dead)
		return fail_stream(L, st, "read");
	if (st->reader.wait.why != LB_WOKEN)
		return fail_slot(L, &st->reader, "read", "waiting for output");
	return slot_wait(L, &st->reader, 0, read_k);
}

/* stream:read(timeout)
 *  +-> "out"|"err", data
 *  +-> "eof"        (of both)
 *  +-> nil, err     (timeout, interrupted, closed)                                      */
static int
l_stream_read(lua_State *L)
{
	struct stream *st = check_stream(L);

	slot_enter(L, &st->reader, lb_seconds(L, 2, TIMEOUT));
	return read_k(L, LUA_OK, 0);
}

static int
write_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *st = lua_touserdata(L, 1);
	struct chan *ch = st->chan;
	size_t len, n, done = (size_t)ctx;
	const char *data = lb_bytes(L, 2, &len);

	(void)status;
	for (;;) {
		if (ch == NULL || ch->cut || ch->closed || ch->session->dead)
			return fail_stream(L, st, "write");
		if (ch->out.len < WRITE_AHEAD / 2 && done < len) {
			n = len - done < WRITE_AHEAD ? len - done : WRITE_AHEAD;
			if (!lb_buf_add(&ch->out, data + done, n))
				return luaL_error(L, "out of memory");
			done += n;
			pump(ch->session);
			ch = st->chan;
			continue;
		}
		if (done == len && ch->out.len == 0) {
			lua_pushboolean(L, true);
			return 1;
		}
		break;
	}
	if (st->writer.wait.why != LB_WOKEN) {
		ch->cut = true; /* what follows would not be what the caller thinks it is */
		return fail_slot(L, &st->writer, "write", "writing: the command reads no more");
	}
	return slot_wait(L, &st->writer, (lua_KContext)done, write_k);
}

/* stream:write(bytes_or_secret, timeout)
 *  +-> true         (all is in the server's window)
 *  +-> nil, err     (timeout, interrupted, closed: nothing more can be written)         */
static int
l_stream_write(lua_State *L)
{
	struct stream *st = check_stream(L);
	size_t len;

	lb_bytes(L, 2, &len);
	if (st->chan != NULL && st->chan->shut)
		return luaL_error(L, "the stream was shut for writing");
	slot_enter(L, &st->writer, lb_seconds(L, 3, TIMEOUT));
	return write_k(L, LUA_OK, 0);
}

static int
shut_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *st = lua_touserdata(L, 1);
	struct chan *ch = st->chan;

	(void)status;
	(void)ctx;
	if (ch == NULL || (ch->session->dead && !ch->shut_sent && !ch->closed))
		return fail_stream(L, st, "shut");
	if (ch->shut_sent || ch->closed) {
		lua_pushboolean(L, true);
		return 1;
	}
	if (st->writer.wait.why != LB_WOKEN)
		return fail_slot(L, &st->writer, "shut", "writing: the command reads no more");
	return slot_wait(L, &st->writer, 0, shut_k);
}

/* stream:shut()
 *  +-> true         (the command sees the end of its input)
 *  +-> nil, err     (timeout, interrupted, closed)                                      */
static int
l_stream_shut(lua_State *L)
{
	struct stream *st = check_stream(L);

	slot_enter(L, &st->writer, TIMEOUT);
	if (st->chan != NULL && !st->chan->session->dead) {
		st->chan->shut = true;
		pump(st->chan->session);
	}
	return shut_k(L, LUA_OK, 0);
}

static int
wait_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *st = lua_touserdata(L, 1);
	struct chan *ch = st->chan;

	(void)status;
	(void)ctx;
	if (ch != NULL && ch->status_known) {
		lua_createtable(L, 0, 1);
		if (ch->signal[0] != '\0')
			lua_pushstring(L, ch->signal);
		else
			lua_pushinteger(L, ch->status);
		lua_setfield(L, -2, ch->signal[0] != '\0' ? "signal" : "status");
		return 1;
	}
	if (ch == NULL || ch->session->dead)
		return fail_stream(L, st, "wait");
	if (ch->closed)
		return lb_fail(L, MODULE, "wait", "closed",
		    "the server closed the channel without an exit status");
	if (st->other.wait.why != LB_WOKEN)
		return fail_slot(L, &st->other, "wait", "waiting for the command to end");
	return slot_wait(L, &st->other, 0, wait_k);
}

/* stream:wait(timeout)
 *  +-> { status = N }
 *  +-> { signal = "KILL" }
 *  +-> nil, err     (timeout, interrupted, closed: it is not known how it ended)        */
static int
l_stream_wait(lua_State *L)
{
	struct stream *st = check_stream(L);

	slot_enter(L, &st->other, lb_seconds(L, 2, TIMEOUT));
	return wait_k(L, LUA_OK, 0);
}

/* stream:close()
 *  +-> true         (the channel is closed in the background)                           */
static int
l_stream_close(lua_State *L)
{
	stream_release(luaL_checkudata(L, 1, STREAM));
	lua_pushboolean(L, true);
	return 1;
}

/* The module */

/* ssh.library_version()
 *  +-> "1.10.0"   (of libssh2)                                                          */
static int
l_library_version(lua_State *L)
{
	lua_pushstring(L, libssh2_version(0));
	return 1;
}

/* ssh.algorithms()
 *  +-> { kex, ciphers, macs, hostkeys }   (lists, best first: what it would agree to)   */
static int
l_algorithms(lua_State *L)
{
	const struct method *m;
	const char *const *name;

	lua_createtable(L, 0, 4);
	for (m = methods_wanted; m->name != NULL; m++) {
		const char **have = NULL;
		LIBSSH2_SESSION *lib = libssh2_session_init();
		int n = lib != NULL ? libssh2_session_supported_algs(lib, m->type[0], &have) : 0;
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
 *  +-> nil, err   (identity)                                                            */
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
	struct listbox *box = lua_touserdata(L, 1);
	const struct ssh_key *key;
	lua_Integer i = 0;
	char *line;

	(void)status;
	(void)ctx;
	if (!box->listing->done)
		return fail_slot(L, &box->slot, "agent_keys", "asking the agent");
	if (!box->listing->ok)
		return lb_fail(L, MODULE, "agent_keys", "no_agent", "no agent answers at %s",
		    box->listing->path);
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

/* ssh.agent_keys()
 *  +-> { "ssh-ed25519 AAAA... comment", ... }
 *  +-> nil, err   (no_agent, timeout, interrupted)                                      */
static int
l_agent_keys(lua_State *L)
{
	const char *path = getenv("SSH_AUTH_SOCK");
	struct listbox *box;
	struct listing *list;

	lua_settop(L, 0);
	if (path == NULL || path[0] == '\0')
		return lb_fail(L, MODULE, "agent_keys", "no_agent", "SSH_AUTH_SOCK is not set");
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

static void
metatable(lua_State *L, const char *name, const luaL_Reg *methods)
{
	luaL_newmetatable(L, name);
	luaL_setfuncs(L, methods, 0);
	lua_pushvalue(L, -1);
	lua_setfield(L, -2, "__index");
	lua_pushstring(L, name);
	lua_setfield(L, -2, "__metatable");
	lua_pop(L, 1);
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
	static const luaL_Reg session[] = {
		{ "exec", l_session_exec },
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
	static const luaL_Reg stream[] = {
		{ "read", l_stream_read },
		{ "write", l_stream_write },
		{ "shut", l_stream_shut },
		{ "wait", l_stream_wait },
		{ "close", l_stream_close },
		{ "__close", l_stream_close },
		{ "__gc", l_stream_gc },
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
	metatable(L, SESSION, session);
	metatable(L, STREAM, stream);
	metatable(L, LISTBOX, listing);
	luaL_newlib(L, functions);
	return 1;
}
