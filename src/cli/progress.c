/* progress.c -- see progress.h. */
#include "cli/progress.h"
#include "base/os.h"
#include "base/thr.h"
#include "fmt/text.h"
#include <stdio.h>
#include <unistd.h>

#define SHOW_EVERY_MS 100
#define RATE_AFTER_MS 500 /* an earlier rate says nothing */

void progress_init(struct progress *p)
{
    *p = (struct progress){.on = isatty(STDERR_FILENO) == 1,
                           .lock = PTHREAD_MUTEX_INITIALIZER,
                           .start_ms = os_mono_ms()};
}

void progress_update(void *ctx, const struct restore_progress *now)
{
    struct progress *p = ctx;
    char text[160];
    if (!p->on) return;
    thr_lock(&p->lock);
    int64_t t = os_mono_ms();
    if (t - p->shown_ms >= SHOW_EVERY_MS) {
        p->shown_ms = t;
        progress_text(now, t - p->start_ms, text, sizeof text);
        fprintf(stderr, "\r\033[K%s", text);
    }
    thr_unlock(&p->lock);
}

void progress_step(struct progress *p, const char *text)
{
    if (!p->on) return;
    thr_lock(&p->lock);
    p->shown_ms = os_mono_ms();
    fprintf(stderr, "\r\033[K%s", text);
    thr_unlock(&p->lock);
}

void progress_end(struct progress *p)
{
    if (p->on && p->shown_ms != 0) fprintf(stderr, "\r\033[K");
    p->on = false;
}

void progress_text(const struct restore_progress *now, int64_t elapsed_ms, char *out, size_t size)
{
    char done[32], total[32], rate[32];
    unsigned percent = 0;
    if (now->bytes_total > 0)
        percent = (unsigned)((double)now->bytes_done * 100 / (double)now->bytes_total);
    size_put(now->bytes_done, done);
    size_put(now->bytes_total, total);
    int n = snprintf(out, size, "%s of %s (%u%%)", done, total, percent > 100 ? 100 : percent);
    if (elapsed_ms < RATE_AFTER_MS || now->bytes_done == 0 || n < 0 || (size_t)n >= size) return;
    double per_ms = (double)now->bytes_done / (double)elapsed_ms;
    uint64_t left = now->bytes_total > now->bytes_done ? now->bytes_total - now->bytes_done : 0;
    size_put((uint64_t)(per_ms * 1000), rate);
    snprintf(out + n, size - (size_t)n, ", %s/s, %llu s left", rate,
             (unsigned long long)((double)left / per_ms / 1000 + 0.5));
}
