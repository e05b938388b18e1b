# SPDX-License-Identifier: ISC
#
# make            all programs into $(B)            make check   unit tests, simulation, sanitizers
# make demo       two hosts, one live migration     make test    everything, guests and testbed too
# make deps       Debian packages                   make install DESTDIR= PREFIX=
# make fuzz       libFuzzer harnesses, FUZZ_SECONDS each; FUZZ_ONLY="acl xml", FUZZ_JOBS=2
# make sim        SEEDS runs of the cluster's decision core in its simulator
# make test-xen   hosts with Xen in the testbed (make test has the first two of them, shorter)
# make soak       SOAK_MOVES migrations to and fro, with a watch on everything that could grow
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
            jansson libtirpc libmicrohttpd libseccomp libcap-ng uuid inih libnfs libiscsi libnl-3.0 \
            libcpg libquorum libcmap libvotequorum libcorosync_common
, := ,
SANFLAGS := $(if $(FUZZ),-fsanitize=fuzzer-no-link) $(if $(filter address,$(SAN)),-fsanitize=address$(,)undefined -fno-sanitize-recover=all) \
            $(if $(filter thread,$(SAN)),-fsanitize=thread) $(if $(SAN),-fno-omit-frame-pointer)

# Xen's driver is part of the build where libxen-dev is; XEN_RELEASE=0 leaves it out.
XEN_PKGS := xencontrol xenguest xenforeignmemory xengnttab xenstore xentoollog xenlight
ifndef XEN_RELEASE
XEN_RELEASE := $(shell pkg-config --exists $(XEN_PKGS) && pkg-config --modversion xencontrol | awk -F. '{ print $$1 * 100 + $$2 }')
endif
XEN := $(filter-out 0,$(XEN_RELEASE))

PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) $(if $(XEN),$(XEN_PKGS)) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) $(if $(XEN),$(XEN_PKGS)) 2>/dev/null)

ALL_CFLAGS  = -std=gnu11 $(WARN) $(HARDEN) -I. -I$(B)/gen $(PKG_CFLAGS) -DMIGRD_VERSION='"$(VERSION)"' \
              -DMIGRD_PREFIX='"$(PREFIX)"' $(if $(XEN),-DXEN_RELEASE=$(XEN)) -pthread $(CFLAGS) $(SANFLAGS)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now -Wl,--as-needed -pthread $(SANFLAGS) $(LDFLAGS)

Q := $(if $(V),,@)
say = $(if $(V),,@echo "  $(1)	$(2)";)

MODULES  := base transport precopy relocation-acl storage-check cluster cluster/sim hypervisor hypervisor/xvm \
            $(if $(XEN),hypervisor/xen) migrd migrd/define migrd/compat migrd/libvirt tools
