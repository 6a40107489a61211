/* curl.c: HTTP requests on the host's loop: one multi handle of libcurl for a Lua state.
 * The only file that names curl. It keeps no cookies, uses no proxy and no .netrc, and
 * decodes no content. */
#include <errno.h>
#include <malloc.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <curl/curl.h>

#include "lb.h"

#define BOX "lb.curl"
#define HEAD_MAX ((size_t)256 * 1024)
#define IDLE_CONNECTIONS 8L

/* Freed by whoever lets go last: the Lua state, or a request. */
struct multi {
	CURLM *curlm;
	struct lb_timer *timer;
	struct socket *sockets;
	struct lb_request *requests; /* under way */
	int refs;
	bool exhausted; /* a request under way could not be watched */
};

struct socket {
	struct multi *m;
	struct socket *prev, *next;
	struct lb_poll *poll;
	curl_socket_t fd;
};

struct lb_request {
	struct multi *m;
	struct lb_request *prev, *next;
	CURL *easy;
	struct curl_slist *headers, *connect_to;
	struct lb_timer *deadline;
	struct lb_buf sent, head, body;
	size_t max_bytes;
	int output;
	bool under_way, has_body, has_type, exhausted;
	const char *why; /* the code of what a callback refused */
	void (*done)(void *arg);
	void *arg;
	struct lb_response response;
	char error[CURL_ERROR_SIZE];
};

/* Memory of curl's, wiped when it is let go: requests hold tokens. */

static void
wiping_free(void *p)
{
	if (p != NULL)
		lb_wipe(p, malloc_usable_size(p));
	free(p);
}

static void *
wiping_realloc(void *old, size_t size)
{
	size_t had = old == NULL ? 0 : malloc_usable_size(old);
	void *p;

	if (had >= size && had / 4 <= size && old != NULL)
		return old;
	if ((p = malloc(size > 0 ? size : 1)) == NULL)
		return NULL;
	if (old != NULL)
		memcpy(p, old, had < size ? had : size);
	wiping_free(old);
	return p;
}

/* Results */

static const char *
code_of(const struct lb_request *r, CURLcode rc)
{
	if (r->exhausted)
		return "exhausted";
	switch (rc) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return "resolve";
	case CURLE_COULDNT_CONNECT:
	case CURLE_INTERFACE_FAILED:
		return "connect";
	case CURLE_OPERATION_TIMEDOUT:
		return "timeout";
	case CURLE_TOO_MANY_REDIRECTS:
	case CURLE_URL_MALFORMAT:
		return "redirect";
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
		return "tls";
	case CURLE_WRITE_ERROR:
	case CURLE_ABORTED_BY_CALLBACK:
		return r->why != NULL ? r->why : "protocol";
	case CURLE_RECV_ERROR:
		if (strstr(r->error, "chunked-encoding") != NULL)
			return "protocol"; /* it has no code of its own */
		return "aborted";
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_SEND_ERROR:
		return "aborted";
	case CURLE_OUT_OF_MEMORY:
		return "exhausted";
	case CURLE_UNSUPPORTED_PROTOCOL:
		/* of a redirect's target, or of an answer that is no HTTP */
		return r->response.status / 100 == 3 ? "redirect" : "protocol";
	default:
		return "protocol";
	}
}

static const char *
message_of(const struct lb_request *r, CURLcode rc)
{
	const char *code = r->response.code;

	if (strcmp(code, "too_large") == 0)
		return "the response is larger than it may be";
	if (rc == CURLE_ABORTED_BY_CALLBACK)
		return "a secret would leave unencrypted over http for a public address; "
		       "give an https URL";
	if (strcmp(code, "io") == 0)
		return "the output file cannot be written";
	if (strcmp(code, "exhausted") == 0)
		return "not enough memory";
	return r->error[0] != '\0' ? r->error : curl_easy_strerror(rc);
}

