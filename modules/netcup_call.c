/* netcup_call.c: one call of Lua's and the requests that it takes: discovery of the
 * issuer's endpoints, a refresh that all calls share, the request itself, and what is
 * tried again. It knows no operation of the interface. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <cjson/cJSON.h>

#include "netcup.h"
#include "netcup_json.h"
#include "netcup_token.h"

#define CALL "lb.netcup.call"
#define MAX_BYTES ((size_t)64 << 20)
#define CONNECT_TIMEOUT 10.0
#define LOCK_TURN 0.1
#define LONGEST_PAUSE 30.0
#define ROUNDS 20 /* of getting a token, which ends by itself */

enum { DISCOVERED, LOCKED, REFRESHED, USER_KNOWN, SENT, PAUSED };

static int call_k(lua_State *L, int status, lua_KContext ctx);
static int prepare(lua_State *L, struct call *k);

double
netcup_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int
netcup_no_memory(lua_State *L)
{
	return luaL_error(L, "not enough memory");
}

struct client *
netcup_check(lua_State *L)
{
	return luaL_checkudata(L, 1, CLIENT);
}

/* Leaves the ranks of those that wait for the refresh. */
static void
part(struct call *k)
{
	struct call **p = &k->client->joined;

	if (!k->joined)
		return;
	while (*p != k)
		p = &(*p)->next;
	*p = k->next;
	k->joined = false;
}

/* The store's lock is let go by the refresh, or by the call that took it. */
static int
call_release(lua_State *L)
{
	struct call *k = luaL_checkudata(L, 1, CALL);

	part(k);
	lb_wait_drop(&k->wait);
	lb_request_free(k->request);
	k->request = NULL;
	lb_buf_free(&k->path);
	lb_buf_free(&k->body);
	lb_buf_free(&k->url);
	lb_buf_free(&k->scratch);
	netcup_json_free(k->json);
	netcup_json_free(k->root);
	k->json = k->root = NULL;
	return 0;
}

/* Pushes a new call; what it asks is added to it before netcup_run. */
struct call *
netcup_call(lua_State *L, const char *op, const char *method)
{
	struct client *c = netcup_check(L);
	struct call *k = lua_newuserdatauv(L, sizeof *k, 0);

	memset(k, 0, sizeof *k);
	k->client = c;
	k->op = op;
	k->method = method;
	if (luaL_newmetatable(L, CALL)) {
		lua_pushcfunction(L, call_release);
		lua_setfield(L, -2, "__gc");
		lua_pushcfunction(L, call_release);
		lua_setfield(L, -2, "__close");
	}
	lua_setmetatable(L, -2);
	return k;
}

static bool
add(struct lb_buf *b, const char *text)
{
	return lb_buf_add(b, text, strlen(text));
}

