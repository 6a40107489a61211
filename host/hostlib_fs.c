/* hostlib_fs.c: the controller's own files, for the prelude. Targets are not its
 * business. */
#include "hostlib.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lb.h"

#define READ_MAX ((lua_Integer)64 << 20)

const char *
hostlib_path(lua_State *L, int idx)
{
	size_t len;
	const char *path = luaL_checklstring(L, idx, &len);

	luaL_argcheck(L, len > 0 && strlen(path) == len, idx, "not a path");
	return path;
}

static const char *
type_name(mode_t mode)
{
	return S_ISREG(mode) ? "file" :
	    S_ISDIR(mode)    ? "directory" :
	    S_ISLNK(mode)    ? "link" :
			       "other";
}

/* A mode as the string "0600" or the integer 384. */
static mode_t
check_mode(lua_State *L, int idx, mode_t def)
{
	lua_Integer mode = -1;
	size_t len;

	if (lua_isnoneornil(L, idx))
		return def;
	if (lua_type(L, idx) == LUA_TSTRING) {
		const char *s = lua_tolstring(L, idx, &len);
		if (len >= 3 && len <= 5 && strspn(s, "01234567") == len)
			mode = (lua_Integer)strtol(s, NULL, 8);
	} else {
		mode = luaL_checkinteger(L, idx);
	}
	luaL_argcheck(L, mode >= 0 && mode <= 07777, idx, "not a mode such as \"0600\"");
	return (mode_t)mode;
}

static int
fail_path(lua_State *L, const char *op, const char *path, int errnum)
{
	char text[PATH_MAX + 128], why[128];
	int n = lb_fail_errno(L, "host", op, errnum);

	snprintf(text, sizeof text, "%s: %s", path, strerror_r(errnum, why, sizeof why));
	lua_pushstring(L, text);
	lua_setfield(L, -2, "message");
	return n;
}

/* Pushes up to `max` bytes; -1: more than that, otherwise 0 or errno. */
static int
push_contents(lua_State *L, int fd, size_t size, size_t max)
{
	luaL_Buffer b;
	size_t got = 0;

	luaL_buffinit(L, &b);
	for (;;) {
		size_t want = size > got ? size - got + 1 : 4096;
		char *to = luaL_prepbuffsize(&b, want);
		ssize_t n = read(fd, to, want);

		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0)
			return errno;
		else if (n == 0)
			break;
		got += (size_t)n;
		luaL_addsize(&b, (size_t)n);
		if (got > max)
			return -1;
	}
	luaL_pushresult(&b);
	return 0;
}

/* A descriptor that is closed also when Lua raises (out of memory). */
static int
fd_close(lua_State *L)
{
	int *fd = luaL_checkudata(L, 1, "lb.fd");

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	return 0;
}

static int *
fd_push(lua_State *L)
{
	int *fd = lua_newuserdatauv(L, sizeof *fd, 0);

	*fd = -1;
	if (luaL_newmetatable(L, "lb.fd")) {
		lua_pushcfunction(L, fd_close);
		lua_setfield(L, -2, "__gc");
		lua_pushcfunction(L, fd_close);
		lua_setfield(L, -2, "__close");
	}
	lua_setmetatable(L, -2);
	lua_toclose(L, -1);
	return fd;
}

static const char *
not_private(const struct stat *st)
{
	if (st->st_uid != geteuid())
		return "belongs to somebody else";
	if ((st->st_mode & 077) != 0)
		return "can be read by others; chmod 600 it";
	return NULL;
}

/* host.read_file(path, opts)
 *  +-> string
 *  +-> nil, err   (not_found, denied, too_large, not_private, is_directory, interrupted,
 * io) opts: max, in bytes (64 MiB); private = true refuses what others could read or own.
 * A pipe (such as <(command)) is read to its end. */
static int
host_read_file(lua_State *L)
{
	static const char *const names[] = { "max", "private", NULL };
	const char *path = hostlib_path(L, 1), *why;
	lua_Integer max;
	bool private;
	struct stat st;
	int *fd, r;

	lb_opts(L, 2, names);
	max = lb_opt_integer(L, 2, "max", READ_MAX, 1, (lua_Integer)1 << 30);
	private = lb_opt_boolean(L, 2, "private", false);
	lua_settop(L, 2);
	fd = fd_push(L);
	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (*fd < 0 || fstat(*fd, &st) != 0)
		return fail_path(L, "read_file", path, errno);
	if (S_ISDIR(st.st_mode))
		return fail_path(L, "read_file", path, EISDIR);
	if (private && (why = not_private(&st)) != NULL)
		return lb_fail(L, "host", "read_file", "not_private", "%s %s", path, why);
	if (!S_ISREG(st.st_mode)) {
		r = *fd;
		*fd = -1;
		return hostlib_read_fd(L, r, (size_t)max, "read_file");
	}
	if (st.st_size > max)
		r = -1;
	else
		r = push_contents(L, *fd, (size_t)st.st_size, (size_t)max);
	if (r > 0)
		return fail_path(L, "read_file", path, r);
	if (r < 0)
		return lb_fail(L, "host", "read_file", "too_large",
		    "%s has more than %lld bytes", path, (long long)max);
	return 1;
}