static void
leave(struct lb_request *r)
{
	struct multi *m = r->m;

	if (!r->under_way)
		return;
	r->under_way = false;
	lb_timer_set(r->deadline, -1);
	curl_multi_remove_handle(m->curlm, r->easy);
	if (r->prev != NULL)
		r->prev->next = r->next;
	else
		m->requests = r->next;
	if (r->next != NULL)
		r->next->prev = r->prev;
}

static void
finish(struct lb_request *r, CURLcode rc)
{
	struct lb_response *p = &r->response;
	curl_off_t microseconds = 0;
	char *url = NULL;

	curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &p->status);
	curl_easy_getinfo(r->easy, CURLINFO_EFFECTIVE_URL, &url);
	curl_easy_getinfo(r->easy, CURLINFO_TOTAL_TIME_T, &microseconds);
	p->url = url != NULL ? url : "";
	p->seconds = (double)microseconds / 1e6;
	p->head = &r->head;
	p->body = &r->body;
	if (rc != CURLE_OK || r->exhausted) {
		p->code = code_of(r, rc);
		p->message = message_of(r, rc);
	}
	leave(r);
	lb_buf_free(&r->sent);
	r->done(r->arg);
}

/* Looks for requests that have ended, after curl was let work. */
static void
collect(struct multi *m, CURLMcode worked)
{
	struct lb_request *r, *next;
	CURLMsg *msg;
	CURLcode rc;
	int left;

	m->refs++; /* not to end in here */
	/* curl does not say which one it could not go on with, nor comes back to it */
	for (r = m->requests; r != NULL && worked != CURLM_OK; r = r->next)
		r->exhausted = m->exhausted = true;
	while ((msg = curl_multi_info_read(m->curlm, &left)) != NULL) {
		char *private = NULL;

		if (msg->msg != CURLMSG_DONE)
			continue;
		rc = msg->data.result;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &private);
		finish((struct lb_request *)(void *)private, rc);
	}
	if (m->exhausted) {
		m->exhausted = false;
		for (r = m->requests; r != NULL; r = next) {
			next = r->next;
			if (r->exhausted)
				finish(r, CURLE_OUT_OF_MEMORY);
		}
	}
	m->refs--;
}

/* What the loop calls */

/* Behind curl's own timeout, which it may lose when there is no memory. */
static void
on_deadline(void *arg)
{
	finish(arg, CURLE_OPERATION_TIMEDOUT);
}

static void
on_timer(void *arg)
{
	struct multi *m = arg;
	int running;

	collect(m, curl_multi_socket_action(m->curlm, CURL_SOCKET_TIMEOUT, 0, &running));
}

static void
on_events(void *arg, int events)
{
	struct socket *s = arg;
	struct multi *m = s->m;
	int running;

	collect(m,
	    curl_multi_socket_action(m->curlm, s->fd,
		((events & LB_READ) != 0 ? CURL_CSELECT_IN : 0) |
		    ((events & LB_WRITE) != 0 ? CURL_CSELECT_OUT : 0),
		&running));
}

/* What curl calls */

static int
timer_cb(CURLM *curlm, long milliseconds, void *arg)
{
	struct multi *m = arg;

	(void)curlm;
	lb_timer_set(m->timer, milliseconds < 0 ? -1 : (double)milliseconds / 1000);
	return 0;
}

static void
socket_free(struct socket *s)
{
	lb_poll_free(s->poll);
	if (s->prev != NULL)
		s->prev->next = s->next;
	else
		s->m->sockets = s->next;
	if (s->next != NULL)
		s->next->prev = s->prev;
	free(s);
}

static struct socket *
socket_new(struct multi *m, curl_socket_t fd)
{
	struct socket *s = calloc(1, sizeof *s);

	if (s == NULL)
		return NULL;
	if ((s->poll = lb_timer_poll(m->timer, fd, on_events, s)) == NULL) {
		free(s);
		return NULL;
	}
	s->m = m;
	s->fd = fd;
	s->next = m->sockets;
	if (s->next != NULL)
		s->next->prev = s;
	m->sockets = s;
	return s;
}

