// SPDX-License-Identifier: Apache-2.0
// qn_sched_check: every invariant of scheduler.c, from scratch. Costs all there is; for tests.
#include "scheduler/state.h"

#define REQUIRE(condition, text) \
    do {                         \
        if (!(condition)) {      \
            *reason = (text);    \
            return false;        \
        }                        \
    } while (0)

static bool check_seq(const qn_sched *s, const qn_seq *x, const char **reason) {
    const qn_sched_config *c = &s->config;
    bool has_slot = x->state == QN_SEQ_RUNNING || x->state == QN_SEQ_DRAINING;
    REQUIRE(has_slot == (x->slot >= 0), "3: slot and state");
    REQUIRE(x->slot < c->max_seqs && (x->slot < 0 || s->slots[x->slot] == qn_seq_index(s, x)),
            "3: the slot is another's");
    REQUIRE(x->state == QN_SEQ_FREE || x->dropped ||
                qn_id_map_get(&s->ids, x->id) == qn_seq_index(s, x), "2: id not in the map");
    REQUIRE(!x->dropped || (x->ended && x->state == QN_SEQ_DRAINING), "2: dropped too early");
    REQUIRE(x->state != QN_SEQ_FINISHED || x->ended, "1: FINISHED without its event");
    REQUIRE(!x->ended || x->state == QN_SEQ_FINISHED || x->state == QN_SEQ_DRAINING,
            "1: goes on after its end");
    REQUIRE(!x->aborting || x->ended || x->state == QN_SEQ_DRAINING, "1: goes on after an abort");
    REQUIRE((x->tokens != NULL) == (x->state != QN_SEQ_FREE && x->state != QN_SEQ_FINISHED),
            "1: token storage");
    REQUIRE(x->preemptions <= QN_SCHED_MAX_PREEMPTIONS, "12: preempted too often");
    REQUIRE(x->n_computed >= 0 && x->n_computed <= x->n_planned && x->n_planned <= qn_seq_total(x),
            "9: computed, planned, known");
    REQUIRE(x->in_flight <= s->n_in_flight, "9: in more steps than there are");
    REQUIRE(x->in_flight > 0 || (x->n_computed == x->n_planned && x->n_pending == 0),
            "9: something pending without a step");
    REQUIRE(x->n_pending >= 0 && x->n_pending <= x->in_flight, "9: pending tokens");
    REQUIRE(x->n_output >= 0 && x->n_output <= x->max_output, "9: outputs");
    if (x->state == QN_SEQ_RUNNING) {
        REQUIRE(x->n_planned < qn_seq_total(x), "9: running with nothing to plan");
        REQUIRE(x->n_output + x->n_pending < x->max_output, "9: running after its last token");
        REQUIRE(x->prefilling || x->n_planned == qn_seq_total(x) - 1, "9: decodes too late");
    }
    REQUIRE(x->state != QN_SEQ_DRAINING || x->in_flight > 0, "8: drained but kept");
    REQUIRE(has_slot || x->in_flight == 0, "9: in a step without a slot");
    for (int32_t g = 0; g < c->n_groups; g++) {
        REQUIRE(x->n_table[g] == QN_CEIL_DIV(x->n_planned, c->block_size) ||
                    (x->n_table[g] == 0 && !has_slot), "5: table length");
        REQUIRE(x->first_live[g] >= 0 && x->first_live[g] <= x->n_table[g], "4: first live block");
        int32_t visible = qn_kv_first_visible(&c->groups[g], x->n_computed) / c->block_size;
        REQUIRE(x->first_live[g] <= visible, "6: a visible block was given back");
        REQUIRE(x->state != QN_SEQ_RUNNING || x->first_live[g] == QN_MIN(visible, x->n_table[g]),
                "6: a passed block was kept");
        REQUIRE(x->quota[g] == 0 || x->state == QN_SEQ_RUNNING, "7: a quota without running");
        REQUIRE(x->state != QN_SEQ_RUNNING || x->prefilling || qn_seq_protected(x) ||
                    x->quota[g] == 0, "7: a quota in decode");
        // What full groups promise to a prompt is enough for it.
        REQUIRE(x->state != QN_SEQ_RUNNING || c->groups[g].kind != QN_KV_FULL || !x->prefilling ||
                    x->quota[g] * c->block_size >= qn_seq_total(x), "7: a quota too small");
        for (int32_t i = 0; has_slot && i < x->n_table[g]; i++) {
            int32_t id = qn_seq_table(s, x, g)[i];
            REQUIRE((i < x->first_live[g]) == (id == -1) && id < c->n_blocks[g], "4: table entry");
            REQUIRE(id < 0 || s->pools[g].blocks[id].refs >= 1, "4: a table holds a free block");
            if (id >= 0) s->seen[g][id]++;
            REQUIRE(id < 0 || (i + 1) * c->block_size <= x->n_computed ||
                        s->pools[g].blocks[id].name < 0,
                    "13: a block that is not full has a name");
        }
        REQUIRE(x->state == QN_SEQ_FREE ||
                    (x->copy_src[g] >= 0) == (x->has_copy || x->copying), "4: source of a copy");
    }
    REQUIRE(!x->copying || x->in_flight > 0, "4: a copy without a step");
    REQUIRE(x->fork_of < 0 || x->state == QN_SEQ_FREE || x->state == QN_SEQ_WAITING || x->ended,
            "14: a fork that runs");
    return true;
}

