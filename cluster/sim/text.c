/* SPDX-License-Identifier: ISC */
#include "cluster/sim/text.h"

#include <string.h>
#include <xxhash.h>

const char *event_name(enum ha_event_type type)
{
    static const char *const names[] = { "view", "quorum", "message", "beat", "time", "persisted",
        "domain", "host", "result", "command" };

    _Static_assert(sizeof names / sizeof *names == HA_EV_MAX, "a name for each event");
    return type < HA_EV_MAX ? names[type] : "?";
}

const char *action_name(enum ha_action_type type)
{
    static const char *const names[] = { "send", "beat", "persist", "fuse", "start", "stop",
        "destroy", "resume", "migrate", "cancel", "fence", "answer", "watchdog", "note" };

    _Static_assert(sizeof names / sizeof *names == HA_ACT_MAX, "a name for each action");
    return type < HA_ACT_MAX ? names[type] : "?";
}

bool action_is_decision(enum ha_action_type type)
{
    switch (type) {
    case HA_ACT_SEND:
    case HA_ACT_BEAT:
    case HA_ACT_PERSIST:
    case HA_ACT_FUSE:
    case HA_ACT_WATCHDOG:
        return false;
    case HA_ACT_START:
    case HA_ACT_STOP:
    case HA_ACT_DESTROY:
    case HA_ACT_RESUME:
    case HA_ACT_MIGRATE:
    case HA_ACT_CANCEL:
    case HA_ACT_FENCE:
    case HA_ACT_ANSWER:
    case HA_ACT_NOTE:
    case HA_ACT_MAX:
        break;
    }
    return true;
}

uint64_t actions_digest(uint64_t digest, const struct ha_actions *actions)
{
    for (size_t i = 0; i < actions->n; i++) {
        const struct ha_action *a = &actions->action[i];
        const uint64_t numbers[] = { a->type, a->id, a->epoch, a->node, a->deadline, a->whole,
            a->ok, a->alarm };

        digest = XXH3_64bits_withSeed(numbers, sizeof numbers, digest);
        digest = XXH3_64bits_withSeed(a->uuid, strlen(a->uuid), digest);
        digest = XXH3_64bits_withSeed(a->text, strlen(a->text), digest);
        if (a->len > 0)
            digest = XXH3_64bits_withSeed(a->bytes, a->len, digest);
    }
    return XXH3_64bits_withSeed(&actions->wake, sizeof actions->wake, digest);
}
