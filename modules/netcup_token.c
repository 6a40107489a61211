/* netcup_token.c: the tokens of a login: what an answer brings, and the file that keeps
 * them from one lbrun to the next. It starts no request; what a refresh brings is taken
 * on the loop, whether or not anybody still waits for it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "netcup.h"
#include "netcup_json.h"
#include "netcup_token.h"

#define STORE_MAX 65536
#define SHORTEST 8
#define LONGEST_LIFE 86400.0

static bool
fail(struct failure *f, const char *code, const char *what, const char *why)
{
	f->code = code;
	f->passing = false;
	snprintf(f->message, sizeof f->message, "%s: %s", what, why);
	return false;
}

static bool
fail_errno(struct failure *f, const struct client *c, int errnum)
{
	char text[128];

	return fail(f, "store", c->store, strerror_r(errnum, text, sizeof text));
}

static bool
set(struct lb_buf *b, const char *text)
{
	lb_buf_free(b);
	return lb_buf_add(b, text, strlen(text));
}

static bool
same(const struct lb_buf *b, const char *text)
{
	return b->len == strlen(text) &&
	    (b->len == 0 || memcmp(b->data, text, b->len) == 0);
}

/* The access token's own words */

static int
base64url_value(char c)
{
	static const char alphabet[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const char *p = c != '\0' ? strchr(alphabet, c) : NULL;

	return p != NULL ? (int)(p - alphabet) : -1;
}

/* The payload of a JWT; NULL when the token is none. */
static cJSON *
claims_of(const struct lb_buf *token)
{
	struct lb_buf payload = { 0 };
	const char *p = token->len > 0 ? memchr(token->data, '.', token->len) : NULL;
	unsigned bits = 0, have = 0;
	cJSON *claims;
	bool ok = p != NULL;

	for (p = ok ? p + 1 : p; ok && p < token->data + token->len && *p != '.'; p++) {
		int value = base64url_value(*p);
		char byte;

		if (value < 0)
			break;
		bits = (bits << 6 | (unsigned)value) & 0xffff;
		if ((have += 6) < 8)
			continue;
		have -= 8;
		byte = (char)(bits >> have & 0xff);
		ok = lb_buf_add(&payload, &byte, 1);
	}
	claims = ok ? netcup_parse(&payload) : NULL;
	lb_buf_free(&payload);
	return claims;
}

static lua_Integer
user_id(const cJSON *id)
{
	const char *text = cJSON_GetStringValue(id);
	char *end;
	long n;

	if (cJSON_IsNumber(id))
		return id->valuedouble >= 1 && id->valuedouble <= 2147483647 ?
		    (lua_Integer)id->valuedouble :
		    0;
	if (text == NULL || *text == '\0' || strspn(text, "0123456789") != strlen(text))
		return 0;
	n = strtol(text, &end, 10);
	return n >= 1 && n <= 2147483647 ? n : 0;
}

/* Who a token, or the answer of the userinfo endpoint, says that it is. */
static void
read_claims(struct client *c)
{
	cJSON *claims = claims_of(&c->access);
	const char *customer = netcup_string(claims, "preferred_username");

	c->user = user_id(cJSON_GetObjectItemCaseSensitive(claims, "id"));
	free(c->customer);
	c->customer = customer != NULL ? strdup(customer) : NULL;
	netcup_json_free(claims);
}

bool
netcup_token_fresh(const struct client *c)
{
	double margin = c->lifetime >= 120 ? 30 : c->lifetime / 4;

	return c->access.len > 0 && c->access_until - netcup_now() > margin;
}

void
netcup_token_reject(struct client *c)
{
	c->access_until = 0;
}

void
netcup_token_forget(struct client *c)
{
	lb_buf_free(&c->access);
	lb_buf_free(&c->refresh);
	c->access_until = 0;
	c->user = 0;
	c->generation++;
}

/* Takes what the token endpoint answered; a refresh token that does not come stays. */
bool
netcup_token_take(struct client *c, const cJSON *answer, struct failure *f)
{
	const char *access = netcup_string(answer, "access_token");
	const char *refresh = netcup_string(answer, "refresh_token");
	const cJSON *life = cJSON_GetObjectItemCaseSensitive(answer, "expires_in");

	if (access == NULL || strlen(access) < SHORTEST ||
	    strpbrk(access, "\r\n ") != NULL || !cJSON_IsNumber(life) ||
	    life->valuedouble <= 0)
		return fail(
		    f, "protocol", c->issuer, "an answer without an access token");
	if (refresh != NULL && strlen(refresh) < SHORTEST)
		return fail(f, "protocol", c->issuer, "the refresh token is too short");
	if (!set(&c->access, access) || (refresh != NULL && !set(&c->refresh, refresh)))
		return fail(f, "exhausted", c->issuer, "not enough memory");
	c->lifetime = life->valuedouble < LONGEST_LIFE ? life->valuedouble : LONGEST_LIFE;
	c->access_until = netcup_now() + c->lifetime;
	c->generation++;
	read_claims(c);
	return true;
}

/* Keeps a secret alive, and so masked, with the one that had its place before. */
void
netcup_keep_secret(
    lua_State *L, const char *slot, const char *name, const struct lb_buf *b)
{
	lua_getiuservalue(L, 1, 1);
	if (b->len >= SHORTEST) {
		lua_getfield(L, -1, slot);
		lua_pushfstring(L, "earlier %s", slot);
		lua_insert(L, -2);
		lua_settable(L, -3);
		lb_secret_push(L, name, b->data, b->len);
		lua_setfield(L, -2, slot);
	}
	lua_pop(L, 1);
}

void
netcup_token_mask(lua_State *L, struct client *c)
{
	if (c->masked == c->generation)
		return;
	netcup_keep_secret(L, "access", "netcup access token", &c->access);
	netcup_keep_secret(L, "refresh", "netcup refresh token", &c->refresh);
	c->masked = c->generation;
}

/* The store: a file of 0600 that is replaced whole, and a lock beside it that one lbrun
 * holds while it refreshes. */

static char *
beside(const struct client *c, const char *suffix)
{
	char *path;

	return asprintf(&path, "%s%s", c->store, suffix) < 0 ? NULL : path;
}

/* Returns 0, EWOULDBLOCK or another errno. */
int
netcup_store_lock(struct client *c)
{
	char *path;
	int error = 0;

	if (c->lock >= 0)
		return EWOULDBLOCK; /* another call of this client */
	if ((path = beside(c, ".lock")) == NULL)
		return ENOMEM;
	c->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	free(path);
	if (c->lock < 0)
		return errno;
	if (flock(c->lock, LOCK_EX | LOCK_NB) != 0) {
		error = errno;
		netcup_store_unlock(c);
	}
	return error;
}

void
netcup_store_unlock(struct client *c)
{
	if (c->lock >= 0)
		close(c->lock);
	c->lock = -1;
}

static bool
read_store(struct client *c, struct lb_buf *text, struct failure *f)
{
	struct stat st;
	char block[4096];
	ssize_t n;
	int fd = open(c->store, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), error;

	if (fd < 0)
		return errno == ENOENT ? true : fail_errno(f, c, errno);
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return fail(f, "store", c->store, "not a regular file");
	}
	if (st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
		close(fd);
		return fail(f, "store", c->store,
		    st.st_uid != geteuid() ? "belongs to somebody else" :
					     "can be read by others; chmod 600 it");
	}
	while ((n = read(fd, block, sizeof block)) > 0 && text->len < STORE_MAX)
		if (!lb_buf_add(text, block, (size_t)n))
			break;
	error = errno;
	lb_wipe(block, sizeof block);
	close(fd);
	if (n < 0)
		return fail_errno(f, c, error);
	return n == 0 ? true : fail(f, "store", c->store, "it is too large");
}

