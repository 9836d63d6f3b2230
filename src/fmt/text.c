/* text.c -- see text.h. Integer arithmetic throughout, so that nothing depends on rounding modes or
 * the locale. */
#include "fmt/text.h"
#include <stdio.h>
#include <string.h>

typedef unsigned __int128 wide;

#define NS_US  1000ll
#define NS_MS  (1000 * NS_US)
#define NS_S   (1000 * NS_MS)
#define NS_MIN (60 * NS_S)
#define NS_H   (60 * NS_MIN)
#define S_DAY  86400ll

/* A decimal number: whole + frac / scale. Digits beyond what fits are dropped from the fraction. */
struct decimal {
    uint64_t whole, frac, scale;
    bool bare;         /* no point in it */
    const char *first; /* where it began */
};

static bool hex16(const char *s, uint64_t *ret_v);
static bool digits(const char **s, int count, int *ret_v);
static bool decimal_get(const char **s, struct decimal *ret_d);
static bool decimal_times(const struct decimal *d, uint64_t unit, uint64_t max, uint64_t *ret_v);
static int64_t days_of_date(int64_t year, int month, int day);
static void date_of_days(int64_t days, int64_t *ret_year, int *ret_month, int *ret_day);
static int month_days(int year, int month);
static bool date_time_get(const char **s, int64_t *ret_s);
static bool offset_get(const char **s, int64_t *ret_s);
static bool duration_sum(const char *s, uint64_t max, uint64_t *ret_ns);
static bool unit_get(const char **s, int64_t *ret_ns);
static size_t fraction_put(uint64_t part, uint64_t whole, char *out);
static bool size_unit_get(const char *s, uint64_t *ret_unit);
static enum rc part_copy(const char *from, size_t size, char *to, size_t cap, const char *what,
                         struct err *err);
static enum rc part_decode(const char *from, size_t size, char *to, size_t cap, const char *what,
                           struct err *err);
static enum rc authority_get(const char *s, size_t size, struct url *u, struct err *err);
static enum rc host_port_get(const char *s, size_t size, struct url *u, struct err *err);

/* ---- Names ---- */

void ltx_name_put(uint64_t txid_min, uint64_t txid_max, char out[LTX_NAME_SIZE])
{
    snprintf(out, LTX_NAME_SIZE, "%016llx-%016llx.ltx", (unsigned long long)txid_min,
             (unsigned long long)txid_max);
}

bool ltx_name_get(const char *name, uint64_t *ret_min, uint64_t *ret_max)
{
    uint64_t min, max;
    if (strlen(name) != LTX_NAME_SIZE - 1 || name[16] != '-' || strcmp(name + 33, ".ltx") != 0)
        return false;
    for (int i = 0; i < 33; i++)
        if (name[i] >= 'A' && name[i] <= 'F') return false; /* one spelling for one file */
    if (!hex16(name, &min) || !hex16(name + 17, &max) || min < 1 || min > max) return false;
    *ret_min = min;
    *ret_max = max;
    return true;
}

void txid_put(uint64_t txid, char out[17])
{
    snprintf(out, 17, "%016llx", (unsigned long long)txid);
}

enum rc txid_get(const char *text, uint64_t *ret_txid, struct err *err)
{
    if (strlen(text) != 16 || !hex16(text, ret_txid))
        return err_set(err, RC_INVALID, "transaction ID '%.40s': expected 16 hex digits", text);
    return RC_OK;
}

/* ---- Times ---- */

void time_put(int64_t ms, bool millis, char out[TIME_TEXT_SIZE])
{
    int64_t s = ms / 1000, rest = ms % 1000, year;
    if (rest < 0) s -= 1, rest += 1000;
    int64_t days = s / S_DAY, in_day = s % S_DAY;
    if (in_day < 0) days -= 1, in_day += S_DAY;
    int month, day;
    date_of_days(days, &year, &month, &day);
    int n = snprintf(out, TIME_TEXT_SIZE, "%04lld-%02d-%02dT%02d:%02d:%02d", (long long)year, month,
                     day, (int)(in_day / 3600), (int)(in_day / 60 % 60), (int)(in_day % 60));
    size_t used = (size_t)n;
    if (millis) used += fraction_put((uint64_t)rest, 1000, out + used);
    memcpy(out + used, "Z", 2);
}

