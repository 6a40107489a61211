/* ssh_login.c: algorithms, host keys and identities: whom a session trusts and how it
 * logs in. What blocks (names, the agent, decrypting a key) is for a worker thread, which
 * then has the session to itself. It writes no known_hosts and asks nobody for a
 * passphrase. */
#include "ssh_login.h"

#include <ctype.h>
#include <netdb.h>
#include <poll.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libssh2.h>

#include "ssh_pump.h"

#define USE_INSTEAD "use an Ed25519 key (ssh-keygen -t ed25519)"

/* Algorithms: what is weak is not offered, the strongest first. SHA-1, CBC, MD5 and DSA
 * are off; so is ssh-rsa, which is RSA with SHA-1 whatever the key's size. */

static const char *const kex_names[] = { "mlkem768x25519-sha256", "curve25519-sha256",
	"curve25519-sha256@libssh.org", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384",
	"ecdh-sha2-nistp521", "diffie-hellman-group18-sha512",
	"diffie-hellman-group16-sha512", "diffie-hellman-group14-sha256",
	"diffie-hellman-group-exchange-sha256", "ext-info-c",
	"kex-strict-c-v00@openssh.com", NULL };
static const char *const cipher_names[] = { "chacha20-poly1305@openssh.com",
	"aes256-gcm@openssh.com", "aes128-gcm@openssh.com", "aes256-ctr", "aes192-ctr",
	"aes128-ctr", NULL };
static const char *const mac_names[] = { "hmac-sha2-256-etm@openssh.com",
	"hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512", NULL };
static const char *const hostkey_names[] = { "ssh-ed25519", "ecdsa-sha2-nistp256",
	"ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256",
	NULL };

const struct method methods_wanted[] = {
	{ "kex", { LIBSSH2_METHOD_KEX, -1 }, kex_names },
	{ "hostkeys", { LIBSSH2_METHOD_HOSTKEY, -1 }, hostkey_names },
	{ "ciphers", { LIBSSH2_METHOD_CRYPT_CS, LIBSSH2_METHOD_CRYPT_SC }, cipher_names },
	{ "macs", { LIBSSH2_METHOD_MAC_CS, LIBSSH2_METHOD_MAC_SC }, mac_names },
	{ NULL, { -1, -1 }, NULL },
};

/* The types of host keys as known_hosts has them. */
static const struct {
	const char *type;
	int known;
} hostkey_types[] = {
	{ "ssh-ed25519", LIBSSH2_KNOWNHOST_KEY_ED25519 },
	{ "ecdsa-sha2-nistp256", LIBSSH2_KNOWNHOST_KEY_ECDSA_256 },
	{ "ecdsa-sha2-nistp384", LIBSSH2_KNOWNHOST_KEY_ECDSA_384 },
	{ "ecdsa-sha2-nistp521", LIBSSH2_KNOWNHOST_KEY_ECDSA_521 },
	{ "ssh-rsa", LIBSSH2_KNOWNHOST_KEY_SSHRSA },
};
enum { HOSTKEY_TYPES = sizeof hostkey_types / sizeof *hostkey_types };

bool
listed(const char *const *list, int n, const char *name)
{
	while (n-- > 0)
		if (strcmp(list[n], name) == 0)
			return true;
	return false;
}

/* Names in the list of key exchanges that only say what the client understands. */
bool
method_is_sign(const char *name)
{
	return strcmp(name, "ext-info-c") == 0 || strncmp(name, "kex-strict-", 11) == 0;
}

/* RSA with SHA-2 came with libssh2 1.11; before, an RSA key signs with SHA-1. */
static bool
rsa_works(void)
{
	return libssh2_version(0x010b00) != NULL;
}

static bool
is_hostkey_of(const char *method, const char *type)
{
	return strcmp(method, type) == 0 ||
	    (strncmp(method, "rsa-sha2-", 9) == 0 && strcmp(type, "ssh-rsa") == 0);
}

static bool hostkey_known(struct session *s, int i, char **known);

/* Sets what is offered. Only names that this libssh2 has: when it strips others itself it
 * copies over overlapping memory. Host keys of a type that is already known come first.
 */