/* 0 or errno */
static int
write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno != EINTR)
			return errno;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

static int
sync_folder(const char *folder)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), errnum = 0;

	if (fd < 0)
		return errno;
	/* Some file systems cannot sync a directory, and say so with EINVAL. */
	if (fsync(fd) != 0 && errno != EINVAL)
		errnum = errno;
	close(fd);
	return errnum;
}

struct replacement {
	const char *path;
	char folder[PATH_MAX], temporary[PATH_MAX];
	mode_t mode;
	bool exclusive;
};

static int
replace_name(struct replacement *r, const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t folder = slash != NULL ? (size_t)(slash - path) + 1 : 0;
	unsigned char random[8];
	int n;

	r->path = path;
	if (getentropy(random, sizeof random) != 0)
		return errno;
	if (path[folder] == '\0')
		return EISDIR;
	n = snprintf(
	    r->folder, sizeof r->folder, "%.*s", (int)folder, folder > 0 ? path : ".");
	if (folder == 0)
		n = snprintf(r->folder, sizeof r->folder, ".");
	if (n < 0 || (size_t)n >= sizeof r->folder)
		return ENAMETOOLONG;
	n = snprintf(r->temporary, sizeof r->temporary,
	    "%.*s.lbrun-%02x%02x%02x%02x%02x%02x%02x%02x", (int)folder, path, random[0],
	    random[1], random[2], random[3], random[4], random[5], random[6], random[7]);
	return n < 0 || (size_t)n >= sizeof r->temporary ? ENAMETOOLONG : 0;
}

