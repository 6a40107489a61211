/* loop.c: the event loop (libuv), tasks as coroutines on it, and the waits of lb.h.
 * It spawns no processes (process.c) and measures no deadlines of Lua (sandbox.c). */
#include "loop.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>

#include <lauxlib.h>
#include <uv.h>

#include "lb.h"

#define HANDLE "lb.task"
/* A cancelled task may still wait this often, for instance to tidy up, before it is
 * closed. */
#define LAST_WAITS 100

struct lb_task {
	struct loop_owner owner;
	uv_timer_t deadline;
	struct lb_loop *loop;
	struct lb_task *prev, *next; /* all that have not ended, oldest first */
	struct lb_task *ready_next;
	struct lb_task *joining, *joiners, *join_next;
	struct lb_wait *wait; /* NULL unless it waits */
	struct lb_wait own;   /* for sleep and join */
	lua_KFunction k;
	lua_KContext ctx;
	lua_State *co; /* valid while the anchor or the handle holds it */
	int anchor;
	int refs, nargs, last_waits;
	int status;
	bool ready, ended, cancelled, interrupt, stuck, doomed;
};

struct lb_loop {
	struct loop_owner owner;
	uv_loop_t uv;
	uv_idle_t kick; /* active while a task is ready, so that no poll blocks */
	uv_signal_t signals[2];
	struct lb_task *tasks, *tasks_last;
	struct lb_task *ready, *ready_last;
	struct lb_task *running;
	bool ending;
	int signal_count, signal_last;
	void (*on_signal)(void *arg, int signum, int count);
	void *on_signal_arg;
	void (*begin)(void *arg, lua_State *co);
	void (*end)(void *arg, lua_State *co);
	void *slice_arg;
};

struct lb_loop *
loop_of(lua_State *L)
{
	return *(struct lb_loop **)lua_getextraspace(L);
}

struct uv_loop_s *
loop_uv(struct lb_loop *loop)
{
	return &loop->uv;
}

static uint64_t
milliseconds(double seconds)
{
	return seconds < 1e12 ? (uint64_t)ceil(seconds * 1000) : (uint64_t)1e15;
}

/* Ready tasks. Only loop_turn resumes them. */

static void
kick_cb(uv_idle_t *idle)
{
	(void)idle;
}

static void
task_ready(struct lb_task *t, enum lb_why why)
{
	struct lb_loop *loop = t->loop;

	if (t->wait != NULL) {
		t->wait->why = why;
		t->wait->task = NULL;
		t->wait = NULL;
		uv_timer_stop(&t->deadline);
	}
	if (t->ready)
		return;
	t->ready = true;
	t->ready_next = NULL;
	if (loop->ready_last != NULL)
		loop->ready_last->ready_next = t;
	else
		loop->ready = t;
	loop->ready_last = t;
	uv_idle_start(&loop->kick, kick_cb);
}

static void
deadline_cb(uv_timer_t *timer)
{
	task_ready(timer->data, LB_TIMEOUT);
}

/* The loop holds a task until it has ended, its handle until that is collected. */

static void
task_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void
task_dispose(uv_handle_t *handle)
{
	uv_close(handle, task_closed);
}

static void
task_unref(struct lb_task *t)
{
	if (--t->refs == 0)
		task_dispose((uv_handle_t *)&t->deadline);
}

static struct lb_task *
task_new(struct lb_loop *loop)
{
	struct lb_task *t = calloc(1, sizeof *t);

	if (t == NULL)
		return NULL;
	t->owner.dispose = task_dispose;
	t->loop = loop;
	t->anchor = LUA_NOREF;
	t->refs = 1;
	uv_timer_init(&loop->uv, &t->deadline);
	t->deadline.data = t;
	return t;
}

static void
task_leave_join(struct lb_task *t)
{
	struct lb_task **p;

	if (t->joining == NULL)
		return;
	for (p = &t->joining->joiners; *p != t; p = &(*p)->join_next)
		;
	*p = t->join_next;
	t->joining = NULL;
}

