/* SPDX-License-Identifier: ISC */
/*
 * One call: found in the table, checked (may this client, now?), decoded, run, answered.
 * A procedure that is not in the table is answered as libvirt's own server does, code 39
 * of domain 7 with "unknown procedure": virsh then does without it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "migrd/libvirt/internal.h"

#define FROM_DOMAIN 6 /* libvirt's word for where an error comes from */
#define FROM_RPC 7
#define LEVEL_ERROR 2

/* --- the table --- */

#define CALL(in, out, fn, flags)                                                                   \
    {                                                                                              \
        fn, flags, (xdrproc_t)xdr_##in, (xdrproc_t)xdr_##out, sizeof(in), sizeof(out)              \
    }
#define ASK(out, fn, flags)                                                                        \
    {                                                                                              \
        fn, flags, NULL, (xdrproc_t)xdr_##out, 0, sizeof(out)                                      \
    }
#define DO(in, fn, flags)                                                                          \
    {                                                                                              \
        fn, flags, (xdrproc_t)xdr_##in, NULL, sizeof(in), 0                                        \
    }
#define C LV_CHANGES
#define G LV_GIVES_DOMAIN

static const struct lv_entry table[] = {
    [LV_CONNECT_OPEN] = DO(lv_open, lv_open_connection, LV_EARLY),
    [LV_CONNECT_CLOSE] = { lv_close_connection, LV_EARLY, NULL, NULL, 0, 0 },
    [LV_CONNECT_GET_TYPE] = ASK(lv_word, lv_type, 0),
    [LV_CONNECT_GET_VERSION] = ASK(lv_uhyper, lv_version, 0),
    [LV_CONNECT_GET_MAX_VCPUS] = CALL(lv_kind, lv_int, lv_host_max_vcpus, 0),
    [LV_NODE_GET_INFO] = ASK(lv_node, lv_node_info, 0),
    [LV_CONNECT_GET_CAPABILITIES] = ASK(lv_string, lv_get_capabilities, 0),
    [LV_DOMAIN_ATTACH_DEVICE] = DO(lv_dom_xml, lv_attach, C),
    [LV_DOMAIN_CREATE] = DO(lv_dom, lv_create, C),
    [LV_DOMAIN_CREATE_XML] = CALL(lv_xml_flags, lv_dom, lv_create_xml, C | G),
    [LV_DOMAIN_DEFINE_XML] = CALL(lv_string, lv_dom, lv_define, C | G),
    [LV_DOMAIN_DESTROY] = DO(lv_dom, lv_destroy, C),
    [LV_DOMAIN_DETACH_DEVICE] = DO(lv_dom_xml, lv_detach, C),
    [LV_DOMAIN_GET_XML_DESC] = CALL(lv_dom_flags, lv_string, lv_xml, 0),
    [LV_DOMAIN_GET_AUTOSTART] = CALL(lv_dom, lv_int, lv_autostart, 0),
    [LV_DOMAIN_GET_INFO] = CALL(lv_dom, lv_dom_info, lv_get_info, 0),
    [LV_DOMAIN_GET_MAX_MEMORY] = CALL(lv_dom, lv_uhyper, lv_get_max_memory, 0),
    [LV_DOMAIN_GET_VCPUS] = CALL(lv_vcpus_args, lv_vcpus, lv_get_vcpus, 0),
    [LV_DOMAIN_PIN_VCPU] = DO(lv_pin, lv_pin_vcpu, C),
    [LV_DOMAIN_SET_MAX_MEMORY] = DO(lv_dom_kib, lv_set_max_memory_old, C),
    [LV_DOMAIN_SET_MEMORY] = DO(lv_dom_kib, lv_set_memory_old, C),
    [LV_DOMAIN_SET_VCPUS] = DO(lv_dom_count, lv_set_vcpus, C),
    [LV_DOMAIN_GET_SCHEDULER_TYPE] = CALL(lv_dom, lv_sched_type, lv_get_sched_type, 0),
    [LV_DOMAIN_GET_SCHEDULER_PARAMETERS] = CALL(lv_sched_args, lv_param_list, lv_get_sched, 0),
    [LV_DOMAIN_SET_SCHEDULER_PARAMETERS] = DO(lv_sched_set, lv_set_sched, C),
    [LV_DOMAIN_BLOCK_STATS] = CALL(lv_dom_path, lv_disk_stats, lv_get_disk_stats, 0),
    [LV_DOMAIN_INTERFACE_STATS] = CALL(lv_dom_path, lv_vif_stats, lv_get_vif_stats, 0),
    [LV_DOMAIN_MEMORY_STATS] = CALL(lv_dom_count_flags, lv_memory_stats, lv_get_memory_stats, 0),
    [LV_DOMAIN_SET_VCPUS_FLAGS] = DO(lv_dom_count_flags, lv_set_vcpus_flags, C),
    [LV_DOMAIN_GET_VCPUS_FLAGS] = CALL(lv_dom_flags, lv_int, lv_get_vcpus_flags, 0),
    [LV_DOMAIN_SET_SCHEDULER_PARAMETERS_FLAGS] = DO(lv_sched_set_flags, lv_set_sched_flags, C),
    [LV_DOMAIN_GET_SCHEDULER_PARAMETERS_FLAGS] =
        CALL(lv_sched_args_flags, lv_param_list, lv_get_sched_flags, 0),
    [LV_DOMAIN_PIN_VCPU_FLAGS] = DO(lv_pin_flags, lv_pin_vcpu_flags, C),
    [LV_DOMAIN_GET_VCPU_PIN_INFO] = CALL(lv_pins_args, lv_pins, lv_get_pins, 0),
    [LV_DOMAIN_BLOCK_STATS_FLAGS] =
        CALL(lv_disk_stats_args, lv_param_count, lv_get_disk_stats_flags, 0),
    [LV_NODE_GET_CPU_MAP] = CALL(lv_cpu_map_args, lv_cpu_map, lv_get_cpu_map, 0),
    [LV_DOMAIN_GET_MAX_VCPUS] = CALL(lv_dom, lv_int, lv_max_vcpus, 0),
    [LV_DOMAIN_GET_OS_TYPE] = CALL(lv_dom, lv_word, lv_os_type, 0),
    [LV_CONNECT_LIST_DEFINED_DOMAINS] = CALL(lv_int, lv_names, lv_defined_names, 0),
    [LV_DOMAIN_LOOKUP_BY_ID] = CALL(lv_int, lv_dom, lv_by_id, 0),
    [LV_DOMAIN_LOOKUP_BY_NAME] = CALL(lv_word, lv_dom, lv_by_name, 0),
    [LV_DOMAIN_LOOKUP_BY_UUID] = CALL(lv_uuid, lv_dom, lv_by_uuid, 0),
    [LV_CONNECT_NUM_OF_DEFINED_DOMAINS] = ASK(lv_int, lv_defined_count, 0),
    [LV_DOMAIN_REBOOT] = DO(lv_dom_flags, lv_reboot, C),
    [LV_DOMAIN_RESUME] = DO(lv_dom, lv_resume, C),
    [LV_DOMAIN_SET_AUTOSTART] = DO(lv_dom_switch, lv_set_autostart, C),
    [LV_DOMAIN_SHUTDOWN] = DO(lv_dom, lv_shutdown, C),
    [LV_DOMAIN_SUSPEND] = DO(lv_dom, lv_suspend, C),
    [LV_DOMAIN_UNDEFINE] = DO(lv_dom, lv_undefine, C),
    [LV_DOMAIN_CORE_DUMP] = DO(lv_dump_args, lv_core_dump, C),
    [LV_DOMAIN_RESTORE] = DO(lv_word, lv_restore, C),
    [LV_DOMAIN_SAVE] = DO(lv_dom_path, lv_save, C),
    [LV_CONNECT_LIST_DOMAINS] = CALL(lv_int, lv_ids, lv_active_ids, 0),
    [LV_CONNECT_NUM_OF_DOMAINS] = ASK(lv_int, lv_active_count, 0),
    [LV_CONNECT_GET_HOSTNAME] = ASK(lv_word, lv_hostname, 0),
    [LV_CONNECT_SUPPORTS_FEATURE] = CALL(lv_int, lv_int, lv_supports, LV_EARLY),
    [LV_AUTH_LIST] = ASK(lv_auth, lv_auth_list, LV_EARLY),
    [LV_NODE_GET_FREE_MEMORY] = ASK(lv_uhyper, lv_free_memory, 0),
    [LV_CONNECT_DOMAIN_EVENT_REGISTER] = ASK(lv_int, lv_lifecycle_register_old, 0),
    [LV_CONNECT_DOMAIN_EVENT_DEREGISTER] = ASK(lv_int, lv_lifecycle_deregister_old, 0),
    [LV_CONNECT_GET_URI] = ASK(lv_word, lv_uri, 0),
    [LV_CONNECT_IS_SECURE] = ASK(lv_int, lv_is_secure, 0),
    [LV_DOMAIN_IS_ACTIVE] = CALL(lv_dom, lv_int, lv_is_active, 0),
    [LV_DOMAIN_IS_PERSISTENT] = CALL(lv_dom, lv_int, lv_is_persistent, 0),
    [LV_CONNECT_GET_LIB_VERSION] = ASK(lv_uhyper, lv_lib_version, 0),
    [LV_DOMAIN_ATTACH_DEVICE_FLAGS] = DO(lv_dom_xml_flags, lv_attach_flags, C),
    [LV_DOMAIN_DETACH_DEVICE_FLAGS] = DO(lv_dom_xml_flags, lv_detach_flags, C),
    [LV_DOMAIN_GET_JOB_INFO] = CALL(lv_dom, lv_job_info, lv_get_job_info, 0),
    [LV_DOMAIN_ABORT_JOB] = DO(lv_dom, lv_abort_job, C),
    [LV_CONNECT_DOMAIN_EVENT_REGISTER_ANY] = DO(lv_int, lv_event_register_old, 0),
    [LV_CONNECT_DOMAIN_EVENT_DEREGISTER_ANY] = DO(lv_int, lv_event_deregister_old, 0),
    [LV_DOMAIN_UPDATE_DEVICE_FLAGS] = DO(lv_dom_xml_flags, lv_update_device, C),
    [LV_DOMAIN_HAS_MANAGED_SAVE_IMAGE] = CALL(lv_dom_flags, lv_int, lv_managed_save, 0),
    [LV_DOMAIN_CREATE_WITH_FLAGS] = CALL(lv_dom_flags, lv_dom, lv_create_flags, C | G),
    [LV_DOMAIN_OPEN_CONSOLE] = DO(lv_console, lv_open_console, C),
    [LV_DOMAIN_SET_MEMORY_FLAGS] = DO(lv_dom_memory, lv_set_memory, C),
    [LV_DOMAIN_GET_STATE] = CALL(lv_dom_flags, lv_dom_state, lv_get_state, 0),
    [LV_DOMAIN_UNDEFINE_FLAGS] = DO(lv_dom_flags, lv_undefine_flags, C),
    [LV_DOMAIN_SAVE_FLAGS] = DO(lv_save_args, lv_save_flags, C),
    [LV_DOMAIN_RESTORE_FLAGS] = DO(lv_restore_args, lv_restore_flags, C),
    [LV_DOMAIN_DESTROY_FLAGS] = DO(lv_dom_flags, lv_destroy_flags, C),
    [LV_DOMAIN_SHUTDOWN_FLAGS] = DO(lv_dom_flags, lv_shutdown_flags, C),
    [LV_DOMAIN_SET_METADATA] = DO(lv_set_metadata_args, lv_set_metadata, C),
    [LV_DOMAIN_GET_METADATA] = CALL(lv_dom_metadata, lv_string, lv_metadata, 0),
    [LV_CONNECT_LIST_ALL_DOMAINS] = CALL(lv_list_args, lv_list, lv_list_all, 0),
    [LV_DOMAIN_GET_JOB_STATS] = CALL(lv_dom_flags, lv_job_stats, lv_get_job_stats, 0),
    [LV_DOMAIN_MIGRATE_SET_MAX_DOWNTIME] = DO(lv_dom_wish, lv_set_downtime, C),
    [LV_DOMAIN_MIGRATE_SET_MAX_SPEED] = DO(lv_dom_wish, lv_set_speed, C),
    [LV_DOMAIN_MIGRATE_BEGIN3] = CALL(lv_begin_old, lv_begun, lv_begin3_old, C),
    [LV_DOMAIN_MIGRATE_PREPARE3] = CALL(lv_prepare_old, lv_prepared, lv_prepare3_old, C),
    [LV_DOMAIN_MIGRATE_PERFORM3] = CALL(lv_perform_old, lv_cookie, lv_perform3_old, C),
    [LV_DOMAIN_MIGRATE_FINISH3] = CALL(lv_finish_old, lv_finished, lv_finish3_old, C),
    [LV_DOMAIN_MIGRATE_CONFIRM3] = DO(lv_confirm_old, lv_confirm3_old, C),
    [LV_DOMAIN_MIGRATE_GET_MAX_SPEED] = CALL(lv_dom_flags, lv_uhyper, lv_get_speed, 0),
    [LV_DOMAIN_MIGRATE_BEGIN3_PARAMS] = CALL(lv_begin, lv_begun, lv_begin3, C),
    [LV_DOMAIN_MIGRATE_PREPARE3_PARAMS] = CALL(lv_prepare, lv_prepared, lv_prepare3, C),
    [LV_DOMAIN_MIGRATE_PERFORM3_PARAMS] = CALL(lv_perform, lv_cookie, lv_perform3, C),
    [LV_DOMAIN_MIGRATE_FINISH3_PARAMS] = CALL(lv_finish, lv_finished, lv_finish3, C),
    [LV_DOMAIN_MIGRATE_CONFIRM3_PARAMS] = DO(lv_confirm, lv_confirm3, C),
    [LV_DOMAIN_MIGRATE_START_POST_COPY] = DO(lv_dom_flags, lv_start_postcopy, C),
    [LV_DOMAIN_MIGRATE_GET_MAX_DOWNTIME] = CALL(lv_dom_flags, lv_uhyper, lv_get_downtime, 0),
    [LV_CONNECT_GET_DOMAIN_CAPABILITIES] =
        CALL(lv_domcaps_args, lv_string, lv_get_domain_capabilities, 0),
    [LV_CONNECT_DOMAIN_XML_FROM_NATIVE] = CALL(lv_native, lv_string, lv_from_native, 0),
    [LV_CONNECT_DOMAIN_XML_TO_NATIVE] = CALL(lv_native, lv_string, lv_to_native, 0),
    [LV_DOMAIN_IS_UPDATED] = CALL(lv_dom, lv_int, lv_is_updated, 0),
    [LV_DOMAIN_GET_CONTROL_INFO] = CALL(lv_dom_flags, lv_control, lv_control_info, 0),
    [LV_DOMAIN_GET_CPU_STATS] = CALL(lv_cpu_stats_args, lv_cpu_stats_ret, lv_cpu_stats, 0),
    [LV_CONNECT_GET_ALL_DOMAIN_STATS] = CALL(lv_stats_args, lv_stats_list, lv_domain_stats, 0),
    [LV_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY] =
        CALL(lv_register, lv_int, lv_event_register, 0),
    [LV_CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY] = DO(lv_int, lv_event_deregister, 0),
    [LV_DOMAIN_CORE_DUMP_WITH_FORMAT] = DO(lv_dump_format_args, lv_core_dump_format, C),
    [LV_CONNECT_REGISTER_CLOSE_CALLBACK] = { lv_close_register, 0, NULL, NULL, 0, 0 },
    [LV_CONNECT_UNREGISTER_CLOSE_CALLBACK] = { lv_close_deregister, 0, NULL, NULL, 0, 0 },
    [LV_DOMAIN_DEFINE_XML_FLAGS] = CALL(lv_xml_flags, lv_dom, lv_define_flags, C | G),
    [LV_STORAGE_POOL_LOOKUP_BY_VOLUME] = CALL(lv_vol, lv_pool, lv_pool_by_vol, C),
    [LV_STORAGE_POOL_GET_INFO] = CALL(lv_pool, lv_pool_info, lv_pool_get_info, C),
    [LV_STORAGE_POOL_GET_XML_DESC] = CALL(lv_pool_flags, lv_string, lv_pool_get_xml, C),
    [LV_STORAGE_VOL_LOOKUP_BY_PATH] = CALL(lv_word, lv_vol, lv_vol_by_path, C),
    [LV_STORAGE_VOL_GET_INFO] = CALL(lv_vol, lv_vol_info, lv_vol_get_info, C),
    [LV_STORAGE_VOL_GET_XML_DESC] = CALL(lv_vol_flags, lv_string, lv_vol_get_xml, C),
    [LV_STORAGE_VOL_GET_PATH] = CALL(lv_vol, lv_word, lv_vol_get_path, C),
    [LV_CONNECT_LIST_ALL_STORAGE_POOLS] = CALL(lv_list_args, lv_pools, lv_pool_list, 0),
};

