/*
 * replay.c -- runs a fuzz target without libFuzzer.
 *
 *   fuzz_replay_X            two seconds of mutated seeds; SLUICE_SEED repeats a run's sequence
 *   fuzz_replay_X file...    the given inputs, as a crash left them
 *
 * The input of an abort is left in ./fuzz_replay.bin.
 */
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>
#include "base/os.h"
#include "fmt/noise.h"
#include "fuzz/fuzz.h"

#define RUN_MS 2000

static uint8_t input[FUZZ_SIZE_MAX];
static size_t input_size;

static void save_input(int sig)
{
    int fd = open("fuzz_replay.bin", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0 && write(fd, input, input_size) == (ssize_t)input_size) close(fd);
    signal(sig, SIG_DFL);
    raise(sig);
}

static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        return 1;
    }
    input_size = fread(input, 1, sizeof input, f);
    fclose(f);
    LLVMFuzzerTestOneInput(input, input_size);
    return 0;
}

/* Numbers that sit on some edge. */
static uint64_t edge(void)
{
    uint64_t v = 1ull << noise() % 64;
    return v - noise() % 3 + 1;
}

static void mutate(void)
{
    size_t at = input_size > 0 ? noise() % input_size : 0;
    size_t left = input_size - at, n = 1 + noise() % 8;
    uint64_t v = noise() % 2 == 0 ? edge() : noise();
    switch (noise() % 7) {
    case 0: /* flip a bit */
        if (left > 0) input[at] ^= (uint8_t)(1u << noise() % 8);
        break;
    case 1: /* write a number, in either order */
        if (noise() % 2 == 0) v = __builtin_bswap64(v) >> (noise() % 2 * 32);
        memcpy(input + at, &v, n < left ? n : left);
        break;
    case 2: /* cut out */
        if (n > left) n = left;
        memmove(input + at, input + at + n, left - n);
        input_size -= n;
        break;
    case 3: /* put in */
        if (input_size + n > sizeof input) break;
        memmove(input + at + n, input + at, left);
        memcpy(input + at, &v, n);
        input_size += n;
        break;
    case 4: /* cut off */
        if (noise() % 8 == 0) input_size = at;
        break;
    case 5: /* copy a piece over another */
        if (left > 0) {
            size_t from = noise() % input_size, room = input_size - (from > at ? from : at);
            n = noise() % 64 < room ? noise() % 64 : room;
            if (n > room) n = room;
            memmove(input + at, input + from, n);
        }
        break;
    default: /* nudge a byte */
        if (left > 0) input[at] = (uint8_t)(input[at] + noise() % 3 - 1);
        break;
    }
}

int main(int argc, char **argv)
{
    signal(SIGABRT, save_input);
    signal(SIGSEGV, save_input);
    int failed = 0;
    for (int i = 1; i < argc; i++)
        failed |= run_file(argv[i]);
    if (argc > 1) return failed;

    noise_seed();
    fflush(stdout);
    int64_t end = os_mono_ms() + RUN_MS;
    uint64_t runs = 0;
    do {
        input_size = fuzz_seed((unsigned)(noise() % 64), input);
        for (uint64_t n = runs % 8 == 0 ? 0 : 1 + noise() % 6; n > 0; n--)
            mutate();
        LLVMFuzzerTestOneInput(input, input_size);
        runs++;
    } while (runs % 64 != 0 || os_mono_ms() < end);
    printf("%llu inputs\n", (unsigned long long)runs);
    return 0;
}
