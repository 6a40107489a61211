/* ssh_files.c: files of the server by sftp, in pieces, so that the caller sees progress.
 * sftp is one more session channel, opened when first needed and closed when idle and a
 * command needs its place. OpenSSH's sftp does not rename over a file that exists. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libssh2.h>
#include <libssh2_sftp.h>

#include "ssh_lua.h"
#include "ssh_pump.h"

#define FILES "lb.ssh.file"
#define OPBOX "lb.ssh.op"

enum { PATH_BYTES_MAX = 4096, READ_MAX = 1024 * 1024, READ_DEFAULT = 256 * 1024 };

struct file {
	struct file *next;
	struct session *session;
	LIBSSH2_SFTP_HANDLE *lib; /* NULL: not open yet, or closed */
	struct filebox *box;      /* NULL: nobody holds it */
	bool opening, closing;
	bool cut; /* a call ended early: where it stands is not known */
};

struct filebox {
	struct file *file;
	bool closed;
};

/* Steps. Each is repeated until it has ended. */

static void
sftp_failed(struct session *s, struct op *op, int rc)
{
	static const struct {
		unsigned long status;
		const char *code, *why;
	} known[] = {
		{ LIBSSH2_FX_NO_SUCH_FILE, "not_found", "no such file" },
		{ LIBSSH2_FX_NO_SUCH_PATH, "not_found", "no such folder" },
		{ LIBSSH2_FX_PERMISSION_DENIED, "denied", "permission denied" },
		{ LIBSSH2_FX_WRITE_PROTECT, "denied", "write protected" },
		{ LIBSSH2_FX_FILE_ALREADY_EXISTS, "exists", "it exists" },
		{ LIBSSH2_FX_NO_SPACE_ON_FILESYSTEM, "no_space", "no space left" },
		{ LIBSSH2_FX_QUOTA_EXCEEDED, "no_space", "quota exceeded" },
		{ LIBSSH2_FX_OP_UNSUPPORTED, "unsupported",
		    "not supported by the server" },
	};
	unsigned long status;
	size_t i;

	if (rc != LIBSSH2_ERROR_SFTP_PROTOCOL) {
		if (op_of_channel(rc))
			op_fail(op, "closed", "the server closed the sftp channel");
		else
			die_lib(s, rc);
		return;
	}
	status = libssh2_sftp_last_error(s->sftp);
	for (i = 0; i < sizeof known / sizeof *known; i++)
		if (known[i].status == status)
			break;
	if (i < sizeof known / sizeof *known)
		op_fail(op, known[i].code, "%s%s%s", op->path != NULL ? op->path : "",
		    op->path != NULL ? ": " : "", known[i].why);
	else
		op_fail(op, "failed", "%s%sthe server refused it (sftp status %lu)",
		    op->path != NULL ? op->path : "", op->path != NULL ? ": " : "",
		    status);
}

/* A step would wait: it has ended when there is nobody left to wait for. */
static bool
sftp_again(struct session *s, struct op *op)
{
	if (s->sftp_gone)
		op_fail(op, "closed", "the server has ended sftp");
	return s->sftp_gone;
}

/* Opens sftp itself. false: not yet, or *ended with a failure. */
static bool
sftp_begin(struct session *s, struct op *op, bool *ended)
{
	char *msg = NULL;
	int rc;

	if (s->sftp_gone || s->sftp != NULL) {
		*ended = s->sftp_gone && sftp_again(s, op);
		return !*ended;
	}
	if (!s->sftp_begun)
		s->opened_id = UINT32_MAX;
	s->sftp_begun = true;
	s->sftp = libssh2_sftp_init(s->lib);
	if (s->sftp != NULL) {
		s->sftp_id = s->opened_id;
		return true;
	}
	rc = libssh2_session_last_error(s->lib, &msg, NULL, 0);
	*ended = rc == LIBSSH2_ERROR_EAGAIN && sftp_again(s, op);
	if (rc == LIBSSH2_ERROR_EAGAIN)
		return false;
	s->sftp_begun = false;
	op->session_channel = true; /* should it have to wait */
	if (!op_of_channel(rc))
		die_lib(s, rc);
	else if (msg != NULL && strstr(msg, "startup channel") != NULL &&
	    op_wait_for_session(s))
		return false;
	else
		op_fail(op, "refused", "the server offers no sftp: %s",
		    msg != NULL ? msg : "");
	*ended = true;
	return false;
}