void
algorithms_prefer(struct session *s)
{
	const struct method *m;
	int i, round, t;

	for (m = methods_wanted; m->name != NULL; m++) {
		const char **have = NULL;
		int n = libssh2_session_supported_algs(s->lib, m->type[0], &have);
		bool hostkey = m->type[0] == LIBSSH2_METHOD_HOSTKEY;
		char list[1024] = "";

		for (round = 0; round < 2; round++) {
			for (i = 0; n > 0 && m->names[i] != NULL; i++) {
				bool known = false, shown = false;

				for (t = 0; hostkey && t < HOSTKEY_TYPES; t++) {
					if (!is_hostkey_of(
						m->names[i], hostkey_types[t].type))
						continue;
					known = hostkey_known(s, t, NULL);
					shown = (s->login->types_shown >> t & 1) != 0;
				}
				if (!listed(have, n, m->names[i]) || shown ||
				    known != (round == 0))
					continue;
				snprintf(list + strlen(list), sizeof list - strlen(list),
				    "%s%s", list[0] != '\0' ? "," : "", m->names[i]);
			}
		}
		if (n > 0)
			libssh2_free(s->lib, have);
		for (i = 0; i < 2 && list[0] != '\0'; i++)
			if (m->type[i] >= 0)
				libssh2_session_method_pref(s->lib, m->type[i], list);
	}
}

bool
login_names(struct login *l, const char *host, const char *user, const char *alias)
{
	struct passwd *pw;
	char *p;

	if (user == NULL && (pw = getpwuid(getuid())) != NULL)
		user = pw->pw_name;
	l->host = strdup(host);
	l->user = strdup(user != NULL ? user : "root");
	l->alias = strdup(alias != NULL ? alias : host);
	if (l->host == NULL || l->user == NULL || l->alias == NULL)
		return false;
	for (p = l->alias; *p != '\0'; p++)
		*p = (char)tolower((unsigned char)*p);
	return true;
}

void
hosts_end(struct session *s)
{
	struct login *l = s->login;

	if (l == NULL)
		return;
	if (l->hosts != NULL)
		libssh2_knownhost_free(l->hosts);
	if (l->revoked != NULL)
		libssh2_knownhost_free(l->revoked);
	l->hosts = l->revoked = NULL;
}

void
login_free(struct session *s)
{
	struct login *l = s->login;

	if (l == NULL)
		return;
	hosts_end(s);
	if (l->addrs != NULL)
		freeaddrinfo(l->addrs);
	key_free_all(l->pins);
	key_free_all(l->keys);
	key_free_all(l->agent_keys);
	if (l->passphrase != NULL)
		lb_wipe(l->passphrase, strlen(l->passphrase));
	lb_buf_free(&l->reasons);
	lb_buf_free(&l->offered);
	free(l->host);
	free(l->user);
	free(l->alias);
	free(l->agent_path);
	free(l->passphrase);
	free(l);
	s->login = NULL;
}

static void __attribute__((format(printf, 3, 4)))
login_fail(struct login *l, const char *code, const char *fmt, ...)
{
	va_list args;

	snprintf(l->failed, sizeof l->failed, "%s", code);
	va_start(args, fmt);
	vsnprintf(l->why, sizeof l->why, fmt, args);
	va_end(args);
}

static void __attribute__((format(printf, 2, 3)))
note(struct lb_buf *b, const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (b->len > 0)
		lb_buf_add(b, "; ", 2);
	lb_buf_add(b, text, strlen(text));
}

/* Host keys */

/* Line by line: libssh2 gives up a whole file at the first line that it does not know. */
void
hosts_load(struct session *s, const char *path)
{
	static const char revoked[] = "@revoked";
	struct login *l = s->login;
	char expanded[4096], *text, *line, *next;
	struct stat st;
	size_t len;

	if (l->hosts == NULL)
		l->hosts = libssh2_knownhost_init(s->lib);
	if (l->revoked == NULL)
		l->revoked = libssh2_knownhost_init(s->lib);
	if (l->hosts == NULL || l->revoked == NULL ||
	    file_read(home_path(path, expanded, sizeof expanded), 64U << 20, &text, &len,
		&st) != 0)
		return;
	for (line = text; line != NULL && *line != '\0'; line = next) {
		LIBSSH2_KNOWNHOSTS *to = l->hosts;

		if ((next = strchr(line, '\n')) != NULL)
			*next++ = '\0';
		line += strspn(line, " \t");
		if (strncmp(line, revoked, sizeof revoked - 1) == 0) {
			to = l->revoked;
			line += sizeof revoked - 1;
			line += strspn(line, " \t");
		}
		if (line[0] != '\0' && line[0] != '#' && line[0] != '@')
			libssh2_knownhost_readline(to, line, strcspn(line, "\r"),
			    LIBSSH2_KNOWNHOST_FILE_OPENSSH);
	}
	free(text);
}

