# SPDX-License-Identifier: ISC
# Bash completion for xm and migctl. Domain names come from the running migrd; when it does
# not answer there are none, quickly.

_migrd_root()
{
    local i
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == --root ]] && printf '%s' "${COMP_WORDS[i + 1]}" && return
    done
    printf '%s' "$MIGRD_ROOT"
}

_migrd_domains()
{
    MIGRD_ROOT=$(_migrd_root) timeout 2 migctl list --names 2>/dev/null
}

# Sets sub (the subcommand), sub_at (its place) and words (how many plain words follow it).
_migrd_where()
{
    local i
    sub= sub_at=0 words=0
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --root) ((i++)) ;;
        -*) ;;
        *)
            if [[ -z $sub ]]; then
                sub=${COMP_WORDS[i]} sub_at=$i
            else
                ((words++))
            fi
            ;;
        esac
    done
}

_migrd_reply()
{
    local IFS=$'\n'
    COMPREPLY=($(compgen -W "$1" -- "$cur"))
}

_migrd_words()
{
    COMPREPLY=($(compgen -W "$1" -- "$cur"))
}

_migrd_files()
{
    compopt -o filenames 2>/dev/null
    local IFS=$'\n'
    COMPREPLY=($(compgen -f -- "$cur"))
}

_migrd_hosts()
{
    COMPREPLY=($(compgen -A hostname -- "$cur"))
}

_xm()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} sub sub_at words
    COMPREPLY=()
    _migrd_where
    if [[ $prev == --root ]]; then
        _migrd_files
        return
    fi
    if [[ -z $sub ]]; then
        _migrd_words "--root --help --version console create new delete start destroy domid domname \
            help info list log mem-set migrate pause reboot restore save shutdown unpause uptime \
            vcpu-list version"
        return
    fi
    if [[ $cur == -* ]]; then
        case $sub in
        create | new) _migrd_words "-p --paused -c --console_autoconnect -n --dryrun -q --quiet -f -F" ;;
        migrate) _migrd_words "-l --live -p --port= -n --node= -s --ssl -c --change_home_server" ;;
        list) _migrd_words "-l --long --state=running --state=paused --state=halted" ;;
        shutdown) _migrd_words "-a --all -w --wait -R --reboot -H --halt" ;;
        reboot) _migrd_words "-a --all -w --wait" ;;
        start) _migrd_words "-p --paused -c --console_autoconnect" ;;
        restore) _migrd_words "-p --paused" ;;
        console) _migrd_words "-q --quiet -t" ;;
        uptime) _migrd_words "-s --short" ;;
        log) _migrd_words "-n" ;;
        esac
        return
    fi
    case $sub:$words in
    create:0 | new:0 | restore:0 | save:1) _migrd_files ;;
    migrate:1) _migrd_hosts ;;
    help:0) _migrd_words "create new delete start list migrate console shutdown reboot save restore" ;;
    list:* | uptime:* | vcpu-list:*) _migrd_reply "$(_migrd_domains)" ;;
    console:0 | delete:0 | start:0 | destroy:0 | domid:0 | domname:0 | mem-set:0 | migrate:0 | \
        pause:0 | reboot:0 | save:0 | shutdown:0 | unpause:0) _migrd_reply "$(_migrd_domains)" ;;
    esac
}

_migctl_options()
{
    case $sub in
    migrate)
        _migrd_words "--port --budget --bandwidth --channels --time-limit --throttle-max --verify \
            --paused --not-live --change-home --tls --quiet --json"
        ;;
    status | watch) _migrd_words "--json" ;;
    list) _migrd_words "--json --names" ;;
    migrations) _migrd_words "-a --all --json" ;;
    tune) _migrd_words "--bandwidth --budget" ;;
    resolve) _migrd_words "--run-here --discard --force --reason" ;;
    acl) _migrd_words "--config" ;;
    pki) _migrd_words "--dir --out --alt --days --name" ;;
    config) _migrd_words "--file" ;;
    import-xend) _migrd_words "--output" ;;
    dump) _migrd_words "--xml" ;;
    journal | log) _migrd_words "-n" ;;
    esac
}

_migctl()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} sub sub_at words
    COMPREPLY=()
    _migrd_where
    case $prev in
    --root | --config | --file | --output | --dir | --out)
        _migrd_files
        return
        ;;
    --tls)
        _migrd_words "yes no"
        return
        ;;
    esac
    if [[ -z $sub ]]; then
        _migrd_words "--root --help --version status list migrate watch cancel tune migrations resolve \
            journal log acl pki config import-xend dump reload help version"
        return
    fi
    if [[ $cur == -* ]]; then
        _migctl_options
        return
    fi
    case $sub:$words in
    migrate:1 | acl:1) _migrd_hosts ;;
    acl:0) _migrd_words "test" ;;
    pki:0) _migrd_words "init issue renew show" ;;
    pki:*) [[ ${COMP_WORDS[sub_at + 1]} == show ]] && _migrd_files || _migrd_hosts ;;
    config:0) _migrd_words "show get keys" ;;
    config:1) _migrd_words "$(migctl config keys 2>/dev/null | cut -d' ' -f1)" ;;
    import-xend:0) _migrd_files ;;
    help:0) _migrd_words "status list migrate watch cancel tune migrations resolve journal acl pki config" ;;
    migrate:0 | watch:0 | cancel:0 | tune:0 | resolve:0 | journal:0 | dump:0)
        _migrd_reply "$(_migrd_domains)"
        ;;
    esac
}

complete -F _xm xm
complete -F _migctl migctl
