/* main.c: from argv to exit status. What a command does is in the prelude. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "cli.h"
#include "runtime.h"

enum { EXIT_INTERNAL = 1, EXIT_USAGE = 2, EXIT_PIPE = 141 };

/* Help and version hold no secret and need no Lua. */
static int
print_and_leave(const struct cli *cli, enum cli_result what)
{
	if (what == CLI_VERSION)
		cli_version(stdout);
	else
		cli_help(stdout, cli->command);
	if (fflush(stdout) == 0)
		return EXIT_SUCCESS;
	if (errno == EPIPE)
		return EXIT_PIPE;
	fprintf(stderr, "lbrun: cannot write to standard output: %s\n", strerror(errno));
	return EXIT_INTERNAL;
}

static int
push_main(lua_State *L, void *arg)
{
	lua_getglobal(L, "require");
	lua_pushliteral(L, "lb.main");
	lua_call(L, 1, 1);
	cli_push(L, arg);
	return 1;
}

static int
act(struct cli *cli, enum cli_result result)
{
	switch (result) {
	case CLI_HELP:
	case CLI_VERSION:
		return print_and_leave(cli, result);
	case CLI_USAGE:
		fprintf(stderr, "lbrun: %s\n%s\n", cli->message, cli->hint);
		return EXIT_USAGE;
	case CLI_MEMORY:
		fputs("lbrun: internal: not enough memory\n", stderr);
		return EXIT_INTERNAL;
	case CLI_OK:
		break;
	}
	return runtime_run(false, push_main, cli);
}

int
main(int argc, char **argv)
{
	struct cli cli;
	int status;

	runtime_prepare();
	status = act(&cli, cli_parse(&cli, argc, argv));
	cli_free(&cli);
	return status;
}