static bool
add_escaped(struct lb_buf *b, const char *text)
{
	static const char plain[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:";
	char code[4];
	bool ok = true;

	for (; ok && *text != '\0'; text++) {
		if (strchr(plain, *text) != NULL) {
			ok = lb_buf_add(b, text, 1);
		} else {
			snprintf(code, sizeof code, "%%%02X", (unsigned char)*text);
			ok = add(b, code);
		}
	}
	return ok;
}

/* Adds to the path: %d is a lua_Integer, %s a string that is escaped. */
void
netcup_path(lua_State *L, struct call *k, const char *fmt, ...)
{
	va_list args;
	char number[32];
	bool ok = true;

	va_start(args, fmt);
	for (; ok && *fmt != '\0'; fmt++) {
		if (*fmt != '%') {
			ok = lb_buf_add(&k->path, fmt, 1);
		} else if (*++fmt == 'd') {
			snprintf(number, sizeof number, "%lld",
			    (long long)va_arg(args, lua_Integer));
			ok = add(&k->path, number);
		} else {
			ok = add_escaped(&k->path, va_arg(args, const char *));
		}
	}
	va_end(args);
	if (!ok)
		netcup_no_memory(L);
}

void
netcup_query(lua_State *L, struct call *k, const char *name, const char *value)
{
	bool first = k->path.len == 0 || memchr(k->path.data, '?', k->path.len) == NULL;

	if (!add(&k->path, first ? "?" : "&") || !add(&k->path, name) ||
	    !add(&k->path, "=") || !add_escaped(&k->path, value))
		netcup_no_memory(L);
}

/* Failures */

static int
add_details(lua_State *L, struct call *k)
{
	const char *code = netcup_string(k->root, "code");

	if (k->status != 0) {
		lua_pushinteger(L, k->status);
		lua_setfield(L, -2, "status");
	}
	if (code != NULL) {
		lua_pushstring(L, code);
		lua_setfield(L, -2, "reason");
	}
	return 2;
}

int
netcup_fail(lua_State *L, struct call *k, const struct failure *f)
{
	return lb_fail(L, MODULE, k->op, f->code, "%s", f->message);
}

static const char *
code_of_status(long status)
{
	switch (status) {
	case 401:
		return "auth_failed";
	case 403:
		return "denied";
	case 404:
		return "not_found";
	case 400:
		return "refused";
	case 409:
		return "busy";
	case 422:
		return "invalid";
	case 429:
		return "rate_limited";
	case 503:
		return "maintenance";
	default:
		return status >= 500 ? "server" : "protocol";
	}
}

/* What to do about a refusal, where its own text does not say. */
static const char *
hint_of(const struct call *k)
{
	static const struct {
		const char *code, *hint;
	} hints[] = {
		{ "server.snapshot.create.error.online.uefi",
		    "; switch the server off and take it offline with its disk" },
		{ "server.snapshot.export.wrongstate",
		    "; take one while the server is off" },
		{ "server.snapshot.create.error.storageoptimization",
		    "; optimise its storage in the control panel first" },
	};
	const char *code = netcup_string(k->root, "code");

	for (size_t i = 0; code != NULL && i < sizeof hints / sizeof hints[0]; i++)
		if (strcmp(hints[i].code, code) == 0)
			return hints[i].hint;
	if (k->status == 401 || k->status == 403)
		return "; is the login valid (lbrun netcup login), and this address "
		       "allowed by the account's IP restriction?";
	return "";
}

/* The fields of a ValidationError, as text. */
static bool
add_fields(struct lb_buf *b, const cJSON *errors)
{
	const cJSON *e;
	const char *field, *message;
	bool ok = true;

	cJSON_ArrayForEach(e, errors)
	{
		field = netcup_string(e, "field");
		message = netcup_string(e, "message");
		ok = ok && add(b, "; ") && add(b, field != NULL ? field : "?") &&
		    add(b, ": ") && add(b, message != NULL ? message : "refused");
	}
	return ok;
}

static int
fail_status(lua_State *L, struct call *k, const char *code)
{
	const char *message = netcup_string(k->root, "message");
	struct lb_buf *b = &k->scratch;
	char status[32];

	snprintf(status, sizeof status, "HTTP status %ld", k->status);
	lb_buf_free(b);
	if (!add(b, message != NULL ? message : status) ||
	    !add_fields(b, cJSON_GetObjectItemCaseSensitive(k->root, "errors")) ||
	    !add(b, hint_of(k)) || !lb_buf_add(b, "", 1))
		return netcup_no_memory(L);
	lb_fail(L, MODULE, k->op, code, "%s", b->data);
	return add_details(L, k);
}

int
netcup_fail_status(lua_State *L, struct call *k)
{
	return fail_status(L, k, code_of_status(k->status));
}

/* Requests */

/* Called by the loop. */
static void
on_done(void *arg)
{
	struct call *k = arg;

	k->done = true;
	lb_wake(&k->wait);
}

static struct lb_request *
new_request(lua_State *L)
{
	struct lb_request *r = lb_request_new(L);

	if (r == NULL)
		netcup_no_memory(L);
	return r;
}

static void
options_of(const struct client *c, struct lb_request_options *o)
{
	o->ca_file = c->ca_file;
	o->timeout = c->timeout;
	o->connect_timeout = CONNECT_TIMEOUT;
	o->max_bytes = MAX_BYTES;
	o->output = -1;
	o->secret = true;
}

/* Starts the request that was made ready in k->request. */
static int
start(lua_State *L, struct call *k, const char *method, lua_KContext ctx)
{
	struct lb_request_options o = { .url = k->url.data, .method = method };

	options_of(k->client, &o);
	k->done = false;
	if (!lb_request_start(k->request, &o, on_done, k))
		return netcup_no_memory(L);
	return lb_wait(L, &k->wait, -1, ctx, call_k);
}

static void
fresh_request(lua_State *L, struct call *k)
{
	lb_request_free(k->request);
	k->request = NULL;
	k->request = new_request(L);
	lb_buf_free(&k->url);
}

static void
accept_json(lua_State *L, struct lb_request *r)
{
	if (!lb_request_header(r, "Accept", "application/json", 16))
		netcup_no_memory(L);
}

static void
bearer(lua_State *L, struct call *k)
{
	struct client *c = k->client;

	lb_buf_free(&k->scratch);
	if (!add(&k->scratch, "Bearer ") ||
	    !lb_buf_add(&k->scratch, c->access.data, c->access.len) ||
	    !lb_request_header(
		k->request, "Authorization", k->scratch.data, k->scratch.len))
		netcup_no_memory(L);
	lb_buf_free(&k->scratch);
}

/* What is tried again */

/* The value of a header of the response, "" when it is not there. */
static void
header_of(const struct lb_response *p, const char *name, char *value, size_t size)
{
	const char *at = p->head->data, *end = at + p->head->len, *line_end;
	size_t n = strlen(name);

	value[0] = '\0';
	for (; at < end; at = line_end + 1) {
		if ((line_end = memchr(at, '\n', (size_t)(end - at))) == NULL)
			return;
		if ((size_t)(line_end - at) <= n + 1 || at[n] != ':' ||
		    strncasecmp(at, name, n) != 0)
			continue;
		for (at += n + 1; *at == ' '; at++)
			;
		snprintf(value, size, "%.*s", (int)strcspn(at, "\r\n"), at);
		return;
	}
}

/* Seconds that Retry-After asks for, as a number or a date; 0: it is not there. */
static double
asked_pause(const struct lb_response *p)
{
	char value[64];
	struct tm tm = { 0 };

	if (p->head == NULL || p->head->len == 0)
		return 0;
	header_of(p, "Retry-After", value, sizeof value);
	if (value[0] != '\0' && strspn(value, "0123456789") == strlen(value))
		return strtod(value, NULL);
	if (strptime(value, "%a, %d %b %Y %H:%M:%S GMT", &tm) != NULL) {
		double left = difftime(timegm(&tm), time(NULL));
		return left > 0 ? left : 0;
	}
	return 0;
}

/* The pause before the next try, or a negative number when patience is at its end. */
static double
next_pause(struct call *k, double asked)
{
	struct client *c = k->client;
	double pause = c->backoff, now = netcup_now();

	for (int i = 0; i < k->tries && pause < LONGEST_PAUSE; i++)
		pause *= 2;
	if (pause > LONGEST_PAUSE)
		pause = LONGEST_PAUSE;
	if (asked > pause)
		pause = asked;
	if (k->tries++ == 0)
		k->since = now;
	return now + pause - k->since > c->patience ? -1 : pause;
}

double
netcup_pause(struct call *k)
{
	return next_pause(k, 0);
}

/* Was the request surely not carried out? */
static bool
is_harmless(const struct call *k, const char *code)
{
	return strcmp(k->method, "GET") == 0 || strcmp(code, "connect") == 0 ||
	    strcmp(code, "resolve") == 0;
}

static bool
is_passing(const char *code)
{
	return strcmp(code, "tls") != 0 && strcmp(code, "too_large") != 0 &&
	    strcmp(code, "protocol") != 0;
}

static bool
status_passes(const struct call *k)
{
	if (k->status == 429 || k->status == 503 || k->status == 409)
		return true;
	return k->status >= 500 && strcmp(k->method, "GET") == 0;
}

/* Discovery */

static int
discover(lua_State *L, struct call *k)
{
	fresh_request(L, k);
	if (!add(&k->url, k->client->issuer) ||
	    !lb_buf_add(&k->url, "/.well-known/openid-configuration", 34))
		return netcup_no_memory(L);
	accept_json(L, k->request);
	return start(L, k, "GET", DISCOVERED);
}

/* Tokens go there: not in clear where the issuer speaks TLS. */
static bool
take_url(const struct client *c, char **to, const cJSON *root, const char *name)
{
	const char *url = netcup_string(root, name);

	free(*to);
	*to = NULL;
	if (url == NULL || lb_request_url_problem(url) != NULL ||
	    (strncasecmp(c->issuer, "https:", 6) == 0 &&
		strncasecmp(url, "https:", 6) != 0))
		return false;
	return (*to = strdup(url)) != NULL;
}

static int
discovered(lua_State *L, struct call *k)
{
	struct client *c = k->client;
	const struct lb_response *p = lb_request_response(k->request);
	const char *issuer;
	double pause;
	cJSON *root;

	if (p->code != NULL || p->status >= 500 || p->status == 429) {
		bool passing = p->code == NULL || is_passing(p->code);

		pause = passing ? next_pause(k, asked_pause(p)) : -1;
		if (pause >= 0)
			return lb_wait(L, &k->wait, pause, PAUSED, call_k);
		if (p->code != NULL)
			return lb_fail(L, MODULE, k->op, p->code, "%s", p->message);
		return lb_fail(L, MODULE, k->op,
		    p->status == 429     ? "rate_limited" :
			p->status == 503 ? "maintenance" :
					   "server",
		    "the sign-in server %s answers %ld", c->issuer, p->status);
	}
	netcup_json_free(k->root);
	k->root = root = p->status == 200 ? netcup_parse(p->body) : NULL;
	issuer = netcup_string(root, "issuer");
	if (issuer == NULL || strcmp(issuer, c->issuer) != 0 ||
	    !take_url(c, &c->token_url, root, "token_endpoint") ||
	    !take_url(c, &c->device_url, root, "device_authorization_endpoint"))
		return lb_fail(L, MODULE, k->op, "protocol",
		    "%s has no discovery document of this issuer with a device sign-in; "
		    "is LBRUN_NETCUP_ISSUER right?",
		    c->issuer);
	take_url(c, &c->revoke_url, root, "revocation_endpoint");
	take_url(c, &c->userinfo_url, root, "userinfo_endpoint");
	return prepare(L, k);
}

/* Tokens */

/* Calls fn once this lbrun alone may change the store. */
int
netcup_hold_lock(lua_State *L, struct call *k, int (*fn)(lua_State *, struct call *))
{
	int error = netcup_store_lock(k->client);

	k->locked = fn;
	if (error == 0)
		return fn(L, k);
	if (error != EWOULDBLOCK) {
		char text[128];

		return lb_fail(L, MODULE, k->op, "store", "%s.lock: %s", k->client->store,
		    strerror_r(error, text, sizeof text));
	}
	if (k->locked_since <= 0)
		k->locked_since = netcup_now();
	if (netcup_now() - k->locked_since > k->client->patience)
		return lb_fail(L, MODULE, k->op, "locked",
		    "%s.lock is held by another lbrun", k->client->store);
	return lb_wait(L, &k->wait, LOCK_TURN, LOCKED, call_k);
}

static bool
add_form(struct lb_buf *b, const char *name, const struct lb_buf *value)
{
	bool ok;
	char *text = strndup(value->data, value->len);

	if (text == NULL)
		return false;
	ok = add(b, "&") && add(b, name) && add(b, "=") && add_escaped(b, text);
	lb_wipe(text, value->len);
	free(text);
	return ok;
}

static int
wait_for_refresh(lua_State *L, struct call *k)
{
	struct client *c = k->client;

	k->next = c->joined;
	c->joined = k;
	k->joined = true;
	return lb_wait(L, &k->wait, -1, REFRESHED, call_k);
}

/* One for all calls; it goes on when the call that began it is cancelled. */
static bool
start_refresh(lua_State *L, struct call *k)
{
	static const char form[] = "application/x-www-form-urlencoded";
	struct client *c = k->client;
	struct lb_request_options o = { .url = c->token_url, .method = "POST" };

	lb_request_free(c->refreshing);
	c->refreshing = NULL;
	c->refreshed = false;
	c->failure.code = NULL;
	options_of(c, &o);
	lb_buf_free(&k->scratch);
	if ((c->refreshing = lb_request_new(L)) != NULL &&
	    lb_request_header(c->refreshing, "Content-Type", form, sizeof form - 1) &&
	    lb_request_header(c->refreshing, "Accept", "application/json", 16) &&
	    add(&k->scratch, "grant_type=refresh_token&client_id=") &&
	    add_escaped(&k->scratch, c->client_id) &&
	    add_form(&k->scratch, "refresh_token", &c->refresh) &&
	    lb_request_body(c->refreshing, k->scratch.data, k->scratch.len) &&
	    lb_request_start(c->refreshing, &o, netcup_refreshed, c)) {
		lb_buf_free(&k->scratch);
		return true;
	}
	c->refreshed = true;
	netcup_store_unlock(c);
	return false;
}

static int
refresh_locked(lua_State *L, struct call *k)
{
	struct client *c = k->client;
	struct failure f = { 0 };

	/* another lbrun may have been here */
	if (!netcup_store_load(c, &f)) {
		netcup_store_unlock(c);
		return netcup_fail(L, k, &f);
	}
	if (netcup_token_fresh(c) || c->refresh.len == 0) {
		netcup_store_unlock(c);
		return prepare(L, k);
	}
	if (!start_refresh(L, k))
		return netcup_no_memory(L);
	return wait_for_refresh(L, k);
}

static int
refresh(lua_State *L, struct call *k)
{
	struct client *c = k->client;

	if (c->refreshing != NULL && !c->refreshed)
		return wait_for_refresh(L, k);
	return netcup_hold_lock(L, k, refresh_locked);
}

static int
refreshed(lua_State *L, struct call *k)
{
	struct failure f = k->client->failure;
	double pause;

	if (f.code == NULL)
		return prepare(L, k);
	pause = f.passing ? next_pause(k, 0) : -1;
	if (pause >= 0)
		return lb_wait(L, &k->wait, pause, PAUSED, call_k);
	return netcup_fail(L, k, &f);
}

static int
ask_user(lua_State *L, struct call *k)
{
	struct client *c = k->client;

	if (c->userinfo_url == NULL && c->token_url == NULL)
		return discover(L, k);
	if (c->userinfo_url == NULL)
		return lb_fail(L, MODULE, k->op, "protocol",
		    "neither the token nor %s tells the user's id", c->issuer);
	fresh_request(L, k);
	if (!lb_buf_add(&k->url, c->userinfo_url, strlen(c->userinfo_url) + 1))
		return netcup_no_memory(L);
	accept_json(L, k->request);
	bearer(L, k);
	return start(L, k, "GET", USER_KNOWN);
}

static int
user_known(lua_State *L, struct call *k)
{
	const struct lb_response *p = lb_request_response(k->request);
	struct client *c = k->client;
	const char *id;

	if (p->code != NULL)
		return lb_fail(L, MODULE, k->op, p->code, "%s", p->message);
	netcup_json_free(k->root);
	k->root = netcup_parse(p->body);
	k->status = p->status;
	if (p->status != 200)
		return netcup_fail_status(L, k);
	id = netcup_string(k->root, "id");
	if (id != NULL && strlen(id) < 11 && strspn(id, "0123456789") == strlen(id))
		c->user = strtol(id, NULL, 10);
	if (c->user <= 0)
		return lb_fail(L, MODULE, k->op, "protocol",
		    "neither the token nor %s tells the user's id", c->userinfo_url);
	return prepare(L, k);
}

/* The request itself */

static bool
wants_token(const struct call *k)
{
	return k->target == API || k->target == USERS || k->target == USERINFO;
}

static bool
add_url(struct call *k)
{
	struct client *c = k->client;
	const char *base = k->target == DEVICE ? c->device_url :
	    k->target == TOKEN                 ? c->token_url :
	    k->target == REVOKE                ? c->revoke_url :
	    k->target == USERINFO              ? c->userinfo_url :
	    k->target == CCP                   ? c->ccp :
						 c->api;
	char user[48] = "";

	if (k->target == USERS)
		snprintf(user, sizeof user, "/users/%lld", (long long)c->user);
	return add(&k->url, base) && add(&k->url, user) &&
	    lb_buf_add(&k->url, k->path.data, k->path.len) && lb_buf_add(&k->url, "", 1);
}

static int
send_request(lua_State *L, struct call *k)
{
	struct lb_buf none = { 0 };

	fresh_request(L, k);
	if (!add_url(k))
		return netcup_no_memory(L);
	accept_json(L, k->request);
	if (wants_token(k))
		bearer(L, k);
	if (k->target == CCP)
		netcup_ccp_body(L, k);
	else if (k->json != NULL && k->body.len == 0 &&
	    !netcup_json_print(k->json, &k->body))
		return netcup_no_memory(L);
	if (k->type != NULL &&
	    (!lb_request_header(k->request, "Content-Type", k->type, strlen(k->type)) ||
		!lb_request_body(k->request, k->body.len > 0 ? k->body.data : "",
		    k->body.len > 0 ? k->body.len : none.len)))
		return netcup_no_memory(L);
	return start(L, k, k->method, SENT);
}

/* All that has to be there before the request. */
static int
prepare(lua_State *L, struct call *k)
{
	struct client *c = k->client;
	struct failure f = { 0 };

	if (k->target == CCP)
		return send_request(L, k);
	if (k->target == DEVICE || k->target == TOKEN || k->target == REVOKE)
		return c->token_url == NULL ? discover(L, k) : send_request(L, k);
	if (!c->loaded && !netcup_store_load(c, &f))
		return netcup_fail(L, k, &f);
	netcup_token_mask(L, c);
	if (c->refresh.len == 0)
		return lb_fail(L, MODULE, k->op, "auth_failed",
		    "not logged in to netcup: lbrun netcup login");
	if (!netcup_token_fresh(c)) {
		if (++k->rounds > ROUNDS)
			return lb_fail(L, MODULE, k->op, "auth_failed",
			    "%s gives no token that lasts", c->issuer);
		return c->token_url == NULL ? discover(L, k) : refresh(L, k);
	}
	if (k->target == USERINFO && c->userinfo_url == NULL)
		return c->token_url == NULL ?
		    discover(L, k) :
		    lb_fail(L, MODULE, k->op, "protocol", "%s has no userinfo endpoint",
			c->issuer);
	if (k->target == USERS && c->user == 0)
		return ask_user(L, k);
	return send_request(L, k);
}

/* Is a status that is no 2xx for the call itself to judge? */
static bool
is_answer(const struct call *k)
{
	return k->target == TOKEN || k->target == DEVICE || k->target == REVOKE ||
	    (k->status == 404 && k->missing_ok) ||
	    (k->status == 400 && cJSON_IsArray(k->root));
}

static int
sent(lua_State *L, struct call *k)
{
	const struct lb_response *p = lb_request_response(k->request);
	double pause = -1;

	if (p->code != NULL) {
		k->status = 0;
		if (is_passing(p->code) && is_harmless(k, p->code))
			pause = next_pause(k, 0);
		if (pause >= 0)
			return lb_wait(L, &k->wait, pause, PAUSED, call_k);
		return lb_fail(L, MODULE, k->op, p->code, "%s%s", p->message,
		    is_harmless(k, p->code) ?
			"" :
			"; whether it was carried out is not known");
	}
	k->status = p->status;
	netcup_json_free(k->root);
	k->root = netcup_parse(p->body);
	if (k->target == CCP && k->status == 200)
		return netcup_ccp_answer(L, k);
	if (k->status == 401 && wants_token(k) && !k->again) {
		k->again = true;
		netcup_token_reject(k->client);
		return prepare(L, k);
	}
	if (status_passes(k) && (pause = next_pause(k, asked_pause(p))) >= 0)
		return lb_wait(L, &k->wait, pause, PAUSED, call_k);
	if (k->status / 100 != 2 && !is_answer(k))
		return netcup_fail_status(L, k);
	k->tries = 0;
	k->again = false;
	return k->finish(L, k);
}

/* The same request again, after so many seconds. */
int
netcup_send_again(lua_State *L, struct call *k, double after)
{
	k->rounds = 0;
	if (after < 0)
		return prepare(L, k);
	return lb_wait(L, &k->wait, after, PAUSED, call_k);
}

static int
call_k(lua_State *L, int status, lua_KContext ctx)
{
	struct call *k = lua_touserdata(L, 2);

	(void)status;
	part(k);
	if (k->wait.why == LB_INTERRUPTED)
		return lb_fail_why(L, MODULE, k->op, k->wait.why);
	switch (ctx) {
	case DISCOVERED:
		return discovered(L, k);
	case LOCKED:
		return netcup_hold_lock(L, k, k->locked);
	case REFRESHED:
		return refreshed(L, k);
	case USER_KNOWN:
		return user_known(L, k);
	case SENT:
		return sent(L, k);
	default:
		return prepare(L, k);
	}
}

/* Begins the call on top of the stack; what stands up to `top` stays. */
int
netcup_run_keeping(
    lua_State *L, struct call *k, int (*finish)(lua_State *, struct call *), int top)
{
	k->finish = finish;
	if (k->type == NULL && strcmp(k->method, "GET") != 0 &&
	    strcmp(k->method, "DELETE") != 0)
		k->type = "application/json"; /* asked for also where nothing is sent */
	lua_copy(L, -1, 2);
	lua_settop(L, top);
	lua_toclose(L, 2);
	return prepare(L, k);
}

int
netcup_run(lua_State *L, struct call *k, int (*finish)(lua_State *, struct call *))
{
	return netcup_run_keeping(L, k, finish, 2);
}

/* What comes out */

/* Is the answer what it must be? Otherwise pushes what it fails with. */
int
netcup_expect(lua_State *L, struct call *k, bool array)
{
	if (array ? cJSON_IsArray(k->root) : cJSON_IsObject(k->root))
		return 0;
	return lb_fail(L, MODULE, k->op, "protocol", "status %d, and not a JSON %s",
	    (int)k->status, array ? "list" : "object");
}

int
netcup_finish_value(lua_State *L, struct call *k)
{
	if (k->root == NULL)
		return lb_fail(L, MODULE, k->op, "protocol", "status %d, and no JSON",
		    (int)k->status);
	netcup_push(L, k->root);
	return 1;
}

int
netcup_finish_true(lua_State *L, struct call *k)
{
	(void)k;
	lua_pushboolean(L, 1);
	return 1;
}
