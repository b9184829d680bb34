// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/json_parts.h"

// The document's depth was bounded before it was parsed, and so is the recursion into sequences.

static const char *type_of(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    return type ? type : "";
}

static bool is_null(const json_t *v) {
    return !v || json_is_null(v);
}

static qn_status unknown(const char *what, const char *name, qn_error *err) {
    qn_buf shown = {0};
    qn_buf_visible(&shown, name, strlen(name) < 60 ? strlen(name) : 60, false);
    qn_status st = qn_fail(err, QN_ERR_UNSUPPORTED, "%s '%s' is not supported", what,
                           shown.data ? shown.data : "");
    qn_buf_free(&shown);
    return st;
}

static qn_status string_member(const json_t *part, const char *what, const char *key, qn_str *out,
                               qn_error *err) {
    const json_t *v = json_object_get(part, key);
    if (!json_is_string(v)) return qn_fail(err, QN_ERR_FORMAT, "%s: no string '%s'", what, key);
    *out = (qn_str){json_string_value(v), json_string_length(v)};
    return QN_OK;
}

static bool flag(const json_t *part, const char *key, bool otherwise) {
    const json_t *v = json_object_get(part, key);
    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

typedef qn_status (*part_fn)(qn_tokenizer *t, const json_t *part, qn_error *err);

static qn_status each(qn_tokenizer *t, const json_t *part, const char *key, part_fn fn,
                      qn_error *err) {
    const json_t *list = json_object_get(part, key);
    qn_status st = QN_OK;
    if (!json_is_array(list)) {
        return qn_fail(err, QN_ERR_FORMAT, "a Sequence without its '%s'", key);
    }
    for (size_t i = 0; i < json_array_size(list) && st == QN_OK; i++) {
        st = fn(t, json_array_get(list, i), err);
    }
    return st;
}

// {"String": s} or {"Regex": s}
static qn_status pattern_member(const json_t *part, const char *what, qn_str *out, bool *regex,
                                qn_error *err) {
    const json_t *pattern = json_object_get(part, "pattern");
    *regex = json_object_get(pattern, "Regex") != NULL;
    return string_member(pattern, what, *regex ? "Regex" : "String", out, err);
}

qn_status qn_json_normalizer(qn_tokenizer *t, const json_t *part, qn_error *err) {
    static const struct {
        const char *name;
        qn_norm_kind kind;
    } forms[] = {
        {"NFC", QN_NORM_NFC}, {"NFD", QN_NORM_NFD}, {"NFKC", QN_NORM_NFKC}, {"NFKD", QN_NORM_NFKD}};
    qn_str a = {"", 0}, b = {"", 0};
    qn_status st;
    if (is_null(part)) return QN_OK;
    const char *type = type_of(part);
    if (!strcmp(type, "Sequence")) return each(t, part, "normalizers", qn_json_normalizer, err);
    for (size_t i = 0; i < 4; i++) {
        if (!strcmp(type, forms[i].name)) {
            return qn_norm_add(&t->norm, forms[i].kind, false, a, b, err);
        }
    }
    if (!strcmp(type, "Prepend")) {
        st = string_member(part, "Prepend", "prepend", &a, err);
        return st == QN_OK ? qn_norm_add(&t->norm, QN_NORM_PREPEND, false, a, b, err) : st;
    }
    if (!strcmp(type, "Replace")) {
        bool regex;
        st = pattern_member(part, "Replace", &a, &regex, err);
        if (st == QN_OK && regex) return unknown("a normalizer Replace with a", "Regex", err);
        if (st == QN_OK) st = string_member(part, "Replace", "content", &b, err);
        return st == QN_OK ? qn_norm_add(&t->norm, QN_NORM_REPLACE, false, a, b, err) : st;
    }
    return unknown("normalizer", type, err);
}

static qn_status behavior_member(const json_t *part, qn_pre_behavior *out, qn_error *err) {
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const json_t *v = json_object_get(part, "behavior");
    *out = QN_PRE_ISOLATED;
    if (is_null(v)) return QN_OK;
    const char *name = json_is_string(v) ? json_string_value(v) : "";
    for (int i = 0; i < 5; i++) {
        if (!strcmp(name, names[i])) {
            *out = (qn_pre_behavior)i;
            return QN_OK;
        }
    }
    return unknown("split behavior", name, err);
}

static qn_status add_pattern(qn_tokenizer *t, const char *pattern, qn_pre_behavior behavior,
                             bool invert, qn_error *err) {
    return qn_pre_add(&t->pre, pattern, strlen(pattern), false, behavior, invert, err);
}

// prepend_scheme, or the older add_prefix_space.
static qn_status prepend_scheme(const json_t *part, bool *never, bool *first, qn_error *err) {
    const json_t *v = json_object_get(part, "prepend_scheme");
    *never = !flag(part, "add_prefix_space", true);
    *first = false;
    if (is_null(v)) return QN_OK;
    const char *name = json_is_string(v) ? json_string_value(v) : "";
    *never = !strcmp(name, "never");
    *first = !strcmp(name, "first");
    if (*never || *first || !strcmp(name, "always")) return QN_OK;
    return unknown("prepend_scheme", name, err);
}

static qn_status metaspace(qn_tokenizer *t, const json_t *part, qn_error *err) {
    qn_str mark = QN_STR(QN_SPACE_MARK), replacement = {"", 0};
    bool never, first;
    qn_status st = string_member(part, "Metaspace", "replacement", &replacement, err);
    if (st == QN_OK) st = prepend_scheme(part, &never, &first, err);
    if (st != QN_OK) return st;
    if (!qn_str_eq(replacement, mark)) {
        return unknown("Metaspace replacement",
                       json_string_value(json_object_get(part, "replacement")), err);
    }
    if (t->pre.n > 0) return unknown("a Metaspace behind another", "pre-tokenizer", err);
    st = qn_norm_add(&t->norm, QN_NORM_REPLACE, false, QN_STR(" "), mark, err);
    if (st == QN_OK && !never) st = qn_norm_add(&t->norm, QN_NORM_PREFIX, first, mark, mark, err);
    if (st == QN_OK && flag(part, "split", true)) {
        st = qn_pre_add(&t->pre, mark.data, mark.len, true, QN_PRE_WITH_NEXT, false, err);
    }
    return st;
}

static qn_status byte_level(qn_tokenizer *t, const json_t *part, qn_error *err) {
    qn_str space = QN_STR(" ");
    qn_status st = QN_OK;
    t->byte_level = true;
    if (flag(part, "add_prefix_space", true)) {
        if (t->pre.n > 0) {
            return unknown("ByteLevel with add_prefix_space behind another", "pre-tokenizer", err);
        }
        st = qn_norm_add(&t->norm, QN_NORM_PREFIX, false, space, space, err);
    }
    if (st == QN_OK && flag(part, "use_regex", true)) {
        st = add_pattern(t, QN_PATTERN_GPT2, QN_PRE_ISOLATED, false, err);
    }
    return st;
}

qn_status qn_json_pre_tokenizer(qn_tokenizer *t, const json_t *part, qn_error *err) {
    qn_pre_behavior behavior = QN_PRE_ISOLATED;
    if (is_null(part)) return QN_OK;
    const char *type = type_of(part);
    if (!strcmp(type, "Sequence")) {
        return each(t, part, "pretokenizers", qn_json_pre_tokenizer, err);
    }
    // Behind ByteLevel the text is in another alphabet, where patterns mean something else.
    if (t->byte_level) return unknown("behind ByteLevel, pre-tokenizer", type, err);
    if (!strcmp(type, "ByteLevel")) return byte_level(t, part, err);
    if (!strcmp(type, "Metaspace")) return metaspace(t, part, err);
    if (!strcmp(type, "Split")) {
        qn_str pattern = {"", 0};
        bool regex;
        qn_status st = pattern_member(part, "Split", &pattern, &regex, err);
        if (st == QN_OK) st = behavior_member(part, &behavior, err);
        if (st != QN_OK) return st;
        return qn_pre_add(&t->pre, pattern.data, pattern.len, !regex, behavior,
                          flag(part, "invert", false), err);
    }
    if (!strcmp(type, "Digits")) {
        behavior = flag(part, "individual_digits", false) ? QN_PRE_ISOLATED : QN_PRE_CONTIGUOUS;
        return add_pattern(t, "\\p{N}", behavior, false, err);
    }
    if (!strcmp(type, "Punctuation")) {
        qn_status st = behavior_member(part, &behavior, err);
        if (st != QN_OK) return st;
        return add_pattern(t, "[\\p{P}!-/:-@\\[-`{-~]", behavior, false, err);
    }
    if (!strcmp(type, "WhitespaceSplit")) {
        return add_pattern(t, "\\s", QN_PRE_REMOVED, false, err);
    }
    if (!strcmp(type, "Whitespace")) {
        // Here \w is that of Unicode's own recommendation (UTS 18), not Oniguruma's.
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"
        return add_pattern(t, "[" WORD "]+|[^" WORD "\\s]+", QN_PRE_REMOVED, true, err);
#undef WORD
    }
    return unknown("pre-tokenizer", type, err);
}

qn_status qn_json_decoder(qn_tokenizer *t, const json_t *part, qn_error *err) {
    if (is_null(part)) return QN_OK;
    const char *type = type_of(part);
    if (!strcmp(type, "Sequence")) return each(t, part, "decoders", qn_json_decoder, err);
    if (!strcmp(type, "ByteLevel") || !strcmp(type, "ByteFallback") || !strcmp(type, "Fuse")) {
        return QN_OK;
    }
    if (!strcmp(type, "Replace")) {
        qn_str a = {"", 0}, b = {"", 0};
        bool regex;
        qn_status st = pattern_member(part, "Replace", &a, &regex, err);
        if (st == QN_OK) st = string_member(part, "Replace", "content", &b, err);
        if (st != QN_OK) return st;
        if (!regex && qn_str_is(a, QN_SPACE_MARK) && qn_str_is(b, " ")) return QN_OK;
        return unknown("a decoder Replace of other than", QN_SPACE_MARK, err);
    }
    if (!strcmp(type, "Strip")) {
        qn_str content = {"", 0};
        qn_status st = string_member(part, "Strip", "content", &content, err);
        if (st != QN_OK) return st;
        json_int_t start = json_integer_value(json_object_get(part, "start"));
        json_int_t stop = json_integer_value(json_object_get(part, "stop"));
        if (!qn_str_is(content, " ") || start < 0 || start > 1 || stop != 0) {
            return unknown("a decoder Strip of other than", "one leading space", err);
        }
        t->strip_first = start == 1;
        return QN_OK;
    }
    if (!strcmp(type, "Metaspace")) {
        bool never, first;
        qn_status st = prepend_scheme(part, &never, &first, err);
        t->strip_first = !never;
        return st;
    }
    return unknown("decoder", type, err);
}

static qn_status affix(qn_tokenizer *t, const json_t *ids, bool before, qn_error *err) {
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *v = json_array_get(ids, i);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || (size_t)id >= t->vocab.n) {
            return qn_fail(err, QN_ERR_FORMAT, "TemplateProcessing: an id that is no token");
        }
        size_t *n = before ? &t->n_prefix : &t->n_suffix;
        if (*n == QN_TOK_MAX_AFFIX) {
            return qn_fail(err, QN_ERR_LIMIT, "TemplateProcessing: more than %d special tokens",
                           QN_TOK_MAX_AFFIX);
        }
        (before ? t->prefix : t->suffix)[(*n)++] = (int32_t)id;
    }
    return QN_OK;
}