enum rc time_get(const char *text, int64_t *ret_ms, struct err *err)
{
    const char *s = text;
    int64_t at, offset, ms = 0;
    bool ok = date_time_get(&s, &at);
    if (ok && *s == '.') {
        int count = 0, digit;
        for (s++; digits(&s, 1, &digit); count++)
            if (count < 3) ms = ms * 10 + digit;
        ok = count >= 1 && count <= 9;
        for (; count < 3; count++)
            ms *= 10;
    }
    if (!ok || !offset_get(&s, &offset) || *s != '\0')
        return err_set(err, RC_INVALID, "time '%.60s': expected RFC 3339, 2026-01-02T03:04:05Z",
                       text);
    *ret_ms = (at - offset) * 1000 + ms;
    return RC_OK;
}

/* ---- Durations ---- */

enum rc duration_get(const char *text, int64_t *ret_ns, struct err *err)
{
    const char *s = text;
    bool negative = *s == '-';
    uint64_t v;
    if (*s == '-' || *s == '+') s++;
    if (!duration_sum(s, INT64_MAX + (uint64_t)negative, &v))
        return err_set(err, RC_INVALID,
                       "duration '%.60s': expected numbers with units, like 1h30m, 1.5s or 250ms",
                       text);
    *ret_ns = (int64_t)(negative ? 0 - v : v);
    return RC_OK;
}

void duration_put(int64_t ns, char out[32])
{
    uint64_t v = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    size_t n = 0;
    if (ns < 0) out[n++] = '-';
    if (v == 0) {
        snprintf(out, 32, "0s");
    } else if (v < (uint64_t)NS_S) {
        uint64_t unit = v < (uint64_t)NS_US ? 1 : v < (uint64_t)NS_MS ? NS_US : NS_MS;
        const char *name = unit == 1 ? "ns" : unit == NS_US ? "\xC2\xB5s" : "ms";
        n += (size_t)snprintf(out + n, 32 - n, "%u", (unsigned)(v / unit));
        n += fraction_put(v % unit, unit, out + n);
        snprintf(out + n, 32 - n, "%s", name);
    } else {
        uint64_t s = v / NS_S;
        if (s >= 3600)
            n += (size_t)snprintf(out + n, 32 - n, "%lluh", (unsigned long long)s / 3600);
        if (s >= 60) n += (size_t)snprintf(out + n, 32 - n, "%um", (unsigned)(s / 60 % 60));
        n += (size_t)snprintf(out + n, 32 - n, "%u", (unsigned)(s % 60));
        n += fraction_put(v % NS_S, NS_S, out + n);
        snprintf(out + n, 32 - n, "s");
    }
}

/* ---- Sizes ---- */

enum rc size_get(const char *text, uint64_t *ret_bytes, struct err *err)
{
    const char *s = text;
    struct decimal d;
    uint64_t unit;
    while (*s == ' ')
        s++;
    bool ok = decimal_get(&s, &d);
    while (ok && *s == ' ')
        s++;
    if (!ok || !size_unit_get(s, &unit))
        return err_set(err, RC_INVALID,
                       "size '%.60s': expected a number and a unit, like 5MB, "
                       "1.5GiB or 4096",
                       text);
    if (!decimal_times(&d, unit, UINT64_MAX, ret_bytes))
        return err_set(err, RC_INVALID, "size '%.60s' is too large", text);
    return RC_OK;
}

void size_put(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    if (bytes < 10) {
        snprintf(out, 32, "%u B", (unsigned)bytes);
        return;
    }
    uint64_t unit = 1;
    int n = 0;
    for (; n < 6 && bytes / unit >= 1000; n++)
        unit *= 1000;
    uint64_t tenths = (uint64_t)(((wide)bytes * 20 / unit + 1) / 2), whole = tenths / 10;
    if (tenths < 100) {
        snprintf(out, 32, "%u.%u %s", (unsigned)whole, (unsigned)(tenths % 10), units[n]);
        return;
    }
    /* A half goes to the even neighbour, as printf("%.0f") does it. */
    if (tenths % 10 > 5 || (tenths % 10 == 5 && whole % 2 == 1)) whole++;
    snprintf(out, 32, "%u %s", (unsigned)whole, units[n]);
}