// References, from what the records hold (counted in seen).
static bool check_references(const qn_sched *s, const char **reason) {
    const qn_sched_config *c = &s->config;
    for (int32_t k = 0; k < c->max_seqs; k++) {
        const qn_seq *x = s->slots[k] < 0 ? NULL : &s->seqs[s->slots[k]];
        for (int32_t g = 0; x && g < c->n_groups; g++) {
            for (int32_t i = QN_MAX(x->first_live[g], x->n_computed / c->block_size);
                 i < x->n_table[g]; i++) {
                REQUIRE(s->seen[g][qn_seq_table(s, x, g)[i]] == 1, "4: a writer shares its block");
            }
        }
    }
    for (int32_t k = 0; k < c->max_seqs; k++) {
        const qn_seq *x = s->slots[k] < 0 ? NULL : &s->seqs[s->slots[k]];
        for (int32_t g = 0; x && g < c->n_groups; g++) {
            if (x->copy_src[g] >= 0) s->seen[g][x->copy_src[g]]++;
        }
    }
    for (int32_t g = 0; g < c->n_groups; g++) {
        REQUIRE(qn_block_pool_check(&s->pools[g]), "4: block pool");
        for (int32_t i = 0; i < c->n_blocks[g]; i++) {
            REQUIRE(s->seen[g][i] == s->pools[g].blocks[i].refs, "4: blocks lost");
        }
    }
    int64_t salts = 0;
    for (int32_t i = 0; i < s->n_seqs; i++) salts += s->seqs[i].salt != NULL;
    REQUIRE(qn_prefix_cache_check(&s->cache, salts), "13: prefix cache");
    return true;
}

static bool check_orders(const qn_sched *s, const char **reason) {
    int64_t waiting_tokens = 0;
    for (int32_t i = 0; i < s->waiting.count; i++) {
        const qn_wait_entry *e = qn_wait_queue_at(&s->waiting, i);
        const qn_seq *x = &s->seqs[e->seq];
        qn_wait_entry own = qn_seq_wait_entry(s, x);
        REQUIRE(x->state == QN_SEQ_WAITING && qn_wait_compare(e, &own) == 0, "1: queue entry");
        REQUIRE(i == 0 || qn_wait_compare(qn_wait_queue_at(&s->waiting, i - 1), e) < 0,
                "1: queue order");
        waiting_tokens += x->n_prompt;
    }
    REQUIRE(waiting_tokens == s->waiting_tokens, "10: waiting tokens");
    REQUIRE(s->n_run <= s->run_cap, "1: too many run");
    for (int32_t i = 0; i < s->n_run; i++) {
        const qn_seq *x = &s->seqs[s->run[i]];
        REQUIRE(x->state == QN_SEQ_RUNNING, "1: run entry");
        REQUIRE(i == 0 || qn_seq_before(&s->seqs[s->run[i - 1]], x), "1: run order");
    }
    int32_t free_slots = 0;
    for (int32_t i = 0; i < s->config.max_seqs; i++) {
        free_slots += s->slots[i] < 0;
        REQUIRE(s->slots[i] < 0 || s->seqs[s->slots[i]].slot == i, "3: slot entry");
    }
    REQUIRE(free_slots == s->n_free_slots, "3: free slots");
    for (int32_t i = 0; i < s->n_free_slots; i++) {
        REQUIRE(s->slots[s->free_slots[i]] < 0, "3: free slot list");
    }
    for (int32_t i = 0; i < s->n_free_seqs; i++) {
        REQUIRE(s->seqs[s->free_seqs[i]].state == QN_SEQ_FREE, "1: free record list");
    }
    return true;
}