static qn_status template_processing(qn_tokenizer *t, const json_t *part, qn_error *err) {
    const json_t *single = json_object_get(part, "single");
    const json_t *specials = json_object_get(part, "special_tokens");
    bool before = true;
    qn_status st = QN_OK;
    if (!json_is_array(single)) {
        return qn_fail(err, QN_ERR_FORMAT, "TemplateProcessing without 'single'");
    }
    for (size_t i = 0; i < json_array_size(single) && st == QN_OK; i++) {
        const json_t *item = json_array_get(single, i);
        if (json_object_get(item, "Sequence")) {
            before = false;
            continue;
        }
        const char *name =
            json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        const json_t *ids = name ? json_object_get(json_object_get(specials, name), "ids") : NULL;
        if (!json_is_array(ids)) {
            return qn_fail(err, QN_ERR_FORMAT, "TemplateProcessing: a special token without ids");
        }
        st = affix(t, ids, before, err);
    }
    return st;
}

qn_status qn_json_post_processor(qn_tokenizer *t, const json_t *part, qn_error *err) {
    if (is_null(part)) return QN_OK;
    const char *type = type_of(part);
    if (!strcmp(type, "Sequence")) return each(t, part, "processors", qn_json_post_processor, err);
    if (!strcmp(type, "ByteLevel")) return QN_OK; // only offsets, which nobody asks for
    if (!strcmp(type, "TemplateProcessing")) return template_processing(t, part, err);
    return unknown("post-processor", type, err);
}
