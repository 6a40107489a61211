/* ssh_chan.c: the channels of a session: commands and forwarded connections, read into
 * and written from buffers here. What nobody takes is not read, so that the server's
 * window fills up. It calls no Lua. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libssh2.h>

#include "ssh_pump.h"

void
stream_wake(struct stream *st)
{
	if (st == NULL)
		return;
	lb_wake(&st->reader.wait);
	lb_wake(&st->writer.wait);
	lb_wake(&st->other.wait);
}

struct chan *
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

bool
chan_wanted(const struct chan *ch)
{
	return !ch->dropped && (ch->stream != NULL || ch->pipe != NULL);
}

bool
chan_exec_step(struct session *s, struct op *op)
{
	struct chan *ch = op->chan;
	char *msg = NULL;
	int rc;

	if (op->state == 0) {
		if (!chan_wanted(ch)) {
			ch->failed = true;
			return true;
		}
		ch->lib = libssh2_channel_open_ex(
		    s->lib, "session", 7, LIBSSH2_CHANNEL_WINDOW_DEFAULT, CHUNK, NULL, 0);
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
		s->had_session = true;
		op->state = 1;
	}
	rc = libssh2_channel_process_startup(
	    ch->lib, "exec", 4, op->path, (unsigned int)op->len);
	if (rc == LIBSSH2_ERROR_EAGAIN)
		return false;
	if (rc != 0 && !op_of_channel(rc)) {
		die_lib(s, rc);
		return true;
	}
	ch->opened = true;
	if (rc != 0) {
		ch->dropped = true;
		chan_fail(
		    ch, "refused", "the server does not run commands for this user");
	}
	stream_wake(ch->stream);
	return true;
}

bool
chan_direct_step(struct session *s, struct op *op)
{
	struct chan *ch = op->chan;
	char *msg = NULL;
	int rc;

	if (!chan_wanted(ch)) {
		ch->failed = true;
		return true;
	}
	ch->lib =
	    libssh2_channel_direct_tcpip_ex(s->lib, op->path, op->port, "127.0.0.1", 22);
	if (ch->lib != NULL) {
		ch->id = s->opened_id;
		ch->opened = true;
		return true;
	}
	rc = libssh2_session_last_error(s->lib, &msg, NULL, 0);
	if (rc == LIBSSH2_ERROR_EAGAIN)
		return false;
	if (op_of_channel(rc)) {
		chan_fail(ch, "refused", msg);
		pipe_end(ch);
	} else {
		die_lib(s, rc);
	}
	return true;
}

void
chan_fail(struct chan *ch, const char *code, const char *why)
{
	snprintf(ch->code, sizeof ch->code, "%s", code);
	snprintf(ch->why, sizeof ch->why, "%s", why);
	ch->failed = true;
	stream_wake(ch->stream);
}

/* Frees what is over on both sides and held by nobody. */
void
chans_reap(struct session *s)
{
	struct chan **p = &s->chans, *ch;

	while ((ch = *p) != NULL) {
		bool opening = !ch->opened && !ch->failed && !s->dead;

		if (ch->lib != NULL || ch->stream != NULL || ch->pipe != NULL ||
		    opening) {
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

/* The session is dead: closing sends nothing and ends at once. */
void
chans_end(struct session *s)
{
	struct chan *ch;

	for (ch = s->chans; ch != NULL; ch = ch->next) {
		if (ch->lib != NULL)
			libssh2_channel_free(ch->lib);
		ch->lib = NULL;
		pipe_end(ch);
		stream_wake(ch->stream);
	}
}

bool
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
		n = libssh2_channel_write_ex(
		    ch->lib, 0, ch->out.data, ch->out.len < CHUNK ? ch->out.len : CHUNK);
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
		/* at the end all is taken that has arrived: nothing more will */
		while (!chan_stuffed(ch) || s->eof || s->mute) {
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

bool
chan_run(struct session *s, struct chan *ch)
{
	bool progress, known = ch->status_known;
	int rc;

	progress = ch->pipe != NULL && pipe_run(ch);
	if (ch->lib == NULL || !ch->opened)
		return progress;
	if (!ch->dropped && chan_write(s, ch))
		progress = true;
	if (!s->dead && !ch->dropped && chan_read(s, ch))
		progress = true;
	if (s->dead)
		return false;
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
