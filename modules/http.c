/* http.c: HTTP requests for Lua, each a wait of its task.
 * The transfers are curl.c's. It reads no JSON, keeps no cookies and tries nothing twice.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "lb.h"

#define MODULE "http"
#define REQUEST "lb.http.request"
#define MAX_BYTES ((lua_Integer)16 * 1024 * 1024)
#define TIMEOUT 30.0
#define CONNECT_TIMEOUT 10.0

enum { OPTS = 1, BOX };

struct box {
	struct lb_wait wait;
	struct lb_request *request;
	bool done, secret; /* secret: the request holds one */
	int fd;            /* of the output, -1 */
	char *partial;     /* its name until it is whole */
};

/* Called by the loop. */
static void
on_done(void *arg)
{
	struct box *b = arg;

	b->done = true;
	lb_wake(&b->wait);
}

static int
box_release(lua_State *L)
{
	struct box *b = luaL_checkudata(L, 1, REQUEST);

	lb_wait_drop(&b->wait);
	lb_request_free(b->request);
	b->request = NULL;
	if (b->fd >= 0) {
		close(b->fd);
		unlink(b->partial);
	}
	b->fd = -1;
	free(b->partial);
	b->partial = NULL;
	return 0;
}

static int
no_memory(lua_State *L)
{
	return luaL_error(L, "not enough memory");
}

/* What is asked */

static bool
is_token(const char *s)
{
	if (*s == '\0')
		return false;
	for (; *s != '\0'; s++)
		if (*s <= ' ' || *s > '~' || strchr("\"(),/:;<=>?@[\\]{}", *s) != NULL)
			return false;
	return true;
}

/* Pushes the value of an option that may be a secret, and returns its bytes, or NULL. */
static const char *
push_bytes(lua_State *L, struct box *b, const char *name, size_t *len)
{
	lua_pushstring(L, name);
	if (lua_rawget(L, OPTS) == LUA_TNIL)
		return NULL;
	if (lua_type(L, -1) != LUA_TSTRING && !lb_is_secret(L, -1))
		luaL_error(L, "option '%s' must be a string or a secret, not a %s", name,
		    luaL_typename(L, -1));
	b->secret = b->secret || lb_is_secret(L, -1);
	return lb_bytes(L, -1, len);
}

static void
add_header(lua_State *L, struct box *b, const char *name, const char *value, size_t len)
{
	/* without the value: it may be secret */
	if (memchr(value, '\r', len) != NULL || memchr(value, '\n', len) != NULL ||
	    memchr(value, '\0', len) != NULL)
		luaL_error(L, "the value of header '%s' is not one line", name);
	if (!lb_request_header(b->request, name, value, len))
		no_memory(L);
}

/* The option `name`, a table with strings for keys. false: it is not given. */
static bool
push_table(lua_State *L, const char *name)
{
	lua_pushstring(L, name);
	if (lua_rawget(L, OPTS) == LUA_TNIL)
		return false;
	if (!lua_istable(L, -1))
		luaL_error(L, "option '%s' must be a table, not a %s", name,
		    luaL_typename(L, -1));
	return true;
}

static const char *
check_key(lua_State *L, const char *option)
{
	if (lua_type(L, -2) != LUA_TSTRING)
		luaL_error(L, "the keys of option '%s' must be strings", option);
	return lua_tostring(L, -2);
}

/* A redirect may lead to another host. */
static void
check_stays(
    lua_State *L, int value, int max_redirects, const char *what, const char *name)
{
	if (max_redirects > 0 && lb_is_secret(L, value))
		luaL_error(L,
		    "%s '%s' holds a secret, which a redirect would take to another "
		    "host: leave out 'max_redirects', or give it as 'bearer'",
		    what, name);
}