/* A failure is that of one request: what curl is told would end all of them. */
static int
socket_cb(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned)
{
	struct multi *m = arg;
	struct socket *s = assigned;
	struct lb_request *r;
	char *private = NULL;

	if (what == CURL_POLL_REMOVE) {
		if (s != NULL)
			socket_free(s);
		curl_multi_assign(m->curlm, fd, NULL);
		return 0;
	}
	if (s == NULL && (s = socket_new(m, fd)) != NULL)
		curl_multi_assign(m->curlm, fd, s);
	if (s != NULL &&
	    lb_poll_set(s->poll,
		((what & CURL_POLL_IN) != 0 ? LB_READ : 0) |
		    ((what & CURL_POLL_OUT) != 0 ? LB_WRITE : 0)))
		return 0;
	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
	if ((r = (struct lb_request *)(void *)private) != NULL) {
		r->exhausted = m->exhausted = true;
		lb_timer_set(m->timer, 0);
	}
	return 0;
}

static size_t
refuse(struct lb_request *r, const char *code)
{
	r->why = code;
	return 0;
}

static size_t
header_cb(char *data, size_t size, size_t n, void *arg)
{
	struct lb_request *r = arg;

	(void)size;
	if (n >= 5 && memcmp(data, "HTTP/", 5) == 0)
		lb_buf_drop(&r->head, r->head.len); /* of a redirect, or of 100 */
	if (r->head.len + n > HEAD_MAX)
		return refuse(r, "too_large");
	if (!lb_buf_add(&r->head, data, n))
		return refuse(r, "exhausted");
	return n;
}

static size_t
write_cb(char *data, size_t size, size_t n, void *arg)
{
	struct lb_request *r = arg;
	long status = 0;
	size_t done;
	ssize_t written;

	(void)size;
	if (n > r->max_bytes - r->response.received)
		return refuse(r, "too_large");
	r->response.received += n;
	curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
	if (r->output < 0 || status / 100 != 2)
		return lb_buf_add(&r->body, data, n) ? n : refuse(r, "exhausted");
	for (done = 0; done < n; done += (size_t)written) {
		written = write(r->output, data + done, n - done);
		if (written < 0 && errno == EINTR)
			written = 0;
		else if (written <= 0)
			return refuse(r, "io");
	}
	return n;
}

/* Is it an address of loopback, a private network (RFC 1918, 4193), a link (RFC 3927,
 * 4291) or shared address space (RFC 6598)? "" is a Unix socket's. */
static bool
is_near(const char *address)
{
	static const struct {
		uint32_t net, mask;
	} near[] = {
		{ 0x7f000000, 0xff000000 }, /* 127.0.0.0/8 */
		{ 0x0a000000, 0xff000000 }, /* 10.0.0.0/8 */
		{ 0xac100000, 0xfff00000 }, /* 172.16.0.0/12 */
		{ 0xc0a80000, 0xffff0000 }, /* 192.168.0.0/16 */
		{ 0xa9fe0000, 0xffff0000 }, /* 169.254.0.0/16 */
		{ 0x64400000, 0xffc00000 }, /* 100.64.0.0/10 */
	};
	struct in6_addr six;
	struct in_addr four;
	uint32_t host;

	if (address[0] == '\0')
		return true;
	if (inet_pton(AF_INET6, address, &six) == 1) {
		if (!IN6_IS_ADDR_V4MAPPED(&six))
			return IN6_IS_ADDR_LOOPBACK(&six) ||
			    IN6_IS_ADDR_LINKLOCAL(&six) ||
			    (six.s6_addr[0] & 0xfe) == 0xfc;
		memcpy(&four, &six.s6_addr[12], sizeof four);
	} else if (inet_pton(AF_INET, address, &four) != 1) {
		return false;
	}
	host = ntohl(four.s_addr);
	for (size_t i = 0; i < sizeof near / sizeof *near; i++)
		if ((host & near[i].mask) == near[i].net)
			return true;
	return false;
}