/* ---- URLs ---- */

enum rc url_get(const char *text, struct url *ret_url, struct err *err)
{
    struct url u = {0};
    size_t n = 0;
    while ((text[n] >= 'a' && text[n] <= 'z') || (text[n] >= 'A' && text[n] <= 'Z') ||
           (n > 0 && text[n] != '\0' && strchr("0123456789+-.", text[n]) != NULL))
        n++;
    if (n == 0 || strncmp(text + n, "://", 3) != 0) {
        TRY(part_copy(text, strlen(text), u.path, sizeof u.path, "path", err));
        *ret_url = u;
        return RC_OK;
    }
    TRY(part_copy(text, n, u.scheme, sizeof u.scheme, "scheme", err));
    for (char *c = u.scheme; *c != '\0'; c++)
        if (*c >= 'A' && *c <= 'Z') *c = (char)(*c - 'A' + 'a');
    const char *s = text + n + 3;
    size_t size = strcspn(s, "/?");
    TRY(authority_get(s, size, &u, err));
    s += size;
    size = strcspn(s, "?");
    TRY(part_copy(s, size, u.path, sizeof u.path, "path", err));
    s += size;
    if (*s == '?') TRY(part_copy(s + 1, strlen(s + 1), u.query, sizeof u.query, "query", err));
    *ret_url = u;
    return RC_OK;
}

/* ---- Private ---- */

static bool hex16(const char *s, uint64_t *ret_v)
{
    uint64_t v = 0;
    for (int i = 0; i < 16; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return false;
        v = v << 4 | (uint64_t)digit;
    }
    *ret_v = v;
    return true;
}

static bool digits(const char **s, int count, int *ret_v)
{
    int v = 0;
    for (int i = 0; i < count; i++) {
        char c = (*s)[i];
        if (c < '0' || c > '9') return false;
        v = v * 10 + (c - '0');
    }
    *s += count;
    *ret_v = v;
    return true;
}

static bool decimal_get(const char **s, struct decimal *ret_d)
{
    struct decimal d = {.scale = 1, .bare = true, .first = *s};
    int count = 0, digit;
    for (; digits(s, 1, &digit); count++) {
        if (__builtin_mul_overflow(d.whole, 10, &d.whole) ||
            __builtin_add_overflow(d.whole, (uint64_t)digit, &d.whole))
            return false;
    }
    if (**s == '.') {
        d.bare = false;
        for ((*s)++; digits(s, 1, &digit); count++) {
            if (d.scale >= 1000000000000000000u) continue;
            d.frac = d.frac * 10 + (uint64_t)digit;
            d.scale *= 10;
        }
    }
    *ret_d = d;
    return count > 0;
}

/* d * unit, rounded down; false above max. */
static bool decimal_times(const struct decimal *d, uint64_t unit, uint64_t max, uint64_t *ret_v)
{
    wide v = (wide)d->whole * unit + (wide)d->frac * unit / d->scale;
    if (v > max) return false;
    *ret_v = (uint64_t)v;
    return true;
}

/* Days since 1970-01-01. Years run from March here, so that a leap day is the last of its year. */
static int64_t days_of_date(int64_t year, int month, int day)
{
    int64_t y = year - (month <= 2), from_march = (month + 9) % 12;
    int64_t cycle = (y >= 0 ? y : y - 399) / 400, in_cycle = y - cycle * 400;
    int64_t in_year = (153 * from_march + 2) / 5 + day - 1;
    return cycle * 146097 + in_cycle * 365 + in_cycle / 4 - in_cycle / 100 + in_year - 719468;
}

