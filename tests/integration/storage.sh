# SPDX-License-Identifier: ISC
# shellcheck shell=bash disable=SC2016,SC2034
#
# storage: a real NFS server (nfs-ganesha, v3 and v4) and a real iSCSI target (tgt) for the lab,
# in a host of its own on the lan. Sourced after lab.sh or hosts.sh; used after lab_start or hosts_up.
#
#      host1 --+-- lan --+-- storage   10.99.0.100   nfs://storage.lab/export/FILE     port 2049, rpcbind
#      host2 --+         +-- storage2  10.99.0.101   iscsi://storage.lab/IQN/1         port 3260
#
# Ports are the usual ones, on the storage host's own network; /run and /var/lib/nfs of the servers are its
# own, too. Everything acts on the host $STORAGE, which is "storage" unless set: STORAGE=storage2 nfs_start.
#
#   storage_up [nfs] [iscsi]        makes the host and starts the servers; skips the test where programs are missing
#   storage_has, storage_start [nfs] [iscsi]      the same by parts, for who can do without: both fail and print why
#   storage_down                    ends everything on it at once
#   storage_cut HOST, storage_heal HOST   drops all between HOST and the storage silently; all else goes on
#   storage_redirect HOST STORAGE   from now on HOST finds this STORAGE under the name storage.lab
#
#   nfs_start, nfs_kill [SIGNAL]    SIGKILL unless given: exports and open files are as after a power failure
#   nfs_export NAME [ro] [squash=root|all] [dir=FOLDER]     /NAME; FOLDER is below nfs_dir unless it
#                                   begins with /, and defaults to NAME. In force at once if the server runs, but for another FOLDER or SQUASH,
#                                   which takes a restart. storage_up exports /export
#   nfs_dir                         the folder of the exports, as this machine sees it
#   nfs_url FILE [QUERY]            nfs://storage.lab/export/FILE; NFS_EXPORT=NAME for another
#   nfs_file FILE                   the same file, on this machine
#
#   iscsi_start, iscsi_kill [SIGNAL]      targets are there again when iscsi_start returns; their state
#                                   (reservations, sessions) is lost
#   iscsi_lun N SIZE [naa=HEX] [serial=TEXT] [user=NAME password=TEXT] [ro] [file=NAME]
#                                   target diskN with one LUN, 1; in force at once if the target runs: who is
#                                   logged in is thrown out. HEX has 32 digits, 6 first
#   iscsi_url N                     iscsi://[USER@]storage.lab/IQN/1
#   iscsi_file N                    its backing file, on this machine

declare -gA STORAGE_PID=()  # STORAGE/SERVER -> process
declare -gA STORAGE_NFS=()  # STORAGE/EXPORT -> "ID ACCESS SQUASH FOLDER"
declare -gA STORAGE_LUN=()  # STORAGE/N -> "SIZE OPTIONS"
declare -gA STORAGE_NFS_ID=() # STORAGE/FOLDER -> id of its export: part of each file handle
STORAGE_IQN=iqn.2026-11.lab.storage
: "${STORAGE:=storage}"

storage_has() {
    local what program lacks=''
    for what in "$@"; do
        case $what in
        nfs) what='ganesha.nfsd rpcbind' ;;
        iscsi) what='tgtd tgtadm' ;;
        esac
        for program in $what; do
            PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || lacks="$lacks $program"
        done
    done
    [ -z "$lacks" ] || echo "the programs$lacks are missing"
    [ -z "$lacks" ]
}

