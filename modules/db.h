/* db.h: what the files of the module "db" share. It names no function of SQLite. */
#ifndef DB_H
#define DB_H

#include <stdbool.h>

#include "lb.h"

#define MODULE "db"
#define HANDLE "lb.db"

struct sqlite3;

struct db {
	struct sqlite3 *db; /* NULL: closed */
	double timeout, busy;
	double until; /* the statement that runs now ends then */
	bool readonly, late;
	bool own;     /* this statement may begin and end transactions */
	bool refused; /* one tried to that may not */
};

/* Statements run on the loop's thread: less than the Lua time that a task may take. */
#define TIMEOUT_MAX 8.0

double db_now(void);
const char *db_code(int rc, int errnum); /* the error code of a result of SQLite */
int db_fail(lua_State *L, struct db *d, const char *op, int rc); /* nil, err */
int db_fail_taken(lua_State *L, const char *op);
void db_begin_slice(struct db *d, double seconds);
bool db_may_wait(int rc, double *until, int *tries, double busy);
double db_pause(int *tries);

/* The handle is at 1. */
struct db *db_check(lua_State *L);    /* raises when it is closed */
bool db_in_transaction(lua_State *L); /* of whatever task */
bool db_is_owner(lua_State *L);       /* of the transaction */
bool db_is_taken(lua_State *L);       /* by the transaction of another task */

void db_metatable(lua_State *L, const char *name, lua_CFunction release);
void db_push_null(lua_State *L);
int db_blob(lua_State *L);
int db_exec(lua_State *L);
int db_rows(lua_State *L);
int db_one(lua_State *L);

void db_backup_open(lua_State *L);
int db_backup(lua_State *L);

#endif