/* As OpenSSH does it: [host]:port where the port is not 22; a key under the plain name
 * then counts when it is the same, and says nothing when it is another. */
static int
hosts_check(const struct login *l, LIBSSH2_KNOWNHOSTS *hosts, int type, const void *key,
    size_t len, char **known)
{
	struct libssh2_knownhost *found = NULL;
	char name[300];
	int rc, mask = LIBSSH2_KNOWNHOST_TYPE_PLAIN | LIBSSH2_KNOWNHOST_KEYENC_RAW | type;

	if (hosts == NULL)
		return LIBSSH2_KNOWNHOST_CHECK_NOTFOUND;
	if (l->port == 22)
		snprintf(name, sizeof name, "%s", l->alias);
	else
		snprintf(name, sizeof name, "[%s]:%d", l->alias, l->port);
	rc = libssh2_knownhost_check(hosts, name, key, len, mask, &found);
	if (rc == LIBSSH2_KNOWNHOST_CHECK_MISMATCH && known != NULL)
		*known = found->key;
	if (rc != LIBSSH2_KNOWNHOST_CHECK_NOTFOUND || l->port == 22)
		return rc;
	rc = libssh2_knownhost_check(hosts, l->alias, key, len, mask, &found);
	return rc == LIBSSH2_KNOWNHOST_CHECK_MATCH ? rc :
						     LIBSSH2_KNOWNHOST_CHECK_NOTFOUND;
}

/* Whether a key of this type is pinned or in known_hosts: found by asking for one that
 * cannot be it, since hashed names cannot be listed. *known: that one in base64. */
static bool
hostkey_known(struct session *s, int i, char **known)
{
	const struct login *l = s->login;
	const struct ssh_key *pin;
	struct libssh2_knownhost *found;

	for (pin = l->pins; pin != NULL; pin = pin->next)
		if (strcmp(pin->type, hostkey_types[i].type) == 0)
			return true;
	if (l->pins != NULL || l->hosts == NULL)
		return false;
	if (hosts_check(l, l->hosts, hostkey_types[i].known, "?", 1, known) ==
	    LIBSSH2_KNOWNHOST_CHECK_MISMATCH)
		return true;
	return known == NULL && l->port != 22 &&
	    libssh2_knownhost_check(l->hosts, l->alias, "?", 1,
		LIBSSH2_KNOWNHOST_TYPE_PLAIN | LIBSSH2_KNOWNHOST_KEYENC_RAW |
		    hostkey_types[i].known,
		&found) == LIBSSH2_KNOWNHOST_CHECK_MISMATCH;
}

static bool __attribute__((format(printf, 3, 4)))
refuse(char *why, size_t size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, size, fmt, args);
	va_end(args);
	return false;
}

static bool
pins_verify(struct session *s, const struct ssh_key *shown, char *why, size_t size)
{
	const struct ssh_key *pin, *other = NULL;
	char expected[64];

	for (pin = s->login->pins; pin != NULL; pin = pin->next) {
		if (key_same(pin, shown)) {
			s->trusted = "pinned";
			return true;
		}
		if (other == NULL || strcmp(pin->type, shown->type) == 0)
			other = pin;
	}
	if (other == NULL)
		return true;
	key_fingerprint(other->blob, other->bloblen, expected);
	return refuse(why, size,
	    "%s shows the host key %s %s, but %s %s is pinned: another "
	    "machine answers, or the server was reinstalled",
	    s->name, shown->type, s->fingerprint, other->type, expected);
}

