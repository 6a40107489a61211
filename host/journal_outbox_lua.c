/* journal_outbox_lua.c: the outbox of the module `journal`. Texts are masked before they
 * are stored. It sends nothing. */
#include <string.h>

#include "journal_args_lua.h"
#include "journal_outbox.h"

/* j:outbox_add{ id, run, step, call, method, url, path, body, token, fingerprint }
 *  an entry that waits to be sent; the same id again gives the entry that is there
 *  +-> row, existing
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_outbox_add(lua_State *L)
{
	static const char *const names[] = { "id", "run", "step", "call", "method", "url",
		"path", "body", "token", "fingerprint", NULL };
	struct journal *j = args_journal(L);
	struct journal_report r;
	bool existing;
	int n;

	luaL_checktype(L, 2, LUA_TTABLE);
	lua_settop(L, 2);
	lb_opts(L, 2, names);
	r.id = args_need_name(L, 2, "id");
	r.run = args_need_name(L, 2, "run");
	r.step = args_field_name(L, 2, "step");
	r.call = args_need_name(L, 2, "call");
	r.method = args_need_name(L, 2, "method");
	r.url = args_need_name(L, 2, "url");
	r.path = args_need_name(L, 2, "path");
	r.body = args_field(L, 2, "body");
	r.token = args_need_name(L, 2, "token");
	r.fingerprint = args_need_name(L, 2, "fingerprint");
	if (!journal_outbox_add(j, &r, &existing))
		return args_fail(L, j, "outbox_add");
	n = args_one_row(L, j, journal_outbox_one(j, r.id), "outbox_add");
	if (n != 1)
		return n;
	lua_pushboolean(L, existing);
	return 2;
}

/* j:outbox_claim(id, { pid, start_time, boot_id, host }, ttl)
 *  this process is about to send it
 *  +-> true
 *  +-> nil, err   (locked: another process has it, or an older one for the same address
 *                 waits; conflict: it is settled; not_found, full, busy, io)           */
static int
l_outbox_claim(lua_State *L)
{
	struct journal *j = args_journal(L);
	const char *id = args_name(L, 2);
	struct journal_owner o;
	double ttl;

	luaL_checktype(L, 4, LUA_TNUMBER);
	ttl = lua_tonumber(L, 4);
	luaL_argcheck(L, ttl > 0, 4, "must be a number of seconds");
	args_owner(L, 3, &o);
	return args_done(L, j, journal_outbox_claim(j, id, &o, ttl), "outbox_claim");
}

/* j:outbox_end(id, { pid, start_time, boot_id, host }, { status, answered, answer, error
 * }) what came of this process's claim; status: open (it goes on waiting), sent, refused
 *  +-> true
 *  +-> nil, err   (not_found, full, busy, io)                                          */
static int
l_outbox_end(lua_State *L)
{
	static const char *const names[] = { "status", "answered", "answer", "error",
		NULL };
	struct journal *j = args_journal(L);
	const char *id = args_name(L, 2), *status;
	struct journal_text answer, error;
	struct journal_owner o;

	luaL_checktype(L, 4, LUA_TTABLE);
	lua_settop(L, 4);
	lb_opts(L, 4, names);
	args_owner(L, 3, &o);
	status = args_need_name(L, 4, "status");
	luaL_argcheck(L,
	    strcmp(status, "open") == 0 || strcmp(status, "sent") == 0 ||
		strcmp(status, "refused") == 0,
	    4, "'status' must be open, sent or refused");
	answer = args_field(L, 4, "answer");
	error = args_field(L, 4, "error");
	return args_done(L, j, journal_outbox_end(j, id, &o, status,
	    args_field_integer(L, 4, "answered"), answer, error), "outbox_end");
}

/* j:outbox_drop(id, reason)
 *  a person decides that it shall not be sent
 *  +-> true
 *  +-> nil, err   (conflict: it is settled; not_found, full, busy, io)                 */
static int
l_outbox_drop(lua_State *L)
{
	struct journal *j = args_journal(L);
	const char *id = args_name(L, 2);

	return args_done(
	    L, j, journal_outbox_drop(j, id, args_opt_text(L, 3)), "outbox_drop");
}

/* j:outbox{ status, run, fingerprint }
 *  +-> rows, oldest first
 *  +-> nil, err   (busy, io, corrupt)                                                  */
static int
l_outbox(lua_State *L)
{
	static const char *const names[] = { "status", "run", "fingerprint", NULL };
	struct journal *j = args_journal(L);
	const char *status, *run, *fingerprint;

	lua_settop(L, 2);
	lb_opts(L, 2, names);
	status = args_field_name(L, 2, "status");
	run = args_field_name(L, 2, "run");
	fingerprint = args_field_name(L, 2, "fingerprint");
	return args_rows(L, j, journal_outbox(j, status, run, fingerprint), "outbox");
}

/* j:outbox_one(id_or_unique_prefix)
 *  +-> row
 *  +-> nil, err   (not_found, ambiguous, busy, io)                                     */
static int
l_outbox_one(lua_State *L)
{
	struct journal *j = args_journal(L);

	return args_one_row(L, j, journal_outbox_one(j, args_name(L, 2)), "outbox_one");
}

void
args_outbox_methods(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{ "outbox", l_outbox },
		{ "outbox_add", l_outbox_add },
		{ "outbox_claim", l_outbox_claim },
		{ "outbox_end", l_outbox_end },
		{ "outbox_drop", l_outbox_drop },
		{ "outbox_one", l_outbox_one },
		{ NULL, NULL },
	};

	luaL_setfuncs(L, methods, 0);
}
