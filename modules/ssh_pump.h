/* ssh_pump.h: one SSH session on libssh2 and the pump that drives it, for ssh.c alone.
 * libssh2 never sees a full socket: what it sends goes into a buffer that drains by itself,
 * so no call is ever left half sent. It calls no Lua: it wakes those who wait. */
#ifndef SSH_PUMP_H
#define SSH_PUMP_H

#include <stdarg.h>
#include <time.h>

#include <libssh2.h>
#include <libssh2_sftp.h>

#include "ssh_keys.h"

enum {
	CHANNELS_MAX = 4,         /* that Lua holds at once */
	SESSIONS_MAX = 8,         /* with those that the server has not closed yet */
	CHUNK = 32768,
	READ_AHEAD = 256 * 1024,  /* of a channel, before it is not read any more */
	WRITE_AHEAD = 128 * 1024, /* of a channel, and of the socket */
	BANNER_MAX = 65536,
	ROUNDS = 64               /* of the pump before others have their turn */
};

/* Somebody in Lua who waits until `until`. */
struct slot {
	struct lb_wait wait;
	double until;
};

/* A stream in Lua: what its tasks wait for. */
struct stream {
	struct chan *chan;
	struct slot reader, writer, other;
	bool closed;
};

struct chan {
	struct chan *next;
	struct session *session;
	LIBSSH2_CHANNEL *lib;    /* NULL: not open yet, or closed on both sides */
	struct stream *stream;   /* NULL: nobody holds it */
	struct pipe *pipe;       /* a forwarded connection instead of a stream */
	uint32_t id;
	struct lb_buf in[2], out;
	char signal[16];
	char code[16], why[200]; /* why it never opened */
	int status;
	bool first;              /* which of in[] got something first */
	bool direct;             /* takes none of the server's sessions */
	bool opened, failed, status_known;
	bool shut, shut_sent;    /* our end of file: wanted, sent */
	bool eof, closed;        /* theirs */
	bool cut;                /* writing came to an end before all was taken */
	bool dropped;            /* to be closed: nobody wants it */
};

/* One thing that libssh2 does at a time. */
struct op {
	struct op *next;
	bool (*step)(struct session *s, struct op *op); /* true: it has ended */
	void (*drop)(struct session *s, struct op *op); /* nobody wants the result; or NULL */
	struct opbox *box;       /* who waits in Lua; NULL: nobody */
	struct chan *chan;
	struct file *file;
	char *path, *other;
	size_t len, done;
	long mode;
	unsigned long flags;
	LIBSSH2_SFTP_ATTRIBUTES attrs;
	int state, port;
	bool session_channel;    /* waits for a free one */
	bool ended;
	char code[16], why[200];
};

struct opbox {
	struct session *session;
	struct op *op;
	struct slot slot;
};

enum phase { RESOLVING, CONNECTING, HANDSHAKING, AUTHENTICATING, READY };

struct session {
	LIBSSH2_SESSION *lib;
	struct box *box;
	struct login *login;     /* until READY */
	enum phase phase;
	int fd;
	struct lb_poll *poll;
	struct lb_timer *again, *beat;
	int polled;
	struct lb_buf out;
	size_t sent;             /* of out */
	size_t received;
	double last_in, keepalive;
	struct op *ops, *active;
	struct chan *chans;
	int sessions_max;        /* that the server seems to allow */
	uint32_t opened_id;
	LIBSSH2_SFTP *sftp;
	struct file *files;
	struct listener *listeners;
	bool shaken;             /* the handshake is done */
	bool eof, dead;
	bool working;            /* a worker thread has it */
	bool released;           /* to be destroyed when that is done */
	int error;               /* of the socket */
	char name[300];          /* for messages: host:port */
	char code[16], why[400];
	char bye[160];           /* what the server said as it left */
	/* what the login found */
	char *hostkey;
	char hostkey_type[64], fingerprint[64];
	const char *trusted, *method;
	char *identity;
};

struct box {
	struct session *session;
	struct slot slot;
};

static void pump(struct session *s);
static void pipe_run(struct chan *ch);
static void pipe_end(struct chan *ch);
static void hosts_end(struct session *s);
static void files_end(struct session *s);
static void listeners_end(struct session *s);

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Foreign text in messages: one line, printable. */
static void
clean(char *out, size_t size, const char *text, size_t len)
{
	size_t i;

	for (i = 0; i < len && i + 1 < size && text[i] != '\0'; i++)
		out[i] = (unsigned char)text[i] < ' ' || text[i] == 127 ? ' ' : text[i];
	out[i] = '\0';
}

