/* mask.c: finds all forms of all live secrets at once (mask_trie.c) and replaces them.
 * It does not know where the text goes, nor what the forms are (mask_forms.c). */
#include "mask.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mask_forms.h"
#include "mask_trie.h"

#define KEEP 4      /* idle holds back this many bytes of a possible secret, not fewer */
#define CUT_OFF 8   /* this many bytes of a secret at the end of a text are masked */
#define FEW_REGIONS 4

struct label {
	unsigned refs;
	char text[];
};

struct entry {
	struct entry *next;
	unsigned id;
	struct label *label;
	size_t len;
	unsigned char data[];
};

struct masker {
	struct entry *entries; /* oldest first */
	unsigned last_id, generation;
	bool stale;
	struct mask_trie tries[MASK_KINDS];
	struct label **labels; /* by number from 1 up */
	size_t nlabels;
};

/* A part of the text that is replaced; positions count from the start of the stream. */
struct region {
	uint64_t start, end;
	struct label *label;
	bool quiet; /* goes on from a region that is written already */
};

struct mask_stream {
	struct masker *masker;
	unsigned generation;
	uint32_t state[MASK_KINDS];
	int breaks;      /* line breaks the text ends with */
	uint64_t pos;    /* end of what was fed */
	uint64_t done;   /* end of what was written, or replaced */
	uint64_t silent; /* end of the last region that idle wrote */
	unsigned char *held; /* the bytes before pos that led to the states, no more */
	size_t held_len, held_cap;
	struct region few[FEW_REGIONS], *regions;
	size_t nregions, regions_cap;
};

static void
label_unref(struct label *l)
{
	if (--l->refs == 0)
		free(l);
}

static void
wipe_free(void *data, size_t len)
{
	if (data != NULL)
		explicit_bzero(data, len);
	free(data);
}

/* Building the automata: one for each kind of form */

struct form {
	size_t len;
	unsigned seq;
	uint16_t label;
	enum mask_kind kind;
	unsigned char data[];
};

struct forms {
	struct form **list;
	size_t count, cap;
	uint16_t label;
	const struct entry *entry;
	bool has_raw; /* the entry's first form is in the list */
};

static bool
forms_add(void *arg, enum mask_kind kind, const unsigned char *data, size_t len)
{
	struct forms *f = arg;
	struct form *form, **grown;
	size_t cap;

	/* most forms of most secrets are the secret itself */
	if (f->has_raw && len == f->entry->len && memcmp(data, f->entry->data, len) == 0)
		return true;
	if (f->count == f->cap) {
		cap = f->cap == 0 ? 64 : f->cap * 2;
		if ((grown = realloc(f->list, cap * sizeof *grown)) == NULL)
			return false;
		f->list = grown;
		f->cap = cap;
	}
	if ((form = malloc(sizeof *form + len)) == NULL)
		return false;
	form->len = len;
	form->seq = (unsigned)f->count;
	form->label = f->label;
	form->kind = kind;
	memcpy(form->data, data, len);
	f->list[f->count++] = form;
	f->has_raw = true;
	return true;
}

static void
forms_free(struct forms *f)
{
	size_t i;

	for (i = 0; i < f->count; i++)
		wipe_free(f->list[i], sizeof **f->list + f->list[i]->len);
	free(f->list);
}

/* Longest first; of the same form the oldest secret's wins. */
static int
form_order(const void *a, const void *b)
{
	const struct form *x = *(struct form *const *)a, *y = *(struct form *const *)b;

	if (x->len != y->len)
		return x->len < y->len ? 1 : -1;
	return x->seq < y->seq ? -1 : 1;
}

static void
masker_forget(struct masker *m)
{
	size_t i;

	for (i = 0; i < MASK_KINDS; i++)
		trie_wipe(&m->tries[i]);
	for (i = 0; i < m->nlabels; i++)
		label_unref(m->labels[i]);
	free(m->labels);
	m->labels = NULL;
	m->nlabels = 0;
	m->stale = true;
}