const struct lv_entry *lv_entry_of(int proc)
{
    if (proc <= 0 || (size_t)proc >= sizeof table / sizeof table[0] || table[proc].fn == NULL)
        return NULL;
    return &table[proc];
}

static const struct lv_entry *find(const struct lv_header *h)
{
    return h->prog == LV_PROGRAM && h->vers == LV_VERSION ? lv_entry_of(h->proc) : NULL;
}

/* --- errors --- */

enum lv_code lv_code_of(const struct err *e)
{
    static const enum lv_code codes[ERR_CODE_MAX] = { [ERR_SYSTEM] = LV_E_SYSTEM,
        [ERR_INVALID] = LV_E_INVALID_ARG,
        [ERR_REFUSED] = LV_E_DENIED,
        [ERR_EXISTS] = LV_E_EXISTS,
        [ERR_STATE] = LV_E_INVALID,
        [ERR_EPOCH] = LV_E_INVALID,
        [ERR_TIMEOUT] = LV_E_TIMEOUT,
        [ERR_CANCELLED] = LV_E_ABORTED,
        [ERR_RESOURCE] = LV_E_BUSY,
        [ERR_UNSUPPORTED] = LV_E_UNSUPPORTED,
        [ERR_PROTOCOL] = LV_E_RPC,
        [ERR_INTERNAL] = LV_E_INTERNAL };
    enum lv_code code = e->code < ERR_CODE_MAX ? codes[e->code] : 0;