static bool
known_hosts_verify(struct session *s, const struct ssh_key *shown, char *why, size_t size)
{
	struct login *l = s->login;
	struct ssh_key other = { 0 };
	char expected[64] = "?", *known = NULL;
	unsigned char *blob;
	size_t len;
	int i, rc, type = LIBSSH2_KNOWNHOST_KEY_UNKNOWN;

	for (i = 0; i < HOSTKEY_TYPES; i++)
		if (strcmp(shown->type, hostkey_types[i].type) == 0)
			type = hostkey_types[i].known;
	rc = hosts_check(l, l->hosts, type, shown->blob, shown->bloblen, &known);
	if (rc == LIBSSH2_KNOWNHOST_CHECK_MATCH) {
		s->trusted = "known_hosts";
		return true;
	}
	for (i = 0; i < HOSTKEY_TYPES && rc != LIBSSH2_KNOWNHOST_CHECK_MISMATCH; i++)
		if (hostkey_known(s, i, &known) && known != NULL)
			rc = LIBSSH2_KNOWNHOST_CHECK_MISMATCH;
	if (rc == LIBSSH2_KNOWNHOST_CHECK_MISMATCH && known != NULL) {
		if ((blob = b64_decode(known, strlen(known), &len)) != NULL) {
			key_fingerprint(blob, len, expected);
			if (key_set_blob(&other, blob, len))
				free(other.blob);
			free(blob);
		}
		return refuse(why, size,
		    "%s shows the host key %s %s, but known_hosts has "
		    "%s %s: another machine answers, or the server was reinstalled",
		    s->name, shown->type, s->fingerprint, other.type, expected);
	}
	if (!l->accept_new)
		return refuse(why, size,
		    "the host key of %s is not known: it shows %s %s", s->name,
		    shown->type, s->fingerprint);
	s->trusted = "new";
	return true;
}

/* After the handshake. false: `why` has both fingerprints. */
bool
hostkey_verify(struct session *s, char *why, size_t size)
{
	struct login *l = s->login;
	struct ssh_key shown = { 0 };
	size_t len = 0;
	int type;
	const char *blob = libssh2_session_hostkey(s->lib, &len, &type);
	bool ok;

	if (blob == NULL || !key_set_blob(&shown, (const unsigned char *)blob, len))
		return refuse(why, size, "%s shows no host key", s->name);
	key_fingerprint(shown.blob, shown.bloblen, s->fingerprint);
	strcpy(s->hostkey_type, shown.type);
	s->hostkey = key_line(&shown);
	if (hosts_check(l, l->revoked, 0, shown.blob, shown.bloblen, NULL) ==
	    LIBSSH2_KNOWNHOST_CHECK_MATCH)
		ok = refuse(why, size,
		    "the host key of %s is revoked in known_hosts: %s %s", s->name,
		    shown.type, s->fingerprint);
	else
		ok = pins_verify(s, &shown, why, size);
	if (ok && l->fingerprint[0] != '\0') {
		if (strcmp(l->fingerprint, s->fingerprint) != 0)
			ok = refuse(why, size,
			    "%s shows the host key %s %s, but the fingerprint "
			    "given is %s",
			    s->name, shown.type, s->fingerprint, l->fingerprint);
		else if (s->trusted == NULL)
			s->trusted = "fingerprint";
	}
	if (ok && s->trusted == NULL)
		ok = known_hosts_verify(s, &shown, why, size);
	free(shown.blob);
	hosts_end(s);
	return ok && s->hostkey != NULL;
}

bool
hostkey_another(struct session *s, const char *why)
{
	struct login *l = s->login;
	int i;

	if (l->fingerprint[0] == '\0' || l->pins != NULL)
		return false;
	if (l->types_shown == 0)
		snprintf(l->why, sizeof l->why, "%s", why);
	for (i = 0; i < HOSTKEY_TYPES; i++)
		if (strcmp(s->hostkey_type, hostkey_types[i].type) == 0)
			l->types_shown |= 1U << i;
	/* the last one is ssh-rsa, which not every libssh2 can ask for */
	return l->types_shown != (1U << (HOSTKEY_TYPES - !rsa_works())) - 1;
}

/* Identities */

void
login_add_file(struct login *l, const char *path, bool optional)
{
	struct ssh_key *key, **tail;
	char why[512], expanded[4096];

	path = home_path(path, expanded, sizeof expanded);
	if (optional && access(path, F_OK) != 0)
		return;
	if ((key = key_read(path, why, sizeof why)) == NULL) {
		note(&l->reasons, "%s", why);
		return;
	}
	for (tail = &l->keys; *tail != NULL; tail = &(*tail)->next)
		;
	*tail = key;
}

void
login_add_default_files(struct login *l)
{
	login_add_file(l, "~/.ssh/id_ed25519", true);
	login_add_file(l, "~/.ssh/id_ecdsa", true);
	login_add_file(l, "~/.ssh/id_rsa", true);
}

