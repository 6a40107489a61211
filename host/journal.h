/* journal.h: the journal of runs, one private SQLite file with a hash-chained event log.
 * What it says is read through journal_read.h.
 * It knows no Lua and nothing of runbooks: JSON is opaque text, the caller masks. */
#ifndef JOURNAL_H
#define JOURNAL_H

#include <stdbool.h>
#include <stddef.h>

struct journal;
/* p NULL: absent (stored as NULL, or in an update: leave what is there). */
struct journal_text {
	const char *p;
	size_t n;
};
#define JOURNAL_NONE (-0x7fffffffffffffffLL) /* an absent integer */

/* codes: unreadable corrupt newer full busy io conflict not_found ambiguous not_private
 * locked chain readonly memory */
struct journal_error {
	char code[16];
	char message[768];
};

struct journal_source {
	const char *path;
	struct journal_text body;
};
struct journal_run {
	const char *id, *name, *runbook, *section, *subject, *target, *params_digest;
	const char *request_id, *parent, *parent_step, *steps_digest;
	struct journal_text params, options;
	long long interface;
	const struct journal_source *sources;
	size_t nsources;
};

struct journal_step {
	const char *status, *class, *title;
	struct journal_text message;
	long long idx, attempt;
};

struct journal_owner {
	const char *boot_id, *host;
	long long pid, start_time;
};

enum { JOURNAL_READONLY = 1, JOURNAL_CREATE = 2 };
/* The path used when the user names none; malloc'd. NULL: no home folder. Its folder is
 * made (0700) by journal_open; the folder of any other path must exist. */
char *journal_default_path(void);
struct journal *journal_open(const char *path, unsigned flags, struct journal_error *err);
void journal_close(struct journal *j); /* NULL is fine */
const char *journal_path(const struct journal *j);
const struct journal_error *journal_error(const struct journal *j);

/* Every call below returns false on failure (see journal_error). A mutator is one durable
 * commit that appends its event, or nothing at all. */
/* From hold to release all changes are one commit, or none of them when one failed or
 * `ok` is false. It holds up every other process: nothing may wait in between. */
bool journal_hold(struct journal *j);
bool journal_release(struct journal *j, bool ok);
bool journal_held(const struct journal *j);
bool journal_head(struct journal *j, char hex[65], long long *seq);
/* `head` (or NULL) is a hash that was once printed: it must still be in the chain. */
bool journal_verify(struct journal *j, const char *head, long long *count);

bool journal_run_create(struct journal *j, const struct journal_run *r, bool *existing);
bool journal_run_set(struct journal *j, const char *id, const char *status,
    long long code, struct journal_text summary, const char *steps_digest,
    const char *type, struct journal_text data);
bool journal_effect_begin(struct journal *j, const char *run, const char *step,
    const char *effect, long long idx, const char *resource, struct journal_text intent,
    struct journal_text before, bool undoable, long long *attempt);
bool journal_effect_end(struct journal *j, const char *run, const char *step,
    const char *effect, const char *status, struct journal_text output,
    struct journal_text message);
/* With `effect`, or NULL, that is done by it: its result is in the same commit. */
bool journal_step_set(struct journal *j, const char *run, const char *step,
    const char *effect, struct journal_text output, const struct journal_step *s,
    const char *type, struct journal_text data);
bool journal_event(struct journal *j, const char *run, const char *type,
    struct journal_text data);
bool journal_pin_set(struct journal *j, const char *run, const char *target,
    struct journal_text json);
bool journal_path_set(struct journal *j, const char *target, const char *url,
    struct journal_text json);
bool journal_fingerprint_set(struct journal *j, const char *run, const char *name,
    const char *hex);
/* A lease is taken when it is free, or held by the same run and its holder is gone. */
bool journal_lease_take(struct journal *j, const char *target, const char *run,
    const struct journal_owner *o, double ttl);
bool journal_lease_beat(struct journal *j, const char *target, const char *run);
bool journal_lease_drop(struct journal *j, const char *target, const char *run);
/* 32 bytes that live in FILE.key beside the journal, made at the first call. */
bool journal_key(struct journal *j, unsigned char key[32]);

#endif