static bool
masker_build(struct masker *m)
{
	struct forms f = { 0 };
	struct entry *e;
	size_t n = 0, i;
	bool ok = true;

	if (!m->stale)
		return true;
	masker_forget(m);
	for (e = m->entries; e != NULL; e = e->next)
		n++;
	n = n < UINT16_MAX ? n : UINT16_MAX; /* those beyond share the last label */
	if (n > 0 && (m->labels = calloc(n, sizeof *m->labels)) == NULL)
		return false;
	for (e = m->entries; e != NULL && ok; e = e->next) {
		if (m->nlabels < n) {
			e->label->refs++;
			m->labels[m->nlabels++] = e->label;
		}
		f.entry = e;
		f.has_raw = false;
		f.label = (uint16_t)m->nlabels;
		ok = mask_forms(e->data, e->len, forms_add, &f);
	}
	if (ok && f.count > 0)
		qsort(f.list, f.count, sizeof *f.list, form_order);
	for (i = 0; i < MASK_KINDS && ok; i++)
		ok = trie_start(&m->tries[i]);
	for (i = 0; i < f.count && ok; i++)
		ok = trie_insert(&m->tries[f.list[i]->kind], f.list[i]->data,
		    f.list[i]->len, f.list[i]->label);
	for (i = 0; i < MASK_KINDS && ok; i++)
		ok = trie_link(&m->tries[i]);
	forms_free(&f);
	if (!ok) {
		masker_forget(m);
		return false;
	}
	m->stale = false;
	return true;
}

/* The masker */

struct masker *
mask_new(void)
{
	struct masker *m = calloc(1, sizeof *m);

	if (m != NULL)
		m->stale = true;
	return m;
}

static void
entry_free(struct entry *e)
{
	label_unref(e->label);
	wipe_free(e, sizeof *e + e->len);
}

void
mask_free(struct masker *m)
{
	struct entry *e;

	if (m == NULL)
		return;
	masker_forget(m);
	while ((e = m->entries) != NULL) {
		m->entries = e->next;
		entry_free(e);
	}
	free(m);
}

unsigned
mask_add(struct masker *m, const char *name, const void *data, size_t len)
{
	struct entry *e, **last;
	size_t name_len = strlen(name);

	if (len == 0 || len > UINT32_MAX / 64 || (e = malloc(sizeof *e + len)) == NULL)
		return 0;
	if ((e->label = malloc(sizeof *e->label + name_len + 1)) == NULL) {
		free(e);
		return 0;
	}
	e->label->refs = 1;
	memcpy(e->label->text, name, name_len + 1);
	e->len = len;
	memcpy(e->data, data, len);
	e->id = ++m->last_id;
	e->next = NULL;
	for (last = &m->entries; *last != NULL; last = &(*last)->next)
		;
	*last = e;
	m->stale = true;
	m->generation++;
	return e->id;
}

void
mask_remove(struct masker *m, unsigned id)
{
	struct entry *e, **p;

	for (p = &m->entries; (e = *p) != NULL && e->id != id; p = &e->next)
		;
	if (e == NULL)
		return;
	*p = e->next;
	entry_free(e);
	masker_forget(m);
	m->generation++;
}

/* Streams */

static void
stream_init(struct mask_stream *s, struct masker *m)
{
	memset(s, 0, sizeof *s);
	s->masker = m;
	s->generation = m->generation;
	s->regions = s->few;
	s->regions_cap = FEW_REGIONS;
}

static void
stream_release(struct mask_stream *s)
{
	size_t i;

	for (i = 0; i < s->nregions; i++)
		label_unref(s->regions[i].label);
	if (s->regions != s->few)
		free(s->regions);
	wipe_free(s->held, s->held_cap);
}

struct mask_stream *
mask_stream_new(struct masker *m)
{
	struct mask_stream *s = malloc(sizeof *s);

	if (s != NULL)
		stream_init(s, m);
	return s;
}

void
mask_stream_free(struct mask_stream *s)
{
	if (s == NULL)
		return;
	stream_release(s);
	free(s);
}

static bool
regions_grow(struct mask_stream *s)
{
	struct region *grown = malloc(2 * s->regions_cap * sizeof *grown);

	if (grown == NULL)
		return false;
	memcpy(grown, s->regions, s->nregions * sizeof *grown);
	if (s->regions != s->few)
		free(s->regions);
	s->regions = grown;
	s->regions_cap *= 2;
	return true;
}

/* Masks [start, end), which ends at or behind all regions there are. Of overlapping
 * secrets the leftmost gives the name, then the longest. */
static void
region_add(struct mask_stream *s, uint64_t start, uint64_t end, struct label *label)
{
	struct region r = { start, end, label, false }, *last;

	if (r.start < s->done) {
		r.quiet = r.start < s->silent && s->done == s->silent;
		r.start = s->done;
	}
	if (r.start >= end)
		return;
	label->refs++;
	while (s->nregions > 0) {
		last = &s->regions[s->nregions - 1];
		if (last->end <= r.start)
			break;
		if (last->start <= r.start)
			r.quiet = r.quiet || last->quiet;
		if (last->start < r.start) {
			label_unref(r.label);
			r.start = last->start;
			r.label = last->label;
		} else {
			label_unref(last->label);
		}
		s->nregions--;
	}
	if (s->nregions == s->regions_cap && !regions_grow(s)) {
		/* out of memory: rather mask what lies between than show a secret */
		s->regions[s->nregions - 1].end = end;
		label_unref(r.label);
		return;
	}
	s->regions[s->nregions++] = r;
}

