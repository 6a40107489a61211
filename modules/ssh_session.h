/* ssh_session.h: a session, its channels and its operations, and what drives them
 * (ssh_pump.c, ssh_chan.c). None of it calls Lua: it wakes those who wait. */
#ifndef SSH_SESSION_H
#define SSH_SESSION_H

#include <stdint.h>

#include "lb.h"

/* Somebody in Lua who waits until `until`. */
struct slot {
	struct lb_wait wait;
	double until;
};

struct stream {
	struct chan *chan;
	struct slot reader, writer, other;
	bool closed;
};

struct chan {
	struct chan *next;
	struct session *session;
	struct _LIBSSH2_CHANNEL *lib; /* NULL: not open yet, or closed on both sides */
	struct stream *stream;        /* who holds it: a stream in Lua, */
	struct pipe *pipe;            /* or a forwarded connection, or nobody */
	uint32_t id;
	struct lb_buf in[2], out;
	char signal[16];
	char code[16], why[200]; /* why it never opened */
	int status;
	bool direct; /* takes none of the server's sessions */
	bool first;  /* which of in[] got something first */
	bool opened, failed, status_known;
	bool shut, shut_sent; /* our end of file: wanted, sent */
	bool eof, closed;     /* theirs */
	bool cut;             /* not all that was written has arrived */
	bool dropped;         /* nobody wants it: to be closed */
};

/* One thing that libssh2 does at a time. */
struct op {
	struct op *next;
	bool (*step)(struct session *s, struct op *op); /* true: it has ended */
	struct opbox *box;                              /* who waits in Lua, or NULL */
	struct chan *chan;
	struct file *file;
	char *path, *data;
	size_t len, done;
	long mode;
	unsigned long flags;
	struct {
		unsigned long long size;
		unsigned long mode, uid, gid, mtime;
	} attrs;
	int state, port;
	bool session_channel; /* needs one of the server's sessions */
	bool ended;
	char code[16], why[200];
};

enum phase { RESOLVING, CONNECTING, HANDSHAKING, AUTHENTICATING, READY };

struct session {
	struct _LIBSSH2_SESSION *lib;
	struct block *blocks; /* its memory */
	struct box *box;      /* the userdata; NULL: collected */
	struct login *login;  /* until READY */
	enum phase phase;
	int fd, error;
	struct lb_poll *poll;
	struct lb_timer *again, *beat;
	int polled;
	struct lb_buf out;
	size_t sent, received; /* sent: of out */
	double last_in, keepalive;
	struct op *ops, *active;
	struct chan *chans;
	int refused_at;       /* how many sessions the server had of us when it */
	double refused_until; /* refused one more, and until when that counts */
	bool had_session;
	uint32_t opened_id, sftp_id;
	struct _LIBSSH2_SFTP *sftp;
	struct file *files;
	struct listener *listeners;
	int vain;                   /* reads of nothing since an operation went on */
	bool sftp_begun, sftp_gone; /* gone: the server has ended it, for good */
	bool shaken;                /* the handshake is done */
	bool eof, mute, dead;       /* mute: nothing can be sent any more */
	bool working, released;   /* a worker thread has it; then it is to be destroyed */
	char name[300];           /* host:port, for messages */
	char code[16], why[400];  /* of its end */
	char bye[160];            /* what the server said as it left */
	char *hostkey, *identity; /* what the login found */
	char hostkey_type[64], fingerprint[64];
	const char *trusted, *method;
};

#endif
