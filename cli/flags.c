// SPDX-License-Identifier: Apache-2.0
#include "cli/flags.h"

#include "base/buf.h"
#include "base/checked.h"
#include "base/os.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void qn_cli_error(const char *fmt, ...) {
    char line[1200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    qn_buf shown = {0};
    qn_buf_visible(&shown, line, strlen(line), false);
    fprintf(stderr, "quern: error: %s\n", shown.data ? shown.data : line);
    qn_buf_free(&shown);
}

bool qn_parse_size(const char *text, int64_t *out) {
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end == text || errno == ERANGE || !isfinite(v)) return false;
    static const struct {
        const char *suffix;
        double scale;
    } scales[] = {{"", 1}, {"k", 0x1p10}, {"m", 0x1p20}, {"g", 0x1p30}, {"t", 0x1p40}};
    for (size_t i = 0; i < QN_COUNT(scales); i++) {
        size_t n = strlen(scales[i].suffix);
        if (strncasecmp(end, scales[i].suffix, n) != 0) continue;
        const char *rest = end + n;
        if (*rest && (i == 0 || (strcasecmp(rest, "i") && strcasecmp(rest, "ib") &&
                                 strcasecmp(rest, "b")))) {
            continue;
        }
        v *= scales[i].scale;
        if (fabs(v) > 0x1p62 || v != floor(v)) return false;
        *out = (int64_t)v;
        return true;
    }
    return false;
}

static const qn_flag *find(const qn_flag_set *set, const char *name, size_t len, bool *negated) {
    *negated = false;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < set->n_flags; i++) {
            const qn_flag *f = &set->flags[i];
            if (strlen(f->name) == len && strncmp(f->name, name, len) == 0) return f;
        }
        if (len <= 3 || strncmp(name, "no-", 3) != 0) return NULL;
        name += 3;
        len -= 3;
        *negated = true;
    }
    return NULL;
}

// Stores a value; false with a message on stderr. where: "--port", "QUERN_PORT", "file.yaml: port".
static bool store(const qn_flag *f, const char *text, const char *where) {
    double number = 0;
    int64_t size = 0;
    char *end;
    switch (f->kind) {
    case QN_FLAG_BOOL:
        if (!strcasecmp(text, "true") || !strcmp(text, "1") || !strcasecmp(text, "yes")) {
            *(bool *)f->value = true;
        } else if (!strcasecmp(text, "false") || !strcmp(text, "0") || !strcasecmp(text, "no")) {
            *(bool *)f->value = false;
        } else {
            qn_cli_error("%s: '%s' is not true or false", where, text);
            return false;
        }
        return true;
    case QN_FLAG_INT:
        if (!qn_parse_size(text, &size)) {
            qn_cli_error("%s: '%s' is not a whole number", where, text);
            return false;
        }
        number = (double)size;
        break;
    case QN_FLAG_FLOAT:
        number = strtod(text, &end);
        if (end == text || *end || !isfinite(number)) {
            qn_cli_error("%s: '%s' is not a number", where, text);
            return false;
        }
        break;
    case QN_FLAG_TEXT: *(const char **)f->value = text; return true;
    case QN_FLAG_LIST: {
        qn_flag_list *list = f->value;
        if (list->n == QN_FLAG_LIST_MAX) {
            qn_cli_error("%s: at most %d values", where, QN_FLAG_LIST_MAX);
            return false;
        }
        list->items[list->n++] = text;
        return true;
    }
    }
    if ((f->min != 0 || f->max != 0) && (number < f->min || number > f->max)) {
        qn_cli_error("%s: %s is out of range, must be %.10g to %.10g", where, text, f->min, f->max);
        return false;
    }
    if (f->kind == QN_FLAG_INT) {
        *(int64_t *)f->value = size;
    } else {
        *(double *)f->value = number;
    }
    return true;
}