/* What is fed, and behind what is held: one text that starts at `base`. */
struct text {
	uint64_t base;
	const unsigned char *held, *data;
	size_t held_len, len;
	mask_out *out;
	void *arg;
};

static void
write_raw(const struct text *t, uint64_t from, uint64_t to)
{
	const char *held = (const char *)t->held, *data = (const char *)t->data;
	uint64_t data_base = t->base + t->held_len, end;

	if (from < data_base && from < to) {
		end = to < data_base ? to : data_base;
		t->out(t->arg, held + (from - t->base), (size_t)(end - from));
		from = end;
	}
	if (from < to)
		t->out(t->arg, data + (from - data_base), (size_t)(to - from));
}

static void
write_first_region(struct mask_stream *s, const struct text *t)
{
	struct region r = s->regions[0];

	write_raw(t, s->done, r.start);
	if (!r.quiet) {
		t->out(t->arg, "[secret ", 8);
		t->out(t->arg, r.label->text, strlen(r.label->text));
		t->out(t->arg, "]", 1);
	}
	label_unref(r.label);
	s->done = r.end;
	s->nregions--;
	memmove(s->regions, s->regions + 1, s->nregions * sizeof *s->regions);
}

/* Writes all before `end`, which no later match can reach. */
static void
write_until(struct mask_stream *s, const struct text *t, uint64_t end)
{
	while (s->nregions > 0 && s->regions[0].end <= end)
		write_first_region(s, t);
	if (s->nregions > 0 && s->regions[0].start < end)
		end = s->regions[0].start;
	if (s->done < end) {
		write_raw(t, s->done, end);
		s->done = end;
	}
}

static bool
line_break(unsigned char c)
{
	return c == '\n' || c == '\r';
}

/* Where the n bytes before `end` begin that are no line breaks. */
static uint64_t
wrapped_start(const struct text *t, uint64_t end, uint32_t n)
{
	uint64_t data_base = t->base + t->held_len;

	while (n > 0) {
		end--;
		if (!line_break(end < data_base ? t->held[end - t->base] :
		    t->data[end - data_base]))
			n--;
	}
	return end;
}

static struct label *
label_of(const struct masker *m, enum mask_kind kind, uint32_t node)
{
	return m->labels[m->tries[kind].nodes[node].label - 1];
}

/* Goes on with the text from `pos`, where data continues. */
static void
scan(struct mask_stream *s, const struct text *t, uint64_t pos, const unsigned char *data,
    size_t len)
{
	const struct masker *m = s->masker;
	const struct mask_trie *plain = &m->tries[MASK_PLAIN],
	    *wrapped = &m->tries[MASK_WRAPPED];
	uint32_t p = s->state[MASK_PLAIN], w = s->state[MASK_WRAPPED], n;
	uint64_t start;
	size_t i;

	for (i = 0; i < len; i++) {
		p = trie_step(plain, p, data[i]);
		if ((plain->nodes[p].flags & TRIE_ENDS) != 0) {
			n = trie_match(plain, p);
			region_add(s, pos + i + 1 - plain->nodes[n].depth, pos + i + 1,
			    label_of(m, MASK_PLAIN, n));
			p = trie_open(plain, p);
		}
		if (line_break(data[i])) {
			/* an empty line is the end of what was broken into lines */
			if (s->breaks == 2)
				w = 0;
			else
				s->breaks++;
			continue;
		}
		s->breaks = 0;
		w = trie_step(wrapped, w, data[i]);
		if ((wrapped->nodes[w].flags & TRIE_ENDS) != 0) {
			n = trie_match(wrapped, w);
			start = wrapped_start(t, pos + i + 1, wrapped->nodes[n].depth);
			region_add(s, start, pos + i + 1, label_of(m, MASK_WRAPPED, n));
			w = trie_open(wrapped, w);
		}
	}
	s->state[MASK_PLAIN] = p;
	s->state[MASK_WRAPPED] = w;
}

static uint32_t
depth(const struct mask_stream *s, enum mask_kind kind)
{
	return s->masker->tries[kind].nodes[s->state[kind]].depth;
}

