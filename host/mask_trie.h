/* mask_trie.h: finds many byte strings at once (Aho-Corasick). For mask.c alone. */
#ifndef MASK_TRIE_H
#define MASK_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Strings go in longest first, so that the first child of a node, when it has one, is the
 * next node. */
struct mask_node {
	uint32_t fail;    /* node of the longest suffix that is in the trie too */
	uint32_t sibling; /* 0: none */
	uint32_t depth;
	uint16_t label;   /* of the string that ends here, 0: none */
	unsigned char byte;
	unsigned char flags;
};
enum { TRIE_CHILD = 1, TRIE_ENDS = 2 }; /* TRIE_ENDS: here or at a suffix a string ends */

struct mask_trie {
	struct mask_node *nodes; /* the root is 0; NULL: not built */
	uint32_t count, cap, longest;
	uint32_t root[256];
};

/* false: out of memory. trie_link comes after the last string, and before any step. */
bool trie_start(struct mask_trie *t);
bool trie_insert(struct mask_trie *t, const unsigned char *data, size_t len,
    uint16_t label);
bool trie_link(struct mask_trie *t);
void trie_wipe(struct mask_trie *t);

/* The node for the longest suffix, of what leads to `node` and then `byte`, that is in
 * the trie: 0 when none is. */
uint32_t trie_step(const struct mask_trie *t, uint32_t node, unsigned char byte);
/* The longest string that ends at a node with TRIE_ENDS, by its last node. */
uint32_t trie_match(const struct mask_trie *t, uint32_t node);
/* The nearest suffix of node that can go on, node itself if it can. */
uint32_t trie_open(const struct mask_trie *t, uint32_t node);
/* The last node of one of the strings that begin as node does. */
uint32_t trie_leaf(const struct mask_trie *t, uint32_t node);

#endif
