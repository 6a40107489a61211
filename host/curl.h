/* curl.h: HTTP requests on the loop, a part of the module kit: modules include lb.h.
 * It names no function of curl and does not know Lua's values. */
#ifndef CURL_H
#define CURL_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

struct lb_buf;
struct lb_request;

/* What is pointed to need only live until lb_request_start returns. Certificates are
 * always verified, proxies of the environment are not used, and only http and https are
 * spoken; a redirect does not lead from https to http, and a secret leaves over http only
 * for an address that is not routed on the Internet. */
struct lb_request_options {
	const char *url;
	const char *method;      /* NULL: GET, with a body POST */
	const char *ca_file;     /* trusted in place of the system's; NULL: those */
	const char *unix_socket; /* connect there, whatever the URL's host is */
	double timeout, connect_timeout;
	int max_redirects; /* 0: a redirect is a response as any other */
	size_t max_bytes;
	int output;  /* the body of a 2xx is written there; -1: to memory */
	bool secret; /* it holds one */
};

struct lb_response {
	const char *code; /* NULL: it is whole. Else resolve, connect, tls, timeout,
			   * redirect, too_large, protocol, aborted, exhausted, io */
	const char *message, *url;
	long status;
	double seconds;
	const struct lb_buf *head; /* the last response's lines, each ends with "\r\n" */
	const struct lb_buf *body;
	size_t received;
};

/* What is wrong with a URL, or NULL: absolute, http or https, without user and password.
 */
const char *lb_request_url_problem(const char *url);

/* In this order: new, what it is made of, start, free. Copies are kept, and wiped when
 * they are let go. false and NULL: out of memory. */
struct lb_request *lb_request_new(lua_State *L);
bool
lb_request_header(struct lb_request *r, const char *name, const char *value, size_t len);
bool lb_request_body(struct lb_request *r, const char *data, size_t len);
/* Connect to `address` for what the URL calls host:port. */
bool lb_request_resolve(struct lb_request *r, const char *host_port, const char *address);

/* `done` is called once, on the loop's thread, and not from inside of start; from then on
 * there is a response. It must not free the request. */
bool lb_request_start(struct lb_request *r, const struct lb_request_options *o,
    void (*done)(void *arg), void *arg);
const struct lb_response *lb_request_response(const struct lb_request *r);
void lb_request_free(struct lb_request *r); /* cancels; NULL is fine */

#endif