/* For steps that end with a code of libssh2. */
static bool
sftp_ended(struct session *s, struct op *op, int rc)
{
	if (rc == LIBSSH2_ERROR_EAGAIN)
		return sftp_again(s, op);
	if (rc < 0)
		sftp_failed(s, op, rc);
	return true;
}

static bool
open_step(struct session *s, struct op *op)
{
	struct file *f = op->file;
	bool ended;
	int rc;

	if (!sftp_begin(s, op, &ended)) {
		if (ended && !s->dead)
			f->opening = false;
		return ended;
	}
	f->lib = libssh2_sftp_open_ex(s->sftp, op->path, (unsigned int)strlen(op->path),
	    op->flags, op->mode, LIBSSH2_SFTP_OPENFILE);
	if (f->lib == NULL) {
		rc = libssh2_session_last_errno(s->lib);
		if (rc == LIBSSH2_ERROR_EAGAIN && !s->sftp_gone)
			return false;
		f->opening = false;
		return sftp_ended(s, op, rc);
	}
	f->opening = false;
	return true;
}

static bool
read_step(struct session *s, struct op *op)
{
	ssize_t n = libssh2_sftp_read(op->file->lib, op->data, op->len);

	if (n >= 0)
		op->done = (size_t)n;
	return sftp_ended(s, op, (int)n);
}

static bool
write_step(struct session *s, struct op *op)
{
	ssize_t n;

	while (op->done < op->len) {
		n = libssh2_sftp_write(
		    op->file->lib, op->data + op->done, op->len - op->done);
		if (n <= 0)
			return n < 0 && sftp_ended(s, op, (int)n);
		op->done += (size_t)n;
	}
	return true;
}

static bool
close_step(struct session *s, struct op *op)
{
	int rc = libssh2_sftp_close_handle(op->file->lib);

	if (rc == LIBSSH2_ERROR_EAGAIN && !s->sftp_gone)
		return false;
	if (rc != LIBSSH2_ERROR_EAGAIN) {
		op->file->lib = NULL;
		op->file->closing = false;
	}
	return sftp_ended(s, op, rc);
}

static bool
rename_step(struct session *s, struct op *op)
{
	bool ended;

	if (!sftp_begin(s, op, &ended))
		return ended;
	return sftp_ended(s, op, libssh2_sftp_rename(s->sftp, op->path, op->data));
}

static bool
unlink_step(struct session *s, struct op *op)
{
	bool ended;

	if (!sftp_begin(s, op, &ended))
		return ended;
	return sftp_ended(s, op, libssh2_sftp_unlink(s->sftp, op->path));
}

static bool
mkdir_step(struct session *s, struct op *op)
{
	bool ended;

	if (!sftp_begin(s, op, &ended))
		return ended;
	return sftp_ended(s, op, libssh2_sftp_mkdir(s->sftp, op->path, op->mode));
}

static bool
stat_step(struct session *s, struct op *op)
{
	LIBSSH2_SFTP_ATTRIBUTES attrs;
	bool ended;
	int rc;

	if (!sftp_begin(s, op, &ended))
		return ended;
	rc = libssh2_sftp_lstat(s->sftp, op->path, &attrs);
	if (rc == 0) {
		op->flags = attrs.flags;
		op->attrs.size = attrs.filesize;
		op->attrs.mode = attrs.permissions;
		op->attrs.uid = attrs.uid;
		op->attrs.gid = attrs.gid;
		op->attrs.mtime = attrs.mtime;
	}
	return sftp_ended(s, op, rc);
}