# Its own /run and /var/lib/nfs: pid files, sockets and the state of clients stay in the lab.
_storage_host() {
    local number=100 lib
    [ "$STORAGE" = storage ] || number=$((100 + ${STORAGE#storage} - 1))
    lab_join "$STORAGE" "$number"
    lib=$(lab_root "$STORAGE")/lib
    mkdir -p "$lib/ganesha" "$(nfs_dir)" "$(lab_root "$STORAGE")/luns"
    : >>"$(_nfs_log)"
    lab_exec "$STORAGE" bash -e -c '
        mount -t tmpfs -o mode=755 tmpfs /run
        mkdir -p /run/ganesha /run/tgtd /run/lock
        mkdir -p -m 777 /run/rpcbind
        [ ! -d /var/lib/nfs ] || mount --bind "$1" /var/lib/nfs' storage "$lib" ||
        lab_fail "$STORAGE has no folders of its own"
}

storage_start() {
    local what
    [ $# -gt 0 ] || set -- nfs iscsi
    _storage_host
    for what in "$@"; do
        case $what in
        nfs) nfs_export export && nfs_start || return 1 ;;
        iscsi) iscsi_start || return 1 ;;
        esac
    done
}

storage_up() {
    local why
    [ $# -gt 0 ] || set -- nfs iscsi
    why=$(storage_has "$@") || lab_skip "storage servers for the tests: $why"
    storage_start "$@" || lab_fail "the storage servers"
}

storage_down() {
    lab_crash "$STORAGE"
}

_storage_listens() {
    lab_exec "$STORAGE" bash -c "exec 3<>/dev/tcp/127.0.0.1/$1" 2>/dev/null
}

# _storage_end SERVER [SIGNAL]
_storage_end() {
    lab_kill "${STORAGE_PID[$STORAGE/$1]:?$1 does not run}" "${2:-KILL}"
    unset "STORAGE_PID[$STORAGE/$1]"
}

# --- the link

# A wrong hardware address on both sides: frames leave, and nobody takes them.
storage_cut() {
    lab_exec "$1" ip neigh replace "$(lab_addr "$STORAGE")" lladdr 02:00:00:00:00:01 nud permanent dev eth0
    lab_exec "$STORAGE" ip neigh replace "$(lab_addr "$1")" lladdr 02:00:00:00:00:01 nud permanent dev eth0
}

storage_heal() {
    lab_exec "$1" ip neigh del "$(lab_addr "$STORAGE")" dev eth0
    lab_exec "$STORAGE" ip neigh del "$(lab_addr "$1")" dev eth0
}

storage_redirect() {
    sed "s/^[0-9.]* storage\.lab.*/$(lab_addr "$2") storage.lab/" "$LAB_DIR/hosts" >"$LAB_DIR/hosts-of-$1"
    lab_exec "$1" mount --bind "$LAB_DIR/hosts-of-$1" /etc/hosts
}

# --- NFS

nfs_dir() { echo "$(lab_root "$STORAGE")/exports"; }
nfs_url() { echo "nfs://storage.lab/${NFS_EXPORT:-export}/$1${2:+?$2}"; }

_nfs_folder() {
    case $1 in
    /*) echo "$1" ;;
    *) echo "$(nfs_dir)/$1" ;;
    esac
}

nfs_file() {
    local entry
    read -ra entry <<<"${STORAGE_NFS[$STORAGE/${NFS_EXPORT:-export}]}"
    echo "$(_nfs_folder "${entry[3]}")/$1"
}

_nfs_export_block() { # NAME ID ACCESS SQUASH FOLDER
    cat <<EOF
EXPORT {
    Export_Id = $2;
    Path = $(_nfs_folder "$5");
    Pseudo = /$1;
    Access_Type = $3;
    Squash = $4;
    SecType = sys;
    Protocols = 3, 4;
    Transports = TCP;
    MaxRead = 1048576;
    MaxWrite = 1048576;
    PrefRead = 1048576;
    PrefWrite = 1048576;
    FSAL { Name = VFS; }
}
EOF
}

_nfs_config() {
    local key entry
    cat <<EOF
NFS_CORE_PARAM {
    MNT_Port = 20048;
    NLM_Port = 20049;
    Rquota_Port = 20050;
    Enable_UDP = false;
    Enable_RQUOTA = false;
    Protocols = 3, 4;
    Plugins_Dir = "/usr/lib/x86_64-linux-gnu/ganesha";
    mount_path_pseudo = true;
    MaxRPCSendBufferSize = 9437184;
    MaxRPCRecvBufferSize = 9437184;
}
NFSV4 {
    Graceless = true;
    Lease_Lifetime = 20;
    Grace_Period = 20;
    RecoveryBackend = fs;
}
EOF
    for key in "${!STORAGE_NFS[@]}"; do
        read -ra entry <<<"${STORAGE_NFS[$key]}"
        [ "${key%/*}" != "$STORAGE" ] || _nfs_export_block "${key#*/}" "${entry[@]}"
    done
}

_nfs_log() { echo "$(lab_root "$STORAGE")/ganesha.log"; }
_nfs_said() { grep -c "$1" "$(_nfs_log)"; } # TEXT: how often
_nfs_says() { [ "$(_nfs_said "$1")" -gt "$2" ]; } # TEXT N: more than N times

nfs_export() {
    local name=$1 word access=RW squash=No_Root_Squash folder=$1 id count
    shift
    for word in "$@"; do
        case $word in
        ro) access=RO ;;
        squash=root) squash=Root_Squash ;;
        squash=all) squash=All_Squash ;;
        dir=*) folder=${word#dir=} ;;
        *) lab_fail "nfs_export: $word?" ;;
        esac
    done
    mkdir -p "$(_nfs_folder "$folder")"
    id=${STORAGE_NFS_ID[$STORAGE/$folder]:-$((${#STORAGE_NFS_ID[@]} + 1))}
    STORAGE_NFS_ID[$STORAGE/$folder]=$id
    STORAGE_NFS[$STORAGE/$name]="$id $access $squash $folder"
    [ -n "${STORAGE_PID[$STORAGE/nfs]:-}" ] || return 0
    _nfs_config >"$(lab_root "$STORAGE")/ganesha.conf"
    count=$(_nfs_said "Reread exports complete")
    kill -HUP "${STORAGE_PID[$STORAGE/nfs]}"
    lab_wait 5 _nfs_says "Reread exports complete" "$count" || lab_fail "the NFS server does not read its exports again"
}

nfs_start() {
    local root count
    root=$(lab_root "$STORAGE")
    _nfs_config >"$root/ganesha.conf"
    if [ -z "${STORAGE_PID[$STORAGE/rpcbind]:-}" ]; then
        lab_bg "$STORAGE" rpcbind rpcbind -f -w
        STORAGE_PID[$STORAGE/rpcbind]=$LAB_PID
        lab_wait 10 _storage_listens 111 || { echo "rpcbind: $(cat "$(lab_log "$STORAGE" rpcbind)")"; return 1; }
    fi
    count=$(_nfs_said "NFS SERVER INITIALIZED")
    lab_bg "$STORAGE" nfs ganesha.nfsd -F -f "$root/ganesha.conf" -L "$(_nfs_log)" -N EVENT -p /run/ganesha.pid
    STORAGE_PID[$STORAGE/nfs]=$LAB_PID
    if ! lab_wait 20 _nfs_says "NFS SERVER INITIALIZED" "$count" || ! lab_wait 5 _storage_listens 2049; then
        echo "the NFS server does not start: $(tail -n 5 "$(_nfs_log)")"
        return 1
    fi
}

nfs_kill() { _storage_end nfs "${1:-KILL}"; }

# --- iSCSI

_tgtadm() { lab_exec "$STORAGE" tgtadm --lld iscsi "$@"; }

# _lun_word N KEY: the value of an option of LUN N.
_lun_word() {
    local word
    for word in ${STORAGE_LUN[$STORAGE/$1]}; do
        case $word in
        "$2"=*) echo "${word#*=}" ;;
        "$2") echo yes ;;
        esac
    done
}

iscsi_file() {
    local name
    name=$(_lun_word "$1" file)
    case $name in
    /*) echo "$name" ;;
    *) echo "$(lab_root "$STORAGE")/luns/${name:-disk$1.img}" ;;
    esac
}

iscsi_url() {
    local user
    user=$(_lun_word "$1" user)
    echo "iscsi://${user:+$user@}storage.lab/$STORAGE_IQN:disk$1/1"
}

_iscsi_target() {
    _tgtadm --mode target --op new --tid "$1" --targetname "$STORAGE_IQN:disk$1" &&
        _tgtadm --mode logicalunit --op new --tid "$1" --lun 1 --bstype rdwr --backing-store "$(iscsi_file "$1")"
}

_iscsi_params() { # N NAME=VALUE,...
    _tgtadm --mode logicalunit --op update --tid "$1" --lun 1 --params "$2"
}

_iscsi_chap() { # N USER PASSWORD
    _tgtadm --mode account --op delete --user "$2" 2>/dev/null
    _tgtadm --mode account --op new --user "$2" --password "$3" &&
        _tgtadm --mode account --op bind --tid "$1" --user "$2"
}

# Throws out who is logged in; they may be there again before it is deleted.
_iscsi_is_gone() {
    _tgtadm --mode target --op delete --tid "$1" --force 2>/dev/null
    ! _tgtadm --mode target --op show --tid "$1" >/dev/null 2>&1
}

# LUN N as STORAGE_LUN describes it; an older one is thrown out.
_iscsi_apply() {
    local n=$1 naa serial user steps=0
    naa=$(_lun_word "$n" naa)
    serial=$(_lun_word "$n" serial)
    user=$(_lun_word "$n" user)
    lab_wait 5 _iscsi_is_gone "$n" || lab_fail "iSCSI target $n does not go"
    _iscsi_target "$n" && steps=1
    _iscsi_params "$n" "vendor_id=LAB,product_id=VDISK,product_rev=0001" && steps=$((steps + 1))
    _iscsi_params "$n" "scsi_id=${naa:-$(printf '6001405%025x' "$n")},scsi_sn=${serial:-$(printf 'lab%08d' "$n")}" &&
        steps=$((steps + 1))
    if [ -n "$(_lun_word "$n" ro)" ]; then
        _iscsi_params "$n" readonly=1 || steps=0
    fi
    if [ -n "$user" ]; then
        _iscsi_chap "$n" "$user" "$(_lun_word "$n" password)" || steps=0
    fi
    _tgtadm --mode target --op bind --tid "$n" --initiator-address ALL && steps=$((steps + 1))
    [ $steps = 4 ] || lab_fail "iSCSI target $n could not be made, see $(lab_log "$STORAGE" iscsi)"
}

iscsi_lun() {
    local n=$1
    shift
    STORAGE_LUN[$STORAGE/$n]=$*
    truncate -s "$1" "$(iscsi_file "$n")" || lab_fail "LUN $n"
    [ -z "${STORAGE_PID[$STORAGE/iscsi]:-}" ] || _iscsi_apply "$n"
}

_iscsi_answers() { _tgtadm --mode sys --op show >/dev/null 2>&1; }

# It listens for the lab when all targets are there: nobody finds it half made.
iscsi_start() {
    local key
    lab_bg "$STORAGE" iscsi tgtd -f --iscsi portal=127.0.0.1:3260
    STORAGE_PID[$STORAGE/iscsi]=$LAB_PID
    lab_wait 10 _iscsi_answers || { echo "tgtd: $(cat "$(lab_log "$STORAGE" iscsi)")"; return 1; }
    for key in "${!STORAGE_LUN[@]}"; do
        [ "${key%/*}" != "$STORAGE" ] || _iscsi_apply "${key#*/}"
    done
    _tgtadm --mode portal --op new --param "portal=$(lab_addr "$STORAGE"):3260" || lab_fail "the iSCSI portal"
}