static void
task_ended(lua_State *L, struct lb_task *t, int status)
{
	struct lb_loop *loop = t->loop;

	t->status = status;
	t->ended = true;
	task_leave_join(t);
	while (t->joiners != NULL) {
		struct lb_task *joiner = t->joiners;

		task_leave_join(joiner);
		lb_wake(&joiner->own);
	}
	if (t->prev != NULL)
		t->prev->next = t->next;
	else
		loop->tasks = t->next;
	if (t->next != NULL)
		t->next->prev = t->prev;
	else
		loop->tasks_last = t->prev;
	luaL_unref(L, LUA_REGISTRYINDEX, t->anchor);
	t->anchor = LUA_NOREF;
	task_unref(t);
}

/* Pops a function and its arguments, leaves the handle of the new task. */
static struct lb_task *
task_start(lua_State *L, int nargs)
{
	struct lb_loop *loop = loop_of(L);
	struct lb_task *t, **box;
	lua_State *co;

	if (loop == NULL || loop->ending) {
		luaL_error(L, "no task can start: the event loop %s",
		    loop == NULL ? "is missing" : "is ending");
		return NULL;
	}
	box = lua_newuserdatauv(L, sizeof *box, 1);
	*box = NULL;
	luaL_setmetatable(L, HANDLE);
	lua_insert(L, -nargs - 2);
	co = lua_newthread(L);
	lua_pushvalue(L, -1);
	lua_setiuservalue(L, -nargs - 4, 1);
	lua_insert(L, -nargs - 2);
	if (!lua_checkstack(co, nargs + 1))
		luaL_error(L, "too many arguments for a task");
	lua_xmove(L, co, nargs + 1);
	if ((t = task_new(loop)) == NULL)
		luaL_error(L, "not enough memory");
	*box = t;
	t->anchor = luaL_ref(L, LUA_REGISTRYINDEX);
	t->co = co;
	t->nargs = nargs;
	t->refs++;
	t->prev = loop->tasks_last;
	if (t->prev != NULL)
		t->prev->next = t;
	else
		loop->tasks = t;
	loop->tasks_last = t;
	task_ready(t, LB_WOKEN);
	return t;
}

static void
task_interrupt(struct lb_task *t)
{
	if (t->wait != NULL)
		task_ready(t, LB_INTERRUPTED);
	else
		t->interrupt = true;
}

static void
task_cancel(struct lb_task *t)
{
	if (t->ended)
		return;
	t->cancelled = true;
	if (t->wait != NULL)
		task_ready(t, LB_INTERRUPTED);
}

/* Runs the task until it waits or ends. `L` is whoever runs the loop. */
static void
task_resume(lua_State *L, struct lb_task *t)
{
	struct lb_loop *loop = t->loop;
	int nargs = t->nargs, nresults = 0, status;

	t->ready = false;
	t->nargs = 0;
	loop->running = t;
	if (loop->begin != NULL)
		loop->begin(loop->slice_arg, t->co);
	if (t->doomed) {
		status = lua_resetthread(t->co);
	} else {
		status = lua_resume(t->co, L, nargs, &nresults);
		/* closes what the failed task has pending; keeps the error value */
		if (status != LUA_OK && status != LUA_YIELD)
			status = lua_resetthread(t->co);
	}
	if (loop->end != NULL)
		loop->end(loop->slice_arg, t->co);
	loop->running = NULL;
	if (status != LUA_YIELD) {
		task_ended(L, t, status);
		return;
	}
	lua_pop(t->co, nresults);
	if (t->wait != NULL || t->ready)
		return;
	/* coroutine.yield in a task: let the others have their turn */
	if (t->cancelled && ++t->last_waits > LAST_WAITS)
		t->doomed = true;
	task_ready(t, LB_WOKEN);
}