static bool
shutdown_step(struct session *s, struct op *op)
{
	(void)op;
	if (s->sftp != NULL && libssh2_sftp_shutdown(s->sftp) == LIBSSH2_ERROR_EAGAIN)
		return false;
	s->sftp = NULL;
	s->sftp_begun = s->sftp_gone = false;
	return true;
}

/* Closes in the background what nobody holds, and sftp itself when a command waits for
 * its place. */
void
files_run(struct session *s)
{
	struct file **p = &s->files, *f;
	struct op *op;

	while ((f = *p) != NULL) {
		if (f->opening || f->closing || (f->lib != NULL && f->box != NULL)) {
			p = &f->next;
			continue;
		}
		if (f->lib == NULL) {
			if (f->box != NULL)
				f->box->file = NULL;
			*p = f->next;
			free(f);
			continue;
		}
		if ((op = calloc(1, sizeof *op)) == NULL)
			return;
		op->step = close_step;
		op->file = f;
		f->closing = true;
		op_queue(s, op, false);
		p = &f->next;
	}
	if (s->sftp == NULL || s->sftp_gone || s->files != NULL || s->active != NULL ||
	    s->ops == NULL)
		return;
	for (op = s->ops; op != NULL; op = op->next)
		if (op_may_start(s, op))
			return;
	if ((op = calloc(1, sizeof *op)) == NULL)
		return;
	op->step = shutdown_step;
	op_queue(s, op, true);
}

/* The session is dead: nothing is sent, libssh2 only frees. */
void
files_end(struct session *s)
{
	struct file *f;

	for (f = s->files; f != NULL; f = f->next) {
		if (f->lib != NULL)
			libssh2_sftp_close_handle(f->lib);
		f->lib = NULL;
		f->opening = f->closing = false;
	}
	if (s->sftp != NULL)
		libssh2_sftp_shutdown(s->sftp);
	s->sftp = NULL;
}

void
files_forget(struct session *s)
{
	struct file *f;

	while ((f = s->files) != NULL) {
		s->files = f->next;
		if (f->box != NULL)
			f->box->file = NULL;
		free(f);
	}
}

/* Calls that wait for an operation */

struct call {
	const char *name;
	int (*finish)(lua_State *L, struct op *op);
};

static void
opbox_release(struct opbox *box)
{
	struct op *op = box->op;

	box->op = NULL;
	lb_wait_drop(&box->slot.wait);
	if (op == NULL)
		return;
	op->box = NULL;
	if (op->ended)
		op_free(op);
}

static int
l_opbox_gc(lua_State *L)
{
	opbox_release(luaL_checkudata(L, 1, OPBOX));
	return 0;
}

static int
op_k(lua_State *L, int status, lua_KContext ctx)
{
	struct opbox *box = lua_touserdata(L, -1);
	const struct call *call = (const struct call *)ctx;
	struct op *op = box->op;
	int n;

	(void)status;
	if (!op->ended && box->slot.wait.why == LB_WOKEN)
		return slot_wait(L, &box->slot, ctx, op_k);
	if (!op->ended) {
		/* it goes on without us: what becomes of the file is not known here */
		if (op->file != NULL)
			op->file->cut = true;
		n = fail_slot(L, &box->slot, call->name, "waiting for the server");
	} else if (op->code[0] != '\0') {
		n = lb_fail(L, MODULE, call->name, op->code, "%s", op->why);
	} else {
		n = call->finish(L, op);
	}
	opbox_release(box);
	return n;
}

