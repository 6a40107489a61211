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
OBJS := $(HOST) $(MODS) $(B)/prelude.o

.PHONY: all clean
all: lbrun

lbrun: $(B)/lbrun
	ln -sf $< $@

$(B)/lbrun: $(B)/host/main.o $(OBJS)
	$(CC) $(LDHARDEN) $(LDOPT) -o $@ $^ $(LIBS)

# The specs' own main: the same objects, all of Lua's libraries, busted inside.
$(B)/lbrun-spec: $(B)/spec/spec_main.o $(OBJS)
	$(CC) $(LDHARDEN) $(LDOPT) -o $@ $^ $(LIBS)

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c -o $@ $<

$(B)/spec/%.o: spec/support/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c -o $@ $<

# The prelude is embedded as bytes: `const struct prelude_file prelude_files[]` of prelude.h.
$(B)/prelude.c: host/embed.sh $(wildcard host/prelude/*.lua)
	@mkdir -p $(@D)
	sh host/embed.sh host/prelude/*.lua > $@.tmp && mv $@.tmp $@
$(B)/prelude.o: $(B)/prelude.c
	$(CC) $(CFLAGS_ALL) -c -o $@ $<

clean:
	rm -rf build lbrun

-include $(shell find build -name '*.d' 2>/dev/null)