static void date_of_days(int64_t days, int64_t *ret_year, int *ret_month, int *ret_day)
{
    days += 719468; /* since 0000-03-01 */
    int64_t cycle = (days >= 0 ? days : days - 146096) / 146097, day = days - cycle * 146097;
    /* Take out the leap days before `day`, and 365 divides what is left. */
    int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    int64_t in_year = day - (365 * year + year / 4 - year / 100);
    int64_t from_march = (5 * in_year + 2) / 153;
    *ret_day = (int)(in_year - (153 * from_march + 2) / 5 + 1);
    *ret_month = (int)(from_march < 10 ? from_march + 3 : from_march - 9);
    *ret_year = cycle * 400 + year + (*ret_month <= 2);
}

static int month_days(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

/* "2026-01-02T03:04:05", as seconds since 1970 if it were UTC. */
static bool date_time_get(const char **s, int64_t *ret_s)
{
    static const int widths[] = {4, 2, 2, 2, 2, 2};
    static const char after[] = "--T::";
    int v[6];
    for (int i = 0; i < 6; i++) {
        if (!digits(s, widths[i], &v[i])) return false;
        if (i == 5) break;
        if (**s != after[i] && !(after[i] == 'T' && **s == 't')) return false;
        (*s)++;
    }
    if (v[1] < 1 || v[1] > 12 || v[2] < 1 || v[2] > month_days(v[0], v[1])) return false;
    if (v[3] > 23 || v[4] > 59 || v[5] > 59) return false;
    *ret_s = days_of_date(v[0], v[1], v[2]) * S_DAY + v[3] * 3600 + v[4] * 60 + v[5];
    return true;
}

/* "Z" or "+01:30", in seconds east of UTC. */
static bool offset_get(const char **s, int64_t *ret_s)
{
    char sign = *(*s)++;
    int hours, minutes;
    *ret_s = 0;
    if (sign == 'Z' || sign == 'z') return true;
    if ((sign != '+' && sign != '-') || !digits(s, 2, &hours) || *(*s)++ != ':') return false;
    if (!digits(s, 2, &minutes) || hours > 23 || minutes > 59) return false;
    *ret_s = (hours * 60 + minutes) * 60 * (sign == '-' ? -1 : 1);
    return true;
}

static bool duration_sum(const char *s, uint64_t max, uint64_t *ret_ns)
{
    uint64_t sum = 0, part;
    const char *start = s;
    do {
        struct decimal d;
        int64_t unit = 1;
        if (!decimal_get(&s, &d)) return false;
        /* A bare integer is how YAML writers give nanoseconds (and "0" needs no unit). */
        bool alone = d.first == start && d.bare && *s == '\0';
        if (!alone && !unit_get(&s, &unit)) return false;
        if (!decimal_times(&d, (uint64_t)unit, max - sum, &part)) return false;
        sum += part;
    } while (*s != '\0');
    *ret_ns = sum;
    return true;
}

static bool unit_get(const char **s, int64_t *ret_ns)
{
    /* Two characters look like a micro sign: U+00B5 and the Greek letter U+03BC. */
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"ns", 1},     {"us", NS_US}, {"\xC2\xB5s", NS_US}, {"\xCE\xBCs", NS_US},
                 {"ms", NS_MS}, {"s", NS_S},   {"m", NS_MIN},        {"h", NS_H}};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        size_t size = strlen(units[i].name);
        if (strncmp(*s, units[i].name, size) != 0) continue;
        *s += size;
        *ret_ns = units[i].ns;
        return true;
    }
    return false;
}

/* ".25" for a part of whole (a power of ten), without trailing zeros; nothing for 0. */
static size_t fraction_put(uint64_t part, uint64_t whole, char *out)
{
    if (part == 0) {
        *out = '\0';
        return 0;
    }
    size_t n = 0;
    out[n++] = '.';
    for (; part != 0; part %= whole) {
        whole /= 10;
        out[n++] = (char)('0' + part / whole);
    }
    out[n] = '\0';
    return n;
}