static void env_name(const qn_flag *f, char *name, size_t size) {
    size_t n = (size_t)snprintf(name, size, "QUERN_%s", f->name);
    for (size_t i = 6; i < n && i < size; i++) {
        name[i] = name[i] == '-' ? '_' : (char)toupper((unsigned char)name[i]);
    }
}

static bool read_environment(const qn_flag_set *set) {
    for (size_t i = 0; i < set->n_flags; i++) {
        char name[80];
        env_name(&set->flags[i], name, sizeof name);
        const char *value = getenv(name);
        // A Kubernetes service called "quern" injects QUERN_PORT=tcp://10.0.0.1:8000.
        if (!value || strncmp(value, "tcp://", 6) == 0) continue;
        if (set->flags[i].kind == QN_FLAG_LIST) ((qn_flag_list *)set->flags[i].value)->n = 0;
        if (!store(&set->flags[i], value, name)) return false;
    }
    return true;
}

// "name: value" lines, '#' comments, quotes around a value: the part of YAML that vLLM's files use.
// Flags point into the text: the caller frees it when it is done with them.
static bool read_config(const qn_flag_set *set, const char *path) {
    char *text;
    size_t size;
    qn_error err = {0};
    if (qn_os_read_file(path, 1 << 20, &text, &size, &err) != QN_OK) {
        qn_cli_error("--config: %s", err.message);
        return false;
    }
    int line_number = 0;
    bool ok = true;
    for (char *line = text, *next; ok && line && *line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = '\0';
        line_number++;
        while (*line == ' ' || *line == '\t') line++;
        if (*line == '\0' || *line == '#' || *line == '\r') continue;
        char where[300];
        snprintf(where, sizeof where, "%s:%d", path, line_number);
        char *colon = strchr(line, ':');
        bool negated = false;
        const qn_flag *f = NULL;
        if (colon) {
            for (char *c = line; c < colon; c++) {
                if (*c == '_') *c = '-';
            }
            f = find(set, line, (size_t)(colon - line), &negated);
        }
        if (!f) {
            qn_cli_error("%s: no such option", where);
            ok = false;
            break;
        }
        char *value = colon + 1;
        while (*value == ' ' || *value == '\t') value++;
        char *end = value + strlen(value);
        while (end > value && isspace((unsigned char)end[-1])) *--end = '\0';
        if (end - value >= 2 && (*value == '"' || *value == '\'') && end[-1] == *value) {
            end[-1] = '\0';
            value++;
        }
        if (negated && f->kind != QN_FLAG_BOOL) {
            qn_cli_error("%s: no such option", where);
            ok = false;
            break;
        }
        ok = store(f, value, where);
        if (ok && negated) *(bool *)f->value = !*(bool *)f->value;
    }
    *set->config_text = text;
    return ok;
}

void qn_flags_help(const qn_flag_set *set, FILE *out) {
    fprintf(out, "usage: %s\n\n%s\n\noptions:\n", set->usage, set->about);
    for (size_t i = 0; i < set->n_flags; i++) {
        const qn_flag *f = &set->flags[i];
        char left[80], def[80] = "";
        char letter[8] = "    ";
        if (f->letter) snprintf(letter, sizeof letter, "-%c, ", f->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, f->name, f->arg ? " " : "",
                 f->arg ? f->arg : "");
        // A number below zero stands for "not given".
        if (f->kind == QN_FLAG_INT && *(int64_t *)f->value > 0) {
            snprintf(def, sizeof def, " (default %lld)", (long long)*(int64_t *)f->value);
        } else if (f->kind == QN_FLAG_FLOAT && *(double *)f->value > 0) {
            snprintf(def, sizeof def, " (default %g)", *(double *)f->value);
        } else if (f->kind == QN_FLAG_TEXT && *(const char **)f->value) {
            snprintf(def, sizeof def, " (default %s)", *(const char **)f->value);
        } else if (f->kind == QN_FLAG_BOOL && *(bool *)f->value) {
            snprintf(def, sizeof def, " (on; --no-%s)", f->name);
        }
        fprintf(out, "  %-36s %s%s\n", left, f->help, def);
    }
    fprintf(out, "      %-32s %s\n", "--help", "this text");
    if (set->environment) {
        fprintf(out, "      %-32s %s\n", "--config FILE", "options as lines of \"name: value\"");
        fprintf(out, "\nEvery option may also be given in the environment: QUERN_ and the name in "
                     "capitals\n(QUERN_MAX_MODEL_LEN=4096). The command line wins over the "
                     "environment, which wins\nover the file. Sizes: 8k, 4GiB.\n");
    }
    if (set->examples) fprintf(out, "\nexamples:\n%s", set->examples);
}