static void
loop_turn(lua_State *L, struct lb_loop *loop)
{
	struct lb_task *t = loop->ready, *next;

	loop->ready = loop->ready_last = NULL;
	uv_idle_stop(&loop->kick);
	for (; t != NULL; t = next) {
		next = t->ready_next;
		task_resume(L, t);
	}
}

/* Nothing is left that could wake anybody: the youngest waiter raises, so that those who
 * join it go on. */
static void
loop_stuck(struct lb_loop *loop)
{
	struct lb_task *t = loop->tasks_last;

	while (t != NULL && t->wait == NULL)
		t = t->prev;
	if (t == NULL)
		return;
	t->stuck = true;
	task_ready(t, LB_INTERRUPTED);
}

static void
loop_step(lua_State *L, struct lb_loop *loop)
{
	int alive = uv_run(&loop->uv, UV_RUN_ONCE);

	if (loop->ready == NULL && !alive)
		loop_stuck(loop);
	loop_turn(L, loop);
}

/* Waits */

static int
wait_continue(lua_State *L, int status, lua_KContext ctx)
{
	struct lb_task *t = loop_of(L)->running;

	(void)ctx;
	if (t->stuck) {
		t->stuck = false;
		task_leave_join(t);
		return luaL_error(L,
		    "this wait would never end: nothing can wake the task");
	}
	return t->k(L, status, t->ctx);
}

int
lb_wait(lua_State *L, struct lb_wait *w, double seconds, lua_KContext ctx,
    lua_KFunction k)
{
	struct lb_loop *loop = loop_of(L);
	struct lb_task *t = loop != NULL ? loop->running : NULL;

	if (t == NULL || t->co != L || !lua_isyieldable(L))
		return luaL_error(L, "cannot wait here: not in a task, or inside a "
		    "function that cannot yield (table.sort, string.gsub, __tostring)");
	if (w->task != NULL)
		return luaL_error(L, "another task already waits for this");
	w->task = t;
	w->why = LB_WOKEN;
	t->wait = w;
	t->k = k;
	t->ctx = ctx;
	if (t->cancelled || t->interrupt) {
		if (t->cancelled && ++t->last_waits > LAST_WAITS)
			t->doomed = true;
		t->interrupt = false;
		task_ready(t, LB_INTERRUPTED);
	} else if (seconds >= 0) {
		/* One more: the clock of the loop is rounded down. And not 0, which
		 * would end the wait before the kernel was asked for what is there. */
		uv_update_time(&loop->uv);
		uv_timer_start(&t->deadline, deadline_cb, milliseconds(seconds) + 1, 0);
	}
	return lua_yieldk(L, 0, 0, wait_continue);
}

int
lb_fail_why(lua_State *L, const char *module, const char *op, enum lb_why why)
{
	if (why == LB_TIMEOUT)
		return lb_fail(L, module, op, "timeout", "timed out");
	return lb_fail(L, module, op, "interrupted", "interrupted");
}

void
lb_wake(struct lb_wait *w)
{
	if (w->task != NULL)
		task_ready(w->task, LB_WOKEN);
}

void
lb_wait_drop(struct lb_wait *w)
{
	if (w->task != NULL)
		task_ready(w->task, LB_INTERRUPTED);
}

/* Loop handles of lb.h */

struct lb_poll {
	struct loop_owner owner;
	uv_poll_t poll;
	void (*cb)(void *arg, int events);
	void *arg;
};

static void
poll_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void
poll_dispose(uv_handle_t *handle)
{
	uv_close(handle, poll_closed);
}

/* An error of the fd counts as both events: the read or write that follows will tell. */
static void
poll_cb(uv_poll_t *poll, int status, int events)
{
	struct lb_poll *p = poll->data;
	int set = 0;

	if (status < 0 || (events & (UV_READABLE | UV_DISCONNECT)) != 0)
		set |= LB_READ;
	if (status < 0 || (events & UV_WRITABLE) != 0)
		set |= LB_WRITE;
	p->cb(p->arg, set);
}

