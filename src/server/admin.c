/* admin.c -- the administrator's port. */
#include "server/server_intern.h"

void admin_handle(void *server, struct http_req *r)
{
    (void)server;
    http_reply_text(r, 501, "text/plain", "not here yet");
}