iscsi_kill() { _storage_end iscsi "${1:-KILL}"; }

# --- the guest's disk; with hosts.sh

# storage_disk nfs|iscsi|file N SIZE: a disk; DISK_SOURCE is how a domain names it, DISK_IMAGE the file here.
storage_disk() {
    case $1 in
    nfs)
        [ -n "${LAB_HOLDER[$STORAGE]:-}" ] || storage_up nfs
        DISK_IMAGE=$(nfs_file "disk$2.img") DISK_SOURCE=$(nfs_url "disk$2.img")
        truncate -s "$3" "$DISK_IMAGE"
        ;;
    iscsi)
        [ -n "${LAB_HOLDER[$STORAGE]:-}" ] || storage_up iscsi
        iscsi_lun "$2" "$3"
        DISK_IMAGE=$(iscsi_file "$2") DISK_SOURCE=$(iscsi_url "$2")
        ;;
    file)
        DISK_IMAGE=$LAB_DIR/disk$2.img DISK_SOURCE=file:$LAB_DIR/disk$2.img
        truncate -s "$3" "$DISK_IMAGE"
        ;;
    *) lab_fail "storage_disk: $1?" ;;
    esac
}

# disk_is_fine LINE: a stat or "disk stopped" line without a wrong block or a failed request.
disk_is_fine() { grep -q ' disk=ok .* io_errors=0 ' <<<"$1"; }

# disk_proof HOST GUEST: it reads all its blocks back and stops, then the other reader looks.
# Dies unless all is right; the guest's work on the disk goes on afterwards.
disk_proof() {
    local line
    line=$(guest_ask "$1" "$2" disk verify)
    say "  guest: $line"
    [ "$(value_of bad <<<"$line ")" = 0 ] || die "$2 on host $1 reads wrong blocks: $line"
    line=$(guest_ask "$1" "$2" disk stop)
    say "  guest: $line"
    grep -q 'disk=ok' <<<"$line" || die "$2 on host $1 found wrong blocks: $line"
    "$HERE/disk_reader.py" "$DISK_IMAGE" >"$LAB_DIR/reader" || die "the other reader: $(cat "$LAB_DIR/reader")"
    say "  reader: $(cat "$LAB_DIR/reader")"
    guest_ask "$1" "$2" disk start >/dev/null
}
