/* ssh_pump.h: what drives a session; see ssh_pump.c. */
#ifndef SSH_PUMP_H
#define SSH_PUMP_H

#include "ssh_session.h"

enum {
	CHANNELS_MAX = 4, /* that Lua holds at once */
	SESSIONS_MAX = 8, /* with those that the server has not closed yet */
	CHUNK = 32768,
	READ_AHEAD = 256 * 1024,  /* of a channel, before it is not read any more */
	WRITE_AHEAD = 128 * 1024, /* of a channel, and of the socket */
};

double now(void);
void clean(char *out, size_t size, const char *text, size_t len);

/* libssh2 with the memory and the socket of this module; false: out of memory. */
bool pump_open(struct session *s);
void pump_close(struct session *s);               /* dead: nothing is sent */
void *pump_alloc(struct session *s, size_t size); /* what libssh2 may free */

/* Does all that can be done now; the poll and timer callbacks come here too. */
void pump(struct session *s);
void pump_again(void *session);
void pump_beat(void *session);
void flush(struct session *s);

/* The end of a session: everybody is told, nothing more is sent. */
void die(struct session *s, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void die_lib(struct session *s, int rc);

void op_queue(struct session *s, struct op *op, bool first);
void op_free(struct op *op);
void op_fail(struct op *op, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool op_may_start(const struct session *s, const struct op *op);
/* Whether an error of libssh2 concerns one channel and not the session. */
bool op_of_channel(int rc);
/* The server refused a session: this one waits and is tried again. false: no use. */
bool op_wait_for_session(struct session *s);
void sessions_count(const struct session *s, int *held, int *all);

/* Channels: ssh_chan.c */
struct chan *chan_new(struct session *s);
bool chan_stuffed(const struct chan *ch);
bool chan_wanted(const struct chan *ch);
bool chan_run(struct session *s, struct chan *ch);
void chan_fail(struct chan *ch, const char *code, const char *why);
void chans_end(struct session *s);
void chans_reap(struct session *s);
bool chan_exec_step(struct session *s, struct op *op);
bool chan_direct_step(struct session *s, struct op *op);
void stream_wake(struct stream *st);

/* Forwarding: ssh_forward.c */
bool pipe_run(struct chan *ch);
void pipe_end(struct chan *ch);
void listeners_end(struct session *s);

/* Files: ssh_files.c */
void files_run(struct session *s); /* queues what closes files and sftp itself */
void files_end(struct session *s);
void files_forget(struct session *s); /* at the very end of the session */

#endif
