/*
 * fault.h -- the seam where tests make the n-th fallible step fail, or die.
 *
 * Every allocation, syscall and store call passes fault_hit() with its class. A test arms a
 * countdown with fault_arm(); a child process of the crash harness arms one from the environment:
 *
 *   SLUICE_FAULT=kill:syscall:N    raise SIGKILL just before the N-th syscall of this process
 *   SLUICE_FAULT=fail:syscall:N    fail it (ENOSPC), once
 *
 * Without the build option SLUICE_TEST_HOOKS the calls compile to nothing.
 *
 * Threads: any; the countdown is atomic and process-wide.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H
#include <stdbool.h>
#include <stdint.h>

enum fault_class {
    FAULT_ALLOC = 1 << 0,
    FAULT_SYSCALL = 1 << 1,
    FAULT_STORE = 1 << 2,
};

#ifdef SLUICE_TEST_HOOKS
/* True when this step must fail. `what` names the step, for fault_last(). */
bool fault_hit(enum fault_class cls, const char *what);
#else
static inline bool fault_hit(enum fault_class cls, const char *what)
{
    (void)cls, (void)what;
    return false;
}
#endif

/* Let the nth step (from 1) of the given classes fail; `sticky`: and all after it. 0 disarms. */
void fault_arm(unsigned classes, uint64_t nth, bool sticky);
bool fault_fired(void);       /* did an armed fault fire since fault_arm? */
uint64_t fault_count(void);   /* steps of the armed classes seen since fault_arm */
const char *fault_last(void); /* name of the step that last failed, or "" */
void fault_arm_from_env(void);
#endif
