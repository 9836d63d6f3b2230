/*
 * restore_pages.h -- carry out a plan: the pages of its files into one database file.
 *
 * Only restore*.c include this file.
 */
#ifndef LOG_RESTORE_PAGES_H
#define LOG_RESTORE_PAGES_H
#include "log/restore.h"

/* Write the database that the plan describes into fd, an empty file, and check it: by the digest
 * when the newest file carries one, else by the checksum of every file. Does not sync.
 * *reterr_gone: index of the planned file that is not in the store any more, else plan->count; set
 * on failure too.
 * Fails: RC_NOT_FOUND a planned file is gone; RC_CORRUPT; RC_NO_MEM; RC_CANCELED; as store_get;
 * as os_pwrite. */
MUST_CHECK enum rc restore_pages(const struct log *lg, const struct call *c,
                                 const struct restore_opts *opts, const struct log_files *plan,
                                 int fd, struct restore_result *ret_result, size_t *reterr_gone,
                                 struct err *err);
#endif