    return code != 0 ? code : LV_E_FAILED;
}

const char *lv_code_words(enum lv_code code)
{
    static const struct {
        enum lv_code code;
        const char *words;
    } words[] = { { LV_E_INTERNAL, "internal error: " }, { LV_E_INVALID_ARG, "invalid argument: " },
        { LV_E_FAILED, "operation failed: " }, { LV_E_XML, "XML error: " },
        { LV_E_NO_DOMAIN, "Domain not found: " },
        { LV_E_INVALID, "Requested operation is not valid: " },
        { LV_E_CONFIG_UNSUPPORTED, "unsupported configuration: " },
        { LV_E_UNSUPPORTED, "Operation not supported: " },
        { LV_E_ARGUMENT_UNSUPPORTED, "argument unsupported: " },
        { LV_E_NO_METADATA, "metadata not found: " }, { LV_E_BUSY, "resource busy: " },
        { LV_E_NO_DEVICE, "device not found: " }, { LV_E_NO_VOLUME, "Storage volume not found: " },
        { LV_E_TIMEOUT, "Timed out during operation: " }, { LV_E_ABORTED, "operation aborted: " } };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (words[i].code == code)
            return words[i].words;
    return "";
}

int lv_fail(struct lv_call *k, struct err *e, enum lv_code code, const char *fmt, ...)
{
    char text[sizeof e->text];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    k->code = code;
    return err_set(e, ERR_INVALID, "%s", text);
}

