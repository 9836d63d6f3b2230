/* fault.c -- countdown faults; see fault.h. */
#include "base/fault.h"
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_uint armed_classes;
static atomic_uint_fast64_t armed_nth, seen;
static atomic_bool armed_sticky, armed_kill, fired;
static _Atomic(const char *) last_step = "";

#ifdef SLUICE_TEST_HOOKS
bool fault_hit(enum fault_class cls, const char *what)
{
    if (!(atomic_load_explicit(&armed_classes, memory_order_relaxed) & (unsigned)cls)) return false;
    uint64_t nth = atomic_load(&armed_nth);
    uint64_t now = atomic_fetch_add(&seen, 1) + 1;
    if (nth == 0 || now < nth || (now > nth && !atomic_load(&armed_sticky))) return false;
    if (atomic_load(&armed_kill)) kill(getpid(), SIGKILL);
    atomic_store(&last_step, what);
    atomic_store(&fired, true);
    return true;
}
#endif

void fault_arm(unsigned classes, uint64_t nth, bool sticky)
{
    atomic_store(&armed_classes, 0);
    atomic_store(&armed_nth, nth);
    atomic_store(&armed_sticky, sticky);
    atomic_store(&armed_kill, false);
    atomic_store(&seen, 0);
    atomic_store(&fired, false);
    atomic_store(&last_step, "");
    atomic_store(&armed_classes, classes);
}

bool fault_fired(void)
{
    return atomic_load(&fired);
}

uint64_t fault_count(void)
{
    return atomic_load(&seen);
}

const char *fault_last(void)
{
    return atomic_load(&last_step);
}

void fault_arm_from_env(void)
{
    const char *spec = getenv("SLUICE_FAULT");
    char how[8], cls[16];
    unsigned long long nth;
    if (spec == NULL || sscanf(spec, "%7[a-z]:%15[a-z]:%llu", how, cls, &nth) != 3) return;
    unsigned bits = strcmp(cls, "alloc") == 0   ? FAULT_ALLOC
                    : strcmp(cls, "store") == 0 ? FAULT_STORE
                                                : FAULT_SYSCALL;
    fault_arm(bits, nth, false);
    atomic_store(&armed_kill, strcmp(how, "kill") == 0);
}
