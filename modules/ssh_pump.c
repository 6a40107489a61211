/* ssh_pump.c: a session on libssh2 and what drives it.
 * libssh2 never sees a full socket: what it sends goes into a buffer that drains by
 * itself, so no call is ever left half sent, and the order of calls stays free. What it
 * cannot do at once is repeated when the socket has more. It calls no Lua: it wakes those
 * who wait. */
#include "ssh_pump.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <libssh2.h>
#include <libssh2_sftp.h>

#include "ssh_keys.h"
#include "ssh_login.h"
#include "ssh_lua.h"

enum {
	BANNER_MAX = 65536, /* bytes before the handshake is done */
	VAIN_MAX = 100000,  /* reads of nothing before libssh2 returns */
	QUICK_MAX = 16384,  /* bytes that are acknowledged at once */
	ROUNDS = 64         /* of the pump before others have their turn */
};

#define REFUSED_PAUSE 0.25 /* seconds until a refused channel is asked for again */

double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Foreign text in messages: one line, printable. */
void
clean(char *out, size_t size, const char *text, size_t len)
{
	size_t i;

	for (i = 0; i < len && i + 1 < size && text[i] != '\0'; i++)
		out[i] = (unsigned char)text[i] < ' ' || text[i] == 127 ? ' ' : text[i];
	out[i] = '\0';
}

/* Memory of libssh2: wiped when freed, since keys and passphrases pass through it, and
 * all freed with the session, since libssh2 loses some when a call ends in an error. And
 * the one place where messages can be seen that libssh2 keeps to itself: an exit status
 * (it has 0 both for "0" and for "none came", and a channel that was cut must not look
 * like a command that worked), and the end of sftp (for which it would wait for ever). */

struct block {
	_Alignas(max_align_t) struct block *prev;
	struct block *next;
	size_t size;
};

static void
packet_seen(struct session *s, const unsigned char *data, size_t size)
{
	enum {
		CHANNEL_OPEN = 90,
		CHANNEL_EOF = 96,
		CHANNEL_CLOSE = 97,
		CHANNEL_REQUEST = 98
	};
	struct wire w = { data + 1, size - 1 }, name, signal;
	struct chan *ch;
	uint32_t id, status;

	if (data[0] == CHANNEL_OPEN && wire_string(&w, &name) && wire_u32(&w, &id))
		s->opened_id = id;
	if ((data[0] == CHANNEL_EOF || data[0] == CHANNEL_CLOSE) && wire_u32(&w, &id) &&
	    s->sftp_begun && id == (s->sftp != NULL ? s->sftp_id : s->opened_id))
		s->sftp_gone = true;
	if (data[0] != CHANNEL_REQUEST || !wire_u32(&w, &id) || !wire_string(&w, &name) ||
	    w.left < 5)
		return;
	for (ch = s->chans; ch != NULL && (ch->lib == NULL || ch->id != id);
	     ch = ch->next)
		;
	if (ch == NULL)
		return;
	w.p++;
	w.left--;
	if (wire_is(&name, "exit-status") && wire_u32(&w, &status)) {
		ch->status = (int)status;
		ch->status_known = true;
	} else if (wire_is(&name, "exit-signal") && wire_string(&w, &signal)) {
		clean(ch->signal, sizeof ch->signal, (const char *)signal.p, signal.left);
		ch->status_known = true;
	}
}

void *
pump_alloc(struct session *s, size_t size)
{
	struct block *b = size < SIZE_MAX / 2 ? malloc(sizeof *b + size) : NULL;

	if (b == NULL)
		return NULL;
	b->size = size;
	b->prev = NULL;
	b->next = s->blocks;
	if (b->next != NULL)
		b->next->prev = b;
	s->blocks = b;
	return b + 1;
}

static void
block_free(struct session *s, struct block *b)
{
	if (b->prev != NULL)
		b->prev->next = b->next;
	else
		s->blocks = b->next;
	if (b->next != NULL)
		b->next->prev = b->prev;
	lb_wipe(b + 1, b->size);
	free(b);
}