/* Connected, and nothing sent yet: also after each redirect. */
static int
prereq_cb(void *arg, char *address, char *own_address, int port, int own_port)
{
	struct lb_request *r = arg;
	char *scheme = NULL;

	(void)own_address, (void)port, (void)own_port;
	curl_easy_getinfo(r->easy, CURLINFO_SCHEME, &scheme);
	if ((scheme != NULL && strcasecmp(scheme, "https") == 0) || is_near(address))
		return CURL_PREREQFUNC_OK;
	r->why = "tls";
	return CURL_PREREQFUNC_ABORT;
}

/* The multi handle of a state */

static void
multi_unref(struct multi *m)
{
	struct socket *s, *next;

	if (--m->refs > 0)
		return;
	curl_multi_cleanup(m->curlm);
	for (s = m->sockets; s != NULL; s = next) {
		next = s->next;
		socket_free(s);
	}
	lb_timer_free(m->timer);
	free(m);
	curl_global_cleanup();
}

static int
box_gc(lua_State *L)
{
	struct multi **box = luaL_checkudata(L, 1, BOX);

	if (*box != NULL)
		multi_unref(*box);
	*box = NULL;
	return 0;
}

static bool
multi_set(struct multi *m)
{
	return curl_multi_setopt(m->curlm, CURLMOPT_SOCKETFUNCTION, socket_cb) ==
	    CURLM_OK &&
	    curl_multi_setopt(m->curlm, CURLMOPT_SOCKETDATA, m) == CURLM_OK &&
	    curl_multi_setopt(m->curlm, CURLMOPT_TIMERFUNCTION, timer_cb) == CURLM_OK &&
	    curl_multi_setopt(m->curlm, CURLMOPT_TIMERDATA, m) == CURLM_OK &&
	    curl_multi_setopt(m->curlm, CURLMOPT_MAXCONNECTS, IDLE_CONNECTIONS) ==
	    CURLM_OK;
}

static struct multi *
multi_new(lua_State *L)
{
	struct multi *m = calloc(1, sizeof *m);

	if (m == NULL)
		return NULL;
	m->refs = 1;
	if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wiping_free, wiping_realloc,
		strdup, calloc) != CURLE_OK) {
		free(m);
		return NULL;
	}
	m->timer = lb_timer_new(L, on_timer, m);
	m->curlm = curl_multi_init();
	if (m->timer != NULL && m->curlm != NULL && multi_set(m))
		return m;
	multi_unref(m);
	return NULL;
}

static struct multi *
multi_of(lua_State *L)
{
	struct multi **box, *m;

	if (lua_getfield(L, LUA_REGISTRYINDEX, BOX ".multi") == LUA_TNIL) {
		lua_pop(L, 1);
		box = lua_newuserdatauv(L, sizeof *box, 0);
		*box = NULL;
		if (luaL_newmetatable(L, BOX)) {
			lua_pushcfunction(L, box_gc);
			lua_setfield(L, -2, "__gc");
		}
		lua_setmetatable(L, -2);
		lua_pushvalue(L, -1);
		lua_setfield(L, LUA_REGISTRYINDEX, BOX ".multi");
	}
	box = lua_touserdata(L, -1);
	if (*box == NULL)
		*box = multi_new(L);
	m = *box;
	lua_pop(L, 1);
	return m;
}

/* Requests */

