/* killat.c: a preloaded shim that kills lbrun at one of its journal commits.
 *	LD_PRELOAD=build/release/killat.so KILLAT=3 KILLAT_WHEN=before lbrun ...
 * A commit is what SQLite writes to a file named *-wal up to the sync that makes it
 * durable; it begins with its first frame.
 *	KILLAT		which commit, from 1; without it nothing is killed
 *	KILLAT_WHEN	before: nothing of it is on disk; torn: half a frame is; after: it
 *			is durable, and lbrun has not been told
 *	KILLAT_COUNT_FILE	keeps the number of commits that were finished
 * It acts in a process whose name begins with lbrun, and takes itself out of the
 * environment there, so that no child is counted. It is not linked into anything. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum when { BEFORE, TORN, AFTER };
enum { HEADER = 32 }; /* of the file, no part of any commit */

static struct {
	pid_t pid; /* 0: not lbrun */
	long at, count;
	enum when when;
	bool begun; /* frames were written since the last sync */
	char count_file[4096];
	ssize_t (*pwrite)(int, const void *, size_t, off64_t);
	int (*fdatasync)(int);
	int (*fsync)(int);
} k;

static void
die(void)
{
	kill(k.pid, SIGKILL);
	for (;;)
		pause();
}

static void
tell(void)
{
	char text[32];
	int fd, n;

	if (k.count_file[0] == '\0')
		return;
	fd = open(k.count_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	n = snprintf(text, sizeof text, "%ld\n", k.count);
	if (write(fd, text, (size_t)n) != n)
		fprintf(stderr, "killat: cannot write %s\n", k.count_file);
	close(fd);
}

__attribute__((constructor)) static void
begin(void)
{
	const char *at = getenv("KILLAT"), *when = getenv("KILLAT_WHEN");
	const char *file = getenv("KILLAT_COUNT_FILE");

	*(void **)&k.pwrite = dlsym(RTLD_NEXT, "pwrite64");
	*(void **)&k.fdatasync = dlsym(RTLD_NEXT, "fdatasync");
	*(void **)&k.fsync = dlsym(RTLD_NEXT, "fsync");
	if (strncmp(program_invocation_short_name, "lbrun", 5) != 0)
		return;
	k.pid = getpid();
	k.at = at != NULL ? strtol(at, NULL, 10) : 0;
	k.when = when == NULL || strcmp(when, "after") == 0 ? AFTER :
	    strcmp(when, "torn") == 0 ? TORN : BEFORE;
	if (file != NULL)
		snprintf(k.count_file, sizeof k.count_file, "%s", file);
	unsetenv("LD_PRELOAD");
	unsetenv("KILLAT");
	unsetenv("KILLAT_WHEN");
	unsetenv("KILLAT_COUNT_FILE");
	tell();
}

static bool
is_wal(int fd)
{
	char link[64], path[4096];
	ssize_t n;

	if (k.pid == 0 || getpid() != k.pid)
		return false;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof path);
	return n >= 4 && memcmp(path + n - 4, "-wal", 4) == 0;
}

ssize_t
pwrite64(int fd, const void *data, size_t len, off64_t offset)
{
	int err = errno;

	if (is_wal(fd) && offset >= HEADER) {
		if (k.count + 1 == k.at && k.when == BEFORE)
			die();
		/* SQLite writes a frame's header and its page apart: the second write of
		 * a commit leaves its first frame without a page. */
		if (k.count + 1 == k.at && k.when == TORN && k.begun)
			die();
		k.begun = true;
	}
	errno = err;
	return k.pwrite(fd, data, len, offset);
}

static int
synced(int fd, int rc)
{
	int err = errno;

	if (rc == 0 && is_wal(fd) && k.begun) {
		k.begun = false;
		k.count++;
		tell();
		if (k.count == k.at)
			die();
	}
	errno = err;
	return rc;
}

int
fdatasync(int fd)
{
	return synced(fd, k.fdatasync(fd));
}

int
fsync(int fd)
{
	return synced(fd, k.fsync(fd));
}