static int
replace_fill(const struct replacement *r, const char *data, size_t len)
{
	int errnum, fd;

	fd = open(
	    r->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno;
	errnum = write_all(fd, data, len);
	if (errnum == 0 && (fchmod(fd, r->mode) != 0 || fsync(fd) != 0))
		errnum = errno;
	if (close(fd) != 0 && errnum == 0)
		errnum = errno;
	if (errnum != 0)
		unlink(r->temporary);
	return errnum;
}

static int
replace_commit(const struct replacement *r)
{
	int errnum = 0;

	if (r->exclusive ? link(r->temporary, r->path) != 0 :
			   rename(r->temporary, r->path) != 0)
		errnum = errno;
	if (r->exclusive || errnum != 0)
		unlink(r->temporary);
	return errnum != 0 ? errnum : sync_folder(r->folder);
}

/* host.write_file(path, data, mode, opts)
 *  +-> true
 *  +-> nil, err   (not_found, denied, is_directory, no_space, exists, io)
 * All or nothing, and on the disk when it returns. `data` is a string or a secret; `mode`
 * ("0600") is exact. opts: exclusive = true refuses an existing file. */
static int
host_write_file(lua_State *L)
{
	static const char *const names[] = { "exclusive", NULL };
	struct replacement r = { .exclusive = false };
	const char *path = hostlib_path(L, 1), *data;
	size_t len;
	int errnum;

	data = lb_bytes(L, 2, &len);
	r.mode = check_mode(L, 3, 0600);
	lb_opts(L, 4, names);
	r.exclusive = lb_opt_boolean(L, 4, "exclusive", false);
	errnum = replace_name(&r, path);
	if (errnum == 0)
		errnum = replace_fill(&r, data, len);
	if (errnum == 0)
		errnum = replace_commit(&r);
	if (errnum != 0)
		return fail_path(L, "write_file", path, errnum);
	lua_pushboolean(L, 1);
	return 1;
}

static int
dir_close(lua_State *L)
{
	DIR **d = luaL_checkudata(L, 1, "lb.dir");

	if (*d != NULL)
		closedir(*d);
	*d = NULL;
	return 0;
}

static DIR **
dir_push(lua_State *L)
{
	DIR **d = lua_newuserdatauv(L, sizeof *d, 0);

	*d = NULL;
	if (luaL_newmetatable(L, "lb.dir")) {
		lua_pushcfunction(L, dir_close);
		lua_setfield(L, -2, "__gc");
		lua_pushcfunction(L, dir_close);
		lua_setfield(L, -2, "__close");
	}
	lua_setmetatable(L, -2);
	lua_toclose(L, -1);
	return d;
}

static int
name_less(lua_State *L)
{
	lua_getfield(L, 1, "name");
	lua_getfield(L, 2, "name");
	lua_pushboolean(L, lua_compare(L, -2, -1, LUA_OPLT));
	return 1;
}

/* host.list(dir)
 *  +-> { { name =, type = "file"|"directory"|"link"|"other" } ... } by name
 *  +-> nil, err   (not_found, denied, io) */
static int
host_list(lua_State *L)
{
	const char *path = hostlib_path(L, 1);
	struct dirent *e;
	DIR **d;
	lua_Integer n = 0;

	lua_settop(L, 1);
	d = dir_push(L);
	*d = opendir(path);
	if (*d == NULL)
		return fail_path(L, "list", path, errno);
	lua_newtable(L);
	while (errno = 0, (e = readdir(*d)) != NULL) {
		struct stat st;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (fstatat(dirfd(*d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
			continue; /* it went away meanwhile */
		lua_createtable(L, 0, 2);
		lua_pushstring(L, e->d_name);
		lua_setfield(L, -2, "name");
		lua_pushstring(L, type_name(st.st_mode));
		lua_setfield(L, -2, "type");
		lua_rawseti(L, -2, ++n);
	}
	if (errno != 0)
		return fail_path(L, "list", path, errno);
	lua_getglobal(L, "table");
	lua_getfield(L, -1, "sort");
	lua_pushvalue(L, 3);
	lua_pushcfunction(L, name_less);
	lua_call(L, 2, 0);
	lua_pushvalue(L, 3);
	return 1;
}

/* host.stat(path, opts)
 *  +-> { type =, mode = "0644", uid =, gid =, size =, mtime = }
 *  +-> nil, err   (not_found, denied, io)
 * opts: follow = false looks at a link itself. */
static int
host_stat(lua_State *L)
{
	static const char *const names[] = { "follow", NULL };
	const char *path = hostlib_path(L, 1);
	struct stat st;
	char mode[8];

	lb_opts(L, 2, names);
	if (fstatat(AT_FDCWD, path, &st,
		lb_opt_boolean(L, 2, "follow", true) ? 0 : AT_SYMLINK_NOFOLLOW) != 0)
		return fail_path(L, "stat", path, errno);
	lua_createtable(L, 0, 6);
	lua_pushstring(L, type_name(st.st_mode));
	lua_setfield(L, -2, "type");
	snprintf(mode, sizeof mode, "%04o", (unsigned)st.st_mode & 07777);
	lua_pushstring(L, mode);
	lua_setfield(L, -2, "mode");
	lua_pushinteger(L, st.st_uid);
	lua_setfield(L, -2, "uid");
	lua_pushinteger(L, st.st_gid);
	lua_setfield(L, -2, "gid");
	lua_pushinteger(L, st.st_size);
	lua_setfield(L, -2, "size");
	lua_pushnumber(L, (double)st.st_mtim.tv_sec + (double)st.st_mtim.tv_nsec / 1e9);
	lua_setfield(L, -2, "mtime");
	return 1;
}

static int
make_one(const char *path, mode_t mode)
{
	if (mkdir(path, mode) != 0)
		return errno;
	return chmod(path, mode) != 0 ? errno : 0; /* the umask took part of it away */
}

static int
make_parents(const char *path)
{
	char part[PATH_MAX];
	size_t len = strlen(path);

	if (len >= sizeof part)
		return ENAMETOOLONG;
	for (size_t i = 1; i < len; i++) {
		int errnum;

		if (path[i] != '/' || path[i - 1] == '/' || path[i + 1] == '\0')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		errnum = mkdir(part, 0777) != 0 ? errno : 0;
		if (errnum != 0 && errnum != EEXIST)
			return errnum;
	}
	return 0;
}

/* host.mkdir(path, mode, opts)
 *  +-> true
 *  +-> nil, err   (exists, not_found, denied, no_space, io)
 * `mode` ("0700") is exact. opts: parents = true also makes the folders above it, and
 * then a folder that is there already is fine and keeps its mode. */
static int
host_mkdir(lua_State *L)
{
	static const char *const names[] = { "parents", NULL };
	const char *path = hostlib_path(L, 1);
	mode_t mode = check_mode(L, 2, 0777);
	struct stat st;
	bool parents;
	int errnum;

	lb_opts(L, 3, names);
	parents = lb_opt_boolean(L, 3, "parents", false);
	errnum = parents ? make_parents(path) : 0;
	if (errnum == 0)
		errnum = make_one(path, mode);
	if (errnum == EEXIST && parents && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		errnum = 0;
	if (errnum != 0)
		return fail_path(L, "mkdir", path, errnum);
	lua_pushboolean(L, 1);
	return 1;
}

/* host.realpath(path)
 *  +-> absolute path without links
 *  +-> nil, err   (not_found, denied, io) */
static int
host_realpath(lua_State *L)
{
	const char *path = hostlib_path(L, 1);
	char full[PATH_MAX];

	if (realpath(path, full) == NULL)
		return fail_path(L, "realpath", path, errno);
	lua_pushstring(L, full);
	return 1;
}

/* host.remove(path)
 *  +-> true
 *  +-> nil, err   (not_found, denied, exists, io)
 * A file, a link, or an empty folder. */
static int
host_remove(lua_State *L)
{
	const char *path = hostlib_path(L, 1);
	struct stat st;

	if (lstat(path, &st) != 0 ||
	    (S_ISDIR(st.st_mode) ? rmdir(path) : unlink(path)) != 0)
		return fail_path(L, "remove", path, errno);
	lua_pushboolean(L, 1);
	return 1;
}

const luaL_Reg hostlib_fs[] = {
	{ "read_file", host_read_file },
	{ "write_file", host_write_file },
	{ "list", host_list },
	{ "stat", host_stat },
	{ "mkdir", host_mkdir },
	{ "realpath", host_realpath },
	{ "remove", host_remove },
	{ NULL, NULL },
};