static LIBSSH2_ALLOC_FUNC(mem_alloc)
{
	return pump_alloc(*abstract, count);
}

static LIBSSH2_FREE_FUNC(mem_free)
{
	struct block *b = ptr;
	struct session *s = *abstract;

	if (b-- == NULL)
		return;
	if (b->size > 9)
		packet_seen(s, ptr, b->size);
	block_free(s, b);
}

static LIBSSH2_REALLOC_FUNC(mem_realloc)
{
	struct session *s = *abstract;
	void *grown = pump_alloc(s, count);
	struct block *b = ptr;

	if (grown == NULL || b-- == NULL)
		return grown;
	memcpy(grown, ptr, b->size < count ? b->size : count);
	block_free(s, b);
	return grown;
}

/* The socket, as libssh2 sees it: never full, and its end comes after all that was read.
 */

static LIBSSH2_SEND_FUNC(io_send)
{
	struct session *s = *abstract;

	(void)socket;
	(void)flags;
	if (s->dead)
		return -EPIPE;
	if (s->mute)
		return (ssize_t)length;
	return lb_buf_add(&s->out, buffer, length) ? (ssize_t)length : -ENOMEM;
}

static LIBSSH2_RECV_FUNC(io_recv)
{
	struct session *s = *abstract;
	ssize_t n;
	int on = 1;

	(void)flags;
	if (s->dead)
		return -ECONNRESET;
	if (s->eof)
		return -EAGAIN;
	n = recv(socket, buffer, length, MSG_DONTWAIT);
	if (n > 0) {
		s->last_in = now();
		s->received += (size_t)n;
		/* until sshd has its first session it waits for every ACK, which is late
		 */
		if (s->received < QUICK_MAX)
			setsockopt(socket, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
		/* libssh2 would skip lines for ever while it looks for a banner */
		if (!s->shaken && s->received > BANNER_MAX)
			return -EPROTO;
		return n;
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		/* when sftp ends inside a packet libssh2 asks on and on */
		return ++s->vain < VAIN_MAX ? -EAGAIN : -EPROTO;
	s->error = n < 0 ? errno : 0;
	s->eof = true;
	return -EAGAIN;
}

static LIBSSH2_DISCONNECT_FUNC(io_bye)
{
	struct session *s = *abstract;

	(void)session;
	(void)reason;
	(void)language;
	(void)language_len;
	if (message != NULL && message_len > 0)
		clean(s->bye, sizeof s->bye, message, (size_t)message_len);
}

/* libssh2 takes functions as void *, which C does not convert. */
static void
set_callback(LIBSSH2_SESSION *lib, int type, void (*f)(void))
{
	void *p;

	memcpy(&p, &f, sizeof p);
	libssh2_session_callback_set(lib, type, p);
}

bool
pump_open(struct session *s)
{
	s->lib = libssh2_session_init_ex(mem_alloc, mem_free, mem_realloc, s);
	if (s->lib == NULL)
		return false;
	libssh2_session_set_blocking(s->lib, 0);
	set_callback(s->lib, LIBSSH2_CALLBACK_SEND, (void (*)(void))io_send);
	set_callback(s->lib, LIBSSH2_CALLBACK_RECV, (void (*)(void))io_recv);
	set_callback(s->lib, LIBSSH2_CALLBACK_DISCONNECT, (void (*)(void))io_bye);
	return true;
}

void
pump_close(struct session *s)
{
	struct block *b, *next;

	if (s->lib != NULL)
		libssh2_session_free(s->lib);
	s->lib = NULL;
	for (b = s->blocks; b != NULL; b = next) {
		next = b->next;
		lb_wipe(b + 1, b->size);
		free(b);
	}
	s->blocks = NULL;
}

void
flush(struct session *s)
{
	while (s->sent < s->out.len) {
		ssize_t n = send(s->fd, s->out.data + s->sent, s->out.len - s->sent,
		    MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n < 0) {
			/* what has arrived can still be read, and then its end */
			s->error = errno;
			s->mute = true;
			s->sent = s->out.len;
			break;
		}
		s->sent += (size_t)n;
	}
	if (s->sent == s->out.len || s->sent > WRITE_AHEAD) {
		lb_buf_drop(&s->out, s->sent);
		s->sent = 0;
	}
}

/* Ends */

void
op_free(struct op *op)
{
	if (op->data != NULL)
		lb_wipe(op->data, op->len);
	free(op->path);
	free(op->data);
	free(op);
}

void
op_fail(struct op *op, const char *code, const char *fmt, ...)
{
	va_list args;

	snprintf(op->code, sizeof op->code, "%s", code);
	va_start(args, fmt);
	vsnprintf(op->why, sizeof op->why, fmt, args);
	va_end(args);
}

static void
op_end(struct session *s, struct op *op)
{
	struct op **p;

	for (p = &s->ops; *p != op; p = &(*p)->next)
		;
	*p = op->next;
	if (s->active == op)
		s->active = NULL;
	op->ended = true;
	if (op->box != NULL)
		lb_wake(&op->box->slot.wait);
	else
		op_free(op);
}

void
op_queue(struct session *s, struct op *op, bool first)
{
	struct op **p = &s->ops;

	while (!first && *p != NULL)
		p = &(*p)->next;
	op->next = *p;
	*p = op;
}

/* The session is over. libssh2 frees its half-done work only when it is called again and
 * fails, so it is called, with a socket that fails at once: nothing goes out. */
void
die(struct session *s, const char *code, const char *fmt, ...)
{
	struct op *active = s->active;
	va_list args;

	if (s->dead)
		return;
	snprintf(s->code, sizeof s->code, "%s", code);
	va_start(args, fmt);
	vsnprintf(s->why, sizeof s->why, fmt, args);
	va_end(args);
	s->dead = true;
	lb_poll_free(s->poll);
	lb_timer_free(s->again);
	lb_timer_free(s->beat);
	s->poll = NULL;
	s->again = s->beat = NULL;
	s->active = NULL;
	if (active != NULL)
		active->step(s, active);
	if (s->phase == HANDSHAKING && !s->shaken && s->lib != NULL)
		libssh2_session_handshake(s->lib, s->fd);
	while (s->ops != NULL) {
		op_fail(s->ops, s->code, "%s", s->why);
		op_end(s, s->ops);
	}
	files_end(s);
	chans_end(s);
	listeners_end(s);
	hosts_end(s);
	pump_close(s);
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	lb_buf_free(&s->out);
	if (s->box != NULL)
		lb_wake(&s->box->slot.wait);
	chans_reap(s);
}

/* After an error of libssh2 that is the session's, not one channel's. */
void
die_lib(struct session *s, int rc)
{
	const char *code = rc == LIBSSH2_ERROR_TIMEOUT ? "timeout" : "closed";
	char *msg = NULL;

	if (s->dead)
		return;
	libssh2_session_last_error(s->lib, &msg, NULL, 0);
	if (s->bye[0] != '\0')
		die(s, code, "%s closed the connection: %s", s->name, s->bye);
	else
		die(s, code, "the connection to %s broke: %s (libssh2 %d)", s->name,
		    msg != NULL ? msg : "", rc);
}

static bool
speaks_ssh(const struct session *s)
{
	const char *banner = libssh2_session_banner_get(s->lib);

	return banner != NULL && strncmp(banner, "SSH-", 4) == 0;
}

static void
die_eof(struct session *s)
{
	const char *code = s->phase < READY ? "connect" : "closed";
	char buf[128];

	if (s->bye[0] != '\0')
		die(s, code, "%s closed the connection: %s", s->name, s->bye);
	else if (s->received > 0 && !speaks_ssh(s))
		die(s, code, "%s does not speak SSH", s->name);
	else if (s->error != 0 && (s->phase == READY || s->error != ECONNRESET))
		die(s, code, "the connection to %s broke: %s", s->name,
		    strerror_r(s->error, buf, sizeof buf));
	else if (s->phase == READY)
		die(s, code, "%s closed the connection", s->name);
	else
		die(s, code,
		    "%s closed the connection before the login was complete; it may "
		    "be busy, or have banned this address",
		    s->name);
}

/* Operations: one at a time, since libssh2 keeps the state of an opening or of sftp in
 * the session, and each is repeated until it is through. */

bool
op_of_channel(int rc)
{
	switch (rc) {
	case LIBSSH2_ERROR_CHANNEL_FAILURE:
	case LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED:
	case LIBSSH2_ERROR_CHANNEL_CLOSED:
	case LIBSSH2_ERROR_CHANNEL_EOF_SENT:
	case LIBSSH2_ERROR_CHANNEL_UNKNOWN:
	case LIBSSH2_ERROR_REQUEST_DENIED:
	case LIBSSH2_ERROR_SFTP_PROTOCOL:
		return true;
	default:
		return false;
	}
}

void
sessions_count(const struct session *s, int *held, int *all)
{
	const struct chan *ch;

	*held = *all = s->sftp != NULL;
	for (ch = s->chans; ch != NULL; ch = ch->next) {
		if (ch->lib == NULL || ch->direct)
			continue;
		++*all;
		*held += !ch->dropped;
	}
}

bool
op_may_start(const struct session *s, const struct op *op)
{
	int held, all;

	if (!op->session_channel)
		return true;
	sessions_count(s, &held, &all);
	if (held >= CHANNELS_MAX || all >= SESSIONS_MAX)
		return false;
	return all < s->refused_at || now() >= s->refused_until;
}

/* The server has no session left: its limit, or commands that still run although their
 * channel is closed. Asked again when one of ours has ended, or after a pause. false: it
 * never gave any. */
bool
op_wait_for_session(struct session *s)
{
	int held, all;

	sessions_count(s, &held, &all);
	if (all == 0 && !s->had_session)
		return false;
	s->refused_at = all;
	s->refused_until = now() + REFUSED_PAUSE;
	lb_timer_set(s->again, REFUSED_PAUSE);
	s->active = NULL;
	return true;
}

static bool
ops_run(struct session *s)
{
	bool progress = false;
	struct op *op;

	for (;;) {
		for (op = s->ops; s->active == NULL && op != NULL; op = op->next)
			if (op_may_start(s, op))
				s->active = op;
		op = s->active;
		s->vain = 0;
		if (op == NULL || !op->step(s, op) || s->dead)
			return progress && !s->dead;
		op_end(s, op);
		progress = true;
	}
}

/* A question that every server answers with a refusal. While no channel is open nothing
 * else makes libssh2 read, and what the server asks must be answered. It is the heartbeat
 * too: answers to libssh2_keepalive_send would stay in libssh2's queue for ever. */
static bool
noop_step(struct session *s, struct op *op)
{
	static const char type[] = "noop@lbrun";
	LIBSSH2_CHANNEL *ch;
	int rc;

	(void)op;
	ch =
	    libssh2_channel_open_ex(s->lib, type, sizeof type - 1, CHUNK, CHUNK, NULL, 0);
	if (ch != NULL) {
		libssh2_channel_free(ch);
		return true;
	}
	rc = libssh2_session_last_errno(s->lib);
	if (rc == LIBSSH2_ERROR_EAGAIN)
		return false;
	if (rc != LIBSSH2_ERROR_CHANNEL_FAILURE)
		die_lib(s, rc);
	return true;
}

static void
noop(struct session *s)
{
	struct op *op;

	if (s->active != NULL || (op = calloc(1, sizeof *op)) == NULL)
		return; /* the active one makes it read, too */
	op->step = noop_step;
	op_queue(s, op, true);
}

/* The pump */

/* Whether somebody makes libssh2 read: else the socket is left alone, and the server's
 * windows fill up. */
static bool
has_reader(const struct session *s, bool *stuffed)
{
	const struct chan *ch;
	bool open = false;

	*stuffed = false;
	for (ch = s->chans; ch != NULL; ch = ch->next) {
		if (ch->lib == NULL || !ch->opened)
			continue;
		open = true;
		if (ch->dropped || !chan_stuffed(ch))
			return true;
		*stuffed = true;
	}
	return s->active != NULL || (!open && s->phase == HANDSHAKING);
}

static void
poll_update(struct session *s)
{
	bool stuffed, reader = has_reader(s, &stuffed);
	int want = 0;

	if (s->dead || s->poll == NULL)
		return;
	if (reader || !stuffed || s->mute)
		want |= LB_READ;
	if (s->sent < s->out.len)
		want |= LB_WRITE;
	if (want == s->polled)
		return;
	s->polled = want;
	if (!lb_poll_set(s->poll, want))
		die(s, "closed", "the socket cannot be watched");
}

static void
handshake_run(struct session *s)
{
	char *msg = NULL;
	int rc;

	if (s->phase != HANDSHAKING || s->shaken)
		return;
	rc = libssh2_session_handshake(s->lib, s->fd);
	if (rc == LIBSSH2_ERROR_EAGAIN)
		return;
	if (rc == 0) {
		s->shaken = true;
		lb_wake(&s->box->slot.wait);
		return;
	}
	libssh2_session_last_error(s->lib, &msg, NULL, 0);
	if (!speaks_ssh(s))
		die(s, "connect", "%s does not speak SSH", s->name);
	else if (s->bye[0] != '\0')
		die(s, "connect", "%s closed the connection: %s", s->name, s->bye);
	else if (rc == LIBSSH2_ERROR_KEX_FAILURE ||
	    rc == LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE)
		die(s, "connect",
		    "%s and libssh2 %s found no common algorithms, or the key "
		    "exchange failed: %s",
		    s->name, libssh2_version(0), msg != NULL ? msg : "");
	else
		die(s, "connect", "the handshake with %s failed: %s (libssh2 %d)",
		    s->name, msg != NULL ? msg : "", rc);
}

void
pump(struct session *s)
{
	struct chan *ch;
	bool progress, stuffed, mute;
	size_t received;
	int rounds = 0;
	char peek;

	if (s->dead || s->working || s->phase < HANDSHAKING)
		return;
	do {
		received = s->received;
		progress = false;
		handshake_run(s);
		if (!s->dead && s->phase == READY) {
			files_run(s);
			progress = ops_run(s);
		}
		for (ch = s->chans; !s->dead && ch != NULL;
		     ch = s->dead ? NULL : ch->next)
			if (chan_run(s, ch))
				progress = true;
		if (s->dead)
			return;
		/* Whoever read last may have taken from the socket what is for one that
		 * was asked before: libssh2 keeps it, and the socket does not tell again.
		 */
		if (s->received != received)
			progress = true;
		mute = s->mute;
		flush(s);
		if (s->mute && !mute)
			progress = true;
		if (!progress && s->phase == READY && !s->eof &&
		    !has_reader(s, &stuffed) && !stuffed) {
			ssize_t n = recv(s->fd, &peek, 1, MSG_PEEK | MSG_DONTWAIT);

			if (n > 0)
				noop(s);
			progress = n > 0;
			s->eof = n == 0 ||
			    (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK &&
				errno != EINTR);
			s->error = n < 0 ? errno : 0;
		}
	} while (progress && ++rounds < ROUNDS);
	chans_reap(s);
	if (progress)
		lb_timer_set(s->again, 0);
	else if (s->ops != NULL && s->active == NULL && now() < s->refused_until)
		lb_timer_set(s->again, s->refused_until - now());
	if (s->eof && !progress)
		die_eof(s);
	else
		poll_update(s);
}

void
pump_again(void *arg)
{
	pump(arg);
}

void
pump_beat(void *arg)
{
	struct session *s = arg;
	int next;

	if (s->dead || s->phase < READY)
		return;
	if ((s->polled & LB_READ) == 0) {
		s->last_in = now();
	} else if (now() - s->last_in > 3 * s->keepalive) {
		die(s, "closed", "no answer from %s for %.0f seconds", s->name,
		    now() - s->last_in);
		return;
	}
	if (s->active != NULL) {
		/* it may wait long for its own answer */
		libssh2_keepalive_config(s->lib, 1, 2);
		libssh2_keepalive_send(s->lib, &next);
	} else {
		noop(s);
	}
	lb_timer_set(s->beat, s->keepalive);
	pump(s);
}