/* Memory of libssh2: wiped when freed, since keys and passphrases pass through it. And the
 * one place where an exit status can be seen to arrive: libssh2 keeps 0 both for "0" and
 * for "none came", and a channel that was cut must not look like a command that worked. */

struct block {
	_Alignas(max_align_t) size_t size;
};

static void
packet_seen(struct session *s, const unsigned char *data, size_t size)
{
	enum { CHANNEL_OPEN = 90, CHANNEL_REQUEST = 98 };
	struct wire w = { data + 1, size - 1 }, name, signal;
	struct chan *ch;
	uint32_t id, status;

	if (data[0] == CHANNEL_OPEN && wire_string(&w, &name) && wire_u32(&w, &id))
		s->opened_id = id;
	if (data[0] != CHANNEL_REQUEST || !wire_u32(&w, &id) || !wire_string(&w, &name) ||
	    w.left < 5)
		return;
	for (ch = s->chans; ch != NULL && (ch->lib == NULL || ch->id != id); ch = ch->next)
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

static LIBSSH2_ALLOC_FUNC(mem_alloc)
{
	struct block *b = count < SIZE_MAX / 2 ? malloc(sizeof *b + count) : NULL;

	(void)abstract;
	if (b == NULL)
		return NULL;
	b->size = count;
	return b + 1;
}

static LIBSSH2_FREE_FUNC(mem_free)
{
	struct block *b = ptr;

	if (b == NULL)
		return;
	b--;
	if (b->size > 9 && *abstract != NULL)
		packet_seen(*abstract, ptr, b->size);
	lb_wipe(ptr, b->size);
	free(b);
}

static LIBSSH2_REALLOC_FUNC(mem_realloc)
{
	void *grown = mem_alloc(count, abstract);
	struct block *b = ptr;

	if (grown == NULL || b == NULL)
		return grown;
	b--;
	memcpy(grown, ptr, b->size < count ? b->size : count);
	lb_wipe(ptr, b->size);
	free(b);
	return grown;
}

/* The socket, as libssh2 sees it: never full, and its end comes after all that was read. */

static LIBSSH2_SEND_FUNC(io_send)
{
	struct session *s = *abstract;

	(void)socket;
	(void)flags;
	if (s->dead)
		return -EPIPE;
	return lb_buf_add(&s->out, buffer, length) ? (ssize_t)length : -ENOMEM;
}

static LIBSSH2_RECV_FUNC(io_recv)
{
	struct session *s = *abstract;
	ssize_t n;

	(void)flags;
	if (s->dead)
		return -ECONNRESET;
	if (s->eof)
		return -EAGAIN;
	n = recv(socket, buffer, length, MSG_DONTWAIT);
	if (n > 0) {
		s->last_in = now();
		s->received += (size_t)n;
		/* libssh2 would skip lines for ever while it looks for a banner */
		if (!s->shaken && s->received > BANNER_MAX)
			return -EPROTO;
		return n;
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return -EAGAIN;
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

static void
flush(struct session *s)
{
	while (s->sent < s->out.len && !s->eof) {
		ssize_t n = send(s->fd, s->out.data + s->sent, s->out.len - s->sent,
		    MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n < 0) {
			s->error = errno;
			s->eof = true;
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

static void
stream_wake(struct stream *st)
{
	if (st == NULL)
		return;
	lb_wake(&st->reader.wait);
	lb_wake(&st->writer.wait);
	lb_wake(&st->other.wait);
}

static void
op_free(struct op *op)
{
	if (op->other != NULL)
		lb_wipe(op->other, op->len);
	free(op->path);
	free(op->other);
	free(op);
}

static void __attribute__((format(printf, 3, 4)))
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
	if (op->box != NULL) {
		lb_wake(&op->box->slot.wait);
		return;
	}
	if (op->drop != NULL)
		op->drop(s, op);
	op_free(op);
}

static void
op_queue(struct session *s, struct op *op)
{
	struct op **p;

	for (p = &s->ops; *p != NULL; p = &(*p)->next)
		;
	*p = op;
}

static void
chan_fail(struct chan *ch, const char *code, const char *why)
{
	snprintf(ch->code, sizeof ch->code, "%s", code);
	snprintf(ch->why, sizeof ch->why, "%s", why);
	ch->failed = true;
	stream_wake(ch->stream);
}

/* Frees what is over on both sides and held by nobody. */
static void
chans_reap(struct session *s)
{
	struct chan **p = &s->chans, *ch;

	while ((ch = *p) != NULL) {
		bool opening = !ch->opened && !ch->failed && !s->dead;

		if (ch->lib != NULL || ch->stream != NULL || ch->pipe != NULL || opening) {
			p = &ch->next;
			continue;
		}
		*p = ch->next;
		lb_buf_free(&ch->in[0]);
		lb_buf_free(&ch->in[1]);
		lb_buf_free(&ch->out);
		free(ch);
	}
}

/* The session is over. libssh2 frees its half-done work only when it is called again and
 * fails, so it is called, with a socket that fails at once: nothing goes out. */
static void __attribute__((format(printf, 3, 4)))
die(struct session *s, const char *code, const char *fmt, ...)
{
	struct op *active = s->active;
	struct chan *ch;
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
	for (ch = s->chans; ch != NULL; ch = ch->next) {
		if (ch->lib != NULL)
			libssh2_channel_free(ch->lib);
		ch->lib = NULL;
		pipe_end(ch);
		stream_wake(ch->stream);
	}
	listeners_end(s);
	hosts_end(s);
	if (s->lib != NULL)
		libssh2_session_free(s->lib);
	s->lib = NULL;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	lb_buf_free(&s->out);
	if (s->box != NULL)
		lb_wake(&s->box->slot.wait);
	chans_reap(s);
}

/* After an error of libssh2 that is the session's, not one channel's. */
static void
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
	else if (s->error != 0)
		die(s, code, "the connection to %s broke: %s", s->name,
		    strerror_r(s->error, buf, sizeof buf));
	else
		die(s, code, "%s closed the connection%s", s->name, s->phase < READY ?
		    " before the login was complete (it may be busy, or have banned this "
		    "address)" : "");
}

/* Operations: one at a time, since libssh2 keeps the state of an opening or of sftp in the
 * session, and each is repeated until it is through. */

static bool
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

static void
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

static bool
op_may_start(const struct session *s, const struct op *op)
{
	int held, all;

	if (!op->session_channel)
		return true;
	sessions_count(s, &held, &all);
	return held < CHANNELS_MAX && all < s->sessions_max;
}

/* The server opens no more sessions: fewer from now on, and this one waits for one of ours
 * to end. false: there is none to wait for. */
static bool
op_wait_for_session(struct session *s)
{
	int held, all;

	sessions_count(s, &held, &all);
	if (all == 0)
		return false;
	s->sessions_max = all;
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
		if (op == NULL || !op->step(s, op) || s->dead)
			return progress && !s->dead;
		op_end(s, op);
		progress = true;
	}
}

/* A question that every server answers with a refusal: while no channel is open, nothing
 * else makes libssh2 read, and what the server asks must be answered. It is the heartbeat
 * too: the answer to keepalive@openssh.com would stay in libssh2's queue for ever. */
static bool
noop_step(struct session *s, struct op *op)
{
	static const char type[] = "noop@lbrun";
	LIBSSH2_CHANNEL *ch;
	int rc;

	(void)op;
	ch = libssh2_channel_open_ex(s->lib, type, sizeof type - 1, CHUNK, CHUNK, NULL, 0);
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

	if (s->ops != NULL || (op = calloc(1, sizeof *op)) == NULL)
		return;
	op->step = noop_step;
	op_queue(s, op);
}

/* Channels */

static bool
chan_stuffed(const struct chan *ch)
{
	return ch->in[0].len + ch->in[1].len >= READ_AHEAD;
}

static bool
chan_write(struct session *s, struct chan *ch)
{
	bool progress = false;
	ssize_t n;
	int rc;

	while (ch->out.len > 0 && s->out.len - s->sent < WRITE_AHEAD) {
		n = libssh2_channel_write_ex(ch->lib, 0, ch->out.data,
		    ch->out.len < CHUNK ? ch->out.len : CHUNK);
		if (n == LIBSSH2_ERROR_EAGAIN || n == 0)
			break;
		if (n < 0 && !op_of_channel((int)n)) {
			die_lib(s, (int)n);
			return false;
		}
		if (n < 0) {
			ch->cut = true;
			lb_buf_free(&ch->out);
			stream_wake(ch->stream);
			break;
		}
		lb_buf_drop(&ch->out, (size_t)n);
		progress = true;
	}
	if (progress && ch->stream != NULL && ch->out.len < WRITE_AHEAD / 2)
		lb_wake(&ch->stream->writer.wait);
	if (ch->shut && !ch->shut_sent && ch->out.len == 0) {
		rc = libssh2_channel_send_eof(ch->lib);
		if (rc == LIBSSH2_ERROR_EAGAIN)
			return progress;
		ch->shut_sent = true;
		stream_wake(ch->stream);
	}
	return progress;
}

static bool
chan_read(struct session *s, struct chan *ch)
{
	char chunk[CHUNK];
	bool progress = false, empty;
	ssize_t n;
	int i;

	for (i = 0; i < 2; i++) {
		while (!chan_stuffed(ch)) {
			n = libssh2_channel_read_ex(ch->lib, i, chunk, sizeof chunk);
			if (n == LIBSSH2_ERROR_EAGAIN || n == 0)
				break;
			if (n < 0) {
				die_lib(s, (int)n);
				return false;
			}
			empty = ch->in[0].len + ch->in[1].len == 0;
			if (empty)
				ch->first = i == 1;
			if (!lb_buf_add(&ch->in[i], chunk, (size_t)n)) {
				die(s, "closed", "out of memory");
				return false;
			}
			lb_wipe(chunk, (size_t)n);
			progress = true;
		}
	}
	return progress;
}

static bool
chan_run(struct session *s, struct chan *ch)
{
	bool progress, known = ch->status_known;
	int rc;

	if (ch->lib == NULL || !ch->opened)
		return false;
	progress = !ch->dropped && chan_write(s, ch);
	if (!s->dead && !ch->dropped && chan_read(s, ch))
		progress = true;
	if (s->dead)
		return false;
	if (ch->pipe != NULL)
		pipe_run(ch);
	if (!ch->eof && libssh2_channel_eof(ch->lib) == 1) {
		ch->eof = progress = true;
		stream_wake(ch->stream);
	}
	if (ch->eof && !ch->closed && libssh2_channel_wait_closed(ch->lib) == 0)
		ch->closed = true;
	if (ch->closed || ch->dropped) {
		rc = libssh2_channel_free(ch->lib);
		if (rc != LIBSSH2_ERROR_EAGAIN) {
			ch->lib = NULL;
			ch->closed = progress = true;
			if (ch->out.len > 0)
				ch->cut = true;
			lb_buf_free(&ch->out);
			stream_wake(ch->stream);
		}
	}
	if (ch->stream != NULL && ch->in[0].len + ch->in[1].len > 0)
		lb_wake(&ch->stream->reader.wait);
	if (ch->stream != NULL && ch->status_known && !known)
		lb_wake(&ch->stream->other.wait);
	return progress;
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
	if (!s->eof && (reader || !stuffed))
		want |= LB_READ;
	if (!s->eof && s->sent < s->out.len)
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
	else if (rc == LIBSSH2_ERROR_KEX_FAILURE || rc == LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE)
		die(s, "connect", "%s and libssh2 %s found no common algorithms, or the key "
		    "exchange failed: %s", s->name, libssh2_version(0),
		    msg != NULL ? msg : "");
	else
		die(s, "connect", "the handshake with %s failed: %s (libssh2 %d)", s->name,
		    msg != NULL ? msg : "", rc);
}

static void
pump(struct session *s)
{
	struct chan *ch;
	bool progress, stuffed;
	int rounds = 0;
	char peek;

	if (s->dead || s->working || s->phase < HANDSHAKING)
		return;
	do {
		progress = false;
		handshake_run(s);
		if (!s->dead && s->phase == READY && ops_run(s))
			progress = true;
		for (ch = s->chans; !s->dead && ch != NULL; ch = s->dead ? NULL : ch->next)
			if (chan_run(s, ch))
				progress = true;
		if (s->dead)
			return;
		flush(s);
		if (!progress && s->phase == READY && !s->eof && !has_reader(s, &stuffed) &&
		    !stuffed) {
			ssize_t n = recv(s->fd, &peek, 1, MSG_PEEK | MSG_DONTWAIT);

			if (n > 0)
				noop(s);
			s->eof = n == 0;
			progress = n > 0 && s->ops != NULL;
		}
	} while (progress && ++rounds < ROUNDS);
	chans_reap(s);
	if (progress) {
		lb_timer_set(s->again, 0);
	} else if (s->eof) {
		has_reader(s, &stuffed);
		if (!stuffed) {
			die_eof(s);
			return;
		}
	}
	poll_update(s);
}

static void
on_again(void *arg)
{
	pump(arg);
}

static void
on_beat(void *arg)
{
	struct session *s = arg;

	if (s->dead || s->phase < READY)
		return;
	if ((s->polled & LB_READ) == 0) {
		s->last_in = now();
	} else if (now() - s->last_in > 3 * s->keepalive) {
		die(s, "closed", "no answer from %s for %.0f seconds", s->name,
		    now() - s->last_in);
		return;
	}
	noop(s);
	lb_timer_set(s->beat, s->keepalive);
	pump(s);
}

#endif