static struct lb_poll *
poll_new(uv_loop_t *uv, int fd, void (*cb)(void *arg, int events), void *arg)
{
	struct lb_poll *p = calloc(1, sizeof *p);

	if (p == NULL)
		return NULL;
	if (uv_poll_init(uv, &p->poll, fd) != 0) {
		free(p);
		return NULL;
	}
	p->owner.dispose = poll_dispose;
	p->poll.data = p;
	p->cb = cb;
	p->arg = arg;
	return p;
}

struct lb_poll *
lb_poll_new(lua_State *L, int fd, void (*cb)(void *arg, int events), void *arg)
{
	return poll_new(&loop_of(L)->uv, fd, cb, arg);
}

struct lb_poll *
lb_poll_like(struct lb_poll *p, int fd, void (*cb)(void *arg, int events), void *arg)
{
	return poll_new(p->poll.loop, fd, cb, arg);
}

bool
lb_poll_set(struct lb_poll *p, int events)
{
	int set = 0;

	if (events == 0)
		return uv_poll_stop(&p->poll) == 0;
	if ((events & LB_READ) != 0)
		set |= UV_READABLE;
	if ((events & LB_WRITE) != 0)
		set |= UV_WRITABLE;
	return uv_poll_start(&p->poll, set, poll_cb) == 0;
}

void
lb_poll_free(struct lb_poll *p)
{
	if (p != NULL)
		poll_dispose((uv_handle_t *)&p->poll);
}

struct lb_timer {
	struct loop_owner owner;
	uv_timer_t timer;
	void (*cb)(void *arg);
	void *arg;
};

static void
timer_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void
timer_dispose(uv_handle_t *handle)
{
	uv_close(handle, timer_closed);
}

static void
timer_cb(uv_timer_t *timer)
{
	struct lb_timer *t = timer->data;

	t->cb(t->arg);
}

struct lb_timer *
lb_timer_new(lua_State *L, void (*cb)(void *arg), void *arg)
{
	struct lb_timer *t = calloc(1, sizeof *t);

	if (t == NULL)
		return NULL;
	uv_timer_init(&loop_of(L)->uv, &t->timer);
	t->owner.dispose = timer_dispose;
	t->timer.data = t;
	t->cb = cb;
	t->arg = arg;
	return t;
}

void
lb_timer_set(struct lb_timer *t, double seconds)
{
	if (!(seconds >= 0)) {
		uv_timer_stop(&t->timer);
		return;
	}
	uv_update_time(t->timer.loop);
	uv_timer_start(&t->timer, timer_cb, milliseconds(seconds), 0);
}

void
lb_timer_free(struct lb_timer *t)
{
	if (t != NULL)
		timer_dispose((uv_handle_t *)&t->timer);
}

struct lb_poll *
lb_timer_poll(struct lb_timer *t, int fd, void (*cb)(void *arg, int events), void *arg)
{
	return poll_new(t->timer.loop, fd, cb, arg);
}

struct work {
	uv_work_t req;
	void (*work)(void *arg);
	void (*done)(void *arg);
	void *arg;
};

static void
work_cb(uv_work_t *req)
{
	struct work *w = req->data;

	w->work(w->arg);
}

static void
work_done(uv_work_t *req, int status)
{
	struct work *w = req->data;

	(void)status;
	w->done(w->arg);
	free(w);
}

bool
lb_work(lua_State *L, void (*work)(void *arg), void (*done)(void *arg), void *arg)
{
	struct work *w = malloc(sizeof *w);

	if (w == NULL)
		return false;
	w->req.data = w;
	w->work = work;
	w->done = done;
	w->arg = arg;
	if (uv_queue_work(&loop_of(L)->uv, &w->req, work_cb, work_done) == 0)
		return true;
	free(w);
	return false;
}

/* Signals */

static void
signal_cb(uv_signal_t *handle, int signum)
{
	struct lb_loop *loop = handle->data;
	struct lb_task *t;

	loop->signal_count++;
	loop->signal_last = signum;
	if (loop->on_signal != NULL)
		loop->on_signal(loop->on_signal_arg, signum, loop->signal_count);
	for (t = loop->tasks; t != NULL; t = t->next)
		task_interrupt(t);
}

