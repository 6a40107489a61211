/* clockat.c: a preloaded shim that shows another time of day.
 *	LD_PRELOAD=build/release/clockat.so CLOCKAT=+86400 lbrun ...
 * CLOCKAT is a number of seconds, from now. Clocks that measure (monotonic, of a process
 * or thread) go as they do. It is not linked into anything. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	const char *offset = getenv("CLOCKAT");

	if (syscall(SYS_clock_gettime, clock, ts) != 0)
		return -1;
	if (clock == CLOCK_REALTIME && offset != NULL)
		ts->tv_sec += strtol(offset, NULL, 10);
	return 0;
}

time_t
time(time_t *t)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (t != NULL)
		*t = ts.tv_sec;
	return ts.tv_sec;
}
