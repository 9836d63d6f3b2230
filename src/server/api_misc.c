/* api_misc.c -- dump, and the statements API of libSQL's first days. */
#include "server/server_intern.h"

void api_legacy(struct ask *a)
{
    ask_fail_text(a, 501, "NOT_YET", "not here yet");
}

void api_dump(struct ask *a)
{
    ask_fail_text(a, 501, "NOT_YET", "not here yet");
}