static void
add_headers(lua_State *L, struct box *b, int max_redirects)
{
	static const char *const own[] = { "content-length", "transfer-encoding",
		"expect", "connection", NULL };
	const char *name, *value;
	size_t len;

	lua_pushnil(L);
	while (lua_next(L, -2) != 0) {
		name = check_key(L, "headers");
		if (!is_token(name))
			luaL_error(L, "'%s' is no name of a header", name);
		for (int i = 0; own[i] != NULL; i++)
			if (strcasecmp(own[i], name) == 0)
				luaL_error(
				    L, "header '%s' is not for the caller to set", name);
		if (lua_type(L, -1) != LUA_TSTRING && !lb_is_secret(L, -1))
			luaL_error(L,
			    "header '%s' must be a string or a secret, not a %s", name,
			    luaL_typename(L, -1));
		/* curl keeps these two from another host than the first. */
		if (strcasecmp(name, "authorization") != 0 &&
		    strcasecmp(name, "cookie") != 0)
			check_stays(L, -1, max_redirects, "header", name);
		b->secret = b->secret || lb_is_secret(L, -1);
		value = lb_bytes(L, -1, &len);
		add_header(L, b, name, value, len);
		lua_pop(L, 1);
	}
}

static void
add_bearer(lua_State *L, struct box *b)
{
	struct lb_buf value = { 0 };
	const char *token;
	size_t len;
	bool ok;

	if ((token = push_bytes(L, b, "bearer", &len)) == NULL)
		return;
	if (!lb_is_secret(L, -1))
		luaL_error(L, "option 'bearer' must be a secret, not a string");
	while (len > 0 && (token[len - 1] == '\n' || token[len - 1] == '\r'))
		len--; /* the end of the file that it came from */
	for (size_t i = 0; i < len; i++)
		if (token[i] <= ' ' || token[i] > '~')
			luaL_error(L, "option 'bearer' holds what no token may");
	ok = lb_buf_add(&value, "Bearer ", 7) && lb_buf_add(&value, token, len) &&
	    lb_request_header(b->request, "Authorization", value.data, value.len);
	lb_buf_free(&value);
	if (!ok)
		no_memory(L);
}

static void
add_resolve(lua_State *L, struct box *b)
{
	const char *key, *value, *colon;

	lua_pushnil(L);
	while (lua_next(L, -2) != 0) {
		key = check_key(L, "resolve");
		colon = strrchr(key, ':');
		if (colon == NULL || colon == key || colon[1] == '\0' ||
		    strspn(colon + 1, "0123456789") != strlen(colon + 1))
			luaL_error(L, "a key of option 'resolve' must be \"host:port\"");
		if (lua_type(L, -1) != LUA_TSTRING)
			luaL_error(L, "a value of option 'resolve' must be an address");
		value = lua_tostring(L, -1);
		if (value[0] == '\0' ||
		    strspn(value, "0123456789abcdefABCDEF.:[]") != strlen(value))
			luaL_error(L, "a value of option 'resolve' must be an address");
		if (!lb_request_resolve(b->request, key, value))
			no_memory(L);
		lua_pop(L, 1);
	}
}

/* The body, from whichever option has it. */
static bool
add_body(lua_State *L, struct box *b, int max_redirects)
{
	const char *data, *json;
	size_t len, json_len;

	data = push_bytes(L, b, "body", &len);
	json = push_bytes(L, b, "json", &json_len);
	if (data == NULL && json == NULL)
		return false;
	if (data != NULL && json != NULL)
		luaL_error(L, "options 'body' and 'json' exclude each other");
	check_stays(L, -2, max_redirects, "option", "body");
	check_stays(L, -1, max_redirects, "option", "json");
	if (json != NULL) {
		add_header(L, b, "Content-Type", "application/json", 16);
		data = json;
		len = json_len;
	}
	if (!lb_request_body(b->request, data, len))
		no_memory(L);
	return true;
}

static bool
one_of(const char *method, const char *const *names)
{
	for (; *names != NULL; names++)
		if (strcmp(*names, method) == 0)
			return true;
	return false;
}

static void
check_method(lua_State *L, struct box *b, struct lb_request_options *o, bool body)
{
	static const char *const with_body[] = { "POST", "PUT", "PATCH", NULL };
	static const char *const safe[] = { "GET", "HEAD", NULL };
	const char *method = o->method != NULL ? o->method : body ? "POST" : "GET";

	for (const char *p = method; *p != '\0'; p++)
		if (*p < 'A' || *p > 'Z')
			luaL_error(L, "option 'method' must be a name like GET or PATCH");
	if (*method == '\0' || strcmp(method, "CONNECT") == 0)
		luaL_error(L, "option 'method' must be a name like GET or PATCH");
	if (strcmp(method, "HEAD") == 0 && body)
		luaL_error(L, "HEAD has no body");
	if (o->max_redirects > 0 && !one_of(method, safe))
		luaL_error(L, "only GET and HEAD follow redirects, not %s", method);
	if (!body && one_of(method, with_body) && !lb_request_body(b->request, "", 0))
		no_memory(L);
}