/* An operation with a box, which is left on the stack; path and data are copied. */
static struct op *
op_new(lua_State *L, bool (*step)(struct session *s, struct op *op), const char *path,
    const char *data, size_t len)
{
	struct opbox *box = lua_newuserdatauv(L, sizeof *box, 0);
	struct op *op;

	memset(box, 0, sizeof *box);
	luaL_setmetatable(L, OPBOX);
	if ((op = box->op = calloc(1, sizeof *op)) == NULL)
		luaL_error(L, "out of memory");
	op->ended = true; /* until it is queued */
	op->box = box;
	op->step = step;
	if (path != NULL && (op->path = strdup(path)) == NULL)
		luaL_error(L, "out of memory");
	if (len > 0 && (op->data = malloc(len)) == NULL)
		luaL_error(L, "out of memory");
	op->len = len;
	if (data != NULL && len > 0)
		memcpy(op->data, data, len);
	return op;
}

static int
op_run(lua_State *L, struct session *s, struct op *op, double seconds,
    const struct call *call)
{
	struct opbox *box = op->box;

	slot_enter(L, &box->slot, seconds);
	op->ended = false;
	op->session_channel =
	    op->file == NULL || op->step == open_step ? s->sftp == NULL : false;
	op_queue(s, op, false);
	pump(s);
	return op_k(L, LUA_OK, (lua_KContext)call);
}

static const char *
check_path(lua_State *L, int idx)
{
	size_t len;
	const char *path = luaL_checklstring(L, idx, &len);

	luaL_argcheck(L, len > 0 && len <= PATH_BYTES_MAX && strlen(path) == len, idx,
	    "not a path");
	return path;
}

static int
finish_true(lua_State *L, struct op *op)
{
	(void)op;
	lua_pushboolean(L, true);
	return 1;
}

/* Files */

static struct file *
check_file(lua_State *L)
{
	struct filebox *fb = luaL_checkudata(L, 1, FILES);

	if (fb->closed || fb->file == NULL)
		luaL_error(L, "the file is closed");
	return fb->file;
}

/* Leaves closing it to the pump. */
static void
file_release(struct filebox *fb)
{
	struct file *f = fb->file;

	fb->closed = true;
	fb->file = NULL;
	if (f == NULL)
		return;
	f->box = NULL;
	if (!f->session->dead)
		lb_timer_set(f->session->again, 0);
}

static int
l_file_gc(lua_State *L)
{
	file_release(luaL_checkudata(L, 1, FILES));
	return 0;
}

static int
finish_open(lua_State *L, struct op *op)
{
	(void)op;
	lua_pushvalue(L, -2);
	return 1;
}

/* session:sftp_open(path, how, mode)
 *  +-> file
 *  +-> nil, err   (not_found, denied, failed, refused, timeout, interrupted, closed)
 *
 * how: "r" reads, "w" makes or empties and writes, "x" makes what must not exist. mode:
 * of a file that is made (384, which is 0600). */
static int
l_sftp_open(lua_State *L)
{
	static const struct call call = { "sftp_open", finish_open };
	static const char *const how[] = { "r", "w", "x", NULL };
	static const unsigned long flags[] = {
		LIBSSH2_FXF_READ,
		LIBSSH2_FXF_WRITE | LIBSSH2_FXF_CREAT | LIBSSH2_FXF_TRUNC,
		LIBSSH2_FXF_WRITE | LIBSSH2_FXF_CREAT | LIBSSH2_FXF_EXCL,
	};
	struct session *s = check_session(L, 1);
	const char *path = check_path(L, 2);
	int i = luaL_checkoption(L, 3, "r", how);
	lua_Integer mode = luaL_optinteger(L, 4, 0600);
	struct filebox *fb;
	struct op *op;

	luaL_argcheck(L, mode >= 0 && mode <= 07777, 4, "not a mode");
	if (s->dead)
		return fail_session(L, s, "sftp_open");
	fb = lua_newuserdatauv(L, sizeof *fb, 1);
	memset(fb, 0, sizeof *fb);
	luaL_setmetatable(L, FILES);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	op = op_new(L, open_step, path, NULL, 0);
	if ((op->file = calloc(1, sizeof *op->file)) == NULL)
		return luaL_error(L, "out of memory");
	op->file->session = s;
	op->file->opening = true;
	op->file->box = fb;
	op->file->next = s->files;
	s->files = op->file;
	fb->file = op->file;
	op->flags = flags[i];
	op->mode = (long)mode;
	return op_run(L, s, op, TIMEOUT, &call);
}

