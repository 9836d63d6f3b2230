/*
 * restore_bench.c -- how long does a restore from a local store take, against a copy of the file?
 *
 *   restore_bench FOLDER [MEGABYTES] [ROUNDS] [PARALLELISM]
 *
 * Makes a database image of pages that shrink to about half, and its log in FOLDER (a snapshot and
 * 50 batches of changes), then copies the image and restores the log, in turn, both to disk (fsync
 * counts). One JSON line a round, with the restore's peak memory. Once with a digest, once without
 * (as Litestream writes: every file is read whole).
 */
#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"
#include "fmt/ltx.h"
#include "log/restore.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE_SIZE   4096
#define BATCHES     50
#define BATCH_PAGES 200

struct bench {
    char image[512], out[512], store[512];
    uint32_t page_count;
    struct digest digest;
};

static void die(const struct err *err)
{
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}
#define OK(expr)                                                                                   \
    do {                                                                                           \
        if ((expr) != RC_OK) die(&err);                                                            \
    } while (0)

static void fill(uint8_t *page, uint64_t seed)
{
    uint64_t x = seed * 0x9E3779B97F4A7C15u + 1;
    for (int i = 0; i < PAGE_SIZE; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        page[i] = i % 8 < 5 ? (uint8_t) "the price of an item is"[(i / 8 + i % 8) % 23]
                            : (uint8_t)('0' + x % 16);
    }
}

static void drain(int fd, struct buf *b, uint64_t *off)
{
    struct err err;
    OK(os_pwrite(fd, b->data, b->size, *off, &err));
    *off += b->size;
    buf_reset(b);
}

/* Write one file of the log, straight into the store's folder. count pages, chosen by stride. */
static void make_file(struct bench *b, uint64_t min, uint64_t max, uint32_t count, bool digests,
                      int image)
{
    struct ltx_header h = {.flags = LTX_FLAG_NO_CHECKSUM,
                           .page_size = PAGE_SIZE,
                           .page_count = b->page_count,
                           .txid_min = min,
                           .txid_max = max,
                           .timestamp_ms = (int64_t)max,
                           .has_digest = digests};
    struct buf frames = BUF_INIT, index = BUF_INIT;
    uint8_t head[LTX_HEADER_SIZE], trailer[LTX_TRAILER_SIZE], page[PAGE_SIZE], old[PAGE_SIZE];
    struct ltx_encoder *enc;
    uint64_t off = sizeof head;
    struct err err;
    size_t got;
    char path[768];
    int fd;
    snprintf(path, sizeof path, "%s/ltx/%d", b->store, min == 1 ? 9 : 0);
    OK(os_mkdirs(path, 0700, &err));
    snprintf(path, sizeof path, "%s/ltx/%d/%016llx-%016llx.ltx", b->store, min == 1 ? 9 : 0,
             (unsigned long long)min, (unsigned long long)max);
    OK(os_open(path, O_RDWR | O_CREAT | O_TRUNC, 0600, &fd, &err));
    OK(ltx_encoder_new(PAGE_SIZE, LTX_ENC_BLOCK, &enc, &err));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t pgno = 1 + (uint32_t)((uint64_t)i * b->page_count / count);
        uint64_t at = (uint64_t)(pgno - 1) * PAGE_SIZE;
        if (pgno == ltx_lock_page(PAGE_SIZE)) continue;
        fill(page, max << 32 | pgno);
        if (min > 1) {
            OK(os_pread(image, old, sizeof old, at, &got, &err));
            b->digest = digest_sub(b->digest, digest_page(pgno, old, sizeof old));
        }
        b->digest = digest_add(b->digest, digest_page(pgno, page, sizeof page));
        OK(os_pwrite(image, page, sizeof page, at, &err));
        OK(ltx_encoder_page(enc, pgno, page, &frames, &index, &err));
        if (frames.size > 1 << 20) drain(fd, &frames, &off);
    }
    h.digest = digests ? b->digest : (struct digest){0};
    OK(ltx_encoder_finish(enc, &h, &frames, &index, head, trailer, &err));
    drain(fd, &frames, &off);
    drain(fd, &index, &off);
    OK(os_pwrite(fd, trailer, sizeof trailer, off, &err));
    OK(os_pwrite(fd, head, sizeof head, 0, &err));
    ltx_encoder_free(enc);
    buf_fini(&frames);
    buf_fini(&index);
    os_close(fd);
}

static void make_log(struct bench *b, bool digests)
{
    struct err err;
    int image;
    b->digest = (struct digest){0};
    OK(os_open(b->image, O_RDWR | O_CREAT | O_TRUNC, 0600, &image, &err));
    make_file(b, 1, 1, b->page_count, digests, image);
    for (uint64_t t = 2; t < 2 + BATCHES; t++)
        make_file(b, t, t, BATCH_PAGES, digests, image);
    os_close(image);
    sync();
}

static void run_child(int64_t *ret_ms, long *ret_kb, char *const argv[], struct bench *b,
                      unsigned parallelism)
{
    struct rusage use;
    int status;
    int64_t start = os_mono_ms();
    pid_t pid = fork();
    if (pid == 0 && argv != NULL) {
        execvp(argv[0], argv);
        _exit(127);
    }
    if (pid == 0) {
        struct log lg;
        struct restore_result res;
        struct err err;
        struct restore_opts opts = {.out_path = b->out, .parallelism = parallelism};
        OK(store_open(b->store, &lg.store, &err));
        OK(restore_run(&lg, NULL, &opts, &res, &err));
        _exit(0);
    }
    wait4(pid, &status, 0, &use);
    if (status != 0) exit(1);
    *ret_ms = os_mono_ms() - start;
    *ret_kb = use.ru_maxrss;
}

int main(int argc, char **argv)
{
    struct bench b;
    char copy[1700], cmp[1100];
    if (argc < 2) return 2;
    unsigned megabytes = argc > 2 ? (unsigned)atoi(argv[2]) : 1024;
    int rounds = argc > 3 ? atoi(argv[3]) : 3;
    unsigned parallelism = argc > 4 ? (unsigned)atoi(argv[4]) : 0;
    snprintf(b.image, sizeof b.image, "%s/image.db", argv[1]);
    snprintf(b.out, sizeof b.out, "%s/out.db", argv[1]);
    snprintf(b.store, sizeof b.store, "%s/store", argv[1]);
    snprintf(copy, sizeof copy, "cp '%s' '%s' && sync '%s'", b.image, b.out, b.out);
    snprintf(cmp, sizeof cmp, "cmp '%s' '%s'", b.image, b.out);
    b.page_count = megabytes * (1024 * 1024 / PAGE_SIZE);
    for (int digests = 1; digests >= 0; digests--) {
        make_log(&b, digests);
        for (int i = 0; i < rounds; i++) {
            char *cp[] = {"sh", "-c", copy, NULL};
            int64_t cp_ms, ms;
            long cp_kb, kb;
            run_child(&cp_ms, &cp_kb, cp, &b, 0);
            unlink(b.out);
            sync();
            run_child(&ms, &kb, NULL, &b, parallelism);
            if (system(cmp) != 0) return 1;
            unlink(b.out);
            sync();
            printf("{\"bench\":\"restore\",\"mb\":%u,\"digest\":%s,\"cp_ms\":%lld,"
                   "\"restore_ms\":%lld,\"ratio\":%.2f,\"rss_mb\":%.1f}\n",
                   megabytes, digests ? "true" : "false", (long long)cp_ms, (long long)ms,
                   (double)ms / (double)cp_ms, (double)kb / 1024);
            fflush(stdout);
        }
    }
    return 0;
}
