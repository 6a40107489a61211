/* journal_outbox.h: reports to the Hub that wait in the journal until they are answered.
 * It sends nothing, knows no Lua and no secret: of a token it has name and fingerprint.
 */
#ifndef JOURNAL_OUTBOX_H
#define JOURNAL_OUTBOX_H

#include "journal_read.h"

/* An entry. The id is also its Idempotency-Key; `url` is the Hub's, `path` the call's. */
struct journal_report {
	const char *id, *run, *step, *call, *method, *url, *path, *token, *fingerprint;
	struct journal_text body;
};

/* Status: open until it is sent (answered well), refused (answered with a refusal) or
 * dropped (by a person). Each of the first four is one durable commit with its event. */

/* Entered before it is sent. The same id again changes nothing. */
bool journal_outbox_add(struct journal *j, const struct journal_report *r,
    bool *existing);

/* This process is going to send it: one more attempt. Refused (code locked) while another
 * one has it, or while an older open entry for the same address and token waits; and
 * (conflict) when it is not open any more. A claim ends with its process, and after ttl
 * seconds. */
bool journal_outbox_claim(struct journal *j, const char *id,
    const struct journal_owner *o, double ttl);

/* What came of it; the claim is over. `status` open: it goes on waiting, for `error`.
 * An entry that is not open any more stays as it is. */
bool journal_outbox_end(struct journal *j, const char *id, const struct journal_owner *o,
    const char *status, long long answered, struct journal_text answer,
    struct journal_text error);

bool journal_outbox_drop(struct journal *j, const char *id, struct journal_text reason);

/* Queries, oldest first: those of a status, of a run, for a token; or one, by its id or
 * the unique beginning of it. */
bool journal_outbox(struct journal *j, const char *status, const char *run,
    const char *fingerprint);
bool journal_outbox_one(struct journal *j, const char *id_or_prefix);

#endif
