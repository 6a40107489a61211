/* ssh_login.h: whom this module trusts and how it logs in; see ssh_login.c. */
#ifndef SSH_LOGIN_H
#define SSH_LOGIN_H

#include <stdatomic.h>

#include "ssh_keys.h"
#include "ssh_session.h"

enum {
	OFFERS_MAX = 2
}; /* keys a connection: MaxAuthTries may be 3, and fail2ban counts */

struct login {
	char *host, *user, *alias;
	int port;
	double timeout, until;
	atomic_bool cancelled;
	/* addresses */
	struct addrinfo *addrs, *addr; /* addr: the next to try */
	int tcp_error;
	/* host keys */
	struct _LIBSSH2_KNOWNHOSTS *hosts, *revoked;
	struct ssh_key *pins;
	char fingerprint[64];
	unsigned types_shown; /* to the fingerprint in vain; bits of hostkey_types */
	bool accept_new;
	/* identities */
	struct ssh_key *keys, *agent_keys;
	struct ssh_key *chosen[OFFERS_MAX];
	int chosen_count, not_offered;
	char *agent_path, *passphrase;
	struct lb_buf reasons,
	    offered; /* for messages: why a key is no use; what was tried */
	bool asks, identities_only, agent_answers;
	/* the outcome of a worker: a code, or nothing */
	char failed[16], why[1024];
};

/* What is agreed to, best first; each list ends with NULL. */
struct method {
	const char *name;
	int type[2];
	const char *const *names;
};
extern const struct method methods_wanted[]; /* ends with a NULL name */
bool listed(const char *const *list, int n, const char *name);
bool method_is_sign(const char *name);
void algorithms_prefer(struct session *s);

bool login_names(struct login *l, const char *host, const char *user, const char *alias);
void login_free(struct session *s);
void login_add_file(struct login *l, const char *path, bool optional);
void login_add_default_files(struct login *l);
/* Picks what is offered. false: nothing can be, `why` says of each key what is wrong. */
bool login_choose(struct session *s, char *why, size_t size);

void hosts_load(struct session *s, const char *path);
void hosts_end(struct session *s);
/* After the handshake. false: `why` has the fingerprints shown and expected. */
bool hostkey_verify(struct session *s, char *why, size_t size);
/* It was another key than the fingerprint's: whether one of another type is worth a try.
 */
bool hostkey_another(struct session *s, const char *why);

/* For worker threads; `session` belongs to them meanwhile. */
void resolve_work(void *session);
void auth_work(void *session);

#endif