int lv_check_flags(struct lv_call *k, unsigned flags, unsigned known, struct err *e)
{
    if ((flags & ~known) == 0)
        return 0;
    return lv_fail(k, e, LV_E_INVALID_ARG, "unsupported flags (0x%x) in procedure %d",
        flags & ~known, k->h.proc);
}

void lv_audit(const struct lv_call *k, const char *what, const char *on)
{
    log_info("libvirt", "%s: %s %s", k->c->who, what, on);
}

/* --- answers --- */

static struct lv_header answer_header(const struct lv_header *h, enum lv_status status)
{
    struct lv_header r = *h;

    r.type = LV_REPLY;
    r.status = status;
    return r;
}

static void send_error_frame(
    struct lv_conn *c, struct lv_header h, int code, int from, const char *text)
{
    char message[700];
    lv_text p = message;
    lv_error err = { .code = code,
        .domain = from,
        .message = &p,
        .level = LEVEL_ERROR,
        .str1 = &p,
        .int1 = -1,
        .int2 = -1 };
    uint8_t *frame;

    snprintf(message, sizeof message, "%s%s", from == FROM_RPC ? "" : lv_code_words(code), text);
    h.status = LV_ERROR;
    frame = lv_pack(&h, (xdrproc_t)xdr_lv_error, &err, NULL);
    lv_conn_send(c, frame, h.len);
}