/* What no server would take from this library, or NULL. */
static const char *
key_useless(const struct ssh_key *key)
{
	if (strcmp(key->type, "ssh-rsa") == 0 && !rsa_works())
		return "an RSA key signs with SHA-1 here, refused since OpenSSH 8.8";
	if (strcmp(key->type, "ssh-dss") == 0)
		return "a DSA key, which OpenSSH refuses";
	if (strncmp(key->type, "sk-", 3) == 0 || strstr(key->type, "-cert-") != NULL)
		return "security devices and certificates are not supported";
	return NULL;
}

static void
login_choose_key(struct login *l, struct ssh_key *key)
{
	if (l->chosen_count < OFFERS_MAX)
		l->chosen[l->chosen_count++] = key;
	else
		l->not_offered++;
}

/* Picks what is offered: the files in their order, then the agent's other keys. false:
 * there is nothing, `why` says of each key what is wrong with it. */
bool
login_choose(struct session *s, char *why, size_t size)
{
	struct login *l = s->login;
	struct ssh_key *key, *held;
	const char *useless;

	for (key = l->keys; key != NULL; key = key->next) {
		if ((useless = key_useless(key)) != NULL) {
			note(&l->reasons, "%s: %s; " USE_INSTEAD, key->path, useless);
			continue;
		}
		for (held = l->agent_keys; held != NULL; held = held->next)
			if (key_same(key, held))
				break;
		if (held != NULL) {
			key->agent = true;
			held->agent = false; /* not a second time */
		} else if (!key_is_private(key)) {
			note(&l->reasons,
			    "%s: a public key, and no agent has its other half",
			    key->path);
			continue;
		} else if (key->encrypted && l->passphrase == NULL && !l->asks) {
			note(&l->reasons,
			    "%s: encrypted, no passphrase was given and no agent "
			    "has it",
			    key->path);
			continue;
		} else if (key->encrypted && l->passphrase != NULL &&
		    !key_set_passphrase(key, l->passphrase, strlen(l->passphrase))) {
			return refuse(why, size, "out of memory");
		}
		login_choose_key(l, key);
	}
	for (key = l->agent_keys; key != NULL && !l->identities_only; key = key->next) {
		if (!key->agent)
			continue;
		if ((useless = key_useless(key)) != NULL)
			note(&l->reasons, "%s of the agent: %s; " USE_INSTEAD,
			    key->comment, useless);
		else
			login_choose_key(l, key);
	}
	if (l->chosen_count > 0)
		return true;
	if (l->reasons.len > 0)
		return refuse(why, size, "no key can be used: %.*s", (int)l->reasons.len,
		    l->reasons.data);
	return refuse(why, size,
	    "there is no key to log in with as %s: none was given, "
	    "~/.ssh has none, and %s",
	    l->user,
	    l->agent_path == NULL ? "SSH_AUTH_SOCK is not set" :
		l->agent_answers  ? "the agent is empty" :
				    "no agent answers at SSH_AUTH_SOCK");
}

/* On a worker thread: addresses of the host, keys of the agent. */
void
resolve_work(void *arg)
{
	struct session *s = arg;
	struct login *l = s->login;
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC };
	char port[16];
	int rc;

	snprintf(port, sizeof port, "%d", l->port);
	if ((rc = getaddrinfo(l->host, port, &hints, &l->addrs)) != 0) {
		l->addrs = NULL;
		login_fail(l, "resolve", "%s: %s", l->host, gai_strerror(rc));
		return;
	}
	l->addr = l->addrs;
	if (l->agent_path != NULL)
		l->agent_answers = agent_list(l->agent_path, &l->agent_keys);
}

/* Authentication, on a worker thread that has the session to itself. */

struct signer {
	const char *agent_path;
	const struct ssh_key *key;
};

static LIBSSH2_USERAUTH_PUBLICKEY_SIGN_FUNC(sign_with_agent)
{
	const struct signer *signer = *abstract;
	struct lb_buf raw = { 0 };
	int flags = 0;
	bool ok;

	/* the request names its algorithm, after the session's id and the packet's head
	 */
	if (memmem(data, data_len, "rsa-sha2-512", 12) != NULL)
		flags = AGENT_RSA_SHA2_512;
	else if (memmem(data, data_len, "rsa-sha2-256", 12) != NULL)
		flags = AGENT_RSA_SHA2_256;
	ok = agent_sign(signer->agent_path, signer->key, data, data_len, flags, &raw);
	if (ok &&
	    (*sig = pump_alloc(*libssh2_session_abstract(session), raw.len)) != NULL) {
		memcpy(*sig, raw.data, raw.len);
		*sig_len = raw.len;
	} else {
		ok = false;
	}
	lb_buf_free(&raw);
	return ok ? 0 : -1;
}