static bool check_events(const qn_sched *s, const char **reason) {
    int32_t tokens = 0, finished = 0;
    for (int32_t i = 0; i < s->n_events; i++) {
        const qn_sched_slot_event *e = &s->events[(s->event_start + i) % s->event_cap];
        const qn_seq *x = &s->seqs[e->seq];
        REQUIRE(x->state != QN_SEQ_FREE && x->id == e->event.id, "11: event of nobody");
        if (e->event.kind == QN_SCHED_TOKEN) {
            tokens++;
        } else {
            REQUIRE(x->ended, "11: FINISHED of a live one");
            finished++;
        }
    }
    REQUIRE(tokens == s->n_token_events, "11: token events");
    int32_t ended = 0;
    for (int32_t i = 0; i < s->n_seqs; i++) ended += s->seqs[i].ended && !s->seqs[i].dropped;
    REQUIRE(finished + s->n_taken == ended, "11: one FINISHED for each that ended");
    for (int32_t i = 0; i < s->n_in_flight; i++) tokens += s->in_flight[i].n_tokens;
    REQUIRE(tokens <= s->event_cap - s->n_seqs, "11: room for events");
    return true;
}

bool qn_sched_check(const qn_sched *s, const char **reason) {
    int32_t states[QN_SEQ_FINISHED + 1] = {0}, mapped = 0;
    int32_t owed[QN_MAX_KV_GROUPS] = {0}, draining[QN_MAX_KV_GROUPS] = {0};
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        for (int32_t i = 0; i < s->config.n_blocks[g]; i++) s->seen[g][i] = 0;
    }
    for (int32_t i = 0; i < s->n_seqs; i++) {
        const qn_seq *x = &s->seqs[i];
        if (!check_seq(s, x, reason)) return false;
        states[x->state]++;
        mapped += x->state != QN_SEQ_FREE && !x->dropped;
        for (int32_t g = 0; g < s->config.n_groups; g++) {
            owed[g] += qn_seq_owed(x, g);
            draining[g] += x->returning[g];
            REQUIRE(x->state == QN_SEQ_DRAINING ? x->returning[g] <= qn_seq_held(x, g)
                                                : x->returning[g] == 0, "8: blocks to be returned");
        }
    }
    REQUIRE(states[QN_SEQ_WAITING] == s->waiting.count, "1: the queue's length");
    REQUIRE(states[QN_SEQ_RUNNING] == s->n_run, "1: the length of run[]");
    REQUIRE(states[QN_SEQ_DRAINING] == s->n_draining, "1: draining records");
    REQUIRE(states[QN_SEQ_FREE] == s->n_free_seqs, "1: free records");
    REQUIRE(mapped == s->ids.count, "2: ids in the map");
    REQUIRE(s->n_in_flight >= 0 && s->n_in_flight <= QN_SCHED_MAX_IN_FLIGHT, "10: steps under way");
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        REQUIRE(owed[g] == s->reserved[g], "7: reserved blocks");
        REQUIRE(s->reserved[g] >= 0 && s->reserved[g] <= s->pools[g].n_free,
                "7: promises too much");
        REQUIRE(draining[g] == s->draining[g], "8: draining blocks");
    }
    return check_references(s, reason) && check_orders(s, reason) && check_events(s, reason);
}
