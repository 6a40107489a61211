/* ssh_forward.c: services that the server reaches, as Unix sockets of this machine.
 * Each connection to the socket is a direct-tcpip channel, piped both ways. The socket's
 * folder should be private; the socket itself is for its owner alone. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ssh_lua.h"
#include "ssh_pump.h"

#define LISTENER "lb.ssh.listener"

enum { PIPES_MAX = 32 }; /* of a listener; more wait in its backlog */

struct listener {
	struct listener *next;
	struct session *session;
	struct listenbox *box;
	struct lb_poll *poll;
	struct pipe *pipes;
	char *host, *path;
	int port, fd, count;
};

struct listenbox {
	struct listener *listener;
};

/* One connection: the local socket and its channel. */
struct pipe {
	struct pipe *next;
	struct listener *listener;
	struct chan *chan;
	struct lb_poll *poll;
	int fd, polled;
	bool in_eof, out_eof; /* nothing more comes from the local end; goes to it */
};

static void on_listen(void *arg, int events);

/* Ends the local connection; the channel is closed in the background. */
void
pipe_end(struct chan *ch)
{
	struct pipe *pi = ch->pipe, **p;
	struct listener *li;

	if (pi == NULL)
		return;
	li = pi->listener;
	for (p = &li->pipes; *p != pi; p = &(*p)->next)
		;
	*p = pi->next;
	lb_poll_free(pi->poll);
	close(pi->fd);
	free(pi);
	ch->pipe = NULL;
	ch->dropped = true;
	if (li->count-- == PIPES_MAX && li->poll != NULL)
		lb_poll_set(li->poll, LB_READ);
}

static bool
pipe_out(struct chan *ch)
{
	struct pipe *pi = ch->pipe;
	bool progress = false;
	ssize_t n;

	while (ch->in[0].len > 0) {
		n = send(
		    pi->fd, ch->in[0].data, ch->in[0].len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n < 0) {
			pipe_end(ch);
			return true;
		}
		lb_buf_drop(&ch->in[0], (size_t)n);
		progress = true;
	}
	lb_buf_free(&ch->in[1]);
	if ((ch->eof || ch->closed) && ch->in[0].len == 0 && !pi->out_eof) {
		shutdown(pi->fd, SHUT_WR);
		pi->out_eof = true;
	}
	return progress;
}

static bool
pipe_in(struct chan *ch)
{
	struct pipe *pi = ch->pipe;
	char chunk[CHUNK];
	bool progress = false;
	ssize_t n;

	while (!pi->in_eof && ch->opened && ch->out.len < WRITE_AHEAD) {
		n = recv(pi->fd, chunk, sizeof chunk, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n < 0 || (n > 0 && !lb_buf_add(&ch->out, chunk, (size_t)n))) {
			pipe_end(ch);
			return true;
		}
		if (n == 0)
			pi->in_eof = ch->shut = true;
		progress = true;
	}
	return progress;
}

/* Moves what can be moved; true: something was, or the connection has ended. */
bool
pipe_run(struct chan *ch)
{
	struct pipe *pi = ch->pipe;
	bool progress;
	int want = 0;

	progress = pipe_out(ch);
	if (ch->pipe != NULL && pipe_in(ch))
		progress = true;
	if (ch->pipe == NULL)
		return true;
	if (ch->closed && ch->in[0].len == 0) {
		pipe_end(ch);
		return true;
	}
	if (ch->in[0].len > 0)
		want |= LB_WRITE;
	if (!pi->in_eof && ch->opened && ch->out.len < WRITE_AHEAD)
		want |= LB_READ;
	if (want != pi->polled && !lb_poll_set(pi->poll, want)) {
		pipe_end(ch);
		return true;
	}
	pi->polled = want;
	return progress;
}

static void
on_pipe(void *arg, int events)
{
	struct pipe *pi = arg;

	/* both may mean an error, and then the loop has stopped watching */
	if (events == (LB_READ | LB_WRITE))
		pi->polled = -1;
	pump(pi->listener->session);
}

static void
pipe_begin(struct listener *li, int fd)
{
	struct pipe *pi = calloc(1, sizeof *pi);
	struct op *op = calloc(1, sizeof *op);

	if (pi == NULL || op == NULL || (op->path = strdup(li->host)) == NULL ||
	    (pi->poll = lb_poll_like(li->poll, fd, on_pipe, pi)) == NULL ||
	    (pi->chan = chan_new(li->session)) == NULL) {
		if (pi != NULL)
			lb_poll_free(pi->poll);
		if (op != NULL)
			op_free(op);
		free(pi);
		close(fd);
		return;
	}
	pi->fd = fd;
	pi->listener = li;
	pi->next = li->pipes;
	li->pipes = pi;
	pi->chan->pipe = pi;
	pi->chan->direct = true;
	op->chan = pi->chan;
	op->port = li->port;
	op->step = chan_direct_step;
	op_queue(li->session, op, false);
	if (++li->count == PIPES_MAX)
		lb_poll_set(li->poll, 0);
}