static int usage_error(const qn_flag_set *set) {
    fprintf(stderr, "quern: see 'quern %s --help'\n", set->command);
    return 2;
}

int qn_flags_parse(const qn_flag_set *set, int argc, char **argv, const char **positional,
                   size_t max_positional, size_t *n_positional) {
    *n_positional = 0;
    const char *config = set->environment ? getenv("QUERN_CONFIG") : NULL;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            qn_flags_help(set, stdout);
            return 0;
        }
        if (set->environment && strncmp(argv[i], "--config=", 9) == 0) config = argv[i] + 9;
        if (set->environment && strcmp(argv[i], "--config") == 0 && i + 1 < argc) {
            config = argv[i + 1];
        }
    }
    if (set->environment && ((config && !read_config(set, config)) || !read_environment(set))) {
        return 2;
    }
    bool list_started[64] = {false}; // a list on the command line replaces an inherited one
    bool only_positional = false;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (only_positional || arg[0] != '-' || arg[1] == '\0') {
            if (*n_positional == max_positional) {
                qn_cli_error("unexpected argument '%s'", arg);
                return usage_error(set);
            }
            positional[(*n_positional)++] = arg;
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            only_positional = true;
            continue;
        }
        const qn_flag *f = NULL;
        const char *value = NULL;
        bool negated = false;
        if (arg[1] != '-') {
            for (size_t j = 0; j < set->n_flags; j++) {
                if (set->flags[j].letter && set->flags[j].letter == arg[1]) f = &set->flags[j];
            }
            if (arg[2]) value = arg + 2;
        } else {
            const char *eq = strchr(arg, '=');
            size_t len = eq ? (size_t)(eq - arg - 2) : strlen(arg + 2);
            if (set->environment && len == 6 && strncmp(arg + 2, "config", 6) == 0) {
                if (!eq && ++i == argc) {
                    qn_cli_error("option '%s' needs a value", arg);
                    return usage_error(set);
                }
                continue;
            }
            char name[64];
            snprintf(name, sizeof name, "%.*s", (int)QN_MIN(len, sizeof name - 1), arg + 2);
            for (char *c = name; *c; c++) {
                if (*c == '_') *c = '-';
            }
            f = find(set, name, strlen(name), &negated);
            if (eq) value = eq + 1;
        }
        if (!f || (negated && f->kind != QN_FLAG_BOOL)) {
            qn_cli_error("unknown option '%s'", arg);
            return usage_error(set);
        }
        if (f->kind == QN_FLAG_BOOL && !value) {
            *(bool *)f->value = !negated;
            continue;
        }
        if (!value && i + 1 < argc) value = argv[++i];
        if (!value) {
            qn_cli_error("option '%s' needs a value", arg);
            return usage_error(set);
        }
        size_t index = (size_t)(f - set->flags);
        if (f->kind == QN_FLAG_LIST && index < QN_COUNT(list_started) && !list_started[index]) {
            ((qn_flag_list *)f->value)->n = 0;
            list_started[index] = true;
        }
        if (!store(f, value, arg)) return usage_error(set);
        while (f->kind == QN_FLAG_LIST && i + 1 < argc && argv[i + 1][0] != '-' &&
               *n_positional > 0) {
            if (!store(f, argv[++i], arg)) return usage_error(set);
        }
    }
    return -1;
}
