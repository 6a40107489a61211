/* journal_key.c: the key of the journal's fingerprints, in a private file beside it.
 * It is not the key of any secret, and it does not compute fingerprints. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "digest.h"
#include "journal_db.h"

enum { KEY = 32, HEX = 2 * KEY };

static bool
io(struct journal *j, const char *what, const char *path, int err)
{
	return journal_fail(j, err == ENOSPC || err == EDQUOT ? "full" :
	    err == EACCES || err == EPERM ? "unreadable" : "io", "cannot %s %s: %s", what,
	    path, strerror(err));
}

/* 1 read, 0 there is none, -1 failure. */
static int
load(struct journal *j, const char *path, unsigned char key[KEY])
{
	char text[HEX + 2];
	struct stat st;
	ssize_t n;
	int fd, rc = -1;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0) {
		io(j, "read the key", path, errno);
		return -1;
	}
	n = fstat(fd, &st) == 0 ? read(fd, text, sizeof text) : -1;
	if (n < 0)
		io(j, "read the key", path, errno);
	else if (st.st_uid != geteuid() || (st.st_mode & 077) != 0)
		journal_fail(j, "not_private", "the key %s is not private to this user: "
		    "chmod 600 %s", path, path);
	else {
		if (n == HEX + 1 && text[HEX] == '\n')
			n = HEX;
		text[n < HEX ? n : HEX] = '\0';
		if (n == HEX && lb_unhex(text, KEY, key))
			rc = 1;
		else
			journal_fail(j, "corrupt", "the key %s is not 64 hex digits",
			    path);
	}
	explicit_bzero(text, sizeof text);
	close(fd);
	return rc;
}

/* Written whole under another name, then linked: link fails where the name is taken, so
 * that of two processes one makes the key and both read the same. */
static bool
make(struct journal *j, const char *path)
{
	unsigned char key[KEY];
	char text[HEX + 2], *tmp, *slash;
	bool ok = false;
	int fd, err;

	if (asprintf(&tmp, "%s.%ld", path, (long)getpid()) < 0)
		return journal_fail(j, "memory", "out of memory");
	if (!lb_random(key, KEY)) {
		free(tmp);
		return journal_fail(j, "io", "no random bytes to be had");
	}
	lb_hex(key, KEY, text);
	text[HEX] = '\n';
	unlink(tmp); /* left by a dead process of the same number */
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	err = errno;
	if (fd >= 0) {
		ok = fchmod(fd, 0600) == 0 && write(fd, text, HEX + 1) == HEX + 1 &&
		    fsync(fd) == 0 && (link(tmp, path) == 0 || errno == EEXIST);
		err = errno;
		close(fd);
		unlink(tmp);
	}
	explicit_bzero(key, sizeof key);
	explicit_bzero(text, sizeof text);
	if (ok && (slash = strrchr(tmp, '/')) != NULL) {
		slash[1] = '\0';
		fd = open(tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0) {
			fsync(fd);
			close(fd);
		}
	}
	free(tmp);
	return ok ? true : io(j, "make the key", path, err);
}

/* A journal that has fingerprints and no key has lost it: a new one would call every
 * secret wrong. */
static bool
may_make(struct journal *j, const char *path)
{
	int rc;

	if (j->readonly)
		return journal_fail(j, "not_found", "there is no key %s", path);
	rc = journal_sql(j, "SELECT 1 FROM fingerprints LIMIT 1", "");
	journal_done(j);
	if (rc == 1)
		journal_fail(j, "not_found", "the key %s is gone, and with it the "
		    "fingerprints in %s: put it back from a backup, or use another "
		    "journal", path, j->path);
	return rc == 0;
}

bool
journal_key(struct journal *j, unsigned char key[32])
{
	char *path;
	int rc;

	if (asprintf(&path, "%s.key", j->path) < 0)
		return journal_fail(j, "memory", "out of memory");
	rc = load(j, path, key);
	if (rc == 0 && may_make(j, path) && make(j, path)) {
		rc = load(j, path, key);
		if (rc == 0)
			io(j, "read the key", path, ENOENT);
	}
	free(path);
	return rc == 1;
}