static void send_error(
    struct lv_conn *c, const struct lv_header *call, int code, int from, const char *text)
{
    send_error_frame(c, answer_header(call, LV_ERROR), code, from, text);
}

void lv_send_error(struct lv_conn *c, const struct lv_header *h, int code, const char *text)
{
    send_error_frame(c, *h, code, FROM_DOMAIN, text);
}

static void send_answer(struct lv_call *k, void *ret)
{
    struct lv_header h = answer_header(&k->h, LV_OK);
    struct err e;
    uint8_t *frame = lv_pack(&h, k->entry->out, ret, &e);

    if (frame == NULL)
        send_error(k->c, &k->h, LV_E_INTERNAL, FROM_DOMAIN, e.text);
    else
        lv_conn_send(k->c, frame, h.len);
}

static void call_free(struct lv_call *k)
{
    if (k->args != NULL)
        xdr_free(k->entry->in, k->args);
    free(k->args);
    if (k->def != NULL)
        migrd__domain__free_unpacked(k->def, NULL);
    free(k);
}

void lv_call_finish(struct lv_call *k, int result, void *ret, const struct err *e)
{
    struct lv_conn *c = k->c;
    size_t bytes = k->h.len;

    if (result == 0)
        send_answer(k, ret);
    else
        send_error(c, &k->h, k->code != 0 ? k->code : (int)lv_code_of(e), FROM_DOMAIN, e->text);
    call_free(k);
    lv_conn_release(c, bytes);
}