/* Repeats until the library has an answer. */
static int
auth_try(struct session *s, const struct ssh_key *key)
{
	struct login *l = s->login;
	struct signer signer = { l->agent_path, key };
	void *abstract = &signer;
	char *line = key->blob != NULL ? key_line(key) : NULL;
	int rc;

	for (;;) {
		struct pollfd p = { .fd = s->fd, .events = POLLIN };

		if (key->agent)
			rc = libssh2_userauth_publickey(s->lib, l->user, key->blob,
			    key->bloblen, sign_with_agent, &abstract);
		else
			rc = libssh2_userauth_publickey_frommemory(s->lib, l->user,
			    strlen(l->user), line, line != NULL ? strlen(line) : 0,
			    key->text, key->textlen, key->passphrase);
		flush(s);
		if (rc != LIBSSH2_ERROR_EAGAIN || s->eof)
			break;
		if (now() >= l->until || atomic_load(&l->cancelled))
			break;
		if (s->sent < s->out.len)
			p.events |= POLLOUT;
		poll(&p, 1, 250);
	}
	free(line);
	return rc;
}

static void
auth_offered(struct session *s, const struct ssh_key *key)
{
	char print[64] = "";

	if (key->blob != NULL)
		key_fingerprint(key->blob, key->bloblen, print);
	note(&s->login->offered, "%s%s%s%s (%s)", key->agent ? "the agent's " : "",
	    key->path != NULL ? key->path : key->comment, print[0] != '\0' ? " " : "",
	    print, key->type[0] != '\0' ? key->type : "PEM");
}

void
auth_work(void *arg)
{
	struct session *s = arg;
	struct login *l = s->login;
	struct ssh_key *key = NULL;
	char *msg = NULL, more[80] = "";
	int i, rc = LIBSSH2_ERROR_EAGAIN;

	for (i = 0; i < l->chosen_count; i++) {
		key = l->chosen[i];
		auth_offered(s, key);
		rc = auth_try(s, key);
		if (rc == 0) {
			s->method = key->agent ? "agent" : "publickey";
			s->identity =
			    strdup(key->path != NULL ? key->path : key->comment);
			if (s->identity == NULL)
				login_fail(l, "connect", "out of memory");
			return;
		}
		libssh2_session_last_error(s->lib, &msg, NULL, 0);
		if (rc == LIBSSH2_ERROR_EAGAIN || s->eof || s->bye[0] != '\0')
			break;
		if (rc == LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED && msg != NULL &&
		    strstr(msg, "allback") != NULL) {
			login_fail(l, "identity",
			    key->agent ? "%s: the agent did not sign with %s" :
				key->encrypted ?
					 "%s takes %s, but its passphrase is wrong" :
					 "%s takes %s, but the key could not be used",
			    s->name, key->path != NULL ? key->path : key->comment);
			return;
		}
		if (rc != LIBSSH2_ERROR_AUTHENTICATION_FAILED &&
		    rc != LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED && rc != LIBSSH2_ERROR_FILE)
			break;
	}
	if (l->not_offered > 0)
		snprintf(more, sizeof more,
		    "; %d more not offered: at most %d are, name the "
		    "right one",
		    l->not_offered, OFFERS_MAX);
	if (rc == LIBSSH2_ERROR_EAGAIN && !s->eof)
		login_fail(l, "timeout", "%s: no answer in %.0f seconds, logging in",
		    s->name, l->timeout);
	else if (s->eof || s->bye[0] != '\0')
		login_fail(l, s->bye[0] != '\0' ? "auth_failed" : "connect",
		    "%s closed the connection while logging in as %s with %.*s%s%s",
		    s->name, l->user, (int)l->offered.len, l->offered.data,
		    s->bye[0] != '\0' ? ": " : "", s->bye);
	else
		login_fail(l, "auth_failed", "%s lets %s in with none of: %.*s%s%s%.*s",
		    s->name, l->user, (int)l->offered.len, l->offered.data, more,
		    l->reasons.len > 0 ? "; " : "", (int)l->reasons.len,
		    l->reasons.len > 0 ? l->reasons.data : "");
}