const char *
lb_request_url_problem(const char *url)
{
	const char *problem = NULL;
	CURLU *u = curl_url();
	char *scheme = NULL, *user = NULL, *password = NULL;
	CURLUcode rc = CURLUE_OUT_OF_MEMORY;

	if (u != NULL)
		rc = curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME);
	if (rc == CURLUE_OUT_OF_MEMORY)
		problem = "not enough memory";
	else if (rc != CURLUE_OK)
		problem = "not an absolute URL";
	else if (curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
	    (strcasecmp(scheme, "http") != 0 && strcasecmp(scheme, "https") != 0))
		problem = "not a URL of http or https";
	else if (curl_url_get(u, CURLUPART_USER, &user, 0) != CURLUE_NO_USER ||
	    curl_url_get(u, CURLUPART_PASSWORD, &password, 0) != CURLUE_NO_PASSWORD)
		problem = "a URL without user and password is needed";
	curl_free(scheme);
	curl_free(user);
	curl_free(password);
	curl_url_cleanup(u);
	return problem;
}

struct lb_request *
lb_request_new(lua_State *L)
{
	struct multi *m = multi_of(L);
	struct lb_request *r;

	if (m == NULL || (r = calloc(1, sizeof *r)) == NULL)
		return NULL;
	r->m = m;
	m->refs++;
	r->easy = curl_easy_init();
	r->deadline = lb_timer_new(L, on_deadline, r);
	if (r->easy != NULL && r->deadline != NULL)
		return r;
	lb_request_free(r);
	return NULL;
}

static bool
append(struct curl_slist **list, const char *line)
{
	struct curl_slist *grown = curl_slist_append(*list, line);

	if (grown != NULL)
		*list = grown;
	return grown != NULL;
}

bool
lb_request_header(struct lb_request *r, const char *name, const char *value, size_t len)
{
	struct lb_buf line = { 0 };
	bool ok;

	if (strcasecmp(name, "content-type") == 0)
		r->has_type = true;
	/* curl's way to say that the value is empty */
	ok = lb_buf_add(&line, name, strlen(name)) &&
	    lb_buf_add(&line, len > 0 ? ": " : ";", len > 0 ? 2 : 1) &&
	    lb_buf_add(&line, value, len) && lb_buf_add(&line, "", 1) &&
	    append(&r->headers, line.data);
	lb_buf_free(&line);
	return ok;
}

bool
lb_request_body(struct lb_request *r, const char *data, size_t len)
{
	r->has_body = true;
	return lb_buf_add(&r->sent, data, len);
}

/* Not CURLOPT_RESOLVE, which would hold for all later requests. */
bool
lb_request_resolve(struct lb_request *r, const char *host_port, const char *address)
{
	struct lb_buf line = { 0 };
	bool bare6 = strchr(address, ':') != NULL && address[0] != '[', ok;

	ok = lb_buf_add(&line, host_port, strlen(host_port)) &&
	    lb_buf_add(&line, bare6 ? ":[" : ":", bare6 ? 2 : 1) &&
	    lb_buf_add(&line, address, strlen(address)) &&
	    lb_buf_add(&line, bare6 ? "]:" : ":", (bare6 ? 2 : 1) + 1) &&
	    append(&r->connect_to, line.data);
	lb_buf_free(&line);
	return ok;
}

static long
milliseconds(double seconds)
{
	const double most = 7 * 24 * 3600;

	return (long)ceil((seconds < 0.001       ? 0.001 :
				  seconds > most ? most :
						   seconds) *
	    1000);
}