/* What another lbrun has stored since wins over what this one has. */
static bool
adopt(struct client *c, const cJSON *root, struct failure *f)
{
	const char *issuer = netcup_string(root, "issuer");
	const char *client = netcup_string(root, "client_id");
	const char *access = netcup_string(root, "access_token");
	const char *refresh = netcup_string(root, "refresh_token");
	const cJSON *at = cJSON_GetObjectItemCaseSensitive(root, "expires_at");
	const cJSON *life = cJSON_GetObjectItemCaseSensitive(root, "lifetime");

	if (issuer == NULL || client == NULL || refresh == NULL ||
	    strlen(refresh) < SHORTEST)
		return fail(f, "store", c->store,
		    "not a token store; remove it and log in: lbrun netcup login");
	if (strcmp(issuer, c->issuer) != 0 || strcmp(client, c->client_id) != 0)
		return fail(f, "auth_failed", c->store,
		    "the login is one of another issuer; lbrun netcup login");
	if (same(&c->refresh, refresh) && (access == NULL || same(&c->access, access)))
		return true;
	if (!set(&c->refresh, refresh) || !set(&c->access, access != NULL ? access : ""))
		return fail(f, "exhausted", c->store, "not enough memory");
	c->lifetime = cJSON_IsNumber(life) ? life->valuedouble : 0;
	c->access_until = 0;
	if (cJSON_IsNumber(at) && at->valuedouble - (double)time(NULL) <= c->lifetime)
		c->access_until = netcup_now() + at->valuedouble - (double)time(NULL);
	c->generation++;
	read_claims(c);
	return true;
}

bool
netcup_store_load(struct client *c, struct failure *f)
{
	struct lb_buf text = { 0 };
	cJSON *root;
	bool ok = read_store(c, &text, f);

	if (ok && text.len > 0) {
		root = netcup_parse(&text);
		ok = adopt(c, root, f);
		netcup_json_free(root);
	} else if (ok && c->loaded) {
		netcup_token_forget(c); /* another lbrun has logged out */
	}
	lb_buf_free(&text);
	if (ok)
		c->loaded = true;
	return ok;
}