void lv_call_end(void *call, const char *uuid, const struct err *e)
{
    struct lv_call *k = call;
    struct err why = *e;
    struct domain *d;
    lv_dom dom = { .id = -1 };
    lv_cookie none = { .value = { 0 } }; /* of a migration; void answers have nothing */
    bool gives = (k->entry->flags & LV_GIVES_DOMAIN) != 0;
    int result = e->code == ERR_NONE ? 0 : -1;

    if (result == 0 && gives) {
        d = registry_by_uuid(k->m->registry, uuid);
        if (d != NULL)
            result = lv_domain_put(d, &dom, &why);
        else
            result = lv_fail(k, &why, LV_E_NO_DOMAIN, "domain %s has gone already", uuid);
    }
    lv_call_finish(k, result, gives ? (void *)&dom : &none, &why);
    free(dom.name);
}

/* --- running --- */

/* An error that only the protocol knows; the call is not run. */
static void refuse(
    struct lv_conn *c, const struct lv_header *h, int code, int from, const char *text)
{
    send_error(c, h, code, from, text);
    lv_conn_release(c, h->len);
}

/* Both are one to virsh: it does without the procedure, or shows the text. */
static void refuse_unknown(struct lv_conn *c, const struct lv_header *h)
{
    const char *what = h->prog == LV_PROGRAM ? lv_refused_words(h->proc) : NULL;
    char text[200];

    if (what != NULL)
        snprintf(text, sizeof text, "migrd does not support this: %s", what);
    else if (h->prog != LV_PROGRAM)
        snprintf(text, sizeof text, "unknown procedure %d: it is one of another hypervisor's alone",
            h->proc);
    else
        snprintf(text, sizeof text, "unknown procedure %d: migrd does not support this function",
            h->proc);
    refuse(c, h, what != NULL ? LV_E_NO_SUPPORT : LV_E_RPC,
        what != NULL ? FROM_DOMAIN : FROM_RPC, text);
}