bool
loop_watch_signals(struct lb_loop *loop, void (*cb)(void *arg, int signum, int count),
    void *arg)
{
	loop->on_signal = cb;
	loop->on_signal_arg = arg;
	return uv_signal_start(&loop->signals[0], signal_cb, SIGINT) == 0 &&
	    uv_signal_start(&loop->signals[1], signal_cb, SIGTERM) == 0;
}

int
loop_signals(const struct lb_loop *loop, int *signum)
{
	if (signum != NULL)
		*signum = loop->signal_last;
	return loop->signal_count;
}

/* Lua */

static struct lb_task *
check_task(lua_State *L)
{
	return *(struct lb_task **)luaL_checkudata(L, 1, HANDLE);
}

/* host.task(fn, ...)
 *  +-> task   (runs from the next turn of the loop on)                                 */
int
loop_task(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TFUNCTION);
	task_start(L, lua_gettop(L) - 1);
	return 1;
}

/* Leaves the results, or the error value, of a task that has ended; returns how many. */
static int
task_results(lua_State *L, struct lb_task *t)
{
	int i, n = lua_gettop(t->co);

	if (t->doomed && t->status == LUA_OK) {
		lb_fail(L, "host", "task", "interrupted", "the task was cancelled");
		lua_remove(L, -2);
		return 1;
	}
	if (!lua_checkstack(L, n) || !lua_checkstack(t->co, n))
		return luaL_error(L, "too many results of a task");
	for (i = 1; i <= n; i++)
		lua_pushvalue(t->co, i);
	lua_xmove(t->co, L, n);
	return n;
}

static int
join_k(lua_State *L, int status, lua_KContext ctx)
{
	struct lb_task *t = check_task(L), *me = loop_of(L)->running;

	(void)ctx;
	if (status == LUA_YIELD)
		task_leave_join(me);
	if (t->ended) {
		lua_pushboolean(L, t->status == LUA_OK && !t->doomed);
		return 1 + task_results(L, t);
	}
	return lb_fail_why(L, "host", "join", me->own.why);
}

/* task:join(timeout)
 *  +-> true, results...
 *  +-> false, value   (the error that ended it)
 *  +-> nil, err       (timeout, interrupted)                                           */
static int
l_join(lua_State *L)
{
	struct lb_task *t = check_task(L), *me = loop_of(L)->running;
	double seconds = lb_seconds(L, 2, -1);

	if (t->ended)
		return join_k(L, LUA_OK, 0);
	if (t == me)
		return luaL_error(L, "a task cannot join itself");
	if (me != NULL && me->co == L && lua_isyieldable(L)) {
		me->joining = t;
		me->join_next = t->joiners;
		t->joiners = me;
		return lb_wait(L, &me->own, seconds, 0, join_k);
	}
	return luaL_error(L, "cannot join a task here: not in a task, or inside a "
	    "function that cannot yield");
}

/* task:cancel()
 *  +-> nothing   (its waits end as interrupted from now on)                            */
static int
l_cancel(lua_State *L)
{
	task_cancel(check_task(L));
	return 0;
}

static int
l_gc(lua_State *L)
{
	struct lb_task **box = luaL_checkudata(L, 1, HANDLE);

	if (*box != NULL)
		task_unref(*box);
	*box = NULL;
	return 0;
}

static int
l_tostring(lua_State *L)
{
	struct lb_task *t = check_task(L);

	lua_pushfstring(L, "task (%s)", !t->ended ? "running" :
	    t->status == LUA_OK && !t->doomed ? "done" : "failed");
	return 1;
}

static int
sleep_k(lua_State *L, int status, lua_KContext ctx)
{
	enum lb_why why = loop_of(L)->running->own.why;

	(void)status;
	(void)ctx;
	if (why == LB_INTERRUPTED)
		return lb_fail_why(L, "host", "sleep", why);
	lua_pushboolean(L, true);
	return 1;
}

