/*
 * tool.h -- what the test programs share: a seeded generator, processes and files.
 *
 * Nothing here links Sluice, so a bug in `base` cannot hide itself in the programs that look for
 * it. A test program has nobody to report to: everything that cannot go on ends in die().
 *
 * Threads: one, except rng_* on separate generators.
 */
#ifndef HARNESS_TOOL_H
#define HARNESS_TOOL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TOOL_PATH_MAX 1024

_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Called once by die() with the message already printed; it may say how to reproduce. */
extern void (*tool_on_die)(void);

/* ---- A generator whose whole state is one word, so a seed reproduces a run. ---- */
struct rng {
    uint64_t state;
};
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t limit); /* [0, limit); limit > 0 */
int rng_between(struct rng *r, int low, int high); /* both included */
bool rng_percent(struct rng *r, int percent);
/* A generator of its own for (seed, part), independent of how much of others was used. */
struct rng rng_of(uint64_t seed, uint64_t part);
uint64_t tool_random_seed(void);

int64_t now_ms(void); /* monotonic */
int64_t now_us(void);
void sleep_ms(int64_t ms);

/* ---- Strings and options ---- */
void path_join(char out[TOOL_PATH_MAX], const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint64_t parse_u64(const char *what, const char *text); /* dies on nonsense */
/* Index of text in the NULL-terminated list; dies with the list when it is not there. */
int parse_choice(const char *what, const char *text, const char *const *names);

/* ---- Processes. A child dies with its parent, so an interrupted test leaves nothing. ---- */
struct spawn_opts {
    const char *log; /* stdout and stderr are appended here; NULL: inherited */
    const char *env; /* one NAME=value to add, or NULL */
};
pid_t spawn(const char *const *argv, struct spawn_opts opts);
/* Exit status (128 + signal when killed), or -1 when it still runs after timeout_ms. */
int wait_exit(pid_t pid, int64_t timeout_ms);
bool still_running(pid_t pid, int *ret_status); /* false: reaped, *ret_status as wait_exit */
/* spawn and wait; a child that exceeds timeout_ms is killed and gives 124. */
int run(const char *const *argv, struct spawn_opts opts, int64_t timeout_ms);
/* True when the program is a path that exists, or a name found in PATH. */
bool program_exists(const char *program);

/* ---- Files ---- */
bool file_exists(const char *path);
int64_t file_size(const char *path); /* -1: not there */
void make_dir(const char *path);     /* with parents */
void remove_tree(const char *path);  /* a missing one is fine */
void remove_file(const char *path);  /* a missing one is fine */
void copy_file(const char *from, const char *to);
void copy_tree(const char *from, const char *to);
void write_text(const char *path, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Offset of the first difference, -1 when the files are equal. */
int64_t first_difference(const char *a, const char *b);
/* Names in a folder in ascending order; the count. A missing folder is empty. Free each and all. */
size_t list_names(const char *path, char ***ret_names);
void free_names(char **names, size_t count);
#endif