PROTOS   := $(wildcard $(addsuffix /*.proto,$(MODULES)))
GEN_C    := $(PROTOS:%.proto=$(B)/gen/%.pb-c.c)
GEN_H    := $(GEN_C:.c=.h)
ALL_SRCS := $(wildcard $(addsuffix /*.c,$(MODULES)))
MAINS    := $(filter %_main.c,$(ALL_SRCS))
LIB_OBJS := $(patsubst %.c,$(B)/obj/%.o,$(filter-out $(MAINS),$(ALL_SRCS))) \
            $(GEN_C:$(B)/gen/%.c=$(B)/obj/gen/%.o) $(B)/obj/gen/migrd/libvirt/remote.o
LIB      := $(B)/libmigrd.a

# A program NAME is made from MODULE/NAME_main.c and the library.
PROGRAMS := $(patsubst %_main.c,$(B)/%,$(notdir $(MAINS)))
REPLAYS  := $(patsubst tests/fuzz/fuzz_%.c,$(B)/tests/replay_%,$(wildcard tests/fuzz/fuzz_*.c))
TESTS    := $(patsubst tests/unit/%.c,$(B)/tests/%,$(wildcard tests/unit/test_*.c)) \
            $(patsubst tests/sim/%.c,$(B)/tests/%,$(wildcard tests/sim/sim_*.c))

all: $(PROGRAMS)

.PHONY: all tests replays check test soak demo fuzz fuzzers install deps clean format guests thread-tests run-check run-test
.SECONDARY:
.DELETE_ON_ERROR:

$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h: %.proto
	$(call say,PROTO,$<)mkdir -p $(B)/gen && protoc-c --c_out=$(B)/gen $<

# libvirt's protocol. rpcgen declares variables that it does not need.
RPC_H := $(B)/gen/migrd/libvirt/remote.h
RPC_C := $(RPC_H:.h=.c)

$(RPC_H): migrd/libvirt/remote.x
	$(call say,RPC,$<)mkdir -p $(@D) && rm -f $@ && cd $(<D) && rpcgen -C -N -M -h -o $(abspath $@) $(<F)

$(RPC_C): migrd/libvirt/remote.x $(RPC_H)
	$(call say,RPC,$<)mkdir -p $(@D) && rm -f $@ && cd $(<D) && rpcgen -C -N -M -c -i 0 -o $(abspath $@) $(<F)

$(B)/obj/gen/migrd/libvirt/remote.o: $(RPC_C)
	$(call say,CC,$<)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -I$(<D) -Wno-unused-variable -MMD -MP -c -o $@ $<

$(B)/obj/gen/%.o: $(B)/gen/%.c | $(GEN_H)
	$(call say,CC,$<)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/obj/%.o: %.c Makefile | $(GEN_H) $(RPC_H)
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

# The decision core with deliberate bugs (cluster/mutant.h): its simulator must see each of them.
MUTANT_OBJS := $(patsubst cluster/%.c,$(B)/obj/mutants/%.o,$(wildcard cluster/core*.c cluster/mutant.c))

$(B)/obj/mutants/%.o: cluster/%.c Makefile | $(GEN_H) $(RPC_H)
	$(call say,CC,$< with mutants)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -DHA_MUTANTS -MMD -MP -c -o $@ $<

$(B)/tests/sim_ha_mutants: $(B)/obj/tests/sim/sim_ha_mutants.o $(MUTANT_OBJS) $(LIB)
	$(call say,LD,$@)mkdir -p $(@D) && $(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS) -lcmocka -lm

$(B)/ha-sim-mutants: $(B)/obj/cluster/sim/ha-sim_main.o $(MUTANT_OBJS) $(LIB)
	$(call say,LD,$@)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

tests: $(TESTS)

# Parts of the project alone, for integration tests; see the head of each file.
$(B)/%_smoke: $(B)/obj/tests/integration/%_smoke.o $(LIB)
	$(call say,LD,$@)$(CC) $(ALL_LDFLAGS) -o $@ $< $(LIB) $(PKG_LIBS)

# --- packages: one line a purpose; names are Debian 12's

DEPS := build-essential pkg-config clang \
        libuv1-dev libprotobuf-c-dev protobuf-c-compiler libssl-dev libpcre2-dev libxml2-dev liblz4-dev \
        libzstd-dev libxxhash-dev libjansson-dev libinih-dev libmicrohttpd-dev libseccomp-dev \
        libcap-ng-dev uuid-dev libcmocka-dev libnfs-dev libiscsi-dev libnl-3-dev \
        iproute2 util-linux procps kmod cpio busybox-static qemu-system-x86 linux-image-amd64 \
        python3 python3-xxhash python3-lz4 python3-zstandard mandoc curl \
        libtirpc-dev rpcsvc-proto libvirt-clients python3-libvirt virtinst gdb \
        nfs-ganesha nfs-ganesha-vfs rpcbind tgt sg3-utils \
        corosync libcpg-dev libquorum-dev libcmap-dev libvotequorum-dev fence-agents nftables \
        libxen-dev xen-hypervisor-4.17-amd64 xen-utils-4.17

deps:
	@missing=; for p in $(DEPS); do \
	  dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"; \
	done; \
	if [ -n "$$missing" ]; then \
	  [ "$$(id -u)" = 0 ] || { echo "missing packages:$$missing; run as root: make deps" >&2; exit 1; }; \
	  echo "installing:$$missing"; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -q --no-install-recommends $$missing; \
	fi

# --- tests: each target makes what it needs in a make of its own, after the packages are there

JOBS := $(shell nproc)
SUB   = +@$(MAKE) --no-print-directory -j$(JOBS)

# Programs with threads of their own, run under the thread sanitizer as well.
TSAN_TESTS := $(addprefix $(B)/tests/,test_base test_serial test_virtio test_virtio_blk test_virtio_net test_fuse test_transport \
              test_transport_tls test_transport_record test_receiver test_precopy test_lease_file \
              test_disk_loop test_ring test_store)

# The hunt for deliberate bugs is long, and sim_ha runs the same code under the address sanitizer.
ADDRESS_TESTS := $(filter-out $(B)/tests/sim_ha_mutants,$(TESTS))

check: deps
	$(SUB) tests
	$(SUB) B=$(B)-address SAN=address tests replays
	$(SUB) B=$(B)-thread SAN=thread thread-tests
	$(SUB) B=$(B) run-check

thread-tests: $(TSAN_TESTS)

run-check:
	@tests/run --logs $(B)/test-logs --jobs 4 $(TESTS) \
	  --also address- $(ADDRESS_TESTS:$(B)/%=$(B)-address/%) $(REPLAYS:$(B)/%=$(B)-address/%) --also thread- $(TSAN_TESTS:$(B)/%=$(B)-thread/%)

test: deps
	$(SUB) tests all guests $(B)/xvm_smoke $(B)/fuse_smoke $(B)/lease_smoke $(B)/disk_smoke $(B)/cgroup_smoke $(B)/ring_smoke $(B)/cluster_smoke $(B)/xen_fuse_smoke
	$(SUB) B=$(B)-address SAN=address tests replays
	$(SUB) B=$(B)-thread SAN=thread thread-tests
	$(SUB) B=$(B) run-test

run-test:
	@BUILD=$(abspath $(B)) tests/run --logs $(B)/test-logs --jobs 2 $(TESTS) \
	  --also address- $(ADDRESS_TESTS:$(B)/%=$(B)-address/%) $(REPLAYS:$(B)/%=$(B)-address/%) --also thread- $(TSAN_TESTS:$(B)/%=$(B)-thread/%) \
	  --list tests/integration/list

# Hosts with Xen; they take software emulation minutes a move. XEN_TESTS: a word in the names of those to run.
.PHONY: test-xen
XEN_TESTS ?= t_xen_
test-xen: deps
	$(SUB) all guests $(B)/xen_fuse_smoke $(B)/xen_log_smoke
	@BUILD=$(abspath $(B)) tests/run --logs $(B)/test-logs --list tests/integration/list.xen --only $(XEN_TESTS)

# The cluster's decision core under its simulator, on all CPUs.
SEEDS      ?= 100000
FIRST_SEED ?= 1

.PHONY: sim
sim: deps
	$(SUB) $(B)/ha-sim
	@$(B)/ha-sim --seeds $(SEEDS) --seed $(FIRST_SEED) --jobs $(JOBS)

SOAK_MOVES ?= 1000

soak: deps
	$(SUB) all guests
	@BUILD=$(abspath $(B)) SOAK_MOVES=$(SOAK_MOVES) tests/soak/soak

demo: deps
	$(SUB) all guests
	@BUILD=$(abspath $(B)) tests/integration/demo

FUZZ_SECONDS ?= 60
FUZZ_JOBS    ?= 1
FUZZERS := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

fuzz: deps
	$(SUB) B=$(B)-fuzz SAN=address CC=clang FUZZ=1 fuzzers
	@tests/fuzz/run -j $(FUZZ_JOBS) $(B)-fuzz/fuzz $(FUZZ_SECONDS) $(FUZZ_ONLY)

fuzzers: $(FUZZERS)

$(B)/fuzz/%: $(B)/obj/tests/fuzz/%.o $(LIB)
	$(call say,LD,$@)mkdir -p $(@D) && $(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $< $(LIB) $(PKG_LIBS) -lcmocka

# The same harnesses without a fuzzer, to run the corpora.
$(B)/tests/replay_%: $(B)/obj/tests/fuzz/fuzz_%.o $(B)/obj/tests/fuzz/replay.o $(LIB)
	$(call say,LD,$@)mkdir -p $(@D) && $(CC) $(ALL_LDFLAGS) -o $@ $< $(B)/obj/tests/fuzz/replay.o $(LIB) $(PKG_LIBS) -lcmocka

replays: $(REPLAYS)

# --- measured, not tested

$(B)/bench/%: $(B)/obj/tests/bench/%.o $(LIB)
	$(call say,LD,$@)mkdir -p $(@D) && $(CC) $(ALL_LDFLAGS) -o $@ $< $(LIB) $(PKG_LIBS)

# Against QEMU, see docs/performance.md. BENCH: options, such as "--only 4G/idle --repeats 5".
.PHONY: bench bench-quick bench-docs
BENCH_RUN = tests/bench/bench --build $(abspath $(B)) $(BENCH)

bench bench-quick: deps
	$(SUB) all guests $(B)/bench/limits
	@$(BENCH_RUN) $(if $(filter bench-quick,$@),--quick)

bench-docs:
	@tests/bench/bench_docs $(B)/bench.json docs

# Disks on NFS and iSCSI against QEMU's own drivers. BENCH: options, such as "--kinds nfs --repeats 5".
.PHONY: bench-disk bench-disk-docs
bench-disk: deps
	$(SUB) all guests $(B)/bench/bench_disk
	@tests/bench/disk --build $(abspath $(B)) $(BENCH)

bench-disk-docs:
	@tests/bench/disk --build $(B) --docs docs

# Failover of the cluster. BENCH: options, such as "--runs 5 --tokens 500".
.PHONY: bench-ha
bench-ha: deps
	$(SUB) all guests
	@tests/bench/ha --build $(abspath $(B)) $(BENCH)

# Live migration under Xen against xl. BENCH: options, such as "--runs 5 --rates 4".
.PHONY: bench-xen
bench-xen: deps
	$(SUB) all guests
	@tests/bench/xen --build $(abspath $(B)) $(BENCH)

.PHONY: bench-transport
bench-transport: $(B)/bench/bench_transport
	$<

# --- install

SBIN := migrd
BIN  := xm migctl
EXEC := migrd-worker migrd-storage xvm-domain $(if $(XEN),xen-domain xen-fuse xen-hotplug)
MAN  := $(wildcard docs/*.[1-9])

install: all
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,sbin bin libexec/migrd share/doc/migrd) \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 755 $(SBIN:%=$(B)/%) $(DESTDIR)$(PREFIX)/sbin
	install -m 755 $(BIN:%=$(B)/%) $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(EXEC:%=$(B)/%) $(DESTDIR)$(PREFIX)/libexec/migrd
	for m in $(MAN); do \
	  install -D -m 644 $$m $(DESTDIR)$(PREFIX)/share/man/man$${m##*.}/$${m##*/} || exit 1; done
	install -m 644 tools/completion/xm tools/completion/migctl \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	sed 's|/usr/local|$(PREFIX)|g' conf/migrd.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/migrd.service
	install -D -m 644 conf/migrd.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/migrd.conf
	install -D -m 644 conf/migrd.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/migrd.conf
	install -m 644 conf/* docs/*.md LICENSE $(DESTDIR)$(PREFIX)/share/doc/migrd
	[ -e $(DESTDIR)/etc/migrd/migrd.conf ] || \
	  install -D -m 644 conf/migrd.conf $(DESTDIR)/etc/migrd/migrd.conf

clean:
	rm -rf build build-*

format:
	clang-format -i $(ALL_SRCS) $(wildcard $(addsuffix /*.h,$(MODULES)) tests/*/*.c)

