/* netcup.h: what the files of the module netcup share: the client, and one call of it.
 * It names no third-party library. */
#ifndef NETCUP_H
#define NETCUP_H

#include "lb.h"

#define MODULE "netcup"
#define CLIENT "lb.netcup.client"

struct cJSON;
struct call;

struct failure {
	const char *code; /* NULL: none */
	bool passing;     /* it may be gone in a while */
	char message[320];
};

struct client {
	char *issuer, *client_id, *api, *ccp, *ca_file, *store;
	char *device_url, *token_url, *revoke_url, *userinfo_url; /* once discovered */
	char *customer, *ccp_customer;
	double timeout, patience, backoff;
	struct lb_buf access, refresh;        /* tokens, "" when there is none */
	struct lb_buf session, key, password; /* of the DNS interface */
	double access_until, lifetime;        /* of a monotonic clock, seconds */
	lua_Integer user;                     /* 0 until it is known */
	bool loaded;
	unsigned generation, masked; /* of the tokens; what the masker knows */
	struct lb_request *refreshing;
	bool refreshed;         /* that request has ended */
	struct failure failure; /* of the last refresh */
	int lock;               /* of the store, -1 */
	struct call *joined;    /* calls that wait for the refresh */
};

enum target { API, USERS, DEVICE, TOKEN, REVOKE, USERINFO, CCP };

/* One call of Lua's, with all the requests it takes. It stands at index 2 of the stack,
 * the client at 1, what `finish` keeps at 3. */
struct call {
	struct lb_wait wait;
	struct client *client;
	struct call *next; /* of client->joined */
	bool joined, done;
	struct lb_request *request;
	const char *op, *method, *type; /* literals; type NULL: nothing is sent */
	enum target target;
	struct lb_buf path, body, url, scratch;
	struct cJSON *json, *root; /* what is sent, what came */
	long status;
	int tries, rounds;
	bool again; /* a second token, or session, was tried */
	double since, locked_since;
	int (*finish)(lua_State *L, struct call *k);
	int (*locked)(lua_State *L, struct call *k);
	/* finish's own */
	lua_Integer number;
	double interval, until;
	size_t mark;      /* where the path of a page's number begins */
	const char *text; /* literal */
	bool missing_ok;  /* 404 is an answer */
};

/* netcup_call.c */
double netcup_now(void);
int netcup_no_memory(lua_State *L);
struct client *netcup_check(lua_State *L);
struct call *netcup_call(lua_State *L, const char *op, const char *method);
void netcup_path(lua_State *L, struct call *k, const char *fmt, ...);
void netcup_query(lua_State *L, struct call *k, const char *name, const char *value);
int netcup_run(lua_State *L, struct call *k, int (*finish)(lua_State *, struct call *));
int netcup_run_keeping(
    lua_State *L, struct call *k, int (*finish)(lua_State *, struct call *), int top);
int netcup_send_again(lua_State *L, struct call *k, double after);
double netcup_pause(struct call *k);
int netcup_hold_lock(lua_State *L, struct call *k, int (*fn)(lua_State *, struct call *));
int netcup_fail_status(lua_State *L, struct call *k);
int netcup_fail(lua_State *L, struct call *k, const struct failure *f);
int netcup_finish_value(lua_State *L, struct call *k);
int netcup_finish_true(lua_State *L, struct call *k);
int netcup_expect(lua_State *L, struct call *k, bool array);

/* netcup_ccp.c */
int netcup_ccp_body(lua_State *L, struct call *k);
int netcup_ccp_answer(lua_State *L, struct call *k);

/* Add the methods of a file to the table on top. */
void netcup_login_methods(lua_State *L);
void netcup_server_methods(lua_State *L);
void netcup_snapshot_methods(lua_State *L);
void netcup_image_methods(lua_State *L);
void netcup_ccp_methods(lua_State *L);

#endif
