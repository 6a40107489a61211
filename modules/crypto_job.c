/* crypto_job.c: work on a worker thread for which a task waits.
 * It knows nothing of what is worked on. */
#include <stdlib.h>

#include "crypto.h"

#define BOX "lb.crypto.job"

struct box {
	struct lb_wait wait;
	struct job *job;
};

static void
drop(struct job *j)
{
	if (j->boxed || j->running)
		return;
	j->release(j);
	free(j);
}

static int
box_gc(lua_State *L)
{
	struct box *b = luaL_checkudata(L, 1, BOX);

	lb_wait_drop(&b->wait);
	if (b->job == NULL)
		return 0;
	b->job->waiter = NULL;
	b->job->cancelled = true;
	b->job->boxed = false;
	drop(b->job);
	b->job = NULL;
	return 0;
}

static void
work(void *arg)
{
	struct job *j = arg;

	j->work(j);
}

static void
done(void *arg)
{
	struct job *j = arg;

	j->running = false;
	if (j->waiter != NULL)
		lb_wake(j->waiter);
	drop(j);
}

void *
job_new(lua_State *L, size_t size, void (*job_work)(struct job *j),
    void (*release)(struct job *j))
{
	struct box *b = lua_newuserdatauv(L, sizeof(*b), 0);

	*b = (struct box) { .job = NULL };
	luaL_setmetatable(L, BOX);
	b->job = calloc(1, size);
	if (b->job == NULL)
		luaL_error(L, "not enough memory");
	b->job->boxed = true;
	b->job->work = job_work;
	b->job->release = release;
	return b->job;
}

/* Starts the job of the box on top of the stack; its index is the continuation's ctx. */
int
job_run(lua_State *L, const char *op, lua_KFunction k)
{
	struct box *b = lua_touserdata(L, -1);

	if (!lb_work(L, work, done, b->job))
		return lb_fail(L, MODULE, op, "exhausted", "no worker thread");
	b->job->running = true;
	b->job->waiter = &b->wait;
	return lb_wait(L, &b->wait, -1, lua_gettop(L), k);
}

/* The job that is done. NULL: the wait was interrupted, nil and the error are pushed. */
void *
job_result(lua_State *L, lua_KContext ctx, const char *op)
{
	struct box *b = lua_touserdata(L, (int)ctx);

	if (b->wait.why == LB_WOKEN && !b->job->running)
		return b->job;
	b->job->cancelled = true;
	b->job->waiter = NULL;
	lb_fail_why(L, MODULE, op, LB_INTERRUPTED);
	return NULL;
}

void
job_metatable(lua_State *L)
{
	if (luaL_newmetatable(L, BOX)) {
		lua_pushcfunction(L, box_gc);
		lua_setfield(L, -2, "__gc");
	}
	lua_pop(L, 1);
}