static void run(struct lv_call *k)
{
    void *ret = k->entry->out_size > 0 ? calloc(1, k->entry->out_size) : NULL;
    xdrproc_t out = k->entry->out;
    struct err e = { 0 };
    int r;

    if (k->entry->out_size > 0 && ret == NULL)
        r = err_set(&e, ERR_MEMORY, "migrd is out of memory");
    else
        r = k->entry->fn(k, k->args, ret, &e);
    if (r != LV_LATER)
        lv_call_finish(k, r, ret, &e);
    if (ret != NULL)
        xdr_free(out, ret);
    free(ret);
}

static struct lv_call *call_new(struct lv_conn *c, const struct lv_entry *entry,
    const struct lv_header *h, const uint8_t *payload, struct err *e)
{
    struct lv_call *k = calloc(1, sizeof *k);

    if (k != NULL)
        *k = (struct lv_call){ .c = c, .m = c->m, .entry = entry, .h = *h };
    if (k != NULL && entry->in_size > 0)
        k->args = calloc(1, entry->in_size);
    if (k == NULL || (entry->in_size > 0 && k->args == NULL)) {
        free(k);
        err_set(e, ERR_MEMORY, "migrd is out of memory");
        return NULL;
    }
    if (lv_unpack(entry->in, payload, h->len - LV_HEADER_BYTES, k->args, e) == 0)
        return k;
    free(k->args);
    free(k);
    return NULL;
}

void lv_call_run(struct lv_conn *c, const struct lv_header *h, const uint8_t *payload)
{
    const struct lv_entry *entry = find(h);
    struct lv_call *k;
    struct err e;

    if (entry == NULL) {
        refuse_unknown(c, h);
    } else if (!c->opened && (entry->flags & LV_EARLY) == 0) {
        refuse(c, h, LV_E_INVALID, FROM_RPC, "the connection is not open yet");
    } else if (c->read_only && (entry->flags & LV_CHANGES) != 0) {
        refuse(c, h, LV_E_DENIED, FROM_RPC,
            "operation forbidden: read only access prevents this operation");
    } else if ((k = call_new(c, entry, h, payload, &e)) == NULL) {
        refuse(c, h, LV_E_RPC, FROM_RPC, e.text);
    } else {
        run(k);
    }
}