/* Returns 0 or an errno. */
static int
open_output(lua_State *L, struct box *b, const char *path)
{
	size_t size = strlen(path) + sizeof ".XXXXXX";

	if ((b->partial = malloc(size)) == NULL)
		return no_memory(L);
	snprintf(b->partial, size, "%s.XXXXXX", path);
	b->fd = mkostemp(b->partial, O_CLOEXEC);
	return b->fd < 0 ? errno : 0;
}

/* What came */

static void
push_header(lua_State *L, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len), *end = line + len;
	luaL_Buffer name;

	if (colon == NULL)
		return;
	luaL_buffinit(L, &name);
	for (const char *p = line; p < colon; p++)
		luaL_addchar(&name, (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p));
	luaL_pushresult(&name);
	for (colon++; colon < end && (*colon == ' ' || *colon == '\t'); colon++)
		;
	while (end > colon && strchr("\r\n \t", end[-1]) != NULL)
		end--;
	lua_pushvalue(L, -1);
	if (lua_rawget(L, -3) == LUA_TSTRING) {
		lua_pushstring(
		    L, strcmp(lua_tostring(L, -2), "set-cookie") == 0 ? "\n" : ", ");
		lua_pushlstring(L, colon, (size_t)(end - colon));
		lua_concat(L, 3);
	} else {
		lua_pop(L, 1);
		lua_pushlstring(L, colon, (size_t)(end - colon));
	}
	lua_rawset(L, -3);
}

static void
push_headers(lua_State *L, const struct lb_buf *head)
{
	const char *p = head->data, *end, *newline;

	lua_newtable(L);
	for (end = p + head->len; p < end; p = newline + 1) {
		if ((newline = memchr(p, '\n', (size_t)(end - p))) == NULL)
			newline = end - 1;
		push_header(L, p, (size_t)(newline - p) + 1);
	}
}

/* Gives the output its name. Returns 0 or an errno. */
static int
keep_output(struct box *b, const char *path)
{
	int error = fsync(b->fd) == 0 ? 0 : errno;

	if (close(b->fd) != 0 && error == 0)
		error = errno;
	b->fd = -1;
	if (error == 0 && rename(b->partial, path) != 0)
		error = errno;
	if (error != 0)
		unlink(b->partial);
	return error;
}

static int
request_k(lua_State *L, int status, lua_KContext ctx)
{
	struct box *b = lua_touserdata(L, BOX);
	const struct lb_response *p;
	const char *path;
	int error;

	(void)status;
	(void)ctx;
	if (!b->done)
		return lb_fail_why(L, MODULE, "request", b->wait.why);
	p = lb_request_response(b->request);
	if (p->code != NULL)
		return lb_fail(L, MODULE, "request", p->code, "%s", p->message);
	path = lb_opt_string(L, OPTS, "output_path", NULL);
	if (path != NULL && p->status / 100 == 2 && (error = keep_output(b, path)) != 0)
		return lb_fail_errno(L, MODULE, "request", error);
	lua_createtable(L, 0, 6);
	lua_pushinteger(L, p->status);
	lua_setfield(L, -2, "status");
	push_headers(L, p->head);
	lua_setfield(L, -2, "headers");
	if (path == NULL || p->status / 100 != 2) {
		lua_pushlstring(L, p->body->len > 0 ? p->body->data : "", p->body->len);
		lua_setfield(L, -2, "body");
	}
	lua_pushinteger(L, (lua_Integer)p->received);
	lua_setfield(L, -2, "bytes");
	lua_pushstring(L, p->url);
	lua_setfield(L, -2, "url");
	lua_pushnumber(L, p->seconds);
	lua_setfield(L, -2, "seconds");
	return 1;
}

