# SPDX-License-Identifier: ISC
#
# make            all programs into $(B)            make check   unit tests, simulation, sanitizers
# make demo       two hosts, one live migration     make test    everything, guests and testbed too
# make deps       Debian packages                   make install DESTDIR= PREFIX=
# make V=1 shows commands; make CC=clang B=build-clang; make SAN=address|thread builds with it.

B       ?= build$(if $(SAN),-$(SAN))
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION := 0.1

CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
            -Wwrite-strings -Wvla -Wformat=2
HARDEN   := -fstack-protector-strong -fPIE -fcf-protection $(if $(SAN),,-D_FORTIFY_SOURCE=2)
PKGS     := libuv libprotobuf-c libssl libcrypto libpcre2-8 libxml-2.0 liblz4 libzstd libxxhash \
            jansson libmicrohttpd libseccomp libcap-ng uuid inih
SANFLAGS := $(if $(filter address,$(SAN)),-fsanitize=address$(,)undefined -fno-sanitize-recover=all) \
            $(if $(filter thread,$(SAN)),-fsanitize=thread) $(if $(SAN),-fno-omit-frame-pointer)
, := ,

ifeq ($(filter deps clean,$(MAKECMDGOALS)),)
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
endif

ALL_CFLAGS  = -std=gnu11 $(WARN) $(HARDEN) -I. -I$(B)/gen $(PKG_CFLAGS) -DMIGRD_VERSION='"$(VERSION)"' \
              -DMIGRD_PREFIX='"$(PREFIX)"' -pthread $(CFLAGS) $(SANFLAGS)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now -Wl,--as-needed -pthread $(SANFLAGS) $(LDFLAGS)

Q := $(if $(V),,@)
say = $(if $(V),,@echo "  $(1)	$(2)";)

MODULES  := base transport precopy relocation-acl storage-check cluster hypervisor hypervisor/xvm \
            migrd migrd/define tools
PROTOS   := $(wildcard $(addsuffix /*.proto,$(MODULES)))
GEN_C    := $(PROTOS:%.proto=$(B)/gen/%.pb-c.c)
GEN_H    := $(GEN_C:.c=.h)
ALL_SRCS := $(wildcard $(addsuffix /*.c,$(MODULES)))
MAINS    := $(filter %_main.c,$(ALL_SRCS))
LIB_OBJS := $(patsubst %.c,$(B)/obj/%.o,$(filter-out $(MAINS),$(ALL_SRCS))) \
            $(GEN_C:$(B)/gen/%.c=$(B)/obj/gen/%.o)
LIB      := $(B)/libmigrd.a

# A program NAME is made from MODULE/NAME_main.c and the library.
PROGRAMS := $(patsubst %_main.c,$(B)/%,$(notdir $(MAINS)))
TESTS    := $(patsubst tests/unit/%.c,$(B)/tests/%,$(wildcard tests/unit/test_*.c)) \
            $(patsubst tests/sim/%.c,$(B)/tests/%,$(wildcard tests/sim/sim_*.c))

all: $(PROGRAMS)

.PHONY: all tests check test demo install deps clean format FORCE
.SECONDARY:
.DELETE_ON_ERROR:

$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h: %.proto
	$(call say,PROTO,$<)mkdir -p $(B)/gen && protoc-c --c_out=$(B)/gen $<

$(B)/obj/gen/%.o: $(B)/gen/%.c | $(GEN_H)
	$(call say,CC,$<)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/obj/%.o: %.c Makefile | $(GEN_H)
	$(call say,CC,$<)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(LIB): $(LIB_OBJS)
	$(call say,AR,$@)rm -f $@ && ar rcs $@ $^

define program
$(B)/$(notdir $(1:_main.c=)): $(B)/obj/$(1:.c=.o) $(LIB)
	$$(call say,LD,$$@)$$(CC) $$(ALL_LDFLAGS) -o $$@ $$< $$(LIB) $$(PKG_LIBS)
endef
$(foreach m,$(MAINS),$(eval $(call program,$(m))))

$(B)/tests/%: $(B)/obj/tests/unit/%.o $(LIB)
	$(call say,LD,$@)mkdir -p $(@D) && $(CC) $(ALL_LDFLAGS) -o $@ $< $(LIB) $(PKG_LIBS) -lcmocka

$(B)/tests/%: $(B)/obj/tests/sim/%.o $(LIB)
	$(call say,LD,$@)mkdir -p $(@D) && $(CC) $(ALL_LDFLAGS) -o $@ $< $(LIB) $(PKG_LIBS) -lcmocka -lm

tests: $(TESTS)

clean:
	rm -rf build build-*

format:
	clang-format -i $(ALL_SRCS) $(wildcard $(addsuffix /*.h,$(MODULES)) tests/*/*.c)

-include $(LIB_OBJS:.o=.d) $(MAINS:%.c=$(B)/obj/%.d) $(wildcard $(B)/obj/tests/*/*.d)