# Test guests: freestanding code of their own flags; see tests/guests/README.md.
GUEST_CFLAGS := -std=gnu11 $(WARN) -O2 -g -m64 -ffreestanding -fno-pic -fno-stack-protector -fcf-protection=none \
                -mno-red-zone -mgeneral-regs-only -Itests/guests/testguest
GUEST_DIR    := tests/guests/testguest
GUEST_OBJS   := $(patsubst $(GUEST_DIR)/%,$(B)/obj/guest/%.o,$(wildcard $(GUEST_DIR)/*.[cS]))

$(B)/obj/guest/%.o: $(GUEST_DIR)/% $(wildcard $(GUEST_DIR)/*.h)
	$(call say,CC,$<)mkdir -p $(@D) && $(CC) $(GUEST_CFLAGS) -c -o $@ $<

$(B)/guests/testguest: $(GUEST_OBJS) $(GUEST_DIR)/guest.ld
	$(call say,LD,$@)mkdir -p $(@D) && $(LD) -static -T $(GUEST_DIR)/guest.ld --build-id=none -z noexecstack \
	    -z max-page-size=4096 --no-warn-rwx-segments -o $@ $(GUEST_OBJS)

# The Linux guest: Debian's newest kernel, unpacked, and an initramfs of ours.
LINUX_MODULES := virtio_mmio virtio_blk virtio_net virtio_rng virtio_balloon button evdev xen_blkfront xen_netfront
MKBOOT        := tests/testbed/mkboot

$(B)/guests/lifeline: tests/guests/linux/lifeline.c
	$(call say,CC,$<)mkdir -p $(@D) && $(CC) -std=gnu11 $(WARN) -O2 -g -static -o $@ $<

$(B)/guests/linux-initrd.gz: tests/guests/linux/init.sh $(B)/guests/lifeline $(MKBOOT) tests/testbed/bootfiles.py \
                             $(wildcard /boot/vmlinuz-*)
	$(call say,INITRD,$@)$(MKBOOT) initramfs --init $< $(LINUX_MODULES:%=--module %) \
	    --add $(B)/guests/lifeline:bin/lifeline $@

$(B)/guests/vmlinux: $(MKBOOT) tests/testbed/bootfiles.py $(wildcard /boot/vmlinuz-*)
	$(call say,UNPACK,$@)mkdir -p $(@D) && $(MKBOOT) vmlinux $@

.PHONY: guests
guests: $(B)/guests/testguest $(B)/guests/linux-initrd.gz $(B)/guests/vmlinux

-include $(LIB_OBJS:.o=.d) $(MAINS:%.c=$(B)/obj/%.d) $(MUTANT_OBJS:.o=.d) $(wildcard $(B)/obj/tests/*/*.d)