static cJSON *
store_tree(const struct client *c)
{
	double left = c->access_until - netcup_now();
	cJSON *root = cJSON_CreateObject();
	char *access = strndup(c->access.len > 0 ? c->access.data : "", c->access.len);
	char *refresh =
	    strndup(c->refresh.len > 0 ? c->refresh.data : "", c->refresh.len);

	if (root == NULL || access == NULL || refresh == NULL ||
	    cJSON_AddStringToObject(root, "issuer", c->issuer) == NULL ||
	    cJSON_AddStringToObject(root, "client_id", c->client_id) == NULL ||
	    cJSON_AddStringToObject(root, "refresh_token", refresh) == NULL ||
	    cJSON_AddStringToObject(root, "access_token", access) == NULL ||
	    cJSON_AddNumberToObject(
		root, "expires_at", (double)time(NULL) + (double)(long)left) == NULL ||
	    cJSON_AddNumberToObject(root, "lifetime", c->lifetime) == NULL) {
		netcup_json_free(root);
		root = NULL;
	}
	if (access != NULL)
		lb_wipe(access, c->access.len);
	if (refresh != NULL)
		lb_wipe(refresh, c->refresh.len);
	free(access);
	free(refresh);
	return root;
}

static int
sync_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash == NULL ? strdup(".") :
	    slash == path            ? strdup("/") :
				       strndup(path, (size_t)(slash - path));
	int fd = folder != NULL ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int error = fd < 0 ? errno : fsync(fd) != 0 ? errno : 0;

	free(folder);
	if (fd >= 0)
		close(fd);
	return error;
}

/* Its name under way is always the same, so that a killed lbrun leaves no more than one
 * behind; the lock is held. Returns 0 or an errno. */
static int
replace(const struct client *c, const char *path, const struct lb_buf *text)
{
	size_t done;
	ssize_t n;
	int error = 0, fd;

	if (unlink(path) != 0 && errno != ENOENT)
		return errno;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno;
	for (done = 0; done < text->len && error == 0; done += (size_t)n) {
		n = write(fd, text->data + done, text->len - done);
		if (n < 0) {
			error = errno == EINTR ? 0 : errno;
			n = 0;
		}
	}
	if (error == 0 && fsync(fd) != 0)
		error = errno;
	if (close(fd) != 0 && error == 0)
		error = errno;
	if (error == 0 && rename(path, c->store) != 0)
		error = errno;
	if (error != 0)
		unlink(path);
	return error != 0 ? error : sync_folder(c->store);
}

bool
netcup_store_save(struct client *c, struct failure *f)
{
	struct lb_buf text = { 0 };
	cJSON *root = store_tree(c);
	char *path = beside(c, ".new");
	int error = ENOMEM;

	if (root != NULL && path != NULL && netcup_json_print(root, &text) &&
	    lb_buf_add(&text, "\n", 1))
		error = replace(c, path, &text);
	lb_buf_free(&text);
	netcup_json_free(root);
	free(path);
	c->loaded = error == 0 || c->loaded;
	return error == 0 ? true : fail_errno(f, c, error);
}

/* Returns 0 or an errno. */
int
netcup_store_remove(struct client *c)
{
	char *path = beside(c, ".new");
	int error = 0;

	if (path == NULL)
		return ENOMEM;
	unlink(path);
	free(path);
	if (unlink(c->store) != 0 && errno != ENOENT)
		error = errno;
	netcup_token_forget(c);
	c->loaded = true;
	return error != 0 ? error : sync_folder(c->store);
}

/* What a refresh brought */

static void
refused(struct client *c, const struct lb_response *p, const cJSON *root)
{
	const char *error = netcup_string(root, "error");
	const char *why = netcup_string(root, "error_description");
	struct failure *f = &c->failure;

	if (p->status == 400 || p->status == 401) {
		f->code = "auth_failed";
		snprintf(f->message, sizeof f->message,
		    "the login is no longer valid (%s): lbrun netcup login",
		    why != NULL       ? why :
			error != NULL ? error :
					"refused");
		return;
	}
	f->code = p->status == 429 ? "rate_limited" :
	    p->status == 503       ? "maintenance" :
				     "server";
	f->passing = p->status == 429 || p->status >= 500;
	snprintf(
	    f->message, sizeof f->message, "the token endpoint answers %ld", p->status);
}

static void
take(struct client *c)
{
	const struct lb_response *p = lb_request_response(c->refreshing);
	struct failure *f = &c->failure;
	cJSON *root;

	if (p->code != NULL) {
		f->code = p->code;
		f->passing = strcmp(p->code, "tls") != 0;
		snprintf(f->message, sizeof f->message, "%s", p->message);
		return;
	}
	root = netcup_parse(p->body);
	if (p->status != 200)
		refused(c, p, root);
	else if (netcup_token_take(c, root, f))
		netcup_store_save(c, f);
	netcup_json_free(root);
}

/* Called by the loop. */
void
netcup_refreshed(void *arg)
{
	struct client *c = arg;
	struct call *k;

	take(c);
	c->refreshed = true;
	netcup_store_unlock(c);
	while ((k = c->joined) != NULL) {
		c->joined = k->next;
		k->joined = false;
		lb_wake(&k->wait);
	}
}