static int
fail_cut(lua_State *L, const struct file *f, const char *name)
{
	if (f->session->dead)
		return fail_session(L, f->session, name);
	return lb_fail(
	    L, MODULE, name, "closed", "an earlier call on this file was cut short");
}

static int
finish_read(lua_State *L, struct op *op)
{
	if (op->done == 0)
		lua_pushnil(L);
	else
		lua_pushlstring(L, op->data, op->done);
	return 1;
}

/* file:read(n)
 *  +-> data       (1 to n bytes; n: 262144)
 *  +-> nil        (the end)
 *  +-> nil, err   (failed, timeout, interrupted, closed) */
static int
l_file_read(lua_State *L)
{
	static const struct call call = { "read", finish_read };
	struct file *f = check_file(L);
	lua_Integer n = luaL_optinteger(L, 2, READ_DEFAULT);
	struct op *op;

	luaL_argcheck(L, n > 0 && n <= READ_MAX, 2, "not from 1 to 1048576");
	if (f->session->dead || f->cut || f->lib == NULL)
		return fail_cut(L, f, "read");
	op = op_new(L, read_step, NULL, NULL, (size_t)n);
	op->file = f;
	return op_run(L, f->session, op, TIMEOUT, &call);
}

/* file:write(bytes_or_secret)
 *  +-> true       (the server has all of it)
 *  +-> nil, err   (no_space, failed, timeout, interrupted, closed) */
static int
l_file_write(lua_State *L)
{
	static const struct call call = { "write", finish_true };
	struct file *f = check_file(L);
	size_t len;
	const char *data = lb_bytes(L, 2, &len);
	struct op *op;

	if (f->session->dead || f->cut || f->lib == NULL)
		return fail_cut(L, f, "write");
	op = op_new(L, write_step, NULL, data, len);
	op->file = f;
	return op_run(L, f->session, op, TIMEOUT, &call);
}

/* file:close()
 *  +-> true
 *  +-> nil, err   (failed, timeout, interrupted, closed: what was written may be lost) */
static int
l_file_close(lua_State *L)
{
	static const struct call call = { "close", finish_true };
	struct filebox *fb = luaL_checkudata(L, 1, FILES);
	struct file *f = fb->file;
	struct op *op;
	int n;

	if (f == NULL) {
		lua_pushboolean(L, true);
		return 1;
	}
	if (f->session->dead || f->cut || f->lib == NULL) {
		n = fail_cut(L, f, "close");
		file_release(fb);
		return n;
	}
	op = op_new(L, close_step, NULL, NULL, 0);
	op->file = f;
	f->closing = true;
	fb->closed = true;
	fb->file = NULL;
	f->box = NULL;
	return op_run(L, f->session, op, TIMEOUT, &call);
}

static int
l_file_drop(lua_State *L)
{
	file_release(luaL_checkudata(L, 1, FILES));
	return 0;
}

/* Names */

static int
simple(lua_State *L, const struct call *call, bool (*step)(struct session *, struct op *),
    const char *other, lua_Integer mode)
{
	struct session *s = check_session(L, 1);
	const char *path = check_path(L, 2);
	struct op *op;

	if (s->dead)
		return fail_session(L, s, call->name);
	op = op_new(L, step, path, other, other != NULL ? strlen(other) + 1 : 0);
	op->mode = (long)mode;
	return op_run(L, s, op, TIMEOUT, call);
}

/* session:sftp_rename(from, to)
 *  +-> true
 *  +-> nil, err   (not_found, denied, failed: `to` exists, timeout, interrupted, closed)
 */
static int
l_sftp_rename(lua_State *L)
{
	static const struct call call = { "sftp_rename", finish_true };

	return simple(L, &call, rename_step, check_path(L, 3), 0);
}