/* Where that begins which may become a secret. */
static uint64_t
open_start(const struct mask_stream *s, const struct text *t, enum mask_kind kind)
{
	uint32_t n = depth(s, kind);

	return kind == MASK_PLAIN ? s->pos - n : wrapped_start(t, s->pos, n);
}

static bool
reserve_held(struct mask_stream *s, size_t len)
{
	unsigned char *grown;
	const struct masker *m = s->masker;
	size_t need = s->held_len + len, most = m->tries[MASK_PLAIN].longest;

	/* up to two line breaks with each byte */
	if (most < 3 * (size_t)m->tries[MASK_WRAPPED].longest)
		most = 3 * (size_t)m->tries[MASK_WRAPPED].longest;
	if (need > most)
		need = most;
	if (need < s->held_len)
		need = s->held_len;
	if (need <= s->held_cap)
		return true;
	need = need < 64 ? 64 : need * 2;
	if ((grown = malloc(need)) == NULL)
		return false;
	if (s->held_len > 0)
		memcpy(grown, s->held, s->held_len);
	wipe_free(s->held, s->held_cap);
	s->held = grown;
	s->held_cap = need;
	return true;
}

/* Keeps the last `keep` bytes of what was held and fed. */
static void
hold(struct mask_stream *s, const unsigned char *data, size_t len, size_t keep)
{
	size_t before = s->held_len, old;

	if (keep <= len) {
		if (keep > 0)
			memcpy(s->held, data + len - keep, keep);
	} else {
		old = keep - len;
		memmove(s->held, s->held + before - old, old);
		if (len > 0)
			memcpy(s->held + old, data, len);
	}
	if (before > keep)
		explicit_bzero(s->held + keep, before - keep);
	s->held_len = keep;
}

static void
forget_states(struct mask_stream *s)
{
	memset(s->state, 0, sizeof s->state);
	s->breaks = 0;
}

bool
mask_stream_feed(struct mask_stream *s, const void *data, size_t len, mask_out *out,
    void *arg)
{
	struct masker *m = s->masker;
	struct text t = { s->pos - s->held_len, NULL, data, s->held_len, len, out, arg };
	uint64_t start, wrapped;

	if (!masker_build(m) || !reserve_held(s, len))
		return false;
	t.held = s->held;
	if (s->generation != m->generation) {
		/* other secrets: look at what is held with their eyes */
		forget_states(s);
		s->generation = m->generation;
		scan(s, &t, t.base, t.held, t.held_len);
	}
	scan(s, &t, s->pos, data, len);
	s->pos += len;
	start = open_start(s, &t, MASK_PLAIN);
	wrapped = open_start(s, &t, MASK_WRAPPED);
	if (wrapped < start)
		start = wrapped;
	write_until(s, &t, start);
	hold(s, data, len, (size_t)(s->pos - start));
	return true;
}

static struct text
held_text(const struct mask_stream *s, mask_out *out, void *arg)
{
	return (struct text){ s->pos - s->held_len, s->held, NULL, s->held_len, 0, out,
		arg };
}

bool
mask_stream_idle(struct mask_stream *s, mask_out *out, void *arg)
{
	struct text t;

	if (!mask_stream_feed(s, "", 0, out, arg))
		return false;
	t = held_text(s, out, arg);
	while (s->nregions > 0 && s->regions[0].start == s->done) {
		write_first_region(s, &t);
		s->silent = s->done;
	}
	if (s->nregions == 0 && depth(s, MASK_PLAIN) < KEEP &&
	    depth(s, MASK_WRAPPED) < KEEP)
		write_until(s, &t, s->pos);
	return true;
}

bool
mask_stream_flush(struct mask_stream *s, mask_out *out, void *arg)
{
	const struct masker *m = s->masker;
	struct text t;
	uint32_t leaf;
	int kind;

	if (!mask_stream_feed(s, "", 0, out, arg))
		return false;
	t = held_text(s, out, arg);
	for (kind = 0; kind < MASK_KINDS; kind++) {
		if (depth(s, kind) < CUT_OFF)
			continue;
		leaf = trie_leaf(&m->tries[kind], s->state[kind]);
		region_add(s, open_start(s, &t, kind), s->pos, label_of(m, kind, leaf));
	}
	write_until(s, &t, s->pos);
	hold(s, NULL, 0, 0);
	forget_states(s);
	s->pos = s->done = s->silent = 0;
	return true;
}

bool
mask_text(struct masker *m, const void *data, size_t len, mask_out *out, void *arg)
{
	struct mask_stream s;
	bool ok;

	stream_init(&s, m);
	ok = mask_stream_feed(&s, data, len, out, arg) && mask_stream_flush(&s, out, arg);
	stream_release(&s);
	return ok;
}
