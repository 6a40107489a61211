/* failalloc.c: a preloaded shim that lets allocations fail, steered by the environment
 * variables that a spec asks for (none of them exists):
 *	os.getenv "failalloc:N"		the Nth allocation from here on fails, once
 *	os.getenv "failalloc:N+"	so do all after it
 *	os.getenv "failalloc:N*"	as N, and N+* as N+, but only those count and
 *					fail that the program asks for, not a library
 *	os.getenv "failalloc:off"	none fails; "failed" if one has, else "passed"
 *	os.getenv "failalloc:live"	how many allocations are not freed
 * Without it os.getenv gives nil. It is not linked into anything, and fails nothing in
 * other threads. */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
	void *(*malloc)(size_t);
	void *(*calloc)(size_t, size_t);
	void *(*realloc)(void *, size_t);
	void *(*memalign)(size_t, size_t);
	void (*free)(void *);
	char *(*getenv)(const char *);
} real;

/* For what dlsym and the sanitizers allocate before the real functions can be found. */
static char early[65536];
static size_t early_used;
static volatile bool looking; /* dlsym is declared as if it called nobody back */

static _Atomic long live;
/* Reached without __tls_get_addr, which the sanitizers intercept before they can. */
#define OWN static _Thread_local __attribute__((tls_model("initial-exec")))
OWN long countdown; /* 0: off */
OWN bool all, failed, program_only;
static uintptr_t program_start, program_end;
static char answer[32];

static void *
early_alloc(size_t size)
{
	void *p = early + early_used;

	early_used += (size + 15) & ~(size_t)15;
	return early_used <= sizeof early ? p : NULL;
}

static bool
is_early(const void *p)
{
	return (const char *)p >= early && (const char *)p < early + sizeof early;
}

/* Sets the function pointer at slot, unless it is set already, or dlsym itself asks. */
static void
find(void *slot, const char *name)
{
	void *f;

	memcpy(&f, slot, sizeof f);
	if (f != NULL || looking)
		return;
	looking = true;
	f = dlsym(RTLD_NEXT, name);
	looking = false;
	memcpy(slot, &f, sizeof f);
}

/* The program is what dl_iterate_phdr names first. */
static int
note_program(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		uintptr_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;

		if (info->dlpi_phdr[i].p_type != PT_LOAD)
			continue;
		if (program_start == 0)
			program_start = start;
		program_end = start + info->dlpi_phdr[i].p_memsz;
	}
	return 1;
}

static bool
fails(const void *caller)
{
	if (countdown > 0 && program_only && ((uintptr_t)caller < program_start ||
	    (uintptr_t)caller >= program_end))
		return false;
	if (countdown == 0 || (countdown > 1 && countdown-- > 1))
		return false;
	failed = true;
	if (!all)
		countdown = 0;
	errno = ENOMEM;
	return true;
}

static void *
counted(void *p)
{
	if (p != NULL)
		atomic_fetch_add(&live, 1);
	return p;
}

#define CALLER __builtin_return_address(0)

static void *
allocate(size_t size, const void *caller)
{
	find(&real.malloc, "malloc");
	if (real.malloc == NULL)
		return early_alloc(size);
	return fails(caller) ? NULL : counted(real.malloc(size));
}

void *
malloc(size_t size)
{
	return allocate(size, CALLER);
}

void *
calloc(size_t count, size_t size)
{
	find(&real.calloc, "calloc");
	if (real.calloc == NULL)
		return early_alloc(count * size);
	return fails(CALLER) ? NULL : counted(real.calloc(count, size));
}

void
free(void *p)
{
	if (p == NULL || is_early(p))
		return;
	find(&real.free, "free");
	if (real.free == NULL)
		return;
	atomic_fetch_sub(&live, 1);
	real.free(p);
}

static void *
move(void *old, size_t size, const void *caller)
{
	size_t most;
	void *p;

	if (old == NULL)
		return allocate(size, caller);
	if (size == 0) {
		free(old);
		return NULL;
	}
	if (is_early(old)) {
		most = (size_t)(early + sizeof early - (char *)old);
		if ((p = allocate(size, caller)) != NULL)
			memcpy(p, old, most < size ? most : size);
		return p;
	}
	find(&real.realloc, "realloc");
	return fails(caller) ? NULL : real.realloc(old, size);
}

void *
realloc(void *old, size_t size)
{
	return move(old, size, CALLER);
}

void *
reallocarray(void *old, size_t count, size_t size)
{
	if (size != 0 && count > (size_t)-1 / size) {
		errno = ENOMEM;
		return NULL;
	}
	return move(old, count * size, CALLER);
}

int
posix_memalign(void **out, size_t align, size_t size)
{
	find(&real.memalign, "memalign");
	if (fails(CALLER) || (*out = counted(real.memalign(align, size))) == NULL)
		return ENOMEM;
	return 0;
}

void *
aligned_alloc(size_t align, size_t size)
{
	void *p;

	return posix_memalign(&p, align, size) == 0 ? p : NULL;
}

char *
getenv(const char *name)
{
	char *end;

	find(&real.getenv, "getenv");
	if (strncmp(name, "failalloc:", 10) != 0)
		return real.getenv(name);
	name += 10;
	if (strcmp(name, "live") == 0) {
		snprintf(answer, sizeof answer, "%ld", atomic_load(&live));
	} else if (strcmp(name, "off") == 0) {
		countdown = 0;
		snprintf(answer, sizeof answer, "%s", failed ? "failed" : "passed");
	} else {
		failed = false;
		countdown = strtol(name, &end, 10);
		all = *end == '+';
		program_only = end[all] == '*';
		dl_iterate_phdr(note_program, NULL);
		return NULL; /* a string would be the first allocation to fail */
	}
	return answer;
}