/* session:sftp_unlink(path)
 *  +-> true
 *  +-> nil, err   (not_found, denied, failed, timeout, interrupted, closed) */
static int
l_sftp_unlink(lua_State *L)
{
	static const struct call call = { "sftp_unlink", finish_true };

	return simple(L, &call, unlink_step, NULL, 0);
}

/* session:sftp_mkdir(path, mode)
 *  +-> true       (mode: 448, which is 0700)
 *  +-> nil, err   (not_found, denied, failed: it exists, timeout, interrupted, closed) */
static int
l_sftp_mkdir(lua_State *L)
{
	static const struct call call = { "sftp_mkdir", finish_true };
	lua_Integer mode = luaL_optinteger(L, 3, 0700);

	luaL_argcheck(L, mode >= 0 && mode <= 07777, 3, "not a mode");
	return simple(L, &call, mkdir_step, NULL, mode);
}

static int
finish_stat(lua_State *L, struct op *op)
{
	unsigned long mode = op->attrs.mode;
	char text[8];

	lua_createtable(L, 0, 6);
	if ((op->flags & LIBSSH2_SFTP_ATTR_PERMISSIONS) != 0) {
		lua_pushstring(L,
		    LIBSSH2_SFTP_S_ISREG(mode)     ? "file" :
			LIBSSH2_SFTP_S_ISDIR(mode) ? "directory" :
			LIBSSH2_SFTP_S_ISLNK(mode) ? "link" :
						     "other");
		lua_setfield(L, -2, "type");
		snprintf(text, sizeof text, "%04lo", mode & 07777UL);
		lua_pushstring(L, text);
		lua_setfield(L, -2, "mode");
	}
	if ((op->flags & LIBSSH2_SFTP_ATTR_SIZE) != 0) {
		lua_pushinteger(L, (lua_Integer)op->attrs.size);
		lua_setfield(L, -2, "size");
	}
	if ((op->flags & LIBSSH2_SFTP_ATTR_UIDGID) != 0) {
		lua_pushinteger(L, (lua_Integer)op->attrs.uid);
		lua_setfield(L, -2, "uid");
		lua_pushinteger(L, (lua_Integer)op->attrs.gid);
		lua_setfield(L, -2, "gid");
	}
	if ((op->flags & LIBSSH2_SFTP_ATTR_ACMODTIME) != 0) {
		lua_pushinteger(L, (lua_Integer)op->attrs.mtime);
		lua_setfield(L, -2, "mtime");
	}
	return 1;
}

/* session:sftp_stat(path)
 *  +-> { type = "file"|"directory"|"link"|"other", mode = "0644", size, uid, gid, mtime }
 *  +-> nil, err   (not_found, denied, failed, timeout, interrupted, closed) */
static int
l_sftp_stat(lua_State *L)
{
	static const struct call call = { "sftp_stat", finish_stat };

	return simple(L, &call, stat_step, NULL, 0);
}

void
files_methods(lua_State *L)
{
	static const luaL_Reg session[] = {
		{ "sftp_open", l_sftp_open },
		{ "sftp_rename", l_sftp_rename },
		{ "sftp_unlink", l_sftp_unlink },
		{ "sftp_mkdir", l_sftp_mkdir },
		{ "sftp_stat", l_sftp_stat },
		{ NULL, NULL },
	};
	static const luaL_Reg methods[] = {
		{ "read", l_file_read },
		{ "write", l_file_write },
		{ "close", l_file_close },
		{ "__close", l_file_drop },
		{ "__gc", l_file_gc },
		{ NULL, NULL },
	};
	static const luaL_Reg box[] = {
		{ "__gc", l_opbox_gc },
		{ NULL, NULL },
	};

	luaL_setfuncs(L, session, 0);
	metatable(L, FILES, methods);
	metatable(L, OPBOX, box);
	lua_pop(L, 2);
}
