# lbrun: build, test, lint, install. `make help` lists the targets.
MODE ?= release
B := build/$(MODE)
PREFIX ?= /usr/local
CC ?= gcc
PKGS := lua5.4 libssh2 libcurl libcjson libcrypto sqlite3 libuv
VERSION := 0.1.0

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wwrite-strings -Wformat=2 -Wvla $(WERROR)
HARDEN := -fstack-protector-strong -fPIE
LDHARDEN := -pie -Wl,-z,relro -Wl,-z,now
ifeq ($(MODE),asan)
OPT := -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer
LDOPT := -fsanitize=address,undefined
else
OPT := -O2 -g -D_FORTIFY_SOURCE=2
endif
CFLAGS_ALL = -std=c17 -D_GNU_SOURCE $(WARN) $(OPT) $(HARDEN) -MMD -MP -Ihost -I$(B) \
	-DLBRUN_VERSION='"$(VERSION)"' -DLBRUN_PREFIX='"$(PREFIX)"' \
	$(shell pkg-config --cflags $(PKGS)) $(CFLAGS)
LIBS = $(shell pkg-config --libs $(PKGS)) -lcrypt -lm -lpthread

HOST := $(patsubst host/%.c,$(B)/host/%.o,$(filter-out host/main.c,$(wildcard host/*.c)))
MODS := $(patsubst modules/%.c,$(B)/modules/%.o,$(wildcard modules/*.c))
OBJS := $(HOST) $(MODS) $(B)/prelude.o $(B)/modules.o
NATIVE := $(patsubst luaopen_%,%,$(sort $(shell grep -ho '^luaopen_[a-z0-9_]*' host/*.c modules/*.c)))

.PHONY: all clean FORCE
all: lbrun

lbrun: $(B)/lbrun
	ln -sf $< $@

$(B)/lbrun: $(B)/host/main.o $(OBJS)
	$(CC) $(LDHARDEN) $(LDOPT) -o $@ $^ $(LIBS)

# The specs' own main: the same objects, all of Lua's libraries, busted inside.
$(B)/lbrun-spec: $(B)/spec/spec_main.o $(OBJS)
	$(CC) $(LDHARDEN) $(LDOPT) -o $@ $^ $(LIBS)

# Preloaded into lbrun by specs, to kill it at a journal commit.
$(B)/lbrun-spec: | $(B)/killat.so
$(B)/killat.so: spec/support/killat.c
	@mkdir -p $(@D)
	$(CC) -std=c17 -D_GNU_SOURCE $(WARN) -O2 -fPIC -shared -o $@ $< -ldl

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c -o $@ $<

$(B)/spec/%.o: spec/support/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c -o $@ $<

# The prelude is embedded as bytes: `const struct prelude_file prelude_files[]` of prelude.h.
$(B)/prelude.c: host/embed.sh $(wildcard host/prelude/*.lua)
	@mkdir -p $(@D)
	sh host/embed.sh $(sort $(wildcard host/prelude/*.lua)) > $@.tmp && mv $@.tmp $@

# What require finds: every luaopen_NAME there is.
$(B)/modules.c: FORCE
	@mkdir -p $(@D)
	@{ echo '#include "modules.h"'; \
	for m in $(NATIVE); do echo "int luaopen_$$m(lua_State *L);"; done; \
	echo 'const luaL_Reg native_modules[] = {'; \
	for m in $(NATIVE); do echo "{ \"$$m\", luaopen_$$m },"; done; \
	echo '{ NULL, NULL } };'; } > $@.tmp
	@cmp -s $@.tmp $@ && rm $@.tmp || mv $@.tmp $@

$(B)/prelude.o $(B)/modules.o: %.o: %.c
	$(CC) $(CFLAGS_ALL) -c -o $@ $<

clean:
	rm -rf build lbrun

-include $(shell find build/$(MODE) -name '*.d' -type f 2>/dev/null)
