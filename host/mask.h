/* mask.h: replaces every live secret in a text by [secret NAME]. Knows no Lua.
 * A masker knows the secrets; a stream is one text that comes in pieces. */
#ifndef MASK_H
#define MASK_H

#include <stdbool.h>
#include <stddef.h>

struct masker;
struct mask_stream;

/* Receives masked text, in pieces. */
typedef void mask_out(void *arg, const char *data, size_t len);

struct masker *mask_new(void);         /* NULL: out of memory */
void mask_free(struct masker *m);      /* after its streams */

/* A secret is known from here on in all its forms, until it is removed. The same bytes
 * may be added more than once. 0: out of memory. */
unsigned mask_add(struct masker *m, const char *name, const void *data, size_t len);
void mask_remove(struct masker *m, unsigned id); /* wipes; 0 is fine */

/* A stream holds back what may be the beginning of a secret.
 * feed: takes a piece. idle: nothing comes for now; lets go of fewer than 4 bytes, and
 * should they have been the beginning of a secret, its rest is masked all the same.
 * flush: the end. The first 8 bytes or more of a secret that is cut off there are masked
 * too, and the stream begins anew. false: out of memory; nothing of the piece was written
 * and it is lost, what was held stays held. */
struct mask_stream *mask_stream_new(struct masker *m);
bool mask_stream_feed(struct mask_stream *s, const void *data, size_t len, mask_out *out,
    void *arg);
bool mask_stream_idle(struct mask_stream *s, mask_out *out, void *arg);
bool mask_stream_flush(struct mask_stream *s, mask_out *out, void *arg);
void mask_stream_free(struct mask_stream *s);

/* A whole text. false: out of memory, nothing was written. */
bool mask_text(struct masker *m, const void *data, size_t len, mask_out *out, void *arg);

#endif