/* host.sleep(seconds)
 *  +-> true
 *  +-> nil, err   (interrupted)                                                        */
int
loop_sleep(lua_State *L)
{
	struct lb_loop *loop = loop_of(L);
	double seconds;

	luaL_checktype(L, 1, LUA_TNUMBER);
	seconds = lb_seconds(L, 1, 0);
	if (loop == NULL || loop->running == NULL)
		return luaL_error(L, "cannot wait here: not in a task");
	return lb_wait(L, &loop->running->own, seconds, 0, sleep_k);
}

/* The loop */

static void
loop_dispose(uv_handle_t *handle)
{
	uv_close(handle, NULL);
}

struct lb_loop *
loop_new(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{ "join", l_join },
		{ "cancel", l_cancel },
		{ "__gc", l_gc },
		{ "__tostring", l_tostring },
		{ NULL, NULL },
	};
	struct lb_loop *loop;
	int i;

	if (luaL_newmetatable(L, HANDLE)) {
		luaL_setfuncs(L, methods, 0);
		lua_pushvalue(L, -1);
		lua_setfield(L, -2, "__index");
		lua_pushliteral(L, "task");
		lua_setfield(L, -2, "__metatable");
	}
	lua_pop(L, 1);
	if ((loop = calloc(1, sizeof *loop)) == NULL)
		return NULL;
	if (uv_loop_init(&loop->uv) != 0) {
		free(loop);
		return NULL;
	}
	loop->owner.dispose = loop_dispose;
	uv_idle_init(&loop->uv, &loop->kick);
	loop->kick.data = loop;
	for (i = 0; i < 2; i++) {
		uv_signal_init(&loop->uv, &loop->signals[i]);
		uv_unref((uv_handle_t *)&loop->signals[i]);
		loop->signals[i].data = loop;
	}
	signal(SIGPIPE, SIG_IGN);
	*(struct lb_loop **)lua_getextraspace(L) = loop;
	lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
	*(struct lb_loop **)lua_getextraspace(lua_tothread(L, -1)) = loop;
	lua_pop(L, 1);
	return loop;
}

void
loop_set_slice_hook(struct lb_loop *loop, void (*begin)(void *arg, lua_State *co),
    void (*end)(void *arg, lua_State *co), void *arg)
{
	loop->begin = begin;
	loop->end = end;
	loop->slice_arg = arg;
}

int
loop_run_task(lua_State *L, int nargs)
{
	struct lb_loop *loop = loop_of(L);
	struct lb_task *main_task, *t;
	int handle, status, n;

	if (loop != NULL && loop->running != NULL)
		return luaL_error(L, "the event loop already runs");
	main_task = task_start(L, nargs);
	handle = lua_gettop(L);
	while (!main_task->ended)
		loop_step(L, loop);
	loop->ending = true;
	for (t = loop->tasks; t != NULL; t = t->next)
		task_cancel(t);
	while (loop->tasks != NULL)
		loop_step(L, loop);
	loop->ending = false;
	status = main_task->status;
	if (lua_checkstack(L, lua_gettop(main_task->co) + 2)) {
		task_results(L, main_task);
	} else {
		lua_pushliteral(L, "too many results of the main task");
		status = LUA_ERRMEM;
	}
	n = lua_gettop(L) - handle;
	lua_rotate(L, handle, n);
	lua_pop(L, 1);
	return status;
}

static void
dispose_handle(uv_handle_t *handle, void *arg)
{
	(void)arg;
	if (!uv_is_closing(handle))
		((struct loop_owner *)handle->data)->dispose(handle);
}

void
loop_free(struct lb_loop *loop)
{
	if (loop == NULL)
		return;
	uv_walk(&loop->uv, dispose_handle, NULL);
	while (uv_run(&loop->uv, UV_RUN_DEFAULT) != 0)
		;
	uv_loop_close(&loop->uv);
	free(loop);
}