static void
on_listen(void *arg, int events)
{
	struct listener *li = arg;
	int fd;

	(void)events;
	while (li->count < PIPES_MAX) {
		fd = accept4(li->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			break;
		pipe_begin(li, fd);
	}
	pump(li->session);
}

static void
listener_end(struct listener *li)
{
	struct listener **p;

	for (p = &li->session->listeners; *p != li; p = &(*p)->next)
		;
	*p = li->next;
	while (li->pipes != NULL)
		pipe_end(li->pipes->chan);
	lb_poll_free(li->poll);
	if (li->fd >= 0) {
		close(li->fd);
		unlink(li->path);
	}
	if (li->box != NULL)
		li->box->listener = NULL;
	free(li->host);
	free(li->path);
	free(li);
}

void
listeners_end(struct session *s)
{
	while (s->listeners != NULL)
		listener_end(s->listeners);
}

static void
listener_release(struct listenbox *box)
{
	struct listener *li = box->listener;
	struct session *s;

	if (li == NULL)
		return;
	s = li->session;
	listener_end(li);
	if (!s->dead)
		lb_timer_set(s->again, 0);
}

/* listener:close()
 *  +-> true   (the socket is gone, and so are its connections) */
static int
l_listener_close(lua_State *L)
{
	listener_release(luaL_checkudata(L, 1, LISTENER));
	lua_pushboolean(L, true);
	return 1;
}

static int
l_listener_gc(lua_State *L)
{
	listener_release(luaL_checkudata(L, 1, LISTENER));
	return 0;
}

/* A socket that only its owner may connect to, from the moment it is there: what fchmod
 * sets before bind is what the file gets. -1: errno. */
static int
listen_on(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd, err;

	memcpy(un.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (fchmod(fd, 0600) == 0 && bind(fd, (struct sockaddr *)&un, sizeof un) == 0) {
		if (listen(fd, 16) == 0)
			return fd;
		err = errno;
		unlink(path);
		errno = err;
	}
	err = errno;
	close(fd);
	errno = err;
	return -1;
}

/* session:forward_unix(path, host, port)
 *  +-> listener   (a Unix socket at path leads to host:port as the server sees it)
 *  +-> nil, err   (busy, denied, not_found, ...: the socket; closed: the session)
 *
 * When the server cannot connect there, the connection to the socket is closed. */
static int
l_session_forward_unix(lua_State *L)
{
	struct session *s = check_session(L, 1);
	const char *path = luaL_checkstring(L, 2), *host = luaL_checkstring(L, 3);
	lua_Integer port = luaL_checkinteger(L, 4);
	struct listenbox *box;
	struct listener *li;
	int err;

	luaL_argcheck(L,
	    strlen(path) == lua_rawlen(L, 2) && path[0] != '\0' &&
		strlen(path) < sizeof((struct sockaddr_un *)NULL)->sun_path,
	    2, "not a path, or too long for a socket");
	luaL_argcheck(L,
	    strlen(host) == lua_rawlen(L, 3) && host[0] != '\0' && strlen(host) < 256, 3,
	    "not a host name");
	luaL_argcheck(L, port >= 1 && port <= 65535, 4, "not a port");
	if (s->dead)
		return fail_session(L, s, "forward_unix");
	box = lua_newuserdatauv(L, sizeof *box, 1);
	box->listener = NULL;
	luaL_setmetatable(L, LISTENER);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	if ((li = calloc(1, sizeof *li)) == NULL)
		return luaL_error(L, "out of memory");
	li->session = s;
	li->box = box;
	li->fd = -1;
	li->port = (int)port;
	li->next = s->listeners;
	s->listeners = li;
	box->listener = li;
	if ((li->host = strdup(host)) == NULL || (li->path = strdup(path)) == NULL)
		return luaL_error(L, "out of memory");
	if ((li->fd = listen_on(path)) < 0) {
		err = errno == EADDRINUSE ? EEXIST : errno;
		listener_end(li);
		return lb_fail_errno(L, MODULE, "forward_unix", err);
	}
	li->poll = lb_poll_new(L, li->fd, on_listen, li);
	if (li->poll == NULL || !lb_poll_set(li->poll, LB_READ))
		return luaL_error(L, "out of memory");
	return 1;
}

void
forward_methods(lua_State *L)
{
	static const luaL_Reg session[] = {
		{ "forward_unix", l_session_forward_unix },
		{ NULL, NULL },
	};
	static const luaL_Reg methods[] = {
		{ "close", l_listener_close },
		{ "__close", l_listener_close },
		{ "__gc", l_listener_gc },
		{ NULL, NULL },
	};

	luaL_setfuncs(L, session, 0);
	metatable(L, LISTENER, methods);
	lua_pop(L, 1);
}
