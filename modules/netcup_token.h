/* netcup_token.h: what netcup_token.c offers: tokens and their store.
 * It knows no Lua but to make the tokens known to the masker. */
#ifndef NETCUP_TOKEN_H
#define NETCUP_TOKEN_H

#include "netcup.h"

bool netcup_token_fresh(const struct client *c);
void netcup_token_reject(struct client *c);
bool netcup_token_take(struct client *c, const struct cJSON *answer, struct failure *f);
void netcup_token_forget(struct client *c);
void netcup_token_mask(lua_State *L, struct client *c);
void netcup_refreshed(void *client);
int netcup_store_lock(struct client *c);
void netcup_store_unlock(struct client *c);
bool netcup_store_load(struct client *c, struct failure *f);
bool netcup_store_save(struct client *c, struct failure *f);
int netcup_store_remove(struct client *c);
void netcup_keep_secret(
    lua_State *L, const char *slot, const char *name, const struct lb_buf *b);

#endif