/* http.request{ url=, method=, headers={}, body=, json=, bearer=, timeout=30,
 *     connect_timeout=10, max_redirects=0, max_bytes=16777216, ca_file=, unix_socket=,
 *     resolve={ ["host:port"]="address" }, output_path= }
 *  body, json (a text that is JSON: it sets the content type) and the values of headers
 *  are strings or secrets; bearer is a secret. The server's certificate is always
 *  verified, by the system's authorities or by those of ca_file alone. Proxies of the
 *  environment are not used. Only GET and HEAD may follow redirects, never from https to
 *  http; the headers Authorization and Cookie are not sent on to another host, and a
 *  secret in any other header or in the body excludes max_redirects. A secret is sent
 *  over http to an address of loopback or of a private network only (else tls).
 *  With output_path the body of a 2xx goes to that file, which is 0600 and there only
 *  when it is whole. Header names of the response are lower-case, repeated ones
 *  are joined.
 *  +-> { status, headers, body, bytes, url, seconds }   (also for 404 and 500)
 *  +-> nil, err   (resolve, connect, tls, timeout, redirect, too_large, protocol,
 *                 aborted, interrupted, exhausted, io; of the file: denied, not_found,
 *                 no_space)                                                            */
static int
http_request(lua_State *L)
{
	static const char *const names[] = { "url", "method", "headers", "body", "json",
		"bearer", "timeout", "connect_timeout", "max_redirects", "max_bytes",
		"ca_file", "unix_socket", "resolve", "output_path", NULL };
	struct lb_request_options o = { .output = -1 };
	struct box *b;
	const char *path, *problem;
	bool body;
	int error;

	luaL_checktype(L, OPTS, LUA_TTABLE);
	lua_settop(L, OPTS);
	lb_opts(L, OPTS, names);
	o.url = lb_opt_string(L, OPTS, "url", NULL);
	luaL_argcheck(L, o.url != NULL, OPTS, "option 'url' is needed");
	if ((problem = lb_request_url_problem(o.url)) != NULL)
		return luaL_argerror(
		    L, OPTS, lua_pushfstring(L, "option 'url': %s", problem));
	o.method = lb_opt_string(L, OPTS, "method", NULL);
	o.ca_file = lb_opt_string(L, OPTS, "ca_file", NULL);
	o.unix_socket = lb_opt_string(L, OPTS, "unix_socket", NULL);
	if (o.unix_socket != NULL &&
	    (o.unix_socket[0] == '\0' || strlen(o.unix_socket) > 107))
		return luaL_argerror(
		    L, OPTS, "option 'unix_socket' must be a path of at most 107 bytes");
	o.timeout = lb_opt_seconds(L, OPTS, "timeout", TIMEOUT);
	o.connect_timeout = lb_opt_seconds(L, OPTS, "connect_timeout", CONNECT_TIMEOUT);
	o.max_redirects = (int)lb_opt_integer(L, OPTS, "max_redirects", 0, 0, 50);
	o.max_bytes =
	    (size_t)lb_opt_integer(L, OPTS, "max_bytes", MAX_BYTES, 0, LUA_MAXINTEGER);
	path = lb_opt_string(L, OPTS, "output_path", NULL);
	luaL_argcheck(
	    L, path == NULL || path[0] != '\0', OPTS, "option 'output_path' is empty");

	b = lua_newuserdatauv(L, sizeof *b, 0);
	*b = (struct box){ .fd = -1 };
	luaL_setmetatable(L, REQUEST);
	lua_toclose(L, BOX);
	if ((b->request = lb_request_new(L)) == NULL)
		return no_memory(L);
	if (push_table(L, "headers"))
		add_headers(L, b, o.max_redirects);
	if (push_table(L, "resolve"))
		add_resolve(L, b);
	add_bearer(L, b);
	body = add_body(L, b, o.max_redirects);
	check_method(L, b, &o, body);
	if (path != NULL && (error = open_output(L, b, path)) != 0)
		return lb_fail_errno(L, MODULE, "request", error);
	o.output = b->fd;
	o.secret = b->secret;
	if (!lb_request_start(b->request, &o, on_done, b))
		return no_memory(L);
	lua_settop(L, BOX);
	return lb_wait(L, &b->wait, -1, 0, request_k);
}

int luaopen_http(lua_State *L);

int
luaopen_http(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "request", http_request },
		{ NULL, NULL },
	};

	if (luaL_newmetatable(L, REQUEST)) {
		lua_pushcfunction(L, box_release);
		lua_setfield(L, -2, "__gc");
		lua_pushcfunction(L, box_release);
		lua_setfield(L, -2, "__close");
	}
	lua_pop(L, 1);
	luaL_newlib(L, functions);
	return 1;
}