/* false: out of memory, which is the only way in which these can fail. */
static bool
set_basics(struct lb_request *r, const struct lb_request_options *o)
{
	CURL *e = r->easy;
	const char *redirects =
	    strncasecmp(o->url, "https:", 6) == 0 ? "https" : "http,https";
	CURLcode rc = CURLE_OK;

#define SET(option, value) (rc = rc == CURLE_OK ? curl_easy_setopt(e, option, value) : rc)
	SET(CURLOPT_PRIVATE, r);
	SET(CURLOPT_ERRORBUFFER, r->error);
	SET(CURLOPT_URL, o->url);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_REDIR_PROTOCOLS_STR, redirects);
	SET(CURLOPT_FOLLOWLOCATION, o->max_redirects > 0 ? 1L : 0L);
	SET(CURLOPT_MAXREDIRS, (long)o->max_redirects);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_QUICK_EXIT, 1L); /* cancelling does not wait for the resolver */
	SET(CURLOPT_DNS_CACHE_TIMEOUT, 0L);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_USERAGENT, "lbrun/" LBRUN_VERSION);
	SET(CURLOPT_TIMEOUT_MS, milliseconds(o->timeout));
	SET(CURLOPT_CONNECTTIMEOUT_MS, milliseconds(o->connect_timeout));
	SET(CURLOPT_HEADERFUNCTION, header_cb);
	SET(CURLOPT_HEADERDATA, r);
	SET(CURLOPT_WRITEFUNCTION, write_cb);
	SET(CURLOPT_WRITEDATA, r);
	if (o->secret) {
		SET(CURLOPT_PREREQFUNCTION, prereq_cb);
		SET(CURLOPT_PREREQDATA, r);
	}
	SET(CURLOPT_HTTPHEADER, r->headers);
	SET(CURLOPT_CONNECT_TO, r->connect_to);
	if (o->ca_file != NULL) {
		SET(CURLOPT_CAINFO, o->ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}
	if (o->unix_socket != NULL) {
		/* what listens there now need not be what did a moment ago */
		SET(CURLOPT_UNIX_SOCKET_PATH, o->unix_socket);
		SET(CURLOPT_FRESH_CONNECT, 1L);
		SET(CURLOPT_FORBID_REUSE, 1L);
	}
	return rc == CURLE_OK;
}

static bool
set_method(struct lb_request *r, const char *method)
{
	CURL *e = r->easy;
	CURLcode rc = CURLE_OK;

	if (method == NULL)
		method = r->has_body ? "POST" : "GET";
	if (r->has_body) {
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->sent.len);
		SET(CURLOPT_POSTFIELDS, r->sent.len > 0 ? r->sent.data : "");
	} else if (strcmp(method, "HEAD") == 0) {
		SET(CURLOPT_NOBODY, 1L);
	}
	if (strcmp(method, "HEAD") != 0 &&
	    strcmp(method, r->has_body ? "POST" : "GET") != 0)
		SET(CURLOPT_CUSTOMREQUEST, method);
	/* curl repeats what a connection that it used before has swallowed */
	if (strcmp(method, "HEAD") != 0 && strcmp(method, "GET") != 0)
		SET(CURLOPT_FRESH_CONNECT, 1L);
#undef SET
	return rc == CURLE_OK;
}

bool
lb_request_start(struct lb_request *r, const struct lb_request_options *o,
    void (*done)(void *arg), void *arg)
{
	struct multi *m = r->m;

	r->max_bytes = o->max_bytes;
	r->output = o->output;
	r->done = done;
	r->arg = arg;
	/* nothing that was not asked for */
	if (!append(&r->headers, "Expect:") ||
	    (r->has_body && !r->has_type && !append(&r->headers, "Content-Type:")) ||
	    !set_basics(r, o) || !set_method(r, o->method))
		return false;
	if (curl_multi_add_handle(m->curlm, r->easy) != CURLM_OK)
		return false;
	r->under_way = true;
	lb_timer_set(r->deadline, (double)milliseconds(o->timeout) / 1000 + 1);
	r->next = m->requests;
	if (r->next != NULL)
		r->next->prev = r;
	m->requests = r;
	return true;
}

const struct lb_response *
lb_request_response(const struct lb_request *r)
{
	return &r->response;
}

void
lb_request_free(struct lb_request *r)
{
	if (r == NULL)
		return;
	leave(r);
	curl_easy_cleanup(r->easy);
	lb_timer_free(r->deadline);
	curl_slist_free_all(r->headers);
	curl_slist_free_all(r->connect_to);
	lb_buf_free(&r->sent);
	lb_buf_free(&r->head);
	lb_buf_free(&r->body);
	multi_unref(r->m);
	lb_wipe(r, sizeof *r);
	free(r);
}