/* "", "B", "k", "kB", "Ki", "KiB", ... in any case. */
static bool size_unit_get(const char *s, uint64_t *ret_unit)
{
    static const char prefixes[] = "kmgtpe";
    char low[4] = "";
    size_t n = strlen(s);
    if (n > 3) return false;
    for (size_t i = 0; i < n; i++)
        low[i] = (char)(s[i] >= 'A' && s[i] <= 'Z' ? s[i] + 32 : s[i]);
    const char *rest = low;
    uint64_t unit = 1;
    const char *prefix = *rest == '\0' ? NULL : strchr(prefixes, *rest);
    if (prefix != NULL) {
        bool binary = *++rest == 'i';
        if (binary) rest++;
        for (const char *p = prefixes; p <= prefix; p++)
            unit *= binary ? 1024 : 1000;
    }
    *ret_unit = unit;
    return *rest == '\0' || strcmp(rest, "b") == 0;
}

static enum rc part_copy(const char *from, size_t size, char *to, size_t cap, const char *what,
                         struct err *err)
{
    if (size >= cap)
        return err_set(err, RC_TOO_BIG, "URL: the %s is longer than %zu bytes", what, cap - 1);
    memcpy(to, from, size);
    to[size] = '\0';
    return RC_OK;
}

/* Like part_copy, with %XX replaced. The texts never show the part: it may be a password. */
static enum rc part_decode(const char *from, size_t size, char *to, size_t cap, const char *what,
                           struct err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < size; i++, n++) {
        char c = from[i];
        if (c == '%') {
            uint64_t v;
            char hex[17] = "00000000000000";
            if (size - i < 3)
                return err_set(err, RC_INVALID, "URL: the %s ends in a broken %%", what);
            memcpy(hex + 14, from + i + 1, 2);
            if (!hex16(hex, &v) || v == 0)
                return err_set(err, RC_INVALID, "URL: the %s has a bad percent-escape", what);
            c = (char)v;
            i += 2;
        }
        if (n + 1 >= cap)
            return err_set(err, RC_TOO_BIG, "URL: the %s is longer than %zu bytes", what, cap - 1);
        to[n] = c;
    }
    to[n] = '\0';
    return RC_OK;
}

static enum rc authority_get(const char *s, size_t size, struct url *u, struct err *err)
{
    const char *at = memrchr(s, '@', size);
    if (at != NULL) {
        size_t user = (size_t)(at - s);
        const char *colon = memchr(s, ':', user);
        if (colon != NULL) {
            size_t from = (size_t)(colon - s) + 1;
            TRY(part_decode(s + from, user - from, u->password, sizeof u->password, "password",
                            err));
            user = from - 1;
        }
        TRY(part_decode(s, user, u->user, sizeof u->user, "user", err));
        size -= (size_t)(at - s) + 1;
        s = at + 1;
    }
    return host_port_get(s, size, u, err);
}

static enum rc host_port_get(const char *s, size_t size, struct url *u, struct err *err)
{
    size_t host = size;
    const char *end = NULL, *colon;
    if (size > 0 && s[0] == '[') {
        end = memchr(s, ']', size);
        bool bad = end == NULL || (end + 1 < s + size && end[1] != ':');
        if (bad || memchr(s, ':', (size_t)(end - s)) == NULL || memrchr(s, '[', size) != s)
            return err_set(err, RC_INVALID, "URL: bad IPv6 host '%.*s'", (int)size, s);
        colon = end + 1 < s + size ? end + 1 : NULL;
        s++;
        host = (size_t)(end - s);
    } else {
        /* An S3 access point is named by an ARN, whose colons separate no port. */
        bool arn = size >= 4 && memcmp(s, "arn:", 4) == 0;
        colon = arn ? NULL : memrchr(s, ':', size);
        if (colon != NULL) host = (size_t)(colon - s);
        if (!arn && memchr(s, ':', host) != NULL)
            return err_set(err, RC_INVALID, "URL: bad host '%.*s'", (int)size, s);
    }
    if (colon != NULL) {
        const char *stop = s + size - (end != NULL);
        uint32_t port = 0;
        for (const char *c = colon + 1; c < stop; c++) {
            if (*c < '0' || *c > '9' || (port = port * 10 + (uint32_t)(*c - '0')) > UINT16_MAX)
                return err_set(err, RC_INVALID, "URL: bad port in '%.*s'", (int)size, s);
        }
        u->port = (uint16_t)port;
    }
    return part_copy(s, host, u->host, sizeof u->host, "host", err);
}
