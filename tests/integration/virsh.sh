# SPDX-License-Identifier: ISC
# shellcheck shell=bash disable=SC2034
#
# virsh: what the tests of virsh share; on top of hosts.sh, which it reads.
#
#   v HOST ARGUMENTS...                     virsh on that host's migrd, both outputs as one
#   gives HOST WHAT PATTERN ARGUMENTS...    it succeeds, and its output has the pattern
#   refused HOST WHAT PATTERN ARGUMENTS...  it fails, and says so
#   state_is HOST DOMAIN STATE, runs HOST DOMAIN
#   answers HOST DOMAIN                     its guest is up: for wait_for
#   xml_for NAME [DEVICES]                  prints the path of a definition of the test guest; GUEST_WORDS are its options
#   watch HOST ARGUMENTS...                 virsh event ARGUMENTS --loop, until `watched HOST`: then $LAB_DIR/events.HOST has them

# shellcheck source=tests/integration/hosts.sh
. "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"
declare -A WATCHER

need_virsh() { command -v virsh >/dev/null || skip "virsh is not installed (make deps)"; }
socket() { printf '%s/run/migrd/libvirt-sock%s' "$(root_of "$1")" "${2:-}"; }
uri() { printf 'xvm:///system?socket=%s' "$(socket "$@")"; }

v() {
    local h=$1
    shift
    on "$h" timeout 60 virsh -c "$(uri "$h")" "$@" 2>&1
}

gives() {
    local h=$1 what=$2 pattern=$3 out
    shift 3
    out=$(v "$h" "$@") || die "$what: virsh $* failed: $out"
    grep -qE -- "$pattern" <<<"$out" || die "$what: virsh $*: expected /$pattern/, got: $out"
}

refused() {
    local h=$1 what=$2 pattern=$3
    shift 3
    expect_refusal "$what" "$pattern" v "$h" "$@"
}

state_is() { [ "$(v "$1" domstate "$2" | head -1)" = "$3" ]; }
runs() { state_is "$1" "$2" running || state_is "$1" "$2" idle; }

# In a shell of its own, which may die of a guest that has no console yet.
answers() { (guest_ask "$1" "$2" stat); }

xml_for() {
    cat >"$LAB_DIR/$1.xml" <<END
<domain type='xvm'>
  <name>$1</name>
  <memory unit='MiB'>64</memory>
  <vcpu placement='static'>1</vcpu>
  <os><type arch='x86_64'>linux</type>
    <kernel>$BUILD/guests/testguest</kernel><cmdline>${GUEST_WORDS:-fill=8:zero=0,comp=50,rand=50}</cmdline></os>
  ${GUEST_POLICY:-}
  <devices><console type='pty'/>${2:-<memballoon model='none'/>}</devices>
</domain>
END
    printf '%s/%s.xml' "$LAB_DIR" "$1"
}

watch() {
    local h=$1
    shift
    lab_bg "host$h" "events$h" virsh -c "$(uri "$h")" event --loop "$@"
    WATCHER[$h]=$LAB_PID
    sleep 1
}

watched() {
    lab_kill "${WATCHER[$1]}" INT
    mv "$(lab_log "host$1" "events$1")" "$LAB_DIR/events.$1"
}
